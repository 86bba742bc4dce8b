"""What a chapter shows: findings that hold, titles that stay text, figures with alternative text."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from recsys_utils import Interactions, display, leaderboard, plots

mpl.use("Agg")
TITLES = ["<script>alert(1)</script>", "*Heat* & _Alien_ [x](y)", "$9.99 or $5 a Day"]


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: a list of (bundle, options)."""
    out = []
    for module in (display, plots):
        monkeypatch.setattr(module, "display", lambda bundle, **options: out.append((bundle, options)))
    return out


@pytest.fixture
def films():
    table = pd.DataFrame(
        {"title": TITLES, "year": [1999.0, np.nan, 2008.0], "genres": [("Drama", "<b>War</b>"), (), ("Comedy",)]},
        index=[10, 20, 30],
    )
    return Interactions([0], [0], user_ids=["u"], item_ids=[10, 20, 30], item_table=table, name="films")


def test_a_finding_is_shown_when_it_holds(shown):
    display.finding("A < B & <script>", holds=np.bool_(True))
    bundle, options = shown[0]
    assert options == {"raw": True}
    assert bundle["text/plain"] == "Finding: A < B & <script>"
    assert "A &lt; B &amp; &lt;script&gt;" in bundle["text/html"]
    assert bundle["text/html"].startswith('<p class="finding ')


@pytest.mark.parametrize("holds", [False, np.bool_(False), np.float64(1) < np.nan])
def test_a_finding_that_does_not_hold_raises(shown, holds):
    with pytest.raises(AssertionError, match=r"does not hold on this run: EASE wins\."):
        display.finding("EASE wins.", holds=holds)
    assert not shown


def test_titles_stay_text(shown, films):
    table = display.recommendations(films, np.array([2, 0, -1, 1]), scores=[3, 2, 1, 0.5], hits=[1, 0, 1, 1])
    assert table.index.tolist() == [1, 2, 4]
    assert table["title"].tolist() == [TITLES[2], TITLES[0], TITLES[1]]
    assert table["year"].tolist() == ["2008", "1999", ""]
    assert table["genres"].tolist() == ["Comedy", "Drama, <b>War</b>", ""]
    assert table["held out"].tolist() == ["yes", "", "yes"]
    display.table(table, caption="For <you> & me")
    markup = shown[0][0]["text/html"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in markup
    assert "For &lt;you&gt; &amp; me" in markup
    assert "*Heat* &amp; _Alien_ [x](y)" in markup
    assert "<script" not in markup
    assert "<b>" not in markup
    assert "tex2jax_ignore mathjax_ignore" in markup  # or two prices become a formula
    assert TITLES[2] in shown[0][0]["text/plain"]


def test_numbers_and_gaps_in_a_table(shown):
    frame = pd.DataFrame({"a": [0.12345, np.nan], "n": [3, 4]})
    display.table(frame, decimals=2)
    assert frame["a"].tolist()[0] == 0.12345
    text = shown[0][0]["text/plain"]
    assert "0.12" in text
    assert "0.123" not in text
    assert "nan" not in text.lower()


def test_recommendations_need_titles():
    data = Interactions([0], [0], user_ids=["u"], item_ids=[10], name="clicks")
    with pytest.raises(ValueError, match="clicks has no item_table with a title column"):
        display.recommendations(data, [0])


def test_chapter_prints_what_was_measured(monkeypatch, capsys):
    monkeypatch.setattr(leaderboard, "chapters", lambda: {"02_evaluation": {"minutes": 0.42, "memory_gb": 0.61}})
    display.chapter("02_evaluation")
    display.chapter("03_baselines")
    assert capsys.readouterr().out.splitlines() == [
        "This chapter takes 0.4 minutes and 0.6 GB on a two-core machine",
        "03_baselines: not measured yet",
    ]


def test_a_figure_comes_with_its_description_and_is_closed(shown):
    figure = plots.intervals({"ease": (0.2, 0.1, 0.3), "mine": (0.1, 0.0, 0.2)}, x="NDCG@10", title="t", reference=0.1)
    alt = "Two models with their intervals; EASE lies higher."
    plots.describe(figure, alt)
    bundle, options = shown[0]
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert bundle["text/plain"] == alt
    assert options == {"metadata": {"image/png": {"alt": alt}}, "raw": True}
    assert not plt.fignum_exists(figure.number)
    with pytest.raises(ValueError, match="alt='plot'; say in a sentence what the figure shows"):
        plots.describe(figure, "plot")


def test_figures_name_their_axes_and_models():
    plots.use_style()
    figures = [
        plots.intervals({"ease": (0.2, 0.1, 0.3)}, x="NDCG@10", title="t"),
        plots.line({"a": {1: 2, 10: 3}, "b": {1: 1, 10: 2}}, x="λ", y="NDCG", logx=True),
        plots.line({1: 2, 2: 3}, x="λ", y="NDCG"),
        plots.bars({"a": 1, "b": 2}, x="films", title="t", reference=1.5),
    ]
    assert all(figure.axes[0].get_xlabel() for figure in figures)
    assert [text.get_text() for text in figures[0].axes[0].get_yticklabels()] == ["EASE"]
    assert figures[1].axes[0].get_xscale() == "log"
    assert mpl.rcParams["figure.facecolor"] == "white"
    plt.close("all")


def test_a_model_has_its_colour_and_nothing_drawn_alone_wears_it():
    plots.use_style()
    curves = plots.line({"mine": {1: 1, 2: 2}, "bpr": {1: 2, 2: 3}}, x="λ", y="NDCG").axes[0]
    alone = plots.line({1: 2, 2: 3}, x="λ", y="NDCG").axes[0]
    rows = plots.intervals({"bpr": (0.2, 0.1, 0.3), "mine": (0.1, 0.0, 0.2)}, x="NDCG@10", title="t").axes[0]
    bars = plots.bars({"mine": 1}, x="films", title="t").axes[0]
    assert [text.get_text() for text in curves.get_legend().get_texts()] == ["mine", "BPR"]
    neutral, bpr = mpl.colors.to_hex("C0"), leaderboard.MODELS["bpr"].colour
    assert neutral not in {model.colour for model in leaderboard.MODELS.values()}
    assert [mpl.colors.to_hex(line.get_color()) for line in curves.lines] == [neutral, bpr]
    assert [mpl.colors.to_hex(line.get_color()) for line in rows.lines] == [neutral, neutral, bpr, bpr]
    assert mpl.colors.to_hex(alone.lines[0].get_color()) == neutral
    assert mpl.colors.to_hex(bars.patches[0].get_facecolor()) == neutral
    plt.close("all")
