"""What the core must satisfy, as functions: the tests call them on the core, and on canaries that must fail them."""

import ast
import io
import json
import math
import tokenize
from pathlib import Path

import numpy as np
from scipy import sparse, special

from recsys_utils import Interactions
from recsys_utils.evaluation import evaluate
from recsys_utils.leaderboard import EDITIONS, MODELS, PROTOCOLS, check

CORE_LIMIT = 2500  # MovieLens and KuaiRec, with their checks and simulators, take four tenths of it
RESULT_FIELDS = {
    "model": str,
    "title": str,
    "chapter": str,
    "edition": str,
    "data_sha256": str,
    "protocol": str,
    "split_fingerprint": str,
    "k": (int, type(None)),
    "metrics": dict,
    "seeds": dict,
    "hyperparameters": dict,
    "selection": dict,
    "command": str,
    "n_parameters": int,
    "train_seconds": (int, float),
    "score_ms_per_user": (int, float),
    "machine": str,
    "versions": dict,
}


def world(n_users=120, n_items=80, n=2400, seed=0, name="demo"):
    """Distinct pairs, half stars, time stamps; low item codes are met more often, and some by nobody."""
    rng = np.random.default_rng(seed)
    weights = np.tile(1 / np.arange(3, n_items + 3), n_users)
    pairs = rng.choice(n_users * n_items, n, replace=False, p=weights / weights.sum())
    return Interactions(
        pairs // n_items,
        pairs % n_items,
        user_ids=np.arange(n_users) + 100,
        item_ids=np.array([f"item {code}" for code in range(n_items)]),
        ratings=rng.integers(1, 11, n) / 2,
        timestamps=rng.integers(0, 500, n),  # many equal ones
        name=name,
    )


def pairs(data):
    return set(zip(data.users.tolist(), data.items.tolist(), strict=True))


def check_holdout(holdout):
    """No held-out pair was seen in training."""
    both = pairs(holdout.seen) & pairs(holdout.truth)
    assert not both, f"{len(both)} held-out pairs are in the training data, {min(both)} first"


def check_ndcg(ndcg):
    """Equal to the definition, one list at a time, with the logarithm to base 2 and the best possible sum below."""
    rng = np.random.default_rng(0)
    hits = rng.random((50, 10)) < 0.3
    n_relevant = np.maximum(hits.sum(axis=1), 1) + rng.integers(0, 15, 50)
    for values, row, relevant in zip(ndcg(hits, n_relevant), hits, n_relevant, strict=True):
        gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(row, start=1) if hit)
        best = sum(1 / math.log2(rank + 1) for rank in range(1, min(int(relevant), 10) + 1))
        assert abs(values - gain / best) < 1e-12, f"NDCG of {row} is {values}, by definition {gain / best}"


def chance(holdout, k):
    """Expected hit rate, precision and NDCG of a random order for each user, by counting; arrays of shape (U,)."""
    users = holdout.users
    relevant = holdout.truth_matrix.getnnz(axis=1)[users]
    open_items = holdout.seen.n_items - holdout.seen_matrix.getnnz(axis=1)[users]

    def log_choose(n):  # of n over k; minus infinity where there are fewer than k
        return np.where(n >= k, special.gammaln(n + 1) - special.gammaln(np.maximum(n - k, 0) + 1), -np.inf)

    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(relevant, k) - 1]
    share = relevant / open_items
    missed = np.exp(log_choose(open_items - relevant) - log_choose(open_items))
    return {"hit_rate": 1 - missed, "precision": share, "ndcg": share * discounts.sum() / ideal}


def check_at_chance(scorer_of_seed, holdout, k=10, seeds=10):
    """The mean over seeds lies within four standard errors of the analytic value of a random order."""
    reports = [evaluate(scorer_of_seed(seed), holdout, k, seed=seed) for seed in range(seeds)]
    for name, expected in chance(holdout, k).items():
        difference = np.mean([report.values(name) for report in reports], axis=0) - expected
        error = difference.std() / np.sqrt(len(difference))
        assert abs(difference.mean()) < 4 * error, (
            f"{name} is {difference.mean():+.4f} from chance {expected.mean():.4f}, more than 4 x {error:.4f}"
        )


