"""A desk with a past, for `test_browser_pages.py`: made by `manage.py shell`, which has the service's settings.

Keys in every state and every phase of a rotation, cooldowns, long names, clients of every kind, and a month of
requests with errors and unknown costs. No secret is real, and none can be opened.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

from django.contrib.auth.models import Group, User
from django.urls import reverse
from django.utils import timezone

from keys.admin.rows import page_of
from keys.models import (
    Account,
    Attempt,
    Client,
    Cooldown,
    InFlight,
    KeyState,
    ModelAlias,
    OpenRouterKey,
    RequestLog,
    Watermark,
    Worker,
)
from keys.services.audit import Actor, record
from keys.services.rollups import aggregate_usage
from keys.uuid7 import request_id_of

ALICE = Actor("alice", "192.0.2.7")
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
LONG_KEY = "a-name-of-ninety-letters-that-somebody-pasted-from-a-ticket-without-any-space-in-it-at-all"
LONG_CLIENT = "a client with a rather long name, for the team of the third floor"
LONG_ACCOUNT = "A long account name of an operator who likes to describe things"
REFUSED = "OpenRouter refuses this key (401): User not found."
MODELS = ("anthropic/claude-3.5-sonnet", "anthropic/claude-3-opus", "anthropic/claude-3-haiku")
OUTCOMES = [(200, "", "")] * 30 + [
    (429, "rate_limit_error", "no_key"),
    (529, "overloaded_error", "provider_busy"),
    (400, "invalid_request_error", "bad_request"),
    (499, "client_left", "client_left"),
    (504, "timeout_error", "timed_out"),
]


def make() -> None:
    """Fill the database and print the addresses of its pages by their names, as JSON."""
    now = timezone.now()
    clients = _clients(now)
    keys = dict(_keys(now, clients[0]))
    requests = _requests(now, list(keys.values())[:4], clients)
    _cooldowns(now, keys)
    for n in range(60):
        after = {"note": "a note of several words " * (n % 9)}
        record(ALICE, "key.edited", keys[LONG_KEY], before={"note": "old"}, after=after)
    auditor = User.objects.create_user("audrey", password="a-long-password-of-a-test", is_staff=True)
    auditor.groups.set(Group.objects.filter(name="Auditors"))
    print(json.dumps(_pages(keys, clients, requests, auditor)))


def _keys(now: dt.datetime, client: Client) -> Iterator[tuple[str, OpenRouterKey]]:
    acme, umbrella, long = (
        Account.objects.create(name=name, organization=f"org_{name[:4]}") for name in ("Acme", "Umbrella", LONG_ACCOUNT)
    )
    unknown: dict[str, Any] = {"account": None, "checked_at": None, "label": "", "limit_nano": None}
    plans: dict[str, dict[str, Any]] = {
        **{f"prod-{n}": {"account": (acme, umbrella)[n % 2]} for n in range(1, 5)},
        "limited": {},
        LONG_KEY: {"note": "several words " * 40},
        "ready": {},
        "broke": {"account": long},
        "invalid": {"state": KeyState.INVALID, "invalid_since": now - HOUR, "check_error": REFUSED},
        "disabled": {"state": KeyState.DISABLED, "check_error": "OpenRouter did not answer within 10 s."},
        "due": {"rotates_at": now - DAY},
        "elsewhere": {"owner": "org_Other"},
        "plain": unknown | {"limit_remaining_nano": None, "limit_reset": "", "usage_nano": None},
        "checking": {"next": {"state": KeyState.PENDING, "check_error": REFUSED}},
        "overlap": {"next": {"owner": "org_Other"}},
        "draining": {"state": KeyState.DRAINING, "next": {}},
        "finished": {"state": KeyState.RETIRED, "secret": b"", "next": {}},
        **{f"spare-{n}": {} for n in range(8)},
    }
    for name, values in plans.items():
        following = values.pop("next", None)
        if following is not None:
            values["replaced_by"] = _key(now, f"{name}.2", {"account": acme, **following})
        key = _key(now, name, {"account": acme, **values})
        if key.state == KeyState.DRAINING:
            _fly(now, key, client)
        yield name, key


def _fly(now: dt.datetime, key: OpenRouterKey, client: Client) -> None:
    """Of a process that lives, so that nobody settles them."""
    worker = Worker.objects.latest("beat_at")
    for _ in range(3):
        InFlight.objects.create(id=uuid.uuid4(), worker=worker.pk, client=client, key=key, started_at=now)


def _key(now: dt.datetime, name: str, values: dict[str, Any]) -> OpenRouterKey:
    number = OpenRouterKey.objects.count()
    facts = {
        "secret": b"nothing",
        "tail": f"...{number:04}",
        "fingerprint": f"busy-{number}",
        "rotates_at": now + 80 * DAY,
        "checked_at": now - 3 * MINUTE,
        "label": f"sk-or-v1-...{number:04}",
        "limit_nano": 50 * 10**9,
        "limit_remaining_nano": 41_123_456_789,
        "limit_reset": "monthly",
        "usage_nano": 8_876_543_211,
        "selections": 1_234,
        "last_selected_at": now,
    }
    return OpenRouterKey.objects.create(name=name, **facts | values)


def _cooldowns(now: dt.datetime, keys: dict[str, OpenRouterKey]) -> None:
    def cool(minutes: float, cause: str = "key_rate_limited", **values: Any) -> None:
        until = now + minutes * MINUTE
        started_at = min(until, now) - 2 * MINUTE
        facts = {"detail": "HTTP 429: Rate limit exceeded: free-models-per-min.", "started_at": started_at}
        Cooldown.objects.create(cause=cause, until=until, **facts | values)

    cool(250, key=keys["limited"], repeat=2)
    cool(4, key=keys["prod-1"], pattern=":free")
    cool(-1, key=keys["ready"])
    cool(55, "out_of_credit", account=keys["broke"].account, detail="HTTP 402: Insufficient credits")
    for n in range(60, 400, 60):
        cool(-n, key=keys["prod-1"], cleared_at=now - n * MINUTE, cleared_by="trial")


def _clients(now: dt.datetime) -> list[Client]:
    plans: dict[str, dict[str, Any]] = {
        "laptop": {},
        "ci": {"expires_at": now + 20 * DAY},
        "gone": {"revoked_at": now - DAY},
        "expired": {"expires_at": now - DAY},
        LONG_CLIENT: {},
        "phone": {"expires_at": now + HOUR},
    }
    clients = [
        Client.objects.create(name=name, digest=f"busy-{name}"[:64], prefix=f"sk-ant-api03-{n:04}", **values)
        for n, (name, values) in enumerate(plans.items())
    ]
    Client.objects.filter(name="phone").update(replaced_by=clients[0])
    return clients


def _requests(now: dt.datetime, keys: list[OpenRouterKey], clients: list[Client]) -> list[RequestLog]:
    """Ever fewer the further back."""
    chance = random.Random(7)  # figures that mean nothing
    rows = [_request(chance, n, now - n * n * MINUTE / 19, keys, clients) for n in range(900)]
    RequestLog.objects.bulk_create(rows)
    failure = {
        "status": 429,
        "cause": "key_rate_limited",
        "duration_ms": 212,
        "detail": "HTTP 429: Rate limit exceeded",
    }
    twice = (row for row in rows if row.attempts == 2)
    Attempt.objects.bulk_create([Attempt(request=row, n=1, key=keys[0], **failure) for row in twice])
    while not Watermark.objects.filter(name="usage", at__gte=now).exists():
        aggregate_usage(timezone.now())
    return rows


def _request(
    chance: random.Random, n: int, at: dt.datetime, keys: list[OpenRouterKey], clients: list[Client]
) -> RequestLog:
    status, error, cause = chance.choice(OUTCOMES)
    request = uuid.UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | chance.getrandbits(62))
    is_unknown, is_keyless = status in (499, 504), cause == "no_key"
    model = chance.choice(MODELS)
    return RequestLog(
        id=request,
        request_id=request_id_of(request),
        client=clients[n % 5],
        key=None if is_keyless else keys[n % 4],
        model_asked=chance.choice(["claude-3-sonnet-20240229", model]),
        model_sent=model,
        status=status,
        error_type=error,
        cause=cause,
        attempts=0 if is_keyless else 1 + n % 2,
        stream=n % 2 > 0,
        input_tokens=chance.randrange(90_000),
        output_tokens=chance.randrange(4_000),
        cache_read_tokens=chance.randrange(9_000),
        cost_nano=None if is_unknown else 0 if error else chance.randrange(10**6, 10**9),
        cost_source="unknown" if is_unknown else chance.choice(["reported"] * 8 + ["reconciled", "estimated"]),
        latency_ms=chance.randrange(200, 30_000),
        first_token_ms=150,
        generation_id=f"gen-{n}-abc",
        client_ip="192.0.2.7",
        user_agent="anthropic-sdk-python/1.17.0",
        created_at=at,
        recorded_at=at,
    )


def _pages(
    keys: dict[str, OpenRouterKey], clients: list[Client], requests: list[RequestLog], auditor: User
) -> dict[str, str]:
    """Each kind of page, and those that look different for what they show."""
    failed = next(row for row in requests if row.status == 504)
    tried = next(row for row in requests if row.attempts == 2)
    rows = {
        **{f"key-{name[:9]}": keys[name] for name in ("prod-1", "limited", LONG_KEY, "invalid", "elsewhere", "plain")},
        "key-finished": keys["finished"],
        **{f"client-{client.name[:7].strip()}": client for client in clients},
        "account": Account.objects.get(name=LONG_ACCOUNT),
        "cooldown": Cooldown.objects.filter(key=keys["limited"]).get(),
        "request-failed": failed,
        "request-tried": tried,
        "user": auditor,
        "group": auditor.groups.get(),
    }
    acts = {
        "confirm-retire": ("keys_openrouterkey_do", keys["prod-2"].pk, "retire"),
        "confirm-cancel": ("keys_openrouterkey_do", keys["overlap"].pk, "cancel_rotation"),
        "confirm-revoke": ("keys_client_do", clients[0].pk, "revoke"),
        **{f"rotation-{n}": ("keys_openrouterkey_rotation", keys[n].pk) for n in ("checking", "overlap", "draining")},
        "rotation-finished": ("keys_openrouterkey_rotation", keys["finished"].pk),
        "rotation-start": ("keys_openrouterkey_rotation", keys["due"].pk),
        "client-replace": ("keys_client_replace", clients[1].pk),
        "alias-delete": ("keys_modelalias_delete", ModelAlias.objects.earliest("pk").pk),
        "user-password": ("auth_user_password_change", auditor.pk),
        "key-history": ("keys_openrouterkey_history", keys["prod-1"].pk),
        "import": ("keys_openrouterkey_import",),
        "password-changed": ("password_change_done",),
        **{f"{model}-add": (f"keys_{model}_add",) for model in ("client", "account", "modelalias")},
        "user-add": ("auth_user_add",),
    }
    lists = ("openrouterkey", "account", "cooldown", "client", "modelalias", "auditevent", "requestlog", "usagehour")
    usage, asked = (reverse(f"admin:keys_{model}_changelist") for model in ("usagehour", "requestlog"))
    return {
        **{name: page_of(row) for name, row in rows.items()},
        **{name: reverse(f"admin:{view}", args=arguments) for name, (view, *arguments) in acts.items()},
        **{f"list-{model}": reverse(f"admin:keys_{model}_changelist") for model in lists},
        **{f"usage-by-{group}": f"{usage}?group={group}" for group in ("account", "client", "model", "day", "hour")},
        "usage-wrong": f"{usage}?since=2026-02-01&until=2026-01-01",
        "usage-empty": f"{usage}?since=2020-01-01&until=2020-01-02",
        "requests-errors": f"{asked}?status=error",
        "requests-none": f"{asked}?q=gen-nothing",
        "requests-wrong": f"{asked}?since=yesterday&before=x",
        "list-due": f"{reverse('admin:keys_openrouterkey_changelist')}?rotation=due",
        "home-7d": "/admin/?period=7d",
        "home-30d": "/admin/?period=30d",
        "app": "/admin/keys/",
    }
