"""JSON of up to 1,000 levels, read and written the same however deep the Python stack of the caller is.

msgspec and the standard library count each level of nesting against the interpreter's recursion limit, together with
the frames of the caller. Their speed and exact integers are worth keeping, so the limit gets room instead.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from itertools import accumulate
from typing import Any, Final, TypeVar

import msgspec

MAX_DEPTH: Final = 1000
_ROOM: Final = 2 * MAX_DEPTH

_Result = TypeVar("_Result")

# A string, also one that is not closed, in linear time: possessive, and it can't fail after the first quote.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS: Final = tuple(1 if byte in b"[{" else -1 for byte in range(256))


def with_room(call: Callable[[], _Result]) -> _Result:
    """`call()`, and once more with a higher recursion limit when it ran out of stack.

    The limit is process-wide and is only ever raised, by what one call needs: `call` must be bounded in depth.
    A thousand levels take less than 1 MB of a thread's C stack.
    """
    try:
        return call()
    except RecursionError:
        sys.setrecursionlimit(sys.getrecursionlimit() + _ROOM)
    return call()


def is_too_deep(raw: bytes) -> bool:
    """Whether a JSON text nests more than 1,000 levels. Exact for JSON; of anything else, an upper bound."""
    if len(raw) <= MAX_DEPTH or raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH


def dump(document: object) -> bytes:
    """Compact UTF-8. Raises UnicodeEncodeError for lone surrogates; a number that is not finite becomes null."""
    try:
        return msgspec.json.encode(document)
    except RecursionError:
        return with_room(lambda: msgspec.json.encode(document))


def load_exact(raw: bytes) -> Any:
    """What upstream sent, with fractions as Decimal: money must not pass through a float. Raises ValueError."""
    if is_too_deep(raw):
        raise ValueError("nested more than 1,000 levels deep")
    try:
        return _QUICK.decode(raw)
    except (ValueError, RecursionError):  # it takes no escaped lone surrogate, and less depth
        text = raw.decode()
        return with_room(lambda: _EXACT.decode(text))


def read_decimal(number: str) -> Decimal:
    """A fraction as it is written. Raises ValueError."""
    try:
        return Decimal(number)
    except InvalidOperation as error:
        raise ValueError("a number's exponent is out of range") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_QUICK: Final = msgspec.json.Decoder(float_hook=read_decimal)
_EXACT: Final = json.JSONDecoder(parse_float=read_decimal, parse_constant=_refuse_constant)
