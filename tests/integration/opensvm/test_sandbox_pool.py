"""What a sandbox is filled with."""

from __future__ import annotations

from pathlib import Path

import pytest

from keys.models import Client, OpenRouterKey
from keys.services.audit import Actor
from keys.services.clients import revoke_client
from opensvm.sandbox.keys import read_keys_file
from opensvm.serve import sandbox_pool

pytestmark = pytest.mark.django_db


def test_it_gets_three_keys_that_its_upstream_knows(tmp_path: Path) -> None:
    sandbox_pool.fill(tmp_path)
    known = read_keys_file(tmp_path / sandbox_pool.KEYS_FILE)
    assert len(known) == 3
    assert {key.tail for key in OpenRouterKey.objects.all()} == {f"...{text[-4:]}" for text in known}


def test_filling_it_again_changes_nothing(tmp_path: Path) -> None:
    client_key = sandbox_pool.fill(tmp_path)
    assert sandbox_pool.fill(tmp_path) == client_key
    assert (OpenRouterKey.objects.count(), Client.objects.count()) == (3, 1)


def test_a_revoked_client_is_replaced(tmp_path: Path) -> None:
    client_key = sandbox_pool.fill(tmp_path)
    revoke_client(Client.objects.get().pk, actor=Actor("test"))
    assert sandbox_pool.fill(tmp_path) != client_key
    assert Client.objects.filter(revoked_at=None).count() == 1


def test_a_client_key_of_another_database_is_replaced(tmp_path: Path) -> None:
    (tmp_path / sandbox_pool.CLIENT_FILE).write_text("sk-ant-api03-test\n")
    assert sandbox_pool.fill(tmp_path) != "sk-ant-api03-test"
