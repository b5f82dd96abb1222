// One network's pane: the head, the image (stage.js) and beside it classes or detections, correction, and attention.

import { correctedImages, imageOf, recordOf, resultOf, selectedObject, shownObjects, chosenMap } from "./state.js";
import { isUnexported } from "./corrections.js";
import { attribute, element, keyed, partsOf, percent, plural, text } from "./elements.js";
import { paintLegend, paintTile } from "./heat.js";
import { colourOf, listenToStage, renderStage } from "./stage.js";

const KINDS = { classifier: "classifier", mask_rcnn: "Mask R-CNN", faster_rcnn: "Faster R-CNN", keypoint_rcnn: "Keypoint R-CNN" };
const TOOLS = { select: "Change", outline: "Draw outline", box: "Draw box" };
const FORMATS = {
  detection: { coco: "COCO", label_studio: "Label Studio" },
  classification: { folders: "Class folders", label_studio: "Label Studio" },
};
const VISIBILITY = ["not there", "hidden", "visible"];

/** A pane whose network is `network()`; render with renderPane. */
export function makePane(template, network, store, actions) {
  const parts = partsOf(template.content.cloneNode(true).firstElementChild);
  paintLegend(parts.scale);
  parts.network.addEventListener("change", () => actions.chooseNetwork(network(), parts.network.value));
  parts.close.addEventListener("click", () => actions.closePane(network()));
  parts.correct.addEventListener("click", () => actions.correct(network()));
  parts.retry.addEventListener("click", () => actions.retry(network()));
  parts.near.addEventListener("click", () => actions.zoomTo(network()));
  parts.remove.addEventListener("click", () => actions.removeSelected(network()));
  parts.undo.addEventListener("click", () => actions.undo(network()));
  parts.checked.addEventListener("change", () => actions.setChecked(network(), parts.checked.checked));
  parts.label.addEventListener("change", () => actions.setLabel(network(), parts.label.value));
  parts.export.addEventListener("click", () => actions.exportCorrections(network(), parts.format.value));
  listenToList(parts.list, network, actions);
  listenToStage(parts, network, store, actions);
  return parts;
}

/** `limit` is the end of the colour scale that all panes share; `layers` those of this network's answer. */
export function renderPane(parts, state, network, layers, limit, actions) {
  const image = imageOf(state);
  const result = resultOf(image, network.name);
  const answer = image.answers[network.name] ?? {};
  const objects = shownObjects(state, network.name);
  const look = state.looks[network.name] ?? {};
  const correcting = state.correcting === network.name;
  const chosen = correcting || !look.result ? null : chosenMap(state, layers);
  const seen = look.result?.seen_box_xyxy;

  renderHead(parts, state, network, result);
  parts.root.classList.toggle("correcting", correcting);
  parts.root.classList.toggle("looking", Boolean(chosen?.map));
  renderStage(parts, state, { network, answered: Boolean(result), objects, chosen, seen, limit });
  renderProgress(parts, answer, look);
  const brighter = image.thumbnail?.brighter ?? 1;
  text(parts.hint, hintFor(state, network, correcting) + (brighter > 1 ? ` The dark image is shown ${brighter.toFixed(1)} times brighter.` : ""));

  parts.failed.hidden = !answer.failure;
  text(parts.failure, answer.failure ?? "");
  parts.classes.hidden = network.task !== "classification" || Boolean(answer.failure);
  parts.detections.hidden = network.task !== "detection" || Boolean(answer.failure);
  if (network.task === "classification") renderClasses(parts, result, image, network);
  else renderDetections(parts, state, network, result, objects);
  renderEditor(parts, state, network, result, image, correcting, actions);
  renderLooks(parts, state, network, { look, layers, limit, chosen, image, correcting }, actions);
}

