"""One record, one line of JSON."""

from __future__ import annotations

import json
import logging
import sys
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensvm.log_lines import MAX_LINE_BYTES, redact, to_line, to_quick_line


def record(message: object = "sent", *arguments: object, **extras: Any) -> logging.LogRecord:
    made = logging.LogRecord("opensvm.pool", logging.INFO, __file__, 1, message, arguments, None)
    made.created = 1_777_896_000.1234
    vars(made).update(extras)
    return made


def line(made: logging.LogRecord, max_bytes: int = MAX_LINE_BYTES) -> dict[str, Any]:
    raw = to_line(made, environment="test", max_bytes=max_bytes)
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    assert len(raw) <= max_bytes
    fields: dict[str, Any] = json.loads(raw)
    return fields


def test_a_line_has_the_fixed_fields_and_the_extras() -> None:
    made = record("sent to key ending %s", "...abc1", event="request.sent", attempt=2)

    assert line(made) == {
        "ts": "2026-05-04T12:00:00.123Z",
        "level": "info",
        "event": "request.sent",
        "msg": "sent to key ending ...abc1",
        "environment": "test",
        "pid": made.process,
        "attempt": 2,
    }


class Said(msgspec.Struct):
    event: str = "request.settled"
    msg: str = "answered"
    detail: str = ""
    cost_nano: int | None = 7


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(Said(), id="plain"),
        pytest.param(Said(detail="Grüße \u2028 \x7f", cost_nano=None), id="what a terminal would obey"),
        pytest.param(Said(detail="\ud800"), id="lone surrogate"),
        pytest.param(Said(detail="with sk-or-v1-0123456789abcdef"), id="a key"),
        pytest.param(Said(detail="x" * 5000), id="long"),
    ],
)
def test_what_is_said_without_a_record_makes_the_line_of_one(said: Said) -> None:
    made = record(said.msg, event=said.event, detail=said.detail, cost_nano=said.cost_nano)
    quick = to_quick_line(said, created=made.created, level=logging.INFO, environment="test", max_bytes=4096)

    assert quick.endswith(b"\n")
    assert len(quick) <= 4096
    assert json.loads(quick) == line(made, 4096)
    assert redact(quick.decode()) == quick.decode()


def test_a_record_of_a_library_has_its_logger_as_event() -> None:
    assert line(record())["event"] == "opensvm.pool"


def test_text_stays_utf_8_as_it_is() -> None:
    assert "Grüße → 日本 😀".encode() in to_line(record("Grüße → 日本 😀"), environment="test")


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        pytest.param("a\nb\r\x00", rb"a\nb\r\u0000", id="control characters"),
        pytest.param("\x1b[31m\x9b31m\x7f", rb"\u001b[31m\u009b31m\u007f", id="terminal commands"),
        pytest.param("\u2028\u2029\x85", rb"\u2028\u2029\u0085", id="line separators"),
        pytest.param("\udc80\ud800", rb"\udc80\ud800", id="lone surrogates"),
    ],
)
def test_what_could_break_a_line_or_a_terminal_is_escaped(text: str, escaped: bytes) -> None:
    raw = to_line(record("x", note=text), environment="test")

    assert escaped in raw
    assert json.loads(raw)["note"] == text


def test_a_traceback_is_a_field_and_not_lines() -> None:
    try:
        raise ValueError("no room\nfor sk-or-v1-test-planted-abc1")
    except ValueError:
        made = record(exc_info=sys.exc_info())
        made.exc_info = sys.exc_info()

    traceback = line(made)["traceback"]

    assert "ValueError: no room\nfor ...abc1" in traceback


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("Bearer sk-or-v1-0123456789abc1!", "Bearer ...abc1!", id="OpenRouter key"),
        pytest.param("sk-or-v1-abc1", "...", id="so short that its tail would be all of it"),
        pytest.param("b'sk-or-v1-0123456789abc1'", "b'...abc1'", id="in a repr"),
        pytest.param("sk-ant-api03-Ab3dEFGHIJKLMNOP", "sk-ant-api03-Ab3d…", id="client key"),
        pytest.param("sk-ant-api03-Ab3d", "sk-ant-api03-Ab3d", id="a client key's prefix"),
        pytest.param("key ending ...abc1", "key ending ...abc1", id="a tail"),
    ],
)
def test_keys_are_redacted(text: str, shown: str) -> None:
    assert redact(text) == shown


