// The viewer: maps over one image, side by side. The server sends the image once and each map as
// compressed bytes (see segmodels/demo/viewer.py). Colours, opacity, classes, zoom, views and the
// contents of the panels are handled here. A layer is a map with its names and colours; a panel is
// the element that displays one. Gradio runs this with `element`, `props`, `trigger` and `watch`
// (js_on_load of gr.HTML).

const MAX_ZOOM = 32;
const FULL = '<svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true"><path fill="none" '
  + 'stroke="currentColor" stroke-width="2" d="M1 5V1h4M11 1h4v4M15 11v4h-4M5 15H1v-4"/></svg>';
const WIDE = 2.4; // aspect ratio (width / height) from which panels are stacked vertically
const MOST_PANELS = 4;
const DEFAULTS = { view: "overlay", tab: "areas" }; // values omitted from the address
const STEP = 0.02; // fraction of the image that an arrow key moves the pointer
const group = `viewer-${Math.random().toString(36).slice(2)}`;
const isMain = Boolean(element.closest("#masks"));
const shared = sharedState();
const state = {
  view: "overlay", opacity: null, split: 50, against: "image", count: null, picked: {}, choice: 0, isolated: null,
  hidden: new Set(), zoom: { scale: 1, left: 0, top: 0 }, figures: false, next: 0,
  isMoreOpen: false,
};
const root = element.querySelector(".viewer");
const bar = make("div", { className: "bar" });
const legend = make("div", { className: "key" });
const grid = make("div", { className: "panels" });
const readout = make("p", { className: "readout" });
readout.setAttribute("aria-live", "polite");
const status = make("p", { className: "status" });
status.setAttribute("role", "status");
root.replaceChildren(bar, legend, grid, readout, status);
let value = null;
let shape = "";
let legendShape = "";
let layers = []; // the networks' layers, then the extras, then the plain image
let panels = [];
let pointed = null;
let previewed = "";
let differs = null; // per pixel: 1 where the panels' classes differ

// ---- state shared by all viewers on the page ----

function sharedState() {
  window.segmodels ??= {
    outlines: false,
    safe: false,
    viewers: new Set(),
    address(changes) {
      const url = new URL(window.location.href);
      for (const [key, text] of Object.entries(changes)) {
        if (text && text !== DEFAULTS[key]) url.searchParams.set(key, text);
        else url.searchParams.delete(key);
      }
      window.history.replaceState(window.history.state, "", url);
    },
  };
  return window.segmodels;
}

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const isVisible = () => root.offsetParent !== null;

