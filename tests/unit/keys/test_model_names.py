"""Which upstream model a client's model name means."""

from __future__ import annotations

import pytest

from keys.model_names import alias_candidates, upstream_model, variant_of

GUIDE = {
    "claude-3-5-sonnet-20241022": "anthropic/claude-3.5-sonnet",
    "claude-3-sonnet-20240229": "anthropic/claude-3.5-sonnet",
}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("claude-opus-4-8", "anthropic/claude-opus-4.8"),
        ("claude-opus-4-8-20260115", "anthropic/claude-opus-4.8"),
        ("claude-opus-4-8@20260115", "anthropic/claude-opus-4.8"),
        ("claude-opus-4-8[1m]", "anthropic/claude-opus-4.8"),
        ("claude-opus-4-8-20260115[1M]", "anthropic/claude-opus-4.8"),
        ("claude-3-5-sonnet-20240620", "anthropic/claude-3.5-sonnet"),
        ("claude-3-5-sonnet-latest", "anthropic/claude-3.5-sonnet"),
        ("claude-sonnet-4-20250514", "anthropic/claude-sonnet-4"),
        ("claude-opus-5", "anthropic/claude-opus-5"),
        ("claude-opus-5-5", "anthropic/claude-opus-5.5"),
        ("claude-opus-4-6-fast", "anthropic/claude-opus-4.6-fast"),
        ("claude-haiku-4-5:free", "anthropic/claude-haiku-4.5:free"),
        ("claude-haiku-4-5-20251001:nitro", "anthropic/claude-haiku-4.5:nitro"),
        ("claude-sonnet-latest", "~anthropic/claude-sonnet-latest"),
        ("claude-3-haiku-20240307", "anthropic/claude-3-haiku"),
        ("claude-sonnet-4.5", "anthropic/claude-sonnet-4.5"),
    ],
)
def test_an_anthropic_name_becomes_openrouters(asked: str, sent: str) -> None:
    assert upstream_model(asked, {}) == sent


@pytest.mark.parametrize(
    "name",
    [
        "anthropic/claude-sonnet-4.5",
        "anthropic/claude-opus-4-8-20260115",
        "~anthropic/claude-opus-latest",
        "openai/gpt-5-mini",
        "openrouter/auto",
        "meta-llama/llama-4:free",
        "gpt-5",
        "x",
    ],
)
def test_an_upstream_id_and_a_stranger_go_as_they_are(name: str) -> None:
    assert upstream_model(name, {}) == name


def test_a_context_suffix_is_stripped_from_an_upstream_id_too() -> None:
    assert upstream_model("anthropic/claude-opus-4.8[1m]", {}) == "anthropic/claude-opus-4.8"


def test_a_configured_alias_wins() -> None:
    aliases = {**GUIDE, "anthropic/claude-sonnet-4.5": "openai/gpt-5", "claude-opus-4-8": "x/y"}
    assert upstream_model("claude-3-sonnet-20240229", aliases) == "anthropic/claude-3.5-sonnet"
    assert upstream_model("anthropic/claude-sonnet-4.5", aliases) == "openai/gpt-5"
    assert upstream_model("claude-opus-4-8", aliases) == "x/y"


def test_an_alias_is_found_without_the_context_suffix() -> None:
    assert upstream_model("claude-3-sonnet-20240229[1m]", GUIDE) == "anthropic/claude-3.5-sonnet"
    assert alias_candidates("house-model[1m]") == ("house-model[1m]", "house-model")


def test_an_alias_for_the_name_with_its_suffix_wins_over_the_one_without() -> None:
    assert upstream_model("a[1m]", {"a": "x/short", "a[1m]": "x/long"}) == "x/long"


@pytest.mark.parametrize(
    ("model", "variant"),
    [("anthropic/claude-haiku-4.5:free", ":free"), ("a/b:nitro", ":nitro"), ("a/b", ""), ("a:b/c", ""), ("", "")],
)
def test_the_variant_is_what_follows_the_last_colon(model: str, variant: str) -> None:
    assert variant_of(model) == variant
