import json
import sys
import threading
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.json_text import MAX_DEPTH, dump, is_too_deep, load_exact, with_room

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


def nested(depth, inner=b""):
    return b"[" * depth + inner + b"]" * depth


@pytest.mark.parametrize(
    ("raw", "too_deep"),
    [
        (nested(MAX_DEPTH), False),
        (nested(MAX_DEPTH + 1), True),
        (b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH, False),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), True),
        (b"[" + b",".join([b"[]"] * 5000) + b"]", False),
        (b'["' + b"[" * 5000 + b'"]', False),
        (b'["\\"' + b"[" * 5000 + b'"]', False),
        (b'["\\\\",' + nested(MAX_DEPTH) + b"]", True),
        (b'{"[[":"' + b"{" * 3000 + b'"}', False),
        (b"]" * 5000 + b"[" * 5000, False),
        (b"", False),
    ],
    ids=[
        "1,000 arrays",
        "1,001 arrays",
        "1,000 objects",
        "1,001 objects",
        "wide",
        "in a string",
        "after an escaped quote",
        "after an escaped backslash",
        "in a key",
        "not JSON",
        "empty",
    ],
)
def test_depth_is_counted_outside_of_strings_only(raw, too_deep):
    assert is_too_deep(raw) is too_deep


@given(JSON_VALUES, st.integers(0, 1100))
def test_depth_is_exact_for_any_json(value, around):
    raw = nested(around, json.dumps([value] * 400).encode())

    assert is_too_deep(raw) is (around + 1 + depth_of(value) > MAX_DEPTH)


def depth_of(value):
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize("unit", [b'"', b'\\"', b'"\\', b"[]", b'["', b"\\"], ids=repr)
def test_depth_is_found_in_linear_time(unit):
    raw = b"[" * 1001 + unit * 200_000

    started = time.perf_counter()
    is_too_deep(raw)

    assert time.perf_counter() - started < 3


def at_stack_depth(depth, call):
    return call() if depth == 0 else at_stack_depth(depth - 1, call)


@pytest.fixture
def recursion_limit():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(limit)


def stack_depth():
    frame, depth = sys._getframe(), 0
    while frame := frame.f_back:
        depth += 1
    return depth


@pytest.mark.usefixtures("recursion_limit")
@pytest.mark.parametrize("room", [900, 500, 20], ids=lambda room: f"{room} frames left")
def test_a_thousand_levels_are_read_and_written_however_deep_the_caller_is(room):
    raw = nested(MAX_DEPTH)

    written = at_stack_depth(1000 - stack_depth() - room, lambda: dump(load_exact(raw)))

    assert written == raw


@pytest.mark.usefixtures("recursion_limit")
def test_a_thousand_levels_are_read_in_many_threads_at_once():
    raw, results = nested(MAX_DEPTH), []
    threads = [threading.Thread(target=lambda: results.append(dump(load_exact(raw)))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [raw] * 8


@pytest.mark.usefixtures("recursion_limit")
def test_the_recursion_limit_is_raised_once_not_by_every_call():
    load_exact(nested(MAX_DEPTH))
    limit = sys.getrecursionlimit()

    for _ in range(20):
        load_exact(nested(MAX_DEPTH))

    assert sys.getrecursionlimit() == limit


@pytest.mark.usefixtures("recursion_limit")
def test_unbounded_recursion_still_ends():
    def endless():
        return endless()

    with pytest.raises(RecursionError):
        with_room(endless)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"\xff", "can't decode"),
        (b"1e99999999999999999999999", "exponent"),
        (b"9" * 5000, "4300 digits"),
        (nested(1001), "1,000 levels"),
    ],
    ids=["empty", "cut", "NaN", "infinity", "-infinity", "not UTF-8", "exponent", "5,000 digits", "too deep"],
)
def test_what_cannot_be_read_exactly_is_a_value_error(raw, reason):
    with pytest.raises(ValueError, match=reason):
        load_exact(raw)


def test_fractions_are_read_exactly():
    assert load_exact(b"[0.1, 1e3, 12345678901234567890]") == [Decimal("0.1"), Decimal("1E+3"), 12345678901234567890]


@given(JSON_VALUES)
def test_what_is_written_reads_the_same(value):
    assert json.loads(dump(value)) == value
