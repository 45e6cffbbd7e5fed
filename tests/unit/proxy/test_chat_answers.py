"""What is read from chat completions, and the shape of their errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy import chat_errors
from proxy.answers import UnreadableAnswer, Usage
from proxy.chat_answers import ChatUsageReader, read_chat_answer
from proxy.error_table import STATUSES


def body(**fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    return json.dumps({"id": "gen-1", "model": "m", "choices": [choice], **fields}).encode()


def usage(**fields: Any) -> dict[str, Any]:
    return {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107, "cost": 0.25, **fields}


def test_an_answer_is_read() -> None:
    answer = read_chat_answer(body(usage=usage()))
    assert (answer.id, answer.model, answer.stop_reason, answer.is_message, answer.error) == (
        *("gen-1", "m", "stop", True),
        None,
    )
    assert answer.usage == Usage(input_tokens=100, output_tokens=7, cost_nano=250_000_000)


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"cached_tokens": 60}, (40, 60, 0)),
        ({"cached_tokens": 60, "cache_write_tokens": 30}, (10, 60, 30)),
        ({"cached_tokens": 200}, (0, 200, 0)),
        ({"cached_tokens": None, "cache_write_tokens": "many"}, (100, 0, 0)),
        ("not a mapping", (100, 0, 0)),
        (None, (100, 0, 0)),
    ],
)
def test_the_prompt_is_told_without_its_cache_reads_and_writes(details: Any, expected: tuple[int, ...]) -> None:
    found = read_chat_answer(body(usage=usage(prompt_tokens_details=details))).usage
    assert (found.input_tokens, found.cache_read_tokens, found.cache_write_tokens) == expected


@pytest.mark.parametrize("raw", [b"", b"[]", b"nope", b'"text"'])
def test_what_is_no_object_is_unreadable(raw: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        read_chat_answer(raw)


ERRORS: dict[str, dict[str, Any]] = {
    "at the top": {"error": {"code": 502, "message": "x"}},
    "as a text": {"error": "x"},
    "in a choice": {"choices": [{"error": {"code": 502, "message": "x"}}]},
    "as a finish": {"choices": [{"finish_reason": "error"}]},
}


@pytest.mark.parametrize("fields", ERRORS.values(), ids=ERRORS)
def test_an_error_with_status_200_is_seen(fields: dict[str, Any]) -> None:
    assert read_chat_answer(body(**fields)).error is not None


@pytest.mark.parametrize("choices", [None, {}, "x", 7])
def test_without_choices_it_is_no_answer(choices: Any) -> None:
    assert not read_chat_answer(body(choices=choices)).is_message


def test_chunks_are_folded_and_null_is_no_value() -> None:
    reader = ChatUsageReader()
    reader.fold({"id": "gen-1", "model": "m", "choices": [{"delta": {}, "finish_reason": None}], "usage": None})
    assert (reader.id, reader.finish_reason) == ("gen-1", "")
    reader.fold({"id": None, "choices": [7, {"finish_reason": "stop"}]})
    reader.fold({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    assert (reader.id, reader.finish_reason) == ("gen-1", "stop")
    assert reader.usage == Usage(input_tokens=3, output_tokens=2)


@pytest.mark.parametrize("error_type", STATUSES)
def test_each_error_type_has_openais_shape(error_type: str) -> None:
    document = json.loads(chat_errors.error_body(error_type, "words", "req_1"))
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert (document["error"]["message"], document["request_id"]) == ("words", "req_1")
    assert document["error"]["type"] != "invalid_request_error" or STATUSES[error_type] < 500


@pytest.mark.parametrize(
    "message",
    ["prompt is too long: 9 tokens > 8 maximum", "This model's maximum context length is 8", "context_length_exceeded"],
)
def test_a_prompt_that_is_too_long_has_openais_code(message: str) -> None:
    document = json.loads(chat_errors.error_body("invalid_request_error", message, "req_1"))
    assert document["error"]["code"] == "context_length_exceeded"


def test_the_error_of_a_stream_is_one_ascii_line_without_a_done() -> None:
    event = chat_errors.error_event("api_error", "a\u2028b\nc\ud800", "req_1")
    assert event.isascii()
    assert event.count(b"\n") == 2
    assert b"[DONE]" not in event
    assert json.loads(event.removeprefix(b"data: "))["error"]["message"] == "a\u2028b\nc?"
