import itertools
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.sse import EventReader, EventTooLarge, RawEvent, usual_events

TRANSCRIPT = (
    b": OPENROUTER PROCESSING\n\n"
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"gen-1"}}\n\n'
    b'event: ping\ndata: {"type":"ping"}\n\n'
    b'event: content_block_delta\ndata: {"delta":{"text":"\xc3\xbc \xf0\x9f\x98\x80"}}\n\n'
    b": OPENROUTER PROCESSING\n\n"
    b'event: message_delta\ndata: {"usage":{"cost":0.1}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    b"event: data\ndata: [DONE]\n\n"
)
LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}


def read(*chunks):
    reader = EventReader()
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    return events + reader.finish(), reader.leftover()


def reference(raw):
    """The events by a plain reading of the standard, line by line, of the whole text."""
    events, block = [], b""
    for line in re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)", raw):
        block += line
        content = line if block != line else line.removeprefix(b"\xef\xbb\xbf") if not events else line
        if not content.strip(b"\r\n"):
            events.append(block)
            block = b""
    return events


@pytest.mark.parametrize("line_end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_a_transcript_is_cut_into_its_events(line_end):
    events, leftover = read(TRANSCRIPT.replace(b"\n", line_end))

    assert [event.kind for event in events] == [
        b"",
        b"message_start",
        b"ping",
        b"content_block_delta",
        b"",
        b"message_delta",
        b"message_stop",
        b"data",
    ]
    assert [event.is_comment for event in events] == [True, False, False, False, True, False, False, False]
    assert [event.is_done for event in events] == [False] * 7 + [True]
    assert events[5].data == b'{"usage":{"cost":0.1}}'
    assert leftover == b""


@pytest.mark.parametrize("line_end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_a_cut_at_any_byte_makes_no_difference(line_end):
    transcript = b"\xef\xbb\xbf" + TRANSCRIPT.replace(b"\n", line_end)
    whole = read(transcript)

    for cut in range(len(transcript)):
        assert read(transcript[:cut], transcript[cut:]) == whole
    assert read(*(bytes([byte]) for byte in transcript)) == whole


PIECES = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\r\n",
        b"data: x",
        b"event: y",
        b"event:z",
        b": c",
        b"data",
        b"event",
        b" ",
        b"\xc3\xbc",
        b"\xef\xbb\xbf",
    ]
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.data())
@example(b"\r\n\r\n", None)
@example(b"data: 1\n\n\xef\xbb\xbf\n\n", None)
@example(b"data: 1\r\n\r\r\n\n", None)
@example(b"\xef\xbb\xbf\n\r\r\n", None)
def test_any_split_of_any_stream_gives_the_same_events(raw, data):
    chunks = [bytes([byte]) for byte in raw]
    if data is not None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
        chunks = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    events, leftover = read(*chunks)

    assert (events, leftover) == read(raw)
    assert b"".join(event.raw for event in events) + leftover == raw
    assert [event.raw for event in events] == reference(raw)


@given(st.binary(max_size=200), st.integers(1, 20))
def test_no_byte_is_lost_or_changed(raw, size):
    events, leftover = read(*(raw[start : start + size] for start in range(0, len(raw), size)))

    assert b"".join(event.raw for event in events) + leftover == raw


@pytest.mark.parametrize(
    ("raw", "kind", "data"),
    [
        (b"event: ping\ndata: {}\n\n", b"ping", b"{}"),
        (b"event:ping\ndata:{}\n\n", b"ping", b"{}"),
        (b"event:  ping\ndata:  {}\n\n", b" ping", b" {}"),
        (b"data: {}\nevent: ping\n\n", b"ping", b"{}"),
        (b"event: a\nevent: ping\ndata: {}\n\n", b"ping", b"{}"),
        (b"event: a\nevent\ndata: {}\n\n", b"", b"{}"),
        (b"event: a\ndata: event: b\n\n", b"a", b"event: b"),
        (b": event: a\nid: 7\nretry: 1\nevent: ping\ndata: {}\n\n", b"ping", b"{}"),
        (b"data: {\ndata\ndata: }\n\n", b"", b"{\n\n}"),
        (b"eventual: a\ndatum: b\n\n", b"", b""),
        (b"event: a\r\ndata: b\r\n\r\n", b"a", b"b"),
        (b"\xef\xbb\xbfevent: a\ndata: b\n\n", b"a", b"b"),
        (b"data: : OPENROUTER PROCESSING\n\n", b"", b": OPENROUTER PROCESSING"),
    ],
)
def test_kind_and_data_are_read_by_the_standard(raw, kind, data):
    [event], _ = read(raw)

    assert (event.kind, event.data) == (kind, data)


@pytest.mark.parametrize(
    ("raw", "is_comment"),
    [(b": a\n: b\n\n", True), (b"\n", True), (b"id: 1\n\n", True), (b"data\n\n", False), (b"event: ping\n\n", False)],
)
def test_an_event_without_kind_and_data_is_a_comment(raw, is_comment):
    [event], _ = read(raw)

    assert event.is_comment is is_comment


