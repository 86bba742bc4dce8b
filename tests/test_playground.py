"""The playground and the item map: their data is current, their script scores as Python does, and anybody can use them.

`tools/playground.py` is the scorer that the script is compared with. It works from the exported numbers, and is itself
compared with the chapters' own functions here.
"""

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import playground
from recsys_utils.datasets import load_house
from recsys_utils.serving.service import new_user
from test_site import LARGE, ROOT, SMALL, open_pages

SCRIPTS = ROOT / "book" / "_extra" / "playground"
LIMIT = 1_500_000  # bytes of script and data
ALIEN, BLADE_RUNNER, MATRIX = 1214, 541, 2571  # MovieLens ids
FIELD = "input[role=combobox]"
HOSTILE = [
    "<img src=x onerror=\"document.body.dataset.owned='1'\">",
    "</script><script>document.body.dataset.owned='1'</script>",
    "\"' onmouseover='document.body.dataset.owned=1' x=\"",
    "line \u2028 separator, \u202e backwards, $\\alpha$ and \\(x\\)",
]


@pytest.fixture(scope="module")
def house():
    return load_house()


@pytest.fixture(scope="module")
def content():
    return playground.read(playground.FOLDER / "playground_data.js")


@pytest.fixture(scope="module")
def data(content):
    return playground.prepare(content)


@pytest.fixture(scope="module")
def fitted(house):
    return playground.fit(house)


@pytest.fixture(scope="module")
def profiles(house):
    """200 readers: one to twelve films that somebody gave four stars or more; three readers have fewer or more."""
    rng = np.random.default_rng(0)
    liked = house.ratings >= 4
    films = [house.items[liked & (house.users == user)] for user in range(house.n_users)]
    films = [each for each in films if len(each) >= 12]
    draws = [rng.choice(films[rng.integers(len(films))], rng.integers(1, 13), replace=False) for _ in range(197)]
    draws += [np.array([], int), np.array([0]), rng.choice(house.n_items, 30, replace=False)]
    sliders = [
        {
            "penalty": round(float(rng.choice([0, 0, 0.3, 1.1, 2])), 1),
            "diversity": round(float(rng.choice([0, 0, 0.2, 0.75, 1])), 2),
            "genres": {str(genre): float(rng.choice([-1, 0.25, 0.5, 1])) for genre in rng.choice(GENRES, number)},
        }
        for number in rng.choice([0, 0, 1, 3], 200)
    ]
    return [{"liked": [int(code) for code in codes], **slider} for codes, slider in zip(draws, sliders, strict=True)]


GENRES = ["Horror", "Comedy", "Drama", "Sci-Fi", "Film-Noir", "IMAX", "Western"]


# --- the data -------------------------------------------------------------------------------------------------------


def differences(fresh: dict, committed: dict) -> list[str]:
    """What of the committed content is not what the models give now. Training differs in the last digits between
    machines: film vectors may move, answers hardly."""
    if fresh.keys() != committed.keys():
        return [f"the names differ: {sorted(fresh.keys() ^ committed.keys())}"]
    trained = {"ials_factors", "ials_steps", "tower_vectors", "tower_steps", "tower_mean_user"}
    faults = []
    for name in fresh.keys() - trained:
        new, old = fresh[name], committed[name]
        if isinstance(new, np.ndarray):
            same = new.dtype == old.dtype and new.shape == old.shape and np.allclose(new, old, rtol=1e-5, atol=0)
        else:
            same = json.loads(json.dumps(new)) == old
        faults += [] if same else [f"{name} differs"]
    new, old = playground.prepare(fresh), playground.prepare(committed)
    rng = np.random.default_rng(1)
    draws = [[int(code) for code in rng.choice(200, 5, replace=False)] for _ in range(20)]
    for model, least in (("ials", 0.9), ("two_tower", 0.7)):
        share = np.mean([overlap(top(new, model, liked), top(old, model, liked)) for liked in draws])
        faults += [] if share >= least else [f"{model}: {share:.2f} of its answers are the committed ones"]
    return faults


