"""The ledger: what is in flight, and one durable row for each request. `keys.models.rollups` has the sums of them.

Log-like tables have foreign keys without a database constraint: with constraints, their inserts take
hidden locks on clients and keys and deadlock against admission.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from keys.causes import Cause
from keys.models.clients import Client
from keys.models.pool import OpenRouterKey


class CostSource(models.TextChoices):
    """Where a cost comes from; a later, better source may replace a worse one."""

    UNKNOWN = "unknown", "unknown"
    ESTIMATED = "estimated", "estimated from list prices"
    RECONCILED = "reconciled", "asked from OpenRouter afterwards"
    REPORTED = "reported", "reported in the answer"


class InFlight(models.Model):
    """A request that is admitted and not yet settled. Whoever deletes the row has the right to settle it.

    Every request inserts and deletes one, and the table is as short as the requests under way are few: no index but
    the primary key's is worth its upkeep.
    """

    id = models.UUIDField(primary_key=True, editable=False)  # UUIDv7, made by the process that admits
    client = models.ForeignKey(
        Client, db_constraint=False, db_index=False, on_delete=models.DO_NOTHING, related_name="+"
    )
    key = models.ForeignKey(
        OpenRouterKey, db_constraint=False, db_index=False, on_delete=models.DO_NOTHING, related_name="in_flight"
    )
    model = models.CharField(max_length=200)  # as sent upstream
    reserved_nano = models.BigIntegerField(default=0)
    worker = models.UUIDField(null=True)
    started_at = models.DateTimeField()

    class Meta:
        verbose_name = "request in flight"
        verbose_name_plural = "requests in flight"


class RequestLog(models.Model):
    """One row for each request that passed the credential and body checks. No prompts, no answers."""

    id = models.UUIDField(primary_key=True, editable=False)  # the InFlight id
    client = models.ForeignKey(
        Client, db_constraint=False, db_index=False, on_delete=models.DO_NOTHING, related_name="requests"
    )
    key = models.ForeignKey(
        OpenRouterKey,
        null=True,
        db_constraint=False,
        db_index=False,
        on_delete=models.DO_NOTHING,
        related_name="requests",
    )
    model_asked = models.CharField(max_length=200)
    model_sent = models.CharField(max_length=200, blank=True)
    status = models.PositiveSmallIntegerField()  # as the client saw it; 499: it left before the end
    error_type = models.CharField(max_length=40, blank=True)  # empty: a finished answer
    cause = models.CharField(max_length=24, blank=True, choices=Cause.choices)
    attempts = models.PositiveSmallIntegerField(default=0)  # upstream tries, the good one included
    stream = models.BooleanField(default=False)
    input_tokens = models.BigIntegerField(default=0)  # without cache reads and writes, as Anthropic counts
    output_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    cost_nano = models.BigIntegerField(null=True)  # null while unknown
    cost_source = models.CharField(max_length=10, choices=CostSource.choices, default=CostSource.UNKNOWN)
    latency_ms = models.PositiveIntegerField(default=0)
    first_token_ms = models.PositiveIntegerField(null=True)
    generation_id = models.CharField(max_length=100, blank=True)
    request_id = models.CharField(max_length=40)
    client_ip = models.CharField(max_length=45, blank=True)
    user_agent = models.CharField(max_length=300, blank=True)
    session_id = models.CharField(max_length=256, blank=True)
    flagged = models.BooleanField(default=False)  # the database refused its text columns; they were emptied
    created_at = models.DateTimeField()
    recorded_at = models.DateTimeField(db_index=True)  # moves when the outcome or the cost is improved

    class Meta:
        verbose_name = "request"
        indexes = [
            models.Index(fields=["recorded_at"], condition=Q(cost_source="unknown"), name="request_unknown_cost"),
            models.Index(fields=["generation_id"], condition=~Q(generation_id=""), name="request_by_generation"),
            models.Index(fields=["created_at"], name="request_by_time"),
        ]

    def __str__(self) -> str:
        return self.request_id


class Attempt(models.Model):
    """An upstream try that failed."""

    request = models.ForeignKey(
        RequestLog, db_constraint=False, db_index=False, on_delete=models.DO_NOTHING, related_name="failed_attempts"
    )
    n = models.PositiveSmallIntegerField()  # 1 is the first try
    key = models.ForeignKey(
        OpenRouterKey, db_constraint=False, db_index=False, on_delete=models.DO_NOTHING, related_name="+"
    )
    status = models.PositiveSmallIntegerField(null=True)  # null: no HTTP answer
    cause = models.CharField(max_length=24, choices=Cause.choices)
    detail = models.CharField(max_length=300, blank=True)
    duration_ms = models.PositiveIntegerField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "failed attempt"
        ordering = ("request", "n")
        constraints = [models.UniqueConstraint(fields=["request", "n"], name="attempt_once")]


class Watermark(models.Model):
    """Up to where a background task has worked."""

    name = models.CharField(max_length=50, primary_key=True)
    at = models.DateTimeField()


class Worker(models.Model):
    """A process with a lane. `beat` is a counter, so that a clock that jumps proves nothing."""

    id = models.UUIDField(primary_key=True, editable=False)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    role = models.CharField(max_length=10)
    beat = models.BigIntegerField(default=0)
    beat_at = models.DateTimeField()
