// Starts the page: names its actions, renders everything after each change, and listens to what is not in a pane.

import * as asking from "./asking.js";
import * as correcting from "./correcting.js";
import { attribute, element, keyed, percent, plural, text } from "./elements.js";
import { boxOf } from "./outlines.js";
import { makePane, renderPane } from "./pane.js";
import { keepToken, takeToken } from "./server.js";
import {
  ZOOMS, countUnexported, imageOf, layersOf, networkOf, selectedObject, sharedLimit, shownObjects,
} from "./state.js"; // prettier-ignore
import { change, notify, renderWith, store } from "./store.js";

const $ = (id) => document.getElementById(id);
const panes = new Map(); // position -> parts
const THEMES = ["auto", "light", "dark"];

// ---------------------------------------------------------------- panes

function chooseNetwork(from, to) {
  const { state } = store;
  change({ panes: state.panes.map((name) => (name === from ? to : name)), correcting: null, selected: null, hovered: null, draft: null });
  asking.askFor(to).then(() => asking.follow(to));
}

function addPane() {
  const { state } = store;
  const other = state.served.networks.find(({ name }) => !state.panes.includes(name));
  if (!other) return;
  change({ panes: [...state.panes, other.name] });
  asking.askFor(other.name).then(() => asking.follow(other.name));
}

function closePane(network) {
  const { state } = store;
  const panes = state.panes.filter((name) => name !== network);
  change({ panes, correcting: state.correcting === network ? null : state.correcting });
}

const actions = {
  ...asking, ...correcting, chooseNetwork, closePane, zoomTo,
  change: correcting.changeObject,
  undo: correcting.undoLast,
  draft: (draft) => change({ draft }),
  chooseMap: (layer, head) => change({ layer, head }),
}; // prettier-ignore

// ---------------------------------------------------------------- state -> elements

function render(state) {
  renderNotices(state);
  if (state.refused) text($("served"), state.refused);
  if (!state.served) return;
  text($("served"), `Served here: ${state.served.networks.map(({ name }) => name).join(", ")}.`);
  text($("about"), `botformer ${state.served.version}. Images go to this server and nowhere else.`);
  const image = imageOf(state);
  renderStrip(state);
  $("welcome").hidden = image !== null;
  $("controls").hidden = image === null;
  $("panes").hidden = image === null;
  $("panes").dataset.count = state.panes.length;
  document.body.classList.toggle("opened", image !== null);
  if (image === null) return;
  const networks = state.panes.map((name) => networkOf(state, name));
  const layers = networks.map(({ name }) => layersOf(state, name));
  const limit = sharedLimit(layers);
  renderControls(state, image, networks, layers);
  keyed($("panes"), networks.map((_, index) => index), (index) => index, makePaneAt, (_, index) => {
    renderPane(panes.get(index), state, networks[index], layers[index], limit, actions);
  });
}

function makePaneAt(index) {
  const parts = makePane($("pane-template"), () => store.state.panes[index], store, actions);
  panes.set(index, parts);
  return parts.root;
}

function renderStrip(state) {
  keyed($("images"), state.images, ({ url }) => url, makeThumb, (item, image) => {
    const button = item.firstChild;
    const index = state.images.indexOf(image);
    const corrected = Object.values(image.records).some((one) => one.past.length > 0);
    attribute(button, "aria-current", index === state.current ? "true" : null);
    attribute(button, "aria-label", `${image.name}${corrected ? ", corrected" : ""}`);
    item.classList.toggle("corrected", corrected);
    button.onclick = () => asking.showImage(index);
  });
  const chosen = state.examples.filter((example) => example.for.some((name) => state.panes.includes(name)));
  const examples = chosen.length > 0 ? chosen : state.examples;
  $("examples-row").hidden = examples.length === 0;
  keyed($("examples"), examples, ({ url }) => url, makeThumb, (item, example) => {
    const button = item.firstChild;
    attribute(button, "aria-label", `Example ${example.name}: ${example.about}`);
    attribute(button, "title", example.about);
    button.onclick = () => asking.openExample(example);
  });
  const count = countUnexported(state);
  text($("unexported"), count === 0 ? "" : `${plural(count, "corrected image")} not exported`);
}

function makeThumb({ url, name }) {
  const image = element("img", { src: url, alt: "", draggable: false });
  image.addEventListener("error", () => image.replaceWith(element("span", { className: "no-thumb", textContent: name.split(".").at(-1) })));
  return element("li", {}, element("button", { type: "button" }, image));
}

function renderControls(state, image, networks, layers) {
  $("threshold-control").hidden = !networks.some(({ task }) => task === "detection");
  $("shapes-control").hidden = $("threshold-control").hidden;
  const value = Math.round(100 * image.threshold);
  if (Number($("threshold").value) !== value) $("threshold").value = value;
  text($("threshold-value"), percent(image.threshold));
  attribute($("threshold"), "aria-valuetext", `${percent(image.threshold)}, ${networks.map(({ name }) => `${shownObjects(state, name).length} ${name}`).join(", ")}`);
  $("shapes").checked = state.shapes;
  $("positions").checked = state.positions;
  const looking = layers.some((one) => one.length > 0);
  const attends = networks.some(({ attention }) => attention.length > 0);
  $("positions-control").hidden = !attends;
  $("positions").disabled = !looking || layers.flat().every(({ mean }) => mean.content === null);
  $("clear-look").hidden = !attends;
  $("clear-look").disabled = state.query === null;
  text($("zoom-value"), `${ZOOMS[state.zoom]}×`);
  $("smaller").disabled = state.zoom === 0;
  $("larger").disabled = state.zoom === ZOOMS.length - 1;
  $("compare").hidden = state.served.networks.length < 2 || state.panes.length > 1;
}

