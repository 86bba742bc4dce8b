"""What a chapter prints: findings that must hold, and recommendation tables with safe titles."""

from __future__ import annotations

import html
from collections.abc import Mapping

import numpy as np
import pandas as pd
from IPython.display import display

from recsys_utils import leaderboard
from recsys_utils.evaluation import Comparison
from recsys_utils.interactions import Interactions

NO_MATHS = "tex2jax_ignore mathjax_ignore"  # or "$9.99" and "$5 a Day" become a formula


def finding(sentence: str, holds: bool) -> None:
    """Show a measured sentence. Raises AssertionError with the sentence when it does not hold on this run."""
    if not holds:
        raise AssertionError(f"this finding does not hold on this run: {sentence}")
    display(
        {
            "text/plain": f"Finding: {sentence}",
            "text/html": f'<p class="finding {NO_MATHS}"><b>Finding.</b> {html.escape(sentence)}</p>',
        },
        raw=True,
    )


def chapter(name: str) -> None:
    """Print what a chapter took when it was last measured, from results/chapters.json."""
    measured = leaderboard.chapters().get(name)
    if measured is None:
        print(f"{name}: not measured yet")
    else:
        minutes, memory = measured["minutes"], measured["memory_gb"]
        print(f"This chapter takes {minutes:.1f} minutes and {memory:.1f} GB on a two-core machine")


def table(frame: pd.DataFrame, caption: str = "", decimals: int = 3) -> None:
    """Show a data frame as HTML and as text; every cell is escaped, so a title stays text whatever it contains."""
    shown = frame.copy()
    for column in shown.select_dtypes("floating"):
        shown[column] = shown[column].map(lambda value: "" if pd.isna(value) else f"{value:.{decimals}f}")
    heading = f'<p class="{NO_MATHS}"><em>{html.escape(caption)}</em></p>' if caption else ""
    markup = heading + shown.to_html(escape=True, border=0, classes=NO_MATHS, index_names=False)
    display({"text/plain": f"{caption}\n{shown.to_string()}".strip(), "text/html": markup}, raw=True)


def comparisons(rows: Mapping[str, Comparison], metric: str, caption: str) -> None:
    """Show paired differences, one row a name, with their 95% intervals."""
    cells = {name: versus.differences[metric] for name, versus in rows.items()}
    table(pd.DataFrame.from_dict(cells, orient="index", columns=["difference", "low", "high"]), caption)


def recommendations(
    data: Interactions, items: np.ndarray, scores: np.ndarray | None = None, hits: np.ndarray | None = None
) -> pd.DataFrame:
    """A table of films, one row a rank. items: codes, shape (k,), -1 for an empty place; show it with `table`.

    scores: shape (k,); hits: shape (k,), marks the held-out films that were found.
    """
    if data.item_table is None or "title" not in data.item_table:
        raise ValueError(f"{data.name} has no item_table with a title column; give Interactions one")
    items = np.asarray(items)
    kept = items >= 0
    films = data.item_table.iloc[items[kept]]
    out = pd.DataFrame({"title": films["title"].to_numpy()}, index=np.flatnonzero(kept) + 1)
    for column in ("year", "genres"):
        if column in films:
            out[column] = [_text(value) for value in films[column]]
    if scores is not None:
        out["score"] = np.asarray(scores, float)[kept]
    if hits is not None:
        out["held out"] = np.where(np.asarray(hits)[kept], "yes", "")
    return out


def _text(value) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(value)
    return "" if pd.isna(value) else f"{value:.0f}" if isinstance(value, float | np.floating) else str(value)