def top(data: dict, model: str, liked: list[int]) -> list[int]:
    return best(playground.parts(data, model, liked).sum(axis=0), liked)


def best(scores: np.ndarray, liked: list[int]) -> list[int]:
    scores = scores.copy()
    scores[liked] = -np.inf
    return np.argsort(-scores, kind="stable")[:10].tolist()


def overlap(a: list[int], b: list[int]) -> float:
    return len(set(a) & set(b)) / len(a)


def test_data_is_what_the_chapters_export(house, fitted, content):
    assert differences(playground.playground_content(house, fitted), content) == []


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("titles", lambda titles: ["Alien", *titles[1:]], "titles differs"),
        ("ease_diagonal", lambda values: values * 1.01, "ease_diagonal differs"),
        ("models", lambda models: [models[0] | {"settings": {}}, *models[1:]], "models differs"),
        ("tower_vectors", lambda rows: rows[::-1], "two_tower: 0.0"),
        ("ials_factors", lambda rows: rows[::-1], "ials: 0.0"),
    ],
)
def test_canary_of_the_data(content, name, change, message):
    faults = differences(content, content | {name: change(content[name])})
    assert len(faults) == 1
    assert faults[0].startswith(message)


def test_scorer_gives_the_scores_of_the_chapters(house, fitted, content, data, profiles):
    """Popularity, item-kNN and EASE to 1e-4; film vectors of one byte a number keep 97% of the top tens or more."""
    setting, V = playground.settings("ials"), fitted["ials"]
    weights = (setting["alpha"] - 1) * house.user_counts + house.n_items
    gram, alpha = V.T @ V, setting["alpha"]

    def ials(liked):
        weight = (alpha - 1) * len(liked) + house.n_items
        penalty = setting["regularization"] * (weight / weights.mean()) ** setting["frequency"]
        A = gram + (alpha - 1) * V[liked].T @ V[liked] + penalty * np.eye(V.shape[1])
        return V @ np.linalg.solve(A, alpha * V[liked].sum(axis=0))

    def towers(liked):  # five stars for each film
        return fitted["two_tower"] @ new_user(fitted["two_tower"][liked], np.full(len(liked), 5.0), fitted["mean_user"])

    exact = {
        "popularity": lambda liked: fitted["popularity"],
        "item_knn": lambda liked: fitted["item_knn"][liked].sum(axis=0),
        "ease": lambda liked: fitted["ease"][liked].sum(axis=0),
    }
    kept_answers = {"ials": [], "two_tower": []}
    for profile in profiles[::4]:
        liked = profile["liked"]
        if not liked:
            continue
        for model, score in exact.items():
            rows = playground.parts(data, model, liked)
            assert np.abs(rows.sum(axis=0) - score(liked)).max() < 1e-4, model
        for model, score in (("ials", ials), ("two_tower", towers)):
            kept_answers[model].append(overlap(top(data, model, liked), best(score(liked), liked)))
    assert min(np.mean(shares) for shares in kept_answers.values()) > 0.97, kept_answers


def test_ials_folds_in_as_it_was_trained(house):
    """A user of train gets the vector that the last half-step gave: the user step of chapter 7, alone."""
    from recsys_utils.models.ials import fit_ials

    setting = playground.settings("ials") | {"epochs": 2}
    U, _ = fit_ials(house, **setting)
    _, before = fit_ials(house, **setting | {"epochs": 1})  # the item vectors that U was solved for
    content = {
        "titles": [""] * house.n_items,
        "models": [{"id": "ials", "settings": setting}],
        "factors": before,
        "gram": before.T @ before,
        "ials_mean_weight": float(((setting["alpha"] - 1) * house.user_counts + house.n_items).mean()),
    }
    for user in (0, 14, 600):
        liked = house.items[house.users == user].tolist()
        np.testing.assert_allclose(playground.ials_parts(content, liked).sum(axis=0), before @ U[user], atol=1e-6)


