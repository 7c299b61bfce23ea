"""An OpenAPI document as one HTML page that loads nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2330;background:#fff}
h2{margin-top:2.5rem;border-top:1px solid #d5dae3;padding-top:1.5rem}
code,pre{font:14px/1.45 ui-monospace,monospace;background:#f2f4f8;border-radius:4px}
code{padding:.1em .3em}pre{padding:.8rem;overflow:auto}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #e4e8ef}
.method{font-weight:700;color:#0a58a8}
@media (prefers-color-scheme:dark){body{color:#dde3ee;background:#12161d}code,pre{background:#1d232d}
h2,td,th{border-color:#2c3440}.method{color:#6db3ff}}
"""


def docs_page(document: dict[str, Any]) -> str:
    """The page for people.

    Args:
        document: OpenAPI 3.1.
    """
    info = document["info"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])}</h1><p>{escape(info.get('description', ''))} Version {escape(info['version'])}. "
        'For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method, path, operation)
    parts.append("<h2>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        shown = escape(json.dumps(schema, indent=1))
        parts.append(f'<h3 id="{escape(name)}">{escape(name)}</h3><pre>{shown}</pre>')
    parts.append("</body></html>")
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f'<h2><span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code></h2>'
    yield f"<p><b>{escape(operation.get('summary', ''))}.</b> {escape(operation.get('description', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield "<h3>Parameters</h3>"
        yield from _table(
            (f"{p['name']} ({p['in']})", json.dumps(p["schema"]) + f" {p.get('description', '')}") for p in parameters
        )
    if body := operation.get("requestBody"):
        yield "<h3>Body</h3>"
        yield from _table((media_type, _schema_of(content)) for media_type, content in body["content"].items())
    yield "<h3>Responses</h3>"
    yield from _table((status, response["description"]) for status, response in operation["responses"].items())


def _table(rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield "<table>"
    for first, second in rows:
        yield f"<tr><td><code>{escape(first)}</code></td><td>{escape(second)}</td></tr>"
    yield "</table>"


def _schema_of(content: dict[str, Any]) -> str:
    schema = content["schema"]
    if "$ref" in schema:
        return "schema " + str(schema["$ref"]).rsplit("/", 1)[-1]
    return json.dumps(schema)
