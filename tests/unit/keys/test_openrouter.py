"""What OpenRouter's answer to GET /key means, also when it is incomplete, new or nonsense."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.openrouter import KeyFacts, NoAnswer, Refused, nano_usd, next_reset, read_key_answer


def answer(**data: Any) -> bytes:
    return json.dumps({"data": data}).encode()


def facts(**data: Any) -> KeyFacts:
    found = read_key_answer(200, answer(**data))
    assert isinstance(found, KeyFacts)
    return found


def test_a_whole_answer_is_read() -> None:
    body = b"""{"data": {"label": "sk-or-v1-0e6...1c96", "limit": 25.5, "limit_remaining": 0.000000001,
        "limit_reset": "monthly", "usage": 0.1, "usage_daily": 1e-7, "usage_weekly": 3, "usage_monthly": "2.25",
        "expires_at": "2027-01-31T00:00:00Z", "organization_id": "org_1", "creator_user_id": "user_1",
        "is_free_tier": false, "a_new_field": {"x": [1]}}, "another_new_field": 1}"""
    assert read_key_answer(200, body) == KeyFacts(
        label="sk-or-v1-0e6...1c96",
        limit_nano=25_500_000_000,
        limit_remaining_nano=1,
        limit_reset="monthly",
        usage_nano=100_000_000,
        usage_daily_nano=100,
        usage_weekly_nano=3_000_000_000,
        usage_monthly_nano=2_250_000_000,
        expires_at=dt.datetime(2027, 1, 31, tzinfo=dt.UTC),
        has_room=True,
        owner="org_1",
    )


def test_an_empty_answer_says_nothing() -> None:
    assert facts() == KeyFacts()


@pytest.mark.parametrize(
    ("data", "has_room"),
    [
        ({"limit": None, "limit_remaining": None}, True),
        ({"limit": 10, "limit_remaining": 0.01}, True),
        ({"limit": 10, "limit_remaining": 0}, False),
        ({"limit": 10, "limit_remaining": -0.5}, False),
        ({"limit": 10}, None),
        ({"limit": "many", "limit_remaining": True}, None),
        ({}, None),
    ],
    ids=["unlimited", "room", "used up", "overdrawn", "remaining not said", "nonsense", "nothing said"],
)
def test_room_under_the_limit(data: dict[str, Any], has_room: bool | None) -> None:
    assert facts(**data).has_room is has_room


@pytest.mark.parametrize(
    ("data", "owner"),
    [
        ({"organization_id": "org_1", "creator_user_id": "user_1"}, "org_1"),
        ({"organization_id": None, "creator_user_id": "user_1"}, "user_1"),
        ({"organization_id": "", "creator_user_id": 7}, ""),
    ],
)
def test_the_owner_is_the_organization_or_the_creator(data: dict[str, Any], owner: str) -> None:
    assert facts(**data).owner == owner


@pytest.mark.parametrize(
    "data",
    [
        {"label": 5, "limit": [], "limit_reset": "hourly", "usage": "x", "expires_at": 17},
        {"label": None, "limit": {}, "limit_reset": ["daily"], "usage": 1e300, "expires_at": "soon"},
        {"usage": float("nan"), "limit": float("inf"), "expires_at": "0001-01-01T00:00:00+23:59"},
    ],
)
def test_nonsense_in_a_field_is_as_if_it_were_missing(data: dict[str, Any]) -> None:
    assert facts(**data) == KeyFacts()


def test_a_label_with_control_characters_can_be_stored() -> None:
    assert facts(label="a\0b\nc" + "x" * 300).label == "abc" + "x" * 197


@pytest.mark.parametrize("flag", ["is_management_key", "is_provisioning_key"])
def test_a_management_key_is_recognised_by_both_names(flag: str) -> None:
    assert facts(**{flag: True}).is_management_key


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b'{"error":{"message":"User not found.","code":401}}'),
        (401, b"<html>"),
        (401, b""),
        (200, b'{"error":{"message":"No auth credentials found","code":401}}'),
        (200, b'{"type":"error","error":{"type":"authentication_error","message":"no"}}'),
    ],
)
def test_a_401_in_every_shape_is_a_refusal(status: int, body: bytes) -> None:
    assert isinstance(read_key_answer(status, body), Refused)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b"", "answered 500."),
        (503, b'{"error":{"message":"Overloaded.","code":503}}', "answered 503: Overloaded."),
        (429, b"slow down", "answered 429."),
        (403, b"{}", "answered 403."),
        (302, b"", "redirects are not followed"),
        (404, b"<html>", "check OPENROUTER_BASE_URL"),
        (200, b"<html>", "can't be understood"),
        (200, b"[]", "can't be understood"),
        (200, b'{"data": []}', "can't be understood"),
        (200, b"[" * 100_000, "can't be understood"),
        (200, b'{"error": {"code": 502, "message": "Bad gateway"}}', "error 502: Bad gateway."),
        (200, b'{"error": "boom"}', "error unknown"),
    ],
)
def test_everything_else_tells_nothing_of_the_key(status: int, body: bytes, words: str) -> None:
    found = read_key_answer(status, body)
    assert isinstance(found, NoAnswer)
    assert words in found.message


@given(st.integers(100, 599), st.binary(max_size=60))
def test_no_answer_of_strangers_raises(status: int, body: bytes) -> None:
    found = read_key_answer(status, body)
    assert isinstance(found, Refused if status == 401 else NoAnswer)


@pytest.mark.parametrize(
    ("value", "nano"),
    [
        (0, 0),
        (1, 1_000_000_000),
        ("0.00054999", 549_990),
        ("-1", -1_000_000_000),
        ("1e-99999", 0),
        ("1e40", None),
        ("NaN", None),
        ("", None),
        (0.5, None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_amounts_become_whole_nano_usd(value: Any, nano: int | None) -> None:
    assert nano_usd(value) == nano


@pytest.mark.parametrize(
    ("reset", "now", "expected"),
    [
        ("daily", "2026-11-22T17:00:00+00:00", "2026-11-23T00:00:00+00:00"),
        ("daily", "2026-12-31T23:59:59+00:00", "2027-01-01T00:00:00+00:00"),
        ("daily", "2026-11-22T23:30:00-02:00", "2026-11-24T00:00:00+00:00"),
        ("weekly", "2026-11-22T17:00:00+00:00", "2026-11-23T00:00:00+00:00"),
        ("weekly", "2026-11-23T00:00:00+00:00", "2026-11-30T00:00:00+00:00"),
        ("monthly", "2026-01-31T12:00:00+00:00", "2026-02-01T00:00:00+00:00"),
        ("monthly", "2026-12-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),
    ],
)
def test_a_limit_starts_anew_at_the_next_utc_boundary(reset: str, now: str, expected: str) -> None:
    assert next_reset(reset, dt.datetime.fromisoformat(now)) == dt.datetime.fromisoformat(expected)


def test_a_limit_without_a_reset_never_starts_anew() -> None:
    assert next_reset("", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)) is None
