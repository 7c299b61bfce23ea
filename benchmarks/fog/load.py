"""Open-loop load from a process of its own, in the device's network: one line of JSON asks, one answers.

The load is that of `offramp load`: Poisson arrivals from a seed, latencies counted from when a request was due. What
was due in the first `warm` seconds is sent but not counted. Connections are open before: a caller that asks all day
has them, and a handshake's round trip would be in the p99 of whoever needs one more just then. A request without an
answer counts as the longest wait. The load shares a core with edge and cloud but stands for callers elsewhere, so that
it has real-time priority: it is not to be late because they compute.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvloop

from offramp.load_inputs import load_inputs
from offramp.load_run import Outcome, Plan, arrivals, run_load

GIVE_UP_S = 3.0
_CONNECTIONS = 32
_PRIORITY = 20  # below the links


def lists(plan: Plan, outcome: Outcome, warm_s: float) -> dict[str, Any]:
    """Per request that was due after the warm-up, in that order: milliseconds, whether forwarded, whether right.

    "right" is null where the label or the answer is missing.
    """
    answered = {sample.due_s: sample for sample in outcome.samples}
    found = [answered.get(due) for due in arrivals(plan) if due >= warm_s]
    return {
        "ms": [round((plan.give_up_s if each is None else each.latency_s) * 1e3, 3) for each in found],
        "forwarded": [each is not None and each.tier != each.entry for each in found],
        "right": [None if each is None else each.right for each in found],
        "unanswered": sum(each is None for each in found),
        "degraded": sum(each is not None and each.degraded is not None for each in found),
        "exits": _counts([each.exit for each in found if each is not None]),
        "sent": outcome.sent + 1,  # all of them, and the first, which tells a wrong address
        "late_ms": round(outcome.lateness_s * 1e3, 3),
    }


def _counts(exits: list[int]) -> dict[str, int]:
    return {str(each): exits.count(each) for each in sorted(set(exits))}


def main() -> None:
    inputs = load_inputs(Path(sys.argv[1]), "png")
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    gc.disable()  # until a question is answered
    for line in sys.stdin:
        asked = json.loads(line)
        plan = Plan(
            url=asked["url"], query=f"?operating_point={asked['point']}", rate=asked["rate"],
            seconds=asked["seconds"] + asked["warm"], seed=asked["seed"], give_up_s=GIVE_UP_S,
            connections=_CONNECTIONS,
        )  # fmt: skip
        try:
            reply = lists(plan, uvloop.run(run_load(plan, inputs)), asked["warm"])
        except Exception as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
