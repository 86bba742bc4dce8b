"""Chapter 15: every switch moves the number as its text says, and a switch that does nothing is found out."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recsys_utils import Interactions, leaderboard
from recsys_utils.datasets import load_house
from recsys_utils.evaluation import Report, dense_scorer, evaluate
from recsys_utils.models import baselines, laboratory, neighbours
from recsys_utils.models.laboratory import SWITCHES, Lists, Row, as_stated, measure, run
from recsys_utils.sampling import NegativeSampler
from recsys_utils.splits import Holdout

CACHES = (laboratory.hidden, laboratory.fitted, laboratory.measured, laboratory.ahead)


def two_models(holdout, films=None):
    """The panel of the chapter, without the slow ones."""
    films = films or holdout.seen
    return {
        "popularity": baselines.fit_popularity(films, **laboratory.setting("popularity")),
        "ease": dense_scorer(laboratory.fit_ease_fast(films, **laboratory.setting("ease"), history=holdout.seen)),
    }


@pytest.fixture(scope="module", autouse=True)
def small_panel():
    for cached in CACHES:
        cached.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laboratory, "fit_panel", two_models)
        patch.setitem(laboratory.HOUSE, "fit", two_models)
        yield
    for cached in CACHES:
        cached.cache_clear()


# --- on the house data -------------------------------------------------------------------------------------------


def check_moves(name):
    row = run(name)
    assert as_stated(row), (
        f"{name} should move {row.model} {SWITCHES[name].moves}: {row.before:{row.model}} → {row.after:{row.model}}"
    )


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_moves_the_number_as_stated(name):
    check_moves(name)


@pytest.mark.parametrize("name", SWITCHES)
def test_canary_a_switch_that_does_nothing_or_too_much(name, monkeypatch):
    idle = {} if SWITCHES[name].moves in ("up", "down") else {"lists": laboratory.with_seen}
    monkeypatch.setitem(SWITCHES, name, SWITCHES[name]._replace(changes=idle))
    with pytest.raises(AssertionError, match="should move"):
        check_moves(name)


def test_the_laboratory_gives_what_the_harness_recorded():
    for model in two_models(laboratory.hidden(load_house, laboratory.last_fifth)):
        gap = np.abs(measure().values(model) - leaderboard.load(model).values("ndcg")).mean()
        assert gap < 1e-4, f"{model}: {gap}"  # another machine may swap two places of a few users


def test_a_step_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="unknown steps \\['splits'\\]"):
        measure(splits=laboratory.last_one)


def test_most_of_the_last_films_under_shuffled_times_are_not_the_last():
    real, shuffled = (
        laboratory.hidden(data, laboratory.last_one).truth for data in (load_house, laboratory.shuffled_times)
    )
    data = load_house()
    latest = pd.Series(data.timestamps).groupby(data.users).max().to_numpy()
    times = data.frame().set_index(["user_id", "item_id"])["timestamp"]

    def last(truth):
        frame = truth.frame()
        return (times.loc[pd.MultiIndex.from_frame(frame[["user_id", "item_id"]])] == latest[truth.users]).mean()

    assert last(real) == 1
    assert last(shuffled) < 0.3


def test_reading_backwards_changes_the_last_film_only_where_the_clock_is_tied():
    data = load_house()
    truths = [laboratory.hidden(d, laboratory.last_one).truth for d in (load_house, laboratory.file_backwards)]
    forward, backward = (truth.items[np.argsort(truth.users)] for truth in truths)
    tied = [(mine == mine.max()).sum() > 1 for _, mine in data.frame().groupby("user_id")["timestamp"]]
    assert np.array_equal(forward != backward, tied)
    assert 0 < np.mean(tied) < 0.5


def test_the_splits_hide_what_they_say():
    parts = {f: laboratory.hidden(load_house, f) for f in (laboratory.last_fifth, laboratory.random_fifth)}
    early = {}
    for function, part in parts.items():
        latest = pd.Series(part.seen.timestamps).groupby(part.seen.users).max()
        early[function] = (part.truth.timestamps < latest.loc[part.truth.users].to_numpy()).mean()
    assert early[laboratory.last_fifth] == 0 < 0.8 < early[laboratory.random_fifth]
    strict = laboratory.hidden(load_house, laboratory.one_date)
    assert strict.seen.timestamps.max() < strict.truth.timestamps.min()
    assert (laboratory.hidden(load_house, laboratory.last_one).truth.user_counts == 1).all()


def test_copies_of_hidden_rows_are_known_four_times_in_five():
    def known(data):
        part = laboratory.hidden(data, laboratory.rows_at_random)
        return np.mean(part.seen.matrix()[part.truth.users, part.truth.items])

    assert known(load_house) == 0
    assert abs(known(laboratory.rows_twice) - 0.8) < 0.02


def test_the_filter_is_the_books():
    assert load_house().item_counts.min() == 5
    assert np.array_equal(laboratory.all_films().keep_items(5).item_ids, load_house().item_ids)
    assert laboratory.all_films().n_items > 2 * load_house().n_items


# --- in worlds with a known answer -------------------------------------------------------------------------------


def interactions(users, items, n_users, n_items, ratings=None, timestamps=None):
    ids = {"user_ids": np.arange(n_users), "item_ids": np.arange(n_items)}
    return Interactions(users, items, ratings=ratings, timestamps=timestamps, **ids)


def holdout(seen, truth, n_users, n_items, ratings=None):
    """seen and truth: (users, items)."""
    rows = [interactions(*seen, n_users, n_items), interactions(*truth, n_users, n_items, ratings)]
    return Holdout(*rows, "test", "known", "known")


def chain(n_users=4, n_items=40):
    """User u has met film u, and film n_items - 1 - u is hidden; the scores put films met first, then hidden ones."""
    users = np.arange(n_users)
    part = holdout((users, users), (users, n_items - 1 - users), n_users, n_items)
    scores = np.zeros((n_users, n_items))
    scores[users, n_items - 1 - users], scores[users, users] = 1, 2
    return part, dense_scorer(scores)


def value(lists, scorer, part):
    return float(np.mean(laboratory.ndcg(lists(scorer, part))))


def test_seen_films_take_the_first_place():
    part, scorer = chain()
    assert value(laboratory.unseen, scorer, part) == 1
    assert value(laboratory.with_seen, scorer, part) == pytest.approx(1 / np.log2(3))


def test_films_with_high_codes_cannot_be_found():
    part, scorer = chain()
    assert value(laboratory.codes_below_n_users, scorer, part) == 0


def test_positives_win_all_ties():
    part, _ = chain(200, 400)
    constant = dense_scorer(np.zeros((200, 400)))
    assert value(laboratory.positives_win, constant, part) == 1
    assert value(laboratory.unseen, constant, part) < 0.05


def random_world(seed=0, n_users=30, n_items=200):
    rng = np.random.default_rng(seed)
    picks = np.argsort(rng.random((n_users, n_items)), axis=1)
    users = np.arange(n_users)
    part = holdout((np.repeat(users, 20), picks[:, :20].ravel()), (np.repeat(users, 5), picks[:, 20:25].ravel()),
                   n_users, n_items)  # fmt: skip
    return part, rng.integers(0, 60, (n_users, n_items)).astype(float)  # with ties


def check_alone(alone):
    """The place of every hidden film lies between the films above it and those level with it."""
    part, scores = random_world()
    lists = alone(dense_scorer(scores), part)
    assert len(lists.users) == len(part.truth)
    for user, item, hits in zip(lists.users, part.truth_matrix[part.users].indices, lists.hits, strict=True):
        others = np.delete(scores[user], np.union1d(part.seen_matrix[user].indices, part.truth_matrix[user].indices))
        above, level = (others > scores[user, item]).sum(), (others == scores[user, item]).sum()
        place = hits.argmax() if hits.any() else laboratory.PLACES
        assert min(above, laboratory.PLACES) <= place <= above + level, f"user {user}, item {item}: place {place}"


def test_alone_finds_the_place_among_all():
    check_alone(laboratory.alone)


def test_canary_alone_with_hidden_films_as_rivals():
    with pytest.raises(AssertionError, match="place"):
        check_alone(lambda scorer, part: laboratory.alone(lambda users: -scorer(users), part))


def ranked_world(n_items=1000, n_users=600):
    """One hidden film a user, of true place 40 (from zero) among those not met; the last ten films were met."""
    users, scores = np.arange(n_users), np.tile(-np.arange(n_items, dtype=float), (n_users, 1))
    seen = np.repeat(users, 10), np.tile(np.arange(n_items - 10, n_items), n_users)
    return holdout(seen, (users, np.full(n_users, 40)), n_users, n_items), dense_scorer(scores)


def test_uniform_rivals_follow_the_binomial():
    part, scorer = ranked_world()
    hits = laboratory.alone_against_uniform(scorer, part).hits[:, :10].any(axis=1)
    expected = stats.binom.cdf(9, 99, 40 / 989)
    assert abs(hits.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(hits))
    assert not laboratory.alone(scorer, part).hits[:, :10].any()


def test_popular_rivals_are_drawn_as_often_as_they_were_met():
    """Films 0 to 49 were met by 72 people each, films 51 to 100 by 8; the hidden film's score lies between."""
    rng, n_users = np.random.default_rng(0), 400
    often = np.argsort(rng.random((n_users, 50)), axis=1)[:, :9]
    rare = 51 + np.argsort(rng.random((n_users, 50)), axis=1)[:, :1]
    users = np.arange(n_users)
    seen = np.repeat(users, 10), np.hstack([often, rare]).ravel()
    part = holdout(seen, (users, np.full(n_users, 50)), n_users, 101)
    scorer = dense_scorer(np.tile(-np.arange(101.0), (n_users, 1)))
    place = {f: f(scorer, part).hits.argmax(axis=1).mean() for f in
             (laboratory.alone_against_uniform, laboratory.alone_against_popular)}  # fmt: skip
    uniform, popular = place.values()
    assert abs(uniform - 99 * 41 / 90) < 1
    assert abs(popular - 99 * 41 * 72 / (41 * 72 + 49 * 8)) < 1


