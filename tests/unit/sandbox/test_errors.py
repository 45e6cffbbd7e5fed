"""Every named failure as a client sees it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from opensvm.sandbox.errors import ERRORS, STREAM_ERRORS, Circumstances, make_failure
from tests.sandbox import SandboxFixture

Body = Callable[..., dict[str, Any]]
STATUSES = {
    "refused": 401,
    "no_credentials": 401,
    "disabled": 401,
    "expired": 401,
    "rate_limited": 429,
    "key_limit": 403,
    "key_limit_daily": 403,
    "key_limit_weekly": 403,
    "key_limit_monthly": 403,
    "key_limit_402": 402,
    "out_of_credit": 402,
    "out_of_credit_b": 402,
    "in_flight_budget": 402,
    "admission_control": 429,
    "free_daily": 429,
    "guardrail_budget": 403,
    "workspace_budget": 403,
    "cannot_afford": 402,
    "bad_request": 400,
    "context_length": 400,
    "bad_model": 400,
    "no_endpoints": 404,
    "moderation": 403,
    "guardrail_filter": 403,
    "region_restricted": 403,
    "too_large": 413,
    "unprocessable": 422,
    "provider_busy": 429,
    "capacity": 429,
    "server_error": 500,
    "bad_gateway": 502,
    "html_502": 502,
    "unavailable": 503,
    "overloaded": 529,
    "timeout": 408,
    "gateway_timeout": 504,
    "html_524": 524,
}
LIMIT_SOURCES = {
    "key_limit_daily": "openrouter_key_limit",
    "key_limit_402": "openrouter_key_limit",
    "out_of_credit": "openrouter_credits",
    "cannot_afford": "openrouter_credits",
    "in_flight_budget": "openrouter_in_flight_budget",
    "admission_control": "openrouter_admission_control",
    "free_daily": "openrouter_free_tier_daily",
    "guardrail_budget": "openrouter_guardrail_budget",
    "workspace_budget": "openrouter_workspace_budget",
    "provider_busy": "upstream_provider_shared_pool",
}
SHAPE_B = {
    "refused",
    "no_credentials",
    "disabled",
    "expired",
    "rate_limited",
    "key_limit",
    "key_limit_daily",
    "key_limit_weekly",
    "key_limit_monthly",
    "out_of_credit_b",
}
HTML = {"html_502", "html_524"}
NOON = Circumstances(dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC), key_hash="ab" * 32, max_tokens=900, model="a/b")


def test_the_tables_here_name_every_error() -> None:
    assert set(STATUSES) == set(ERRORS)


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_a_named_error_has_its_status_and_shape(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, name: str
) -> None:
    sandbox.fail(name)

    response = api.post("/messages", json=body())

    assert response.status_code == STATUSES[name]
    assert response.headers["x-opensvm-sandbox"] == "true"
    if name in HTML:
        assert response.headers["content-type"].startswith("text/html")
        assert response.text.startswith("<html>")
        return
    error = response.json()["error"]
    assert error["message"]
    if name in SHAPE_B:
        assert "type" not in response.json()
        assert (error["code"], response.json()["user_id"]) == (response.status_code, "user_sandbox2fVQx0kTq")
    else:
        assert response.json()["type"] == "error"
        assert error["type"].endswith(("_error", "_too_large"))
        assert error["error_type"]


@pytest.mark.parametrize(("name", "source"), LIMIT_SOURCES.items(), ids=LIMIT_SOURCES)
def test_a_limit_names_its_source(name: str, source: str) -> None:
    assert make_failure(name, NOON).metadata["limit_source"] == source


@pytest.mark.parametrize(
    ("name", "seconds"), [("in_flight_budget", "120"), ("admission_control", "10"), ("provider_busy", "7")], ids=str
)
def test_some_errors_say_when_to_come_back(name: str, seconds: str) -> None:
    assert make_failure(name, NOON).headers["Retry-After"] == seconds


def test_the_free_limit_ends_at_midnight_in_milliseconds() -> None:
    failed = make_failure("free_daily", NOON)

    midnight = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    assert failed.headers["X-RateLimit-Reset"] == str(int(midnight.timestamp()) * 1000)
    assert failed.metadata["headers"] == failed.headers


def test_a_daily_key_limit_says_when_it_ends_and_leaks_the_hash() -> None:
    failed = make_failure("key_limit_daily", NOON)

    assert failed.metadata["resets_at"] == "2026-11-23T00:00:00Z"
    assert "ab" * 32 in failed.message


def test_what_can_be_afforded_depends_on_max_tokens() -> None:
    assert "requested up to 900 tokens, but can only afford 300" in make_failure("cannot_afford", NOON).message


@pytest.mark.parametrize(
    ("where", "read"),
    [
        ("header", lambda response: response.headers["retry-after"]),
        ("metadata", lambda response: f"{response.json()['error']['metadata']['retry_after_seconds']:g}"),
        ("metadata_headers", lambda response: response.json()["error"]["metadata"]["headers"]["Retry-After"]),
    ],
    ids=["header", "metadata", "metadata headers"],
)
def test_a_hint_stands_where_the_script_wants_it(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, where: str, read: Callable[[httpx.Response], str]
) -> None:
    sandbox.fail("admission_control", retry_after=2.5, hint_in=where)

    response = api.post("/messages", json=body())

    assert read(response) == "2.5"
    assert ("retry-after" in response.headers) == (where == "header")


def test_an_error_in_200_is_json_with_an_error(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.fail("error_in_200")

    response = api.post("/messages", json=body())

    assert response.status_code == 200
    assert response.json()["error"]["code"] == 502


def test_an_error_can_be_the_first_event(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.fail("error_first_event")

    response = api.post("/messages", json=body(stream=True))

    assert response.status_code == 200
    assert response.text.startswith(": OPENROUTER PROCESSING\n\nevent: error\ndata: {")
    assert response.text.count("event: ") == 1


def test_an_error_in_mid_stream_ends_it(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.fail("error_mid_stream", error_after_events=3)

    text = api.post("/messages", json=body(stream=True)).text

    names = [line for line in text.splitlines() if line.startswith("event: ")]
    assert [name.removeprefix("event: ") for name in names] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "error",
    ]


@pytest.mark.parametrize("name", sorted(STREAM_ERRORS))
def test_what_fails_inside_a_200_is_not_charged(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, name: str
) -> None:
    sandbox.fail(name)

    api.post("/messages", json=body(stream=name != "error_in_200"))

    (generation,) = sandbox.ledger()
    assert (generation.cost_nano, generation.finish_reason, generation.finished) == (0, "error", True)


@pytest.mark.parametrize("name", sorted(set(ERRORS) - HTML))
def test_an_error_before_the_answer_bills_nothing(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, name: str
) -> None:
    sandbox.fail(name)

    api.post("/messages", json=body())

    assert sandbox.ledger() == []
