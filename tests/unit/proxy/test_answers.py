import json
import sys
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.answers import (
    Answer,
    UnreadableAnswer,
    Usage,
    UsageReader,
    cost_in_nano,
    parse_payload,
    read_answer,
    read_any_answer,
)

MESSAGE = b"""{"id":"gen-1","type":"message","role":"assistant","model":"anthropic/claude-sonnet-4","content":[],
"stop_reason":"end_turn","provider":"Anthropic","usage":{"input_tokens":11,"output_tokens":7,"cache_read_input_tokens":5,
"cache_creation_input_tokens":3,"cost":0.00123456789,"is_byok":false,"cost_details":{"upstream_inference_cost":9}}}"""


def fold(*events):
    reader = UsageReader()
    for kind, payload in events:
        reader.fold(kind, payload if isinstance(payload, bytes) else json.dumps(payload).encode())
    return reader


def start(**usage):
    return b"message_start", {"message": {"id": "gen-1", "model": "m", "usage": usage}}


def delta(stop_reason=None, **usage):
    return b"message_delta", {"delta": {"stop_reason": stop_reason}, "usage": usage}


# -- A JSON answer -------------------------------------------------------------------------------------------------
def test_an_answer_is_read():
    assert read_answer(MESSAGE) == Answer(
        id="gen-1",
        model="anthropic/claude-sonnet-4",
        stop_reason="end_turn",
        usage=Usage(11, 7, 5, 3, cost_nano=1_234_568),
        is_message=True,
    )


COUNTS = st.one_of(st.integers(-1, 2**41), st.none(), st.booleans(), st.text(max_size=3), st.floats(0, 9))
ODD_USAGES = st.dictionaries(
    st.sampled_from(
        ["input_tokens", "output_tokens", "cost", "cache_read_input_tokens", "cache_creation_input_tokens"]
    ),
    COUNTS,
)
ODD_ANSWERS = st.fixed_dictionaries(
    {"id": st.just("gen-1") | COUNTS, "type": st.just("message") | COUNTS, "content": st.just([{}]) | COUNTS},
    optional={
        "model": st.just("a/b") | COUNTS,
        "usage": st.fixed_dictionaries(dict.fromkeys(("input_tokens", "output_tokens"), COUNTS)) | ODD_USAGES | COUNTS,
        "stop_reason": st.just("end_turn") | COUNTS,
        "error": st.sampled_from([None, False, {}, {"type": "api_error"}]),
        "container": st.none() | ODD_USAGES,
    },
)


@given(ODD_ANSWERS, st.booleans())
def test_the_quick_look_at_usual_answers_finds_what_a_whole_reading_does(document, ascii_only):
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert read_answer(body) == read_any_answer(body)


@pytest.mark.parametrize(
    "text", [b'"\xff"', b'"\xed\xa0\x80"', b"[" * 1001 + b"]" * 1001], ids=["no UTF-8", "a surrogate", "too deep"]
)
def test_what_is_passed_over_has_to_be_sound_all_the_same(text):
    with pytest.raises(UnreadableAnswer):
        read_answer(MESSAGE[:-1] + b', "more": ' + text + b"}")


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"code": 429, "message": "slow down"}},
        {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
        {"error": "boom"},
        {"type": "message", "content": [], "error": {"message": "cut"}},
    ],
)
def test_an_error_in_spite_of_status_200_is_seen(document):
    assert read_answer(json.dumps(document).encode()).error == document


def test_a_null_error_is_none():
    answer = read_answer(b'{"type":"message","content":[],"error":null}')

    assert answer.is_message
    assert answer.error is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', MESSAGE[:-1], b"\xff", b'{"a":NaN}', b'{"a":' * 2000])
def test_what_is_no_json_object_is_unreadable(body):
    with pytest.raises(UnreadableAnswer):
        read_answer(body)


@pytest.mark.parametrize(
    "document", [{}, {"type": "message"}, {"type": 5, "content": []}, {"object": "chat.completion"}]
)
def test_an_object_that_is_no_message_is_told_apart(document):
    assert not read_answer(json.dumps(document).encode()).is_message


# -- Values --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value",
    [None, -1, 1.5, 7.0, True, "7", [7], {"n": 7}, 2**63, 10**400],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize(
    "name", ["input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"]
)
def test_a_count_that_cannot_be_one_is_ignored(name, value):
    assert read_answer(json.dumps({"usage": {name: value}}).encode()).usage == Usage()


@pytest.mark.parametrize("usage", [None, [], "x", 5, {}])
def test_an_answer_without_usage_has_no_cost(usage):
    assert read_answer(json.dumps({"usage": usage}).encode()).usage == Usage(cost_nano=None)


@pytest.mark.parametrize(
    ("usage", "written"),
    [
        ({"cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6}}, 10),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": None}}, 4),
        ({"cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_5m_input_tokens": 4}}, 9),
        ({"cache_creation_input_tokens": None, "cache_creation": {"ephemeral_5m_input_tokens": 4}}, 4),
        ({"cache_creation": None}, 0),
    ],
)
def test_cache_writes_are_counted_once(usage, written):
    assert read_answer(json.dumps({"usage": usage}).encode()).usage.cache_write_tokens == written