function renderHead(parts, state, network, result) {
  const others = state.panes.filter((name) => name !== network.name);
  const choices = state.served.networks.filter(({ name }) => !others.includes(name));
  keyed(parts.network, choices, ({ name }) => name, ({ name }) => element("option", { value: name, textContent: name }));
  if (parts.network.value !== network.name) parts.network.value = network.name;
  const millions = `${(network.parameters / 1e6).toFixed(1)} M parameters`;
  text(parts.facts, [network.row, KINDS[network.kind] ?? network.kind, plural(network.classes.length, "class", "classes"), millions].join(" · "));
  parts.close.hidden = state.panes.length === 1;
  attribute(parts.close, "aria-label", `Close ${network.name}`);
  attribute(parts.root, "aria-label", network.name);
  attribute(parts.correct, "aria-pressed", String(state.correcting === network.name));
  parts.correct.disabled = !result;
}

function renderProgress({ progress, stage }, answer, look) {
  const words = answer.working ? (answer.waiting ?? "Looking at the image …") : look.waiting;
  progress.hidden = !words;
  text(progress, words ?? "");
  attribute(stage, "aria-busy", String(Boolean(answer.working)));
}

function hintFor(state, network, correcting) {
  if (correcting && state.tool === "outline") return "Click point after point and end on the first one (or Enter), or draw the outline in one stroke.";
  if (correcting && state.tool === "box") return "Drag from one corner to the opposite one.";
  if (correcting && network.task === "detection") return "Choose a shape, drag its points; a small point between two adds one, a double click or Delete removes one.";
  if (correcting) return "Choose the right class.";
  if (network.attention.length === 0) return `${network.name} has no attention layer (${network.row}): there is nothing to see from a point.`;
  return state.query ? "" : "Click anywhere on the image to see where attention looks from there.";
}

// ---------------------------------------------------------------- classes and detections

function renderClasses(parts, result, image, network) {
  const right = recordOf(image, network.name).now.label;
  const rows = result?.top5 ?? Array.from({ length: Math.min(5, network.classes.length) }, () => null);
  keyed(parts.bars, rows.map((row, index) => [index, row]), ([index]) => index, makeBar, (item, [index, row]) => {
    const [name, track, value] = item.children;
    item.classList.toggle("waiting", row === null);
    item.classList.toggle("right", row !== null && right === row.label);
    text(name, row?.label ?? "–");
    text(value, row ? percent(row.probability, row.probability > 0.9995 || row.probability < 0.0005 ? 2 : 1) : "");
    track.firstChild.style.width = `${100 * (row?.probability ?? 0)}%`;
    item.classList.toggle("first", index === 0);
  });
}

function makeBar() {
  const track = element("span", { className: "track" }, element("span", { className: "bar" }));
  attribute(track, "aria-hidden", "true");
  return element("li", {}, element("span", { className: "name" }), track, element("span", { className: "value" }));
}

function renderDetections(parts, state, network, result, objects) {
  parts.list.style.setProperty("--rows", Math.max(3, result?.detections.length ?? 8));
  text(parts.count, result ? `${objects.length} of ${result.detections.length}` : "");
  parts.none.hidden = !result || objects.length > 0;
  const selected = state.selected?.network === network.name ? state.selected.key : null;
  const hovered = state.hovered?.network === network.name ? state.hovered.key : null;
  const stop = objects.some(({ key }) => key === selected) ? selected : objects[0]?.key; // the one that Tab reaches
  keyed(parts.list, objects, ({ key }) => key, makeRow, (row, object) => {
    const [swatch, name, score] = row.children;
    swatch.style.background = colourOf(network, object);
    text(name, object.label);
    text(score, object.score === null ? "added" : object.byPerson ? "corrected" : percent(object.score));
    attribute(row, "tabindex", object.key === stop ? 0 : -1);
    attribute(row, "aria-selected", String(object.key === selected));
    row.classList.toggle("hovered", object.key === hovered);
  });
  const shown = hovered ?? selected;
  if (shown !== parts.list.dataset.shown) {
    parts.list.dataset.shown = shown;
    scrollTo(parts.list, shown);
  }
}

