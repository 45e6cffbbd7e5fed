"""Reads from an answer what the ledger needs, and gives the client's model name back without touching another byte.

Two sources: a whole JSON answer (`read_answer`), or a stream's message_start and message_delta (`UsageReader`).
Nothing here fails on what upstream sends but `read_answer`, for what is no JSON object at all.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from proxy.json_text import is_too_deep, load_exact, with_room
from proxy.sse import RawEvent

MAX_TOKENS: Final = 2**40  # far above any answer, far below a 64-bit sum of many
MAX_COST_USD: Final = 1_000_000
_NANO: Final = Decimal("1e-9")
_NANO_DIGITS: Final = 9
_PLAIN_DIGITS: Final = 6  # below MAX_COST_USD
_MONEY: Final = Context(prec=50, rounding=ROUND_HALF_EVEN)
_MAX_NAME_CHARS: Final = 200

_Known = TypeVar("_Known", int, int | None)


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


_USUAL: Final = msgspec.json.Decoder(_UsualAnswer)


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

    `stop_reason` is set from the message_delta on that finishes the answer.
    """

    id: str = ""
    model: str = ""
    stop_reason: str = ""
    usage: Usage = field(default_factory=Usage)

    def fold(self, kind: bytes, data: bytes) -> None:
        """Takes message_start and message_delta; other kinds cost one comparison."""
        if kind == b"message_start":
            message = mapping_of(parse_payload(data).get("message"))
            self.id = name_of(message.get("id")) or self.id
            self.model = name_of(message.get("model")) or self.model
            self.usage = _with_usage(self.usage, message.get("usage"))
        elif kind == b"message_delta":
            payload = parse_payload(data)
            self.stop_reason = name_of(mapping_of(payload.get("delta")).get("stop_reason")) or self.stop_reason
            self.usage = _with_usage(self.usage, payload.get("usage"))


def parse_payload(data: bytes) -> dict[str, Any]:
    """The JSON object in an event's data, fractions as Decimal; empty if it is none."""
    try:
        payload = load_exact(data)
    except ValueError:
        return {}
    return payload if isinstance(payload, dict) else {}


def read_answer(body: bytes) -> Answer:
    """A JSON answer with a status of 2xx. Raises `UnreadableAnswer`."""
    if is_too_deep(body):
        return read_any_answer(body)  # which refuses it
    try:
        usual = _USUAL.decode(body)
        body.decode()  # what is not read of it may be no text
        reported = usual.usage
        cost_nano = _cost_of_text(bytes(reported.cost))
    except (ValueError, RecursionError):
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


# -- Giving the client's model name back -----------------------------------------------------------------------------
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False)
_SCAN: Final = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode
_WHITESPACE: Final = " \t\n\r"
_DATA_LINE: Final = re.compile(rb"(?:\A|(?<=[\r\n]))data:")
_MODEL_OF_EVENT: Final = ("message", "model")
_MODEL_KEY: Final = b'"model"'
_MODEL_MEMBER: Final = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*"([^"\\]*)"')
_ESCAPED_LETTER: Final = b"\\u006"  # d, e, l, m and o are \u0064 to \u006f


def replace_known_model(raw: bytes, known: str, name: str) -> bytes:
    """As `replace_model` at the top of an answer whose model was read as `known`."""
    replaced = _replace_lone_model(raw, known, name)
    return replace_model(raw, ("model",), name) if replaced is None else replaced


def _replace_lone_model(raw: bytes, known: str, name: str) -> bytes | None:
    """Where `"model"` stands once, and no escape can spell it otherwise, nothing need be scanned. None: it may not."""
    at = raw.find(_MODEL_KEY)
    if not known or at < 0 or raw.rfind(_MODEL_KEY) != at or _may_spell_it_otherwise(raw):
        return None
    usual, replacement = _usual_members(known, name)
    if raw.startswith(usual, at):
        return b"".join((raw[:at], replacement, raw[at + len(usual) :]))
    found = _MODEL_MEMBER.match(raw, at)
    if found is None or found[1] != known.encode():
        return None
    start, end = found.span(1)
    return b"%b%b%b" % (raw[: start - 1], _quoted(name), raw[end + 1 :])


def replace_model(raw: bytes, path: tuple[str, ...], name: str) -> bytes:
    """JSON with the string at `path` replaced, each other byte as it was; a repeated key is replaced each time.

    `raw` comes back as it is when there is no string at `path`, or when it is no JSON.
    """
    if is_too_deep(raw):
        return raw
    try:
        text = raw.decode()
        spans = with_room(lambda: list(_find_strings(text, _skip(text, 0), path)))
    except (ValueError, IndexError):  # IndexError: the text ends early
        return raw
    pieces: list[str] = []
    done = 0
    for start, end in spans:
        pieces += (text[done:start], _ENCODER.encode(name))
        done = end
    return "".join([*pieces, text[done:]]).encode("utf-8", "replace")


def replace_model_in_event(raw: bytes, known: str, name: str) -> bytes:
    """A message_start event with another name at message.model, which was read as `known`."""
    replaced = _replace_lone_model(raw, known, name)
    if replaced is not None:
        return replaced
    starts = [found.end() for found in _DATA_LINE.finditer(raw)]
    if len(starts) == 1:
        return raw[: starts[0]] + replace_model(raw[starts[0] :], _MODEL_OF_EVENT, name)
    if not starts:
        return raw
    # JSON spread over several data lines, which nobody sends: the line ends are white space in it.
    data = RawEvent(raw, b"").data.replace(b"\n", b" ")
    return b"event: message_start\ndata: " + replace_model(data, _MODEL_OF_EVENT, name) + b"\n\n"


def _may_spell_it_otherwise(raw: bytes) -> bool:
    """Most answers have no escape at all, and a single byte is found much faster."""
    return raw.find(b"\\") >= 0 and raw.find(_ESCAPED_LETTER) >= 0


@functools.lru_cache(maxsize=256)
def _usual_members(known: str, name: str) -> tuple[bytes, bytes]:
    """The member as nearly everybody writes it, with either name."""
    return b'%b:"%b"' % (_MODEL_KEY, known.encode("utf-8", "surrogatepass")), b"%b:%b" % (_MODEL_KEY, _quoted(name))


@functools.lru_cache(maxsize=256)
def _quoted(name: str) -> bytes:
    return _ENCODER.encode(name).encode("utf-8", "replace")


def _find_strings(text: str, at: int, path: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Where the strings at `path` stand, quotes included, in the object at `at`."""
    if text[at] != "{":
        return
    at = _skip(text, at + 1)
    while text[at] == '"':
        key, at = _SCAN(text, at)
        start = _skip(text, _after(text, _skip(text, at), ":"))
        _, end = _SCAN(text, start)
        if key == path[0] and len(path) > 1:
            yield from _find_strings(text, start, path[1:])
        elif key == path[0] and text[start] == '"':
            yield start, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    """The index of what follows the white space at `at`; IndexError at the end of the text."""
    while text[at] in _WHITESPACE:
        at += 1
    return at


def _after(text: str, at: int, character: str) -> int:
    if text[at] != character:
        raise ValueError(f"no {character} at {at}")
    return at + 1
