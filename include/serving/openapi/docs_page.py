"""The OpenAPI document as a page. No script and nothing from elsewhere: a server may stand where there is no internet.

What the usual pages can do beyond this, trying a route by a click, curl does from the examples.
"""

import json
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
summary { cursor: pointer; padding: .3rem 0 } code, pre { font: 14px/1.4 ui-monospace, monospace }
pre { background: #f4f4f2; padding: .8rem; overflow-x: auto } b { display: inline-block; width: 3.5rem; color: #286 }
table { border-collapse: collapse } td, th { text-align: left; padding: .15rem 1rem .15rem 0; vertical-align: top }
"""


def render_page(document: dict[str, Any]) -> str:
    info = document["info"]
    title, about = escape(info["title"]), escape(info["description"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<style>{STYLE}</style></head><body><h1>{title}</h1><p>{about} <a href="openapi.json">openapi.json</a></p>'
        f"{_render_columns(document['components']['schemas']['Row'])}<h2>Routes</h2>{''.join(_render_routes(document['paths']))}"
        "</body></html>"
    )


def _render_columns(row: dict[str, Any]) -> str:
    lines = [
        _render_line(name, _find_kind(schema), name in row["required"]) for name, schema in row["properties"].items()
    ]
    return f"<h2>Columns</h2><table><tr><th>Name<th>Kind<th>May be missing{''.join(lines)}</table>"


def _find_kind(schema: dict[str, Any]) -> str:
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return str(kinds[0])


def _render_line(name: str, kind: str, required: bool) -> str:
    return f"<tr><td><code>{escape(name)}</code><td>{kind}<td>{'no' if required else 'yes'}"


def _render_routes(paths: dict[str, Any]) -> list[str]:
    methods = ("get", "post")
    return [
        _render_route(method, path, item[method])
        for path, item in paths.items()
        for method in methods
        if method in item
    ]


def _render_route(method: str, path: str, operation: dict[str, Any]) -> str:
    bodies = operation.get("requestBody", {}).get("content", {})
    examples = [
        _render_example(kind, each["value"])
        for kind, body in bodies.items()
        for each in body.get("examples", {}).values()
    ]
    answers = "".join(
        f"<tr><td>{status}<td>{escape(response['description'])}" for status, response in operation["responses"].items()
    )
    called = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}"
    return f"<details><summary>{called}</summary>{''.join(examples)}<table>{answers}</table></details>"


def _render_example(kind: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=1)
    return f"<p><code>{escape(kind)}</code></p><pre>{escape(text)}</pre>"
