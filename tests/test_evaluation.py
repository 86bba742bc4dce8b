"""The harness: equal to slow loops, blind to batches and ids, small in memory, and fair to those who know nothing."""

import json
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from benchmarks.evaluation import measured_memory
from canaries import models
from core_checks import check_at_chance, check_beats_chance, popularity, world
from recsys_utils import Interactions, evaluation, metrics, splits
from recsys_utils.datasets import load_movielens
from recsys_utils.evaluation import (
    Report,
    compare,
    dense_scorer,
    evaluate,
    evaluate_rankings,
    evaluate_ratings,
    evaluate_with_sampled_negatives,
    membership,
    recommend,
    top_k,
)
from recsys_utils.splits import Holdout

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def holdout():
    return splits.temporal_per_user(world()).test


@pytest.fixture(scope="module")
def scores(holdout):
    """Few levels, so that ties are everywhere."""
    return np.random.default_rng(0).integers(0, 6, (holdout.seen.n_users, holdout.seen.n_items)).astype(float)


@pytest.fixture(scope="module")
def house():
    return splits.temporal_per_user(load_movielens("latest-small", min_item_ratings=5))


# --- ranking


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 12), st.integers(1, 15))
def test_top_k_is_a_full_sort_with_a_lottery_among_equals(seed, levels, n_items, k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (5, n_items)).astype(rng.choice([np.float32, np.float64]))
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    users = rng.integers(0, 200_000, 5)
    before = scores.copy()
    lottery = evaluation._priority(seed, users[:, None], np.arange(n_items)[None, :])
    for row, mine, tickets in zip(top_k(scores, k, users, seed), scores, lottery, strict=True):
        full = sorted(range(n_items), key=lambda item: (-mine[item], tickets[item]))
        full = [item for item in full if mine[item] > -np.inf]
        assert row.tolist() == (full + [-1] * k)[:k]
    np.testing.assert_array_equal(scores, before)


def test_lottery_is_uniform_and_differs_between_users_items_and_seeds():
    users, items = np.arange(300), np.arange(400)
    tickets = evaluation._priority(0, users[:, None], items[None, :])
    assert len(np.unique(tickets)) == tickets.size
    assert tickets.min() >= 0
    assert tickets.max() < 1
    assert abs(tickets.mean() - 0.5) < 4 * np.sqrt(1 / 12 / tickets.size)
    assert np.abs(np.corrcoef(tickets)[0, 1:]).max() < 0.3
    assert np.abs(np.corrcoef(tickets.T)[0, 1:]).max() < 0.3
    assert not np.array_equal(tickets, evaluation._priority(1, users[:, None], items[None, :]))
    assert evaluation._priority(-1, users[:3], items[:3]).shape == (3,)


def test_every_item_wins_ties_equally_often_at_each_rank():
    """A constant scorer, 20 items, 4,000 users: each item is at each rank 200 times, up to chance (chi-squared)."""
    from scipy import stats

    lists = top_k(np.zeros((4000, 20)), 5, np.arange(4000))
    for rank in range(5):
        assert stats.chisquare(np.bincount(lists[:, rank], minlength=20)).pvalue > 1e-4


@pytest.mark.parametrize("cells", [1, 300, 10**9])
def test_batches_do_not_matter(holdout, scores, cells, monkeypatch):
    whole = evaluate(dense_scorer(scores), holdout, full_order=("auc", "map_full"))
    monkeypatch.setattr(evaluation, "BATCH_CELLS", cells)
    cut = evaluate(dense_scorer(scores), holdout, full_order=("auc", "map_full"))
    np.testing.assert_allclose(cut.columns, whole.columns, rtol=0, atol=1e-12)
    constant = models.constant(holdout.seen.n_items)
    sampled = evaluate_with_sampled_negatives(constant, holdout, n_negatives=20)
    assert sampled.columns.shape == (len(holdout.users), 3)


def test_some_users_get_the_values_they_get_among_all(holdout, scores):
    whole = evaluate(dense_scorer(scores), holdout)
    some = holdout.users[[5, 2, 17]]
    part = evaluate(dense_scorer(scores), holdout, users=some)
    np.testing.assert_allclose(part.columns, whole.columns[[5, 2, 17]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.int8, bool])
