"""What of a chat completion's stream may go out now and what is held, of one choice and of several."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat_relay import ChatRelay

DONE = b"data: [DONE]\n\n"


def chunk(*choices: dict[str, Any], **fields: Any) -> bytes:
    document = {"id": "gen-1", "model": "mine", "choices": list(choices), **fields}
    return f"data: {json.dumps(document)}\n\n".encode()


def text(index: int, content: str = "ü") -> bytes:
    return chunk({"index": index, "delta": {"content": content}, "finish_reason": None})


def end(index: int, reason: str = "stop") -> bytes:
    return chunk({"index": index, "delta": {}, "finish_reason": reason})


BILL = chunk(usage={"prompt_tokens": 3, "completion_tokens": 9, "cost": 0.5})
# As OpenRouter writes it: with the choice once more, which has no reason to finish any more
BILL_WITH_CHOICE = chunk(
    {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}, usage={"cost": 0.5}
)


def feed(*chunks: bytes) -> tuple[ChatRelay, bytes]:
    relay = ChatRelay("mine")
    passed = b"".join([relay.feed(one) for one in chunks])
    return relay, passed + relay.finish()


@pytest.mark.parametrize("bill", [BILL, BILL_WITH_CHOICE], ids=["without a choice", "with the choice again"])
def test_of_one_choice_everything_from_its_finish_on_is_held(bill: bytes) -> None:
    relay, passed = feed(text(0), text(0), end(0), bill, DONE)
    assert passed == text(0) * 2
    assert relay.held == end(0) + bill + DONE
    assert relay.is_finished
    assert relay.usage.usage.cost_nano == 500_000_000


INTERLEAVED = [text(0), text(1), end(0), text(1), text(1), end(1), BILL, DONE]
ONE_AFTER_THE_OTHER = [text(0), end(0), text(1), text(1), end(1), BILL, DONE]
IN_ONE_CHUNK = [
    chunk(*({"index": index, "delta": {"content": "x"}, "finish_reason": None} for index in (0, 1))),
    end(1),
    text(0),
    end(0),
    BILL,
    DONE,
]
LAST_FIRST = [text(2), text(1), end(2), end(1), text(0), end(0), BILL, DONE]


@pytest.mark.parametrize(
    "events",
    [INTERLEAVED, ONE_AFTER_THE_OTHER, IN_ONE_CHUNK, LAST_FIRST],
    ids=["interleaved", "one after the other", "both in one chunk", "the last one first"],
)
def test_of_several_choices_only_the_last_finish_is_held(events: list[bytes]) -> None:
    relay, passed = feed(*events)
    assert passed == b"".join(events[:-3])
    assert relay.held == b"".join(events[-3:])
    assert relay.is_finished


def test_a_choice_whose_turn_may_still_come_is_waited_for() -> None:
    """Nobody knows yet whether the first choice was the only one."""
    relay = ChatRelay("mine")
    assert relay.feed(text(0) + end(0)) == text(0)
    assert relay.feed(text(1)) == end(0) + text(1)


@pytest.mark.parametrize("tail", [[DONE], []], ids=["[DONE]", "the end"])
def test_a_choice_that_never_finishes_is_no_whole_answer(tail: list[bytes]) -> None:
    relay, passed = feed(text(0), text(1), end(0), *tail)
    assert passed == text(0) + text(1) + end(0)
    assert not relay.is_finished


def test_tool_calls_with_an_index_are_no_choices() -> None:
    call = {"index": 1, "function": {"arguments": "{}"}}
    tool = chunk({"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None})
    relay, passed = feed(text(0), tool, end(0, "tool_calls"), DONE)
    assert passed == text(0) + tool
    assert relay.is_finished


@pytest.mark.parametrize("index", [None, "1", -1, 1.5, True])
def test_an_index_that_is_none_stands_for_the_first(index: Any) -> None:
    odd = chunk({"index": index, "delta": {}, "finish_reason": "stop"})
    relay, passed = feed(text(0), odd, DONE)
    assert (passed, relay.held) == (text(0), odd + DONE)


def test_a_comment_before_an_answer_of_one_chunk_is_kept() -> None:
    whole = chunk({"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"})
    relay, passed = feed(b": OPENROUTER PROCESSING\n\n", whole, DONE)
    assert (passed, relay.held) == (b"", b": OPENROUTER PROCESSING\n\n" + whole + DONE)


def test_a_comment_that_came_as_data_is_left_out() -> None:
    """OpenAI's clients read all data as JSON. It starts nothing either: another key may still be tried."""
    relay = ChatRelay("mine")
    assert relay.feed(b"data: : OPENROUTER PROCESSING\n\n") == b""
    assert not relay.has_started
    assert relay.feed(text(0)) == text(0)


