"""The keyring file: private, never overwritten, never shortened, and clear about what is wrong with it."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from keys.keyring import Keyring, KeyringError, add_master_key_to_file, create_keyring, read_keyring


def write(path: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def document_with(**changes: Any) -> str:
    key = base64.b64encode(b"k" * 32).decode()
    valid = {"version": 1, "index_key": key, "master_keys": [{"id": "mk-1", "key": key, "created_at": "2026-01-01"}]}
    return json.dumps(valid | changes)


def test_a_new_keyring_reads_back_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "keyring.json"
    made = create_keyring(path)
    assert read_keyring(path) == made
    assert made.ids == (made.active_id,)


def test_a_new_keyring_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        create_keyring(tmp_path / "keyring.json")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "keyring.json").stat().st_mode) == 0o600


def test_an_existing_keyring_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    first = create_keyring(path)
    with pytest.raises(KeyringError, match="never overwritten"):
        create_keyring(path)
    assert read_keyring(path) == first
    assert [item.name for item in tmp_path.iterdir()] == ["keyring.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666], ids=oct)
def test_a_keyring_that_others_can_open_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "keyring.json", document_with(), mode)
    with pytest.raises(KeyringError, match=f"chmod 600 {path}"):
        read_keyring(path)


def test_a_missing_keyring_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match=r"gone\.json is missing"):
        read_keyring(tmp_path / "gone.json")


def test_a_folder_in_the_place_of_the_keyring_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(KeyringError, match="can't be read"):
        read_keyring(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        ("[]", "is not a JSON object"),
        (document_with(version=2), "has version 2"),
        (document_with(version=None), "has version None"),
        (document_with(master_keys=[]), "holds no master key"),
        (document_with(master_keys="mk-1"), "holds no master key"),
        (document_with(master_keys=[7]), "no id in master key 1"),
        (document_with(master_keys=[{"id": "a/b", "key": "QQ=="}]), "no valid id in master key 1"),
        (document_with(master_keys=[{"id": "mk-1"}]), "lacks the master key mk-1"),
        (document_with(master_keys=[{"id": "mk-1", "key": "QUJD"}]), "master key mk-1 of 3 instead of 32 bytes"),
        (document_with(master_keys=[{"id": "mk-1", "key": "not base64!"}]), "damaged master key mk-1"),
        (document_with(index_key=None), "lacks the index key"),
        (document_with(index_key="QUJD"), "index key of 3"),
    ],
)
def test_a_damaged_keyring_is_refused_with_what_is_wrong(tmp_path: Path, content: str | bytes, complaint: str) -> None:
    path = write(tmp_path / "keyring.json", content)
    with pytest.raises(KeyringError, match=complaint):
        read_keyring(path)


def test_the_same_id_twice_is_refused(tmp_path: Path) -> None:
    row = json.loads(document_with())["master_keys"][0]
    path = write(tmp_path / "keyring.json", document_with(master_keys=[row, row]))
    with pytest.raises(KeyringError, match="id twice"):
        read_keyring(path)


def test_an_added_master_key_is_the_active_one_and_the_old_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    first = create_keyring(path)
    second = add_master_key_to_file(path)
    assert second.ids == (first.active_id, second.active_id)
    assert second.entries[0] == first.entries[0]
    assert second.index_key == first.index_key
    assert read_keyring(path) == second
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_master_keys_that_are_added_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    create_keyring(path)
    threads = [threading.Thread(target=add_master_key_to_file, args=[path]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_keyring(path).ids) == 9


def test_adding_to_a_linked_keyring_keeps_the_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    create_keyring(real)
    link.symlink_to(real)
    added = add_master_key_to_file(link)
    assert link.is_symlink()
    assert read_keyring(real) == added


def test_the_text_of_a_keyring_shows_ids_only(tmp_path: Path) -> None:
    keyring = create_keyring(tmp_path / "keyring.json")
    text = repr(keyring)
    assert keyring.active_id in text
    assert repr(keyring.entries[0].key) not in text
    assert repr(keyring.index_key) not in text


def test_derived_texts_differ_by_purpose_and_keyring_and_outlive_master_keys(tmp_path: Path) -> None:
    keyring = create_keyring(tmp_path / "one.json")
    other = create_keyring(tmp_path / "two.json")
    text = keyring.derive_text("django-secret-key")
    assert len(text) == 64
    assert text not in {keyring.derive_text("another"), other.derive_text("django-secret-key")}
    assert add_master_key_to_file(tmp_path / "one.json").derive_text("django-secret-key") == text


def test_a_subkey_of_an_unknown_master_key_is_an_error(tmp_path: Path) -> None:
    keyring: Keyring = create_keyring(tmp_path / "keyring.json")
    with pytest.raises(KeyError):
        keyring.master_subkey("mk-unknown", "seal")
