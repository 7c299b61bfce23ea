"""The links in a process of their own: IP packets from one TUN device to the other, at the rate and after the delay.

The devices lie in the namespaces of the tiers, so that the tiers' own TCP sees the round trip, and nothing sleeps in
the code under test. The process is told file descriptors, two per link, and then answers JSON lines on its standard
input: {"shape": [bits per second, delay in s, one way]} sets all links, {"count": true} tells and forgets what
went through, per link and direction.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import sys
import time
from dataclasses import asdict
from typing import Any

from benchmarks.fog.line import Count, Line

_MTU = 65536
_PR_SET_TIMERSLACK = 29
_PRIORITY = 30  # above what slows the device: a late packet would be the benchmark's error, not the tiers'


class Links:
    """Moves packets between pairs of descriptors until its standard input ends.

    Args:
        pairs: lower and upper end of every link, each a descriptor that gives and takes whole packets.
        control: a descriptor with the questions; its end ends the process.
    """

    def __init__(self, pairs: list[tuple[int, int]], control: int) -> None:
        self._control = control
        self._text = b""
        self._lines: dict[int, tuple[Line, int]] = {}  # source -> the line, and where it leads to
        for lower, upper in pairs:
            for source, target in ((lower, upper), (upper, lower)):
                self._lines[source] = (Line(1e9, 0.0), target)
                os.set_blocking(source, False)

    def run(self, says: int = 1) -> None:
        """Until the control descriptor ends; answers go to `says`."""
        watched = [*self._lines, self._control]
        while True:
            arrivals = [at for line, _ in self._lines.values() if (at := line.next()) is not None]
            left = max(min(arrivals) - time.monotonic(), 0.0) if arrivals else None
            ready, _, _ = select.select(watched, [], [], left)  # in microseconds, where epoll waits for milliseconds
            for source in ready:
                if source != self._control:
                    self._take(source)
                elif not self._answer(says):
                    return
            for line, target in self._lines.values():
                for packet in line.due(time.monotonic()):
                    _give(target, packet)

    def _take(self, source: int) -> None:
        line = self._lines[source][0]
        while True:
            try:
                packet = os.read(source, _MTU)
            except BlockingIOError:
                return
            if not packet:
                return
            line.put(packet, time.monotonic())

    def _answer(self, says: int) -> bool:
        read = os.read(self._control, 1 << 16)
        self._text += read
        *questions, self._text = self._text.split(b"\n")
        for question in questions:
            os.write(says, json.dumps(self._reply(json.loads(question))).encode() + b"\n")
        return bool(read)

    def _reply(self, asked: dict[str, Any]) -> dict[str, Any]:
        if "shape" in asked:
            for line, _ in self._lines.values():
                line.shape(*asked["shape"])
            return {}
        counts = []
        for line, _ in self._lines.values():  # link by link, upwards first
            counts.append(asdict(line.count))
            line.count = Count()
        return {"up": counts[::2], "down": counts[1::2]}


def _give(target: int, packet: bytes) -> None:
    try:
        os.write(target, packet)
    except (BlockingIOError, OSError):  # the other end is full or gone: a lost packet, which TCP sends again
        pass


def main() -> None:
    ends = [int(each) for each in sys.argv[1:]]
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    gc.disable()  # nothing here makes cycles
    Links(list(zip(ends[::2], ends[1::2], strict=True)), 0).run()


if __name__ == "__main__":
    main()