async function unpacked(base64) {
  const packed = await fetch(`data:application/octet-stream;base64,${base64}`);
  const stream = packed.body.pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// ---- layers ----

class Layer {
  constructor(key, number) {
    this.key = key; // index of the network, "extra0" or "image"
    this.number = number; // index into the ids of a legend entry
  }

  get title() {
    return this.data.title;
  }

  async update(data) {
    this.data = data;
    const map = data.maps[Math.min(state.choice, data.maps.length - 1)];
    if (map === this.map) return;
    this.map = map;
    const [width, height] = data.size ?? [0, 0];
    // The camera view keeps its mask until the next one has been decompressed.
    if (isMain || this.ids?.length !== width * height) this.ids = null;
    const ids = map ? await unpacked(map) : null;
    if (map !== this.map) return; // replaced by a newer map in the meantime
    this.ids = ids;
    compareMaps();
    panels.forEach((panel) => panel.draw());
  }

  // The 32-bit colour of each id; hidden classes are transparent.
  table() {
    const table = new Uint32Array(256);
    const bytes = new Uint8Array(table.buffer);
    const colors = shared.safe ? this.data.safe_colors : this.data.colors;
    colors.forEach((color, id) => bytes.set(color, 4 * id));
    for (const entry of value.legend) {
      const isOff = state.isolated ? entry.name !== state.isolated : state.hidden.has(entry.name);
      if (isOff) for (const id of entry.ids[this.number] ?? []) table[id] = 0;
    }
    return table;
  }

  nameAt(x, y) {
    if (!this.ids) return "";
    const [width, height] = this.data.size;
    const id = this.ids[Math.floor(y * height) * width + Math.floor(x * width)];
    if (!value.scale) return this.data.names[id] ?? value.labels.unlabelled;
    return ((id / 255) * value.scale.highest).toFixed(value.scale.digits) + value.scale.unit;
  }
}

function imageData() {
  const title = value.labels.original;
  return { title, maps: [], size: null, colors: [], safe_colors: [], names: [], caption: "",
    alt: title, state: "ready", note: "", architecture: "" };
}

function updateLayers() {
  const wanted = [
    ...value.panels.map((data, number) => [String(number), data, number]),
    ...value.extras.map((data, n) => [`extra${n}`, data, value.panels.length + n]),
    ["image", imageData(), -1],
  ];
  layers = wanted.map(([key, , number]) => {
    const layer = layers.find((each) => each.key === key) ?? new Layer(key, number);
    layer.number = number;
    return layer;
  });
  wanted.forEach(([, data], place) => layers[place].update(data));
}

const layerOf = (key) => layers.find((layer) => layer.key === key);
const networkLayers = () => layers.slice(0, value.panels.length);

// ---- a panel ----

class Panel {
  constructor(number) {
    this.number = number;
    this.title = make("strong");
    this.chooser = make("select");
    this.chooser.addEventListener("change", () => showInPanel(this.number, this.chooser.value));
    this.here = make("span", { className: "here" });
    this.save = make("button", { type: "button", className: "icon save", textContent: "⤓" });
    this.picture = make("img", { alt: "" });
    this.under = make("canvas", { className: "under", hidden: true });
    this.canvas = make("canvas", { className: "map" });
    this.marker = make("span", { className: "marker", hidden: true });
    this.note = make("p", { className: "note" });
    this.view = make(
      "div", { className: "view", tabIndex: 0 }, this.picture, this.under, this.canvas, this.marker,
    );
    this.view.setAttribute("role", "img");
    this.splitter = make("input", { type: "range", className: "splitter", min: 0, max: 100 });
    this.stage = make("div", { className: "stage" }, this.view, this.note, this.splitter);
    this.caption = make("p", { className: "caption" });
    this.drawing = make("div", { className: "architecture", hidden: true });
    const title = make("span", { className: "title" }, this.title, this.chooser);
    const head = make("figcaption", {}, title, this.here, this.save);
    this.figure = make("figure", {}, head, this.stage, this.caption, this.drawing);
    this.listen();
  }

  listen() {
    this.save.addEventListener("click", () => ask("map", this.layer.number));
    this.splitter.addEventListener("input", () => {
      state.split = Number(this.splitter.value);
      show();
    });
    this.stage.addEventListener("pointermove", (event) => this.pointerMoved(event));
    this.stage.addEventListener("pointerdown", (event) => this.pointerDown(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(kind, () => (this.drag = null));
    }
    this.stage.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") point(null);
    });
    this.stage.addEventListener("wheel", (event) => {
      if (event.deltaY > 0 && state.zoom.scale === 1) return; // zoomed out: let the page scroll
      event.preventDefault();
      zoomAt(Math.exp(-event.deltaY / 300), ...this.place(event));
    }, { passive: false });
    this.stage.addEventListener("dblclick", (event) => {
      if (state.zoom.scale > 1) zoomTo(1, 0.5, 0.5);
      else zoomAt(4, ...this.place(event));
    });
    this.stage.addEventListener("touchmove", (event) => this.pinched(event), { passive: false });
    this.stage.addEventListener("touchend", () => (this.pinch = null));
    this.view.addEventListener("blur", () => point(null));
    this.view.addEventListener("keydown", (event) => this.pressed(event));
  }

  // The event's position in the stage, as fractions of its size.
  place(event) {
    const box = this.stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  pointerDown(event) {
    if (event.pointerType !== "mouse") this.read(event);
    if (state.zoom.scale > 1 && event.target !== this.splitter) {
      this.drag = { place: this.place(event), ...state.zoom };
    }
  }

  pointerMoved(event) {
    if (this.drag && event.buttons && !this.pinch) {
      const [x, y] = this.place(event);
      const { place, left, top, scale } = this.drag;
      moveTo(left - (x - place[0]) / scale, top - (y - place[1]) / scale);
    } else if (event.pointerType === "mouse" || event.buttons) this.read(event);
  }

  read(event) {
    const [x, y] = inImage(...this.place(event));
    const isTouch = event.pointerType !== "mouse";
    root.classList.toggle("touched", isTouch);
    root.classList.toggle("high", this.place(event)[1] < 0.5);
    point(x, y, isTouch);
  }

  pinched(event) {
    if (event.touches.length !== 2) return;
    event.preventDefault();
    const [a, b] = event.touches;
    const distance = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    const middle = { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
    if (this.pinch) zoomAt(distance / this.pinch, ...this.place(middle));
    this.pinch = distance;
  }

  pressed(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const [x, y] = pointed ?? [0.5, 0.5];
    if (event.key in step) {
      const size = STEP / state.zoom.scale;
      point(x + size * step[event.key][0], y + size * step[event.key][1], true);
      bringIntoView(...pointed);
    } else if (event.key === "+" || event.key === "=") zoomTo(2 * state.zoom.scale, x, y);
    else if (event.key === "-") zoomTo(state.zoom.scale / 2, x, y);
    else if (event.key === "0") zoomTo(1, 0.5, 0.5);
    else if (event.key === "n" && value.views.includes("disagreement")) nextDisagreement();
    else return;
    event.preventDefault();
  }

  update() {
    this.layer = layerAt(this.number);
    const { data } = this.layer;
    this.title.textContent = data.title;
    this.note.textContent = data.note;
    this.figure.dataset.state = data.state;
    this.stage.style.aspectRatio = `${value.size[0]} / ${value.size[1]}`;
    this.picture.hidden = !value.image;
    if (value.image && this.picture.src !== value.image) this.picture.src = value.image;
    this.view.setAttribute("aria-label", data.alt);
    this.splitter.setAttribute("aria-label", `${data.title}: ${value.labels.slider}`);
    const isNetwork = this.layer.number >= 0 && this.layer.number < value.panels.length;
    this.save.hidden = !(value.downloads && isNetwork && data.state === "ready");
    this.save.title = `${value.labels.download} ${data.title}`;
    this.save.setAttribute("aria-label", this.save.title);
    const figure = props.figures?.[data.architecture] ?? "";
    if (this.drawing.dataset.of !== data.architecture) this.drawing.innerHTML = figure;
    this.drawing.dataset.of = data.architecture;
    const choice = Math.min(state.choice, data.maps.length - 1);
    this.caption.textContent = (value.scale && value.choices.length && data.names[choice]) || data.caption;
    this.offer();
    this.draw();
  }

  // Update the choice of what this panel can show.
  offer() {
    const { labels } = value;
    this.chooser.parentElement.classList.toggle("fixed", value.panels.length + value.extras.length < 2
      && !value.others.length);
    const own = layers.map((layer) => new Option(layer.title, layer.key));
    const groups = [make("optgroup", { label: labels.ownNetworks }, ...own)];
    if (value.others.length && value.downloads) {
      const others = value.others.map(({ name, title }) => new Option(title, `network:${name}`));
      groups.push(make("optgroup", { label: labels.otherNetworks }, ...others));
    }
    const options = JSON.stringify(groups.map((each) => each.outerHTML));
    if (options !== this.options) this.chooser.replaceChildren(...groups);
    this.options = options;
    this.chooser.value = this.layer.key;
    this.chooser.setAttribute("aria-label", `${labels.shows} ${this.number + 1}`);
  }

  draw() {
    const { layer } = this;
    this.canvas.hidden = !layer.ids;
    const other = layerOf(state.against);
    this.under.hidden = !(state.view === "split" && layer.ids && other?.ids);
    if (!layer.ids) return;
    paint(this.canvas, layer);
    if (!this.under.hidden) paint(this.under, other);
    this.figure.dataset.drawn = [state.choice, ...state.hidden].join();
  }
}

// Send the request of a panel's control to the server.
function ask(kind, panel, more = {}) {
  trigger("select", { kind, panel, ...more });
}

// Show a layer, or a network that has to be run first, in a panel.
function showInPanel(number, key) {
  if (key.startsWith("network:")) {
    const place = Number(panels[number].layer.key);
    const panel = Number.isInteger(place) ? place : Math.min(number, value.panels.length - 1);
    state.picked[number] = String(panel);
    panels[number].update();
    ask("network", panel, { network: key.slice("network:".length) });
    return;
  }
  state.picked[number] = key;
  panels[number].update();
  show();
}

// The layer of a panel: the one picked for it if it still exists, otherwise the one at its index.
function layerAt(number) {
  return layerOf(state.picked[number]) ?? layers[number];
}

function panelCount() {
  return Math.min(state.count ?? value.panels.length, layers.length);
}

function setCount(count) {
  state.count = count;
  arrange();
}

// Create and arrange the panels.
function arrange() {
  panels = Array.from({ length: panelCount() }, (_, number) => panels[number] ?? new Panel(number));
  grid.replaceChildren(...panels.map((panel) => panel.figure));
  panels.forEach((panel) => panel.update());
  show();
}

function paint(canvas, layer) {
  const [width, height] = layer.data.size;
  const { ids } = layer;
  const table = layer.table();
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const mask = state.view === "disagreement" && differs?.length === ids.length ? differs : null;
  for (let i = 0; i < pixels.length; i++) pixels[i] = mask && !mask[i] ? 0 : table[ids[i]];
  if (shared.outlines && !value.scale) outline(pixels, ids, width, height, canvas.clientWidth);
  Object.assign(canvas, { width, height }).getContext("2d").putImageData(image, 0, 0);
}

// Draw black lines about one screen pixel wide where the class changes.
function outline(pixels, ids, width, height, shown) {
  const reach = Math.max(1, Math.round(width / (shown || width)));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const i = y * width + x;
      const right = x + reach < width ? ids[i + reach] : ids[i];
      const below = y + reach < height ? ids[i + reach * width] : ids[i];
      if (ids[i] !== right || ids[i] !== below) pixels[i] = 0xff000000;
    }
  }
}

