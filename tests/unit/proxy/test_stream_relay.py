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


def test_an_end_with_other_line_ends_behind_a_run_is_held() -> None:
    close = CLOSE.replace(b"\n", b"\r")
    relay, passed = feed(START, DELTA + close + STOP[:-1], STOP[-1:])
    assert passed == RENAMED + DELTA
    assert relay.held == close + STOP


@pytest.mark.parametrize("what", [b'"cost":NaN', b'"cost":1e99999999999999999999', b'"x":"\xff"', b'"x":'])
def test_a_closing_delta_that_can_not_be_read_is_held_all_the_same(what: bytes) -> None:
    close = b'event: message_delta\ndata: {"delta":{"stop_reason":"end_turn"},"usage":{%b}}\n\n' % what
    relay, passed = feed(START, DELTA, close, STOP)
    assert passed == RENAMED + DELTA
    assert (relay.held, relay.is_finished) == (close + STOP, True)


@pytest.mark.parametrize("odd", [DONE, b"event: x\ndata: : OPENROUTER PROCESSING\n\n", b"event: x\ndata:  [DONE]\n\n"])
def test_a_sentinel_with_a_name_is_left_out_in_mid_stream(odd: bytes) -> None:
    assert feed(START, odd, DELTA, odd + DELTA)[1] == RENAMED + DELTA + DELTA


@pytest.mark.parametrize("before", [b"", START + DELTA + CLOSE], ids=["before the first event", "behind the last"])
@pytest.mark.parametrize("filler", [b":\n\n", PING], ids=["comments", "pings"])
def test_what_can_not_go_out_yet_does_not_fill_the_memory(before: bytes, filler: bytes) -> None:
    relay = MessagesRelay("mine", max_held_bytes=100_000)
    relay.feed(before + filler * 500)
    with pytest.raises(EventTooLarge, match="100,000 bytes that can't go out yet"):
        relay.feed(filler * 1200)  # an empty comment takes memory too


@pytest.mark.parametrize("odd", [b"event: message_delta\n\n", b"event: message_delta\ndata: {}\n\n"])
def test_a_message_delta_that_says_nothing_is_passed_on_at_once(odd: bytes) -> None:
    assert feed(START, odd, DELTA)[1] == RENAMED + odd + DELTA


def test_the_event_that_completes_an_answer_is_never_too_much() -> None:
    relay = MessagesRelay("mine", max_held_bytes=len(CLOSE) + 64)
    relay.feed(START + CLOSE)
    relay.feed(STOP)
    assert (relay.held, relay.is_finished) == (CLOSE + STOP, True)


def test_what_was_held_and_went_out_counts_no_more() -> None:
    relay = MessagesRelay("mine", max_held_bytes=100_000)
    relay.feed(COMMENT * 1000)
    relay.feed(START + CLOSE)
    relay.feed(COMMENT * 1000)
    assert relay.feed(STOP) == b""
    assert relay.is_finished


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


# -- Byte for byte, however odd --------------------------------------------------------------------------------------
ODD: dict[str, bytes] = {
    "data without a name": b'data: {"type":"unnamed"}\n\n',
    "ids and retry times": b'id: 7\nretry: 10\nevent: content_block_delta\ndata: {"index":0}\nid: 8\n\n',
    "an id alone": b"id: 9\n\n",
    "a comment in an event": b": a\nevent: content_block_delta\n: b\ndata: {}\n: c\n\n",
    "comments alone": b": a\n:b\n:\n\n",
    "blank lines too many": b"\n\n\n",
    "no space, no value": b"event:content_block_delta\ndata\ndata:\n\n",
    "fields nobody knows": b"eventual: x\nevent: new_kind\ndatum: y\ndata: z\n\n",
    "a name twice": b"event: ping\nevent: content_block_delta\ndata: {}\n\n",
    "NUL and invalid UTF-8": b"event: content_block_delta\ndata: \x00\xff\xfe\n\n",
    "U+2028, U+0085, form feed": "event: content_block_delta\ndata: \u2028\u0085\x0c\x1e\n\n".encode(),
    "CRLF": b"event: content_block_delta\r\ndata: {}\r\n\r\n",
    "CR": b"event: content_block_delta\rdata: {}\r\r",
    "line ends mixed": b"event: content_block_delta\rdata: {}\r\nid: 3\n\r",
    "several data lines": b'event: message_delta\ndata: {"delta":{},\ndata: "usage":{"output_tokens":4}}\n\n',
    "a usage alone": b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":5}}\n\n',
    "a second start": START.replace(b"up/stream", b"mine"),
    "5 MB": b"event: content_block_delta\ndata: " + b"x" * 5_000_000 + b"\n\n",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_events_pass_as_they_are(odd: bytes) -> None:
    relay, passed = feed(START, odd, DELTA, CLOSE, STOP, DONE)
    assert passed == RENAMED + odd + DELTA
    assert (relay.held, relay.is_finished) == (CLOSE + STOP, True)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_events_behind_the_closing_delta_are_held_as_they_are(odd: bytes) -> None:
    relay, passed = feed(START, DELTA, CLOSE + odd + STOP, DONE)
    assert (passed, relay.held) == (RENAMED + DELTA, CLOSE + odd + STOP)


def test_a_byte_order_mark_stays_where_it_was() -> None:
    relay, passed = feed(b"\xef\xbb\xbf" + START, DELTA, CLOSE, STOP)
    assert passed + relay.held == b"\xef\xbb\xbf" + RENAMED + DELTA + CLOSE + STOP


def test_a_stop_that_comes_twice_goes_out_once() -> None:
    relay, _ = feed(START, CLOSE, STOP + STOP)
    assert relay.held == CLOSE + STOP


def test_a_usage_behind_the_stop_is_too_late() -> None:
    """The row is being written; a cost that is not known then is asked for."""
    relay, _ = feed(START, CLOSE, STOP + BEAT)
    assert relay.held == CLOSE + STOP
    assert relay.usage.usage.output_tokens == 9


def test_a_comment_that_came_as_data_is_left_out() -> None:
    """Clients that go by the data alone read it as JSON."""
    relay, passed = feed(b"data: : OPENROUTER PROCESSING\n\n", START, b"data: : OPENROUTER PROCESSING\n\n", DELTA)
    assert passed == RENAMED + DELTA
    assert relay.error is None


def test_a_comment_before_an_answer_of_one_event_is_kept() -> None:
    relay, passed = feed(COMMENT, STOP)
    assert (passed, relay.held) == (b"", COMMENT + STOP)


@given(st.lists(st.sampled_from(list(ODD.values())[:-1]), max_size=8), st.lists(st.integers(0, 5000), max_size=20))
def test_odd_events_in_any_mix_and_at_any_cut_lose_no_byte(odd: list[bytes], cuts: list[int]) -> None:
    raw = b"".join([START, *odd, CLOSE, STOP])
    bounds = [0, *sorted(cut % len(raw) for cut in cuts), len(raw)]
    relay, passed = feed(*(raw[low:high] for low, high in itertools.pairwise(bounds)))
    assert passed + relay.held == raw.replace(b"up/stream", b"mine")
    assert relay.is_finished
