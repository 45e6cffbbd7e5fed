"""What an answer to GET /generation means, and how its tokens are counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.generations import Billed, NotYet, read_generation_answer
from keys.ledger_items import Tokens
from keys.openrouter import NoAnswer, Refused

ASKED = "gen-1"


def read(status: int, document: Any) -> Billed | NotYet | Refused | NoAnswer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_generation_answer(status, body, ASKED)


def test_a_bill_is_read_to_the_last_digit() -> None:
    body = (
        b'{"data": {"id": "gen-1", "total_cost": 0.123456789, "native_tokens_prompt": 30,'
        b' "native_tokens_completion": 4, "native_tokens_cached": 20}}'
    )
    assert read(200, body) == Billed(123_456_789, prompt_tokens=30, completion_tokens=4, cached_tokens=20)


@pytest.mark.parametrize(
    ("status", "document", "meaning"),
    [
        pytest.param(404, {"error": {"message": "Generation not found", "code": 404}}, NotYet, id="too early"),
        pytest.param(400, {"error": {"message": "Bad id", "code": 400}}, NotYet, id="no such id"),
        pytest.param(200, {"error": {"message": "not found", "code": 404}}, NotYet, id="too early inside a 200"),
        pytest.param(200, {"data": {"id": ASKED}}, NotYet, id="not billed yet"),
        pytest.param(200, {"data": {"id": ASKED, "total_cost": None}}, NotYet, id="no cost yet"),
        pytest.param(200, {"data": {"id": ASKED, "total_cost": -1}}, NotYet, id="a cost below nothing"),
        pytest.param(200, {"data": {"id": ASKED, "total_cost": 0}}, Billed, id="for nothing"),
        pytest.param(200, {"data": {"total_cost": "0.5"}}, Billed, id="without its id, as text"),
        pytest.param(200, {"data": {"id": "gen-2", "total_cost": 1}}, NoAnswer, id="another generation"),
        pytest.param(401, {"error": {"message": "User not found.", "code": 401}}, Refused, id="key refused"),
        pytest.param(403, {"error": {"message": "No.", "code": 403}}, Refused, id="key may not"),
        pytest.param(200, {"error": {"message": "User not found.", "code": 401}}, Refused, id="refused inside a 200"),
        pytest.param(429, {"error": {"message": "Slow down", "code": 429}}, NoAnswer, id="rate limit"),
        pytest.param(502, b"<html>", NoAnswer, id="edge error"),
        pytest.param(302, b"", NoAnswer, id="redirect"),
        pytest.param(200, b"[" * 100_000, NoAnswer, id="nonsense"),
        pytest.param(200, {"data": []}, NoAnswer, id="no object"),
        pytest.param(200, {"error": "oh"}, NoAnswer, id="an error in words"),
    ],
)
def test_what_an_answer_means(status: int, document: Any, meaning: type) -> None:
    assert isinstance(read(status, document), meaning)


@pytest.mark.parametrize(
    ("billed", "known", "counted"),
    [
        pytest.param(Billed(1, 30, 4, 20), Tokens(), Tokens(10, 4, 20, 0), id="cached ones are part of the prompt"),
        pytest.param(Billed(1, 30, 4, 20), Tokens(cache_write=6), Tokens(4, 4, 20, 6), id="written ones are known"),
        pytest.param(Billed(1), Tokens(1, 2, 3, 4), Tokens(1, 2, 3, 4), id="nothing said"),
        pytest.param(Billed(1, 30, 4), Tokens(1, 2, 3, 4), Tokens(23, 4, 3, 4), id="cache not said"),
        pytest.param(Billed(1, 5, 4, 20), Tokens(), Tokens(0, 4, 20, 0), id="never below nothing"),
    ],
)
def test_tokens_are_counted_as_the_ledger_does(billed: Billed, known: Tokens, counted: Tokens) -> None:
    assert billed.tokens(known) == counted


@given(st.integers(0, 600), st.binary(max_size=200))
def test_any_answer_is_understood_as_something(status: int, body: bytes) -> None:
    assert isinstance(read(status, body), Billed | NotYet | Refused | NoAnswer)


@pytest.mark.parametrize("count", [True, -1, 1.5, "7", 2**41, None])
def test_a_count_that_is_none_is_not_taken(count: Any) -> None:
    answer = read(200, {"data": {"total_cost": 1, "native_tokens_prompt": count}})

    assert isinstance(answer, Billed)
    assert answer.prompt_tokens is None
