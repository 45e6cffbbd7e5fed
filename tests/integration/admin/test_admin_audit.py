"""The audit trail in the admin: read by who may, changed by nobody, filtered, and taken along as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from keys.admin import audit_csv
from keys.models import AuditEvent
from tests.integration.admin.builders import build_client, build_key
from tests.integration.admin.test_admin_keys import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

pytestmark = pytest.mark.django_db

LIST, CSV = "admin:keys_auditevent_changelist", "admin:keys_auditevent_csv"


def write(actor: str = "olivia", action: str = "key.added", **values: Any) -> AuditEvent:
    facts = {"object_type": "openrouterkey", "object_id": "1", "object_name": "prod"} | values
    return AuditEvent.objects.create(actor=actor, action=action, **facts)


def download(desk: Client, **query: str) -> list[dict[str, str]]:
    answer: Any = desk.get(reverse(CSV), query)
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="audit.csv"'
    return list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))


def test_a_superuser_can_neither_add_nor_change_nor_delete_an_event(desk: Client) -> None:
    event = write()
    page = reverse("admin:keys_auditevent_change", args=[event.pk])
    delete = reverse("admin:keys_auditevent_delete", args=[event.pk])
    chosen = {"action": "delete_selected", "_selected_action": str(event.pk), "post": "yes"}

    assert desk.get(reverse("admin:keys_auditevent_add")).status_code == 403
    assert desk.post(page, {"actor": "mallory"}).status_code == 403
    assert desk.post(delete, {"post": "yes"}).status_code == 403
    desk.post(reverse(LIST), chosen)

    assert list(AuditEvent.objects.values_list("actor", flat=True)) == ["olivia"]
    assert 'type="submit" value="Save"' not in text_of(desk.get(page))


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, {"by a person", "by a task", "of a client", "a check"}),
        ({"who": "people"}, {"by a person", "of a client"}),
        ({"who": "task"}, {"by a task", "a check"}),
        ({"about": "client"}, {"of a client"}),
        ({"did": "check"}, {"a check"}),
        ({"did": "key"}, {"by a person", "by a task", "a check"}),
        ({"period": "24h"}, {"by a person", "by a task", "of a client", "a check"}),
        ({"q": "olivia"}, {"by a person"}),
    ],
    ids=["all", "people", "the task", "clients", "checks", "keys", "24 hours", "search"],
)
def test_list_and_csv_show_what_the_filters_leave(desk: Client, query: dict[str, str], names: set[str]) -> None:
    write(object_name="by a person")
    write("task", "key.retired", object_name="by a task")
    write("oscar", "client.revoked", object_type="client", object_name="of a client")
    write("task", "key.checked", object_name="a check")

    page = text_of(desk.get(reverse(LIST), query))
    everything = {"by a person", "by a task", "of a client", "a check"}

    assert {name for name in everything if f">{name}<" in page} == names
    assert {line["name"] for line in download(desk, **query)} == names


def test_the_link_of_the_list_takes_its_filters_along(desk: Client) -> None:
    write("task")
    page = text_of(desk.get(reverse(LIST), {"who": "task", "q": "prod"}))

    assert f"{reverse(CSV)}?who=task&amp;q=prod" in page


def test_the_csv_holds_everything_in_pages_and_no_formula(desk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_csv, "ROWS_AT_ONCE", 2)
    for number in range(5):
        write(object_name=f"=cmd|{number}", after={"name": "ünï"})

    lines = download(desk)

    assert [line["name"] for line in lines] == [f"'=cmd|{number}" for number in (4, 3, 2, 1, 0)]
    assert lines[0]["after"] == '{"name": "ünï"}'


def test_the_csv_is_for_who_may_view_the_audit(client: Client, new_user: Callable[..., User]) -> None:
    client.force_login(new_user("sam", "view_openrouterkey"))
    assert client.get(reverse(CSV)).status_code == 403
    client.force_login(new_user("vera", "view_auditevent"))
    assert client.get(reverse(CSV)).status_code == 200


@pytest.mark.parametrize("count", [1, 50])
def test_the_csv_needs_a_fixed_number_of_queries(desk: Client, count: int) -> None:
    for _ in range(count):
        build_key()
    build_client()
    with CaptureQueriesContext(connection) as queries:
        assert len(download(desk)) == count + 1
    assert len(queries) <= 5, [query["sql"][:150] for query in queries.captured_queries]


def test_the_csv_is_sent_by_an_asgi_server_too() -> None:
    from asgiref.sync import async_to_sync
    from django.core.handlers.asgi import ASGIRequest

    write(object_name="prod")
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}

    async def read() -> str:
        answer: Any = audit_csv.audit_csv(ASGIRequest(scope, io.BytesIO()), AuditEvent.objects.all())
        return "".join([chunk.decode() async for chunk in answer])

    assert ",prod," in async_to_sync(read)()