def test_scores_of_any_number_type_and_read_only_arrays(holdout, scores, dtype):
    stored = (scores > 2).astype(dtype)
    stored.flags.writeable = False
    report = evaluate(lambda users: stored[: len(users)], holdout)
    expected = evaluate(lambda users: (scores > 2).astype(float)[: len(users)], holdout)
    np.testing.assert_array_equal(report.columns, expected.columns)


def test_the_scores_of_the_model_are_left_alone(holdout):
    shared = np.random.default_rng(0).random((len(holdout.users), holdout.seen.n_items))
    before = shared.copy()
    evaluate(lambda users: shared[: len(users)], holdout, candidates=np.arange(5))
    np.testing.assert_array_equal(shared, before)


def test_against_a_slow_harness(holdout, scores):
    """Sets and sorting, one user at a time; scores without ties."""
    scores = scores + np.random.default_rng(1).random(scores.shape) / 2
    report = evaluate(dense_scorer(scores), holdout, 7, full_order=("auc", "map_full"))
    seen, truth = holdout.seen.matrix().tolil().rows, holdout.truth.matrix().tolil().rows
    counts = holdout.seen.item_counts
    for row, user in enumerate(report.users):
        open_items = [item for item in range(scores.shape[1]) if item not in set(seen[user])]
        order = sorted(open_items, key=lambda item: -scores[user, item])
        hits = np.array([[item in truth[user] for item in order]])
        n = np.array([len(truth[user])])
        expected = {
            "ndcg": metrics.ndcg(hits[:, :7], n),
            "recall": metrics.recall(hits[:, :7], n),
            "precision": metrics.precision(hits[:, :7], n),
            "hit_rate": metrics.hit_rate(hits[:, :7], n),
            "mrr": metrics.mrr(hits[:, :7], n),
            "map": metrics.average_precision(hits[:, :7], n),
            "map_relevant": metrics.average_precision(hits[:, :7], n, "relevant"),
            "novelty": np.mean([-np.log2(max(counts[item], 1) / holdout.seen.n_users) for item in order[:7]]),
            "auc": sklearn_metrics.roc_auc_score(hits[0], scores[user, order]),
            "map_full": metrics.average_precision(hits, n),
        }
        assert set(expected) == set(report.names)
        for name, value in expected.items():
            assert report.values(name)[row] == pytest.approx(float(np.squeeze(value)), abs=1e-12), name
    shown = {item for row in top_k_lists(scores, holdout, 7) for item in row}
    assert report.mean("coverage") == len(shown) / scores.shape[1]


def top_k_lists(scores, holdout, k):
    masked = scores.copy()
    masked[holdout.seen_matrix.nonzero()] = -np.inf
    return top_k(masked[holdout.users], k, holdout.users)


def test_candidates_and_seen_items(holdout, scores):
    only = np.array([3, 4, 5, 70])
    report = evaluate(dense_scorer(scores), holdout, candidates=only)
    assert report.mean("coverage") <= 4 / 80
    assert (report.values("precision") <= 0.4).all()
    perfect = holdout.truth.matrix().toarray() + 2 * holdout.seen.matrix().toarray()  # seen items score highest
    assert evaluate(dense_scorer(perfect), holdout).mean("ndcg") == pytest.approx(1)
    assert evaluate(dense_scorer(perfect), holdout, mask_seen=False).mean("ndcg") < 0.2


def test_k_beyond_the_catalogue_and_lists_that_run_short(holdout, scores):
    report = evaluate(dense_scorer(scores), holdout, k=500)
    assert report.k == 500
    np.testing.assert_allclose(report.values("recall"), 1)
    np.testing.assert_allclose(report.values("precision") * 500, holdout.truth_matrix.getnnz(axis=1)[report.users])
    nothing = evaluate(lambda users: np.full((len(users), 80), -np.inf), holdout, full_order=("auc", "map_full"))
    assert {name: value for name, value in nothing.means.items() if name != "auc"} == dict.fromkeys(
        [name for name in nothing.means if name != "auc"], 0
    )
    assert np.isnan(nothing.mean("auc"))
    assert np.isnan(nothing.low("auc"))


