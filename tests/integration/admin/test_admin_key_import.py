"""Importing many keys in the admin: paste or file, preview, confirm. The text comes back on no page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from keys.models import KeyImport, OpenRouterKey
from tests.integration.admin.builders import build_account, build_key, secret_text
from tests.integration.admin.test_admin_keys import all_stored_text, text_of
from tests.sandbox import SandboxFixture

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

pytestmark = pytest.mark.django_db

ONE, TWO = "sk-or-v1-test-planted-import-1", "sk-or-v1-test-planted-import-2"
BUDGET = 8


def prepare(desk: Client, text: str = "", **values: Any) -> Any:
    typed = {"pasted": text, "name_pattern": "prod-{n}", "account": ""} | values
    return desk.post(reverse("admin:keys_openrouterkey_import"), typed, follow=True)


def preview_url() -> str:
    return reverse("admin:keys_openrouterkey_import_preview", args=[KeyImport.objects.get().pk])


def confirm(desk: Client) -> str:
    return text_of(desk.post(preview_url(), {"confirmed": "yes"}, follow=True))


def test_pasted_keys_are_shown_first_and_added_when_confirmed(desk: Client, openrouter: SandboxFixture) -> None:
    openrouter.add_key(ONE, name="one")
    account = build_account("acme")
    known = build_key("known", note="")

    page = text_of(prepare(desk, f"{ONE}\n{TWO}\nnonsense\n{ONE}", account=str(account.pk)))

    assert "2 to be added; 1 skipped, repeated; 1 refused, not an OpenRouter key." in page
    assert "prod-2" in page
    assert "the pasted text, entry 3" in page
    assert list(OpenRouterKey.objects.values_list("pk", flat=True)) == [known.pk]

    said = confirm(desk)

    assert "2 added, 0 skipped, 1 refused." in said
    assert "First checks: 2 done. prod-2: OpenRouter refuses this key (401)" in said
    added = OpenRouterKey.objects.exclude(pk=known.pk).order_by("name")
    assert [(key.name, key.state, key.account) for key in added] == [
        ("prod-1", "active", account),
        ("prod-2", "invalid", account),
    ]


def test_a_file_is_taken_too(desk: Client, openrouter: SandboxFixture) -> None:
    file = io.BytesIO(f"\ufeff{ONE}\r\n{TWO}\r\n".encode())
    file.name = "keys <b>.txt"

    page = text_of(prepare(desk, file=file))

    assert "2 to be added." in page
    assert "keys &lt;b&gt;.txt, entry 1" in page


def test_the_text_is_on_no_page_in_no_session_and_in_no_table(desk: Client, no_openrouter: SandboxFixture) -> None:
    pages = [text_of(prepare(desk, f"{ONE} hunter2")), text_of(prepare(desk, f"{ONE} hunter2", name_pattern="x"))]
    pages.append(text_of(desk.get(preview_url())))
    stored = list(all_stored_text())
    pages.append(confirm(desk))

    for secret in (ONE, "hunter2"):
        assert not any(secret in page for page in pages)
        assert not any(secret in text for text in stored)
        assert secret not in str(dict(desk.session)) + str(desk.cookies)


def test_giving_up_adds_nothing_and_forgets_the_text(desk: Client) -> None:
    prepare(desk, ONE)

    page = text_of(desk.post(preview_url(), {"given_up": "yes"}, follow=True))

    assert "Nothing was imported." in page
    assert not KeyImport.objects.exists()
    assert not OpenRouterKey.objects.exists()


def test_a_preview_that_was_confirmed_leads_back_with_a_message(desk: Client, no_openrouter: SandboxFixture) -> None:
    prepare(desk, ONE)
    url = preview_url()
    confirm(desk)

    assert "paste the keys again" in text_of(desk.get(url, follow=True))
    assert "paste the keys again" in text_of(desk.post(url, {"confirmed": "yes"}, follow=True))
    assert OpenRouterKey.objects.count() == 1


def test_a_colleague_can_not_open_the_preview(desk: Client, client: Client, new_user: Callable[..., User]) -> None:
    prepare(desk, ONE)
    client.force_login(new_user("oscar", "add_openrouterkey"))

    answer = client.get(preview_url())

    assert (answer.status_code, answer["Location"]) == (302, reverse("admin:keys_openrouterkey_import"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"text": ""}, "no key in it"),
        ({"text": ONE, "name_pattern": "prod"}, "must hold {n} once"),
        ({"text": ONE, "file": io.BytesIO(b"x")}, "not both"),
        ({"file": io.BytesIO(b"x" * (1024 * 1024 + 1))}, "larger than 1 MB"),
        ({"text": "x " * 1001}, "at most 1,000"),
    ],
    ids=["nothing", "pattern", "both", "file too large", "too many"],
)
def test_what_can_not_be_imported_is_told_in_the_form(desk: Client, values: dict[str, Any], words: str) -> None:
    if "file" in values:
        values["file"].seek(0)
        values["file"].name = "keys.txt"

    page = text_of(prepare(desk, **values))

    assert words in page
    assert not KeyImport.objects.exists()


@pytest.mark.parametrize("count", [1, 50])
def test_both_pages_need_a_fixed_number_of_queries(desk: Client, count: int) -> None:
    build_key()
    prepare(desk, "\n".join(secret_text(10_000 + n) for n in range(count)))
    for url in (reverse("admin:keys_openrouterkey_import"), preview_url()):
        with CaptureQueriesContext(connection) as queries:
            assert desk.get(url).status_code == 200
        assert len(queries) <= BUDGET, [query["sql"][:150] for query in queries.captured_queries]
