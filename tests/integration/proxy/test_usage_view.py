"""`GET /api/usage`: the report for programs."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from keys.models import CostSource
from keys.services.clients import create_client
from tests.integration.admin.builders import ALICE, build_client, build_key, build_request

if TYPE_CHECKING:
    from django.test import Client

pytestmark = pytest.mark.django_db

URL = "/api/usage"


@pytest.fixture
def stats_key() -> str:
    return create_client(actor=ALICE, name="monitor", scopes=("messages", "stats"))[0]


@pytest.fixture
def used() -> None:
    client, key = build_client("laptop"), build_key("work")
    build_request(client, key, cost_nano=1_500_000_000)
    build_request(client, key, cost_nano=500, cost_source=CostSource.ESTIMATED)
    build_request(client, key, cost_nano=None, cost_source=CostSource.UNKNOWN)


def ask(client: Client, client_key: str, /, **query: str) -> Any:
    return client.get(URL, query, headers={"x-api-key": client_key})


def test_a_client_key_with_the_scope_reads_the_report(client: Client, stats_key: str, used: None) -> None:
    answer = ask(client, stats_key, group="client")

    document = answer.json()
    today = timezone.now().date().isoformat()
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    assert document["period"]["until"] == today
    (line,) = document["lines"]
    assert (line["label"], line["requests"], line["cost_usd"], line["unknown_costs"]) == ("laptop", 3, "1.500000500", 1)
    assert (line["reported_usd"], line["estimated_usd"]) == ("1.500000000", "0.000000500")


def test_csv_has_the_same_numbers(client: Client, stats_key: str, used: None) -> None:
    answer = ask(client, stats_key, group="client", format="csv")

    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))
    assert answer["Content-Type"].startswith("text/csv")
    assert [(row["client"], row["requests"], row["cost_usd"]) for row in rows] == [
        ("laptop", "3", "1.500000500"),
        ("total", "3", "1.500000500"),
    ]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"group": "password"}, "group: Select a valid choice"),
        ({"since": "yesterday"}, "since: Enter a valid date"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "until: The period ends before it begins"),
        (
            {"since": "2026-01-01", "until": "2026-03-01", "group": "hour"},
            "until: The period has more than 31 days by hour",
        ),
        ({"key": "1"}, "key: Enter a valid UUID"),
        ({"clinet": "laptop"}, "clinet: there is no such parameter"),
        ({"format": "xml"}, "format: must be one of json, csv"),
    ],
    ids=["group", "date", "turned round", "too long", "id", "misspelt", "format"],
)
def test_a_question_that_makes_no_sense_is_a_400_in_words(
    client: Client, stats_key: str, query: dict[str, str], words: str
) -> None:
    answer = ask(client, stats_key, **query)

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert words in answer.json()["error"]["message"]


def test_a_client_key_without_the_scope_is_refused(client: Client) -> None:
    key = create_client(actor=ALICE, name="plain")[0]

    assert ask(client, key).status_code == 403


def test_nobody_is_refused(client: Client) -> None:
    assert client.get(URL).status_code == 401


@pytest.mark.parametrize(
    ("permissions", "status"), [((), 403), (("view_usagehour",), 200)], ids=["none", "the report's"]
)
def test_a_session_needs_the_permission_of_the_page(
    client: Client, django_user_model: Any, permissions: tuple[str, ...], status: int
) -> None:
    from django.contrib.auth.models import Permission

    user = django_user_model.objects.create_user("sam", password="not used here", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)

    assert client.get(URL).status_code == status


def test_a_post_is_not_allowed(client: Client, stats_key: str) -> None:
    assert client.post(URL, headers={"x-api-key": stats_key}).status_code == 405
