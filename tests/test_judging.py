"""Chapter 14: tests and corrections against other libraries, measures on worked examples, two rows recomputed."""

import subprocess
from pathlib import Path

import house as benchmark
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recsys_utils import leaderboard, metrics, splits
from recsys_utils.datasets import load_house
from recsys_utils.evaluation import dense_scorer, evaluate
from recsys_utils.models import blend, neighbours
from recsys_utils.models.beyond_accuracy import (
    exposure,
    gap,
    group_means,
    intra_list_diversity,
    miscalibration,
    tail_share,
)
from recsys_utils.models.judging import holm, randomization_test
from recsys_utils.models.long_tail import gini, lorenz

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)

# --- rows of the board, from scratch -----------------------------------------------------------------------------

QUICK = ("popularity", "genre_charts", "tfidf", "covisitation", "user_knn", "item_knn", "ease", "biases", "mf")


@pytest.fixture(scope="module")
def house():
    return splits.temporal_per_user(load_house())


def ndcg_by_hand(items: np.ndarray, truth: set[int]) -> float:
    """One user's NDCG@10, term by term."""
    gain = sum(1 / np.log2(place + 2) for place, item in enumerate(items) if item in truth)
    return gain / sum(1 / np.log2(place + 2) for place in range(min(10, len(truth))))


def recomputed(model: str, house) -> float:
    """The model fitted again with its recorded setting, ranked and scored without the harness."""
    scorer = benchmark.FITS[model](house.train_validation, **leaderboard.result(model)["hyperparameters"])
    seen, hidden = house.test.seen_matrix, house.test.truth_matrix
    scores = np.concatenate([np.asarray(scorer(rows), float) for rows in np.array_split(house.test.users, 8)])
    values = []
    for user, row in zip(house.test.users, scores, strict=True):
        row[seen[user].indices] = -np.inf
        shuffled = np.random.default_rng(user).permutation(len(row))  # ties by lot
        best = shuffled[np.argsort(-row[shuffled], kind="stable")[:10]]
        values.append(ndcg_by_hand(best, set(hidden[user].indices)))
    return float(np.mean(values))


def check_row(model: str, found: float) -> None:
    recorded = leaderboard.result(model)
    spread = np.std([means["ndcg"] for means in recorded["seeds"].values()])
    assert abs(found - recorded["metrics"]["ndcg"]["mean"]) < max(1e-3, 4 * spread), f"{model}: {found}"


def picked() -> list[str]:
    """Two quick models, chosen by the commit."""
    shown = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    number = int(shown.stdout.strip() or "0", 16)
    return [QUICK[number % len(QUICK)], QUICK[(number // len(QUICK)) % (len(QUICK) - 1) - 1]]


@pytest.mark.parametrize("model", sorted({"ease", "genre_charts", *picked()}))
def test_a_row_recomputed_from_scratch(model, house):
    check_row(model, recomputed(model, house))


def test_canary_a_row_that_was_not_measured_is_found(house):
    with pytest.raises(AssertionError, match="genre_charts: "):
        check_row("genre_charts", recomputed("popularity", house))


@pytest.mark.parametrize("protocol", ["house", "global-time"])
def test_every_model_of_the_book_has_its_row_with_interval_and_cost(protocol):
    missing = {"favourite_category", "blend"} if protocol == "global-time" else {"favourite_category"}
    fingerprints = set()
    for model in leaderboard.MODELS.keys() - missing:
        row = leaderboard.result(model, protocol)
        assert {"ndcg", "recall", "hit_rate", "mrr"} <= row["metrics"].keys()
        assert all("low" in row["metrics"][name] for name in ("ndcg", "recall", "hit_rate", "mrr"))
        assert row["train_seconds"] >= 0 < row["score_ms_per_user"]
        assert len(row["seeds"]) == 5 or model == "random", f"{model} has {len(row['seeds'])} seeds"
        fingerprints.add(row["split_fingerprint"])
    assert len(fingerprints) == 1


def test_the_recorded_lists_are_those_that_were_measured(house):
    for model in leaderboard.MODELS.keys() - {"favourite_category"}:
        report = leaderboard.load(model)
        hits = np.array(
            [
                np.isin(row, house.test.truth_matrix[u].indices)
                for u, row in zip(report.users, report.items, strict=True)
            ]
        )
        relevant = np.diff(house.test.truth_matrix.indptr)[report.users]
        np.testing.assert_allclose(metrics.ndcg(hits, relevant), report.values("ndcg"), atol=1e-6, err_msg=model)


# --- tests and corrections ---------------------------------------------------------------------------------------


def test_random_signs_give_the_p_value_of_scipy():
    differences = RNG.normal(0.1, 1, (60, 1))
    reference = stats.permutation_test(
        (differences[:, 0],), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    )
    assert randomization_test(differences, 20_000)[0] == pytest.approx(reference.pvalue, abs=0.02)


def test_a_small_case_is_exact():
    """Three users, all eight sign patterns: two reach the observed mean of equal signs."""
    assert randomization_test(np.ones((3, 1)), 20_000)[0] == pytest.approx(2 / 8, abs=0.01)


def test_without_a_difference_p_values_are_uniform():
    p = randomization_test(RNG.normal(size=(200, 400)), 1000)
    assert stats.kstest(p, "uniform").pvalue > 0.001
    with pytest.raises(AssertionError):  # a one-sided count is not
        assert stats.kstest(p / 2, "uniform").pvalue > 0.001


def test_no_difference_at_all_is_no_evidence_and_a_large_one_is():
    assert randomization_test(np.zeros((50, 1)), 1000)[0] == 1
    assert randomization_test(np.ones((50, 1)), 1000)[0] == pytest.approx(1 / 1001)


@pytest.mark.parametrize("wrong", [np.zeros(5), np.array([[1.0], [np.nan]])])
def test_differences_that_cannot_be_tested(wrong):
    with pytest.raises(ValueError, match="expected finite values"):
        randomization_test(wrong)


def test_holm_on_a_worked_example():
    """Four tests: .01 x 4, .02 x 3, .03 x 2, .04 x 1, and no later one below an earlier one."""
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.04, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=30))
def test_holm_lies_between_no_correction_and_bonferroni(p):
    p = np.array(p)
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(p)]) >= 0).all()


