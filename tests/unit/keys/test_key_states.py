"""The state machine of OpenRouter keys, as a table."""

from __future__ import annotations

import pytest

from keys.key_states import KeyAction, allows, outcome_of
from keys.models import KeyState

LEGAL = {
    (KeyAction.ENABLE, KeyState.DISABLED): KeyState.ACTIVE,
    (KeyAction.ENABLE, KeyState.INVALID): KeyState.ACTIVE,
    (KeyAction.DISABLE, KeyState.PENDING): KeyState.DISABLED,
    (KeyAction.DISABLE, KeyState.ACTIVE): KeyState.DISABLED,
    (KeyAction.DISABLE, KeyState.DRAINING): KeyState.DISABLED,
    (KeyAction.DISABLE, KeyState.INVALID): KeyState.DISABLED,
    (KeyAction.REFUSE, KeyState.ACTIVE): KeyState.INVALID,
    (KeyAction.ACCEPT, KeyState.INVALID): KeyState.ACTIVE,
    (KeyAction.ACTIVATE, KeyState.PENDING): KeyState.ACTIVE,
    (KeyAction.DRAIN, KeyState.ACTIVE): KeyState.DRAINING,
    (KeyAction.RESUME, KeyState.DRAINING): KeyState.ACTIVE,
    (KeyAction.RETIRE, KeyState.PENDING): KeyState.RETIRED,
    (KeyAction.RETIRE, KeyState.ACTIVE): KeyState.RETIRED,
    (KeyAction.RETIRE, KeyState.DISABLED): KeyState.RETIRED,
    (KeyAction.RETIRE, KeyState.DRAINING): KeyState.RETIRED,
    (KeyAction.RETIRE, KeyState.INVALID): KeyState.RETIRED,
}


@pytest.mark.parametrize("state", list(KeyState))
@pytest.mark.parametrize("action", list(KeyAction))
def test_only_the_listed_changes_are_legal(action: KeyAction, state: KeyState) -> None:
    assert outcome_of(action, state) == LEGAL.get((action, state))
    assert allows(action, state.value) == ((action, state) in LEGAL)
