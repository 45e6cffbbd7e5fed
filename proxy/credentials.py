"""Reads the client key from a request's raw headers, before a byte of the body is read and before any database work.

A key comes as `x-api-key` (older SDKs), as `Authorization: Bearer` (newer ones) or as both (Claude Code with both
variables set). Shape and checksum are checked here; whether the key is known is ADMIT's question.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from keys.client_keys import START, is_well_formed, prefix_of
from keys.held_vault import HeldVault

HEADERS: Final = (b"x-api-key", b"authorization")
_UPSTREAM_START: Final = "sk-or-"


class Credential(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a client key: its digest, which ADMIT looks up, and its prefix for the log."""

    digest: str
    prefix: str


@dataclass(slots=True, eq=False)
class MalformedCredential(Exception):
    """`reason` is "missing" or "malformed"; `prefix` tells apart what is safe to tell, else it is empty."""

    reason: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"client key {self.reason}"


def read_credential(headers: Iterable[tuple[bytes, bytes]], vault: HeldVault) -> Credential:
    """Who asks, by those of `HEADERS` that were sent, names in lower case. Raises `MalformedCredential`."""
    sent = tuple(headers)
    known: Credential | None = vault.recall(sent)
    if known is None:
        client_key = read_client_key(sent)
        known = Credential(vault.client_digest(client_key), prefix_of(client_key))
        vault.remember(sent, known)
    return known


def read_client_key(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client key itself. Raises `MalformedCredential`.

    Of several, the first well-formed one counts, `x-api-key` before `Authorization`: a client that has both
    variables set often has a foreign key in one of them.
    """
    candidates = _candidates(headers)
    if not candidates:
        raise MalformedCredential("missing")
    for text in candidates:
        if is_well_formed(text):
            return text
    raise MalformedCredential("malformed", _safe_prefix(candidates))


def _candidates(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """What the credential headers carry, `x-api-key` first; empty values count as not sent."""
    sent = [(name, value.decode("latin-1").strip(" \t")) for name, value in headers]
    keys = [text for name, text in sent if name == b"x-api-key"]
    bearers = [_bearer_token(text) for name, text in sent if name == b"authorization"]
    return [text for text in keys + bearers if text]


def _bearer_token(value: str) -> str:
    """The token of `Bearer <token>`. Another scheme is a credential too, a malformed one."""
    scheme, _, token = value.partition(" ")
    return token.strip(" \t") if scheme.lower() == "bearer" else value


def _safe_prefix(candidates: list[str]) -> str:
    """What a log line may show of texts that are not client keys; they may be passwords or another service's keys."""
    for text in candidates:
        if text.startswith(_UPSTREAM_START):
            return _UPSTREAM_START
        prefix = prefix_of(text)
        if text.startswith(START) and prefix.isascii() and prefix.replace("-", "").isalnum():
            return prefix
    return ""
