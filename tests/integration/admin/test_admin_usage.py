"""The page of the report, its way to the requests, and its CSV."""

from __future__ import annotations

import csv
import datetime as dt
import html
import io
import re
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import reverse
from django.utils import timezone

from tests.integration.admin.builders import build_account, build_client, build_key, build_request
from tests.integration.admin.test_admin_keys import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from django.test import Client

pytestmark = pytest.mark.django_db

USAGE = "admin:keys_usagehour_changelist"
CSV = "admin:keys_usagehour_csv"


@pytest.fixture
def used() -> None:
    account = build_account("acme")
    key, client = build_key("work", account=account), build_client("laptop")
    build_request(client, key, cost_nano=3_000_000_000)
    build_request(client, key, cost_nano=1_000_000_000, cost_source="estimated")
    build_request(client, None, cost_nano=0, status=529, error_type="overloaded_error", cause="no_key", model_sent="")


def shown(desk: Client, **query: str) -> str:
    return text_of(desk.get(reverse(USAGE), query))


def lines_of(page: str) -> dict[str, tuple[str, str]]:
    """The label of each line: its link and its cost."""
    table = page.split('id="report-lines"')[1].split("</table>")[0].split("<tbody>")[1].split("</tbody>")[0]
    line = r'(?s)<tr><th scope="row">(?:<a href="(.*?)">)?(.*?)(?:</a>)?</th><td class="number">(.*?)</td>'
    rows = re.findall(line, table)
    return {html.unescape(label): (html.unescape(link), cost) for link, label, cost in rows}


@pytest.mark.parametrize("group", ["key", "account", "client", "model", "day", "hour"])
def test_every_line_leads_to_its_requests(desk: Client, used: None, group: str) -> None:
    lines = lines_of(shown(desk, group=group))

    total = 0
    for link, _ in lines.values():
        if link and group not in ("day", "hour"):
            total += text_of(desk.get(link)).count("field-outcome")
    dated = [link for label, (link, _) in lines.items() if label.startswith(f"{timezone.now():%Y-%m-%d}")]
    total += sum(text_of(desk.get(link)).count("field-outcome") for link in dated)
    unnamed = {"account": 1, "model": 1}.get(group, 0)  # no account, not sent: no search can name them
    assert total + unnamed == 3


def test_the_page_says_where_the_costs_come_from(desk: Client, used: None) -> None:
    page = shown(desk)

    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "reported in the answers $3.00 75.0%" in text
    assert "estimated from list prices $1.00 25.0%" in text


def test_a_period_is_compared_with_the_one_before(desk: Client, used: None) -> None:
    before = timezone.now() - dt.timedelta(days=7)
    build_request(build_client(), build_key(), cost_nano=8_000_000_000, created_at=before)

    page = shown(desk)

    assert "−50.0 %, was $8.00" in page
    assert "This period is not over yet." in page


def test_the_csv_is_what_the_page_shows(desk: Client, used: None) -> None:
    page = shown(desk, group="client", client="")
    link = html.unescape(re.findall(r'href="([^"]*usage\.csv[^"]*)"', page)[0])

    answer: Any = desk.get(link)

    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))
    assert answer.streaming
    assert [row["client"] for row in rows] == [*lines_of(page), "total"]
    assert rows[0]["cost_usd"] == "4.000000000"
    assert rows[0]["estimated_usd"] == "1.000000000"
    assert "attachment" in answer["Content-Disposition"]


def test_a_csv_of_no_sense_is_refused(desk: Client) -> None:
    assert desk.get(reverse(CSV), {"since": "x"}).status_code == 400


def test_the_report_needs_its_permission(client: Client, new_user: Callable[..., User], used: None) -> None:
    client.force_login(new_user("sam"))
    assert client.get(reverse(USAGE)).status_code == client.get(reverse(CSV)).status_code == 403

    client.force_login(new_user("rita", "view_usagehour"))
    assert {link for link, _ in lines_of(text_of(client.get(reverse(USAGE)))).values()} == {""}


def test_a_filter_for_what_is_gone_stays_chosen(desk: Client) -> None:
    gone = str(uuid.uuid4())

    assert f"missing ({gone})" in shown(desk, client=gone)
