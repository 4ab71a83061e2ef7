"""Benchmarks: ratios against what one would use without Tidegate, both sides in one run on one machine.

    python -m bench [names…] [--quick] [--write]

Enters: simulated calls (`traffic`). Leaves: tables (`report`), on the screen and in docs/benchmarks.md between markers.
Not shipped; nothing imports it but its tests.
"""
