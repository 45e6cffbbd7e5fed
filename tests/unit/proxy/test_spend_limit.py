"""What the official SDK makes of the spend-limit answer: one request, an exception with its type, no retry."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import pytest

from proxy.errors import error_body, refusal_headers, spend_limit_reached


def test_the_sdk_asks_once_and_names_the_type() -> None:
    asked: list[Any] = []
    refusal = spend_limit_reached("daily", None)

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        headers = [*refusal_headers(refusal), (b"request-id", b"req_1")]
        body = error_body(refusal.error_type, refusal.message, "req_1")
        return httpx2.Response(refusal.status, headers=headers, content=body)

    with (
        anthropic.Anthropic(
            api_key="test", max_retries=3, http_client=httpx2.Client(transport=httpx2.MockTransport(answer))
        ) as client,
        pytest.raises(anthropic.RateLimitError) as caught,
    ):
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    assert (caught.value.type, caught.value.request_id) == ("billing_error", "req_1")
    assert "spend limit reached (daily)" in str(caught.value)
    assert len(asked) == 1