def test_sliders_do_what_the_page_says(data):
    scores = playground.parts(data, "ease", [0, 1]).sum(axis=0)
    plain = playground.adjusted(data, scores, [0, 1], 0, {})
    order = np.sort(plain[np.isfinite(plain)])[::-1]
    assert (order[0], order[99]) == (1, 0)
    assert np.flatnonzero(~np.isfinite(plain)).tolist() == [0, 1]
    lost = plain[2:] - playground.adjusted(data, scores, [0, 1], 1, {})[2:]
    known = np.log1p(data["popularity"].astype(float))
    np.testing.assert_allclose(lost, known[2:] / known.max(), atol=1e-8)
    won = playground.adjusted(data, scores, [0, 1], 0, {"Horror": 0.5})[2:] - plain[2:]
    horror = data["genres"][2:] >> data["genre_names"].index("Horror") & 1
    np.testing.assert_allclose(won, 0.5 * horror, atol=1e-8)
    assert playground.rank(data, plain, 0) == np.argsort(-plain, kind="stable")[:10].tolist()
    likeness = []
    for diversity in (0, 0.3, 0.7):
        chosen = data["units"][playground.rank(data, plain, diversity)]
        likeness.append(np.triu(chosen @ chosen.T, 1).sum())
    assert likeness == sorted(likeness, reverse=True)


def test_nothing_to_rank_is_no_error(data):
    values = playground.adjusted(data, np.zeros(len(data["titles"])), [], 0, {})
    assert not values.any()
    assert playground.rank(data, np.full(len(data["titles"]), -np.inf), 0.5) == []


def test_weight_of_the_pages():
    sizes = {path.name: path.stat().st_size for path in SCRIPTS.iterdir()}
    assert set(sizes) == {"playground.js", "playground.css", "playground_data.js", "item_map.js", "item_map_data.js"}
    assert sum(sizes.values()) < LIMIT


def test_nothing_moves_by_itself():
    """For readers who asked their system for less motion, and for everybody else."""
    for name in ("playground.css", "playground.js", "item_map.js"):
        assert not re.search(r"transition|animat|@keyframes|smooth", (SCRIPTS / name).read_text(encoding="utf-8")), name


def test_no_other_page_loads_these_scripts():
    """Every script and style sheet below _static would be loaded by all pages."""
    assert not list((ROOT / "book" / "_static").rglob("*.js"))
    assert {path.name for path in (ROOT / "book" / "_static").rglob("*.css")} == {"book.css", "print.css"}
    pages = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    loading = {page.name for page in pages if "../playground/" in page.read_text(encoding="utf-8")}
    assert loading == {"playground.md", "item_map.md"}


# --- the map --------------------------------------------------------------------------------------------------------


def test_map_is_of_the_vectors(content, data):
    from sklearn.manifold import trustworthiness
    from sklearn.metrics import adjusted_rand_score

    drawn = playground.read(playground.FOLDER / "item_map_data.js")
    for name in ("titles", "genres", "genre_names"):
        assert np.array_equal(drawn[name], content[name])
    vectors = data["vectors"]
    units = data["units"]
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    found = np.take_along_axis(cosines, drawn["near"].astype(int), axis=1)
    np.testing.assert_allclose(found, -np.sort(-cosines, axis=1)[:, : playground.NEAR], atol=1e-9)
    assert adjusted_rand_score(playground.groups_of(vectors), drawn["groups"]) > 0.9
    points = drawn["points"].astype(float)
    assert trustworthiness(units, points, n_neighbors=10) > 0.8
    shuffled = np.random.default_rng(0).permutation(points)  # the canary of the line above
    assert trustworthiness(units, shuffled, n_neighbors=10) < 0.6


# --- the script -----------------------------------------------------------------------------------------------------


