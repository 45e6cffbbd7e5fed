"""What an operator pasted, between the preview of an import and its confirmation."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone

from keys.models.pool import Account


class KeyImport(models.Model):
    """A prepared import: the pasted text, sealed as a key is. Gone when it is carried out or given up, or too old.

    So a preview needs no secret in the page, the session or a message, and nobody has to paste twice.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    name_pattern = models.CharField(max_length=100)
    account = models.ForeignKey(Account, null=True, on_delete=models.CASCADE, related_name="+")
    source = models.CharField(max_length=100)  # how messages call it: "the pasted text", or the file's name
    secret = models.BinaryField()  # the text, sealed

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"import from {self.source}"
