"""Runtimes: what runs a stage, behind one small protocol, chosen by name.

| name | runs on | precision |
|---|---|---|
| `onnxruntime` | the CPU; always there | float32 |
| `onnxruntime:PROVIDER` | an accelerator through one of onnxruntime's execution providers, such as `cuda` | float32 |
| `openvino` | the CPU; an extra | float32 |
| `openvino-bf16` | a CPU with bfloat16 instructions; an extra | bfloat16 |

A runtime reads and writes named tensors whose first axis is the row. `common.runtimes.auto` measures and picks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from common.errors import ConfigError
from common.runtimes.onnx import OnnxStage, providers
from common.runtimes.openvino import OpenvinoStage, require
from common.runtimes.runner import Loader, StageRunner

__all__ = ["AUTO", "RUNTIMES", "Loader", "StageRunner", "candidates", "configured", "precision_of", "runtime_named"]

AUTO = "auto"  # a tier's choice, not a runtime: see `common.runtimes.auto`
_PROVIDER = "onnxruntime:"
_OPENVINO = {"openvino": "float32", "openvino-bf16": "bfloat16"}

RUNTIMES: dict[str, Loader] = {"onnxruntime": OnnxStage.load} | {
    name: partial(OpenvinoStage.load, precision=precision) for name, precision in _OPENVINO.items()
}


def precision_of(name: str) -> str:
    """What a runtime computes in."""
    return _OPENVINO.get(name, "float32")


def configured(configuration: Mapping[str, Any] | None) -> str:
    """The name of the runtime that an operating point's configuration was measured with."""
    found = configuration or {}
    runtime, precision = found.get("runtime", "onnxruntime"), found.get("precision", "float32")
    same = [name for name in RUNTIMES if name.startswith(str(runtime)) and precision_of(name) == precision]
    return same[0] if same else str(runtime)


def candidates(precision: str) -> dict[str, Loader]:
    """The runtimes of a precision that may be here; loading one tells."""
    found = {name: load for name, load in RUNTIMES.items() if precision_of(name) == precision}
    if precision == "float32" and "cuda" in providers():
        found[_PROVIDER + "cuda"] = runtime_named(_PROVIDER + "cuda")
    return found


def runtime_named(name: str, *, also: Sequence[str] = ()) -> Loader:
    """The loader of a runtime that is here.

    Args:
        name: one of RUNTIMES, or "onnxruntime:" and the short name of an execution provider.
        also: what the caller accepts beside them, for the message.

    Raises:
        ConfigError: in one sentence, when there is no such runtime or this machine lacks it.
    """
    if name.startswith(_PROVIDER):
        return partial(OnnxStage.load, provider=_provider(name.removeprefix(_PROVIDER)))
    if name not in RUNTIMES:
        known = ", ".join((*RUNTIMES, *also))
        raise ConfigError(f"runtime is {name[:80]!r}. It must be one of {known} or {_PROVIDER}PROVIDER.")
    if name in _OPENVINO:
        require(_OPENVINO[name])
    return RUNTIMES[name]


def _provider(short: str) -> str:
    here = providers()
    if short not in here:
        raise ConfigError(
            f"runtime is {_PROVIDER + short[:80]!r}, which the installed onnxruntime lacks. It has {', '.join(here)}."
        )
    return here[short]
