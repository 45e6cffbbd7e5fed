"""Writes what happens to the people of the admin: logins and passwords. Called by the admin, which owns the forms."""

from __future__ import annotations

import logging

from django.db import models, transaction

from keys.services.audit import Actor, record

logger = logging.getLogger("opensvm.admin")


def record_login(user: models.Model, *, actor: Actor) -> None:
    """Nobody is let in without it: a page that fails stores no session."""
    record(actor, "user.logged_in", user)
    logger.info("let an operator in", extra={"event": "admin.logged_in", "actor": actor.name, "ip": actor.ip})


def store_password(user: models.Model, *, actor: Actor) -> None:
    """`user` holds the hash already: making it takes long, and on SQLite a transaction stops all other writers."""
    with transaction.atomic():
        user.save(update_fields=["password"])
        record(actor, "user.password_changed", user)
