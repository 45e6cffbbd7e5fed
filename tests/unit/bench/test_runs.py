"""What a run is checked by, and what is asked of the machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from bench import cores, machine
from bench.answers import FIXED_EVENTS, STAMP, Message, Stream
from bench.errors import BenchError
from bench.ledger import Counts, complaint
from bench.load import Order
from bench.own_service import OURS
from bench.peers import PEERS
from bench.process_tree import Tree
from bench.rounds import Kind, Step
from bench.stream_client import Plan, StreamReader, Times
from bench.targets import RELAY
from proxy.sse import EventReader

BEFORE = Counts(rows=100, answered=90, in_flight=0, benched=0)


@pytest.mark.parametrize(
    ("after", "wrong"),
    [
        (Counts(1100, 1090, 0, 0), ""),
        (Counts(1132, 1090, 0, 0), ""),
        (Counts(1132, 1122, 0, 0), ""),
        (Counts(1099, 1089, 0, 0), "1000 answers came"),
        (Counts(1133, 1090, 0, 0), "1033 in all"),
        (Counts(1100, 1090, 0, 1), "benched"),
    ],
    ids=[
        "all answered",
        "one cut on each connection",
        "cut when it had finished",
        "a row too few",
        "too many",
        "bench",
    ],
)
def test_the_ledger_has_a_row_for_each_answer_and_for_what_was_cut_at_the_end(after: Counts, wrong: str) -> None:
    found = complaint(BEFORE, after, answered=1000, connections=32)
    assert (wrong in found) if wrong else not found


def test_server_and_load_get_a_core_each() -> None:
    chosen = cores.choose({0, 1, 2, 3})
    assert (chosen.load, chosen.server) == (2, 3)


def test_one_core_is_not_enough() -> None:
    with pytest.raises(BenchError, match="two cores"):
        cores.choose({0})


def test_what_is_started_on_a_core_stays_there_and_we_do_not() -> None:
    core, before = min(os.sched_getaffinity(0)), os.sched_getaffinity(0)
    with cores.running_on(core):
        said = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], capture_output=True, text=True
        )
    assert said.stdout.strip() == str({core})
    assert os.sched_getaffinity(0) == before


def test_the_pace_of_a_core_is_told_in_millions_of_turns() -> None:
    assert 0.1 < machine.pace(min(os.sched_getaffinity(0)), seconds=0.01) < 10_000


def test_a_tree_counts_what_its_processes_use() -> None:
    tree = Tree(os.getpid())
    assert os.getpid() in tree.pids()
    assert tree.cpu_seconds() > 0
    assert 0 < tree.memory_bytes() <= tree.peak_bytes() * 2


def test_a_tree_that_is_gone_uses_nothing() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert Tree(done.pid).cpu_seconds() == Tree(done.pid).memory_bytes() == 0


def test_an_answer_has_the_length_that_it_tells() -> None:
    head, _, body = Message().made(7).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"00000000000000000007" in body


def test_a_stream_has_as_many_events_as_are_counted() -> None:
    stream = Stream(3)
    whole = stream.opening(1) + stream.delta * 3 + stream.closing
    events = [event for event in EventReader().feed(_unchunked(whole)) if not event.is_comment and not event.is_done]
    assert len(events) == Step(Kind.STREAMS, 1, 1, deltas=3).units == 3 + FIXED_EVENTS


def test_long_streams_are_not_asked_of_who_would_finish_none() -> None:
    step = Step(Kind.LONG_STREAMS, 32, 4, deltas=1000, only_ours=True)
    assert [name for name in (RELAY, *OURS, *PEERS) if step.is_for(name)] == [RELAY, *OURS]
    assert all(Step(Kind.STREAMS, 32, 4, deltas=200).is_for(name) for name in PEERS)


def test_an_event_tells_when_it_was_sent() -> None:
    stream = Stream(1)
    assert STAMP % 123 in stream.delta_at(123)
    assert len(stream.delta_at(123)) == len(stream.delta)


def _unchunked(answer: bytes) -> bytes:
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


class Wire:
    """Takes what the reader writes."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_every_event_is_timed_however_the_stream_is_cut(size: int) -> None:
    stream = Stream(4)
    whole = stream.opening(1) + b"".join(stream.delta_at(n) for n in range(4)) + stream.closing
    times = _read([whole[n : n + size] for n in range(0, len(whole), size)])
    assert (len(times.first), len(times.delays), times.streams, times.failed) == (1, 4, 1, 0)


def test_an_answer_that_is_an_error_is_a_failed_stream() -> None:
    times = _read([b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"])
    assert (times.streams, times.failed) == (0, 1)


def _read(pieces: list[bytes]) -> Times:
    async def run() -> Times:
        times = Times()
        reader = StreamReader(Plan(Order("http://127.0.0.1:1/v1/messages", streams=True)), times)
        wire = Wire()
        reader.connection_made(wire)  # type: ignore[arg-type]  # all that it uses of a transport
        for piece in pieces:
            reader.data_received(piece)
        assert wire.is_closed
        return times

    return asyncio.run(run())
