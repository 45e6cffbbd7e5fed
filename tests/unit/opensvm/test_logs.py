"""Where records go. Each test runs a process of its own: the configuration belongs to a whole process."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from opensvm.logs import LineHandler, StdoutSink, logs_to_stdout
from tests.hermetic import clean_environment

ROOT = Path(__file__).parents[3]
CONFIGURE = """
import logging, sys
from opensvm.logs import configure
configure({"file": sys.argv[1], "environment": "test", "max_bytes": 10**6, "keep": 2})
"""


def run(body: str, log: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", CONFIGURE + body, str(log)], cwd=ROOT, check=True, stderr=subprocess.PIPE, **options
    )


def test_a_line_goes_to_the_file_and_to_stdout(tmp_path: Path) -> None:
    done = run(
        'logging.getLogger("opensvm.pool").info("switched", extra={"event": "a.b"})', tmp_path / "x.log", stdout=-1
    )

    assert json.loads(done.stdout)["event"] == "a.b"
    assert (tmp_path / "x.log").read_bytes() == done.stdout


@pytest.mark.parametrize(
    ("logger", "level", "shown"),
    [
        ("opensvm.lane", "info", True),
        ("opensvm.lane", "debug", False),
        ("django.request", "warning", False),
        ("django.request", "error", False),  # a 503 that a view answers on purpose
        ("django.request", "exception", True),
        ("django.db.backends", "debug", False),
        ("celery.worker", "info", False),
        ("celery.worker", "warning", True),
        ("_granian", "warning", True),
        ("granian.access", "info", False),
        ("httpx", "info", False),
        ("anything.else", "warning", True),
    ],
)
def test_what_is_worth_a_line(tmp_path: Path, logger: str, level: str, shown: bool) -> None:
    arguments = '"x", exc_info=ValueError()' if level == "exception" else '"x"'
    done = run(f'logging.getLogger("{logger}").{level}({arguments})', tmp_path / "x.log", stdout=-1)

    assert done.stdout.count(b"\n") == int(shown)


def test_a_strangers_host_header_is_a_short_line(tmp_path: Path) -> None:
    body = 'logging.getLogger("django.security.DisallowedHost").error("bad host", exc_info=ValueError("x"))'

    line = json.loads(run(body, tmp_path / "x.log", stdout=-1).stdout)

    assert line["msg"] == "bad host"
    assert "traceback" not in line


DJANGO = """
import django, logging
django.setup()
logging.getLogger("django.request").error("x", exc_info=ValueError())
logging.getLogger("django.server").error("x")
"""


def test_django_hands_its_records_to_us_alone(tmp_path: Path) -> None:
    environment = clean_environment(os.environ) | {
        "DJANGO_SETTINGS_MODULE": "opensvm.settings",
        "OPENSVM_VAR_DIR": str(tmp_path),
        "OPENSVM_LOG_FILE": str(tmp_path / "x.log"),
        "OPENSVM_ENVIRONMENT": "staging",
    }

    done = subprocess.run([sys.executable, "-c", DJANGO], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)

    assert [json.loads(line)["environment"] for line in done.stdout.splitlines()] == ["staging", "staging"]
    assert (tmp_path / "x.log").read_bytes() == done.stdout


@pytest.mark.parametrize("target", ["/proc/no/such.log", "/dev/full"], ids=["no such folder", "full disk"])
def test_a_log_that_can_not_be_written_stops_nothing_and_is_said_once(tmp_path: Path, target: str) -> None:
    done = run('for n in range(3): logging.getLogger("opensvm").info("x")', Path(target), stdout=-1)

    assert done.stdout.count(b"\n") == 3
    assert done.stderr.count(b"OPENSVM_LOG_FILE") == 1


def test_a_closed_stdout_stops_nothing(tmp_path: Path) -> None:
    body = CONFIGURE + 'logging.getLogger("opensvm").info("x")'

    subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" "$2" >&-', sys.executable, body, tmp_path / "x.log"], cwd=ROOT, check=True
    )

    assert (tmp_path / "x.log").read_bytes().count(b"\n") == 1


def test_a_reader_that_does_not_read_loses_lines_and_does_not_stall_us() -> None:
    read_end, write_end = os.pipe()
    handler = LineHandler("test", [StdoutSink(write_end)])
    record = logging.LogRecord("opensvm", logging.INFO, "", 1, "x" * 2000, None, None)
    started = time.monotonic()
    for _ in range(2000):
        handler.emit(record)

    assert time.monotonic() - started < 5
    assert os.read(read_end, 100).startswith(b'{"ts"')
    os.close(read_end)
    handler.emit(record)  # nobody is there any more
    os.close(write_end)


def test_what_is_said_and_what_is_logged_keep_their_order(tmp_path: Path) -> None:
    body = """
import asyncio, msgspec
from opensvm.logs import line_handler
Said = msgspec.defstruct("Said", [("event", str), ("msg", str)])
async def main():
    for n in "13":
        line_handler().say(logging.WARNING if n == "3" else logging.INFO, Said("a.b", n))
        logging.getLogger("opensvm").info(str(int(n) + 1), extra={"event": "a.b"})
asyncio.run(main())
"""
    run(body, tmp_path / "x.log", stdout=subprocess.DEVNULL)

    lines = [json.loads(line) for line in (tmp_path / "x.log").read_text().splitlines()]
    assert [(line["msg"], line["level"]) for line in lines] == [
        ("1", "info"),
        ("2", "info"),
        ("3", "warning"),
        ("4", "info"),
    ]
    assert {tuple(sorted(line)) for line in lines} == {("environment", "event", "level", "msg", "pid", "ts")}


def test_lines_of_several_processes_on_one_pipe_stay_whole(tmp_path: Path) -> None:
    patient = "import opensvm.logs; opensvm.logs.STDOUT_WAIT_SECONDS = 30.0\n"  # for a reader on a busy machine
    body = 'for n in range(300): logging.getLogger("opensvm").info("n", extra={"note": ["x" * 90] * (n % 60)})'
    program = patient + CONFIGURE + body
    read_end, write_end = os.pipe()
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "x.log")], cwd=ROOT, stdout=write_end)
        for _ in range(3)
    ]
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        lines = pipe.read().splitlines()

    assert [writer.wait(30) for writer in writers] == [0] * 3
    assert len([json.loads(line) for line in lines]) == 900
    assert all(len(line) < 4096 for line in lines)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["manage.py", "create_client", "x"], False),
        (["/srv/opensvm/manage.py", "migrate"], False),
        (["manage.py"], False),
        (["manage.py", "serve", "--sandbox"], True),
        (["/srv/.venv/bin/celery", "-A", "opensvm.celery", "worker"], True),
        (["/srv/.venv/bin/uvicorn", "opensvm.asgi:application"], True),
        ([], True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_commands_stdout_is_its_answer_alone(argv: list[str], expected: bool) -> None:
    assert logs_to_stdout(argv) is expected
