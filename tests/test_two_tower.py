"""The two towers of chapter 10: torch and Keras equal, losses right, features and cold rows, saved and loaded."""

import json

import numpy as np
import pandas as pd
import pytest

from recsys_utils.training import require

require("tensorflow", "torch", "safetensors")  # before the frameworks, which it keeps quiet

import keras  # noqa: E402
import torch  # noqa: E402

from core_checks import check_beats_chance  # noqa: E402
from recsys_utils import Interactions, splits  # noqa: E402
from recsys_utils.evaluation import dense_scorer  # noqa: E402
from recsys_utils.models import losses_keras, losses_torch, two_tower_id_keras, two_tower_torch  # noqa: E402  # noqa: E402
from recsys_utils.models.two_tower_torch import fit_two_tower, in_batch_loss, item_vectors, user_vectors  # noqa: E402
from recsys_utils.simulators import simulate_demo, simulate_uniform  # noqa: E402
from twins import check_twins  # noqa: E402

SETTING = {"embedding_dim": 8, "temperature": 0.2, "learning_rate": 0.02, "batch_size": 64}
OTHER = {
    "embedding_dim": 4, "temperature": 0.5, "learning_rate": 0.05, "batch_size": 32, "epochs": 2, "logq": 0.0,
    "n_uniform": 1, "hidden": (8,), "normalize": False, "seed": 1,
}  # fmt: skip
WORLD = simulate_uniform(40, 30, 300)


