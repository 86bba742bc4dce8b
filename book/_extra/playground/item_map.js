// The item map: films as dots, by t-SNE of their two-tower vectors. Its numbers are the constant ITEM_MAP, pieces of the
// page come from playground.js.
"use strict";
const ItemMap = (() => {
  const { unpackAll, element, combobox, film, titleOf, genresOf } = Playground;
  const LARGEST = 40; // times the whole map
  const REACH = 14; // pixels from the pointer to a film
  const PALETTES = {
    light: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b87a00", "#3d9bd6", "#7b4b94", "#8c6d31"],
    dark: ["#4aa3df", "#ff8a3d", "#2bc79a", "#e39ac4", "#f0b429", "#9ad2f5", "#bb8fd6", "#c9a35f"],
  };
  const GREY = { light: "#c4cacd", dark: "#4a5459" };
  const SHOWN_GENRES = ["Documentary", "Animation", "Horror", "Sci-Fi", "Musical", "Crime", "Romance", "Comedy"];

  // The films nearest to a place on the map, nearest first.
  function closest(data, x, y, k, without = -1) {
    const far = (code) => (data.x[code] - x) ** 2 + (data.y[code] - y) ** 2;
    const codes = Array.from(data.titles.keys()).filter((code) => code !== without);
    return codes.sort((a, b) => far(a) - far(b) || a - b).slice(0, k);
  }

  // How a film is coloured: {of(code) -> place in the palette or -1, names: what each colour stands for}.
  function colouring(data, by) {
    if (by === "groups") {
      const known = Array.from(data.titles.keys()).sort((a, b) => data.counts[b] - data.counts[a]);
      const names = PALETTES.light.map((_, group) => known.filter((code) => data.groups[code] === group).slice(0, 3));
      return { of: (code) => data.groups[code], names: names.map((codes) => codes.flatMap((code, i) => [i ? " · " : "", film(data, code)])) };
    }
    const genres = by === "genres" ? SHOWN_GENRES : [by];
    const of = (code) => genres.findIndex((genre) => genresOf(data, code).includes(genre));
    return { of, names: genres.map((genre) => [genre]) };
  }

  function prepare(content) {
    const data = unpackAll(content);
    data.n = data.titles.length;
    // Into a square from 0 to 1, in the middle of it.
    const side = data.points.reduce((a, b) => Math.max(a, b));
    const axis = (which) => {
      const values = Array.from({ length: data.n }, (_, code) => data.points[2 * code + which] / side);
      const room = 1 - values.reduce((a, b) => Math.max(a, b));
      return values.map((value) => value + room / 2);
    };
    data.x = axis(0);
    data.y = axis(1);
    return data;
  }

  function start(root, content) {
    const data = prepare(content);
    const byFame = Array.from(data.titles.keys()).sort((a, b) => data.counts[b] - data.counts[a]);
    const view = { x: 0.5, y: 0.5, zoom: 1 };
    let chosen = -1;
    let hovered = -1;
    let colours = colouring(data, "groups");
    let places; // of the films, as places in the palette

    const canvas = element("canvas", {
      tabindex: "0", role: "application", "aria-roledescription": "map", "aria-describedby": "map-help",
      "aria-label": `Map of ${data.n} films. Arrow keys move it, plus and minus zoom, 0 shows all of it.`,
    });
    const tip = element("div", { class: "pg-tip", hidden: "" });
    const legend = element("ul", { class: "pg-legend", "aria-label": "What the colours stand for" });
    const panel = element("div", { role: "status" });
    const near = element("ul", { class: "pg-near", "aria-label": "Nearest films by vector" });
    const brush = canvas.getContext("2d");
    const theme = () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");

    const size = () => Math.min(canvas.clientWidth, canvas.clientHeight) * 0.94 * view.zoom;
    const toScreen = (code) => [
      canvas.clientWidth / 2 + (data.x[code] - view.x) * size(),
      canvas.clientHeight / 2 + (data.y[code] - view.y) * size(),
    ];
    const toMap = (left, top) => [
      view.x + (left - canvas.clientWidth / 2) / size(),
      view.y + (top - canvas.clientHeight / 2) / size(),
    ];

    let asked = false;
    function draw() {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        paint();
      });
    }

    function paint() {
      const [width, height, ratio] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio];
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      brush.scale(ratio, ratio);
      const palette = PALETTES[theme()];
      const style = getComputedStyle(root);
      const [ink, paper] = [style.color, style.getPropertyValue("--pst-color-background").trim() || "#fff"];
      const radius = Math.min(1.4 + 0.5 * Math.log2(view.zoom + 1), 5);
      const dot = (code, by, colour) => {
        const [left, top] = toScreen(code);
        if (left < -9 || top < -9 || left > width + 9 || top > height + 9) return;
        brush.fillStyle = colour;
        brush.beginPath();
        brush.arc(left, top, by * (0.7 + data.counts[code] / 250), 0, 7);
        brush.fill();
      };
      for (const code of byFame) if (places[code] < 0) dot(code, radius, GREY[theme()]);
      for (const code of byFame) if (places[code] >= 0) dot(code, radius, palette[places[code]]);
      if (chosen >= 0) {
        brush.strokeStyle = ink;
        for (const code of data.near.subarray(chosen * data.k, (chosen + 1) * data.k)) {
          brush.beginPath();
          brush.moveTo(...toScreen(chosen));
          brush.lineTo(...toScreen(code));
          brush.stroke();
        }
        dot(chosen, radius * 2, ink);
      }
      // Names of the best known films in sight, where no other name stands.
      brush.font = "12px sans-serif";
      const taken = [];
      const named = chosen >= 0 ? [chosen, ...data.near.subarray(chosen * data.k, (chosen + 1) * data.k), ...byFame] : byFame;
      for (const code of named) {
        const [left, top] = toScreen(code);
        if (left < 0 || top < 12 || left > width || top > height || taken.length >= 14) continue;
        const text = data.titles[code].split(" (")[0];
        const wide = brush.measureText(text).width;
        const start = Math.min(left + 6, width - wide - 4);
        if (taken.some(([x, y, w]) => Math.abs(y - top) < 16 && start < x + w && x < start + wide)) continue;
        taken.push([start, top, wide]);
        brush.lineWidth = 3;
        brush.strokeStyle = paper;
        brush.strokeText(text, start, top + 4);
        brush.lineWidth = 1;
        brush.fillStyle = ink;
        brush.fillText(text, start, top + 4);
      }
    }

    function zoomBy(factor, left = canvas.clientWidth / 2, top = canvas.clientHeight / 2) {
      const [x, y] = toMap(left, top);
      view.zoom = Math.min(Math.max(view.zoom * factor, 1), LARGEST);
      const [nowX, nowY] = toMap(left, top);
      moveBy(x - nowX, y - nowY);
    }

    function moveBy(x, y) {
      view.x = Math.min(Math.max(view.x + x, 0), 1);
      view.y = Math.min(Math.max(view.y + y, 0), 1);
      tip.hidden = true;
      draw();
    }

    function showAll() {
      Object.assign(view, { x: 0.5, y: 0.5, zoom: 1 });
      moveBy(0, 0);
    }

    function choose(code) {
      chosen = code;
      Object.assign(view, { x: data.x[code], y: data.y[code], zoom: Math.max(view.zoom, 6) });
      const codes = Array.from(data.near.subarray(code * data.k, (code + 1) * data.k));
      const onMap = closest(data, data.x[code], data.y[code], data.k, code);
      const kept = codes.filter((other) => onMap.includes(other)).length;
      panel.replaceChildren(element("p", {}, element("strong", {}, film(data, code)),
        `: ${genresOf(data, code).join(", ")}; ${data.counts[code]} ratings. Lines lead to the ${data.k} nearest films by vector; `
        + `${kept} of them ${kept === 1 ? "is" : "are"} among its ${data.k} nearest on the map.`));
      near.replaceChildren(...codes.map((other) => element("li", {},
        element("button", { type: "button", click: () => choose(other) }, film(data, other)))));
      if (root.contains(document.activeElement) && near.contains(document.activeElement)) near.querySelector("button").focus();
      tip.hidden = true;
      draw();
    }

    // The film under the pointer, -1 for none.
    function under(left, top) {
      let [best, least] = [-1, REACH];
      for (let code = 0; code < data.n; code++) {
        const [x, y] = toScreen(code);
        const away = Math.hypot(x - left, y - top);
        if (away < least) [best, least] = [code, away];
      }
      return best;
    }

    function showTip(code, left, top) {
      hovered = code;
      tip.hidden = code < 0;
      if (code < 0) return;
      tip.replaceChildren(film(data, code), element("br"), genresOf(data, code).join(", "));
      tip.style.left = `${Math.max(Math.min(left + 12, canvas.clientWidth - tip.offsetWidth), 0)}px`;
      tip.style.top = `${top + 16}px`;
    }

    function colourBy(by) {
      colours = colouring(data, by);
      places = Array.from(data.titles.keys(), colours.of);
      drawLegend();
      draw();
    }

    function drawLegend() {
      legend.replaceChildren(...colours.names.map((name, place) => {
        const row = element("li", {}, element("span", {}, ...name));
        row.style.setProperty("--pg-colour", PALETTES[theme()][place]);
        return row;
      }));
    }

    // One pointer drags, two pinch; a tap chooses.
    const pointers = new Map();
    let travelled = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      if (pointers.size === 1) travelled = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = [event.offsetX, event.offsetY];
      const before = pointers.get(event.pointerId);
      if (!before) return showTip(under(...now), ...now);
      const others = Array.from(pointers).filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      pointers.set(event.pointerId, now);
      travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
      if (others.length) {
        const apart = (place) => Math.max(Math.hypot(place[0] - others[0][0], place[1] - others[0][1]), 1);
        zoomBy(apart(now) / apart(before), (now[0] + others[0][0]) / 2, (now[1] + others[0][1]) / 2);
      } else if (travelled > 4) {
        moveBy((before[0] - now[0]) / size(), (before[1] - now[1]) / size());
      }
    });
    const release = (event) => {
      if (!pointers.delete(event.pointerId) || pointers.size || travelled > 4 || event.type !== "pointerup") return;
      const code = under(event.offsetX, event.offsetY);
      if (code >= 0) choose(code);
    };
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, release);
    canvas.addEventListener("pointerleave", () => (tip.hidden = true));
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // the page scrolls on
      event.preventDefault();
      zoomBy(2 ** (-Math.max(-200, Math.min(event.deltaY, 200)) / 250), event.offsetX, event.offsetY);
    }, { passive: false });
    const step = () => 60 / size();
    const keys = {
      ArrowLeft: () => moveBy(-step(), 0), ArrowRight: () => moveBy(step(), 0), ArrowUp: () => moveBy(0, -step()),
      ArrowDown: () => moveBy(0, step()), "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: showAll,
    };
    canvas.addEventListener("keydown", (event) => {
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });

    const choice = element("select", { id: "map-colours", change: () => colourBy(choice.value) },
      element("option", { value: "groups" }, "groups found in the vectors"),
      element("option", { value: "genres" }, "genres"),
      ...data.genre_names.map((genre) => element("option", { value: genre }, `${genre} only`)));
    const button = (label, name, click) => element("button", { type: "button", "aria-label": name, title: name, click }, label);
    root.replaceChildren(
      element("div", { class: "pg-tools" },
        combobox(data, "Find a film", choose),
        element("div", { class: "pg-field" }, element("label", { for: "map-colours" }, "Colour by"), choice),
        element("div", { class: "pg-zoom" }, button("+", "Zoom in", () => zoomBy(1.5)), button("−", "Zoom out", () => zoomBy(1 / 1.5)),
          button("⤢", "Show all films", showAll))),
      element("div", { class: "pg-map" }, canvas, tip),
      element("p", { id: "map-help", class: "pg-why" },
        "Drag to move; click a film to see its neighbours. The wheel zooms once you have clicked the map."),
      panel, near, legend,
    );
    data.k = data.near.length / data.n;
    colourBy("groups");
    new ResizeObserver(draw).observe(canvas);
    new MutationObserver(() => {
      drawLegend();
      draw();
    }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    document.getElementById("item-map-figure")?.remove();
    return { data, view, choose, under, hovered: () => hovered };
  }

  return { closest, colouring, prepare, start };
})();

addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("map-root");
  if (root) requestAnimationFrame(() => setTimeout(() => ItemMap.start(root, ITEM_MAP)));
});
