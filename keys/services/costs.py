"""Settles the costs that an answer did not tell: asks `GET /generation`, and estimates what stays untold.

A cut stream, a client that left or a killed process leaves a ledger row of unknown cost. OpenRouter knows the cost a
moment later, to any key of the account; so it is asked, rarer and rarer, until `COST_GIVE_UP_SECONDS`. Then, or at once
where there is no generation to ask for, the cost is estimated from the tokens that are known and the model's list
price. Without a list price, or without a single token known, it stays unknown: a made-up figure, 0 above all, would
look like money. Safe on several schedulers at once: who moves the inquiry's `next_at` on may ask, and a better source
that came meanwhile wins.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q

from keys.generations import Billed, NotYet, read_generation_answer
from keys.key_text import redact_keys
from keys.ledger_items import Tokens
from keys.models import CostInquiry, CostSource, KeyState, ModelPrice, OpenRouterKey, RequestLog
from keys.openrouter import NoAnswer, Refused
from keys.pricing import Price, estimate, priced_names
from keys.sealing import KEY_COLUMN, KEY_TABLE, Undecryptable, get_vault
from keys.services.asking import get, open_client
from keys.services.audit import TASK, record_secret_use
from keys.steps.settlement import ASKABLE

logger = logging.getLogger("opensvm.costs")

BATCH_ROWS = 200
LONGEST_RUN_SECONDS = 40.0
MOST_FAILED_CALLS = 3  # then upstream is left alone until the next run
_CANNOT_ASK = (KeyState.RETIRED, KeyState.INVALID)
_TOKEN_COLUMNS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


@dataclass(frozen=True, slots=True)
class CostSchedule:
    """When a cost that is not known yet is asked for again."""

    first: dt.timedelta
    most: dt.timedelta
    give_up: dt.timedelta

    @classmethod
    def from_settings(cls) -> CostSchedule:
        return cls(
            first=dt.timedelta(seconds=settings.COST_RETRY_SECONDS),
            most=dt.timedelta(seconds=settings.COST_RETRY_MOST_SECONDS),
            give_up=dt.timedelta(seconds=settings.COST_GIVE_UP_SECONDS),
        )

    def must_estimate(self, generation_id: str, age: dt.timedelta) -> bool:
        return not generation_id or age >= self.give_up

    def wait(self, generation_id: str, age: dt.timedelta, spread: float) -> dt.timedelta:
        """Half its age; for one that only a price can settle, much longer. `spread` from 0 to 1 keeps them apart."""
        if self.must_estimate(generation_id, age):
            return self.give_up * (0.2 + 0.1 * spread)
        return min(max(age / 2, self.first), self.most) * (0.8 + 0.4 * spread)


@dataclass(frozen=True, slots=True)
class Question:
    """A row whose cost is open, as it was read. `next_at` is None for one that was never looked at."""

    request: UUID
    key_id: UUID | None
    model: str
    generation_id: str
    tokens: Tokens
    since: dt.datetime
    next_at: dt.datetime | None


def settle_costs(
    now: dt.datetime, *, transport: httpx.BaseTransport | None = None, spread: Callable[[], float] = random.random
) -> int:
    """Ask for the costs that are due, those that waited longest first; how many were settled."""
    _drop_answered(now)
    questions = _due(now)
    if not questions:
        return 0
    with open_client(transport) as client:
        run = _Run(client, now, CostSchedule.from_settings(), spread)
        run.work_off(questions)
    run.log()
    return run.reconciled + run.estimated


def _drop_answered(now: dt.datetime) -> None:
    """Inquiries whose row is gone or has a better cost by now."""
    is_open = Exists(RequestLog.objects.filter(pk=OuterRef("pk"), cost_source__in=ASKABLE))
    answered = CostInquiry.objects.filter(~is_open, next_at__lte=now)
    if answered.exists():
        with transaction.atomic():
            answered.delete()


def _due(now: dt.datetime) -> list[Question]:
    """Two queries. Rows that were never looked at wait since they were recorded."""
    fresh = RequestLog.objects.filter(cost_source=CostSource.UNKNOWN, cost_inquiry__isnull=True).order_by("recorded_at")
    again = CostInquiry.objects.filter(next_at__lte=now).select_related("request").order_by("next_at")
    questions = [_question(row, row.recorded_at, None) for row in fresh[:BATCH_ROWS]]
    questions += [_question(asked.request, asked.since, asked.next_at) for asked in again[:BATCH_ROWS]]
    return sorted(questions, key=lambda question: question.next_at or question.since)[:BATCH_ROWS]


def _question(row: RequestLog, since: dt.datetime, next_at: dt.datetime | None) -> Question:
    tokens = Tokens(*(getattr(row, column) for column in _TOKEN_COLUMNS))
    return Question(row.pk, row.key_id, row.model_sent, row.generation_id, tokens, since, next_at)


@dataclass(slots=True)
class _Run:
    """One pass over what is due, within a time limit. Each question is claimed before it is asked."""

    client: httpx.Client
    now: dt.datetime
    schedule: CostSchedule
    spread: Callable[[], float]
    reconciled: int = 0
    estimated: int = 0
    left: int = 0
    failed_calls: int = 0
    refused: set[UUID] = field(default_factory=set)
    opened: set[UUID] = field(default_factory=set)  # keys whose use this run has recorded
    prices: dict[str, Price | None] = field(default_factory=dict)

    def work_off(self, questions: Sequence[Question]) -> None:
        stop_at = time.monotonic() + LONGEST_RUN_SECONDS
        for done, question in enumerate(questions):
            if time.monotonic() >= stop_at:
                self.left += len(questions) - done
                return
            must_estimate = self.schedule.must_estimate(question.generation_id, self.now - question.since)
            if not must_estimate and self.failed_calls >= MOST_FAILED_CALLS:
                self.left += 1
            elif self._claim(question):
                self._settle(question, must_estimate=must_estimate)

    def log(self) -> None:
        if self.reconciled or self.estimated or self.left:
            extra = {"reconciled": self.reconciled, "estimated": self.estimated, "left": self.left}
            logger.info("settled costs", extra={"event": "costs.settled", **extra})

    def _claim(self, question: Question) -> bool:
        """Whether this run may look at it; it is not due again before the schedule says so."""
        age = max(self.now - question.since, dt.timedelta())
        next_at = self.now + self.schedule.wait(question.generation_id, age, self.spread())
        if question.next_at is None:
            return _open_inquiry(question, next_at)
        with transaction.atomic():
            mine = CostInquiry.objects.filter(pk=question.request, next_at=question.next_at)
            return bool(mine.update(next_at=next_at))

    def _settle(self, question: Question, *, must_estimate: bool) -> None:
        if must_estimate:
            self.estimated += self._estimate(question)
        elif (billed := self._ask(question)) is not None:
            tokens = billed.tokens(question.tokens)
            self.reconciled += _store(question, billed.cost_nano, CostSource.RECONCILED, tokens, self.now)

    # -- asking ------------------------------------------------------------------------------------------------------
    def _ask(self, question: Question) -> Billed | None:
        """Any key of the account may ask; None when it isn't known yet, or nobody could be asked."""
        for key in _keys_to_ask_with(question.key_id):
            if key.pk in self.refused:
                continue
            answer = self._ask_with(key, question.generation_id)
            if isinstance(answer, Refused):
                self.refused.add(key.pk)
                self._warn("was refused a cost", key, answer.message)
                continue
            if isinstance(answer, NoAnswer):
                self.failed_calls += 1
                self._warn("can't ask for costs", key, answer.message)
            return answer if isinstance(answer, Billed) else None
        return None

    def _ask_with(self, key: OpenRouterKey, generation_id: str) -> Billed | NotYet | Refused | NoAnswer:
        if key.pk not in self.opened:
            record_secret_use(TASK, "GET /generation", [key.name])
            self.opened.add(key.pk)
        try:
            secret = get_vault().unseal(key.secret, table=KEY_TABLE, column=KEY_COLUMN, row=key.pk)
        except Undecryptable as exc:
            return Refused(f"The stored secret can't be opened: {exc}")
        try:
            status, body = get(self.client, "/generation", secret=secret, params={"id": generation_id})
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            return NoAnswer(f"OpenRouter can't be reached: {redact_keys(str(exc), secret.reveal())}")
        answer = read_generation_answer(status, body, generation_id)
        if isinstance(answer, Refused | NoAnswer):
            return type(answer)(redact_keys(answer.message, secret.reveal()))
        return answer

    def _warn(self, what: str, key: OpenRouterKey, message: str) -> None:
        logger.warning(
            f"{what}, asked with key ending {key.tail}: {message}",
            extra={"event": "costs.no_answer", "key": key.tail, "key_name": key.name},
        )

    # -- estimating --------------------------------------------------------------------------------------------------
    def _estimate(self, question: Question) -> bool:
        price = self._price(question.model)
        if price is None or question.tokens == Tokens():
            return False
        cost_nano = estimate(question.tokens, price)
        return _store(question, cost_nano, CostSource.ESTIMATED, question.tokens, self.now)

    def _price(self, model: str) -> Price | None:
        if model not in self.prices:
            self.prices[model] = _find_price(model)
            if self.prices[model] is None:
                extra = {"event": "costs.no_price", "model": model}
                logger.warning("has no list price to estimate by: costs stay unknown", extra=extra)
        return self.prices[model]