@pytest.fixture
def open_at(browser, site):
    """Opens a page of the site from disk, and fails for every error in the console and request to a host at the end."""
    faults, contexts = [], []

    def open_at(name: str, fragment: str = "", folder: Path = site, width: int = LARGE, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("file:") else faults.append(request.url))
        page.goto((folder / "book" / f"{name}.html").as_uri() + fragment)
        if options.get("java_script_enabled", True):
            page.wait_for_selector(FIELD)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert faults == []


# For each model of a profile: every score, the top ten, and who speaks for its films.
ANSWERS = """profiles => {
    const encoded = values => {
        const bytes = new Uint8Array(Float32Array.from(values).buffer);
        let text = '';
        for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
        return btoa(text);
    };
    globalThis.ready ??= Playground.prepare(PLAYGROUND);
    return profiles.map(({liked, penalty, diversity, genres}) => PLAYGROUND.models.map(({id}) => {
        const rows = Playground.parts(ready, id, liked);
        const scores = Playground.total(rows);
        const values = Playground.adjusted(ready, scores, liked, penalty, genres);
        const codes = Playground.rank(ready, values, diversity);
        const parts = codes.map(code => rows.map(row => row[code]));
        const why = codes.map(code => Playground.reasons(rows, code));
        return {scores: encoded(scores), values: encoded(values), codes, parts, why};
    }));
}"""


def numbers(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(float)


def unlike(data: dict, profile: dict, answers: list[dict]) -> list[str]:
    """Where the script's answers to a profile are not Python's."""
    faults = []
    for model, answer in zip(playground.MODELS, answers, strict=True):
        rows = playground.parts(data, model, profile["liked"])
        scores = rows.sum(axis=0)
        values = playground.adjusted(data, scores, profile["liked"], profile["penalty"], profile["genres"])
        codes = playground.rank(data, values, profile["diversity"])
        theirs = numbers(answer["values"])
        free = np.isfinite(values)
        if np.abs(numbers(answer["scores"]) - scores).max() > 1e-4:
            faults.append(f"{model}: scores")
        if not np.array_equal(free, np.isfinite(theirs)) or np.abs(theirs[free] - values[free]).max() > 1e-4:
            faults.append(f"{model}: adjusted scores")
        if answer["codes"] != codes:
            faults.append(f"{model}: top ten")
        elif np.abs(np.array(answer["parts"]).T - rows[:, codes]).max() > 1e-4:
            faults.append(f"{model}: parts")
        for shares, code in zip(answer["why"], answer["codes"]):
            said = {place: share for place, share in shares}
            positive = np.maximum(rows[:, code], 0)
            right = {place - 1: part / positive.sum() for place, part in enumerate(positive) if part > 0}
            if said != pytest.approx(right, abs=1e-4) or list(said.values()) != sorted(said.values(), reverse=True):
                faults.append(f"{model}: reasons")
    return faults


@pytest.fixture(scope="module")
def answers(browser, site):
    """A profile, and what the script says to it."""
    profile = {"liked": [0, 100, 181, 401], "penalty": 0.3, "diversity": 0.5, "genres": {"Action": 0.5}}
    page = browser.new_page()
    page.goto((site / "book" / "playground.html").as_uri())
    found = page.evaluate(ANSWERS, [profile])
    page.close()
    return profile, found


def test_script_scores_as_python_does(open_at, data, profiles):
    page = open_at("playground")
    for start in range(0, len(profiles), 20):
        chunk = profiles[start : start + 20]
        for profile, answers in zip(chunk, page.evaluate(ANSWERS, chunk), strict=True):
            assert unlike(data, profile, answers) == [], profile


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("popularity", lambda values: values + 0.001, "popularity: scores"),
        ("knn_least", lambda values: values + 1, "item_knn: scores"),
        ("ease_diagonal", lambda values: values * 1.01, "ease: scores"),
        ("ials_mean_weight", lambda value: value * 2, "ials: scores"),
        ("tower_mean_weight", lambda value: value * 2, "two_tower: scores"),
        ("genres", lambda bits: bits ^ 1, "ease: adjusted scores"),
        ("tower_vectors", lambda rows: rows[::-1], "ease: top ten"),
    ],
)
def test_canary_of_the_scores(answers, content, name, change, fault):
    """Numbers that are not the page's are noticed, model by model."""
    profile, [found] = answers
    assert fault in unlike(playground.prepare(content | {name: change(content[name])}), profile, found)


