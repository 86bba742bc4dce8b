"""The dot-product model of chapter 05: equal in torch and Keras, scores from its vectors, and it learns."""

import numpy as np
import pytest

from recsys_utils.training import require

require("tensorflow", "torch")  # before the frameworks, which it keeps quiet

import keras  # noqa: E402
import torch  # noqa: E402

from recsys_utils import splits  # noqa: E402
from recsys_utils.datasets import load_house  # noqa: E402
from recsys_utils.evaluation import evaluate  # noqa: E402
from recsys_utils.models import baselines, dot_product_keras, dot_product_torch  # noqa: E402
from recsys_utils.models.dot_product_torch import fit_dot_product, labelled_pairs, logistic_loss  # noqa: E402
from recsys_utils.sampling import NegativeSampler  # noqa: E402
from twins import check_twins, copy_weights  # noqa: E402

SETTING = {"embedding_dim": 16, "n_negatives": 4, "learning_rate": 0.01, "weight_decay": 1e-5, "batch_size": 4096}


def keras_loss(model, users, items, labels):
    return keras.losses.BinaryCrossentropy(from_logits=True, dtype=model.dtype)(labels, model((users, items)))


def batch(dtype):
    """Pairs with repeated users and items, so that gradients of a row add up."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 12, 200), rng.integers(0, 15, 200), rng.integers(0, 2, 200).astype(dtype)


def check(twin=dot_product_keras.DotProduct, loss=keras_loss, dtype="float64"):
    model = dot_product_torch.DotProduct(13, 16, 4).to(getattr(torch, dtype))  # one user and one item in no pair
    check_twins(model, twin(13, 16, 4, dtype=dtype), logistic_loss, loss, batch(dtype), dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_twins(dtype):
    check(dtype=dtype)


class ForgottenBias(dot_product_keras.DotProduct):
    def call(self, inputs):
        return super().call(inputs) - self.item_bias(inputs[1])[..., 0]


class SwappedSign(dot_product_keras.DotProduct):
    def call(self, inputs):
        return -super().call(inputs)


class FrozenBias(dot_product_keras.DotProduct):
    def call(self, inputs):
        constant = keras.ops.stop_gradient(self.item_bias(inputs[1])[..., 0])
        return super().call(inputs) - self.item_bias(inputs[1])[..., 0] + constant


class MissingBias(dot_product_keras.DotProduct):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        del self.item_bias


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("twin", "message"),
    [
        (ForgottenBias, "outputs differ"),
        (SwappedSign, "outputs differ"),
        (FrozenBias, "gradient of item_bias.weight differ"),
        (MissingBias, "item_bias.weight of the torch model has no twin"),
    ],
)
def test_canary_a_broken_twin_is_caught(twin, message, dtype):
    with pytest.raises(AssertionError, match=message):
        check(twin, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_canary_a_broken_loss_is_caught(dtype):
    def flipped(model, users, items, labels):
        return keras_loss(model, users, items, 1 - labels)

    with pytest.raises(AssertionError, match="loss differ"):
        check(loss=flipped, dtype=dtype)


def test_canary_another_epsilon_is_caught(monkeypatch):
    monkeypatch.setattr("twins.KERAS_EPSILON", 1e-7)  # the default of Keras, added where Keras adds it
    with pytest.raises(AssertionError, match="after one step of Adam differ"):
        check()


def test_defaults_differ_as_chapter_05_says():
    table, twin = torch.nn.Embedding(1000, 10), keras.layers.Embedding(1000, 10)
    assert torch.optim.Adam(table.parameters()).defaults["eps"] == 1e-8
    assert keras.optimizers.Adam().epsilon == 1e-7
    assert table.weight.std().item() == pytest.approx(1, abs=0.05)
    limits = twin.embeddings_initializer.get_config()
    assert (limits["minval"], limits["maxval"]) == (-0.05, 0.05)


def test_vectors_give_the_scores():
    model = dot_product_torch.DotProduct(5, 7, 3, mean=0.5)
    torch.nn.init.normal_(model.user_bias.weight)
    torch.nn.init.normal_(model.item_bias.weight)
    twin = dot_product_keras.DotProduct(5, 7, 3)
    copy_weights(model, twin)
    users, items = np.arange(5)[:, None], np.arange(7)[None, :]
    with torch.no_grad():
        scores = model(torch.from_numpy(users), torch.from_numpy(items)).numpy()
    for U, V in (model.vectors(), twin.vectors()):
        assert U.shape == (5, 5)
        assert V.shape == (7, 5)
        np.testing.assert_allclose(U @ V.T, scores, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def split():
    return splits.temporal_per_user(load_house())


def test_labelled_pairs(split):
    train, seen = split.train, split.train.matrix().astype(bool).toarray()
    users, items, labels = labelled_pairs(NegativeSampler(train.matrix()), train, 3, np.random.default_rng(0))
    assert len(users) == len(items) == len(labels) == 4 * len(train)
    assert np.array_equal(users[labels == 1], train.users)
    assert np.array_equal(items[labels == 1], train.items)
    assert labels.sum() == len(train)
    assert not seen[users[labels == 0], items[labels == 0]].any()


def test_it_learns_to_rank(split):
    popular = evaluate(baselines.fit_popularity(split.train), split.validation).mean("ndcg")
    model, history = fit_dot_product(split.train, **SETTING, epochs=6, validation=split.validation)
    assert history["loss"].is_monotonic_decreasing
    assert history["validation"].max() > popular
    measured = dot_product_torch.ndcg_at_10(model, split.validation)
    assert measured == pytest.approx(history["validation"].max())  # the model ends with its best epoch


def test_every_option_matters(split):
    small = split.train.select(np.arange(0, len(split.train), 20))

    def fitted(**change):
        model, _ = fit_dot_product(small, **SETTING | {"epochs": 1} | change)
        return model.vectors()[1]

    assert np.array_equal(fitted(), fitted())
    changes = [{"n_negatives": 2}, {"learning_rate": 0.02}, {"weight_decay": 0.1}, {"batch_size": 512}, {"seed": 1},
               {"epochs": 2}, {"embedding_dim": 8}]  # fmt: skip
    for change in changes:
        assert not np.array_equal(fitted(), fitted(**change)), change


@pytest.mark.parametrize("option", ["embedding_dim", "n_negatives"])
def test_options_below_one_are_refused(split, option):
    with pytest.raises(ValueError, match=f"{option}=0.*at least 1"):
        fit_dot_product(split.train, **SETTING | {option: 0}, epochs=1)
