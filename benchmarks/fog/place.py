"""Everything that runs: the network, the tiers of every layout, the load, and the device's slowed core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.children import python
from benchmarks.fog.layouts import Layout, Way, bundles
from benchmarks.fog.network import ADDRESS, Network
from benchmarks.fog.numbers import Lists
from benchmarks.paths import BUILT
from benchmarks.tiers import Tiers

_REST, _GRPC = 8000, 50051


class Place:
    """Two cores: the first is the device's, the second everybody else's.

    Args:
        bundle: what is served.
        layouts: started at once, and stopped (SIGSTOP) while they are not asked.
        images: a folder with PNG files.
        share: of its core that the device gets.
    """

    def __init__(self, bundle: Path, layouts: tuple[Layout, ...], images: Path, share: float) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self._cores = {"device": cores[0], "edge": cores[1], "cloud": cores[1]}
        self._layouts = {layout: number for number, layout in enumerate(layouts)}
        self.network = Network()
        self._tiers: dict[Layout, Tiers] = {}
        kinds = bundles(bundle)
        for layout in layouts:
            self._tiers[layout] = self._start(layout, kinds[layout.inputs])
            self._pause(layout)
        self.network.pin(cores[1])
        with self.network.at["device"].inside():
            self._load = python("benchmarks.fog.load", str(images), piped=True, log=BUILT / "fog-load.log")
        self._load.pin({cores[1]})
        self._slow = python("benchmarks.fog.slow_core", str(cores[0]), str(share), log=BUILT / "fog-slow.log")
        self._slow.pause()

    def ask(self, way: Way, *, rate: float, seconds: float, warm: float, seed: int) -> Lists:
        """Load one way.

        Raises:
            RuntimeError: when it does not answer at all.
        """
        port = _REST + self._layouts[way.layout]
        host = "127.0.0.1" if way.entry == "device" else ADDRESS[way.entry]
        with self._running(way.layout):
            self.network.count()
            asked = {"rate": rate, "seconds": seconds, "warm": warm, "seed": seed, "point": way.point}
            lists = self._load.ask(url=f"http://{host}:{port}", **asked)
            count = self.network.count()
        if "error" in lists:
            raise RuntimeError(f"{way.name}, {way.point}: {lists['error']}")
        return lists | {f"up{link}": count["up"][link]["bytes"] for link in (0, 1)}

    def processor_ms(self, layout: Layout, tier: str) -> float:
        """Processor time that a tier has used so far, in milliseconds, by the scheduler's own count."""
        tasks = Path(f"/proc/{self._tiers[layout].children[tier].process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6

    def stop(self) -> None:
        """End everything."""
        for name in ("_slow", "_load"):
            if child := getattr(self, name, None):
                child.stop()
        for tiers in self._tiers.values():
            tiers.stop()
        self.network.stop()

    def _start(self, layout: Layout, bundle: Path) -> Tiers:
        number = self._layouts[layout]
        doors = {
            tier: {"grpc": f"{ADDRESS[tier]}:{_GRPC + number}", "rest": f"{ADDRESS[tier]}:{_REST + number}"}
            for tier in layout.stages
        }
        tiers = Tiers(
            f"fog-{number}", layout.stages, bundle=bundle, options=doors, timeout_ms=5000, rest=_REST + number
        )
        for tier in reversed(layout.stages):
            with self.network.at[tier].inside():
                tiers.start(tier)
            tiers.children[tier].pin({self._cores[tier]})
        return tiers

    def _pause(self, layout: Layout) -> None:
        for child in self._tiers[layout].children.values():
            child.pause()

    @contextmanager
    def _running(self, layout: Layout) -> Iterator[None]:
        tiers = self._tiers[layout]
        for child in tiers.children.values():
            child.resume()
        try:
            for tier in list(layout.stages)[:-1]:
                with self.network.at[tier].inside():
                    tiers.wait_until_up(tier)
            self._slow.resume()
            yield
        finally:
            self._slow.pause()
            self._pause(layout)
