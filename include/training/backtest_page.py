"""The backtest's page: every fold beside the others, one plot and one table. One self-contained HTML file.

The plot is drawn by hand as SVG: a handful of points with intervals needs no plotting library, which would take longer
to import than the page to make.
"""

from collections.abc import Callable, Sequence
from html import escape

from include.kernel.page_style import STYLE
from include.training.core.backtest import Estimate, Fold, ModelEvaluation, has_mixed_code

WIDTH, HEIGHT, LEFT, BOTTOM = 860, 300, 56, 36
PAGE_STYLE = """
svg{width:100%;height:auto;margin:1rem 0} .num{text-align:right;font-variant-numeric:tabular-nums} small{color:#66756c}
"""
HEADINGS = (
    "as of",
    "judged by",
    "rows",
    "positive",
    "model",
    "AUC",
    "AUC, model before",
    "cost a row",
    "cost saved a row",
)


def render_backtest_page(folds: Sequence[Fold]) -> str:
    """`folds` oldest first, at least one."""
    body = [
        f"<h1>Walk-forward backtest, {len(folds)} fold{'s' if len(folds) > 1 else ''}</h1>",
        "<p>Each row is a training of the past, which knew what was known on its day, and the days that followed it. "
        "The model before is that of the fold before, on the same rows: what would have happened without this "
        "training. No model here was ever registered.</p>",
        _render_warning(folds),
        _render_plot(folds),
        f"<table><tr>{''.join(f'<th>{escape(heading)}</th>' for heading in HEADINGS)}</tr>",
        *(_render_row(fold) for fold in folds),
        "</table>",
        f"<p><small>manifest {escape(folds[0].manifest[:12])}, intervals as by gate.confidence</small></p>",
    ]
    head = f"<!doctype html><meta charset=utf-8><title>Backtest</title><style>{STYLE}{PAGE_STYLE}</style>"
    return f"{head}{''.join(body)}"


def _render_warning(folds: Sequence[Fold]) -> str:
    if not has_mixed_code(folds):
        return ""
    return (
        '<p class="alarm">These folds were made by different versions of the code; backfill them again to compare.</p>'
    )


def _render_row(fold: Fold) -> str:
    better = fold.saved is not None and fold.saved.low > 0
    worse = fold.saved is not None and fold.saved.high < 0
    state = "calm" if better else "alarm" if worse else ""
    cells = (
        _render_cell(str(fold.as_of)),
        _render_cell(f"{fold.first} to {fold.last}"),
        _render_cell(str(fold.rows), "num"),
        _render_cell(str(fold.positives), "num"),
        _render_cell(
            f"{fold.model.candidate} {fold.model.digest.removeprefix('sha256:')[:8]}, {fold.trained_rows} rows"
        ),
        _render_cell(fold.model.auc.sentence, "num"),
        _render_cell(fold.before.auc.sentence if fold.before else "none", "num"),
        _render_cell(fold.model.cost.sentence, "num"),
        _render_cell(fold.saved.sentence if fold.saved else "", f"num {state}"),
    )
    return f"<tr>{''.join(cells)}</tr>"


def _render_cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>'


def _render_plot(folds: Sequence[Fold]) -> str:
    """AUC over time: filled points with intervals for each fold's own model, hollow ones for the model before."""
    models = [model for fold in folds for model in (fold.model, fold.before) if model]
    low, high = min(model.auc.low for model in models), max(model.auc.high for model in models)
    step = (WIDTH - LEFT) / len(folds)

    def compute_height(value: float) -> float:
        return (HEIGHT - BOTTOM) * (1 - (value - low) / ((high - low) or 1)) * 0.9 + 12

    marks = [
        _render_marks(fold, LEFT + step * (number + 0.5), compute_height, label=number % max(1, len(folds) // 12) == 0)
        for number, fold in enumerate(folds)
    ]
    ticks = (low + (high - low) * part / 4 for part in range(5))
    lines = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH}" y1="{compute_height(value):.1f}" '
        f'y2="{compute_height(value):.1f}" stroke="#dde5e0"/>'
        f'<text x="0" y="{compute_height(value) + 4:.1f}" font-size="12">{value:.3f}</text>'
        for value in ticks
    )
    title = "<title>AUC of each fold with its interval; hollow: the model before, on the same rows</title>"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{title}{lines}{"".join(marks)}</svg>'


def _render_marks(fold: Fold, x: float, compute_height: Callable[[float], float], *, label: bool) -> str:
    drawn = _render_mark(fold.model, x, compute_height, "#2f7d4f")
    if fold.before:
        drawn += _render_mark(fold.before, x + 10, compute_height, "none")
    if label:
        drawn += f'<text x="{x:.1f}" y="{HEIGHT - 8}" font-size="12" text-anchor="middle">{fold.as_of}</text>'
    return drawn


def _render_mark(model: ModelEvaluation, x: float, compute_height: Callable[[float], float], fill: str) -> str:
    area: Estimate = model.auc
    line = f'x1="{x:.1f}" x2="{x:.1f}" y1="{compute_height(area.low):.1f}" y2="{compute_height(area.high):.1f}"'
    return (
        f'<line {line} stroke="#9bb8a6" stroke-width="2"/>'
        f'<circle cx="{x:.1f}" cy="{compute_height(area.value):.1f}" r="5" fill="{fill}" stroke="#2f7d4f"/>'
    )
