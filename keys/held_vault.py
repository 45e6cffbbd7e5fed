"""The vault of a process that opens a secret for each request it serves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable
from typing import Any
from uuid import UUID

from keys.sealing import Sealed, Undecryptable, Vault, get_vault

_LOOK_SECONDS = 1.0
_FORGET_SECONDS = 1.05  # after a look: later than the next one may be, or what comes between would be kept


class HeldVault:
    """As `get_vault()`, but the keyring's file is looked at once a second, and at once for what can't be opened.

    What it has opened and what it was told to remember it knows until that second is over: in an event loop it forgets
    by itself, elsewhere at the next look.
    """

    def __init__(
        self, open_vault: Callable[[], Vault] = get_vault, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open_vault = open_vault
        self._clock = clock
        self._vault: Vault | None = None
        self._look_at = 0.0
        self._memory: dict[Hashable, Any] = {}

    def client_digest(self, client_key: str) -> str:
        return self._held().client_digest(client_key)

    def recall(self, what: Hashable) -> Any:
        """What was remembered under `what` in this second, or None."""
        self._held()
        return self._memory.get(what)

    def remember(self, what: Hashable, value: object) -> None:
        """For what was made from secrets: nothing of it may be kept for longer than the secrets are."""
        self._memory[what] = value

    def unseal(self, ciphertext: bytes, *, table: str, column: str, row: UUID) -> Sealed:
        """Raises `Undecryptable`."""
        vault, place = self._held(), (ciphertext, table, column, row.int)
        opened: Sealed | None = self._memory.get(place)
        if opened is None:
            try:
                opened = vault.unseal(ciphertext, table=table, column=column, row=row)
            except Undecryptable:
                opened = self._look().unseal(ciphertext, table=table, column=column, row=row)
            self._memory[place] = opened
        return opened

    def _held(self) -> Vault:
        if self._vault is None or self._clock() >= self._look_at:
            return self._look()
        return self._vault

    def _look(self) -> Vault:
        self._memory.clear()
        self._vault = self._open_vault()
        self._look_at = self._clock() + _LOOK_SECONDS
        with contextlib.suppress(RuntimeError):  # no loop runs
            asyncio.get_running_loop().call_later(_FORGET_SECONDS, self._memory.clear)
        return self._vault
