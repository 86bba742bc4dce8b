"""Results: recorded once, read back the same, and checked by one schema."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from core_checks import check_results, popularity, world
from recsys_utils import leaderboard, splits
from recsys_utils.evaluation import compare, evaluate, evaluate_rankings, evaluate_ratings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def split():
    return splits.temporal_per_user(world(name="demo"))


@pytest.fixture(scope="module")
def report(split):
    return evaluate(popularity(split.test.seen), split.test)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """An empty checkout that records into itself."""
    monkeypatch.setattr(leaderboard, "CHECKOUT", tmp_path)
    monkeypatch.delenv("RECSYS_RESULTS_DIR", raising=False)
    (tmp_path / "results").mkdir()
    return tmp_path


def test_round_trip(checkout, split, report, capsys):
    path = leaderboard.record("popularity", report, split, train_seconds=0.25, n_parameters=80)
    assert path == checkout / "results" / "demo" / "house" / "popularity.json"
    assert capsys.readouterr().out == "recorded demo/house/popularity in results/\n"
    check_results(checkout / "results")
    again = leaderboard.load("popularity", "house", "demo")
    np.testing.assert_array_equal(again.users, report.users)
    np.testing.assert_allclose(again.columns, report.columns, atol=1e-6)
    assert again.names == report.names
    assert (again.k, again.fingerprint, again.part) == (10, split.fingerprint, "test")
    assert again.means == pytest.approx(report.means, abs=1e-6)
    assert compare(report, again).mean("ndcg") == pytest.approx(0, abs=1e-6)
    row = leaderboard.result("popularity", "house", "demo")
    assert row["chapter"] == "03_baselines"
    assert row["data_sha256"] == split.data.data_sha256
    assert row["versions"]["numpy"] == np.__version__
    assert list(leaderboard.board("house", "demo")["model"]) == ["popularity"]


def test_rating_reports_are_recorded_too(checkout, split):
    predictions = np.full(len(split.test.truth), 3.0)
    report = evaluate_ratings(predictions, split.test)
    leaderboard.record("biases", report, split)
    check_results(checkout / "results")
    assert leaderboard.load("biases", "house", "demo").means == pytest.approx(report.means, abs=1e-5)
    worse = evaluate_ratings(np.full(len(split.test.truth), 1.0), split.test)
    leaderboard.record("mf", worse, split)
    table = leaderboard.board("house", "demo")
    assert list(table["model"]) == ["biases", "matrix factorisation"]  # the smaller error first
    assert list(table.columns) == ["model", "RMSE", "95% interval", "MAE", "fit, s"]


def test_written_elsewhere_when_asked(checkout, split, report, tmp_path_factory, monkeypatch, capsys):
    elsewhere = tmp_path_factory.mktemp("fresh")
    monkeypatch.setenv("RECSYS_RESULTS_DIR", str(elsewhere))
    assert leaderboard.record("popularity", report, split).parent == elsewhere / "demo" / "house"
    assert capsys.readouterr().out == "recorded demo/house/popularity in RECSYS_RESULTS_DIR\n"
    assert not any((checkout / "results").iterdir())
    monkeypatch.delenv("RECSYS_RESULTS_DIR")
    monkeypatch.setattr(leaderboard, "CHECKOUT", None)
    monkeypatch.setattr(leaderboard.tempfile, "gettempdir", lambda: str(elsewhere / "tmp"))
    assert elsewhere / "tmp" in leaderboard.record("popularity", report, split).parents
    assert leaderboard.results_dir() == leaderboard.PACKAGE / "_results"


@pytest.mark.parametrize(
    "settings", [{"layers": (64, 32), "rate": np.float32(0.5), "epochs": np.int64(3)}, {}], ids=["numpy", "none"]
)
def test_selection_and_seeds_are_kept_for_equal_settings_only(checkout, split, report, settings):
    chosen = {"metric": "ndcg", "split": "validation", "trials": 20, "grid": {"rate": [0.1, 0.5]}, "seconds": 3.0}
    seeds = {"0": {"ndcg": 0.1}, "1": {"ndcg": 0.2}}

    def kept(split, report, hyperparameters):
        row = json.loads(
            leaderboard.record("ease", report, split, hyperparameters=hyperparameters).read_text(encoding="utf-8")
        )
        return row["selection"], row["seeds"]

    leaderboard.record("ease", report, split, hyperparameters=settings, selection=chosen, seeds=seeds)
    assert kept(split, report, settings) == (chosen, seeds)
    assert kept(split, report, settings | {"rate": 0.25}) == ({}, {})
    leaderboard.record("ease", report, split, hyperparameters=settings, selection=chosen, seeds=seeds)
    other = splits.Split(split.data, np.roll(split.parts, 1), "house")
    assert kept(other, evaluate(popularity(other.test.seen), other.test), settings) == ({}, {})


def test_unknown_ids_raise(checkout, split, report):
    with pytest.raises(ValueError, match="unknown model 'eaze'; expected one of random, popularity"):
        leaderboard.record("eaze", report, split)
    for arguments, message in [
        (("eaze",), "unknown model 'eaze'"),
        (("ease", "../house"), "unknown protocol"),
        (("ease", "house", "2m"), "unknown edition '2m'; expected one of latest-small"),
    ]:
        with pytest.raises(ValueError, match=message):
            leaderboard.load(*arguments)
    strange = splits.temporal_per_user(world(name="mine"))
    with pytest.raises(ValueError, match="unknown edition 'mine'"):
        leaderboard.record("ease", evaluate(popularity(strange.train), strange.test), strange)
    odd = splits.random_per_user(world(name="demo"))
    with pytest.raises(ValueError, match="unknown protocol 'random-per-user'"):
        leaderboard.record("ease", evaluate(popularity(odd.train), odd.test), odd)


def test_only_the_test_part_of_this_split_is_recorded(checkout, split, report):
    validation = evaluate(popularity(split.train), split.validation)
    with pytest.raises(ValueError, match="part 'validation'; record wants the test part of this split"):
        leaderboard.record("popularity", validation, split)
    other = splits.temporal_per_user(world(seed=1))
    with pytest.raises(ValueError, match="the test part of this split"):
        leaderboard.record("popularity", report, other)


def test_what_is_not_there(checkout, split, report):
    with pytest.raises(FileNotFoundError, match=re.escape("no result demo/house/ease; recorded there: []")):
        leaderboard.load("ease", "house", "demo")
    with pytest.raises(FileNotFoundError, match=r"no results demo/house .*; record one first"):
        leaderboard.board("house", "demo")
    leaderboard.record("popularity", report, split)
    with pytest.raises(FileNotFoundError, match=re.escape("recorded there: ['popularity']")):
        leaderboard.load("ease", "house", "demo")
    assert leaderboard.published().empty
    assert leaderboard.chapters() == {}


def test_values_with_code_in_them_are_not_loaded(checkout, split, report):
    path = leaderboard.record("popularity", report, split).with_suffix(".npz")
    np.savez_compressed(path, users=report.users, columns=report.columns, names=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        leaderboard.load("popularity", "house", "demo")


def test_a_checkout_is_told_from_a_wheel():
    assert leaderboard.CHECKOUT == ROOT
    assert leaderboard.results_dir() == ROOT / "results"


def test_every_recorded_result_follows_the_schema():
    check_results(ROOT / "results")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("split_fingerprint"), "field 'split_fingerprint' is 'missing'"),
        (lambda row: row.update(k="10"), "field 'k' is '10'"),
        (lambda row: row.update(model="ease"), "names itself demo/house/ease"),
        (lambda row: row.update(title="best"), "the title 'best' is not that of the model"),
        (lambda row: row.update(chapter="99"), "no chapter '99'"),
        (lambda row: row.update(data_sha256="12"), "a hash of a wrong length"),
        (lambda row: row["metrics"]["ndcg"].update(mean=0.9, high=0.95), "but its per-user values have mean"),
        (lambda row: row["metrics"]["ndcg"].update(mean=float("nan")), "holds NaN"),
    ],
)
def test_canary_a_broken_result_is_caught(checkout, split, report, change, message):
    path = leaderboard.record("popularity", report, split)
    row = json.loads(path.read_text(encoding="utf-8"))
    change(row)
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(AssertionError, match=message):
        check_results(checkout / "results")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda cells: cells["ndcg"].update(mean=0.9),
            "ndcg is .*expected 0 <= low <= mean <= high <= 1: measure it again",
        ),
        (lambda cells: cells["hit_rate"].update(low=1.1, mean=1.2, high=1.3), "hit_rate is .*'mean': 1.2"),
        (lambda cells: cells["recall"].update(low=-0.2), "recall is .*'low': -0.2"),
        (lambda cells: cells["mrr"].pop("low"), "mrr is .*expected 0 <= low <= mean"),
        (lambda cells: cells["coverage"].update(mean=1.5), "coverage is .*expected 0 <= mean <= 1"),
        (lambda cells: cells["novelty"].update(high=float("nan")), "novelty is .*<= inf"),
    ],
)
def test_a_result_that_cannot_be_is_refused(checkout, split, report, change, message):
    path = leaderboard.record("popularity", report, split)
    row = json.loads(path.read_text(encoding="utf-8"))
    assert leaderboard.check(row) is row
    change(row["metrics"])
    path.write_text(json.dumps(row), encoding="utf-8")
    for read in (leaderboard.load, leaderboard.result):
        with pytest.raises(ValueError, match=f"demo/house/popularity: {message}"):
            read("popularity", "house", "demo")
    with pytest.raises(ValueError, match=message):
        leaderboard.board("house", "demo")


def test_errors_counts_and_a_negative_r2_may_leave_the_unit_interval():
    cells = {"low": 2.0, "mean": 2.5, "high": 3.0}
    negative = {"low": -3.0, "mean": -2.5, "high": -2.0}
    row = {"edition": "demo", "protocol": "ratings-5fold", "model": "mf"}
    leaderboard.check(row | {"metrics": {"rmse": cells, "novelty": cells, "r2": negative}})
    leaderboard.check(row | {"metrics": {"positive_among_negatives": {"mean": 156.0}}})
    for name, wrong in (("ndcg", cells), ("rmse", negative), ("r2", cells)):
        with pytest.raises(ValueError, match=f"{name} is"):
            leaderboard.check(row | {"metrics": {name: wrong}})


def test_a_board_refuses_results_of_another_split(checkout, split, report):
    leaderboard.record("popularity", report, split)
    other = splits.Split(split.data, np.roll(split.parts, 1), "house")
    leaderboard.record("ease", evaluate(popularity(other.test.seen), other.test), other)
    with pytest.raises(ValueError, match=f"2 splits in demo/house: .*{split.fingerprint}.*measure all on one split"):
        leaderboard.board("house", "demo")
    assert len(leaderboard.board("house", "demo", ["ease"])) == 1


def test_the_lists_of_a_report_are_kept(checkout, split, report):
    leaderboard.record("popularity", report, split)
    again = leaderboard.load("popularity", "house", "demo")
    np.testing.assert_array_equal(again.items, report.items)
    measured = evaluate_rankings(again.items, split.test)
    np.testing.assert_allclose(measured.columns, report.columns)
    ratings = evaluate_ratings(np.full(len(split.test.truth), 3.0), split.test)
    leaderboard.record("biases", ratings, split)
    assert leaderboard.load("biases", "house", "demo").items is None


def test_canary_files_of_a_wrong_kind_are_caught(checkout, split, report):
    results = checkout / "results"
    values = leaderboard.record("popularity", report, split).with_suffix(".npz")
    for name, content, message in [
        ("notes.txt", "x", "expected .json and .npz files only"),
        ("demo/home/ease.json", "{}", "unknown place"),
        ("speed/x.json", '[{"name": "x"}]', r"speed/x.json: \['name'\]"),
        ("tables/x.json", "[]", "tables/x.json is empty"),
        ("tables/x.json", '[{"a": 1}]', r"tables/x.json: \['a'\] say neither model nor name"),
        ("tables/x.json", '[{"name": {"b": 1}}]', r"\['name'\] hold more than a value or a curve"),
        ("chapters.json", '{"01_interactions": {"minutes": 1}}', r"01_interactions has \['minutes'\]"),
        ("published.json", '[{"value": 0.4, "source": "x", "grade": "A"}]', "lacks {'protocol'}"),
        ("demo/house/ease.npz", "", "ease.npz has no .json beside it"),
    ]:
        path = results / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        with pytest.raises(AssertionError, match=message):
            check_results(results)
        path.unlink()
    check_results(results)
    big = np.random.default_rng(0).random((len(report.users), 1000)).astype(np.float32)
    np.savez_compressed(values, users=report.users, columns=big, names=np.array(["x"] * 1000))
    with pytest.raises(AssertionError, match="bytes of per-user values; limit 200,000"):
        check_results(results)
    values.unlink()
    with pytest.raises(AssertionError, match="no per-user values beside it"):
        check_results(results)


def test_tables_of_sweeps_are_read(checkout):
    with pytest.raises(FileNotFoundError, match=r"no table 'depth' in .*recorded there: \[\]"):
        leaderboard.table("depth")
    path = checkout / "results" / "tables" / "depth.json"
    path.parent.mkdir(parents=True)
    path.write_text('[{"depth": 1, "ndcg": 0.4}, {"depth": 2, "ndcg": null}]', encoding="utf-8")
    assert leaderboard.table("depth")["depth"].tolist() == [1, 2]


def test_a_board_shows_the_metrics_it_has(checkout, split, report):
    path = leaderboard.record("popularity", report, split)
    row = json.loads(path.read_text(encoding="utf-8"))
    for name in ("recall", "coverage"):
        del row["metrics"][name]
    path.write_text(json.dumps(row), encoding="utf-8")
    columns = leaderboard.board("house", "demo").columns
    assert "hit rate" in columns
    assert not {"recall", "coverage"} & set(columns)
