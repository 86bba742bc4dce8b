"""The book's figure style and its few recurring plots."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys_utils.leaderboard import MODELS

WIDTH = 7.0  # inches


def use_style() -> None:
    """Opaque white background, quiet axes, colours that colour-blind readers can tell apart (Okabe & Ito).

    The first, C0, is no model's: what is drawn alone and is no model gets it.
    """
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.6),
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "axes.axisbelow": True,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "legend.frameon": False,
            "axes.prop_cycle": plt.cycler(
                color=["#37474f", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#0072b2"]
            ),
        }
    )


def describe(figure: Figure, alt: str) -> None:
    """Show a figure as PNG with alternative text for those who cannot see it, and close it.

    Raises ValueError for a text under twenty characters: say what the picture shows, not that it is one.
    """
    if len(alt) < 20:
        raise ValueError(f"alt={alt!r}; say in a sentence what the figure shows")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(figure)
    display({"image/png": buffer.getvalue(), "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True)


def intervals(
    rows: Mapping[str, tuple[float, float, float]], x: str, title: str, reference: float | None = None
) -> Figure:
    """Means with intervals, one row a name: {name: (mean, low, high)}; a model id brings its title and colour.

    reference: where to draw a dashed line, chance for instance.
    """
    titles = [MODELS[name].title if name in MODELS else name for name in rows]
    figure, axes = _named_rows(titles, x, title, reference)
    for place, (name, (mean, low, high)) in enumerate(reversed(rows.items())):
        colour = MODELS[name].colour if name in MODELS else "C0"
        axes.plot([low, high], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
        axes.plot(mean, place, "o", color=colour)
    return figure


def line(
    curves: Mapping[str, Mapping[float, float]] | Mapping[float, float],
    x: str,
    y: str,
    title: str = "",
    logx: bool = False,
) -> Figure:
    """One or several curves {x: y}, several by name; a model id brings its title and colour."""
    figure, axes = plt.subplots()
    named = curves if all(isinstance(curve, Mapping) for curve in curves.values()) else {"": curves}
    for name, curve in named.items():
        label, _, colour = MODELS.get(name, (name, "", None))
        axes.plot(list(curve), list(curve.values()), "o-", label=label, color=colour)
    if logx:
        axes.set_xscale("log")
    if len(named) > 1:
        axes.legend()
    axes.set(xlabel=x, ylabel=y, title=title)
    return figure


def bars(heights: Mapping[str, float], x: str, title: str, reference: float | None = None) -> Figure:
    """Horizontal bars, one a name, the first on top; reference draws a dashed line."""
    figure, axes = _named_rows(list(heights), x, title, reference)
    axes.barh(range(len(heights)), list(heights.values())[::-1], color="C0")
    return figure


def _named_rows(names: Sequence[str], x: str, title: str, reference: float | None) -> tuple[Figure, Axes]:
    """Empty axes with one named row each, the first on top (at the highest y), and a dashed line at reference."""
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.36 * len(names)))
    axes.set_yticks(range(len(names)), names[::-1])
    if reference is not None:
        axes.axvline(reference, color="#999999", linestyle="--", linewidth=1)
    axes.set(xlabel=x, title=title, ylim=(-0.6, len(names) - 0.4))
    axes.grid(axis="y", visible=False)
    return figure, axes


def diagram(boxes: Sequence[tuple[str, float, float]], arrows: Sequence[tuple[int, int]], title: str = "") -> Figure:
    """The drawing of a network: boxes (text, x, y), centred in a unit square; arrows join the n-th boxes."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4.2))
    style = {"boxstyle": "round,pad=0.45", "facecolor": "#eef5fa", "edgecolor": "#0072b2"}
    for start, end in arrows:
        axes.annotate("", boxes[end][1:], boxes[start][1:], arrowprops={"arrowstyle": "-|>", "shrinkB": 17})
    for text, x, y in boxes:
        axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=style)
    axes.set(xlim=(0, 1), ylim=(0, 1), title=title)
    axes.axis("off")
    return figure
