import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Refusal
from proxy.messages_body import parse_body, read_request, serialize

MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'


def body(*members):
    return b"{" + b",".join((b'"model":"claude-sonnet-4"', MESSAGES, *members)) + b"}"


@pytest.mark.parametrize(
    ("raw", "stream", "max_tokens"),
    [
        (body(), False, None),
        (body(b'"stream":true,"max_tokens":128000'), True, 128_000),
        (body(b'"stream":false,"max_tokens":0'), False, 0),
        (b" \r\n\t" + body() + b"\n", False, None),
    ],
    ids=["least", "stream", "only warms the cache", "white space around"],
)
def test_a_request_is_read(raw, stream, max_tokens):
    request = read_request(raw)

    assert (request.model, request.stream, request.max_tokens) == ("claude-sonnet-4", stream, max_tokens)
    assert request.document == json.loads(raw)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"", "body: is not JSON"),
        (b"hello", "body: is not JSON"),
        (body()[:-1], "body: is not JSON"),
        (body() + b"{}", "body: is not JSON"),
        (b"model=claude&messages=hi", "body: is not JSON"),
        (b'{"model":"m\n"}', "body: is not JSON"),
        (b"[]", "body: must be a JSON object, not an array"),
        (b'"text"', "body: must be a JSON object, not a string"),
        (b"null", "body: must be a JSON object, not null"),
        (b"1.5", "body: must be a JSON object, not a number"),
        (b"{" + MESSAGES + b"}", "model: field required"),
        (b'{"model":5,' + MESSAGES + b"}", "model: must be a string, not a number"),
        (b'{"model":null,' + MESSAGES + b"}", "model: must be a string, not null"),
        (b'{"model":" ",' + MESSAGES + b"}", "model: must not be empty"),
        (b'{"model":"m"}', "messages: field required"),
        (b'{"model":"m","messages":"hi"}', "messages: must be an array, not a string"),
        (b'{"model":"m","messages":{}}', "messages: must be an array, not an object"),
        (body(b'"stream":"true"'), "stream: must be true or false, not a string"),
        (body(b'"stream":1'), "stream: must be true or false, not a number"),
        (body(b'"stream":null'), "stream: must be true or false, not null"),
        (body(b'"max_tokens":"10"'), "max_tokens: must be an integer, not a string"),
        (body(b'"max_tokens":1.5'), "max_tokens: must be an integer, not a number"),
        (body(b'"max_tokens":true'), "max_tokens: must be an integer, not a boolean"),
        (body(b'"max_tokens":-1'), "max_tokens: must be 0 or more"),
        (body(b'"temperature":NaN'), "temperature: is not a finite number"),
        (body(b'"a":[{"b":0},{"b":-Infinity}]'), "a.1.b: is not a finite number"),
        (body(b'"temperature":1e999'), "temperature: is not a finite number"),
        (body(b'"x":NaN,"x":1'), "body: a repeated field is not a finite number"),
        (b"NaN", "body: must be a JSON object, not a number"),
        (body(b'"messages":[{"role":"user","content":"a\\ud800b"}]'), "messages.0.content: has a lone surrogate"),
        (body(b'"x":{"a":["ok","\\uDFFF"]}'), "x.a.1: has a lone surrogate"),
        (body(b'"x":{"\\udc00":1}'), "x.?: has a lone surrogate"),
        (body(b'"' + b"k" * 5000 + b'":NaN'), "k" * 200 + "…: is not a finite number"),
        (body(b'"n":' + b"9" * 5000), "body: has an integer of more than 4,300 digits"),
        (body(b'"x":"\xff"'), f"body: is not UTF-8 at byte {len(body()) + 5}"),
        (body(b'"x":"\xed\xa0\x80"'), "body: is not UTF-8"),
        (b"\xef\xbb\xbf" + body(), "body: starts with a byte order mark"),
        (body().decode().encode("utf-16"), "body: starts with a byte order mark"),
        (body().decode().encode("utf-16-le"), "body: is not JSON"),
        (body(b'"x":' + b"[" * 1000 + b"]" * 1000), "body: nested more than 1,000 levels deep"),
        (b"[" * 100_000, "body: nested more than 1,000 levels deep"),
    ],
)
def test_what_is_no_request_is_refused_and_the_field_is_named(raw, named):
    with pytest.raises(Refusal) as caught:
        read_request(raw)

    assert (caught.value.status, caught.value.error_type) == (400, "invalid_request_error")
    assert caught.value.message.startswith(named)


def test_a_thousand_levels_pass_through():
    raw = body(b'"x":' + b"[" * 999 + b"]" * 999)

    assert serialize(read_request(raw).document, model="claude-sonnet-4") == raw


@pytest.mark.parametrize(
    "member",
    [
        '"n":123456789012345678901234567890',
        '"n":-0.0',
        '"n":1e-300',
        '"text":"ü \U0001f600 \\u0000 \u2028"',
        '"unknown":{"deep":[null,true,{"a":""}]}',
        '"":""',
    ],
)
def test_what_is_not_known_goes_upstream_as_it_came(member):
    raw = body(member.encode())

    assert json.loads(serialize(parse_body(raw), model="claude-sonnet-4")) == json.loads(raw)


def test_only_the_model_is_another_one_and_it_keeps_its_place():
    assert serialize(parse_body(body(b'"n":1')), model="anthropic/claude-sonnet-4") == body(b'"n":1').replace(
        b"claude-sonnet-4", b"anthropic/claude-sonnet-4"
    )


def test_the_document_is_not_changed_by_writing_it():
    document = parse_body(body())

    serialize(document, model="other")

    assert document["model"] == "claude-sonnet-4"


def test_of_a_repeated_key_only_the_last_counts_for_us_and_for_upstream():
    request = read_request(body(b'"model":"second"', b'"stream":"no"', b'"stream":true'))

    sent = serialize(request.document, model=request.model)

    assert (request.model, request.stream) == ("second", True)
    assert sent.count(b'"model"') == sent.count(b'"stream"') == 1


def test_a_pair_of_escaped_surrogates_is_a_character():
    document = parse_body(body(b'"x":"\\ud83d\\ude00"'))

    assert document["x"] == "\U0001f600"
    assert "\U0001f600".encode() in serialize(document, model="m")


def test_an_escaped_backslash_before_ud_is_no_surrogate():
    assert parse_body(body(b'"x":"\\\\ud800"'))["x"] == "\\ud800"


@given(st.binary(max_size=300) | st.text(alphabet='{}[]":,\\ud8NaInfity019.e-+ \n', max_size=300).map(str.encode))
def test_any_bytes_are_a_request_or_a_400(raw):
    outcome = request_or_refusal(raw)

    if isinstance(outcome, Refusal):
        assert outcome.status == 400
    else:
        assert outcome.document == json.loads(raw)
        assert json.loads(serialize(outcome.document, model="m"))["model"] == "m"


def request_or_refusal(raw):
    try:
        return read_request(raw)
    except Refusal as refusal:
        return refusal


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        ),
        max_size=5,
    )
)
def test_any_json_object_survives_the_way_upstream(extra):
    wanted = {**extra, "model": "m"}

    for raw in (json.dumps(wanted).encode(), json.dumps(wanted, ensure_ascii=False).encode()):
        assert json.loads(serialize(parse_body(raw), model="m")) == wanted
