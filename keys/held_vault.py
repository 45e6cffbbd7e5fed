"""The vault of a process that opens a secret for each request it serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from keys.sealing import Sealed, Undecryptable, Vault, get_vault

_LOOK_SECONDS = 1.0


class HeldVault:
    """As `get_vault()`, but the keyring's file is looked at once a second, and at once for what can't be opened."""

    def __init__(
        self, open_vault: Callable[[], Vault] = get_vault, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open_vault = open_vault
        self._clock = clock
        self._vault: Vault | None = None
        self._look_at = 0.0

    def client_digest(self, client_key: str) -> str:
        return self._held().client_digest(client_key)

    def unseal(self, ciphertext: bytes, *, table: str, column: str, row: UUID) -> Sealed:
        """Raises `Undecryptable`."""
        held = self._held()
        try:
            return held.unseal(ciphertext, table=table, column=column, row=row)
        except Undecryptable:
            newest = self._look()
            if newest is held:
                raise
            return newest.unseal(ciphertext, table=table, column=column, row=row)

    def _held(self) -> Vault:
        if self._vault is None or self._clock() >= self._look_at:
            return self._look()
        return self._vault

    def _look(self) -> Vault:
        self._vault = self._open_vault()
        self._look_at = self._clock() + _LOOK_SECONDS
        return self._vault
