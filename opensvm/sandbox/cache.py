"""The upstream's prompt cache: a prefix up to the last `cache_control` is written once and read afterwards."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from opensvm.sandbox.answers import tokens_in
from opensvm.sandbox.catalogue import Usage

LIFETIMES = {"5m": dt.timedelta(minutes=5), "1h": dt.timedelta(hours=1)}


class PromptCache:
    """Remembers prefixes by owner (account and model)."""

    def __init__(self) -> None:
        self._expires: dict[str, dt.datetime] = {}

    def price_prompt(self, body: dict[str, Any], *, owner: str, now: dt.datetime) -> Usage:
        """The input side of the usage; remembers the prefix."""
        blocks = list(_blocks(body))
        texts = [json.dumps(block, ensure_ascii=False) for block in blocks]
        marks = [index for index, block in enumerate(blocks) if _cache_control(block)]
        if not marks:
            return Usage(input=tokens_in("".join(texts)))
        prefix = "".join(texts[: marks[-1] + 1])
        rest = tokens_in("".join(texts[marks[-1] + 1 :]))
        span = str(_cache_control(blocks[marks[-1]]).get("ttl", "5m"))
        name = hashlib.sha256(f"{owner}\n{prefix}".encode("utf-8", "replace")).hexdigest()
        hit = self._expires.get(name, now) > now
        self._expires[name] = now + LIFETIMES.get(span, LIFETIMES["5m"])
        size = tokens_in(prefix)
        if hit:
            return Usage(input=rest, cache_read=size)
        return Usage(input=rest, cache_write_1h=size) if span == "1h" else Usage(input=rest, cache_write_5m=size)


def _cache_control(block: Any) -> dict[str, Any]:
    control = block.get("cache_control") if isinstance(block, dict) else None
    return control if isinstance(control, dict) else {}


def _blocks(body: dict[str, Any]) -> Iterator[Any]:
    """Everything that makes the prompt, in the order in which it is cached."""
    yield from body.get("tools") or []
    system = body.get("system") or []
    yield from system if isinstance(system, list) else [system]
    for message in body["messages"]:
        content = message["content"]
        yield from content if isinstance(content, list) else [content]
