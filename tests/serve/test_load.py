"""A quarter of a minute of `tests.endurance.serve`, which runs for ten with fifty clients."""

from __future__ import annotations

from tests.endurance import serve


def test_many_clients_broken_ones_among_them_lose_and_leak_nothing() -> None:
    found, _resident = serve.run(12, 3)
    assert found.faults == []
    assert found.counts["answers"] > 10
    assert {"good", "slow", "leaves", "half", "garbage"} <= {*found.counts}
