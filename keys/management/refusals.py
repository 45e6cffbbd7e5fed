"""Turns what services refuse into one sentence on stderr and exit code 1, for all commands of this app."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError

from keys.errors import KeysError
from keys.keyring import KeyringError
from keys.sealing import Undecryptable


@contextmanager
def refusals_as_command_errors() -> Iterator[None]:
    try:
        yield
    except (KeysError, KeyringError, Undecryptable) as exc:
        raise CommandError(str(exc)) from exc