def check_beats_chance(scorer, holdout, k=10):
    """The lower end of the interval lies above chance, in every metric with a known chance value."""
    report = evaluate(scorer, holdout, k)
    for name, expected in chance(holdout, k).items():
        assert report.low(name) > expected.mean(), f"{name} {report:{name}} is not above chance {expected.mean():.3f}"


def popularity(data):
    counts = data.item_counts.astype(float)
    return lambda users: np.tile(counts, (len(users), 1))


def check_negatives(sampler, positives, alpha):
    """No positive is drawn, and the draws follow popularity^alpha among the rest (chi-squared)."""
    from scipy import stats

    dense = positives.toarray() != 0
    rng = np.random.default_rng(0)
    weights = dense.sum(axis=0).astype(float) ** alpha
    for user in range(min(len(dense), 6)):
        drawn = sampler.sample(np.full(2000, user), 10, rng)
        assert not dense[user, drawn].any(), f"user {user} got one of the user's own positives as a negative"
        expected = weights * ~dense[user]
        expected *= drawn.size / expected.sum()
        counts = np.bincount(drawn.ravel(), minlength=len(weights))
        assert not counts[expected == 0].any(), f"user {user} got an item of weight zero"
        p = stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue
        assert p > 1e-4, f"the draws of user {user} do not follow the weights (p = {p:.1e})"


def met(n_users=30, n_items=40, share=0.3, seed=0):
    """A matrix of positives with a long tail; every item is met by somebody."""
    rng = np.random.default_rng(seed)
    dense = rng.random((n_users, n_items)) < share * 2 / np.sqrt(np.arange(1, n_items + 1)) + 0.05
    dense[rng.integers(0, n_users, n_items), np.arange(n_items)] = True
    dense[:, 0] = np.arange(n_users) % 2 == 0
    return sparse.csr_matrix(dense.astype(np.float32))


