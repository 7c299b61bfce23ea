"""The OpenAPI description of `POST /predict`, written for the bundle that is served."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.limits import Limits
from common.manifest import Manifest, TensorSpec
from common.serving.core import Core
from common.serving.options import MAX_TIMEOUT_MS
from common.types import Degraded

Schema = dict[str, Any]

_ERRORS = {
    "400": "The body or a tensor is not what the bundle takes",
    "413": "More bytes, pixels or rows than accepted",
    "415": "A body type that is not taken",
    "422": "A key or a value that is not allowed",
    "429": "The tier is overloaded: retry later",
    "500": "A defect of the tier; it goes on",
    "503": "Nobody can answer now",
    "504": "The time ran out before any exit was computed",
}
_FILE_TYPES = ("application/x-npy", "image/png", "image/jpeg")


def add_predict(document: Schema, core: Core, body_types: tuple[str, ...]) -> Schema:
    """Put `POST /predict` into an OpenAPI document.

    Args:
        document: of the other routes; it is changed and returned. It defines the schema `Error`.
        core: the tier.
        body_types: what is taken for this bundle.
    """
    manifest = core.bundle.manifest
    schemas = document["components"]["schemas"]
    schemas |= {
        "Hop": _object(
            {"tier": {"type": "string"}, **{key: _MILLISECONDS for key in ("queue_ms", "compute_ms", "network_ms")}}
        ),
        "Answer": _answer_schema(manifest),
        "Answers": _object(
            {
                "request_id": {"type": "string"},
                "bundle": {"type": "string", "description": "name@digest"},
                "answers": {"type": "array", "items": _ref("Answer"), "description": "in the order of the inputs"},
            }
        ),
        "Prediction": _prediction_schema(manifest, core.limits),
    }
    responses = {"200": _json_content("One answer per input", _ref("Answers"))}
    responses |= {status: _json_content(text, _ref("Error")) for status, text in _ERRORS.items()}
    document["paths"]["/predict"] = {
        "post": {
            "operationId": "predict",
            "summary": "Answer inputs",
            "description": _description(manifest),
            "parameters": _parameters(manifest),
            "requestBody": {
                "required": True,
                "content": {media_type: _content(media_type, manifest, body_types) for media_type in body_types},
            },
            "responses": responses,
        }
    }
    return document


_MILLISECONDS: Schema = {"type": "number", "minimum": 0}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, optional: tuple[str, ...] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [key for key in properties if key not in optional],
        "additionalProperties": False,
    }


def _json_content(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _description(manifest: Manifest) -> str:
    shapes = "; ".join(
        f"{name}: {manifest.tensors[name].dtype} of shape [{', '.join(map(str, manifest.tensors[name].shape))}]"
        for name in manifest.inputs
    )
    return (
        f"Bundle {manifest.name}. A row is {shapes}. JSON and npy hold raw values as the sensor gives them; images "
        "are decoded and fitted. Options stand in the query, in the JSON object or in form fields, each only once. "
        "A row whose later exit could not be asked is answered from an earlier one, and `degraded` tells why."
    )


def _answer_schema(manifest: Manifest) -> Schema:
    unit = {"type": "number", "minimum": 0, "maximum": 1.000001}
    classes = len(manifest.classes)
    return _object(
        {
            "label": {"type": "integer", "minimum": 0, "maximum": classes - 1},
            "name": {"type": "string"},
            "confidence": {**unit, "description": "calibrated probability of the label"},
            "exit": {"type": "integer", "minimum": 0, "maximum": len(manifest.exits) - 1},
            "tier": {"type": "string", "description": "who decided"},
            "degraded": {"enum": [None, *(str(reason) for reason in Degraded)]},
            "hops": {"type": "array", "items": _ref("Hop"), "description": "from the entry tier to who decided"},
            "probabilities": {"type": "array", "items": unit, "minItems": classes, "maxItems": classes},
        },
        optional=("probabilities",),
    )


def _option_schemas(manifest: Manifest) -> Schema:
    return {
        "timeout_ms": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_MS},
        "operating_point": {"enum": list(manifest.operating_points)},
        "probabilities": {"type": "boolean", "default": False},
        "forward": {"type": "boolean", "default": True, "description": "false: never leaves this tier"},
    }


def _parameters(manifest: Manifest) -> list[Schema]:
    query = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in _option_schemas(manifest).items()
    ]
    text = {"type": "string"}
    return [
        *query,
        {"name": "x-request-id", "in": "header", "schema": text, "description": "taken over when it is well formed"},
        {"name": "traceparent", "in": "header", "schema": text, "description": "W3C trace context, passed on"},
    ]


def _prediction_schema(manifest: Manifest, limits: Limits) -> Schema:
    rows = {name: _row_schema(manifest.tensors[name], manifest) for name in manifest.inputs}
    by_name = _object(rows)
    row = by_name if len(rows) > 1 else {"anyOf": [*next(iter(rows.values()))["anyOf"], by_name]}
    options = _option_schemas(manifest)
    return _object(
        {"inputs": {"type": "array", "items": row, "minItems": 1, "maxItems": limits.batch_rows}, **options},
        optional=tuple(options),
    )


def _row_schema(spec: TensorSpec, manifest: Manifest) -> Schema:
    """One row, nested or flat."""
    number = _number_schema(spec)
    nested = number
    for size in reversed(spec.shape):
        nested = {"type": "array", "items": nested, "minItems": 1}
        if isinstance(size, int):
            nested |= {"minItems": size, "maxItems": size}
        elif size in manifest.buckets:
            nested["maxItems"] = max(manifest.buckets[size])
    count = spec.row_elements
    if count is None or len(spec.shape) == 1:
        return {"anyOf": [nested]}
    return {"anyOf": [nested, {"type": "array", "items": number, "minItems": count, "maxItems": count}]}


def _number_schema(spec: TensorSpec) -> Schema:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "b":
        return {"enum": [True, False, 0, 1]}
    if dtype.kind == "f":
        most = float(np.finfo(dtype).max)
        return {"type": "number", "minimum": -most, "maximum": most}
    info = np.iinfo(dtype)
    return {"type": "integer", "minimum": int(info.min), "maximum": int(info.max)}


def _content(media_type: str, manifest: Manifest, body_types: tuple[str, ...]) -> Schema:
    if media_type == "application/json":
        return {"schema": _ref("Prediction")}
    binary = {"type": "string", "format": "binary"}
    if media_type in _FILE_TYPES:
        return {"schema": binary}
    texts = _option_schemas(manifest)
    files = {"type": "array", "items": binary, "minItems": 1, "description": "PNG, JPEG or npy, in order"}
    schema = _object({"files": files, **texts}, optional=tuple(texts))
    file_types = [kind for kind in body_types if kind in _FILE_TYPES]
    return {"schema": schema, "encoding": {"files": {"contentType": ", ".join(file_types)}}}
