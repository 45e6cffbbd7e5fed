"""UUIDv7 (RFC 9562): the id of a request, which sorts by the time of its admission. Python 3.11 has none.

It is admission time and nothing else: rows commit in another order, so it is never a watermark.
"""

from __future__ import annotations

import random
import threading
import time
import uuid

_RANDOM_BITS = 74
_VERSION = 0x7 << 76
_VARIANT = 0x2 << 62


class Uuid7Source:
    """Makes ids that only grow within a process, also when the clock is turned back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def __call__(self) -> uuid.UUID:
        # An id has to be unique, not secret. A forked process seeds `random` anew.
        value = (time.time_ns() // 1_000_000) << _RANDOM_BITS | random.getrandbits(_RANDOM_BITS)
        with self._lock:
            value = self._last = max(value, self._last + 1)
        stamp, rest = value >> _RANDOM_BITS, value & ((1 << _RANDOM_BITS) - 1)
        high, low = rest >> 62, rest & ((1 << 62) - 1)
        return uuid.UUID(int=stamp << 80 | _VERSION | high << 64 | _VARIANT | low)


new_request_uuid = Uuid7Source()


def request_id_of(request_uuid: uuid.UUID) -> str:
    """What clients and operators see of it, in the `request-id` header and in the ledger."""
    return f"req_{request_uuid.hex}"