// ---- disagreement ----

function compareMaps() {
  const ready = networkLayers().filter((layer) => layer.ids);
  differs = null;
  if (!value?.views.includes("disagreement") || ready.length < 2) return;
  if (ready.some((layer) => layer.ids.length !== ready[0].ids.length)) return;
  const names = [...new Set(value.legend.map((entry) => entry.group))];
  const tables = ready.map((layer) => {
    const table = new Uint8Array(256).fill(255);
    for (const entry of value.legend) {
      for (const id of entry.ids[layer.number] ?? []) table[id] = names.indexOf(entry.group);
    }
    return table;
  });
  differs = new Uint8Array(ready[0].ids.length);
  for (let i = 0; i < differs.length; i++) {
    const first = tables[0][ready[0].ids[i]];
    for (let k = 1; k < ready.length; k++) {
      if (tables[k][ready[k].ids[i]] !== first) differs[i] = 1;
    }
  }
}

// Centers of the cells with the most differing pixels, in descending order and well separated.
function disagreements(count = 12, cells = 24) {
  const [width, height] = layers.find((layer) => layer.ids).data.size;
  const side = Math.max(1, Math.ceil(Math.max(width, height) / cells));
  const columns = Math.ceil(width / side);
  const sums = new Float64Array(columns * Math.ceil(height / side));
  for (let i = 0; i < differs.length; i++) {
    if (!differs[i]) continue;
    sums[Math.floor(Math.floor(i / width) / side) * columns + Math.floor((i % width) / side)] += 1;
  }
  const order = [...sums.keys()].filter((cell) => sums[cell]).sort((a, b) => sums[b] - sums[a]);
  const chosen = [];
  for (const cell of order) {
    const [x, y] = [cell % columns, Math.floor(cell / columns)];
    const isNear = chosen.some(([a, b]) => Math.max(Math.abs(a - x), Math.abs(b - y)) < 3);
    if (!isNear) chosen.push([x, y]);
    if (chosen.length === count) break;
  }
  return chosen.map(([x, y]) => [
    Math.min(1, ((x + 0.5) * side) / width), Math.min(1, ((y + 0.5) * side) / height),
  ]);
}

