"use strict";

// Dark and light: the system's choice until the reader makes one.
(() => {
  const root = document.documentElement, button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(dark()));
    button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    tell();
  });
  system.addEventListener("change", tell);
  tell();
})();

// Charts: of each group of panels, the one whose keys are all chosen.
for (const choice of document.querySelectorAll(".choice")) {
  const selects = [...choice.querySelectorAll("select")];
  const update = () => {
    for (const panel of choice.querySelectorAll(".panel")) {
      panel.hidden = !selects.every((select) => panel.dataset[select.dataset.key] === select.value);
    }
  };
  selects.forEach((select) => select.addEventListener("change", update));
  update();
}

// Gallery.
(() => {
  const source = document.getElementById("gallery-facts");
  if (!source) return;
  const facts = JSON.parse(source.textContent);
  const palette = Uint8Array.from(facts.palette.match(/../g), (pair) => parseInt(pair, 16));
  const get = (id) => document.getElementById(id);
  const PAGE = 60; // cards made at a time
  const FOUND = "#2de2f0", TRUTH = "#2fd07c", REPLACED = [79, 141, 255];

  // Every image knows where its pictures are: in its category's list, which is parsed when first looked at.
  const counted = facts.categories.map(() => 0);
  for (const image of facts.images) image.place = counted[image.category]++;
  const parsed = new Map();
  const pixelsOf = (image) => {
    if (!parsed.has(image.category)) {
      parsed.set(image.category, JSON.parse(get(`pixels-${image.category}`).textContent));
    }
    return parsed.get(image.category)[image.place];
  };

  // What the reader chose.
  const chosen = (id) => get(id).value;
  const method = () => Number(chosen("pick-method"));
  const run = (image) => facts.categories[image.category].runs[method()];
  const factor = () => 2 ** (Number(chosen("threshold")) / 10);
  const calibrated = (setting) => setting.pixel_threshold ?? setting.scale / 2;
  const limit = (image) => calibrated(run(image)) * factor();
  const errorOf = (image) => {
    const verdict = image.verdicts[method()];
    if (verdict.label === (image.defect !== "good")) return "correct";
    return verdict.label ? "alarm" : "missed";
  };
  const WORDS = { correct: "correct", alarm: "false alarm", missed: "missed" };
  const rank = (image) => image.verdicts[method()].score / (run(image).threshold ?? run(image).scale);
  const number = (value) => (value === 0 ? "0" : Number(value.toPrecision(3)).toString());

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function fill(select, pairs) {
    const before = select.value;
    select.replaceChildren(...pairs.map(([value, text]) => element("option", { value, textContent: text })));
    if (pairs.some(([value]) => value === before)) select.value = before;
    select.parentElement.hidden = pairs.length < 2;
  }

  function fillDefects() {
    const category = chosen("pick-category");
    const here = facts.images.filter((image) => category === "" || String(image.category) === category);
    const kinds = [...new Set(here.map((image) => image.defect))].sort();
    fill(get("pick-defect"), [["", "all"], ...kinds.map((kind) => [`=${kind}`, kind])]);
  }

  // Pixels of a picture: one byte each for grey ones, four for photos. A grey PNG comes back as it was written.
  async function decode(kind, data, channels) {
    const picture = new Image();
    picture.src = `data:image/${kind};base64,${data}`;
    await picture.decode();
    const { naturalWidth: width, naturalHeight: height } = picture;
    const context = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const { data: bytes } = context.getImageData(0, 0, width, height);
    if (channels === 4) return { width, height, bytes };
    const grey = new Uint8Array(width * height);
    for (let i = 0; i < grey.length; i++) grey[i] = bytes[4 * i];
    return { width, height, bytes: grey };
  }

  async function load(card) {
    const pixels = pixelsOf(card.image), index = method();
    const grey = (data) => (data ? decode("png", data, 1) : null);
    const [rgb, depth, map, truth, replaced] = await Promise.all([
      decode("jpeg", pixels.rgb, 4), grey(pixels.depth), grey(pixels.maps[index]),
      grey(pixels.truth), grey(pixels.replaced[index]),
    ]);
    return { rgb, depth, map, truth: truth?.bytes, replaced: replaced?.bytes };
  }

  // Lines at a level of a field, straight within each square of four pixels (marching squares).
  const SIDES = [[], [3, 0], [0, 1], [3, 1], [1, 2], [3, 0, 1, 2], [0, 2], [3, 2], [2, 3], [0, 2], [0, 1, 2, 3],
    [1, 2], [3, 1], [0, 1], [3, 0], []];
  function contour(field, width, height, level) {
    const path = new Path2D();
    for (let y = 0; y + 1 < height; y++) {
      for (let x = 0; x + 1 < width; x++) {
        const i = y * width + x, a = field[i], b = field[i + 1], c = field[i + width + 1], d = field[i + width];
        const sides = SIDES[(a > level) | ((b > level) << 1) | ((c > level) << 2) | ((d > level) << 3)];
        for (let k = 0; k < sides.length; k++) {
          const side = sides[k];
          const at = (from, to) => (level - from) / (to - from);
          const px = side === 0 ? x + at(a, b) : side === 1 ? x + 1 : side === 2 ? x + at(d, c) : x;
          const py = side === 0 ? y : side === 1 ? y + at(b, c) : side === 2 ? y + 1 : y + at(a, d);
          if (k % 2) path.lineTo(px, py); else path.moveTo(px, py);
        }
      }
    }
    return path;
  }

  function draw(card) {
    const { layers, image, canvas } = card, setting = run(image);
    const { width, height, bytes: levels } = layers.map;
    const opacity = Number(chosen("opacity")) / 100, onDepth = get("on-depth").checked;
    // Levels are 255·√(score / scale). Half the colour scale is the calibrated threshold, whatever the slider.
    const toScore = (level) => setting.scale * (level / 255) ** 2;
    const cut = limit(image), middle = calibrated(setting);
    const heat = Float32Array.from({ length: 256 }, (_, level) => Math.min(toScore(level) / (2 * middle || 1), 1));
    const cutLevel = 255 * Math.sqrt(Math.max(cut, 0) / setting.scale);
    const above = Uint8Array.from({ length: 256 }, (_, level) => level > cutLevel);
    const replaced = get("show-replaced").checked ? layers.replaced : null;
    const small = element("canvas", { width, height }), context = small.getContext("2d");
    const out = context.createImageData(width, height), to = out.data;
    let marked = 0, hit = 0, defect = 0;
    for (let i = 0; i < levels.length; i++) {
      const level = levels[i], share = heat[level], alpha = opacity * Math.min(0.9, 2.4 * share * share);
      const shade = 3 * Math.round(255 * share), at = 4 * i;
      let r, g, b;
      if (onDepth) {
        r = g = b = layers.depth.bytes[i];
      } else {
        const p = layers.rgb.bytes;
        const grey = 0.75 * (0.299 * p[at] + 0.587 * p[at + 1] + 0.114 * p[at + 2]);
        r = p[at] + opacity * (grey - p[at]);
        g = p[at + 1] + opacity * (grey - p[at + 1]);
        b = p[at + 2] + opacity * (grey - p[at + 2]);
      }
      r += alpha * (palette[shade] - r);
      g += alpha * (palette[shade + 1] - g);
      b += alpha * (palette[shade + 2] - b);
      if (replaced && replaced[i]) {
        const line = ((i % width) + Math.floor(i / width)) % 4 < 2 ? 0.75 : 0.3;
        r += line * (REPLACED[0] - r); g += line * (REPLACED[1] - g); b += line * (REPLACED[2] - b);
      }
      to[at] = r; to[at + 1] = g; to[at + 2] = b; to[at + 3] = 255;
      marked += above[level];
      if (layers.truth && layers.truth[i]) { defect++; hit += above[level]; }
    }
    context.putImageData(out, 0, 0);
    const side = Math.max(canvas.clientWidth, 1) * Math.min(devicePixelRatio, 2), scale = side / width;
    canvas.width = side;
    canvas.height = scale * height;
    const screen = canvas.getContext("2d");
    screen.imageSmoothingQuality = "high";
    screen.drawImage(small, 0, 0, canvas.width, canvas.height);
    screen.scale(scale, scale);
    screen.translate(0.5, 0.5); // pixels have their values at their centres
    const lines = [];
    if (get("show-truth").checked && layers.truth) lines.push([contour(layers.truth, width, height, 0.5), TRUTH]);
    if (get("show-found").checked) lines.push([contour(levels, width, height, cutLevel), FOUND]);
    screen.lineCap = "round";
    for (const [own, pixels] of [[false, 4.2], [true, 2]]) {
      screen.lineWidth = (pixels * side) / scale / canvas.clientWidth;
      for (const [path, colour] of lines) {
        screen.strokeStyle = own ? colour : "rgba(0,0,0,0.55)";
        screen.stroke(path);
      }
    }
    const share = (100 * marked) / levels.length;
    let text = `Above ${number(cut)}: ${share.toFixed(share < 1 ? 2 : 1)} % of the pixels`;
    if (defect) text += `, ${Math.round((100 * hit) / defect)} % of the defect`;
    card.live.textContent = `${text}.`;
    canvas.setAttribute("aria-label", `${image.name}: map over the ${onDepth ? "depth" : "photo"}. ${text}.`);
  }

  const visible = new Set();
  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      tellSliders();
      for (const card of visible) if (card.layers) draw(card);
    });
  }

  // Pictures are decoded when their card comes near the screen and let go when it leaves.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const card = entry.target.card;
      if (!entry.isIntersecting) {
        visible.delete(card);
        card.layers = null;
        continue;
      }
      visible.add(card);
      showStrip(card);
      load(card).then((layers) => {
        if (!visible.has(card)) return;
        card.layers = layers;
        draw(card);
        card.node.dataset.drawn = "true";
      });
    }
  }, { rootMargin: "400px" });

  function showStrip(card) {
    if (card.strip.childElementCount) return;
    const { image } = card, pixels = pixelsOf(image);
    const picture = (kind, data, alt) => element("img", { src: `data:image/${kind};base64,${data}`, alt });
    const blank = (text) => element("div", { className: "blank", textContent: text });
    const truth = pixels.truth
      ? picture("png", pixels.truth, `ground truth of ${image.name}: the defect is white`)
      : blank(image.truth === "unknown" ? "unknown" : "no defect");
    const tiles = [
      [picture("jpeg", pixels.rgb, `photo of ${image.name}`), "RGB"],
      [picture("png", pixels.depth, `depth of ${image.name}: near is bright, missing is black`), "depth"],
      [truth, "ground truth"],
    ];
    card.strip.append(
      ...tiles.map(([tile, name]) => element("figure", {}, tile, element("figcaption", { textContent: name }))),
    );
  }

  function makeCard(image) {
    const verdict = image.verdicts[method()], setting = run(image), error = errorOf(image);
    const canvas = element("canvas", { width: 1, height: 1 });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${image.name}: map`);
    const live = element("p"), strip = element("div", { className: "strip" });
    const where = `${facts.categories[image.category].name} · ${image.defect}`;
    const title = element("h3", { textContent: image.name }, element("span", { className: "where", textContent: where }));
    const tag = element("span", { className: `tag ${error}`, textContent: WORDS[error] });
    const score = element("p", {}, "Score ", element("b", { textContent: number(verdict.score) }));
    score.append(setting.threshold === null ? ", no threshold" : `, threshold ${number(setting.threshold)}`);
    score.append(verdict.label ? ": anomalous." : ": good.");
    const span = image.depth && image.depth.map((metres) => Math.round(1000 * metres));
    const depth = span ? ` Depth ${span[0]} to ${span[1]} mm.` : " No depth.";
    const replaced = `Replaced: ${(100 * verdict.replaced).toFixed(1)} % of the object.`;
    const shares = element("p", { textContent: replaced + depth });
    const button = element("button", { type: "button", textContent: "Enlarge" });
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", `Enlarge ${image.name}`);
    const node = element("article", { className: "card" },
      element("div", { className: "head" }, title, tag),
      element("div", { className: "views" }, element("div", { className: "stage" }, canvas), strip),
      element("div", { className: "foot" }, score, live, shares, button));
    const card = { image, node, canvas, live, strip, layers: null, large: false };
    node.card = card;
    button.addEventListener("click", () => {
      card.large = node.classList.toggle("large");
      button.textContent = card.large ? "Reduce" : "Enlarge";
      button.setAttribute("aria-expanded", String(card.large));
      if (card.layers) draw(card);
      node.scrollIntoView({ block: "nearest" });
    });
    watcher.observe(node);
    return node;
  }

  let listed = [];
  const cards = get("cards");
  const more = element("button", { type: "button", id: "more", textContent: "Show more" });
  cards.after(more);
  more.addEventListener("click", () => addCards());

  function addCards() {
    const from = cards.childElementCount;
    cards.append(...listed.slice(from, from + PAGE).map(makeCard));
    more.hidden = cards.childElementCount >= listed.length;
  }

  function list() {
    const category = chosen("pick-category"), defect = chosen("pick-defect"), verdict = chosen("pick-verdict");
    listed = facts.images.filter((image) =>
      image.verdicts[method()] !== null
      && (category === "" || String(image.category) === category)
      && (defect === "" || `=${image.defect}` === defect)
      && (verdict === "" || errorOf(image) === verdict));
    const sign = { high: -1, low: 1 }[chosen("pick-order")];
    const byName = (a, b) => a.category - b.category || a.name.localeCompare(b.name);
    listed.sort((a, b) => (sign ? sign * (rank(a) - rank(b)) : 0) || byName(a, b));
    watcher.disconnect();
    visible.clear();
    cards.replaceChildren();
    addCards();
    const wrong = { missed: 0, alarm: 0, correct: 0 };
    for (const image of listed) wrong[errorOf(image)]++;
    get("count").textContent =
      `${listed.length} of ${facts.images.length} images: ${wrong.missed} missed, ${wrong.alarm} false `
      + `alarm${wrong.alarm === 1 ? "" : "s"}, ${wrong.correct} correct.`;
    tellSliders();
  }

  function tellSliders() {
    get("opacity-value").textContent = `${chosen("opacity")} %`;
    const category = chosen("pick-category"), times = `${number(factor())} × calibrated`;
    const setting = facts.categories.length === 1 || category !== ""
      ? facts.categories[Number(category)].runs[method()] : null;
    const text = setting ? `${number(calibrated(setting) * factor())} (${times})` : times;
    get("threshold-value").textContent = text;
    get("threshold").setAttribute("aria-valuetext", text);
  }

  fill(get("pick-category"), [["", "all"], ...facts.categories.map(({ name }, index) => [String(index), name])]);
  fill(get("pick-method"), facts.methods.map((name, index) => [String(index), name]));
  fillDefects();
  get("pick-category").addEventListener("change", () => { fillDefects(); list(); });
  for (const id of ["pick-defect", "pick-verdict", "pick-order", "pick-method"]) {
    get(id).addEventListener("change", list);
  }
  for (const id of ["opacity", "threshold", "show-found", "show-truth", "show-replaced", "on-depth"]) {
    get(id).addEventListener("input", redraw);
  }
  get("reset").addEventListener("click", () => {
    get("opacity").value = 75;
    get("threshold").value = 0;
    redraw();
  });
  document.querySelector(".gallery-controls").addEventListener("submit", (event) => event.preventDefault());
  // A small screen has no room for both the choices and the images.
  if (matchMedia("(max-width: 620px)").matches) document.querySelector(".gallery-controls details").open = false;
  addEventListener("resize", redraw);
  list();
})();
