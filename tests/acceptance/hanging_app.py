"""An ASGI application whose process does not end by itself, for the test of what ends it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    while scope["type"] == "lifespan":
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            time.sleep(60)  # noqa: ASYNC251  # it hangs
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