KEY = "sk-or-v1-test-planted-key-0123456789-abc1"
CLIENT_KEY = "sk-ant-api03-Ab3dPLANTEDPLANTEDPLANTEDPLANTED"


@pytest.mark.parametrize("padding", [0, 1990, 1995, 5990, 20_000], ids=lambda length: f"after {length} characters")
@pytest.mark.parametrize("place", ["message", "extra", "nested", "name", "cut line"])
def test_no_place_of_a_record_leaks_a_key(place: str, padding: int) -> None:
    secret = f"{'x' * padding} {KEY} {CLIENT_KEY}"
    made = {
        "message": record(secret),
        "extra": record(note=secret),
        "nested": record(note={"a": [secret]}),
        "name": record(**{secret: 1}),
        "cut line": record(secret, note=secret, filler="y" * 20_000),
    }[place]

    raw = to_line(made, environment="test")

    assert b"planted-key" not in raw
    assert b"PLANTED" not in raw


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [object(), b"\xff", CIRCLE, Unprintable()],
    ids=["object", "bytes", "circle", "object that can't be shown"],
)
def test_a_value_that_is_no_json_is_shown_as_text(value: object) -> None:
    assert isinstance(line(record(note=value))["note"], str)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param({1}, [1], id="set"),
        pytest.param((1, None), [1, None], id="tuple"),
        pytest.param(float("nan"), None, id="nan"),
        pytest.param(float("inf"), None, id="infinity"),
        pytest.param(Decimal("0.10"), "0.10", id="decimal"),
        pytest.param(UUID(int=7), "00000000-0000-0000-0000-000000000007", id="uuid"),
        pytest.param(10**30, 10**30, id="large number"),
    ],
)
def test_a_value_that_json_can_hold_in_another_form_keeps_its_meaning(value: object, shown: object) -> None:
    assert line(record(note=value))["note"] == shown


@pytest.mark.parametrize("message", ["%s %s", "%d", Unprintable()], ids=["too few", "wrong type", "unprintable"])
def test_a_message_that_can_not_be_made_is_still_a_line(message: object) -> None:
    assert line(record(message, "x", event="a.b"))["event"] == "a.b"


def test_a_field_can_not_pose_as_a_fixed_one() -> None:
    fields = line(record("sent", level="critical", ts="1970", pid=1))

    assert (fields["level"], fields["msg"]) == ("info", "sent")
    assert fields["ts"] != "1970"


@pytest.mark.parametrize("max_bytes", [1024, 4096, MAX_LINE_BYTES])
@pytest.mark.parametrize(
    "extras",
    [
        {"note": "x" * 100_000},
        {"note": "\x00" * 100_000},
        {"note": "😀" * 50_000},
        {"note": ["x"] * 50_000},
        {f"field_{number}": "x" * 100 for number in range(500)},
        {"x" * 100_000: 1},
        {"event": "\x00" * 5000},
    ],
    ids=["text", "escapes", "four bytes each", "list", "many fields", "long name", "long event"],
)
def test_a_long_record_is_cut_and_says_so(extras: dict[str, Any], max_bytes: int) -> None:
    fields = line(record("kept", **extras), max_bytes)

    assert fields["cut"] is True
    assert fields["msg"] == "kept"


@given(
    st.text(st.characters(codec=None), max_size=300),
    st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.floats(), st.binary(), st.none(), st.integers())),
)
def test_any_record_is_one_line_of_json(message: str, extras: dict[str, Any]) -> None:
    made = record()
    made.msg, made.args = message, None
    for name, value in extras.items():
        vars(made).setdefault(name, value)

    line(made)
