"""What wrk's script says, as figures; and the request that it sends."""

from __future__ import annotations

import json

import pytest

from bench import load
from bench.errors import BenchError
from bench.load import Order

LINE = (
    'BENCH {"requests":3000,"microseconds":2000000,"bytes":9,"connect":0,"read":0,"write":0,"status":%d,"timeout":0,'
    '"p50":1500.0,"p90":2000.0,"p99":4500.5,"max":9000.0}'
)


def test_the_line_of_the_script_is_found_behind_what_wrk_itself_says() -> None:
    found = load.read_output(f"Running 2s test @ http://127.0.0.1:1/\n  1 threads\n{LINE % 0}\n")
    assert (found.requests, found.per_second, found.p50_ms, found.p99_ms) == (3000, 1500.0, 1.5, 4.5005)
    assert not found.errors


def test_an_answer_that_is_an_error_is_counted_by_its_kind() -> None:
    assert load.read_output(LINE % 7).errors == {"status": 7}


def test_without_the_line_the_end_of_what_was_said_is_the_error() -> None:
    with pytest.raises(BenchError, match="unable to connect"):
        load.read_output("unable to connect to 127.0.0.1:1 Connection refused\n")


@pytest.mark.parametrize("streams", [False, True])
def test_the_body_asks_for_a_stream_only_when_one_is_wanted(streams: bool) -> None:
    assert json.loads(Order("http://127.0.0.1:1", streams=streams).body).get("stream", False) is streams


def test_without_wrk_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="apt install wrk"):
        load.require_wrk()