// The pixel nearest to (x, y) where the panels differ.
function nearestDifference(x, y) {
  const [width, height] = layers.find((layer) => layer.ids).data.size;
  let best = [x, y];
  let least = Infinity;
  for (let i = 0; i < differs.length; i++) {
    if (!differs[i]) continue;
    const dx = (i % width) - x * width;
    const dy = Math.floor(i / width) - y * height;
    if (dx * dx + dy * dy < least) {
      least = dx * dx + dy * dy;
      best = [((i % width) + 0.5) / width, (Math.floor(i / width) + 0.5) / height];
    }
  }
  return best;
}

function nextDisagreement() {
  if (!differs) return;
  const places = disagreements();
  if (!places.length) return;
  const [x, y] = nearestDifference(...places[state.next % places.length]);
  state.next = (state.next + 1) % places.length;
  zoomTo(Math.max(4, state.zoom.scale), x, y);
  point(x, y, true);
}

// ---- pointing ----

function point(x, y, aloud = false) {
  pointed = x === null ? null : [x, y].map((part) => Math.min(0.9999, Math.max(0, part)));
  for (const panel of panels) {
    panel.marker.hidden = !pointed;
    panel.here.textContent = pointed ? panel.layer.nameAt(...pointed) : "";
    if (pointed) Object.assign(panel.marker.style, { left: `${100 * pointed[0]}%`, top: `${100 * pointed[1]}%` });
  }
  const named = panels.filter((panel) => panel.layer.ids);
  const said = named.map((panel) => `${panel.layer.title}: ${panel.here.textContent}`);
  readout.textContent = pointed && aloud ? said.join(" · ") : "";
}

