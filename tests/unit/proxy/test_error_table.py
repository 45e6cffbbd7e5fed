"""The error table: each failure of upstream, in each of its shapes and places, comes to the same answer."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from keys.causes import Cause
from proxy import chat_errors
from proxy.error_table import CHAT_TYPES, ERROR_TYPES, OPENROUTER_STATUSES, POOL_ANSWERS, STATUSES, error_type_of
from proxy.errors import MAX_RETRY_AFTER_SECONDS, error_body, error_event, refusal_headers, spend_limit_reached
from proxy.failures import classify, classify_event, refusal_of

NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
MODEL = "anthropic/claude-sonnet-4.5"
SECRETS = "key sk-or-v1-0123456789abcdef of user_2abcDEF123456789 at https://openrouter.ai/keys/" + "ab" * 32
TOLD = ("sk-or-v1-0123", "user_2abcDEF", "ab" * 32)

# error_type: (its HTTP status, what clients get)
TABLE: dict[str, tuple[int, int, str]] = {
    "authentication": (401, 529, "overloaded_error"),
    "payment_required": (402, 529, "overloaded_error"),
    "permission_denied": (403, 403, "permission_error"),
    "content_policy_violation": (403, 403, "permission_error"),
    "refusal": (403, 403, "permission_error"),
    "not_found": (404, 404, "not_found_error"),
    "image_not_found": (404, 404, "not_found_error"),
    "payload_too_large": (413, 413, "request_too_large"),
    "rate_limit_exceeded": (429, 429, "rate_limit_error"),
    "provider_overloaded": (529, 529, "overloaded_error"),
    "timeout": (504, 504, "timeout_error"),
    "provider_unavailable": (502, 502, "api_error"),
    "server": (500, 500, "api_error"),
    "unmapped": (500, 500, "api_error"),
    "unprocessable": (422, 400, "invalid_request_error"),
    "precondition_failed": (412, 400, "invalid_request_error"),
    "context_length_exceeded": (400, 400, "invalid_request_error"),
    "max_tokens_exceeded": (400, 400, "invalid_request_error"),
    "token_limit_exceeded": (400, 400, "invalid_request_error"),
    "string_too_long": (400, 400, "invalid_request_error"),
    "invalid_prompt": (400, 400, "invalid_request_error"),
}
Told = tuple[int, str, str]


def _a(kind: str, status: int, message: str) -> dict[str, Any]:
    inner = {"type": error_type_of(status), "message": message, "error_type": kind}
    return {"type": "error", "error": inner, "request_id": None}


def _b(kind: str, status: int, message: str) -> dict[str, Any]:
    return {
        "error": {"code": status, "message": message, "metadata": {"error_type": kind}},
        "user_id": "user_2abcDEF123456789",
    }


def _told(failure: Any) -> Told:
    refusal = refusal_of(failure)
    return refusal.status, refusal.error_type, refusal.message


def _http(document: dict[str, Any], status: int) -> Told:
    return _told(classify(status, {}, json.dumps(document).encode(), now=NOW, model=MODEL))


def _event(document: dict[str, Any], *, mid_stream: bool = False) -> Told:
    return _told(classify_event(document, now=NOW, model=MODEL, mid_stream=mid_stream))


SHAPES: dict[str, Any] = {
    "A": lambda kind, status, words: _http(_a(kind, status, words), status),
    "B": lambda kind, status, words: _http(_b(kind, status, words), status),
    "A in a 200": lambda kind, status, words: _http(_a(kind, status, words), 200),
    "B in a 200": lambda kind, status, words: _http(_b(kind, status, words), 200),
    "C in a choice": lambda kind, status, words: _http({"choices": [_b(kind, status, words)]}, 200),
    "A as the first event": lambda kind, status, words: _event(_a(kind, status, words)),
    "B as the first event": lambda kind, status, words: _event(_b(kind, status, words)),
    "C as the first chunk": lambda kind, status, words: _event({"choices": [_b(kind, status, words)]}),
}


def test_every_error_type_that_the_code_knows_is_in_this_table() -> None:
    assert set(TABLE) == {*OPENROUTER_STATUSES, "invalid_prompt"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", TABLE)
def test_an_error_comes_to_the_same_in_every_shape(kind: str, shape: str) -> None:
    status, told_status, told_type = TABLE[kind]
    found_status, found_type, message = SHAPES[shape](kind, status, "Words of upstream.")
    assert (found_status, found_type) == (told_status, told_type)
    assert found_status not in (401, 402)
    is_ours = status in (401, 402, 429, 504)  # the pool's trouble, and what may have been billed, is told in own words
    assert ("Words of upstream." in message) is not is_ours


@pytest.mark.parametrize("kind", TABLE)
def test_in_mid_stream_no_error_is_the_clients_login(kind: str) -> None:
    status = TABLE[kind][0]
    _, error_type, _ = _event(_a(kind, status, "Words."), mid_stream=True)
    assert error_type not in ("authentication_error", "billing_error")


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 408, 413, 429, 500, 502, 503, 524, 529, 530])
@pytest.mark.parametrize("page", [b"<html>no</html>", b"plain words", b""], ids=["page", "text", "nothing"])
def test_shape_d_is_never_a_login_error(page: bytes, status: int) -> None:
    told_status, told_type, message = _told(classify(status, {}, page, now=NOW, model=MODEL))
    assert told_status >= 400
    assert told_type not in ("authentication_error", "billing_error")
    assert "<html>" not in message


WORDINGS = [
    "prompt is too long: 200001 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length",
    "This endpoint's maximum context length is 200000 tokens. However, you requested about 210000 tokens",
    "context_length_exceeded",
    "Your input exceeds the context window of this model",
    "capability_rejected:effort",
]


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_wording_that_clients_match_on_is_kept(shape: str, wording: str) -> None:
    assert SHAPES[shape]("invalid_prompt", 400, wording)[2] == wording


@pytest.mark.parametrize("words", ["Too much input.", ""])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_context_that_is_too_long_is_said_in_words_that_clients_look_for(shape: str, words: str) -> None:
    """Also when only upstream's `error_type` tells."""
    message = SHAPES[shape]("context_length_exceeded", 400, words)[2]
    assert message.startswith(words)
    assert message.endswith(" (context_length_exceeded)")


