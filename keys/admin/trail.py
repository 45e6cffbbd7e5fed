"""The way through the pages of the ledger: where each page began, oldest last.

A page is cut by its first id, so it knows the next, older one alone. The way back is therefore kept in the address.
"""

from __future__ import annotations

import uuid
from typing import Any

from django import forms

MOST_STEPS = 50  # more would make an address that servers refuse; from further back the way leads to the newest page

Trail = tuple[uuid.UUID, ...]


class TrailField(forms.Field):
    """Ids with dots between them. Empty is the newest page."""

    widget = forms.HiddenInput

    def to_python(self, value: Any) -> Trail:
        try:
            return tuple(uuid.UUID(part) for part in str(value).split(".")) if value else ()
        except ValueError as exc:
            raise forms.ValidationError("This page does not exist: begin with the newest.") from exc


def older(trail: Trail, first: uuid.UUID | None) -> str | None:
    """The address of the page that begins at `first`; None at the end."""
    return None if first is None else text_of((*trail, first)[-MOST_STEPS:])


def newer(trail: Trail) -> str | None:
    """The address of the page before; None is the newest."""
    return text_of(trail[:-1]) or None


def text_of(trail: Trail) -> str:
    return ".".join(step.hex for step in trail)
