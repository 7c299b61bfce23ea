"""Batching without waiting: rows of all callers join while the runtime is busy; a free runtime starts at once.

Runs that are expected to stay under a millisecond happen inline in the event loop, longer ones on the
runtime's one thread. There is no timer: what has arrived when the runtime becomes free is the batch. The thread takes
its next batch itself, so that the runtime does not wait while the event loop sees to the rows that have just run.
A row whose time runs out hears of it when the run under way is over, however many rows wait before it. Rows that would
make the oldest one late wait for the run after, as long as that costs all of them little.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter

from common.errors import Unavailable
from common.runtimes import StageRunner
from common.serving.chunk import Chunk
from common.serving.joining import joined
from common.serving.metrics import Metrics
from common.types import Tensors

log = logging.getLogger(__name__)

INLINE_S = 1e-3
RUNS_PER_TURN = 8  # inline, before the event loop gets its turn again
RATE_KEPT = 0.9  # of the rows per second, where a run is made smaller for the oldest row's sake
FORGOTTEN = 0.999  # of a size's expected seconds, each time that they make a run smaller
SWEEP_S = 0.01  # between two looks at all that waits: thousands of chunks take a few tenths of a millisecond
_SIZES = 64  # powers of two of a run's rows

Finish = Callable[[int, list[Chunk], Tensors, Tensors], None]  # stage, chunks, what went in, what came out
Expire = Callable[[Chunk], None]


class RunCost:
    """Expected seconds of one run, per power of two of its rows.

    A moving average that falls quickly and rises slowly: a run that had to wait for a core, or on its way back from
    the thread for the interpreter, says little about the stage, and should not keep it on the thread.
    """

    def __init__(self) -> None:
        # by the bits that the number of rows takes; infinite where nothing is known
        self._seconds = [math.inf] * _SIZES

    def learn(self, rows: int, seconds: float) -> None:
        """Remember a run."""
        size = rows.bit_length()
        known = self._seconds[size]
        if known == math.inf:
            self._seconds[size] = seconds
        else:
            share = 0.3 if seconds < known else 0.03
            self._seconds[size] = known + share * (min(seconds, 2 * known) - known)

    def expect(self, rows: int) -> float:
        """Seconds that a run of so many rows should take; sizes never seen are scaled from the next smaller."""
        size = rows.bit_length()
        for smaller in range(size, -1, -1):
            if self._seconds[smaller] < math.inf:
                return self._seconds[smaller] * 2.0 ** (size - smaller)
        return 0.0

    def _at_most(self, rows: int) -> float:
        """The same, but no more than what is scaled from any smaller size.

        The first run of a size is often slow, and where that keeps it from being run, nothing else corrects it.
        """
        least = math.inf
        for seconds in self._seconds[: rows.bit_length() + 1]:
            least = min(2.0 * least, seconds)
        return least if least < math.inf else 0.0

    def in_time(self, chunks: Sequence[int], seconds: float) -> int:
        """How many of these chunks may share a run that should end within `seconds`.

        All of them where no fewer are in time, or where fewer would get less than `RATE_KEPT` of the rows done in their
        time: under overload some row is always about to be late, and small runs for its sake would make all others
        late. All of them, too, where no run of that size has been seen: what has been scaled up is no reason.

        Args:
            chunks: the rows of each, the oldest first.
            seconds: until the oldest is late.
        """
        rows = sum(chunks)
        size = rows.bit_length()
        whole = self._at_most(rows)
        if whole <= seconds or self._seconds[size] == math.inf:
            return len(chunks)
        held = rows
        for count in range(len(chunks) - 1, 0, -1):
            held -= chunks[count]
            if 0.0 < (expected := self._at_most(held)) <= seconds:
                if held * whole < RATE_KEPT * rows * expected:
                    break
                self._seconds[size] = FORGOTTEN * whole  # what is avoided is not learned anew
                return count
        return len(chunks)


class Solo:
    """Whether rows come one by one, so that waiting a round of the loop for others would be in vain.

    A round costs a caller two turns of the event loop. It is skipped after `ALONE` rounds that joined nobody;
    every `PROBE`-th time it is waited out all the same, to notice when callers have become many.
    """

    ALONE, PROBE = 16, 32

    def __init__(self) -> None:
        self._alone = 0
        self._asked = 0

    def now(self) -> bool:
        """Whether to run at once."""
        self._asked += 1
        return self._alone >= self.ALONE and self._asked % self.PROBE != 0

    def saw(self, chunks: int) -> None:
        """Learn how many chunks shared a run."""
        self._alone = self._alone + 1 if chunks == 1 else 0


class Batcher:
    """Queues of chunks in front of the stages of one tier, and the one runtime behind them.

    Args:
        runners: stage -> loaded stage.
        run_rows: most rows in one run.
        finish: called with the result of each run.
        expire: called with a chunk whose deadline passed while it waited.
        metrics: where runs are recorded.
    """

    def __init__(
        self,
        runners: Mapping[int, StageRunner],
        *,
        run_rows: int,
        finish: Finish,
        expire: Expire,
        metrics: Metrics,
    ) -> None:
        self._runners = runners
        self._run_rows = run_rows
        self._finish = finish
        self._expire = expire
        self._metrics = metrics
        self._queues: dict[int, deque[Chunk]] = {stage: deque() for stage in runners}
        self.costs: dict[int, RunCost] = {stage: RunCost() for stage in runners}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="runtime")
        self._lock = threading.Lock()  # for the queues and what is said of them: the thread takes its batches itself
        self._busy = False  # a run under way, or a turn that is scheduled
        self._soonest = math.inf  # no deadline of what waits passes before
        self._swept = 0.0
        self._solo = Solo()
        self.rows = 0  # waiting
        metrics.watch_queue(lambda: self.rows)

    def submit(self, stage: int, chunk: Chunk) -> None:
        """Queue a chunk for a stage; it runs as soon as the runtime is free."""
        chunk.waiting_since = time.monotonic()
        with self._lock:
            self._queues[stage].append(chunk)
            self.rows += len(chunk.ids)
            if chunk.job.request.deadline.at < self._soonest:
                self._soonest = chunk.job.request.deadline.at
            if self._busy:
                return
            self._busy = True
        if self._solo.now():
            self._turn()
        else:  # after this round of the loop: others may come in it
            asyncio.get_running_loop().call_soon(self._turn)

    def make_room(self) -> None:
        """Drop what nobody waits for any more, and what has expired."""
        with self._lock:
            expired = self._sweep()
        self._expired(expired)

    def close(self) -> None:
        """Let the thread end after the run under way; what waits is dropped."""
        with self._lock:
            for queue in self._queues.values():
                queue.clear()
            self.rows = 0
        self._thread.shutdown(wait=False)

    def _turn(self) -> None:
        """Run what waits, until nothing does, runs go to the thread, or the event loop wants its turn."""
        for _ in range(RUNS_PER_TURN):
            stage, chunks, expired = self._next_batch()
            self._expired(expired)
            if not chunks:
                return
            if not self._inline(stage, chunks):
                self._thread.submit(self._run_on, asyncio.get_running_loop(), stage, chunks)
                return
            self._run_inline(stage, chunks)
            if self.rows and not self._solo.now():
                break
        asyncio.get_running_loop().call_soon(self._turn)

    def _inline(self, stage: int, chunks: list[Chunk]) -> bool:
        return self.costs[stage].expect(_rows(chunks)) < INLINE_S

    def _run_inline(self, stage: int, chunks: list[Chunk]) -> None:
        self._begun(chunks)
        try:
            ran = self._run(stage, chunks)
        except Exception as error:
            self._failed(stage, chunks, error)
        else:
            self._ran(stage, chunks, *ran)

    def _run_on(self, loop: asyncio.AbstractEventLoop, stage: int, chunks: list[Chunk]) -> None:
        """On the thread: run after run while rows wait; the event loop hears of each."""
        while chunks:
            self._begun(chunks)
            try:
                ran = self._run(stage, chunks)
            except Exception as error:
                done = partial(self._failed, stage, chunks, error)
            else:
                done = partial(self._ran, stage, chunks, *ran)
            stage, chunks, expired = self._next_batch()
            loop.call_soon_threadsafe(self._thread_ran, done, expired)

    def _thread_ran(self, done: Callable[[], None], expired: list[Chunk]) -> None:
        self._expired(expired)
        done()

    def _begun(self, chunks: list[Chunk]) -> None:
        self._solo.saw(len(chunks))
        now = time.monotonic()
        for chunk in chunks:
            chunk.queue_s += now - chunk.waiting_since

    def _run(self, stage: int, chunks: list[Chunk]) -> tuple[Tensors, Tensors, float]:
        """What went in, what came out, and the seconds between."""
        tensors = _join([chunk.tensors for chunk in chunks])
        started = time.monotonic()
        return tensors, self._runners[stage].run(tensors), time.monotonic() - started

    def _ran(self, stage: int, chunks: list[Chunk], tensors: Tensors, outputs: Tensors, seconds: float) -> None:
        rows = _rows(chunks)
        self.costs[stage].learn(rows, seconds)
        self._metrics.stage_ran(stage, seconds, rows)
        for chunk in chunks:
            chunk.compute_s += seconds
        try:
            self._finish(stage, chunks, tensors, outputs)
        except Exception as error:
            self._failed(stage, chunks, error)

    def _failed(self, stage: int, chunks: list[Chunk], error: BaseException) -> None:
        """A defect of ours or of a stage: say so, fail these rows, serve the others."""
        log.error("stage %d failed on %d rows", stage, _rows(chunks), exc_info=error)
        for chunk in chunks:
            chunk.job.abort(Unavailable(f"Stage {stage} failed on this tier.", "stage_failed"))

    def _expired(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._expire(chunk)

    def _next_batch(self) -> tuple[int, list[Chunk], list[Chunk]]:
        """Take the chunk that has waited longest and those that may share its run, and what expired meanwhile.

        When there is none, the runtime is free from now on.
        """
        with self._lock:
            expired = self._sweep() if self._soonest <= time.monotonic() else []
            while self.rows:
                waiting = [(queue[0].waiting_since, stage) for stage, queue in self._queues.items() if queue]
                stage = waiting[0][1] if len(waiting) == 1 else min(waiting)[1]
                if taken := self._take(stage, expired):
                    return stage, taken, expired
            self._busy = False
            return 0, [], expired

    def _take(self, stage: int, expired: list[Chunk]) -> list[Chunk]:
        """Chunks from one queue for one run; those nobody waits for are dropped."""
        now, queue = time.monotonic(), self._queues[stage]
        taken: list[Chunk] = []
        kept: list[Chunk] = []
        rows = 0
        while queue:
            chunk = queue.popleft()
            size = len(chunk.ids)
            if not self._waits(chunk, now, expired):
                continue
            if not taken or (chunk.key == taken[0].key and rows + size <= self._run_rows):
                taken.append(chunk)
                rows += size
                if rows >= self._run_rows:
                    break
            else:
                kept.append(chunk)
        if len(taken) > 1:
            left_s = taken[0].job.request.deadline.at - now
            count = self.costs[stage].in_time([len(chunk.ids) for chunk in taken], left_s)
            if count < len(taken):
                kept = sorted(kept + taken[count:], key=attrgetter("waiting_since"))
                taken = taken[:count]
                rows = _rows(taken)
        self.rows -= rows
        if kept:
            queue.extendleft(reversed(kept))
        return taken

    def _sweep(self) -> list[Chunk]:
        """Look at all that waits, but not too often: drop what is over and return what has expired."""
        now = time.monotonic()
        expired: list[Chunk] = []
        if now >= self._swept + SWEEP_S:
            self._swept, self._soonest = now, math.inf
            for queue in self._queues.values():
                waiting = [chunk for chunk in queue if self._waits(chunk, now, expired)]
                queue.clear()
                queue.extend(waiting)
                self._soonest = min([self._soonest, *(chunk.job.request.deadline.at for chunk in waiting)])
        return expired

    def _waits(self, chunk: Chunk, now: float, expired: list[Chunk]) -> bool:
        """Whether a chunk still waits; else it counts no more, and is one of the expired if somebody waits for it."""
        job = chunk.job
        if job.request.deadline.at > now and not job.over:
            return True
        self.rows -= len(chunk.ids)
        if not job.over:
            expired.append(chunk)
        return False


def _rows(chunks: list[Chunk]) -> int:
    return sum([len(chunk.ids) for chunk in chunks])  # an eighth of what calling each chunk's own `len` takes


def _join(parts: list[Tensors]) -> Tensors:
    """The rows of all parts in one batch."""
    if len(parts) == 1:
        return parts[0]
    return {name: joined([part[name] for part in parts]) for name in parts[0]}
