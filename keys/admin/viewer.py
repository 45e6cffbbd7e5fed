"""Who looks at the page that is being made, so that no link leads to a page that is closed to them.

Columns and sections are made far from the request; what they may link to is not known to them otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db import models

_viewer: ContextVar[Any] = ContextVar("viewer", default=None)


@contextmanager
def seen_by(user: Any) -> Iterator[None]:
    token = _viewer.set(user)
    try:
        yield
    finally:
        _viewer.reset(token)


def may_open(model: type[models.Model] | models.Model) -> bool:
    """Whether the page of such a row is open to who looks; outside of a page to everybody."""
    user = _viewer.get()
    return user is None or user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")
