"""The commands as a shell sees them: what is on stdout, what on stderr, and what is a failure."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from keys.client_keys import is_well_formed
from keys.keyring import Keyring
from keys.models import Account, AuditEvent, Client, MasterKey, OpenRouterKey
from keys.sealing import get_vault

pytestmark = pytest.mark.django_db

ONE, TWO = "sk-or-v1-test-command-0001", "sk-or-v1-test-command-0002"


def run(*arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command(*arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def feed(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return feed


def test_create_client_prints_the_key_alone_on_stdout() -> None:
    out, err = run("create_client", "claude code")
    client_key = out.removesuffix("\n")
    assert is_well_formed(client_key)
    assert client_key not in err
    assert Client.objects.get(digest=get_vault().client_digest(client_key)).name == "claude code"


def test_create_client_takes_a_scope_and_an_expiry() -> None:
    run("create_client", "monitoring", "--scope", "stats", "--expires", "2999-01-31")
    client = Client.objects.get()
    assert client.scopes == "messages stats"
    assert client.expires_at.isoformat() == "2999-01-31T00:00:00+00:00"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("2999-01-31T12:30:00Z", "2999-01-31T12:30:00+00:00"),
        ("2999-01-31T12:30", "2999-01-31T12:30:00+00:00"),
        ("2999-01-31T12:30:00+02:00", "2999-01-31T10:30:00+00:00"),
    ],
)
def test_an_expiry_without_a_zone_is_utc(text: str, stored: str) -> None:
    run("create_client", "bob", "--expires", text)
    assert Client.objects.get().expires_at.isoformat() == stored


@pytest.mark.parametrize("text", ["tomorrow", "2999-02-31", "2999-01-31T25:00:00Z", "2020-01-01"])
def test_an_expiry_that_can_not_be_understood_or_is_over_creates_nothing(text: str) -> None:
    with pytest.raises(CommandError):
        run("create_client", "bob", "--expires", text)
    assert not Client.objects.exists()


def test_a_second_client_of_the_same_name_is_refused_in_one_sentence() -> None:
    run("create_client", "bob")
    with pytest.raises(CommandError, match=r"^There is a client named bob already: choose another name\.$"):
        run("create_client", "bob")


@pytest.mark.parametrize(
    "command", [["create_client", "bob"], ["import_keys", "-"], ["add_master_key"], ["rewrap_secrets"]], ids=str
)
def test_no_command_works_with_the_wrong_keyring(keyring: Keyring, stdin, command: list[str]) -> None:
    stdin(ONE.encode())
    MasterKey.objects.create(key_id="mk-elsewhere", check_value="0" * 64, active=True)
    with pytest.raises(CommandError, match="lacks master key mk-elsewhere"):
        run(*command)
    assert not Client.objects.exists()
    assert not OpenRouterKey.objects.exists()


def test_a_missing_keyring_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    settings.OPENSVM_KEYRING = tmp_path / "gone.json"
    with pytest.raises(CommandError, match=r"gone\.json is missing"):
        run("create_client", "bob")


def test_keys_are_imported_from_a_file_and_never_printed(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"\ufeff{ONE}\n{TWO}, {ONE}\n")
    out, err = run("import_keys", str(file), "--account", "acme", "--name-pattern", "prod-{n}")
    assert out == "Added prod-1 (...0001).\nAdded prod-2 (...0002).\n2 added, 0 skipped, 0 refused.\n"
    assert ONE not in out + err
    assert set(OpenRouterKey.objects.values_list("account__name", "from_environment")) == {("acme", False)}
    assert set(AuditEvent.objects.values_list("actor", flat=True)) == {"command line"}


def test_keys_are_imported_from_stdin(stdin) -> None:
    stdin(f"{ONE}\r\n".encode())
    out, _ = run("import_keys", "-")
    assert out.startswith("Added key-1 (...0001).")


def test_keys_are_imported_from_the_environment_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", ONE)
    monkeypatch.setenv("OPENROUTER_API_KEYS", TWO)
    out, _ = run("import_keys")
    assert out.startswith("Added env-1 (...0001).\nAdded env-2 (...0002).")
    assert set(OpenRouterKey.objects.values_list("from_environment", flat=True)) == {True}


def test_known_and_bad_entries_are_told_and_bad_ones_fail_the_command(stdin, new_key) -> None:
    new_key(ONE, name="prod-1")
    stdin(f"{ONE},planted secret\xff,{TWO}".encode("latin-1"))
    out = io.StringIO()
    with pytest.raises(CommandError, match="2 of 4 entries were refused"):
        call_command("import_keys", "-", stdout=out)
    assert out.getvalue() == (
        "Added key-1 (...0002).\n"
        "Skipped prod-1 (...0001): it is in the pool already, active.\n"
        "Refused stdin, entry 2: it is not an OpenRouter key (sk-or-v1-…).\n"
        "Refused stdin, entry 3: it is not an OpenRouter key (sk-or-v1-…).\n"
        "1 added, 1 skipped, 2 refused.\n"
    )


def test_nothing_to_import_is_told_with_what_to_do() -> None:
    with pytest.raises(CommandError, match="set OPENROUTER_API_KEYS"):
        run("import_keys")


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="can't be read: No such file"):
        run("import_keys", str(tmp_path / "gone.txt"))


def test_a_bad_pattern_imports_nothing_and_makes_no_account(stdin) -> None:
    stdin(ONE.encode())
    with pytest.raises(CommandError, match=r"must hold \{n\} once"):
        run("import_keys", "-", "--account", "acme", "--name-pattern", "prod")
    assert not Account.objects.exists()


def test_a_master_key_is_added_and_secrets_rewrapped(keyring: Keyring, new_key) -> None:
    key = new_key(ONE)
    out, _ = run("add_master_key")
    added = MasterKey.objects.get(active=True).key_id
    assert added != keyring.active_id
    assert f"Added master key {added}" in out
    assert "back up the keyring" in out
    assert run("rewrap_secrets")[0] == f"Secrets sealed anew with master key {added}: 1.\n"
    key.refresh_from_db()
    assert get_vault().key_id_of(key.secret) == added


def test_rewrapping_fails_when_a_secret_can_not_be_opened(keyring: Keyring, new_key) -> None:
    key = new_key(name="damaged")
    OpenRouterKey.objects.filter(pk=key.pk).update(secret=b"\x01x")
    err = io.StringIO()
    with pytest.raises(CommandError, match=r"can't be opened .*: 1\."):
        call_command("rewrap_secrets", stdout=io.StringIO(), stderr=err)
    assert "damaged (..." in err.getvalue()
