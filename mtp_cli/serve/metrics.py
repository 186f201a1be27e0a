"""What `/metrics` tells, for Prometheus. Knows numbers, and nothing of where they arise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

if TYPE_CHECKING:
    from mtp_cli.engine import Stats

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Seconds: from a token's time to that of a long answer in front.
_WAITS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """Counts since the start. Positions of a draft begin at 1."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"mtp_{name}", what, labels, registry=registry)

        self._requests = counter("requests", "Requests by path and HTTP status.", "path", "status")
        self._prompt = counter("prompt_tokens", "Tokens of prompts, cached ones among them.")
        self._cached = counter("cached_tokens", "Tokens of prompts that were not read again.")
        self._answer = counter("answer_tokens", "Tokens of answers.")
        self._rounds = counter("rounds", "Rounds: one draft and one verification each.")
        self._verified = counter("verified_tokens", "Drafted tokens verified.", "position")
        self._accepted = counter("accepted_tokens", "Of them, accepted.", "position")
        self._prompt_s = counter("prompt_seconds", "Time in which prompts were read.")
        self._answer_s = counter("answer_seconds", "Time in which answers were decoded.")
        self._waited = Histogram(
            "mtp_queue_seconds", "Time from request to its turn.", registry=registry,
            buckets=_WAITS_S,
        )  # fmt: skip

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Tell a number as it is when it is asked for."""
        Gauge(f"mtp_{name}", what, registry=self._registry).set_function(value)

    def count_request(self, path: str, status: int) -> None:
        self._requests.labels(path, str(status)).inc()

    def count_answer(self, stats: Stats, waited_s: float) -> None:
        self._waited.observe(waited_s)
        self._prompt.inc(stats.prompt_tokens)
        self._cached.inc(stats.cached_tokens)
        self._answer.inc(stats.completion_tokens)
        self._rounds.inc(stats.rounds)
        self._prompt_s.inc(stats.prefill_s)
        self._answer_s.inc(stats.decode_s + stats.checking_s)
        for counts, told in ((stats.verified, self._verified), (stats.accepted, self._accepted)):
            for position, n in enumerate(counts, 1):
                told.labels(str(position)).inc(n)

    def text(self) -> bytes:
        return generate_latest(self._registry)
