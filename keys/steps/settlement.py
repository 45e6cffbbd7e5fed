"""SETTLE: the ledger row in, the InFlight row out. Part of a batch.

The InFlight row is the right to settle. Without it but with a ledger row, a settlement is a repeat: it may only improve
the cost, or tell the outcome of a request whose process was taken for dead. Without either it is inserted all the same
and reported, because a row must never be lost.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from keys.causes import Cause
from keys.ledger_items import Admit, Admitted, Caller, FailedTry, NoKey, Settlement, Tokens
from keys.models import CostInquiry, CostSource, RequestLog
from keys.steps.clean import clean_text, clean_texts
from keys.steps.statements import Row, Statements

logger = logging.getLogger("opensvm.ledger")

ASKABLE = (CostSource.UNKNOWN, CostSource.ESTIMATED)  # GET /generation may know better
_COST_RANK = {source: rank for rank, source in enumerate(CostSource.values)}
_CUTS = tuple(map(slice, (200, 200, 100, 45, 300, 256)))  # models asked and sent, generation id, and the caller's three


@dataclass(frozen=True, slots=True)
class _Known:
    """What the ledger has of a repeat. A replay repeats thousands, and most of them change nothing."""

    cause: str
    cost_source: str
    generation_id: str

    def can_be_improved_by(self, item: Settlement) -> bool:
        is_lost = self.cause == Cause.INTERRUPTED != item.cause
        is_better_known = _COST_RANK[item.cost_source] > _COST_RANK[self.cost_source]
        return is_lost or is_better_known or bool(item.generation_id and not self.generation_id)


@dataclass(frozen=True, slots=True)
class SettledOnce:
    """`orphans` had neither an InFlight nor a ledger row; `repeats` have one that they may improve."""

    orphans: Sequence[UUID] = ()
    repeats: list[Settlement] = field(default_factory=list)


def settle(items: Sequence[Settlement], *, sql: Statements, now: dt.datetime) -> Sequence[UUID]:
    """Settle each once and improve what was; answers the ids of orphans."""
    settled = settle_once(items, sql=sql, now=now)
    improve_all(settled.repeats, now)
    return settled.orphans


def settle_once(
    items: Sequence[Settlement], *, sql: Statements, now: dt.datetime, is_last: bool = False
) -> SettledOnce:
    """Whoever may improve a row is answered; it may have been written now, by another item for the same request.

    is_last: no item has failures, and nothing follows in this transaction.
    """
    if not items:
        return SettledOnce()
    fresh, repeats = _first_of_each(items)
    found = sql.settle_rows([_ledger_row(item) for item in fresh], recorded_at=now, is_last=is_last)
    write_attempts([(item.id, failed) for item in items for failed in item.failures], sql)
    if found is None:
        return SettledOnce((), repeats)
    known = [item for item in fresh if item.id not in found.inserted]  # or in flight again, having been settled as lost
    orphans = [
        item.id
        for item in fresh  # without a try it need not have been in flight
        if item.attempts and item.id in found.inserted and item.id not in found.in_flight
    ]
    return SettledOnce(orphans, [*known, *repeats])


def _first_of_each(items: Sequence[Settlement]) -> tuple[Sequence[Settlement], list[Settlement]]:
    """The first item of each request, and those that repeat one."""
    if len({item.id.int for item in items}) == len(items):
        return items, []
    first: dict[UUID, Settlement] = {}
    repeats = [item for item in items if first.setdefault(item.id, item) is not item]
    return list(first.values()), repeats


def improve_all(repeats: Sequence[Settlement], now: dt.datetime) -> None:
    """In their order. Nothing is asked if there are none; else one query, and some for each that knows more."""
    if not repeats:
        return
    rows = RequestLog.objects.filter(pk__in={item.id for item in repeats})
    known = {row: _Known(*had) for row, *had in rows.values_list("pk", "cause", "cost_source", "generation_id")}
    for item in repeats:
        if item.id in known and known[item.id].can_be_improved_by(item):
            improve(item, now)


def improve(item: Settlement, now: dt.datetime) -> bool:
    """A repeat: take its cost if the source is better, and its outcome if the row only says that its process died.

    unknown < estimated < reconciled < reported. Answers whether the row changed, and then `recorded_at` moves.
    """
    worse = [source for source, rank in _COST_RANK.items() if rank < _COST_RANK[item.cost_source]]
    row = RequestLog.objects.filter(pk=item.id)
    is_better = row.filter(cost_source__in=worse).update(
        cost_nano=item.cost_nano, cost_source=item.cost_source, recorded_at=now, **_token_columns(item)
    )
    is_recovered = item.cause != Cause.INTERRUPTED and row.filter(cause=Cause.INTERRUPTED).update(
        status=item.status,
        error_type=item.error_type,
        cause=item.cause,
        attempts=item.attempts,
        model_asked=clean_text(item.model_asked, 200),
        stream=item.stream,
        latency_ms=item.latency_ms,
        first_token_ms=item.first_token_ms,
        client_ip=clean_text(item.caller.client_ip, 45),
        user_agent=clean_text(item.caller.user_agent, 300),
        session_id=clean_text(item.caller.session_id, 256),
        recorded_at=now,
    )
    if is_recovered and row.filter(cost_source__in=ASKABLE).update(**_token_columns(item)):
        _ask_again(item.id, now)
    if item.generation_id:
        note_generation(item.id, item.generation_id, now)
    return bool(is_recovered or is_better)


def note_generation(request_id: UUID, generation_id: str, now: dt.datetime) -> bool:
    """Where the cost of a settled request can be asked for, if the row does not know yet."""
    noted = RequestLog.objects.filter(pk=request_id, generation_id="").update(
        generation_id=clean_text(generation_id, 100)
    )
    if noted:
        _ask_again(request_id, now)
    return bool(noted)


def _ask_again(request_id: UUID, now: dt.datetime) -> None:
    """What was estimated, or put off, knowing less is asked about at once. A row never looked at is anyway."""
    if CostInquiry.objects.filter(pk=request_id).update(since=now, next_at=now):
        return
    if RequestLog.objects.filter(pk=request_id, cost_source=CostSource.ESTIMATED).exists():
        CostInquiry.objects.bulk_create(
            [CostInquiry(request_id=request_id, since=now, next_at=now)], ignore_conflicts=True
        )


def _token_columns(item: Settlement) -> dict[str, int]:
    return {
        "input_tokens": item.tokens.input,
        "output_tokens": item.tokens.output,
        "cache_read_tokens": item.tokens.cache_read,
        "cache_write_tokens": item.tokens.cache_write,
    }


def write_attempts(failures: Iterable[tuple[UUID, FailedTry]], sql: Statements) -> None:
    rows = [
        (
            sql.uuid(request_id),
            failed.n,
            sql.uuid(failed.selection.key_id),
            failed.failure.upstream_status,
            failed.failure.cause.value,
            clean_text(failed.failure.detail or failed.failure.message, 300),
            failed.duration_ms,
            sql.stamp(failed.at),
        )
        for request_id, failed in failures
    ]
    if rows:
        sql.insert_attempts(rows)


def _ledger_row(item: Settlement) -> Row:
    """The values of `LEDGER_COLUMNS`."""
    tokens, caller = item.tokens, item.caller
    names = item.model_asked, item.model_sent, item.generation_id
    return (
        item.id,
        item.client_id,
        item.key_id,
        item.created_at,
        *clean_texts((*names, caller.client_ip, caller.user_agent, caller.session_id), _CUTS),
        item.request_id,
        item.status,
        item.error_type,
        item.cause,
        item.attempts,
        1 if item.stream else 0,
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write,
        item.cost_nano,
        item.cost_source,
        item.latency_ms,
        item.first_token_ms,
    )


def settle_emptied(item: Settlement, *, sql: Statements, now: dt.datetime) -> None:
    """For a row that the database refuses. It is flagged."""
    sql.settle_rows([_ledger_row(emptied(item))], recorded_at=now, is_flagged=True)


def emptied(item: Settlement) -> Settlement:
    """A row that the database refuses, without its strangers' texts. Its money, key and client stay."""
    return msgspec.structs.replace(
        item, model_asked="", model_sent="", generation_id="", caller=Caller(), failures=(), tokens=Tokens()
    )


