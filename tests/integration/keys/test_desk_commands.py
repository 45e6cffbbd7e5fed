"""`keys`, `clients` and `usage` as a script sees them: output, exit codes, and no secret anywhere."""

from __future__ import annotations

import csv
import io
import json
import sys
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from keys.client_keys import is_well_formed
from keys.management.commands.keys import Command as KeysCommand
from keys.management.progress import Progress
from keys.management.tables import in_columns
from keys.models import AuditEvent, Client, CostSource, InFlight, OpenRouterKey, RequestLog
from keys.sealing import get_vault
from keys.services.audit import Actor
from keys.services.clients import create_client
from tests.sandbox import SandboxFixture

pytestmark = pytest.mark.django_db

TEXT, NEXT = "sk-or-v1-test-command-desk-0001", "sk-or-v1-test-command-desk-0002"


def run(*arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command(*arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def fail(*arguments: str) -> tuple[int, str]:
    """The exit code and the sentence."""
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    return caught.value.returncode, str(caught.value)


def state_of(name: str) -> str:
    return OpenRouterKey.objects.get(name=name).state


@pytest.fixture
def openrouter(sandbox: SandboxFixture, settings: Settings) -> SandboxFixture:
    settings.OPENROUTER_BASE_URL = sandbox.base_url
    sandbox.add_key(TEXT, name="prod")
    sandbox.add_key(NEXT, name="next")
    return sandbox


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def feed(content: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))

    return feed


@pytest.fixture
def prod(openrouter: SandboxFixture, stdin: Callable[[str], None]) -> OpenRouterKey:
    stdin(TEXT)
    run("keys", "add", "prod", "--account", "acme", "--tier", "2")
    stdin(NEXT)
    return OpenRouterKey.objects.get()


# -- keys
def test_a_key_is_added_from_stdin_and_checked(prod: OpenRouterKey) -> None:
    assert (prod.tier, prod.account and prod.account.name, prod.check_error) == (2, "acme", "")
    assert prod.checked_at is not None
    assert set(AuditEvent.objects.values_list("actor", flat=True)) == {"command line"}


def test_a_refused_key_is_stored_and_exits_3(openrouter: SandboxFixture, stdin: Callable[[str], None]) -> None:
    stdin("sk-or-v1-test-unknown")
    assert fail("keys", "add", "work") == (3, "1 of 1 checks were not good.")
    assert state_of("work") == "invalid"


def test_what_is_no_key_exits_1_and_is_not_repeated(stdin: Callable[[str], None]) -> None:
    stdin("hunter2")
    code, sentence = fail("keys", "add", "work")
    assert code == 1
    assert "not an OpenRouter key" in sentence
    assert "hunter2" not in sentence


def test_the_list_says_why_a_key_is_not_used(prod: OpenRouterKey) -> None:
    run("keys", "disable", "prod")
    out, _ = run("keys", "list")
    assert out.splitlines()[0].split() == [
        "NAME",
        "KEY",
        "STATE",
        "WHY",
        "ACCOUNT",
        "TIER",
        "REQUESTS",
        "COST",
        "TODAY",
    ]
    assert "...0001" in out
    assert "by an operator" in out
    (line,) = json.loads(run("keys", "list", "--json")[0])
    assert (line["name"], line["state"], line["account"], line["cost_today"]) == ("prod", "disabled", "acme", "$0.00")
    assert json.loads(run("keys", "list", "--json", "--state", "active")[0]) == []


def test_all_keys_are_checked_and_no_answer_exits_4(prod: OpenRouterKey, openrouter: SandboxFixture) -> None:
    assert "OpenRouter accepts this key" in run("keys", "check")[0]
    openrouter.refuse_connections()
    assert fail("keys", "check", "prod") == (4, "1 of 1 checks were not good.")


def test_what_is_not_legal_is_told_the_rest_is_done_and_it_exits_1(prod: OpenRouterKey) -> None:
    run("keys", "disable", "prod")
    with pytest.raises(CommandError, match=r"1 of 2 were refused\.") as caught:
        run("keys", "enable", "prod", "prod")
    assert caught.value.returncode == 1
    assert state_of("prod") == "active"


def test_retire_wants_a_yes(prod: OpenRouterKey) -> None:
    assert fail("keys", "retire", "prod")[0] == 1
    assert state_of("prod") == "active"
    assert "Retired prod" in run("keys", "retire", "prod", "--yes")[0]
    assert state_of("prod") == "retired"


def test_an_unknown_name_is_told_with_where_to_look() -> None:
    assert fail("keys", "disable", "nobody") == (1, "There is no key 'nobody': `keys list` shows their names.")


def test_a_rotation_in_one_command(prod: OpenRouterKey) -> None:
    out, _ = run("keys", "rotate", "prod", "-", "--finish")
    assert "Retired prod (...0001); prod.2 (...0002) has its place." in out
    assert (state_of("prod"), state_of("prod.2")) == ("retired", "active")
    assert NEXT not in out


def test_a_rotation_in_steps_and_given_up(prod: OpenRouterKey) -> None:
    out, _ = run("keys", "rotate", "prod", "--new-name", "spare")
    assert "Both serve. Go on with: keys rotate prod --finish" in out
    run("keys", "rotate", "prod", "--cancel")
    assert (state_of("prod"), state_of("spare")) == ("active", "disabled")
    assert fail("keys", "rotate", "prod", "--cancel")[0] == 1


def test_a_successor_that_is_refused_exits_3_and_the_old_key_goes_on(
    prod: OpenRouterKey, stdin: Callable[[str], None]
) -> None:
    stdin("sk-or-v1-test-unknown")
    assert fail("keys", "rotate", "prod", "--finish")[0] == 3
    assert (state_of("prod"), state_of("prod.2")) == ("active", "pending")


def test_finish_waits_for_open_requests_and_exits_5_when_it_takes_too_long(prod: OpenRouterKey) -> None:
    request = InFlight.objects.create(id=uuid.uuid4(), client_id=uuid.uuid4(), key=prod, started_at=timezone.now())
    code, sentence = fail("keys", "rotate", "prod", "--finish", "--timeout", "0")
    assert code == 5
    assert "still answers 1 requests" in sentence
    assert state_of("prod") == "draining"
    request.delete()
    assert "Retired prod" in run("keys", "rotate", "prod", "--finish")[0]


def test_a_command_line_that_makes_no_sense_exits_2() -> None:
    command = KeysCommand()
    with pytest.raises(SystemExit) as caught:
        command.run_from_argv(["manage.py", "keys", "explode"])
    assert caught.value.code == 2


# -- clients
def test_a_client_is_created_replaced_and_revoked() -> None:
    out, err = run("clients", "create", "phone", "--scope", "stats", "--expires", "2999-01-31")
    assert is_well_formed(out.strip())
    assert out.strip() not in err
    out, err = run("clients", "replace", "phone", "--grace", "7d")
    new = Client.objects.get(digest=get_vault().client_digest(out.strip()))
    assert (new.name, new.scopes) == ("phone.2", "messages stats")
    assert "phone is accepted until" in err
    assert "Revoked phone.2" in run("clients", "revoke", "phone.2")[0]
    assert fail("clients", "revoke", "phone.2")[0] == 1
    listed = {line["name"]: line["state"] for line in json.loads(run("clients", "list", "--json")[0])}
    assert listed == {"phone": "valid", "phone.2": "revoked"}
    assert "phone.2" in run("clients", "list")[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("clients", "replace", "phone", "--grace", "soon"),
        ("clients", "replace", "nobody"),
        ("clients", "create", "phone"),
        ("clients", "create", "new", "--expires", "tomorrow"),
        ("usage", "--since", "yesterday"),
        ("usage", "--since", "2020-01-02", "--until", "2020-01-01"),
        ("usage", "--since", "40d", "--by", "hour"),
        ("usage", "--key", "nobody"),
        ("usage", "--account", "nobody"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_exits_1_with_a_sentence(arguments: tuple[str, ...]) -> None:
    create_client(actor=Actor("alice"), name="phone")
    code, sentence = fail(*arguments)
    assert code == 1
    assert sentence.endswith(".")


# -- usage
@pytest.fixture
def request_row(prod: OpenRouterKey) -> RequestLog:
    _, client = create_client(actor=Actor("alice"), name="phone")
    now = timezone.now()
    facts: dict[str, Any] = {"model_asked": "m", "model_sent": "maker/m", "status": 200, "request_id": "req_1"}
    return RequestLog.objects.create(
        id=uuid.uuid4(), client=client, key=prod, cost_nano=1_500_000_000, cost_source=CostSource.REPORTED,
        input_tokens=1200, output_tokens=34, created_at=now, recorded_at=now, **facts,
    )  # fmt: skip


def test_usage_is_a_table_csv_and_json_of_the_same_numbers(request_row: RequestLog) -> None:
    table, _ = run("usage", "--by", "client", "--since", "7d")
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["phone", "total"]
    assert table.splitlines()[1].split() == ["phone", "1", "0", "1,200", "34", "$1.50", "0"]
    lines = list(csv.DictReader(io.StringIO(run("usage", "--by", "client", "--csv")[0])))
    assert [(line["client"], line["cost_usd"]) for line in lines] == [
        ("phone", "1.500000000"),
        ("total", "1.500000000"),
    ]
    assert json.loads(run("usage", "--by", "client", "--json")[0])["totals"]["cost_usd"] == "1.500000000"


def test_a_rotated_key_is_one_line_when_asked_for(request_row: RequestLog, prod: OpenRouterKey) -> None:
    run("keys", "rotate", "prod", "--finish")
    second = OpenRouterKey.objects.get(name="prod.2")
    RequestLog.objects.filter(pk=request_row.pk).update(key=second)
    apart, joined = (json.loads(run("usage", "--json", *more)[0])["lines"] for more in ((), ("--joined",)))
    assert [line["key"] for line in apart] == [str(second.pk)]
    assert [line["key"] for line in joined] == [str(prod.pk)]


# -- what they print with
class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_and_cleared_at_the_end() -> None:
    terminal = FakeTerminal()
    progress = Progress(terminal, "Checking", 4)
    progress.show(2, "prod")
    assert terminal.getvalue() == f"\rChecking [{'#' * 15}{'.' * 15}] 2/4 prod"
    progress.end()
    assert terminal.getvalue().endswith(f"\r{' ' * 50}\r")


def test_progress_goes_over_a_list_and_gives_all_of_it() -> None:
    terminal = FakeTerminal()
    assert list(Progress(terminal, "Importing", 2).over("ab")) == ["a", "b"]
    assert "1/2" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


def test_progress_leaves_a_pipe_alone() -> None:
    pipe = io.StringIO()
    Progress(pipe, "Checking", 4).show(2)
    assert pipe.getvalue() == ""


def test_columns_are_as_wide_as_they_must_be() -> None:
    assert in_columns(("NAME", "N"), [("a", "1"), ("bcdef", "20")], right=(1,)) == [
        "NAME    N",
        "a       1",
        "bcdef  20",
    ]
