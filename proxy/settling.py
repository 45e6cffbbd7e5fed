"""Makes an outcome durable before the answer is finished: in the ledger, else in the journal."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

from keys.journal import JournalFull
from keys.lane import Lane, LaneStopped
from keys.ledger_items import Settlement
from proxy.service import Service

logger = logging.getLogger("opensvm.proxy")

_SECONDS_WHILE_AWAY = 0.2  # the database is known to be away: no use in waiting longer


async def settle(settlement: Settlement, service: Service) -> bool:
    """Whether the row is durable: in the ledger, or in the journal when the database takes too long.

    When neither can be written, the database has as long as it usually has.
    """
    lane, seconds = service.lane, service.rules.settle_seconds
    committed = _post(settlement, lane)
    first = min(seconds, _SECONDS_WHILE_AWAY) if lane.is_away else seconds
    if await _is_committed(committed, first) or await _write_to_journal(settlement, service, committed):
        return True
    committed.add_done_callback(_has_succeeded)  # reads an exception that nobody will wait for
    return await _is_committed(committed, seconds - first)


def _post(settlement: Settlement, lane: Lane) -> asyncio.Future[Any]:
    try:
        return lane.post(settlement)
    except LaneStopped as exc:
        refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        refused.set_exception(exc)
        return refused


async def _is_committed(committed: asyncio.Future[Any], seconds: float) -> bool:
    """Waits for `committed`, and leaves it alone when the time is over: the lane goes on trying.

    As `asyncio.wait` does, which is made for many and takes longer than an answer's JSON.
    """
    if not committed.done():
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        wake = functools.partial(_wake, waiter)
        timer = loop.call_later(max(seconds, 0.0), wake)
        committed.add_done_callback(wake)
        try:
            await waiter
        finally:
            timer.cancel()
            committed.remove_done_callback(wake)
    return _has_succeeded(committed)


def _wake(waiter: asyncio.Future[None], _: object = None) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _has_succeeded(committed: asyncio.Future[Any]) -> bool:
    return committed.done() and not committed.cancelled() and committed.exception() is None


async def _write_to_journal(settlement: Settlement, service: Service, committed: asyncio.Future[Any]) -> bool:
    """The lane goes on trying; it, or the next process, forgets the entry when the ledger has the row."""
    journal = service.journal
    if journal is None:
        return False
    try:
        await asyncio.to_thread(journal.record, settlement)
    except (JournalFull, OSError):
        logger.exception(
            "journal can't be written", extra={"event": "journal.failed", "request": settlement.request_id}
        )
        return False
    committed.add_done_callback(lambda done: journal.forget([settlement.id]) if _has_succeeded(done) else None)
    logger.warning(
        "settlement went to the journal: the database does not take it",
        extra={"event": "ledger.journaled", "request": settlement.request_id},
    )
    return True
