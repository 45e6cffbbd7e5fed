"""What the edge decides about a scope: framing, header size, and whom to believe."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensvm.edge import check_framing, is_data_plane, is_usual, trusted_scope
from opensvm.environment import IPNetwork
from proxy.errors import Refusal

Headers = list[tuple[bytes, bytes]]
HOST = (b"host", b"example.org")
TRUSTED = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"), ipaddress.ip_network("fd00::/8")]


def refusal_of(headers: Headers, http_version: str = "1.1") -> Refusal | None:
    try:
        check_framing(headers, http_version=http_version, max_header_bytes=1000)
    except Refusal as refusal:
        return refusal
    return None


FRAMINGS: dict[str, tuple[Headers, str, int]] = {
    "one host": ([HOST], "1.1", 0),
    "no host": ([], "1.1", 400),
    "an empty host": ([(b"host", b"")], "1.1", 400),
    "a blank host": ([(b"host", b" ")], "1.1", 400),
    "two hosts": ([HOST, (b"host", b"other")], "1.1", 400),
    "the same host twice": ([HOST, HOST], "1.1", 400),
    "a host and an empty one": ([HOST, (b"host", b"")], "1.1", 400),
    "no host in HTTP/1.0": ([], "1.0", 0),
    "no host in HTTP/1.0, as granian says it": ([(b"host", b"")], "1", 0),
    "two hosts in HTTP/1.0": ([HOST, HOST], "1.0", 400),
    "no host in HTTP/2": ([], "2", 400),
    "a length": ([HOST, (b"content-length", b"5")], "1.1", 0),
    "chunks": ([HOST, (b"transfer-encoding", b"chunked")], "1.1", 0),
    "both": ([HOST, (b"content-length", b"5"), (b"transfer-encoding", b"chunked")], "1.1", 400),
    "two lengths": ([HOST, (b"content-length", b"5"), (b"content-length", b"6")], "1.1", 400),
    "the same length twice": ([HOST, (b"content-length", b"5"), (b"content-length", b"5")], "1.1", 400),
}


@pytest.mark.parametrize(("headers", "version", "status"), FRAMINGS.values(), ids=FRAMINGS)
def test_odd_framing_is_refused(headers: Headers, version: str, status: int) -> None:
    refusal = refusal_of(headers, version)
    assert (refusal.status if refusal else 0) == status
    assert refusal is None or refusal.error_type == "invalid_request_error"


@pytest.mark.parametrize(("size", "status"), [(980, 0), (981, 431)])
def test_header_bytes_are_counted_with_their_separators(size: int, status: int) -> None:
    """`host: a` and two line ends are 9 bytes, `x: ` with its line end 5; 6 less makes the limit of 1000."""
    headers = [(b"host", b"a" * 7), (b"x", b"a" * size)]
    refusal = refusal_of(headers)
    assert (refusal.status if refusal else 0) == status


def scope_of(headers: Headers, peer: Any = ("10.1.2.3", 5)) -> dict[str, Any]:
    scope = {"headers": headers, "client": peer, "scheme": "http", "path": "/v1/messages"}
    return dict(trusted_scope(scope, TRUSTED))


FORWARDED: dict[str, tuple[str, bytes | None, str]] = {
    "without it": ("10.1.2.3", None, "10.1.2.3"),
    "one address": ("10.1.2.3", b"203.0.113.7", "203.0.113.7"),
    "a chain of trusted hops": ("10.1.2.3", b"203.0.113.7, 10.9.9.9, 10.8.8.8", "203.0.113.7"),
    "what a client made up stands further left": ("10.1.2.3", b"1.1.1.1, 203.0.113.7, 10.9.9.9", "203.0.113.7"),
    "only trusted hops": ("10.1.2.3", b"10.9.9.9", "10.1.2.3"),
    "no address": ("10.1.2.3", b"unknown", "10.1.2.3"),
    "no address at the right end": ("10.1.2.3", b"203.0.113.7, unknown", "10.1.2.3"),
    "with a port": ("10.1.2.3", b"203.0.113.7:80", "10.1.2.3"),
    "empty": ("10.1.2.3", b"", "10.1.2.3"),
    "odd bytes": ("10.1.2.3", b"\xff\xfe", "10.1.2.3"),
    "IPv6": ("::1", b"2001:db8::7", "2001:db8::7"),
    "IPv6 behind IPv4": ("10.1.2.3", b"2001:db8::7, fd00::1", "2001:db8::7"),
    "from a stranger": ("203.0.113.9", b"1.1.1.1", "203.0.113.9"),
    "from a stranger who claims a proxy": ("203.0.113.9", b"1.1.1.1, 10.9.9.9", "203.0.113.9"),
}


@pytest.mark.parametrize(("peer", "chain", "expected"), FORWARDED.values(), ids=FORWARDED)
def test_the_last_untrusted_hop_is_the_client(peer: str, chain: bytes | None, expected: str) -> None:
    headers = [HOST] if chain is None else [HOST, (b"x-forwarded-for", chain)]
    scope = scope_of(headers, (peer, 5))
    assert scope["client"][0] == expected
    assert scope["headers"] == [HOST]


def test_a_chain_in_several_headers_is_one_chain() -> None:
    """A proxy may add a line of its own: what the client sent stands in the first."""
    made_up, ours, last = ((b"x-forwarded-for", hops) for hops in (b"1.1.1.1", b"203.0.113.7", b"10.9.9.9, 10.8.8.8"))
    assert scope_of([made_up, ours])["client"][0] == "203.0.113.7"
    assert scope_of([made_up, ours, last])["client"][0] == "203.0.113.7"


@pytest.mark.parametrize(
    ("peer", "proto", "expected"),
    [
        ("10.1.2.3", b"https", "https"),
        ("10.1.2.3", b" HTTPS ", "https"),
        ("10.1.2.3", b"http", "http"),
        ("10.1.2.3", b"gopher", "http"),
        ("203.0.113.9", b"https", "http"),
    ],
)
def test_the_scheme_is_a_trusted_proxys_to_tell(peer: str, proto: bytes, expected: str) -> None:
    assert scope_of([HOST, (b"x-forwarded-proto", proto)], (peer, 5))["scheme"] == expected


@pytest.mark.parametrize(
    "name", [b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"forwarded"]
)
@pytest.mark.parametrize("peer", ["10.1.2.3", "203.0.113.9"])
def test_nobody_behind_the_edge_sees_forwarding_headers(peer: str, name: bytes) -> None:
    assert scope_of([HOST, (name, b"evil.example")], (peer, 5))["headers"] == [HOST]


def test_names_with_underscores_are_dropped() -> None:
    odd = [(b"x_api_key", b"k"), (b"x_forwarded_for", b"1.1.1.1"), (b"content_length", b"9")]
    scope = scope_of([*odd, HOST])
    assert scope["headers"] == [HOST]
    assert scope["client"][0] == "10.1.2.3"


@pytest.mark.parametrize("peer", [None, ("", 0), ("/run/socket", 0)], ids=["none", "empty", "a path"])
def test_a_unix_socket_has_no_address(peer: Any) -> None:
    scope = scope_of([HOST, (b"x-forwarded-for", b"203.0.113.7")], peer)
    assert scope["client"] == peer


def test_without_trusted_proxies_nobody_is_believed() -> None:
    none: list[IPNetwork] = []
    scope = {
        "headers": [HOST, (b"x-forwarded-for", b"203.0.113.7")],
        "client": ("127.0.0.1", 5),
        "scheme": "http",
        "path": "/",
    }
    assert trusted_scope(scope, none)["client"] == ("127.0.0.1", 5)


def test_the_scope_it_was_given_is_left_as_it_was() -> None:
    scope = {"headers": [(b"x_a", b"1"), HOST], "client": ("10.1.2.3", 5), "scheme": "http", "path": "/"}
    trusted_scope(scope, TRUSTED)
    assert scope["headers"] == [(b"x_a", b"1"), HOST]


NAMES = [b"host", b"content-length", b"transfer-encoding", b"x-api-key", b"accept", b"Accept", b"x_a", b"forwarded"]
SOME_HEADERS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([b"", b" ", b"a", b"a" * 40])), max_size=5)


@given(headers=SOME_HEADERS, path=st.sampled_from(["/", "/v1/messages", "//v1", "v1", ""]))
def test_what_is_usual_would_have_passed_and_been_left_as_it_is(headers: Headers, path: str) -> None:
    scope = {"headers": headers, "client": ("10.1.2.3", 5), "scheme": "http", "path": path}
    if is_usual(scope, max_header_bytes=100):
        check_framing(headers, http_version="1.1", max_header_bytes=100)
        assert trusted_scope(scope, TRUSTED) == scope


def test_what_clients_send_is_usual() -> None:
    names = (b"content-type", b"content-length", b"user-agent", b"anthropic-version", b"x-api-key")
    scope = {"headers": [HOST, *((name, b"1") for name in names)], "path": "/v1/messages"}
    assert is_usual(scope, max_header_bytes=1000)


ODD = {
    "a name with a space": [(b"x host", b"v")],
    "names that strangers make long": [HOST, (b"x" * 3000, b"1")],
}


@pytest.mark.parametrize("headers", ODD.values(), ids=ODD)
def test_what_is_odd_goes_the_long_way(headers: Headers) -> None:
    assert not is_usual({"headers": headers, "path": "/v1/messages"}, max_header_bytes=65_536)


@pytest.mark.parametrize("path", ["/v1", "/v1/messages", "//v1/messages", "/v1/models/anthropic/claude"])
def test_what_is_under_v1_goes_to_the_data_plane(path: str) -> None:
    assert is_data_plane(path)


@pytest.mark.parametrize("path", ["/", "/v10/messages", "/admin/v1/", "/api/v1/messages", "/V1/messages"])
def test_nothing_else_goes_to_the_data_plane(path: str) -> None:
    assert not is_data_plane(path)
