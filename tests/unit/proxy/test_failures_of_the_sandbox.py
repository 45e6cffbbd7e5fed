"""The sandbox upstream and the classification were written from the same facts, by different hands: they must agree."""

import datetime as dt
import json

import pytest

from keys.causes import Cause
from opensvm.sandbox.errors import ERRORS, USER_ID, Circumstances
from proxy.failures import classify

NOW = dt.datetime(2026, 11, 18, 10, 30, tzinfo=dt.UTC)
SEEN = Circumstances(now=NOW, key_hash="0123456789abcdef" * 4, max_tokens=4096, model="sandbox/model")

NAMES = {
    Cause.KEY_REFUSED: ["refused", "no_credentials", "disabled", "expired"],
    Cause.KEY_RATE_LIMITED: ["rate_limited"],
    Cause.KEY_LIMIT_REACHED: [
        "key_limit",
        "key_limit_daily",
        "key_limit_weekly",
        "key_limit_monthly",
        "guardrail_budget",
        "workspace_budget",
    ],
    Cause.OUT_OF_CREDIT: ["out_of_credit", "out_of_credit_b"],
    Cause.ACCOUNT_LIMITED: ["in_flight_budget", "admission_control", "free_daily"],
    Cause.CANNOT_AFFORD: ["cannot_afford", "key_limit_402"],
    Cause.BAD_REQUEST: [
        "bad_request",
        "context_length",
        "bad_model",
        "no_endpoints",
        "moderation",
        "guardrail_filter",
        "region_restricted",
        "too_large",
        "unprocessable",
    ],
    Cause.PROVIDER_BUSY: [
        "provider_busy",
        "capacity",
        "server_error",
        "bad_gateway",
        "html_502",
        "unavailable",
        "overloaded",
    ],
    Cause.TIMED_OUT: ["timeout", "gateway_timeout", "html_524"],
}


@pytest.mark.parametrize(
    ("name", "cause"), [(name, cause) for cause, names in NAMES.items() for name in names], ids=lambda value: str(value)
)
def test_a_failure_of_the_sandbox_has_the_cause_it_stands_for(name, cause):
    failed = ERRORS[name](SEEN)
    body = failed.message if failed.shape == "H" else json.dumps(failed.document())
    headers = {header.lower(): value for header, value in failed.headers.items()}

    failure = classify(failed.status, headers, body.encode(), now=NOW, model=SEEN.model)

    assert failure.cause is cause
    assert SEEN.key_hash not in repr(failure)
    assert USER_ID not in repr(failure)


def test_no_failure_of_the_sandbox_is_left_out():
    assert {name for names in NAMES.values() for name in names} == set(ERRORS)
