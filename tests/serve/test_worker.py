"""Turns are fair, the queue is bounded, and one job's fault is no other's."""

from __future__ import annotations

import threading

import pytest

from mtp_cli.serve.faults import ApiError
from mtp_cli.serve.worker import FairQueue, Worker
from tests.serve.scripted import until


class Task:
    """A job that notes what becomes of it."""

    def __init__(self, client: str, name: str = "", fault: Exception | None = None) -> None:
        self.client, self.name = client, name
        self.is_done = self.is_stopped = False
        self.failed: Exception | None = None
        self.may_end = threading.Event()
        self.may_end.set()
        self._fault = fault

    def run(self) -> None:
        assert self.may_end.wait(20)
        if self._fault is not None:
            raise self._fault
        self.is_done = True

    def stop(self) -> None:
        self.is_stopped = True
        self.may_end.set()

    def fail(self, error: Exception) -> None:
        self.failed = error


def taken(queue: FairQueue) -> list[str]:
    found = []
    while len(queue):
        job = queue.take()
        assert isinstance(job, Task)
        found.append(job.name)
    return found


def test_who_asks_for_much_waits_behind_who_asks_for_little() -> None:
    queue = FairQueue(10)
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.put(Task(name[0], name))
    assert taken(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_more_than_may_wait_are_refused() -> None:
    queue = FairQueue(2)
    queue.put(Task("a"))
    queue.put(Task("b"))
    with pytest.raises(ApiError) as caught:
        queue.put(Task("c"))
    assert (caught.value.status, caught.value.code) == (429, "queue_full")


def test_who_has_gone_does_not_wait() -> None:
    queue = FairQueue(3)
    first, second = Task("a", "first"), Task("a", "second")
    queue.put(first)
    queue.put(second)
    assert queue.remove(first)
    assert not queue.remove(first)
    assert taken(queue) == ["second"]
    assert not queue.remove(second)


def test_a_closed_queue_takes_nothing_and_gives_what_was_left() -> None:
    queue, task = FairQueue(3), Task("a")
    queue.put(task)
    assert queue.close() == [task]
    assert queue.take() is None
    with pytest.raises(ApiError, match="shutting down"):
        queue.put(Task("b"))


def test_a_fault_ends_one_job_alone(capsys: pytest.CaptureFixture[str]) -> None:
    worker = Worker(5)
    bad, refused, good = Task("a", fault=ZeroDivisionError()), Task("a"), Task("a")
    refused._fault = ApiError(400, "no")
    for task in (bad, refused, good):
        worker.submit(task)
    worker.start()
    until(lambda: good.is_done, "the third job was not run")
    worker.close()
    assert isinstance(bad.failed, ZeroDivisionError)
    assert refused.failed is refused._fault
    assert capsys.readouterr().err.count("Traceback") == 1


def test_the_end_stops_what_runs_and_refuses_what_waits() -> None:
    worker = Worker(5)
    running, waiting = Task("a"), Task("a")
    running.may_end.clear()
    worker.submit(running)
    worker.start()
    until(lambda: worker.is_busy, "nothing runs")
    worker.submit(waiting)
    assert worker.n_waiting == 1
    worker.close()
    assert running.is_stopped
    assert isinstance(waiting.failed, ApiError)
    assert not waiting.is_done
    worker.close()


def test_who_goes_is_not_answered() -> None:
    worker = Worker(5)
    running, waiting = Task("a"), Task("a")
    running.may_end.clear()
    worker.submit(running)
    worker.start()
    until(lambda: worker.is_busy, "nothing runs")
    worker.submit(waiting)
    worker.cancel(waiting)
    worker.cancel(running)
    until(lambda: not worker.is_busy, "it was not stopped")
    worker.close()
    assert running.is_stopped
    assert not waiting.is_done
