"""The cuts of a network that a user names, as `offramp cuts` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from common.errors import ConfigError
from training.cost import costs
from training.cuts import Places, captured_with, places_of
from training.example_text import example_from
from training.factory import Loaded, is_reference, load_model
from training.models import named_model
from training.network import MultiExitNetwork
from training.recipe import load_recipe


@dataclass(frozen=True, kw_only=True)
class ListedTensor:
    """A tensor that crosses a cut."""

    dtype: str
    shape: tuple[int | str, ...]  # of a row
    bytes: int  # per row, uncoded, at the example's sizes


@dataclass(frozen=True, kw_only=True)
class ListedCut:
    """A legal cut; FLOPs and bytes are per row."""

    name: str
    also: tuple[str, ...]  # other names of the same place
    flops_before: int
    flops_after: int
    share: float  # of the FLOPs in front of it
    parameters_before: int
    parameters_after: int
    bytes: int
    tensors: tuple[ListedTensor, ...]


@dataclass(frozen=True, kw_only=True)
class ListedPlace:
    """A place where the network cannot be cut."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CutList:
    """All cuts of a network, in order."""

    flops: int  # per row
    parameters: int
    cuts: tuple[ListedCut, ...]
    closed: tuple[ListedPlace, ...]


def list_cuts(reference: str, folder: Path, example: Sequence[str], *, max_tensors: int) -> CutList:
    """List the cuts of a network.

    Args:
        reference: FILE.py:FUNCTION, FILE.pt2, or a recipe.
        folder: that a relative path starts from.
        example: see `training.example_text`; empty: the network brings one.
        max_tensors: how many tensors may cross.

    Raises:
        ConfigError: when there is no such network, it has no example, or it cannot be captured.
    """
    loaded = _loaded(reference, folder)
    if isinstance(loaded.model, MultiExitNetwork):
        return _between_stages(loaded.model)
    given, shapes = example_from(example) if example else (loaded.example, None)
    if given is None and isinstance(loaded.model, nn.Module):
        raise ConfigError(f"{reference} brings no example. Say with --example what a row is, such as 3x224x224.")
    _, captured = captured_with(loaded.model, given, shapes)
    return _listed(places_of(captured, max_tensors=max_tensors))


def _loaded(reference: str, folder: Path) -> Loaded:
    if is_reference(reference):
        return load_model(reference, folder)
    if reference.endswith((".yaml", ".yml")):
        return named_model(load_recipe(folder / reference))
    raise ConfigError(f"{reference!r} names no network. It must be FILE.py:FUNCTION, FILE.pt2 or a recipe (.yaml).")


def _listed(places: Places) -> CutList:
    tensors = {id(tensor): tensor for tensor in places.captured.tensors.values() if isinstance(tensor, nn.Parameter)}
    return CutList(
        flops=places.flops,
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        cuts=tuple(
            ListedCut(
                name=cut.name,
                also=cut.also,
                flops_before=cut.flops_before,
                flops_after=cut.flops_after,
                share=round(cut.share, 6),
                parameters_before=cut.parameters_before,
                parameters_after=cut.parameters_after,
                bytes=cut.bytes,
                tensors=tuple(ListedTensor(dtype=t.dtype, shape=t.shape, bytes=t.bytes) for t in cut.tensors),
            )
            for cut in places.cuts
        ),
        closed=tuple(
            ListedPlace(name=closed.names[0] if closed.names else f"operation {closed.position}", reason=closed.reason)
            for closed in places.closed
        ),
    )


def _between_stages(network: MultiExitNetwork) -> CutList:
    """The cuts that a network of stages has already; its early heads are not counted."""
    cost = costs(network)
    parameters = [_parameters(network.bodies[k : k + 1]) for k in range(len(network.parts))]
    parameters[-1] += _parameters(network.heads[str(len(network.parts) - 1)])
    tensors = dict(zip((spec.name for spec in network.inputs), network.example(1), strict=True))
    cuts = []
    for cut in range(len(network.parts) - 1):
        tensors |= network.run_stage(cut, tensors)
        before = sum(cost.bodies[: cut + 1])
        crossing = tuple(_tensor(network, name, tensors[name]) for name in network.crossing(cut))
        cuts.append(
            ListedCut(
                name=f"behind stage {cut}",
                also=(),
                flops_before=before,
                flops_after=cost.whole - before,
                share=round(before / max(cost.whole, 1), 6),
                parameters_before=sum(parameters[: cut + 1]),
                parameters_after=sum(parameters[cut + 1 :]),
                bytes=sum(tensor.bytes for tensor in crossing),
                tensors=crossing,
            )
        )
    return CutList(flops=cost.whole, parameters=sum(parameters), cuts=tuple(cuts), closed=())


def _tensor(network: MultiExitNetwork, name: str, tensor: Tensor) -> ListedTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape = network.row_shape(name, tensor)
    return ListedTensor(dtype=dtype, shape=shape, bytes=tensor[0].numel() * tensor.element_size())


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
