"""Where modules end: names for the places between operations.

Every operation knows the modules whose forward it was called in. A module ends at its last operation; one that
is called several times ends several times, and its later ends carry the number of the call: "block@1".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from training.flow import Flow


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The modules of a program by the position of their last operation."""

    last: Mapping[str, int]  # name -> position of the last operation
    work: Mapping[str, int]  # name -> FLOPs inside, per row

    def between(self, first: int, last: int) -> tuple[str, ...]:
        """Modules that end there: those with work in them first, the outermost of them first."""
        names = [name for name, at in self.last.items() if first <= at <= last]
        return tuple(sorted(names, key=lambda name: (self.work[name] == 0, name.count("."), -self.last[name])))


def module_ends(flow: Flow) -> Ends:
    """Find where every module of a program ends."""
    last: dict[str, int] = {}
    work: dict[str, int] = {}
    for position, node in enumerate(flow.program.nodes):
        for name in modules_of(node):
            last[name] = position
            work[name] = work.get(name, 0) + flow.flops[position]
    return Ends(last=last, work=work)


def modules_of(node: fx.Node) -> tuple[str, ...]:
    """Names of the modules that an operation was called in, outermost first, without the network itself."""
    names = []
    for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
        call = str(key).partition("@")[2]
        name = str(path).removeprefix("L['self'].")
        if name and not name.startswith("_empty_nn_module_stack"):
            names.append(f"{name}@{call}" if call else name)
    return tuple(names)
