"""Several processes, one log file."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from opensvm.log_file import LogFile

LINE = b"0123456789\n"


def written_lines(path: Path) -> list[bytes]:
    """The lines of the log and its backups."""
    files = [found for found in path.parent.glob(f"{path.name}*") if not found.name.endswith(".lock")]
    return [line for found in files for line in found.read_bytes().splitlines(keepends=True)]


def test_the_folder_is_made_at_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "opensvm.log"
    log = LogFile(path, max_bytes=1000, keep=1)
    assert not path.parent.exists()

    log.write(LINE)

    assert path.read_bytes() == LINE
    assert path.stat().st_mode & 0o007 == 0


def test_a_full_file_becomes_the_first_backup_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "opensvm.log"
    log = LogFile(path, max_bytes=25, keep=2)

    for number in range(9):
        log.write(b"line %05d\n" % number)

    names = sorted(found.name for found in tmp_path.iterdir())
    assert names == ["opensvm.log", "opensvm.log.1", "opensvm.log.2", "opensvm.log.lock"]
    assert path.read_bytes() == b"line 00008\n"
    assert Path(f"{path}.1").read_bytes() == b"line 00006\nline 00007\n"


def test_a_line_longer_than_the_limit_has_a_file_of_its_own(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "opensvm.log", max_bytes=5, keep=3)

    log.write(LINE)
    log.write(LINE)

    assert (tmp_path / "opensvm.log").read_bytes() == LINE
    assert (tmp_path / "opensvm.log.1").read_bytes() == LINE


@pytest.mark.parametrize("change", ["removed", "renamed", "folder removed"])
def test_a_file_that_someone_takes_away_is_made_again(tmp_path: Path, change: str) -> None:
    path = tmp_path / "logs" / "opensvm.log"
    log = LogFile(path, max_bytes=1000, keep=1)
    log.write(LINE)
    if change == "renamed":
        path.rename(tmp_path / "elsewhere")
    else:
        path.unlink()
    if change == "folder removed":
        path.parent.rmdir()

    log.write(LINE)

    assert path.read_bytes() == LINE


def test_a_rotation_that_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "opensvm.log"
    log = LogFile(path, max_bytes=15, keep=2)
    log.write(LINE)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        log.write(LINE)
    assert path.read_bytes() == LINE * 2

    log.write(LINE)

    assert path.read_bytes() == LINE
    assert Path(f"{path}.1").read_bytes() == LINE * 2


def test_a_folder_that_can_not_be_written_raises_and_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("not a folder")
    log = LogFile(tmp_path / "logs" / "opensvm.log", max_bytes=1000, keep=1)
    with pytest.raises(OSError, match="logs"):
        log.write(LINE)

    (tmp_path / "logs").unlink()
    log.write(LINE)

    assert (tmp_path / "logs" / "opensvm.log").read_bytes() == LINE


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from opensvm.log_file import LogFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = LogFile(Path(sys.argv[1]), max_bytes=10**9, keep=1)
log.write(b"whole\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
log.write(b"torn by a full disk\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.write(b"whole again\\n")
"""


def test_a_line_after_a_full_disk_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "opensvm.log"

    subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], check=True, cwd=Path(__file__).parents[3])

    assert path.read_bytes() == b"whole\ntorn\nwhole again\n"


WRITER = """
import json, sys
from pathlib import Path
from opensvm.log_file import LogFile
log = LogFile(Path(sys.argv[1]), max_bytes=20_000, keep=10_000)
for number in range(int(sys.argv[3])):
    log.write(json.dumps({"who": sys.argv[2], "n": number, "filler": "x" * (number % 300)}).encode() + b"\\n")
"""


def test_processes_that_write_while_they_rotate_lose_and_tear_nothing(tmp_path: Path) -> None:
    path, lines = tmp_path / "opensvm.log", 3000
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, str(who), str(lines)], cwd=Path(__file__).parents[3]) for who in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4

    found = Counter((line["who"], line["n"]) for line in map(json.loads, written_lines(path)))

    assert found == Counter((str(who), number) for who in range(4) for number in range(lines))
    assert len(list(tmp_path.iterdir())) > 50  # it did rotate
