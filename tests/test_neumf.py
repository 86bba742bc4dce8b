"""NeuMF and its parts of chapter 08: equal in torch and Keras, mixed exactly, no option ignored, and they learn."""

import numpy as np
import pytest

from recsys_utils.training import require

require("tensorflow", "torch")  # before the frameworks, which it keeps quiet

import keras  # noqa: E402
import torch  # noqa: E402

from core_checks import check_beats_chance  # noqa: E402
from recsys_utils import splits  # noqa: E402
from recsys_utils.evaluation import evaluate  # noqa: E402
from recsys_utils.models import losses_keras, losses_torch, neumf_keras, neumf_torch  # noqa: E402
from recsys_utils.models.neumf_torch import (  # noqa: E402
    GMF,
    MLP,
    NeuMF,
    fit_ncf,
    fit_pretrained,
    fuse,
    ncf_scorer,
    pair_scores,
    train_ncf,
)
from recsys_utils.simulators import simulate_demo, simulate_uniform  # noqa: E402
from twins import check_twins, copy_weights  # noqa: E402

CASES = [("GMF", {}), *((name, {"depth": depth}) for name in ("MLP", "NeuMF") for depth in (0, 1, 3))]
SETTING = {"factors": 4, "learning_rate": 0.02, "weight_decay": 1e-5, "n_negatives": 3, "batch_size": 64}


def torch_loss(model, users, items):
    scores = model(users, items)
    return losses_torch.bce_loss(scores[:, 0], scores[:, 1:])


def keras_loss(model, users, items):
    scores = model((users, items))
    return losses_keras.bce_loss(scores[:, 0], scores[:, 1:])


