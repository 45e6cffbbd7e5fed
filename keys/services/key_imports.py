"""Imports many OpenRouter keys from one text, by its entries. Called by `import_keys`, the environment and the admin.

A bad entry is known by where it stands, never by its text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from keys.errors import DuplicateKey, DuplicateName, InvalidField, InvalidKeyText
from keys.key_text import parse_key_text, split_entries, tail_of
from keys.models import Account, OpenRouterKey
from keys.sealing import Sealed, get_vault
from keys.services.audit import Actor
from keys.services.fields import clean_name
from keys.services.keys import add_key


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One entry and where it stood, as "OPENROUTER_API_KEYS, entry 2"."""

    place: str
    text: Sealed


@dataclass(frozen=True, slots=True)
class ImportedKey:
    """A key of an import, as it may be shown."""

    name: str
    tail: str
    state: str

    def __str__(self) -> str:
        return f"{self.name} ({self.tail})"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """`known`: in the pool before. `refused`: the places of what is no key. `missing`: no longer in the environment."""

    added: tuple[ImportedKey, ...] = ()
    known: tuple[ImportedKey, ...] = ()
    refused: tuple[str, ...] = ()
    missing: tuple[ImportedKey, ...] = ()


class Plan(StrEnum):
    """What an import would do with an entry."""

    ADD = "to be added"
    KNOWN = "skipped, in the pool already"
    REPEATED = "skipped, repeated"
    REFUSED = "refused, not an OpenRouter key"


@dataclass(frozen=True, slots=True)
class PlannedEntry:
    """`name`: what the new key will be called, or what it is called in the pool. `tail`: all that may be shown."""

    place: str
    plan: Plan
    tail: str = ""
    name: str = ""


def read_entries(text: str, source: str) -> list[KeyEntry]:
    """The entries of `text`, separated by commas or white space; `source` is how messages call it."""
    return [KeyEntry(f"{source}, entry {position}", Sealed(entry)) for position, entry in split_entries(text)]


def import_entries(
    entries: Iterable[KeyEntry],
    *,
    actor: Actor,
    name_pattern: str,
    account: Account | None = None,
    from_environment: bool = False,
) -> ImportReport:
    """Add what is not in the pool yet, one transaction a key. `name_pattern` holds `{n}`, the next free number.

    Repeated entries count once. Raises InvalidField for a pattern that can't make names.
    """
    check_pattern(name_pattern)
    added: list[ImportedKey] = []
    known: list[ImportedKey] = []
    refused: list[str] = []
    seen: set[str] = set()
    for entry in entries:
        secret = _parsed(entry)
        if secret is None:
            refused.append(entry.place)
            continue
        fingerprint = get_vault().fingerprint(secret.reveal())
        if fingerprint in seen:
            continue
        seen.add(fingerprint)
        found = _find(fingerprint)
        if found is None:
            found = _add(secret, name_pattern, actor=actor, account=account, from_environment=from_environment)
            added.append(_shown(found))
        else:
            known.append(_shown(found))
    return ImportReport(tuple(added), tuple(known), tuple(refused))


def plan_entries(entries: Iterable[KeyEntry], name_pattern: str) -> list[PlannedEntry]:
    """What `import_entries` would do now. Two queries. Raises InvalidField for a pattern that can't make names."""
    check_pattern(name_pattern)
    texts = [(entry.place, _parsed(entry)) for entry in entries]
    vault = get_vault()
    prints = {place: vault.fingerprint(secret.reveal()) for place, secret in texts if secret is not None}
    found = OpenRouterKey.objects.filter(fingerprint__in=set(prints.values())).defer("secret")
    known = {key.fingerprint: key for key in found}
    names = _free_names(name_pattern, len(prints))
    planned, seen = [], set[str]()
    for place, secret in texts:
        if secret is None:
            planned.append(PlannedEntry(place, Plan.REFUSED))
            continue
        tail, mark = tail_of(secret.reveal()), prints[place]
        if mark in seen:
            planned.append(PlannedEntry(place, Plan.REPEATED, tail))
        elif mark in known:
            planned.append(PlannedEntry(place, Plan.KNOWN, tail, f"{known[mark].name}, {known[mark].state}"))
        else:
            planned.append(PlannedEntry(place, Plan.ADD, tail, names.pop(0)))
        seen.add(mark)
    return planned


def _parsed(entry: KeyEntry) -> Sealed | None:
    try:
        return Sealed(parse_key_text(entry.text.reveal()))
    except InvalidKeyText:
        return None


def check_pattern(name_pattern: str) -> None:
    if name_pattern.count("{n}") != 1:
        raise InvalidField("name_pattern", "The name pattern must hold {n} once, as prod-{n}.")
    clean_name(name_pattern.replace("{n}", "1" * 6), field="name pattern")


def _find(fingerprint: str) -> OpenRouterKey | None:
    return OpenRouterKey.objects.filter(fingerprint=fingerprint).first()


def _add(
    secret: Sealed, name_pattern: str, *, actor: Actor, account: Account | None, from_environment: bool
) -> OpenRouterKey:
    while True:
        name = _next_free_name(name_pattern)
        try:
            return add_key(actor=actor, secret=secret, name=name, account=account, from_environment=from_environment)
        except DuplicateName:  # someone took it this moment: the next one
            continue
        except DuplicateKey as exc:  # someone added it this moment
            return OpenRouterKey.objects.get(pk=exc.key_id)


def _next_free_name(name_pattern: str) -> str:
    return _free_names(name_pattern, 1)[0]


def _free_names(name_pattern: str, count: int) -> list[str]:
    """The `count` lowest numbers that are free, as names."""
    start, _, end = name_pattern.partition("{n}")
    taken = set(OpenRouterKey.objects.filter(name__startswith=start, name__endswith=end).values_list("name", flat=True))
    names = (f"{start}{n}{end}" for n in range(1, len(taken) + count + 1))
    return [name for name in names if name not in taken][:count]


def _shown(key: OpenRouterKey) -> ImportedKey:
    return ImportedKey(key.name, key.tail, key.state)
