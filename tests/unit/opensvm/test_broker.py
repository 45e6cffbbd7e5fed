"""The folder that carries Celery's messages."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from opensvm.broker import LEFT_BEHIND_SECONDS, MessageFolder, MessageName

QUEUE = "celery"


def message(n: int = 0, expires: Any = None) -> dict[str, Any]:
    return {"body": n, "headers": {"expires": expires}, "properties": {}}


def in_seconds(seconds: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)).isoformat()


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_messages_come_in_the_order_they_were_sent_and_leave_nothing_behind(tmp_path: Path) -> None:
    folder = MessageFolder(tmp_path)
    for n in range(5):
        folder.put(QUEUE, message(n))
    assert folder.size(QUEUE) == 5

    taken = [folder.take(QUEUE) for _ in range(6)]

    assert [found and found["body"] for found in taken] == [0, 1, 2, 3, 4, None]
    assert files(tmp_path) == []


def test_queues_do_not_see_each_others_messages(tmp_path: Path) -> None:
    folder = MessageFolder(tmp_path)
    folder.put("slow", message())

    assert folder.take("slow.msg") is None
    assert folder.take("slow") == message()


@pytest.mark.parametrize("queue", ["../../etc", "..", ".", "a/b", "ü.x", ""], ids=repr)
def test_a_queues_name_can_not_lead_out_of_the_folder(tmp_path: Path, queue: str) -> None:
    folder = MessageFolder(tmp_path / "broker")

    folder.put(queue, message())

    assert [path.name for path in tmp_path.iterdir()] == ["broker"]
    assert folder.take(queue) == message()


def test_two_readers_never_take_one_message(tmp_path: Path) -> None:
    first, second = MessageFolder(tmp_path), MessageFolder(tmp_path)
    for n in range(10):
        first.put(QUEUE, message(n))

    taken = [reader.take(QUEUE) for _ in range(5) for reader in (first, second)]

    assert sorted(found["body"] for found in taken if found) == list(range(10))


def test_an_expired_message_is_not_given_out(tmp_path: Path) -> None:
    folder = MessageFolder(tmp_path)
    folder.put(QUEUE, message(1, expires=in_seconds(-1)))
    folder.put(QUEUE, message(2, expires=in_seconds(60)))

    taken = folder.take(QUEUE)

    assert taken is not None
    assert taken["body"] == 2
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [
        pytest.param(None, 24 * 3600, id="none: a day"),
        pytest.param("2026-05-04T12:00:15+00:00", 15, id="with a zone"),
        pytest.param("2026-05-04T12:00:15", 15, id="without a zone: UTC"),
        pytest.param("tomorrow", 24 * 3600, id="not understood"),
        pytest.param(12, 24 * 3600, id="not a text"),
    ],
)
def test_the_name_of_a_message_tells_when_it_expires(expires: Any, seconds: int) -> None:
    now_ns = int(dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC).timestamp()) * 10**9

    name = MessageName.new(message(expires=expires), now_ns)

    assert name.expires_ns == now_ns + seconds * 10**9
    assert MessageName.parse(str(name)) == name


def test_no_folder_grows_while_nobody_reads(tmp_path: Path) -> None:
    folder = MessageFolder(tmp_path)
    for n in range(20):
        folder.put(QUEUE, message(n, expires=in_seconds(-1)))
    (tmp_path / "ready" / QUEUE / "garbage.json").write_text("")
    for left in ("writing", "claimed"):
        path = tmp_path / left / str(MessageName.new(message(), time.time_ns()))
        path.write_text("half")
        os.utime(path, (0, time.time() - LEFT_BEHIND_SECONDS - 1))

    folder.prune()

    assert files(tmp_path) == []


def test_what_another_process_is_at_is_not_pruned(tmp_path: Path) -> None:
    folder = MessageFolder(tmp_path)
    folder.put(QUEUE, message())
    (tmp_path / "writing" / "draft").write_text("half")

    folder.prune()

    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("content", [b"", b'{"body', b"\xff", b"[]"], ids=["empty", "half", "no UTF-8", "no object"])
def test_a_message_that_a_power_cut_spoiled_is_dropped(tmp_path: Path, content: bytes) -> None:
    folder = MessageFolder(tmp_path)
    folder.put(QUEUE, message(1))
    files(tmp_path)[0].write_bytes(content)
    folder.put(QUEUE, message(2))

    taken = folder.take(QUEUE)

    assert taken is not None
    assert taken["body"] == 2
    assert files(tmp_path) == []


@pytest.mark.parametrize("step", ["write_bytes", "rename", "read_bytes"])
def test_a_signal_in_the_middle_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Celery's handlers raise SystemExit wherever the process is."""
    folder = MessageFolder(tmp_path)
    real, is_taking = getattr(Path, step), step == "read_bytes"

    def ended(path: Path, *arguments: Any) -> None:
        real(path, *arguments)
        raise SystemExit

    if is_taking:
        folder.put("celery", {"n": 1})
    monkeypatch.setattr(Path, step, ended)
    with pytest.raises(SystemExit):
        folder.take("celery") if is_taking else folder.put("celery", {"n": 1})

    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.parent.parent.name for path in left] == (["ready"] if step == "rename" else [])


def test_messages_are_for_our_eyes_only(tmp_path: Path) -> None:
    MessageFolder(tmp_path / "broker").put(QUEUE, message())

    assert (tmp_path / "broker" / "ready" / QUEUE).stat().st_mode & 0o077 == 0


# -- Through kombu ---------------------------------------------------------------------------------------------------
@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    return Connection(
        "folder://localhost//",
        transport="opensvm.broker:Transport",
        transport_options={"folder": str(tmp_path), "polling_interval": 0.01},
    )


def test_kombu_sends_and_receives(connection: Connection, tmp_path: Path) -> None:
    queue = Queue("work", Exchange("work", type="direct"), routing_key="work")
    received: list[Any] = []

    def take(body: Any, found: Any) -> None:
        received.append(body)
        found.ack()

    with connection as conn:
        conn.Producer().publish({"n": 1}, exchange=queue.exchange, routing_key="work", declare=[queue])
        with conn.Consumer([queue], callbacks=[take]):
            conn.drain_events(timeout=5)

    assert received == [{"n": 1}]
    assert files(tmp_path) == []


def test_what_was_received_and_not_done_goes_back_when_a_worker_stops(connection: Connection, tmp_path: Path) -> None:
    queue = Queue("work", Exchange("work"), routing_key="work")
    with connection as conn:
        conn.Producer().publish({"n": 1}, exchange=queue.exchange, routing_key="work", declare=[queue])
        with conn.Consumer([queue], callbacks=[lambda body, found: None]):
            conn.drain_events(timeout=5)
        assert MessageFolder(tmp_path).size("work") == 0

    assert MessageFolder(tmp_path).size("work") == 1


def test_a_queue_can_be_purged(connection: Connection, tmp_path: Path) -> None:
    MessageFolder(tmp_path).put("work", message())

    with connection as conn:
        assert conn.default_channel.queue_purge("work") == 1
        assert conn.default_channel.queue_declare("work").message_count == 0


def test_waiting_for_nothing_ends_in_time(connection: Connection) -> None:
    with connection as conn, conn.Consumer([Queue("work")]), pytest.raises(TimeoutError):
        conn.drain_events(timeout=0.05)
