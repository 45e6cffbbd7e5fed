"""`POST /chat/completions` of the sandbox, as OpenAI's own client reads it."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from tests.sandbox import SandboxFixture

PATH = "/chat/completions"
MODEL = "openai/gpt-4o-mini"
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
def client(sandbox: SandboxFixture) -> openai.OpenAI:
    return openai.OpenAI(base_url=sandbox.base_url, api_key=sandbox.add_key(name="alpha"), max_retries=0)


def say(text: str = "Hello") -> list[dict[str, str]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


def test_a_completion_is_billed(sandbox: SandboxFixture, client: openai.OpenAI) -> None:
    done = client.chat.completions.create(model=MODEL, messages=say())
    assert done.choices[0].message.content.endswith("You said: Hello")
    assert done.choices[0].finish_reason == "stop"
    (billed,) = sandbox.ledger()
    assert (billed.id, billed.usage.output) == (done.id, done.usage.completion_tokens)
    assert round(done.usage.model_extra["cost"] * 1e9) == billed.cost_nano


def test_a_stream_carries_the_bill_in_its_last_chunk(sandbox: SandboxFixture, client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=say(), stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).endswith("Hello")
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert round(chunks[-1].usage.model_extra["cost"] * 1e9) == sandbox.billed_nano()


@pytest.mark.parametrize("stream", [False, True])
def test_a_demanded_tool_is_called(client: openai.OpenAI, stream: bool) -> None:
    asked = {"model": MODEL, "messages": say(), "tools": [TOOL], "tool_choice": "required"}
    if stream:
        with client.chat.completions.stream(**asked) as events:
            done = events.get_final_completion()
    else:
        done = client.chat.completions.create(**asked)
    (call,) = done.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("look_up", {"city": "sandbox"})
    assert done.choices[0].finish_reason == "tool_calls"


def test_the_limit_and_the_stop_are_kept(client: openai.OpenAI) -> None:
    short = client.chat.completions.create(model=MODEL, messages=say(), max_completion_tokens=3)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    stopped = client.chat.completions.create(model=MODEL, messages=say(), stop="Sandbox")
    assert stopped.choices[0].message.content == "This is the OpenSVM "


@pytest.mark.parametrize("name", ["context_length", "rate_limited", "provider_busy", "key_limit", "moderation"])
def test_every_error_comes_in_shape_b(sandbox: SandboxFixture, client: openai.OpenAI, name: str) -> None:
    sandbox.fail(name, path=PATH)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=MODEL, messages=say())
    assert set(caught.value.response.json()) == {"error", "user_id"}
    assert caught.value.body["code"] == caught.value.status_code


@pytest.mark.parametrize("name", ["error_first_event", "error_mid_stream"])
def test_an_error_in_a_stream_is_raised_by_the_client(
    sandbox: SandboxFixture, client: openai.OpenAI, name: str
) -> None:
    sandbox.fail(name, path=PATH)
    with pytest.raises(openai.APIError, match="disconnected"):
        list(client.chat.completions.create(model=MODEL, messages=say(), stream=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": []}, "messages: Input should be a non-empty array"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"model": ""}, "model: Field required"),
    ],
)
def test_a_bad_body_is_refused(sandbox: SandboxFixture, change: dict[str, object], words: str) -> None:
    secret = sandbox.add_key(name="alpha")
    body = {"model": MODEL, "messages": say(), **change}
    reply = httpx.post(f"{sandbox.base_url}{PATH}", json=body, headers={"authorization": f"Bearer {secret}"})
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]
