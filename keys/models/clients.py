"""Who may call us."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone


class Client(models.Model):
    """One holder of a client key. The key itself is shown once and never stored: only its HMAC is."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    digest = models.CharField(max_length=64, unique=True, editable=False)  # HMAC-SHA256 of the client key, hex
    prefix = models.CharField(max_length=24, editable=False)  # "sk-ant-api03-Ab3d", enough to recognise it by
    scopes = models.CharField(max_length=100, default="messages", editable=False)  # separated by spaces
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    replaced_by = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="replaces", editable=False
    )
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)  # written at most once a minute
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def has_scope(self, scope: str) -> bool:
        return scope in self.scopes.split()
