"""Reads from a chat completion what the ledger needs: as `proxy.answers` does for messages, in OpenAI's fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.answers import Answer, Usage, cost_in_nano, load_answer, mapping_of, name_of, tokens_of


@dataclass(slots=True)
class ChatUsageReader:
    """Folds a stream's chunks. `finish_reason` is set from the chunk on that finishes the answer."""

    id: str = ""
    model: str = ""
    finish_reason: str = ""
    usage: Usage = field(default_factory=Usage)

    def fold(self, payload: Mapping[str, Any]) -> None:
        self.id = name_of(payload.get("id")) or self.id
        self.model = name_of(payload.get("model")) or self.model
        self.finish_reason = _finish_reason(payload) or self.finish_reason
        self.usage = _with_usage(self.usage, payload.get("usage"))


def read_chat_answer(body: bytes) -> Answer:
    """A JSON answer with a status of 2xx. Raises `UnreadableAnswer`."""
    document = load_answer(body)
    return Answer(
        id=name_of(document.get("id")),
        model=name_of(document.get("model")),
        stop_reason=_finish_reason(document),
        usage=_with_usage(Usage(), document.get("usage")),
        is_message=isinstance(document.get("choices"), list),
        error=document if has_error(document) else None,
    )


def has_error(payload: Mapping[str, Any]) -> bool:
    """An error in spite of status 200: at the top, or in a choice."""
    return payload.get("error") not in (None, False) or any(
        choice.get("error") not in (None, False) or choice.get("finish_reason") == "error"
        for choice in _choices(payload)
    )


def finished_choices(payload: Mapping[str, Any]) -> Iterator[tuple[int, bool]]:
    """The index of each choice in a chunk, and whether the chunk finishes it."""
    for choice in _choices(payload):
        yield tokens_of(choice.get("index")) or 0, bool(choice.get("finish_reason"))


def _finish_reason(payload: Mapping[str, Any]) -> str:
    return next((reason for choice in _choices(payload) if (reason := name_of(choice.get("finish_reason")))), "")


def _choices(payload: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    choices = payload.get("choices")
    return [mapping_of(choice) for choice in choices] if isinstance(choices, list) else []


def _with_usage(usage: Usage, reported: object) -> Usage:
    """Into Anthropic's way of counting: OpenAI's `prompt_tokens` have cache reads and writes in them."""
    values = mapping_of(reported)
    details = mapping_of(values.get("prompt_tokens_details"))
    read, written = tokens_of(details.get("cached_tokens")), tokens_of(details.get("cache_write_tokens"))
    prompt = tokens_of(values.get("prompt_tokens"))
    changes = {
        "input_tokens": None if prompt is None else max(prompt - (read or 0) - (written or 0), 0),
        "output_tokens": tokens_of(values.get("completion_tokens")),
        "cache_read_tokens": read,
        "cache_write_tokens": written,
        "cost_nano": cost_in_nano(values.get("cost")),
    }
    return msgspec.structs.replace(usage, **{name: value for name, value in changes.items() if value is not None})