def batch():
    """Users beside a positive and four negatives each; users and items come back, so that gradients add up."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 12, (40, 1)), rng.integers(0, 15, (40, 5))


def check(name, options, twin=None, loss=keras_loss, dtype="float64"):
    model = getattr(neumf_torch, name)(13, 16, 4, **options).to(getattr(torch, dtype))  # one user, one item in no pair
    other = (twin or getattr(neumf_keras, name))(13, 16, 4, dtype=dtype, **options)
    check_twins(model, other, torch_loss, loss, batch(), dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_twins(name, options, dtype):
    check(name, options, dtype=dtype)


class Added(neumf_keras.GMF):
    def features(self, users, items):
        return self.user_embedding(users) + self.item_embedding(items)


class Swapped(neumf_keras.MLP):
    def features(self, users, items):
        p, q = self.user_embedding(users), self.item_embedding(items)
        z = keras.ops.concatenate([q + keras.ops.zeros_like(p), p + keras.ops.zeros_like(q)], axis=-1)
        for layer in self.hidden:
            z = layer(z)
        return z


class Frozen(neumf_keras.MLP):
    def features(self, users, items):
        return keras.ops.stop_gradient(super().features(users, items))


class Missing(neumf_keras.NeuMF):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        del self.prediction


@pytest.mark.parametrize(
    ("name", "options", "twin", "message"),
    [
        ("GMF", {}, Added, "outputs differ"),
        ("MLP", {"depth": 1}, Swapped, "outputs differ"),
        ("MLP", {"depth": 3}, Frozen, "gradient of user_embedding.weight differ"),
        ("NeuMF", {"depth": 3}, Missing, "prediction.weight of the torch model has no twin"),
    ],
)
def test_canary_a_broken_twin_is_caught(name, options, twin, message):
    with pytest.raises(AssertionError, match=message):
        check(name, options, twin)


def test_canary_a_broken_loss_is_caught():
    def twice(model, users, items):
        return 2 * keras_loss(model, users, items)

    with pytest.raises(AssertionError, match="loss differ"):
        check("GMF", {}, loss=twice)


def test_copied_weights_give_equal_scores():
    model, twin = NeuMF(5, 7, 4), neumf_keras.NeuMF(5, 7, 4)
    copy_weights(model, twin)
    users, items = np.arange(5)[:, None], np.arange(7)[None]
    expected = pair_scores(model, np.arange(5), items)
    np.testing.assert_allclose(twin((users, items)), expected, rtol=0, atol=1e-6)


def test_gmf_with_weights_of_one_is_the_dot_product():
    model = GMF(5, 7, 3)
    torch.nn.init.ones_(model.prediction.weight)
    torch.nn.init.zeros_(model.prediction.bias)
    P, Q = (table.weight.detach().numpy() for table in (model.user_embedding, model.item_embedding))
    np.testing.assert_allclose(pair_scores(model, np.arange(5), np.arange(7)[None]), P @ Q.T, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("factors", "depth", "sizes"), [(8, 3, [32, 16, 8]), (64, 4, [512, 256, 128, 64]), (6, 0, [])])
def test_sizes_of_the_tower(factors, depth, sizes):
    model = MLP(3, 4, factors, depth)
    assert [layer.out_features for layer in model.hidden] == sizes
    assert 2 * model.user_embedding.embedding_dim == (sizes or [factors])[0]
    assert [layer.kernel.shape[1] for layer in neumf_keras.MLP(3, 4, factors, depth).hidden] == sizes


def check_halves(model):
    """The first layer as a sum of two products is the layer over the concatenation."""
    users, items = torch.arange(5), torch.arange(5)
    z = torch.cat([model.user_embedding(users), model.item_embedding(items)], dim=-1)
    for layer in model.hidden:
        z = torch.relu(layer(z))
    assert torch.allclose(model.features(users, items), z, rtol=0, atol=1e-12), "not the layer over both halves"


def wide_tower(seed: int = 0):
    """With embeddings of length one or so: with the small ones of the start, every unit may be switched off."""
    torch.manual_seed(seed)
    model = MLP(5, 5, 8).double()
    for table in (model.user_embedding, model.item_embedding):
        torch.nn.init.normal_(table.weight)
    return model


def test_two_halves_are_the_concatenation():
    check_halves(wide_tower())


def test_canary_halves_the_wrong_way_round():
    model = wide_tower()
    model.user_embedding, model.item_embedding = model.item_embedding, model.user_embedding
    honest = MLP.features
    wrong = type("Wrong", (MLP,), {"features": lambda self, u, i: honest(self, u.flip(0), i)})
    model.__class__ = wrong
    with pytest.raises(AssertionError, match="both halves"):
        check_halves(model)


def interaction(scores):
    """The part of scores (n_users, n_items) that is no sum of a user term and an item term."""
    return np.abs(scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()).max()


def test_without_hidden_layers_a_score_is_a_user_term_plus_an_item_term():
    torch.manual_seed(0)
    for model, personal in ((MLP(6, 9, 4, depth=0), False), (MLP(6, 9, 4, depth=1), True), (GMF(6, 9, 4), True)):
        for parameter in model.double().parameters():
            torch.nn.init.normal_(parameter)
        assert (interaction(pair_scores(model, np.arange(6), np.arange(9)[None])) > 1e-3) == personal


def trained_parts():
    torch.manual_seed(0)
    gmf, mlp = GMF(6, 9, 4).double(), MLP(6, 9, 4).double()
    for parameter in (*gmf.parameters(), *mlp.parameters()):
        torch.nn.init.normal_(parameter)
    return gmf, mlp


def check_mix(fuse, alpha):
    gmf, mlp = trained_parts()
    pairs = np.arange(6), np.arange(9)[None]
    g, m, fused = (pair_scores(model, *pairs) for model in (gmf, mlp, fuse(gmf, mlp, alpha).double()))
    # the fused model holds float32 parameters
    np.testing.assert_allclose(fused, alpha * g + (1 - alpha) * m, rtol=0, atol=2e-5 * np.abs([g, m]).max())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_fused_logits_are_the_mix(alpha):
    check_mix(fuse, alpha)


def test_canary_a_bias_that_is_not_mixed():
    def forgetful(gmf, mlp, alpha):
        model = fuse(gmf, mlp, alpha)
        torch.nn.init.zeros_(model.prediction.bias)
        return model

    with pytest.raises(AssertionError):
        check_mix(forgetful, 0.3)


def test_fuse_leaves_its_parts_alone_and_keeps_the_depth():
    gmf, mlp = trained_parts()
    before = [parameter.clone() for parameter in (*gmf.parameters(), *mlp.parameters())]
    model = fuse(gmf, mlp)
    torch.nn.init.zeros_(model.gmf.user_embedding.weight)
    assert len(model.mlp.hidden) == 3
    assert all(torch.equal(a, b) for a, b in zip(before, (*gmf.parameters(), *mlp.parameters()), strict=True))


def test_pair_scores_in_blocks_and_for_all_items():
    model = NeuMF(50, 3_000, 4)
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 50, 40), rng.integers(0, 3_000, (40, 1_000))
    scores = pair_scores(model, users, items)
    assert scores.shape == items.shape
    with torch.no_grad():
        whole = model(torch.tensor(users)[:, None], torch.tensor(items)).numpy()
    np.testing.assert_allclose(scores, whole, rtol=0, atol=1e-6)
    everything = ncf_scorer(model, 3_000)(users)
    assert everything.shape == (40, 3_000)
    np.testing.assert_allclose(np.take_along_axis(everything, items, axis=1), scores, rtol=0, atol=1e-6)


def parameters(model):
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


def check_options(fit, usual, other):
    """Every option changes the model: none is accepted and ignored."""
    world = simulate_uniform(40, 30, 300)
    before, again = (parameters(fit(world, **usual)[0]) for _ in range(2))
    assert torch.equal(before, again), "the same seed gives another model"
    for name, value in other.items():
        changed = parameters(fit(world, **usual | {name: value})[0])
        assert before.shape != changed.shape or not torch.equal(before, changed), f"{name}={value} changes nothing"


FIT = SETTING | {"epochs": 1, "seed": 0}
FIT_OTHER = {
    "factors": 8, "learning_rate": 0.05, "weight_decay": 0.1, "n_negatives": 2, "batch_size": 32, "epochs": 2, "seed": 1
}  # fmt: skip
TUNE = {
    "gmf": FIT, "mlp": FIT, "alpha": 0.5, "learning_rate": 0.5, "n_negatives": 3, "batch_size": 64, "epochs": 1,
    "seed": 0,
}  # fmt: skip
TUNE_OTHER = {
    "gmf": FIT | {"epochs": 2}, "mlp": FIT | {"weight_decay": 0.1}, "alpha": 0.2, "learning_rate": 0.1,
    "n_negatives": 2, "batch_size": 32, "epochs": 2, "seed": 1,
}  # fmt: skip


@pytest.mark.parametrize("architecture", [GMF, MLP, NeuMF])
def test_every_option_of_fit_ncf_matters(architecture):
    check_options(lambda train, **setting: fit_ncf(architecture, train, **setting), FIT, FIT_OTHER)


def test_every_option_of_fit_pretrained_matters():
    check_options(fit_pretrained, TUNE, TUNE_OTHER)


def test_canary_an_option_is_ignored():
    for name in FIT_OTHER:
        with pytest.raises(AssertionError, match=f"{name}=.* changes nothing"):
            check_options(
                lambda train, name=name, **setting: fit_ncf(GMF, train, **setting | {name: FIT[name]}), FIT, FIT_OTHER
            )
    with pytest.raises(AssertionError, match=r"alpha=.* changes nothing"):
        check_options(lambda train, **setting: fit_pretrained(train, **setting | {"alpha": 0.5}), TUNE, TUNE_OTHER)


def test_pretraining_is_parts_then_fuse_then_sgd():
    """The same as doing it by hand; the seed of the whole is that of its parts."""
    world = simulate_uniform(40, 30, 300)
    model, history = fit_pretrained(world, **TUNE | {"seed": 3})
    parts = (fit_ncf(architecture, world, **FIT | {"seed": 3})[0] for architecture in (GMF, MLP))
    by_hand = fuse(*parts, 0.5)
    sgd = torch.optim.SGD(by_hand.parameters(), 0.5)
    train_ncf(by_hand, world, sgd, n_negatives=3, batch_size=64, epochs=1, seed=3)
    assert torch.equal(parameters(model), parameters(by_hand))
    assert len(history) == 1


def test_validation_keeps_the_best_epoch_and_patience_stops():
    split = splits.temporal_per_user(simulate_demo(n_users=60, items_per_category=15).interactions)
    watched = {"validation": split.validation, "patience": 3, "epochs": 60}
    model, history = fit_ncf(GMF, split.train, **SETTING | watched)
    best = history["validation"].idxmax()
    assert len(history) == min(60, best + 1 + 3)
    kept = evaluate(ncf_scorer(model, split.data.n_items), split.validation).mean("ndcg")
    assert kept == pytest.approx(history["validation"][best], abs=1e-12)


def check_learns(fit, **changes):
    split = splits.temporal_per_user(simulate_demo(n_users=100, items_per_category=20).interactions)
    setting = SETTING | {"factors": 8, "epochs": 40, "batch_size": 128} | changes
    model, history = fit(split.train_validation, **setting)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0], "the loss does not fall"
    check_beats_chance(ncf_scorer(model, split.data.n_items), split.test)


@pytest.mark.parametrize("architecture", [GMF, MLP, NeuMF])
def test_it_learns_a_planted_world(architecture):
    check_learns(lambda train, **setting: fit_ncf(architecture, train, **setting))


def test_canary_a_swapped_sign_does_not_learn(monkeypatch):
    honest = neumf_torch.bce_loss
    monkeypatch.setattr(neumf_torch, "bce_loss", lambda positive, negative: honest(-positive, -negative))
    with pytest.raises(AssertionError, match="not above chance"):
        check_learns(lambda train, **setting: fit_ncf(NeuMF, train, **setting))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_negatives": 0}, "n_negatives=0; expected a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"epochs": 0}, "epochs=0"),
        ({"patience": 2}, "patience=2; expected at least 1, together with a validate function"),
        ({"factors": 3, "architecture": lambda *sizes: MLP(*sizes, depth=0)}, "factors=3 at depth=0; expected an even"),
        ({"factors": 5, "architecture": lambda *sizes: NeuMF(*sizes, depth=1)}, "factors=5 at depth=1"),
    ],
)
def test_settings_that_cannot_be_used(changes, message):
    setting = {"architecture": GMF} | FIT | changes
    with pytest.raises(ValueError, match=message):
        fit_ncf(setting.pop("architecture"), simulate_uniform(40, 30, 300), **setting)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.2}, "alpha=1.2"),
        ({"alpha": -0.1}, "alpha=-0.1"),
        ({"mlp": FIT | {"factors": 8}}, "factors=4, 8; expected 0 to 1, and equal ones"),
    ],
)
def test_parts_that_cannot_be_fused(changes, message):
    with pytest.raises(ValueError, match=message):
        fit_pretrained(simulate_uniform(40, 30, 300), **TUNE | changes)


def test_no_interactions():
    world = simulate_uniform(40, 30, 300)
    with pytest.raises(ValueError, match="interactions=0"):
        fit_ncf(GMF, world.select(np.zeros(len(world), bool)), **FIT)
