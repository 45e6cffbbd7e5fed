"""Which changes of an OpenRouter key's state are legal. The only place that knows; services and the admin ask it."""

from __future__ import annotations

from enum import StrEnum

from keys.models import KeyState


class KeyAction(StrEnum):
    """What may be done to a key. The value is how messages and audit rows call the outcome."""

    ENABLE = "enabled"  # by an operator
    DISABLE = "disabled"  # by an operator
    REFUSE = "refused"  # by OpenRouter, when a check asked
    ACCEPT = "accepted"  # by OpenRouter, after it had been refused
    ACTIVATE = "activated"  # a rotation's successor, when its check was good
    DRAIN = "drained"  # the old key of a rotation: no new requests
    RESUME = "resumed"  # the old key, when the rotation is cancelled
    RETIRE = "retired"  # by an operator, for ever


_OUTCOMES: dict[KeyAction, dict[KeyState, KeyState]] = {
    KeyAction.ENABLE: {KeyState.DISABLED: KeyState.ACTIVE, KeyState.INVALID: KeyState.ACTIVE},
    KeyAction.DISABLE: {
        KeyState.PENDING: KeyState.DISABLED,
        KeyState.ACTIVE: KeyState.DISABLED,
        KeyState.DRAINING: KeyState.DISABLED,
        KeyState.INVALID: KeyState.DISABLED,
    },
    KeyAction.REFUSE: {KeyState.ACTIVE: KeyState.INVALID},
    KeyAction.ACCEPT: {KeyState.INVALID: KeyState.ACTIVE},
    KeyAction.ACTIVATE: {KeyState.PENDING: KeyState.ACTIVE},
    KeyAction.DRAIN: {KeyState.ACTIVE: KeyState.DRAINING},
    KeyAction.RESUME: {KeyState.DRAINING: KeyState.ACTIVE},
    KeyAction.RETIRE: {state: KeyState.RETIRED for state in KeyState if state is not KeyState.RETIRED},
}


def outcome_of(action: KeyAction, state: str) -> KeyState | None:
    """The state that `action` leads to from `state`; None if it is not allowed."""
    return _OUTCOMES[action].get(KeyState(state))


def allows(action: KeyAction, state: str) -> bool:
    return outcome_of(action, state) is not None
