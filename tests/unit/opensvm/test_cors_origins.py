"""`OPENSVM_CORS_ORIGINS`: what is an origin and what stops the start; and what a preflight may ask for."""

from __future__ import annotations

import pytest

from opensvm.environment import Environment, SettingError
from proxy.cors import CorsPolicy

NAME = "OPENSVM_CORS_ORIGINS"
PAGE = "https://app.example.com"


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", set()),
        (" , ", set()),
        (PAGE, {PAGE}),
        (f"{PAGE}, http://localhost:3000", {PAGE, "http://localhost:3000"}),
        ("http://[::1]:8080", {"http://[::1]:8080"}),
        ("tauri://localhost", {"tauri://localhost"}),
        ("*", {"*"}),
    ],
)
def test_origins_are_read(text: str, origins: set[str]) -> None:
    assert Environment({NAME: text}).origins(NAME) == origins


@pytest.mark.parametrize(
    "text", ["app.example.com", f"{PAGE}/", f"{PAGE}/path", "https://App.example.com", "null", "https://*.example.com"]
)
def test_what_no_browser_sends_stops_the_start(text: str) -> None:
    with pytest.raises(SettingError, match=NAME):
        Environment({NAME: text}).origins(NAME)


def test_by_default_nothing_is_said_of_origins() -> None:
    assert CorsPolicy().headers_for(PAGE) == []
    assert CorsPolicy().preflight_for(PAGE, methods="POST", asked_headers="x-api-key") == []


@pytest.mark.parametrize("asked", ["", "a" * 3000, "x-api-key\r\nset-cookie: a=b", "x-äpi"])
def test_names_that_can_not_be_headers_are_not_given_back(asked: str) -> None:
    headers = dict(CorsPolicy(frozenset({PAGE})).preflight_for(PAGE, methods="POST", asked_headers=asked))
    assert b"access-control-allow-headers" not in headers
    assert headers[b"access-control-allow-methods"] == b"POST"