def check_correction(estimate):
    """Where every true place is equally likely, the mean estimate is the mean of the exact metric."""
    rng, n = np.random.default_rng(0), 2000
    rank = rng.integers(0, n, 400_000)
    place = rng.binomial(99, rank / (n - 1))
    lists = Lists(np.arange(len(place)), place[:, None] == np.arange(100), np.ones(len(place), int), np.full(1, n))
    exact = np.where(rank < 10, 1 / np.log2(rank + 2), 0).mean()
    found = float(np.mean(estimate(lists)))
    assert abs(found / exact - 1) < 0.25, f"{found:.5f} for {exact:.5f}"


def test_the_corrected_estimator_meets_the_full_ranking():
    check_correction(laboratory.corrected_ndcg)


def test_canary_uncorrected():
    with pytest.raises(AssertionError, match="for 0"):
        check_correction(laboratory.ndcg)


def test_liked_leaves_out_other_films_and_users():
    part = holdout(([0, 1], [0, 0]), ([0, 0, 1], [1, 2, 1]), 2, 4, ratings=[4.0, 3.5, 2.0])
    kept = laboratory.liked(part)
    assert (kept.truth.users.tolist(), kept.truth.items.tolist()) == ([0], [1])


HITS = np.zeros((2, 100), bool)
HITS[0, [0, 3]], HITS[1, [11]] = True, True
LISTS = Lists(np.array([0, 1]), HITS, np.array([3, 40]), np.array([90, 90]))