@pytest.mark.filterwarnings("error")
def test_infinite_scores_are_an_order_too(holdout, scores):
    report = evaluate(lambda users: np.where(scores[users] > 2, np.inf, -1e308), holdout)
    expected = evaluate(lambda users: np.where(scores[users] > 2, 1.0, 0.0), holdout)
    np.testing.assert_array_equal(report.columns, expected.columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0; expected a whole number of at least 1"),
        ({"k": 2.0}, r"k=2\.0"),
        ({"k": True}, "k=True"),
        ({"candidates": np.ones(80, bool)}, "candidates holds bool values .*np.flatnonzero makes them from a mask"),
        ({"candidates": [80]}, r"candidates holds int64 values \[80\]…; expected item codes in 0..79"),
        ({"candidates": []}, "expected item codes"),
        ({"users": []}, "users is empty"),
        ({"users": [10**6]}, "user code 1000000 has no held-out item"),
        ({"users": [1.0]}, "users has shape .* float64"),
        ({"users": np.ones(120, bool)}, "expected user codes"),
        ({"users": 3}, r"users has shape \(\)"),
        ({"full_order": ("gini",)}, r"full_order=\('gini',\); expected some of \('auc', 'map_full'\)"),
    ],
)
def test_bad_options(holdout, scores, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(dense_scorer(scores), holdout, **options)


def test_bad_scores(holdout, scores):
    with pytest.raises(ValueError, match=r"returned shape \(120, 79\) for 120 users; expected \(120, 80\)"):
        evaluate(lambda users: scores[users, 1:], holdout)
    broken = scores.copy()
    broken[4, 9] = np.nan
    with pytest.raises(ValueError, match="the score of user code 4 and item code 9 is nan"):
        evaluate(dense_scorer(broken), holdout)
    broken[5, 3], broken[6, 3] = np.inf, -np.inf
    with pytest.raises(ValueError, match="item code 9 is nan"):
        evaluate(dense_scorer(broken.astype(np.float32)), holdout)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (np.zeros((120, 3), int), "the list of user code 0 holds an item twice"),
        (np.full((120, 1), 80), r"run from 80 to 80; expected 0..79, or -1 for none"),
        (np.full((120, 1), -2), "run from -2 to -2"),
        (np.zeros((119, 3), int), r"items has shape \(119, 3\)"),
        (np.zeros((120, 3)), "type float64; expected item codes"),
        (np.zeros((120, 0), int), "k >= 1"),
    ],
)
def test_bad_rankings(holdout, items, message):
    with pytest.raises(ValueError, match=message):
        evaluate_rankings(items, holdout)


def test_nobody_to_evaluate():
    data = world()
    empty = Holdout(data, data.select([]), "test", "house", "x")
    with pytest.raises(ValueError, match="nobody has a held-out item"):
        evaluate(models.constant(80), empty)


def test_one_user():
    data = Interactions([0] * 10, range(10), user_ids=["me"], item_ids=range(12), timestamps=range(10), name="demo")
    report = evaluate(models.constant(12), splits.temporal_per_user(data).test, k=4)
    np.testing.assert_allclose(report.values("recall"), 1)
    assert report.intervals["recall"] == (1, 1)


def test_membership_beyond_32_bits():
    n_users, n_items = 200_000, 87_000
    from scipy import sparse

    rows, columns = np.array([0, 49_367, n_users - 1]), np.array([1, 38_297, n_items - 1])
    matrix = sparse.csr_matrix((np.ones(3), (rows, columns)), shape=(n_users, n_items))
    asked = np.array([[1, 0], [1, 38_297], [n_items - 1, -1]])
    assert membership(matrix, rows.astype(np.int32), asked).tolist() == [[True, False], [False, True], [True, False]]
    assert not membership(sparse.csr_matrix((3, 4)), np.array([0, 2]), np.array([[0, 3], [3, -1]])).any()


# --- chance, and those who know nothing


def test_constant_and_random_scorers_are_at_chance(holdout):
    check_at_chance(lambda seed: models.constant(80), holdout)
    check_at_chance(lambda seed: models.random(80, seed), holdout)


def test_constant_and_random_scorers_are_at_chance_on_the_house_split(house):
    n_items = house.data.n_items
    check_at_chance(lambda seed: models.constant(n_items), house.test, seeds=2)
    check_at_chance(lambda seed: models.random(n_items, seed), house.test, seeds=2)


def test_popularity_beats_chance(holdout, house):
    check_beats_chance(popularity(holdout.seen), holdout)
    check_beats_chance(popularity(house.test.seen), house.test)
    assert evaluate(popularity(house.test.seen), house.test).mean("ndcg") >= 0.080


def test_canary_reversed_popularity_is_caught(holdout, house):
    for part in (holdout, house.test):
        with pytest.raises(AssertionError, match="is not above chance"):
            check_beats_chance(models.reversed_popularity(part.seen), part)


