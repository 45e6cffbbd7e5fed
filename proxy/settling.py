"""Makes an outcome durable before the answer is finished: in the ledger, else in the journal."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from keys.journal import JournalFull
from keys.lane import LaneStopped
from keys.ledger_items import Settlement
from proxy.exchange import is_cancelled_itself
from proxy.service import Service
from proxy.waits import Limit

logger = logging.getLogger("opensvm.proxy")

_SECONDS_WHILE_AWAY = 0.2  # the database is known to be away: no use in waiting longer


async def settle(settlement: Settlement, service: Service) -> bool:
    """Whether the row is durable: in the ledger, or in the journal when the database takes too long.

    When neither can be written, the database has as long as it usually has.
    """
    lane, seconds = service.lane, service.rules.settle_seconds
    try:
        posted = lane.post(settlement)
    except LaneStopped:
        return await _write_to_journal(settlement, service, None)
    assert posted.future is not None
    first = min(seconds, _SECONDS_WHILE_AWAY) if lane.is_away else seconds
    if await _is_committed(posted.future, service.waits[first]):
        return True
    committed = posted.follow()
    if committed.done() and _has_succeeded(committed):  # in this moment
        return True
    committed.add_done_callback(_has_succeeded)  # reads an exception that nobody will wait for
    rest = service.waits[max(seconds - first, 0.0)]
    return await _write_to_journal(settlement, service, committed) or await _is_committed(committed, rest)


async def _is_committed(committed: asyncio.Future[Any], limit: Limit) -> bool:
    """Waits for `committed`, and gives it up when the time is over: the lane goes on trying."""
    wait = limit.begin(committed.get_loop(), committed.cancel)
    try:
        await committed
    except asyncio.CancelledError:
        if is_cancelled_itself():
            raise
        return False
    except Exception:
        return False
    finally:
        limit.end(wait)
    return True


def _has_succeeded(committed: asyncio.Future[Any]) -> bool:
    return not committed.cancelled() and committed.exception() is None


async def _write_to_journal(settlement: Settlement, service: Service, committed: asyncio.Future[Any] | None) -> bool:
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
    if committed is not None:
        committed.add_done_callback(lambda done: journal.forget([settlement.id]) if _has_succeeded(done) else None)
    logger.warning(
        "settlement went to the journal: the database does not take it",
        extra={"event": "ledger.journaled", "request": settlement.request_id},
    )
    return True
