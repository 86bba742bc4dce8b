"""The numbers behind the pages `book/playground` and `book/item_map`, and the scorer their script is checked against.

    python tools/playground.py    # fit the five models, draw the map, write book/_extra/playground/*_data.js

The models are the chapters' own, with the settings recorded for the house table, fitted on all of the house data:
nothing is measured here. What a browser needs of them is far less than what they are. Item-kNN and EASE hold a number
for each pair of films, and both are made of one table, who met which film: that table is stored, and either gives the
weights of a film back exactly. iALS and the two towers keep their film vectors, one byte a number.

Nothing imports this file but the tests. `playground.js` has functions of the same names, which do the same.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from recsys_utils import leaderboard
from recsys_utils.datasets import load_house
from recsys_utils.interactions import Interactions

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "book" / "_extra" / "playground"
MODELS = ("popularity", "item_knn", "ease", "ials", "two_tower")
TYPES = {"Int8": np.int8, "Uint8": np.uint8, "Uint16": np.uint16, "Int32": np.int32, "Float32": np.float32}
TERMS = (
    "// Made from MovieLens latest-small by GroupLens: for non-commercial use, terms in data/README.md of this book."
)
POOL = 100  # how many of the best films are re-ranked; a slider's unit lies between the first and the last of them
GROUPS, NEAR = 8, 5  # of the map: clusters of film vectors, nearest films of a film


# --- what is written ------------------------------------------------------------------------------------------------


def pack(array: np.ndarray) -> dict:
    """An array as {"type", "shape", "base64"}, little-endian; the type is that of a JavaScript array."""
    name = next(name for name, dtype in TYPES.items() if array.dtype == dtype)
    content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {"type": name, "shape": list(array.shape), "base64": base64.b64encode(content).decode()}


def unpack(packed: dict) -> np.ndarray:
    """The array that pack was given."""
    content = base64.b64decode(packed["base64"])
    return np.frombuffer(content, np.dtype(TYPES[packed["type"]]).newbyteorder("<")).reshape(packed["shape"])


def write(path: Path, name: str, content: dict) -> None:
    """A classic script that sets one constant; titles cannot end a string, a script or a comment."""
    packed = {key: pack(value) if isinstance(value, np.ndarray) else value for key, value in content.items()}
    text = json.dumps(packed, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    path.write_text(f'{TERMS}\n"use strict";\nconst {name} = {text};\n', encoding="utf-8")


def read(path: Path) -> dict:
    """What write was given."""
    text = path.read_text(encoding="utf-8").partition(" = ")[2].removesuffix(";\n")
    return {
        key: unpack(value) if isinstance(value, dict) and "base64" in value else value
        for key, value in json.loads(text).items()
    }


def quantised(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as int8, (n, d), and what one step is worth in each, float32, (n,); a row of zeros has steps of 1."""
    step = np.abs(rows).max(axis=1).astype(np.float32) / 127
    step[step == 0] = 1
    return np.round(rows / step[:, None]).astype(np.int8), step


