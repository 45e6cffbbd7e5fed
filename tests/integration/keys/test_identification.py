"""IDENTIFY: who may ask for token counts and models, what they are told, and that it leaves no trace."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from keys.ledger_items import Admitted, Denied, Identify, Known, LaneResult
from keys.models import Client, InFlight, ModelAlias, ModelPrice, Pool, RequestLog
from keys.services.clients import revoke_client
from keys.uuid7 import new_request_uuid
from tests.integration.keys.ledger import ALICE, add_client, add_keys, admit, recorded_statements, run

pytestmark = pytest.mark.django_db


def identify(digest: str, *, wants_models: bool = False) -> LaneResult:
    (result,) = run(Identify(new_request_uuid(), digest, wants_models=wants_models))
    return result


def known(digest: str) -> Known:
    result = identify(digest, wants_models=True)
    assert isinstance(result, Known)
    return result


def test_a_client_is_known_and_nothing_is_written() -> None:
    digest, client = add_client()
    before = Pool.objects.get().turn
    assert identify(digest) == Known(client.id, client.name)
    assert (RequestLog.objects.count(), InFlight.objects.count(), Pool.objects.get().turn) == (0, 0, before)
    client.refresh_from_db()
    assert client.last_used_at is None


@pytest.mark.parametrize("reason", ["unknown", "revoked", "expired", "scope"])
def test_who_may_send_no_messages_is_denied(reason: str) -> None:
    digest, client = add_client()
    if reason == "revoked":
        revoke_client(client.id, actor=ALICE)
    elif reason == "scope":
        Client.objects.update(scopes="stats")
    elif reason == "expired":
        Client.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert identify("0" * 64 if reason == "unknown" else digest) == Denied(reason)


def test_the_upstream_name_of_a_model_is_told() -> None:
    digest, _ = add_client()
    ModelAlias.objects.create(name="house-model", target="anthropic/claude-opus-4.5")
    names = {"house-model": "anthropic/claude-opus-4.5", "claude-opus-4-8": "anthropic/claude-opus-4.8"}
    results = run(*(Identify(new_request_uuid(), digest, name) for name in names))
    assert [result.model_sent for result in results if isinstance(result, Known)] == list(names.values())


def test_many_cost_as_many_statements_as_one() -> None:
    digest, _ = add_client()
    items = [Identify(new_request_uuid(), digest, wants_models=True) for _ in range(50)]
    with recorded_statements() as texts:
        results = run(*items)
    assert all(isinstance(result, Known) for result in results)
    selects = [text for text in texts if text.startswith(("SELECT", "EXECUTE"))]
    assert len(selects) == 3  # clients, catalogue, aliases


def test_it_goes_together_with_admissions_in_one_batch() -> None:
    digest, _ = add_client()
    add_keys("alpha")
    first, second = run(admit(digest), Identify(new_request_uuid(), digest))
    assert isinstance(first, Admitted)
    assert isinstance(second, Known)


def test_aliases_come_first_and_are_described_by_their_target() -> None:
    digest, _ = add_client()
    ModelAlias.objects.all().delete()
    ModelAlias.objects.create(name="house-model", target="anthropic/claude-opus-4.5")
    ModelAlias.objects.create(name="elsewhere", target="nobody/knows-this")
    ModelPrice.objects.filter(model="anthropic/claude-opus-4.5").update(name="Claude Opus 4.5", context_length=200_000)
    first, second, *rest = known(digest).models
    assert (first.id, first.target, first.name, first.context_length) == (
        "elsewhere",
        "nobody/knows-this",
        "elsewhere",
        None,
    )
    assert (second.id, second.name, second.context_length) == ("house-model", "Claude Opus 4.5", 200_000)
    assert {model.id for model in rest} == set(ModelPrice.objects.values_list("model", flat=True))


def test_the_newest_of_the_catalogue_comes_first_and_the_undated_last() -> None:
    digest, _ = add_client()
    ModelAlias.objects.all().delete()
    day = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
    ModelPrice.objects.filter(model="anthropic/claude-opus-4").update(created=day)
    ModelPrice.objects.filter(model="anthropic/claude-opus-5").update(created=day + dt.timedelta(days=1))
    ids = [model.id for model in known(digest).models]
    assert ids[:2] == ["anthropic/claude-opus-5", "anthropic/claude-opus-4"]
    assert ids[2:] == sorted(ids[2:])


def test_an_alias_hides_the_model_of_the_same_name() -> None:
    digest, _ = add_client()
    ModelAlias.objects.create(name="anthropic/claude-opus-4", target="anthropic/claude-opus-5")
    found = [model for model in known(digest).models if model.id == "anthropic/claude-opus-4"]
    assert [model.target for model in found] == ["anthropic/claude-opus-5"]
