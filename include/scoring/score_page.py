"""The page of one scored day: how its scores lie, beside those of the day before. One self-contained HTML file."""

from html import escape

from include.kernel.page_style import STYLE
from include.scoring.core.scoring import BINS, Scores, ScoreSummary

WIDTH, HEIGHT, BOTTOM = 860, 240, 28
PAGE_STYLE = """
svg{width:100%;height:auto;margin:1rem 0} .num{text-align:right;font-variant-numeric:tabular-nums} small{color:#66756c}
.key{display:inline-block;width:.8rem;height:.8rem;border-radius:.2rem;margin:0 .3rem 0 1rem;vertical-align:-.1rem}
"""
TODAY_COLOUR, PREVIOUS_COLOUR, THRESHOLD_COLOUR = "#9bb8a6", "#1d2a24", "#c8502d"


def render_score_page(scores: Scores, before: Scores | None) -> str:
    """`before` is what the same version said of the day before, if it was asked."""
    positive = escape(scores.positive)
    body = [
        f"<h1>{scores.day}, scored with version {escape(scores.version)}</h1>",
        f"<p>{escape(scores.sentence)}. A score is the probability of <b>{positive}</b>; from the threshold "
        f"{scores.threshold:.4g} on, that is the decision.</p>",
        _render_legend(scores, before),
        _render_plot(scores, before),
        _render_table(scores, before),
        f"<p><small>model {escape(scores.model)}, artifact {scores.digest[:12]}, snapshot {scores.snapshot[:12]}, "
        f"result {scores.key}, {len(scores.parts)} file{'' if len(scores.parts) == 1 else 's'}</small></p>",
    ]
    head = f"<!doctype html><meta charset=utf-8><title>Scores</title><style>{STYLE}{PAGE_STYLE}</style>"
    return f"{head}{''.join(body)}"


def _render_legend(scores: Scores, before: Scores | None) -> str:
    then = f'<span class="key" style="border:2px solid {PREVIOUS_COLOUR}"></span>{before.day}' if before else ""
    return (
        f'<p><span class="key" style="background:{TODAY_COLOUR};margin-left:0"></span>{scores.day}{then}'
        f'<span class="key" style="background:{THRESHOLD_COLOUR};width:.2rem"></span>threshold</p>'
    )


def _render_plot(scores: Scores, before: Scores | None) -> str:
    """Shares of the rows by score: bars for this day, steps for the day before, a line for the threshold."""
    now, then = _compute_shares(scores.tally), _compute_shares(before.tally) if before else ()
    top, step, floor = max((*now, *then)) or 1.0, WIDTH / BINS, HEIGHT - BOTTOM

    def compute_height(share: float) -> float:
        return floor - share / top * (floor - 16)

    bars = "".join(
        f'<rect x="{number * step + 2:.1f}" y="{compute_height(share):.1f}" width="{step - 4:.1f}" rx="3" '
        f'height="{floor - compute_height(share):.1f}" fill="{TODAY_COLOUR}"><title>{share:.1%} of '
        "the rows</title></rect>"
        for number, share in enumerate(now)
    )
    points = " ".join(f"H{number * step:.1f} V{compute_height(share):.1f}" for number, share in enumerate(then))
    steps = (
        f'<path d="M0 {floor} {points} H{WIDTH}" fill="none" stroke="{PREVIOUS_COLOUR}" stroke-width="1.5"/>'
        if then
        else ""
    )
    ticks = "".join(
        f'<text x="{tick / 10 * WIDTH:.0f}" y="{HEIGHT - 8}" font-size="12" text-anchor="{anchor}">{tick / 10:g}</text>'
        for tick, anchor in zip(range(0, 11, 2), ["start", *["middle"] * 4, "end"], strict=True)
    )
    cut = f'<line x1="{scores.threshold * WIDTH:.1f}" x2="{scores.threshold * WIDTH:.1f}" y1="0" y2="{floor}" '
    line = f'{cut}stroke="{THRESHOLD_COLOUR}" stroke-width="2"/>'
    title = "<title>Share of the rows by score</title>"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{title}{bars}{steps}{line}{ticks}</svg>'


def _compute_shares(tally: ScoreSummary) -> tuple[float, ...]:
    return tuple(count / max(tally.rows, 1) for count in tally.histogram)


def _render_table(scores: Scores, before: Scores | None) -> str:
    days = [scores, *([before] if before else [])]
    rows = {
        "rows": [f"{day.rows:,}" for day in days],
        f"decided {scores.positive}": [f"{day.tally.positives:,} ({day.tally.share:.1%})" for day in days],
        f"decided {scores.negative}": [f"{day.rows - day.tally.positives:,}" for day in days],
        "mean score": [f"{day.tally.mean:.4f}" for day in days],
    }
    head = "".join(f'<th class="num">{day.day}</th>' for day in days)
    cells = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td class=num>{value}</td>' for value in values)}</tr>"
        for name, values in rows.items()
    )
    return f"<table><tr><th></th>{head}</tr>{cells}</table>"
