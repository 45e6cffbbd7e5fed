"""Which master keys have sealed something in this database. The keys themselves are in the keyring file."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone


class MasterKey(models.Model):
    """A registered master key: a keyring without it can't serve this database. Exactly one is active."""

    key_id = models.CharField(max_length=32, primary_key=True)
    check_value = models.CharField(max_length=64)  # HMAC of a constant: proves that the keyring holds the same key
    active = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["active"], condition=Q(active=True), name="master_key_one_active")
        ]

    def __str__(self) -> str:
        return self.key_id
