"""Makes `.venv` from the pinned requirements if it is missing or stale, and continues in it.

`bin/serve`, `bin/test`, `bin/bench` and `manage.py` come here with whatever python3 there is, so this file uses the
standard library only, and nothing in it that an older Python can't parse: it shall be able to say what is wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
PROGRAMS = {  # command: (requirements, program and its first arguments)
    "serve": ("requirements.txt", ("manage.py", "serve")),
    "test": ("requirements-dev.txt", (os.path.join("tests", "run.py"),)),
    "bench": ("requirements-dev.txt", (os.path.join("bench", "run.py"),)),
}
NEEDED_MODULES = ("django", "rest_framework", "celery", "granian", "cryptography", "dotenv", "dj_database_url")
STAMP_NAME = "opensvm-requirements.json"
PIP_OUTPUT_LINES = 15


class BootstrapError(Exception):
    """`.venv` can't be made; the message says what to do."""


class Venv:
    """A virtual environment that knows, by a stamp, from which requirements it was made.

    The stamp is written last and removed first, so an interrupted installation is never taken for a whole one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.python = self.folder / "bin" / "python"
        self._stamp = self.folder / STAMP_NAME

    def is_current(self, requirements: str) -> bool:
        return self._is_whole() and self._installed().get(requirements) == self.digest(requirements)

    def bring_up_to_date(self, requirements: str) -> None:
        """Install what is missing; build anew when the environment is half-made or of another Python."""
        installed = self._installed() if self._is_whole() else {}
        if not installed:
            self._build()
        self._stamp.unlink(missing_ok=True)
        self._install(requirements)
        self.write_stamp({**installed, requirements: self.digest(requirements)})

    def write_stamp(self, installed: dict[str, str]) -> None:
        """Say that everything in `installed`, digests by requirements file, is there."""
        temporary = self._stamp.with_suffix(".new")
        temporary.write_text(json.dumps({**installed, "python": sys.implementation.cache_tag}))
        os.replace(temporary, self._stamp)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock that keeps two starts from making one environment at the same time."""
        path = self.root / ".cache" / "venv.lock"
        path.parent.mkdir(exist_ok=True)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("Waiting for another start that makes .venv ...")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _is_whole(self) -> bool:
        return os.access(str(self.python), os.X_OK) and self._content().get("python") == sys.implementation.cache_tag

    def _installed(self) -> dict[str, str]:
        return {name: digest for name, digest in self._content().items() if name != "python"}

    def _content(self) -> dict[str, str]:
        try:
            found = json.loads(self._stamp.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def digest(self, requirements: str) -> str:
        return hashlib.sha256((self.root / requirements).read_bytes()).hexdigest()

    def _build(self) -> None:
        if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
            raise BootstrapError(
                "This Python can't make a virtual environment: install its venv module "
                "(on Debian and Ubuntu: apt install python3-venv) and start again."
            )
        say("Making .venv ...")
        if self.folder.is_symlink() or self.folder.is_file():
            self.folder.unlink()
        shutil.rmtree(str(self.folder), ignore_errors=True)
        base = getattr(sys, "_base_executable", None) or sys.executable  # we may run in the one that was just removed
        self._run([base, "-m", "venv", str(self.folder)], "Making .venv failed")

    def _install(self, requirements: str) -> None:
        path = self.root / requirements
        packages = len(re.findall(r"^[A-Za-z0-9].*==", path.read_text(), re.MULTILINE))
        say(f"Installing {packages} packages from {requirements} (the first time takes a minute) ...")
        command = [str(self.python), "-m", "pip", "install", "--require-hashes", "--no-input", "-q", "-r", str(path)]
        self._run([*command, "--disable-pip-version-check"], f"Installing {requirements} failed")

    def _run(self, command: list[str], complaint: str) -> None:
        environment = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
        environment.pop("PYTHONHOME", None)
        done = subprocess.run(  # noqa: S603  # our own command, no shell
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode:
            lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
            say("\n".join(lines[-PIP_OUTPUT_LINES:]))
            raise BootstrapError(f"{complaint}: see the lines above, and start again when it is mended.")


def main(arguments: list[str]) -> int:
    """Continue as the program that `arguments` starts with, in an up-to-date `.venv`."""
    requirements, program = PROGRAMS[arguments[0]]
    try:
        check_python(sys.version_info[:2])
        prepare(Venv(ROOT), requirements)
    except BootstrapError as exc:
        say(str(exc))
        return 1
    except OSError as exc:
        say(f"{exc.filename or ROOT}: {exc.strerror}. The project's folder must be writable for the first start.")
        return 1
    except KeyboardInterrupt:
        return 130
    return _continue_in(Venv(ROOT), [str(ROOT / program[0]), *program[1:], *arguments[1:]])


def check_python(version: tuple[int, ...]) -> None:
    if version < OLDEST_PYTHON:
        raise BootstrapError(
            f"Python {version[0]}.{version[1]} is too old: this service needs 3.11 or newer. "
            "Install one and name it, as in: PYTHON=python3.12 bin/serve"
        )


def prepare(venv: Venv, requirements: str) -> None:
    """Make sure that `venv` holds what `requirements` pins; quick when it does."""
    if venv.is_current(requirements):
        return
    with venv.locked():
        if not venv.is_current(requirements):  # the one we waited for may have made it
            venv.bring_up_to_date(requirements)


def continue_in_venv(arguments: list[str]) -> None:
    """For `manage.py`: go on in `.venv` when this Python lacks our packages; stop with a sentence without one."""
    if all(importlib.util.find_spec(name) for name in NEEDED_MODULES):
        return
    venv = Venv(ROOT)
    if os.path.realpath(sys.prefix) == os.path.realpath(str(venv.folder)) or not os.access(str(venv.python), os.X_OK):
        say("This Python has no Django and there is no usable .venv yet: run bin/serve first, which makes it.")
        sys.exit(1)
    _continue_in(venv, arguments)


def say(text: str) -> None:
    """To stderr: stdout is for the service's own lines."""
    print(text, file=sys.stderr, flush=True)


def _continue_in(venv: Venv, arguments: list[str]) -> NoReturn:
    os.execv(str(venv.python), [str(venv.python), *arguments])  # noqa: S606  # no shell wanted


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