def test_the_end_of_the_list():
    for k in (5, 20, 100):
        gain = HITS[:, :k] @ (1 / np.log2(np.arange(2, k + 2)))
        ideal = [sum(1 / np.log2(r + 2) for r in range(min(n, k))) for n in (3, 40)]
        assert np.allclose(SWITCHES[f"k = {k}"].changes["metric"](LISTS), gain / ideal)


def test_two_denominators_of_map():
    achievable, relevant = laboratory.map_achievable(LISTS), laboratory.map_relevant(LISTS)
    assert np.allclose(achievable, [(1 + 2 / 4) / 3, 0])
    assert np.allclose(relevant, achievable * np.array([1, 10 / 40]))
    hit = LISTS._replace(hits=HITS[[0, 0]])
    assert laboratory.map_relevant(hit)[1] == pytest.approx(laboratory.map_achievable(hit)[1] / 4)


def test_the_base_of_the_logarithm_cancels_only_in_a_ratio():
    assert np.allclose(laboratory.natural_ndcg(LISTS), laboratory.ndcg(LISTS))
    assert np.allclose(laboratory.natural_dcg(LISTS)[0], (1 + 1 / np.log2(5)) / np.log(2))


def test_an_average_over_films_is_the_mean_over_rows():
    lists = Lists(np.array([0, 0, 1]), np.zeros((3, 100), bool), np.array([1, 1, 6]), np.ones(3))
    users, values = laboratory.over_films(np.array([0.3, 0.5, 0.8]), lists)
    assert users.tolist() == [0, 1]
    assert values.mean() == pytest.approx((0.3 + 0.5 + 6 * 0.8) / 8)
    assert laboratory.over_users(np.array([0.3, 0.5, 0.8]), lists)[1].tolist() == pytest.approx([0.4, 0.8])


