"""The batch steps in the test's own thread: what a transaction of the lane writes, and with how many statements."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from typing import Any

import msgspec
import pytest
from django.utils import timezone

from keys.causes import Cause
from keys.ledger_items import Admit, Admitted, Denied, NoKey, PassTrial, Selection, Settlement, Tokens
from keys.models import (
    Account,
    Attempt,
    Client,
    Cooldown,
    CostSource,
    InFlight,
    ModelAlias,
    OpenRouterKey,
    Pool,
    RequestLog,
)
from keys.services.clients import revoke_client
from keys.services.keys import disable_key
from keys.steps.clean import clean_text
from tests.integration.keys.ledger import (
    ALICE,
    RULES,
    add_client,
    add_keys,
    admit,
    failed_try,
    recorded_statements,
    run,
    settlement,
    switch,
)

pytestmark = pytest.mark.django_db

SECOND = dt.timedelta(seconds=1)


@pytest.fixture
def digest() -> str:
    """Of the key of a client."""
    return add_client()[0]


def admit_one(digest: str, **fields: Any) -> tuple[Admit, Admitted]:
    item = admit(digest, **fields)
    (admitted,) = run(item)
    assert isinstance(admitted, Admitted)
    return item, admitted


def statements(*items: Any) -> int:
    with recorded_statements() as texts:
        run(*items)
    return len([text for text in texts if "SAVEPOINT" not in text])


# -- ADMIT -----------------------------------------------------------------------------------------------------------
def test_an_admitted_request_is_in_flight_on_its_key(digest: str) -> None:
    (alpha,) = add_keys("alpha")
    item, admitted = admit_one(digest)
    row = InFlight.objects.get()
    assert (row.id, row.key_id, row.worker, row.model) == (item.id, alpha.pk, RULES.worker, item.model_asked)
    assert row.client_id == admitted.client_id
    alpha.refresh_from_db()
    assert (alpha.turn, alpha.selections, Pool.objects.get().turn) == (1, 1, 1)
    assert alpha.last_selected_at is not None
    assert not RequestLog.objects.exists()


def test_a_batch_of_admissions_goes_round(digest: str) -> None:
    add_keys("alpha", "beta", "gamma")
    names = [found.selection.name for found in run(*(admit(digest) for _ in range(7)))]
    assert names == ["alpha", "beta", "gamma", "alpha", "beta", "gamma", "alpha"]
    assert sorted(OpenRouterKey.objects.values_list("name", "turn", "selections")) == [
        ("alpha", 7, 3),
        ("beta", 5, 2),
        ("gamma", 6, 2),
    ]


def test_a_pool_larger_than_what_is_read_goes_round_too(digest: str) -> None:
    keys = add_keys(*(f"key{n:02}" for n in range(40)))
    names = [run(admit(digest))[0].selection.name for _ in range(50)]
    names += [found.selection.name for found in run(*(admit(digest) for _ in range(30)))]
    assert names == [key.name for key in keys] * 2


def test_a_trial_of_a_large_account_leaves_the_turn_to_the_other_keys(digest: str) -> None:
    """It takes forty keys out of a list of which only a part was read."""
    account = Account.objects.create(name="first")
    add_keys("a00", account=account)
    add_keys("b0", "b1")
    add_keys(*(f"a{n:02}" for n in range(1, 40)), account=account)
    add_keys(*(f"b{n}" for n in range(2, 10)))
    now = timezone.now()
    Cooldown.objects.create(account=account, cause=Cause.ACCOUNT_LIMITED, started_at=now - 9 * SECOND, until=now)
    names = [found.selection.name for found in run(*(admit(digest) for _ in range(11)))]
    assert names == ["a00", *(f"b{n}" for n in range(10))]


@pytest.mark.parametrize("model", ["a\0b", "\ud800", "x" * 10_000, "🦀" * 300, "\udcff\udcfe"], ids=ascii)
def test_any_model_name_is_admitted_and_settled(digest: str, model: str) -> None:
    add_keys("alpha")
    item, admitted = admit_one(digest, model=model)
    run(settlement(item, admitted))
    row = RequestLog.objects.get()
    assert row.model_asked == clean_text(model, 200)
    assert not InFlight.objects.exists()


@pytest.mark.parametrize("model", ["a\0b", "\ud800", "x" * 10_000], ids=ascii)
def test_any_model_name_is_one_row_when_no_key_is_free(digest: str, model: str) -> None:
    (shortage,) = run(admit(digest, model=model))
    assert isinstance(shortage, NoKey)
    assert RequestLog.objects.get().model_asked == clean_text(model, 200)


def test_an_alias_counts_from_the_next_request_on(digest: str) -> None:
    add_keys("alpha")
    assert admit_one(digest, model="house")[1].model_sent == "house"
    ModelAlias.objects.create(name="house", target="anthropic/claude-opus-4.8")
    assert admit_one(digest, model="house")[1].model_sent == "anthropic/claude-opus-4.8"


def test_an_alias_for_a_variant_is_held_to_the_cooldowns_of_that_variant(digest: str) -> None:
    alpha, _ = add_keys("alpha", "beta")
    now = timezone.now()
    Cooldown.objects.create(
        key=alpha, cause=Cause.KEY_RATE_LIMITED, pattern=":free", started_at=now, until=now + 60 * SECOND
    )
    ModelAlias.objects.create(name="house", target="a/b:free")
    found = run(*(admit(digest, model=model) for model in ("house", "house", "a/b")), now=now)
    assert [each.selection.name for each in found] == ["beta", "beta", "alpha"]


def test_a_disabled_key_is_not_selected_by_the_next_admission(digest: str) -> None:
    alpha, _ = add_keys("alpha", "beta")
    disable_key(alpha.pk, actor=ALICE)
    assert {found.selection.name for found in run(*(admit(digest) for _ in range(4)))} == {"beta"}


# -- clients ---------------------------------------------------------------------------------------------------------
def test_unknown_revoked_and_expired_clients_are_denied_and_told_apart_only_here() -> None:
    add_keys("alpha")
    revoked, client = add_client("revoked")
    revoke_client(client.pk, actor=ALICE)
    expired, client = add_client("expired")
    Client.objects.filter(pk=client.pk).update(expires_at=timezone.now() - SECOND)
    no_scope, client = add_client("no scope")
    Client.objects.filter(pk=client.pk).update(scopes="stats")
    found = run(*(admit(digest) for digest in ("f" * 64, revoked, expired, no_scope)))
    assert found == [Denied("unknown"), Denied("revoked"), Denied("expired"), Denied("scope")]
    assert not InFlight.objects.exists()
    assert not RequestLog.objects.exists(), "strangers can't fill the database"
    assert Pool.objects.get().turn == 0


def test_a_client_expires_at_its_very_second(digest: str) -> None:
    add_keys("alpha")
    now = timezone.now()
    Client.objects.update(expires_at=now)
    assert isinstance(run(admit(digest), now=now - SECOND)[0], Admitted)
    assert run(admit(digest), now=now) == [Denied("expired")]


def test_last_used_is_written_at_most_once_a_minute(digest: str) -> None:
    add_keys("alpha")
    start = timezone.now()
    seen = []
    for seconds in (0, 30, 59, 60, 90, 121):
        run(admit(digest), now=start + seconds * SECOND)
        seen.append(round((Client.objects.get().last_used_at - start).total_seconds()))  # type: ignore[operator]
    assert seen == [0, 0, 0, 60, 60, 121]


def test_a_denied_client_was_not_used() -> None:
    add_keys("alpha")
    digest, client = add_client()
    revoke_client(client.pk, actor=ALICE)
    run(admit(digest))
    assert Client.objects.get().last_used_at is None


# -- SWITCH ----------------------------------------------------------------------------------------------------------
def test_a_switch_writes_the_failure_and_moves_the_request(digest: str) -> None:
    alpha, beta = add_keys("alpha", "beta")
    item, admitted = admit_one(digest)
    (found,) = run(switch(item, admitted, Cause.KEY_RATE_LIMITED))
    assert isinstance(found, Selection)
    assert (found.key_id, InFlight.objects.get().key_id) == (beta.pk, beta.pk)
    assert Attempt.objects.get().key_id == alpha.pk
    assert Cooldown.objects.get().key_id == alpha.pk


def test_a_switch_without_another_key_keeps_the_request_in_flight(digest: str) -> None:
    add_keys("alpha")
    item, admitted = admit_one(digest)
    (found,) = run(switch(item, admitted, Cause.CANNOT_AFFORD))
    assert isinstance(found, NoKey)
    assert (found.pool_size, found.benched, found.is_rate_limited) == (1, {}, False)
    assert Pool.objects.get().turn == admitted.selection.turn, "no turn is spent on nothing"
    assert InFlight.objects.count() == 1
    assert not Cooldown.objects.exists()


def test_a_bench_counts_for_the_admissions_of_its_own_batch(digest: str) -> None:
    add_keys("alpha", "beta")
    item, admitted = admit_one(digest)
    found = run(switch(item, admitted, Cause.KEY_RATE_LIMITED), admit(digest), admit(digest))
    assert [found[0].name, *(each.selection.name for each in found[1:])] == ["beta"] * 3


def test_ten_failures_of_one_batch_are_one_bench(digest: str) -> None:
    add_keys("alpha")
    asked = [admit(digest) for _ in range(10)]
    admitted = run(*asked)
    run(*(switch(item, found, Cause.KEY_RATE_LIMITED) for item, found in zip(asked, admitted, strict=True)))
    assert Cooldown.objects.count() == 1
    assert Attempt.objects.count() == 10


def test_a_key_without_room_for_this_request_serves_the_next(digest: str) -> None:
    add_keys("alpha", "beta")
    item, admitted = admit_one(digest)
    run(switch(item, admitted, Cause.CANNOT_AFFORD))
    assert admit_one(digest)[1].selection.name == "alpha"


# -- SETTLE ----------------------------------------------------------------------------------------------------------
def test_a_settlement_moves_the_request_from_in_flight_to_the_ledger(digest: str) -> None:
    (alpha,) = add_keys("alpha")
    item, admitted = admit_one(digest)
    run(
        settlement(
            item, admitted, tokens=Tokens(1, 2, 3, 4), failures=(failed_try(admitted.selection, Cause.NOT_SENT),)
        )
    )
    assert not InFlight.objects.exists()
    row = RequestLog.objects.get()
    assert (row.id, row.key_id, row.client_id, row.request_id) == (
        item.id,
        alpha.pk,
        admitted.client_id,
        item.request_id,
    )
    assert (row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens) == (1, 2, 3, 4)
    assert (row.cost_nano, row.cost_source, row.flagged) == (1_000, CostSource.REPORTED, False)
    assert (row.client_ip, row.user_agent, row.session_id) == ("192.0.2.7", "curl/8", "session-1")
    assert Attempt.objects.get().cause == Cause.NOT_SENT


SOURCES = [CostSource.UNKNOWN, CostSource.ESTIMATED, CostSource.RECONCILED, CostSource.REPORTED]


@pytest.mark.parametrize("later", SOURCES)
@pytest.mark.parametrize("first", SOURCES)
def test_a_repeat_only_improves_the_cost(digest: str, first: CostSource, later: CostSource) -> None:
    add_keys("alpha")
    item, admitted = admit_one(digest)
    run(settlement(item, admitted, cost_nano=1, cost_source=first))
    before = RequestLog.objects.get()
    run(settlement(item, admitted, cost_nano=2, cost_source=later, status=504, latency_ms=99, tokens=Tokens(7, 7)))
    row = RequestLog.objects.get()
    is_better = SOURCES.index(later) > SOURCES.index(first)
    assert (row.cost_nano, row.cost_source) == ((2, later) if is_better else (1, first))
    assert (row.status, row.latency_ms) == (200, 5), "the outcome stands"
    assert (row.recorded_at > before.recorded_at) == is_better


def test_a_repeat_in_the_batch_of_the_first_improves_the_cost_too(digest: str) -> None:
    add_keys("alpha")
    item, admitted = admit_one(digest)
    unknown = settlement(item, admitted, cost_nano=None, cost_source=CostSource.UNKNOWN)
    run(unknown, settlement(item, admitted))
    assert (RequestLog.objects.get().cost_nano, RequestLog.objects.get().cost_source) == (1_000, CostSource.REPORTED)


def test_an_orphan_is_inserted_and_reported(digest: str, caplog: pytest.LogCaptureFixture) -> None:
    add_keys("alpha")
    item, admitted = admit_one(digest)
    InFlight.objects.all().delete()
    run(settlement(item, admitted))
    assert RequestLog.objects.get().cost_nano == 1_000
    (line,) = [record for record in caplog.records if getattr(record, "event", "") == "ledger.orphan"]
    assert line.request == str(item.id)  # type: ignore[attr-defined]


def test_in_one_batch_each_is_settled_by_what_is_known_of_it(digest: str, caplog: pytest.LogCaptureFixture) -> None:
    add_keys("alpha")
    usual, repeat, back_in_flight, orphan = pairs = [admit_one(digest) for _ in range(4)]
    before = InFlight.objects.get(pk=back_in_flight[0].id)
    run(settlement(*repeat), settlement(*back_in_flight))
    before.save(force_insert=True)
    InFlight.objects.filter(pk=orphan[0].id).delete()

    run(*(settlement(*pair, latency_ms=77) for pair in pairs))

    new = set(RequestLog.objects.filter(latency_ms=77).values_list("id", flat=True))
    assert new == {usual[0].id, orphan[0].id}
    assert RequestLog.objects.count() == 4
    assert not InFlight.objects.exists()
    lines = [record for record in caplog.records if getattr(record, "event", "") == "ledger.orphan"]
    assert [line.request for line in lines] == [str(orphan[0].id)]  # type: ignore[attr-defined]


def test_a_request_that_found_no_key_is_no_orphan(digest: str, caplog: pytest.LogCaptureFixture) -> None:
    run(admit(digest))
    assert RequestLog.objects.get().attempts == 0
    assert not [record for record in caplog.records if getattr(record, "event", "") == "ledger.orphan"]


def test_a_batch_whose_commit_is_unknown_runs_twice_and_stores_once(digest: str) -> None:
    add_keys("alpha", "beta", "gamma")
    settled, its = admit_one(digest)
    moved, moving = admit_one(digest)
    new = admit(digest)
    batch = (
        settlement(settled, its, failures=(failed_try(its.selection, Cause.PROVIDER_BUSY),)),
        switch(moved, moving, Cause.KEY_RATE_LIMITED),
        new,
    )
    run(*batch)
    _, second, third = run(*batch)
    assert RequestLog.objects.count() == 1
    assert Attempt.objects.count() == 2
    assert Cooldown.objects.count() == 1
    keys = dict(InFlight.objects.values_list("id", "key_id"))
    assert keys == {moved.id: second.key_id, new.id: third.selection.key_id}, "as the last answer says"
    assert moving.selection.key_id not in keys.values()


def test_no_key_twice_is_one_row(digest: str) -> None:
    item = admit(digest)
    run(item)
    run(item)
    assert RequestLog.objects.get().cause == Cause.NO_KEY


ODD_TEXTS = ["a\0b", "\ud800", "x" * 10_000, "🦀" * 400, "\udcff\udcfe", "\0" * 500, "".join(map(chr, range(32)))]
TEXT_FIELDS = [
    "model_asked",
    "model_sent",
    "generation_id",
    "client_ip",
    "user_agent",
    "session_id",
    "detail",
    "message",
]


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: ascii(text)[:20])
@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_any_text_in_a_logged_field_is_exactly_one_row(digest: str, field: str, text: str) -> None:
    add_keys("alpha")
    item, admitted = admit_one(digest)
    run(_with_text(settlement(item, admitted), admitted, field, text))
    row = RequestLog.objects.get()
    assert (row.cost_nano, row.flagged) == (1_000, False)
    stored = Attempt.objects.get().detail if field in ("detail", "message") else getattr(row, field)
    assert stored
    assert "\0" not in stored


def _with_text(row: Settlement, admitted: Admitted, field: str, text: str) -> Settlement:
    if field in ("detail", "message"):
        failed = failed_try(admitted.selection, Cause.KEY_RATE_LIMITED, detail=text)
        if field == "message":
            failed = dataclasses.replace(failed, failure=dataclasses.replace(failed.failure, detail="", message=text))
        return msgspec.structs.replace(row, failures=(failed,))
    changes: dict[str, Any] = {field: text}
    if field in ("client_ip", "user_agent", "session_id"):
        changes = {"caller": msgspec.structs.replace(row.caller, **changes)}
    return msgspec.structs.replace(row, **changes)


# -- trials ----------------------------------------------------------------------------------------------------------
def due_cooldown(key: OpenRouterKey, now: dt.datetime, *, of_account: bool = False) -> Cooldown:
    target = {"account": key.account, "cause": Cause.OUT_OF_CREDIT} if of_account else {"key": key}
    return Cooldown.objects.create(
        **{"cause": Cause.KEY_RATE_LIMITED, "started_at": now - 9 * SECOND, "until": now, **target}
    )


def test_one_batch_gives_out_one_trial(digest: str) -> None:
    alpha, _ = add_keys("alpha", "beta")
    now = timezone.now()
    due_cooldown(alpha, now)
    asked = [admit(digest) for _ in range(9)]
    found = run(*asked, now=now)
    assert Counter(each.selection.name for each in found) == {"alpha": 1, "beta": 8}
    (index,) = [index for index, each in enumerate(found) if each.selection.is_trial]
    assert Cooldown.objects.get().trial == asked[index].id


def test_one_batch_gives_out_one_trial_for_models_of_every_kind(digest: str) -> None:
    alpha, _ = add_keys("alpha", "beta")
    now = timezone.now()
    due_cooldown(alpha, now)
    found = run(*(admit(digest, model=f"a/b{suffix}") for suffix in ("", ":free", "", ":nitro", ":free")), now=now)
    assert Counter(each.selection.name for each in found) == {"alpha": 1, "beta": 4}


def test_a_trial_that_ends_is_free_for_the_admissions_of_its_own_batch(digest: str) -> None:
    (alpha,) = add_keys("alpha")
    now = timezone.now()
    due_cooldown(alpha, now)
    first = admit(digest)
    (admitted,) = run(first, now=now)
    left = settlement(first, admitted, status=499, cause=Cause.CLIENT_LEFT, holds_trial=True)
    second = admit(digest)
    _, next_one = run(left, second, now=now + SECOND)
    assert next_one.selection.is_trial
    assert Cooldown.objects.get().trial == second.id


def test_a_passed_trial_ends_the_key_s_and_the_account_s_cooldown(digest: str) -> None:
    (alpha,) = add_keys("alpha", account=Account.objects.create(name="first"))
    now = timezone.now()
    due_cooldown(alpha, now)
    due_cooldown(alpha, now, of_account=True)
    item = admit(digest)
    run(item, now=now)
    run(PassTrial(item.id), now=now + SECOND)
    assert not Cooldown.objects.filter(cleared_at__isnull=True).exists()


# -- how many statements ---------------------------------------------------------------------------------------------
def test_a_batch_of_fifty_admissions_runs_as_many_statements_as_one(digest: str) -> None:
    add_keys(*(f"key{n}" for n in range(5)))
    run(admit(digest))  # `last_used_at` is written now, and not for a minute
    assert statements(admit(digest)) == statements(*(admit(digest) for _ in range(50))) <= 8


def test_a_batch_of_fifty_settlements_runs_as_many_statements_as_one(digest: str) -> None:
    add_keys("alpha")
    asked = [admit(digest) for _ in range(51)]
    rows = [settlement(item, found) for item, found in zip(asked, run(*asked), strict=True)]
    assert statements(rows[0]) == statements(*rows[1:]) <= 4


def test_a_full_batch_runs_a_bounded_number_of_statements(digest: str) -> None:
    add_keys("alpha", "beta")
    asked = [admit(digest) for _ in range(50)]
    rows = [settlement(item, found) for item, found in zip(asked, run(*asked), strict=True)]
    assert statements(*rows, *(admit(digest) for _ in range(50))) <= 12
