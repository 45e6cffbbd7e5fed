"""What is decided before Django or a view sees a request: odd framing, header size, and whom to believe.

Pure functions over an ASGI scope; called by `opensvm.asgi`.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
from collections.abc import Iterable, Sequence

from opensvm.environment import IPNetwork
from proxy.errors import Refusal, invalid_request
from proxy.exchange import Headers, Scope

_FORWARDED = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"forwarded"}
)
_MOST_NAMES_BYTES = 2048
_WITHOUT_HOST = frozenset({"1.0", "1"})  # granian writes HTTP/1.0 as "1", and a Host that was not sent as an empty one


def is_usual(scope: Scope, *, max_header_bytes: int) -> bool:
    """Whether `check_framing` and `trusted_scope` would find nothing in it, as in nearly all; when in doubt, not."""
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    names, path = b" ".join([name for name, _ in headers]), scope["path"]
    size = len(names) + len(b"".join([value for _, value in headers])) + 4 * len(headers)
    if size > max_header_bytes or len(names) > _MOST_NAMES_BYTES:  # strangers send these: what is held is bounded
        return False
    place = _usual_place_of_host(names)
    return (
        place is not None
        and names.count(b" ") == len(headers) - 1
        and bool(headers[place][1].strip())
        and path.startswith("/")
        and not path.startswith("//")
    )


@functools.lru_cache(maxsize=256)
def _usual_place_of_host(joined: bytes) -> int | None:
    """Where Host is in a list of names that says nothing else of framing and of forwarding; else None."""
    names = joined.split(b" ")
    is_plain = joined.islower() and b"_" not in joined and b"forwarded" not in joined
    is_odd = names.count(b"host") != 1 or names.count(b"content-length") > 1 or b"transfer-encoding" in names
    return names.index(b"host") if is_plain and not is_odd else None


def check_framing(headers: Sequence[tuple[bytes, bytes]], *, http_version: str, max_header_bytes: int) -> None:
    """Raises `Refusal` for what two servers could read in two ways, and for headers that are too large."""
    names = [name for name, _ in headers]
    hosts, lengths, has_encoding = names.count(b"host"), names.count(b"content-length"), b"transfer-encoding" in names
    has_host = hosts > 0 and bool(headers[names.index(b"host")][1].strip())
    size = sum(map(len, itertools.chain.from_iterable(headers))) + 4 * len(names)
    if hosts > 1 or (not has_host and http_version not in _WITHOUT_HOST):
        raise invalid_request("host: exactly one Host header is required")
    if has_encoding and lengths:
        raise invalid_request("content-length: must not be sent together with transfer-encoding")
    if lengths > 1:
        raise invalid_request("content-length: must be sent once")
    if size > max_header_bytes:
        raise Refusal(
            431, "invalid_request_error", f"The request's headers are larger than {max_header_bytes:,} bytes."
        )


def trusted_scope(scope: Scope, trusted: Iterable[IPNetwork]) -> Scope:
    """The scope with the client's own address and scheme, where a trusted proxy tells them.

    Forwarding headers of anybody else are dropped, and so are names with an underscore, which some servers read
    as if it were a dash.
    """
    path = f"/{scope['path'].lstrip('/')}"
    headers: Headers = [(name.lower(), value) for name, value in scope["headers"] if b"_" not in name]
    rest = [header for header in headers if header[0] not in _FORWARDED]
    result = {**scope, "headers": rest, "path": path}
    networks = tuple(trusted)
    if networks and _is_trusted((scope.get("client") or ("", 0))[0], networks):
        forwarded = dict(header for header in headers if header[0] in _FORWARDED)
        chain = b",".join(value for name, value in headers if name == b"x-forwarded-for")  # one list in several lines
        if client := _first_untrusted(chain.decode("latin-1"), networks):
            result["client"] = (client, 0)
        if forwarded.get(b"x-forwarded-proto", b"").strip().lower() in {b"http", b"https"}:
            result["scheme"] = forwarded[b"x-forwarded-proto"].strip().lower().decode()
    return result


def is_data_plane(path: str) -> bool:
    """Whether the path is under /v1, also as `//v1/…`, which a base URL with a slash at its end makes of it."""
    clean = path.lstrip("/")
    return clean == "v1" or clean.startswith("v1/")


def with_host(scope: Scope, host: str) -> Scope:
    """The scope as if it had been asked for under `host`."""
    headers: Headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    return dict(scope, headers=[*headers, (b"host", host.encode())])


def _is_trusted(address: str, networks: Iterable[IPNetwork]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip.version == network.version and ip in network for network in networks)


def _first_untrusted(chain: str, networks: Sequence[IPNetwork]) -> str:
    """Read from the right: the last address that no trusted proxy stands for. Empty if there is none to believe."""
    for hop in reversed([hop.strip() for hop in chain.split(",")]):
        try:
            ipaddress.ip_address(hop)
        except ValueError:
            return ""
        if not _is_trusted(hop, networks):
            return hop
    return ""
