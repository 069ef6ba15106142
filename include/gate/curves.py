"""The four pictures of a binary classifier, challenger over champion, as SVG text that stands in a page by itself."""

import io
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, confusion_matrix, precision_recall_curve, roc_curve

from include.gate.core.checks import Scores
from include.kernel.inference.statistics import Floats

GREEN, GREY = "#2f7d4f", "#9a9a9a"
MOST_POINTS = 400  # a curve of a hundred thousand rows looks the same and fits into a page


def draw(scores: Scores, threshold: float) -> str:
    figure = Figure(figsize=(10, 8), layout="constrained")
    roc, recall, calibration, confusion = figure.subplots(2, 2).flat
    models = [("champion", scores.champion, GREY), ("challenger", scores.challenger, GREEN)]
    for name, score, colour in models:
        if score is not None:
            _plot_ranking(roc, recall, scores.truth, score, {"label": name, "color": colour})
            _plot_calibration(calibration, scores.truth, score, {"label": name, "color": colour})
    _set_labels(roc, "ROC", "false positive rate", "true positive rate")
    _set_labels(recall, "Precision and recall", "recall", "precision")
    _set_labels(calibration, "Calibration", "predicted", "observed")
    _plot_confusion(confusion, scores, threshold)
    return _render_svg(figure)


def _plot_ranking(roc: Any, recall: Any, truth: Floats, score: Floats, style: dict[str, Any]) -> None:
    wrong, right, _ = roc_curve(truth, score)
    area = f"{style['label']} (AUC {auc(wrong, right):.3f})"
    roc.plot(*_reduce_points(wrong, right), **style | {"label": area})
    precision, sensitivity, _ = precision_recall_curve(truth, score)
    recall.plot(*_reduce_points(sensitivity, precision), **style)


def _reduce_points(*curves: Floats) -> list[Floats]:
    keep = np.unique(np.linspace(0, len(curves[0]) - 1, MOST_POINTS).astype(int))
    return [curve[keep] for curve in curves]


def _plot_calibration(axes: Any, truth: Floats, score: Floats, style: dict[str, Any]) -> None:
    observed, predicted = calibration_curve(truth, np.clip(score, 0, 1), n_bins=10, strategy="quantile")
    axes.plot(predicted, observed, marker="o", **style)


def _set_labels(axes: Any, title: str, x: str, y: str) -> None:
    if title != "Precision and recall":
        axes.plot([0, 1], [0, 1], color="#dddddd", linestyle="--", zorder=0)
    axes.set(title=title, xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="best", frameon=False)


def _plot_confusion(axes: Any, scores: Scores, threshold: float) -> None:
    table = confusion_matrix(scores.truth, scores.challenger >= threshold, labels=[0, 1])
    axes.imshow(table, cmap="Greens")
    for (row, column), count in np.ndenumerate(table):
        shade = "white" if count > table.max() / 2 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", fontsize=14, color=shade)
    axes.set(title=f"Challenger's decisions at {threshold:.3f}", xticks=[0, 1], yticks=[0, 1])
    axes.set(xticklabels=["negative", "positive"], yticklabels=["negative", "positive"], xlabel="called", ylabel="is")


def _render_svg(figure: Figure) -> str:
    """From the svg element on: a page of HTML has its own head. Without a date, so that a retry writes the same."""
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "evergreen"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
