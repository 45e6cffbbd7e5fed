"""OpenRouter keys in the admin: typed in once, checked, explained, and changed by services only."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from keys.causes import Cause
from tests.integration.admin.builders import build_account, build_client, build_cooldown, build_key, build_request
from tests.sandbox import SandboxFixture

if TYPE_CHECKING:
    from django.http import HttpResponse
    from django.test import Client

    from keys.models import OpenRouterKey

pytestmark = pytest.mark.django_db

LIST = "admin:keys_openrouterkey_changelist"
ADD = "admin:keys_openrouterkey_add"
PLANTED = "sk-or-v1-test-planted-by-hand-42"


def page_of(key: OpenRouterKey) -> str:
    return reverse("admin:keys_openrouterkey_change", args=[key.pk])


def do(desk: Client, key: OpenRouterKey, action: str) -> str:
    """Press a button of the key's page; what the page says then."""
    return text_of(desk.post(reverse("admin:keys_openrouterkey_do", args=[key.pk, action]), follow=True))


def act(desk: Client, action: str, *keys: OpenRouterKey, **more: str) -> str:
    """Run an action of the list; what the page says then."""
    chosen = {"action": action, "_selected_action": [str(key.pk) for key in keys], **more}
    return text_of(desk.post(reverse(LIST), chosen, follow=True))


def text_of(answer: Any) -> str:
    assert answer.status_code == 200
    return str(answer.content.decode())


def add(desk: Client, **values: str) -> HttpResponse:
    typed = {"name": "work", "key_text": PLANTED, "account": "", "tier": "1", "note": ""} | values
    return desk.post(reverse(ADD), typed, follow=True)  # type: ignore[return-value]


