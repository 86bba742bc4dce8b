"""From a request to films with reasons: retrieve by vector, leave out what was met, re-rank, explain.

A Service answers from one artefact at a time and changes it without dropping a request.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel

from recsys_utils.retrieval import recall
from recsys_utils.serving.artefacts import Artefact, ArtefactError, load
from recsys_utils.serving.stores import MemoryStore, Store

logger = logging.getLogger(__name__)
CANDIDATES = 100  # retrieved by vector, then re-ranked
EASE_WEIGHT = 5.0  # of the item-to-item score beside the inner product, chosen on validation
HALF_LIFE = 5.0  # items: what was met so many items ago counts half as much in the item-to-item score
LIKED, NEUTRAL = 3.5, 2.5  # stars: a film is liked from LIKED, and then weighs its stars above NEUTRAL
MEAN_USER = 0.5  # of the mean user vector in that of somebody new, chosen on validation
REASONS = 2  # liked films named beside a recommendation
RECALL = 0.95  # what a new store has to find of the exact answers


class NotReadyError(RuntimeError):
    """No artefact is loaded."""


class UnknownItemError(LookupError):
    """The catalogue that is served has no such item."""


class Reason(BaseModel):
    """A film that the user liked, and the cosine of its vector with that of the recommended one."""

    item_id: int
    title: str
    similarity: float


class Film(BaseModel):
    """One place of an answer; what a score means depends on the source. because: nearest liked films, nearest first."""

    item_id: int
    title: str
    score: float
    because: list[Reason]


class Answer(BaseModel):
    """Films, best first; fewer than asked for where no more are left.

    source: "two_tower+ease" (inner product + EASE_WEIGHT * item-to-item score), "two_tower" (cosine), "genres" (inner
    product with the mean film of the genres) or "popularity" (number of ratings). note: why there is nothing personal
    in it, else empty. left_out: what the request named and this version does not know.
    """

    version: str
    source: Literal["two_tower+ease", "two_tower", "genres", "popularity"]
    note: str
    left_out: list[int | str]
    items: list[Film]


class Service:
    """Answers from one artefact and its store, which never change: every request takes the pair once and keeps it.

    store: makes a store of an artefact. Nothing is loaded before `swap`. May be used from many threads.
    """

    def __init__(self, store: Callable[[Artefact], Store] = MemoryStore):
        self._make_store = store
        self._served: _Served | None = None
        self._lock, self._swapping = threading.Lock(), threading.Lock()
        self.swaps = self.refused = 0  # versions that replaced one, versions that were turned away

    @property
    def version(self) -> str | None:
        """Version that is served, None before the first."""
        served = self._served
        return None if served is None else served.artefact.version

    @property
    def in_memory(self) -> bool:
        """Whether an answer waits for nothing but the processor."""
        served = self._served
        return served is None or isinstance(served.store, MemoryStore)

    def recommend(self, user_id: int, k: int = 10, exclude_seen: bool = True) -> Answer:
        """The k best films for a user; for an unknown one the most popular, with a note. Seen ones may be let in."""
        with self._lease() as served:
            artefact = served.artefact
            user = artefact.user_codes.get(user_id)
            if user is None:
                note = f"version {artefact.version} does not know user {user_id}: these are the most rated films"
                return served.popular(k, note)
            history = slice(*artefact.history.indptr[user : user + 2])
            met, ratings = artefact.history.indices[history], artefact.history.data[history]
            found = served.search(artefact.user_vectors[user], k, user=user if exclude_seen else None)
            ranked = served.rerank(*found, met, artefact.ages[history])
            return served.answer("two_tower+ease", *ranked, k, liked=met[ratings >= LIKED])

    def recommend_new(
        self, ratings: Mapping[int, float] | None = None, genres: Sequence[str] | None = None, k: int = 10
    ) -> Answer:
        """The k best films for somebody without a vector.

        ratings: stars by item id, the latest last; rated films are left out of the answer. genres: names; read where no
        film is liked. The most popular films, with a note, where neither says anything.
        """
        with self._lease() as served:
            artefact, ratings, genres = served.artefact, ratings or {}, list(dict.fromkeys(genres or ()))
            left_out = [item for item in ratings if item not in artefact.codes]
            left_out += [genre for genre in genres if genre not in served.genres]
            known = {artefact.codes[item]: stars for item, stars in ratings.items() if item in artefact.codes}
            met, stars = np.array(list(known), int), np.array(list(known.values()))
            liked = met[stars >= LIKED]
            if len(liked):
                query = new_user(artefact.item_vectors[met], stars, served.mean_user)
                ranked = served.rerank(*served.search(query, k, exclude=met), met, np.arange(len(met))[::-1])
                return served.answer("two_tower+ease", *ranked, k, liked, left_out=left_out)
            wanted = [served.genres[genre] for genre in genres if genre in served.genres]
            if wanted:
                codes = np.unique(np.concatenate(wanted))
                query = mean_vector(artefact.item_vectors[codes], served.counts[codes])
                return served.answer("genres", *served.search(query, k, exclude=met), k, left_out=left_out)
            why = f"no film is known and has {LIKED} stars" if ratings else f"the genres are {', '.join(served.genres)}"
            return served.popular(k, f"{why}: these are the most rated films", met, left_out)

    def similar(self, item_id: int, k: int = 10) -> Answer:
        """The k films whose vectors have the largest cosine with that of one. Raises UnknownItemError."""
        with self._lease() as served:
            artefact = served.artefact
            code = artefact.codes.get(item_id)
            if code is None:
                raise UnknownItemError(f"version {artefact.version} has no film {item_id}")
            codes, _ = served.search(artefact.item_vectors[code], k, exclude=(code,))
            cosines = served.unit[codes] @ served.unit[code]
            order = np.argsort(-cosines, kind="stable")
            return served.answer("two_tower", codes[order], cosines[order], k)

    def swap(self, root: Path | str, version: str | None = None) -> str:
        """Serve another version (None: what root/CURRENT names); its name.

        It is built and checked beside the one that serves; requests that have begun end with the old one, which is
        closed after the last of them. Raises ArtefactError for an artefact that must not be served, and for a store
        that misses too many of the exact answers; whatever is raised, the old one goes on serving.
        """
        with self._swapping:
            try:
                served = self._build(load(root, version))
            except Exception:
                self.refused += 1
                raise
            with self._lock:
                old, self._served = self._served, served
            if old is not None:
                self.swaps += 1
                self._release(old)
            logger.info("serving", extra={"fields": {"version": served.artefact.version}})
            return served.artefact.version

    def close(self) -> None:
        """Stop answering; the store is closed after the last request that has begun."""
        with self._swapping:
            with self._lock:
                old, self._served = self._served, None
            if old is not None:
                self._release(old)

    def _build(self, artefact: Artefact) -> _Served:
        store = self._make_store(artefact)
        try:
            users, exact, _ = artefact.canary
            found = np.full_like(exact, -1)
            for row, user in zip(found, users):
                codes, _ = store.search(artefact.user_vectors[user], len(row))
                row[: len(codes)] = codes
            share = recall(found, exact).mean()
            if not share >= RECALL:
                raise ArtefactError(
                    f"version {artefact.version}: its store finds {share:.2f} of the exact answers, expected {RECALL} "
                    f"or more; search more of the index (ef_search), or build it again"
                )
            return _Served(artefact, store)
        except BaseException:
            store.close()
            raise

    @contextmanager
    def _lease(self) -> Iterator[_Served]:
        with self._lock:
            served = self._served
            if served is None:
                raise NotReadyError("no artefact is loaded")
            served.leases += 1
        try:
            yield served
        finally:
            self._release(served)

    def _release(self, served: _Served) -> None:
        with self._lock:
            served.leases -= 1
            last = not served.leases
        if last:
            try:
                served.store.close()
            except Exception:  # the answer that ended last must not suffer
                logger.exception("the store of version %s does not close", served.artefact.version)


class _Served:
    """An artefact, its store, and what every request would otherwise work out again; leases: the service and requests
    that use it."""

    def __init__(self, artefact: Artefact, store: Store):
        self.artefact, self.store, self.leases = artefact, store, 1
        vectors, items, columns = artefact.item_vectors, artefact.items, artefact.weights.tocsc()
        self.unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        self.mean_user = mean_vector(artefact.user_vectors, np.ones(artefact.n_users))
        self.item_ids, self.titles = items["item_id"].tolist(), items["title"].tolist()
        self.counts = items["count"].to_numpy()
        self.by_count = np.argsort(-self.counts, kind="stable")
        self.genres: dict[str, list[int]] = {}
        for name, code in sorted((name, code) for code, names in enumerate(items["genres"]) for name in names):
            self.genres.setdefault(name, []).append(code)
        widths = np.diff(columns.indptr)
        filled = np.arange(widths.max(initial=1)) < widths[:, None]  # (n_items, largest number of weights in a column)
        self.neighbours, self.weights = np.zeros(filled.shape, np.int32), np.zeros(filled.shape, np.float32)
        self.neighbours[filled], self.weights[filled] = columns.indices, columns.data
        _ = artefact.codes, artefact.user_codes  # made now, not by the first request

    def search(self, query: np.ndarray, k: int, **without) -> tuple[np.ndarray, np.ndarray]:
        """Candidates for an answer of length k: codes and inner products, best first."""
        return self.store.search(query, min(max(k, CANDIDATES), self.artefact.n_items), **without)

    def rerank(
        self, codes: np.ndarray, scores: np.ndarray, met: np.ndarray, ages: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Codes and scores + EASE_WEIGHT * the sum of weights over what was met, each halved every HALF_LIFE items."""
        strength = np.zeros(self.artefact.n_items, np.float32)
        strength[met] = 0.5 ** (ages / HALF_LIFE)
        near = strength.take(self.neighbours.take(codes, axis=0))  # (n, weights of an item); take is the fast indexing
        scores = scores + EASE_WEIGHT * np.einsum("nw,nw->n", near, self.weights.take(codes, axis=0))
        order = np.argsort(-scores, kind="stable")
        return codes[order], scores[order]

    def popular(self, k: int, note: str, met: Sequence[int] = (), left_out: Sequence[int | str] = ()) -> Answer:
        """The most rated films, without those that were met."""
        codes = self.by_count[: k + len(met)]
        codes = codes[~np.isin(codes, met)]
        return self.answer("popularity", codes, self.counts[codes], k, note=note, left_out=left_out)

    def answer(
        self,
        source: str,
        codes: np.ndarray,
        scores: np.ndarray,
        k: int,
        liked: np.ndarray = (),
        *,
        note: str = "",
        left_out: Sequence[int | str] = (),
    ) -> Answer:
        """The first k codes with their scores, titles and nearest liked films."""
        codes, ids, titles = codes[:k], self.item_ids, self.titles
        reasons = [
            [Reason(item_id=ids[code], title=titles[code], similarity=similarity) for code, similarity in row]
            for row in self.nearest(codes, liked)
        ]
        films = [
            Film(item_id=ids[code], title=titles[code], score=score, because=because)
            for code, score, because in zip(codes.tolist(), scores[:k].tolist(), reasons)
        ]
        version = self.artefact.version
        return Answer(version=version, source=source, note=note, left_out=list(left_out), items=films)

    def nearest(self, codes: np.ndarray, liked: np.ndarray) -> list[list[tuple[int, float]]]:
        """For each code the REASONS liked ones with the largest cosine above 0, and the cosine; never itself."""
        rows = [[] for _ in codes]
        if len(liked) == 0:
            return rows
        cosines = self.unit.take(codes, axis=0) @ self.unit.take(liked, axis=0).T  # (k, m)
        cosines[codes[:, None] == liked] = 0
        numbers = np.arange(len(codes))
        for _ in range(REASONS):
            best = cosines.argmax(axis=1)
            for row, code, cosine in zip(rows, liked[best].tolist(), cosines[numbers, best].tolist()):
                if cosine > 0:
                    row.append((code, cosine))
            cosines[numbers, best] = 0
        return rows


def mean_vector(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of vectors (n, d), weights (n,), of length one; shape (d,), float32, 0 where it vanishes."""
    mean = np.asarray(weights, np.float32) @ vectors
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def new_user(vectors: np.ndarray, stars: np.ndarray, mean_user: np.ndarray) -> np.ndarray:
    """The vector of somebody who gave films of these vectors, (n, d), these stars, (n,): the mean of those with LIKED
    stars or more, each weighing its stars above NEUTRAL, of length one, and MEAN_USER times the mean user vector, (d,),
    of length one: what people like in general, which a few films forget. Shape (d,), length one."""
    liked = mean_vector(vectors, np.where(stars >= LIKED, stars - NEUTRAL, 0))
    return mean_vector(np.stack([liked, mean_user]), np.array([1, MEAN_USER]))
