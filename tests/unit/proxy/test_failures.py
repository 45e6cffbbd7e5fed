"""Every row of the table "Whose fault is it" has a test named after it."""

import pytest

from keys.causes import BenchPolicy, Cause, Scope
from proxy.failures import classify_event, refusal_of, transport_failure
from tests.unit.proxy.upstream_bodies import AFFORD, MODEL, NOW, PAGE, failure_of, shape_a, shape_b, utc


def bench_seconds(failure, repeat=0):
    return BenchPolicy().bench_seconds(failure, repeat, NOW)


# -- The rows of the table -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "document",
    [
        shape_b(429, "Rate limit exceeded"),
        shape_a("rate_limit_exceeded", "Rate limit exceeded"),
        b"",
        b"Too Many Requests",
        {"error": "Rate limit exceeded"},
        {"message": "Rate limit exceeded"},
    ],
    ids=["shape B", "shape A", "no body", "plain text", "error is a text", "no error object"],
)
def test_key_rate_limited(document):
    failure = failure_of(429, document)

    assert (failure.cause, failure.scope) == (Cause.KEY_RATE_LIMITED, Scope.KEY)
    assert (failure.status, failure.error_type, failure.upstream_status) == (429, "rate_limit_error", 429)
    assert [bench_seconds(failure, repeat) for repeat in range(4)] == [300, 600, 900, 900]


@pytest.mark.parametrize(
    ("status", "document", "seconds"),
    [
        (429, shape_b(429, "Too many in flight", limit_source="openrouter_admission_control"), 60),
        (429, shape_b(429, "x", limit_source="openrouter_admission_control", retry_after_seconds=10), 10),
        (402, shape_b(402, "x", limit_source="openrouter_in_flight_budget", retry_after_seconds=120), 120),
        (402, shape_b(402, "x", reason="in_flight_budget_exhausted"), 60),
        (402, shape_a("payment_required", "x", metadata={"limit_source": "openrouter_in_flight_budget"}), 60),
    ],
    ids=["admission control", "with a hint", "in-flight budget", "by its reason", "shape A"],
)
def test_account_limit_admission_control_in_flight_budget(status, document, seconds):
    failure = failure_of(status, document)

    assert (failure.cause, failure.scope, failure.pattern) == (Cause.ACCOUNT_LIMITED, Scope.ACCOUNT, "")
    assert (failure.status, failure.error_type) == (529, "overloaded_error")
    assert bench_seconds(failure) == seconds


@pytest.mark.parametrize(
    "document",
    [
        shape_b(402, "Insufficient credits. Add more at https://openrouter.ai/settings/credits"),
        shape_b(402, "Insufficient credits", limit_source="openrouter_credits", retry_after_seconds=5),
        shape_a("payment_required", "Insufficient credits"),
        shape_b(402, AFFORD.format(0)),
        shape_b(402, AFFORD.format("-1,234")),
        b"",
    ],
    ids=["by status", "by limit_source", "shape A", "can afford nothing", "can afford less than nothing", "no body"],
)
def test_account_out_of_credit(document):
    failure = failure_of(402, document)

    assert (failure.cause, failure.scope) == (Cause.OUT_OF_CREDIT, Scope.ACCOUNT)
    assert (failure.status, failure.error_type) == (529, "overloaded_error")
    assert [bench_seconds(failure, repeat) for repeat in (0, 1, 9)] == [300, 600, 3600]


