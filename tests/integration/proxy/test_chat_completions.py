"""POST /v1/chat/completions from end to end: the same pool, ledger, failover and held bytes, in OpenAI's shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keys.models import CostSource, InFlight, RequestLog
from tests.data_plane import DataPlane, OpenCall, Reply

PATH = "/chat/completions"
MODEL = "openai/gpt-4o-mini"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


def post(plane: DataPlane, body: Any = None, **options: Any) -> Reply:
    return plane.post(body or ASK, path=f"/v1{PATH}", **options)


def stream(plane: DataPlane, **options: Any) -> Reply:
    return post(plane, stream=True, **options)


def begin(plane: DataPlane, **options: Any) -> OpenCall:
    return plane.open(ASK, path=f"/v1{PATH}", stream=True, **options)


def chunks(reply: Reply) -> list[dict[str, Any]]:
    """The data of a stream, without `[DONE]`."""
    lines = [line.removeprefix("data: ") for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_of(found: list[dict[str, Any]]) -> str:
    deltas = [choice["delta"] for chunk in found for choice in chunk.get("choices", [])]
    return "".join(delta.get("content") or "" for delta in deltas)


def has_ended_well(reply: Reply) -> bool:
    return b"[DONE]" in reply.body or any(c["finish_reason"] for chunk in chunks(reply) for c in chunk["choices"])


# -- Answers ---------------------------------------------------------------------------------------------------------
def test_a_json_answer_is_relayed_and_settled(plane: DataPlane) -> None:
    plane.add_key("alpha")
    reply = post(plane)
    document = reply.json()
    assert (reply.status, document["object"]) == (200, "chat.completion")
    assert document["choices"][0]["message"]["content"].endswith("Hello")
    row = plane.only_row()
    (billed,) = plane.sandbox.ledger()
    assert (row.cost_nano, row.cost_source) == (billed.cost_nano, CostSource.REPORTED)
    assert (row.input_tokens, row.output_tokens) == (billed.usage.input, billed.usage.output)
    assert row.request_id == reply.headers["request-id"]
    assert row.generation_id == billed.id
    assert (row.status, row.stream, row.model_asked) == (200, False, MODEL)
    assert not InFlight.objects.exists()


def test_a_stream_is_relayed_and_settled(plane: DataPlane) -> None:
    plane.add_key("alpha")
    reply = stream(plane)
    found = chunks(reply)
    assert text_of(found).endswith("Hello")
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert found[-1]["usage"]["cost"] > 0
    row = plane.only_row()
    (billed,) = plane.sandbox.ledger()
    assert (row.cost_nano, row.cost_source, row.stream) == (billed.cost_nano, CostSource.REPORTED, True)
    assert (row.output_tokens, row.generation_id) == (billed.usage.output, billed.id)
    assert row.first_token_ms is not None


def test_a_stream_is_byte_for_byte_upstreams_but_for_the_model(plane: DataPlane) -> None:
    plane.add_key("alpha")
    events = [
        b": OPENROUTER PROCESSING\n\n",
        b'data: {"id":"gen-1","model":"up/stream","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n',
        'data: {"id": "g", "model" : "up/stream", "choices": [{"delta": {"content": "ü\\"model\\""}}]}\n\n'.encode(),
        b'data: {"id":"gen-1","choices":[{"delta":{},"finish_reason":"stop"}],"model":"up/stream"}\r\n\r\n',
        b'data: {"id":"gen-1","model":"up/stream","choices":[],"usage":{"prompt_tokens":1,"cost":0.5}}\n\n',
        b"data: [DONE]\n\n",
    ]
    raw = b"".join(events)
    headers = {"content-type": "text/event-stream"}
    plane.sandbox.behave(body=raw.decode(), headers=headers, slice_bytes=7, path=PATH)
    assert stream(plane).body == raw.replace(b'"up/stream"', f'"{MODEL}"'.encode())
    assert plane.only_row().cost_nano == 500_000_000


def test_an_alias_is_sent_up_and_the_clients_name_comes_back(plane: DataPlane) -> None:
    plane.add_key("alpha")
    asked = "claude-3-sonnet-20240229"
    assert post(plane, model=asked).json()["model"] == asked
    assert {chunk["model"] for chunk in chunks(stream(plane, model=asked))} == {asked}
    assert {request.body["model"] for request in plane.sandbox.requests(PATH)} == {"anthropic/claude-3.5-sonnet"}


def test_fields_go_up_as_they_came(plane: DataPlane) -> None:
    plane.add_key("alpha")
    fields = {"max_completion_tokens": 50, "stop": ["x"], "new_field": {"a": [1, 2.5, None]}, "stream": None}
    post(plane, **fields)
    (request,) = plane.sandbox.requests(PATH)
    assert request.body == {**ASK, **fields}
    assert "anthropic-version" not in request.headers


def test_cache_reads_and_writes_are_counted_apart(plane: DataPlane) -> None:
    plane.add_key("alpha")
    details = {"cached_tokens": 30, "cache_write_tokens": 20}
    plane.sandbox.behave(usage={"prompt_tokens": 100, "prompt_tokens_details": details}, path=PATH)
    post(plane)
    row = plane.only_row()
    assert (row.input_tokens, row.cache_read_tokens, row.cache_write_tokens) == (50, 30, 20)


@pytest.mark.parametrize("is_stream", [False, True], ids=["JSON", "stream"])
def test_without_a_cost_it_is_unknown(plane: DataPlane, is_stream: bool) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(usage={"cost": None}, path=PATH)
    post(plane, stream=is_stream)
    row = plane.only_row()
    assert (row.cost_nano, row.cost_source) == (None, CostSource.UNKNOWN)


def test_a_done_that_never_comes_is_made_up_for(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(omit=("done",), path=PATH)
    reply = stream(plane)
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert plane.only_row().cost_source == CostSource.REPORTED


@pytest.mark.plane(ping_seconds=0.05)
def test_silence_brings_comments_which_clients_skip(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(delay_between=0.2, deltas=2, omit=("comment",), path=PATH)
    reply = stream(plane)
    assert reply.body.count(b": ping\n\n") >= 2
    assert b"event: ping" not in reply.body
    assert text_of(chunks(reply)).endswith("Hello")


# -- The ledger comes first ------------------------------------------------------------------------------------------
def test_what_finishes_a_stream_waits_for_the_ledger(plane: DataPlane) -> None:
    """A reader that sees the finish, or the `[DONE]`, finds the row."""
    plane.add_key("alpha")
    plane.sandbox.behave(delay_between=0.05, deltas=2, path=PATH)
    call = begin(plane)
    call.wait_for_bytes(b'"finish_reason":"stop"')
    assert RequestLog.objects.count() == 1
    assert call.reply().body.endswith(b"data: [DONE]\n\n")


def test_the_text_does_not_wait(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(cut_after_events=4, cut="stall", path=PATH)
    call = begin(plane)
    call.wait_for_bytes(b"OpenSVM")
    assert not RequestLog.objects.exists()
    call.leave()
    assert plane.only_row().status == 499


def two_choices() -> bytes:
    """The first ends long before the second."""

    def chunk(index: int, content: str, finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": {"content": content}, "finish_reason": finish}
        return f"data: {json.dumps({'id': 'gen-1', 'model': MODEL, 'choices': [choice]})}\n\n".encode()

    bill = b'data: {"id":"gen-1","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":4,"cost":0.5}}\n\n'
    first = [chunk(0, "one"), chunk(1, "two"), chunk(0, "", "stop"), chunk(1, "later")]
    return b"".join([*first, chunk(1, "", "stop"), bill, b"data: [DONE]\n\n"])


def test_of_several_choices_only_the_end_of_the_last_waits_for_the_ledger(plane: DataPlane) -> None:
    plane.add_key("alpha")
    raw, headers = two_choices(), {"content-type": "text/event-stream"}
    plane.sandbox.behave(body=raw.decode(), headers=headers, cut_after_events=4, cut="stall", path=PATH, times=1)
    call = begin(plane, n=2)
    call.wait_for_bytes(b'"later"')
    assert not RequestLog.objects.exists()
    call.leave()
    plane.sandbox.behave(body=raw.decode(), headers=headers, path=PATH)
    assert stream(plane, n=2).body == raw
    assert RequestLog.objects.get(status=200).cost_nano == 500_000_000


# -- Failures --------------------------------------------------------------------------------------------------------
FAILS_OVER = ["refused", "rate_limited", "out_of_credit", "key_limit", "cannot_afford", "in_flight_budget"]


@pytest.mark.parametrize("is_stream", [False, True], ids=["JSON", "stream"])
@pytest.mark.parametrize("error", FAILS_OVER)
def test_a_keys_own_trouble_moves_to_the_next_key(plane: DataPlane, error: str, is_stream: bool) -> None:
    plane.add_keys("alpha", "beta")
    plane.sandbox.fail(error, key="alpha", path=PATH)
    reply = post(plane, stream=is_stream)
    assert reply.status == 200
    assert has_ended_well(reply) if is_stream else reply.json()["choices"]
    assert [request.key_name for request in plane.sandbox.requests(PATH)] == ["alpha", "beta"]
    assert plane.only_row().attempts == 2


def test_an_error_as_the_first_chunk_still_allows_another_try(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("error_first_event", times=1, path=PATH)
    reply = stream(plane)
    assert has_ended_well(reply)
    assert len(plane.sandbox.requests(PATH)) == 2


@pytest.mark.parametrize("at", [1, 2, 4])
def test_an_error_in_mid_stream_ends_it_with_an_error(plane: DataPlane, at: int) -> None:
    plane.add_key("alpha")
    plane.sandbox.fail("error_mid_stream", error_after_events=at, path=PATH)
    reply = stream(plane)
    error = chunks(reply)[-1]["error"]
    assert (reply.status, error["type"]) == (200, "server_error")
    assert "Sandbox provider disconnected" in error["message"]
    assert b"[DONE]" not in reply.body
    assert plane.only_row().error_type == "api_error"


@pytest.mark.parametrize("cut", ["close", "reset", "stall"])
@pytest.mark.plane(silence_seconds=0.3)
def test_a_cut_stream_never_looks_finished(plane: DataPlane, cut: Any) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(cut_after_events=3, cut=cut, path=PATH)
    reply = stream(plane)
    assert b"[DONE]" not in reply.body
    assert chunks(reply)[-1]["error"]["code"] == "timeout"
    assert plane.only_row().cost_source == CostSource.UNKNOWN


def test_a_cut_after_the_finish_is_a_whole_answer(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(omit=("usage", "done"), path=PATH)
    reply = stream(plane)
    assert has_ended_well(reply)
    assert plane.only_row().cost_source == CostSource.UNKNOWN


ERRORS: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "no key sent": ({"headers": {"x-api-key": ""}}, 401, "authentication_error", "invalid_api_key"),
    "no JSON": ({"raw": b"nope"}, 400, "invalid_request_error", None),
    "no model": ({"raw": b'{"messages": []}'}, 400, "invalid_request_error", None),
    "a wrong method": ({"method": "PUT"}, 405, "invalid_request_error", None),
    "stream a number": ({"stream": 1}, 400, "invalid_request_error", None),
}


@pytest.mark.parametrize(("options", "status", "kind", "code"), ERRORS.values(), ids=ERRORS)
def test_our_own_refusals_have_openais_shape(
    plane: DataPlane, options: dict[str, Any], status: int, kind: str, code: str | None
) -> None:
    reply = post(plane, **options)
    document = reply.json()
    assert (reply.status, document["error"]["type"], document["error"]["code"]) == (status, kind, code)
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert document["request_id"] == reply.headers["request-id"]


UPSTREAM_ERRORS: dict[str, tuple[int, str, str | None, str]] = {
    "context_length": (400, "invalid_request_error", "context_length_exceeded", "prompt is too long"),
    "moderation": (403, "permission_error", None, "requires moderation"),
    "no_endpoints": (404, "invalid_request_error", "not_found", "No endpoints found"),
    "refused": (529, "server_error", "overloaded", "All keys exhausted"),
    "rate_limited": (429, "rate_limit_error", "rate_limit_exceeded", "All keys exhausted"),
    "html_524": (504, "server_error", "timeout", "did not answer in time"),
}


@pytest.mark.parametrize("name", UPSTREAM_ERRORS)
def test_upstreams_errors_have_openais_shape(plane: DataPlane, name: str) -> None:
    status, kind, code, words = UPSTREAM_ERRORS[name]
    plane.add_key("alpha")
    plane.sandbox.fail(name, path=PATH)
    reply = post(plane)
    error = reply.json()["error"]
    assert (reply.status, error["type"], error["code"]) == (status, kind, code)
    assert words in error["message"]
    assert plane.only_row().status == status


def test_an_empty_pool_is_a_529(plane: DataPlane) -> None:
    reply = post(plane)
    assert (reply.status, reply.json()["error"]["code"]) == (529, "overloaded")
    assert int(reply.headers["retry-after"]) == 60


def test_a_client_that_leaves_closes_upstream(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(delay_between=0.05, deltas=100, path=PATH)
    call = begin(plane)
    call.wait_for_bytes(b'"delta"')
    call.leave()
    assert plane.only_row().status == 499
    plane.sandbox.wait_until(lambda s: s.requests(PATH)[0].left_at is not None)
