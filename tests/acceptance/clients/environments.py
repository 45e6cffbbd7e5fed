"""The clients' own environments, made once under `.cache/clients/` by pip and npm.

Whatever can't be had here (no node, no registry) raises `Unavailable`; its tests are skipped with one visible line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[3] / ".cache" / "clients"
INSTALL_SECONDS = 180.0
_DONE = "installed"
# Without a registry it shall be said soon.
_PIP_OPTIONS = ("--quiet", "--retries", "1", "--timeout", "20")
_NPM_OPTIONS = (
    *("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"),
    *("--fetch-retries=1", "--fetch-timeout=20000"),
)


class Unavailable(Exception):
    """This client can't be had on this machine; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class PythonClient:
    """A package from PyPI in a venv of its own."""

    package: str
    version: str

    @property
    def name(self) -> str:
        return f"{self.package} (Python)"

    def prepare(self) -> Path:
        """The environment's Python."""
        folder = CACHE / f"python-{self.package}-{self.version}"
        python = folder / "bin" / "python"
        if not (folder / _DONE).exists():
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            _run([str(python), "-m", "pip", "install", *_PIP_OPTIONS, f"{self.package}=={self.version}"])
            (folder / _DONE).touch()
        return python


@dataclass(frozen=True, slots=True)
class NodeClient:
    """A package from npm in a folder of its own."""

    package: str
    version: str

    @property
    def name(self) -> str:
        return f"{self.package} (TypeScript)"

    def prepare(self) -> Path:
        """The folder that has `node_modules`."""
        for program in ("node", "npm"):
            if shutil.which(program) is None:
                raise Unavailable(f"there is no {program} on this machine")
        folder = CACHE / f"node-{self.package.strip('@').replace('/', '-')}-{self.version}"
        if not (folder / _DONE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / "package.json").write_text('{"private": true}\n')
            _run(["npm", "install", *_NPM_OPTIONS, f"{self.package}@{self.version}"], cwd=folder)
            (folder / _DONE).touch()
        return folder


def _run(command: list[str], cwd: Path | None = None) -> None:
    """Raises `Unavailable` with the last line of what the installer said."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=dict(os.environ), capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Unavailable(f"{Path(command[0]).name} failed: {type(exc).__name__}") from exc
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"could not be installed: {said[-1][:200]}")
