"""A client's key is replaced in the admin; the page that shows the new one, with what to paste where."""

from __future__ import annotations

import html
import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from keys.admin.snippets import snippets_for
from keys.models import Client as Holder
from keys.services.clients import revoke_client
from tests.integration.admin.builders import ALICE, build_client
from tests.integration.admin.test_admin_clients import key_in
from tests.integration.admin.test_admin_keys import all_stored_text, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

pytestmark = pytest.mark.django_db

BUDGET = 7


def page_url(holder: Holder) -> str:
    return reverse("admin:keys_client_change", args=[holder.pk])


def replace_url(holder: Holder) -> str:
    return reverse("admin:keys_client_replace", args=[holder.pk])


def replace(desk: Client, holder: Holder, **values: str) -> Any:
    return desk.post(replace_url(holder), {"grace": "24", "name": "phone.2"} | values, follow=True)


def test_a_replaced_client_ends_later_and_both_pages_say_so(desk: Client) -> None:
    old = build_client("phone")
    assert replace_url(old) in text_of(desk.get(page_url(old)))

    answer = replace(desk, old)

    new = Holder.objects.get(name="phone.2")
    page = text_of(answer)
    assert "no-store" in answer["Cache-Control"]
    assert new.prefix in key_in(page)
    assert "phone is accepted until" in page
    assert "phone.2</a>" in text_of(desk.get(page_url(old)))
    assert "phone</a>" in text_of(desk.get(page_url(new)))
    assert replace_url(old) not in text_of(desk.get(page_url(old)))
    assert "replaced</span>" in text_of(desk.get(reverse("admin:keys_client_changelist")))
    assert all(key_in(page) not in text for text in all_stored_text())


def test_without_grace_the_old_key_is_refused_at_once(desk: Client) -> None:
    old = build_client("phone")

    page = text_of(replace(desk, old, grace="0"))

    old.refresh_from_db()
    assert old.revoked_at is not None
    assert "refused from now on" in page


@pytest.mark.parametrize(
    ("values", "words"),
    [({"name": "taken"}, "choose another name"), ({"name": ""}, "required"), ({"grace": "9999"}, "valid choice")],
    ids=["name taken", "no name", "no such grace"],
)
def test_what_is_refused_replaces_nothing(desk: Client, values: dict[str, str], words: str) -> None:
    old = build_client("phone")
    build_client("taken")

    assert words in text_of(replace(desk, old, **values))
    assert Holder.objects.count() == 2


def test_a_revoked_client_is_not_replaced(desk: Client) -> None:
    old = build_client("phone")
    revoke_client(old.pk, actor=ALICE)

    assert "is revoked: it can&#x27;t be replaced" in text_of(desk.get(replace_url(old), follow=True))


def test_to_replace_needs_the_right_to_add_and_to_change(client: Client, new_user: Callable[..., User]) -> None:
    old = build_client("phone")
    client.force_login(new_user("vera", "view_client", "change_client"))

    assert client.get(replace_url(old)).status_code == 403
    assert client.post(replace_url(old), {"grace": "0", "name": "x"}).status_code == 403


def test_the_page_of_a_client_links_its_requests_and_its_cost(desk: Client) -> None:
    holder = build_client("phone")
    page = html.unescape(text_of(desk.get(page_url(holder))))

    for link in re.findall(rf'href="([^"]*client={holder.pk}[^"]*)"', page):
        assert text_of(desk.get(link))
    assert f"/requestlog/?client={holder.pk}" in page
    assert f"/usagehour/?group=day&client={holder.pk}" in page


@pytest.mark.parametrize("others", [0, 50])
def test_the_page_needs_a_fixed_number_of_queries(desk: Client, others: int) -> None:
    old = build_client("phone")
    for _ in range(others):
        build_client()
    desk.get(replace_url(old))
    with CaptureQueriesContext(connection) as queries:
        assert desk.get(replace_url(old)).status_code == 200
    assert len(queries) <= BUDGET, [query["sql"][:150] for query in queries.captured_queries]


# -- What there is to paste
KEY, URL, MODEL = "sk-ant-api03-Test", "https://llm.example.com", "claude-3 \"$(x)\" 'y'"
TEXTS = {snippet.name: snippet.text for snippet in snippets_for(KEY, url=URL, model=MODEL)}


def test_the_curl_and_the_exports_are_whole_words_for_a_shell() -> None:
    words = shlex.split(TEXTS["curl"].replace("\\\n", ""))
    assert words[:2] == ["curl", f"{URL}/v1/messages"]
    assert f"x-api-key: {KEY}" in words
    assert json.loads(words[-1])["model"] == MODEL
    assert shlex.split(TEXTS["claude-code"]) == [
        "export",
        f"ANTHROPIC_BASE_URL={URL}",
        "export",
        f"ANTHROPIC_AUTH_TOKEN={KEY}",
        "claude",
    ]


def test_the_python_piece_is_python_and_sends_what_it_should() -> None:
    import httpx2 as httpx  # what the SDK is built on

    sent: list[httpx.Request] = []
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json=answer)

    code = TEXTS["python"].replace(
        "anthropic.Anthropic(", "anthropic.Anthropic(http_client=httpx.Client(transport=httpx.MockTransport(respond)), "
    )
    exec(compile(code, "snippet", "exec"), {"httpx": httpx, "respond": respond})  # noqa: S102 - our own text

    (request,) = sent
    assert str(request.url) == f"{URL}/v1/messages"
    assert KEY in (request.headers.get("x-api-key"), request.headers["authorization"].removeprefix("Bearer "))
    assert json.loads(request.content)["model"] == MODEL


def test_the_typescript_piece_quotes_what_it_is_given() -> None:
    assert json.dumps(MODEL) in TEXTS["typescript"]
    assert f'baseURL: "{URL}"' in TEXTS["typescript"]
