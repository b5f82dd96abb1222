// Actions that ask the server: opening images, what networks say to them, and attention from a place.

import { percent, plural } from "./elements.js";
import { darkThumbnail } from "./heat.js";
import { centreOf } from "./outlines.js";
import * as server from "./server.js";
import {
  chosenMap, hasUnexported, imageOf, layersOf, networkOf, newImage, resultOf, setSize, shownObjects, uniqueName,
} from "./state.js"; // prettier-ignore
import { change, failed, notify, say, store, waiting } from "./store.js";

const { promise: known, resolve: nowKnown } = Promise.withResolvers(); // what is served: images opened before wait

export async function start() {
  try {
    const served = await server.askJson("networks");
    change({ served, panes: [served.networks[0].name], refused: "" });
    nowKnown();
    await loadExamples(served.examples);
  } catch (error) {
    failed(error, (words) => change({ refused: words }));
  }
}

// ---------------------------------------------------------------- images and answers

export async function openFiles(files) {
  const images = [...files];
  for (const file of images) await openFile(file, file.name || "image.png");
}

/** The opened image, or null where it was refused. */
async function openFile(file, wanted) {
  const { state } = store;
  if (state.refused) await start(); // the server may be back
  if (state.refused) {
    notify(state.refused);
    return null;
  }
  await known;
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
  await readImage(image);
  state.images.push(image);
  showImage(state.images.length - 1);
  return image;
}

/** The browser's own view of the file; what it cannot read (TIFF) gets its size from the server. */
async function readImage(image) {
  const img = new Image();
  img.src = image.url;
  try {
    await img.decode();
  } catch {
    return;
  }
  image.img = img;
  setSize(image, img.naturalWidth, img.naturalHeight);
  image.thumbnail = darkThumbnail(img, image.width, image.height);
}

export function showImage(index) {
  change({ current: index, query: null, looks: {}, hovered: null, selected: null, draft: null, dragged: null, zoom: 0 });
  for (const network of store.state.panes) askFor(network);
}

/** Of the current image, and of its corrections. */
export function closeImage() {
  const { state } = store;
  const image = imageOf(state);
  const lost = hasUnexported(image);
  if (lost && !confirm(`The corrections of ${image.name} were not exported. Close it all the same?`)) return;
  URL.revokeObjectURL(image.url);
  state.images = state.images.filter((other) => other !== image);
  showImage(Math.min(state.current, state.images.length - 1));
}

/** The network's answer for the current image, once. */
export async function askFor(network) {
  const image = imageOf(store.state);
  if (!image || image.answers[network]?.working || image.answers[network]?.result) return;
  const answer = { working: true };
  image.answers[network] = answer;
  change();
  try {
    const result = await server.predict(network, image.file, { onWait: waiting(answer) });
    if (!image.sized) setSize(image, result.width, result.height);
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

function inWords(result, threshold) {
  if (result.task === "classification") return result.top5.map((row) => `${row.label} ${percent(row.probability)}`).join(", ");
  const count = result.detections.filter(({ score }) => score >= threshold).length;
  return `${plural(count, "detection")} from score ${percent(threshold)} on`;
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

export async function openExample({ file, path }) {
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

export function lookFrom(x, y) {
  change({ query: { x, y } });
  for (const network of store.state.panes) follow(network);
}

export async function follow(network) {
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
    if (still()) {
      state.looks[network] = { result };
      say(`${network}: ${lookInWords(state, network, query)}`);
    }
  } catch (error) {
    failed(error, (words) => {
      if (still()) state.looks[network] = { failure: words };
      say(`${network}: ${words}`);
    });
  }
  change();
}

function lookInWords(state, network, { x, y }) {
  const layers = layersOf(state, network);
  const { layer, map, box } = chosenMap(state, layers);
  if (!map) return `attention from ${Math.round(x)}, ${Math.round(y)}`;
  const cell = map.values.indexOf(255);
  const brightX = box[0] + ((box[2] - box[0]) * ((cell % map.width) + 0.5)) / map.width;
  const brightY = box[1] + ((box[3] - box[1]) * (Math.floor(cell / map.width) + 0.5)) / map.height;
  const where = `brightest at ${Math.round(brightX)}, ${Math.round(brightY)}, ${map.most.toPrecision(2)} times the mean`;
  return `attention from ${Math.round(x)}, ${Math.round(y)}: ${layers[layer].name}, ${map.name}: ${where}`;
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

export function clearLook() {
  change({ query: null, looks: {} });
}

/** Selects it; and, where nothing is being corrected, shows attention from its centre. */
export function lookAtObject(network, key) {
  select(network, key);
  const object = shownObjects(store.state, network).find((one) => one.key === key);
  if (!object || store.state.correcting === network) return;
  const { x, y } = centreOf(object);
  lookFrom(x, y);
}

export function select(network, key) {
  change({ selected: key === null ? null : { network, key } });
}

export function hover(network, key) {
  if ((store.state.hovered?.key ?? null) === key) return;
  change({ hovered: key === null ? null : { network, key } });
}

export function retry(network) {
  delete imageOf(store.state).answers[network];
  askFor(network);
}