def settlement_without_key(
    item: Admit, shortage: NoKey, *, status: int, error_type: str, now: dt.datetime
) -> Settlement:
    """The row of a request that found no key free: nothing was asked upstream, so nothing was billed."""
    assert shortage.client_id is not None
    return _never_asked(
        item,
        client_id=shortage.client_id,
        status=status,
        error_type=error_type,
        cause=Cause.NO_KEY,
        now=now,
    )


def settlement_taken_back(item: Admit, admitted: Admitted, *, now: dt.datetime) -> Settlement:
    """The row of a request that was admitted too late: its client had been refused by then."""
    row = _never_asked(
        item,
        client_id=admitted.client_id,
        status=529,
        error_type="overloaded_error",
        cause=Cause.INTERRUPTED,
        now=now,
    )
    return msgspec.structs.replace(
        row,
        key_id=admitted.selection.key_id,
        model_sent=admitted.model_sent,
        holds_trial=admitted.selection.is_trial,
    )


def _never_asked(
    item: Admit, *, client_id: UUID, status: int, error_type: str, cause: Cause, now: dt.datetime
) -> Settlement:
    return Settlement(
        id=item.id,
        request_id=item.request_id,
        client_id=client_id,
        key_id=None,
        model_asked=item.model_asked,
        model_sent="",
        status=status,
        error_type=error_type,
        cause=cause.value,
        attempts=0,
        stream=item.stream,
        tokens=Tokens(),
        cost_nano=0,
        cost_source=CostSource.REPORTED,
        latency_ms=max(int((now - item.created_at).total_seconds() * 1000), 0),
        first_token_ms=None,
        generation_id="",
        created_at=item.created_at,
        caller=item.caller,
    )
