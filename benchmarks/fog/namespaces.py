"""Network namespaces without names: each lives as long as a process in it or a descriptor of it, and no longer.

However the benchmark ends, nothing is left behind, and no name or address can meet another's.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"
_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x0001 | 0x1000  # IFF_TUN | IFF_NO_PI
_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> str | None:
    """Why namespaces and links cannot be made here, in one sentence; None when they can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "The links need root, to make network namespaces and to slow a core down."
    if shutil.which("ip") is None:
        return "The links need the command `ip` (Debian package iproute2)."
    if not os.path.exists("/dev/net/tun"):
        return "The links need /dev/net/tun, TUN devices."
    if len(os.sched_getaffinity(0)) < 2:
        return "A slowed device needs a core of its own; this process may use only one."
    try:
        Namespace("probe").close()
    except OSError as error:
        return f"The links need network namespaces: {error.strerror}."
    return None


class Namespace:
    """A network of its own, with loopback up.

    Raises:
        OSError: when it may not be made.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        home = os.open(_HERE, os.O_RDONLY)
        try:
            _check(_libc.unshare(_CLONE_NEWNET))
            self._fd = os.open(_HERE, os.O_RDONLY)
            _check(_libc.setns(home, _CLONE_NEWNET))
        finally:
            os.close(home)
        self.ip("link", "set", "lo", "up")
        self.set("net/ipv6/conf/all/disable_ipv6", "1")  # it would send packets of its own
        self.set("net/ipv4/tcp_no_metrics_save", "1")  # what one link taught says nothing about the next

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets and processes made here belong to this network."""
        home = os.open(_HERE, os.O_RDONLY)
        try:
            _check(_libc.setns(self._fd, _CLONE_NEWNET))
            try:
                yield
            finally:
                _check(_libc.setns(home, _CLONE_NEWNET))
        finally:
            os.close(home)

    def ip(self, *arguments: str) -> None:
        """Run `ip` inside."""
        with self.inside():
            subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    def set(self, key: str, value: str) -> None:
        """Set a kernel parameter of this network."""
        with self.inside():
            path = Path("/proc/sys") / key
            if path.exists():
                path.write_text(value)

    def tun(self, device: str, address: str) -> int:
        """Make a TUN device with this address and prefix; the descriptor gives and takes its packets."""
        with self.inside():
            fd = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", device.encode(), _TUN_WITHOUT_HEADER))
        self.ip("addr", "add", address, "dev", device)
        self.ip("link", "set", device, "up")
        return fd

    def close(self) -> None:
        """Let it go; it ends with the last process inside."""
        os.close(self._fd)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
