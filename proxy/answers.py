"""Reads from an answer what the ledger needs.

Two sources: a whole JSON answer (`read_answer`), or a stream's message_start and message_delta (`UsageReader`).
Nothing here fails on what upstream sends but `read_answer`, for what is no JSON object at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from proxy.json_text import is_too_deep, load_exact

MAX_TOKENS: Final = 2**40  # far above any answer, far below a 64-bit sum of many
MAX_COST_USD: Final = 1_000_000
_NANO: Final = Decimal("1e-9")
_NANO_DIGITS: Final = 9
_PLAIN_DIGITS: Final = 6  # below MAX_COST_USD
_MONEY: Final = Context(prec=50, rounding=ROUND_HALF_EVEN)
_MAX_NAME_CHARS: Final = 200

_Known = TypeVar("_Known", int, int | None)
_Usual = TypeVar("_Usual")


_Tokens = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]


class _UsualUsage(msgspec.Struct):
    input_tokens: _Tokens
    output_tokens: _Tokens
    cache_creation_input_tokens: _Tokens
    cache_read_input_tokens: _Tokens = 0
    cost: msgspec.Raw = msgspec.Raw(b"null")


class _UsualAnswer(msgspec.Struct):
    """What nearly all answers are, and no error is; the rest of them is passed over."""

    id: str
    type: Literal["message"]
    model: str
    content: list[msgspec.Raw]
    usage: _UsualUsage
    stop_reason: str | None = None
    error: Literal[False] | None = None


class _EventUsage(msgspec.Struct):
    """Of an event, where what is not known yet is null."""

    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    cache_creation_input_tokens: _Tokens | None = None
    cache_read_input_tokens: _Tokens | None = None
    cache_creation: msgspec.Raw = msgspec.Raw(b"null")
    cost: msgspec.Raw = msgspec.Raw(b"null")


class _UsualMessage(msgspec.Struct):
    id: str
    model: str
    usage: _EventUsage


class _UsualStart(msgspec.Struct):
    message: _UsualMessage


class _UsualDelta(msgspec.Struct):
    stop_reason: str | None


class _UsualEnd(msgspec.Struct):
    delta: _UsualDelta
    usage: _EventUsage


_SHOWN_REASON: Final = re.compile(rb'"stop_reason"\s*:\s*(?!null\b|false\b|"")\S')
_USUAL_ANSWER: Final = msgspec.json.Decoder(_UsualAnswer)
_USUAL_START: Final = msgspec.json.Decoder(_UsualStart)
_USUAL_END: Final = msgspec.json.Decoder(_UsualEnd)


class UnreadableAnswer(Exception):
    """The body of an answer is not a JSON object."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens as Anthropic counts them, `input_tokens` without cache reads and writes. `cost_nano`: None if not told."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_nano: int | None = None


class Answer(msgspec.Struct, frozen=True, gc=False):
    """`error`: the whole document if it is an error in spite of its status 200, for `failures.classify_event`."""

    id: str
    model: str
    stop_reason: str
    usage: Usage
    is_message: bool
    error: dict[str, Any] | None = None


@dataclass(slots=True)
class UsageReader:
    """Folds a stream's events; later values override earlier ones, null is no value.

    `is_ending` is set from the message_delta on that finishes the answer, or that can't be read and shows a reason.
    """

    id: str = ""
    model: str = ""
    is_ending: bool = False
    usage: Usage = field(default_factory=Usage)

    def fold(self, kind: bytes, data: bytes) -> None:
        """Takes message_start and message_delta; other kinds change nothing."""
        if kind == b"message_start":
            start = _read_usual(_USUAL_START, data)
            if start is None or not self._take_usage(start.message.usage):
                self.fold_any(kind, data)
                return
            self.id = name_of(start.message.id) or self.id
            self.model = name_of(start.message.model) or self.model
        elif kind == b"message_delta":
            end = _read_usual(_USUAL_END, data)
            if end is None or not self._take_usage(end.usage):
                self.fold_any(kind, data)
                return
            self.is_ending = self.is_ending or bool(end.delta.stop_reason)

    def fold_any(self, kind: bytes, data: bytes) -> None:
        """As `fold`, but every value is looked at, with forbearance.

        A number that nothing holds, as 1e99999999999999999999, makes all of the event unreadable to this; `fold` does
        not see it where it says nothing of usage.
        """
        payload = parse_payload(data)
        if kind == b"message_start":
            message = mapping_of(payload.get("message"))
            self.id = name_of(message.get("id")) or self.id
            self.model = name_of(message.get("model")) or self.model
            self.usage = _with_usage(self.usage, message.get("usage"))
        elif kind == b"message_delta":
            reason = mapping_of(payload.get("delta")).get("stop_reason") if payload else _SHOWN_REASON.search(data)
            self.is_ending = self.is_ending or bool(reason)
            self.usage = _with_usage(self.usage, payload.get("usage"))

    def _take_usage(self, reported: _EventUsage) -> bool:
        """False, and nothing is taken, where more has to be looked at."""
        known, written = self.usage, reported.cache_creation_input_tokens
        if written is None and bytes(reported.cache_creation) != b"null":
            return False
        try:
            cost_nano = _cost_of_text(bytes(reported.cost))
        except ValueError:
            return False
        self.usage = Usage(
            _or(reported.input_tokens, known.input_tokens),
            _or(reported.output_tokens, known.output_tokens),
            _or(reported.cache_read_input_tokens, known.cache_read_tokens),
            _or(written, known.cache_write_tokens),
            _or(cost_nano, known.cost_nano),
        )
        return True