def gaps(lists: sparse.csr_matrix) -> np.ndarray:
    """The column numbers of all rows, row by row, as distances from the one before (-1 before the first): uint8, where
    255 stands for 255 and goes on with the next byte."""
    out = []
    for start, end in zip(lists.indptr, lists.indptr[1:]):
        for gap in np.diff(np.sort(lists.indices[start:end]), prepend=-1):
            out += [255] * (gap // 255) + [gap % 255]
    return np.array(out, np.uint8)


def settings(model: str) -> dict:
    """The hyper-parameters of a model in the house table."""
    return leaderboard.result(model)["hyperparameters"]


def fit(data: Interactions) -> dict[str, np.ndarray]:
    """The chapters' own models on these rows: popularity (n_items,), item_knn and ease (n_items, n_items), the item
    vectors ials and two_tower (n_items, d), and mean_user (d,), the mean user vector of the towers, of length one."""
    import torch

    from recsys_utils.models import baselines, neighbours
    from recsys_utils.models.ials import fit_ials
    from recsys_utils.models.two_tower_torch import fit_two_tower
    from recsys_utils.serving.service import mean_vector

    torch.set_num_threads(1)
    towers, _ = fit_two_tower(data, **settings("two_tower"))
    users, items = towers.vectors()
    return {
        "popularity": baselines.popularity(data, **settings("popularity")),
        "item_knn": neighbours.cosine_neighbours(data.matrix(), **settings("item_knn")),
        "ease": neighbours.ease(data.matrix(), **settings("ease")),
        "ials": fit_ials(data, **settings("ials"))[1],
        "two_tower": items,
        "mean_user": mean_vector(users, np.ones(len(users))),
    }


def catalogue(data: Interactions) -> dict:
    """Films by code: MovieLens id, title, year, genres as bits, in the order of genre_names, and number of ratings."""
    table = data.item_table
    names = sorted({genre for genres in table["genres"] for genre in genres})
    bits = [sum(1 << names.index(genre) for genre in genres) for genres in table["genres"]]
    return {
        "item_ids": data.item_ids.astype(np.int32),
        "titles": table["title"].tolist(),
        "years": table["year"].fillna(0).to_numpy(np.uint16),
        "genre_names": names,
        "genres": np.array(bits, np.int32),
        "counts": data.item_counts.astype(np.uint16),
    }


def playground_content(data: Interactions, fitted: dict[str, np.ndarray]) -> dict:
    """Everything the playground is made of."""
    from recsys_utils.serving.service import MEAN_USER

    met, ials = data.matrix(), settings("ials")
    penalty = settings("ease")["regularization"]
    solved = np.linalg.solve((met @ met.T).toarray() + penalty * np.eye(data.n_users), met.toarray())  # see ease_parts
    weights = (ials["alpha"] - 1) * data.user_counts + data.n_items  # of the users iALS was trained on
    factors, factor_steps = quantised(fitted["ials"])
    vectors, vector_steps = quantised(fitted["two_tower"])
    least = np.where(fitted["item_knn"] > 0, fitted["item_knn"], np.inf).min(axis=0)
    return catalogue(data) | {
        "models": [
            {"id": model, "settings": settings(model)} | leaderboard.MODELS[model]._asdict() for model in MODELS
        ],
        "n_people": data.n_users,
        "met": gaps(met.T.tocsr()),
        "popularity": fitted["popularity"].astype(np.float32),
        "knn_least": np.where(np.isfinite(least), least, 0).astype(np.float32),  # of the neighbours kept for a film
        "ease_diagonal": ((1 - met.multiply(solved).sum(axis=0).A1) / penalty).astype(np.float32),
        "ials_factors": factors,
        "ials_steps": factor_steps,
        "ials_mean_weight": float(weights.mean()),
        "tower_vectors": vectors,
        "tower_steps": vector_steps,
        "tower_mean_user": fitted["mean_user"].astype(np.float32),
        "tower_mean_weight": MEAN_USER,
    }


# --- the scorer: film codes in, numbers out -------------------------------------------------------------------------


def prepare(content: dict) -> dict:
    """The content, and what every profile needs of it: met (n_items, n_people), people, the factorised matrix
    met.T @ met + λ I of EASE, the film vectors of iALS and of the towers in float64, and the latter of length one."""
    n_items, n_people = len(content["titles"]), content["n_people"]
    closed = content["met"] < 255  # bytes that end a number
    codes = np.add.reduceat(content["met"].astype(int), np.r_[0, np.flatnonzero(closed)[:-1] + 1])
    indptr = np.r_[0, np.cumsum(content["counts"].astype(int))]
    ends = np.cumsum(codes)  # of the distances, over all films
    before = np.r_[0, ends][indptr[:-1]]
    people = ends - np.repeat(before, np.diff(indptr)) - 1
    met = sparse.csr_matrix((np.ones(len(people)), people, indptr), shape=(n_items, n_people))
    penalty = settings_of(content, "ease")["regularization"]
    factors = content["ials_factors"] * content["ials_steps"].astype(float)[:, None]
    vectors = content["tower_vectors"] * content["tower_steps"].astype(float)[:, None]
    return content | {
        "met": met,
        "people": cho_factor((met.T @ met).toarray() + penalty * np.eye(n_people)),
        "factors": factors,
        "gram": factors.T @ factors,
        "vectors": vectors,
        "units": units(vectors),
    }


def units(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, (n, d)."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def settings_of(content: dict, model: str) -> dict:
    return next(each["settings"] for each in content["models"] if each["id"] == model)


def parts(data: dict, model: str, liked: list[int]) -> np.ndarray:
    """What speaks for each film, (1 + len(liked), n_items): first what does not depend on the liked films, then each of
    them. The sum of a column is the score of the film."""
    out = np.zeros((1 + len(liked), len(data["titles"])))
    if model == "popularity":
        out[0] = data["popularity"]
    elif model == "two_tower":
        out[:] = tower_parts(data, liked)
    elif liked:
        out[1:] = {"item_knn": knn_parts, "ease": ease_parts, "ials": ials_parts}[model](data, liked)
    return out


def knn_parts(data: dict, liked: list[int]) -> np.ndarray:
    """Cosines with each liked film, where they are among the k largest of a film (`models.neighbours`)."""
    together = (data["met"][liked] @ data["met"].T).toarray()
    norms = np.sqrt(data["counts"].astype(float))
    shrinkage = settings_of(data, "item_knn")["shrinkage"]
    similarity = together / (norms[liked, None] * norms + shrinkage)
    least = data["knn_least"].astype(float) * (1 - 3e-7)  # stored in float32
    near = (similarity > 0) & (similarity >= least)
    near[np.arange(len(liked)), liked] = False
    return np.where(near, similarity, 0)


def ease_parts(data: dict, liked: list[int]) -> np.ndarray:
    """Weights of EASE (Steck 2019, eq. 8) from each liked film to every other. The inverse P of X'X + λI that they
    are made of has as many rows as there are films; λP = I - X'(XX' + λI)⁻¹X asks for one with a row a person."""
    penalty = settings_of(data, "ease")["regularization"]
    solved = cho_solve(data["people"], data["met"][liked].toarray().T)
    weights = (data["met"] @ solved).T / (penalty * data["ease_diagonal"].astype(float))
    weights[np.arange(len(liked)), liked] = 0
    return weights


def ials_parts(data: dict, liked: list[int]) -> np.ndarray:
    """The user vector that iALS would solve for, split by liked film (Hu, Koren & Volinsky 2008, section 5)."""
    setting, V = settings_of(data, "ials"), data["factors"]
    alpha = setting["alpha"]
    weight = (alpha - 1) * len(liked) + len(V)
    penalty = setting["regularization"] * (weight / data["ials_mean_weight"]) ** setting["frequency"]
    A = data["gram"] + (alpha - 1) * V[liked].T @ V[liked] + penalty * np.eye(V.shape[1])
    return alpha * (V @ np.linalg.solve(A, V[liked].T)).T


def tower_parts(data: dict, liked: list[int]) -> np.ndarray:
    """Somebody new, as the endpoint of chapter 13 sees them (`serving.service.new_user`): the mean of the liked films,
    of length one, and a share of the mean user; first row: the mean user."""
    V = data["vectors"]
    likes = V[liked]
    length = np.linalg.norm(likes.sum(axis=0))
    pieces = np.vstack([data["tower_mean_weight"] * data["tower_mean_user"], likes / max(length, 1e-12)])
    return pieces / max(np.linalg.norm(pieces.sum(axis=0)), 1e-12) @ V.T


def adjusted(data: dict, scores: np.ndarray, liked: list[int], penalty: float, genres: dict[str, float]) -> np.ndarray:
    """Scores, (n_items,), in units of the distance from the best film to the hundredth, which is 0; minus penalty for
    the best known film, less for others, and plus the weight of each of a film's genres. Liked films are at -inf.

    Rounded to nine digits, so that equals stay equal in every language.
    """
    free = np.ones(len(scores), bool)
    free[liked] = False
    best = np.sort(scores[free])[::-1][:POOL]
    spread = best[0] - best[-1]
    out = (scores - best[-1]) / spread if spread > 0 else np.zeros(len(scores))
    known = np.log1p(data["popularity"].astype(float))
    out = out - penalty * known / known.max()
    for genre, weight in genres.items():
        out = out + weight * (data["genres"] >> data["genre_names"].index(genre) & 1)
    return np.where(free, np.round(out, 9), -np.inf)


def rank(data: dict, values: np.ndarray, diversity: float, k: int = 10) -> list[int]:
    """The first k films by maximal marginal relevance (Carbonell & Goldstein 1998): again and again the film with the
    largest (1 - diversity) · value - diversity · its largest cosine with those before it, out of the POOL best.

    Cosines are of two-tower vectors. Equals: the one with the larger value first, then the lower code.
    """
    pool = [code for code in np.argsort(-values, kind="stable")[:POOL] if np.isfinite(values[code])]
    chosen, nearest = [], np.full(len(pool), -np.inf)
    while pool and len(chosen) < k:
        gains = [(1 - diversity) * values[code] - (diversity * near if chosen else 0)
                 for code, near in zip(pool, nearest)]  # fmt: skip
        place = int(np.argmax(np.round(gains, 9)))
        chosen.append(int(pool.pop(place)))
        nearest = np.maximum(np.delete(nearest, place), data["units"][pool] @ data["units"][chosen[-1]])
    return chosen


# --- the map --------------------------------------------------------------------------------------------------------


def nearest_films(vectors: np.ndarray, k: int = NEAR) -> np.ndarray:
    """The k films with the largest cosine, nearest first, of each film: uint16, (n_items, k)."""
    cosines = units(vectors) @ units(vectors).T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k].astype(np.uint16)


def groups_of(vectors: np.ndarray) -> np.ndarray:
    """k-means of the directions: the number of the group of each film, (n_items,), the largest group is 0."""
    from sklearn.cluster import KMeans

    labels = KMeans(GROUPS, n_init=10, random_state=0).fit_predict(units(vectors))
    order = np.argsort(-np.bincount(labels), kind="stable")
    return np.argsort(order)[labels].astype(np.uint8)


def map_content(data: Interactions, vectors: np.ndarray) -> dict:
    """Everything the map is made of: two-tower vectors, (n_items, d), laid out by t-SNE as in chapter 10."""
    from sklearn.manifold import TSNE

    points = TSNE(random_state=0, max_iter=500).fit_transform(vectors.astype(np.float32))
    low, high = points.min(axis=0), points.max(axis=0)
    films = catalogue(data)
    del films["item_ids"]
    return films | {
        "points": np.round((points - low) / (high - low).max() * 60_000).astype(np.uint16),
        "groups": groups_of(vectors),
        "near": nearest_films(vectors),
    }


def draw_map(content: dict, path: Path) -> None:
    """The map as a picture, for pages without JavaScript and for print."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from recsys_utils import plots

    plots.use_style()
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 5.6), subplot_kw={"xticks": [], "yticks": []})
    colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b4b94", "#8c6d31"]
    x, y = content["points"].astype(float).T
    for group, colour in enumerate(colours[:GROUPS]):
        members = np.flatnonzero(content["groups"] == group)
        axes.scatter(x[members], -y[members], s=3, color=colour, linewidths=0)
        name = content["titles"][members[np.argmax(content["counts"][members])]].split(" (")[0]
        frame = {"facecolor": "white", "alpha": 0.85, "edgecolor": colour, "pad": 2}
        place = np.median(x[members]), -np.median(y[members])
        axes.annotate(name, place, fontsize=7, weight="bold", ha="center", bbox=frame)
    axes.set_title(f"{len(x):,} films by t-SNE of their vectors; {GROUPS} groups, named by their best known film")
    axes.set_frame_on(False)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    if sys.argv[1:]:
        sys.exit(__doc__)
    data = load_house()
    FOLDER.mkdir(parents=True, exist_ok=True)
    write(FOLDER / "playground_data.js", "PLAYGROUND", playground_content(data, fit(data)))
    vectors = prepare(read(FOLDER / "playground_data.js"))["vectors"]
    content = map_content(data, vectors)
    write(FOLDER / "item_map_data.js", "ITEM_MAP", content)
    draw_map(content, ROOT / "book" / "item_map.png")
    for path in (*sorted(FOLDER.glob("*_data.js")), ROOT / "book" / "item_map.png"):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
