"""Where a process spends its time: py-spy's samples, added up per function.

`python -m benchmarks.profile local` shows the device under one client and under 32, `hop` both ends of a hop.
Shares are of the samples in which the process ran. "own" counts the function itself with the C code that it
calls, "with callees" all that it led to.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.paths import ROOT

_FRAME = re.compile(r"^(?P<function>.+) \((?P<file>[^:)]+)(?::(?P<line>\d+))?\)$")


def sample(pid: int, seconds: float) -> Counter[tuple[str, ...]]:
    """Stacks of a process, outermost function first, with the number of samples that showed them.

    Raises:
        RuntimeError: when py-spy is not installed or may not look.
    """
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise RuntimeError("py-spy is not installed: pip install py-spy")
    out = ROOT / "build" / "bench" / f"stacks-{pid}.txt"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [spy, "record", "--pid", str(pid), "--duration", str(round(seconds)), "--rate", "500"]
    # Not stopped for each sample: a stop shows up at the next system call, and makes such calls look expensive.
    command += ["--nonblocking", "--format", "raw", "--output", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"py-spy: {done.stderr.strip()[-300:]}")
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in out.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        if "_bootstrap " in stack:  # a thread that waits looks busy to py-spy
            continue
        stacks[tuple(map(_named, stack.split(";")))] += int(count)
    out.unlink()
    return stacks


def shares(stacks: Counter[tuple[str, ...]]) -> list[tuple[str, float, float]]:
    """(file:function, own share, share with callees), the largest own share first."""
    total = sum(stacks.values()) or 1
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for name in set(stack):
            inclusive[name] += count
    return [(name, own[name] / total, inclusive[name] / total) for name, _ in inclusive.most_common()]


def shown(stacks: Counter[tuple[str, ...]], *, top: int = 25) -> str:
    """Two lists as text: by own share, and by share with callees."""
    rows = shares(stacks)
    lines = [f"{sum(stacks.values())} samples", "own    with callees"]
    lines += [f"{a:6.1%} {b:6.1%}  {name}" for name, a, b in sorted(rows, key=lambda row: -row[1])[:top]]
    lines += ["-- by share with callees"]
    lines += [f"{a:6.1%} {b:6.1%}  {name}" for name, a, b in rows[: top + 15]]
    return "\n".join(lines)


def _named(frame: str) -> str:
    """file:function without the line; paths from the packages or the checkout on."""
    found = _FRAME.match(frame)
    if found is None:
        return frame
    file = found["file"].split("site-packages/")[-1].removeprefix(str(ROOT) + "/")
    return f"{file}:{found['function']}"


def _local() -> None:
    from benchmarks.bodies import accepted_inputs
    from benchmarks.children import python
    from benchmarks.contenders import CONTENDERS, Running

    inputs = accepted_inputs()
    load = python("benchmarks.http_load", piped=True)
    for name in ("floor", "offramp"):
        running = Running(next(each for each in CONTENDERS if each.name == name), inputs)
        running.child.resume()
        for kind in ("json", "npy"):
            for clients in (1, 32):
                load.process.stdin.write(
                    f'{{"port": {running.port}, "form": "{kind}", "clients": {clients}, "seconds": 6}}\n'.encode()
                )
                load.process.stdin.flush()
                print(f"=== {name}, {kind}, {clients}\n{shown(sample(running.child.process.pid, 5))}", flush=True)
                print(load.process.stdout.readline().decode(), flush=True)
        running.child.stop()


def _hop() -> None:
    from benchmarks.children import python
    from benchmarks.networks import hop_bundle
    from benchmarks.paths import BUILT
    from benchmarks.places import PLACES
    from benchmarks.tiers import Tiers

    tiers = Tiers("hop-profile", {"device": 1, "edge": "rest"}, bundle=hop_bundle(16))
    tiers.start("edge")
    client = python("benchmarks.hop_client", "offramp", str(tiers.config), piped=True, log=BUILT / "device.log")
    client.ask(kilobytes=16, in_flight=1, count=100)
    for child, cores in zip((client, tiers.children["edge"]), PLACES["one core"](), strict=True):
        child.pin(cores)
    for in_flight in (1, 8):
        for name, child in {"device": client, "edge": tiers.children["edge"]}.items():
            count = int(client.ask(kilobytes=16, in_flight=in_flight, count=500)["rate"] * 8)
            client.process.stdin.write(f'{{"kilobytes": 16, "in_flight": {in_flight}, "count": {count}}}\n'.encode())
            client.process.stdin.flush()
            print(f"=== {name}, 16 KB, {in_flight} in flight\n{shown(sample(child.process.pid, 5))}", flush=True)
            print(client.process.stdout.readline().decode(), flush=True)
    client.stop()
    tiers.stop()


if __name__ == "__main__":
    {"local": _local, "hop": _hop}[sys.argv[1]]()