@pytest.mark.parametrize(
    ("status", "document", "resets_at"),
    [
        (
            403,
            shape_b(403, "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys"),
            None,
        ),
        (403, shape_b(403, "Key limit exceeded (daily limit)."), utc(2026, 11, 19)),
        (403, shape_b(403, "Key limit exceeded (weekly limit)."), utc(2026, 11, 23)),
        (403, shape_b(403, "Key limit exceeded (monthly limit)."), utc(2026, 12, 1)),
        (402, shape_b(402, "x", limit_source="openrouter_key_limit", limit_reset="daily"), utc(2026, 11, 19)),
        (
            403,
            shape_b(403, "x", limit_source="openrouter_key_limit", resets_at="2026-11-18T12:00:00Z"),
            utc(2026, 11, 18, 12),
        ),
        (
            403,
            shape_b(403, "x", limit_source="openrouter_key_limit", resets_at=1_795_003_200_000),
            utc(2026, 11, 18, 12),
        ),
        (403, shape_b(403, "x", limit_source="openrouter_guardrail_budget"), None),
        (
            403,
            shape_b(403, "x", limit_source="openrouter_workspace_budget", reset_interval="daily"),
            utc(2026, 11, 19),
        ),
        (402, shape_b(402, AFFORD.format(0), limit_source="openrouter_key_limit"), None),
    ],
    ids=[
        "total",
        "daily",
        "weekly",
        "monthly",
        "402",
        "resets_at",
        "resets_at as an epoch",
        "guardrail budget",
        "workspace budget",
        "can afford nothing",
    ],
)
def test_key_limit_reached(status, document, resets_at):
    failure = failure_of(status, document)

    assert (failure.cause, failure.scope) == (Cause.KEY_LIMIT_REACHED, Scope.KEY)
    assert (failure.status, failure.error_type) == (529, "overloaded_error")
    assert failure.resets_at == resets_at
    assert bench_seconds(failure) == ((failure.resets_at - NOW).total_seconds() if resets_at else 3600)


@pytest.mark.parametrize("limit_source", [None, "openrouter_credits", "openrouter_key_limit"])
@pytest.mark.parametrize("tokens", ["1", "4,096"])
def test_can_only_afford_n_tokens(limit_source, tokens):
    failure = failure_of(402, shape_b(402, AFFORD.format(tokens), limit_source=limit_source))

    assert (failure.cause, failure.scope) == (Cause.CANNOT_AFFORD, Scope.NOTHING)
    assert (failure.status, failure.error_type) == (529, "overloaded_error")
    assert "max_tokens" in failure.message
    assert tokens not in failure.message
    assert tokens in failure.detail
    assert refusal_of(failure).should_retry is False


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (401, shape_b(401, "User not found.")),
        (401, shape_a("authentication", "No auth credentials found")),
        (401, b""),
        (401, b"Unauthorized"),
        (403, shape_b(403, "API key disabled", error_type="authentication")),
    ],
    ids=["shape B", "shape A", "no body", "plain text", "403 by its error_type"],
)
def test_key_refused_and_an_upstream_401_is_never_relayed(status, document):
    failure = failure_of(status, document, headers={"retry-after": "7200"})

    assert (failure.cause, failure.scope) == (Cause.KEY_REFUSED, Scope.KEY)
    assert (failure.status, failure.error_type, failure.upstream_status) == (529, "overloaded_error", status)
    assert bench_seconds(failure) == 60


@pytest.mark.parametrize(
    ("upstream", "document", "status", "error_type"),
    [
        (429, shape_b(429, "Provider returned error", provider_name="Groq", raw="busy"), 429, "rate_limit_error"),
        (429, shape_b(429, "x", limit_source="upstream_provider_shared_pool"), 429, "rate_limit_error"),
        (429, shape_b(429, "x", provider_name="Groq"), 429, "rate_limit_error"),
        (429, shape_a("provider_overloaded", "x"), 429, "rate_limit_error"),
        (
            429,
            shape_a("x", "x", availability={"code": "capacity_exhausted", "retryable": True}),
            429,
            "rate_limit_error",
        ),
        (429, PAGE, 429, "rate_limit_error"),
        (500, shape_b(500, "Internal Server Error"), 500, "api_error"),
        (502, shape_a("provider_unavailable", "x"), 502, "api_error"),
        (502, PAGE, 502, "api_error"),
        (502, b"Bad gateway", 502, "api_error"),
        (503, shape_a("x", "x", availability={"code": "temporarily_unavailable"}), 503, "overloaded_error"),
        (529, shape_a("provider_overloaded", "x"), 529, "overloaded_error"),
        (520, PAGE, 502, "api_error"),
        (401, shape_b(401, "Provider returned error", provider_name="Azure"), 502, "api_error"),
        (402, shape_b(402, "Provider returned error", provider_name="Azure"), 502, "api_error"),
        (402, shape_b(402, "Provider returned error: key limit", provider_name="A"), 502, "api_error"),
        (401, PAGE, 502, "api_error"),
        (403, PAGE, 502, "api_error"),
        (404, PAGE, 502, "api_error"),
        (301, b"", 502, "api_error"),
    ],
)
def test_provider_or_model_busy(upstream, document, status, error_type):
    failure = failure_of(upstream, document)

    assert (failure.cause, failure.scope) == (Cause.PROVIDER_BUSY, Scope.NOTHING)
    assert (failure.status, failure.error_type, failure.upstream_status) == (status, error_type, upstream)
    assert failure.message
    assert not failure.billed