@pytest.mark.parametrize(
    ("told", "nano"),
    [
        ("0", 0),
        ("0.0", 0),
        ("1", 1_000_000_000),
        ("0.00055", 550_000),
        ("0.1", 100_000_000),
        ("1.5e-7", 150),
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("0.0000000025", 2),
        ("0.00000000250000000000000000000000000000000000000000000000000000001", 3),
        ("123.456789012345678901234567890", 123_456_789_012),
        ("1e-999999", 0),
        ("1000000", 10**15),
        ("1000000.1", None),
        ("1e400", None),
        ("-0.01", None),
        ("true", None),
        ('"0.5"', None),
        ("null", None),
        ("[0.5]", None),
    ],
)
def test_cost_is_exact_to_the_nano_dollar_half_to_even(told, nano):
    assert read_answer(b'{"usage":{"cost":' + told.encode() + b"}}").usage.cost_nano == nano


@given(st.decimals(0, 1_000_000, allow_nan=False, allow_infinity=False, places=12))
def test_cost_is_never_off_by_more_than_half_a_nano_dollar(usd):
    nano = cost_in_nano(usd)

    assert nano is not None
    assert abs(Decimal(nano) - usd * 10**9) <= Decimal("0.5")


@given(st.integers(0, 10**15))
def test_whole_nano_dollars_are_kept(nano):
    assert cost_in_nano(Decimal(nano).scaleb(-9)) == nano


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ('"gen\\u0000-1"', "gen-1"),
        ('"gen\\ud800-1"', "gen-1"),
        ("5", ""),
        ("null", ""),
        ('"' + "x" * 5000 + '"', "x" * 200),
    ],
)
def test_an_id_fits_a_text_column_of_any_database(told, read):
    assert read_answer(b'{"id":' + told.encode() + b"}").id == read


# -- A stream ------------------------------------------------------------------------------------------------------
def test_the_usage_of_a_stream_is_folded():
    reader = fold(start(input_tokens=0, output_tokens=1), delta("end_turn", input_tokens=11, output_tokens=7, cost=0.5))

    assert (reader.id, reader.model, reader.is_ending) == ("gen-1", "m", True)
    assert reader.usage == Usage(11, 7, cost_nano=500_000_000)


def test_later_values_override_and_null_does_not():
    reader = fold(
        start(input_tokens=4, cache_read_input_tokens=100, cost=0.1),
        delta(output_tokens=5, cost=0.2),
        delta("tool_use", input_tokens=None, output_tokens=9, cache_read_input_tokens=None, cost=None),
    )

    assert reader.usage == Usage(4, 9, cache_read_tokens=100, cost_nano=200_000_000)


def test_the_stop_reason_marks_the_delta_that_finishes_the_answer():
    reader = fold(start(), delta(None, output_tokens=5))
    assert not reader.is_ending

    reader.fold(b"message_delta", json.dumps(delta("max_tokens")[1]).encode())

    assert reader.is_ending


@pytest.mark.parametrize(
    "data",
    [
        b'{"delta":{"stop_reason":"\\ud800"}}',
        b'{"delta":{"stop_reason":"\\u0000"},"usage":{}}',
        b'{"delta":{"stop_reason":5},"usage":{}}',
        b'{"delta":{"stop_reason":"end_turn"},"usage":{"cost":1e99999999999999999999}}',
        b'{"delta":{"stop_reason":"end_turn"},"usage":{"cost":NaN}}',
        b'{"delta":{"stop_reason":"end_turn"},"usage":{},"x":"\xff"}',
        b'{"delta":{"stop_reason" :\n"end_turn"',
    ],
)
def test_a_delta_that_shows_an_odd_reason_or_can_not_be_read_may_finish_the_answer(data):
    assert fold((b"message_delta", data)).is_ending


@pytest.mark.parametrize(
    "data",
    [
        b'{"delta":{"stop_reason":null},"usage":{"cost":NaN}}',
        b'{"delta":{"stop_reason":""},"usage":{"cost":NaN}}',
        b'{"delta":{"stop_reason":""},"usage":{}}',
        b'{"delta":{"stop_reason":false},"usage":{}}',
        b"{}",
    ],
)
def test_a_delta_that_shows_no_reason_finishes_nothing(data):
    assert not fold((b"message_delta", data)).is_ending


def test_an_event_without_id_and_model_keeps_those_before():
    reader = fold(start(input_tokens=4), (b"message_start", {"message": {"id": None}}), delta("end_turn"), delta())

    assert (reader.id, reader.model, reader.is_ending, reader.usage.input_tokens) == ("gen-1", "m", True, 4)


