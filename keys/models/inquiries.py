"""Which costs are still being asked for, and when they are asked for next. `keys.services.costs` works it off."""

from __future__ import annotations

from django.db import models

from keys.models.ledger import RequestLog


class CostInquiry(models.Model):
    """The cost of one ledger row that OpenRouter did not tell yet, or that can be told better than by an estimate.

    A row of unknown cost needs none to be asked about for the first time. Whoever moves `next_at` on may ask.
    """

    request = models.OneToOneField(
        RequestLog, primary_key=True, db_constraint=False, on_delete=models.DO_NOTHING, related_name="cost_inquiry"
    )
    since = models.DateTimeField()  # the time to give up counts from here
    next_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = "cost inquiry"
        verbose_name_plural = "cost inquiries"
