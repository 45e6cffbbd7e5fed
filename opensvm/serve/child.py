"""Runs one module as a child of `serve` that dies with it: `python child.py PARENT_PID MODULE ARGUMENT…`.

Only the standard library is imported before the module starts.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PR_SET_PDEATHSIG = 1


def die_with(parent_pid: int) -> None:
    """Have the kernel send us SIGTERM when the parent ends, also by SIGKILL; end now if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        sys.exit(1)


def main(arguments: list[str]) -> None:
    parent_pid, module, *rest = arguments
    die_with(int(parent_pid))
    os.environ["OPENSVM_SERVE"] = parent_pid
    sys.path[0] = str(ROOT)  # instead of this file's own folder
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
