"""Chapter 11: joins by key, encoders that know only their rows, XAUC, and the two networks on the same features."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from recsys_utils.training import require

require("tensorflow")  # before Keras, which it keeps quiet

import keras  # noqa: E402

from recsys_utils.kuairec import load_kuairec, simulate_kuairec  # noqa: E402
from recsys_utils.models import watch_time, watch_time_keras  # noqa: E402
from recsys_utils.models.watch_time import CODES, COUNTS, N_CODES, NUMBERS, describe, encode, fit_encoders, xauc  # noqa: E402
from recsys_utils.models.watch_time_keras import concat_mlp, fit_watch_time, predict, two_towers  # noqa: E402

SETTING = {"learning_rate": 0.004, "batch_size": 512, "epochs": 3}
NETWORKS = [concat_mlp, two_towers]


@pytest.fixture(scope="module")
def kuairec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kuairec")
    return load_kuairec(simulate_kuairec(folder, n_users=200, n_items=300, n_small_users=30, n_small_items=60))


@pytest.fixture(scope="module")
def tables(kuairec):
    return kuairec.users, kuairec.videos, kuairec.daily


@pytest.fixture(scope="module")
def known(kuairec, tables):
    return describe(kuairec.big, *tables), describe(kuairec.small, *tables)


@pytest.fixture(scope="module")
def arrays(kuairec, known):
    """Inputs and clipped ratios of big and of small."""
    encoders = fit_encoders(known[0])
    ratios = (rows["watch_ratio"].clip(upper=5).to_numpy() for rows in (kuairec.big, kuairec.small))
    return [(encode(encoders, rows), y) for rows, y in zip(known, ratios, strict=True)]


@pytest.fixture(scope="module", params=NETWORKS)
def fitted(request, arrays):
    return fit_watch_time(request.param, *arrays[0], validation=arrays[1], **SETTING)


# --- order within users


def pair_by_pair(users, truth, predictions, n_users):
    right, pairs = np.zeros(n_users), np.zeros(n_users)
    for a in range(len(users)):
        for b in range(len(users)):
            if users[a] == users[b] and truth[a] > truth[b]:
                pairs[users[a]] += 1
                right[users[a]] += (predictions[a] > predictions[b]) + 0.5 * (predictions[a] == predictions[b])
    with np.errstate(invalid="ignore"):
        return right / pairs


@pytest.mark.parametrize("seed", range(5))
def test_xauc_counts_pairs(seed):
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 6, 90)
    truth, predictions = (rng.integers(0, size, 90).astype(float) for size in (8, 5))  # ties in both
    np.testing.assert_allclose(xauc(users, truth, predictions, 7), pair_by_pair(users, truth, predictions, 7))


def test_xauc_is_kendalls_tau_without_ties():
    rng = np.random.default_rng(0)
    truth, predictions = rng.normal(size=(2, 200))
    expected = (1 + kendalltau(truth, predictions).statistic) / 2
    assert xauc(np.zeros(200, int), truth, predictions, 1)[0] == pytest.approx(expected)


def test_xauc_of_perfect_reversed_and_constant_predictions():
    users, truth = np.repeat([0, 1], 50), np.random.default_rng(0).normal(size=100)
    for predictions, value in ((truth, 1.0), (-truth, 0.0), (np.ones(100), 0.5), (truth**3 + 100 * users, 1.0)):
        np.testing.assert_array_equal(xauc(users, truth, predictions, 2), [value, value])


def test_xauc_of_users_without_a_pair_is_nan():
    assert np.isnan(xauc(np.array([0, 2, 2]), np.array([1.0, 3.0, 3.0]), np.arange(3.0), 4)).all()
    assert np.isnan(xauc(np.empty(0, int), np.empty(0), np.empty(0), 2)).all()


# --- joins and encoders


def check_join(join, rows, tables):
    """What the order of the tables changes was not joined by key."""
    mixed = (table.sample(frac=1, random_state=0) for table in tables)
    pd.testing.assert_frame_equal(join(rows, *tables), join(rows, *mixed))


def by_position(rows, users, videos, daily):
    known = describe(rows, users, videos, daily)
    return known.assign(follow_user_num=users["follow_user_num"].to_numpy()[rows["user_id"]])


def test_describe_joins_by_key(kuairec, tables):
    check_join(describe, kuairec.small, tables)


def test_a_join_by_position_is_noticed(kuairec, tables):
    with pytest.raises(AssertionError, match="follow_user_num"):
        check_join(by_position, kuairec.small, tables)


def test_describe_keeps_rows_and_knows_yesterday_alone(kuairec, tables, known):
    assert known[0].index.equals(kuairec.big.index)
    assert {*NUMBERS[0], *NUMBERS[1], *CODES[0], *CODES[1]} <= set(known[0])
    row = known[0][known[0]["play_cnt"].notna()].iloc[0]
    that_video = kuairec.daily[kuairec.daily["video_id"] == row["video_id"]].set_index("day")
    yesterday = row["time"].normalize() - pd.Timedelta(days=1)
    np.testing.assert_array_equal(that_video.loc[yesterday, COUNTS].to_numpy(float), row[COUNTS].to_numpy(float))
    is_past = kuairec.daily["day"] < yesterday
    future = kuairec.daily.assign(**{name: kuairec.daily[name].where(is_past, 0) for name in COUNTS})
    early = kuairec.big[kuairec.big["time"] < yesterday]
    pd.testing.assert_frame_equal(describe(early, *tables), describe(early, *tables[:2], future))


def test_a_user_without_features_is_an_error(kuairec, tables):
    users, videos, daily = tables
    with pytest.raises(ValueError, match="no features"):
        describe(kuairec.small, users.drop(index=kuairec.small["user_id"].iloc[0]), videos, daily)


def test_encoders_know_only_their_rows(known):
    train, other = known
    before = encode(fit_encoders(train), train)
    assert [x.dtype for x in before] == [np.float32, np.float32]
    assert all(np.isfinite(x).all() for x in before)
    after = encode(fit_encoders(pd.concat([train, other]).iloc[: len(train)]), train)
    for x, same in zip(before, after, strict=True):
        np.testing.assert_array_equal(x, same)
    everything = encode(fit_encoders(pd.concat([train, other])), train)
    assert any(not np.array_equal(x, moved) for x, moved in zip(before, everything, strict=True))


def test_missing_numbers_are_means_with_a_flag(known):
    train = known[0]
    encoders = fit_encoders(train)
    x = encode(encoders, train.assign(duration=np.nan))[1]
    names = encoders[1].named_transformers_["numbers"][1:].get_feature_names_out(NUMBERS[1]).tolist()
    assert (x[:, NUMBERS[1].index("duration")] == 0).all()
    assert (x[:, names.index("missingindicator_duration")] == 1).all()
    numbers = encode(encoders, train)[1][:, : len(NUMBERS[1])]
    there = train[NUMBERS[1]].notna().to_numpy()
    for column in range(len(NUMBERS[1])):
        assert numbers[there[:, column], column].mean() == pytest.approx(0, abs=1e-3)
        assert numbers[there[:, column], column].std() == pytest.approx(1, abs=1e-3)


def test_categories_are_codes_and_what_was_never_seen_is_minus_one(known):
    train = known[0]
    encoders = fit_encoders(train)
    for x, n in zip(encode(encoders, train), N_CODES, strict=True):
        assert x[:, -n:].min() >= 0
        assert x[:, -n:].max() <= 254
    strange = train.head(5).assign(author_id=10**6, user_active_degree="asleep")
    users, videos = encode(encoders, strange)
    assert (users[:, -N_CODES[0]] == -1).all()
    assert (videos[:, -1] == -1).all()


# --- networks


def test_networks_learn_and_predict_ratios(arrays, fitted):
    model, history = fitted
    (_, ratios), (others, truth) = arrays
    guess = predict(model, others)
    assert guess.shape == truth.shape
    assert guess.min() >= 0
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert np.mean((guess - truth) ** 2) < 0.98 * np.mean((ratios.mean() - truth) ** 2)
    assert np.sqrt(np.mean((guess - truth) ** 2)) == pytest.approx(history["validation"].min(), abs=0.01)


def test_saved_and_loaded(tmp_path, arrays, fitted):
    fitted[0].save(tmp_path / "watch.keras")
    loaded = keras.models.load_model(tmp_path / "watch.keras")
    np.testing.assert_allclose(predict(loaded, arrays[1][0]), predict(fitted[0], arrays[1][0]), rtol=0, atol=1e-6)


def meets_in_one_product(model, inputs, mean, deviation):
    """Whether the output is a dot product of what the parts named user and video make of their side alone."""
    vectors = [keras.ops.convert_to_numpy(model.get_layer(name)(x)) for name, x in zip(("user", "video"), inputs)]
    assert vectors[0].shape == vectors[1].shape, "the sides do not have vectors of one length"
    dot = mean + deviation * (vectors[0] * vectors[1]).sum(axis=1)
    np.testing.assert_allclose(np.maximum(dot, 0), predict(model, inputs), atol=1e-4)


@pytest.mark.parametrize("build", NETWORKS)
def test_only_towers_meet_in_one_product(arrays, build):
    (inputs, ratios), (others, _) = arrays
    model = build([x.shape[1] for x in inputs], N_CODES, (ratios.mean(), ratios.std()))
    if build is two_towers:
        meets_in_one_product(model, others, ratios.mean(), ratios.std())
    else:
        with pytest.raises(AssertionError, match="one length"):
            meets_in_one_product(model, others, ratios.mean(), ratios.std())


def test_each_class_of_each_column_has_a_row_of_its_own(arrays):
    inputs = arrays[0][0]
    part = watch_time_keras.side(inputs[0].shape[1], N_CODES[0], "user")
    row = np.zeros((1, inputs[0].shape[1]), np.float32)
    plain = part(row).numpy()
    for column in range(N_CODES[0]):
        for code in (-1, 1, 254):
            changed = row.copy()
            changed[0, row.shape[1] - N_CODES[0] + column] = code
            moved = np.flatnonzero(part(changed).numpy() != plain)
            first = row.shape[1] - N_CODES[0] + 4 * column
            assert set(moved) <= set(range(first, first + 4))
            assert len(moved)


def test_codes_can_go_in_as_numbers(arrays):
    (inputs, ratios), held = arrays
    model, _ = fit_watch_time(concat_mlp, inputs, ratios, validation=held, n_codes=(0, 0), **SETTING | {"epochs": 1})
    assert not any("embedding" in one.name for part in ("user", "video") for one in model.get_layer(part).layers)


def test_no_option_is_ignored(arrays):
    (inputs, ratios), held = arrays
    inputs, ratios = [x[:1500] for x in inputs], ratios[:1500]

    def trained(build=concat_mlp, validation=held, **changes):
        setting = SETTING | {"epochs": 2} | changes
        model, history = fit_watch_time(build, inputs, ratios, validation=validation, **setting)
        return predict(model, held[0]), history

    plain, history = trained()
    np.testing.assert_array_equal(trained()[0], plain)  # the same seed, the same model
    for changes in ({"seed": 1}, {"learning_rate": 0.001}, {"batch_size": 100}, {"epochs": 1}, {"build": two_towers}):
        assert not np.allclose(trained(**changes)[0], plain), changes
    assert len(history) == 2
    wrong_way = held[0], -10 * np.arange(len(held[1]), dtype=np.float32)  # every step makes it worse
    assert len(trained(validation=wrong_way, epochs=9, patience=1, learning_rate=0.05)[1]) < 9


@pytest.mark.parametrize("setting", [{"learning_rate": -1.0}, {"batch_size": 0}, {"epochs": 1.5}])
def test_settings_that_cannot_be_used(arrays, setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        fit_watch_time(concat_mlp, *arrays[0], validation=arrays[1], **SETTING | setting)


def test_what_stops_training_is_watched(arrays):
    """The best epoch comes back: the model's error on what it watched is the smallest of the history."""
    (inputs, ratios), held = arrays
    model, history = fit_watch_time(
        concat_mlp, inputs, ratios, validation=held, learning_rate=0.03, batch_size=256, epochs=8, patience=3
    )
    error = np.sqrt(np.mean((predict(model, held[0]) - held[1]) ** 2))
    assert error == pytest.approx(history["validation"].min(), abs=0.005)
    assert history["learning_rate"].is_monotonic_decreasing


def test_module_of_features_needs_no_framework():
    assert not {"keras", "tensorflow", "torch"} & set(vars(watch_time))