def _read_usual(decoder: msgspec.json.Decoder[_Usual], data: bytes) -> _Usual | None:
    """None: it is none of the usual ones."""
    if is_too_deep(data):
        return None
    try:
        usual = decoder.decode(data)
        data.decode()  # what is not read of it may be no text
    except (ValueError, RecursionError):
        return None
    return usual


def parse_payload(data: bytes) -> dict[str, Any]:
    """The JSON object in an event's data, fractions as Decimal; empty if it is none."""
    try:
        payload = load_exact(data)
    except ValueError:
        return {}
    return payload if isinstance(payload, dict) else {}


def read_answer(body: bytes) -> Answer:
    """A JSON answer with a status of 2xx. Raises `UnreadableAnswer`."""
    usual = _read_usual(_USUAL_ANSWER, body)
    if usual is None:
        return read_any_answer(body)
    reported = usual.usage
    try:
        cost_nano = _cost_of_text(bytes(reported.cost))
    except ValueError:
        return read_any_answer(body)
    usage = Usage(
        reported.input_tokens,
        reported.output_tokens,
        reported.cache_read_input_tokens,
        reported.cache_creation_input_tokens,
        cost_nano,
    )
    return Answer(name_of(usual.id), name_of(usual.model), name_of(usual.stop_reason), usage, is_message=True)


def read_any_answer(body: bytes) -> Answer:
    """As `read_answer`, but every value is looked at with forbearance."""
    document = load_answer(body)
    return Answer(
        id=name_of(document.get("id")),
        model=name_of(document.get("model")),
        stop_reason=name_of(document.get("stop_reason")),
        usage=_with_usage(Usage(), document.get("usage")),
        is_message=document.get("type") == "message" and isinstance(document.get("content"), list),
        error=document if _is_error(document) else None,
    )


def load_answer(body: bytes) -> dict[str, Any]:
    """The JSON object that an answer is. Raises `UnreadableAnswer`."""
    try:
        document = load_exact(body)
    except ValueError as error:
        raise UnreadableAnswer("the answer is not JSON") from error
    if not isinstance(document, dict):
        raise UnreadableAnswer("the answer is not a JSON object")
    return document


def _is_error(document: Mapping[str, Any]) -> bool:
    return document.get("type") == "error" or document.get("error") not in (None, False)


# -- Values ----------------------------------------------------------------------------------------------------------
def _with_usage(usage: Usage, reported: object) -> Usage:
    values = mapping_of(reported)
    return Usage(
        input_tokens=_or(tokens_of(values.get("input_tokens")), usage.input_tokens),
        output_tokens=_or(tokens_of(values.get("output_tokens")), usage.output_tokens),
        cache_read_tokens=_or(tokens_of(values.get("cache_read_input_tokens")), usage.cache_read_tokens),
        cache_write_tokens=_or(_cache_write_tokens(values), usage.cache_write_tokens),
        cost_nano=_or(cost_in_nano(values.get("cost")), usage.cost_nano),
    )


def _or(value: int | None, known: _Known) -> int | _Known:
    return known if value is None else value


def _cache_write_tokens(values: Mapping[str, Any]) -> int | None:
    """The sum; where only the split by lifetime is given, its total."""
    total = tokens_of(values.get("cache_creation_input_tokens"))
    if total is not None:
        return total
    split = mapping_of(values.get("cache_creation"))
    parts = [tokens_of(split.get(f"ephemeral_{lifetime}_input_tokens")) for lifetime in ("5m", "1h")]
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def tokens_of(value: object) -> int | None:
    """A count that can be one; a bool is none, although Python calls it an int."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS:
        return value
    return None


def cost_in_nano(value: object) -> int | None:
    """USD as parsed by `load_exact` to whole nano-USD, rounded half to even; None for what can't be a cost."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    if not 0 <= value <= MAX_COST_USD:
        return None
    return int(Decimal(value).quantize(_NANO, context=_MONEY).scaleb(9, context=_MONEY))


def _cost_of_text(text: bytes) -> int | None:
    """As `cost_in_nano` of what `text` says; a plain decimal, as nearly all are, in a third of the time."""
    whole, _, fraction = text.partition(b".")
    if len(whole) <= _PLAIN_DIGITS and len(fraction) <= _NANO_DIGITS and (whole + fraction).isdigit():
        return int(whole + fraction.ljust(_NANO_DIGITS, b"0"))
    return cost_in_nano(load_exact(text))


def name_of(value: object) -> str:
    """An id or a name for a text column: NUL and lone surrogates, which no database takes, are left out."""
    if not isinstance(value, str):
        return ""
    if len(value) <= _MAX_NAME_CHARS and value.isascii() and "\0" not in value:
        return value
    return value[:_MAX_NAME_CHARS].replace("\0", "").encode("utf-8", "ignore").decode()


def mapping_of(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
