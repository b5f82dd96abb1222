// Actions that correct a network's answer for the current image, and export what was corrected.

import { annotationsOf, asExported, commit, undo, withObject, withoutObject } from "./corrections.js";
import { element, plural } from "./elements.js";
import { boxOf, sorted } from "./outlines.js";
import * as server from "./server.js";
import { correctedImages, imageOf, networkOf, recordOf, selectedObject, shownObjects } from "./state.js";
import { change, failed, notify, say, store } from "./store.js";

export function correct(network) {
  const on = store.state.correcting !== network;
  change({ correcting: on ? network : null, tool: "select", draft: null, dragged: null });
}

function record(network, now, step) {
  const image = imageOf(store.state);
  image.records[network] = commit(recordOf(image, network), now(recordOf(image, network).now), step);
  change();
}

export function changeObject(network, object, step) {
  record(network, (now) => withObject(now, object), step);
}

/** What was drawn becomes an object of the class that was added or selected last. */
export function add(network, shape) {
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

export function removeSelected(network) {
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

export function setVisibility(network, index, visibility) {
  const object = selectedObject(store.state, network);
  const names = networkOf(store.state, network).keypoints;
  const keypoints = object.keypoints ?? names.map(() => [0, 0, 0]);
  const [x1, y1, x2, y2] = boxOf(object);
  const [x, y, before] = keypoints[index];
  const place = before === 0 && x === 0 && y === 0 ? [(x1 + x2) / 2, (y1 + y2) / 2] : [x, y];
  changeObject(network, { ...object, keypoints: keypoints.with(index, [...place, visibility]) });
}

export function undoLast(network) {
  const image = imageOf(store.state);
  image.records[network] = undo(recordOf(image, network));
  change({ draft: null, dragged: null });
  say("Undone.");
}

export async function exportCorrections(network, format) {
  const { state } = store;
  const images = correctedImages(state, network);
  change({ working: "Exporting …" });
  try {
    const files = images.map(({ name, file }) => [name, file]);
    const zip = await server.corrections(format, annotationsOf(networkOf(state, network), images), files, {
      onWait: (seconds) => change({ working: `The server is busy; trying again in ${plural(seconds, "second")} …` }),
    });
    save(zip, `${network}-corrections-${format}.zip`);
    for (const { image, record, threshold } of images) {
      image.records[network] = asExported(recordOf(image, network), record, threshold);
    }
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

export function drag(object) {
  change({ dragged: { key: object.key, object } });
}

/** The end of a drag: the object as it is now, or null where nothing moved. */
export function drop(object) {
  change({ dragged: null });
  if (object) changeObject(store.state.correcting, object);
}

export function setTool(tool) {
  change({ tool, draft: null });
}

export function setChecked(network, checked) {
  record(network, (now) => ({ ...now, checked }));
}

/** The right class of the whole image. */
export function setLabel(network, label) {
  record(network, (now) => ({ ...now, label }));
}

/** The class of the selected object. */
export function setClass(network, label) {
  const object = selectedObject(store.state, network);
  changeObject(network, { ...object, label, category_id: idOf(networkOf(store.state, network), label) });
}
