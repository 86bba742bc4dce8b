// The playground: five models score films for whoever reads the page, in the page. Its numbers are the constant PLAYGROUND.
// The scorer has functions of the same names as tools/playground.py, which say more; a test compares the two.
// Titles are other people's text: they reach the page as text nodes only.
"use strict";
const Playground = (() => {
  const POOL = 100; // how many of the best films are re-ranked
  const MOST_LIKED = 30;
  const ARRAYS = { Int8: Int8Array, Uint8: Uint8Array, Uint16: Uint16Array, Int32: Int32Array, Float32: Float32Array };

  // --- the scorer: film codes in, numbers out

  function unpack(packed) {
    const text = atob(packed.base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new ARRAYS[packed.type](bytes.buffer);
  }

  function unpackAll(content) {
    const entries = Object.entries(content).map(([name, value]) => [name, value.base64 === undefined ? value : unpack(value)]);
    return Object.fromEntries(entries);
  }

  function dot(a, b, startA = 0, startB = 0, n = b.length) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += a[startA + i] * b[startB + i];
    return sum;
  }

  // Lower triangle L of A = L L', in place; A is (n, n), by rows.
  function cholesky(A, n) {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < i; j++) A[i * n + j] = (A[i * n + j] - dot(A, A, i * n, j * n, j)) / A[j * n + j];
      A[i * n + i] = Math.sqrt(A[i * n + i] - dot(A, A, i * n, i * n, i));
    }
    return A;
  }

  // x of L L' x = b.
  function solve(L, n, b) {
    const x = Float64Array.from(b);
    for (let i = 0; i < n; i++) x[i] = (x[i] - dot(L, x, i * n, 0, i)) / L[i * n + i];
    for (let i = n - 1; i >= 0; i--) {
      x[i] /= L[i * n + i];
      for (let k = 0; k < i; k++) x[k] -= L[i * n + k] * x[i];
    }
    return x;
  }

  function rowsTimesSteps(rows, steps) {
    const d = rows.length / steps.length;
    return Float64Array.from(rows, (value, i) => value * steps[Math.floor(i / d)]);
  }

  function prepare(content) {
    const data = unpackAll(content);
    const n = data.titles.length;
    data.n = n;
    data.settings = Object.fromEntries(data.models.map((model) => [model.id, model.settings]));
    data.codes = new Map(Array.from(data.item_ids, (id, code) => [id, code]));
    data.starts = new Int32Array(n + 1); // the people who met film i: people[starts[i]] to people[starts[i + 1] - 1]
    for (let i = 0; i < n; i++) data.starts[i + 1] = data.starts[i] + data.counts[i];
    data.people = new Uint16Array(data.starts[n]);
    for (let i = 0, byte = 0; i < n; i++) {
      for (let place = data.starts[i], person = -1; place < data.starts[i + 1]; place++) {
        for (; data.met[byte] === 255; byte++) person += 255;
        person += data.met[byte++];
        data.people[place] = person;
      }
    }
    const m = data.n_people;
    const K = new Float64Array(m * m); // X X' + λ I
    for (let i = 0; i < n; i++) {
      for (let a = data.starts[i]; a < data.starts[i + 1]; a++) {
        for (let b = data.starts[i]; b <= a; b++) K[data.people[a] * m + data.people[b]]++;
      }
    }
    for (let person = 0; person < m; person++) K[person * m + person] += data.settings.ease.regularization;
    data.kernel = cholesky(K, m);
    data.factors = rowsTimesSteps(data.ials_factors, data.ials_steps);
    data.vectors = rowsTimesSteps(data.tower_vectors, data.tower_steps);
    const wide = data.vectors.length / n;
    const length = (_, i) => Math.sqrt(dot(data.vectors, data.vectors, i * wide, i * wide, wide));
    data.lengths = Float64Array.from({ length: n }, length);
    const d = data.factors.length / n;
    data.gram = new Float64Array(d * d);
    for (let i = 0; i < n; i++) addOuter(data.gram, data.factors, i, d, 1);
    return data;
  }

  // Adds weight times v v' to the lower triangle of A, where v is row i of V.
  function addOuter(A, V, i, d, weight) {
    for (let a = 0; a < d; a++) {
      const scaled = weight * V[i * d + a];
      for (let b = 0; b <= a; b++) A[a * d + b] += scaled * V[i * d + b];
    }
  }

  // For each film the sum of values over the people who met it.
  function overPeople(data, values) {
    const out = new Float64Array(data.n);
    for (let i = 0; i < data.n; i++) {
      for (let place = data.starts[i]; place < data.starts[i + 1]; place++) out[i] += values[data.people[place]];
    }
    return out;
  }

  function whoMet(data, code) {
    const out = new Float64Array(data.n_people);
    for (let place = data.starts[code]; place < data.starts[code + 1]; place++) out[data.people[place]] = 1;
    return out;
  }

  // Inner products of the rows of V with v.
  function times(V, v) {
    const out = new Float64Array(V.length / v.length);
    for (let i = 0; i < out.length; i++) out[i] = dot(V, v, i * v.length);
    return out;
  }

  function knnPart(data, liked) {
    const shrinkage = data.settings.item_knn.shrinkage;
    const norm = Math.sqrt(data.counts[liked]);
    return overPeople(data, whoMet(data, liked)).map((together, i) => {
      const similarity = together / (norm * Math.sqrt(data.counts[i]) + shrinkage);
      return i !== liked && similarity >= data.knn_least[i] * (1 - 3e-7) ? similarity : 0;
    });
  }

  function easePart(data, liked) {
    const penalty = data.settings.ease.regularization;
    const solved = solve(data.kernel, data.n_people, whoMet(data, liked));
    const sums = overPeople(data, solved);
    return sums.map((sum, i) => (i === liked ? 0 : sum / (penalty * data.ease_diagonal[i])));
  }

  function ialsParts(data, liked) {
    const { alpha, regularization, frequency } = data.settings.ials;
    const d = data.factors.length / data.n;
    const weight = (alpha - 1) * liked.length + data.n;
    const penalty = regularization * (weight / data.ials_mean_weight) ** frequency;
    const A = Float64Array.from(data.gram);
    for (const code of liked) addOuter(A, data.factors, code, d, alpha - 1);
    for (let a = 0; a < d; a++) A[a * d + a] += penalty;
    cholesky(A, d);
    return liked.map((code) => {
      const user = solve(A, d, data.factors.subarray(code * d, (code + 1) * d)).map((value) => alpha * value);
      return times(data.factors, user);
    });
  }

  function towerParts(data, liked) {
    const d = data.vectors.length / data.n;
    const likes = liked.map((code) => data.vectors.subarray(code * d, (code + 1) * d));
    const sum = (rows) => rows.reduce((total, row) => total.map((value, a) => value + row[a]), new Float64Array(d));
    const length = (v) => Math.max(Math.sqrt(dot(v, v)), 1e-12);
    const scale = length(sum(likes));
    const mean = Float64Array.from(data.tower_mean_user, (value) => data.tower_mean_weight * value);
    const pieces = [mean, ...likes.map((row) => row.map((value) => value / scale))];
    const whole = length(sum(pieces));
    return pieces.map((piece) => times(data.vectors, piece.map((value) => value / whole)));
  }

  // What speaks for each film: first what does not depend on the liked films, then each of them.
  function parts(data, model, liked) {
    const nothing = new Float64Array(data.n);
    if (model === "popularity") return [Float64Array.from(data.popularity), ...liked.map(() => nothing)];
    if (model === "two_tower") return towerParts(data, liked);
    if (model === "ials") return [nothing, ...ialsParts(data, liked)];
    return [nothing, ...liked.map((code) => (model === "ease" ? easePart : knnPart)(data, code))];
  }

  function total(rows) {
    return rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0));
  }

  const rounded = (value) => Math.round(value * 1e9) / 1e9; // equals stay equal in every language

  function adjusted(data, scores, liked, penalty, genres) {
    const free = new Uint8Array(data.n).fill(1);
    for (const code of liked) free[code] = 0;
    const best = scores.filter((_, i) => free[i]).sort().reverse().subarray(0, POOL);
    const last = best[best.length - 1];
    const spread = best[0] - last;
    const mostKnown = Math.log1p(data.popularity.reduce((a, b) => Math.max(a, b)));
    const bits = Object.entries(genres).map(([genre, weight]) => [data.genre_names.indexOf(genre), weight]);
    return scores.map((score, i) => {
      if (!free[i]) return -Infinity;
      let value = spread > 0 ? (score - last) / spread : 0;
      value -= (penalty * Math.log1p(data.popularity[i])) / mostKnown;
      for (const [bit, weight] of bits) value += weight * ((data.genres[i] >> bit) & 1);
      return rounded(value);
    });
  }

  function rank(data, values, diversity, k = 10) {
    const d = data.vectors.length / data.n;
    const cosine = (a, b) => dot(data.vectors, data.vectors, a * d, b * d, d) / data.lengths[a] / data.lengths[b];
    const codes = Array.from(values.keys()).filter((code) => values[code] > -Infinity);
    const pool = codes.sort((a, b) => values[b] - values[a] || a - b).slice(0, POOL);
    const chosen = [];
    let nearest = pool.map(() => -Infinity);
    while (pool.length && chosen.length < k) {
      const gain = (code, place) =>
        rounded((1 - diversity) * values[code] - (chosen.length ? diversity * nearest[place] : 0));
      const gains = pool.map(gain);
      const place = gains.indexOf(gains.reduce((a, b) => Math.max(a, b)));
      const [code] = pool.splice(place, 1);
      nearest.splice(place, 1);
      chosen.push(code);
      nearest = nearest.map((near, i) => Math.max(near, cosine(pool[i], code)));
    }
    return chosen;
  }

  // The liked films that speak for a film, most first: [place in liked, or -1 for what does not depend on them, share].
  function reasons(rows, code) {
    const positive = rows.map((row) => Math.max(row[code], 0));
    const sum = positive.reduce((a, b) => a + b, 0);
    const shares = positive.map((value, place) => [place - 1, value / sum]).filter(([, share]) => share > 0);
    return shares.sort((a, b) => b[1] - a[1]);
  }

  // --- the profile in the address: #films=1,260&genres=Horror:0.5&penalty=0.4&diversity=0.2

  const RANGES = { penalty: [0, 2, 0.1], diversity: [0, 1, 0.05], genre: [-1, 1, 0.25] }; // least, most, step

  const emptyProfile = () => ({ liked: [], penalty: 0, diversity: 0, genres: {} });

  function writeFragment(data, profile) {
    const fields = [`films=${profile.liked.map((code) => data.item_ids[code]).join(",")}`];
    const genres = Object.entries(profile.genres).map(([genre, weight]) => `${genre}:${weight}`);
    if (genres.length) fields.push(`genres=${genres.join(",")}`);
    for (const name of ["penalty", "diversity"]) if (profile[name]) fields.push(`${name}=${profile[name]}`);
    return `#${fields.join("&")}`;
  }

  // A profile, and a sentence for each thing in the fragment that cannot be used; null where there is no profile in it.
  function readFragment(data, fragment) {
    const text = fragment.replace(/^#/, "");
    if (!text.includes("=")) return null; // a heading of the page
    const profile = emptyProfile();
    const faults = [];
    const fault = (what, expected) => faults.push(`“${what.slice(0, 40)}” in the address is left out: ${expected}.`);
    const number = (value, range, what) => {
      const [least, most] = RANGES[range];
      if (/^-?\d(\.\d{1,3})?$/.test(value) && least <= Number(value) && Number(value) <= most) return Number(value);
      fault(what, `expected a number from ${least} to ${most}`);
      return 0;
    };
    for (const [name, value] of new URLSearchParams(text)) {
      if (name === "films") {
        for (const id of value.split(",").filter((word) => word !== "")) {
          const code = /^\d{1,9}$/.test(id) ? data.codes.get(Number(id)) : undefined;
          if (code === undefined) fault(id, "no film on this page has this number");
          else if (profile.liked.length >= MOST_LIKED) fault(id, `at most ${MOST_LIKED} films`);
          else if (!profile.liked.includes(code)) profile.liked.push(code);
        }
      } else if (name === "genres") {
        for (const word of value.split(",").filter((each) => each !== "")) {
          const [genre, weight] = word.split(":");
          if (!data.genre_names.includes(genre)) fault(word, "there is no such genre");
          else if (number(weight ?? "", "genre", word)) profile.genres[genre] = Number(weight);
        }
      } else if (name === "penalty" || name === "diversity") {
        profile[name] = number(value, name, `${name}=${value}`);
      } else {
        fault(name, "expected films, genres, penalty or diversity");
      }
    }
    return { profile, faults };
  }

  // --- pieces of a page

  let lastId = 0;

  // An element with attributes and children; strings become text nodes. A function is the listener of an event.
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  const titleOf = (data, code) => data.titles[code] + (data.years[code] ? ` (${data.years[code]})` : "");
  const film = (data, code) => element("bdi", {}, titleOf(data, code));
  const genresOf = (data, code) => data.genre_names.filter((_, bit) => (data.genres[code] >> bit) & 1);

  const fold = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ");

  // Codes of the films whose titles have words that begin like each word of the query, the best known first.
  function search(data, query, most = 8) {
    data.folded ??= data.titles.map((_, code) => ` ${fold(titleOf(data, code))}`);
    const words = fold(query).split(" ").filter((word) => word !== "");
    if (!words.length) return [];
    const fits = (code) => words.every((word) => data.folded[code].includes(` ${word}`));
    return Array.from(data.folded.keys()).filter(fits).sort((a, b) => data.counts[b] - data.counts[a] || a - b).slice(0, most);
  }

  // A labelled field that offers films while somebody types (ARIA's combobox with a list); choose(code) takes one.
  function combobox(data, label, choose) {
    const id = `films-${++lastId}`;
    const list = element("ul", { id: `${id}-list`, role: "listbox", "aria-label": label, hidden: "" });
    const count = element("span", { class: "visually-hidden", role: "status" });
    let codes = [];
    let active = -1;
    const show = (found) => {
      codes = found;
      list.replaceChildren(...codes.map((code, place) => element(
        "li",
        { role: "option", id: `${id}-${place}`, "aria-selected": "false", click: () => take(place) },
        film(data, code),
      )));
      list.hidden = !codes.length;
      input.setAttribute("aria-expanded", String(codes.length > 0));
      move(-1);
    };
    const move = (place) => {
      active = place;
      Array.from(list.children).forEach((option, i) => option.setAttribute("aria-selected", String(i === active)));
      if (active < 0) return input.removeAttribute("aria-activedescendant");
      input.setAttribute("aria-activedescendant", `${id}-${active}`);
      list.children[active].scrollIntoView({ block: "nearest" });
    };
    const take = (place) => {
      const code = codes[place];
      input.value = "";
      count.textContent = "";
      show([]);
      choose(code);
    };
    const look = () => {
      show(search(data, input.value));
      const films = codes.length === 1 ? "film" : "films";
      count.textContent = input.value.trim() ? `${codes.length || "no"} ${films} to choose from` : "";
    };
    const keys = {
      ArrowDown: () => (codes.length ? move((active + 1) % codes.length) : look()),
      ArrowUp: () => codes.length && move((active <= 0 ? codes.length : active) - 1),
      Enter: () => codes.length && take(Math.max(active, 0)),
      Escape: () => (codes.length ? show([]) : (input.value = "")),
    };
    const input = element("input", {
      id, type: "text", role: "combobox", autocomplete: "off", autocapitalize: "off", spellcheck: "false",
      placeholder: "Type a title", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": `${id}-list`,
      input: look,
      blur: () => show([]),
      keydown: (event) => {
        if (!keys[event.key] || event.isComposing) return;
        event.preventDefault();
        keys[event.key]();
      },
    });
    list.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
    return element("div", { class: "pg-search" }, element("label", { for: id }, label), input, list, count);
  }

  function slider(label, range, value, change) {
    const id = `slider-${++lastId}`;
    const [min, max, step] = RANGES[range];
    const output = element("output", { for: id }, String(value));
    const input = element("input", { id, type: "range", min, max, step, value });
    const read = (event) => {
      output.textContent = input.value;
      change(Number(input.value), event.type === "change");
    };
    input.addEventListener("input", read);
    input.addEventListener("change", read);
    return element("div", { class: "pg-slider" }, element("label", { for: id }, label), input, output);
  }

  // --- the page

  const percent = (share) => `${Math.round(share * 100)}%`;

  // What five models say: [{model, codes, why}], where why are sentences; no codes where a model has nothing to say.
  function recommend(data, profile) {
    const liked = profile.liked.join();
    if (data.partsAreOf !== liked) Object.assign(data, { partsAreOf: liked, parts: {} }); // sliders ask again and again
    return data.models.map((model) => {
      if (!profile.liked.length && !["popularity", "two_tower"].includes(model.id)) return { model, codes: [], why: [] };
      const rows = (data.parts[model.id] ??= parts(data, model.id, profile.liked));
      const values = adjusted(data, total(rows), profile.liked, profile.penalty, profile.genres);
      const codes = rank(data, values, profile.diversity);
      return { model, codes, why: codes.map((code) => reasons(rows, code)) };
    });
  }

  function start(root, content) {
    const data = prepare(content);
    let profile = emptyProfile();
    const status = element("p", { role: "status", class: "pg-status" });
    const faultsBox = element("div", { role: "status", class: "pg-faults" });
    const chips = element("ul", { class: "pg-chips", "aria-label": "Films you like" });
    const controls = element("div", { class: "pg-sliders" });
    const lists = element("div", { class: "pg-lists" });

    const remember = () => history.replaceState(null, "", writeFragment(data, profile));

    const add = (code) => {
      if (profile.liked.includes(code)) return render(`${titleOf(data, code)} is in your list already.`);
      if (profile.liked.length >= MOST_LIKED) return render(`${MOST_LIKED} films are the most this page takes.`);
      profile.liked.push(code);
      remember();
      render(`Added ${titleOf(data, code)}.`);
    };

    const remove = (place) => {
      const [code] = profile.liked.splice(place, 1);
      remember();
      render(`Removed ${titleOf(data, code)}.`);
      const buttons = chips.querySelectorAll("button");
      (buttons[Math.min(place, buttons.length - 1)] ?? root.querySelector("[role=combobox]")).focus();
    };

    const set = (next, said) => {
      profile = next;
      remember();
      drawSliders();
      render(said);
    };

    const slide = (change) => (value, settled) => {
      change(value);
      if (settled) remember();
      render(settled ? "The lists have changed." : null);
    };

    function drawSliders() {
      const genres = data.genre_names.map((genre) => slider(genre, "genre", profile.genres[genre] ?? 0, slide((value) => {
        if (value) profile.genres[genre] = value;
        else delete profile.genres[genre];
      })));
      const open = controls.querySelector("details")?.open ?? false;
      const details = element("details", {}, element("summary", {}, "Genres: more or less of each"), ...genres);
      details.open = open || Object.keys(profile.genres).length > 0;
      controls.replaceChildren(
        slider("Popularity penalty", "penalty", profile.penalty, slide((value) => (profile.penalty = value))),
        slider("Diversity", "diversity", profile.diversity, slide((value) => (profile.diversity = value))),
        details,
      );
    }

    function chip(code, place) {
      const attributes = { type: "button", "aria-label": `Remove ${titleOf(data, code)}`, click: () => remove(place) };
      return element("li", {}, film(data, code), element("button", attributes, "×"));
    }

    function why(model, code, shares) {
      if (model.id === "popularity") return [`rated by ${data.counts[code]} people`];
      if (!shares.length) return ["nothing you like speaks for it; the sliders do"];
      const named = shares.slice(0, 4).flatMap(([place, share], i) => [
        i ? ", " : "",
        place < 0 ? "what people like in general" : film(data, profile.liked[place]),
        ` ${percent(share)}`,
      ]);
      const rest = shares.slice(4).reduce((sum, [, share]) => sum + share, 0);
      return ["because of ", ...named, ...(rest ? [`, ${shares.length - 4} more ${percent(rest)}`] : [])];
    }

    function list({ model, codes, why: shares }, number) {
      const heading = element("h3", { id: `pg-list-${number}` }, model.title);
      const rows = codes.map((code, place) => element(
        "li",
        {},
        element("div", { class: "pg-film" }, film(data, code), element("button", {
          type: "button", class: "pg-like", "data-place": `${number}-${place}`, title: "I like this one too",
          "aria-label": `I like ${titleOf(data, code)} too`, click: () => add(code),
        }, "+")),
        element("div", { class: "pg-why" }, ...why(model, code, shares[place])),
      ));
      const nothing = element("p", { class: "pg-why" }, "Says nothing before you have picked a film.");
      const body = rows.length ? element("ol", {}, ...rows) : nothing;
      const section = element("section", { "aria-labelledby": heading.id }, heading, body);
      section.style.setProperty("--pg-colour", model.colour);
      return section;
    }

    function summary(answers) {
      const counts = new Map();
      const spoken = answers.filter(({ codes }) => codes.length);
      for (const { codes } of spoken) for (const code of codes) counts.set(code, (counts.get(code) ?? 0) + 1);
      const shared = Array.from(counts.values()).filter((count) => count === spoken.length).length;
      const films = profile.liked.length === 1 ? "1 film" : `${profile.liked.length} films`;
      const lists = spoken.length === 1 ? "1 model names" : `${spoken.length} models name`;
      const both = spoken.length === 2 ? "in both lists" : "in every list";
      return `You like ${films}. ${lists} ${counts.size} different films; ${both}: ${shared}.`;
    }

    // said: what a screen reader should hear first; null while a slider moves, when nothing is to be heard.
    function render(said) {
      const place = document.activeElement?.dataset?.place;
      const answers = recommend(data, profile);
      chips.replaceChildren(...profile.liked.map(chip));
      lists.replaceChildren(...answers.map(list));
      if (said !== null) status.textContent = `${said} ${summary(answers)}`.trim();
      if (place) (lists.querySelector(`[data-place="${place}"]`) ?? root.querySelector("[role=combobox]")).focus();
    }

    function follow() {
      const read = readFragment(data, location.hash);
      if (read === null) return;
      profile = read.profile;
      faultsBox.replaceChildren(...read.faults.map((fault) => element("p", {}, fault)));
      drawSliders();
      render("");
    }

    const example = ["Alien (1979)", "Blade Runner (1982)", "Matrix, The (1999)"]
      .map((title) => data.titles.findIndex((_, code) => titleOf(data, code) === title)).filter((code) => code >= 0);
    root.replaceChildren(
      combobox(data, "Add a film you like", add),
      faultsBox,
      chips,
      element("div", { class: "pg-buttons" },
        element("button", { type: "button", click: () => set({ ...profile, liked: [...example] }, "Three films to start with.") },
          "Show me an example"),
        element("button", { type: "button", click: () => set(emptyProfile(), "Everything is cleared.") }, "Start again")),
      controls,
      status,
      lists,
    );
    drawSliders();
    render("");
    follow();
    addEventListener("hashchange", follow);
  }

  return {
    unpackAll, prepare, parts, total, adjusted, rank, reasons, recommend, readFragment, writeFragment, search, element,
    combobox, film, titleOf, genresOf, start,
  };
})();

addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("pg-root");
  // After the first paint: preparing the models takes a moment.
  if (root) requestAnimationFrame(() => setTimeout(() => Playground.start(root, PLAYGROUND)));
});