// ---- zoom, synchronized across all panels ----

// Convert fractions of the stage to fractions of the image.
function inImage(x, y) {
  return [state.zoom.left + x / state.zoom.scale, state.zoom.top + y / state.zoom.scale];
}

function moveTo(left, top) {
  const most = 1 - 1 / state.zoom.scale;
  state.zoom.left = Math.min(most, Math.max(0, left));
  state.zoom.top = Math.min(most, Math.max(0, top));
  show();
}

// Zoom by a factor, keeping the point at (x, y) of the stage in place.
function zoomAt(factor, x, y) {
  const [imageX, imageY] = inImage(x, y);
  state.zoom.scale = Math.min(MAX_ZOOM, Math.max(1, state.zoom.scale * factor));
  if (state.zoom.scale < 1.02) state.zoom.scale = 1;
  moveTo(imageX - x / state.zoom.scale, imageY - y / state.zoom.scale);
}

// Zoom to a scale, centered on (x, y) of the image.
function zoomTo(scale, x, y) {
  state.zoom.scale = Math.min(MAX_ZOOM, Math.max(1, scale));
  moveTo(x - 0.5 / state.zoom.scale, y - 0.5 / state.zoom.scale);
}

function bringIntoView(x, y) {
  const { scale, left, top } = state.zoom;
  const size = 1 / scale;
  const into = (at, start) => Math.min(Math.max(start, at - 0.95 * size), at - 0.05 * size);
  moveTo(into(x, left), into(y, top));
}

// ---- display options ----

function show() {
  const { scale, left, top } = state.zoom;
  grid.dataset.view = state.view;
  grid.dataset.count = panels.length;
  grid.toggleAttribute("data-wide", value.size[0] >= WIDE * value.size[1]);
  grid.toggleAttribute("data-zoomed", scale > 1);
  grid.style.setProperty("--opacity", ["overlay", "split"].includes(state.view) ? state.opacity : 1);
  grid.style.setProperty("--split", `${100 * (left + state.split / 100 / scale)}%`);
  grid.style.setProperty("--scale", scale);
  grid.style.setProperty("--left", `${-100 * left}%`);
  grid.style.setProperty("--top", `${-100 * top}%`);
  for (const panel of panels) {
    panel.splitter.value = state.split;
    panel.drawing.hidden = !(state.figures && panel.layer.data.architecture);
    const width = panel.layer.data.size?.[0] ?? value.size[0];
    panel.view.toggleAttribute("data-pixelated", scale * panel.stage.clientWidth > 1.5 * width);
  }
}

