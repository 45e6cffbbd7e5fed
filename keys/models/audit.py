"""Who did what. Append-only."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import models
from django.utils import timezone

from keys.errors import AppendOnly


class AppendOnlyRows(models.QuerySet["AuditEvent"]):
    """Rows are added and read. The database's triggers refuse the rest as well, for whoever comes around this."""

    def update(self, **values: Any) -> NoReturn:
        raise AppendOnly

    def delete(self) -> NoReturn:
        raise AppendOnly

    def bulk_update(self, *args: Any, **options: Any) -> NoReturn:
        raise AppendOnly

    update.alters_data = True  # type: ignore[attr-defined]  # templates must not call them, as with Django's own
    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


class AuditEvent(models.Model):
    """One change, written in the same transaction as the change itself. Never holds a secret, never changes."""

    at = models.DateTimeField(default=timezone.now)
    actor = models.CharField(max_length=150)  # a user name, "environment", "command line" or "task"
    action = models.CharField(max_length=50)  # "key.added", "client.revoked"
    object_type = models.CharField(max_length=50)
    object_id = models.CharField(max_length=64)
    object_name = models.CharField(max_length=200)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    ip = models.CharField(max_length=45, blank=True)

    objects = AppendOnlyRows.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        indexes = [
            models.Index(fields=["object_type", "object_id"], name="audit_by_object"),
            models.Index(fields=["at"], name="audit_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_name}"

    def save(self, *args: Any, **options: Any) -> None:
        if not self._state.adding:
            raise AppendOnly
        super().save(*args, **options)

    def delete(self, *args: Any, **options: Any) -> NoReturn:
        raise AppendOnly
