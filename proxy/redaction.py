"""Takes what must not be seen out of texts that come from upstream or from a client, before they are sent or logged.

OpenRouter's messages carry key labels, links with key hashes (`/keys/<64 hex>`) and account ids.
"""

from __future__ import annotations

import re
from typing import Final

_PATTERNS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    # Upstream keys, also shortened ones as in a label: sk-or-v1-0e6...1c9
    (re.compile(r"sk-or-[A-Za-z0-9_\-]*(?:(?:\.{2,}|\*+|…)[A-Za-z0-9_\-]*)?", re.IGNORECASE), "sk-or-…"),
    (re.compile(r"sk-ant-[A-Za-z0-9_\-]*", re.IGNORECASE), "sk-ant-…"),
    # What a provider says about a key or an account of ours that OpenRouter was given (BYOK)
    (re.compile(r"\bsk-(?!or-|ant-)[A-Za-z0-9_\-]{4,}(?:(?:\.{2,}|\*+|…)[A-Za-z0-9_\-]*)?"), "sk-…"),
    (re.compile(r"\barn:aws[\w\-]*:[^\s\"',;]+"), "arn:aws:…"),
    (re.compile(r"\b(bearer)\s+[A-Za-z0-9._~+/=\-]{8,}", re.IGNORECASE), r"\1 …"),
    # A named id, whatever it looks like: "user_id":"…", organization_id=…
    (
        re.compile(
            r"""\b((?:user|creator_user|org|organization|workspace|account)_?id["']?\s*[:=]\s*["']?)[\w.|\-]+""",
            re.IGNORECASE,
        ),
        r"\1…",
    ),
    # A bare id, user_2abcDEF…; not words such as user_message or org_admin
    (
        re.compile(r"\b(user|org|organization|workspace|ws)_(?:(?=[A-Za-z]*[0-9])[A-Za-z0-9]{6,}|[A-Za-z0-9]{16,})"),
        r"\1_…",
    ),
    (re.compile(r"\b(user|org|proj)-(?=[A-Za-z]*[0-9])[A-Za-z0-9]{16,}"), r"\1-…"),  # as OpenAI writes them
    (re.compile(r"[0-9A-Fa-f]{64,}"), "<hash>"),
)


def redact(text: str) -> str:
    """`text` without upstream keys, client keys, key hashes and account ids. Takes time linear in its length."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