function setView(view) {
  state.view = view;
  if (isMain) shared.address({ view });
  show();
  panels.forEach((panel) => panel.draw());
  buildBar();
}

function redrawAll() {
  for (const redraw of shared.viewers) redraw();
}

// ---- controls ----

function radios(name, text, options, chosen, choose) {
  const buttons = options.map(([key, label]) => {
    const input = make("input", { type: "radio", name: `${group}-${name}`, value: key });
    input.checked = key === chosen;
    input.addEventListener("change", () => choose(key));
    return make("label", {}, input, make("span", { textContent: label }));
  });
  const parts = [make("legend", { textContent: text }), ...buttons];
  return make("fieldset", { className: "segments" }, ...parts);
}

function field(text, control) {
  return make("label", { className: "field" }, make("span", { textContent: text }), control);
}

function toggle(text, isOn, change) {
  const box = make("input", { type: "checkbox", checked: isOn });
  box.addEventListener("change", () => change(box.checked));
  return make("label", { className: "field toggle" }, box, make("span", { textContent: text }));
}

function button(text, title, press) {
  const node = make("button", { type: "button", className: "icon", innerHTML: text, title });
  node.setAttribute("aria-label", title);
  node.addEventListener("click", press);
  return node;
}

function choose(options, chosen, change) {
  const select = make("select", {}, ...options.map(([key, name]) => new Option(name, key)));
  select.value = chosen;
  select.addEventListener("change", () => change(select.value));
  return select;
}

function buildBar() {
  const focused = bar.contains(document.activeElement) ? document.activeElement : null;
  const key = focused && [focused.name, focused.value].join();
  bar.replaceChildren(...controls());
  if (!focused) return;
  const again = [...bar.querySelectorAll("input, select, button")];
  again.find((node) => [node.name, node.value].join() === key)?.focus();
}

function controls() {
  const { labels } = value;
  const parts = [];
  const more = []; // collapsed on phones
  if (value.choices.length) {
    state.choice = Math.min(state.choice, value.choices.length - 1);
    const options = value.choices.map((name, number) => [number, name]);
    parts.push(field(labels.choice, choose(options, state.choice, (number) => {
      state.choice = Number(number);
      updateLayers();
      panels.forEach((panel) => panel.update());
    })));
  }
  parts.push(radios("view", labels.view, value.views.map((k) => [k, labels[k]]), state.view, setView));
  const opacity = make("input", { type: "range", min: 0, max: 1, step: 0.05, value: state.opacity });
  opacity.addEventListener("input", () => {
    state.opacity = Number(opacity.value);
    show();
  });
  more.push(field(labels.opacity, opacity));
  if (layers.length > 2) {
    const counts = Array.from({ length: Math.min(MOST_PANELS, layers.length) }, (_, n) => n + 1);
    const options = counts.map((count) => [String(count), String(count)]);
    const chosen = String(panelCount());
    parts.push(radios("count", labels.panels, options, chosen, (count) => setCount(Number(count))));
  }
  if (state.view === "split" && layers.length > 2) {
    const options = layers.map((layer) => [layer.key, layer.title]);
    parts.push(field(labels.against, choose(options, state.against, (key) => {
      state.against = key;
      panels.forEach((panel) => panel.draw());
    })));
  }
  if (value.views.includes("disagreement")) {
    const next = make("button", { type: "button", className: "text", textContent: labels.next });
    next.addEventListener("click", nextDisagreement);
    parts.push(next);
  }
  if (!value.scale) {
    more.push(toggle(labels.outlines, shared.outlines, (on) => {
      shared.outlines = on;
      redrawAll();
    }));
  }
  if (!value.scale && value.panels.some((panel) => String(panel.colors) !== String(panel.safe_colors))) {
    more.push(toggle(labels.safe, shared.safe, (on) => {
      shared.safe = on;
      redrawAll();
    }));
  }
  if (value.panels.some((panel) => panel.architecture)) {
    more.push(toggle(labels.figures, state.figures, (on) => {
      state.figures = on;
      show();
    }));
  }
  if (value.share) {
    const text = labels.shareHelp[value.share];
    const press = make("button", { type: "button", className: "text", textContent: labels.share, title: text });
    press.addEventListener("click", share);
    parts.push(press);
  }
  if (window.matchMedia("(max-width: 640px)").matches) {
    const summary = make("summary", { textContent: labels.more });
    const details = make("details", { className: "more", open: state.isMoreOpen }, summary, ...more);
    details.addEventListener("toggle", () => (state.isMoreOpen = details.open));
    parts.push(details);
  } else parts.push(...more);
  parts.push(make("span", { className: "icons" },
    button("−", labels.zoomOut, () => zoomAt(0.5, 0.5, 0.5)),
    button("+", labels.zoomIn, () => zoomAt(2, 0.5, 0.5)),
    button("1:1", labels.reset, () => zoomTo(1, 0.5, 0.5)),
    button(FULL, labels.full, toggleFull),
  ));
  return parts;
}

