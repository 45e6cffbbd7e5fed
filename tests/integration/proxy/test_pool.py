"""Which key serves a request: the round robin as clients and operators see it."""

from __future__ import annotations

from collections import Counter

import pytest

from keys.models import Account, InFlight, KeyState, OpenRouterKey, RequestLog
from keys.services.keys import disable_key, edit_key, enable_key, retire_key
from proxy.retry import RetryPolicy
from tests.data_plane import ALICE, DataPlane

pytestmark = pytest.mark.plane(retry=RetryPolicy(max_retries=0, delay_seconds=0.0))


def who_answers(plane: DataPlane, requests: int) -> list[str]:
    """The keys that the next requests go to, one after another."""
    before = len(plane.asked_keys())
    for _ in range(requests):
        assert plane.post().status == 200
    return plane.asked_keys()[before:]


def test_keys_serve_in_turn(plane: DataPlane) -> None:
    plane.add_keys("key1", "key2", "key3")
    assert who_answers(plane, 7) == ["key1", "key2", "key3", "key1", "key2", "key3", "key1"]


def test_requests_at_once_are_shared_alike(plane: DataPlane) -> None:
    plane.add_keys("key1", "key2", "key3")
    calls = [plane.open(stream=number % 2 == 0) for number in range(60)]
    assert {call.reply().status for call in calls} == {200}
    assert Counter(plane.asked_keys()) == {"key1": 20, "key2": 20, "key3": 20}
    plane.wait_until(lambda: not InFlight.objects.exists())
    assert RequestLog.objects.count() == 60
    assert sum(row.cost_nano or 0 for row in plane.rows()) == plane.sandbox.billed_nano()


def test_a_higher_tier_serves_only_while_the_lower_is_benched(plane: DataPlane) -> None:
    plane.add_key("cheap1")
    plane.add_key("cheap2")
    plane.add_key("dear", tier=2)
    assert who_answers(plane, 4) == ["cheap1", "cheap2", "cheap1", "cheap2"]
    plane.sandbox.fail("rate_limited", key="cheap1", times=1)
    plane.sandbox.fail("rate_limited", key="cheap2", times=1)
    assert who_answers(plane, 2) == ["cheap1", "cheap2", "dear", "dear"]
    plane.clock.forward(300)
    assert who_answers(plane, 4) == ["cheap1", "cheap2", "cheap1", "cheap2"]


def test_a_key_moved_to_another_tier_is_used_so_from_the_next_request_on(plane: DataPlane) -> None:
    alpha, _ = plane.add_keys("alpha", "beta")
    assert who_answers(plane, 2) == ["alpha", "beta"]
    edit_key(alpha.pk, actor=ALICE, name="alpha", account=None, tier=9, note="")
    assert who_answers(plane, 3) == ["beta"] * 3


def test_a_disabled_key_is_not_selected_by_the_next_request(plane: DataPlane) -> None:
    alpha, _ = plane.add_keys("alpha", "beta")
    disable_key(alpha.pk, actor=ALICE)
    assert who_answers(plane, 3) == ["beta"] * 3
    enable_key(alpha.pk, actor=ALICE)
    assert who_answers(plane, 2) == ["alpha", "beta"]


def test_the_request_of_a_key_that_is_retired_meanwhile_is_answered(plane: DataPlane) -> None:
    alpha, _ = plane.add_keys("alpha", "beta")
    plane.sandbox.behave(key="alpha", delay_headers=0.2)
    call = plane.open()
    plane.wait_until(lambda: plane.asked_keys() == ["alpha"])
    retire_key(alpha.pk, actor=ALICE)
    assert call.reply().status == 200
    row = plane.only_row()
    assert (row.status, row.key_id, row.cost_nano) == (200, alpha.pk, plane.sandbox.billed_nano())
    assert who_answers(plane, 2) == ["beta", "beta"]


@pytest.mark.parametrize("state", [state for state in KeyState if state is not KeyState.ACTIVE])
def test_only_an_active_key_serves(plane: DataPlane, state: KeyState) -> None:
    plane.add_keys("alpha", "beta")
    changes = {"state": state, "secret": b""} if state is KeyState.RETIRED else {"state": state}
    OpenRouterKey.objects.filter(name="alpha").update(**changes)
    assert who_answers(plane, 3) == ["beta"] * 3


def test_a_new_key_serves_at_once_and_takes_no_more_than_its_share(plane: DataPlane) -> None:
    plane.add_keys("alpha", "beta")
    who_answers(plane, 10)
    plane.add_key("gamma")
    assert who_answers(plane, 6) == ["gamma", "alpha", "beta", "gamma", "alpha", "beta"]


def test_a_key_that_was_benched_takes_no_more_than_its_share_afterwards(plane: DataPlane) -> None:
    """Its old turn makes it the first once, not many times."""
    plane.add_keys("alpha", "beta", "gamma")
    plane.sandbox.fail("rate_limited", key="alpha", times=1)
    who_answers(plane, 20)
    plane.clock.forward(300)
    shares = Counter(who_answers(plane, 30))
    assert shares == {"alpha": 10, "beta": 10, "gamma": 10}


def test_keys_of_one_account_and_of_none_share_one_round(plane: DataPlane) -> None:
    plane.add_key("alpha", account=Account.objects.create(name="first"))
    plane.add_key("beta")
    assert who_answers(plane, 4) == ["alpha", "beta", "alpha", "beta"]


def test_the_key_is_sent_as_bearer_and_the_clients_own_key_is_not(plane: DataPlane) -> None:
    (alpha,) = plane.add_keys("alpha")
    assert plane.post(headers={"authorization": f"Bearer {plane.client_key}"}).status == 200
    (request,) = plane.sandbox.requests()
    assert request.headers["authorization"].startswith("Bearer")
    assert request.key_tail == alpha.tail
    assert "x-api-key" not in request.headers
    assert "sk-ant" not in str(request)
