"""Creates, edits and revokes clients. Called by the admin and by `create_client`."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterable

from django.db import IntegrityError, transaction
from django.utils import timezone

from keys.client_keys import new_client_key, prefix_of
from keys.errors import DuplicateName, IllegalStateChange, InvalidField, NotFound
from keys.models import Client
from keys.sealing import get_vault
from keys.services.audit import Actor, changes, record
from keys.services.fields import clean_moment, clean_name

logger = logging.getLogger("opensvm.clients")

SCOPES = ("messages", "stats")  # what a client may be allowed; every client has the first


def create_client(
    *, actor: Actor, name: str, scopes: Iterable[str] = ("messages",), expires_at: dt.datetime | None = None
) -> tuple[str, Client]:
    """The client key, which exists nowhere else afterwards, and its row. Raises InvalidField or DuplicateName."""
    now = timezone.now()
    client_key = new_client_key()
    client = Client(
        name=clean_name(name),
        digest=get_vault().client_digest(client_key),
        prefix=prefix_of(client_key),
        scopes=_clean_scopes(scopes),
        expires_at=_clean_expiry(expires_at, now),
        created_at=now,
        created_by_id=actor.user_id,
    )
    with transaction.atomic():
        _save_new(client)
        facts = {"scopes": client.scopes, "prefix": client.prefix, "expires_at": client.expires_at}
        record(actor, "client.created", client, after=facts)
    _log("created client", "client.created", client, actor)
    return client_key, client


def edit_client(client_id: uuid.UUID, *, actor: Actor, name: str, expires_at: dt.datetime | None) -> Client:
    """Change name and expiry. Raises InvalidField, DuplicateName or NotFound."""
    wanted = {"name": clean_name(name), "expires_at": clean_moment(expires_at, field="expires_at")}
    try:
        with transaction.atomic():
            client = _get_locked_client(client_id)
            before, after = changes({field: getattr(client, field) for field in wanted}, wanted)
            if after:
                _update(client, after)
                record(actor, "client.edited", client, before=before, after=after)
    except IntegrityError as exc:
        raise DuplicateName("a client", str(wanted["name"])) from exc
    return client


def revoke_client(client_id: uuid.UUID, *, actor: Actor) -> Client:
    """Refuse the client from its next request on, for ever. Raises IllegalStateChange or NotFound."""
    with transaction.atomic():
        client = _get_locked_client(client_id)
        if client.revoked_at is not None:
            raise IllegalStateChange(client, "revoked", "revoked again")
        _update(client, {"revoked_at": timezone.now()})
        record(actor, "client.revoked", client, before={"revoked_at": None}, after={"revoked_at": client.revoked_at})
    _log("revoked client", "client.revoked", client, actor)
    return client


def _save_new(client: Client) -> None:
    if Client.objects.filter(name=client.name).exists():
        raise DuplicateName("a client", client.name)
    try:
        with transaction.atomic():
            client.save(force_insert=True)
    except IntegrityError as exc:  # someone else was faster by a moment
        raise DuplicateName("a client", client.name) from exc


def _get_locked_client(client_id: uuid.UUID) -> Client:
    client = Client.objects.select_for_update(no_key=True).filter(pk=client_id).first()
    if client is None:
        raise NotFound("client", client_id)
    return client


def _update(client: Client, values: dict[str, object]) -> None:
    Client.objects.filter(pk=client.pk).update(**values)
    for field, value in values.items():
        setattr(client, field, value)


def _clean_scopes(scopes: Iterable[str]) -> str:
    asked = {SCOPES[0], *scopes}
    unknown = sorted(asked - set(SCOPES))
    if unknown:
        raise InvalidField("scopes", f"There is no scope {unknown[0]!r}: choose from {', '.join(SCOPES)}.")
    return " ".join(scope for scope in SCOPES if scope in asked)


def _clean_expiry(expires_at: dt.datetime | None, now: dt.datetime) -> dt.datetime | None:
    moment = clean_moment(expires_at, field="expires_at")
    if moment is not None and moment <= now:
        raise InvalidField("expires_at", f"The client would have expired already, at {moment.isoformat()}.")
    return moment


def _log(phrase: str, event: str, client: Client, actor: Actor) -> None:
    extra = {"event": event, "client": client.name, "client_key": client.prefix, "actor": actor.name}
    logger.info(phrase, extra=extra)