@pytest.mark.parametrize(
    ("upstream", "document", "status", "error_type"),
    [
        (400, shape_b(400, "foo is not a valid model ID"), 400, "invalid_request_error"),
        (400, shape_a("context_length_exceeded", "x"), 400, "invalid_request_error"),
        (400, shape_b(400, "Provider returned error", provider_name="Azure", raw="no"), 400, "invalid_request_error"),
        (
            403,
            shape_b(403, "Flagged", reasons=["violence"], flagged_input="x", provider_name="A"),
            403,
            "permission_error",
        ),
        (403, shape_a("permission_denied", "Blocked by a guardrail's content filter"), 403, "permission_error"),
        (403, shape_a("x", "x", availability={"code": "region_restricted"}), 403, "permission_error"),
        (404, shape_b(404, "No endpoints found for foo/bar."), 404, "not_found_error"),
        (404, shape_a("x", "x", availability={"code": "no_endpoints"}), 404, "not_found_error"),
        (409, shape_b(409, "x"), 409, "conflict_error"),
        (413, shape_a("payload_too_large", "x"), 413, "request_too_large"),
        (413, PAGE, 413, "request_too_large"),
        (412, shape_a("precondition_failed", "x"), 400, "invalid_request_error"),
        (422, shape_a("unprocessable", "x"), 400, "invalid_request_error"),
        (405, b"Method Not Allowed", 400, "invalid_request_error"),
        (400, b"", 400, "invalid_request_error"),
    ],
)
def test_bad_request_is_passed_on_in_anthropics_shape(upstream, document, status, error_type):
    failure = failure_of(upstream, document)

    assert (failure.cause, failure.scope) == (Cause.BAD_REQUEST, Scope.NOTHING)
    assert (failure.status, failure.error_type, failure.upstream_status) == (status, error_type, upstream)
    assert failure.message
    assert refusal_of(failure).should_retry is None


def test_connect_error_or_a_try_whose_bytes_were_not_written():
    failure = transport_failure(sent=False, timed_out=False, detail="Connection refused by sk-or-v1-test-abc")

    assert (failure.cause, failure.scope) == (Cause.NOT_SENT, Scope.NOTHING)
    assert (failure.status, failure.error_type, failure.upstream_status) == (502, "api_error", None)
    assert failure.detail == "Connection refused by sk-or-…"
    assert not failure.billed


@pytest.mark.parametrize(
    "failure",
    [
        failure_of(408, shape_b(408, "Your request timed out")),
        failure_of(504, shape_a("timeout", "x")),
        failure_of(504, PAGE),
        failure_of(524, PAGE),
        failure_of(524, b"error code: 524"),
        transport_failure(sent=True, timed_out=True, detail="silent for 600 s"),
        transport_failure(sent=True, timed_out=False, detail="connection reset"),
    ],
    ids=["408", "504", "504 page", "524 page", "524 text", "own timeout", "cut"],
)
def test_408_504_524_own_timeout_or_cut_after_the_request_was_sent(failure):
    refusal = refusal_of(failure)

    assert (failure.cause, failure.scope, failure.billed) == (Cause.TIMED_OUT, Scope.NOTHING, True)
    assert (refusal.status, refusal.error_type, refusal.should_retry) == (504, "timeout_error", False)
    assert "not sent again" in refusal.message


