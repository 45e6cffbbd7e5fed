"""The official OpenAI SDK against `/v1/chat/completions` and `/v1/models`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.acceptance.clients.conftest import Target
from tests.acceptance.service import wait_until

PATH = "/chat/completions"
MODEL = "openai/gpt-4o-mini"
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CLIENT = ("openai (Python)", openai.__version__)
sent: list[Any] = []


def new_client(target: Target, **options: Any) -> openai.OpenAI:
    http_client = openai.DefaultHttpxClient(event_hooks={"request": [sent.append]}, trust_env=False)
    fields = {"base_url": f"{target.url}/v1", "api_key": target.client_key, "max_retries": 0, **options}
    return openai.OpenAI(**fields, http_client=http_client)


@pytest.fixture
def client(target: Target) -> Iterator[openai.OpenAI]:
    sent.clear()
    with new_client(target) as client:
        yield client


def ask(text: str = "Hello", model: str = MODEL, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def test_a_completion(client: openai.OpenAI, target: Target) -> None:
    done = client.chat.completions.create(**ask("Grüße 🦀"))
    assert done.choices[0].message.content.endswith("Grüße 🦀")
    assert (done.model, done.choices[0].finish_reason) == (MODEL, "stop")
    cost_nano = round(done.usage.model_extra["cost"] * 1e9)
    row = target.service.log("request.settled")[-1]
    assert (row["cost_nano"], cost_nano > 0) == (cost_nano, True)


def test_a_stream(client: openai.OpenAI, target: Target) -> None:
    chunks = list(client.chat.completions.create(**ask("Grüße 🦀"), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).endswith("Grüße 🦀")
    assert {chunk.model for chunk in chunks} == {MODEL}
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert target.service.log("request.settled")[-1]["cost_nano"] == round(chunks[-1].usage.model_extra["cost"] * 1e9)


def test_a_stream_and_its_final_completion(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**ask()) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        done = stream.get_final_completion()
    assert done.choices[0].message.content == text


def test_async(target: Target) -> None:
    async def asked() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{target.url}/v1", api_key=target.client_key) as client:
            return await asyncio.gather(*(client.chat.completions.create(**ask(str(n))) for n in range(5)))

    answers = asyncio.run(asked())
    assert [answer.choices[0].message.content[-1] for answer in answers] == list("01234")


def test_tools(client: openai.OpenAI, target: Target) -> None:
    call = client.chat.completions.create(**ask(), tools=[TOOL], tool_choice="required")
    (use,) = call.choices[0].message.tool_calls
    assert (use.function.name, json.loads(use.function.arguments)) == ("look_up", {"city": "sandbox"})
    with client.chat.completions.stream(**ask(), tools=[TOOL], tool_choice="required") as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.tool_calls[0].function.arguments == use.function.arguments
    turns = [
        *ask()["messages"],
        {"role": "assistant", "content": None, "tool_calls": [use.model_dump(exclude_none=True)]},
        {"role": "tool", "tool_call_id": use.id, "content": "21 degrees"},
    ]
    client.chat.completions.create(model=MODEL, messages=turns, tools=[TOOL])
    assert target.upstream.requests(PATH)[-1].body["messages"] == turns


def test_images(client: openai.OpenAI, target: Target) -> None:
    content = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert target.upstream.requests(PATH)[-1].body["messages"][0]["content"] == content


def test_stop_and_limits(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(**ask(), max_completion_tokens=3).choices[0].finish_reason == "length"
    stopped = client.chat.completions.create(**ask(), stop=["Sandbox"])
    assert stopped.choices[0].message.content == "This is the OpenSVM "


def test_models(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert listed["anthropic/claude-opus-4.5"].owned_by == "anthropic"
    assert len(listed) > 20
    assert client.models.retrieve("anthropic/claude-opus-4.5").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody/has-this")


ERRORS: dict[str, tuple[type[openai.APIStatusError], int, str | None, int, str]] = {
    "context_length": (openai.BadRequestError, 400, "context_length_exceeded", 1, "prompt is too long"),
    "moderation": (openai.PermissionDeniedError, 403, None, 1, "moderation"),
    "no_endpoints": (openai.NotFoundError, 404, "not_found", 1, "No endpoints found"),
    "conflict": (openai.ConflictError, 409, "conflict", 2, "conflicts with another"),
    "too_large": (openai.APIStatusError, 413, "request_too_large", 1, "too large"),
    "unprocessable": (openai.BadRequestError, 400, None, 1, "processed"),
    "capacity": (openai.RateLimitError, 429, "rate_limit_exceeded", 2, "No capacity"),
    "server_error": (openai.InternalServerError, 500, None, 2, "Internal Server Error"),
    "unavailable": (openai.InternalServerError, 503, "overloaded", 2, "unavailable"),
    "gateway_timeout": (openai.InternalServerError, 504, "timeout", 1, "may have been billed"),
    "overloaded": (openai.InternalServerError, 529, "overloaded", 2, "overloaded"),
    "cannot_afford": (openai.InternalServerError, 529, "overloaded", 1, "smaller max_tokens"),
}


@pytest.mark.parametrize("failure", ERRORS)
def test_errors_and_their_retries(client: openai.OpenAI, target: Target, failure: str) -> None:
    kind, status, code, requests, words = ERRORS[failure]
    before = target.arrived()
    with pytest.raises(kind) as caught:
        client.with_options(max_retries=1).chat.completions.create(**ask(model=f"fail/{failure}"))
    error = caught.value
    assert (error.status_code, error.code) == (status, code)
    assert words in error.message
    assert type(error) is kind
    assert error.response.headers["request-id"] == error.response.json()["request_id"]
    assert len(sent) == requests
    target.check_arrivals({f"fail/{failure}": requests}, since=before)


def test_a_wrong_key(target: Target) -> None:
    before = target.arrived()
    with pytest.raises(openai.AuthenticationError) as caught:
        new_client(target, api_key="not-a-key", max_retries=2).chat.completions.create(**ask())
    assert caught.value.code == "invalid_api_key"
    target.check_arrivals({"refused": 1}, since=before)


def test_an_error_as_the_first_chunk(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**ask(model="anthropic/claude-sonnet-4"), stream=True)
    assert caught.value.status_code == 502


def test_an_error_in_mid_stream(client: openai.OpenAI, target: Target) -> None:
    before, chunks = target.arrived(), []
    with pytest.raises(openai.APIError, match="disconnected"):
        chunks.extend(client.chat.completions.create(**ask(model="anthropic/claude-3.7-sonnet"), stream=True))
    target.check_arrivals({"anthropic/claude-3.7-sonnet": 1}, since=before)


def test_a_cut_stream_is_an_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="closed the connection before the answer was complete"):
        list(client.chat.completions.create(**ask(model="anthropic/claude-3-opus"), stream=True))


def test_leaving_in_mid_stream(client: openai.OpenAI, target: Target) -> None:
    with client.chat.completions.create(**ask(model="anthropic/claude-3-haiku"), stream=True) as stream:
        next(iter(stream))
    wait_until(lambda: target.upstream.requests(PATH)[-1].left_at is not None)


def test_a_timeout(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=httpx.Timeout(0.3)).chat.completions.create(
            **ask(model="anthropic/claude-opus-4.1")
        )
