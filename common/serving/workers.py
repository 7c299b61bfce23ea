"""More processes of one tier, which answer over REST beside the first.

Python runs on one core at a time, and so does one process of a tier. Its workers listen on the same REST port, and
the kernel spreads new connections among all who do (SO_REUSEPORT). Each has its stages, its queue and its stream to
upstream; the first process alone has the other doors, and speaks for all of them: it is ready when they are, its
metrics are the sums, and they drain when it does. A worker that ends is started again.

A worker's standard input is its leash: it drains when that ends, however the first process ended. Over it the
first process asks for metrics, one line each way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence

import orjson

from common.errors import ConfigError
from common.serving.merged import Exposition

log = logging.getLogger(__name__)

START_S = 60.0  # longest wait until a worker is ready
_ASK_S = 2.0  # longest wait for its metrics
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0  # before one that ended is started again; doubles each time
_STEADY_S = 30.0  # one that ran so long is trusted again
_KILL_AFTER_S = 5.0  # beyond the time for draining
_MOST_BYTES = 64 << 20  # of a line of metrics


class Worker:
    """One process; may be started again after it ended."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._command = command
        self._environ = {**os.environ, **environ}
        self._process: Process | None = None
        self._lock = asyncio.Lock()
        self._asked = 0
        self._up = False  # it has said that it is ready
        self.last = b""  # the metrics that it told last

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self._up and self.pid is not None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises:
            ConfigError: when it ends before, or takes too long.
        """
        self._up, self.last = False, b""
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, env=self._environ, start_new_session=True, limit=_MOST_BYTES
        )
        try:
            said = await asyncio.wait_for(self._line(), START_S)
        except TimeoutError:
            said = b""
        if b" ready: " not in said:
            self.signal(signal.SIGKILL)
            raise ConfigError("A worker process of the tier did not become ready; what it said stands above.")
        self._up = True

    async def wait(self) -> int:
        """The exit status, once it has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def metrics(self) -> None:
        """Ask for its metrics, which then are its `last`; they stay as they are where it does not answer."""
        async with self._lock:
            self._asked += 1
            try:
                assert self._process is not None and self._process.stdin is not None
                self._process.stdin.write(b"metrics %d\n" % self._asked)
                while (answer := orjson.loads(await asyncio.wait_for(self._line(), _ASK_S)))[0] != self._asked:
                    pass  # late, for one who did not wait any longer
                self.last = answer[1].encode()
            except (OSError, ValueError, TimeoutError):
                log.warning("a worker did not tell its metrics")

    async def stop(self, within_s: float) -> None:
        """SIGTERM drains it; SIGKILL ends it when that takes too long."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), within_s)
        except TimeoutError:
            log.warning("a worker did not end within %g s and is killed", within_s)
            self.signal(signal.SIGKILL)
            await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)

    async def _line(self) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        return await self._process.stdout.readline()


class Workers:
    """All workers of a tier.

    Args:
        command: starts one.
        environ: added to this process's environment for them.
        count: how many.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], count: int) -> None:
        self._workers = [Worker(command, environ) for _ in range(count)]
        self._watching: list[asyncio.Task[None]] = []
        self._ended = Exposition()  # what workers had counted that have ended

    @property
    def pids(self) -> list[int | None]:
        """Their process ids; None for one that does not run at the moment."""
        return [worker.pid for worker in self._workers]

    async def start(self) -> None:
        """Start all and wait until they are ready; raises ConfigError when one is not."""
        await asyncio.gather(*(worker.start() for worker in self._workers))
        self._watching = [asyncio.create_task(self._watch(worker)) for worker in self._workers]

    async def metrics(self, own: bytes) -> bytes:
        """The metrics of all processes together, this one's and what was counted by those that have ended."""
        total = Exposition()
        total.add(own)
        await asyncio.gather(*(worker.metrics() for worker in self._workers if worker.ready))
        past = Exposition()
        for worker in self._workers:
            (total if worker.ready else past).add(worker.last)
        total.add_counts(past)
        total.add_counts(self._ended)
        return total.text()

    async def stop(self, drain_s: float) -> None:
        """Let all drain, and end."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await asyncio.gather(*(worker.stop(drain_s + _KILL_AFTER_S) for worker in self._workers))

    async def _watch(self, worker: Worker) -> None:
        """Start a worker again whenever it ends."""
        pause = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            status = await worker.wait()
            if time.monotonic() - began > _STEADY_S:
                pause = _FIRST_PAUSE_S
            log.error("a worker ended with status %d; it is started again in %g s", status, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            self._ended.add(worker.last)
            try:
                await worker.start()
            except ConfigError as error:
                log.error("%s", error)
            except OSError as error:  # the system has no process or no file to spare
                log.error("a worker cannot be started: %s", error)


async def on_leash(metrics: Callable[[], bytes], stop: Callable[[], None]) -> asyncio.ReadTransport:
    """A worker's side of its leash: tell metrics when asked, and stop when the line ends.

    Args:
        metrics: the text exposition.
        stop: begins to drain.

    Returns:
        What must be closed in the end.
    """
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: _Leash(metrics, stop), sys.stdin)
    return transport


class _Leash(asyncio.Protocol):
    def __init__(self, metrics: Callable[[], bytes], stop: Callable[[], None]) -> None:
        self._metrics = metrics
        self._stop = stop
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            number = int(line.removeprefix(b"metrics "))
            print(orjson.dumps([number, self._metrics().decode()]).decode(), flush=True)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop()
