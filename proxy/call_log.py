"""The log lines of a call. The guide's greps find them by "key ending", "rate limit" and "trying next key"."""

from __future__ import annotations

import logging

from keys.causes import Cause, Failure
from keys.ledger_items import NoKey, Selection
from proxy.tally import Ending, Tally

logger = logging.getLogger("opensvm.proxy")


def log_denial(reason: str, prefix: str, client_ip: str, request_id: str) -> None:
    """Which of the 401s it was; the client is not told."""
    logger.warning(
        f"refused a client key: {reason}",
        extra={
            "event": "client.refused",
            "reason": reason,
            "prefix": prefix,
            "client_ip": client_ip,
            "request": request_id,
        },
    )


def log_shortage(shortage: NoKey, request_id: str) -> None:
    if shortage.pool_size == 0:
        message = "At least one OpenRouter API key is required"
    else:
        counts = ", ".join(f"{count} x {cause}" for cause, count in sorted(shortage.benched.items()))
        message = f"All keys exhausted: {shortage.pool_size} active, {counts or 'all asked by this request'}"
    logger.warning(message, extra={"event": "pool.exhausted", "benched": shortage.benched, "request": request_id})


def log_failed_key(selection: Selection, failure: Failure, request_id: str, *, is_last: bool) -> None:
    words = "rate limit" if failure.cause is Cause.KEY_RATE_LIMITED else failure.cause.label
    follows = "no other key is free" if is_last else "trying next key"
    logger.warning(
        f"{words} on key ending {selection.tail}, {follows}",
        extra={
            "event": "key.failed",
            "key": selection.tail,
            "key_name": selection.name,
            "cause": failure.cause.value,
            "detail": failure.detail,
            "request": request_id,
        },
    )


def log_end(tally: Tally, ending: Ending) -> None:
    failure, selection = ending.failure, tally.selection
    outcome = "answered" if failure is None else f"failed ({failure.cause.label})"
    level = logging.INFO if failure is None else logging.WARNING
    if not logger.isEnabledFor(level):
        return
    # As `logger.log` does, with the fields apart from the record's own; see `opensvm.log_lines`.
    record = logging.getLogRecordFactory()(
        logger.name, level, "", 0, f"{outcome} with key ending {selection.tail}", (), None
    )
    vars(record)["fields"] = {
        "event": "request.settled",
        "request": tally.asked.request_id,
        "client": tally.admitted.client_name,
        "key": selection.tail,
        "model": tally.admitted.model_sent,
        "error": failure.error_type if failure else "",
        "detail": failure.detail if failure else "",
        "tries": tally.tries,
        "cost_nano": tally.usage.cost_nano,
        "latency_ms": tally.elapsed_ms(),
    }
    logger.handle(record)
