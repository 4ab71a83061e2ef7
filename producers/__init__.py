"""Floor 2: what a service carries. Enters: calls as they happen. Leaves: envelopes in the durable log.

Imports `schemas` only; never `processors` or `sinks`, so that the base install stays light.
"""
