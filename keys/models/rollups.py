"""The sums that reports are made of. Recomputed from the ledger by `keys.services.rollups`, never incremented."""

from __future__ import annotations

from django.db import models

from keys.models.clients import Client
from keys.models.pool import OpenRouterKey


class Sums(models.Model):
    """What `keys.usage.Usage` counts. Costs are of the requests whose cost is known."""

    requests = models.BigIntegerField()
    errors = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    cost_nano = models.BigIntegerField()  # of the rows whose cost is known
    unknown_costs = models.BigIntegerField()
    reconciled_nano = models.BigIntegerField(db_default=0)  # the part of the cost that was asked for afterwards
    estimated_nano = models.BigIntegerField(db_default=0)  # the part that is made of list prices

    class Meta:
        abstract = True


class UsageHour(Sums):
    """The sum of the ledger's rows of one hour, key, client and model."""

    hour = models.DateTimeField()
    key = models.ForeignKey(
        OpenRouterKey,
        null=True,
        db_constraint=False,
        db_index=False,
        on_delete=models.DO_NOTHING,
        related_name="usage_hours",
    )
    client = models.ForeignKey(
        Client, db_constraint=False, db_index=False, on_delete=models.DO_NOTHING, related_name="usage_hours"
    )
    model = models.CharField(max_length=200, blank=True)  # as sent upstream
    latency_histogram = models.JSONField(default=list)  # requests by keys.usage.LATENCY_BOUNDS_MS

    class Meta:
        verbose_name = "usage by hour"
        verbose_name_plural = "usage by hour"
        indexes = [  # the last three lead a search for requests to the hours that have some
            models.Index(fields=["hour"], name="usage_hour"),
            models.Index(fields=["key", "hour"], name="usage_hour_by_key"),
            models.Index(fields=["client", "hour"], name="usage_hour_by_client"),
            models.Index(fields=["model", "hour"], name="usage_hour_by_model"),
        ]


class UsageDay(Sums):
    """The sum of the hours of one UTC day, key, client and model: a year of them is read at once."""

    day = models.DateField()
    key = models.ForeignKey(
        OpenRouterKey, null=True, db_constraint=False, db_index=False, on_delete=models.DO_NOTHING, related_name="+"
    )
    client = models.ForeignKey(
        Client, db_constraint=False, db_index=False, on_delete=models.DO_NOTHING, related_name="+"
    )
    model = models.CharField(max_length=200, blank=True)

    class Meta:
        verbose_name = "usage by day"
        verbose_name_plural = "usage by day"
        indexes = [models.Index(fields=["day"], name="usage_day")]


class TrafficHour(Sums):
    """The sum of all of the ledger's rows of one hour: what the home page draws."""

    hour = models.DateTimeField(primary_key=True)
    statuses = models.JSONField(default=dict)  # {"200": requests}
    causes = models.JSONField(default=dict)  # {cause: requests}; "" is an error without a cause
    latency_histogram = models.JSONField(default=list)

    class Meta:
        verbose_name = "traffic by hour"
        verbose_name_plural = "traffic by hour"