function renderNotices(state) {
  const working = state.working ? [{ id: "working", words: state.working }] : [];
  keyed($("notices"), [...working, ...state.notices], ({ id }) => id, makeNotice, (item, { words }) => text(item.firstChild, words));
}

function makeNotice({ id }) {
  const close = element("button", { type: "button", className: "quiet", textContent: "Dismiss" });
  close.addEventListener("click", () => change({ notices: store.state.notices.filter((notice) => notice.id !== id) }));
  const item = element("li", {}, element("span"));
  if (id !== "working") item.append(close);
  return item;
}

// ---------------------------------------------------------------- the page's own events

function zoomBy(steps) {
  const { state } = store;
  const boxes = [...document.querySelectorAll(".stage-box")];
  const centres = boxes.map((box) => [(box.scrollLeft + box.clientWidth / 2) / box.scrollWidth, (box.scrollTop + box.clientHeight / 2) / box.scrollHeight]);
  change({ zoom: Math.min(Math.max(state.zoom + steps, 0), ZOOMS.length - 1) });
  queueMicrotask(() => {
    for (const [index, box] of boxes.entries()) {
      box.scrollLeft = centres[index][0] * box.scrollWidth - box.clientWidth / 2;
      box.scrollTop = centres[index][1] * box.scrollHeight - box.clientHeight / 2;
    }
  });
}

/** The selected object in the middle, about a third of the view. */
function zoomTo(network) {
  const { state } = store;
  const image = imageOf(state);
  const [x1, y1, x2, y2] = boxOf(selectedObject(state, network));
  const { box } = panes.get(state.panes.indexOf(network));
  const part = Math.max((x2 - x1) / image.width, (y2 - y1) / image.height);
  const zoom = ZOOMS.findLastIndex((factor) => factor * part <= 0.4);
  change({ zoom: Math.max(0, zoom) });
  queueMicrotask(() => {
    const { width, height } = box.firstElementChild.getBoundingClientRect();
    box.scrollLeft = ((x1 + x2) / 2 / image.width) * width - box.clientWidth / 2;
    box.scrollTop = ((y1 + y2) / 2 / image.height) * height - box.clientHeight / 2;
    change(); // handles are as large as their distance allows
  });
}

function listen() {
  for (const id of ["file", "camera"]) {
    $(id).addEventListener("change", (event) => {
      asking.openFiles(event.target.files).finally(() => (event.target.value = ""));
    });
  }
  let inside = 0;
  document.addEventListener("dragenter", (event) => {
    inside += 1;
    if (event.dataTransfer?.types.includes("Files")) $("dropping").hidden = false;
  });
  document.addEventListener("dragleave", () => {
    inside -= 1;
    if (inside <= 0) $("dropping").hidden = true;
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    inside = 0;
    $("dropping").hidden = true;
    asking.openFiles(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length > 0) asking.openFiles(files);
    else if (!event.target.matches?.("input")) notify("There is no image in the clipboard.");
  });
  document.addEventListener("keydown", onKey);
  $("threshold").addEventListener("input", (event) => {
    imageOf(store.state).threshold = Number(event.target.value) / 100;
    change();
  });
  $("shapes").addEventListener("change", (event) => change({ shapes: event.target.checked }));
  $("positions").addEventListener("change", (event) => change({ positions: event.target.checked }));
  $("clear-look").addEventListener("click", asking.clearLook);
  $("close-image").addEventListener("click", asking.closeImage);
  $("compare").addEventListener("click", addPane);
  $("smaller").addEventListener("click", () => zoomBy(-1));
  $("larger").addEventListener("click", () => zoomBy(1));
  $("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]));
  $("token-dialog").addEventListener("close", () => {
    keepToken($("token").value);
    $("token").value = "";
    if (store.state.served) store.state.panes.forEach(asking.askFor);
    else asking.start();
  });
  window.addEventListener("beforeunload", (event) => {
    if (countUnexported(store.state) > 0) event.preventDefault();
  });
}

function onKey(event) {
  const { state } = store;
  if (event.key === "Escape") {
    if (state.draft) change({ draft: null });
    else if (state.correcting) change({ selected: null, tool: "select" });
    else asking.clearLook();
  } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && state.correcting) {
    event.preventDefault();
    correcting.undoLast(state.correcting);
  }
}

function theme() {
  return document.documentElement.dataset.theme ?? "auto";
}

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  const words = { auto: "Auto", light: "Light", dark: "Dark" }[name];
  $("theme-words").textContent = words;
  $("theme").setAttribute("aria-label", `Colours: ${words}`);
  localStorage.setItem("botformer-theme", name);
}

takeToken();
setTheme(localStorage.getItem("botformer-theme") ?? "auto");
listen();
renderWith(render);
await asking.start();