/** Inside the list only: scrollIntoView would move the page too. */
function scrollTo(list, key) {
  const row = key && list.querySelector(`[data-key="${key}"]`);
  if (!row || row.matches(":hover")) return;
  const [above, below] = [row.offsetTop - list.scrollTop, row.offsetTop + row.offsetHeight - list.scrollTop - list.clientHeight];
  if (above < 0) list.scrollTop += above;
  else if (below > 0) list.scrollTop += below;
}

function makeRow() {
  const row = element("li", {}, element("span", { className: "swatch" }), element("span", { className: "name" }), element("span", { className: "score" }));
  attribute(row, "role", "option");
  return row;
}

function listenToList(list, network, actions) {
  const keyOf = (event) => event.target.closest("[data-key]")?.dataset.key ?? null;
  list.addEventListener("pointerover", (event) => actions.hover(network(), keyOf(event)));
  list.addEventListener("pointerleave", () => actions.hover(network(), null));
  list.addEventListener("focusin", (event) => actions.select(network(), keyOf(event)));
  list.addEventListener("click", (event) => {
    const key = keyOf(event);
    if (key !== null) actions.lookAtObject(network(), key);
  });
  list.addEventListener("keydown", (event) => {
    const rows = [...list.children];
    const here = rows.indexOf(event.target);
    const moves = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: rows.length - 1, PageDown: here + 10, PageUp: here - 10 };
    if (event.key in moves) {
      event.preventDefault();
      rows[Math.min(Math.max(moves[event.key], 0), rows.length - 1)]?.focus({ preventScroll: true });
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      actions.lookAtObject(network(), keyOf(event));
    } else if (event.key === "Delete") {
      event.preventDefault();
      actions.removeSelected(network());
    }
  });
}

// ---------------------------------------------------------------- correction

function renderEditor(parts, state, network, result, image, correcting, actions) {
  parts.editor.hidden = !correcting || !result;
  if (parts.editor.hidden) return;
  const record = recordOf(image, network.name);
  const detects = network.task === "detection";
  parts.tools.hidden = !detects;
  parts.remove.hidden = !detects;
  const tools = Object.keys(TOOLS).filter((tool) => tool !== "outline" || network.kind === "mask_rcnn");
  keyed(parts.tools, tools, (tool) => tool, (tool) => makeTool(tool, network, actions), (label, tool) => {
    label.firstChild.checked = state.tool === tool;
  });
  parts["label-field"].hidden = detects;
  if (!detects) fillClasses(parts.label, network, record.now.label ?? result.top5[0].label);
  renderChosen(parts.chosen, state, network, actions);
  parts.near.hidden = !detects;
  parts.near.disabled = !selectedObject(state, network.name);
  parts.remove.disabled = !selectedObject(state, network.name);
  parts.undo.disabled = record.past.length === 0;
  parts.checked.checked = record.now.checked;

  const corrected = correctedImages(state, network.name);
  const waiting = corrected.filter((one) => isUnexported(one.record, one.threshold)).length;
  const counted = corrected.length === 0 ? "No image corrected yet." : `${plural(corrected.length, "image")} corrected, ${waiting === 0 ? "all" : waiting} ${waiting === 0 ? "exported" : "not exported yet"}.`;
  const rule = detects ? " Detections from the threshold on belong to an image, and all that you changed." : "";
  text(parts.total, counted + rule);
  const formats = Object.entries(FORMATS[network.task]);
  keyed(parts.format, formats, ([value]) => value, ([value, words]) => element("option", { value, textContent: words }));
  parts.export.disabled = corrected.length === 0 || Boolean(state.working);
}

function makeTool(tool, network, actions) {
  const input = element("input", { type: "radio", name: `tool-${network.name}`, value: tool });
  input.addEventListener("change", () => actions.setTool(tool));
  return element("label", { className: "pill" }, input, element("span", { textContent: TOOLS[tool] }));
}

