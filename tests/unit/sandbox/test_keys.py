"""Keys and accounts: what they tell of themselves, when they are refused, and who may manage them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from opensvm.sandbox.app import Sandbox
from opensvm.sandbox.keys import RateLimit, ensure_keys_file, key_facts, new_key, sandbox_keys
from opensvm.sandbox.ledger import Generation
from tests.sandbox import SandboxFixture

Body = Callable[..., dict[str, Any]]
SUNDAY = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


@pytest.fixture
def boss(sandbox: SandboxFixture, no_tls: ssl.SSLContext) -> Iterator[httpx.Client]:
    """Calls with a management key of the account "main"."""
    key = sandbox.add_key("sk-or-v1-test-boss", name="boss", management=True)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=sandbox.base_url, headers=headers, verify=no_tls) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "No auth credentials found"),
        ({"Authorization": "Bearer sk-or-v1-test-unknown"}, "User not found."),
        ({"Authorization": "Basic abc"}, "No auth credentials found"),
    ],
    ids=["none", "unknown", "not bearer"],
)
def test_strangers_are_refused(sandbox: SandboxFixture, headers: dict[str, str], message: str) -> None:
    response = httpx.get(f"{sandbox.base_url}/key", headers=headers)

    assert response.status_code == 401
    assert response.json()["error"] == {"message": message, "code": 401}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"disabled": True}, "API key is disabled."),
        ({"expires_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, "API key has expired."),
    ],
    ids=["disabled", "expired"],
)
def test_a_disabled_or_expired_key_is_refused_everywhere(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, change: dict[str, Any], message: str
) -> None:
    sandbox.change_key("alpha", **change)

    for response in (api.get("/key"), api.post("/messages", json=body())):
        assert (response.status_code, response.json()["error"]["message"]) == (401, message)


def test_a_key_works_in_the_header_of_anthropics_clients(sandbox: SandboxFixture, api: httpx.Client) -> None:
    assert httpx.get(f"{sandbox.base_url}/key", headers={"x-api-key": "sk-or-v1-test-alpha"}).status_code == 200


def test_a_key_tells_its_use_from_the_bills(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.change_key("alpha", limit_usd=5, limit_reset="daily")
    sandbox.behave(cost="0.25")
    api.post("/messages", json=body())
    api.post("/messages", json=body())

    facts = api.get("/key").json()["data"]

    assert (facts["usage"], facts["usage_daily"], facts["limit"], facts["limit_remaining"]) == (0.5, 0.5, 5, 4.5)
    assert (facts["limit_reset"], facts["is_management_key"]) == ("daily", False)


def test_use_is_summed_by_utc_day_week_and_month() -> None:
    sandbox = Sandbox(now=lambda: SUNDAY)
    key = new_key(sandbox.keys, SUNDAY, name="alpha", limit_usd=10, limit_reset="weekly")
    for days_ago, cost in ((0, 1), (6, 10), (7, 100), (22, 1000)):
        at = SUNDAY - dt.timedelta(days=days_ago)
        generation = Generation(f"gen-{days_ago}", key.hash, "alpha", "...", "main", "m", False, at)
        sandbox.ledger.open(generation)
        sandbox.ledger.settle(_billed(generation, cost * 10**9, at))

    facts = key_facts(key, sandbox.ledger, SUNDAY.date())

    numbers = {name: facts[name].partition(":")[2] for name in facts if name.startswith("usage")}
    assert numbers == {"usage": "1111", "usage_daily": "1", "usage_weekly": "11", "usage_monthly": "111"}
    assert key.remaining_nano(sandbox.ledger, SUNDAY.date()) == -1 * 10**9


def _billed(generation: Generation, nano: int, at: dt.datetime) -> Generation:
    return dataclasses.replace(generation, cost_nano=nano, settled_at=at)


@pytest.mark.parametrize(
    ("reset", "words"), [(None, "(total limit)"), ("daily", "(daily limit)"), ("monthly", "(monthly limit)")], ids=str
)
def test_a_used_up_key_limit_is_403(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, reset: str | None, words: str
) -> None:
    sandbox.change_key("alpha", limit_usd=0.1, limit_reset=reset)
    sandbox.behave(cost="0.1")
    assert api.post("/messages", json=body()).status_code == 200

    refused = api.post("/messages", json=body())

    assert refused.status_code == 403
    assert words in refused.json()["error"]["message"]


def test_a_request_over_the_rest_of_the_limit_cannot_be_afforded(
    sandbox: SandboxFixture, api: httpx.Client, body: Body
) -> None:
    sandbox.change_key("alpha", limit_usd=0.001)

    large = api.post("/messages", json=body(max_tokens=1000))
    small = api.post("/messages", json=body(max_tokens=10))

    assert (large.status_code, small.status_code) == (402, 200)
    assert "can only afford" in large.json()["error"]["message"]


def test_an_account_without_credit_refuses_all_its_keys_and_no_others(
    sandbox: SandboxFixture, api: httpx.Client, body: Body
) -> None:
    rich = sandbox.add_key("sk-or-v1-test-rich", account="other")
    sandbox.set_account("main", credit_usd=0.0)

    poor = api.post("/messages", json=body())

    assert (poor.status_code, poor.json()["error"]["metadata"]["limit_source"]) == (402, "openrouter_credits")
    assert api.post("/messages", json=body(), headers={"Authorization": f"Bearer {rich}"}).status_code == 200


def test_a_rate_limit_answers_429_and_ends(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.limit_rate("alpha", requests=2, seconds=0.4, retry_after=1)

    answers = [api.post("/messages", json=body()) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "1"
    sandbox.wait_until(lambda _: api.post("/messages", json=body()).status_code == 200)


def test_a_rate_limit_slides() -> None:
    limit = RateLimit(requests=2, seconds=10)

    assert [limit.allows(now) for now in (0, 5, 9, 10, 11, 15)] == [True, True, False, True, False, True]


def test_the_catalogue_is_public_and_paged(sandbox: SandboxFixture) -> None:
    page = httpx.get(f"{sandbox.base_url}/models", params={"offset": 1, "limit": 2}).json()

    assert len(page["data"]) == 2
    assert page["total_count"] > 20
    assert page["links"]["next"] == "/api/v1/models?offset=3&limit=2"
    assert float(page["data"][0]["pricing"]["prompt"]) > 0
    assert "OpenSVM Sandbox" in page["data"][0]["name"]


# -- Management --------------------------------------------------------------------------------------------------------


def test_a_key_is_made_shown_once_changed_and_deleted(sandbox: SandboxFixture, boss: httpx.Client, body: Body) -> None:
    made = boss.post("/keys", json={"name": "fresh", "limit": 2, "limit_reset": "monthly"})
    assert made.status_code == 201
    secret, key_hash = made.json()["key"], made.json()["data"]["hash"]
    assert "key" not in made.json()["data"]

    headers = {"Authorization": f"Bearer {secret}"}
    assert boss.post("/messages", json=body(), headers=headers).status_code == 200
    assert boss.get(f"/keys/{key_hash}").json()["data"]["usage"] > 0

    changed = boss.patch(f"/keys/{key_hash}", json={"disabled": True, "name": "stale"}).json()["data"]
    assert (changed["disabled"], changed["name"], changed["limit"]) == (True, "stale", 2)
    assert boss.get("/keys").json()["data"] == []
    assert [one["name"] for one in boss.get("/keys?include_disabled=true").json()["data"]] == ["stale"]
    assert boss.post("/messages", json=body(), headers=headers).status_code == 401

    assert boss.delete(f"/keys/{key_hash}").json() == {"deleted": True}
    assert boss.get(f"/keys/{key_hash}").status_code == 404
    assert secret not in boss.get("/keys?include_disabled=true").text


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "name"),
        ({"name": "x", "limit": -1}, "limit"),
        ({"name": "x", "limit_reset": "hourly"}, "limit_reset"),
        ({"name": "x", "expires_at": "soon"}, "expires_at"),
        ({"name": "x", "expires_at": "2027-01-01T00:00:00"}, "expires_at"),
    ],
    ids=["no name", "negative", "hourly", "no date", "no zone"],
)
def test_a_key_that_makes_no_sense_is_refused(boss: httpx.Client, document: dict[str, Any], field: str) -> None:
    response = boss.post("/keys", json=document)

    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(f"{field}:")


def test_credits_are_the_accounts(sandbox: SandboxFixture, api: httpx.Client, boss: httpx.Client, body: Body) -> None:
    sandbox.set_account("main", credit_usd=20)
    sandbox.behave(cost="0.5")
    api.post("/messages", json=body())

    assert boss.get("/credits").json() == {"data": {"total_credits": 20, "total_usage": 0.5}}


@pytest.mark.parametrize("path", ["/credits", "/keys"], ids=str)
def test_an_ordinary_key_manages_nothing(api: httpx.Client, path: str) -> None:
    assert api.get(path).status_code == 403


def test_a_management_key_answers_no_message(boss: httpx.Client, body: Body) -> None:
    assert boss.post("/messages", json=body()).status_code == 403


def test_another_accounts_keys_are_not_there(sandbox: SandboxFixture, boss: httpx.Client) -> None:
    sandbox.add_key("sk-or-v1-test-other", account="other")

    assert boss.get("/keys").json()["data"] == []


# -- The file ----------------------------------------------------------------------------------------------------------


def test_a_keys_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "sandbox-keys"

    first = ensure_keys_file(path)

    assert len(set(first)) == 3
    assert ensure_keys_file(path) == first
    assert path.stat().st_mode & 0o777 == 0o600


def test_new_keys_say_that_they_are_the_sandboxs() -> None:
    assert all(key.startswith("sk-or-v1-sandbox-") for key in sandbox_keys(2))
