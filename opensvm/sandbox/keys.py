"""The keys and accounts that the sandbox knows, what `GET /key` tells of them, and when they are refused."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opensvm.sandbox.ledger import Ledger, first_day
from opensvm.sandbox.money import NANO, usd

PREFIX = "sk-or-v1-sandbox-"
SPANS = (None, "daily", "weekly", "monthly")
WORKSPACE_ID = "5a4db0c5-0000-4000-8000-000000000001"


def sandbox_keys(count: int) -> tuple[str, ...]:
    """New random keys that no one can take for real ones."""
    return tuple(PREFIX + secrets.token_hex(24) for _ in range(count))


def ensure_keys_file(path: Path, count: int = 3) -> tuple[str, ...]:
    """The keys in the file at `path`, one a line; the file is made with `count` new ones if it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(
            "# Keys of the OpenSVM Sandbox. They are worth nothing.\n" + "\n".join(sandbox_keys(count)) + "\n"
        )
    return read_keys_file(path)


def read_keys_file(path: Path) -> tuple[str, ...]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def tail_of(secret: str) -> str:
    return f"...{secret[-4:]}"


@dataclass(slots=True)
class Account:
    """Who pays. `credit_nano` None is credit without end."""

    name: str
    credit_nano: int | None = None
    user_id: str = ""
    organization_id: str | None = None

    def __post_init__(self) -> None:
        self.user_id = self.user_id or f"user_sandbox_{self.name}"


@dataclass(slots=True)
class RateLimit:
    """More than `requests` in any `seconds` are answered with 429."""

    requests: int
    seconds: float
    retry_after: float | None = None
    taken: deque[float] = field(default_factory=deque)

    def allows(self, now: float) -> bool:
        """Takes one request from the limit, or says no."""
        while self.taken and self.taken[0] <= now - self.seconds:
            self.taken.popleft()
        if len(self.taken) >= self.requests:
            return False
        self.taken.append(now)
        return True


@dataclass(slots=True)
class SandboxKey:
    secret: str
    account: Account
    name: str
    created_at: dt.datetime
    updated_at: dt.datetime | None = None
    limit_nano: int | None = None
    limit_reset: str | None = None
    expires_at: dt.datetime | None = None
    disabled: bool = False
    is_management: bool = False
    include_byok_in_limit: bool = False
    rate_limit: RateLimit | None = None
    hash: str = ""

    def __post_init__(self) -> None:
        self.hash = self.hash or hash_of(self.secret)

    @property
    def tail(self) -> str:
        return tail_of(self.secret)

    @property
    def label(self) -> str:
        return f"{self.secret[:12]}...{self.secret[-3:]}"

    @property
    def names(self) -> frozenset[str]:
        """What a rule may call it."""
        return frozenset({self.secret, self.name, self.tail, self.hash})

    def remaining_nano(self, ledger: Ledger, today: dt.date) -> int | None:
        """What is left of its limit in the current span; below zero when it was overdrawn. None: no limit."""
        if self.limit_nano is None:
            return None
        return self.limit_nano - ledger.spent_by_key(self.hash, first_day(self.limit_reset, today))

    def refusal(self, now: dt.datetime) -> str:
        """The name of the error with which the key is refused, or nothing."""
        if self.disabled:
            return "disabled"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return ""


class KeyBook:
    """All keys by their text, and their accounts by name."""

    def __init__(self) -> None:
        self._keys: dict[str, SandboxKey] = {}
        self.accounts: dict[str, Account] = {}

    def account(self, name: str) -> Account:
        return self.accounts.setdefault(name, Account(name))

    def add(self, key: SandboxKey) -> SandboxKey:
        self._keys[key.secret] = key
        return key

    def find(self, secret: str) -> SandboxKey | None:
        return self._keys.get(secret)

    def find_named(self, name: str) -> SandboxKey | None:
        """By text, name, tail or hash."""
        return next((key for key in self._keys.values() if name in key.names), None)

    def remove(self, key: SandboxKey) -> None:
        del self._keys[key.secret]

    def __iter__(self) -> Iterator[SandboxKey]:
        return iter(self._keys.values())

    def of_account(self, account: Account) -> list[SandboxKey]:
        return [key for key in self._keys.values() if key.account is account and not key.is_management]


def new_key(
    book: KeyBook,
    now: dt.datetime,
    *,
    secret: str = "",
    name: str = "",
    account: str = "main",
    limit_usd: float | None = None,
    limit_reset: str | None = None,
    expires_at: dt.datetime | None = None,
    disabled: bool = False,
    management: bool = False,
    rate_limit: RateLimit | None = None,
) -> SandboxKey:
    if limit_reset not in SPANS:
        raise ValueError(f"limit_reset is daily, weekly, monthly or null, not {limit_reset!r}.")
    secret = secret or sandbox_keys(1)[0]
    return book.add(
        SandboxKey(
            secret=secret,
            account=book.account(account),
            name=name or f"sandbox {uuid.uuid4().hex[:6]}",
            created_at=now,
            limit_nano=None if limit_usd is None else round(limit_usd * NANO),
            limit_reset=limit_reset,
            expires_at=expires_at,
            disabled=disabled,
            is_management=management,
            rate_limit=rate_limit,
        )
    )


def stamp(at: dt.datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def _usage_fields(key: SandboxKey, ledger: Ledger, today: dt.date) -> dict[str, Any]:
    spent = {span: ledger.spent_by_key(key.hash, first_day(span, today)) for span in SPANS}
    names = {None: "usage", "daily": "usage_daily", "weekly": "usage_weekly", "monthly": "usage_monthly"}
    byok = {f"byok_{name}": 0 for name in names.values()}
    return {**{names[span]: usd(nano) for span, nano in spent.items()}, **byok}


def _limit_fields(key: SandboxKey, ledger: Ledger, today: dt.date) -> dict[str, Any]:
    remaining = key.remaining_nano(ledger, today)
    return {
        "limit": None if key.limit_nano is None else usd(key.limit_nano),
        "limit_remaining": None if remaining is None else usd(max(remaining, 0)),
        "limit_reset": key.limit_reset,
        "include_byok_in_limit": key.include_byok_in_limit,
    }


def key_facts(key: SandboxKey, ledger: Ledger, today: dt.date) -> dict[str, Any]:
    """`data` of `GET /key`."""
    return {
        "label": key.label,
        **_limit_fields(key, ledger, today),
        **_usage_fields(key, ledger, today),
        "is_free_tier": False,
        "is_management_key": key.is_management,
        "is_provisioning_key": key.is_management,
        "creator_user_id": key.account.user_id,
        "organization_id": key.account.organization_id,
        "workspace_id": WORKSPACE_ID,
        "expires_at": stamp(key.expires_at),
        "allowed_data_regions": None,
        "free_model_daily_requests": {"limit": 1000, "remaining": 1000, "used": 0},
        "rate_limit": {"requests": -1, "interval": "10s", "note": "This field is deprecated and safe to ignore."},
    }


def key_record(key: SandboxKey, ledger: Ledger, today: dt.date) -> dict[str, Any]:
    """A key as the management endpoints show it; its text is not in it."""
    return {
        "hash": key.hash,
        "name": key.name,
        "label": key.label,
        "disabled": key.disabled,
        **_limit_fields(key, ledger, today),
        **_usage_fields(key, ledger, today),
        "expires_at": stamp(key.expires_at),
        "created_at": stamp(key.created_at),
        "updated_at": stamp(key.updated_at),
        "workspace_id": WORKSPACE_ID,
        "creator_user_id": key.account.user_id,
        "external_user": None,
    }
