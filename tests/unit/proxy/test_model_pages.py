"""Pages of models, one model by any of its names, and the fields that both kinds of clients read."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from keys.ledger_items import OfferedModel
from proxy.errors import Refusal
from proxy.model_pages import describe, find_model, page_of

DAY = dt.datetime(2026, 10, 1, 12, tzinfo=dt.UTC)
OPUS = OfferedModel("anthropic/claude-opus-4.8", "anthropic/claude-opus-4.8", "Claude Opus 4.8", 200_000, 64_000, DAY)
LATEST = OfferedModel("~anthropic/claude-opus-latest", "~anthropic/claude-opus-latest", "newest", None, None, None)
ALIAS = OfferedModel("house-model", "anthropic/claude-opus-4.8", "Claude Opus 4.8", 200_000, 64_000, DAY)
MANY = tuple(OfferedModel(f"m{n}", f"m{n}", f"m{n}", None, None, None) for n in range(5))


def ids(page: dict[str, Any]) -> list[str]:
    return [row["id"] for row in page["data"]]


@pytest.mark.parametrize(
    ("query", "shown", "has_more"),
    [
        ({}, ["m0", "m1"], True),
        ({"limit": "5"}, ["m0", "m1", "m2", "m3", "m4"], False),
        ({"limit": "1000"}, ["m0", "m1", "m2", "m3", "m4"], False),
        ({"after_id": "m1"}, ["m2", "m3"], True),
        ({"after_id": "m2"}, ["m3", "m4"], False),
        ({"after_id": "m4"}, [], False),
        ({"before_id": "m3"}, ["m1", "m2"], True),
        ({"before_id": "m2"}, ["m0", "m1"], False),
        ({"before_id": "m0"}, [], False),
    ],
    ids=str,
)
def test_pages_go_both_ways(query: dict[str, str], shown: list[str], has_more: bool) -> None:
    page = page_of(MANY, query, default_limit=2)
    assert (ids(page), page["has_more"]) == (shown, has_more)
    assert (page["first_id"], page["last_id"]) == ((shown[0], shown[-1]) if shown else (None, None))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"limit": "0"}, "limit: must be a number from 1 to 1000"),
        ({"limit": "1001"}, "limit: must be"),
        ({"limit": "-1"}, "limit: must be"),
        ({"limit": "many"}, "limit: must be"),
        ({"limit": "²"}, "limit: must be"),
        ({"limit": "9" * 5000}, "limit: must be"),
        ({"after_id": "gone"}, "after_id: no model has the id gone"),
        ({"before_id": "gone"}, "before_id: no model"),
        ({"after_id": "m1", "before_id": "m3"}, "after_id: must not be sent together with before_id"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_can_be_no_page_is_a_400(query: dict[str, str], words: str) -> None:
    with pytest.raises(Refusal) as caught:
        page_of(MANY, query, default_limit=2)
    assert caught.value.status == 400
    assert caught.value.message.startswith(words)


def test_an_empty_catalogue_is_an_empty_page() -> None:
    page = page_of((), {}, default_limit=20)
    assert page == {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}


def test_a_row_has_the_fields_of_both_apis() -> None:
    assert describe(ALIAS) == {
        "type": "model",
        "id": "house-model",
        "display_name": "Claude Opus 4.8",
        "created_at": "2026-10-01T12:00:00Z",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
        "lifecycle": "active",
        "object": "model",
        "created": int(DAY.timestamp()),
        "owned_by": "anthropic",
    }


def test_an_unknown_date_is_the_epoch() -> None:
    row = describe(LATEST)
    assert (row["created_at"], row["created"], row["owned_by"]) == ("1970-01-01T00:00:00Z", 0, "anthropic")


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("house-model", OPUS.id),
        ("house-model[1m]", OPUS.id),
        ("anthropic/claude-opus-4.8", OPUS.id),
        ("claude-opus-4-8", OPUS.id),
        ("claude-opus-4-8-20260115", OPUS.id),
        ("claude-opus-latest", LATEST.id),
    ],
)
def test_a_model_is_found_by_each_name_that_a_request_may_use(asked: str, target: str) -> None:
    found = find_model((ALIAS, OPUS, LATEST), asked)
    assert (found.id, found.target) == (asked, target)


@pytest.mark.parametrize("asked", ["claude-opus-9", "openai/gpt-4o", "x" * 500])
def test_a_name_that_nobody_offers_is_a_404(asked: str) -> None:
    with pytest.raises(Refusal) as caught:
        find_model((ALIAS, OPUS, LATEST), asked)
    assert (caught.value.status, caught.value.error_type) == (404, "not_found_error")
    assert caught.value.message == f"model: {asked[:200]}"
