"""Texts of strangers, made fit for a column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.steps.clean import clean_text, clean_texts

ANYTHING = st.text(st.characters(codec=None), max_size=50)  # with NUL and lone surrogates


@given(text=ANYTHING, limit=st.integers(0, 60))
def test_any_text_fits_every_database(text: str, limit: int) -> None:
    clean = clean_text(text, limit)
    assert len(clean) <= limit
    assert "\0" not in clean
    assert clean.encode().decode() == clean


@given(text=ANYTHING, limit=st.integers(0, 60))
def test_cleaning_twice_changes_nothing(text: str, limit: int) -> None:
    assert clean_text(clean_text(text, limit), limit) == clean_text(text, limit)


@given(texts=st.lists(ANYTHING | st.just("sk-or-v1-abc"), max_size=4), limit=st.integers(0, 60))
def test_many_texts_are_cleaned_as_each_is(texts: list[str], limit: int) -> None:
    assert clean_texts(texts, [slice(limit)] * len(texts)) == tuple(clean_text(text, limit) for text in texts)


@pytest.mark.parametrize("text", ["curl/8.5", "", "grüße 🦀", "\n\t\x1b", "'; DROP TABLE x; --"], ids=ascii)
def test_what_a_database_takes_stays_as_it_is(text: str) -> None:
    assert clean_text(text, 300) == text


def test_what_no_database_takes_stays_visible() -> None:
    assert clean_text("a\0b", 10) == "a\ufffdb"
    assert clean_text("a\ud800b", 10) == "a?b"
