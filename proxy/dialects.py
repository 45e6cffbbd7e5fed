"""The two APIs that clients speak, and upstream with them: what differs between Messages and chat completions.

A call is passed through in its own dialect and never translated. Everything else (admission, failover, relay,
settlement) is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy import chat_errors, errors
from proxy.answers import Answer, read_answer
from proxy.chat_answers import read_chat_answer
from proxy.chat_relay import ChatRelay
from proxy.messages_body import MessagesRequest, read_chat_request, read_request
from proxy.outbox import PING
from proxy.stream_relay import MessagesRelay, StreamRelay

WriteError = Callable[[str, str, str], bytes]  # (Anthropic's error type, message, request id)


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """`path`: below upstream's address. `ping`: what is sent in silence. `open_relay`: for the client's model name."""

    path: str
    ping: bytes
    read_request: Callable[[bytes], MessagesRequest]
    read_answer: Callable[[bytes], Answer]
    open_relay: Callable[[str], StreamRelay]
    error_body: WriteError
    error_event: WriteError
    headers: Mapping[str, str] = field(default_factory=dict)  # sent upstream unless the client sends its own


MESSAGES: Final = Dialect(
    path="/messages",
    ping=PING,
    read_request=read_request,
    read_answer=read_answer,
    open_relay=MessagesRelay,
    error_body=errors.error_body,
    error_event=errors.error_event,
    headers={"anthropic-version": "2023-06-01"},
)
CHAT: Final = Dialect(
    path="/chat/completions",
    ping=b": ping\n\n",
    read_request=read_chat_request,
    read_answer=read_chat_answer,
    open_relay=ChatRelay,
    error_body=chat_errors.error_body,
    error_event=chat_errors.error_event,
)
