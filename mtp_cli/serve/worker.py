"""The thread that owns the engine, and the queue in front of it.

Knows jobs as something to run. Clients take turns: who has asked for much waits behind who has
asked for little, and each one's own jobs stay in order.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import OrderedDict, deque
from typing import Protocol

from mtp_cli.serve.faults import ApiError, overloaded


class Job(Protocol):
    """client: whose turn it takes. `run` is called in the worker's thread, `fail` in any."""

    @property
    def client(self) -> str: ...
    def run(self) -> None: ...
    def stop(self) -> None: ...
    def fail(self, error: Exception) -> None: ...


class FairQueue:
    """Jobs that wait, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._clients: OrderedDict[str, deque[Job]] = OrderedDict()  # whose turn it is, first
        self._changed = threading.Condition()
        self._n = 0
        self._is_closed = False

    def __len__(self) -> int:
        return self._n

    def put(self, job: Job) -> None:
        """Let a job wait; ApiError where too many do."""
        with self._changed:
            if self._is_closed:
                raise overloaded("the server is shutting down")
            if self._n >= self._size:
                raise ApiError(
                    429, f"{self._n} requests are waiting already: try again later",
                    code="queue_full", kind="rate_limit_error",
                )  # fmt: skip
            self._clients.setdefault(job.client, deque()).append(job)
            self._n += 1
            self._changed.notify()

    def take(self) -> Job | None:
        """The next job, once there is one; None when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._n or self._is_closed)
            if self._is_closed:
                return None
            client, jobs = next(iter(self._clients.items()))
            job = jobs.popleft()
            self._n -= 1
            self._clients.move_to_end(client)
            if not jobs:
                del self._clients[client]
            return job

    def remove(self, job: Job) -> bool:
        """Let a job wait no longer; False where it does not wait."""
        with self._changed:
            jobs = self._clients.get(job.client)
            if jobs is None or job not in jobs:
                return False
            jobs.remove(job)
            self._n -= 1
            if not jobs:
                del self._clients[job.client]
            return True

    def close(self) -> list[Job]:
        """Take nothing more; the jobs that were left."""
        with self._changed:
            self._is_closed = True
            left = [job for jobs in self._clients.values() for job in jobs]
            self._clients.clear()
            self._n = 0
            self._changed.notify_all()
            return left


class Worker:
    """Runs jobs one after another in a thread of its own."""

    def __init__(self, queue_size: int) -> None:
        self._queue = FairQueue(queue_size)
        self._running: Job | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    @property
    def n_waiting(self) -> int:
        return len(self._queue)

    @property
    def is_busy(self) -> bool:
        return self._running is not None

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn; ApiError where it cannot."""
        self._queue.put(job)

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: it is not begun, or ends with the round under way."""
        self._queue.remove(job)
        job.stop()

    def close(self) -> None:
        """Stop what runs, refuse what waits, and wait for the thread to end."""
        for job in self._queue.close():
            job.fail(overloaded("the server is shutting down"))
        with self._lock:
            self._is_closed = True
            if self._running is not None:
                self._running.stop()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while (job := self._queue.take()) is not None:
            with self._lock:
                self._running = job
                if self._is_closed:
                    job.stop()
            try:
                job.run()
            except Exception as error:  # one job's fault must not end all others
                if not isinstance(error, ApiError):
                    traceback.print_exc(file=sys.stderr)
                job.fail(error)
            finally:
                self._running = None
            del job  # and what it holds, while nothing else is to be done
