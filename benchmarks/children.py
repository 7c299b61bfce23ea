"""Child processes of a benchmark: started, paused while others are measured, and always ended, by their ids."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paths import ROOT

START_S = 60.0
_PR_SET_PDEATHSIG = 1
_children: list[Child] = []
_libc = ctypes.CDLL(None)


class Child:
    """A process in a process group of its own, with whatever it starts itself.

    Args:
        command: what to run, from the root of the checkout.
        environ: added to this process's environment.
        piped: whether lines are exchanged with it over its standard input and output.
        log: takes what it prints.
        pass_fds: descriptors that it inherits.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        piped: bool = False,
        log: Path | None = None,
        pass_fds: Collection[int] = (),
    ) -> None:
        pipe = subprocess.PIPE if piped else subprocess.DEVNULL
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        errors = None if log is None else log.open("wb")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=pipe,
            stdout=pipe if piped else (errors or subprocess.DEVNULL),
            stderr=errors,
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            preexec_fn=_end_with_parent,
        )
        if errors is not None:
            errors.close()
        _pass_priority(self.process.pid)
        _children.append(self)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def pause(self) -> None:
        """Stop it from using any processor time while others are measured."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def pin(self, cores: Collection[int]) -> None:
        """Keep all its threads, and those of its own children, on these cores."""
        for pid in self.members():
            for task in Path(f"/proc/{pid}/task").iterdir():
                try:
                    os.sched_setaffinity(int(task.name), cores)
                except OSError:  # it has ended meanwhile
                    continue

    def ask(self, **question: Any) -> dict[str, Any]:
        """Send one JSON line to a piped child and wait for its JSON line.

        Raises:
            RuntimeError: when it ended instead.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self.process.args[1:4]))} ended with {self.process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def members(self) -> list[int]:
        """The ids of this process and of all that it has started."""
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
        found = [self.process.pid]
        for pid in found:
            found.extend(child for child, parent in parents.items() if parent == pid)
        return found

    def memory_mb(self) -> float:
        """Resident memory of all its processes, each with the pages that it shares, divided among sharers (PSS)."""
        return sum(_pss_kb(pid) for pid in self.members()) / 1024

    def resident_mb(self) -> float:
        """Resident memory (RSS) of its first process."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_s(self) -> float:
        """Processor time that its processes have used."""
        total = 0.0
        for pid in self.members():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def stop(self) -> None:
        """SIGTERM, then SIGKILL, to its own group."""
        if self in _children:
            _children.remove(self)
        if self.alive:
            self.resume()
            self._signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                pass
        self._signal(signal.SIGKILL)  # what it has left behind
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)  # its own group: it is the leader of a new session
        except ProcessLookupError:
            pass


def python(module: str, *arguments: str, **options: Any) -> Child:
    """A module of this checkout in this environment, as a child."""
    return Child([sys.executable, "-m", module, *arguments], **options)


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def wait_for_port(child: Child, port: int) -> None:
    """Wait until a child listens; raises RuntimeError when it ends or takes too long."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if not child.alive:
            raise RuntimeError(f"a child ended with {child.process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"a child did not listen within {START_S:g} s")


def _pass_priority(pid: int) -> None:
    """Give a child's new session the priority of this process.

    Linux's autogroups share the processor among sessions, so that `nice -n -10 make bench` alone would do
    nothing for the children.
    """
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(os.nice(0)))
    except OSError:  # no autogroups, or no right to raise the priority
        pass


def _end_with_parent() -> None:
    """However this process ends, its children do not outlive it (Linux), not even stopped ones."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _pss_kb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1])
    except OSError:
        pass
    return 0.0


@atexit.register
def _stop_all() -> None:
    for child in list(_children):
        child.stop()