def test_canaries_chance_is_neither_popularity_nor_its_reverse_nor_the_order_of_ids(holdout):
    data = holdout.seen
    for scorer in (popularity(data), models.reversed_popularity(data), models.first_items(80)):
        with pytest.raises(AssertionError, match="from chance"):
            check_at_chance(lambda seed, scorer=scorer: scorer, holdout)


@pytest.mark.parametrize("model", [models.constant(80), models.random(80)])
def test_sampled_negatives_have_a_chance_of_their_own(holdout, model):
    reports = [evaluate_with_sampled_negatives(model, holdout, 10, 39, seed) for seed in range(10)]
    values = np.mean([report.values("hit_rate") for report in reports], axis=0)
    assert abs(values.mean() - 10 / 40) < 4 * values.std() / np.sqrt(len(values))


def test_sampled_negatives(holdout):
    truth = dense_scorer(holdout.truth_matrix)
    report = evaluate_with_sampled_negatives(truth, holdout)
    assert report.means == {"ndcg": 1, "hit_rate": 1, "mrr": 1}
    assert report.part == "test, 99 sampled negatives"
    worst = evaluate_with_sampled_negatives(dense_scorer(-holdout.truth_matrix), holdout, k=10, n_negatives=20)
    assert worst.mean("hit_rate") == 0
    with pytest.raises(ValueError, match="n_negatives=0; expected at least 1"):
        evaluate_with_sampled_negatives(truth, holdout, n_negatives=0)
    everything = Interactions([0] * 4, range(4), user_ids=[0], item_ids=range(4), timestamps=range(4))
    with pytest.raises(ValueError, match="has met every item"):
        evaluate_with_sampled_negatives(models.constant(4), splits.leave_last_out(everything).test)


# --- ratings


def test_ratings_are_pooled_and_users_resampled(holdout):
    rng = np.random.default_rng(0)
    predictions = holdout.truth.ratings + rng.normal(0, 1, len(holdout.truth))
    report = evaluate_ratings(predictions, holdout)
    truth = holdout.truth.ratings.astype(float)
    assert report.mean("rmse") == pytest.approx(sklearn_metrics.mean_squared_error(truth, predictions) ** 0.5, abs=1e-9)
    assert report.mean("r2") == pytest.approx(sklearn_metrics.r2_score(truth, predictions), abs=1e-9)
    assert report.low("rmse") < report.mean("rmse") < report.high("rmse")
    with pytest.raises(KeyError, match="no per-user values of 'rmse'"):
        report.values("rmse")
    rows = [np.flatnonzero(holdout.truth.users == user) for user in holdout.users]
    slow = []
    resamples = np.random.default_rng(0).integers(0, len(rows), (1000, len(rows)))
    for picks in resamples:
        drawn = np.concatenate([rows[pick] for pick in picks])
        slow.append(np.sqrt(np.mean((predictions[drawn] - truth[drawn]) ** 2)))
    assert report.intervals["rmse"] == pytest.approx(tuple(np.percentile(slow, [2.5, 97.5])), abs=1e-9)
    no_stars = replace(holdout, truth=replace(holdout.truth, ratings=None))
    with pytest.raises(ValueError, match="demo has no ratings to predict"):
        evaluate_ratings(predictions, no_stars)


# --- intervals and comparisons


def report_of(columns, names=None, **fields):
    names = names or tuple(f"m{column}" for column in range(columns.shape[1]))
    fields = {"k": 10, "catalogue": {}, "protocol": "house", "part": "test", "fingerprint": "x"} | fields
    return Report(np.arange(len(columns)), columns, names, **fields)


def test_intervals_and_comparison_by_a_slow_loop():
    rng = np.random.default_rng(5)
    ours = rng.random((40, 2))
    ours[::7, 1] = np.nan
    theirs = ours + rng.normal(0.05, 0.02, ours.shape)
    report, other = report_of(ours), report_of(theirs)
    resamples = np.random.default_rng(0).integers(0, 40, (1000, 40))
    for column, name in enumerate(("m0", "m1")):
        draws = [np.nanmean(ours[picks, column]) for picks in resamples]
        assert report.intervals[name] == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=1e-12)
        assert report.mean(name) == pytest.approx(np.nanmean(ours[:, column]))
        draws = [np.nanmean(ours[picks, column]) - np.nanmean(theirs[picks, column]) for picks in resamples]
        difference = compare(report, other).differences[name]
        assert difference[1:] == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=1e-12)
        paired = difference[2] - difference[1]
        assert paired < 0.3 * (report.high(name) - report.low(name))  # unpaired, they could not be told apart
        assert report.high(name) > other.low(name)
        assert difference[2] < 0


