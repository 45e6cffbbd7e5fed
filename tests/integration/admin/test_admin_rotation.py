"""A rotation in the admin, from the pasted successor to the retired key, and what its pages show on the way."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from keys.models import InFlight, OpenRouterKey
from tests.integration.admin.builders import build_account, build_cooldown, build_key
from tests.integration.admin.test_admin_keys import act, all_stored_text, do, page_of, text_of
from tests.sandbox import SandboxFixture

if TYPE_CHECKING:
    from django.test import Client

pytestmark = pytest.mark.django_db

SUCCESSOR = "sk-or-v1-test-planted-successor-7"
BUDGET = 9


def rotation_of(key: OpenRouterKey) -> str:
    return reverse("admin:keys_openrouterkey_rotation", args=[key.pk])


def start(desk: Client, key: OpenRouterKey, **values: str) -> str:
    typed = {"key_text": SUCCESSOR, "name": "prod.2"} | values
    return text_of(desk.post(rotation_of(key), typed, follow=True))


def state_of(name: str) -> str:
    return OpenRouterKey.objects.get(name=name).state


@pytest.fixture
def accepted(openrouter: SandboxFixture) -> SandboxFixture:
    openrouter.add_key(SUCCESSOR, name="prod.2")
    return openrouter


def test_a_rotation_from_the_pasted_key_to_the_retired_one(desk: Client, accepted: SandboxFixture) -> None:
    old = build_key("prod", tier=2)
    request = InFlight.objects.create(id=uuid.uuid4(), client_id=uuid.uuid4(), key=old, started_at=timezone.now())

    assert "prod.2" in text_of(desk.get(rotation_of(old)))  # the name it suggests
    page = start(desk, old)
    assert "Check of prod.2: OpenRouter accepts this key" in page
    assert "prod.2 answers requests beside prod" in page

    draining = text_of(desk.post(reverse("admin:keys_openrouterkey_do", args=[old.pk, "drain"]), follow=True))
    assert "1 request of prod left" in draining
    assert "Finish rotation</button>" not in draining
    assert "1 skipped (still answering)" in do(desk, old, "finish_rotation")

    request.delete()
    shown = text_of(desk.get(rotation_of(old)))
    assert "No request of prod is left" in shown
    assert shown.count('data-refresh="3"') == 2
    finish = reverse("admin:keys_openrouterkey_do", args=[old.pk, "finish_rotation"])
    finished = text_of(desk.post(f"{finish}?back=rotation", follow=True))
    assert "1 retired." in finished
    assert "prod is retired: its secret is erased" in finished
    assert "data-refresh" not in finished
    assert "Cancel rotation" not in finished
    assert (state_of("prod"), state_of("prod.2")) == ("retired", "active")
    assert OpenRouterKey.objects.get(name="prod.2").tier == 2


def test_a_successor_that_openrouter_refuses_waits_and_can_be_checked_again(
    desk: Client, openrouter: SandboxFixture
) -> None:
    old = build_key("prod")

    page = start(desk, old)

    assert "OpenRouter refuses this key (401)" in page
    assert "prod.2 does not serve" in page
    assert f"Drain {old.name}</button>" not in page
    openrouter.add_key(SUCCESSOR, name="prod.2")
    check = reverse("admin:keys_openrouterkey_do", args=[OpenRouterKey.objects.get(name="prod.2").pk, "check"])
    answer = desk.post(f"{check}?back=rotation", follow=True)
    assert "prod.2 answers requests beside prod" in text_of(answer)


def test_a_cancelled_rotation_asks_first_and_can_be_started_again(desk: Client, accepted: SandboxFixture) -> None:
    old = build_key("prod")
    start(desk, old)
    url = reverse("admin:keys_openrouterkey_do", args=[old.pk, "cancel_rotation"])

    assert "goes on as it did before" in text_of(desk.get(url))
    assert "1 cancelled." in text_of(desk.post(url, {"confirmed": "yes"}, follow=True))
    assert (state_of("prod"), state_of("prod.2")) == ("active", "disabled")
    assert "Store and check" in text_of(desk.get(rotation_of(old)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"key_text": "hello"}, "not an OpenRouter key"),
        ({"key_text": ""}, "required"),
        ({"name": "taken"}, "choose another name"),
        ({"key_text": "sk-or-v1-test-known"}, "in the pool already, as taken"),
    ],
    ids=["no key", "empty", "name taken", "known key"],
)
def test_a_successor_that_is_refused_starts_nothing_and_is_not_echoed(
    desk: Client, openrouter: SandboxFixture, values: dict[str, str], words: str
) -> None:
    from keys.sealing import Sealed
    from keys.services.keys import add_key
    from tests.integration.admin.builders import ALICE

    add_key(actor=ALICE, secret=Sealed("sk-or-v1-test-known"), name="taken")
    old = build_key("prod")

    page = start(desk, old, **values)

    assert words in page
    assert not any(text in page for text in ("sk-or-v1-test-known", SUCCESSOR))
    assert OpenRouterKey.objects.count() == 2


def test_the_successor_is_stored_sealed_alone(desk: Client, accepted: SandboxFixture) -> None:
    start(desk, build_key("prod"))

    assert all(SUCCESSOR not in text for text in all_stored_text())
    assert SUCCESSOR not in str(dict(desk.session)) + str(desk.cookies)


@pytest.mark.parametrize("state", ["retired", "draining", "pending"])
def test_a_key_in_this_state_has_no_rotation_to_start(desk: Client, state: str) -> None:
    old = build_key("prod")
    OpenRouterKey.objects.filter(pk=old.pk).update(state=state, secret=b"")

    assert f"already {state}" in text_of(desk.get(rotation_of(old), follow=True))
    assert rotation_of(old) not in text_of(desk.get(page_of(old)))


def test_both_keys_of_a_finished_rotation_lead_to_each_other(desk: Client, accepted: SandboxFixture) -> None:
    old = build_key("prod")
    start(desk, old)
    do(desk, old, "drain")
    do(desk, old, "finish_rotation")
    new = OpenRouterKey.objects.get(name="prod.2")

    page, next_page = (text_of(desk.get(page_of(key))) for key in (old, new))

    assert "Replaced by" in page
    assert page_of(new) in page
    assert rotation_of(old) in page
    assert "Took the place of" in next_page
    assert page_of(old) in next_page
    assert f"key={new.pk}" in text_of(desk.get(rotation_of(old)))  # what both of them cost, as one


def test_a_successor_that_bills_another_account_is_pointed_out(desk: Client, openrouter: SandboxFixture) -> None:
    account = build_account("acme")
    type(account).objects.filter(pk=account.pk).update(organization="org_acme")
    openrouter.add_key(SUCCESSOR, name="prod.2")
    old = build_key("prod", account=account)

    page = start(desk, old)

    words = "It bills to user_sandbox_main, but stands under the account acme, which is org_acme."
    assert f"Check of prod.2: OpenRouter accepts this key. {words}" in page
    assert page.count(words) == 2  # what the check said, and as long as it is so
    assert words in text_of(desk.get(page_of(OpenRouterKey.objects.get(name="prod.2"))))
    assert "bills another account than the one given here for 1 key" in text_of(desk.get(reverse("admin:index")))
    assert "prod.2 answers requests beside prod" in page


def test_rotate_on_the_list_leads_to_the_page_of_one_key(desk: Client) -> None:
    first, second = build_key("prod"), build_key("spare")

    assert "Store and check" in act(desk, "rotate", first)
    assert "Choose one key" in act(desk, "rotate", first, second)


def test_the_list_finds_keys_that_are_due_for_rotation(desk: Client) -> None:
    build_key("fresh key")
    build_key("old key", rotates_at=timezone.now())
    listed = text_of(desk.get(reverse("admin:keys_openrouterkey_changelist"), {"rotation": "due"}))

    assert "old key" in listed
    assert "fresh key" not in listed


@pytest.mark.parametrize("others", [0, 50])
@pytest.mark.parametrize("is_open", [False, True], ids=["the form", "under way"])
def test_the_page_needs_a_fixed_number_of_queries(
    desk: Client, accepted: SandboxFixture, others: int, is_open: bool
) -> None:
    old = build_key("prod")
    for _ in range(others):
        build_key()
    if is_open:
        start(desk, old)
    desk.get(rotation_of(old))
    with CaptureQueriesContext(connection) as queries:
        assert desk.get(rotation_of(old)).status_code == 200
    assert len(queries) <= BUDGET, [query["sql"][:150] for query in queries.captured_queries]


def test_the_timeline_tells_who_did_what_and_which_cooldowns_there_were(desk: Client, accepted: SandboxFixture) -> None:
    old = build_key("prod")
    now = timezone.now()
    build_cooldown(key=old, detail="too many requests", cleared_at=now, cleared_by="trial")
    start(desk, old)
    do(desk, old, "disable")

    page = text_of(desk.get(page_of(old)))
    timeline: Any = page.split(">Timeline</h2>")[1]

    for words in (
        "added",
        "rotation started",
        "disabled",
        "olivia",
        "cooldown begins",
        "too many requests",
        "by trial",
    ):
        assert words.removeprefix("by ") in timeline
    assert timeline.index("disabled") < timeline.index("rotation started") < timeline.index("cooldown begins")