def _open_inquiry(question: Question, next_at: dt.datetime) -> bool:
    """False if another run is at it, or has settled it since it was read."""
    try:
        with transaction.atomic():
            inquiry = CostInquiry.objects.create(request_id=question.request, since=question.since, next_at=next_at)
            if RequestLog.objects.filter(pk=question.request, cost_source__in=ASKABLE).exists():
                return True
            inquiry.delete()
    except IntegrityError:
        pass
    return False


def _keys_to_ask_with(key_id: UUID | None) -> list[OpenRouterKey]:
    """The key that asked for the answer, if OpenRouter may still take it; then the others of its account."""
    own = OpenRouterKey.objects.filter(pk=key_id).first() if key_id else None
    if own is None:
        return []
    of_account = Q(account=own.account_id) if own.account_id else Q(pk=own.pk)
    keys = OpenRouterKey.objects.filter(of_account).exclude(state__in=_CANNOT_ASK)
    return sorted(keys, key=lambda key: (key.pk != own.pk, key.state != KeyState.ACTIVE))


def _find_price(model: str) -> Price | None:
    names = priced_names(model)
    listed = {row.model: row.price for row in ModelPrice.objects.filter(model__in=names)}
    return next((listed[name] for name in names if listed.get(name) is not None), None)


def _store(question: Question, cost_nano: int, source: CostSource, tokens: Tokens, now: dt.datetime) -> bool:
    """Write a cost unless a better one, or other tokens, came since the row was read; then the next run looks again."""
    values: dict[str, Any] = dict(zip(_TOKEN_COLUMNS, _in_order(tokens), strict=True))
    unchanged = dict(zip(_TOKEN_COLUMNS, _in_order(question.tokens), strict=True))
    with transaction.atomic():
        row = RequestLog.objects.filter(pk=question.request, cost_source__in=ASKABLE, **unchanged)
        stored = row.update(cost_nano=cost_nano, cost_source=source, recorded_at=now, **values)
        if stored:
            CostInquiry.objects.filter(pk=question.request).delete()
    return bool(stored)


def _in_order(tokens: Tokens) -> tuple[int, int, int, int]:
    return tokens.input, tokens.output, tokens.cache_read, tokens.cache_write