def test_holm_keeps_the_chance_of_one_false_announcement():
    """Among twenty tests of nothing: one world in twenty has an announcement, and without correction most have."""
    p = RNG.random((2000, 20))
    assert np.mean([(holm(row) <= 0.05).any() for row in p]) < 0.07
    assert np.mean((p <= 0.05).any(axis=1)) > 0.5


# --- beyond accuracy ---------------------------------------------------------------------------------------------


def test_exposure_counts_lists_and_leaves_empty_places_out():
    assert exposure(np.array([[0, 2], [2, -1]]), 4).tolist() == [1, 0, 2, 0]


def test_lorenz():
    items, events = lorenz([3, 0, 1])
    assert items.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert events.tolist() == pytest.approx([0, 0, 0.25, 1])


def test_gini_of_equals_is_zero_and_of_one_winner_near_one():
    assert gini(np.full(10, 3)) == pytest.approx(0)
    assert gini(np.eye(1, 100)[0]) == pytest.approx(0.99)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=40).filter(any))
def test_gini_is_the_mean_difference_of_all_pairs(counts):
    counts = np.array(counts, float)
    pairs = np.abs(counts[:, None] - counts).mean() / (2 * counts.mean())
    assert gini(counts) == pytest.approx(pairs)
    assert gini(5 * counts) == pytest.approx(pairs)


def test_tail_share_counts_places_outside_the_most_popular_fifth():
    popularity = np.array([9, 5, 4, 3, 2])  # the first is the head
    assert tail_share(np.array([[0, 1], [0, -1]]), popularity) == pytest.approx(1 / 3)
    assert tail_share(np.array([[0, 0]]), popularity) == 0


def test_diversity_is_one_minus_the_mean_cosine_of_pairs():
    features = RNG.random((30, 4)) * (RNG.random((30, 1)) > 0.2)  # some without any
    items = np.array([RNG.permutation(30)[:6] for _ in range(8)])
    items[0, 4:] = -1
    for row, found in zip(items, intra_list_diversity(items, features), strict=True):
        row = row[row >= 0]
        cosines = []
        for a in range(len(row)):
            for b in range(a):
                x, y = features[row[a]], features[row[b]]
                cosines.append(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) if x.any() and y.any() else 0)
        assert found == pytest.approx(1 - np.mean(cosines))
    alike, apart = np.ones((3, 2)), np.eye(3)
    lists = np.array([[0, 1, 2], [0, -1, -1]])
    np.testing.assert_allclose(intra_list_diversity(lists, alike), [0, np.nan], atol=1e-12)
    np.testing.assert_allclose(intra_list_diversity(lists, apart), [1, np.nan])


