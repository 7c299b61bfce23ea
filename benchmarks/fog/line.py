"""One direction of a link: so many bits per second, then so long on the way.

A packet waits until those before it have been sent, takes its own size over the rate to send, and arrives `delay`
later. Nothing overtakes. A packet that finds more than `limit` bytes waiting is dropped, as a router would.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LIMIT_BYTES = 128 << 10


@dataclass(slots=True, kw_only=True)
class Count:
    """What went through since the last question."""

    packets: int = 0
    bytes: int = 0  # IP packets, with their own headers
    dropped: int = 0


class Line:
    """Packets on their way; the caller says what time it is, in seconds.

    Args:
        bits_per_s: how fast packets are sent.
        delay_s: how long each then travels.
        limit_bytes: how many may wait to be sent.
    """

    def __init__(self, bits_per_s: float, delay_s: float, limit_bytes: int = LIMIT_BYTES) -> None:
        self.count = Count()
        self._limit_bytes = limit_bytes
        self._free_at = 0.0  # when the last packet will have been sent
        self._way: deque[tuple[float, bytes]] = deque()
        self.shape(bits_per_s, delay_s)

    def shape(self, bits_per_s: float, delay_s: float) -> None:
        """Another rate and delay for what comes from now on."""
        self._byte_s = 8 / bits_per_s
        self._delay_s = delay_s

    def put(self, packet: bytes, now: float) -> None:
        """A packet enters."""
        if (self._free_at - now) / self._byte_s > self._limit_bytes:
            self.count.dropped += 1
            return
        self.count.packets += 1
        self.count.bytes += len(packet)
        self._free_at = max(self._free_at, now) + len(packet) * self._byte_s
        arrives = self._free_at + self._delay_s
        if self._way:  # a link that was made shorter does not let anything overtake
            arrives = max(arrives, self._way[-1][0])
        self._way.append((arrives, packet))

    def due(self, now: float) -> list[bytes]:
        """The packets that have arrived, in order."""
        found = []
        while self._way and self._way[0][0] <= now:
            found.append(self._way.popleft()[1])
        return found

    def next(self) -> float | None:
        """When the next packet arrives; None when nothing is on its way."""
        return self._way[0][0] if self._way else None