@pytest.mark.parametrize("kind", [b"content_block_delta", b"ping", b"", b"message_stop", b"error"])
def test_other_events_change_nothing(kind):
    assert fold((kind, {"message": {"id": "x"}, "usage": {"cost": 1}, "delta": {"stop_reason": "x"}})) == UsageReader()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[DONE]",
        b"null",
        b"[]",
        b'{"message":5,"delta":5,"usage":5}',
        b'{"message":{"usage":[]},"delta":{"stop_reason":[]}}',
    ],
)
@pytest.mark.parametrize("kind", [b"message_start", b"message_delta"])
def test_garbage_in_a_stream_changes_nothing(kind, data):
    assert fold((kind, data)) == UsageReader()


def test_an_odd_reason_to_stop_is_one_and_says_nothing_of_the_usage():
    assert fold((b"message_delta", b'{"message":{"usage":[]},"delta":{"stop_reason":5}}')) == UsageReader(
        is_ending=True
    )


@given(st.sampled_from([b"message_start", b"message_delta"]), st.binary(max_size=100))
def test_no_bytes_make_the_usage_reader_fail(kind, data):
    assert isinstance(fold((kind, data)).usage, Usage)


def test_fractions_in_a_payload_are_exact():
    assert parse_payload(b'{"cost":0.1}') == {"cost": Decimal("0.1")}


def mostly(usual, odd=COUNTS):
    """Nine times of ten `usual`, so that what has several of these is usual often enough."""
    return st.integers(0, 9).flatmap(lambda die: odd if die == 0 else usual)


USAGES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
            mostly(st.none() | st.integers(0, 2**40)),
        ),
        "cache_creation": mostly(st.none(), st.just({}) | st.just({"ephemeral_5m_input_tokens": 4}) | COUNTS),
        "cost": mostly(st.floats(0, 9) | st.none() | st.integers(0, 9), COUNTS | st.floats(0, 1e300)),
    },
)
NAMES = mostly(st.sampled_from(["gen-1", "a/b", "", "a\0b", "\ud800", "x" * 300]))
KINDS = (b"message_start", b"message_delta")
EVENTS = st.tuples(
    st.sampled_from(KINDS),
    st.fixed_dictionaries(
        {
            "message": mostly(st.fixed_dictionaries({"id": NAMES, "model": NAMES, "usage": mostly(USAGES)})),
            "delta": mostly(st.fixed_dictionaries({"stop_reason": mostly(st.none() | st.just("end_turn"))})),
            "usage": mostly(USAGES),
        }
    ),
)


@given(st.lists(EVENTS, min_size=1, max_size=4), st.booleans())
@example([(KINDS[0], start()[1]), (KINDS[0], {"message": {"id": "", "model": "", "usage": {}}})], False)
@example([(KINDS[0], {"message": {"id": "a\0b", "model": "a\0b", "usage": {}}})], False)
@example([delta(None, cache_creation={"ephemeral_5m_input_tokens": 4})], False)
@example([delta(None, cache_creation_input_tokens=4), delta(None, cache_creation_input_tokens=0)], False)
def test_the_quick_look_at_usual_events_finds_what_a_whole_reading_does(events, ascii_only):
    quick, plain = UsageReader(), UsageReader()
    for kind, document in events:
        data = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        quick.fold(kind, data)
        plain.fold_any(kind, data)
        assert quick == plain


@pytest.mark.parametrize("cost", ["1e99999999999999999999", "-1", "-0", "1e-10", "0.1234567895", "true", '"1"', "NaN"])
def test_the_quick_look_reads_any_cost_as_a_whole_reading_does(cost):
    data = b'{"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5,"cost":%b}}' % cost.encode()
    quick, plain = UsageReader(), UsageReader()
    quick.fold(b"message_delta", data)
    plain.fold_any(b"message_delta", data)
    assert quick == plain


def test_a_usual_event_is_read_without_what_it_says_beside_its_usage():
    """That, and so a number that nothing holds, is passed over: it shows that the quick way was taken."""
    beside = b'"more":1e99999999999999999999'
    reader = UsageReader()
    reader.fold(b"message_start", b'{"message":{"id":"gen-1","model":"m","usage":{"input_tokens":3}},%b}' % beside)
    reader.fold(b"message_delta", b'{"delta":{"stop_reason":null},"usage":{"cost":1,"output_tokens":7},%b}' % beside)
    assert reader == UsageReader("gen-1", "m", is_ending=False, usage=Usage(3, 7, cost_nano=10**9))


@pytest.mark.parametrize("text", [b'"\xff"', b'"\xed\xa0\x80"', b"[" * 1001 + b"]" * 1001])
def test_of_an_event_that_is_not_sound_no_usage_is_taken(text):
    kind, payload = delta("end_turn", cost=1)
    data = json.dumps(payload).encode()
    assert fold((kind, data)).usage == Usage(cost_nano=10**9)
    assert fold((kind, data[:-1] + b', "more": ' + text + b"}")).usage == Usage()


def test_an_event_too_deep_is_refused_also_when_the_stack_has_room():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 5000)
    try:
        test_of_an_event_that_is_not_sound_no_usage_is_taken(b"[" * 1001 + b"]" * 1001)
    finally:
        sys.setrecursionlimit(limit)
