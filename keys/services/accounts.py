"""Saves accounts: by hand in the admin, and from what a check learns of a key's owner."""

from __future__ import annotations

import uuid

from django.db import IntegrityError, transaction

from keys.errors import DuplicateName, NotFound
from keys.models import Account, OpenRouterKey
from keys.services.audit import Actor, changes, record
from keys.services.fields import clean_name


def save_account(*, actor: Actor, name: str, organization: str = "", account_id: uuid.UUID | None = None) -> Account:
    """Create an account, or change the one with `account_id`. Raises InvalidField, DuplicateName or NotFound."""
    wanted = {"name": clean_name(name), "organization": _clean_organization(organization)}
    try:
        with transaction.atomic():
            return _create(actor, wanted) if account_id is None else _change(actor, account_id, wanted)
    except IntegrityError as exc:
        raise DuplicateName("an account", wanted["name"]) from exc


def get_or_create_account(name: str, *, actor: Actor) -> Account:
    """The account of that name; made if there is none."""
    found = Account.objects.filter(name=clean_name(name)).first()
    return found or save_account(actor=actor, name=name)


def fill_account(key: OpenRouterKey, owner: str, *, actor: Actor) -> None:
    """Put a key without an account into the one of its owner, and tell an account without an organization its owner.

    The caller holds the Pool's and the key's lock, so two checks can't make the same account twice.
    """
    if not owner:
        return
    known = Account.objects.filter(organization=owner).order_by("created_at", "pk").first()
    if key.account_id is None:
        account = known or _create(actor, {"name": _free_name(owner), "organization": owner})
        OpenRouterKey.objects.filter(pk=key.pk).update(account=account)
        key.account = account
        record(actor, "key.edited", key, before={"account": None}, after={"account": account})
    elif known is None:
        account = Account.objects.select_for_update(no_key=True).get(pk=key.account_id)
        if not account.organization:
            _change(actor, account.pk, {"name": account.name, "organization": owner})


def _clean_organization(value: str) -> str:
    return clean_name(value, field="organization", longest=200) if value.strip() else ""


def _create(actor: Actor, wanted: dict[str, str]) -> Account:
    account = Account(**wanted)
    account.save(force_insert=True)
    record(actor, "account.added", account, after=wanted)
    return account


def _change(actor: Actor, account_id: uuid.UUID, wanted: dict[str, str]) -> Account:
    account = Account.objects.select_for_update(no_key=True).filter(pk=account_id).first()
    if account is None:
        raise NotFound("account", account_id)
    before, after = changes({field: getattr(account, field) for field in wanted}, wanted)
    if after:
        Account.objects.filter(pk=account.pk).update(**after)
        account.refresh_from_db()
        record(actor, "account.edited", account, before=before, after=after)
    return account


def _free_name(owner: str) -> str:
    """The owner's id, or with a number behind it if an operator has given that name to another account."""
    taken = set(Account.objects.values_list("name", flat=True))
    names = (f"{owner[:90]}{suffix}" for suffix in ("", *(f" ({n})" for n in range(2, len(taken) + 3))))
    return next(name for name in names if name not in taken)
