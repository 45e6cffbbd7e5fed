"""The vault of a process that opens a secret for each request it serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from keys.sealing import Sealed, Undecryptable, Vault, get_vault

_LOOK_SECONDS = 1.0


class HeldVault:
    """As `get_vault()`, but the keyring's file is looked at once a second, and at once for what can't be opened.

    What it has opened and digested it knows until the next look, which the first request after that second makes: an
    idle process still holds what its last second opened.
    """

    def __init__(
        self, open_vault: Callable[[], Vault] = get_vault, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open_vault = open_vault
        self._clock = clock
        self._vault: Vault | None = None
        self._look_at = 0.0
        self._digests: dict[str, str] = {}
        self._opened: dict[tuple[bytes, str, str, UUID], Sealed] = {}

    def client_digest(self, client_key: str) -> str:
        vault = self._held()
        digest = self._digests.get(client_key)
        if digest is None:
            digest = self._digests[client_key] = vault.client_digest(client_key)
        return digest

    def unseal(self, ciphertext: bytes, *, table: str, column: str, row: UUID) -> Sealed:
        """Raises `Undecryptable`."""
        vault, place = self._held(), (ciphertext, table, column, row)
        opened = self._opened.get(place)
        if opened is None:
            try:
                opened = vault.unseal(ciphertext, table=table, column=column, row=row)
            except Undecryptable:
                opened = self._look().unseal(ciphertext, table=table, column=column, row=row)
            self._opened[place] = opened
        return opened

    def _held(self) -> Vault:
        if self._vault is None or self._clock() >= self._look_at:
            return self._look()
        return self._vault

    def _look(self) -> Vault:
        self._vault = self._open_vault()
        self._look_at = self._clock() + _LOOK_SECONDS
        self._digests.clear()
        self._opened.clear()
        return self._vault