# --- the pages, as somebody meets them ------------------------------------------------------------------------------


def violations(page) -> list[str]:
    """What axe-core finds."""
    sync_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core to run")
    # Its own requests for style sheets would fail from disk.
    found = sync_playwright.Axe().run(page, ".bd-article", {"preload": False}).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def texts(page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


@pytest.mark.parametrize(("width", "theme"), [(SMALL, "dark"), (LARGE, "light")])
def test_pages_open_from_disk(site, browser, width, theme):
    pages = [site / "book" / "playground.html", site / "book" / "item_map.html"]
    assert open_pages(browser, pages, width, theme) == []


@pytest.mark.parametrize(("width", "theme"), [(SMALL, "dark"), (LARGE, "light")])
def test_axe_finds_nothing_in_a_page_in_use(open_at, width, theme):
    fragment = f"#films={ALIEN},{BLADE_RUNNER},{MATRIX}&genres=Horror:0.5&penalty=0.2&unknown=1"
    page = open_at("playground", fragment, width=width, color_scheme=theme, reduced_motion="reduce")
    page.locator(FIELD).fill("star")
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("option").count() == 8
    assert violations(page) == []
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    page = open_at("item_map", width=width, color_scheme=theme)
    page.locator(FIELD).fill("alien")
    page.keyboard.press("Enter")
    page.locator(FIELD).fill("alien")
    assert violations(page) == []
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_canary_of_axe(open_at):
    page = open_at("playground")
    page.evaluate("document.querySelector('[role=combobox]').removeAttribute('aria-expanded')")
    page.evaluate("document.querySelector('.pg-status').style.color = '#bbb'")
    assert sorted({fault.partition(":")[0] for fault in violations(page)}) == ["aria-required-attr", "color-contrast"]


def test_keyboard_alone(open_at, data):
    page = open_at("playground")
    focused = "document.activeElement"
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate(f"{focused}.getAttribute('role')") == "combobox":
            break
    ring = page.evaluate(f"(style => [style.outlineStyle, style.outlineWidth])(getComputedStyle({focused}))")
    assert ring == ["solid", "3px"]
    page.keyboard.type("alien 1979")
    page.keyboard.press("ArrowDown")
    active = page.evaluate(f"{focused}.getAttribute('aria-activedescendant')")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    page.keyboard.press("Enter")
    assert texts(page, ".pg-chips bdi") == ["Alien (1979)"]
    assert "You like 1 film." in page.locator(".pg-status").inner_text()
    page.keyboard.type("blade r")
    page.keyboard.press("Escape")
    assert page.get_by_role("option").count() == 0
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert texts(page, ".pg-chips bdi") == ["Alien (1979)", "Blade Runner (1982)"]
    assert [page.locator(".pg-lists section ol").nth(i).locator("li").count() for i in range(5)] == [10] * 5
    page.keyboard.press("Tab")  # the first chip
    page.keyboard.press("Enter")
    assert texts(page, ".pg-chips bdi") == ["Blade Runner (1982)"]
    assert page.evaluate(f"{focused}.getAttribute('aria-label')") == "Remove Blade Runner (1982)"
    for _ in range(3):  # example, start again, popularity penalty
        page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("location.hash") == f"#films={BLADE_RUNNER}&penalty=0.3"
    before = texts(page, ".pg-lists section bdi")
    page.reload()
    page.wait_for_selector(".pg-chips bdi")
    assert texts(page, ".pg-lists section bdi") == before
    liked = [int(np.flatnonzero(data["item_ids"] == BLADE_RUNNER)[0])]
    values = playground.adjusted(data, playground.parts(data, "ease", liked).sum(axis=0), liked, 0.3, {})
    titles = [f"{data['titles'][code]} ({data['years'][code]})" for code in playground.rank(data, values, 0)]
    assert page.locator(".pg-lists section").nth(2).locator(".pg-film bdi").all_text_contents() == titles


def test_touch_and_lists(open_at):
    page = open_at("playground", width=SMALL, has_touch=True, is_mobile=True)
    assert texts(page, ".pg-lists section h3") == ["popularity", "item-kNN", "EASE", "iALS", "two towers"]
    assert page.get_by_text("Says nothing before you have picked a film.").count() == 3
    page.locator(FIELD).tap()
    page.locator(FIELD).press_sequentially("léon prof")  # accents do not matter
    page.get_by_role("option").first.tap()
    assert texts(page, ".pg-chips bdi")[0].startswith("Léon: The Professional")
    page.locator(".pg-like").nth(25).tap()
    assert len(texts(page, ".pg-chips bdi")) == 2
    shown = texts(page, ".pg-why")
    assert sum("because of" in line for line in shown) >= 30
    tops = page.locator(".pg-lists section h3").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().left)"
    )
    assert len(set(tops)) == 1  # one under the other
    page.get_by_role("button", name="Start again").tap()
    assert page.evaluate("location.hash") == "#films="


