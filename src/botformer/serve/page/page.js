// Starts the page, holds its actions, and renders everything after each change: state -> elements, one direction.

import { annotationsOf, asExported, commit, objectOf, undo, withObject, withoutObject } from "./corrections.js";
import { attribute, element, keyed, percent, plural, text } from "./elements.js";
import { darkThumbnail } from "./heat.js";
import { boxOf, centreOf, sorted } from "./outlines.js";
import { makePane, renderPane } from "./pane.js";
import * as server from "./server.js";
import {
  ZOOMS, correctedImages, countUnexported, imageOf, initialState, layersOf, networkOf, newImage, recordOf,
  resultOf, selectedObject, sharedLimit, shownObjects, uniqueName,
} from "./state.js"; // prettier-ignore

const $ = (id) => document.getElementById(id);
const store = { state: initialState() };
const panes = new Map(); // position -> parts
const { promise: known, resolve: nowKnown } = Promise.withResolvers(); // what the server has: images opened before wait
const THEMES = ["auto", "light", "dark"];

/** Applies changes and renders once, however many changes there are in this turn. */
function change(patch) {
  Object.assign(store.state, patch);
  if (store.planned) return;
  store.planned = true;
  queueMicrotask(() => {
    store.planned = false;
    render(store.state);
  });
}

function say(words) {
  $("status").textContent = words;
}

function notify(words) {
  const { notices } = store.state;
  if (notices.some((notice) => notice.words === words)) return;
  const id = (notices.at(-1)?.id ?? 0) + 1;
  change({ notices: [...notices, { id, words }].slice(-3) });
}

// ---------------------------------------------------------------- images and answers

async function openFiles(files) {
  const images = [...files];
  for (const file of images) await openFile(file, file.name || "image.png");
}

/** The opened image, or null where it was refused. */
async function openFile(file, wanted) {
  await known;
  const { state } = store;
  const limit = state.served.limits.bytes;
  if (file.size > limit) {
    notify(`${wanted} has ${megabytes(file.size)}; this server takes up to ${megabytes(limit)}. Make it smaller and open it again.`);
    return null;
  }
  if (file.size === 0) {
    notify(`${wanted} is empty.`);
    return null;
  }
  const image = newImage(uniqueName(state, wanted), file, imageOf(state)?.threshold ?? 0.5);
  await readPicture(image);
  state.images.push(image);
  showImage(state.images.length - 1);
  return image;
}

/** The browser's own view of the file; what it cannot read (TIFF) gets its size from the server. */
async function readPicture(image) {
  const picture = new Image();
  picture.src = image.url;
  try {
    await picture.decode();
  } catch {
    return;
  }
  image.picture = picture;
  [image.width, image.height] = [picture.naturalWidth, picture.naturalHeight];
  image.thumbnail = darkThumbnail(picture, image.width, image.height);
}

function showImage(index) {
  change({ current: index, query: null, looks: {}, hovered: null, selected: null, draft: null, dragged: null, zoom: 0 });
  for (const network of store.state.panes) askFor(network);
}

/** The network's answer for the current image, once. */
async function askFor(network) {
  const image = imageOf(store.state);
  if (!image || image.answers[network]?.working || image.answers[network]?.result) return;
  const answer = { working: true };
  image.answers[network] = answer;
  change();
  try {
    const result = await server.predict(network, image.file, { onWait: waiting(answer) });
    if (image.width === 0) [image.width, image.height] = [result.width, result.height];
    image.answers[network] = { result };
    nameKeypoints(networkOf(store.state, network), result);
    if (image === imageOf(store.state)) say(`${network}: ${inWords(result, image.threshold)}`);
  } catch (error) {
    failed(error, (words) => {
      image.answers[network] = { failure: words };
      say(`${network}: ${words}`);
    });
  }
  change();
}

/** Older runs do not say what their key points are called. */
function nameKeypoints(network, { detections }) {
  const points = detections?.[0]?.keypoints ?? [];
  if (points.length > 0 && network.keypoints.length === 0) network.keypoints = points.map((_, index) => `point ${index + 1}`);
}

