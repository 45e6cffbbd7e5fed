"""The model's name is replaced, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model_in_answer import replace_known_model, replace_model, replace_model_in_event


@pytest.mark.parametrize(
    ("raw", "replaced"),
    [
        (b'{"model":"up"}', b'{"model":"mine"}'),
        (
            b' {\r\n "a" : [1.50, {"model":"up"}] ,\t"model" :  "up" , "b":"\xc3\xbc"}\n',
            b' {\r\n "a" : [1.50, {"model":"up"}] ,\t"model" :  "mine" , "b":"\xc3\xbc"}\n',
        ),
        (b'{"model":"up","model":"up"}', b'{"model":"mine","model":"mine"}'),
        (b'{"mod\\u0065l":"up"}', b'{"mod\\u0065l":"mine"}'),
        (b'{"model":"u\\"p\\\\"}', b'{"model":"mine"}'),
        (b'{"n":' + b"9" * 5000 + b',"model":"up"}', b'{"n":' + b"9" * 5000 + b',"model":"mine"}'),
        (b'{"n":1e999999,"model":""}', b'{"n":1e999999,"model":"mine"}'),
        (
            b'{"\xf0\x9f\x98\x80":"\xf0\x9f\x98\x80","model":"up"}',
            b'{"\xf0\x9f\x98\x80":"\xf0\x9f\x98\x80","model":"mine"}',
        ),
    ],
    ids=["plain", "white space", "repeated", "escaped key", "escaped value", "5,000 digits", "exponent", "astral"],
)
def test_only_the_models_name_is_replaced(raw, replaced):
    assert replace_model(raw, ("model",), "mine") == replaced


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"model":null}',
        b'{"model":{"model":"up"}}',
        b'{"Model":"up","a":{"model":"up"}}',
        b'["model","up"]',
        b'"model"',
        b"",
        b" ",
        b'{"model"',
        b'{"model":',
        b'{"model":"up"',
        b'{"model" "up"}',
        b'{"a":tru,"model":"up"}',
        b'{"model":"up","a":"\xff"}',
        b'{"model":"up","a":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
def test_without_a_model_at_the_path_nothing_changes(raw):
    assert replace_model(raw, ("model",), "mine") == raw


def test_the_model_in_an_inner_object_is_replaced_there_only():
    raw = b'{"model":"a","message":{"x":{"model":"b"},"model":"c"},"message": {"model":"d"}}'

    replaced = replace_model(raw, ("message", "model"), "mine")

    assert replaced == b'{"model":"a","message":{"x":{"model":"b"},"model":"mine"},"message": {"model":"mine"}}'


def test_a_name_with_quotes_and_other_letters_is_written_as_json():
    assert json.loads(replace_model(b'{"model":"up"}', ("model",), 'a"ü\n'))["model"] == 'a"ü\n'


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a"]), inner, max_size=2),
)


@given(
    st.dictionaries(st.text(max_size=3) | st.just("model"), JSON_VALUES, max_size=4),
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
    st.text(),
)
def test_any_object_keeps_everything_but_its_model(document, ascii_only, indent, name):
    raw = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()

    replaced = json.loads(replace_model(raw, ("model",), name))

    expected = {**document, "model": name} if isinstance(document.get("model"), str) else document
    assert replaced == expected


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,model\\ 1', max_size=60).map(str.encode))
def test_replacing_fails_on_no_bytes(raw):
    assert isinstance(replace_model(raw, ("model",), "mine"), bytes)


@pytest.mark.parametrize(
    ("raw", "replaced"),
    [
        (
            b'event: message_start\ndata: {"message": {"model":"up"}, "x":1.0}\n\n',
            b'event: message_start\ndata: {"message": {"model":"mine"}, "x":1.0}\n\n',
        ),
        (
            b'event:message_start\r\nid: 1\r\ndata:{"message":{"model":"up"}}\r\nretry: 5\r\n\r\n',
            b'event:message_start\r\nid: 1\r\ndata:{"message":{"model":"mine"}}\r\nretry: 5\r\n\r\n',
        ),
        (
            b'event: message_start\ndata: {"message":\ndata: {"model":"up"}}\n\n',
            b'event: message_start\ndata: {"message": {"model":"mine"}}\n\n',
        ),
        (b": data: x\n\n", b": data: x\n\n"),
        (b"event: message_start\n\n", b"event: message_start\n\n"),
        (b"event: message_start\ndata: oops\n\n", b"event: message_start\ndata: oops\n\n"),
    ],
    ids=["usual", "CRLF and other fields", "several data lines", "comment", "no data", "no JSON"],
)
def test_the_model_of_a_message_start_is_replaced(raw, replaced):
    assert replace_model_in_event(raw, "", "mine") == replaced


KNOWN = b'{"model":"up","a":1}'


@pytest.mark.parametrize(
    "raw",
    [
        KNOWN,
        b'{ "a":"\\"model", "model" :\n"up" }',
        b'{"a":{"model":"up"},"model":"up"}',
        b'{"a":"model","model":"up"}',
        b'{"a":{"model":"up"},"\\u006dodel":"up"}',
        b'{"a":{"model":"up"},"mod\\u0065l":"up"}',
        b'{"model":"u\\u0070"}',
        b'{"model":"\\u0075p"}',
    ],
)
def test_a_model_that_is_known_is_replaced_where_it_would_be_found(raw):
    assert replace_known_model(raw, "up", "mine") == replace_model(raw, ("model",), "mine")


@given(
    st.dictionaries(st.text(max_size=3) | st.just("model"), JSON_VALUES, max_size=4),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.text(max_size=9),
)
def test_knowing_the_model_changes_nothing_in_what_is_replaced(document, ascii_only, separators, name):
    raw = json.dumps(document, ensure_ascii=ascii_only, separators=separators).encode()
    known = document.get("model")

    replaced = replace_known_model(raw, known if isinstance(known, str) else "", name)

    assert replaced == replace_model(raw, ("model",), name)


@pytest.mark.parametrize("known", ["", "up", "other"])
def test_the_model_of_a_message_start_is_replaced_whether_it_is_known_or_not(known):
    raw = b'event: message_start\ndata: {"type":"message_start","message":{"id":"1","model":"up"}}\n\n'
    assert replace_model_in_event(raw, known, "mine") == raw.replace(b'"up"', b'"mine"')
