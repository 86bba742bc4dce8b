"""BPR of chapter 07, torch and Keras: it learns where there is something to learn, and stays at chance elsewhere."""

import numpy as np
import pytest

from recsys_utils.training import require

require("tensorflow", "torch")  # before the frameworks, which it keeps quiet

import tensorflow as tf  # noqa: E402

from core_checks import check_beats_chance  # noqa: E402
from recsys_utils import Interactions, splits  # noqa: E402
from recsys_utils.evaluation import dense_scorer, evaluate  # noqa: E402
from recsys_utils.models import bpr_keras, bpr_torch, losses_keras  # noqa: E402
from recsys_utils.models.bpr_keras import fit_bpr_keras  # noqa: E402
from recsys_utils.models.bpr_torch import fit_bpr, fit_ranking  # noqa: E402
from recsys_utils.models.losses_torch import bpr_loss  # noqa: E402
from recsys_utils.sampling import NegativeSampler  # noqa: E402
from recsys_utils.simulators import simulate_demo, simulate_uniform  # noqa: E402

FITS = {"torch": fit_bpr, "keras": fit_bpr_keras}
MODULES = {"torch": bpr_torch, "keras": bpr_keras}
SETTING = {
    "embedding_dim": 8, "n_negatives": 2, "alpha": 0.0, "learning_rate": 0.02, "weight_decay": 1e-5, "batch_size": 512
}  # fmt: skip
OTHER = {
    "embedding_dim": 4, "n_negatives": 3, "alpha": 0.75, "learning_rate": 0.05, "weight_decay": 0.01, "batch_size": 128,
    "epochs": 2, "seed": 1,
}  # fmt: skip


def scorer(model):
    U, V = model.vectors()
    return dense_scorer(U, V.T)


def check_learns(fit, **changes):
    split = splits.temporal_per_user(simulate_demo(n_users=100, items_per_category=20).interactions)
    model, history = fit(split.train_validation, **(SETTING | {"epochs": 30} | changes))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0], "the loss does not fall"
    check_beats_chance(scorer(model), split.test)


def check_options(fit):
    """Every option changes the model: none is accepted and ignored."""
    world, usual = simulate_uniform(40, 30, 300), SETTING | {"epochs": 1, "seed": 0}
    before, again = (fit(world, **usual)[0].vectors()[1] for _ in range(2))
    assert np.array_equal(before, again), "the same seed gives another model"
    for name, value in OTHER.items():
        changed = fit(world, **usual | {name: value})[0].vectors()[1]
        assert not np.array_equal(before, changed), f"{name}={value} changes nothing"


def check_no_positive_drawn(framework, sampler, monkeypatch):
    """What the loop trains on as negatives are never films of the user."""
    drawn = []

    class Recording(sampler):
        def sample(self, users, n, rng):
            negatives = super().sample(users, n, rng)
            drawn.append((np.repeat(users, n), negatives.ravel()))
            return negatives

    monkeypatch.setattr(MODULES[framework], "NegativeSampler", Recording)
    world = simulate_uniform(40, 30, 600)
    FITS[framework](world, **SETTING, epochs=2)
    assert len(drawn) == 2, f"negatives were drawn {len(drawn)} times in two epochs; expected anew in each"
    assert not np.array_equal(drawn[0][1], drawn[1][1]), "both epochs have the same negatives"
    positives = world.matrix()
    hit = np.concatenate([np.asarray(positives[users, items]).ravel() for users, items in drawn])
    assert not hit.any(), f"{hit.mean():.0%} of the negatives are positives of the user"


def check_at_chance(report, holdout):
    """Ten places, divided by the number of items that the user has not met."""
    unseen = holdout.seen.n_items - holdout.seen.user_counts[holdout.users]
    expected = np.mean(report.k / unseen)
    low, high = report.intervals["recall"]
    assert low <= expected <= high, f"recall {report:recall} excludes chance {expected:.4f}"


@pytest.mark.parametrize("framework", FITS)
def test_it_learns_a_planted_world(framework):
    check_learns(FITS[framework])


def test_canary_a_swapped_sign_does_not_learn(monkeypatch):
    monkeypatch.setattr(bpr_torch, "bpr_loss", lambda positive, negative: bpr_loss(-positive, -negative))
    with pytest.raises(AssertionError, match="not above chance"):
        check_learns(fit_bpr)
    monkeypatch.setattr(bpr_keras, "bpr_loss", lambda positive, negative: losses_keras.bpr_loss(-positive, -negative))
    with pytest.raises(AssertionError, match="not above chance"):
        check_learns(fit_bpr_keras)


