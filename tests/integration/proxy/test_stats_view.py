"""`GET /api/keys/stats`."""

from __future__ import annotations

import datetime as dt
import json
import logging
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client as Browser
from django.utils import timezone

from keys.causes import Cause
from keys.client_keys import new_client_key
from keys.models import Account, Client, Cooldown, KeyState, OpenRouterKey
from keys.sealing import Sealed
from keys.services.audit import COMMAND_LINE
from keys.services.clients import create_client
from keys.services.keys import add_key, retire_key

pytestmark = pytest.mark.django_db

URL = "/api/keys/stats"
HOUR = dt.timedelta(hours=1)


def pool_key(tail: str, account: Account | None = None) -> OpenRouterKey:
    return add_key(
        actor=COMMAND_LINE, secret=Sealed(f"sk-or-v1-test-stats-{tail}"), name=f"prod-{tail}", account=account
    )


def bench(until: dt.timedelta, pattern: str = "", **target: Any) -> None:
    now = timezone.now()
    Cooldown.objects.create(
        cause=Cause.KEY_RATE_LIMITED, started_at=now - 2 * HOUR, until=now + until, pattern=pattern, **target
    )


@pytest.fixture
def monitor() -> str:
    """A client key with the scope `stats`."""
    return create_client(actor=COMMAND_LINE, name="monitor", scopes=("messages", "stats"))[0]


def stats(browser: Browser, client_key: str) -> dict[str, Any]:
    response = browser.get(URL, headers={"x-api-key": client_key})
    assert response.status_code == 200
    answer: dict[str, Any] = json.loads(response.content)
    return answer


def test_an_empty_pool_has_the_guides_shape(client: Browser, monitor: str) -> None:
    assert stats(client, monitor) == {"totalKeys": 0, "activeKeys": 0, "failedKeys": 0, "usage": {}}


def test_keys_show_in_the_order_they_were_added_with_their_selections(client: Browser, monitor: str) -> None:
    for tail in ("abc1", "def2", "ghi3"):
        pool_key(tail)
    used = dt.datetime(2026, 5, 4, 12, 0, 0, 123456, dt.UTC)
    OpenRouterKey.objects.filter(name="prod-def2").update(selections=149, last_selected_at=used)

    assert stats(client, monitor) == {
        "totalKeys": 3,
        "activeKeys": 3,
        "failedKeys": 0,
        "usage": {
            "key_1": {"requests": 0, "lastUsed": None, "isFailed": False, "keyPreview": "...abc1"},
            "key_2": {
                "requests": 149,
                "lastUsed": "2026-05-04T12:00:00.123Z",
                "isFailed": False,
                "keyPreview": "...def2",
            },
            "key_3": {"requests": 0, "lastUsed": None, "isFailed": False, "keyPreview": "...ghi3"},
        },
    }


def test_a_retired_key_is_gone_and_the_others_move_up(client: Browser, monitor: str) -> None:
    retired, _ = pool_key("abc1"), pool_key("def2")
    retire_key(retired.pk, actor=COMMAND_LINE)

    answer = stats(client, monitor)

    assert answer["totalKeys"] == 1
    assert answer["usage"]["key_1"]["keyPreview"] == "...def2"


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.INVALID, KeyState.DRAINING, KeyState.PENDING])
def test_a_key_that_is_not_active_is_failed(client: Browser, monitor: str, state: KeyState) -> None:
    key = pool_key("abc1")
    OpenRouterKey.objects.filter(pk=key.pk).update(state=state)

    answer = stats(client, monitor)

    assert (answer["activeKeys"], answer["failedKeys"]) == (0, 1)
    assert answer["usage"]["key_1"]["isFailed"] is True


@pytest.mark.parametrize(
    ("until", "pattern", "is_failed"),
    [
        pytest.param(HOUR, "", True, id="cooling"),
        pytest.param(-HOUR, "", False, id="ready to retry"),
        pytest.param(HOUR, ":free", False, id="cooling for free models only"),
    ],
)
def test_a_cooldown_fails_a_key_until_it_is_due(
    client: Browser, monitor: str, until: dt.timedelta, pattern: str, is_failed: bool
) -> None:
    bench(until, pattern, key=pool_key("abc1"))

    assert stats(client, monitor)["usage"]["key_1"]["isFailed"] is is_failed


