"""Gives the client the model's name back that it asked for, in an answer or an event, without touching another byte."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Final

from proxy.json_text import is_too_deep, with_room
from proxy.sse import RawEvent

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
