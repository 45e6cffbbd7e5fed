"""The paths that Django routes, and what an unknown one gets."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import SuspiciousOperation
from django.http import HttpResponse
from django.test import Client as Browser
from django.test import RequestFactory

from opensvm import urls


def test_the_front_page_leads_to_the_admin(client: Browser) -> None:
    response = client.get("/")

    assert (response.status_code, response["location"]) == (302, "/admin/")


def test_an_unknown_api_path_is_404_in_anthropics_shape(client: Browser) -> None:
    response = client.get("/api/nothing")

    answer = json.loads(response.content)
    assert response.status_code == 404
    assert answer["error"] == {"type": "not_found_error", "message": "There is nothing at /api/nothing."}
    assert answer["request_id"] == response["request-id"]


@pytest.mark.parametrize("path", ["/messages", "/chat/completions", "/models", "/models/a/b", "/responses"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_base_url_that_lacks_its_v1_is_said(client: Browser, path: str, method: str) -> None:
    response = getattr(client, method)(path)

    answer = json.loads(response.content)
    assert response.status_code == 404
    assert answer["error"]["message"].startswith(f"There is nothing at {path}. The APIs are at POST /v1/messages and")
    assert answer["request_id"] == response["request-id"]


def test_another_unknown_path_is_a_plain_404(client: Browser) -> None:
    response = client.get("/nothing")

    assert response.status_code == 404
    assert response["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("path", "content_type"), [("/api/x", "application/json"), ("/x", "text/html; charset=utf-8")], ids=["api", "page"]
)
def test_a_failure_of_ours_has_the_shape_of_its_path(path: str, content_type: str) -> None:
    request = RequestFactory().get(path)

    answers: list[HttpResponse] = [urls.server_error(request), urls.bad_request(request, SuspiciousOperation("x"))]

    assert [answer.status_code for answer in answers] == [500, 400]
    assert all(answer["content-type"].startswith(content_type.split(";")[0]) for answer in answers)
