"""The log lines of a call. The guide's greps find them by "key ending", "rate limit" and "trying next key"."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from keys.causes import Cause, Failure
from keys.ledger_items import NoKey, Selection
from proxy.tally import Ending, Tally

logger = logging.getLogger("opensvm.proxy")

Say = Callable[[int, msgspec.Struct], None]  # (level, what is said)


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


class CallEnd(msgspec.Struct, frozen=True, gc=False):
    """The line of a call that has ended."""

    event: str
    msg: str
    request: str
    client: str
    key: str
    model: str
    error: str
    detail: str
    tries: int
    cost_nano: int | None
    latency_ms: int


def log_end(tally: Tally, ending: Ending, say: Say | None = None) -> None:
    """By `say`, if there is one: `logging` takes three times as long."""
    failure, selection = ending.failure, tally.selection
    outcome = "answered" if failure is None else f"failed ({failure.cause.label})"
    level = logging.INFO if failure is None else logging.WARNING
    if not logger.isEnabledFor(level):
        return
    end = CallEnd(
        "request.settled",
        f"{outcome} with key ending {selection.tail}",
        tally.asked.request_id,
        tally.admitted.client_name,
        selection.tail,
        tally.admitted.model_sent,
        failure.error_type if failure else "",
        failure.detail if failure else "",
        tally.tries,
        tally.usage.cost_nano,
        tally.elapsed_ms(),
    )
    if say is not None:
        say(level, end)
    else:
        extra = msgspec.structs.asdict(end)
        logger.log(level, extra.pop("msg"), extra=extra)