def test_a_cooldown_of_the_account_fails_all_its_keys(client: Browser, monitor: str) -> None:
    account = Account.objects.create(name="acme")
    for tail in ("abc1", "def2"):
        pool_key(tail, account)
    pool_key("ghi3")
    bench(HOUR, account=account)

    answer = stats(client, monitor)

    assert (answer["totalKeys"], answer["activeKeys"], answer["failedKeys"]) == (3, 1, 2)


@pytest.mark.parametrize("keys", [1, 50])
def test_it_takes_four_queries_whatever_the_pool(
    client: Browser, monitor: str, keys: int, django_assert_num_queries: Any
) -> None:
    for number in range(keys):
        bench(HOUR, key=pool_key(f"{number:04}"))

    with django_assert_num_queries(4):
        assert stats(client, monitor)["failedKeys"] == keys


def test_a_bearer_token_is_as_good_as_x_api_key(client: Browser, monitor: str) -> None:
    assert client.get(URL, headers={"authorization": f"Bearer {monitor}"}).status_code == 200


def test_staff_need_no_client_key(client: Browser) -> None:
    client.force_login(User.objects.create_user("alice", is_staff=True))

    assert client.get(URL).status_code == 200


def expired(monitor: str) -> str:
    Client.objects.update(expires_at=timezone.now() - HOUR)
    return monitor


def revoked(monitor: str) -> str:
    Client.objects.update(revoked_at=timezone.now())
    return monitor


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda monitor: "", "missing", id="no key"),
        pytest.param(lambda monitor: "sk-ant-api03-nonsense", "malformed", id="malformed"),
        pytest.param(lambda monitor: new_client_key(), "unknown", id="unknown"),
        pytest.param(expired, "expired", id="expired"),
        pytest.param(revoked, "revoked", id="revoked"),
    ],
)
def test_a_wrong_client_key_gets_401_in_anthropics_shape_and_the_log_says_why(
    client: Browser, monitor: str, caplog: pytest.LogCaptureFixture, make: Any, reason: str
) -> None:
    with caplog.at_level(logging.WARNING):
        response = client.get(URL, headers={"x-api-key": make(monitor)})

    answer = json.loads(response.content)
    assert response.status_code == 401
    assert answer["error"]["type"] == "authentication_error"
    assert response["x-should-retry"] == "false"
    assert answer["request_id"] == response["request-id"]
    assert [record.reason for record in caplog.records if record.name == "opensvm.clients"] == [reason]


def test_a_client_without_the_scope_gets_403(client: Browser) -> None:
    plain, _ = create_client(actor=COMMAND_LINE, name="bob")

    response = client.get(URL, headers={"x-api-key": plain})

    assert response.status_code == 403
    assert json.loads(response.content)["error"]["type"] == "permission_error"


def test_a_user_who_is_not_staff_gets_403(client: Browser) -> None:
    client.force_login(User.objects.create_user("charlie"))

    assert client.get(URL).status_code == 403


def test_a_wrong_key_is_not_saved_by_a_staff_session(client: Browser) -> None:
    client.force_login(User.objects.create_user("alice", is_staff=True))

    assert client.get(URL, headers={"x-api-key": new_client_key()}).status_code == 401


@pytest.mark.parametrize("method", ["post", "put", "delete", "options"])
def test_only_get_is_allowed(client: Browser, monitor: str, method: str) -> None:
    response = getattr(client, method)(URL, headers={"x-api-key": monitor})

    assert response.status_code == 405
    assert json.loads(response.content)["error"]["type"] == "invalid_request_error"
    assert "GET" in response["allow"]


def test_every_answer_has_a_request_id_and_is_not_stored(client: Browser, monitor: str) -> None:
    response = client.get(URL, headers={"x-api-key": monitor})

    assert response["request-id"].startswith("req_")
    assert response["cache-control"] == "no-store"
