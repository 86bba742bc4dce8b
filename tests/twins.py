"""A torch model and its Keras twin do the same thing: outputs, loss, gradients, one step of Adam.

Losses are called as loss(model, *batch); a batch holds NumPy arrays, user codes and item codes first. In float64 they
must agree to 1e-10 (parameters after the step: 1e-9), in float32 to 1e-4 of the largest value in the array.
"""

import keras
import numpy as np
import tensorflow as tf
import torch

# Keras casts learning rate and betas through float32: these are exact there, 0.01, 0.9 and 0.999 are not.
LEARNING_RATE, EPSILON, BETAS = 2.0**-7, 1e-8, (1 - 2.0**-3, 1 - 2.0**-10)
# Keras adds epsilon before the bias correction of the second moment, torch after it: at step 1 these two are equal.
KERAS_EPSILON = EPSILON * np.sqrt(1 - BETAS[1])


def pairs(torch_model, keras_model):
    """(name, torch parameter, Keras variable) of every parameter, found by the attribute it has in both models.

    Raises AssertionError when one of them has a parameter that the other lacks, or of another shape.
    """
    found = []
    for name, parameter in torch_model.named_parameters():
        twin = keras_model
        for attribute in name.split("."):
            twin = _attribute(twin, attribute)
        assert twin is not None, f"{name} of the torch model has no twin in Keras"
        shape = tuple(parameter.shape), _as_in_torch(twin, np.empty(twin.shape)).shape
        assert shape[0] == shape[1], f"{name}: {shape[0]} in torch, {shape[1]} in Keras"
        found.append((name, parameter, twin))
    known = {id(twin) for _, _, twin in found}
    more = [variable.path for variable in keras_model.trainable_variables if id(variable) not in known]
    assert not more, f"{', '.join(more)} of the Keras model has no twin in torch"
    return found


def _attribute(keras_object, name: str):
    """What Keras calls the attribute: a table's weight embeddings, a Dense layer's kernel; a number indexes a list."""
    if name.isdigit():
        return keras_object[int(name)]
    names = {
        keras.layers.Embedding: {"weight": "embeddings"},
        keras.layers.Dense: {"weight": "kernel"},
        keras.layers.LayerNormalization: {"weight": "gamma", "bias": "beta"},
    }
    return getattr(keras_object, names.get(type(keras_object), {}).get(name, name), None)


def _as_in_torch(variable, array) -> np.ndarray:
    """An array of a Keras variable's shape as torch keeps it: the kernel of a Dense layer lies the other way round."""
    return np.asarray(array).T if variable.name == "kernel" else np.asarray(array)


def copy_weights(torch_model, keras_model) -> None:
    """Give the Keras model the parameters of the torch model."""
    for _, parameter, twin in pairs(torch_model, keras_model):
        twin.assign(_as_in_torch(twin, parameter.detach().cpu().numpy()))


def check_twins(torch_model, keras_model, torch_loss, keras_loss, batch, dtype="float64", seed=0) -> None:
    """Raise AssertionError, naming what differs, unless the two models are twins. Changes their parameters.

    Every parameter is drawn afresh, or a bias that starts at zero could be forgotten unseen.
    """
    named = pairs(torch_model, keras_model)
    rng = np.random.default_rng(seed)
    for name, parameter, twin in named:
        types = str(parameter.dtype).removeprefix("torch."), keras.backend.standardize_dtype(twin.dtype)
        assert types == (dtype, dtype), f"{name} is {types[0]} in torch and {types[1]} in Keras; expected {dtype}"
        values = torch.from_numpy(rng.normal(scale=0.3, size=tuple(parameter.shape)))
        parameter.data.copy_(values)
    copy_weights(torch_model, keras_model)
    tensors = [torch.from_numpy(np.array(array)) for array in batch]

    with torch.no_grad():
        _same("outputs", torch_model(*tensors[:2]), keras_model(tuple(batch[:2])), dtype)

    optimizer = torch.optim.Adam(torch_model.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=EPSILON)
    optimizer.zero_grad()
    loss = torch_loss(torch_model, *tensors)
    loss.backward()
    variables = [twin for _, _, twin in named]
    with tf.GradientTape() as tape:
        keras_value = keras_loss(keras_model, *batch)
    gradients = tape.gradient(keras_value, [variable.value for variable in variables])
    _same("loss", loss, keras_value, dtype)
    # Dense, because Keras' Adam squares the parts of an IndexedSlices one by one: a row that occurs twice in the batch
    # would get the sum of two squares instead of the square of a sum.
    dense = [tf.zeros(v.shape, dtype) if g is None else tf.convert_to_tensor(g) for g, v in zip(gradients, variables)]
    for (name, parameter, twin), gradient in zip(named, dense):
        ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        _same(f"gradient of {name}", ours, _as_in_torch(twin, gradient), dtype)

    optimizer.step()
    keras.optimizers.Adam(LEARNING_RATE, *BETAS, epsilon=KERAS_EPSILON).apply(dense, variables)
    for name, parameter, twin in named:
        _same(f"{name} after one step of Adam", parameter, _as_in_torch(twin, twin), dtype, float64=1e-9)


def _same(what, ours, theirs, dtype, float64=1e-10) -> None:
    ours, theirs = ours.detach().cpu().numpy(), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape} in torch, {theirs.shape} in Keras"
    difference = np.abs(ours - theirs).max()
    allowed = float64 if dtype == "float64" else 1e-4 * np.abs(ours).max()
    assert np.isfinite(difference), f"{what}: not finite"
    assert difference <= allowed, f"{what} differ by {difference:.1e}, allowed {allowed:.1e}"
