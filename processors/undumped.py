"""What a process does that holds keys or texts, so that they stay in it."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def leave_no_core() -> None:
    """This process writes no core dump, and no other may look into it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        # A crash handler that is fed over a pipe does not mind the limit above, but this; nor may others attach.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
