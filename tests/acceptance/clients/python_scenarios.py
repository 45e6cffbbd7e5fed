"""What one version of the official Python SDK does against the service. Run with the Python of its own environment:

    python python_scenarios.py SERVICE_URL CLIENT_KEY SANDBOX_URL

Each function `scenario_…` is one; the result is a JSON line with the SDK's version, what went wrong with each, and
how many requests of each model the service must have seen.
Nothing is imported but the SDK and the standard library: this file runs where our own packages are not.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
import traceback
import urllib.request
import uuid
import warnings
from collections import Counter
from typing import Any

import anthropic

URL, KEY, SANDBOX = sys.argv[1:4]
MODEL = "anthropic/claude-opus-4.5"
# From 2.0 on: anthropic-version 2026-10-21, and the key as Authorization: Bearer.
WITH_DATED_API = int(anthropic.__version__.split(".")[0]) >= 2
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
sent: list[Any] = []  # every request that left this process
reached: Counter[str] = Counter()  # by model, of calls that fail: how many requests must have reached the service


def new_client(**options: Any) -> anthropic.Anthropic:
    http_client = anthropic.DefaultHttpxClient(event_hooks={"request": [sent.append]})
    credentials = {} if "auth_token" in options else {"api_key": KEY}
    return anthropic.Anthropic(
        **{"base_url": URL, "http_client": http_client, "max_retries": 0, **credentials, **options}
    )


def ask(text: str, model: str = MODEL, **fields: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": text}], **fields}


def seen(marker: str) -> list[dict[str, Any]]:
    """The requests that upstream received with `marker` in the body."""
    with urllib.request.urlopen(f"{SANDBOX}/sandbox/requests") as answer:
        requests = json.load(answer)["requests"]
    return [request for request in requests if marker in json.dumps(request["body"], ensure_ascii=False)]


def marker() -> str:
    return f"marker-{uuid.uuid4().hex}"


client = new_client()


# -- Messages and streams --------------------------------------------------------------------------------------------
def scenario_messages() -> None:
    message = client.messages.create(**ask("Grüße 🦀"))
    assert message.content[0].text.endswith("Grüße 🦀"), message
    assert (message.model, message.stop_reason, message.type) == (MODEL, "end_turn", "message"), message
    assert message.usage.output_tokens > 0
    assert message._request_id.startswith("req_"), message._request_id


def scenario_a_stream_event_by_event() -> None:
    events = list(client.messages.create(**ask("Grüße 🦀"), stream=True))
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop"), kinds
    assert events[0].message.model == MODEL
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert text.endswith("Grüße 🦀"), text


def scenario_a_stream_and_its_final_message() -> None:
    with client.messages.stream(**ask("Hello")) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == message.content[0].text
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0


def scenario_async() -> None:
    async def both() -> None:
        async with anthropic.AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0) as asking:
            whole, stream = await asyncio.gather(
                asking.messages.create(**ask("one")), asking.messages.create(**ask("two"), stream=True)
            )
            kinds = [event.type async for event in stream]
        assert whole.stop_reason == "end_turn"
        assert kinds[-1] == "message_stop"

    asyncio.run(both())


def scenario_stop_sequences() -> None:
    message = client.messages.create(**ask("Hello"), stop_sequences=["Sandbox"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "Sandbox"), message


def scenario_max_tokens() -> None:
    assert client.messages.create(**{**ask("Hello"), "max_tokens": 3}).stop_reason == "max_tokens"


# -- What is in a message --------------------------------------------------------------------------------------------
def scenario_tools() -> None:
    mark = marker()
    choice = {"type": "tool", "name": "get_weather"}
    call = client.messages.create(**ask(mark), tools=[TOOL], tool_choice=choice)
    assert call.stop_reason == "tool_use", call
    use = call.content[-1]
    assert (use.type, use.name, use.input) == ("tool_use", "get_weather", {"city": "sandbox"}), use
    with client.messages.stream(**ask(mark), tools=[TOOL], tool_choice=choice) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[-1].input == {"city": "sandbox"}, streamed
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "21 degrees"}]}
    turns = [
        {"role": "user", "content": mark},
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in call.content]},
        {"role": "user", "content": [result]},
    ]
    answer = client.messages.create(model=MODEL, max_tokens=100, messages=turns, tools=[TOOL])
    assert answer.content[0].text.endswith("21 degrees"), answer
    assert seen(mark)[-1]["body"]["messages"] == turns


def scenario_images_and_documents() -> None:
    mark = marker()
    content = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PNG}},
        {
            "type": "document",
            "title": "notes",
            "source": {"type": "text", "media_type": "text/plain", "data": "some notes"},
            "citations": {"enabled": True},
        },
        {"type": "text", "text": mark},
    ]
    client.messages.create(model=MODEL, max_tokens=100, messages=[{"role": "user", "content": content}])
    assert seen(mark)[0]["body"]["messages"][0]["content"] == content


def scenario_thinking_and_its_signature() -> None:
    mark = marker()
    options = {**ask(mark), "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    message = client.messages.create(**options)
    thinking = message.content[0]
    assert (thinking.type, bool(thinking.signature)) == ("thinking", True), message
    with client.messages.stream(**options) as stream:
        assert stream.get_final_message().content[0].signature == thinking.signature
    turn = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]}
    turns = [*options["messages"], turn, {"role": "user", "content": "go on"}]
    client.messages.create(**{**options, "messages": turns})
    assert seen(mark)[-1]["body"]["messages"][1]["content"][0]["signature"] == thinking.signature


def scenario_system_and_prompt_caching() -> None:
    mark = marker()
    client.messages.create(**ask(mark), system="Be brief.")
    system = [{"type": "text", "text": f"Know this. {mark} " * 50, "cache_control": {"type": "ephemeral"}}]
    first = client.messages.create(**ask(mark), system=system)
    second = client.messages.create(**ask(mark), system=system)
    assert first.usage.cache_creation_input_tokens > 0, first.usage
    assert second.usage.cache_read_input_tokens == first.usage.cache_creation_input_tokens, second.usage
    assert [request["body"]["system"] for request in seen(mark)] == ["Be brief.", system, system]


def scenario_system_messages_inside_the_conversation() -> None:
    mark = marker()
    turns = [
        {"role": "user", "content": mark},
        {"role": "system", "content": "From now on, be brief."},
        {"role": "user", "content": "go on"},
    ]
    client.messages.create(model=MODEL, max_tokens=100, messages=turns)
    assert seen(mark)[0]["body"]["messages"] == turns


# -- Answered by the service itself ----------------------------------------------------------------------------------
def scenario_count_tokens() -> None:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hello " * 200}]}
    small = client.messages.count_tokens(**asked).input_tokens
    assert 180 <= small <= 260, small
    assert client.messages.count_tokens(**asked, system="Be brief.", tools=[TOOL]).input_tokens > small + 300


def scenario_models_in_pages() -> None:
    paged = [model.id for model in client.models.list(limit=4)]
    whole = [model.id for model in client.models.list(limit=1000)]
    assert paged == whole
    assert "anthropic/claude-opus-4.5" in whole
    assert "claude-3-sonnet-20240229" in whole


def scenario_one_model() -> None:
    for name in ("anthropic/claude-opus-4.5", "claude-opus-4-5-20251101"):
        model = client.models.retrieve(name)
        assert (model.id, model.type, bool(model.display_name), model.created_at.year >= 1970) == (name, "model", 1, 1)
    try:
        client.models.retrieve("nobody/has-this")
    except anthropic.NotFoundError as exc:
        assert exc.request_id.startswith("req_")
    else:
        raise AssertionError("an unknown model was found")


# -- Headers ---------------------------------------------------------------------------------------------------------
def scenario_both_versions() -> None:
    mark = marker()
    client.messages.create(**ask(mark))
    for version in ("2023-06-01", "2026-10-21"):
        client.messages.create(**ask(mark), extra_headers={"anthropic-version": version})
    own = "2026-10-21" if WITH_DATED_API else "2023-06-01"
    assert [one["headers"]["anthropic-version"] for one in seen(mark)] == [own, "2023-06-01", "2026-10-21"]


def scenario_both_credential_headers() -> None:
    start = len(sent)
    client.messages.create(**ask("as the SDK does"))
    new_client(auth_token=KEY, api_key=None).messages.create(**ask("as a token"))
    both = {"x-api-key": KEY, "authorization": f"Bearer {KEY}"}
    client.messages.create(**ask("as both"), extra_headers=both)
    headers = [set(request.headers) & {"x-api-key", "authorization"} for request in sent[start:]]
    own = {"authorization"} if WITH_DATED_API else {"x-api-key"}
    assert headers == [own, {"authorization"}, {"x-api-key", "authorization"}], headers


def scenario_betas_verbatim() -> None:
    mark, start = marker(), len(sent)
    betas = ["interleaved-thinking-2025-05-14", "new-thing-2026-12-01"]
    client.beta.messages.create(**ask(mark), betas=betas)
    client.messages.create(**ask(mark), extra_query={"beta": "true"})
    assert seen(mark)[0]["headers"]["anthropic-beta"] == ",".join(betas)
    assert sent[-1].url.query == b"beta=true", sent[start:]


# -- Ends and errors -------------------------------------------------------------------------------------------------
def scenario_leaving_in_mid_stream() -> None:
    mark = marker()
    with client.messages.create(**ask(mark, model="anthropic/claude-3-haiku"), stream=True) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                break
    for _ in range(100):
        if seen(mark)[0]["left_at"]:
            return
        time.sleep(0.05)
    raise AssertionError("upstream was not left")


def scenario_timeouts() -> None:
    start = len(sent)
    try:
        new_client(timeout=0.3, max_retries=1).messages.create(**ask("slow", model="anthropic/claude-opus-4.1"))
    except anthropic.APITimeoutError:
        assert len(sent) - start == 2, sent[start:]
        reached["anthropic/claude-opus-4.1"] += 2
    else:
        raise AssertionError("it did not time out")


def expect(kind: type, status: int, error_type: str, *, requests: int, words: str, **call: Any) -> None:
    """The typed exception of a call with one retry, and how often it was sent."""
    start = len(sent)
    options = {name: call.pop(name) for name in ("api_key", "auth_token") if name in call}
    try:
        new_client(max_retries=1, **options).messages.create(**call)
    except anthropic.APIStatusError as exc:
        assert type(exc) is kind, (type(exc), exc)
        assert exc.status_code == status, exc
        assert exc.body["error"]["type"] == error_type, exc.body
        assert words in str(exc), exc
        assert exc.request_id == exc.body["request_id"] == exc.response.headers["request-id"]
        assert len(sent) - start == requests, f"{len(sent) - start} requests instead of {requests}"
        reached["refused" if status == 401 else call["model"]] += requests
    else:
        raise AssertionError("it was answered")


def scenario_error_400() -> None:
    call = ask("x", model="fail/context_length")
    words = "prompt is too long: 200001 tokens > 200000 maximum"
    expect(anthropic.BadRequestError, 400, "invalid_request_error", requests=1, words=words, **call)


def scenario_error_401() -> None:
    foreign = {"auth_token": "not-a-key", "api_key": None} if WITH_DATED_API else {"api_key": "not-a-key"}
    words = "client key is not valid"
    expect(
        anthropic.AuthenticationError,
        401,
        "authentication_error",
        requests=1,
        words=words,
        **ask("x"),
        **foreign,
    )


def scenario_error_403() -> None:
    call = ask("x", model="fail/moderation")
    expect(anthropic.PermissionDeniedError, 403, "permission_error", requests=1, words="moderation", **call)


def scenario_error_404() -> None:
    call = ask("x", model="fail/no_endpoints")
    expect(anthropic.NotFoundError, 404, "not_found_error", requests=1, words="No endpoints found", **call)


def scenario_error_409_is_sent_again() -> None:
    call = ask("x", model="fail/conflict")
    expect(anthropic.ConflictError, 409, "conflict_error", requests=2, words="conflicts with another", **call)


def scenario_error_413() -> None:
    kind = anthropic._exceptions.RequestTooLargeError
    call = ask("x", model="fail/too_large")
    expect(kind, 413, "request_too_large", requests=1, words="too large", **call)


def scenario_error_422_is_a_400() -> None:
    call = ask("x", model="fail/unprocessable")
    expect(anthropic.BadRequestError, 400, "invalid_request_error", requests=1, words="processed", **call)


def scenario_error_429_of_a_provider() -> None:
    call = ask("x", model="fail/capacity")
    expect(anthropic.RateLimitError, 429, "rate_limit_error", requests=2, words="No capacity", **call)


def scenario_error_500() -> None:
    call = ask("x", model="fail/server_error")
    expect(anthropic.InternalServerError, 500, "api_error", requests=2, words="Internal Server Error", **call)


def scenario_error_503() -> None:
    kind = anthropic.ServiceUnavailableError if WITH_DATED_API else anthropic.InternalServerError
    call = ask("x", model="fail/unavailable")
    expect(kind, 503, "overloaded_error", requests=2, words="unavailable", **call)


def scenario_error_504_is_not_sent_again() -> None:
    kind = anthropic.DeadlineExceededError if WITH_DATED_API else anthropic.InternalServerError
    call = ask("x", model="fail/gateway_timeout")
    expect(kind, 504, "timeout_error", requests=1, words="may have been billed", **call)


def scenario_error_529() -> None:
    kind = anthropic._exceptions.OverloadedError  # in the package's own namespace only from 1.0 on
    call = ask("x", model="fail/overloaded")
    expect(kind, 529, "overloaded_error", requests=2, words="overloaded", **call)


def scenario_error_529_of_what_no_key_can_pay() -> None:
    """In the place of a 402, which the service never answers."""
    kind = anthropic._exceptions.OverloadedError
    call = ask("x", model="fail/cannot_afford")
    expect(kind, 529, "overloaded_error", requests=1, words="smaller max_tokens", **call)


def scenario_an_error_as_the_first_event() -> None:
    """Before the first byte it is an HTTP error, so the SDK may try again."""
    start = len(sent)
    try:
        list(new_client(max_retries=1).messages.create(**ask("x", model="anthropic/claude-sonnet-4"), stream=True))
    except anthropic.InternalServerError as exc:
        assert (exc.status_code, exc.body["error"]["type"]) == (502, "api_error"), exc
        assert len(sent) - start == 2
        reached["anthropic/claude-sonnet-4"] += 2
    else:
        raise AssertionError("it was answered")


def scenario_an_error_in_mid_stream() -> None:
    """It can't be taken back: an exception with status 200, and no second request."""
    start = len(sent)
    kinds: list[str] = []
    try:
        for event in new_client(max_retries=1).messages.create(
            **ask("x", model="anthropic/claude-3.7-sonnet"), stream=True
        ):
            kinds.append(event.type)
    except anthropic.APIStatusError as exc:
        assert exc.status_code == 200, exc
        assert exc.body["error"]["type"] == "api_error", exc.body
        assert kinds[0] == "message_start"
        assert "message_stop" not in kinds
        assert len(sent) - start == 1
        reached["anthropic/claude-3.7-sonnet"] += 1
    else:
        raise AssertionError(f"no error: {kinds}")


def scenario_a_cut_stream_is_an_error() -> None:
    try:
        with client.messages.stream(**ask("x", model="anthropic/claude-3-opus")) as stream:
            stream.get_final_message()
    except anthropic.APIStatusError as exc:
        assert exc.body["error"]["type"] == "timeout_error", exc.body
    else:
        raise AssertionError("the cut stream looked whole")


def scenario_a_service_that_is_away() -> None:
    start = len(sent)
    try:
        new_client(base_url="http://127.0.0.1:9", max_retries=1).messages.create(**ask("x"))
    except anthropic.APIConnectionError:
        assert len(sent) - start == 2
    else:
        raise AssertionError("nobody answered, and yet")


def run(scenario: Any) -> dict[str, Any]:
    started = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scenario()
        problem = ""
    except Exception:
        problem = traceback.format_exc(limit=-3)
    return {"problem": problem, "seconds": round(time.monotonic() - started, 2)}


if __name__ == "__main__":
    names = [name for name in globals() if name.startswith("scenario_")]
    results = {name.removeprefix("scenario_"): run(globals()[name]) for name in names}
    print(json.dumps({"version": anthropic.__version__, "results": results, "reached": reached}))
