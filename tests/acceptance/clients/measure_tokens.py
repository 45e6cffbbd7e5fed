"""How far the token counts of a service are off what upstream bills, over the sample texts; for a real account.

    python -m tests.acceptance.clients.measure_tokens SERVICE_URL CLIENT_KEY [MODEL]

Each sample is counted by `count_tokens` and sent once with `max_tokens` 1, which costs what its input costs (with the
samples as they are about 7,000 tokens). What upstream says of its input is what the ledger holds.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

SAMPLES = Path(__file__).resolve().parents[2] / "unit" / "proxy" / "token_samples.json"
DEFAULT_MODEL = "anthropic/claude-haiku-4.5"


@dataclass(frozen=True, slots=True)
class Measured:
    kind: str
    estimated: int
    reported: int

    @property
    def error(self) -> float:
        return self.estimated / self.reported - 1


def measure(url: str, client_key: str, model: str = DEFAULT_MODEL) -> list[Measured]:
    headers = {"x-api-key": client_key, "anthropic-version": "2023-06-01"}
    with httpx.Client(base_url=url, headers=headers, timeout=60.0, trust_env=False) as client:
        return [_measure_one(client, sample, model) for sample in json.loads(SAMPLES.read_text())]


def _measure_one(client: httpx.Client, sample: dict[str, Any], model: str) -> Measured:
    body = {"model": model, "messages": [{"role": "user", "content": sample["text"]}]}
    counted = client.post("/v1/messages/count_tokens", json=body).raise_for_status().json()
    answered = client.post("/v1/messages", json={**body, "max_tokens": 1}).raise_for_status().json()
    usage = answered["usage"]
    parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return Measured(sample["kind"], counted["input_tokens"], sum(usage.get(part) or 0 for part in parts))


def report(measured: list[Measured]) -> str:
    lines = [f"{one.kind:40} {one.estimated:6} {one.reported:6} {one.error:+7.1%}" for one in measured]
    mean = sum(abs(one.error) for one in measured) / len(measured)
    worst = max(measured, key=lambda one: abs(one.error))
    return "\n".join([*lines, f"off by {mean:.1%} on average, by {worst.error:+.1%} at worst ({worst.kind})"])


if __name__ == "__main__":
    print(report(measure(*sys.argv[1:])))
