"""What an operator may do to OpenRouter keys. Which change of state is legal is asked of `keys.key_states`."""

from __future__ import annotations

from collections.abc import Callable

from keys.admin.row_actions import Outcome, RowAction
from keys.key_states import KeyAction, allows
from keys.models import KeyState, OpenRouterKey
from keys.services import checks, cooldowns, keys, rotation
from keys.services.audit import Actor

RETIRE_WARNING = (
    "The service erases its copy of the secret for ever and sends no new request with it; open requests finish. "
    "Its history and its costs stay. The key stays valid at OpenRouter until it is deleted there. "
    "A retired key can't be enabled or added again."
)


DRAIN_WARNING = (
    "The old key gets no new requests from now on; its successor does. Open requests finish, and then the old key is "
    "retired: its secret is erased. Until then the rotation can be cancelled."
)
CANCEL_WARNING = (
    "The old key goes on as it did before the rotation. Its successor is disabled: its open requests finish, and it "
    "can be enabled as a key of its own, or retired."
)


def _unless_allowed(action: KeyAction) -> Callable[[OpenRouterKey], str]:
    def skip(key: OpenRouterKey) -> str:
        return "" if allows(action, key.state) else f"already {key.get_state_display()}"

    return skip


def _by(service: Callable[..., object]) -> Callable[[OpenRouterKey, Actor], Outcome]:
    def run(key: OpenRouterKey, actor: Actor) -> Outcome:
        service(key.pk, actor=actor)
        return Outcome()

    return run


def _has_no_rotation(key: OpenRouterKey) -> str:
    is_open = key.replaced_by_id is not None and key.state != KeyState.RETIRED
    return "" if is_open else f"already {key.get_state_display()}" if key.state == KeyState.RETIRED else "no rotation"


def _can_not_drain(key: OpenRouterKey) -> str:
    if no_rotation := _has_no_rotation(key):
        return no_rotation
    if not allows(KeyAction.DRAIN, key.state):
        return f"already {key.get_state_display()}"
    return "" if _successor_serves(key) else "its successor does not serve yet"


def _can_not_finish(key: OpenRouterKey) -> str:
    if no_rotation := _has_no_rotation(key):
        return no_rotation
    if key.state == KeyState.ACTIVE:
        return "not drained"
    if key.in_flight_now:  # type: ignore[attr-defined]  # `KeyAdmin.prepare` has counted
        return "still answering"
    return "" if _successor_serves(key) else "its successor does not serve"


def _successor_serves(key: OpenRouterKey) -> bool:
    return key.replaced_by is not None and key.replaced_by.state == KeyState.ACTIVE


def _check(key: OpenRouterKey, actor: Actor) -> Outcome:
    return check_outcome(key, actor)


def check_outcome(key: OpenRouterKey, actor: Actor) -> Outcome:
    """Ask OpenRouter about `key` and say what it answered. Raises KeysError, never for network trouble."""
    result = checks.check_key(key.pk, actor=actor)
    return Outcome(f"{key.name}: {result.message}", is_trouble=not result.is_good)


def _has_secret(key: OpenRouterKey) -> str:
    return "already retired" if key.state == KeyState.RETIRED else ""


def _is_cooling(key: OpenRouterKey) -> str:
    """The key carries what blocks it: `KeyAdmin.prepare` has read it."""
    return "" if key.blocking.cooldowns else "no open cooldown"  # type: ignore[attr-defined]


KEY_ACTIONS = (
    RowAction("check", "Check now", "checked", _has_secret, _check),
    RowAction("disable", "Disable", "disabled", _unless_allowed(KeyAction.DISABLE), _by(keys.disable_key)),
    RowAction("enable", "Enable", "enabled", _unless_allowed(KeyAction.ENABLE), _by(keys.enable_key)),
    RowAction("clear_cooldown", "Clear cooldown", "cleared", _is_cooling, _by(cooldowns.clear_cooldowns)),
    RowAction("drain", "Drain", "draining", _can_not_drain, _by(rotation.drain_key), warning=DRAIN_WARNING),
    RowAction("finish_rotation", "Finish rotation", "retired", _can_not_finish, _by(rotation.finish_rotation)),
    RowAction(
        "cancel_rotation",
        "Cancel rotation",
        "cancelled",
        _has_no_rotation,
        _by(rotation.cancel_rotation),
        warning=CANCEL_WARNING,
    ),
    RowAction(
        "retire",
        "Retire",
        "retired",
        _unless_allowed(KeyAction.RETIRE),
        _by(keys.retire_key),
        warning=RETIRE_WARNING,
        is_danger=True,
    ),
)