@pytest.mark.parametrize(
    ("fragment", "films", "faults"),
    [
        ("#films=", [], []),
        ("#what-it-is-not", [], []),
        ("#films=1214", ["Alien (1979)"], []),
        ("#films=1214,1214", ["Alien (1979)"], []),
        ("#films=1214,99999999,-1,1e3,0x10,constructor", ["Alien (1979)"], ["no film on this page"] * 5),
        ("#films=1214&penalty=NaN&diversity=7", ["Alien (1979)"], ["from 0 to 2", "from 0 to 1"]),
        ("#genres=Horror:1,__proto__:1,Comedy:x,Drama", [], ["no such genre", "from -1 to 1", "from -1 to 1"]),
        ("#films=1214&<img src=x onerror=alert(1)>=1", ["Alien (1979)"], ["expected films, genres"]),
        ("#__proto__=1&constructor=2", [], ["expected films, genres", "expected films, genres"]),
        ("#films=%E0%A4%A&%%%=%", [], ["no film on this page", "expected films, genres"]),
        (f"#films={','.join(str(n) for n in range(1, 200))}", None, None),
    ],
)
def test_hostile_addresses(open_at, fragment, films, faults):
    page = open_at("playground", fragment)
    shown, said = texts(page, ".pg-chips bdi"), texts(page, ".pg-faults p")
    if films is None:
        assert len(shown) == 30
        assert any("at most 30 films" in line for line in said)
        return
    assert shown == films
    assert len(said) == len(faults)
    assert all(fault in line for fault, line in zip(faults, said))
    assert page.locator(".pg-lists section ol").count() >= 2
    assert page.locator("#pg-root img").count() == 0
    assert page.evaluate("({}).polluted === undefined && Object.keys(Object.prototype).length === 0")


def test_address_that_changes_is_followed(open_at):
    page = open_at("playground", f"#films={ALIEN}")
    page.evaluate(f"location.hash = '#films={MATRIX}&diversity=0.5'")
    page.wait_for_function("document.querySelector('.pg-chips bdi').textContent.startsWith('Matrix')")
    page.get_by_role("link", name="What it is not").first.click()  # a heading leaves the films alone
    assert texts(page, ".pg-chips bdi") == ["Matrix, The (1999)"]


