"""Where something listens: finding a free port, telling whether one is taken, asking whether it answers."""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass

from opensvm.serve.errors import StartError

PROBE_SECONDS = 2.0
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # how to reach what listens everywhere


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    @property
    def reachable_host(self) -> str:
        return ANYWHERE.get(self.host, self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def free_port(host: str = "127.0.0.1") -> int:
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def require_free(address: Address) -> None:
    """Raise StartError, naming the setting to change, if nothing can listen at `address`."""
    try:
        family, _, _, _, where = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as exc:
        raise StartError(_explain(address, exc)) from exc


def _explain(address: Address, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"Port {address.port} on {address.host} is in use: stop what listens there or set OPENSVM_PORT."
    if exc.errno == errno.EACCES:
        return f"Port {address.port} may not be opened by this user: set OPENSVM_PORT to 1024 or above."
    return f"Can't listen on {address} ({exc.strerror or exc}): set OPENSVM_HOST to an address of this machine."


async def answers(address: Address, path: str) -> bool:
    """Whether something listens at `address` and, with a path, gives it status 200."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(address.reachable_host, address.port)
            try:
                return not path or await _is_ok(reader, writer, path)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def _is_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bool:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    status = (await reader.readline()).split()
    return len(status) > 1 and status[1] == b"200"
