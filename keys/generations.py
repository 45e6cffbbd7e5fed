"""Reads OpenRouter's answer to `GET /generation`: what one answer was billed. Pure; fields may be missing or new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keys.ledger_items import Tokens
from keys.openrouter import NoAnswer, Refused, error_of, nano_usd, parse_document

MAX_TOKENS = 2**40  # a figure beyond is nonsense, and must not break the row
_ABOUT_THIS_ONE = frozenset({400, 404, 410, 422})  # the others say something of the key or of the upstream


@dataclass(frozen=True, slots=True)
class Billed:
    """What the account paid. `prompt_tokens` contains the cached ones; None: not said."""

    cost_nano: int
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    def tokens(self, known: Tokens) -> Tokens:
        """As the ledger counts them. OpenRouter doesn't say how many were written to the cache: `known` may."""
        cache_read = known.cache_read if self.cached_tokens is None else self.cached_tokens
        uncached = known.input if self.prompt_tokens is None else self.prompt_tokens - cache_read - known.cache_write
        output = known.output if self.completion_tokens is None else self.completion_tokens
        return Tokens(max(uncached, 0), output, cache_read, known.cache_write)


@dataclass(frozen=True, slots=True)
class NotYet:
    """OpenRouter doesn't know this generation: it is a moment too early, or it never will."""


def read_generation_answer(status: int, body: bytes, generation_id: str) -> Billed | NotYet | Refused | NoAnswer:
    """What an HTTP answer means. Messages may repeat upstream's words: redact before they are logged."""
    document = parse_document(body)
    code, words = error_of(document)
    status = code if status == 200 and isinstance(code, int) else status
    if status in {401, 403}:
        return Refused(f"OpenRouter refuses to tell this key ({status}){words}.")
    if status in _ABOUT_THIS_ONE:
        return NotYet()
    if status != 200 or code is not None:
        return NoAnswer(f"OpenRouter answered {status}{words}.")
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict):
        return NoAnswer("The answer to GET /generation can't be understood.")
    if data.get("id", generation_id) != generation_id:
        return NoAnswer("OpenRouter told the cost of another generation than was asked for.")
    cost_nano = nano_usd(data.get("total_cost"))
    if cost_nano is None or cost_nano < 0:
        return NotYet()
    return Billed(
        cost_nano,
        prompt_tokens=_count(data.get("native_tokens_prompt")),
        completion_tokens=_count(data.get("native_tokens_completion")),
        cached_tokens=_count(data.get("native_tokens_cached")),
    )


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS
    return value if is_count else None
