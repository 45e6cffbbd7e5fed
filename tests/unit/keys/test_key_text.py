"""The text of OpenRouter keys: what is one, what a list of them holds, and what may be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.errors import InvalidKeyText
from keys.key_text import parse_key_text, redact_keys, split_entries, tail_of

KEY_CHARACTERS = st.text("abcXYZ019-_", min_size=1, max_size=200)


@given(KEY_CHARACTERS, st.text(" \t\r\n", max_size=3), st.text(" \t\r\n", max_size=3))
def test_white_space_around_a_key_is_dropped(random: str, before: str, after: str) -> None:
    assert parse_key_text(f"{before}sk-or-v1-{random}{after}") == f"sk-or-v1-{random}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "sk-or-v1-",
        "sk-or-v2-abc",
        "SK-OR-V1-abc",
        "sk-or-v1-a b",
        "sk-or-v1-ä",
        "sk-or-v1-" + "x" * 201,
        "sk-ant-api03-abc",
        '"sk-or-v1-abc"',
        "sk-or-v1-abc\0",
        "sk-or-v1-abc,sk-or-v1-def",
        "\udcff",
    ],
    ids=ascii,
)
def test_what_is_not_a_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidKeyText) as refusal:
        parse_key_text(text)
    assert refusal.value.field == "secret"
    assert str(refusal.value) == str(InvalidKeyText())


@pytest.mark.parametrize(
    ("text", "tail"),
    [
        ("sk-or-v1-0123456789abc1", "...abc1"),
        ("sk-or-v1-12345678", "...5678"),
        ("sk-or-v1-1234567", "...567"),
        ("sk-or-v1-12", "...2"),
        ("sk-or-v1-1", "..."),
    ],
)
def test_the_tail_shows_four_characters_and_at_most_half_of_the_key(text: str, tail: str) -> None:
    assert tail_of(text) == tail


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        (" , ,\n", []),
        ("a", [(1, "a")]),
        ("a,b, c", [(1, "a"), (2, "b"), (3, "c")]),
        ("a\nb\r\nc d\te", [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]),
        ("a,,b,", [(1, "a"), (3, "b")]),
        (",a", [(2, "a")]),
    ],
)
def test_entries_are_numbered_as_a_reader_counts_them(text: str, entries: list[tuple[int, str]]) -> None:
    assert split_entries(text) == entries


def test_whole_keys_in_a_text_are_cut_to_their_tail() -> None:
    text = "bad key sk-or-v1-0123456789abc1: masked sk-or-v1-0e6...1c9 stays"
    assert redact_keys(text) == "bad key ...abc1: masked sk-or-v1-0e6...1c9 stays"


def test_a_given_secret_is_cut_however_short_it_is() -> None:
    assert redact_keys("label sk-or-v1-ab", "sk-or-v1-ab") == "label ...b"


def test_comment_lines_are_no_entries() -> None:
    text = "# keys of the first account\nsk-or-v1-test-a\n  # and of the second\nsk-or-v1-test-b"

    assert [entry for _, entry in split_entries(text)] == ["sk-or-v1-test-a", "sk-or-v1-test-b"]
