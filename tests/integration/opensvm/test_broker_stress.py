"""The folder broker under several processes at once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
MESSAGES = 3000
CONNECT = """
import sys
from kombu import Connection, Queue
queue = Queue("work", routing_key="work")
connection = Connection("folder://localhost//", transport="opensvm.broker:Transport",
                        transport_options={"folder": sys.argv[1], "polling_interval": 0.01})
"""
WRITER = (
    CONNECT
    + """
with connection as conn:
    producer = conn.Producer()
    for n in range(int(sys.argv[2]), int(sys.argv[3])):
        producer.publish({"n": n, "filler": "x" * (n % 5000)}, routing_key="work", declare=[queue])
"""
)
READER = (
    CONNECT
    + """
def take(body, message):
    message.ack()
    assert len(body["filler"]) == body["n"] % 5000
    print(body["n"], flush=True)

with connection as conn, conn.Consumer([queue], callbacks=[take]):
    try:
        while True:
            conn.drain_events(timeout=3)
    except TimeoutError:
        pass
"""
)


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_every_message_is_read_once_and_whole_by_two_readers_beside_two_writers(tmp_path: Path) -> None:
    half = MESSAGES // 2
    processes = [
        start(WRITER, tmp_path, 0, half),
        start(WRITER, tmp_path, half, MESSAGES),
        start(READER, tmp_path),
        start(READER, tmp_path),
    ]
    outputs = [process.communicate(timeout=120) for process in processes]

    assert [(process.returncode, errors) for process, (_, errors) in zip(processes, outputs, strict=True)] == [
        (0, b"")
    ] * 4
    read = Counter(int(line) for output, _ in outputs for line in output.splitlines())
    assert read == Counter(range(MESSAGES))
    assert all(output for output, _ in outputs[2:])  # both readers had their share
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
