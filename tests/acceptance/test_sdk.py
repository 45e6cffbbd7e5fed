"""The official `anthropic` SDK, sync and async, and the guide's own curl, against a real `serve --sandbox`."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from keys.client_keys import new_client_key
from opensvm.sandbox.remote import Controls
from opensvm.serve.sandbox import PORT_FILE
from tests.acceptance.service import Service, wait_until

# The guide's model names are kept, although the SDK says that Anthropic itself has retired them.
pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")

GUIDE_MODEL = "claude-3-sonnet-20240229"
ASKED: dict[str, Any] = {
    "model": GUIDE_MODEL,
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Grüße 🦀, can you confirm you are working through OpenRouter?"}],
}
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}
QUICK = {"OPENROUTER_RETRY_DELAY": "10", "OPENSVM_TIME_SCALE": "0.02"}
THINKING = {"type": "enabled", "budget_tokens": 1024}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service.sandbox(tmp_path_factory.mktemp("sdk"), QUICK, "--role", "web") as service:
        yield service


@pytest.fixture
def upstream(service: Service) -> Controls:
    """Without rules and requests of the tests before."""
    controls = Controls(f"http://127.0.0.1:{(service.var_dir / PORT_FILE).read_text().strip()}")
    controls.reset()
    return controls


@pytest.fixture
def client(service: Service, upstream: Controls) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=service.url, api_key=service.client_key(), max_retries=0) as client:
        yield client


# -- Messages --------------------------------------------------------------------------------------------------------
def test_a_message(client: anthropic.Anthropic, upstream: Controls) -> None:
    message = client.messages.create(**ASKED)
    assert message.content[0].type == "text"
    assert "Grüße 🦀" in message.content[0].text
    assert (message.model, message.stop_reason) == (GUIDE_MODEL, "end_turn")
    assert upstream.requests()[0].body["model"] == "anthropic/claude-3.5-sonnet"


def test_a_stream_is_read_to_its_end(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**ASKED) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert "Grüße 🦀" in text
    assert message.content[0].type == "text"
    assert message.content[0].text == text
    assert (message.model, message.stop_reason) == (GUIDE_MODEL, "end_turn")
    assert message.usage.output_tokens > 0
    assert stream.response.headers["request-id"].startswith("req_")


def test_a_stream_event_by_event(client: anthropic.Anthropic) -> None:
    kinds = [event.type for event in client.messages.create(**ASKED, stream=True)]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]


def test_an_async_stream_is_read_to_its_end(service: Service, upstream: Controls) -> None:
    async def read() -> tuple[str, str | None]:
        async with anthropic.AsyncAnthropic(base_url=service.url, auth_token=service.client_key()) as client:
            async with client.messages.stream(**ASKED) as stream:
                text = "".join([piece async for piece in stream.text_stream])
            return text, (await client.messages.create(**ASKED)).stop_reason

    text, stop_reason = asyncio.run(read())
    assert "Grüße 🦀" in text
    assert stop_reason == "end_turn"


def test_many_async_streams_at_once(service: Service, upstream: Controls) -> None:
    upstream.behave(deltas=20, delay_between=0.005)

    async def read_all() -> list[str | None]:
        async with anthropic.AsyncAnthropic(base_url=service.url, api_key=service.client_key()) as client:
            return await asyncio.gather(*(read_one(client) for _ in range(20)))

    async def read_one(client: anthropic.AsyncAnthropic) -> str | None:
        async with client.messages.stream(**ASKED) as stream:
            return (await stream.get_final_message()).stop_reason

    assert asyncio.run(read_all()) == ["end_turn"] * 20


def test_a_slow_stream_with_pings_and_comments(client: anthropic.Anthropic, upstream: Controls) -> None:
    """Before the first event, after 0.6 s, and between events, every 0.15 s."""
    upstream.behave(delay_first_event=0.8, comment_seconds=0.2, deltas=2, text="Hi", delay_between=0.25)
    with client.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream) == "Hi"


@pytest.mark.parametrize("streamed", [False, True], ids=["JSON", "stream"])
def test_a_tool_call(client: anthropic.Anthropic, streamed: bool) -> None:
    asked: Any = {**ASKED, "tools": [TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}}
    message = _ask(client, asked, streamed)
    (block,) = message.content
    assert block.type == "tool_use"
    assert (block.name, block.input) == ("get_weather", {"city": "sandbox", "days": 1})
    assert message.stop_reason == "tool_use"


def test_a_tool_result_goes_back(client: anthropic.Anthropic) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Bern"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "sunny"}]}
    turns = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    asked: Any = {**ASKED, "tools": [TOOL], "messages": [*ASKED["messages"], *turns]}
    message = _ask(client, asked, streamed=True)
    assert "sunny" in message.content[0].text


@pytest.mark.parametrize("streamed", [False, True], ids=["JSON", "stream"])
def test_thinking(client: anthropic.Anthropic, streamed: bool) -> None:
    message = _ask(client, {**ASKED, "max_tokens": 2000, "thinking": THINKING}, streamed)
    thought, said = message.content
    assert (thought.type, said.type) == ("thinking", "text")
    assert thought.thinking
    assert thought.signature


def _ask(client: anthropic.Anthropic, asked: Any, streamed: bool) -> Any:
    if not streamed:
        return client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        return stream.get_final_message()


# -- Errors ----------------------------------------------------------------------------------------------------------
ERRORS: dict[str, tuple[dict[str, Any], type[anthropic.APIStatusError], int, str]] = {
    "bad request": ({"error": "bad_request"}, anthropic.BadRequestError, 400, "invalid_request_error"),
    "context length": ({"error": "context_length"}, anthropic.BadRequestError, 400, "invalid_request_error"),
    "moderation": ({"error": "moderation"}, anthropic.PermissionDeniedError, 403, "permission_error"),
    "no endpoints": ({"error": "no_endpoints"}, anthropic.NotFoundError, 404, "not_found_error"),
    "too large": ({"error": "too_large"}, anthropic.RequestTooLargeError, 413, "request_too_large"),
    "server error": ({"error": "server_error"}, anthropic.InternalServerError, 500, "api_error"),
    "overloaded": ({"error": "overloaded"}, anthropic.OverloadedError, 529, "overloaded_error"),
    "timeout": ({"error": "timeout"}, anthropic.DeadlineExceededError, 504, "timeout_error"),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["JSON", "stream"])
@pytest.mark.parametrize(("behaviour", "expected", "status", "kind"), ERRORS.values(), ids=ERRORS)
def test_errors_become_typed_exceptions(
    client: anthropic.Anthropic,
    upstream: Controls,
    behaviour: dict[str, Any],
    expected: type[anthropic.APIStatusError],
    status: int,
    kind: str,
    streamed: bool,
) -> None:
    upstream.behave(**behaviour)
    with pytest.raises(expected) as caught:
        _ask(client, ASKED, streamed)
    body: Any = caught.value.body
    assert (caught.value.status_code, body["error"]["type"]) == (status, kind)
    assert caught.value.request_id == body["request_id"]


@pytest.mark.parametrize(
    "error",
    [{"error": "error_mid_stream"}, {"cut_after_events": 4}, {"cut_after_events": 4, "cut": "reset"}],
    ids=["error", "close", "reset"],
)
def test_a_stream_that_breaks_raises(client: anthropic.Anthropic, upstream: Controls, error: dict[str, Any]) -> None:
    upstream.behave(deltas=10, **error)
    with client.messages.stream(**ASKED) as stream, pytest.raises(anthropic.APIStatusError) as caught:
        stream.until_done()
    body: Any = caught.value.body
    assert body["request_id"] == stream.response.headers["request-id"]


@pytest.mark.parametrize("credential", ["api_key", "auth_token"])
@pytest.mark.parametrize("key", ["not-a-key", new_client_key()], ids=["malformed", "unknown"])
def test_a_401_is_not_tried_again(service: Service, upstream: Controls, credential: str, key: str) -> None:
    before = len(service.log("client.refused"))
    options: dict[str, Any] = {credential: key}
    with (
        anthropic.Anthropic(base_url=service.url, max_retries=5, **options) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(**ASKED)
    wait_until(lambda: len(service.log("client.refused")) > before)  # the line may come after the answer
    assert len(service.log("client.refused")) == before + 1
    assert upstream.requests() == []


def test_a_timeout_is_not_tried_again(service: Service, upstream: Controls) -> None:
    """It may have been billed."""
    upstream.fail("timeout")
    with (
        anthropic.Anthropic(base_url=service.url, api_key=service.client_key(), max_retries=5) as client,
        pytest.raises(anthropic.InternalServerError),
    ):
        client.messages.create(**ASKED)
    assert len(upstream.requests()) == 1


# -- The guide's curl ------------------------------------------------------------------------------------------------
def _curl(service: Service, *options: str, **changes: Any) -> str:
    body = {
        "model": GUIDE_MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hello! Can you confirm you are working through OpenRouter?"}],
        **changes,
    }
    command = [
        *("curl", "--silent", "--show-error", "--no-buffer", "--max-time", "20", *options),
        *("-X", "POST", f"{service.url}/v1/messages"),
        *("-H", "Content-Type: application/json"),
        *("-H", f"Authorization: Bearer {service.client_key()}"),
        *("-H", "anthropic-version: 2023-06-01"),
        *("-d", json.dumps(body)),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def test_the_guides_own_curl_gets_a_message(service: Service, upstream: Controls) -> None:
    message = json.loads(_curl(service))
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", GUIDE_MODEL)
    assert message["content"][0]["text"]


def test_the_guides_curl_gets_a_stream(service: Service, upstream: Controls) -> None:
    answered = _curl(service, stream=True)
    assert "event: message_start\n" in answered
    assert answered.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert "[DONE]" not in answered


def test_a_curl_that_expects_100_continue(service: Service, upstream: Controls) -> None:
    answered = _curl(service, "--include", "-H", "Expect: 100-continue", system="x" * 100_000)
    assert answered.startswith("HTTP/1.1 100 Continue")
    assert '"type":"message"' in answered


def test_the_printed_curl_works_as_it_stands(service: Service, upstream: Controls) -> None:
    printed = service.output().partition("Ready. Try it:\n")[2]
    done = subprocess.run(["sh", "-c", printed], capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout)["type"] == "message"
