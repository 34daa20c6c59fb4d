// The strip of example images and of the visitor's latest images, which are kept only in the
// browser. Also accepts images that are pasted or dropped anywhere on the page. Gradio runs this
// with `element`, `props`, `trigger` and `watch` (js_on_load of gr.HTML).

const KEPT = 5;
const strip = element.querySelector(".strip");
const examples = make("div", { className: "thumbnails" });
const recent = make("div", { className: "thumbnails recent", hidden: true });
const caption = make("div", { className: "look-for" });
caption.setAttribute("aria-live", "polite");
strip.replaceChildren(examples, recent, caption);
const files = []; // { file, url }, latest first
let current = new URLSearchParams(window.location.search).get("example");

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function thumbnail(src, title, press) {
  const button = make("button", { type: "button", title }, make("img", { src, alt: "" }));
  button.setAttribute("aria-label", title);
  button.addEventListener("click", press);
  return button;
}

// Show the file name if the browser cannot display the image.
function named(button, name) {
  button.querySelector("img").addEventListener("error", () => {
    button.replaceChildren(make("span", { className: "name", textContent: name }));
  });
  return button;
}

function labelled(text, ...children) {
  return [make("span", { className: "heading", textContent: text }), ...children];
}

function build() {
  const list = props.value ?? [];
  if (current === null && list.length) current = list[0].key;
  examples.hidden = !list.length;
  examples.replaceChildren(...labelled(props.labels.examples, ...list.map((example) => {
    const button = thumbnail(example.src, `${props.labels.example}: ${example.title}`, () => choose(example));
    button.dataset.key = example.key;
    return button;
  })));
  recent.hidden = !files.length;
  recent.replaceChildren(...labelled(props.labels.recent, ...files.map(({ file, url }) =>
    named(thumbnail(url, `${props.labels.again}: ${file.name}`, () => give(file)), file.name))));
  mark();
}

function mark() {
  const example = (props.value ?? []).find(({ key }) => key === current);
  for (const button of examples.querySelectorAll("button")) {
    button.toggleAttribute("aria-current", button.dataset.key === current);
  }
  const notes = example?.notes ?? [];
  caption.replaceChildren(make("span", { textContent: example?.caption ?? "" }));
  if (notes.length) caption.append(make("span", { className: "heading", textContent: props.labels.look }));
  caption.append(...notes.map((note) => {
    const button = make("button", { type: "button", className: "note", textContent: note.text });
    button.addEventListener("click", () => look(note));
    return button;
  }));
  caption.hidden = !example;
}

// Zoom to a note in the viewer that shows it best, retrying until that viewer has been filled.
function look(note, attempts = 60) {
  if (note.tab && attempts === 60) document.getElementById(`tab-${note.tab}-button`)?.click();
  const viewer = note.tab || "masks";
  if (window.segmodels?.lookers?.[viewer]?.(note)) {
    document.querySelector(`#${viewer} .panels`).scrollIntoView({ behavior: "smooth", block: "center" });
  } else if (attempts > 0) setTimeout(() => look(note, attempts - 1), 250);
}

function choose(example) {
  current = example.key;
  mark();
  window.segmodels?.address({ example: example.key });
  trigger("select", { key: example.key });
}

// Submit a visitor's image as if it had been chosen with the button.
function give(file) {
  const input = document.querySelector("#input-buttons input[type=file]");
  if (!input) return;
  const transfer = new DataTransfer();
  transfer.items.add(file);
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

// Add an image to the visitor's latest images, however it was provided.
function remember(file) {
  current = "";
  window.segmodels?.address({ example: "" });
  const at = files.findIndex((other) => other.file.name === file.name && other.file.size === file.size);
  const [entry] = at < 0 ? [{ file, url: URL.createObjectURL(file) }] : files.splice(at, 1);
  files.unshift(entry);
  for (const { url } of files.splice(KEPT)) URL.revokeObjectURL(url);
  build();
}

const isImage = (file) => file && (file.type.startsWith("image/") || /\.(tiff?|heic|heif|avif)$/i.test(file.name));
const isLabel = (target) => target instanceof Element && target.closest("#label");
const isText = (target) => target instanceof Element && target.closest("input:not([type=file]), textarea, .cm-content");

document.addEventListener("change", (event) => {
  const [file] = event.target.files ?? [];
  if (event.target.closest("#input-buttons, #picture") && isImage(file)) remember(file);
}, true);
document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find(isImage);
  if (!file || isText(event.target) || isLabel(event.target)) return;
  event.preventDefault();
  give(file);
});
document.addEventListener("dragover", (event) => {
  if (!isLabel(event.target)) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  const file = [...(event.dataTransfer?.files ?? [])].find(isImage);
  if (!file || isLabel(event.target)) return;
  event.preventDefault();
  event.stopPropagation();
  give(file);
}, true);

// The button of the notice that suggests another scene.
document.addEventListener("click", (event) => {
  const { scene } = event.target.closest?.("button[data-scene]")?.dataset ?? {};
  if (scene) document.querySelector(`#scene input[value="${CSS.escape(scene)}"]`)?.click();
});

// On a change of scene, select its first example if it does not have the current one.
watch("value", () => {
  const keys = (props.value ?? []).map(({ key }) => key);
  if (current && !keys.includes(current)) {
    current = keys[0] ?? "";
    window.segmodels?.address({ example: "" });
  }
  build();
});
build();
