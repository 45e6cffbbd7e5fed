"""How fast the desk is over a large ledger: python bench/rows.py [--rows 10000000] [--database sqlite|postgres|URL]

Without `--database` both are measured: SQLite in a temporary folder, and a PostgreSQL started from the development
requirements' wheel. Everything is removed afterwards. Prints the tables that the README quotes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import hermetic  # noqa: E402  # the path comes first
from tests.postgres import postgres_server  # noqa: E402


def main() -> int:
    arguments = _arguments()
    chosen = [arguments.database] if arguments.database else ["sqlite", "postgres"]
    codes = [_measure(database, arguments.rows, arguments.folder) for database in chosen]
    return max(codes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--database", default="", help="sqlite, postgres, or the URL of an empty database")
    parser.add_argument("--folder", type=Path, help="keep SQLite's file and the keyring here, for another run")
    return parser.parse_args()


def _measure(database: str, rows: int, folder: Path | None) -> int:
    with _database(database) as url, _folder(folder) as var_dir:
        variables = hermetic.clean_environment(os.environ) | {
            "OPENSVM_VAR_DIR": str(var_dir),
            "OPENSVM_LOG_FILE": str(var_dir / "log"),
            "DATABASE_URL": url,
            "DJANGO_SETTINGS_MODULE": "opensvm.settings",
        }
        command = [sys.executable, "-m", "bench.desk_speed", str(rows)]
        return subprocess.run(command, env=variables, cwd=ROOT).returncode  # noqa: S603  # our own module


@contextmanager
def _database(name: str) -> Iterator[str]:
    if name != "postgres":
        yield "" if name == "sqlite" else name
        return
    with postgres_server() as server:
        yield server.url("postgres")


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    folder = kept or Path(tempfile.mkdtemp(prefix="opensvm-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
