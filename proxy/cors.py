"""Which web pages may call /v1/ from a browser: those of `OPENSVM_CORS_ORIGINS`, by default none. Pure.

Client keys come in headers and never in cookies, so credentials mode is never allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from proxy.exchange import Headers

ANY_ORIGIN: Final = "*"
_EXPOSED: Final = b"request-id, retry-after, x-should-retry"
_MAX_AGE_SECONDS: Final = b"600"
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9_\-, ]{1,2000}")


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """`origins` as browsers send them, `https://app.example.com`; or `*`."""

    origins: frozenset[str] = frozenset()

    def headers_for(self, origin: str) -> Headers:
        """What each answer to a page of `origin` carries. Without it, browsers keep the answer from the page."""
        if not self.origins:
            return []
        vary = (b"vary", b"origin")
        if ANY_ORIGIN not in self.origins and origin not in self.origins:
            return [vary]
        allowed = b"*" if ANY_ORIGIN in self.origins else origin.encode("latin-1")
        return [vary, (b"access-control-allow-origin", allowed), (b"access-control-expose-headers", _EXPOSED)]

    def preflight_for(self, origin: str, *, methods: str, asked_headers: str) -> Headers:
        """What the answer to a preflight carries besides: SDKs send headers of their own, so any name is allowed."""
        if ANY_ORIGIN not in self.origins and origin not in self.origins:
            return []
        headers = [(b"access-control-allow-methods", methods.encode()), (b"access-control-max-age", _MAX_AGE_SECONDS)]
        if _HEADER_NAMES.fullmatch(asked_headers):
            headers.append((b"access-control-allow-headers", asked_headers.encode()))
        return headers