function waiting(where) {
  return (seconds) => {
    where.waiting = `The server is busy; trying again in ${plural(seconds, "second")} …`;
    change();
  };
}

function inWords(result, threshold) {
  if (result.task === "classification") return result.top5.map((row) => `${row.label} ${percent(row.probability)}`).join(", ");
  const count = result.detections.filter(({ score }) => score >= threshold).length;
  return `${plural(count, "detection")} from score ${percent(threshold)} on`;
}

function failed(error, tell) {
  if (error.status === 401) $("token-dialog").showModal();
  if (error instanceof server.ServerError) tell(error.message);
  else throw error;
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

async function loadExamples(examples) {
  for (const example of examples) {
    try {
      const file = await (await server.ask(example.url)).blob();
      const loaded = { ...example, file, url: URL.createObjectURL(file), path: example.url };
      change({ examples: [...store.state.examples, loaded] });
    } catch (error) {
      failed(error, () => notify(`The example ${example.name} could not be loaded.`));
    }
  }
}

async function openExample({ file, path }) {
  const { images } = store.state;
  const opened = images.findIndex((image) => image.example === path);
  if (opened >= 0) {
    showImage(opened);
    return;
  }
  const image = await openFile(file, path.split("/").at(-1));
  if (image) image.example = path;
}

// ---------------------------------------------------------------- attention

const following = new Set(); // panes that are being asked; the latest place wins

function lookFrom(x, y) {
  change({ query: { x, y } });
  for (const network of store.state.panes) follow(network);
}

async function follow(network) {
  const { state } = store;
  const image = imageOf(state);
  if (following.has(network) || networkOf(state, network).attention.length === 0 || !resultOf(image, network)) return;
  following.add(network);
  let asked = null;
  while (state.query && state.query !== asked && imageOf(state) === image && state.panes.includes(network)) {
    asked = state.query;
    await look(network, image, asked);
  }
  following.delete(network);
  if (state.query && imageOf(state) !== image) follow(network);
}

async function look(network, image, query) {
  const { state } = store;
  const place = { ...state.looks[network], working: true };
  state.looks[network] = place;
  change();
  const still = () => imageOf(state) === image && state.query;
  try {
    const result = await lookAgainIfForgotten(network, image, query, place);
    if (still()) state.looks[network] = { result };
  } catch (error) {
    failed(error, (words) => {
      if (still()) state.looks[network] = { failure: words };
      say(`${network}: ${words}`);
    });
  }
  change();
}

/** The server keeps the last images only; one that it no longer has is sent again. */
async function lookAgainIfForgotten(network, image, query, place) {
  const options = { onWait: waiting(place) };
  const ask = () => server.attention(resultOf(image, network).image, network, query, options);
  try {
    return await ask();
  } catch (error) {
    if (error.status !== 404) throw error;
    const result = await server.predict(network, image.file, options);
    image.answers[network] = { result };
    return ask();
  }
}

function clearLook() {
  change({ query: null, looks: {} });
}

/** Selects it; and, where nothing is being corrected, shows attention from its centre. */
function lookAtObject(network, key) {
  select(network, key);
  const object = shownObjects(store.state, network).find((one) => one.key === key);
  if (!object || store.state.correcting === network) return;
  const { x, y } = centreOf(object);
  lookFrom(x, y);
}

function select(network, key) {
  change({ selected: key === null ? null : { network, key } });
}

function hover(network, key) {
  if ((store.state.hovered?.key ?? null) === key) return;
  change({ hovered: key === null ? null : { network, key } });
}

// ---------------------------------------------------------------- panes

function chooseNetwork(from, to) {
  const { state } = store;
  change({ panes: state.panes.map((name) => (name === from ? to : name)), correcting: null, selected: null, hovered: null, draft: null });
  askFor(to).then(() => follow(to));
}

function addPane() {
  const { state } = store;
  const other = state.served.networks.find(({ name }) => !state.panes.includes(name));
  if (!other) return;
  change({ panes: [...state.panes, other.name] });
  askFor(other.name).then(() => follow(other.name));
}

function closePane(network) {
  const { state } = store;
  const panes = state.panes.filter((name) => name !== network);
  change({ panes, correcting: state.correcting === network ? null : state.correcting });
}

// ---------------------------------------------------------------- correction

function correct(network) {
  const on = store.state.correcting !== network;
  change({ correcting: on ? network : null, tool: "select", draft: null, dragged: null });
}

function record(network, now, step) {
  const image = imageOf(store.state);
  image.records[network] = commit(recordOf(image, network), now(recordOf(image, network).now), step);
  change();
}

function changeObject(network, object, step) {
  record(network, (now) => withObject(now, object), step);
}

/** What was drawn becomes an object of the class that was added or selected last. */
function add(network, shape) {
  const { state } = store;
  const of = networkOf(state, network);
  const now = recordOf(imageOf(state), network).now;
  const template = selectedObject(state, network) ?? now.added.at(-1);
  const number = Math.max(-1, ...now.added.map(({ key }) => Number(key.slice(1)))) + 1;
  const label = template?.label ?? of.classes[0];
  const drawn = shape.box ? { box: sorted(shape.box) } : shape;
  const object = { key: `a${number}`, label, category_id: idOf(of, label), score: null, keypoints: null, ...drawn };
  changeObject(network, object);
  change({ draft: null, tool: "select", selected: { network, key: object.key } });
  say(`Added: ${label}. Its class can be changed under Correction.`);
}

function idOf(network, label) {
  const index = network.classes.indexOf(label);
  return network.category_ids?.[index] ?? index + 1;
}

function removeSelected(network) {
  const { state } = store;
  const object = selectedObject(state, network);
  if (!object || state.correcting !== network) return;
  const objects = shownObjects(state, network);
  const next = objects[objects.findIndex(({ key }) => key === object.key) + 1] ?? objects.at(-2);
  record(network, (now) => withoutObject(now, object.key));
  change({ selected: next ? { network, key: next.key } : null });
  say(`Deleted: ${object.label}.`);
  queueMicrotask(() => document.querySelector(`[role="option"][aria-selected="true"]`)?.focus({ preventScroll: true }));
}

function setVisibility(network, index, visibility) {
  const object = selectedObject(store.state, network);
  const names = networkOf(store.state, network).keypoints;
  const keypoints = object.keypoints ?? names.map(() => [0, 0, 0]);
  const [x1, y1, x2, y2] = boxOf(object);
  const [x, y, before] = keypoints[index];
  const place = before === 0 && x === 0 && y === 0 ? [(x1 + x2) / 2, (y1 + y2) / 2] : [x, y];
  changeObject(network, { ...object, keypoints: keypoints.with(index, [...place, visibility]) });
}

function undoLast(network) {
  const image = imageOf(store.state);
  image.records[network] = undo(recordOf(image, network));
  change({ draft: null, dragged: null });
  say("Undone.");
}

async function exportCorrections(network, format) {
  const { state } = store;
  const images = correctedImages(state, network);
  change({ working: "Exporting …" });
  try {
    const files = images.map(({ name, file }) => [name, file]);
    const zip = await server.corrections(format, annotationsOf(networkOf(state, network), images), files, {
      onWait: (seconds) => change({ working: `The server is busy; trying again in ${plural(seconds, "second")} …` }),
    });
    save(zip, `${network}-corrections-${format}.zip`);
    for (const { image, record, threshold } of images) image.records[network] = asExported(record, threshold);
    say(`${plural(images.length, "image")} exported.`);
  } catch (error) {
    failed(error, (words) => notify(`Nothing was exported. ${words}`));
  }
  change({ working: "" });
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const actions = {
  chooseNetwork, closePane, correct, removeSelected, setVisibility, exportCorrections, add, select, hover, lookFrom, lookAtObject, zoomTo,
  retry: (network) => {
    delete imageOf(store.state).answers[network];
    askFor(network);
  },
  change: changeObject,
  undo: undoLast,
  draft: (draft) => change({ draft }),
  drag: (object) => change({ dragged: { key: object.key, object } }),
  drop: (object) => {
    change({ dragged: null });
    if (object) changeObject(store.state.correcting, object);
  },
  setTool: (tool) => change({ tool, draft: null }),
  setChecked: (network, checked) => record(network, (now) => ({ ...now, checked })),
  setLabel: (network, label) => record(network, (now) => ({ ...now, label })),
  setClass: (network, label) => {
    const object = selectedObject(store.state, network);
    changeObject(network, { ...object, label, category_id: idOf(networkOf(store.state, network), label) });
  },
  chooseMap: (layer, head) => change({ layer, head }),
}; // prettier-ignore

// ---------------------------------------------------------------- state -> elements

function render(state) {
  renderNotices(state);
  if (!state.served) return;
  const image = imageOf(state);
  renderStrip(state);
  const ready = image !== null && image.width > 0;
  const unreadable = image !== null && !ready; // waits for the server to say how large it is, or to refuse it
  $("welcome").hidden = image !== null;
  $("controls").hidden = image === null;
  $("panes").hidden = image === null;
  $("panes").dataset.count = state.panes.length;
  document.body.classList.toggle("opened", image !== null);
  if (image === null) return;
  if (unreadable) [image.width, image.height] = [4, 3];
  const networks = state.panes.map((name) => networkOf(state, name));
  const layers = networks.map(({ name }) => layersOf(state, name));
  const limit = sharedLimit(layers);
  renderControls(state, image, networks, layers);
  keyed($("panes"), networks.map((_, index) => index), (index) => index, makePaneAt, (_, index) => {
    renderPane(panes.get(index), state, networks[index], layers[index], limit, actions);
  });
  if (unreadable) [image.width, image.height] = [0, 0];
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
    button.onclick = () => showImage(index);
  });
  const chosen = state.examples.filter((example) => example.for.some((name) => state.panes.includes(name)));
  const examples = chosen.length > 0 ? chosen : state.examples;
  $("examples-row").hidden = examples.length === 0;
  keyed($("examples"), examples, ({ url }) => url, makeThumb, (item, example) => {
    const button = item.firstChild;
    attribute(button, "aria-label", `Example ${example.name}: ${example.about}`);
    attribute(button, "title", example.about);
    button.onclick = () => openExample(example);
  });
  const count = countUnexported(state);
  text($("unexported"), count === 0 ? "" : `${plural(count, "correction")} not exported`);
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
      openFiles(event.target.files).finally(() => (event.target.value = ""));
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
    openFiles(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length > 0) openFiles(files);
    else if (!event.target.matches?.("input")) notify("There is no image in the clipboard.");
  });
  document.addEventListener("keydown", onKey);
  $("threshold").addEventListener("input", (event) => {
    imageOf(store.state).threshold = Number(event.target.value) / 100;
    change();
  });
  $("shapes").addEventListener("change", (event) => change({ shapes: event.target.checked }));
  $("positions").addEventListener("change", (event) => change({ positions: event.target.checked }));
  $("clear-look").addEventListener("click", clearLook);
  $("compare").addEventListener("click", addPane);
  $("smaller").addEventListener("click", () => zoomBy(-1));
  $("larger").addEventListener("click", () => zoomBy(1));
  $("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]));
  $("token-dialog").addEventListener("close", () => {
    server.keepToken($("token").value);
    $("token").value = "";
    if (store.state.served) store.state.panes.forEach(askFor);
    else start();
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
    else clearLook();
  } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && state.correcting) {
    event.preventDefault();
    undoLast(state.correcting);
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

async function start() {
  try {
    const served = await server.askJson("networks");
    change({ served, panes: [served.networks[0].name] });
    nowKnown();
    $("served").textContent = `Served here: ${served.networks.map(({ name }) => name).join(", ")}.`;
    $("about").textContent = `botformer ${served.version}. Images go to this server and nowhere else.`;
    await loadExamples(served.examples);
  } catch (error) {
    failed(error, (words) => {
      $("served").textContent = words;
      notify(words);
    });
  }
}

server.takeToken();
setTheme(localStorage.getItem("botformer-theme") ?? "auto");
listen();
await start();
