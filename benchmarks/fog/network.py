"""Device, edge and cloud, each in a network of its own, and the two links between them.

    device 10.77.1.1 ---- 10.77.1.2 edge 10.77.2.1 ---- 10.77.2.2 cloud

The edge's kernel passes packets on, so that the device can ask the cloud without the edge's tier.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import time
from typing import Any

from benchmarks.children import python
from benchmarks.fog.namespaces import Namespace

ADDRESS = {"device": "10.77.1.1", "edge": "10.77.1.2", "cloud": "10.77.2.2"}
_EDGE_UP = "10.77.2.1"
_SO_TIMESTAMPNS = 35
_PACKET = 1472  # of UDP, in an IP packet of 1,500 bytes


class Network:
    """The three namespaces and the process that is their links."""

    def __init__(self) -> None:
        self.at = {name: Namespace(name) for name in ADDRESS}
        device, edge, cloud = self.at.values()
        ends = (
            device.tun("uplink", f"{ADDRESS['device']}/30"), edge.tun("downlink", f"{ADDRESS['edge']}/30"),
            edge.tun("uplink", f"{_EDGE_UP}/30"), cloud.tun("downlink", f"{ADDRESS['cloud']}/30"),
        )  # fmt: skip
        device.ip("route", "add", "default", "via", ADDRESS["edge"])
        cloud.ip("route", "add", "default", "via", _EDGE_UP)
        edge.set("net/ipv4/ip_forward", "1")
        self._links = python("benchmarks.fog.links", *map(str, ends), piped=True, pass_fds=ends)
        for end in ends:
            os.close(end)

    def shape(self, bits_per_s: float, round_trip_s: float) -> None:
        """Give both links this rate and round trip."""
        self._links.ask(shape=[bits_per_s, round_trip_s / 2])

    def count(self) -> dict[str, Any]:
        """Packets and bytes since the last question: "up" and "down", the link of the device first."""
        return self._links.ask(count=True)

    def pin(self, core: int) -> None:
        """Keep the links on a core."""
        self._links.pin({core})

    def check(self, to: str) -> dict[str, float]:
        """What the way from the device to another tier is like: round trip in ms, and Mbit/s of a burst."""
        with self.at["device"].inside():
            near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with self.at[to].inside():
            far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with near, far:
            far.bind((ADDRESS[to], 0))
            near.connect(far.getsockname())
            near.settimeout(5)
            far.settimeout(5)
            trips = [_round_trip(near, far) for _ in range(9)]
            return {"round_trip_ms": statistics.median(trips) * 1e3, "mbit_per_s": _burst(near, far) / 1e6}

    def stop(self) -> None:
        """End the links; the namespaces end with the processes inside."""
        self._links.stop()
        for each in self.at.values():
            each.close()


def _round_trip(near: socket.socket, far: socket.socket) -> float:
    begin = time.perf_counter()
    near.send(b"?")
    _, sender = far.recvfrom(16)
    far.sendto(b"!", sender)
    near.recv(16)
    return time.perf_counter() - begin


def _burst(near: socket.socket, far: socket.socket, packets: int = 40) -> float:
    """Bits per second at which packets that were sent at once arrive, IP headers counted, by the kernel's clock."""
    far.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    for _ in range(packets):
        near.send(bytes(_PACKET))
    moments = []
    for _ in range(packets):
        _, ((_, _, stamp), *_), _, _ = far.recvmsg(_PACKET, 64)
        seconds, nanoseconds = struct.unpack("qq", stamp)
        moments.append(seconds + nanoseconds * 1e-9)
    return (packets - 1) * 1500 * 8 / (moments[-1] - moments[0])