def test_film_features_from_all_rows_know_the_hidden_pair():
    """Films 0 and 1 meet only in what user 0 will do; film 2 goes with film 0 for others."""
    users = np.repeat(np.arange(6), 2)
    seen = interactions(np.append(users, 6), np.append(np.tile([0, 2], 6), 0), 8, 5, np.ones(13), np.arange(13))
    truth = interactions([6], [1], 8, 5, np.ones(1), [99])
    part = Holdout(seen, truth, "test", "known", "known")
    both = laboratory.everything(part)
    assert len(both) == 14
    assert both.matrix()[6, 1] == 1
    honest, leaky = (laboratory.fit_ease_fast(films, 1.0, history=seen)[6, 1] for films in (seen, both))
    assert abs(honest) < 1e-9 < 0.1 < leaky


def check_ease(fast):
    rows = load_house().keep_items(50)
    history = rows.select(np.arange(len(rows)) % 2 == 0)
    weights = neighbours.ease(rows.matrix(), 82.0)
    for given, X in ((None, rows.matrix()), (history, history.matrix())):
        assert np.allclose(fast(rows, 82.0, given), X @ weights, atol=1e-6), "not EASE"


def test_ease_on_the_side_of_the_users_is_ease():
    check_ease(laboratory.fit_ease_fast)


def test_canary_ease_without_its_diagonal():
    with pytest.raises(AssertionError, match="not EASE"):
        check_ease(lambda rows, lam, history: laboratory.fit_ease_fast(rows, 1.01 * lam, history))


def test_the_fallback_orders_films_for_newcomers():
    part = laboratory.hidden(load_house, laboratory.one_date)
    newcomer = part.users[part.seen.user_counts[part.users] == 0][:1]
    scores = laboratory.fit_with_fallback(part)["ease"](newcomer)[0]
    assert np.array_equal(np.argsort(-scores, kind="stable"), np.argsort(-part.seen.item_counts, kind="stable"))


def test_the_best_look_is_the_best_of_the_part_it_looks_at(monkeypatch):
    """A model whose quality is pure noise: the part it is chosen on finds the maximum, another one does not."""
    part, other = (random_world(seed)[0] for seed in (1, 2))
    monkeypatch.setattr(laboratory, "bpr", lambda train, epochs, seed: dense_scorer(
        np.random.default_rng([epochs, seed]).random((train.n_users, train.n_items))))  # fmt: skip
    gains = []
    for seed in range(20):
        scores = {n: evaluate(laboratory.bpr(part.seen, n, seed), part).mean("ndcg") for n in laboratory.LOOKS}
        assert scores[laboratory.best_look(part, seed)] == max(scores.values())
        gains.append(max(scores.values()) - scores[laboratory.best_look(other, seed)])
    assert min(gains) >= 0
    assert np.mean(gains) > 0.01


# --- intervals and orders ----------------------------------------------------------------------------------------


def panel(users=300, seed=1, **means):
    """Per-user values with the given means; most of the noise of a user is shared by all models and panels."""
    noise = np.random.default_rng(0).normal(0, 0.1, (users, 1))
    own = np.random.default_rng(seed).normal(0, 0.01, (users, len(means)))
    columns = np.array(list(means.values())) + noise + own
    return Report(np.arange(users), columns, tuple(means), None, {}, "laboratory", "test", "")


