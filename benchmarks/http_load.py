"""Closed-loop HTTP/1.1 load from a process of its own: the same few instructions per request for every server.

Each of the clients keeps one connection and sends its next request when the last one is answered. With one
client the socket blocks, with several an epoll loop serves them all. Questions come as JSON lines on standard
input: {"port", "form", "clients", "seconds", "warm"}; the answer holds latencies in microseconds and the rate.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time
from typing import Any

from benchmarks.bodies import accepted_inputs, requests, row_requests
from offramp.load_report import percentile

_GIVE_UP_S = 20.0


class Connection:
    """One client: its socket, and the reply that it waits for."""

    def __init__(self, port: int, first: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_GIVE_UP_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.next = first
        self.sent = 0
        self.buffer = b""

    def complete(self, data: bytes) -> bytes | None:
        """Take what arrived; the body once all of it is there. Raises RuntimeError on any status but 200."""
        data = self.buffer + data if self.buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.buffer = data
            return None
        if not data.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server replied {data[:300]!r}")
        head = data[:end].lower()
        at = head.find(b"content-length:")
        if at < 0:
            raise RuntimeError(f"a reply without content-length: {data[:300]!r}")
        line = head.find(b"\r\n", at)
        wanted = end + 4 + int(head[at + 15 : line if line > 0 else len(head)])
        if len(data) < wanted:
            self.buffer = data
            return None
        self.buffer = b""
        return data[end + 4 :]


def one_client(port: int, bodies: list[bytes], seconds: float) -> tuple[list[int], int]:
    """Latencies in nanoseconds, one per request, and the nanoseconds that all took."""
    client = Connection(port, 0)
    taken: list[int] = []
    try:
        begin = now = time.perf_counter_ns()
        end = begin + int(seconds * 1e9)
        while now < end:
            client.socket.sendall(bodies[client.next % len(bodies)])
            client.next += 1
            while client.complete(client.socket.recv(65536)) is None:
                pass
            done = time.perf_counter_ns()
            taken.append(done - now)
            now = done
        return taken, now - begin
    finally:
        client.socket.close()


def many_clients(port: int, bodies: list[bytes], clients: int, seconds: float, warm: float) -> tuple[list[int], int]:
    """As `one_client`, with so many connections that each have one request in flight; `warm` seconds do not count."""
    poll = select.epoll()
    by_fd = {}
    for number in range(clients):
        client = Connection(port, number * 7)
        client.socket.setblocking(False)
        by_fd[client.socket.fileno()] = client
        poll.register(client.socket.fileno(), select.EPOLLIN)
    taken: list[int] = []
    clock = time.perf_counter_ns
    try:
        now = clock()
        begin = now + int(warm * 1e9)
        end = begin + int(seconds * 1e9)
        for client in by_fd.values():
            client.sent = clock()
            client.socket.sendall(bodies[client.next % len(bodies)])
        while now < end:
            events = poll.poll(_GIVE_UP_S)
            if not events:
                raise RuntimeError(f"no reply within {_GIVE_UP_S:g} s")
            for fd, _ in events:
                client = by_fd[fd]
                data = client.socket.recv(65536)
                if not data:
                    raise RuntimeError("the server closed a connection")
                if client.complete(data) is None:
                    continue
                now = clock()
                if now > begin:
                    taken.append(now - client.sent)
                client.next += 1
                client.sent = now
                client.socket.sendall(bodies[client.next % len(bodies)])
        return taken, now - begin
    finally:
        poll.close()
        for client in by_fd.values():
            client.socket.close()


def ask_once(port: int, request: bytes) -> Any:
    """The JSON reply to one request."""
    client = Connection(port, 0)
    try:
        client.socket.sendall(request)
        while (body := client.complete(client.socket.recv(65536))) is None:
            pass
        return json.loads(body)
    finally:
        client.socket.close()


def main() -> None:
    inputs = accepted_inputs()
    prepared: dict[str, list[bytes]] = {}
    gc.disable()  # the few lists here hold no cycles
    for line in sys.stdin:
        asked = json.loads(line)
        form = asked["form"]
        if form not in prepared:
            prepared[form] = row_requests(form, inputs) if ":" in form else requests(form, inputs)
        bodies, warm = prepared[form], asked.get("warm", 0.1)
        used = time.process_time()
        if asked["clients"] == 1:
            taken, elapsed = one_client(asked["port"], bodies, asked["seconds"])
        else:
            taken, elapsed = many_clients(asked["port"], bodies, asked["clients"], asked["seconds"], warm)
        used = time.process_time() - used
        whole = elapsed / 1e9 + (warm if asked["clients"] > 1 else 0)
        taken.sort()
        reply = {
            "count": len(taken),
            "rate": len(taken) / elapsed * 1e9,
            "p50_us": percentile(taken, 0.5) / 1e3,
            "p95_us": percentile(taken, 0.95) / 1e3,
            "p99_us": percentile(taken, 0.99) / 1e3,
            "client_cpu": used / whole,  # share of a core that the load itself took
        }
        print(json.dumps(reply), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
