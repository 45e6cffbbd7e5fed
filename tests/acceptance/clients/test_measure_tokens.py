"""The measuring of token counts works, and what it measures here: the sandbox's counts, which are none of Claude's."""

from __future__ import annotations

from tests.acceptance.clients.conftest import Target
from tests.acceptance.clients.measure_tokens import measure, report


def test_estimates_are_held_against_what_upstream_bills(target: Target) -> None:
    measured = measure(target.url, target.client_key)
    billed = [generation.usage.input for generation in target.upstream.ledger()]
    assert [one.reported for one in measured] == billed
    assert all(one.estimated > 0 for one in measured)
    assert report(measured).splitlines()[-1].startswith("off by ")
