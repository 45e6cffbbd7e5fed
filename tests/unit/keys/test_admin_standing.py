"""What the badge of a key says, and why."""

from __future__ import annotations

import datetime as dt

import pytest

from keys.admin.standing import standing_of
from keys.causes import SCOPES, Cause
from keys.models import Account, KeyState, OpenRouterKey
from keys.services.cooldowns import Blocking, OpenCooldown

NOW = dt.datetime(2026, 5, 4, 14, 0, tzinfo=dt.UTC)


def cooldown(cause: Cause = Cause.KEY_RATE_LIMITED, *, minutes: float = 4, **values: object) -> OpenCooldown:
    facts = {"id": 1, "detail": "", "pattern": "", "is_of_account": False, "repeat": 0, "is_tried": False}
    until = NOW + dt.timedelta(minutes=minutes)
    return OpenCooldown(**facts | {"cause": cause, "started_at": NOW, "until": until} | values)  # type: ignore[arg-type]


def badge(*cooldowns: OpenCooldown, state: str = KeyState.ACTIVE, **values: object) -> str:
    key = OpenRouterKey(name="work", state=state, account=Account(name="acme"), **values)
    standing = standing_of(key, Blocking(NOW, cooldowns))
    return f"[{standing.tone}] {standing.word}: {standing.reason}"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (KeyState.ACTIVE, "[good] active: "),
        (KeyState.DISABLED, "[off] disabled: by an operator"),
        (KeyState.PENDING, "[wait] pending: waits for its first check"),
        (KeyState.DRAINING, "[wait] draining: finishes its open requests and takes no new ones"),
        (KeyState.RETIRED, "[off] retired: its secret is erased"),
    ],
)
def test_a_state_is_explained_whatever_is_cooling(state: KeyState, words: str) -> None:
    cooldowns = () if state is KeyState.ACTIVE else (cooldown(),)

    assert badge(*cooldowns, state=state) == words


def test_an_invalid_key_says_since_when_and_what_openrouter_said() -> None:
    since = NOW - dt.timedelta(minutes=1)

    words = badge(state=KeyState.INVALID, invalid_since=since, check_error="No such key.")

    assert words == "[bad] invalid: since 13:59:00 UTC: No such key."
    assert badge(state=KeyState.INVALID) == "[bad] invalid: "


@pytest.mark.parametrize("cause", SCOPES)
def test_every_cause_that_benches_has_words_and_a_countdown(cause: Cause) -> None:
    words = badge(cooldown(cause))

    assert "until 14:04:00 UTC (in 4 min)" in words
    assert cause.value not in words


def test_beside_a_countdown_the_distance_is_left_out() -> None:
    standing = standing_of(OpenRouterKey(name="work"), Blocking(NOW, (cooldown(), cooldown(minutes=3))))

    assert standing.reason == "until 14:04:00 UTC (in 4 min), and 1 more"
    assert standing.beside_countdown == "until 14:04:00 UTC, and 1 more"


def test_a_benched_account_is_named() -> None:
    words = badge(cooldown(Cause.OUT_OF_CREDIT, is_of_account=True))

    assert words == "[bad] out of credit: account acme, until 14:04:00 UTC (in 4 min)"


def test_the_cooldown_that_ends_last_decides() -> None:
    words = badge(cooldown(minutes=9), cooldown(Cause.KEY_REFUSED, minutes=1), cooldown(minutes=-1))

    assert words == "[wait] rate-limited: until 14:09:00 UTC (in 9 min), and 2 more"


@pytest.mark.parametrize(
    ("is_tried", "who"), [(False, "the next request tries it"), (True, "one request tries it now")]
)
def test_a_key_whose_cooldowns_are_all_due_is_ready_to_retry(is_tried: bool, who: str) -> None:
    assert badge(cooldown(minutes=-1, is_tried=is_tried)) == f"[wait] ready to retry: was rate-limited; {who}"


def test_a_cooldown_for_some_models_leaves_the_key_active() -> None:
    words = badge(cooldown(pattern=":free"))

    assert words == "[good] active: rate-limited for models *:free until 14:04:00 UTC (in 4 min)"
