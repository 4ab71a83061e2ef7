"""Floor 1: what every record looks like. Enters: bytes. Leaves: validated records, or `InvalidEvent`.

Every other room may import this one; it imports none of them.
"""