function fillClasses(select, network, value) {
  keyed(select, network.classes, (name) => name, (name) => element("option", { value: name, textContent: name }));
  if (select.value !== value) select.value = value;
}

/** Class and key points of the selected object. */
function renderChosen(chosen, state, network, actions) {
  const object = selectedObject(state, network.name);
  const rows = [];
  if (object) {
    rows.push({ key: "class", label: "Class", choices: network.classes, value: object.label, change: (label) => actions.setClass(network.name, label) });
    for (const [index, name] of (network.keypoints ?? []).entries()) {
      const v = object.keypoints?.[index]?.[2] ?? 0;
      rows.push({ key: `k${index}`, label: name, choices: VISIBILITY, value: VISIBILITY[v], change: (word) => actions.setVisibility(network.name, index, VISIBILITY.indexOf(word)) });
    }
  }
  keyed(chosen, rows, ({ key }) => key, ({ label }) => element("label", { className: "field" }, `${label} `, element("select")), (field, row) => {
    const select = field.querySelector("select");
    keyed(select, row.choices, (choice) => choice, (choice) => element("option", { value: choice, textContent: choice }));
    select.value = row.value;
    select.onchange = () => row.change(select.value);
  });
}

// ---------------------------------------------------------------- attention

function renderLooks(parts, state, network, { look, layers, limit, chosen, image, correcting }, actions) {
  const asked = state.query !== null && network.attention.length > 0 && !correcting;
  parts.looks.hidden = !asked;
  if (!asked) return;
  const { x, y } = state.query;
  text(parts.from, `from ${Math.round(x)}, ${Math.round(y)}`);
  const missing = layers.length > 0 && layers.every(({ maps }) => maps.every((map) => map === null));
  const words = look.failure ?? (missing ? "This network's attention has no content term that could be shown alone." : "");
  parts["looks-words"].hidden = !words;
  text(parts["looks-words"], words);
  parts.legend.hidden = !chosen?.map;
  text(parts.limit, `${Number(limit.toPrecision(2)).toLocaleString("en")} ×`);
  attribute(parts.layers, "aria-busy", String(Boolean(look.working)));

  const rows = look.failure ? [] : layers.map((layer, index) => ({ ...layer, index }));
  keyed(parts.layers, rows, ({ name }) => name, makeLayer, (row, layer) => {
    const [caption, tiles] = row.children;
    text(caption.lastChild, ` ${layer.height} × ${layer.width} cells`);
    tiles.style.setProperty("--columns", Math.min(6, layer.maps.length));
    const maps = layer.maps.map((map, head) => ({ map, head }));
    keyed(tiles, maps, ({ head }) => head, ({ head }) => makeTile(network, layer, head, actions), (tile, { map, head }) => {
      const [input, canvas, name] = tile.children;
      input.disabled = map === null;
      input.checked = chosen?.layer === layer.index && chosen?.head === head;
      text(name, head === 0 ? "mean" : `head ${head}`);
      if (map && (tile.map !== map || tile.limit !== limit)) {
        Object.assign(tile, { map, limit });
        const query = { x: (layer.query_cell[1] + 0.5) / map.width, y: (layer.query_cell[0] + 0.5) / map.height };
        paintTile(canvas, image.thumbnail, layer.box, map, limit, query);
      }
    });
  });
}

function makeLayer({ name }) {
  const caption = element("p", { className: "layer-name" }, element("b", { textContent: name.replace(/^backbone\./, "") }), "");
  return element("div", { className: "layer" }, caption, element("div", { className: "tiles" }));
}

function makeTile(network, layer, head, actions) {
  const input = element("input", { type: "radio", name: `map-${network.name}`, className: "hidden" });
  attribute(input, "aria-label", `${layer.name}, ${head === 0 ? "mean of the heads" : `head ${head}`}`);
  input.addEventListener("change", () => actions.chooseMap(layer.index, head));
  const canvas = element("canvas");
  return element("label", { className: "tile" }, input, canvas, element("span"));
}
