"""Keyring and database belong together, and secrets move to a new master key while the service runs."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from django.db import connection
from pytest_django import Settings

from keys.errors import MasterKeyMismatch
from keys.keyring import Keyring, KeyringError, add_master_key_to_file, create_keyring, read_keyring
from keys.models import AuditEvent, MasterKey, OpenRouterKey
from keys.sealing import KEY_COLUMN, KEY_TABLE, get_vault
from keys.services.audit import Actor
from keys.services.keys import retire_key
from keys.services.master_keys import add_master_key, ensure_keyring, rewrap_secrets, verify_keyring

pytestmark = pytest.mark.django_db


def registered() -> dict[str, bool]:
    return dict(MasterKey.objects.values_list("key_id", "active"))


def text_of(key: OpenRouterKey) -> str:
    key.refresh_from_db()
    return get_vault().unseal(key.secret, table=KEY_TABLE, column=KEY_COLUMN, row=key.pk).reveal()


def test_a_fresh_database_takes_the_keyrings_master_key(keyring: Keyring) -> None:
    assert verify_keyring() == keyring
    assert registered() == {keyring.active_id: True}


def test_a_keyring_that_fits_is_only_looked_at(keyring: Keyring, django_assert_num_queries) -> None:
    verify_keyring()
    with django_assert_num_queries(1):
        verify_keyring()


def test_a_keyring_without_the_registered_key_is_refused_by_its_id(keyring: Keyring, settings: Settings) -> None:
    verify_keyring()
    settings.OPENSVM_KEYRING.unlink()
    create_keyring(settings.OPENSVM_KEYRING)
    with pytest.raises(MasterKeyMismatch, match=f"lacks master key {keyring.active_id}"):
        verify_keyring()
    assert registered() == {keyring.active_id: True}


def test_an_older_copy_of_the_keyring_is_refused(
    keyring: Keyring, settings: Settings, tmp_path: Path, alice: Actor
) -> None:
    old = tmp_path / "old.json"
    shutil.copy2(settings.OPENSVM_KEYRING, old)
    added = add_master_key(actor=alice)
    settings.OPENSVM_KEYRING = old
    with pytest.raises(MasterKeyMismatch, match=f"lacks master key {added}"):
        verify_keyring()


def test_another_key_under_a_registered_id_is_refused(keyring: Keyring) -> None:
    MasterKey.objects.create(key_id=keyring.active_id, check_value="0" * 64, active=True)
    with pytest.raises(MasterKeyMismatch, match=f"another key under the id {keyring.active_id}"):
        verify_keyring()


def test_a_missing_keyring_is_refused(settings: Settings, tmp_path: Path) -> None:
    settings.OPENSVM_KEYRING = tmp_path / "gone.json"
    with pytest.raises(KeyringError, match=r"gone\.json is missing"):
        verify_keyring()


def test_a_keyring_is_made_for_a_database_that_has_none(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keyring.json"
    made = ensure_keyring(path)
    assert read_keyring(path) == made
    assert ensure_keyring(path) == made


def test_no_keyring_is_made_for_a_database_that_is_sealed_with_another(keyring: Keyring, tmp_path: Path) -> None:
    verify_keyring()
    path = tmp_path / "second.json"
    with pytest.raises(MasterKeyMismatch, match=keyring.active_id):
        ensure_keyring(path)
    assert not path.exists()


def test_an_added_master_key_is_registered_active_and_audited(keyring: Keyring, alice: Actor) -> None:
    added = add_master_key(actor=alice)
    assert registered() == {keyring.active_id: False, added: True}
    assert get_vault().keyring.active_id == added
    assert AuditEvent.objects.filter(actor="alice", action="master_key.registered", object_id=added).exists()


def test_nothing_is_added_to_a_keyring_of_another_database(keyring: Keyring, settings: Settings, alice: Actor) -> None:
    MasterKey.objects.create(key_id="mk-elsewhere", check_value="0" * 64, active=True)
    with pytest.raises(MasterKeyMismatch, match="mk-elsewhere"):
        add_master_key(actor=alice)
    assert read_keyring(settings.OPENSVM_KEYRING) == keyring


def test_an_interrupted_addition_is_finished_at_the_next_start(keyring: Keyring, settings: Settings) -> None:
    verify_keyring()
    added = add_master_key_to_file(settings.OPENSVM_KEYRING)  # and then the power went
    verify_keyring()
    assert registered() == {keyring.active_id: False, added.active_id: True}


def test_rewrapping_moves_every_secret_to_the_newest_master_key(keyring: Keyring, new_key, alice: Actor) -> None:
    texts = {new_key(f"sk-or-v1-test-rewrap-{n}").pk: f"sk-or-v1-test-rewrap-{n}" for n in range(7)}
    added = add_master_key(actor=alice)
    report = rewrap_secrets(actor=alice, batch=3)
    assert (report.key_id, report.rewrapped, report.unopened) == (added, 7, ())
    for key in OpenRouterKey.objects.all():
        assert get_vault().key_id_of(key.secret) == added
        assert text_of(key) == texts[key.pk]


def test_rewrapping_again_changes_nothing(keyring: Keyring, new_key, alice: Actor) -> None:
    key = new_key()
    add_master_key(actor=alice)
    rewrap_secrets(actor=alice)
    key.refresh_from_db()
    assert rewrap_secrets(actor=alice).rewrapped == 0
    assert bytes(OpenRouterKey.objects.get().secret) == bytes(key.secret)


def test_rewrapping_leaves_retired_keys_empty(keyring: Keyring, new_key, alice: Actor) -> None:
    retire_key(new_key().pk, actor=alice)
    add_master_key(actor=alice)
    assert rewrap_secrets(actor=alice).rewrapped == 0
    assert bytes(OpenRouterKey.objects.get().secret) == b""


def test_a_secret_that_can_not_be_opened_is_reported_and_stays(keyring: Keyring, new_key, alice: Actor) -> None:
    damaged, whole = new_key(name="damaged"), new_key(name="whole")
    OpenRouterKey.objects.filter(pk=damaged.pk).update(secret=bytes(whole.secret))
    add_master_key(actor=alice)
    report = rewrap_secrets(actor=alice)
    assert report.rewrapped == 1
    assert [sentence.startswith("damaged (...") for sentence in report.unopened] == [True]
    damaged.refresh_from_db()
    assert bytes(damaged.secret) == bytes(whole.secret)


def test_a_key_that_is_added_after_the_rotation_is_sealed_with_the_new_master_key(
    keyring: Keyring, new_key, alice: Actor
) -> None:
    added = add_master_key(actor=alice)
    assert get_vault().key_id_of(new_key().secret) == added


@pytest.mark.django_db(transaction=True)
def test_secrets_open_all_the_time_while_they_are_rewrapped(keyring: Keyring, new_key, alice: Actor) -> None:
    for n in range(30):
        new_key(f"sk-or-v1-test-serving-{n}")
    opened: list[str] = []
    errors: list[Exception] = []
    is_done = threading.Event()

    def serve() -> None:
        try:
            while not is_done.is_set():
                opened.extend(text_of(key) for key in OpenRouterKey.objects.all())
        except Exception as exc:
            errors.append(exc)
        finally:
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for _ in range(3):
            add_master_key(actor=alice)
            assert rewrap_secrets(actor=alice, batch=4).rewrapped == 30
    finally:
        is_done.set()
        thread.join(timeout=20)
    assert errors == []
    assert len(opened) >= 30
