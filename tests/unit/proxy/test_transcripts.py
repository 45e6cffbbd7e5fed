"""The whole relay over transcripts of the sandbox's shape, in both dialects: cut, merged and broken off at any byte.

However upstream's bytes come, the client gets the whole answer or an error; never an answer that looks whole and isn't.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import itertools
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keys.ledger_items import Admitted, Caller, Selection
from keys.sealing import Sealed
from opensvm.sandbox import answers, chat
from opensvm.sandbox.answers import Answer
from opensvm.sandbox.catalogue import Usage
from opensvm.sandbox.messages import wire_usage
from opensvm.sandbox.script import Behaviour
from proxy.dialects import CHAT, MESSAGES, Dialect
from proxy.outbox import Head, Outbox
from proxy.tally import Asked, Ending, Tally
from proxy.upstream import Broken, Upstream, UpstreamConfig
from proxy.upstream_try import UpstreamTry
from tests.asgi import Client

ASKED, SENT = "mine", "anthropic/claude-4.5-sonnet-20250929"
NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
DIALECTS = {"messages": MESSAGES, "chat": CHAT}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
ODD_TEXT = 'ü🦀 data: [DONE]\n\n"finish_reason":"stop" \u2028 event: message_stop'


# -- Transcripts -----------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Transcript:
    """What upstream sends, event by event."""

    dialect: Dialect
    events: tuple[bytes, ...]

    @property
    def raw(self) -> bytes:
        return b"".join(self.events)


@dataclasses.dataclass(frozen=True)
class _Order:
    behaviour: Behaviour


def transcript(name: str, texts: list[str], *, comment: bool = True, line_end: bytes = b"\n") -> Transcript:
    """A text block for each text, and a tool's use; the bill says 0.25 USD."""
    tool = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"texts": texts}}
    content = (*({"type": "text", "text": text} for text in texts), tool)
    usage = Usage(input=3, output=500)
    bill = wire_usage(usage, "0.25", {})
    answer = Answer("gen-1795373986-x", SENT, content, "tool_use", None, usage, bill)
    order: Any = _Order(Behaviour())
    parts = answers.stream(answer, 2) if name == "messages" else chat.stream(answer, order)
    written = [part.payload for part in parts if comment or part.event != "comment"]
    return Transcript(DIALECTS[name], tuple(event.replace(b"\n", line_end) for event in written))


def for_client(whole: Transcript) -> bytes:
    """What a client must get of a whole transcript."""
    raw = whole.raw.replace(f'"model":"{SENT}"'.encode(), f'"model":"{ASKED}"'.encode())
    if whole.dialect is MESSAGES:
        raw = raw[: raw.rindex(b"event: data")]
    return raw


def slices(raw: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    return [raw[low:high] for low, high in itertools.pairwise(bounds)]


# -- The relay, with upstream's bytes instead of upstream --------------------------------------------------------------
class _Bytes(httpx.AsyncByteStream):
    def __init__(self, chunks: list[bytes], *, breaks: bool) -> None:
        self._chunks, self._breaks = chunks, breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._breaks:
            raise Broken("cut")


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, body: _Bytes) -> None:
        self._body = body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=self._body)


class _Service:
    """As much of `proxy.service.Service` as one try needs."""

    journal = None

    def __init__(self, transport: _Transport) -> None:
        self.upstream = Upstream(UpstreamConfig("http://127.0.0.1:9", 1.0, 1.0), transport)

    @property
    def vault(self) -> _Service:
        return self

    def unseal(self, *_: object, **__: object) -> Sealed:
        return Sealed("sk-or-v1-test")

    def now(self) -> dt.datetime:
        return NOW

    def close_after_tail(self, *_: object) -> None:
        """The tail is of no interest here."""


@dataclasses.dataclass(frozen=True)
class Got:
    """What the client received. `is_http_error`: nothing was streamed, so it got a status."""

    raw: bytes
    is_http_error: bool
    tally: Tally


def relay(dialect: Dialect, chunks: list[bytes], *, breaks: bool = False) -> Got:
    return asyncio.run(_relay(dialect, chunks, breaks=breaks))


