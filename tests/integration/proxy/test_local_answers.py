"""Token counts and models, answered without upstream: who may ask, what comes, and that no row is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keys.client_keys import new_client_key
from keys.models import Client, InFlight, ModelAlias, ModelPrice, RequestLog
from keys.services.clients import revoke_client
from proxy.cors import CorsPolicy
from tests.data_plane import ALICE, DataPlane, Reply

COUNT = "/v1/messages/count_tokens"
MODELS = "/v1/models"
ANTHROPIC = {"anthropic-version": "2023-06-01"}
ASKED: dict[str, dict[str, Any]] = {
    "count_tokens": {"path": COUNT},
    "models": {"path": MODELS, "method": "GET", "send": False},
    "a model": {"path": f"{MODELS}/claude-3-opus-4", "method": "GET", "send": False},
}


def get(plane: DataPlane, path: str, **options: Any) -> Reply:
    return plane.post(path=path, method="GET", send=False, **options)


def nothing_was_done(plane: DataPlane) -> None:
    assert plane.sandbox.requests("") == []
    assert not RequestLog.objects.exists()
    assert not InFlight.objects.exists()


@pytest.mark.parametrize("options", ASKED.values(), ids=ASKED)
def test_an_answer_needs_no_key_in_the_pool_and_leaves_no_trace(plane: DataPlane, options: dict[str, Any]) -> None:
    reply = plane.post(**options)
    assert reply.status == 200
    assert reply.headers["request-id"].startswith("req_")
    nothing_was_done(plane)


REFUSED = ["missing", "malformed", "unknown", "revoked"]


@pytest.mark.parametrize("options", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("how", REFUSED)
def test_without_a_good_key_all_get_the_same_401(plane: DataPlane, options: dict[str, Any], how: str) -> None:
    keys = {"missing": "", "malformed": "letmein", "unknown": new_client_key(), "revoked": plane.client_key}
    if how == "revoked":
        revoke_client(plane.client.id, actor=ALICE)
    reply = plane.post(**options, headers={"x-api-key": keys[how]})
    assert (reply.status, reply.error["type"]) == (401, "authentication_error")
    assert reply.headers["x-should-retry"] == "false"
    nothing_was_done(plane)


@pytest.mark.parametrize("options", ASKED.values(), ids=ASKED)
def test_without_a_lane_it_is_a_529_and_not_a_401(plane: DataPlane, options: dict[str, Any]) -> None:
    plane.service.lane.stop()
    reply = plane.post(**options)
    assert (reply.status, reply.error["type"]) == (529, "overloaded_error")
    assert 1 <= int(reply.headers["retry-after"]) <= 60


def test_a_key_without_the_messages_scope_counts_nothing(plane: DataPlane) -> None:
    Client.objects.update(scopes="stats")
    assert plane.post(path=COUNT).status == 401


# -- Token counts ----------------------------------------------------------------------------------------------------
def test_a_count_is_anthropics_object_and_nothing_else(plane: DataPlane) -> None:
    document = plane.post(path=COUNT).json()
    assert set(document) == {"input_tokens"}
    assert 4 <= document["input_tokens"] <= 12


def test_a_count_needs_no_max_tokens(plane: DataPlane) -> None:
    body = {"model": "claude-opus-4-8", "messages": [{"role": "user", "content": "Hello"}]}
    assert plane.post(path=COUNT, raw=json.dumps(body).encode()).status == 200


def test_an_alias_decides_the_tokenizer(plane: DataPlane) -> None:
    ModelAlias.objects.create(name="old-house", target="anthropic/claude-opus-4.5")
    ModelAlias.objects.create(name="new-house", target="anthropic/claude-opus-4.8")
    body = {"messages": [{"role": "user", "content": "Hello " * 1000}]}
    old = plane.post(body, path=COUNT, model="old-house").json()["input_tokens"]
    new = plane.post(body, path=COUNT, model="new-house").json()["input_tokens"]
    assert new == pytest.approx(old * 1.3, rel=0.01)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"nope", "body: is not JSON"),
        (b'{"messages": []}', "model: field required"),
        (b'{"model": "m"}', "messages: field required"),
    ],
)
def test_a_body_that_can_not_be_counted_is_a_400(plane: DataPlane, body: bytes, words: str) -> None:
    reply = plane.post(path=COUNT, raw=body)
    assert reply.status == 400
    assert reply.error["message"].startswith(words)


@pytest.mark.plane(parse_in_thread_bytes=10)
def test_a_large_body_is_counted_in_a_thread(plane: DataPlane) -> None:
    assert plane.post(path=COUNT).json()["input_tokens"] > 0


def test_twenty_five_at_once_are_all_answered(plane: DataPlane) -> None:
    """As Claude Code's /context asks."""
    calls = [plane.open(path=COUNT) for _ in range(25)]
    assert {call.reply().status for call in calls} == {200}


# -- Models ----------------------------------------------------------------------------------------------------------
def test_pages_together_hold_every_alias_and_every_model_once(plane: DataPlane) -> None:
    found: list[str] = []
    query = b"limit=7"
    while True:
        page = get(plane, MODELS, headers=ANTHROPIC, query=query).json()
        found += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            break
        query = b"limit=7&after_id=" + page["last_id"].encode()
    names = {*ModelAlias.objects.values_list("name", flat=True), *ModelPrice.objects.values_list("model", flat=True)}
    assert sorted(found) == sorted(names)