@pytest.mark.parametrize(
    ("raw", "is_done"),
    [
        (b"event: data\ndata: [DONE]\n\n", True),
        (b"data: [DONE]\n\n", True),
        (b"data:[DONE] \r\n\r\n", True),
        (b"data: [DONE] and more\n\n", True),
        (b"id: " + b"7" * 200 + b"\ndata: [DONE]\n\n", True),
        (b"data: \ndata: [DONE]\n\n", True),
        (b'data: "[DONE]"\n\n', False),
        (b"event: content_block_delta\ndata: the end [DONE]\n\n", False),
        (b": [DONE]\n\n", False),
    ],
)
def test_the_sentinel_of_openrouter_is_told_apart(raw, is_done):
    [event], _ = read(raw)

    assert event.is_done is is_done


@pytest.mark.parametrize(
    ("raw", "is_stray"),
    [
        (b"data: : OPENROUTER PROCESSING\n\n", True),
        (b"event: data\r\ndata:: OPENROUTER PROCESSING\r\n\r\n", True),
        (b'data: {"text":"data: : x"}\n\n', False),
        (b"data: \ndata: :\n\n", False),
        (b": data: : x\n\n", False),
    ],
)
def test_a_comment_that_came_as_data_is_told_apart(raw, is_stray):
    [event], _ = read(raw)

    assert event.is_stray_comment is is_stray


def test_an_event_that_is_cut_off_is_no_event():
    assert read(b"data: 1\n\ndata: 2\n") == ([RawEvent(b"data: 1\n\n", b"")], b"data: 2\n")


