"""Say in a sentence why a network cannot be captured, where, and up to which legal cut it can."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from common.errors import ConfigError
from training.example import BATCH, Example
from training.flow import flow_of
from training.places import MAX_TENSORS, legal_cuts
from training.program import program_of
from training.tracing import export_in_mode, first_line, fixes_sizes

_ON_DATA = ("data-dependent", "data dependent", ".numpy()", ".tolist()", "unbacked", "aten._local_scalar_dense")
_OWN = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_PREFIX = "network."

Call = tuple[str, int]  # module, how many of its calls came before


def refusal(model: nn.Module, example: Example, error: Exception) -> ConfigError:
    """The error to raise when capturing `model` failed with `error`."""
    calls = _finished(model, example)
    front = _longest_front(model, example, calls)
    known = f"The nearest legal cut in front of that is {front!r}." if front else "No legal cut lies in front of that."
    return ConfigError(f"The network cannot be cut into stages: {why(example, error)}{_where(error)}. {known}")


def why(example: Example, error: Exception) -> str:
    """What of forward made `torch.export` fail, as a part of a sentence."""
    text = str(error)
    if type(error).__name__ == "GuardOnDataDependentSymNode" or any(word in text for word in _ON_DATA):
        return "its forward branches on data or turns data into numbers"
    if fixes_sizes(error):
        symbols = [symbol for shape in example.shapes.values() for symbol in shape if isinstance(symbol, str)]
        fixed = BATCH if "size()[0]" in text or not symbols else symbols[0]
        what = "rows" if fixed == BATCH else fixed
        causes = "len(), int(), range(), a plain number in view() or max_pool1d"
        return f"its forward fixes the number of {what}, which {causes} do"
    return f"torch.export fails with {first_line(error).rstrip('.')!r}"


def _where(error: Exception) -> str:
    """The line of the user's code that was running, or nothing."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*_OWN, "<"))]
    users = [frame for frame in frames if frame.line and "importlib" not in frame.filename]
    if not users or "export" in (users[-1].line or ""):
        return ""
    frame = users[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno}: `{frame.line}`)"


def _finished(model: nn.Module, example: Example) -> list[Call]:
    """The module calls that are over, in order, when capturing fails."""
    calls: list[Call] = []
    counts: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        if name:

            def note(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                calls.append((name, counts.get(name, 0)))
                counts[name] = counts.get(name, 0) + 1

            handles.append(module.register_forward_hook(note))
    try:
        export_in_mode(model, example, training=False)
    except Exception:  # the one that is to be explained
        pass
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _longest_front(model: nn.Module, example: Example, calls: list[Call]) -> str | None:
    """The last legal cut of the longest part that can be captured, found by halving."""
    best: str | None = None
    low, high = 0, len(calls)
    probe = high - 1  # whatever fails, it most likely lies behind the last call
    while low < high:
        try:
            best = _last_cut(model, example, calls[probe]) or best
            low = probe + 1
        except Exception:  # this part fails as well
            high = probe
        probe = (low + high) // 2
    return best


def _last_cut(model: nn.Module, example: Example, call: Call) -> str | None:
    front = _Front(model, call)
    exported = export_in_mode(front, example, training=False)
    program = program_of(exported, example, "serve", prefix=_PREFIX)
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors.update({f"constants.serve_{name.replace('.', '_')}": t for name, t in exported.constants.items()})
    cuts, _ = legal_cuts(flow_of(program, tensors, example), tensors, MAX_TENSORS, open_end=True)
    names = (name for cut in reversed(cuts) for name in (cut.name, *cut.also) if name.startswith(_PREFIX))
    return next((name.removeprefix(_PREFIX) for name in names), None)


class _Front(nn.Module):
    """A network up to the end of one call of one of its modules.

    From then on every module returns at once, and whatever forward does with that is no matter.
    """

    def __init__(self, network: nn.Module, call: Call) -> None:
        super().__init__()
        self.network = network
        self.call = call

        def forward(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
            return self._run(*args, **kwargs)

        forward.__signature__ = inspect.signature(network.forward)  # type: ignore[attr-defined]
        self.forward = forward

    def _run(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        reached: list[Any] = []
        left = self.call[1]
        target = self.network.get_submodule(self.call[0])

        def guarded(module: nn.Module) -> Callable[..., Any]:
            forward = module.forward

            def run(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                if reached:
                    return None
                try:
                    output = forward(*args, **kwargs)
                except Exception:
                    if reached:
                        return None
                    raise
                if module is target and not reached:
                    left -= 1
                    if left < 0:
                        reached.append(output)
                return None if reached else output

            return run

        modules = [module for module in self.network.modules() if "forward" not in vars(module)]
        try:
            for module in modules:
                module.forward = guarded(module)
            self.network(*args, **kwargs)
        finally:
            for module in modules:
                del module.forward
        return tuple(leaf for leaf in pytree.tree_leaves(reached) if isinstance(leaf, Tensor))
