"""What `POST /messages` of the sandbox answers, and that Anthropic's own SDK can read it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import pytest

from tests.sandbox import SandboxFixture

MODEL = "anthropic/claude-3.5-sonnet"
TOOL = {
    "name": "get_weather",
    "description": "Weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "sure": {"type": "boolean"}},
    },
}


Body = Callable[..., dict[str, Any]]


def events(text: str) -> list[str]:
    return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]


def documents(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def test_a_message_echoes_the_question_and_says_that_it_is_a_sandbox(api: httpx.Client, body: Body) -> None:
    response = api.post("/messages", json=body())

    message = response.json()
    assert response.headers["x-opensvm-sandbox"] == "true"
    assert response.headers["x-generation-id"] == message["id"]
    assert message["provider"] == "OpenSVM Sandbox"
    assert message["content"][0]["text"] == (
        "This is the OpenSVM Sandbox; no model was asked. You said: Grüße, what is 1 + 1?"
    )
    assert message["model"] == "anthropic/claude-3.5-sonnet-20241022"
    assert message["stop_reason"] == "end_turn"
    assert message["usage"]["is_byok"] is False


def test_the_cost_is_an_exact_decimal_number(api: httpx.Client, body: Body) -> None:
    text = api.post("/messages", json=body(model="anthropic/claude-haiku-5.5")).text

    usage = json.loads(text, parse_float=str)["usage"]
    nano = usage["input_tokens"] * 100 + usage["output_tokens"] * 500
    assert usage["cost"] == f"{nano / 1e9:.9f}".rstrip("0")
    assert "e-" not in usage["cost"]


def test_a_stream_has_openrouters_comments_order_and_done(api: httpx.Client, body: Body) -> None:
    text = api.post("/messages", json=body(stream=True)).text

    assert text.startswith(": OPENROUTER PROCESSING\n\nevent: message_start\n")
    assert text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\nevent: data\ndata: [DONE]\n\n')
    names = events(text)
    assert names[:2] == ["message_start", "content_block_start"]
    assert "ping" in names
    assert names[-3:] == ["message_delta", "message_stop", "data"]


def test_a_stream_tells_tokens_and_cost_only_at_its_end(api: httpx.Client, body: Body) -> None:
    found = {one["type"]: one for one in documents(api.post("/messages", json=body(stream=True)).text)}

    assert found["message_start"]["message"]["usage"]["input_tokens"] == 0
    assert "cost" not in found["message_start"]["message"]["usage"]
    assert found["message_delta"]["usage"]["input_tokens"] > 0
    assert found["message_delta"]["usage"]["cost"] > 0


def test_a_stream_says_the_same_as_a_message(api: httpx.Client, body: Body) -> None:
    whole = api.post("/messages", json=body()).json()
    streamed = documents(api.post("/messages", json=body(stream=True)).text)

    pieces = [one["delta"]["text"] for one in streamed if one["type"] == "content_block_delta"]
    assert "".join(pieces) == whole["content"][0]["text"]
    assert streamed[-2]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}], ids=["any", "by name"])
def test_a_demanded_tool_is_used(api: httpx.Client, body: Body, choice: dict[str, str]) -> None:
    message = api.post("/messages", json=body(tools=[TOOL], tool_choice=choice)).json()

    assert message["stop_reason"] == "tool_use"
    assert message["content"][0]["name"] == "get_weather"
    assert message["content"][0]["input"] == {"city": "sandbox", "days": 1, "sure": True}


def test_tools_at_will_are_not_used(api: httpx.Client, body: Body) -> None:
    message = api.post("/messages", json=body(tools=[TOOL], tool_choice={"type": "auto"})).json()

    assert message["stop_reason"] == "end_turn"
    assert message["content"][0]["type"] == "text"


def test_thinking_comes_before_the_answer(api: httpx.Client, body: Body) -> None:
    message = api.post("/messages", json=body(thinking={"type": "enabled", "budget_tokens": 1024})).json()

    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert message["content"][0]["signature"]
    assert 0 < message["usage"]["output_tokens_details"]["thinking_tokens"] < message["usage"]["output_tokens"]


def test_omitted_thinking_streams_a_signature_only(api: httpx.Client, body: Body) -> None:
    thinking = {"type": "adaptive", "display": "omitted"}
    streamed = documents(api.post("/messages", json=body(thinking=thinking, stream=True)).text)

    of_thought = [one["delta"]["type"] for one in streamed if one.get("index") == 0 and "delta" in one]
    assert of_thought == ["signature_delta"]


def test_max_tokens_end_the_answer(api: httpx.Client, body: Body) -> None:
    message = api.post("/messages", json=body(max_tokens=3)).json()

    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 3


def test_a_stop_sequence_ends_the_answer(api: httpx.Client, body: Body) -> None:
    message = api.post("/messages", json=body(stop_sequences=["was asked"])).json()

    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "was asked")
    assert message["content"][0]["text"].endswith("no model ")


def test_a_cached_prefix_is_written_once_and_read_afterwards(api: httpx.Client, body: Body) -> None:
    system = [{"type": "text", "text": "long " * 100, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]

    first = api.post("/messages", json=body(system=system)).json()["usage"]
    second = api.post("/messages", json=body(system=system)).json()["usage"]

    assert first["cache_creation"]["ephemeral_1h_input_tokens"] == first["cache_creation_input_tokens"] > 100
    assert second["cache_read_input_tokens"] == first["cache_creation_input_tokens"]
    assert second["cost"] < first["cost"]
    assert second["input_tokens"] == first["input_tokens"] > 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"tools": "all"}, "tools"),
        ({"stop_sequences": [1]}, "stop_sequences"),
        ({"session_id": "x" * 257}, "session_id"),
        ({"models": [], "fallbacks": []}, "models"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value)[:40],
)
def test_a_bad_body_is_refused_with_the_field(
    api: httpx.Client, body: Body, change: dict[str, Any], field: str
) -> None:
    response = api.post("/messages", json=body(**change))

    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["error"]["message"].startswith(field)


@pytest.mark.parametrize("text", ["", "{", "[]", '"hi"', "null"], ids=["empty", "cut", "array", "string", "null"])
def test_what_is_no_json_object_is_refused(api: httpx.Client, text: str) -> None:
    response = api.post("/messages", content=text)

    assert response.status_code == 400
    assert "JSON" in response.json()["error"]["message"]


@pytest.mark.parametrize("name", ["claude-3-sonnet-20240229", "claude-opus-4-8", "made/up"], ids=str)
def test_unknown_models_are_refused_by_name(api: httpx.Client, body: Body, name: str) -> None:
    response = api.post("/messages", json=body(model=name))

    assert response.status_code == 400
    assert response.json()["error"]["message"] == f"{name} is not a valid model ID"


def test_count_tokens_is_not_there_as_at_openrouter(api: httpx.Client, body: Body) -> None:
    assert api.post("/messages/count_tokens", json=body()).status_code == 404


def test_openrouter_metadata_comes_when_asked_for(api: httpx.Client, body: Body) -> None:
    asked = api.post("/messages", json=body(), headers={"X-OpenRouter-Metadata": "enabled"}).json()

    assert asked["openrouter_metadata"]["requested"] == MODEL
    assert "openrouter_metadata" not in api.post("/messages", json=body()).json()


# -- With Anthropic's SDK --------------------------------------------------------------------------------------------


@pytest.fixture
def sdk(sandbox: SandboxFixture) -> Iterator[anthropic.Anthropic]:
    key = sandbox.add_key("sk-or-v1-test-sdk", name="sdk")
    with anthropic.Anthropic(base_url=sandbox.anthropic_url, auth_token=key, max_retries=0) as client:
        yield client


def test_the_sdk_reads_a_message(sdk: anthropic.Anthropic) -> None:
    message = sdk.messages.create(model=MODEL, max_tokens=100, messages=[{"role": "user", "content": "hi"}])

    assert message.content[0].type == "text"
    assert message.content[0].text.endswith("You said: hi")
    assert message.usage.output_tokens > 0


def test_the_sdk_reads_a_stream_to_its_end(sdk: anthropic.Anthropic, sandbox: SandboxFixture) -> None:
    sandbox.behave(omit=("done",))

    with sdk.messages.stream(model=MODEL, max_tokens=100, messages=[{"role": "user", "content": "hi"}]) as stream:
        message = stream.get_final_message()

    assert message.content[0].type == "text"
    assert message.content[0].text.endswith("You said: hi")
    assert message.stop_reason == "end_turn"


def test_the_sdk_reads_thinking_and_a_tool_call(sdk: anthropic.Anthropic, sandbox: SandboxFixture) -> None:
    sandbox.behave(omit=("done",))

    with sdk.messages.stream(
        model=MODEL,
        max_tokens=2000,
        messages=[{"role": "user", "content": "hi"}],
        thinking={"type": "enabled", "budget_tokens": 1024},
        tools=[TOOL],  # type: ignore[list-item]  # a plain dict will do
        tool_choice={"type": "any"},
    ) as stream:
        message = stream.get_final_message()

    thought, call = message.content
    assert thought.type == "thinking"
    assert thought.signature
    assert call.type == "tool_use"
    assert call.input == {"city": "sandbox", "days": 1, "sure": True}


def test_done_crashes_the_sdk_as_openrouters_does(sdk: anthropic.Anthropic) -> None:
    with (
        pytest.raises(json.JSONDecodeError),
        sdk.messages.stream(model=MODEL, max_tokens=100, messages=[{"role": "user", "content": "hi"}]) as stream,
    ):
        stream.get_final_message()
