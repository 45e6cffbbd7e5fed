"""Imports: new keys are added, known ones left alone, bad entries named by their place and never by their text."""

from __future__ import annotations

import pytest

from keys.errors import InvalidField
from keys.models import Account, AuditEvent, OpenRouterKey
from keys.services.audit import Actor
from keys.services.environment_keys import import_environment_keys
from keys.services.key_imports import import_entries, read_entries
from keys.services.keys import disable_key, edit_key, retire_key

pytestmark = pytest.mark.django_db

ONE, TWO, THREE = (f"sk-or-v1-test-env-000{n}" for n in (1, 2, 3))


def load(single: str = "", several: str = ""):
    return import_environment_keys({"OPENROUTER_API_KEY": single, "OPENROUTER_API_KEYS": several, "HOME": "/root"})


def pool() -> list[tuple[str, str, str]]:
    return list(OpenRouterKey.objects.order_by("created_at").values_list("name", "tail", "state"))


def test_both_variables_are_united_in_order() -> None:
    report = load(ONE, f"{TWO},{ONE},{THREE}")
    assert pool() == [("env-1", "...0001", "active"), ("env-2", "...0002", "active"), ("env-3", "...0003", "active")]
    assert [str(key) for key in report.added] == ["env-1 (...0001)", "env-2 (...0002)", "env-3 (...0003)"]
    assert set(OpenRouterKey.objects.values_list("from_environment", flat=True)) == {True}
    assert set(AuditEvent.objects.values_list("actor", flat=True)) == {"environment"}


@pytest.mark.parametrize(
    "several",
    [f" {ONE} , {TWO} ", f"{ONE},,{TWO},", f"{ONE}\n{TWO}\n", f"{ONE},{ONE},{TWO}"],
    ids=["spaces", "empties", "lines", "duplicates"],
)
def test_the_list_is_trimmed_and_empties_and_duplicates_dropped(several: str) -> None:
    report = load("", several)
    assert [key.name for key in report.added] == ["env-1", "env-2"]
    assert report.refused == ()


def test_without_the_variables_nothing_happens() -> None:
    report = import_environment_keys({})
    assert (report.added, report.known, report.refused, report.missing) == ((), (), (), ())


def test_a_second_start_adds_nothing() -> None:
    load(ONE, TWO)
    events = AuditEvent.objects.count()
    report = load(ONE, TWO)
    assert report.added == ()
    assert [key.name for key in report.known] == ["env-1", "env-2"]
    assert AuditEvent.objects.count() == events


@pytest.mark.parametrize(("change", "state"), [(disable_key, "disabled"), (retire_key, "retired")])
def test_what_an_operator_disabled_or_retired_stays_so(alice: Actor, change, state: str) -> None:
    load(ONE)
    change(OpenRouterKey.objects.get().pk, actor=alice)
    report = load(ONE)
    assert pool() == [("env-1", "...0001", state)]
    assert [key.state for key in report.known] == [state]


def test_a_key_that_was_typed_in_is_known_by_its_fingerprint(new_key) -> None:
    new_key(ONE, name="prod-1")
    assert [key.name for key in load(ONE).known] == ["prod-1"]
    assert OpenRouterKey.objects.get().from_environment is False


def test_new_keys_take_the_next_free_number(new_key) -> None:
    new_key(name="env-1")
    new_key(name="env-3")
    load("", f"{ONE},{TWO}")
    assert [name for name, *_ in pool()][2:] == ["env-2", "env-4"]


def test_a_renamed_key_is_known_and_its_number_is_free(alice: Actor) -> None:
    load(ONE)
    edit_key(OpenRouterKey.objects.get().pk, actor=alice, name="prod", account=None, tier=1, note="")
    load(ONE, TWO)
    assert [name for name, *_ in pool()] == ["prod", "env-1"]


def test_a_key_taken_out_of_the_environment_stays_and_is_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    load(ONE, TWO)
    with caplog.at_level("WARNING", logger="opensvm"):
        report = load("", TWO)
    assert [str(key) for key in report.missing] == ["env-1 (...0001)"]
    assert [state for *_, state in pool()] == ["active", "active"]
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "env-1" in record.getMessage()
    assert "...0001" in record.getMessage()
    assert record.event == "import.missing"


def test_a_retired_key_and_a_typed_in_one_are_not_missed(new_key, alice: Actor) -> None:
    load(ONE)
    retire_key(OpenRouterKey.objects.get().pk, actor=alice)
    new_key(TWO)
    assert load().missing == ()


def test_a_bad_entry_is_skipped_and_named_by_its_place_never_by_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="opensvm"):
        report = load("planted-secret-1", f"{ONE},,sk-or-v1-planted%secret-2,{TWO}")
    assert report.refused == ("OPENROUTER_API_KEY, entry 1", "OPENROUTER_API_KEYS, entry 3")
    assert [key.name for key in report.added] == ["env-1", "env-2"]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [place in warning for place, warning in zip(report.refused, warnings, strict=True)] == [True, True]
    assert all("planted" not in str(vars(record)) for record in caplog.records)


def test_names_follow_the_pattern_and_keys_go_to_the_account(alice: Actor) -> None:
    account = Account.objects.create(name="acme")
    import_entries(read_entries(f"{ONE} {TWO}", "stdin"), actor=alice, name_pattern="prod-{n}-eu", account=account)
    assert [(key.name, key.account) for key in OpenRouterKey.objects.all()] == [
        ("prod-1-eu", account),
        ("prod-2-eu", account),
    ]


@pytest.mark.parametrize("pattern", ["prod", "{n}-{n}", "", "{n}" + "x" * 100, "a\n{n}"], ids=repr)
def test_a_pattern_that_can_not_make_names_is_refused_before_anything_is_added(alice: Actor, pattern: str) -> None:
    with pytest.raises(InvalidField):
        import_entries(read_entries(ONE, "stdin"), actor=alice, name_pattern=pattern)
    assert not OpenRouterKey.objects.exists()
