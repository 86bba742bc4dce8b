# Exported from notebooks/11_watch_time.ipynb; edit there.
"""Written in chapter 11, where it is explained line by line."""

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder, StandardScaler

from recsys_utils.kuairec import counts_before, with_features

COUNTS = ["play_cnt", "share_cnt", "download_cnt", "comment_cnt"]
NUMBERS = ["follow_user_num"], ["duration", *COUNTS]  # of the user, of the video
CODES = ["user_active_degree", *(f"onehot_feat{n}" for n in range(18))], ["upload_type", "author_id"]
N_CODES = len(CODES[0]), len(CODES[1])


def describe(rows: pd.DataFrame, users, videos, daily) -> pd.DataFrame:
    """The rows with what was known before them: columns of users and videos by key, counts of yesterday.

    rows: views with user_id, video_id, time. users, videos, daily: the tables of a KuaiRec. Same rows,
    same order; errors are those of with_features and counts_before.
    """
    tags = [name for name in videos if name.startswith("tag_")]
    known = with_features(rows, users[NUMBERS[0] + CODES[0]], videos[["duration", *tags, *CODES[1]]])
    return known.join(counts_before(rows, daily)[COUNTS])


def fit_encoders(known: pd.DataFrame) -> list[ColumnTransformer]:
    """From columns of `describe` to arrays of users and of videos, fitted on these rows and no others.

    Numbers come first: log(1 + x), standardised, a missing one as the mean and with a flag. Then tags, as
    they are. Categories come last: 0, 1, …, the rare beyond 255 classes share one; unseen ones are -1.
    """
    scaled = make_pipeline(FunctionTransformer(np.log1p), StandardScaler(),
                           SimpleImputer(strategy="constant", fill_value=0.0, add_indicator=True))
    classes = OrdinalEncoder(max_categories=255, handle_unknown="use_encoded_value", unknown_value=-1)
    tags = [], [name for name in known if name.startswith("tag_")]
    return [ColumnTransformer([("numbers", scaled, numbers), ("tags", "passthrough", flags),
                               ("codes", classes, codes)]).fit(known)
            for numbers, flags, codes in zip(NUMBERS, tags, CODES, strict=True)]


def encode(encoders: list[ColumnTransformer], known: pd.DataFrame) -> list[np.ndarray]:
    """What goes into a model: float32 arrays of users and of videos, (n, d) and (n, e)."""
    return [encoder.transform(known).astype(np.float32) for encoder in encoders]


def xauc(users: np.ndarray, truth: np.ndarray, predictions: np.ndarray, n_users: int) -> np.ndarray:
    """Share of each user's pairs of rows that the predictions put in the right order, shape (n_users,).

    users: codes, shape (n,). truth, predictions: shape (n,). Pairs with equal truth are left out, equal
    predictions count one half, a user without a pair gets nan. After the XAUC of Zhan et al. (2022), here
    within users. Memory: a few bytes times the square of the longest user's rows.
    """
    right, order = np.full(n_users, np.nan), np.argsort(users, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(users[order])) + 1):  # a user at a time
        r, guess = truth[mine], predictions[mine]
        wanted, above, equal = r[:, None] > r, guess[:, None] > guess, guess[:, None] == guess
        n_above, n_equal, n_pairs = (np.count_nonzero(wanted & one) for one in (above, equal, True))
        right[users[mine[:1]]] = (n_above + n_equal / 2) / n_pairs if n_pairs else np.nan
    return right
