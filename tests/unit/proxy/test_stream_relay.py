"""What of a stream may go out now, what is held, and what is never passed on; at any cut of the bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sse import EventTooLarge
from proxy.stream_relay import MessagesRelay

START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"gen-1","model":"up/stream","usage":{}}}\n\n'
)
BLOCK = b'event: content_block_start\ndata: {"type":"content_block_start","index":0}\n\n'
DELTA = 'event: content_block_delta\ndata: {"type":"content_block_delta","text":"ü🦀"}\n\n'.encode()
BEAT = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":2}}\n\n'
)
CLOSE = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":9,"cost":0.5}}\n\n'
)
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
DONE = b"event: data\ndata: [DONE]\n\n"
COMMENT = b": OPENROUTER PROCESSING\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
ERROR = b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"gone"}}\n\n'
WHOLE = [COMMENT, START, BLOCK, DELTA, PING, BEAT, DELTA, COMMENT, CLOSE, STOP, DONE]
RENAMED = START.replace(b"up/stream", b"mine")
PASSED = b"".join([COMMENT, RENAMED, BLOCK, DELTA, PING, BEAT, DELTA, COMMENT])


def feed(*chunks: bytes) -> tuple[MessagesRelay, bytes]:
    relay = MessagesRelay("mine")
    passed = b"".join([relay.feed(chunk) for chunk in chunks])
    return relay, passed + relay.finish()


def test_a_whole_stream() -> None:
    relay, passed = feed(*WHOLE)
    assert passed == PASSED
    assert relay.held == CLOSE + STOP
    assert relay.is_finished
    assert relay.error is None
    assert (relay.usage.id, relay.usage.usage.output_tokens, relay.usage.usage.cost_nano) == ("gen-1", 9, 500_000_000)


@given(st.lists(st.integers(0, sum(map(len, WHOLE))), max_size=20), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_any_cut_makes_no_difference(cuts: list[int], line_end: bytes) -> None:
    raw = b"".join(WHOLE).replace(b"\n", line_end)
    bounds = [0, *sorted(cuts), len(raw)]
    relay, passed = feed(*(raw[low:high] for low, high in itertools.pairwise(bounds)))
    assert passed == PASSED.replace(b"\n", line_end)
    assert relay.held == (CLOSE + STOP).replace(b"\n", line_end)


@pytest.mark.parametrize("count", range(len(WHOLE) + 1))
def test_a_stream_cut_after_any_event_holds_back_its_end(count: int) -> None:
    relay, passed = feed(*WHOLE[:count])
    assert relay.is_finished == (count >= WHOLE.index(STOP) + 1)
    assert b"end_turn" not in passed
    assert b"message_stop" not in passed
    assert PASSED.startswith(passed)


def test_nothing_goes_out_before_the_first_event() -> None:
    relay = MessagesRelay("mine")
    assert relay.feed(COMMENT + COMMENT) == b""
    assert relay.feed(PING) == b""  # upstream's ping proves nothing
    assert not relay.has_started
    assert relay.feed(START) == COMMENT + COMMENT + PING + RENAMED
    assert relay.has_started


def test_an_error_as_first_event_leaves_nothing_to_send() -> None:
    relay, passed = feed(COMMENT, PING, ERROR, START)
    assert passed == b""
    assert relay.error is not None
    assert relay.error["error"]["message"] == "gone"
    assert not relay.has_started


def test_an_error_in_mid_stream_ends_it() -> None:
    relay, passed = feed(START, DELTA + ERROR + DELTA, STOP)
    assert passed == RENAMED + DELTA
    assert relay.error is not None
    assert relay.has_started
    assert not relay.is_finished


def test_an_error_after_the_closing_delta_still_counts() -> None:
    relay, passed = feed(START, CLOSE, ERROR, STOP)
    assert passed == RENAMED
    assert relay.error is not None
    assert not relay.is_finished
    assert relay.usage.usage.cost_nano == 500_000_000  # it is known all the same


NAMELESS = {
    "an error": (b'data: {"error":{"code":502,"message":"gone"}}\n\n', True),
    "an error that is null": (b'data: {"error":null}\n\n', False),
    "a text about an error": (b'data: {"text":"an \\"error\\" occurred"}\n\n', False),
    "no JSON": (b'data: "error" it says\n\n', False),
    "a comment about an error": (b': {"error":{"message":"gone"}}\n\n', False),
}


@pytest.mark.parametrize(("raw", "is_error"), NAMELESS.values(), ids=NAMELESS)
def test_data_without_a_name_is_passed_on_unless_it_is_an_error(raw: bytes, is_error: bool) -> None:
    relay, passed = feed(START, raw, DELTA)
    assert (relay.error is not None) == is_error
    assert passed == RENAMED + (b"" if is_error else raw + DELTA)


def test_a_message_delta_without_a_stop_reason_is_passed_on_at_once() -> None:
    relay = MessagesRelay("mine")
    assert relay.feed(START + BEAT) == RENAMED + BEAT
    assert relay.usage.usage.output_tokens == 2


def test_everything_after_the_closing_delta_is_held() -> None:
    """Also what has no business there: clients take the answer as whole from that delta on."""
    relay, passed = feed(START, CLOSE, PING, DELTA, COMMENT, STOP)
    assert passed == RENAMED
    assert relay.held == CLOSE + PING + DELTA + COMMENT + STOP


def test_a_stop_without_a_closing_delta_finishes_too() -> None:
    relay, passed = feed(START, DELTA, STOP)
    assert passed == RENAMED + DELTA
    assert relay.held == STOP
    assert relay.is_finished


def test_what_follows_the_stop_is_dropped() -> None:
    relay, _ = feed(START, CLOSE, STOP + ERROR + DELTA)
    assert relay.held == CLOSE + STOP
    assert relay.error is None


def test_a_half_event_at_the_end_is_dropped() -> None:
    relay, passed = feed(START, DELTA[:-1])
    assert passed == RENAMED
    assert not relay.is_finished


def test_an_unknown_event_starts_the_stream() -> None:
    relay, passed = feed(b'event: brand_new\ndata: {"a": 1}\n\n')
    assert relay.has_started
    assert passed == b'event: brand_new\ndata: {"a": 1}\n\n'


def test_an_event_too_large_is_refused() -> None:
    relay = MessagesRelay("mine")
    relay.feed(b"x" * 32 * 1024 * 1024)
    with pytest.raises(EventTooLarge):
        relay.feed(b"x")
