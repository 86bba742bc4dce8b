"""The three losses of chapter 07: values by hand, gradients by finite differences, torch equal to Keras."""

import numpy as np
import pytest

from recsys_utils.training import require

require("tensorflow", "torch")  # before the frameworks, which it keeps quiet

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402

from recsys_utils.models import dot_product_keras, dot_product_torch, losses_keras, losses_torch  # noqa: E402
from twins import check_twins  # noqa: E402

LOSSES = ("bce_loss", "bpr_loss", "softmax_loss")
FRAMEWORKS = {"torch": losses_torch, "keras": losses_keras}


def torch_gradient(loss, scores):
    """Value and gradient, float64; the first column of scores, shape (B, 1 + n), is the positive."""
    x = torch.tensor(scores, requires_grad=True)
    value = loss(x[:, 0], x[:, 1:])
    value.backward()
    return value.item(), x.grad.numpy()


def keras_gradient(loss, scores):
    x = tf.Variable(scores)
    with tf.GradientTape() as tape:
        value = loss(x[:, 0], x[:, 1:])
    return float(value), tape.gradient(value, x).numpy()


GRADIENT = {"torch": torch_gradient, "keras": keras_gradient}


def by_hand(name, scores):
    """The formulas of the chapter, written with plain exponentials."""
    sigmoid = 1 / (1 + np.exp(-scores))
    if name == "bce_loss":
        return -np.log(np.concatenate([sigmoid[:, :1], 1 - sigmoid[:, 1:]], axis=1)).mean()
    if name == "bpr_loss":
        return -np.log(1 / (1 + np.exp(scores[:, 1:] - scores[:, :1]))).mean()
    return -np.log(np.exp(scores[:, 0]) / np.exp(scores).sum(axis=1)).mean()


def check_gradient(name, loss, gradient):
    """Value as by hand, gradient as by central differences of the formula."""
    scores = np.random.default_rng(0).normal(0, 2, (7, 5))
    value, found = gradient(loss, scores)
    assert np.isclose(value, by_hand(name, scores), rtol=1e-12), f"{name}: {value}, by hand {by_hand(name, scores)}"
    steps = 1e-5 * np.eye(scores.size).reshape(-1, *scores.shape)
    expected = np.array([by_hand(name, scores + step) - by_hand(name, scores - step) for step in steps]) / 2e-5
    difference = np.abs(found - expected.reshape(scores.shape)).max()
    assert difference < 1e-9, f"{name}: the gradient is {difference:.1e} from finite differences"


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name, framework):
    check_gradient(name, getattr(FRAMEWORKS[framework], name), GRADIENT[framework])


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "wrong",
    [
        lambda loss: lambda p, n: -loss(p, n),
        lambda loss: lambda p, n: loss(-p, -n),
        lambda loss: lambda p, n: loss(p, n) * p.shape[0],  # a sum where a mean is promised
        lambda loss: lambda p, n: loss(p, n[:, 1:]),  # a negative is forgotten
    ],
)
def test_canary_a_wrong_loss(name, framework, wrong):
    with pytest.raises(AssertionError, match=r"by hand|finite differences"):
        check_gradient(name, wrong(getattr(FRAMEWORKS[framework], name)), GRADIENT[framework])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_canary_a_stopped_gradient(framework):
    loss = FRAMEWORKS[framework].bpr_loss
    stop = torch.Tensor.detach if framework == "torch" else tf.stop_gradient
    with pytest.raises(AssertionError, match="finite differences"):
        check_gradient("bpr_loss", lambda p, n: loss(p, stop(n)), GRADIENT[framework])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_with_one_negative_the_softmax_is_bpr(framework):
    losses, scores = FRAMEWORKS[framework], np.random.default_rng(1).normal(0, 3, (9, 2))
    values = [GRADIENT[framework](getattr(losses, name), scores) for name in ("bpr_loss", "softmax_loss")]
    np.testing.assert_allclose(values[0][0], values[1][0], rtol=1e-13)
    np.testing.assert_allclose(values[0][1], values[1][1], atol=1e-15)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_hopeless_order_still_has_a_gradient(name, framework):
    """Single precision, a positive far below its negative: finite, and full force (not so with log(sigmoid + 1e-8))."""
    for gap in (20.0, 40.0, 200.0, 1000.0):
        value, gradient = GRADIENT[framework](
            getattr(FRAMEWORKS[framework], name), np.array([[-gap / 2, gap / 2]], np.float32)
        )
        assert np.isfinite(value), f"the loss at a gap of {gap} is {value}"
        force = gradient[0] * [-1, 1]  # up for the positive, down for the negative
        assert force.min() > 0.49, f"at a gap of {gap} the gradient is {gradient}"


# --- twins ---------------------------------------------------------------------------------------------------------


def torch_side(name, decay):
    def loss(model, users, items, negatives):
        penalty = sum((parameter**2).sum() for parameter in model.parameters())
        scores = model(users, items), model(users[:, None], negatives)
        return getattr(losses_torch, name)(*scores) + decay / 2 * penalty

    return loss


def keras_side(name, decay):
    def loss(model, users, items, negatives):
        penalty = sum(keras.ops.sum(variable**2) for variable in model.trainable_variables)
        scores = model((users, items)), model((users[:, None], negatives))
        return getattr(losses_keras, name)(*scores) + decay / 2 * penalty

    return loss


def check(name, dtype="float64", twin=dot_product_keras.DotProduct, keras_loss=None):
    """With the L2 penalty of training: without it a user bias has no gradient but rounding, in BPR and softmax."""
    rng, decay = np.random.default_rng(2), 0.3
    batch = rng.integers(0, 12, 60), rng.integers(0, 15, 60), rng.integers(0, 15, (60, 3))
    model = dot_product_torch.DotProduct(13, 16, 4).to(getattr(torch, dtype))
    twin = twin(13, 16, 4, dtype=dtype)
    check_twins(model, twin, torch_side(name, decay), keras_loss or keras_side(name, decay), batch, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", LOSSES)
def test_twins(name, dtype):
    check(name, dtype)


class ForgottenBias(dot_product_keras.DotProduct):
    def call(self, inputs):
        return super().call(inputs) - self.item_bias(inputs[1])[..., 0]


@pytest.mark.parametrize("name", LOSSES)
def test_canary_broken_twins(name):
    with pytest.raises(AssertionError, match="outputs differ"):
        check(name, twin=ForgottenBias)
    proper = keras_side(name, 0.3)
    with pytest.raises(AssertionError, match="loss differ"):
        check(name, keras_loss=lambda *arguments: -proper(*arguments))

    def with_positive(model, users, items, negatives):
        return proper(model, users, items, np.concatenate([items[:, None], negatives[:, 1:]], axis=1))

    with pytest.raises(AssertionError, match="loss differ"):
        check(name, keras_loss=with_positive)
