"""Which upstream model a client's model name means. Pure; aliases come from `ModelAlias`.

OpenRouter's ids have dots and a vendor (`anthropic/claude-opus-4.8`), Anthropic's have dashes and a date
(`claude-opus-4-8-20260115`), and bare Anthropic ids are unreliable upstream.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TypeVar

Read = TypeVar("Read")

_CONTEXT_SUFFIX = re.compile(r"\[\d+[mk]\]$", re.IGNORECASE)  # Claude Code's "[1m]"
_DATE_SUFFIX = re.compile(r"(?:-|@)\d{8}$")
_LATEST_SUFFIX = re.compile(r"-latest$")
_VERSION_DASH = re.compile(r"(?<=\d)-(?=\d{1,2}(?:-|$|:))")
_VARIANT = re.compile(r":[a-z0-9-]+$")


_MOST_NAMES, _LONGEST_NAME = 1024, 200  # strangers send these: what is held of them is bounded


def held(read: Callable[[str], Read]) -> Callable[[str], Read]:
    """`read`, worked out once for each of the names that are asked for again and again."""
    hold = functools.lru_cache(_MOST_NAMES)(read)

    @functools.wraps(read)
    def look_up(name: str) -> Read:
        return hold(name) if len(name) <= _LONGEST_NAME else read(name)

    return look_up


def upstream_model(asked: str, aliases: dict[str, str]) -> str:
    """The model to send upstream. A configured alias wins, an id with "/" goes as it is."""
    if asked in aliases:
        return aliases[asked]
    name = _bare(asked)
    return aliases[name] if name in aliases else _translated(name)


@held
def _bare(asked: str) -> str:
    return _CONTEXT_SUFFIX.sub("", asked)


@held
def _translated(name: str) -> str:
    if "/" in name or not name.startswith("claude-"):
        return name
    variant = variant_of(name)
    base = _DATE_SUFFIX.sub("", name.removesuffix(variant))
    if _LATEST_SUFFIX.search(base):
        if not any(character.isdigit() for character in base):
            return f"~anthropic/{base}{variant}"  # OpenRouter's own alias for the newest of a family
        base = _LATEST_SUFFIX.sub("", base)
    return f"anthropic/{_VERSION_DASH.sub('.', base)}{variant}"


def alias_candidates(asked: str) -> tuple[str, ...]:
    """The names under which an alias for `asked` may be stored."""
    bare = _bare(asked)
    return (asked,) if bare == asked else (asked, bare)


@held
def variant_of(model: str) -> str:
    """The variant that cooldown patterns match, as ":free"; empty for a plain model."""
    return match.group() if (match := _VARIANT.search(model)) else ""


@held
def likely_variant(asked: str) -> str:
    """Of the model that will be sent, if no alias says otherwise."""
    return variant_of(upstream_model(asked, {}))