async def _relay(dialect: Dialect, chunks: list[bytes], *, breaks: bool) -> Got:
    tally = _tally(dialect)
    client = Client()
    outbox = Outbox(client.exchange, Head(200, []), ping_seconds=9.0, first_event_seconds=9.0, ping=dialect.ping)
    service: Any = _Service(_Transport(_Bytes(chunks, breaks=breaks)))
    outcome = await UpstreamTry(tally, outbox, service).run()
    await asyncio.sleep(0)  # what was put goes out
    passed = b"".join(client.writes)
    if isinstance(outcome, Ending) and outcome.failure is None:
        return Got(passed + outcome.last_bytes, False, tally)
    failure = outcome.failure if isinstance(outcome, Ending) else outcome
    assert failure is not None
    if not outbox.has_begun:
        return Got(b"", True, tally)
    return Got(passed + dialect.error_event(failure.error_type, failure.message, "req_1"), False, tally)


def _tally(dialect: Dialect) -> Tally:
    selection = Selection(uuid.uuid4(), None, "alpha", "...test", b"", 1, is_trial=False)
    admitted = Admitted(uuid.uuid4(), "bob", SENT, selection)
    asked = Asked(uuid.uuid4(), "req_1", "", "", ASKED, dialect, True, 0, httpx.Headers(), Caller(), NOW, 0.0)
    return Tally(asked, admitted, selection)


# -- The client ------------------------------------------------------------------------------------------------------
def payloads(raw: bytes) -> list[Any]:
    """The data of each event as a client reads it; whatever is not JSON fails."""
    lines = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data = [line.removeprefix(b"data:").strip() for line in lines if line.startswith(b"data:")]
    return [json.loads(line) for line in data if line != b"[DONE]"]


def looks_whole(raw: bytes) -> bool:
    found = payloads(raw)
    stopped = any(one.get("type") == "message_stop" or (one.get("delta") or {}).get("stop_reason") for one in found)
    finished = any(choice.get("finish_reason") for one in found for choice in one.get("choices", []))
    return stopped or finished or b"\ndata: [DONE]" in raw.replace(b"\r", b"\n")


def ends_with_error(raw: bytes) -> bool:
    found = payloads(raw)
    return bool(found) and "error" in found[-1]


# -- Properties ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", DIALECTS)
@given(texts=st.lists(TEXT, max_size=4), cuts=st.lists(st.integers(0, 10_000), max_size=30), comment=st.booleans())
@example(texts=[ODD_TEXT], cuts=list(range(2000)), comment=True)
@settings(deadline=None, max_examples=30)
def test_a_whole_stream_comes_through_however_it_is_sliced(
    name: str, texts: list[str], cuts: list[int], comment: bool
) -> None:
    whole = transcript(name, texts, comment=comment)
    got = relay(whole.dialect, slices(whole.raw, cuts))
    assert got.raw == for_client(whole)
    assert looks_whole(got.raw)
    assert (got.tally.usage.cost_nano, got.tally.usage.output_tokens) == (250_000_000, 500)
    assert got.tally.generation_id == "gen-1795373986-x"
    row = got.tally.settlement(Ending(), None, has_begun=True)
    assert (type(row.cost_source), row.cost_source) == (str, "reported")  # plain: see `keys.steps.sqlite`


@pytest.mark.parametrize("name", DIALECTS)
@given(texts=st.lists(TEXT, max_size=3), line_end=LINE_ENDS, cuts=st.lists(st.integers(0, 10_000), max_size=30))
@settings(deadline=None, max_examples=25)
def test_line_ends_and_slices_change_no_payload(name: str, texts: list[str], line_end: bytes, cuts: list[int]) -> None:
    plain = payloads(for_client(transcript(name, texts)))
    got = relay(DIALECTS[name], slices(transcript(name, texts, line_end=line_end).raw, cuts))
    assert payloads(got.raw) == plain
    assert looks_whole(got.raw)


