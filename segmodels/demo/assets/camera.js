// The camera: sends a frame to the server and the next one once it has been answered, so frames are
// dropped rather than queued. Gradio runs this with `element`, `props`, `trigger` and `watch`
// (js_on_load of gr.HTML); the server answers { number, problem } (see demo/video_tab.py).

const SIZE = 640; // longer side of a frame in pixels
const LIVE_SECONDS = 180; // stop after this time, so a forgotten camera does not slow down others
const PATIENCE_SECONDS = 30; // timeout for an answer
const { labels } = props;
const box = element.querySelector(".camera");
const button = make("button", { type: "button", className: "text", textContent: labels.start });
const status = make("span", { className: "status" });
status.setAttribute("role", "status");
const video = make("video", { muted: true, playsInline: true });
const canvas = make("canvas");
box.replaceChildren(button, status);
let stream = null;
let number = 0;
let started = 0;
let patience = 0;
let answered = []; // times of the last answers

function make(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}

async function start() {
  if (!navigator.mediaDevices?.getUserMedia) return stop(labels.insecure);
  button.disabled = true;
  status.textContent = labels.asking;
  try {
    const wanted = { facingMode: "environment", width: { ideal: SIZE } };
    stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    for (const track of stream.getTracks()) track.addEventListener("ended", () => stop(labels.lost));
    video.srcObject = stream;
    await video.play();
  } catch {
    return stop(labels.refused);
  } finally {
    button.disabled = false;
  }
  button.textContent = labels.stop;
  status.textContent = labels.waiting;
  started = performance.now();
  answered = [];
  send();
}

function stop(text = "") {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  video.srcObject = null;
  clearTimeout(patience);
  button.textContent = labels.start;
  status.textContent = text;
}

function send() {
  if (document.hidden || box.offsetParent === null) return stop(labels.hidden);
  if (performance.now() - started > 1000 * LIVE_SECONDS) return stop(labels.limit);
  const scale = Math.min(1, SIZE / Math.max(video.videoWidth, video.videoHeight));
  canvas.width = Math.round(scale * video.videoWidth);
  canvas.height = Math.round(scale * video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  number += 1;
  clearTimeout(patience);
  patience = setTimeout(() => stop(labels.silent), 1000 * PATIENCE_SECONDS);
  trigger("submit", { number, image: canvas.toDataURL("image/jpeg", 0.8) });
}

function receive() {
  if (!stream || props.value?.number !== number) return;
  if (props.value.problem) return stop(props.value.problem);
  answered = [...answered, performance.now()].slice(-10);
  const seconds = (answered.at(-1) - answered[0]) / 1000;
  if (seconds) status.textContent = `${((answered.length - 1) / seconds).toFixed(1)} ${labels.rate}`;
  send();
}

button.addEventListener("click", () => (stream ? stop() : start()));
document.addEventListener("visibilitychange", () => stream && document.hidden && stop(labels.hidden));
watch("value", receive);
