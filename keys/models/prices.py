"""The catalogue: upstream's models and their list prices. `keys.services.catalogue` keeps it, `keys.pricing` uses it.

A price is an integer of nano-USD per million tokens, that is 1e-15 USD a token: 3 USD per million is 3,000,000,000.
"""

from __future__ import annotations

from django.db import models

from keys.pricing import Price


class PriceSource(models.TextChoices):
    SNAPSHOT = "snapshot", "shipped with this release"
    SYNCED = "synced", "read from OpenRouter"


class ModelPrice(models.Model):
    """One upstream model. A null price is not known, or depends on what a router picks; zero is free."""

    model = models.CharField(max_length=200, unique=True)  # OpenRouter's id
    name = models.CharField(max_length=200, blank=True)
    context_length = models.BigIntegerField(null=True)  # tokens
    max_output = models.BigIntegerField(null=True)  # tokens
    prompt = models.BigIntegerField(null=True)
    completion = models.BigIntegerField(null=True)
    cache_read = models.BigIntegerField(null=True)
    cache_write = models.BigIntegerField(null=True)  # of five minutes
    created = models.DateTimeField(null=True)  # when upstream began to offer it
    updated_at = models.DateTimeField()  # when upstream last listed it
    source = models.CharField(max_length=10, choices=PriceSource.choices)

    class Meta:
        verbose_name = "model price"
        ordering = ("model",)

    def __str__(self) -> str:
        return self.model

    @property
    def price(self) -> Price | None:
        if self.prompt is None or self.completion is None:
            return None
        return Price(self.prompt, self.completion, cache_read=self.cache_read, cache_write=self.cache_write)
