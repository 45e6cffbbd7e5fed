"""Estimates from list prices: exact integers, cache rules, one rounding."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.ledger_items import Tokens
from keys.pricing import Price, estimate, priced_names

SONNET = Price(3_000_000_000, 15_000_000_000)  # 3 and 15 USD per million tokens

counts = st.integers(0, 10**9)
prices = st.integers(0, 10**12)


@pytest.mark.parametrize(
    ("tokens", "price", "nano"),
    [
        pytest.param(Tokens(), SONNET, 0, id="nothing"),
        pytest.param(Tokens(input=1_000_000), SONNET, 3_000_000_000, id="a million in"),
        pytest.param(Tokens(output=1), SONNET, 15_000, id="one out"),
        pytest.param(Tokens(cache_read=10), SONNET, 3_000, id="cache read is a tenth"),
        pytest.param(Tokens(cache_write=4), SONNET, 15_000, id="cache write is a quarter more"),
        pytest.param(Tokens(cache_read=10), Price(3, 15, cache_read=7_000_000), 70, id="own price of cache reads"),
        pytest.param(Tokens(cache_write=10), Price(3, 15, cache_write=0), 0, id="cache writes for nothing"),
        pytest.param(Tokens(input=1), Price(1, 1), 1, id="rounded up"),
        pytest.param(Tokens(1, 1, 0, 0), Price(500_000, 500_000), 1, id="rounded once, at the end"),
        pytest.param(Tokens(5, 5, 5, 5), Price(0, 0), 0, id="a free model"),
    ],
)
def test_what_tokens_cost(tokens: Tokens, price: Price, nano: int) -> None:
    assert estimate(tokens, price) == nano


@given(st.tuples(counts, counts, counts, counts), prices, prices, st.none() | prices, st.none() | prices)
def test_an_estimate_is_the_exact_sum_rounded_up(
    counted: tuple[int, int, int, int], prompt: int, completion: int, read: int | None, write: int | None
) -> None:
    tokens = Tokens(*counted)
    per_read = Fraction(prompt, 10) if read is None else Fraction(read)
    per_write = Fraction(prompt * 5, 4) if write is None else Fraction(write)
    exact = tokens.input * prompt + tokens.output * completion
    exact_sum = (exact + tokens.cache_read * per_read + tokens.cache_write * per_write) / 1_000_000

    found = estimate(tokens, Price(prompt, completion, read, write))

    assert 0 <= found - exact_sum < 1


@pytest.mark.parametrize(
    ("model", "names"),
    [
        pytest.param("a/b", ("a/b",), id="plain"),
        pytest.param("a/b:nitro", ("a/b:nitro", "a/b"), id="another route"),
        pytest.param("a/b:floor", ("a/b:floor", "a/b"), id="the cheapest route"),
        pytest.param("a/b:free", ("a/b:free",), id="free is a model of its own"),
        pytest.param("a/b:batch", ("a/b:batch",), id="batches have another price"),
    ],
)
def test_under_which_names_a_price_is_listed(model: str, names: tuple[str, ...]) -> None:
    assert priced_names(model) == names
