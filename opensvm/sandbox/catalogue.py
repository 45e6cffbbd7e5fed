"""The models the sandbox knows, with plausible list prices, and what tokens of them cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opensvm.sandbox.money import TOKENS_PER_PRICE, price_text

CREATED = 1_735_689_600  # 1 January 2025, as good as any
ROUTING_SUFFIXES = (":nitro", ":floor", ":online")  # they change the route, not the model


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as Anthropic counts them: `input` is without cache reads and writes."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    thinking: int = 0  # part of `output`

    @property
    def cache_write(self) -> int:
        return self.cache_write_5m + self.cache_write_1h


@dataclass(frozen=True, slots=True)
class Model:
    """`prompt` and `completion`: nano-USD per million tokens."""

    id: str
    canonical: str
    prompt: int
    completion: int
    context_length: int = 200_000
    max_output: int = 128_000

    @property
    def name(self) -> str:
        return f"{self.id} (OpenSVM Sandbox)"

    def cost_nano(self, usage: Usage) -> int:
        """Cache reads cost a tenth, writes 1.25 times (5 minutes) or twice (1 hour) the input price."""
        hundredths = 100 * usage.input + 10 * usage.cache_read + 125 * usage.cache_write_5m + 200 * usage.cache_write_1h
        return -(-(hundredths * self.prompt + 100 * usage.output * self.completion) // (100 * TOKENS_PER_PRICE))

    def pricing(self) -> dict[str, str]:
        return {
            "prompt": price_text(self.prompt),
            "completion": price_text(self.completion),
            "request": "0",
            "image": "0",
            "web_search": "0",
            "internal_reasoning": price_text(self.completion),
            "input_cache_read": price_text(self.prompt // 10),
            "input_cache_write": price_text(self.prompt * 5 // 4),
            "input_cache_write_1h": price_text(self.prompt * 2),
        }

    def record(self) -> dict[str, Any]:
        """As `GET /models` lists it."""
        return {
            "id": self.id,
            "canonical_slug": self.canonical,
            "name": self.name,
            "created": CREATED,
            "description": "Answered by the OpenSVM Sandbox. No model is asked.",
            "context_length": self.context_length,
            "architecture": {
                "modality": "text->text",
                "input_modalities": ["text"],
                "output_modalities": ["text"],
                "tokenizer": "Claude" if self.id.startswith("anthropic/") else "Other",
                "instruct_type": None,
            },
            "pricing": self.pricing(),
            "top_provider": {
                "context_length": self.context_length,
                "max_completion_tokens": self.max_output,
                "is_moderated": False,
            },
            "per_request_limits": None,
            "supported_parameters": ["max_tokens", "temperature", "tools", "tool_choice", "reasoning", "stop"],
            "expiration_date": None,
            "links": {"details": f"/api/v1/models/{self.canonical}/endpoints"},
        }


def _claude(name: str, canonical: str, cents_in: int, cents_out: int) -> Model:
    """Prices in cents per million tokens."""
    return Model(f"anthropic/claude-{name}", f"anthropic/claude-{canonical}", cents_in * 10**7, cents_out * 10**7)


MODELS = {
    model.id: model
    for model in (
        _claude("fable-5.1", "5.1-fable-20261001", 1000, 5000),
        _claude("fable-5", "5-fable-20260601", 1000, 5000),
        _claude("opus-5.5", "5.5-opus-20261001", 400, 2000),
        _claude("opus-5", "5-opus-20260601", 500, 2500),
        _claude("opus-4.8", "4.8-opus-20260401", 500, 2500),
        _claude("opus-4.7", "4.7-opus-20260201", 500, 2500),
        _claude("opus-4.6", "4.6-opus-20251215", 500, 2500),
        _claude("opus-4.5", "4.5-opus-20251101", 500, 2500),
        _claude("opus-4.1", "4.1-opus-20250805", 1500, 7500),
        _claude("opus-4", "4-opus-20250514", 1500, 7500),
        _claude("sonnet-5.5", "5.5-sonnet-20261001", 200, 1000),
        _claude("sonnet-5", "5-sonnet-20260601", 300, 1500),
        _claude("sonnet-4.6", "4.6-sonnet-20251215", 300, 1500),
        _claude("sonnet-4.5", "4.5-sonnet-20250929", 300, 1500),
        _claude("sonnet-4", "4-sonnet-20250514", 300, 1500),
        _claude("3.7-sonnet", "3-7-sonnet-20250219", 300, 1500),
        _claude("3.5-sonnet", "3.5-sonnet-20241022", 300, 1500),
        _claude("haiku-5.5", "5.5-haiku-20261001", 10, 50),
        _claude("haiku-4.5", "4.5-haiku-20251001", 100, 500),
        _claude("3.5-haiku", "3-5-haiku-20241022", 80, 400),
        _claude("3-opus", "3-opus-20240229", 1500, 7500),
        _claude("3-haiku", "3-haiku-20240307", 25, 125),
        Model("openai/gpt-4o-mini", "openai/gpt-4o-mini-2024-07-18", 15 * 10**7, 60 * 10**7, 128_000, 16_384),
        Model("meta-llama/llama-3.3-70b-instruct:free", "meta-llama/llama-3.3-70b-instruct", 0, 0, 65_536, 8_192),
    )
}

LATEST = {
    "~anthropic/claude-opus-latest": "anthropic/claude-opus-5.5",
    "~anthropic/claude-sonnet-latest": "anthropic/claude-sonnet-5.5",
    "~anthropic/claude-haiku-latest": "anthropic/claude-haiku-5.5",
    "~anthropic/claude-fable-latest": "anthropic/claude-fable-5.1",
}


def find_model(name: str) -> Model | None:
    """By id, canonical slug or `-latest` alias, with or without a routing suffix. Bare Anthropic ids are unknown."""
    for suffix in ROUTING_SUFFIXES:
        name = name.removesuffix(suffix)
    name = LATEST.get(name, name)
    return MODELS.get(name) or next((model for model in MODELS.values() if model.canonical == name), None)