@pytest.mark.parametrize("wording", WORDINGS[:4])
def test_the_wording_of_the_provider_behind_openrouter_is_kept(wording: str) -> None:
    raw = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": wording}})
    metadata = {"provider_name": "Anthropic", "raw": raw}
    document = {"error": {"code": 400, "message": "Provider returned error", "metadata": metadata}}
    assert wording in _http(document, 400)[2]


@pytest.mark.parametrize("write", [error_body, error_event, chat_errors.error_body, chat_errors.error_event])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["content_policy_violation", "context_length_exceeded", "server", "authentication"])
def test_nothing_of_ours_is_told(kind: str, shape: str, write: Any) -> None:
    _, error_type, message = SHAPES[shape](kind, TABLE[kind][0], SECRETS)
    written = write(error_type, message, "req_1").decode()
    assert not [secret for secret in TOLD if secret in written]


@pytest.mark.parametrize("hint", ["3600", "86400", "1e9", "Tue, 24 Nov 2026 00:00:00 GMT"])
@pytest.mark.parametrize("status", [429, 503, 529])
def test_retry_after_is_capped(status: int, hint: str) -> None:
    document = {"error": {"code": status, "message": "Provider returned error"}}
    failure = classify(status, {"retry-after": hint}, json.dumps(document).encode(), now=NOW, model=MODEL)
    refusal = refusal_of(failure)
    assert refusal.retry_after_seconds in (None, MAX_RETRY_AFTER_SECONDS)


def test_a_hint_of_hours_becomes_a_minute() -> None:
    document = {"error": {"code": 429, "message": "Provider returned error"}}
    failure = classify(429, {"retry-after": "7200"}, json.dumps(document).encode(), now=NOW, model=MODEL)
    assert dict(refusal_headers(refusal_of(failure)))[b"retry-after"] == b"60"


@pytest.mark.parametrize(
    ("period", "resets_at", "message"),
    [
        ("daily", NOW, "spend limit reached (daily; resets 2026-11-22T00:00:00Z)"),
        (
            "monthly",
            dt.datetime(2026, 12, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            "spend limit reached (monthly; resets 2026-12-01T00:00:00Z)",
        ),
        ("total", None, "spend limit reached (total)"),
    ],
)
def test_the_spend_limit_answer_stops_claude_code_and_the_sdks(
    period: str, resets_at: dt.datetime | None, message: str
) -> None:
    refusal = spend_limit_reached(period, resets_at)
    assert (refusal.status, refusal.error_type, refusal.message) == (429, "billing_error", message)
    headers = dict(refusal_headers(refusal))
    assert headers[b"x-should-retry"] == b"false"
    assert b"retry-after" not in headers


def test_the_tables_fit_together() -> None:
    assert set(ERROR_TYPES.values()) == set(STATUSES) == set(CHAT_TYPES)
    assert all(ERROR_TYPES[status] == kind for kind, status in STATUSES.items())
    assert set(POOL_ANSWERS) < set(Cause)
    assert not {401, 402} & {status for status, _ in POOL_ANSWERS.values()}
