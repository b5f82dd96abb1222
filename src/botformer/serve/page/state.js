// The one state of the page, and what is derived from it. Actions (page.js) change it, views only read it.

import { newRecord, objectsOf, isCorrected, isUnexported } from "./corrections.js";
import { brightest, mapsOf } from "./heat.js";

export const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8, 12];

export function initialState() {
  return {
    served: null, // GET /networks
    refused: "", // why that failed
    panes: [], // names of one or two networks
    images: [], // see newImage
    current: -1,
    examples: [], // {name, about, for, file, url}
    query: null, // {x, y} in px of the image: where attention is asked from
    looks: {}, // network -> {working, result, failure} of the query
    layer: -1, // of the map over the image; -1 is the last one
    head: 0, // 0 is the mean of the heads
    positions: true,
    shapes: true,
    hovered: null, // {network, key}
    selected: null, // {network, key}
    correcting: null, // the network whose answer is being corrected
    tool: "select", // or "outline", "box"
    draft: null, // {points, cursor}: what is being drawn
    dragged: null, // {key, object}: an object while its vertex moves
    zoom: 0, // of ZOOMS
    notices: [], // {id, words}
    working: "", // what a long request outside the panes does
  };
}

export function newImage(name, file, threshold) {
  return {
    name,
    file,
    url: URL.createObjectURL(file),
    img: null, // an HTMLImageElement, or null where the browser cannot read the file
    thumbnail: null,
    sized: false, // until the browser or the server says how large it is
    width: 4,
    height: 3,
    threshold,
    answers: {}, // network -> {working, waiting, result, failure}
    records: {}, // network -> see corrections.js
  };
}

export function setSize(image, width, height) {
  Object.assign(image, { sized: true, width, height });
}

export function networkOf(state, name) {
  return state.served.networks.find((network) => network.name === name);
}

export function imageOf(state) {
  return state.images[state.current] ?? null;
}

export function resultOf(image, network) {
  return image?.answers[network]?.result ?? null;
}

export function recordOf(image, network) {
  return image.records[network] ?? newRecord();
}

/** The objects of a pane: corrected where it is being corrected, with the one that is being dragged as it is now. */
export function shownObjects(state, network) {
  const image = imageOf(state);
  const detections = resultOf(image, network)?.detections;
  if (!detections) return [];
  const correcting = state.correcting === network;
  const objects = objectsOf(detections, image.threshold, correcting ? recordOf(image, network).now : undefined);
  if (!correcting || !state.dragged) return objects;
  return objects.map((object) => (object.key === state.dragged.key ? state.dragged.object : object));
}

export function selectedObject(state, network) {
  if (state.selected?.network !== network) return null;
  return shownObjects(state, network).find(({ key }) => key === state.selected.key) ?? null;
}

/** The maps of every layer of a pane, null where the term is missing, and the part of the image that its cells cover. */
export function layersOf(state, network) {
  const result = state.looks[network]?.result;
  if (!result) return [];
  const [x1, y1, x2, y2] = result.seen_box_xyxy;
  const [height, width] = result.seen_px;
  return result.layers.map((layer) => {
    const right = x1 + ((x2 - x1) * layer.width * layer.stride_px) / width; // the last cell may reach beyond
    const bottom = y1 + ((y2 - y1) * layer.height * layer.stride_px) / height;
    return { ...layer, box: [x1, y1, right, bottom], maps: mapsOf(layer, state.positions) };
  });
}

/** The map over the image: {layer, head, map, box}, as near to the chosen one as this network has. */
export function chosenMap(state, layers) {
  if (layers.length === 0) return null;
  const layer = state.layer < 0 ? layers.length - 1 : Math.min(state.layer, layers.length - 1);
  const head = Math.min(state.head, layers[layer].maps.length - 1);
  return { layer, head, map: layers[layer].maps[head], box: layers[layer].box };
}

/** Where the colours end, for all layers, heads and panes: one colour scale. */
export function sharedLimit(allLayers) {
  return brightest(allLayers.flat().flatMap(({ maps }) => maps));
}

/** The corrected images of a network, as corrections.js exports them. */
export function correctedImages(state, network) {
  return state.images
    .filter((image) => resultOf(image, network) && isCorrected(recordOf(image, network)))
    .map((image) => ({ ...image, image, record: recordOf(image, network), result: resultOf(image, network) }));
}

export function hasUnexported(image) {
  return Object.values(image.records).some((record) => isUnexported(record, image.threshold));
}

/** Images. */
export function countUnexported(state) {
  return state.images.filter(hasUnexported).length;
}

/** A name that no other image has: both would be one file in an export. */
export function uniqueName(state, name) {
  const taken = new Set(state.images.map((image) => image.name));
  const [, stem, suffix] = /^(.*?)(\.[^.]*)?$/.exec(name);
  for (let number = 2; taken.has(name); number += 1) name = `${stem}-${number}${suffix ?? ""}`;
  return name;
}
