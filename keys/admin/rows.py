"""Reads of related rows that may be missing, and links to admin pages."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import models
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from keys.admin.display import NOTHING
from keys.admin.viewer import may_open


def find_related(row: models.Model, name: str) -> Any:
    """The row that `name` points to, or None: log tables have foreign keys that the database does not enforce."""
    try:
        return getattr(row, name)
    except ObjectDoesNotExist:
        return None


def page_of(row: models.Model) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def link_to(row: models.Model | None, *, text: str = "") -> SafeString | str:
    """Its bare name for who may not open its page."""
    if row is None:
        return NOTHING
    name = text or str(row)
    return format_html('<a href="{}">{}</a>', page_of(row), name) if may_open(row) else name


def link_to_related(row: models.Model, name: str) -> SafeString | str:
    """A link to the related row; its bare id when the row is missing."""
    related = find_related(row, name)
    if related is not None:
        return link_to(related)
    identity = getattr(row, f"{name}_id")
    return NOTHING if identity is None else f"missing ({identity})"


def list_of(model: type[models.Model], query: str = "") -> str:
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return f"{address}?{query}" if query else address
