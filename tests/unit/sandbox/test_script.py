"""Rules: which call goes how. Mostly without a server."""

from __future__ import annotations

import pytest

from opensvm.sandbox.remote import ControlError
from opensvm.sandbox.script import BadScript, Behaviour, Call, Rule, Script, read_rule
from tests.sandbox import SandboxFixture

ALPHA = Call("/messages", "POST", frozenset({"sk-or-v1-test-alpha", "alpha", "...lpha"}), "anthropic/claude-opus-5")
BETA = Call("/messages", "POST", frozenset({"sk-or-v1-test-beta", "beta", "...beta"}), "openai/gpt-4o-mini", True)
FAIL = Behaviour(error="rate_limited")
SLOW = Behaviour(delay_headers=1.0)


@pytest.mark.parametrize(
    ("rule", "on_alpha", "on_beta"),
    [
        (Rule(), True, True),
        (Rule(key="alpha"), True, False),
        (Rule(key="...beta"), False, True),
        (Rule(key="sk-or-v1-test-alpha"), True, False),
        (Rule(model="*opus*"), True, False),
        (Rule(model="openai/gpt-4o-mini"), False, True),
        (Rule(path="/key"), False, False),
        (Rule(path="*"), True, True),
        (Rule(method="GET"), False, False),
        (Rule(streamed=True), False, True),
        (Rule(streamed=False), True, False),
        (Rule(key="alpha", model="openai/*"), False, False),
    ],
    ids=lambda value: str(value.as_json()) if isinstance(value, Rule) else "",
)
def test_a_rule_takes_the_calls_that_match_in_every_field(rule: Rule, on_alpha: bool, on_beta: bool) -> None:
    script = Script()
    script.add(read_rule({**rule.as_json(), "then": FAIL.as_json()}))

    assert (script.behaviour_for(ALPHA) == FAIL) == on_alpha
    assert (script.behaviour_for(BETA) == FAIL) == on_beta


def test_rules_that_hold_once_make_a_sequence() -> None:
    script = Script()
    script.add(Rule(then=FAIL, times=1))
    script.add(Rule(then=SLOW, times=2))

    taken = [script.behaviour_for(ALPHA) for _ in range(4)]

    assert taken == [FAIL, SLOW, SLOW, Behaviour()]


def test_a_rule_can_wait_for_its_nth_call() -> None:
    script = Script()
    script.add(Rule(then=FAIL, key="alpha", first=3, times=1))

    taken = [script.behaviour_for(call) == FAIL for call in (ALPHA, BETA, ALPHA, ALPHA, ALPHA)]

    assert taken == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ("always", "JSON object"),
        ({"then": "fail"}, "'then'"),
        ({"then": {"error": "bored"}}, "'bored' is not an error"),
        ({"then": {"colour": "red"}}, "colour"),
        ({"when": "now"}, "when"),
    ],
    ids=["no rule", "no behaviour", "unknown error", "unknown behaviour", "unknown match"],
)
def test_a_rule_that_cannot_be_followed_says_why(document: object, word: str) -> None:
    with pytest.raises(BadScript, match=word):
        read_rule(document)


def test_a_cost_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a JSON number"):
        Behaviour(cost="cheap")


def test_a_rule_travels_as_json_and_back() -> None:
    then = Behaviour(omit=("done",), extra_events=((2, ": hi\n\n"),), usage={"input_tokens": None}, content=({"a": 1},))
    rule = Rule(then=then, key="alpha", times=3)

    assert read_rule(rule.as_json()) == rule


def test_rules_show_how_many_calls_they_counted(sandbox: SandboxFixture) -> None:
    sandbox.behave(path="/models", delay_headers=0.0)
    sandbox.requests()  # a control, not a call

    assert sandbox.rules() == [{"path": "/models", "calls": 0}]


def test_a_bad_control_is_answered_with_its_reason(sandbox: SandboxFixture) -> None:
    with pytest.raises(ControlError, match="knows no such key"):
        sandbox.change_key("nobody", disabled=True)
