"""What upstream writes: hints are understood or left out, words are kept or redacted, and nothing fails on anything."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.causes import BenchPolicy, Failure, Scope
from keys.client_keys import new_client_key
from proxy.error_table import ERROR_TYPES
from proxy.failures import classify, classify_event, refusal_of
from tests.unit.proxy.upstream_bodies import HASH, MODEL, NOW, PAGE, failure_of, shape_a, shape_b


# -- Hints -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("headers", "metadata", "seconds"),
    [
        ({"retry-after": "17"}, {}, 17),
        ({"retry-after": "0"}, {}, 0),
        ({"retry-after": "1.5"}, {}, 1.5),
        ({"retry-after": " 17 "}, {}, 17),
        ({"retry-after": "17\x1f"}, {}, 17),
        ({"retry-after": "Wed, 18 Nov 2026 10:31:00 GMT"}, {}, 60),
        ({"retry-after": "Wed, 18 Nov 2026 10:00:00 GMT"}, {}, 0),
        ({"retry-after": "Wednesday, 18-Nov-26 10:31:00 GMT"}, {}, 60),
        ({"retry-after-ms": "1500"}, {}, 1.5),
        ({"retry-after": "17"}, {"retry_after_seconds": 99}, 17),
        ({"retry-after": "soon"}, {"retry_after_seconds": 99}, 99),
        ({}, {"retry_after_seconds": 12.5}, 12.5),
        ({}, {"retry_after_seconds": "12"}, 12),
        ({}, {"headers": {"Retry-After": "21"}}, 21),
        ({}, {"headers": {"X-RateLimit-Reset": "1794999600000"}}, 1800),
        ({"x-ratelimit-reset": "1794999600000"}, {}, 1800),
        ({"x-ratelimit-reset": "1794999600"}, {}, 1800),
        ({"x-ratelimit-reset": "1794990000000"}, {}, 0),
        ({"x-ratelimit-reset": "60"}, {}, None),
        ({"retry-after": ""}, {}, None),
        ({"retry-after": "-5"}, {}, None),
        ({"retry-after": "nan"}, {}, None),
        ({"retry-after": "inf"}, {}, None),
        ({"retry-after": "1_000"}, {}, None),
        ({"retry-after": "٣"}, {}, None),
        ({"retry-after": "9" * 400}, {}, None),
        ({"retry-after": "Wed, 99 Foo 9999 99:99:99 GMT"}, {}, None),
        ({}, {"retry_after_seconds": -1}, None),
        ({}, {"retry_after_seconds": True}, None),
        ({}, {"retry_after_seconds": 10**400}, None),
        ({}, {"retry_after_seconds": [5]}, None),
        ({}, {"headers": ["Retry-After", "21"]}, None),
    ],
)
def test_the_hint_of_upstream_is_understood_or_left_out(headers, metadata, seconds):
    failure = failure_of(429, shape_b(429, "Rate limited", **metadata), headers)

    assert failure.hint_seconds == failure.retry_after_seconds
    assert failure.hint_seconds == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "resets_at", ["soon", "", 5, -1, 10**30, [], "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2029-01-01"]
)
def test_a_reset_that_cannot_be_one_is_left_out(resets_at):
    document = shape_b(403, "x", limit_source="openrouter_key_limit", resets_at=resets_at)

    assert failure_of(403, document).resets_at is None


def test_a_busy_provider_tells_the_client_when_to_come_back_within_a_minute():
    failure = failure_of(429, shape_b(429, "Provider returned error", retry_after_seconds=500))

    assert failure.hint_seconds is None
    assert refusal_of(failure).retry_after_seconds == 60


def test_a_bad_request_is_not_to_be_sent_again_later():
    refusal = refusal_of(failure_of(400, shape_b(400, "no"), {"retry-after": "5"}))

    assert refusal.retry_after_seconds is None


# -- Words -----------------------------------------------------------------------------------------------------------
TOO_LONG = "prompt is too long: 210000 tokens > 200000 maximum"


@pytest.mark.parametrize(
    "document",
    [
        shape_b(400, TOO_LONG),
        shape_a("context_length_exceeded", TOO_LONG),
        shape_b(400, "Provider returned error", raw=TOO_LONG),
        shape_b(400, "Provider returned error", raw=json.dumps({"type": "error", "error": {"message": TOO_LONG}})),
        shape_b(400, "Provider returned error", raw={"error": {"message": TOO_LONG}}),
        shape_b(400, "", raw=json.dumps({"message": TOO_LONG})),
    ],
    ids=["shape B", "shape A", "raw text", "raw JSON", "raw object", "no message"],
)
def test_the_words_that_clients_look_for_reach_them(document):
    assert TOO_LONG in failure_of(400, document).message


@pytest.mark.parametrize(
    "document",
    [
        shape_b(402, "Insufficient credits of Acme Inc."),
        shape_b(401, "User not found in Acme Inc."),
        shape_b(403, "Key limit exceeded of Acme Inc."),
        shape_b(429, "Rate limited: Acme Inc."),
    ],
)
def test_the_pools_trouble_is_told_to_the_log_and_not_to_the_client(document):
    failure = failure_of(document["error"]["code"], document)

    assert "Acme" in failure.detail
    assert "Acme" not in failure.message


def test_a_404_tells_the_log_which_model_was_sent():
    assert MODEL in failure_of(404, shape_b(404, "No endpoints found")).detail


@pytest.mark.parametrize("status", [400, 401, 402, 403, 429, 500, 524])
def test_no_key_hash_or_account_id_gets_into_a_failure(status):
    client_key = new_client_key()
    secrets = ["sk-or-v1-test-abcdef", HASH, "user_2abcDEF3ghiJKL4", client_key]
    text = f"{' '.join(secrets)} https://openrouter.ai/keys/{HASH}"
    metadata = {"raw": text, "reason": text, "limit_source": text, "error_type": text}

    for document in (shape_b(status, text, **metadata), shape_a(text, text), text.encode(), {"error": text}):
        shown = repr(failure_of(status, document))
        assert [secret for secret in secrets if secret in shown] == []


def test_half_a_hash_at_the_cut_is_not_shown():
    failure = failure_of(400, shape_b(400, "x" * 260 + " " + HASH))

    assert len(failure.detail) <= 300
    assert HASH[:20] not in failure.detail


def test_a_message_holds_nothing_that_a_database_or_a_stream_cannot():
    failure = failure_of(400, b'{"error":{"code":400,"message":"a\\u0000b\\ud800c' + b"x" * 100_000 + b'"}}')

    assert failure.message.startswith("ab?c")
    assert len(failure.message) <= 8_000
    assert len(failure.detail) <= 300


def test_a_page_is_not_shown_to_anyone():
    failure = failure_of(502, PAGE)

    assert "<" not in failure.message + failure.detail
    assert "page" in failure.detail


# -- Anything --------------------------------------------------------------------------------------------------------
NAMES = st.sampled_from(
    [
        "type",
        "error",
        "code",
        "message",
        "metadata",
        "error_type",
        "limit_source",
        "reason",
        "raw",
        "headers",
        "retry-after",
        "retry_after_seconds",
        "resets_at",
        "limit_reset",
        "availability",
        "retry_after",
        "provider_name",
        "choices",
        "x-ratelimit-reset",
    ]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([402, 429, "429"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
STATUSES = st.integers(100, 999) | st.sampled_from([200, 400, 401, 402, 403, 404, 408, 429, 500, 503])
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset", "content-type"]), st.text(max_size=20)
)


def is_sound(failure):
    return (
        isinstance(failure, Failure)
        and failure.status in ERROR_TYPES
        and failure.status not in (401, 402)
        and failure.error_type == ERROR_TYPES[failure.status]
        and bool(failure.message)
        and len(failure.detail) <= 300
        and (failure.scope is Scope.NOTHING or BenchPolicy().bench_seconds(failure, 0, NOW) >= 1)
    )


@given(STATUSES, HEADERS, st.binary(max_size=100))
def test_any_bytes_are_some_failure(status, headers, body):
    assert is_sound(classify(status, headers, body, now=NOW, model=MODEL))


@given(STATUSES, HEADERS, st.dictionaries(NAMES, JSON_VALUES, max_size=4))
def test_any_json_is_some_failure(status, headers, document):
    assert is_sound(classify(status, headers, json.dumps(document).encode(), now=NOW, model=MODEL))
    assert is_sound(classify_event(document, now=NOW, model=MODEL))


@given(STATUSES, st.dictionaries(NAMES, JSON_VALUES, max_size=3), st.dictionaries(NAMES, JSON_VALUES, max_size=5))
def test_any_error_object_is_some_failure(status, error, metadata):
    document = {"error": {**error, "metadata": metadata}}

    assert is_sound(failure_of(status, document))
