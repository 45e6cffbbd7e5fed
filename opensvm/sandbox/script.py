"""What a test has scripted: rules that say which calls go otherwise than well, and how.

Rules and behaviours are plain data, so that they travel to a sandbox in another process as JSON.
"""

from __future__ import annotations

import base64
import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from opensvm.sandbox.errors import ERRORS, STREAM_ERRORS
from opensvm.sandbox.money import number

Break = Literal["close", "reset", "stall", "half_close"]


class BadScript(ValueError):
    """A rule or behaviour that the sandbox can't follow; the text says which field is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a call is answered. Every field may be left out; times are seconds.

    Events are counted without comments; the trailing `[DONE]` counts as one.
    """

    # Instead of an answer
    error: str = ""  # a name of opensvm.sandbox.errors
    retry_after: float | None = None  # the error's hint; None leaves the one it has by itself
    hint_in: Literal["header", "metadata", "metadata_headers"] = "header"  # where the hint stands
    error_after_events: int = 5  # of error_mid_stream
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # added to, or in place of, those of the answer
    body: str | None = None  # the whole body, byte for byte
    body_base64: str | None = None  # the same for what is not UTF-8
    hang_up: Break | None = None  # before the first byte of an answer
    # What is answered
    text: str | None = None
    text_length: int | None = None  # characters
    deltas: int | None = None  # events per text or thinking block
    content: tuple[Mapping[str, Any], ...] | None = None  # whole content blocks of any type
    stop_reason: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)  # overrides; None takes a field out of the answer
    cost: str | None = None  # the number as it shall be written, such as "0.0000123" or "1.23e-05"
    model: str | None = None  # the answer's model name
    # When
    delay_headers: float = 0.0
    delay_first_event: float = 0.0
    delay_between: float = 0.0  # events
    comment_seconds: float | None = None  # a comment in every silence of so long
    # The bytes
    cut_after_events: int | None = None
    cut_after_bytes: int | None = None  # of the body
    cut: Break = "close"
    close_after: bool = False  # closes the connection after the answer without having said so
    slice_bytes: int | None = None  # written and chunked in pieces of so many bytes
    line_end: Literal["\n", "\r\n", "\r"] = "\n"
    omit: tuple[str, ...] = ()  # names of events; "comment" and "done" are names too
    extra_events: tuple[tuple[int, str], ...] = ()  # (before which event, raw text); -1: at the end
    # The bill
    cancellable: bool | None = None  # None: as the sandbox is configured
    bill: Literal["", "all", "nothing"] = ""

    def __post_init__(self) -> None:
        if self.error and self.error not in ERRORS and self.error not in STREAM_ERRORS:
            known = ", ".join(sorted({*ERRORS, *STREAM_ERRORS}))
            raise BadScript(f"{self.error!r} is not an error the sandbox knows. It knows: {known}.")
        if self.cost is not None:
            number(self.cost)

    @property
    def raw_body(self) -> bytes | None:
        if self.body_base64 is not None:
            return base64.b64decode(self.body_base64)
        return None if self.body is None else self.body.encode()

    @property
    def replaces_answer(self) -> bool:
        return bool(self.error in ERRORS or self.status is not None or self.raw_body is not None)

    def as_json(self) -> dict[str, Any]:
        return _without_defaults(self)


PLAIN = Behaviour()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Calls that match in every given field, from the `first` of them on, `times` of them, go by `then`.

    A rule counts only the calls that no earlier rule took, so that rules with `times=1` make a sequence.
    """

    then: Behaviour = PLAIN
    key: str = ""  # a whole key, its name or its tail
    model: str = ""  # as sent, with * and ?
    path: str = "/messages"  # below /api/v1, with * and ?
    method: str = ""
    streamed: bool | None = None
    first: int = 1
    times: int | None = None  # None: always

    def as_json(self) -> dict[str, Any]:
        return _without_defaults(self)


@dataclass(frozen=True, slots=True)
class Call:
    """What rules look at."""

    path: str
    method: str
    key_names: frozenset[str]
    model: str = ""
    streamed: bool = False


def matches(rule: Rule, call: Call) -> bool:
    return (
        (not rule.key or rule.key in call.key_names)
        and (not rule.model or fnmatch.fnmatchcase(call.model, rule.model))
        and fnmatch.fnmatchcase(call.path, rule.path)
        and (not rule.method or rule.method == call.method)
        and (rule.streamed is None or rule.streamed == call.streamed)
    )


class Script:
    """The rules in order, with how often each was met."""

    def __init__(self) -> None:
        self._rules: list[tuple[Rule, list[int]]] = []

    def add(self, rule: Rule) -> None:
        self._rules.append((rule, [0]))

    def clear(self) -> None:
        self._rules.clear()

    def behaviour_for(self, call: Call) -> Behaviour:
        for rule, count in self._rules:
            if not matches(rule, call):
                continue
            count[0] += 1
            if count[0] >= rule.first and (rule.times is None or count[0] < rule.first + rule.times):
                return rule.then
        return PLAIN

    def __iter__(self) -> Iterator[tuple[Rule, int]]:
        """Each rule with the number of calls that it has counted."""
        return ((rule, count[0]) for rule, count in self._rules)


def read_rule(document: Any) -> Rule:
    """A rule from JSON; `then` holds the behaviour."""
    if not isinstance(document, dict):
        raise BadScript(f"A rule is a JSON object, not {document!r}.")
    fields = {**document, "then": _read_behaviour(document.get("then", {}))}
    try:
        return Rule(**fields)
    except TypeError as exc:
        raise BadScript(f"Rule: {exc}") from exc


def _read_behaviour(document: Any) -> Behaviour:
    if not isinstance(document, dict):
        raise BadScript(f"'then' is a JSON object, not {document!r}.")
    fields = dict(document)
    for name in ("omit", "content"):
        if fields.get(name) is not None:
            fields[name] = tuple(fields[name])
    if "extra_events" in fields:
        fields["extra_events"] = tuple((int(before), str(raw)) for before, raw in fields["extra_events"])
    try:
        return Behaviour(**fields)
    except TypeError as exc:
        raise BadScript(f"Behaviour: {exc}") from exc


def _without_defaults(item: Rule | Behaviour) -> dict[str, Any]:
    plain = type(item)()
    given = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    changed = {name: value for name, value in given.items() if value != getattr(plain, name)}
    return {name: value.as_json() if isinstance(value, Behaviour) else value for name, value in changed.items()}
