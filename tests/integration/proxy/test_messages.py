"""POST /v1/messages from end to end: client, pool, sandbox upstream, ledger."""

from __future__ import annotations

from keys.models import CostSource, InFlight
from tests.data_plane import DataPlane


def test_a_json_answer_is_relayed_and_settled(plane: DataPlane) -> None:
    plane.add_key("alpha")
    reply = plane.post()
    assert reply.status == 200
    assert reply.json()["type"] == "message"
    row = plane.only_row()
    (billed,) = plane.sandbox.ledger()
    assert (row.status, row.cost_nano, row.cost_source) == (200, billed.cost_nano, CostSource.REPORTED)
    assert row.request_id == reply.headers["request-id"]
    assert row.generation_id == billed.id
    assert not InFlight.objects.exists()


def test_a_stream_is_relayed_and_settled(plane: DataPlane) -> None:
    plane.add_key("alpha")
    reply = plane.stream()
    names = [name for name, _ in reply.events]
    assert names[0] == "message_start"
    assert names[-1] == "message_stop"
    row = plane.only_row()
    (billed,) = plane.sandbox.ledger()
    assert row.cost_nano == billed.cost_nano
    assert row.output_tokens == billed.usage.output
    assert b"[DONE]" not in reply.body


def test_the_clients_model_name_comes_back(plane: DataPlane) -> None:
    plane.add_key("alpha")
    asked = "claude-3-sonnet-20240229"
    assert plane.post(model=asked).json()["model"] == asked
    assert dict(plane.stream(model=asked).events)["message_start"]["message"]["model"] == asked
    assert {request.body["model"] for request in plane.sandbox.requests()} == {"anthropic/claude-3.5-sonnet"}
