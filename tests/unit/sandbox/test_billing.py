"""What the sandbox bills when answers end well, early, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from opensvm.sandbox.catalogue import MODELS, Usage
from opensvm.sandbox.money import decimal_text, dump, nano_of, number, price_text
from tests.sandbox import SandboxFixture

Body = Callable[..., dict[str, Any]]
SONNET = MODELS["anthropic/claude-3.5-sonnet"]


def leave_after(api: httpx.Client, lines: int, body: dict[str, Any]) -> None:
    """Reads so many lines of the stream and closes the connection."""
    with api.stream("POST", "/messages", json=body) as response:
        for number, _ in enumerate(response.iter_lines(), start=1):
            if number == lines:
                return


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "stream"])
def test_a_finished_answer_is_billed_before_the_client_has_it(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, streamed: bool
) -> None:
    response = api.post("/messages", json=body(stream=streamed))

    (generation,) = sandbox.ledger()
    assert generation.id == response.headers["x-generation-id"]
    assert generation.cost_nano == SONNET.cost_nano(generation.usage) > 0
    assert (generation.finished, generation.cancelled, generation.streamed) == (True, False, streamed)
    assert f'"cost":{decimal_text(generation.cost_nano)},' in response.text


def test_a_left_stream_is_billed_as_far_as_it_got(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.behave(text_length=4000, deltas=100, delay_between=0.01)

    leave_after(api, 20, body(stream=True))
    sandbox.wait_until(lambda s: s.ledger()[0].finished)

    (generation,) = sandbox.ledger()
    assert generation.cancelled
    assert 0 < generation.usage.output < 500
    assert generation.cost_nano == SONNET.cost_nano(generation.usage)
    assert sandbox.requests()[0].left_at is not None


def test_a_left_stream_is_billed_whole_where_the_provider_cannot_cancel(
    sandbox: SandboxFixture, api: httpx.Client, body: Body
) -> None:
    sandbox.configure(cancellable=False)
    sandbox.behave(text_length=4000, deltas=100, delay_between=0.01)

    leave_after(api, 20, body(stream=True))
    sandbox.wait_until(lambda s: s.ledger()[0].finished)

    (generation,) = sandbox.ledger()
    assert (generation.usage.output, generation.cancelled) == (1000, True)


def test_a_message_is_billed_whole_though_the_client_left(
    sandbox: SandboxFixture, api: httpx.Client, body: Body
) -> None:
    sandbox.behave(delay_headers=5)

    with pytest.raises(httpx.ReadTimeout):
        api.post("/messages", json=body(), timeout=0.1)
    sandbox.wait_until(lambda s: s.ledger()[0].finished)

    (generation,) = sandbox.ledger()
    assert generation.cost_nano == SONNET.cost_nano(generation.usage) > 0


def test_nothing_is_billed_when_the_client_left_before_the_first_token(
    sandbox: SandboxFixture, api: httpx.Client, body: Body
) -> None:
    sandbox.behave(delay_first_event=5)

    leave_at_once = pytest.raises(httpx.ReadTimeout)
    with leave_at_once:
        api.post("/messages", json=body(stream=True), timeout=0.1)
    sandbox.wait_until(lambda s: s.ledger()[0].finished)

    assert sandbox.billed_nano() == 0


@pytest.mark.parametrize(("bill", "whole"), [("all", True), ("nothing", False)], ids=["all", "nothing"])
def test_the_script_can_set_the_bill_of_a_cut_stream(
    sandbox: SandboxFixture, api: httpx.Client, body: Body, bill: str, whole: bool
) -> None:
    sandbox.behave(cut_after_events=4, bill=bill)

    with pytest.raises(httpx.RemoteProtocolError):
        api.post("/messages", json=body(stream=True))

    assert (sandbox.billed_nano() > 0) == whole


def test_a_cost_is_written_as_scripted_and_billed_in_nano(
    sandbox: SandboxFixture, api: httpx.Client, body: Body
) -> None:
    sandbox.behave(cost="1.23e-05")

    text = api.post("/messages", json=body()).text

    assert '"cost":1.23e-05,' in text
    assert sandbox.billed_nano() == 12_300


def test_usage_is_shown_and_billed_as_scripted(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.behave(usage={"input_tokens": 1000, "output_tokens": 10, "cost": None})

    usage = api.post("/messages", json=body()).json()["usage"]

    assert (usage["input_tokens"], usage["output_tokens"]) == (1000, 10)
    assert "cost" not in usage
    assert sandbox.billed_nano() == 1000 * 3000 + 10 * 15000


def test_a_generation_is_found_only_after_its_delay(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.configure(generation_delay_seconds=0.3)
    generation_id = api.post("/messages", json=body()).json()["id"]

    assert api.get("/generation", params={"id": generation_id}).status_code == 404
    sandbox.wait_until(lambda _: api.get("/generation", params={"id": generation_id}).status_code == 200)

    found = json.loads(api.get("/generation", params={"id": generation_id}).text, parse_float=str)["data"]
    (generation,) = sandbox.ledger()
    assert nano_of(found["total_cost"]) == generation.cost_nano
    assert found["native_tokens_completion"] == generation.usage.output


def test_a_running_generation_is_not_found(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    sandbox.behave(cut_after_events=3, cut="stall")

    with api.stream("POST", "/messages", json=body(stream=True)) as response:
        generation_id = response.headers["x-generation-id"]
        assert api.get("/generation", params={"id": generation_id}).status_code == 404


def test_another_accounts_generation_is_not_found(sandbox: SandboxFixture, api: httpx.Client, body: Body) -> None:
    stranger = sandbox.add_key("sk-or-v1-test-stranger", account="other")
    generation_id = api.post("/messages", json=body()).json()["id"]

    headers = {"Authorization": f"Bearer {stranger}"}
    assert api.get("/generation", params={"id": generation_id}, headers=headers).status_code == 404
    assert api.get("/generation", params={"id": generation_id}).status_code == 200


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(), 0),
        (Usage(input=1), 3000),
        (Usage(output=1), 15000),
        (Usage(cache_read=10), 3000),
        (Usage(cache_write_5m=4), 15000),
        (Usage(cache_write_1h=1), 6000),
    ],
    ids=["nothing", "input", "output", "read", "write 5m", "write 1h"],
)
def test_tokens_are_priced_as_the_list_says(usage: Usage, nano: int) -> None:
    assert SONNET.cost_nano(usage) == nano


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "0"), (1, "0.000000001"), (12_300, "0.0000123"), (10**9, "1"), (1_500_000_000, "1.5")],
    ids=str,
)
def test_money_is_written_exactly(nano: int, text: str) -> None:
    assert decimal_text(nano) == text
    assert nano_of(text) == nano


def test_a_price_is_written_per_token() -> None:
    assert price_text(3 * 10**9) == "0.000003"
    assert price_text(10**7) == "0.00000001"


def test_text_that_looks_like_a_number_stays_text() -> None:
    assert dump({"text": "0.5", "cost": number("0.50")}) == b'{"text":"0.5","cost":0.50}'
