"""Ends this process with its parent, so that a killed `serve` leaves no sandbox behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


class ParentGone(Exception):
    """The parent process ended before this one was ready."""


def die_with_parent() -> None:
    """Linux sends SIGTERM when the thread that started this process ends; elsewhere nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise ParentGone
