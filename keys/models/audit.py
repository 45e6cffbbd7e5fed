"""Who did what. Append-only."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class AuditEvent(models.Model):
    """One change, written in the same transaction as the change itself. Never holds a secret."""

    at = models.DateTimeField(default=timezone.now)
    actor = models.CharField(max_length=150)  # a user name, "environment", "command line" or "task"
    action = models.CharField(max_length=50)  # "key.added", "client.revoked"
    object_type = models.CharField(max_length=50)
    object_id = models.CharField(max_length=64)
    object_name = models.CharField(max_length=200)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    ip = models.CharField(max_length=45, blank=True)

    class Meta:
        ordering = ("-at", "-id")
        indexes = [models.Index(fields=["object_type", "object_id"], name="audit_by_object")]

    def __str__(self) -> str:
        return f"{self.action} {self.object_name}"
