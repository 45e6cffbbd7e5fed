"""Fixtures of the database tests of `keys`.

Models are imported inside the fixtures: pytest may load this file before Django is set up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytest_django import Settings

from keys.keyring import Keyring, create_keyring

if TYPE_CHECKING:
    from keys.models import OpenRouterKey
    from keys.services.audit import Actor


@pytest.fixture
def alice() -> Actor:
    from keys.services.audit import Actor

    return Actor("alice", ip="192.0.2.1")


@pytest.fixture
def new_key(alice: Actor) -> Callable[..., OpenRouterKey]:
    """Add a key with a text and a name of its own; every argument of `add_key` may be given."""
    from keys.sealing import Sealed
    from keys.services.keys import add_key

    numbers = itertools.count(1)

    def add(text: str = "", **changes: Any) -> OpenRouterKey:
        n = next(numbers)
        secret = Sealed(text or f"sk-or-v1-test-planted-{n:04}")
        return add_key(**{"actor": alice, "secret": secret, "name": f"key {n}"} | changes)

    return add


@pytest.fixture
def keyring(tmp_path: Path, settings: Settings) -> Keyring:
    """A keyring of this test's own, for tests that change the file."""
    settings.OPENSVM_KEYRING = tmp_path / "own" / "keyring.json"
    return create_keyring(settings.OPENSVM_KEYRING)