# -- Limits of free models -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("document", "headers"),
    [
        (shape_b(429, "x", limit_source="openrouter_free_tier_daily"), {"x-ratelimit-reset": "1794999600000"}),
        (
            shape_b(
                429, "x", limit_source="openrouter_free_tier_daily", headers={"X-RateLimit-Reset": "1794999600000"}
            ),
            {},
        ),
        (
            shape_b(
                429,
                "Rate limit exceeded: free-models-per-day. Add 10 credits",
                headers={"x-ratelimit-reset": 1794999600000},
            ),
            {},
        ),
    ],
    ids=["header", "in the metadata", "by its words"],
)
def test_the_free_tiers_limit_benches_the_account_for_free_models_only(document, headers):
    failure = failure_of(429, document, headers, model="meta/llama:free")

    assert (failure.cause, failure.pattern) == (Cause.ACCOUNT_LIMITED, ":free")
    assert failure.hint_seconds == 1800


def test_a_rate_limit_on_a_free_model_leaves_the_key_to_the_paid_ones():
    assert failure_of(429, shape_b(429, "Rate limited"), model="meta/llama:free").pattern == ":free"
    assert failure_of(429, shape_b(429, "Rate limited")).pattern == ""


# -- Errors with status 200 ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("document", "cause", "status"),
    [
        (shape_b(429, "Rate limited"), Cause.KEY_RATE_LIMITED, 429),
        (shape_b("429", "Rate limited"), Cause.KEY_RATE_LIMITED, 429),
        (shape_b(402, "Insufficient credits"), Cause.OUT_OF_CREDIT, 529),
        (shape_b(400, "no"), Cause.BAD_REQUEST, 400),
        (shape_b(502, "Provider returned error"), Cause.PROVIDER_BUSY, 502),
        (shape_a("provider_overloaded", "x"), Cause.PROVIDER_BUSY, 529),
        (shape_a("context_length_exceeded", "x"), Cause.BAD_REQUEST, 400),
        (shape_a("invalid_image", "x"), Cause.BAD_REQUEST, 400),
        (shape_a("timeout", "x"), Cause.TIMED_OUT, 504),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, Cause.PROVIDER_BUSY, 529),
        ({"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, Cause.KEY_RATE_LIMITED, 429),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "x"}}, Cause.BAD_REQUEST, 400),
        ({"type": "error", "error": {"type": "new_error", "message": "x"}}, Cause.PROVIDER_BUSY, 500),
        ({"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "x"}}]}, Cause.PROVIDER_BUSY, 502),
        ({"error": "boom"}, Cause.PROVIDER_BUSY, 500),
        ({"error": {"code": 200, "message": "x"}}, Cause.PROVIDER_BUSY, 500),
        ({"type": "error"}, Cause.PROVIDER_BUSY, 500),
    ],
)
def test_an_error_with_status_200_is_that_error_in_a_body_and_in_an_event(document, cause, status):
    in_body = failure_of(200, document)

    assert (in_body.cause, in_body.status, in_body.upstream_status) == (cause, status, 200)
    assert classify_event(document, now=NOW, model=MODEL) == in_body


@pytest.mark.parametrize("body", [b"", PAGE, b"[]", b'{"type":"message","content":', b"{}"])
def test_an_answer_that_cannot_be_read_may_have_been_billed_and_is_not_sent_again(body):
    failure = failure_of(200, body)

    assert (failure.cause, failure.status, failure.billed) == (Cause.TIMED_OUT, 502, True)
    assert refusal_of(failure).should_retry is False


@pytest.mark.parametrize(
    ("document", "cause"),
    [
        ({"error": {"type": "rate_limit_error", "message": "x"}}, Cause.PROVIDER_BUSY),
        ({"error": {"type": "authentication_error", "message": "x"}}, Cause.PROVIDER_BUSY),
        (shape_b(402, "Insufficient credits"), Cause.OUT_OF_CREDIT),
        (shape_b(403, "Key limit exceeded (total limit)"), Cause.KEY_LIMIT_REACHED),
    ],
)
def test_in_mid_stream_only_a_named_limit_is_the_keys_fault(document, cause):
    assert classify_event(document, now=NOW, model=MODEL, mid_stream=True).cause is cause
