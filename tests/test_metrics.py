"""Metrics: properties, edge cases, and agreement with ranx, scikit-learn and the definitions."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from canaries.metrics import natural_log_ndcg
from core_checks import check_ndcg
from recsys_utils import metrics
from recsys_utils.evaluation import top_k

PER_USER = {
    "ndcg": metrics.ndcg,
    "recall": metrics.recall,
    "precision": metrics.precision,
    "hit_rate": metrics.hit_rate,
    "mrr": metrics.mrr,
    "map": metrics.average_precision,
    "map_relevant": lambda hits, n: metrics.average_precision(hits, n, denominator="relevant"),
}


@st.composite
def lists(draw):
    """Hits of some users, and how many relevant items each has, found or not."""
    n_users, k = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    hits = np.array(draw(st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=n_users, max_size=n_users)))
    more = np.array(draw(st.lists(st.integers(0, 20), min_size=n_users, max_size=n_users)))
    return hits, np.maximum(hits.sum(axis=1) + more, 1)


def by_definition(hits, n_relevant):
    """Every metric of one list, in plain Python."""
    ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
    precisions = [(place + 1) / rank for place, rank in enumerate(ranks)]
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(n_relevant, len(hits)) + 1))
    return {
        "ndcg": sum(1 / math.log2(rank + 1) for rank in ranks) / best,
        "recall": len(ranks) / n_relevant,
        "precision": len(ranks) / len(hits),
        "hit_rate": float(bool(ranks)),
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "map": sum(precisions) / min(n_relevant, len(hits)),
        "map_relevant": sum(precisions) / n_relevant,
    }


@settings(deadline=None)
@given(lists())
def test_every_metric_follows_its_definition_and_its_bounds(drawn):
    hits, n_relevant = drawn
    expected = [by_definition(row.tolist(), int(n)) for row, n in zip(hits, n_relevant, strict=True)]
    for name, metric in PER_USER.items():
        values = metric(hits, n_relevant)
        np.testing.assert_allclose(values, [row[name] for row in expected], atol=1e-12, err_msg=name)
        assert values.shape == n_relevant.shape
        assert (values >= 0).all()
        assert (values <= 1 + 1e-12).all()


@settings(deadline=None)
@given(lists(), st.randoms(use_true_random=False))
def test_users_do_not_influence_each_other(drawn, random):
    hits, n_relevant = drawn
    order = list(range(len(hits)))
    random.shuffle(order)
    for name, metric in PER_USER.items():
        shuffled = metric(hits[order], n_relevant[order])
        np.testing.assert_allclose(shuffled, metric(hits, n_relevant)[order], rtol=0, atol=1e-12, err_msg=name)


@settings(deadline=None)
@given(lists(), st.data())
def test_moving_a_hit_up_never_hurts(drawn, data):
    hits, n_relevant = drawn
    better = hits.copy()
    for row in better:
        up, down = sorted(data.draw(st.tuples(*[st.integers(0, hits.shape[1] - 1)] * 2)))
        if row[down] and not row[up]:
            row[up], row[down] = True, False
    for name, metric in PER_USER.items():
        assert (metric(better, n_relevant) >= metric(hits, n_relevant) - 1e-12).all(), name
    moved = (better != hits).any(axis=1)
    assert (metrics.ndcg(better, n_relevant)[moved] > metrics.ndcg(hits, n_relevant)[moved]).all()


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 12))
def test_a_perfect_list_scores_one(n_relevant, k):
    n_relevant = np.array(n_relevant)
    hits = np.arange(k) < n_relevant[:, None]
    for name in ("ndcg", "hit_rate", "mrr", "map"):
        np.testing.assert_allclose(PER_USER[name](hits, n_relevant), 1, err_msg=name)
    np.testing.assert_allclose(metrics.recall(hits, n_relevant), np.minimum(k / n_relevant, 1))
    np.testing.assert_allclose(metrics.precision(hits, n_relevant), np.minimum(n_relevant / k, 1))


@settings(deadline=None)
@given(lists())
def test_a_short_list_is_a_list_with_misses_at_its_end(drawn):
    hits, n_relevant = drawn
    padded = np.pad(hits, ((0, 0), (0, 3)))
    for name in ("recall", "hit_rate", "mrr", "map_relevant"):  # the others also ask how many places there are
        np.testing.assert_allclose(PER_USER[name](padded, n_relevant), PER_USER[name](hits, n_relevant), err_msg=name)


def test_edge_cases():
    with pytest.raises(ValueError, match="row 1 has 0 hits and n_relevant 0; expected at least one relevant"):
        metrics.recall([[True], [False]], [1, 0])
    with pytest.raises(ValueError, match=r"row 0 has 2 hits and n_relevant 1; .* rank no item twice"):
        metrics.ndcg([[True, True]], [1])
    with pytest.raises(ValueError, match="k >= 1"):
        metrics.precision(np.empty((2, 0)), [1, 1])
    with pytest.raises(ValueError, match=r"hits has shape \(2,\)"):
        metrics.mrr([True, False], [1, 1])
    with pytest.raises(ValueError, match="expected 'achievable' or 'relevant'"):
        metrics.average_precision([[True]], [1], denominator="k")
    for metric in PER_USER.values():
        assert metric(np.empty((0, 5), bool), np.empty(0, int)).shape == (0,)
        assert metric([[False, False]], [3]).tolist() == [0]


def test_ndcg_by_definition():
    check_ndcg(metrics.ndcg)


def test_canary_ndcg_with_the_natural_logarithm_is_caught():
    with pytest.raises(AssertionError, match=r"NDCG of .* is .*, by definition"):
        check_ndcg(natural_log_ndcg)


def rankings(n_users=60, n_items=50, seed=0):
    """Scores without ties, and a non-empty truth of each user; many have more than ten relevant items."""
    rng = np.random.default_rng(seed)
    scores = np.argsort(rng.random((n_users, n_items)), axis=1).astype(float)
    truth = rng.random((n_users, n_items)) < rng.uniform(0.02, 0.6, (n_users, 1))
    truth[np.arange(n_users), rng.integers(0, n_items, n_users)] = True
    return scores, truth


RANX = """
import json, sys, warnings
warnings.simplefilter("ignore")
import ranx
given = json.load(sys.stdin)
names = [f"{name}@{given['k']}" for name in given["metrics"]]
values = ranx.evaluate(ranx.Qrels(given["qrels"]), ranx.Run(given["run"]), names, return_mean=False)
order = list(ranx.Qrels(given["qrels"]).qrels)
print(json.dumps([order, {name.split("@")[0]: list(map(float, values[name])) for name in names}]))
"""


def test_agreement_with_ranx():
    """ranx divides average precision by the number of relevant items: its map is our map_relevant."""
    scores, truth = rankings()
    k, users = 10, [f"u{u:03d}" for u in range(len(scores))]
    top = top_k(scores, k, np.arange(len(scores)))
    given_to_ranx = {
        "k": k,
        "metrics": ["ndcg", "recall", "precision", "hit_rate", "mrr", "map"],
        "qrels": {u: {str(i): 1 for i in np.flatnonzero(row)} for u, row in zip(users, truth, strict=True)},
        "run": {u: {str(i): float(k - r) for r, i in enumerate(row)} for u, row in zip(users, top, strict=True)},
    }
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}  # compiling takes longer than the sixty users
    command = [sys.executable, "-c", RANX]
    done = subprocess.run(command, input=json.dumps(given_to_ranx), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    order, theirs = json.loads(done.stdout)
    assert order == users
    hits, n_relevant = np.take_along_axis(truth, top, axis=1), truth.sum(axis=1)
    for name, values in theirs.items():
        ours = PER_USER["map_relevant" if name == "map" else name](hits, n_relevant)
        np.testing.assert_allclose(ours, values, atol=1e-9, rtol=0, err_msg=name)
    assert (n_relevant > k).sum() > 10  # where the two denominators differ
    assert np.abs(metrics.average_precision(hits, n_relevant) - theirs["map"]).max() > 0.1


@pytest.mark.parametrize("k", [1, 10, 50])
def test_agreement_with_scikit_learn(k):
    scores, truth = rankings()
    hits = np.take_along_axis(truth, top_k(scores, k, np.arange(len(scores))), axis=1)
    ours = metrics.ndcg(hits, truth.sum(axis=1))
    theirs = [sklearn_metrics.ndcg_score(t[None], s[None], k=k) for t, s in zip(truth, scores, strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=0)
    if k == 50:  # scikit-learn's average precision has no cut
        theirs = [sklearn_metrics.average_precision_score(t, s) for t, s in zip(truth, scores, strict=True)]
        np.testing.assert_allclose(metrics.average_precision(hits, truth.sum(axis=1)), theirs, atol=1e-9, rtol=0)


@pytest.mark.parametrize("levels", [2, 4, 1])
@pytest.mark.parametrize("k", [5, 10])
def test_ties_average_to_the_tie_averaged_ndcg_of_scikit_learn(levels, k):
    """The mean over 1,000 of our permutations lies within three standard errors."""
    rng = np.random.default_rng(levels)
    scores, truth = rng.integers(0, levels, 30).astype(float), rng.random(30) < 0.3
    lists = np.concatenate([top_k(scores[None], k, np.array([7]), seed) for seed in range(1000)])
    values = metrics.ndcg(truth[lists], np.full(1000, truth.sum()))
    expected = sklearn_metrics.ndcg_score(truth[None], scores[None], k=k)
    assert abs(values.mean() - expected) <= 3 * values.std(ddof=1) / np.sqrt(1000)
    assert values.std() > 0


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_auc_with_ties_by_counting_pairs(seed, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (5, 12)).astype(float)
    relevant, candidates = rng.random((5, 12)) < 0.4, rng.random((5, 12)) < 0.8
    for value, s, r, c in zip(metrics.auc(scores, relevant, candidates), scores, relevant, candidates, strict=True):
        good, bad = s[r & c], s[~r & c]
        if not len(good) or not len(bad):
            assert np.isnan(value)
            continue
        pairs = np.sign(good[:, None] - bad[None, :])
        assert value == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean(), abs=1e-12)
        assert value == pytest.approx(sklearn_metrics.roc_auc_score(r[c], s[c]), abs=1e-9)


def test_coverage_and_novelty():
    items = np.array([[0, 1, -1], [1, -1, -1], [-1, -1, -1]])
    assert metrics.coverage(items, 8) == 2 / 8
    assert metrics.coverage(np.full((3, 2), -1), 8) == 0
    bits = metrics.novelty(items, np.array([4, 1, 0]), n_users=8)
    assert bits.tolist() == [(1 + 3) / 2, 3, 0]
    assert metrics.novelty(np.array([[2]]), np.array([4, 1, 0]), n_users=8).tolist() == [3]  # met by nobody: as by one


def test_rating_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    users, truth = rng.integers(0, 20, 500), rng.integers(1, 11, 500) / 2
    predictions = truth + rng.normal(0, 1, 500)
    sums = metrics.rating_sums(users, truth, predictions, 20)
    pooled = sums.sum(axis=0)
    assert metrics.rmse(pooled) ** 2 == pytest.approx(sklearn_metrics.mean_squared_error(truth, predictions), abs=1e-9)
    assert metrics.mae(pooled) == pytest.approx(sklearn_metrics.mean_absolute_error(truth, predictions), abs=1e-9)
    assert metrics.r2(pooled) == pytest.approx(sklearn_metrics.r2_score(truth, predictions), abs=1e-9)
    mine = users == 3
    assert metrics.rmse(sums)[3] == pytest.approx(np.sqrt(((predictions - truth)[mine] ** 2).mean()), abs=1e-12)
    assert metrics.rmse(metrics.rating_sums(users, truth, truth, 20).sum(axis=0)) == 0


@pytest.mark.parametrize("predictions", [[1.0, np.nan], [1.0, np.inf], [1.0]])
def test_rating_metrics_want_a_number_for_every_rating(predictions):
    with pytest.raises(ValueError, match="give the model a fallback for what it cannot predict"):
        metrics.rating_sums(np.array([0, 0]), [3, 4], predictions, 1)
