"""Many clients at once, JSON and streams, some leaving early; and what each of them has received."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any

import httpx

MODEL = "anthropic/claude-sonnet-4.5"
REQUEST_SECONDS = 30.0
REFUSED_PAUSE_SECONDS = 0.25  # nobody listens, or the answer is an error: a client would back off too
NANO = 1_000_000_000
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(slots=True)
class Received:
    """One request, as its client saw it. `is_whole`: a client takes the answer as finished."""

    number: int
    is_stream: bool
    status: int | None = None
    request_id: str = ""
    message_id: str = ""
    cost_nano: int | None = None
    is_whole: bool = False
    has_error: bool = False  # an HTTP error, or an `error` event
    has_left: bool = False
    was_cut: bool = False
    trouble: str = ""
    body: bytes = field(default=b"", repr=False)

    @property
    def outcome(self) -> str:
        if self.is_whole:
            return "whole"
        if self.has_left:
            return "left"
        if self.status is None:
            return "no answer"
        if self.has_error:
            return f"error {self.status}" if self.status != 200 else "error event"
        return "cut"

    def read(self) -> None:
        """What the body says."""
        if self.status != 200:
            self.has_error = self.status is not None
        elif self.is_stream:
            self._read_stream()
        else:
            self._read_message()
        self.body = b""

    def _read_message(self) -> None:
        if not self.was_cut and not self.has_left:
            document = json.loads(self.body, parse_float=Decimal)
            self.is_whole = document["type"] == "message" and bool(document["stop_reason"])
            self.message_id, self.cost_nano = document["id"], nano(document["usage"])

    def _read_stream(self) -> None:
        for block in self.body.split(b"\n\n")[:-1]:
            lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if line and not line.startswith(b":"))
            payload = json.loads(lines.get(b"data", b"{}"), parse_float=Decimal)
            match payload.get("type"):
                case "message_start":
                    self.message_id = payload["message"]["id"]
                case "message_delta":
                    self.cost_nano = nano(payload.get("usage", {}))
                case "message_stop":
                    self.is_whole = True
                case "error":
                    self.has_error = True


def nano(usage: dict[str, Any]) -> int | None:
    cost = usage.get("cost")
    return None if cost is None else int(Decimal(cost) * NANO)


class Load:
    """`with Load(...) as load:` keeps `clients` clients busy; afterwards `load.received` has all they saw."""

    def __init__(
        self, url: str, client_key: str, *, clients: int, seed: int, leaving: float = 0.2, keep_alive: bool = True
    ) -> None:
        self._url = url
        self._headers = {"x-api-key": client_key, "anthropic-version": "2023-06-01"}
        self._clients = clients
        self._seed = seed
        self._leaving = leaving
        self._limits = httpx.Limits(max_keepalive_connections=1 if keep_alive else 0)
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)
        self.received: list[Received] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """No new requests; returns when the open ones have ended."""
        self._stopping = True
        self._thread.join(REQUEST_SECONDS + 10)
        assert not self._thread.is_alive(), "a client still waits"

    @property
    def whole(self) -> int:
        return sum(received.is_whole for received in self.received)

    async def ask_once(self, models: Sequence[str]) -> list[Received]:
        """One stream for each model, all at once."""
        async with httpx.AsyncClient(timeout=REQUEST_SECONDS, trust_env=False) as client:
            return await asyncio.gather(*(self._ask_for(client, model, n) for n, model in enumerate(models)))

    async def _ask_for(self, client: httpx.AsyncClient, model: str, number: int) -> Received:
        received = Received(number, is_stream=True)
        messages = [{"role": "user", "content": "Hello"}]
        body = {"model": model, "max_tokens": 2000, "stream": True, "messages": messages}
        try:
            await self._read_answer(client, body, received)
        except httpx.TransportError:
            received.was_cut = True
        received.read()
        return received

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._ask_again_and_again(number))

    async def _ask_again_and_again(self, client_number: int) -> None:
        chance = random.Random(f"{self._seed}/{client_number}")
        async with httpx.AsyncClient(timeout=REQUEST_SECONDS, trust_env=False, limits=self._limits) as client:
            while not self._stopping:
                received = await self._ask(client, chance, len(self.received))
                self.received.append(received)
                if not received.is_whole and not received.has_left:
                    await asyncio.sleep(REFUSED_PAUSE_SECONDS)

    async def _ask(self, client: httpx.AsyncClient, chance: random.Random, number: int) -> Received:
        received = Received(number, is_stream=chance.random() < 0.6)
        leaves_after = chance.uniform(0.0, 0.6) if chance.random() < self._leaving else None
        body = {
            "model": MODEL,
            "max_tokens": 200,
            "stream": received.is_stream,
            "messages": [{"role": "user", "content": " ".join(chance.choices(WORDS, k=chance.randint(1, 30)))}],
        }
        try:
            async with asyncio.timeout(leaves_after):
                await self._read_answer(client, body, received)
        except TimeoutError:
            received.has_left = True
        except httpx.TransportError as exc:
            received.was_cut = True
            received.trouble = repr(exc)
        received.read()
        return received

    async def _read_answer(self, client: httpx.AsyncClient, body: dict[str, Any], received: Received) -> None:
        async with client.stream("POST", f"{self._url}/v1/messages", json=body, headers=self._headers) as response:
            received.status = response.status_code
            received.request_id = response.headers["request-id"]
            async for chunk in response.aiter_bytes():
                received.body += chunk