// Share an example as a link, or the comparison of a visitor's own image as an image.
async function share() {
  if (value.share === "image") {
    ask("share", 0);
    return;
  }
  const link = window.location.href;
  try {
    await navigator.clipboard.writeText(link);
    readout.textContent = value.labels.copied;
  } catch { // not permitted, or not over https: let the visitor copy it
    window.prompt(value.labels.link, link);
  }
}

function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (root.requestFullscreen) root.requestFullscreen();
  else root.classList.toggle("full"); // some phones do not support full-screen elements
}

// ---- legend ----

function redrawClasses() {
  panels.forEach((panel) => panel.draw());
}

function percent(share) {
  if (share === null || share === undefined) return "–";
  return share === 0 ? "0" : share < 0.001 ? "<0.1" : (100 * share).toFixed(share < 0.1 ? 1 : 0);
}

function legendEntry(entry) {
  const box = make("input", { type: "checkbox", checked: !state.hidden.has(entry.name) });
  box.style.setProperty("--color", `rgb(${(shared.safe ? entry.safe_color : entry.color).join()})`);
  box.setAttribute("aria-label", entry.name);
  box.addEventListener("change", () => {
    state.hidden[box.checked ? "delete" : "add"](entry.name);
    redrawClasses();
  });
  const label = make("label", { title: value.labels.legendHelp }, box, make("span", { textContent: entry.name }));
  if (entry.shares.some((share) => share !== null)) {
    const shares = entry.shares.map(percent).join(" · ");
    label.append(make("small", { textContent: `${shares} %` }));
  }
  label.addEventListener("pointerenter", (event) => {
    if (event.pointerType === "mouse") isolate(entry.name);
  });
  label.addEventListener("pointerleave", () => isolate(null));
  label.addEventListener("dblclick", (event) => {
    event.preventDefault();
    const others = value.legend.map((other) => other.name).filter((name) => name !== entry.name);
    const isAlone = others.every((name) => state.hidden.has(name));
    state.hidden = new Set(isAlone ? [] : others);
    buildLegend();
    redrawClasses();
  });
  return make("li", {}, label);
}

function isolate(name) {
  const isOff = name && state.hidden.has(name);
  const wanted = isOff ? null : name;
  if (wanted === state.isolated) return;
  state.isolated = wanted;
  redrawClasses();
}

function buildLegend() {
  const { labels } = value;
  state.isolated = null; // the entry under the pointer is replaced without a leave event
  if (value.scale) {
    const ramp = make("span", { className: "ramp" });
    ramp.style.background = `linear-gradient(to right, ${value.scale.colors.map((c) => `rgb(${c.join()})`)})`;
    const ends = [value.scale.low, value.scale.high].map((text) => make("span", { textContent: text }));
    legend.replaceChildren(make("p", { className: "scale" }, ends[0], ramp, ends[1]));
    return;
  }
  const isAbsent = (entry) => value.downloads && entry.shares.every((share) => !share)
    && entry.shares.some((share) => share === 0);
  const list = make("ul", {}, ...value.legend.filter((entry) => !isAbsent(entry)).map(legendEntry));
  list.setAttribute("aria-label", labels.legend);
  const parts = [list];
  if (value.legend.length > 5) {
    const text = () => (state.hidden.size ? labels.show : labels.hide);
    const every = make("button", { type: "button", textContent: text(), className: "link" });
    every.addEventListener("click", () => {
      state.hidden = new Set(state.hidden.size ? [] : value.legend.map((entry) => entry.name));
      buildLegend();
      legend.querySelector(".link").focus();
      redrawClasses();
    });
    parts.push(every);
  }
  const absent = value.legend.filter(isAbsent);
  if (absent.length) {
    const summary = make("summary", { textContent: `${labels.absent} (${absent.length})` });
    parts.push(make("details", {}, summary, make("ul", {}, ...absent.map(legendEntry))));
  }
  legend.replaceChildren(...parts);
}

