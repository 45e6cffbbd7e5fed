"""Sealed secrets give nothing away, and a ciphertext opens only in its own place, unchanged, with its own key."""

from __future__ import annotations

import copy
import hmac
import json
import os
import pickle
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from keys.keyring import Keyring, KeyringError, MasterKeyEntry, add_master_key_to_file, create_keyring
from keys.sealing import KeyedDigest, Sealed, Undecryptable, Vault, get_vault

SECRET = "sk-or-v1-test-planted-0001"
ROW = UUID(int=1)
OLD = MasterKeyEntry("mk-old", "2026-01-01T00:00:00+00:00", b"o" * 32)
NEW = MasterKeyEntry("mk-new", "2026-02-01T00:00:00+00:00", b"n" * 32)
KEYRING = Keyring((OLD, NEW), b"i" * 32)
VAULT = Vault(KEYRING)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


def seal(secret: str = SECRET, vault: Vault = VAULT, row: UUID = ROW) -> bytes:
    return vault.seal(Sealed(secret), table="keys", column="secret", row=row)


def unseal(ciphertext: bytes, vault: Vault = VAULT) -> str:
    return vault.unseal(ciphertext, table="keys", column="secret", row=ROW).reveal()


@pytest.mark.parametrize(
    "show", [repr, str, "{}".format, "{:>30}".format, "%s".__mod__], ids=lambda show: repr(show)[:20]
)
def test_a_sealed_secret_is_masked_in_every_text(show) -> None:
    assert SECRET not in show(Sealed(SECRET))


@pytest.mark.parametrize(
    "leak",
    [
        copy.copy,
        copy.deepcopy,
        pickle.dumps,
        json.dumps,
        hash,
        dict,
        list,
        vars,
        Sealed.__getstate__,
        Sealed.__reduce__,
    ],
    ids=lambda leak: leak.__name__,
)
def test_a_sealed_secret_refuses_to_be_copied_or_taken_apart(leak) -> None:
    with pytest.raises(TypeError) as refusal:
        leak(Sealed(SECRET))
    assert SECRET not in str(refusal.value)


def test_sealed_secrets_can_be_compared_with_each_other_only() -> None:
    assert Sealed(SECRET) == Sealed(SECRET)
    assert Sealed(SECRET) != Sealed(SECRET + "x")
    assert Sealed(SECRET) != SECRET


def test_what_was_sealed_long_ago_still_opens() -> None:
    """By the first version: neither the format nor the place that a ciphertext is bound to ever changes."""
    sealed = (
        "01066d6b2d6f6c646e6e6e6e6e6e6e6e6e6e6e6e14ff177a475d947edd6060e722e3ad9c232e6970c11d7038"
        "f4a439b470eab8a64209ea0a041669a04e65"
    )
    assert unseal(bytes.fromhex(sealed)) == SECRET


@given(TEXTS)
def test_what_is_sealed_opens_as_it_was(secret: str) -> None:
    assert unseal(seal(secret)) == secret


@given(st.data())
def test_a_ciphertext_with_any_change_does_not_open(data: st.DataObject) -> None:
    sealed = bytearray(seal())
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Undecryptable) as refusal:
        unseal(bytes(sealed))
    assert SECRET not in str(refusal.value)


@given(st.binary(max_size=200))
def test_bytes_of_strangers_do_not_open(noise: bytes) -> None:
    with pytest.raises(Undecryptable):
        unseal(noise)


@given(st.integers(0, len(seal()) - 1))
def test_a_ciphertext_that_is_cut_short_does_not_open(length: int) -> None:
    with pytest.raises(Undecryptable):
        unseal(seal()[:length])


@pytest.mark.parametrize(
    "place",
    [
        {"table": "other", "column": "secret", "row": ROW},
        {"table": "keys", "column": "other", "row": ROW},
        {"table": "keys", "column": "secret", "row": UUID(int=2)},
        {"table": "keyssecret", "column": "", "row": ROW},
    ],
    ids=["another table", "another column", "another row", "joined names"],
)
def test_a_ciphertext_does_not_open_in_another_place(place) -> None:
    with pytest.raises(Undecryptable, match="another place"):
        VAULT.unseal(seal(), **place)


def test_the_newest_master_key_seals_and_the_older_ones_still_open() -> None:
    by_old = seal(vault=Vault(Keyring((OLD,), b"i" * 32)))
    assert VAULT.key_id_of(by_old) == "mk-old"
    assert unseal(by_old) == SECRET
    assert VAULT.key_id_of(seal()) == "mk-new"


def test_a_keyring_without_the_master_key_names_what_is_missing() -> None:
    with pytest.raises(Undecryptable, match="mk-new, which the keyring lacks"):
        unseal(seal(), vault=Vault(Keyring((OLD,), b"i" * 32)))


def test_another_key_under_the_same_id_does_not_open() -> None:
    impostor = MasterKeyEntry("mk-new", NEW.created_at, b"x" * 32)
    with pytest.raises(Undecryptable):
        unseal(seal(), vault=Vault(Keyring((impostor,), b"i" * 32)))


def test_a_ciphertext_holds_no_plaintext_and_is_never_the_same_twice() -> None:
    assert SECRET.encode() not in seal()
    assert seal() != seal()


def test_an_erased_secret_is_an_error_and_not_an_empty_text() -> None:
    with pytest.raises(Undecryptable, match="erased"):
        unseal(b"")


def test_digests_outlive_master_keys_and_differ_by_purpose_and_index_key() -> None:
    digest = VAULT.fingerprint(SECRET)
    assert len(digest) == 64
    assert digest == Vault(Keyring((OLD,), b"i" * 32)).fingerprint(SECRET)
    assert digest != VAULT.client_digest(SECRET)
    assert digest != Vault(Keyring((OLD,), b"j" * 32)).fingerprint(SECRET)


@given(st.binary(max_size=64), TEXTS)
def test_a_keyed_digest_is_the_standards_hmac(key: bytes, text: str) -> None:
    digest = KeyedDigest(key)
    expected = hmac.new(key, text.encode(), "sha256").hexdigest()
    assert [digest.of(text), digest.of(text)] == [expected] * 2, "also when it is asked again"


def test_a_key_that_hmac_would_have_to_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        KeyedDigest(b"k" * 65)


def test_the_check_value_tells_master_and_index_keys_apart() -> None:
    value = VAULT.check_value("mk-old")
    assert value != VAULT.check_value("mk-new")
    assert value != Vault(Keyring((OLD,), b"j" * 32)).check_value("mk-old")


def test_the_process_sees_a_master_key_that_is_added_while_it_runs(tmp_path: Path, settings: Settings) -> None:
    settings.OPENSVM_KEYRING = tmp_path / "keyring.json"
    create_keyring(settings.OPENSVM_KEYRING)
    before = get_vault()
    assert get_vault() is before
    added = add_master_key_to_file(settings.OPENSVM_KEYRING)
    assert get_vault().keyring.active_id == added.active_id


def test_a_keyring_that_vanishes_while_the_service_runs_leaves_it_serving(tmp_path: Path, settings: Settings) -> None:
    settings.OPENSVM_KEYRING = tmp_path / "keyring.json"
    create_keyring(settings.OPENSVM_KEYRING)
    before = get_vault()
    os.unlink(settings.OPENSVM_KEYRING)
    assert get_vault() is before


def test_without_a_keyring_there_is_no_vault(tmp_path: Path, settings: Settings) -> None:
    settings.OPENSVM_KEYRING = tmp_path / "never.json"
    with pytest.raises(KeyringError, match="missing"):
        get_vault()
