"""The files of He et al. (2017) rebuilt from ratings, and the rank of one item among given negatives."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import ncf
import numpy as np
import pytest

from recsys_utils import splits
from recsys_utils.datasets import EDITIONS, load_movielens
from recsys_utils.evaluation import evaluate_against_negatives
from recsys_utils.interactions import Interactions

# user 1 rates films 30, 10, 20; user 2 rates 10, 40, 30 with the last two at one time; user 3 rates 20, 30, 40, 10
RATINGS = """\
1::30::5::978300100
1::10::3::978300300
1::20::1::978300200
2::10::4::978300100
2::40::4::978300500
2::30::2::978300500
3::20::3::978300400
3::30::3::978300300
3::40::3::978300200
3::10::3::978300100
"""
# numbered as they come: films 30, 10, 20, 40 are 0, 1, 2, 3
TEST = "0\t1\t3\t978300300\n1\t3\t4\t978300500\n2\t2\t3\t978300400\n"
NEGATIVES = "(0,1)\t3\t1\n(1,3)\t2\t2\n(2,2)\t0\t1\n"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "ratings.dat").write_text(RATINGS)
    (tmp_path / "ml-1m" / "movies.dat").write_text(
        "".join(f"{n}::Film {n} (1995)::Drama\n" for n in (5, 10, 20, 30, 40))
    )
    (tmp_path / "ml-1m" / "users.dat").write_text("".join(f"{n}::F::1::10::48067\n" for n in (1, 2, 3)))
    (tmp_path / "ml-1m.test.rating").write_text(TEST)
    (tmp_path / "ml-1m.test.negative").write_text(NEGATIVES)
    monkeypatch.setitem(EDITIONS, "1m", replace(EDITIONS["1m"], rows=(10, 5, 0)))
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    return tmp_path


def built(folder: Path):
    return ncf.from_ratings(load_movielens("1m"), folder / "ml-1m.test.rating", folder / "ml-1m.test.negative")


def pairs(data: Interactions) -> list[tuple[int, int]]:
    return sorted(zip(data.users.tolist(), data.items.tolist(), strict=True))


def test_the_papers_files_from_raw_ratings(folder):
    split, negatives = built(folder)
    assert pairs(split.test.truth) == [(0, 1), (1, 3), (2, 2)]  # the latest; of two at one time, the one in the file
    assert pairs(split.validation.truth) == [(0, 2), (1, 0), (2, 0)]  # the last but one
    assert pairs(split.train) == [(0, 0), (1, 1), (2, 1), (2, 3)]
    assert negatives.tolist() == [[3, 1], [2, 2], [0, 1]]
    assert (split.data.n_users, split.data.n_items, split.protocol) == (3, 4, "ncf")


def test_arrays_and_raw_ratings_give_one_test_set(folder):
    split, negatives = built(folder)
    everything = split.train_validation
    np.savez(
        folder / "ncf_ml_1m.npz",
        train=np.column_stack([everything.users, everything.items]).astype(np.int16),
        test=np.column_stack([split.test.truth.users, split.test.truth.items]).astype(np.int16),
        negatives=negatives.astype(np.int16),
    )
    other, same = ncf.paper(folder)  # finds the arrays in the folder
    assert pairs(other.test.truth) == pairs(split.test.truth)
    assert pairs(other.train_validation) == pairs(everything)
    assert (same == negatives).all()
    assert len(other.validation.truth) == 3


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("ml-1m.test.rating", "0\t1\t", "0\t2\t", "line 1 is not the latest rating of its user"),
        ("ml-1m.test.rating", "2\t2\t", "0\t3\t", "1 of them not among the ratings"),
        ("ml-1m.test.rating", "2\t2\t3\t978300400\n", "", "has 2 rows"),
        ("ml-1m.test.negative", "(1,3)", "(1,2)", "does not name the pairs"),
    ],
)
def test_files_that_do_not_fit_are_refused(folder, file, old, new, message):
    (folder / file).write_text((folder / file).read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        built(folder)


def test_files_of_the_authors_are_checked(folder, monkeypatch):
    monkeypatch.setattr(ncf, "AUTHORS", "http://127.0.0.1:1/")  # nobody answers there
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    digests = {name: f"sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}" for name in ncf.AUTHORS_FILES}
    with pytest.raises(OSError, match=r"ml-1m\.test\.rating"):  # ours are not theirs, so they are fetched
        ncf.paper(folder)
    monkeypatch.setattr(ncf, "AUTHORS_FILES", digests)
    split, _ = ncf.paper(folder)
    assert pairs(split.test.truth) == [(0, 1), (1, 3), (2, 2)]
    with pytest.raises(FileNotFoundError, match="neither a folder nor a file of arrays"):
        ncf.paper(folder / "missing.npz")


# One item among given negatives


@pytest.fixture(scope="module")
def holdout() -> splits.Holdout:
    """2,000 users with one train and one held-out item among 200."""
    rng = np.random.default_rng(0)
    n = 2000
    items = np.stack([rng.choice(200, 3, replace=False) for _ in range(n)])
    data = Interactions(
        np.repeat(np.arange(n), 3), items.ravel(), user_ids=np.arange(n), item_ids=np.arange(200), name="demo"
    )
    return splits.Split(data, np.tile([0, 1, 2], n), "ncf").test


def negatives_of(holdout: splits.Holdout, n: int = 99) -> np.ndarray:
    others = np.random.default_rng(1).integers(0, 199, (len(holdout.users), n))
    return others + (others >= holdout.truth_matrix.indices[:, None])  # anything but the held-out item


def by_item(users, items):
    return items.astype(float)


def test_a_constant_scorer_gets_the_value_of_chance(holdout):
    report = evaluate_against_negatives(lambda users, items: np.zeros(items.shape), holdout, negatives_of(holdout))
    assert report.low("hit_rate") < 0.1 < report.high("hit_rate")
    chance = (1 / np.log2(np.arange(2, 12))).sum() / 100
    assert report.low("ndcg") < chance < report.high("ndcg")
    assert report.means["positive_among_negatives"] == 0


def test_canary_a_rank_that_lets_the_positive_win_ties_is_not_chance(holdout, monkeypatch):
    from recsys_utils import evaluation

    def positive_first(mine, theirs, k, rng):
        rank = (theirs > mine[:, None]).sum(axis=1)
        return np.stack([(rank < k) / np.log2(rank + 2), rank < k, (rank < k) / (rank + 1)], axis=1)

    monkeypatch.setattr(evaluation, "_against", positive_first)
    with pytest.raises(AssertionError):
        test_a_constant_scorer_gets_the_value_of_chance(holdout)


def test_a_positive_among_its_own_negatives_is_reported_and_does_not_compete(holdout):
    negatives = negatives_of(holdout)
    clean = evaluate_against_negatives(by_item, holdout, negatives[:, 1:])
    negatives[:7, 0] = holdout.truth_matrix.indices[:7]
    negatives[7:, 0] = negatives[7:, 1]
    report = evaluate_against_negatives(by_item, holdout, negatives)
    assert report.means["positive_among_negatives"] == 7
    assert (report.values("mrr")[:7] == clean.values("mrr")[:7]).all()


def test_ranks_by_hand(holdout):
    positives = holdout.truth_matrix.indices
    report = evaluate_against_negatives(by_item, holdout, negatives_of(holdout), k=5)
    rank = (negatives_of(holdout) > positives[:, None]).sum(axis=1)
    assert (report.values("hit_rate") == (rank < 5)).all()
    assert np.allclose(report.values("ndcg"), np.where(rank < 5, 1 / np.log2(rank + 2), 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n[:10], "one row for each of 2000 users"),
        (lambda n: n.astype(float), "type float64; expected item codes"),
        (lambda n: n + 200, "item codes below 200"),
        (lambda n: n[:, :0], r"shape \(2000, 0\)"),
        (lambda n: n[:, 0], r"shape \(2000,\)"),
    ],
)
def test_wrong_negatives_are_an_error(holdout, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_against_negatives(by_item, holdout, change(negatives_of(holdout)))


def test_wrong_scores_are_an_error(holdout):
    for score in (lambda u, i: np.full(i.shape, np.nan), lambda u, i: np.zeros(len(u))):
        with pytest.raises(ValueError, match="expected one number a candidate"):
            evaluate_against_negatives(score, holdout, negatives_of(holdout))


def test_several_held_out_items_are_an_error(holdout):
    several = replace(holdout, truth=holdout.seen)
    with pytest.raises(ValueError, match="2000 users have 4000 held-out items; expected one a user"):
        evaluate_against_negatives(by_item, several, negatives_of(holdout))
