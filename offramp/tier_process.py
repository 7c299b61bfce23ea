"""One tier as a child process: started, listened to, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str, str], None]  # tier, line


class TierProcess:
    """`offramp serve` for one tier; may be started again after it ended.

    Args:
        config: the path of tiers.yaml.
        tier: the tier's name.
        say: takes each line that the process writes.
    """

    def __init__(self, config: Path, tier: str, say: Say) -> None:
        self.tier = tier
        self._config = config
        self._say = say
        self._process: Process | None = None
        self._output: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    async def start(self) -> None:
        """Start the process, in a session of its own: Ctrl-C on the terminal is for its parent alone."""
        self._ready = asyncio.Event()
        spawning = asyncio.create_task(self._spawn())
        try:
            await asyncio.shield(spawning)
        except asyncio.CancelledError:
            await spawning  # a process that nobody knows of could not be stopped
            raise

    async def _spawn(self) -> None:
        command = [sys.executable, "-m", "offramp", "serve", self.tier, "--config", str(self._config)]
        self._process = await asyncio.create_subprocess_exec(
            *command, "--with-parent", str(os.getpid()), stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
        self._output = asyncio.create_task(self._listen(self._process))

    async def ready(self, within_s: float) -> bool:
        """Wait until the tier says that it is ready; False when it ends before, or takes too long."""
        said = asyncio.create_task(self._ready.wait())
        ended = asyncio.create_task(self.wait())
        try:
            await asyncio.wait({said, ended}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            return self._ready.is_set() and not ended.done()
        finally:
            said.cancel()
            ended.cancel()

    async def wait(self) -> int:
        """The exit status, once the process has ended and its last line was passed on."""
        assert self._process is not None and self._output is not None
        await asyncio.shield(self._output)
        return await self._process.wait()

    async def stop(self, within_s: float) -> None:
        """SIGTERM drains the tier; SIGKILL ends it when that takes too long."""
        self.signal(signal.SIGTERM)
        if self._process is None:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._process.wait()
        except TimeoutError:
            self._say(self.tier, f"did not end within {within_s:g} s and is killed")
            self.signal(signal.SIGKILL)
        await self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._heard(line)
        if rest:
            self._heard(rest)

    def _heard(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text.startswith(f"{self.tier} ready: "):
            self._ready.set()
        self._say(self.tier, text)
