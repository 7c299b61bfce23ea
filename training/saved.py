"""Read a program that `torch.export.save` wrote (.pt2), without running anything that is in the file.

Such a file holds a graph as JSON and weights as plain bytes. It may also hold pickles, compiled libraries and
formulas that are evaluated as Python; a file with those is refused before torch reads it.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from common.errors import ConfigError
from training.tracing import first_line, quiet

_FORMULAS = "Add|Mul|Pow|Integer|Rational|FloorDiv|CleanDiv|Mod|PythonMod|Max|Min|Eq|Ne|Gt|Ge|Lt|Le|And|Or|Not"
_FORMULA = re.compile(
    rf"(?:(?:{_FORMULAS})\(|Symbol\('[a-z]+\d+'|, (?:positive|nonnegative|integer)=True|, |\)|-?\d+|true|false)*"
)
_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|higher_order)\.\w+(?:\.\w+)?|torch\.sym_\w+|math\.(?:ceil|floor|trunc|sqrt)"
    r"|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)


def load_program(path: Path) -> ExportedProgram:
    """Read a saved program.

    Raises:
        ConfigError: when it cannot be read, or holds more than a graph and weights.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        _vet(raw, path)
        with quiet():
            program = torch.export.load(io.BytesIO(raw))
    except ConfigError:
        raise
    except Exception as error:  # a damaged archive fails anywhere
        raise ConfigError(f"{path} is not a program saved by torch.export.save: {first_line(error)}") from None
    return program


def _vet(raw: bytes, path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        files = {name.partition("/")[2]: name for name in archive.namelist()}
        models = [name for name in files if name.startswith("models/")]
        if models != ["models/model.json"]:
            raise ConfigError(f"{path} holds {len(models)} programs. It must hold one, as torch.export.save writes it.")
        for name in files:
            if name.startswith("data/aotinductor") or name.endswith((".so", ".cpp")):
                raise ConfigError(f"{path} holds compiled code, {name}. Save the program with torch.export.save.")
            if name.endswith(".pt") and not name.startswith("data/sample_inputs/"):
                raise ConfigError(
                    f"{path} holds pickled weights, {name}. Save it again with torch {torch.__version__}."
                )
            if name.startswith("data/sample_inputs/"):
                torch.load(io.BytesIO(archive.read(files[name])), weights_only=True)
            if name.endswith("_config.json"):
                _vet_payloads(json.loads(archive.read(files[name])), path)
        for key, value in _strings(json.loads(archive.read(files["models/model.json"]))):
            if key == "expr_str" and not _FORMULA.fullmatch(value):
                raise ConfigError(f"{path} holds the formula {value[:60]!r}, which is none of sizes.")
            if key == "target" and not _OPERATOR.fullmatch(value):
                raise ConfigError(f"{path} calls {value[:60]!r}. A program may call PyTorch's own operators only.")


def _vet_payloads(config: Any, path: Path) -> None:
    for name, payload in config["config"].items():
        if payload.get("use_pickle") or not str(payload["path_name"]).startswith(("weight_", "tensor_")):
            raise ConfigError(f"{path} holds {name!r} as a pickle. Only plain tensors are read.")


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a JSON document with the key it stands under."""
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _strings(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
    elif isinstance(value, str):
        yield key, value
