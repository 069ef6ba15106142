"""The gate's report as one self-contained HTML page, for the person who has to say yes or no.

Everything but the drawing is escaped by the template engine: names of columns and categories come from the data.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

TEMPLATE = "gate_page.html.jinja"


def render_gate_page(document: dict[str, Any], drawing: str) -> str:
    """`document` is gate.json; `drawing` is SVG of our own making."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=select_autoescape(default=True))
    return environment.get_template(TEMPLATE).render(gate=document, drawing=Markup(drawing))
