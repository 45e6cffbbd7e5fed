"""SETTLE: the ledger row in, the InFlight row out. Part of a batch.

The InFlight row is the right to settle. Without it but with a ledger row, a settlement is a repeat: it may only improve
the cost, or tell the outcome of a request whose process was taken for dead. Without either it is inserted all the same
and reported, because a row must never be lost.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from keys.causes import Cause
from keys.ledger_items import Admit, Admitted, Caller, FailedTry, NoKey, Settlement, Tokens
from keys.models import CostInquiry, CostSource, RequestLog
from keys.steps.clean import clean_text, clean_texts
from keys.steps.statements import Row, Statements
from keys.uuid7 import hex_of

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
    fresh: dict[str, Settlement] = {}
    repeats = []
    for item in items:
        if fresh.setdefault(hex_of(item.id), item) is not item:
            repeats.append(item)
    if not fresh:
        return SettledOnce()
    found = sql.settle_rows(list(fresh), ledger_rows(fresh, sql, now), is_last=is_last)
    write_attempts([(item.id, failed) for item in items for failed in item.failures], sql)
    if len(found.inserted) < len(fresh):  # repeats, or in flight again after they had been settled as lost
        repeats = [*(item for row, item in fresh.items() if row not in found.inserted), *repeats]
    if len(found.in_flight) == len(fresh):
        return SettledOnce((), repeats)
    orphans = [
        item.id
        for row, item in fresh.items()  # without a try it need not have been in flight
        if item.attempts and row in found.inserted and row not in found.in_flight
    ]
    return SettledOnce(orphans, repeats)


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


def ledger_rows(
    items: Mapping[str, Settlement], sql: Statements, now: dt.datetime, *, is_flagged: bool = False
) -> list[Row]:
    """The values of ledger rows, in the order of `LEDGER_COLUMNS`. items: by their stored ids."""
    recorded_at = sql.stamp(now)
    return [_ledger_row(row, item, is_flagged, sql.stamp(item.created_at), recorded_at) for row, item in items.items()]


def _ledger_row(row: str, item: Settlement, is_flagged: bool, created_at: str, recorded_at: str) -> Row:
    tokens, caller = item.tokens, item.caller
    names = item.model_asked, item.model_sent, item.generation_id
    texts = *names, caller.client_ip, caller.user_agent, caller.session_id
    model_asked, model_sent, generation_id, client_ip, user_agent, session_id = clean_texts(texts, _CUTS)
    return (
        row,
        hex_of(item.client_id),
        hex_of(item.key_id) if item.key_id is not None else None,
        model_asked,
        model_sent,
        item.status,
        item.error_type,
        item.cause,
        item.attempts,
        int(item.stream),
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write,
        item.cost_nano,
        item.cost_source,
        item.latency_ms,
        item.first_token_ms,
        generation_id,
        item.request_id,
        client_ip,
        user_agent,
        session_id,
        int(is_flagged),
        created_at,
        recorded_at,
    )


def settle_emptied(item: Settlement, *, sql: Statements, now: dt.datetime) -> None:
    """For a row that the database refuses. It is flagged."""
    row = hex_of(item.id)
    sql.settle_rows([row], ledger_rows({row: emptied(item)}, sql, now, is_flagged=True))


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
