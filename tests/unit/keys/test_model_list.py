"""Pages of GET /models: prices, what is missing or new, and where the list ends."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.model_list import ListedModel, NotAModelList, per_million, read_model_page

SONNET = {
    "id": "anthropic/claude-sonnet-4.5",
    "name": "Anthropic: Claude Sonnet 4.5",
    "created": 1_759_161_676,
    "context_length": 1_000_000,
    "pricing": {
        "prompt": "0.000003",
        "completion": "0.000015",
        "input_cache_read": "0.0000003",
        "input_cache_write": "0.00000375",
        "something_new": {"a": 1},
    },
    "top_provider": {"max_completion_tokens": 64_000},
    "something_new": [],
}


def page(*entries: Any, offset: int = 0, **fields: Any) -> Any:
    return read_model_page(json.dumps({"data": entries, **fields}).encode(), offset)


def without(name: str) -> dict[str, Any]:
    return {field: value for field, value in SONNET.items() if field != name}


def test_a_model_is_read_with_its_prices() -> None:
    assert page(SONNET).models == (
        ListedModel(
            model="anthropic/claude-sonnet-4.5",
            name="Anthropic: Claude Sonnet 4.5",
            context_length=1_000_000,
            max_output=64_000,
            prompt=3_000_000_000,
            completion=15_000_000_000,
            cache_read=300_000_000,
            cache_write=3_750_000_000,
            created=dt.datetime(2025, 9, 29, 16, 1, 16, tzinfo=dt.UTC),
        ),
    )


@pytest.mark.parametrize("field", ["name", "created", "context_length", "top_provider"])
def test_what_is_missing_is_left_open(field: str) -> None:
    (model,) = page(without(field)).models

    assert model.prompt == 3_000_000_000


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(without("id"), id="no id"),
        pytest.param(without("pricing"), id="no prices"),
        pytest.param(SONNET | {"pricing": {"prompt": "cheap", "completion": "1"}}, id="a price in words"),
        pytest.param(SONNET | {"pricing": {"prompt": "0.1"}}, id="half a price"),
        pytest.param(SONNET | {"id": "a/" + "b" * 200}, id="an id that is too long"),
        pytest.param("sonnet", id="a text"),
        pytest.param(None, id="nothing"),
    ],
)
def test_an_entry_that_can_not_be_understood_is_left_out(entry: Any) -> None:
    found = page(entry, SONNET)

    assert ([model.model for model in found.models], found.entries) == ([SONNET["id"]], 2)


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        pytest.param("0.000003", 3_000_000_000, id="3 USD"),
        pytest.param("0", 0, id="free"),
        pytest.param("-1", None, id="no price"),
        pytest.param("3e-6", 3_000_000_000, id="with an exponent"),
        pytest.param("0.000000000000001", 1, id="the smallest"),
        pytest.param("0.0000000000000004", 0, id="smaller than that"),
    ],
)
def test_a_price_per_token_becomes_nano_usd_per_million(text: str, nano: int | None) -> None:
    assert per_million(text) == nano


@given(st.integers(0, 10**15))
def test_no_digit_of_a_price_is_lost(nano: int) -> None:
    assert per_million(f"{Decimal(nano) / 10**15:f}") == nano


@pytest.mark.parametrize("value", [None, True, "", "NaN", "Infinity", "1e30", [], "0,5"])
def test_what_is_no_price_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not a price"):
        per_million(value)


@pytest.mark.parametrize(
    ("fields", "offset", "has_more"),
    [
        pytest.param({}, 0, False, id="no word of more"),
        pytest.param({"total_count": 1}, 0, False, id="all of them"),
        pytest.param({"total_count": 3}, 1, True, id="by the total"),
        pytest.param({"total_count": 2}, 1, False, id="the last by the total"),
        pytest.param({"links": {"next": "/api/v1/models?offset=1"}}, 0, True, id="by the link"),
        pytest.param({"links": {"next": None}}, 0, False, id="the last by the link"),
    ],
)
def test_whether_there_are_more_pages(fields: dict[str, Any], offset: int, has_more: bool) -> None:
    assert page(SONNET, offset=offset, **fields).has_more is has_more


def test_an_empty_page_is_the_last() -> None:
    assert page(total_count=9).has_more is False


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data": {}}', b"{}"])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(NotAModelList):
        read_model_page(body, 0)
