"""One hypothesis profile for a developer's patience, one for a machine's. No deadline: timings belong in `bench/`."""

from __future__ import annotations

import os
import resource
import signal

from hypothesis import HealthCheck, settings
from kafka_broker import kafka, kafka_url

__all__ = ["kafka", "kafka_url"]  # fixtures for everybody

settings.register_profile("local", max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), max_examples=500, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# pytest-xdist tells its processes how wide the terminal is, and rich would keep to that whatever a test says later.
os.environ.pop("COLUMNS", None)

# A shell that starts the tests in the background has them ignore Ctrl-C, and commands under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# chDB leaves three open files for each thread of a store that was closed, and the tests open hundreds of stores.
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
