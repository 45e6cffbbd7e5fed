"""Creates, edits and revokes clients. Called by the admin and by `create_client`."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterable

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from keys.client_keys import new_client_key, prefix_of
from keys.errors import DuplicateName, IllegalStateChange, InvalidField, NotFound
from keys.models import Client
from keys.sealing import get_vault
from keys.services.audit import Actor, changes, record
from keys.services.fields import clean_moment, clean_name

logger = logging.getLogger("opensvm.clients")

LONGEST_GRACE = dt.timedelta(days=90)
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


@sensitive_variables()
def replace_client(
    client_id: uuid.UUID, *, actor: Actor, grace: dt.timedelta, name: str = ""
) -> tuple[str, Client, Client]:
    """A new client key with the same scopes and expiry, its row, and the old client, which ends after `grace`.

    `name`: empty for the next of the line. Without grace the old one is revoked at once. Raises InvalidField,
    DuplicateName, IllegalStateChange or NotFound.
    """
    now = timezone.now()
    if grace < dt.timedelta() or grace > LONGEST_GRACE:
        raise InvalidField("grace", f"The grace period must be 0 to {LONGEST_GRACE.days} days.")
    with transaction.atomic():
        old = _get_locked_client(client_id)
        if refusal := refusal_to_replace(old, now):
            raise IllegalStateChange(old, refusal, "replaced")
        client_key, new = create_client(
            actor=actor, name=name or next_name(old), scopes=old.scopes.split(), expires_at=old.expires_at
        )
        ends = min(now + grace, old.expires_at or now + grace)
        after = {"replaced_by": new, "expires_at": ends} if grace else {"replaced_by": new, "revoked_at": now}
        before = {field: getattr(old, field) for field in after}
        _update(old, after)
        record(actor, "client.replaced", old, before=before, after=after)
    _log("replaced client", "client.replaced", old, actor)
    return client_key, new, old


def refusal_to_replace(client: Client, now: dt.datetime) -> str:
    """What the client is already, so that it can't be replaced; empty if it can."""
    if client.revoked_at is not None:
        return "revoked"
    if client.replaced_by_id is not None:
        return "replaced"
    return "expired" if client.expires_at is not None and client.expires_at <= now else ""


def next_name(client: Client) -> str:
    """`phone`, `phone.2`, `phone.3`: the first one's name and a number that is free."""
    first, seen = client, {client.pk}
    while (older := Client.objects.filter(replaced_by=first).first()) is not None and older.pk not in seen:
        first = older
        seen.add(older.pk)
    start = f"{first.name[:92]}."
    taken = set(Client.objects.filter(name__startswith=start).values_list("name", flat=True))
    return next(name for n in range(2, len(taken) + 3) if (name := f"{start}{n}") not in taken)


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
