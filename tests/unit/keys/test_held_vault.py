"""The vault that a serving process holds: not asked for at each request, and never too old to open a secret."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from keys.held_vault import HeldVault
from keys.keyring import add_master_key_to_file, create_keyring, read_keyring
from keys.sealing import Sealed, Undecryptable, Vault

ROW = UUID(int=7)
PLACE = {"table": "keys_openrouterkey", "column": "secret", "row": ROW}
KEY = Sealed("sk-or-v1-test-0001")


class Opener:
    """Opens the keyring at `path`, and counts how often."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened = 0
        self.now = 0.0

    def open(self) -> Vault:
        self.opened += 1
        return Vault(read_keyring(self.path))

    def clock(self) -> float:
        return self.now


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    create_keyring(tmp_path / "keyring.json")
    return Opener(tmp_path / "keyring.json")


def test_many_requests_in_a_second_look_once(opener: Opener) -> None:
    held, sealed = HeldVault(opener.open, opener.clock), opener.open().seal(KEY, **PLACE)
    opener.opened = 0

    opened = [held.unseal(sealed, **PLACE).reveal() for _ in range(5)]
    digests = {held.client_digest("sk-ant-api03-x") for _ in range(5)}

    assert opened == [KEY.reveal()] * 5
    assert len(digests) == 1
    assert opener.opened == 1


def test_after_a_second_it_looks_again(opener: Opener) -> None:
    held = HeldVault(opener.open, opener.clock)
    held.client_digest("sk-ant-api03-x")
    opener.now = 1.0
    held.client_digest("sk-ant-api03-x")

    assert opener.opened == 2


def test_what_a_newer_master_key_has_sealed_is_opened_at_once(opener: Opener) -> None:
    held = HeldVault(opener.open, opener.clock)
    held.client_digest("sk-ant-api03-x")
    add_master_key_to_file(opener.path)

    sealed = opener.open().seal(KEY, **PLACE)

    assert held.unseal(sealed, **PLACE) == KEY


def test_what_nobody_can_open_stays_shut(opener: Opener) -> None:
    with pytest.raises(Undecryptable):
        HeldVault(opener.open, opener.clock).unseal(b"\x01\x02kkjunk", **PLACE)


def test_an_opened_secret_is_forgotten_at_the_next_look(opener: Opener) -> None:
    held, sealed = HeldVault(opener.open, opener.clock), opener.open().seal(KEY, **PLACE)
    first = held.unseal(sealed, **PLACE)

    assert held.unseal(sealed, **PLACE) is first
    opener.now = 1.0
    assert held.unseal(sealed, **PLACE) is not first


def test_what_it_was_told_to_remember_is_forgotten_at_the_next_look(opener: Opener) -> None:
    held = HeldVault(opener.open, opener.clock)
    held.recall("who")
    held.remember("who", "alice")

    assert held.recall("who") == "alice"
    opener.now = 1.0
    assert held.recall("who") is None


def test_in_an_event_loop_it_forgets_although_nobody_asks(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keys.held_vault._FORGET_SECONDS", 0.01)
    held = HeldVault(opener.open, opener.clock)

    async def rest() -> object:
        held.recall("who")
        held.remember("who", "alice")
        await asyncio.sleep(0.05)
        return held.recall("who")  # the clock stands still: no look

    assert asyncio.run(rest()) is None
    assert opener.opened == 1


def test_a_secret_is_opened_for_its_own_row_alone(opener: Opener) -> None:
    held, sealed = HeldVault(opener.open, opener.clock), opener.open().seal(KEY, **PLACE)
    held.unseal(sealed, **PLACE)

    with pytest.raises(Undecryptable):
        held.unseal(sealed, **(PLACE | {"row": UUID(int=8)}))
