"""Run `torch.export` on a network in one mode, quietly, and leave the network as it was."""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from common.errors import ConfigError
from training.example import ROWS, Example


def check_runs(model: nn.Module, example: Example) -> Tensor:
    """Run the network on the example as it serves; returns its logits.

    Raises:
        ConfigError: when it raises, or returns no tensor that must be the logits.
    """
    args, kwargs = example.rows(ROWS).arguments
    with in_mode(model, training=False), torch.no_grad():
        try:
            output = model(*args, **kwargs)
        except Exception as error:  # whatever forward raises
            shapes = ", ".join(f"{n} {str(t.dtype)[6:]} {list(t.shape)}" for n, t in example.tensors.items())
            raise ConfigError(f"The network does not take the example, {shapes}: {first_line(error)}") from None
    logits: Tensor | None = logits_in(output)
    if logits is None:
        raise ConfigError(
            f"The network returns a {type(output).__name__}. It must return logits, alone or under the name 'logits'."
        )
    return logits


def logits_in(output: Any, kind: type[Any] = Tensor) -> Any:
    """The logits in what a network returns, or None where that is not clear.

    They are what it returns, or the only thing in it, or what is called so in a dictionary or a named tuple.

    Args:
        output: of the network.
        kind: of its leaves.
    """
    if isinstance(output, kind):
        return output
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        output = output._asdict()
    if isinstance(output, Mapping) and isinstance(output.get("logits"), kind):
        return output["logits"]
    leaves = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, kind)]
    return leaves[0] if len(leaves) == 1 else None


def export_in_mode(model: nn.Module, example: Example, *, training: bool) -> ExportedProgram:
    """Export the network in one mode, for any number of rows; its state is as before afterwards.

    Attention takes the path that is written out in operators, not the fused one that only runs while serving.

    Raises:
        Exception: whatever tracing meets; `training.refusal` makes a sentence of it.
    """
    args, kwargs = example.arguments
    dynamic = {
        name: {0: Dim.DYNAMIC} | {k + 1: Dim.DYNAMIC for k, size in enumerate(shape) if isinstance(size, str)}
        for name, shape in zip(example.keywords or example.shapes, example.shapes.values(), strict=True)
    }
    shapes = (
        dynamic if example.keywords else (tuple(dynamic.values()),) if _takes_any(model) else tuple(dynamic.values())
    )
    with in_mode(model, training=training), quiet():
        try:
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # whatever tracing meets
            if not fixes_sizes(error):
                raise
            try:  # reading forward's bytecode is slower and takes fewer networks, but len() does not fix a size there
                return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=True)
            except Exception:  # no better: the first error says more
                raise error from None


def fixes_sizes(error: Exception) -> bool:
    """Whether tracing failed because forward makes a plain number of a size that may differ."""
    text = str(error)
    return type(error).__name__ != "GuardOnDataDependentSymNode" and (
        "Constraints violated" in text or "specialized" in text
    )


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Switch a network to one mode, and every module of it back afterwards."""
    modes = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model.train(training)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def quiet() -> Iterator[None]:
    """Torch tells at length what it meets while tracing; a refusal says it in a sentence."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _takes_any(model: nn.Module) -> bool:
    """Whether forward takes its tensors as *args, which torch.export describes as one argument."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(model.forward).parameters.values())