def test_miscalibration_on_worked_examples():
    genres = np.eye(2)
    history = np.array([[3.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    lists = np.array([[0, 1], [0, -1], [0, 1], [-1, -1]])
    p, q = np.array([0.75, 0.25]), np.array([0.5, 0.5])
    expected = stats.entropy(p, 0.99 * q + 0.01 * p)
    np.testing.assert_allclose(miscalibration(lists, genres, history), [expected, 0, np.nan, np.nan], atol=1e-12)
    worse = miscalibration(np.array([[1, 1]]), genres, np.array([[1.0, 0.0]]))[0]
    assert worse == pytest.approx(-np.log(0.01))  # as bad as it gets


def test_group_means_and_gaps():
    values = np.concatenate([RNG.normal(0.2, 0.1, 400), RNG.normal(0.5, 0.1, 100)])
    groups = np.repeat(["many", "few"], [400, 100])
    table = group_means(values, groups)
    assert table.index.tolist() == ["few", "many"]
    assert table["users"].tolist() == [100, 400]
    assert (table["low"] < table["mean"]).all()
    assert (table["mean"] < table["high"]).all()
    assert table["mean"].tolist() == pytest.approx([values[400:].mean(), values[:400].mean()])
    mean, low, high = gap(values, groups == "few")
    assert low < 0.3 < high
    assert mean == pytest.approx(values[400:].mean() - values[:400].mean())


def test_a_gap_that_comes_from_the_strata_vanishes_like_with_like():
    """Active users have twice the value, and most of the first group is active: within a stratum nothing differs."""
    n = 4000
    first = RNG.random(n) < 0.5
    active = RNG.random(n) < np.where(first, 0.8, 0.2)
    values = 0.2 + 0.2 * active + RNG.normal(0, 0.05, n)
    assert gap(values, first)[1] > 0.1
    like = gap(values, first, active)
    assert abs(like[0]) < 0.01
    assert like[1] < 0 < like[2] or abs(like[0]) < 0.005
    assert gap(values + 0.1 * first, first, active)[1] > 0.05  # a gap that is there stays


# --- the groups of ml-100k ---------------------------------------------------------------------------------------


def test_the_table_of_groups_is_of_the_recorded_results():
    table = leaderboard.table("fairness")
    for model, rows in table.groupby("model"):
        men, women = (rows.set_index("name").loc[name] for name in ("men", "women"))
        report = leaderboard.load(model, "within-item", "100k")
        assert men["users"] + women["users"] == len(report.users)
        pooled = (men["users"] * men["ndcg"] + women["users"] * women["ndcg"]) / len(report.users)
        assert pooled == pytest.approx(report.mean("ndcg"), abs=1e-6)
        assert rows.set_index("name").loc["men - women", "ndcg"] == pytest.approx(men["ndcg"] - women["ndcg"])
        ages = rows[(rows["kind"] == "group") & ~rows["name"].isin(["men", "women"])]
        assert ages["users"].sum() == len(report.users)
    assert (table["low"] <= table["ndcg"]).all()
    assert (table["ndcg"] <= table["high"]).all()


# --- the blend ---------------------------------------------------------------------------------------------------


def test_log_ranks_put_what_was_met_last_and_share_ties(house):
    train = house.train
    scores = np.round(RNG.random((train.n_users, train.n_items)), 2)  # many ties
    ranks = np.exp(-blend.log_ranks(dense_scorer(scores), train))
    seen = train.matrix()
    for user in (0, 17, 400):
        own = seen[user].indices
        free = np.setdiff1d(np.arange(train.n_items), own)
        np.testing.assert_allclose(ranks[user, free], stats.rankdata(-scores[user, free]), rtol=1e-4)
        assert ranks[user, own].min() > ranks[user, free].max()


def test_a_blend_of_one_part_ranks_as_that_part(house, monkeypatch):
    ease = leaderboard.result("ease")["hyperparameters"]
    alone = dense_scorer(neighbours.fit_ease(house.train, **ease))
    chart = dense_scorer(np.tile(house.train.item_counts, (house.train.n_users, 1)))
    monkeypatch.setattr(blend, "PARTS", {"ease": lambda train, **_: alone, "popularity": lambda train, **_: chart})
    blend.fit_parts.cache_clear()
    try:
        found = evaluate(blend.fit_blend(house.train, [1.0, 0.0]), house.validation)
        mixed = evaluate(blend.fit_blend(house.train, [0.5, 0.5]), house.validation)
    finally:
        blend.fit_parts.cache_clear()
    assert found.mean("ndcg") == pytest.approx(evaluate(alone, house.validation).mean("ndcg"), abs=1e-3)
    assert abs(mixed.mean("ndcg") - found.mean("ndcg")) > 0.005


def test_the_blend_was_chosen_on_validation_among_twenty_and_measured_with_that_choice():
    row = leaderboard.result("blend")
    assert [trial["setting"] for trial in row["selection"]["grid"]] == blend.TRIALS
    assert row["selection"]["split"] == "validation"
    assert max(row["selection"]["grid"], key=lambda trial: trial["ndcg"])["setting"] == row["hyperparameters"]
    assert all(sum(trial["weights"]) == pytest.approx(1, abs=0.002) for trial in blend.TRIALS)
