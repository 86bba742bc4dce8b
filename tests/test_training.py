"""Seeding, what a chapter says when a package is missing, and the torch loop."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from recsys_utils.training import MissingPackageError, check_settings, fit, require, seed_everything

ROOT = Path(__file__).resolve().parents[1]
X = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32)


def line(seed: int = 0) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 1)


def squared(model, x, y):
    return ((model(x)[:, 0] - y) ** 2).mean()


def trained(model=None, loss=squared, examples=lambda rng: (X, Y), rate=0.1, **options):
    model = model or line()
    options = {"epochs": 20, "batch_size": 16} | options
    return model, fit(model, loss, examples, torch.optim.SGD(model.parameters(), lr=rate), **options)


def weights(model) -> np.ndarray:
    return np.concatenate([value.detach().numpy().ravel() for value in model.parameters()])


def test_it_learns_and_says_how():
    model, history = trained()
    assert list(history.columns) == ["epoch", "loss", "seconds"]
    assert history["epoch"].tolist() == list(range(1, 21))
    assert history["loss"].iloc[-1] < 1e-3 < history["loss"].iloc[0]
    np.testing.assert_allclose(weights(model), [1, -2, 0.5, 0], atol=0.01)


def test_one_epoch_is_one_plain_step_a_batch():
    """The same steps written out: shuffled by the generator, cut into batches, the last one short."""
    model, history = trained(epochs=1, batch_size=24, rate=0.05, seed=3)
    twin, losses = line(), []
    order = np.random.default_rng(3).permutation(64)
    for start in (0, 24, 48):
        rows = order[start : start + 24]
        value = squared(twin, torch.tensor(X[rows]), torch.tensor(Y[rows]))
        gradients = torch.autograd.grad(value, list(twin.parameters()))
        losses.append(float(value.detach()) * len(rows))
        with torch.no_grad():
            for parameter, gradient in zip(twin.parameters(), gradients):
                parameter -= 0.05 * gradient
    np.testing.assert_allclose(weights(model), weights(twin), atol=1e-6)
    assert history["loss"][0] == pytest.approx(sum(losses) / 64)


@pytest.mark.parametrize("option", [{"seed": 1}, {"batch_size": 8}, {"epochs": 3}])
def test_every_option_matters_and_a_run_is_reproducible(option):
    once, again, other = trained()[0], trained()[0], trained(**option)[0]
    np.testing.assert_array_equal(weights(once), weights(again))
    assert not np.array_equal(weights(once), weights(other))


def test_examples_are_drawn_anew_each_epoch():
    drawn = []
    trained(examples=lambda rng: (drawn.append(rng.random()), (X, Y))[1], epochs=3)
    assert len(set(drawn)) == 3


def test_early_stopping_returns_to_the_best_epoch():
    values, seen = iter([0.1, 0.3, 0.2, 0.25, 0.9]), []
    model = line()
    _, history = trained(model, epochs=5, patience=2, validate=lambda: (seen.append(weights(model)), next(values))[1])
    assert history["validation"].tolist() == [0.1, 0.3, 0.2, 0.25]
    np.testing.assert_array_equal(weights(model), seen[1])
    assert not np.array_equal(seen[1], seen[3])


def test_without_patience_all_epochs_run_and_the_best_is_kept():
    values, seen, model = iter([0.5, 0.1, 0.2]), [], line()
    _, history = trained(model, epochs=3, validate=lambda: (seen.append(weights(model)), next(values))[1])
    assert len(history) == 3
    np.testing.assert_array_equal(weights(model), seen[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0; expected a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"patience": 2}, "together with a validate function"),
        ({"patience": 0, "validate": lambda: 0.0}, "patience=0"),
        ({"examples": lambda rng: (X, Y[:-1])}, r"lengths \[64, 63\]"),
        ({"examples": lambda rng: (X[:0], Y[:0])}, r"lengths \[0, 0\]"),
        ({"rate": 1e6}, "a smaller learning rate"),
        ({"validate": lambda: float("nan")}, "validate returned nan in epoch 1"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        trained(**options)


@pytest.mark.filterwarnings("error")
def test_arrays_may_be_read_only():
    """Those of Interactions are. The examples stay what they were."""
    x = X.copy()
    x.flags.writeable = False
    model, _ = trained(examples=lambda rng: (x, Y), epochs=1)
    np.testing.assert_array_equal(weights(model), weights(trained(epochs=1)[0]))
    np.testing.assert_array_equal(x, X)


def test_denormal_numbers_are_flushed():
    trained(epochs=1)
    assert (torch.tensor([1e-39]) * 0.5).item() == 0.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim=0; expected a whole number of at least 1"),
        ({"n_negatives": 2.5}, "n_negatives=2.5; expected a whole number of at least 1"),
        ({"epochs": float("inf")}, "epochs=inf; expected a whole number of at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan; expected a finite number, 0 or more"),
        ({"threads": 2, "weight_decay": -1e-5}, "weight_decay=-1e-05; expected a finite number, 0 or more"),
    ],
)
def test_settings_that_cannot_be_used_are_named(setting, message):
    check_settings(embedding_dim=8, epochs=np.int64(3), learning_rate=0.1, weight_decay=0)
    with pytest.raises(ValueError, match=message):
        check_settings(**setting)


# --- packages and seeds


def test_a_missing_package_is_one_sentence_with_the_command():
    require("torch", "numpy")
    with pytest.raises(MissingPackageError) as raised:
        require("torch", "no_such_framework", "nor_this_one")
    said = str(raised.value)
    assert said.startswith("This chapter needs no_such_framework and nor_this_one: run `")
    assert "-m pip install no_such_framework nor_this_one`, then restart the kernel." in said


def test_a_notebook_shows_the_sentence_without_a_traceback(capsys):
    InteractiveShell.instance().run_cell("from recsys_utils.training import require\nrequire('no_such_framework')")
    shown = capsys.readouterr().out
    InteractiveShell.clear_instance()
    assert shown.strip().startswith("This chapter needs no_such_framework")
    assert "Traceback" not in shown


def test_seeds_reach_every_framework():
    code = """if True:
        from recsys_utils.training import require, seed_everything
        require("tensorflow", "torch")
        import json, random, keras, numpy, tensorflow as tf, torch
        draws = []
        for seed in (0, 0, 1):
            seed_everything(seed)
            normal = keras.random.normal((1,))
            draws.append([random.random(), numpy.random.random(), torch.rand(1).item(), float(tf.random.normal([1])[0]),
                          float(normal[0])])
        print(json.dumps(draws))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    first, second, other = json.loads(done.stdout)
    assert first == second
    assert all(a != b for a, b in zip(first, other))
    assert done.stderr == ""  # TensorFlow's start is not logged to the page


def test_seeding_needs_no_framework():
    seed_everything(5)
    assert random.random() == random.Random(5).random()
