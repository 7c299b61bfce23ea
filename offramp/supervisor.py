"""Every tier of a system on one machine: started upstream first, watched, stopped together."""

from __future__ import annotations

import asyncio
import signal
import time

from common.address import Address
from common.config import SystemConfig
from common.errors import ConfigError
from offramp.tier_process import TierProcess

_FIRST_PAUSE_S = 0.5  # before a tier that ended is started again; doubles each time
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 30.0  # a tier that ran so long is trusted again
_KILL_AFTER_S = 5.0  # beyond a tier's own drain time


class Supervisor:
    """Runs a system's tiers as processes until SIGINT or SIGTERM.

    Args:
        system: the configuration.
        start_s: longest wait until a tier is ready.

    Raises:
        ConfigError: when two tiers would listen on one address.
    """

    def __init__(self, system: SystemConfig, start_s: float) -> None:
        check_addresses(system)
        self._system = system
        self._start_s = start_s
        self._width = max(len(tier.name) for tier in system.tiers)
        self._tiers = [TierProcess(system.path, tier.name, self._say) for tier in system.tiers]

    async def run(self) -> int:
        """Start, watch and stop every tier; returns the exit status."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop_or_kill, stop)
        work = asyncio.create_task(self._start_and_watch())
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()  # from here on a signal kills
        failed = work.done()
        work.cancel()
        asked.cancel()
        await asyncio.gather(work, asked, return_exceptions=True)
        await self._stop_all()
        if failed:
            work.result()  # raises what went wrong, when it was not a tier
        return 1 if failed else 0

    async def _start_and_watch(self) -> None:
        """Returns only when a tier does not become ready."""
        for process in reversed(self._tiers):
            await process.start()
            self._say(process.tier, f"process {process.pid} is starting")
            if not await process.ready(self._start_s):
                why = "did not become ready in time" if process.pid else "ended before it was ready"
                self._say(process.tier, f"{why}; stopping every tier")
                return
        first = self._system.tiers[0]
        door = f"ask http://{first.rest} and " if first.rest is not None else ""
        print(f"All tiers are ready: {door}press Ctrl-C to stop.", flush=True)
        await asyncio.gather(*(self._watch(process) for process in self._tiers))

    async def _watch(self, process: TierProcess) -> None:
        """Start a tier again whenever it ends, after a pause that grows while it keeps ending."""
        pause = _FIRST_PAUSE_S
        began = time.monotonic()
        while True:
            status = await process.wait()
            if time.monotonic() - began > _STEADY_S:
                pause = _FIRST_PAUSE_S
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            self._say(process.tier, f"ended with {how}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            began = time.monotonic()
            await process.start()
            self._say(process.tier, f"process {process.pid} is starting")

    async def _stop_all(self) -> None:
        """From the device up, so that what is in flight can still be forwarded."""
        for process, tier in zip(self._tiers, self._system.tiers, strict=True):
            await process.stop(tier.drain_seconds + _KILL_AFTER_S)

    def _stop_or_kill(self, stop: asyncio.Event) -> None:
        if stop.is_set():
            for process in self._tiers:
                process.signal(signal.SIGKILL)
        stop.set()

    def _say(self, tier: str, line: str) -> None:
        print(f"{tier:<{self._width}} | {line}", flush=True)


def check_addresses(system: SystemConfig) -> None:
    """Raise ConfigError when two tiers would listen on one address, as they may on machines of their own."""
    taken: dict[int, list[tuple[Address, str]]] = {}
    for tier in system.tiers:
        for door in ("grpc", "rest", "ops"):
            address: Address | None = getattr(tier, door)
            if address is None or address.port == 0:
                continue
            where = f"tiers.{tier.name}.{door}"
            for other, owner in taken.get(address.port, []):
                if other.host == address.host or other.wildcard or address.wildcard:
                    raise ConfigError(
                        f"{system.path}: {where} is {address} and {owner} is {other}. "
                        "On one machine each needs a port of its own."
                    )
            taken.setdefault(address.port, []).append((address, where))
