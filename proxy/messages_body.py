"""Reads the body of a request for an answer, refuses what is not one, and writes the body that goes upstream.

Upstream gets our own serialization of what was parsed, so that policy and upstream can't see two different requests.
What we don't know is passed on: all of Anthropic's types are open.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from proxy.errors import Refusal, invalid_request
from proxy.json_text import MAX_DEPTH, dump, is_too_deep, with_room

_BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_SHOWN_PATH_CHARS: Final = 200
_CHAT_LIMITS: Final = ("max_completion_tokens", "max_tokens")  # the newer name counts


class MessagesRequest(msgspec.Struct, frozen=True, gc=False):
    """What the service itself needs to know of a request; `document` is the whole of it."""

    model: str
    stream: bool
    max_tokens: int | None
    document: dict[str, Any]


def read_request(raw: bytes) -> MessagesRequest:
    """The request in a body. Raises a 400 `Refusal` that names the field."""
    document = parse_body(raw)
    model = _get_model(document)
    _check_messages(document)
    return MessagesRequest(model, _get_stream(document), _get_max_tokens(document), document)


def read_chat_request(raw: bytes) -> MessagesRequest:
    """The same for POST /v1/chat/completions, where null stands for a field that was left out."""
    document = parse_body(raw)
    model = _get_model(document)
    _check_messages(document)
    given = {name: value for name, value in document.items() if value is not None}
    limits = [_get_max_tokens({"max_tokens": given[name]}) for name in _CHAT_LIMITS if name in given]
    return MessagesRequest(model, _get_stream(given), limits[0] if limits else None, document)


def read_countable(raw: bytes) -> dict[str, Any]:
    """The body of a token count: model and messages. Raises a 400 `Refusal` that names the field."""
    document = parse_body(raw)
    _get_model(document)
    _check_messages(document)
    return document


def serialize(document: dict[str, Any], *, model: str) -> bytes:
    """The body for upstream with another model; big integers and unknown fields stay as they came."""
    return dump({**document, "model": model})


def parse_body(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body; of a repeated key the last counts. Raises a 400 `Refusal`.

    A float outside of double precision's range, NaN, a lone surrogate and more than 1,000 levels are refused here:
    what is returned can always be serialized again.
    """
    if raw.startswith(_BYTE_ORDER_MARKS):
        raise invalid_request("body: starts with a byte order mark; send plain UTF-8")
    if is_too_deep(raw):
        raise invalid_request(f"body: nested more than {MAX_DEPTH:,} levels deep")
    try:
        document = msgspec.json.decode(raw)
    except (ValueError, RecursionError):  # which tells less, and takes less, than the standard library
        document = _parse_carefully(raw)
    if not isinstance(document, dict):
        raise invalid_request(f"body: must be a JSON object, not {_kind(document)}")
    return document


def _parse_carefully(raw: bytes) -> Any:
    """Says what is wrong, and where; what is merely deep is read."""
    document, has_bad_number = _load(_decode(raw))
    if not isinstance(document, dict):
        return document
    if has_bad_number:
        raise _refuse_at(document, _is_bad_number, "is not a finite number in the range of a double")
    if b"\\u" in raw and not _is_encodable(document):  # only an escape can make one: raw is valid UTF-8
        raise _refuse_at(document, _has_lone_surrogate, "has a lone surrogate; text must be valid Unicode")
    return document


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise invalid_request(f"body: is not UTF-8 at byte {error.start}") from error


class _BadNumber(ValueError):
    """NaN, Infinity, -Infinity (Python's json reads them, JSON has none), or a float out of range."""


def _load(text: str) -> tuple[Any, bool]:
    """The document, and whether a number in it can't be represented; which one is only looked for in that case."""
    try:
        try:
            return with_room(lambda: _STRICT.decode(text)), False
        except _BadNumber:
            return with_room(lambda: json.loads(text)), True
    except json.JSONDecodeError as error:
        raise invalid_request(f"body: is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except ValueError as error:  # int() takes 4,300 digits at most
        raise invalid_request("body: has an integer of more than 4,300 digits") from error


def _read_float(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise _BadNumber
    return value


def _refuse_constant(name: str) -> float:
    raise _BadNumber


_STRICT: Final = json.JSONDecoder(parse_float=_read_float, parse_constant=_refuse_constant)


# -- The fields the service reads ------------------------------------------------------------------------------------
def _get_model(document: dict[str, Any]) -> str:
    if "model" not in document:
        raise invalid_request("model: field required")
    model = document["model"]
    if not isinstance(model, str):
        raise invalid_request(f"model: must be a string, not {_kind(model)}")
    if not model.strip():
        raise invalid_request("model: must not be empty")
    return model


def _check_messages(document: dict[str, Any]) -> None:
    if "messages" not in document:
        raise invalid_request("messages: field required")
    if not isinstance(document["messages"], list):
        raise invalid_request(f"messages: must be an array, not {_kind(document['messages'])}")


def _get_stream(document: dict[str, Any]) -> bool:
    stream = document.get("stream", False)
    if not isinstance(stream, bool):
        raise invalid_request(f"stream: must be true or false, not {_kind(stream)}")
    return stream


def _get_max_tokens(document: dict[str, Any]) -> int | None:
    """None when it is not given: upstream doesn't need it. 0 only warms the cache."""
    if "max_tokens" not in document:
        return None
    max_tokens = document["max_tokens"]
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool):
        raise invalid_request(f"max_tokens: must be an integer, not {_kind(max_tokens)}")
    if max_tokens < 0:
        raise invalid_request("max_tokens: must be 0 or more")
    return max_tokens


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


# -- Naming the place, for the error message only --------------------------------------------------------------------
def _is_encodable(document: dict[str, Any]) -> bool:
    """Whether UTF-8 can carry it: far cheaper than to look at each string from Python."""
    try:
        dump(document)
    except UnicodeEncodeError:
        return False
    return True


def _is_bad_number(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _has_lone_surrogate(value: object) -> bool:
    return isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value)


def _refuse_at(document: dict[str, Any], is_bad: Callable[[object], bool], what: str) -> Refusal:
    for path, value in _walk(document):
        if is_bad(value):
            shown = path if len(path) <= _SHOWN_PATH_CHARS else path[:_SHOWN_PATH_CHARS] + "…"
            return invalid_request(f"{shown.encode('utf-8', 'replace').decode()}: {what}")
    return invalid_request(f"body: a repeated field {what}")  # the last of the repeated is sound


def _walk(document: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """Every key and every value with its path, `messages.0.content`; in document order and without recursion."""
    stack: list[Iterator[tuple[str, object]]] = [_children("", document)]
    while stack:
        for path, value in stack[-1]:
            yield path, value
            if isinstance(value, (dict, list)):
                stack.append(_children(path, value))
                break
        else:
            stack.pop()


def _children(path: str, container: dict[str, Any] | list[Any]) -> Iterator[tuple[str, object]]:
    start = f"{path}." if path else ""
    if isinstance(container, list):
        for index, value in enumerate(container):
            yield f"{start}{index}", value
        return
    for key, value in container.items():
        yield f"{start}{key}", key
        yield f"{start}{key}", value
