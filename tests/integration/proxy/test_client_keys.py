"""Client keys: which open the data plane, and what strangers learn from those that don't."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

import pytest
from django.utils import timezone

from keys.client_keys import new_client_key, prefix_of
from keys.models import Client, InFlight, RequestLog
from keys.services.clients import create_client, revoke_client
from tests.data_plane import ALICE, DataPlane

MINUTE = dt.timedelta(minutes=1)


def unknown() -> str:
    return new_client_key()


def revoked() -> str:
    text, client = create_client(actor=ALICE, name="carol")
    revoke_client(client.pk, actor=ALICE)
    return text


def expired() -> str:
    text, client = create_client(actor=ALICE, name="dave")
    Client.objects.filter(pk=client.pk).update(expires_at=timezone.now() - MINUTE)
    return text


def without_the_scope() -> str:
    text, client = create_client(actor=ALICE, name="erin")
    Client.objects.filter(pk=client.pk).update(scopes="stats")
    return text


REASONS = {"unknown": unknown, "revoked": revoked, "expired": expired, "scope": without_the_scope}


def refusal(plane: DataPlane, text: str) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of the answer, without the request's own id."""
    reply = plane.post(headers={"x-api-key": text})
    body = reply.json()
    assert body.pop("request_id") == reply.headers.pop("request-id")
    return reply.status, body, reply.headers


def test_unknown_revoked_expired_and_malformed_look_alike(plane: DataPlane) -> None:
    plane.add_key("alpha")
    found = [refusal(plane, text) for text in ("sk-ant-api03-garbage", *(make() for make in REASONS.values()))]
    for answer in found[1:]:
        assert answer[:2] == found[1][:2]
        assert answer[2] == found[1][2]
    assert found[0][:2] == found[1][:2], "a malformed one too, but for the connection that is closed"
    status, body, headers = found[1]
    assert (status, body["error"]["type"]) == (401, "authentication_error")
    assert headers["x-should-retry"] == "false"


@pytest.mark.parametrize("reason", REASONS)
def test_the_log_says_which_it_was_with_prefix_and_ip(
    plane: DataPlane, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    plane.add_key("alpha")
    text = REASONS[reason]()
    with caplog.at_level(logging.INFO, "opensvm"):
        refusal(plane, text)
    (line,) = [vars(record) for record in caplog.records if getattr(record, "event", "") == "client.refused"]
    assert (line["reason"], line["prefix"], line["client_ip"]) == (reason, prefix_of(text), "127.0.0.1")
    assert text not in str([vars(record) for record in caplog.records])


@pytest.mark.parametrize("reason", REASONS)
def test_a_refused_client_leaves_no_row_and_reaches_no_upstream(plane: DataPlane, reason: str) -> None:
    plane.add_key("alpha")
    refusal(plane, REASONS[reason]())
    assert not RequestLog.objects.exists()
    assert not InFlight.objects.exists()
    assert plane.asked_keys() == []


def test_a_revocation_works_at_once(plane: DataPlane) -> None:
    plane.add_key("alpha")
    assert plane.post().status == 200
    revoke_client(plane.client.pk, actor=ALICE)
    assert plane.post().status == 401
    assert len(plane.asked_keys()) == 1


def test_an_answer_under_way_ends_although_its_client_is_revoked(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(delay_headers=0.2)
    call = plane.open()
    plane.wait_until(lambda: len(plane.asked_keys()) == 1)
    revoke_client(plane.client.pk, actor=ALICE)
    assert call.reply().status == 200
    assert plane.only_row().client_id == plane.client.pk


def test_an_expiry_in_the_future_is_none_yet(plane: DataPlane) -> None:
    plane.add_key("alpha")
    Client.objects.update(expires_at=timezone.now() + MINUTE)
    assert plane.post().status == 200
    plane.clock.forward(61)
    assert plane.post().status == 401


def test_last_used_is_written_at_most_once_a_minute(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.post()
    first = Client.objects.get().last_used_at
    plane.clock.forward(30)
    plane.post()
    assert Client.objects.get().last_used_at == first
    plane.clock.forward(31)
    plane.post()
    second = Client.objects.get().last_used_at
    assert first is not None
    assert second is not None
    assert second > first


def test_the_ledger_names_the_client(plane: DataPlane) -> None:
    plane.add_key("alpha")
    text, carol = create_client(actor=ALICE, name="carol")
    plane.post(headers={"x-api-key": "", "authorization": f"Bearer {text}"})
    assert plane.only_row().client_id == carol.pk
