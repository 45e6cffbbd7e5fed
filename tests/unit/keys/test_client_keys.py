"""Client keys: their format, their checksum, and what may be shown of them."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.client_keys import is_well_formed, new_client_key, prefix_of

BASE62 = string.digits + string.ascii_letters


def test_a_new_key_has_the_documented_shape() -> None:
    assert re.fullmatch(r"sk-ant-api03-[0-9A-Za-z]{49}", new_client_key())


def test_new_keys_are_well_formed_and_never_the_same() -> None:
    made = {new_client_key() for _ in range(200)}
    assert len(made) == 200
    assert all(is_well_formed(key) for key in made)


@given(st.integers(13, 61), st.sampled_from(BASE62))
def test_one_mistyped_character_is_noticed(place: int, character: str) -> None:
    key = new_client_key()
    changed = key[:place] + character + key[place + 1 :]
    assert is_well_formed(changed) == (changed == key)


@given(st.text(max_size=80))
def test_text_of_strangers_is_not_well_formed(text: str) -> None:
    assert not is_well_formed(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key + "\n",
        lambda key: " " + key,
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key.replace("api03", "api04"),
        lambda key: key.upper(),
        lambda key: "",
        lambda key: "sk-ant-api03-your-opensvm-key",
    ],
    ids=["newline", "space", "shorter", "longer", "other start", "upper case", "empty", "the guide's example"],
)
def test_what_is_almost_a_key_is_refused(change) -> None:
    assert not is_well_formed(change(new_client_key()))


def test_the_prefix_shows_four_random_characters() -> None:
    key = new_client_key()
    assert prefix_of(key) == key[:17]
    assert len(prefix_of(key)) == len("sk-ant-api03-Ab3d")
