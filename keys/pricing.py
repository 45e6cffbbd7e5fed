"""What tokens cost by a list price. Pure, in exact integers."""

from __future__ import annotations

from dataclasses import dataclass

from keys.ledger_items import Tokens

TOKENS_PER_PRICE = 1_000_000
_ROUTING_SUFFIXES = (":nitro", ":floor", ":online")  # another route to the same model at its own price


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-USD per million tokens. Without an own price a cache read costs 0.1 times a prompt's, a write 1.25 times."""

    prompt: int
    completion: int
    cache_read: int | None = None
    cache_write: int | None = None


def estimate(tokens: Tokens, price: Price) -> int:
    """Nano-USD for all of `tokens`, rounded up once, at the end."""
    read = 10 * price.prompt if price.cache_read is None else 100 * price.cache_read
    write = 125 * price.prompt if price.cache_write is None else 100 * price.cache_write
    hundredths = (
        100 * (tokens.input * price.prompt + tokens.output * price.completion)
        + tokens.cache_read * read
        + tokens.cache_write * write
    )
    return -(-hundredths // (100 * TOKENS_PER_PRICE))


def priced_names(model: str) -> tuple[str, ...]:
    """The names under which the price of `model` may be listed, the best first.

    Other suffixes are models of their own (":free") or unlike the model in price (":batch").
    """
    for suffix in _ROUTING_SUFFIXES:
        if model.endswith(suffix):
            return model, model.removesuffix(suffix)
    return (model,)