def all_stored_text() -> Iterator[str]:
    """Every text in every table, as the database holds it."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608 - names from the database
            for row in cursor.fetchall():
                yield from (bytes(v).decode("latin-1") if isinstance(v, bytes | memoryview) else str(v) for v in row)


# -- Adding


def test_an_added_key_is_stored_and_its_check_is_shown(desk: Client, openrouter: SandboxFixture) -> None:
    from keys.models import OpenRouterKey

    openrouter.add_key(PLANTED, name="work")
    account = build_account("acme")

    page = text_of(add(desk, account=str(account.pk), tier="2", note="from Bob"))

    key = OpenRouterKey.objects.get()
    assert (key.name, key.account, key.tier, key.note, key.tail) == ("work", account, 2, "from Bob", "...d-42")
    assert (key.state, key.check_error) == ("active", "")
    assert key.checked_at is not None
    assert key.created_by is not None
    assert key.created_by.get_username() == "olivia"
    assert "First check of work: OpenRouter accepts this key" in page


def test_a_key_that_openrouter_refuses_is_stored_and_shown_as_invalid(desk: Client, openrouter: SandboxFixture) -> None:
    page = text_of(add(desk))

    assert "First check of work: OpenRouter refuses this key (401)" in page
    assert '<span class="badge is-bad">invalid</span>' in page


def test_a_key_is_stored_when_openrouter_cannot_be_reached(desk: Client, no_openrouter: SandboxFixture) -> None:
    from keys.models import OpenRouterKey

    page = text_of(add(desk))

    key = OpenRouterKey.objects.get()
    assert key.state == "active"
    assert "can&#x27;t be reached" in page
    assert "can't be reached" in key.check_error


@pytest.mark.parametrize(
    "secret",
    [
        "hello",
        "sk-or-v1-",
        "sk-or-v2-test-1",
        "sk-or-v1-test 1",
        "sk-or-v1-tëst",
        "sk-or-v1-" + "x" * 201,
        "sk-or-v1-a\0b",
    ],
    ids=["a word", "no random part", "another kind", "a space", "not ascii", "too long", "a NUL"],
)
def test_what_is_no_key_is_refused_in_the_form_and_not_echoed(desk: Client, secret: str) -> None:
    from keys.models import OpenRouterKey

    page = text_of(add(desk, key_text=secret, name="kept name"))

    assert 'class="errorlist"' in page
    assert secret.strip() not in page.replace("sk-or-v1- and", "").replace("with sk-or-v1-", "")
    assert 'value="kept name"' in page
    assert not OpenRouterKey.objects.exists()


def test_a_key_that_is_in_the_pool_is_refused_by_its_name_there(desk: Client, no_openrouter: SandboxFixture) -> None:
    from keys.models import OpenRouterKey

    add(desk, name="first")

    page = text_of(add(desk, name="second"))

    assert "This key is in the pool already, as first (active)" in page
    assert PLANTED not in page
    assert OpenRouterKey.objects.count() == 1


def test_the_field_of_the_secret_hides_it_and_is_not_filled_in(desk: Client) -> None:
    page = text_of(desk.get(reverse(ADD), {"key_text": PLANTED}))

    field = page[page.index('name="key_text"') - 60 :].split(">", 1)[0]
    assert 'type="password"' in field
    assert 'autocomplete="off"' in field
    assert "value=" not in field
    assert PLANTED not in page


def test_the_secret_is_in_no_page_no_session_and_no_row(desk: Client, openrouter: SandboxFixture) -> None:
    from keys.models import OpenRouterKey

    pages = [add(desk), add(desk), add(desk, key_text=PLANTED, name="again")]
    key = OpenRouterKey.objects.get()
    pages += [desk.get(reverse(LIST)), desk.get(page_of(key)), desk.get(reverse("admin:index"))]
    pages += [desk.get(reverse("admin:keys_auditevent_changelist"))]
    pages += [desk.get(reverse("admin:keys_openrouterkey_history", args=[key.pk]))]
    do(desk, key, "check")

    assert all(PLANTED not in text_of(page) and key.fingerprint not in text_of(page) for page in pages)
    assert all(PLANTED not in text for text in all_stored_text())
    assert PLANTED not in json.dumps(dict(desk.session), default=str)
    assert PLANTED not in str(desk.cookies)


# -- Changing


def test_name_account_tier_and_note_can_be_changed(desk: Client) -> None:
    from keys.models import AuditEvent

    key, account = build_key("old"), build_account()
    typed = {"name": "new", "account": str(account.pk), "tier": "3", "note": "moved", "state": "retired", "turn": "99"}

    desk.post(page_of(key), typed)

    key.refresh_from_db()
    assert (key.name, key.account, key.tier, key.note) == ("new", account, 3, "moved")
    assert (key.state, key.turn) == ("active", 0)
    event = AuditEvent.objects.get(action="key.edited")
    assert (event.actor, event.ip) == ("olivia", "127.0.0.1")


@pytest.mark.parametrize(
    ("typed", "words"),
    [({"name": "taken"}, "already exists"), ({"name": ""}, "required"), ({"tier": "-1"}, "greater than or equal")],
    ids=["name taken", "no name", "negative tier"],
)
def test_a_change_that_is_refused_says_why_and_changes_nothing(desk: Client, typed: dict[str, str], words: str) -> None:
    build_key("taken")
    key = build_key("mine")

    page = text_of(desk.post(page_of(key), {"name": "mine", "account": "", "tier": "1", "note": ""} | typed))

    assert words in page
    key.refresh_from_db()
    assert (key.name, key.tier) == ("mine", 1)


def test_the_refusal_of_a_service_stands_at_its_field(desk: Client) -> None:
    key = build_key("mine")

    page = text_of(desk.post(page_of(key), {"name": "mine", "account": "", "tier": "32768", "note": ""}))

    assert "32767" in page
    assert 'class="errorlist"' in page


# -- Actions


@pytest.mark.parametrize(
    ("action", "before", "after", "said"),
    [
        ("disable", "active", "disabled", "1 disabled."),
        ("disable", "invalid", "disabled", "1 disabled."),
        ("enable", "disabled", "active", "1 enabled."),
        ("enable", "invalid", "active", "1 enabled."),
        ("enable", "active", "active", "0 enabled, 1 skipped (already active)."),
        ("disable", "disabled", "disabled", "0 disabled, 1 skipped (already disabled)."),
        ("retire", "disabled", "retired", "1 retired."),
    ],
)
def test_a_button_changes_the_state_where_that_is_legal(
    desk: Client, action: str, before: str, after: str, said: str
) -> None:
    key = build_key(state=before)

    page = do(desk, key, action)

    key.refresh_from_db()
    assert key.state == after
    assert said in page


@pytest.mark.parametrize("action", ["check", "disable", "enable", "retire"])
def test_a_retired_key_stays_as_it_is(desk: Client, action: str) -> None:
    key = build_key(state="retired", secret=b"")

    assert "1 skipped (already retired)" in do(desk, key, action)


def test_a_page_offers_only_what_is_legal(desk: Client) -> None:
    active, retired = build_key(), build_key(state="retired", secret=b"")

    buttons = text_of(desk.get(page_of(active)))
    none = text_of(desk.get(page_of(retired)))

    assert [f"/do/{name}/" in buttons for name in ("check", "disable", "retire")] == [True] * 3
    assert [f"/do/{name}/" in buttons for name in ("enable", "clear_cooldown")] == [False] * 2
    assert "/do/" not in none


def test_an_action_of_the_list_reports_what_it_did_and_what_it_skipped(desk: Client) -> None:
    keys = [build_key() for _ in range(3)]
    retired = build_key(state="retired", secret=b"")

    page = act(desk, "disable", *keys, retired)

    assert "3 disabled, 1 skipped (already retired)." in page
    for key in keys:
        key.refresh_from_db()
        assert key.state == "disabled"


def test_retiring_from_the_list_asks_first(desk: Client) -> None:
    key, retired = build_key("old one"), build_key("gone", state="retired", secret=b"")

    asked = act(desk, "retire", key, retired)
    key.refresh_from_db()
    state_when_asked = key.state
    said = act(desk, "retire", key, retired, confirmed="yes")

    assert "Skipped" in asked
    assert "erases its copy of the secret" in asked
    assert state_when_asked == "active"
    assert "1 retired, 1 skipped (already retired)." in said
    key.refresh_from_db()
    assert (key.state, bytes(key.secret)) == ("retired", b"")


def test_retiring_from_the_page_asks_first(desk: Client) -> None:
    key = build_key()
    url = reverse("admin:keys_openrouterkey_do", args=[key.pk, "retire"])

    page = text_of(desk.get(url))

    key.refresh_from_db()
    assert key.state == "active"
    assert "erases its copy of the secret" in page
    assert desk.get(url.replace("retire", "disable")).status_code == 405
    assert desk.get(url.replace("retire", "explode")).status_code == 404


def test_check_now_asks_openrouter_and_says_what_it_answered(desk: Client, openrouter: SandboxFixture) -> None:
    good, bad = build_key("good"), build_key("bad")
    openrouter.add_key(f"sk-or-v1-test-planted-{good.name}")  # not the text of either: both are refused

    page = act(desk, "check", good, bad)

    assert "2 checked." in page
    assert "good: OpenRouter refuses this key (401)" in page
    assert "bad: OpenRouter refuses this key (401)" in page


def test_clear_cooldown_ends_those_of_the_key_and_of_its_account(desk: Client) -> None:
    account = build_account()
    key = build_key(account=account)
    cooldowns = [build_cooldown(key=key), build_cooldown(account=account, cause=Cause.OUT_OF_CREDIT)]

    page = do(desk, key, "clear_cooldown")

    assert "1 cleared." in page
    for cooldown in cooldowns:
        cooldown.refresh_from_db()
        assert cooldown.cleared_by == "olivia"
    assert "1 skipped (no open cooldown)" in do(desk, key, "clear_cooldown")


def test_an_action_leaves_a_log_entry_without_secrets(desk: Client) -> None:
    from django.contrib.admin.models import LogEntry

    key = build_key("work")

    do(desk, key, "disable")

    entry = LogEntry.objects.get()
    assert (entry.object_repr, entry.change_message) == (str(key), "Disabled")


# -- What is shown


def test_the_list_says_why_each_key_is_not_used(desk: Client) -> None:
    acme = build_account("acme")
    build_cooldown(key=build_key("limited"), minutes=4)
    build_cooldown(key=build_key("due"), minutes=-1)
    build_cooldown(account=acme, cause=Cause.OUT_OF_CREDIT)
    build_key("poor", account=acme)
    build_key("off", state="disabled")
    build_key("bad", state="invalid", invalid_since=timezone.now(), check_error="OpenRouter refuses this key (401).")
    build_key("fine")

    page = text_of(desk.get(reverse(LIST)))

    assert 'rate-limited</span> <span class="reason">until' in page
    assert "(in 4 min)" in page
    assert "was rate-limited; the next request tries it" in page
    assert 'out of credit</span> <span class="reason">account acme, until' in page
    assert "disabled</span>" in page
    assert 'invalid</span> <span class="reason">since' in page
    assert "active</span>" in page


def test_the_cost_of_a_request_is_there_at_once(desk: Client) -> None:
    key = build_key()
    client = build_client()
    build_request(client, key, cost_nano=1_234_500)
    build_request(client, key, cost_nano=2)
    build_request(client, key, cost_nano=None, cost_source="unknown")

    listed, page = text_of(desk.get(reverse(LIST))), text_of(desk.get(page_of(key)))

    assert "$0.001234502 + 1 unknown" in listed
    assert "$0.001234502 + 1 unknown" in page
    assert timezone.now().date().isoformat() in page


def test_the_page_explains_open_cooldowns_and_keeps_the_past_ones(desk: Client) -> None:
    key = build_key()
    build_cooldown(key=key, detail="limit of 20 requests a minute", repeat=2)
    ended = timezone.now() - dt.timedelta(hours=1)
    build_cooldown(
        key=key, minutes=-70, cause=Cause.KEY_REFUSED, detail="no such key", cleared_at=ended, cleared_by="check"
    )

    page = text_of(desk.get(page_of(key)))

    assert "limit of 20 requests a minute" in page
    assert "no such key" in page
    assert "cooldown ends" in page


@pytest.mark.parametrize(
    ("accounts", "is_said"),
    [(("acme", "acme"), True), (("acme", "other"), False), (("acme", None), False), (("acme",), False), ((), False)],
    ids=["one account", "two accounts", "a key without", "a single key", "no key"],
)
def test_a_pool_that_is_one_account_is_pointed_out(
    desk: Client, accounts: tuple[str | None, ...], is_said: bool
) -> None:
    known = {name: build_account(name) for name in set(accounts) - {None} if name}
    for name in accounts:
        build_key(account=known[name] if name else None)
    build_key(state="retired", secret=b"")

    for url in (reverse(LIST), reverse("admin:keys_account_changelist"), reverse("admin:index")):
        assert ("belong to one OpenRouter account, acme" in text_of(desk.get(url))) is is_said


def test_the_list_can_be_filtered_and_searched(desk: Client) -> None:
    build_key("alpha")
    build_key("beta", state="retired", secret=b"")

    here = text_of(desk.get(reverse(LIST), {"is": "here"}))
    found = text_of(desk.get(reverse(LIST), {"q": "beta"}))

    assert ("alpha" in here, ">beta<" in here) == (True, False)
    assert (">alpha<" in found, "beta" in found) == (False, True)
