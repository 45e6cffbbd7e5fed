"""Every page of the admin opens, in a number of queries that does not grow with the rows, for who may see it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.integration.admin.builders import build_everything, build_key

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client

pytestmark = pytest.mark.django_db

# Queries of each page, session and user included. A page that needs more must say why here.
LIST_BUDGETS = {
    "openrouterkey": 14,  # 5 for the list and its filter, 2 cooldowns, 6 usage, 1 one-account warning
    "account": 7,
    "cooldown": 4,
    "client": 10,
    "modelalias": 4,
    "requestlog": 9,  # 3 for the choices, 1 for the models, 1 for the ledger, 2 for the names in it
    "usagehour": 17,  # 4 for the choices, 2 for the keys, 4 for each of the two periods, 1 for the names
    "auditevent": 4,
}
PAGE_BUDGETS = {  # with the content type, which Django reads once in a process
    "openrouterkey": 19,  # one of them looks for the key whose place it took
    "account": 6,
    "cooldown": 4,
    "client": 10,
    "modelalias": 4,
    "requestlog": 8,
    "auditevent": 4,
}
HOME_BUDGET = 19  # 10 for the pool and its costs, 4 for the traffic, 3 for what else the strip shows


def list_url(model: str) -> str:
    return reverse(f"admin:keys_{model}_changelist")


def page_url(model: str, pk: Any) -> str:
    return reverse(f"admin:keys_{model}_change", args=[pk])


def first_of(model: str) -> Any:
    from django.apps import apps

    return apps.get_model("keys", model).objects.order_by("pk").values_list("pk", flat=True)[0]


@pytest.fixture(params=[1, 50], ids=["1 row", "50 rows"])
def rows(request: pytest.FixtureRequest, db: None) -> int:
    build_everything(request.param)
    return int(request.param)


def open_within(desk: Client, url: str, budget: int) -> str:
    with CaptureQueriesContext(connection) as queries:
        answer = desk.get(url)
    assert answer.status_code == 200
    shown = "\n".join(query["sql"][:200] for query in queries.captured_queries)
    assert len(queries) <= budget, f"{len(queries)} queries, {budget} are allowed:\n{shown}"
    return answer.content.decode()


@pytest.mark.parametrize(("model", "budget"), LIST_BUDGETS.items(), ids=LIST_BUDGETS)
def test_a_list_opens_within_its_queries(desk: Client, rows: int, model: str, budget: int) -> None:
    open_within(desk, list_url(model), budget)


@pytest.mark.parametrize(("model", "budget"), PAGE_BUDGETS.items(), ids=PAGE_BUDGETS)
def test_a_page_opens_within_its_queries(desk: Client, rows: int, model: str, budget: int) -> None:
    open_within(desk, page_url(model, first_of(model)), budget)


def test_home_opens_within_its_queries_and_shows_the_pool(desk: Client, rows: int) -> None:
    page = open_within(desk, reverse("admin:index"), HOME_BUDGET)

    assert "out of credit" in page
    assert "test</span>" in page  # the environment's name, see tests/hermetic.py


def test_home_of_an_empty_service_says_what_to_do_next(desk: Client) -> None:
    page = desk.get(reverse("admin:index")).content.decode()

    assert reverse("admin:keys_openrouterkey_add") in page
    assert reverse("admin:keys_client_add") in page


def urls_of_all_pages() -> Iterator[tuple[str, str]]:
    """A method and an address for each view of ours, on rows that need not exist."""
    for model in LIST_BUDGETS:
        yield "get", list_url(model)
    for model in PAGE_BUDGETS:
        yield "get", page_url(model, first_of(model))
        yield "post", page_url(model, first_of(model))
        yield "get", reverse(f"admin:keys_{model}_history", args=[first_of(model)])
    for model in ("openrouterkey", "account", "client", "modelalias"):
        yield "get", reverse(f"admin:keys_{model}_add")
        yield "post", reverse(f"admin:keys_{model}_add")
    for model, actions in (
        ("openrouterkey", ("check", "disable", "enable", "retire", "clear_cooldown")),
        ("client", ("revoke",)),
    ):
        for action in actions:
            yield "post", reverse(f"admin:keys_{model}_do", args=[first_of(model), action])
    yield "post", reverse("admin:keys_modelalias_delete", args=[first_of("modelalias")])


def test_who_is_not_logged_in_is_sent_to_the_login_everywhere(client: Client) -> None:
    build_everything(1)

    for method, url in [*urls_of_all_pages(), ("get", reverse("admin:index"))]:
        answer = getattr(client, method)(url)
        assert answer.status_code == 302, url
        assert answer["Location"].startswith(reverse("admin:login")), url


def test_staff_without_a_permission_is_refused_everywhere(client: Client, new_user: Callable[..., User]) -> None:
    build_everything(1)
    client.force_login(new_user("sam"))

    answers = {(method, url): getattr(client, method)(url).status_code for method, url in urls_of_all_pages()}

    assert set(answers.values()) == {403}, answers
    assert client.get(reverse("admin:index")).status_code == 200


def test_who_may_only_view_changes_nothing(client: Client, new_user: Callable[..., User]) -> None:
    key = build_key()
    client.force_login(new_user("vera", "view_openrouterkey"))
    do = reverse("admin:keys_openrouterkey_do", args=[key.pk, "disable"])

    assert client.get(page_url("openrouterkey", key.pk)).status_code == 200
    assert "row-actions" not in client.get(page_url("openrouterkey", key.pk)).content.decode()
    assert client.post(do).status_code == 403
    assert client.post(page_url("openrouterkey", key.pk), {"name": "other"}).status_code == 403
    key.refresh_from_db()
    assert key.state == "active"


@pytest.mark.parametrize("model", [model for model in PAGE_BUDGETS if model != "modelalias"])
def test_nothing_but_an_alias_can_be_deleted(desk: Client, model: str) -> None:
    build_everything(1)
    pk = first_of(model)

    answer = desk.post(reverse(f"admin:keys_{model}_delete", args=[pk]), {"post": "yes"})
    listed = desk.post(list_url(model), {"action": "delete_selected", "_selected_action": [str(pk)], "post": "yes"})

    assert answer.status_code == 403
    assert listed.status_code in (200, 302)
    assert first_of(model) == pk


@pytest.mark.parametrize("model", ["cooldown", "requestlog", "auditevent"])
def test_a_log_table_has_no_add_page_and_takes_no_change(desk: Client, model: str) -> None:
    build_everything(1)

    assert desk.get(reverse(f"admin:keys_{model}_add")).status_code == 403
    assert desk.post(page_url(model, first_of(model)), {"detail": "x"}).status_code == 403


def test_every_write_needs_the_csrf_token(operator: User) -> None:
    from django.test import Client

    build_everything(1)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(operator)

    writes = [url for method, url in urls_of_all_pages() if method == "post"]
    assert {browser.post(url).status_code for url in writes} == {403}


@pytest.mark.parametrize("model", ["openrouterkey", "client", "requestlog", "cooldown"])
def test_a_row_that_is_not_there_leads_home_with_a_message(desk: Client, model: str) -> None:
    answer = desk.get(page_url(model, uuid.uuid4()), follow=True)

    assert answer.redirect_chain[-1][0] == reverse("admin:index")
    assert "doesn’t exist" in answer.content.decode()


def test_only_where_something_is_left_out_can_all_be_shown(desk: Client) -> None:
    build_everything(1)

    for model in ("openrouterkey", "client", "account", "auditevent"):
        assert "Show all" not in desk.get(list_url(model)).content.decode(), model
    assert "Show all" in desk.get(list_url("openrouterkey"), {"q": "no such key"}).content.decode()


def test_errors_are_pages_of_ours_for_people_and_objects_for_programs(
    desk: Client, client: Client, new_user: Callable[..., User]
) -> None:
    client.force_login(new_user("sam"))
    missing = desk.get("/admin/keys/nothing/")
    closed = client.get(list_url("openrouterkey"))
    senseless = desk.get(list_url("openrouterkey"), {"secret__startswith": "a"})

    assert (missing.status_code, closed.status_code, senseless.status_code) == (404, 403, 400)
    for answer in (missing, closed, senseless):
        page = answer.content.decode()
        assert "keys/admin.css" in page
        assert f'href="{reverse("admin:index")}"' in page
        assert "<style" not in page
    assert desk.get("/api/nothing").json()["type"] == "error"


def test_a_fault_of_ours_is_a_page_too(operator: User, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.test import Client

    def fail(*_: Any) -> Any:
        raise RuntimeError("a fault")

    monkeypatch.setattr("keys.admin.home.view_keys", fail)
    browser = Client(raise_request_exception=False)
    browser.force_login(operator)

    answer = browser.get(reverse("admin:index"))

    assert answer.status_code == 500
    assert "This is a fault of the service" in answer.content.decode()


def test_a_lost_database_is_told_in_words(desk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    def refuse(execute: Any, *rest: Any) -> Any:
        raise OperationalError("server closed the connection unexpectedly")

    with connection.execute_wrapper(refuse):
        answers = [desk.get(list_url(model)) for model in LIST_BUDGETS]
        answers.append(desk.get(reverse("admin:index")))
        answers.append(desk.post(reverse("admin:login"), {"username": "olivia", "password": "x"}))

    assert {answer.status_code for answer in answers} == {503}
    assert all("The database does not answer" in answer.content.decode() for answer in answers)
