import json
import math
from contextlib import contextmanager

import pytest

from proxy import error_table, errors
from proxy.errors import Refusal

ANTHROPIC_TABLE = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@pytest.mark.parametrize(("status", "error_type"), ANTHROPIC_TABLE.items())
def test_each_status_of_anthropic_has_its_error_type_and_back(status, error_type):
    assert error_table.error_type_of(status) == error_type
    assert error_table.STATUSES[error_type] == status


@pytest.mark.parametrize(
    ("status", "error_type"),
    [(418, "invalid_request_error"), (503, "overloaded_error"), (502, "api_error"), (520, "api_error")],
)
def test_a_status_that_anthropic_does_not_use_gets_the_type_of_its_class(status, error_type):
    assert error_table.error_type_of(status) == error_type


def test_the_error_body_has_anthropics_shape():
    body = errors.error_body("api_error", 'It "failed": ü\n', "req_1")

    assert json.loads(body) == {
        "type": "error",
        "error": {"type": "api_error", "message": 'It "failed": ü\n'},
        "request_id": "req_1",
    }
    assert "ü".encode() in body


def test_the_error_event_is_one_event_for_every_line_splitter():
    message = "one\ntwo\r\nthree\u2028four\u0085five"

    event = errors.error_event("overloaded_error", message, "req_1")

    name, data, *rest = event.decode().splitlines()
    assert event.endswith(b"\n\n")
    assert rest == [""]
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"] == {"type": "overloaded_error", "message": message}


@pytest.mark.parametrize("write", [errors.error_body, errors.error_event])
def test_a_lone_surrogate_in_a_message_does_not_break_the_answer(write):
    assert b"a?b" in write("api_error", "a\ud800b", "req_1")


@pytest.mark.parametrize(
    ("refusal", "status", "error_type", "headers"),
    [
        (errors.bad_credential(), 401, "authentication_error", [(b"x-should-retry", b"false")]),
        (errors.invalid_request("model: field required"), 400, "invalid_request_error", []),
        (errors.too_large(), 413, "request_too_large", []),
        (errors.overloaded("busy", 2.1), 529, "overloaded_error", [(b"retry-after", b"3")]),
        (errors.timed_out("late"), 504, "timeout_error", [(b"x-should-retry", b"false")]),
        (errors.internal_error(), 500, "api_error", []),
        (
            errors.method_not_allowed("PUT", "POST, OPTIONS"),
            405,
            "invalid_request_error",
            [(b"allow", b"POST, OPTIONS")],
        ),
        (errors.not_found("/v1/x"), 404, "not_found_error", []),
        (errors.no_usable_key(), 529, "overloaded_error", [(b"retry-after", b"60")]),
        (errors.keys_exhausted(True, 7), 429, "rate_limit_error", [(b"retry-after", b"7")]),
        (errors.keys_exhausted(False, 7), 529, "overloaded_error", [(b"retry-after", b"7")]),
    ],
    ids=lambda value: value.error_type if isinstance(value, Refusal) else None,
)
def test_a_standard_refusal_has_its_status_type_and_headers(refusal, status, error_type, headers):
    assert (refusal.status, refusal.error_type) == (status, error_type)
    assert errors.refusal_headers(refusal) == [(b"content-type", b"application/json"), *headers]


def test_a_refusal_can_ask_for_a_retry():
    refusal = Refusal(503, "overloaded_error", "busy", should_retry=True)

    assert (b"x-should-retry", b"true") in errors.refusal_headers(refusal)


@pytest.mark.parametrize("rate_limited", [True, False])
def test_exhausted_keys_are_named_as_in_the_guide(rate_limited):
    assert errors.keys_exhausted(rate_limited, 7).message.startswith("All keys exhausted")


def test_a_pool_without_keys_says_the_sentence_of_the_guide():
    assert errors.no_usable_key().message.startswith("At least one OpenRouter API key is required")


@pytest.mark.parametrize(
    ("seconds", "retry_after"),
    [(-5, 1), (0, 1), (1, 1), (1.2, 2), (59.1, 60), (60, 60), (86_400, 60), (math.inf, 60), (math.nan, 1)],
)
def test_retry_after_is_whole_seconds_from_1_to_60_never_too_early(seconds, retry_after):
    assert errors.keys_exhausted(True, seconds).retry_after_seconds == retry_after


def test_an_unknown_path_is_shown_in_part_only():
    assert len(errors.not_found("/v1/" + "x" * 10_000).message) < 300


def test_a_refusal_passes_through_a_context_manager_and_takes_notes():
    @contextmanager
    def span():
        yield

    refusal = errors.invalid_request("model: field required")
    with pytest.raises(Refusal) as caught, span():
        raise refusal
    refusal.add_note("seen")

    assert caught.value is refusal
    assert str(refusal) == "400 invalid_request_error: model: field required"