def test_chunks_of_the_bootstrap_do_not_matter(monkeypatch):
    columns = np.random.default_rng(5).random((40, 2))
    whole = report_of(columns).intervals
    monkeypatch.setattr(evaluation, "BATCH_CELLS", 100)
    for name, interval in report_of(columns).intervals.items():
        assert interval == pytest.approx(whole[name], abs=1e-12)


def test_interval_covers_the_mean_of_the_population_about_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    covered = [low <= 0.5 <= high for low, high in (report_of(rng.random((60, 1))).intervals["m0"] for _ in range(200))]
    assert 0.90 <= np.mean(covered) <= 0.99


def test_comparison_with_oneself_and_with_strangers(holdout, scores):
    report = evaluate(dense_scorer(scores), holdout)
    assert compare(report, report).differences["ndcg"] == (0, 0, 0)
    for change, message in [
        ({"fingerprint": "other"}, "fingerprint differs: .* against 'other'"),
        ({"part": "validation"}, "part differs"),
        ({"k": 5}, "k differs: 10 against 5"),
        ({"names": report.names[::-1]}, "names differs"),
        ({"users": report.users + 1}, "measured different users"),
    ]:
        with pytest.raises(ValueError, match=message):
            compare(report, replace(report, **change))


def test_reports_read_well(holdout, scores):
    report = evaluate(dense_scorer(scores), holdout)
    text = f"{report:ndcg}"
    assert text == f"{report.mean('ndcg'):.3f} [{report.low('ndcg'):.3f}, {report.high('ndcg'):.3f}]"
    assert f"{report:coverage}" == f"{report.mean('coverage'):.3f}"
    assert f"{report}" == repr(report)
    assert "120 users, k=10" in repr(report)
    assert f"{compare(report, report):ndcg}" == "+0.000 [+0.000, +0.000]"
    assert np.isnan(report.frame().loc["coverage", "low"])
    assert "nan" not in report._repr_html_().lower()
    with pytest.raises(KeyError, match="no metric 'ndgc'; this report has"):
        report.mean("ndgc")


# --- speed and memory


def test_bootstrap_of_6040_users_in_under_a_second_and_little_memory():
    report = report_of(np.random.default_rng(0).random((6040, 10)))
    tracemalloc.start()
    started = time.process_time()
    assert len(report.intervals) == 10
    seconds = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 1, f"{seconds:.2f} s of CPU time"
    assert peak < 100e6, f"{peak / 1e6:.0f} MB"


def test_recommend_ranks_as_evaluate_does():
    """The lists it returns are those that evaluate measures, ties included, and the scorer's own array is untouched."""
    holdout = splits.temporal_per_user(world()).test
    scores = np.random.default_rng(0).integers(0, 5, (holdout.seen.n_users, holdout.seen.n_items)).astype(float)
    before = scores.copy()
    lists = recommend(lambda users: scores[users[0] : users[-1] + 1], holdout.seen_matrix, holdout.users, k=7, seed=3)
    measured = evaluate(dense_scorer(scores), holdout, k=7, seed=3)
    assert np.array_equal(evaluate_rankings(lists, holdout).columns, measured.columns)
    assert not membership(holdout.seen_matrix, holdout.users, lists).any()
    assert np.array_equal(scores, before)


def test_memory_does_not_grow_with_the_scores():
    """6,000 users x 27,000 items, whose scores alone would take 1.3 GB: less than 200 MB above the data."""
    peak = measured_memory(ROOT / "benchmarks" / "evaluation.py", 6_000, 27_000, 20)
    assert peak["evaluate"] < 200, peak
    assert peak["process"] < 500, peak


def test_measured_speed_meets_the_bars():
    """What benchmarks/evaluation.py last wrote: at most twice the bare product, 500 MB, a second for the bootstrap."""
    path = ROOT / "results" / "speed" / "evaluation.json"
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    assert rows["evaluate"]["ratio_to"]["matrix product and argpartition"] <= 2
    assert rows["1,000-fold bootstrap of all metrics"]["value"] < 1
    assert rows["allocated by evaluate at its peak, 140,000 x 27,000"]["value"] < 500