def code_lines(source):
    """Lines that hold code: no blank lines, comments or docstrings."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (
            tokenize.COMMENT,
            tokenize.NL,
            tokenize.NEWLINE,
            tokenize.INDENT,
            tokenize.DEDENT,
            tokenize.ENDMARKER,
        ):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def check_core_size(package: Path):
    """All modules but models, serving and scale stay under the limit, together."""
    files = [f for f in package.rglob("*.py") if f.relative_to(package).parts[0] not in ("models", "serving", "scale")]
    total = sum(code_lines(file.read_text(encoding="utf-8")) for file in files)
    assert 0 < total < CORE_LIMIT, f"the core has {total} lines of code; the limit is {CORE_LIMIT}"


def check_results(folder: Path):
    """Every file below results/ has the fields its readers expect."""
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
            match place.split("/"):
                case ["chapters.json"]:
                    for chapter, row in content.items():
                        assert row.keys() >= {"minutes", "memory_gb"}, f"{place}: {chapter} has {sorted(row)}"
                case ["matrix.json"]:
                    _check_matrix(content)
                case ["published.json"]:
                    for row in content:
                        missing = {"value", "source", "grade", "protocol"} - row.keys()
                        assert not missing, f"{place}: {row} lacks {missing}"
                case ["speed", _]:
                    for row in content:
                        fields = row.keys() - {"settings", "ndcg"}  # of what was trained
                        assert fields == {"name", "value", "unit", "ratio_to"}, f"{place}: {sorted(row)}"
                case ["tables", _]:
                    assert content, f"{place} is empty"
                    for row in content:
                        assert {"model", "name"} & row.keys(), f"{place}: {sorted(row)} say neither model nor name"
                        held = [name for name, cell in row.items() if isinstance(cell, dict)]
                        assert not held, f"{place}: {held} hold more than a value or a curve"
                case [edition, protocol, _] if edition in EDITIONS and protocol in PROTOCOLS:
                    _check_result(content, path, place)
                case _:
                    raise AssertionError(f"{place}: unknown place; expected <edition>/<protocol>/<model>.json")
        elif path.suffix == ".npz":
            assert path.with_suffix(".json").exists(), f"{place} has no .json beside it"
        else:
            assert path.is_dir() or path.name == ".gitkeep", f"{place}: expected .json and .npz files only"


def _check_matrix(content):
    """Two environments with their versions and chapters, and what Colab would install."""
    assert content.keys() == {"machine", "python", "held", "environments", "colab"}, f"matrix.json: {sorted(content)}"
    assert content["environments"].keys() == {"floors", "newest"}, f"matrix.json: {sorted(content['environments'])}"
    for name, environment in content["environments"].items():
        assert environment["versions"], f"matrix.json: {name} states no versions"
        assert environment["chapters"], f"matrix.json: {name} ran no chapter"
        for chapter, row in environment["chapters"].items():
            where = f"matrix.json: {name}, {chapter}"
            assert row.keys() == {"passed", "checks", "seconds", "problems"}, f"{where} has {sorted(row)}"
            assert row["passed"] == (not row["problems"]), f"{where}: passed is {row['passed']} with {row['problems']}"
            assert row["seconds"] > 0, f"{where} took {row['seconds']} s"
            assert row["checks"] > 0 or not row["passed"], f"{where} passed without a check"
    fields = {"seconds": float, "installed": dict, "replaced": list}
    assert content["colab"].keys() == fields.keys(), f"matrix.json: colab has {sorted(content['colab'])}"
    for field, kind in fields.items():
        assert isinstance(content["colab"][field], kind), f"matrix.json: colab {field} is {content['colab'][field]!r}"


def _check_result(row, path, place):
    for field, kind in RESULT_FIELDS.items():
        assert isinstance(row.get(field, ...), kind), f"{place}: field {field!r} is {row.get(field, 'missing')!r}"
    edition, protocol, model = place.removesuffix(".json").split("/")
    named = (row["edition"], row["protocol"], row["model"])
    assert named == (edition, protocol, model), f"{place} names itself {'/'.join(named)}"
    assert model in MODELS, f"{place}: unknown model {model!r}"
    assert row["title"] == MODELS[model].title, f"{place}: the title {row['title']!r} is not that of the model"
    assert row["chapter"] in {known.chapter for known in MODELS.values()}, f"{place}: no chapter {row['chapter']!r}"
    assert (len(row["data_sha256"]), len(row["split_fingerprint"])) == (64, 16), f"{place}: a hash of a wrong length"
    values = path.with_suffix(".npz")
    assert values.exists(), f"{place} has no per-user values beside it"
    assert values.stat().st_size < 200_000, f"{place}: {values.stat().st_size} bytes of per-user values; limit 200,000"
    with np.load(values, allow_pickle=False) as stored:
        users, columns, names = stored["users"], stored["columns"], stored["names"].tolist()
        items = stored.get("items")
    assert columns.dtype == np.float32, f"{place}: per-user values are {columns.dtype}; expected float32"
    assert columns.shape[0] == len(users), f"{place}: {columns.shape[0]} rows for {len(users)} users"
    if items is not None:
        assert items.shape == (len(users), row["k"]), f"{place}: lists of shape {items.shape}"
        ordered = np.sort(items)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        assert not twice.any(), f"{place}: a list holds an item twice"
    for name, cell in check(row)["metrics"].items():
        if len(names) == columns.shape[1] and name in names:  # ratings are kept as sums, not one column a metric
            mean = np.nanmean(columns[:, names.index(name)].astype(float))
            assert abs(mean - cell["mean"]) < 1e-5 * max(1, abs(mean)), (
                f"{place}: {name} is {cell['mean']}, but its per-user values have mean {mean}"
            )


def _no_constant(name):
    raise AssertionError(f"a result holds {name}; expected finite numbers")
