"""`python -m opensvm.sandbox`: the sandbox as a process of its own, which ends with its parent."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from opensvm.sandbox.app import Sandbox, utc_now
from opensvm.sandbox.control import WELCOME
from opensvm.sandbox.keys import ensure_keys_file, new_key, sandbox_keys
from opensvm.sandbox.parent import ParentGone, die_with_parent
from opensvm.sandbox.server import Server


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if not options.stay:
            die_with_parent()
        sandbox = _furnish(Sandbox(), options)
        asyncio.run(_serve(Server(sandbox, options.host, options.port)))
    except ParentGone:
        return 0
    except (OSError, ValueError) as exc:
        print(f"The sandbox can't start: {exc}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m opensvm.sandbox", description=WELCOME)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, which is printed")
    parser.add_argument("--keys-file", type=Path, help="keys, one a line; made with three new ones if missing")
    parser.add_argument("--key", action="append", default=[], help="a key to know; may be given again")
    parser.add_argument("--stay", action="store_true", help="go on when the parent process ends")
    return parser


def _furnish(sandbox: Sandbox, options: argparse.Namespace) -> Sandbox:
    """With the keys asked for, or a single one that is printed."""
    known = [*(ensure_keys_file(options.keys_file) if options.keys_file else ()), *options.key]
    if not known:
        known = list(sandbox_keys(1))
        print(f"A key of the sandbox: {known[0]}", flush=True)
    for number, secret in enumerate(known, start=1):
        new_key(sandbox.keys, utc_now(), secret=secret, name=f"sandbox-{number}")
    return sandbox


async def _serve(server: Server) -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # where there are no POSIX signals, Ctrl-C still raises
            loop.add_signal_handler(number, stop.set)
    await server.start()
    print(f"OpenSVM Sandbox (not OpenRouter) at {server.url}/api/v1", flush=True)
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    sys.exit(main())