@pytest.mark.parametrize("breaks", [False, True], ids=["ends", "breaks"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("name", DIALECTS)
def test_a_stream_cut_at_every_single_byte_is_whole_or_an_error(name: str, line_end: bytes, breaks: bool) -> None:
    whole = transcript(name, [ODD_TEXT], comment=False, line_end=line_end)
    said = _said(for_client(whole))
    wholes = 0
    for length, got in enumerate(asyncio.run(_cut_everywhere(whole, breaks=breaks))):
        if got.is_http_error:
            continue
        if looks_whole(got.raw):
            assert _said(got.raw) == said, length
            assert not ends_with_error(got.raw)
            wholes += 1
        else:
            assert ends_with_error(got.raw), length
            assert said.startswith(_said(got.raw))
    assert wholes < len(whole.raw) / 4  # only cuts behind the last event but one


async def _cut_everywhere(whole: Transcript, *, breaks: bool) -> list[Got]:
    return [await _relay(whole.dialect, [whole.raw[:length]], breaks=breaks) for length in range(len(whole.raw))]


def _said(raw: bytes) -> str:
    """All text of a stream, in order."""
    texts = []
    for one in payloads(raw):
        delta = one.get("delta") or {}
        texts.append(delta.get("text") or delta.get("partial_json") or "")
        for choice in one.get("choices", []):
            texts.append(choice["delta"].get("content") or "")
            calls = choice["delta"].get("tool_calls") or []
            texts += [call["function"]["arguments"] for call in calls]
    return "".join(texts)


@pytest.mark.parametrize("name", DIALECTS)
@given(texts=st.lists(TEXT, min_size=1, max_size=3), at=st.integers(0, 100), cuts=st.lists(st.integers(0, 10_000)))
@settings(deadline=None, max_examples=30)
def test_an_error_anywhere_is_the_last_thing_a_client_gets(
    name: str, texts: list[str], at: int, cuts: list[int]
) -> None:
    """Also behind what finishes the answer: that was not sent yet."""
    whole = transcript(name, texts, comment=False)
    last = len(whole.events) - 2  # before what ends a stream: message_stop, or [DONE]
    place = at % (last + 1)
    error = {"type": "error", "error": {"type": "api_error", "code": 502, "message": "broken"}}
    event = b"event: error\n" if name == "messages" else b""
    event += b"data: " + json.dumps(error).encode() + b"\n\n"
    raw = b"".join((*whole.events[:place], event, *whole.events[place:]))
    got = relay(whole.dialect, slices(raw, cuts))
    assert got.is_http_error == (place == 0)
    if not got.is_http_error:
        assert ends_with_error(got.raw)
        assert not looks_whole(got.raw)


@pytest.mark.parametrize("name", DIALECTS)
@given(junk=st.lists(st.binary(max_size=60), max_size=10))
@settings(deadline=None, max_examples=80)
def test_junk_never_looks_whole_and_never_raises(name: str, junk: list[bytes]) -> None:
    got = relay(DIALECTS[name], junk)
    assert got.is_http_error or got.raw.endswith(b"\n\n")
    assert b"message_stop" not in got.raw
    assert b"[DONE]" not in got.raw.rpartition(b"data: ")[2]


@pytest.mark.parametrize("name", DIALECTS)
@given(
    junk=st.lists(st.tuples(st.integers(0, 100), st.binary(max_size=40)), max_size=5),
    texts=st.lists(TEXT, max_size=2),
)
@settings(deadline=None, max_examples=30)
def test_junk_between_events_breaks_nothing_that_follows(
    name: str, junk: list[tuple[int, bytes]], texts: list[str]
) -> None:
    """Comments with any bytes but line ends: every event comes through behind them."""
    whole = transcript(name, texts)
    events = list(whole.events)
    for place, raw in junk:
        line = raw.translate(None, b"\r\n\0")
        events.insert(place % len(events), b": " + line + b"\n\n")
    got = relay(whole.dialect, [b"".join(events)])
    assert payloads(_without_comments(got.raw)) == payloads(for_client(whole))
    assert looks_whole(got.raw)


def _without_comments(raw: bytes) -> bytes:
    return b"\n".join(line for line in raw.split(b"\n") if not line.startswith(b":"))