def test_hostile_titles_are_text(open_at, site, content, tmp_path):
    shutil.copytree(site, tmp_path / "site")
    drawn = playground.read(playground.FOLDER / "item_map_data.js")
    for name, constant, what in (("playground", "PLAYGROUND", content), ("item_map", "ITEM_MAP", drawn)):
        titles = [*HOSTILE, *what["titles"][len(HOSTILE) :]]
        path = tmp_path / "site" / "playground" / f"{name}_data.js"
        playground.write(path, constant, what | {"titles": titles})
        assert playground.read(path)["titles"] == titles
        assert "</script" not in path.read_text(encoding="utf-8")
    ids = ",".join(str(content["item_ids"][code]) for code in range(len(HOSTILE)))
    for name in ("playground", "item_map"):
        page = open_at(name, folder=tmp_path / "site")
        for word in ("onerror", "script", "onmouseover", "backwards"):
            page.locator(FIELD).fill(word)
            option = page.get_by_role("option").first
            title = option.text_content()
            assert any(title.startswith(each) for each in HOSTILE)
            option.click()
        page.wait_for_timeout(100)
        assert page.evaluate("document.body.dataset.owned") is None
        assert page.locator(".pg-root :is(img, script, mjx-container)").count() == 0
    page = open_at("playground", f"#films={ids}", folder=tmp_path / "site")
    chips = page.locator(".pg-chips bdi").all_text_contents()
    assert [chip.rpartition(" (")[0] for chip in chips] == HOSTILE


def test_pages_without_javascript_say_so(open_at):
    page = open_at("playground", java_script_enabled=False)
    assert "switch JavaScript on" in page.locator("#pg-root").inner_text()
    page = open_at("item_map", java_script_enabled=False)
    assert page.locator("img[alt^='A map of the films']").is_visible()


def test_map_answers_to_keyboard_pointer_and_search(open_at, data):
    page = open_at("item_map")
    assert page.locator("img[alt^='A map of the films']").count() == 0
    assert page.locator(".pg-legend li").count() == playground.GROUPS
    plain = page.evaluate("document.querySelector('canvas').toDataURL()")
    page.locator(FIELD).fill("toy story")
    page.keyboard.press("Enter")
    assert "Toy Story (1995): Adventure, Animation" in page.locator(".pg-root").inner_text()
    assert page.locator(".pg-near button").count() == playground.NEAR
    canvas = page.locator("canvas")
    box = canvas.bounding_box()
    centre = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*centre)  # the chosen film is in the middle
    assert page.locator(".pg-tip").inner_text().startswith("Toy Story (1995)")
    page.wait_for_function("before => document.querySelector('canvas').toDataURL() !== before", arg=plain)
    canvas.focus()
    views = [page.evaluate("document.querySelector('canvas').toDataURL()")]
    for action in (
        lambda: page.keyboard.press("ArrowRight"), lambda: page.keyboard.press("+"), lambda: page.mouse.wheel(0, 300),
        lambda: page.keyboard.press("0"), lambda: page.select_option("#map-colours", "Horror"),
    ):  # fmt: skip
        action()
        page.wait_for_function("before => document.querySelector('canvas').toDataURL() !== before", arg=views[-1])
        views.append(page.evaluate("document.querySelector('canvas').toDataURL()"))
    assert texts(page, ".pg-legend li") == ["Horror"]
    page.mouse.move(*centre)
    page.mouse.down()
    page.mouse.move(centre[0] + 80, centre[1], steps=4)
    page.mouse.up()
    page.wait_for_function("before => document.querySelector('canvas').toDataURL() !== before", arg=views[-1])
    neighbour = page.locator(".pg-near button").first
    title = neighbour.inner_text()
    neighbour.focus()
    page.keyboard.press("Enter")
    assert title in page.locator("strong").inner_text()
    near = page.evaluate("ItemMap.prepare(ITEM_MAP).near.length")
    assert near == len(data["titles"]) * playground.NEAR
