"""What a process does that holds keys or texts, so that they stay in it, and it does not outlive whoever it works for."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4


def leave_no_core() -> None:
    """This process writes no core dump, and no other may look into it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        # A crash handler that is fed over a pipe does not mind the limit above, but this; nor may others attach.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def end_with_parent() -> None:
    """This process is killed when the thread that started it ends: one that hangs does not notice that the other end of its
    line is gone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
