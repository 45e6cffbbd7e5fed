"""Headers on both sides: what goes up, what never does, and what comes back. And what else of a request goes up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keys.uuid7 import new_request_uuid, request_id_of
from proxy.retry import RetryPolicy
from tests.data_plane import MESSAGE, DataPlane

NO_RETRIES = RetryPolicy(max_retries=0, delay_seconds=0.0)
REQUEST_ID_CHARS = len(request_id_of(new_request_uuid()))


def sent_up(plane: DataPlane) -> dict[str, str]:
    (asked,) = plane.sandbox.requests()
    return dict(asked.headers)


# -- Up --------------------------------------------------------------------------------------------------------------
def test_anthropic_headers_go_up_verbatim(plane: DataPlane) -> None:
    plane.add_key("alpha")
    headers = {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14, made-up-2030-01-01",
        "anthropic-workspace-id": "wrkspc_1",
        "Anthropic-Brand-New": "x; y=z",
    }
    plane.post(headers=headers)
    found = sent_up(plane)
    assert {name.lower(): value for name, value in headers.items()}.items() <= found.items()


def test_anthropic_version_is_filled_in(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.post()
    assert sent_up(plane)["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
def test_upstream_is_asked_for_plain_bytes(plane: DataPlane, stream: bool) -> None:
    plane.add_key("alpha")
    plane.post(stream=stream, headers={"accept-encoding": "gzip, br, zstd", "accept": "text/html"})
    found = sent_up(plane)
    assert found["accept-encoding"] == "identity"
    assert found["accept"] == ("text/event-stream" if stream else "application/json")
    assert found["content-type"] == "application/json"


SECRETS_AND_HOPS = {
    "cookie": "session=of-the-client",
    "connection": "keep-alive, x-custom",
    "keep-alive": "timeout=5",
    "proxy-authorization": "Basic abc",
    "te": "trailers",
    "upgrade": "websocket",
    "x-custom": "private",
    "x-forwarded-for": "203.0.113.7",
    "forwarded": "for=203.0.113.7",
    "via": "1.1 proxy",
    "referer": "https://example.org/secret",
    "origin": "https://example.org",
    "x-openrouter-cache": "true",
    "http-referer": "https://example.org",
    "x-title": "theirs",
    "x-stainless-os": "Linux",
    "user-agent": "Anthropic/Python 2.12.0",
}


def test_nothing_else_of_the_client_goes_up(plane: DataPlane) -> None:
    plane.add_key("alpha")
    both = {"x-api-key": plane.client_key, "authorization": f"Bearer {plane.client_key}"}
    assert plane.post(headers={**SECRETS_AND_HOPS, **both}).status == 200
    found = sent_up(plane)
    assert plane.client_key not in json.dumps(found)
    assert "x-api-key" not in found
    assert found["user-agent"].startswith("opensvm/")
    allowed = {"host", "content-type", "content-length", "accept", "accept-encoding", "anthropic-version"}
    assert set(found) == allowed | {"user-agent", "authorization"}


def test_each_key_is_sent_as_a_bearer_of_its_own(plane: DataPlane) -> None:
    plane.add_keys("alpha", "beta")
    plane.post()
    plane.post()
    assert plane.asked_keys() == ["alpha", "beta"]


@pytest.mark.parametrize("name", ["x-claude-code-session-id", "x-session-id"])
def test_a_conversation_keeps_its_session_upstream(plane: DataPlane, name: str) -> None:
    plane.add_key("alpha")
    plane.post(headers={name: "5c1d-4b"})
    assert sent_up(plane)["x-session-id"] == "5c1d-4b"
    assert plane.only_row().session_id == "5c1d-4b"


def test_no_field_or_header_of_a_client_changes_where_it_goes(plane: DataPlane) -> None:
    plane.add_key("alpha")
    hosts = {
        "host": "evil.example",
        "x-forwarded-host": "evil.example",
        "x-original-url": "/keys",
        "x-rewrite-url": "/k",
    }
    body = {**MESSAGE, "base_url": "http://evil.example", "url": "http://evil.example", "path": "/keys"}
    assert plane.post(body, headers=hosts).status == 200
    (asked,) = plane.sandbox.requests("")
    assert asked.path == "/api/v1/messages"
    assert asked.headers["host"] == plane.sandbox.base_url.split("/")[2]


@pytest.mark.plane(retry=NO_RETRIES)
def test_redirects_are_not_followed(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(status=307, headers={"location": "http://127.0.0.1:9/elsewhere"}, body="")
    reply = plane.post()
    assert reply.status == 502
    assert "location" not in reply.headers
    assert len(plane.sandbox.requests("")) == 1


# -- The body --------------------------------------------------------------------------------------------------------
UNKNOWN = {
    "brand_new": {"nested": [1, 2.5, None, True, "ü🦀"]},
    "thinking": {"type": "between_tools", "display": "omitted"},
    "metadata": {"user_id": '{"device_id": "d"}'},
    "system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=1", "cache_control": {"type": "new"}}],
    "output_config": {"effort": "max"},
    "context_management": {"edits": []},
    "tools": [{"type": "new_tool_20991231", "name": "f", "defer_loading": True}],
    "big": 10**40,
}


def test_unknown_fields_go_up(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.post(**UNKNOWN)
    (asked,) = plane.sandbox.requests()
    assert {name: asked.body[name] for name in UNKNOWN} == UNKNOWN


def test_of_a_repeated_field_upstream_sees_what_we_saw(plane: DataPlane) -> None:
    plane.add_key("alpha")
    raw = b'{"model":"evil","messages":[],"max_tokens":1,"model":"claude-3-opus-20240229","messages":[{"role":"user",'
    assert plane.post(raw=raw + b'"content":"hi"}]}').json()["model"] == "claude-3-opus-20240229"
    (asked,) = plane.sandbox.requests()
    assert asked.body["model"] == "anthropic/claude-3-opus"
    assert len(asked.body["messages"]) == 1
    assert plane.only_row().model_asked == "claude-3-opus-20240229"


# -- Back ------------------------------------------------------------------------------------------------------------
ANSWERS: dict[str, tuple[int, dict[str, Any]]] = {
    "JSON": (200, {}),
    "a stream": (200, {"stream": True}),
    "400": (400, {"raw": b"{}"}),
    "401": (401, {"headers": {"x-api-key": "no"}}),
    "404": (404, {"path": "/v1/nothing"}),
    "405": (405, {"method": "GET"}),
    "Django's own": (404, {"path": "/nothing", "method": "GET", "headers": {"host": "127.0.0.1"}}),
    "healthz": (200, {"path": "/healthz", "method": "GET", "headers": {"host": "127.0.0.1"}}),
}


@pytest.mark.parametrize(("status", "options"), ANSWERS.values(), ids=ANSWERS)
def test_every_response_has_a_request_id(plane: DataPlane, status: int, options: dict[str, Any]) -> None:
    plane.add_key("alpha")
    reply = plane.post(**options)
    assert reply.status == status
    assert reply.headers["request-id"].startswith("req_")
    assert len(reply.headers["request-id"]) == REQUEST_ID_CHARS
    if status >= 400 and options.get("path") != "/nothing":
        assert reply.json()["request_id"] == reply.headers["request-id"]


def test_an_upstream_error_carries_our_request_id(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("bad_request")
    reply = plane.post()
    assert reply.json()["request_id"] == reply.headers["request-id"] == plane.only_row().request_id


def test_request_ids_differ(plane: DataPlane) -> None:
    ids = {plane.post(headers={"x-api-key": ""}).headers["request-id"] for _ in range(20)}
    assert len(ids) == 20


UPSTREAMS = {
    "x-ratelimit-limit": "100",
    "x-ratelimit-remaining": "1",
    "x-ratelimit-reset": "1795371310000",
    "anthropic-ratelimit-requests-remaining": "1",
    "anthropic-organization-id": "org_1",
    "retry-after": "7",
    "set-cookie": "__cf_bm=secret",
    "x-generation-id": "gen-1",
    "cf-ray": "abc",
    "request-id": "req_upstream",
    "x-should-retry": "true",
    "access-control-allow-origin": "*",
    "server": "cloudflare",
}


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "stream"])
def test_upstreams_headers_are_not_relayed(plane: DataPlane, stream: bool) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(headers=UPSTREAMS)
    reply = plane.post(stream=stream)
    assert reply.status == 200
    usual = {"content-type", "request-id"} | ({"cache-control", "x-accel-buffering"} if stream else {"content-length"})
    assert set(reply.headers) == usual
    assert reply.headers["request-id"] != "req_upstream"


def test_upstreams_headers_of_an_error_are_not_relayed(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("bad_request", headers=UPSTREAMS)
    assert set(plane.post().headers) == {"content-type", "content-length", "request-id"}


RETRY_AFTERS = {
    "within bounds": ("7", "7"),
    "days": ("259200", "60"),
    "nothing": ("0", "1"),
    "nonsense": ("soon", None),
}


@pytest.mark.plane(retry=NO_RETRIES)
@pytest.mark.parametrize(("hint", "expected"), RETRY_AFTERS.values(), ids=RETRY_AFTERS)
def test_retry_after_is_capped(plane: DataPlane, hint: str, expected: str | None) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("unavailable", headers={"retry-after": hint})
    assert plane.post().headers.get("retry-after") == expected


def test_retry_after_of_an_exhausted_pool_is_capped(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("rate_limited", retry_after=3000)
    reply = plane.post()
    assert (reply.status, reply.headers["retry-after"]) == (429, "60")
    assert reply.error["message"].startswith("All keys exhausted")
