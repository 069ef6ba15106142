"""The model card of a version: what it is for, what was measured, by which data, and who said yes. HTML and Markdown.

Written when a version is blessed, from the gate's report and the blessing alone, so that it can say nothing that was
not judged. It follows Mitchell et al., Model Cards for Model Reporting (2019), in its sections. The page is one file
without scripts or addresses to load; all that comes from data or people is escaped, and the drawing stands in it as an
image, in which nothing can run.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.data.spec import ColumnSpec
from include.gate.spec import GateManifest
from include.model.blessing.blessing import Blessing

HTML, MARKDOWN = "model_card.html", "model_card.md"
TEMPLATES = Path(__file__).parent / "templates"
# what stands in the metrics table, with the direction that is better
METRICS = {
    "auc": ("AUC (area under the ROC curve)", "higher"),
    "ap": ("Average precision", "higher"),
    "f1": ("F1", "higher"),
    "precision": ("Precision", "higher"),
    "recall": ("Recall (sensitivity)", "higher"),
    "specificity": ("Specificity", "higher"),
    "brier": ("Brier score", "lower"),
    "ece": ("Expected calibration error", "lower"),
    "cost": ("Cost a row", "lower"),
}


@dataclass(frozen=True)
class CardFacts:
    """All a card is made of. `drawing` is SVG, or empty; `params` are those of the training run."""

    manifest: GateManifest
    blessing: Blessing
    report: Mapping[str, Any]
    params: Mapping[str, str]
    run_url: str
    drawing: str = ""


def render_card(facts: CardFacts) -> dict[str, str]:
    """File name -> text, of the card in HTML and in Markdown. The same facts give the same bytes."""
    shown = _build_context(facts)
    return {HTML: _rendered("as_html.jinja", shown), MARKDOWN: _rendered("as_markdown.jinja", shown, _escape_cell)}


def _rendered(form: str, shown: Mapping[str, Any], escape: Callable[[Any], str] | None = None) -> str:
    """The one template in a form; without `escape` each value is escaped for HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def print_value(value: Any) -> Any:
        return value if escape is None or isinstance(value, Markup) else Markup(escape(value))

    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=print_value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["three"] = _format_number
    return found.get_template("model_card.jinja").render(form=form, **shown)


def render_documents(facts: CardFacts) -> dict[str, str]:
    """The card, and the blessing as people read it; the signed bytes are a tag of the version."""
    return render_card(facts) | {"blessing.json": facts.blessing.model_dump_json(indent=1)}


def render_summary(facts: CardFacts) -> str:
    """One paragraph of Markdown: the description of the version in the registry."""
    by = f", approved by {_escape_cell(facts.blessing.approval.who)}" if facts.blessing.approval else ""
    return (
        f"{_escape_cell(facts.params.get('candidate', 'model'))} as of {facts.blessing.as_of}; the gate said "
        f"{_escape_cell(facts.blessing.gate)}{by}. The model card is `card/{HTML}` of the [run]({facts.run_url})."
    )


def _build_context(facts: CardFacts) -> dict[str, Any]:
    checks = [{"family": "", "blocks": True, **check} for check in facts.report["checks"]]
    report, columns = {"champion_version": None, **facts.report, "checks": checks}, facts.manifest.contract.columns
    models = list(report.get("intervals") or {})
    return {
        "manifest": facts.manifest,
        "card": facts.manifest.card,
        "blessing": facts.blessing,
        "report": report,
        "params": {key: value for key, value in facts.params.items() if key not in ("candidate", "rows")},
        "candidate": facts.params.get("candidate", "not said"),
        "run_url": facts.run_url,
        "drawing": base64.b64encode(facts.drawing.encode()).decode(),
        "inputs": {name: _describe_column(spec) for name, spec in columns.items()},
        "metrics": _list_metrics(report),
        "models": models,
        "figures": [f"{figure} {model}" for model in models for figure in ("AUC", "Cost")],
        "checks": sorted(checks, key=lambda check: _VERDICT_ORDER[check["verdict"]]),
        "sentence": report["sentence"].removeprefix(f"{report['verdict']}: "),
        "warnings": [check for check in checks if check["verdict"] != "passed" and not _is_inconclusive_slice(check)],
        "untold": [check["name"].removeprefix("slice ") for check in checks if _is_inconclusive_slice(check)],
        "slices": report.get("slices") or [],
        "data": report.get("data") or {},
    }


_VERDICT_ORDER = {"refused": 0, "inconclusive": 1, "passed": 2}


def _is_inconclusive_slice(check: Mapping[str, Any]) -> bool:
    """A slice about which the rows cannot tell: there are many of them, and they say the same."""
    return bool(check["family"] == "slices") and check["verdict"] == "inconclusive"


def _list_metrics(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each metric with every model's value and interval; `scale` is what a bar's full width stands for."""
    intervals = report.get("intervals") or {}
    listed = []
    for name, (title, better) in METRICS.items():
        values = {model: estimates[name] for model, estimates in intervals.items() if name in estimates}
        if values:
            scale = max(1.0, *(high for _, _, high in values.values()))
            listed.append({"title": title, "better": better, "values": values, "scale": scale})
    return listed


def _describe_column(spec: ColumnSpec) -> str:
    if spec.kind == "category":
        return ", ".join(spec.values) or "any text"
    ends = ["" if end is None else f"{end:,.10g}" for end in (spec.min, spec.max)]
    return f"{ends[0] or 'any'} to {ends[1] or 'any'}"


def _format_number(number: Any) -> str:
    return "none" if number is None else f"{number:.3f}"


def _escape_cell(text: Any) -> str:
    """One line that neither ends a table's cell nor starts markup."""
    plain = " ".join(str(text).split())
    for sign in "\\`*_[]|<>":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