// ---- a new value ----

function update() {
  const before = value;
  value = props.value ? JSON.parse(JSON.stringify(props.value)) : null;
  root.hidden = !value;
  if (!value) return;
  state.opacity ??= value.opacity;
  if (before?.image !== value.image) Object.assign(state, { zoom: { scale: 1, left: 0, top: 0 }, next: 0 });
  updateLayers();
  const networks = value.panels.map((panel) => [panel.title, panel.architecture]);
  const newShape = JSON.stringify([networks, layers.map((layer) => layer.title), value.views, value.choices, value.share]);
  if (newShape !== shape) {
    const count = shape ? JSON.parse(shape)[0].length : 0;
    shape = newShape;
    if (count !== networks.length) Object.assign(state, { count: null, picked: {} });
    if (!layerOf(state.against)) state.against = "image";
    if (!value.views.includes(state.view)) state.view = "overlay";
    arrange();
    buildBar();
  } else panels.forEach((panel) => panel.update());
  const newLegend = JSON.stringify([value.legend, value.scale, value.downloads]);
  if (newLegend !== legendShape) {
    legendShape = newLegend;
    const names = value.legend.map((entry) => entry.name);
    state.hidden = new Set([...state.hidden].filter((name) => names.includes(name)));
    buildLegend();
  }
  panels.forEach((panel) => panel.draw());
  status.textContent = value.status;
  show();
  if (isMain) showPreview();
  if (isMain && before && before.image !== value.image) scrollToResults();
}

// The server reads formats that browsers cannot display. In that case, show the server's JPEG in
// place of the file that this value belongs to (`previewed`), or of the copy of an earlier image.
function showPreview() {
  const preview = document.querySelector("#picture img");
  if (!preview || !value?.image) return;
  previewed = preview.src;
  const isUnreadable = preview.complete && preview.naturalWidth === 0;
  if (isUnreadable || (previewed.startsWith("data:") && previewed !== value.image)) preview.src = value.image;
}

// On phones, the masks are below the fold after a new image is chosen.
function scrollToResults() {
  if (window.innerWidth > 640) return;
  grid.scrollLeft = 0;
  grid.scrollIntoView({ behavior: "smooth", block: "center" });
}

shared.viewers.add(() => {
  if (!value || !isVisible()) return;
  buildBar();
  buildLegend();
  panels.forEach((panel) => panel.draw());
});
// Zoom to a point of interest, as requested by a note of an example.
shared.lookers ??= {};
shared.lookers[element.closest("#masks, #skips")?.id] = ({ x, y, zoom }) => {
  if (!value || !isVisible() || !layers[0].ids) return false;
  zoomTo(zoom, x, y);
  point(x, y);
  return true;
};
if (isMain) {
  document.addEventListener("error", ({ target }) => {
    if (target.closest?.("#picture") && target.src === previewed) showPreview();
  }, true);
  const wanted = new URLSearchParams(window.location.search);
  state.view = wanted.get("view") ?? "overlay";
  if (wanted.get("tab")) openTab(wanted.get("tab"));
}

// Open the tab given in the address; Gradio does not always apply the tab selected by the server.
function openTab(name, attempts = 20) {
  const tab = document.getElementById(`tab-${name}-button`);
  if (tab?.getAttribute("aria-selected") === "true" && attempts < 18) return;
  if (tab && attempts < 18 && !root.hidden) tab.click();
  if (attempts > 0) setTimeout(() => openTab(name, attempts - 1), 250);
}
new ResizeObserver(() => value && show()).observe(grid);
watch("value", update);
update();
