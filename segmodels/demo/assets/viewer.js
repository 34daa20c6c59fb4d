// The viewer: maps over one picture, side by side. The server sends the picture once and each map as
// compressed bytes (see segmodels/viewer.py); colours, opacity, classes and views change here.
// Gradio calls this with `element`, `props` and `watch` (gr.HTML, js_on_load).

const VIEWS = [
  ["overlay", "Overlay"],
  ["map", "Mask"],
  ["picture", "Original"],
  ["split", "Before and after"],
];
const group = `viewer-${Math.random().toString(36).slice(2)}`;
const state = { view: "overlay", opacity: null, split: 50, only: "", choice: 0, hidden: new Set() };
const root = element.querySelector(".viewer");
const bar = make("div", { className: "bar" });
const legend = make("div", { className: "key" });
const grid = make("div", { className: "panels" });
const status = make("p", { className: "status" });
status.setAttribute("role", "status");
root.replaceChildren(bar, legend, grid, status);
let value = null;
let shape = "";
let panels = [];

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

async function unpacked(base64) {
  const packed = await fetch(`data:application/octet-stream;base64,${base64}`);
  const stream = packed.body.pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

class Panel {
  constructor(number) {
    this.number = number;
    this.title = make("strong");
    this.here = make("span", { className: "here" });
    this.picture = make("img", { alt: "" });
    this.canvas = make("canvas");
    this.marker = make("span", { className: "marker", hidden: true });
    this.note = make("p", { className: "note" });
    this.view = make("div", { className: "view", tabIndex: 0 }, this.picture, this.canvas, this.marker);
    this.view.setAttribute("role", "img");
    this.splitter = make("input", { type: "range", className: "splitter", min: 0, max: 100 });
    this.stage = make("div", { className: "stage" }, this.view, this.note, this.splitter);
    this.caption = make("p", { className: "caption" });
    this.figure = make(
      "figure", {}, make("figcaption", {}, this.title, this.here), this.stage, this.caption,
    );
    this.splitter.addEventListener("input", () => {
      state.split = Number(this.splitter.value);
      show();
    });
    this.stage.addEventListener("pointermove", (event) => {
      const box = this.view.getBoundingClientRect();
      point((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    this.stage.addEventListener("pointerleave", () => point(null));
    this.view.addEventListener("blur", () => point(null));
    this.view.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (!(event.key in step)) return;
      event.preventDefault();
      const [x, y] = pointed ?? [0.5, 0.5];
      point(x + 0.02 * step[event.key][0], y + 0.02 * step[event.key][1], true);
    });
  }

  async update(data) {
    this.data = data;
    this.title.textContent = data.title;
    this.caption.textContent = data.caption;
    this.note.textContent = data.note;
    this.figure.dataset.state = data.state;
    this.stage.style.aspectRatio = `${value.size[0]} / ${value.size[1]}`;
    this.picture.hidden = !value.picture;
    if (value.picture && this.picture.src !== value.picture) this.picture.src = value.picture;
    this.view.setAttribute("aria-label", data.alt);
    this.splitter.setAttribute("aria-label", `${data.title}: how much is the original, percent`);
    const map = data.maps[Math.min(state.choice, data.maps.length - 1)];
    if (map !== this.map) {
      this.map = map;
      this.ids = null;
      const ids = map ? await unpacked(map) : null;
      if (map !== this.map) return; // a newer one came in the meantime
      this.ids = ids;
    }
    this.draw();
  }

  draw() {
    this.canvas.hidden = !this.ids;
    if (!this.ids) return;
    const [width, height] = this.data.size;
    const table = new Uint32Array(256);
    const bytes = new Uint8Array(table.buffer);
    this.data.colors.forEach((color, id) => bytes.set(color, 4 * id));
    for (const entry of value.legend) {
      if (state.hidden.has(entry.name)) for (const id of entry.ids[this.number]) table[id] = 0;
    }
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[this.ids[i]];
    Object.assign(this.canvas, { width, height }).getContext("2d").putImageData(image, 0, 0);
    this.figure.dataset.drawn = [state.choice, ...state.hidden].join();
  }

  nameAt(x, y) {
    if (!this.ids) return "";
    const [width, height] = this.data.size;
    const id = this.ids[Math.floor(y * height) * width + Math.floor(x * width)];
    if (!value.scale) return this.data.names[id] ?? "";
    return ((id / 255) * value.scale.highest).toFixed(value.scale.digits) + value.scale.unit;
  }
}

let pointed = null;

function point(x, y, aloud = false) {
  pointed = x === null ? null : [x, y].map((part) => Math.min(0.999, Math.max(0, part)));
  for (const panel of panels) {
    panel.marker.hidden = !pointed || !panel.ids;
    panel.here.textContent = pointed ? panel.nameAt(...pointed) : "";
    if (pointed) Object.assign(panel.marker.style, { left: `${100 * pointed[0]}%`, top: `${100 * pointed[1]}%` });
  }
  if (aloud) {
    const said = panels.map((panel) => `${panel.data.title}: ${panel.here.textContent}`);
    status.textContent = said.join(", ");
  }
}

function show() {
  grid.dataset.view = state.view;
  grid.dataset.count = state.only ? 1 : panels.length;
  grid.style.setProperty("--opacity", state.view === "overlay" || state.view === "split" ? state.opacity : 1);
  grid.style.setProperty("--split", `${state.split}%`);
  for (const panel of panels) {
    panel.figure.hidden = state.only !== "" && state.only !== panel.data.title;
    panel.splitter.value = state.split;
  }
}

function radios(name, text, options, chosen, choose) {
  const buttons = options.map(([key, label]) => {
    const input = make("input", { type: "radio", name: `${group}-${name}`, value: key });
    input.checked = key === chosen;
    input.addEventListener("change", () => choose(key));
    return make("label", {}, input, make("span", { textContent: label }));
  });
  return make("fieldset", { className: "segments" }, make("legend", { textContent: text }), ...buttons);
}

function buildBar() {
  const parts = [];
  const { labels } = value;
  if (value.choices) {
    const choice = make("select", {}, ...value.choices.map((name, i) => new Option(name, i)));
    choice.value = state.choice = Math.min(state.choice, value.choices.length - 1);
    choice.addEventListener("change", () => {
      state.choice = Number(choice.value);
      panels.forEach((panel, i) => panel.update(value.panels[i]));
    });
    parts.push(make("label", { className: "field" }, make("span", { textContent: labels.choice }), choice));
  }
  parts.push(radios("view", labels.view, VIEWS.map(([k]) => [k, labels[k]]), state.view, (view) => {
    state.view = view;
    show();
  }));
  const opacity = make("input", { type: "range", min: 0, max: 1, step: 0.05, value: state.opacity });
  opacity.addEventListener("input", () => {
    state.opacity = Number(opacity.value);
    show();
  });
  parts.push(make("label", { className: "field" }, make("span", { textContent: labels.opacity }), opacity));
  if (value.panels.length > 1) {
    const titles = value.panels.map((panel) => [panel.title, panel.title]);
    parts.push(radios("only", labels.panels, [["", labels.all], ...titles], state.only, (title) => {
      state.only = title;
      show();
    }));
  }
  bar.replaceChildren(...parts);
}

function buildLegend() {
  const entries = value.legend.map((entry) => {
    const box = make("input", { type: "checkbox", checked: !state.hidden.has(entry.name) });
    box.style.setProperty("--color", `rgb(${entry.color.join()})`);
    box.addEventListener("change", () => {
      state.hidden[box.checked ? "delete" : "add"](entry.name);
      panels.forEach((panel) => panel.draw());
    });
    return make("li", {}, make("label", {}, box, make("span", { textContent: entry.name })));
  });
  if (value.scale) {
    const ramp = make("span", { className: "ramp" });
    ramp.style.background = `linear-gradient(to right, ${value.scale.colors.map((c) => `rgb(${c.join()})`)})`;
    const ends = [value.scale.low, value.scale.high].map((text) => make("span", { textContent: text }));
    legend.replaceChildren(make("p", { className: "scale" }, ends[0], ramp, ends[1]));
    return;
  }
  const list = make("ul", {}, ...entries);
  list.setAttribute("aria-label", value.labels.legend);
  const every = make("button", { type: "button", textContent: value.labels.every, className: "link" });
  every.addEventListener("click", () => {
    const hide = state.hidden.size === 0 ? value.legend.map((entry) => entry.name) : [];
    state.hidden = new Set(hide);
    buildLegend();
    panels.forEach((panel) => panel.draw());
  });
  legend.replaceChildren(list, ...(value.legend.length > 5 ? [every] : []));
}

function update() {
  value = props.value ? JSON.parse(JSON.stringify(props.value)) : null;
  root.hidden = !value;
  if (!value) return;
  state.opacity ??= value.opacity;
  const titles = value.panels.map((panel) => panel.title);
  const newShape = JSON.stringify([titles, value.legend, value.scale, value.choices]);
  if (newShape !== shape) {
    shape = newShape;
    if (!titles.includes(state.only)) state.only = "";
    const names = value.legend.map((entry) => entry.name);
    state.hidden = new Set([...state.hidden].filter((name) => names.includes(name)));
    buildBar();
    buildLegend();
    panels = titles.map((_, number) => panels[number] ?? new Panel(number));
    grid.replaceChildren(...panels.map((panel) => panel.figure));
  }
  panels.forEach((panel, number) => panel.update(value.panels[number]));
  status.textContent = value.status;
  show();
}

watch("value", update);
update();