@pytest.mark.parametrize(
    ("after", "truth"), [(0.6, {"up", "never down"}), (0.4, {"down"}), (0.5003, {"little", "never down"})]
)
def test_as_stated_knows_up_from_down(after, truth, monkeypatch):
    for moves in ("up", "down", "little", "never down"):
        monkeypatch.setitem(SWITCHES, "x", laboratory.Switch({}, moves))
        for users in (300, 299):  # paired, and not
            row = Row("x", "ease", panel(ease=0.5), panel(users, seed=2, ease=after))
            assert (laboratory.difference(row) is None) == (users == 299)
            if moves in ("up", "down"):
                assert as_stated(row) == (moves in truth), (moves, users)
            elif users == 300:
                assert as_stated(row) == (moves in truth), moves


def test_only_clear_reversals_are_reported():
    before, level, after = panel(a=0.5, b=0.4, c=0.3), panel(a=0.4, b=0.4001, c=0.3), panel(a=0.3, b=0.5, c=0.2)
    assert laboratory.reversed_pairs(Row("x", "a", before, level)) == set()
    assert laboratory.reversed_pairs(Row("x", "a", before, after)) == {("b", "a")}
    assert laboratory.order(after) == ["b", "a", "c"]
    assert laboratory.ahead(before) == {("a", "b"), ("a", "c"), ("b", "c")}


# --- the exercise and the page -----------------------------------------------------------------------------------

MENDED = {  # line of `planted`: what stands there, what should
    7: ("rows.sample(frac=1, random_state=0)", 'rows.sort_values("timestamp", kind="stable")'),
    11: ('np.bincount(rows["item"]', 'np.bincount(rows[~test]["item"]'),
    14: ("data.n_users", "data.n_items"),
    16: ("np.log(", "np.log2("),
    20: ("np.average(values, weights=sizes)", "np.mean(values)"),
}


def rewritten(lines):
    source = inspect.getsource(laboratory.planted).splitlines()
    for number in lines:
        old, new = MENDED[number]
        assert old in source[number - 1], f"line {number} is {source[number - 1]!r}"
        source[number - 1] = source[number - 1].replace(old, new)
    space = dict(vars(laboratory))
    exec("\n".join(source), space)
    return space["planted"]


def test_the_planted_lines_are_the_ones_that_matter():
    data, test = load_house(), laboratory.hidden(load_house, laboratory.last_fifth)
    assert set(MENDED) == set(laboratory.PLANTED)
    chart = baselines.same_for_all(test.seen.item_counts - 1e-6 * np.arange(test.seen.n_items))
    right = rewritten(MENDED)(data)
    assert right == pytest.approx(evaluate(chart, test).mean("ndcg"))
    for line in MENDED:  # with any one of them left, the number is wrong
        assert rewritten(set(MENDED) - {line})(data) != pytest.approx(right, rel=1e-4), line


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({7, 11, 14, 16, 20}, "All five"),
        ({6, 10, 13, 15, 19}, "counted from 0"),
        ({7, 11, 14, 16}, "4 of 5 found. Look at who counts how much."),
        ({7, 11, 14, 15, 16}, "4 of 5 found. Line 15 does what the docstring wants. Look at who counts how much."),
        (set(range(1, 21)), "15 of the 20 lines you accuse are innocent"),
        (set(), "0 of 5 found"),
    ],
)
def test_wrong_answers_get_a_helpful_message(answer, message):
    assert message in laboratory.check_lines(answer)


def check_checklist(text, names):
    missing = [name for name in names if f"*{name}*" not in text]
    assert not missing, f"the checklist does not point to {missing}"


def test_the_checklist_points_to_every_switch():
    path = Path(__file__).parent.parent / "notebooks" / "15_how_to_be_fooled.ipynb"
    cells = json.loads(path.read_text("utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    checklist = re.search(r"## A checklist to take along(.*?)## Take-aways", text, re.S)[1]
    check_checklist(checklist, SWITCHES)
    shown = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    run_there = set(re.findall(r'show\("([^"]+)"\)', shown)) | {f"k = {k}" for k in (5, 20, 100)}
    assert run_there == set(SWITCHES)
    with pytest.raises(AssertionError, match="does not point to"):
        check_checklist(checklist, [*SWITCHES, "a new one"])


def test_rivals_of_the_chapter_avoid_what_was_met():
    part, scores = random_world()
    sampler = NegativeSampler(part.seen_matrix + part.truth_matrix)
    lists = laboratory.alone(dense_scorer(scores), part, sampler)
    assert (lists.n_candidates == 200 - 25 + 1).all()
    assert (lists.hits.sum(axis=1) == 1).all()