@pytest.mark.parametrize("framework", FITS)
def test_every_option_matters(framework):
    tf.config.run_functions_eagerly(True)  # or each setting is compiled anew
    check_options(FITS[framework])
    tf.config.run_functions_eagerly(False)


def test_canary_an_option_is_ignored():
    usual = SETTING | {"epochs": 1, "seed": 0}
    for name in OTHER:
        with pytest.raises(AssertionError, match=f"{name}=.* changes nothing"):
            check_options(lambda world, name=name, **setting: fit_bpr(world, **setting | {name: usual[name]}))


@pytest.mark.parametrize("framework", FITS)
def test_no_positive_is_drawn_as_a_negative(framework, monkeypatch):
    check_no_positive_drawn(framework, NegativeSampler, monkeypatch)


@pytest.mark.parametrize("framework", FITS)
def test_canary_negatives_that_include_positives(framework, monkeypatch):
    class Careless(NegativeSampler):
        def sample(self, users, n, rng):
            return rng.integers(0, self.shape[1], (len(users), n))

    with pytest.raises(AssertionError, match="of the negatives are positives"):
        check_no_positive_drawn(framework, Careless, monkeypatch)


@pytest.mark.parametrize("epochs", [15, 150])
def test_random_pairs_teach_nothing(epochs):
    """Data without structure leaves held-out recall at its analytic value; ten times the epochs do not change that."""
    split = splits.random_per_user(simulate_uniform(400, 200, 8000, seed=3))
    model, history = fit_bpr(split.train_validation, **SETTING, epochs=epochs)
    assert history["loss"].iloc[-1] < 0.9 * history["loss"].iloc[0]  # it does remember
    check_at_chance(evaluate(scorer(model), split.test), split.test)


def test_canary_a_model_that_saw_the_test_part_is_not_at_chance():
    split = splits.random_per_user(simulate_uniform(400, 200, 8000, seed=3))
    model, _ = fit_bpr(split.data, **SETTING, epochs=60)
    with pytest.raises(AssertionError, match="excludes chance"):
        check_at_chance(evaluate(scorer(model), split.test), split.test)


def test_the_best_epoch_on_validation_is_kept():
    split = splits.temporal_per_user(simulate_demo(n_users=100, items_per_category=20).interactions)
    options = SETTING | {"learning_rate": 0.1, "weight_decay": 0.0, "epochs": 60}
    model, history = fit_bpr(split.train, **options, validation=split.validation, patience=5)
    best = history["validation"].idxmax()
    assert len(history) == best + 1 + 5 < 60  # stopped after five epochs without a better one
    assert evaluate(scorer(model), split.validation).mean("ndcg") == history["validation"][best]


def test_a_loss_and_a_source_of_negatives_are_arguments():
    world, asked = simulate_uniform(40, 30, 300), []

    def negatives(model, rng):
        asked.append(model.vectors()[1].copy())
        return rng.integers(0, 30, (len(world), 2))

    options = {name: value for name, value in SETTING.items() if name not in ("n_negatives", "alpha")}
    fit_ranking(world, bpr_loss, negatives, **options, epochs=3)
    assert len(asked) == 3
    assert not np.array_equal(asked[0], asked[2])  # the sampler sees the model as it is now


@pytest.mark.parametrize("framework", FITS)
def test_bad_input_is_said(framework):
    fit, world = FITS[framework], simulate_uniform(40, 30, 300)
    with pytest.raises(ValueError, match="alpha=-1"):
        fit(world, **SETTING | {"alpha": -1}, epochs=1)
    with pytest.raises(ValueError, match="n_negatives=0; expected a whole number of at least 1"):
        fit(world, **SETTING | {"n_negatives": 0}, epochs=1)
    everything = Interactions([0, 0, 1], [0, 1, 0], user_ids=[1, 2], item_ids=[1, 2])
    with pytest.raises(ValueError, match="user code 0 has met every item"):
        fit(everything, **SETTING, epochs=1)
    with pytest.raises(ValueError, match="interactions=0; expected a whole number"):
        fit(world.select(np.zeros(len(world), bool)), **SETTING, epochs=1)
    with pytest.raises(TypeError, match="n_neg_per_pos"):
        fit(world, **SETTING, epochs=1, n_neg_per_pos=4)