def test_an_openai_client_gets_the_whole_list_at_once(plane: DataPlane) -> None:
    for number in range(30):
        ModelAlias.objects.create(name=f"alias-{number}", target="anthropic/claude-opus-4.5")
    whole = get(plane, MODELS).json()
    assert (whole["object"], whole["has_more"]) == ("list", False)
    assert len(whole["data"]) > 30
    first_page = get(plane, MODELS, headers=ANTHROPIC).json()
    assert (len(first_page["data"]), first_page["has_more"]) == (20, True)


@pytest.mark.parametrize("name", ["claude-3-opus-4", "anthropic/claude-opus-4.8", "claude-opus-4-8-20260115"])
def test_a_model_is_found_by_its_name_slashes_and_all(plane: DataPlane, name: str) -> None:
    assert get(plane, f"{MODELS}/{name}").json()["id"] == name


@pytest.mark.parametrize("name", ["nobody/has-this", "claude-opus-9", "a//b", "%2e%2e/x"])
def test_a_model_that_is_not_offered_is_a_404(plane: DataPlane, name: str) -> None:
    reply = get(plane, f"{MODELS}/{name}")
    assert (reply.status, reply.error["type"]) == (404, "not_found_error")


def test_an_alias_shows_at_once_and_goes_at_once(plane: DataPlane) -> None:
    alias = ModelAlias.objects.create(name="house-model", target="anthropic/claude-opus-4.5")
    assert get(plane, f"{MODELS}/house-model").status == 200
    alias.delete()
    assert get(plane, f"{MODELS}/house-model").status == 404


def test_a_bad_page_is_a_400(plane: DataPlane) -> None:
    assert get(plane, MODELS, query=b"limit=0").status == 400


# -- Methods ---------------------------------------------------------------------------------------------------------
def test_head_is_get_without_a_body(plane: DataPlane) -> None:
    head = plane.post(path=MODELS, method="HEAD", send=False)
    whole = get(plane, MODELS)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))


def test_head_of_a_path_that_is_posted_to_is_a_405_without_a_body(plane: DataPlane) -> None:
    head = plane.post(method="HEAD", send=False)
    assert (head.status, head.body, head.headers["allow"]) == (405, b"", "POST, OPTIONS")


@pytest.mark.parametrize(("path", "allow"), [("/v1/messages", "POST, OPTIONS"), (MODELS, "GET, HEAD, OPTIONS")])
def test_options_says_what_a_path_takes_and_allows_no_page(plane: DataPlane, path: str, allow: str) -> None:
    headers = {"x-api-key": "", "origin": "https://app.example.com", "access-control-request-method": "POST"}
    reply = plane.post(path=path, method="OPTIONS", send=False, headers=headers)
    assert (reply.status, reply.body, reply.headers["allow"]) == (204, b"", allow)
    assert not [name for name in reply.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_models_are_only_read(plane: DataPlane, method: str) -> None:
    reply = plane.post(path=MODELS, method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert reply.error["message"].endswith("Use GET.")


# -- CORS ------------------------------------------------------------------------------------------------------------
PAGE = "https://app.example.com"
OF_PAGE = pytest.mark.plane(cors=CorsPolicy(frozenset({PAGE})))
PREFLIGHT = {
    "x-api-key": "",
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "anthropic-version, x-api-key, x-stainless-os",
}


@OF_PAGE
def test_a_page_that_is_allowed_may_call(plane: DataPlane) -> None:
    preflight = plane.post(method="OPTIONS", send=False, headers=PREFLIGHT)
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert preflight.headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert preflight.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    plane.add_key("alpha")
    for reply in (plane.post(headers={"origin": PAGE}), plane.stream(headers={"origin": PAGE})):
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "request-id" in reply.headers["access-control-expose-headers"]
        assert reply.headers["vary"] == "origin"


@OF_PAGE
def test_a_page_may_read_its_errors_too(plane: DataPlane) -> None:
    for options in ({"raw": b"nope"}, {"path": "/v1/nothing"}, {"method": "PUT"}):
        reply = plane.post(headers={"origin": PAGE}, **options)
        assert reply.status >= 400
        assert reply.headers["access-control-allow-origin"] == PAGE


@OF_PAGE
@pytest.mark.parametrize("origin", ["https://evil.example.com", "https://app.example.com.evil.com", "null", ""])
def test_another_page_may_not(plane: DataPlane, origin: str) -> None:
    for reply in (
        plane.post(method="OPTIONS", send=False, headers={**PREFLIGHT, "origin": origin}),
        plane.post(raw=b"nope", headers={"origin": origin}),
    ):
        assert not [name for name in reply.headers if name.startswith("access-control-")]


@pytest.mark.plane(cors=CorsPolicy(frozenset({"*"})))
def test_a_star_allows_all_pages(plane: DataPlane) -> None:
    reply = plane.post(method="OPTIONS", send=False, headers={**PREFLIGHT, "origin": "https://anywhere.example"})
    assert reply.headers["access-control-allow-origin"] == "*"
