"""An import is shown before it is carried out, once, by the one who pasted it; its text lies sealed until then."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from django.utils import timezone

from keys.errors import ImportGone, InvalidField
from keys.models import Account, AuditEvent, KeyImport, OpenRouterKey
from keys.sealing import Sealed
from keys.services import prepared_imports
from keys.services.audit import Actor
from keys.services.key_imports import Plan
from keys.services.keys import retire_key

if TYPE_CHECKING:
    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db

ONE, TWO = "sk-or-v1-test-import-0001", "sk-or-v1-test-import-0002"


@pytest.fixture
def olivia(django_user_model: type[User]) -> Actor:
    return Actor("olivia", user_id=django_user_model.objects.create_user("olivia").pk)


@pytest.fixture
def oscar(django_user_model: type[User]) -> Actor:
    return Actor("oscar", user_id=django_user_model.objects.create_user("oscar").pk)


def prepare(actor: Actor, text: str, pattern: str = "prod-{n}", account: Account | None = None) -> KeyImport:
    return prepared_imports.prepare_import(
        actor=actor, text=Sealed(text), source="the pasted text", name_pattern=pattern, account=account
    )


def test_the_plan_says_what_is_added_skipped_and_refused(olivia: Actor, new_key: Callable[..., OpenRouterKey]) -> None:
    new_key(TWO, name="prod-1")
    prepared = prepare(olivia, f"{ONE}\n{TWO}, nonsense\n{ONE}")
    _, plan = prepared_imports.plan_import(prepared.pk, actor=olivia)
    assert [(entry.plan, entry.tail, entry.name) for entry in plan] == [
        (Plan.ADD, "...0001", "prod-2"),
        (Plan.KNOWN, "...0002", "prod-1, active"),
        (Plan.REFUSED, "", ""),
        (Plan.REPEATED, "...0001", ""),
    ]
    assert plan[2].place == "the pasted text, entry 3"
    assert not OpenRouterKey.objects.filter(name="prod-2").exists()


def test_carrying_it_out_does_what_the_plan_said_and_forgets_the_text(olivia: Actor) -> None:
    account = Account.objects.create(name="acme")
    prepared = prepare(olivia, f"{ONE} {TWO} nonsense", account=account)
    report = prepared_imports.carry_out_import(prepared.pk, actor=olivia)
    assert [str(key) for key in report.added] == ["prod-1 (...0001)", "prod-2 (...0002)"]
    assert report.refused == ("the pasted text, entry 3",)
    assert set(OpenRouterKey.objects.values_list("account__name", flat=True)) == {"acme"}
    assert not KeyImport.objects.exists()
    assert AuditEvent.objects.get(action="import.confirmed").after == {"entries": 3, "pattern": "prod-{n}"}


def test_the_text_is_stored_sealed_alone(olivia: Actor) -> None:
    prepare(olivia, ONE)
    stored = KeyImport.objects.values().get()
    assert ONE.encode() not in bytes(stored["secret"])
    assert ONE not in str(stored) + str(list(AuditEvent.objects.values()))


def test_a_retired_key_is_known_and_not_added_again(olivia: Actor, new_key: Callable[..., OpenRouterKey]) -> None:
    retire_key(new_key(ONE, name="old").pk, actor=olivia)
    _, plan = prepared_imports.plan_import(prepare(olivia, ONE).pk, actor=olivia)
    assert (plan[0].plan, plan[0].name) == (Plan.KNOWN, "old, retired")


def test_it_is_carried_out_once(olivia: Actor) -> None:
    prepared = prepare(olivia, ONE)
    prepared_imports.carry_out_import(prepared.pk, actor=olivia)
    with pytest.raises(ImportGone):
        prepared_imports.carry_out_import(prepared.pk, actor=olivia)
    assert OpenRouterKey.objects.count() == 1


@pytest.mark.parametrize("step", [prepared_imports.plan_import, prepared_imports.carry_out_import])
def test_nobody_else_sees_it_and_a_quarter_of_an_hour_later_nobody(
    olivia: Actor, oscar: Actor, step: Callable[..., object]
) -> None:
    prepared = prepare(olivia, ONE)
    with pytest.raises(ImportGone):
        step(prepared.pk, actor=oscar)
    KeyImport.objects.update(created_at=timezone.now() - dt.timedelta(minutes=15))
    with pytest.raises(ImportGone):
        step(prepared.pk, actor=olivia)
    assert prepared_imports.drop_old_imports(timezone.now()) == 1
    assert not OpenRouterKey.objects.exists()


def test_what_is_given_up_is_gone(olivia: Actor) -> None:
    prepared = prepare(olivia, ONE)
    prepared_imports.give_up_import(prepared.pk, actor=olivia)
    assert not KeyImport.objects.exists()
    with pytest.raises(ImportGone):
        prepared_imports.give_up_import(uuid.uuid4(), actor=olivia)


@pytest.mark.parametrize(
    ("text", "pattern", "words"),
    [
        ("", "prod-{n}", "no key in it"),
        (" , \n", "prod-{n}", "no key in it"),
        ("x " * 1001, "prod-{n}", "at most 1,000"),
        (ONE, "prod", "must hold {n} once"),
        (ONE, "{n}{n}", "must hold {n} once"),
        (ONE, "x" * 100 + "{n}", "at most 100"),
    ],
    ids=["nothing", "separators", "too many", "no number", "two numbers", "too long"],
)
def test_what_can_not_be_imported_is_refused_before_it_is_stored(
    olivia: Actor, text: str, pattern: str, words: str
) -> None:
    with pytest.raises(InvalidField, match=words):
        prepare(olivia, text, pattern)
    assert not KeyImport.objects.exists()