def test_a_carriage_return_waits_for_the_line_feed_that_may_follow():
    reader = EventReader()

    assert reader.feed(b"data: 1\r\n\r") == []
    assert reader.feed(b"\ndata: 2") == [RawEvent(b"data: 1\r\n\r\n", b"")]
    assert reader.leftover() == b"data: 2"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_over_the_limit_is_refused_before_it_is_complete(size):
    reader = EventReader(max_event_bytes=100)
    reader.feed(b"data: " + b"x" * 92 + b"\n\n")

    for _ in range(100 // size):
        reader.feed(b"x" * size)
    with pytest.raises(EventTooLarge, match="100 bytes"):
        reader.feed(b"x" * size)


def test_a_whole_event_over_the_limit_is_refused_too():
    with pytest.raises(EventTooLarge):
        EventReader(max_event_bytes=100).feed(b"data: " + b"x" * 100 + b"\n\n")


@pytest.mark.parametrize("unit", [b"x", b"\r", b"data: x\n", b"x\r\n"], ids=repr)
def test_a_large_event_fed_byte_by_byte_takes_linear_time(unit):
    reader, raw = EventReader(), (b"data: \r" + unit * 60_000)[:60_000]

    started = time.perf_counter()
    for byte in raw:
        reader.feed(bytes([byte]))

    assert time.perf_counter() - started < 10


def test_a_chunk_of_many_events_takes_linear_time():
    started = time.perf_counter()
    events = EventReader().feed(b"data: 1\n\n" * 50_000)

    assert len(events) == 50_000
    assert time.perf_counter() - started < 5


# -- Runs of one kind, uncut -----------------------------------------------------------------------------------------
KIND = b"content_block_delta"
PING = b"event: ping\ndata: {}\n\n"
START = b"event: content_block_delta\ndata: "
DELTA = START + b'{"type":"content_block_delta"}\n\n'
RUN_PIECES = (
    DELTA,
    START + b"\n\n",
    START + b'{"text":"\\n\\nevent: content_block_delta\\ndata: "}\n\n',
    b"event: ping\ndata: {}\n\n",
    b"event: \ndata: {}\n\n",
    b"event:ping\ndata:  two spaces\n\n",
    b"event: ping\ndata: 1\ndata: 2\n\n",
    b"event: first\nevent: last\ndata: {}\n\n",
    b"\xef\xbb\xbf",
    START + b"{}\nid: 1\n\n",
    START + b"{}\ndata: more\n\n",
    b"data: {}\n\n",
    b": comment\n\n",
    b"\n",
    START + b"{}\r\n\r\n",
    b"event: content_block_delta\n\n",
)


def chunks_of(stream, sizes):
    """The stream in chunks of these sizes, again and again."""
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(stream):
            return
        yield stream[at : at + size]
        at += size


@given(st.lists(st.sampled_from(RUN_PIECES), max_size=8).map(b"".join), st.lists(st.integers(1, 60), min_size=1))
def test_a_run_is_what_the_events_one_by_one_would_be(stream, sizes):
    quick, plain = EventReader(usual=usual_events(KIND)), EventReader()
    for chunk in chunks_of(stream, sizes):
        runs, events = quick.feed(chunk), plain.feed(chunk)
        assert b"".join(run.raw for run in runs) == b"".join(event.raw for event in events)
        assert [(run.kind, run.data) for run in runs if run.kind != KIND] == [
            (event.kind, event.data) for event in events if event.kind != KIND
        ]
        assert quick.leftover() == plain.leftover()


ONLY_A_RUN = re.compile(rb"(?:event: content_block_delta\ndata: [^\r\n]*\n\n)+")
PARTS = (*RUN_PIECES, DELTA, START, b"x", b"\n\n", b"\n", DELTA[:20])


@given(st.lists(st.sampled_from(PARTS), max_size=8).map(b"".join))
@example(START + b"x" + START + b"y\n\nz\n\n")  # as many beginnings as blank lines, and one event without
@example(DELTA + b"\n" + DELTA)
def test_a_chunk_that_is_a_run_alone_is_told_by_its_line_ends(chunk):
    assert usual_events(KIND).is_run(chunk) == (ONLY_A_RUN.fullmatch(chunk) is not None)


@given(st.lists(st.sampled_from(PARTS), max_size=8).map(b"".join), st.lists(st.integers(1, 60), min_size=1))
@example(PING + DELTA * 2, [len(PING), len(DELTA) + 20, len(DELTA) - 20])
@example(PING + DELTA * 2, [len(PING), len(DELTA) - 1, len(DELTA) + 1])  # the two ends of a blank line
@example(PING + DELTA + START + b"\r\r" + DELTA, [len(PING), len(DELTA + START) + 2, len(DELTA)])  # a CR is behind
def test_what_is_taken_as_a_run_is_what_would_have_been_fed(stream, sizes):
    quick, plain = EventReader(usual=usual_events(KIND)), EventReader()
    for chunk in chunks_of(stream, sizes):
        events = plain.feed(chunk)
        run = quick.take_run(chunk)
        if run is None:
            assert b"".join(event.raw for event in quick.feed(chunk)) == b"".join(event.raw for event in events)
        else:
            assert run == b"".join(event.raw for event in events)
            assert {event.kind for event in events} == {KIND}
        assert quick.leftover() == plain.leftover()


def test_a_run_is_taken_wherever_a_read_has_cut_the_stream():
    reader = EventReader(usual=usual_events(KIND))
    assert reader.take_run(DELTA) is None, "a byte order mark may be its beginning"
    reader.feed(PING)
    assert reader.take_run(DELTA * 2 + DELTA[:20]) == DELTA * 2
    assert reader.take_run(DELTA[20:] + DELTA) == DELTA * 2
    assert reader.leftover() == b""
    assert reader.take_run(DELTA[:20]) is None, "nothing is whole yet"
    assert EventReader().take_run(DELTA) is None


def test_a_run_with_more_than_an_event_may_hold_is_not_taken_at_once():
    reader = EventReader(max_event_bytes=len(DELTA), usual=usual_events(KIND))
    reader.feed(DELTA)
    assert reader.take_run(DELTA * 2) is None
    assert reader.take_run(DELTA + b"x" * (len(DELTA) + 1)) is None
    assert reader.take_run(DELTA) == DELTA


@pytest.mark.parametrize(
    ("stream", "kinds"),
    [
        pytest.param(DELTA, [KIND], id="one event"),
        pytest.param(DELTA * 3, [KIND], id="several"),
        pytest.param(DELTA * 2 + DELTA[:20], [KIND], id="and a part of the next"),
        pytest.param(DELTA[:-1], [], id="none that is whole"),
        pytest.param(PING + DELTA * 2 + PING + DELTA * 2, [b"ping", KIND, b"ping", KIND], id="others between"),
        pytest.param(DELTA + START + b"{}\nid: 1\n\n" + DELTA, [KIND, KIND, KIND], id="a third line"),
        pytest.param(DELTA + b"\n" + DELTA, [KIND, b"", KIND], id="a blank line too many"),
        pytest.param(DELTA.replace(b"\n", b"\r\n") * 2, [KIND, KIND], id="other line ends"),
    ],
)
def test_events_of_the_one_kind_come_together(stream, kinds):
    assert [event.kind for event in EventReader(usual=usual_events(KIND)).feed(stream)] == kinds


def test_a_run_may_be_larger_than_an_event_and_comes_in_parts_then():
    reader = EventReader(max_event_bytes=len(DELTA), usual=usual_events(KIND))
    assert [event.raw for event in reader.feed(DELTA)] == [DELTA]
    assert [event.raw for event in EventReader(len(DELTA) + 9, usual_events(KIND)).feed(DELTA * 2)] == [DELTA, DELTA]


def test_a_large_event_of_the_one_kind_takes_linear_time_too():
    reader = EventReader(usual=usual_events(KIND))

    started = time.perf_counter()
    for byte in DELTA + START + b"x" * 400_000:
        reader.feed(bytes([byte]))

    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("event", [DELTA, b"data: "], ids=["of the one kind", "of any kind"])
def test_a_large_event_in_small_chunks_is_appended_in_place(event):
    reader, chunk = EventReader(usual=usual_events(KIND)), b"x" * 16_384
    reader.feed(event)

    started = time.perf_counter()
    for _ in range(1_500):
        assert reader.take_run(chunk) is None
        reader.feed(chunk)

    assert time.perf_counter() - started < 3, "copied each time it would take ten"
