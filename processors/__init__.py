"""Floor 3: the pure steps, and the topology that names them. Enters: records and a clock. Leaves: outputs and new state.

A step does not await, read a clock or touch a socket; the engines (floor 4: `embedded/`, later Faust) do that for it.
"""