@pytest.mark.parametrize("what", [b'"cost":NaN', b'"cost":1e99999999999999999999', b'"x":"\xff"', b'"x":'])
def test_a_finish_that_can_not_be_read_is_held_all_the_same(what: bytes) -> None:
    finish = b'data: {"choices":[{"index":0,"finish_reason": "stop"}],"usage":{%b}}\n\n' % what
    relay, passed = feed(text(0), finish, BILL, DONE)
    assert passed == text(0)
    assert (relay.held, relay.is_finished) == (finish + BILL + DONE, True)


@pytest.mark.parametrize("reason", ['"\\ud800"', '"\\u0000"', "5", "true"])
def test_an_odd_reason_to_finish_is_one(reason: str) -> None:
    finish = f'data: {{"id":"gen-1","choices":[{{"index":0,"finish_reason":{reason}}}]}}\n\n'.encode()
    relay, passed = feed(text(0), finish, DONE)
    assert passed == text(0)
    assert (relay.held, relay.is_finished) == (finish + DONE, True)


def unreadable(reason: str) -> bytes:
    return f'data: {{"choices":[{{"index":0,"finish_reason":{reason}}}],"x":NaN}}\n\n'.encode()


@pytest.mark.parametrize(
    ("events", "held"),
    [
        ([text(0), text(1), unreadable('"stop"'), text(1)], 2),
        ([text(0), unreadable('"stop"')], 1),
        ([text(0), unreadable('"error"')], 0),
        ([text(0), unreadable('""'), text(0)], 0),
    ],
    ids=["another choice goes on", "nothing follows", "an error", "no reason"],
)
def test_what_only_may_be_an_end_makes_no_cut_stream_a_whole_answer(events: list[bytes], held: int) -> None:
    relay, passed = feed(*events)
    assert not relay.is_finished
    assert passed == b"".join(events[: len(events) - held])
    assert relay.held == b"".join(events[len(events) - held :])


@pytest.mark.parametrize("odd", [b"data: hello\n\n", unreadable("null"), unreadable("false")])
def test_what_can_not_be_read_and_finishes_nothing_goes_out(odd: bytes) -> None:
    assert feed(odd, text(0))[1] == odd + text(0)


def test_done_before_any_finish_is_dropped() -> None:
    relay, passed = feed(text(0), DONE)
    assert passed == text(0)
    assert not relay.is_finished


ODD: dict[str, bytes] = {
    "a name": b'event: chunk\ndata: {"model":"up","choices":[]}\n\n',
    "an id and a retry": b'id: 7\nretry: 10\ndata: {"model":"up","choices":[]}\n\n',
    "a comment in it": b': note\ndata: {"model":"up","choices":[]}\nid: 8\n\n',
    "CRLF": b': note\r\ndata:{"model":"up","choices":[]}\r\n\r\n',
    "CR": b': note\rdata: {"model":"up","choices":[]}\r\r',
    "a byte order mark": b'\xef\xbb\xbfdata: {"model":"up","choices":[]}\n\n',
    "no JSON": b"data: hello\n\n",
    "a field nobody knows": b'datum: x\ndata: {"model":"up"}\n\n',
    "5 MB": b'data: {"model":"up","x":"' + b"x" * 5_000_000 + b'"}\n\n',
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD)
def test_odd_chunks_change_in_nothing_but_the_model(raw: bytes) -> None:
    _, passed = feed(raw)
    assert passed == raw.replace(b'"up"', b'"mine"')


@given(
    ends=st.permutations(range(3)),
    order=st.lists(st.integers(0, 2), max_size=12),
    cuts=st.lists(st.integers(0, 2000), max_size=10),
)
def test_choices_in_any_order_lose_no_byte(ends: list[int], order: list[int], cuts: list[int]) -> None:
    """All three begin; texts of those that are open and the three ends follow, mixed."""
    events = [text(0), text(1), text(2)]
    left = list(ends)
    for index in order:
        events.append(text(left[index % len(left)]))
        if index == 2 and len(left) > 1:
            events.append(end(left.pop(0)))
    events += [end(index) for index in left] + [BILL, DONE]
    raw = b"".join(events)
    bounds = [0, *sorted(cut % len(raw) for cut in cuts), len(raw)]
    relay, passed = feed(*(raw[low:high] for low, high in itertools.pairwise(bounds)))
    assert passed + relay.held == raw
    assert relay.is_finished
    assert relay.held.startswith(end(left[-1]))
