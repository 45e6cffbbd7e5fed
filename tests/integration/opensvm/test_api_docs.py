"""`/api/schema/` and `/api/docs/`: for staff alone, and without anything inline."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.test import Client

pytestmark = pytest.mark.django_db
PATHS = ["/api/schema/", "/api/docs/"]


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("alice", is_staff=True))
    return client


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("who", ["nobody", "a user"])
def test_others_are_sent_to_the_login(path: str, who: str) -> None:
    client = Client()
    if who == "a user":
        client.force_login(User.objects.create_user("bob"))
    answer = client.get(path)
    assert answer.status_code == 302
    assert answer["location"].startswith("/admin/login/")


def test_staff_get_the_document(staff: Client) -> None:
    answer = staff.get("/api/schema/")
    assert answer.status_code == 200
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    assert {"/v1/messages", "/v1/chat/completions", "/v1/models/{model_id}", "/api/usage"} <= set(document["paths"])
    scheme = document["components"]["securitySchemes"]["clientKey"]
    assert (scheme["in"], scheme["name"]) == ("header", "x-api-key")


def test_staff_get_the_page_with_its_own_files_only(staff: Client) -> None:
    answer = staff.get("/api/docs/")
    page = answer.content.decode()
    files = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(files) == 4
    assert all(finders.find(file.removeprefix("/static/")) for file in files)
    assert "<style" not in page
    assert not re.search(r"<script(?! src=)", page)
    assert "http://" not in page
    assert "https://" not in page
    assert "script-src 'self'" in answer["content-security-policy"]


@pytest.mark.parametrize("path", PATHS)
def test_they_are_only_read(staff: Client, path: str) -> None:
    assert staff.post(path).status_code == 405