def batch():
    """Positives with repeated users and items, and two negatives each."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 12, 50), rng.integers(0, 15, 50), rng.integers(0, 15, (50, 2))


def check(hidden, twin=two_tower_id_keras.TwoTower, loss="softmax_loss", dtype="float64"):
    ours, theirs = getattr(losses_torch, loss), getattr(losses_keras, loss)
    model = two_tower_torch.TwoTower(13, 16, 4, 0.25, hidden=hidden).to(getattr(torch, dtype))
    check_twins(
        model,
        twin(13, 16, 4, 0.25, hidden, dtype=dtype),
        lambda model, u, i, j: ours(model(u, i), model(u[:, None], j)),
        lambda model, u, i, j: theirs(model((u, i)), model((u[:, None], j))),
        batch(),
        dtype,
    )


@pytest.mark.parametrize(
    ("hidden", "dtype"), [((), "float64"), ((6,), "float64"), ((6, 5), "float64"), ((), "float32"), ((6,), "float32")]
)
def test_twins(hidden, dtype):
    check(hidden, dtype=dtype)


@pytest.mark.parametrize("loss", ["bce_loss", "bpr_loss"])
def test_twins_by_loss(loss):
    check((), loss=loss)


class Hotter(two_tower_id_keras.TwoTower):
    def call(self, inputs):
        return super().call(inputs) * 1.001


class NoLength(two_tower_id_keras.TwoTower):
    def __init__(self, *args, **options):
        super().__init__(*args, **options, normalize=False)


class OtherEpsilon(two_tower_id_keras.TwoTower):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for norm in self.item.norms:
            norm.epsilon = 1e-3


@pytest.mark.parametrize("twin", [Hotter, NoLength, OtherEpsilon])
def test_canary_a_broken_twin_is_caught(twin):
    with pytest.raises(AssertionError, match="outputs differ"):
        check((6,), twin)


def softmax_by_hand(model, users, items, log_q, seen, more=()):
    """The loss of in_batch_loss, one row at a time."""
    U, V = model.vectors()
    candidates, total = [*items, *np.ravel(more)], 0.0
    for row, user in enumerate(users):
        kept = [c for c, item in enumerate(candidates) if c == row or not seen[user, item]]
        logits = np.array([U[user] @ V[candidates[c]] / model.temperature - log_q[candidates[c]] for c in kept], float)
        total += np.log(np.exp(logits - logits[kept.index(row)]).sum())
    return total / len(users)


@pytest.mark.parametrize("with_more", [False, True])
def test_in_batch_loss_is_the_softmax_by_hand(with_more):
    users, items, more = batch()
    rng = np.random.default_rng(2)
    seen, log_q = rng.random((13, 16)) < 0.3, rng.normal(size=16)
    seen[users, items] = True
    model = two_tower_torch.TwoTower(13, 16, 4, 0.25)
    extra = (more,) if with_more else ()
    left_out = np.where(seen, -np.inf, 0.0)
    loss = in_batch_loss(model, *(torch.tensor(array) for array in (users, items, log_q, left_out, *extra)))
    assert loss.item() == pytest.approx(softmax_by_hand(model, users, items, log_q, seen, *extra), abs=1e-5)


def test_vectors_have_length_one_and_give_the_scores():
    model, _ = fit_two_tower(WORLD, **SETTING, epochs=1, hidden=(6,))
    U, V = user_vectors(model), item_vectors(model)
    assert U.dtype == V.dtype == np.float32
    assert U.shape == (40, 8)
    assert V.shape == (30, 8)
    assert np.allclose(np.linalg.norm(U, axis=1), 1, atol=1e-6)
    assert np.allclose(np.linalg.norm(V, axis=1), 1, atol=1e-6)
    with torch.no_grad():
        scores = model(torch.arange(40)[:, None], torch.arange(30)[None, :]).numpy()
    assert np.allclose(scores * 0.2, U @ V.T, atol=1e-6)


def check_learns(**changes):
    split = splits.temporal_per_user(simulate_demo(n_users=100, items_per_category=20).interactions)
    model, history = fit_two_tower(split.train_validation, **(SETTING | {"epochs": 20, "batch_size": 256} | changes))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0], "the loss does not fall"
    users, items = model.vectors()
    check_beats_chance(dense_scorer(users, items.T), split.test)


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_learns(hidden):
    check_learns(hidden=hidden)


def test_canary_the_wrong_sign_does_not_learn():
    with pytest.raises(AssertionError):
        check_learns(temperature=1e6)


def test_every_option_matters():
    usual = SETTING | {"epochs": 1, "seed": 0}
    before, again = (item_vectors(fit_two_tower(WORLD, **usual)[0]) for _ in range(2))
    assert np.array_equal(before, again), "the same seed gives another model"
    for name, value in OTHER.items():
        changed = item_vectors(fit_two_tower(WORLD, **usual | {name: value})[0])
        assert not np.array_equal(before, changed), f"{name}={value} changes nothing"


def test_features_and_id_dropout_matter():
    features = np.random.default_rng(0).normal(size=(30, 3))
    usual = SETTING | {"epochs": 1, "item_features": features}
    with_ids = fit_two_tower(WORLD, **usual)[0]
    assert not np.array_equal(item_vectors(with_ids), item_vectors(fit_two_tower(WORLD, **usual, id_dropout=0.5)[0]))
    assert not np.array_equal(
        user_vectors(with_ids),
        user_vectors(fit_two_tower(WORLD, **usual, user_features=np.random.default_rng(1).normal(size=(40, 2)))[0]),
    )


def test_without_ids_equal_features_are_equal_vectors():
    features = np.random.default_rng(0).normal(size=(30, 3))
    features[7] = features[3]
    model, _ = fit_two_tower(WORLD, **SETTING, epochs=2, item_features=features, id_dropout=1.0)
    items = item_vectors(model)
    assert np.array_equal(items[7], items[3])
    assert not np.allclose(items[7], items[4])
    new = model.item.encode(torch.zeros(8), torch.tensor(features[3], dtype=torch.float32)).detach().numpy()
    assert np.allclose(new, items[3], atol=1e-6)


def test_an_item_nobody_met_keeps_its_features_vector():
    world = WORLD.select(WORLD.items != 5)
    model, _ = fit_two_tower(world, **SETTING, epochs=2, n_uniform=1, item_features=np.eye(30)[:, :6] + 0.1)
    assert not model.item.embedding.weight[5].any()
    assert model.item.embedding.weight[6].any()


@pytest.mark.parametrize("hidden", [(), (6,)])
def test_saved_and_loaded(tmp_path, hidden):
    features = np.random.default_rng(0).normal(size=(30, 3))
    model, _ = fit_two_tower(WORLD, **SETTING, epochs=1, hidden=hidden, item_features=features)
    two_tower_torch.save(model, tmp_path / "model")
    again = two_tower_torch.load(tmp_path / "model")
    assert all(np.array_equal(a, b) for a, b in zip(model.vectors(), again.vectors(), strict=True))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads((tmp_path / "model" / "model.json").read_text())["n_items"] == 30


def test_keras_batches_hold_every_row_once_and_only_unmet_negatives():
    batches = list(two_tower_id_keras.with_negatives(WORLD, 3, 64))
    users = np.concatenate([users[:, 0] for (users, _), _ in batches])
    items, negatives = np.split(np.concatenate([lists for (_, lists), _ in batches]), [1], axis=1)
    items = items[:, 0]
    assert not any(labels.numpy().any() for _, labels in batches)
    assert sorted(zip(users, items, strict=True)) == sorted(zip(WORLD.users, WORLD.items, strict=True))
    assert negatives.shape == (len(WORLD), 3)
    assert not WORLD.matrix()[users[:, None], negatives].toarray().any()


def test_keras_towers_learn():
    split = splits.temporal_per_user(simulate_demo(n_users=100, items_per_category=20).interactions)
    keras.utils.set_random_seed(0)
    model = two_tower_id_keras.TwoTower(split.data.n_users, split.data.n_items, 8, 0.2)
    model.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = two_tower_id_keras.with_negatives(split.train_validation, 4, 256)
    loss = model.fit(batches, epochs=20, shuffle=False, verbose=0).history
    users, items = model.vectors()
    assert loss["loss"][-1] < loss["loss"][0]
    check_beats_chance(dense_scorer(users, items.T), split.test)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"id_dropout": 1.5}, "id_dropout=1.5"),
        ({"embedding_dim": 0}, "embedding_dim=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"item_features": np.ones((29, 2))}, r"shape \(29, 2\); expected finite numbers, a row for each of 30"),
        ({"user_features": np.full((40, 2), np.nan)}, "expected finite numbers"),
    ],
)
def test_clear_errors(change, message):
    with pytest.raises(ValueError, match=message):
        fit_two_tower(WORLD, **SETTING | {"epochs": 1} | change)


def test_no_interactions_is_an_error():
    with pytest.raises(ValueError, match="interactions=0"):
        fit_two_tower(WORLD.select(np.zeros(len(WORLD), bool)), **SETTING, epochs=1)


def test_hidden_films_have_no_rows_in_train():
    split = splits.temporal_per_user(simulate_demo(n_users=100, items_per_category=20).interactions)
    hidden, validation_films, test_films = two_tower_torch.hide_films(split)
    assert len(test_films) == 2 * len(validation_films) == split.data.n_items // 5
    assert not hidden.train.item_counts[np.append(validation_films, test_films)].any()
    assert not hidden.train_validation.item_counts[test_films].any()
    truth = two_tower_torch.only(hidden.test, test_films).truth
    assert set(np.unique(truth.items)) <= set(test_films)
    assert len(truth) == split.data.item_counts[test_films].sum()


def test_genre_popularity_by_hand():
    films = pd.DataFrame({"genres": [("A",), ("B",), ("A", "B"), ("B",)]})
    train = Interactions(
        users=np.array([0, 0, 1, 1, 2]), items=np.array([0, 1, 0, 2, 0]), user_ids=np.arange(3), item_ids=np.arange(4),
        item_table=films,
    )  # fmt: skip
    typical = np.array([(3 + 0.5) / 1.5, (1 + 0.5) / 1.5])  # film 3 has no rating and does not vote
    overall = np.array([3.5, 1.5]) / 5
    taste = np.array([[0.5, 0.5], [0.75, 0.25], [1, 0]])
    genres = np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 1]])
    users, items = two_tower_torch.genre_popularity(train)
    assert np.allclose(users @ items.T, (taste / overall * typical) @ genres.T)


def test_film_rows_and_profiles():
    films = pd.DataFrame({"genres": [("A",), ("A", "B"), ("B",)], "year": [1990.0, np.nan, 2000.0]})
    assert np.allclose(two_tower_torch.film_rows(films), [[1, 0, -0.5], [0.5, 0.5, 0], [0, 1, 0.5]])
    rows = np.random.default_rng(0).normal(size=(30, 2))
    first = WORLD.items[WORLD.users == 0]
    assert np.allclose(two_tower_torch.profiles(WORLD, rows)[0], rows[np.unique(first)].mean(axis=0))
