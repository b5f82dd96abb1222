// The image of a pane with everything over it: heat map, outlines, handles, and the pointer and keys on it.

import { attribute, keyed, percent, svgElement, text } from "./elements.js";
import { paintMap } from "./heat.js";
import { boxArea, boxOf, corners, distance, middle, pathOf, simplify, withNewVertex, withVertex, withoutVertex } from "./outlines.js";
import { ZOOMS, imageOf, selectedObject } from "./state.js";

// As plots/instances.py: bright enough for a dark micrograph, deep enough for snow.
const COLOURS = [
  "#4fb8ff", "#ff9f1c", "#2fd48a", "#ff74c8", "#f7ec4a", "#ff5a4d",
  "#b4f03c", "#45e6e6", "#a98bff", "#d9a066", "#5c7cff", "#f2b8ff",
]; // prettier-ignore
const OF_INSTANCES = 8; // without violet, the colour of stained nuclei
const LONG_EDGE = 26; // screen px from which an edge has a handle in its middle
const FREEHAND = 8; // points of one stroke that make it a drawn outline rather than a click

/** A colour per class; where there is only one, neighbours in the list differ instead. */
export function colourOf(network, object) {
  if (network.classes.length > 1) return COLOURS[Math.max(0, network.classes.indexOf(object.label)) % COLOURS.length];
  const number = Number(object.key.slice(1));
  return COLOURS[number % OF_INSTANCES];
}

// ---------------------------------------------------------------- state -> elements

/** `view` is {network, answered, objects, chosen, seen, limit} of this pane. */
export function renderStage(parts, state, view) {
  const { stage, img, unseen, shapes, ring, tip } = parts;
  const image = imageOf(state);
  const { network, objects } = view;
  stage.style.setProperty("--ratio", image.width / image.height);
  stage.style.setProperty("--zoom", ZOOMS[state.zoom]);
  stage.style.setProperty("--brighter", image.thumbnail?.brighter ?? 1);
  stage.classList.toggle("coarse", Math.max(image.width, image.height) < 160);
  stage.classList.toggle("drawing", state.correcting === network.name && state.tool !== "select");
  attribute(stage, "aria-label", stageLabel(state, network, image));
  attribute(img, "src", image.img ? image.url : null);
  img.hidden = !image.img;
  unseen.hidden = Boolean(image.img);
  text(unseen, view.answered ? "The browser cannot show this kind of file. The network has read it." : "The browser cannot show this file.");
  attribute(shapes, "viewBox", `0 0 ${image.width} ${image.height}`);

  renderHeat(parts, image, view);
  const visible = state.shapes || state.correcting === network.name;
  renderShapes(shapes, state, network, visible ? objects : []);
  renderMarks(shapes, state, view, image);
  renderRing(ring, state, network, image);
  renderTip(tip, state, image, network, objects);
}

function stageLabel(state, network, image) {
  const what = `${image.name}, ${image.width} × ${image.height} pixels.`;
  if (state.correcting === network.name) {
    return state.tool === "select"
      ? `${what} Correction: choose a detection in the list, then Tab to its points.`
      : `${what} Drawing: arrow keys move the cross, Space sets a point, Enter ends, Escape gives up.`;
  }
  if (network.attention.length === 0) return what;
  const at = state.query ? ` Attention from ${Math.round(state.query.x)}, ${Math.round(state.query.y)}.` : "";
  return `${what}${at} Arrow keys move the place that attention is asked from.`;
}

function renderHeat({ heat }, image, { chosen, limit }) {
  heat.hidden = !chosen?.map;
  if (!chosen?.map) return;
  const [x1, y1, x2, y2] = chosen.box;
  heat.style.left = `${(100 * x1) / image.width}%`;
  heat.style.top = `${(100 * y1) / image.height}%`;
  heat.style.width = `${(100 * (x2 - x1)) / image.width}%`;
  heat.style.height = `${(100 * (y2 - y1)) / image.height}%`;
  paintMap(heat, chosen.map, limit);
}

function layer(shapes, name) {
  let group = shapes.querySelector(`:scope > .${name}`);
  if (!group) {
    group = svgElement("g", { class: name });
    shapes.append(group);
  }
  return group;
}

function renderShapes(shapes, state, network, objects) {
  const named = (place) => (place?.network === network.name ? place.key : null);
  const [hovered, selected] = [named(state.hovered), named(state.selected)];
  const smallestLast = [...objects].sort((one, other) => boxArea(other) - boxArea(one));
  keyed(
    layer(shapes, "outlines"),
    smallestLast,
    ({ key }) => key,
    () => {
      const group = svgElement("g");
      group.append(svgElement("path", { class: "halo" }), svgElement("path", { class: "shape" }));
      return group;
    },
    (group, object) => {
      const d = pathOf(object);
      const active = object.key === hovered || object.key === selected;
      attribute(group, "class", [active && "active", object.byPerson && "own"].filter(Boolean).join(" ") || null);
      for (const path of group.children) attribute(path, "d", d);
      attribute(group.lastChild, "stroke", colourOf(network, object));
      attribute(group.lastChild, "fill", colourOf(network, object));
    },
  );
  const withPoints = objects.filter((object) => object.keypoints);
  keyed(layer(shapes, "skeletons"), withPoints, ({ key }) => key, makeSkeleton, (group, object) => {
    const [limbs, dots] = group.children;
    const there = (index) => object.keypoints[index]?.[2] > 0;
    const lines = network.skeleton.filter(([from, to]) => there(from) && there(to));
    attribute(limbs, "d", lines.map(([a, b]) => `M${at(object.keypoints[a])}L${at(object.keypoints[b])}`).join(""));
    attribute(limbs, "stroke", colourOf(network, object));
    attribute(dots, "d", object.keypoints.filter(([, , v]) => v > 0).map((point) => `M${at(point)}h0`).join(""));
  });
}

function makeSkeleton() {
  const group = svgElement("g");
  group.append(svgElement("path", { class: "limbs" }), svgElement("path", { class: "dots" }));
  return group;
}

function at([x, y]) {
  return `${x} ${y}`;
}

/** What the network sees, the handles of the selected object, and what is being drawn. */
function renderMarks(shapes, state, view, image) {
  const marks = layer(shapes, "marks");
  const correcting = state.correcting === view.network.name;
  const items = [];
  if (view.chosen) {
    const [x1, y1, x2, y2] = view.seen;
    const inside = x1 > 0.5 || y1 > 0.5 || x2 < image.width - 0.5 || y2 < image.height - 0.5;
    if (inside) items.push({ key: "seen", type: "frame", d: pathOf({ box: view.seen }) });
  }
  if (correcting) items.push(...draftItems(state.draft, state.tool));
  keyed(marks, items, ({ key }) => key, ({ type }) => svgElement("path", { class: type }), (path, { d }) => attribute(path, "d", d));

  const object = correcting && state.tool === "select" ? selectedObject(state, view.network.name) : null;
  const handles = layer(shapes, "handles");
  const scale = object ? shapes.getBoundingClientRect().width / image.width : 1; // screen px per image px
  if (object) handles.style.setProperty("--grip", Math.min(1, Math.max(0.45, (scale * spacing(object)) / 22)));
  keyed(handles, object ? handlesOf(object, view.network, LONG_EDGE / scale) : [], ({ key }) => key, makeHandle, (path, handle) => {
    attribute(path, "d", `M${handle.x} ${handle.y}l.01 .01`); // with some size, or it counts as invisible
    attribute(path, "aria-label", handle.label);
    path.dataset.handle = handle.key;
  });
}

function draftItems(draft, tool) {
  if (!draft) return [];
  const { points, cursor } = draft;
  const items = [];
  const line = cursor && points.length > 0 ? [...points, cursor] : points;
  if (tool === "box" && line.length === 2) {
    items.push({ key: "draft", type: "draft", d: pathOf({ box: [...line[0], ...line[1]] }) });
  } else if (line.length > 0) {
    items.push({ key: "draft", type: "draft", d: `M${line.map(at).join("L")}` });
  }
  if (points.length > 0) items.push({ key: "dots", type: "draft-dots", d: points.map((point) => `M${at(point)}h0`).join("") });
  if (cursor) items.push({ key: "cursor", type: "draft-cursor", d: `M${at(cursor)}h0` });
  return items;
}

/** Between neighbouring vertices, about: handles of a small outline are small. */
function spacing(object) {
  const [x1, y1, x2, y2] = boxOf(object);
  const vertices = object.box ? 4 : object.polygons.flat().length;
  return (1.6 * (Math.abs(x2 - x1) + Math.abs(y2 - y1))) / vertices;
}

/** An edge from `long` on has a handle in its middle too, which becomes a vertex. */
function handlesOf(object, network, long) {
  const points = (object.keypoints ?? []).flatMap(([x, y, v], index) =>
    v > 0 ? [{ key: `k-0-${index}`, type: "point", x, y, label: `${network.keypoints[index]}. Arrow keys move it` }] : [],
  );
  const keys = "Arrow keys move it, Delete removes it, Insert adds one after it";
  const outline = (object.box ? [corners(object.box)] : object.polygons).flatMap((polygon, part) =>
    polygon.flatMap(([x, y], index) => {
      const vertex = { key: `v-${part}-${index}`, type: "vertex", x, y };
      if (object.box) return [{ ...vertex, label: `Corner ${index + 1} of 4. Arrow keys move it` }];
      const next = polygon[(index + 1) % polygon.length];
      const [mx, my] = middle([x, y], next);
      const between = { key: `m-${part}-${index}`, type: "between", x: mx, y: my };
      const named = { ...vertex, label: `Point ${index + 1} of ${polygon.length}. ${keys}` };
      return distance([x, y], next) >= long ? [named, between] : [named];
    }),
  );
  return [...outline, ...points];
}

function makeHandle({ type }) {
  const path = svgElement("path", { class: `handle ${type}` });
  if (type === "between") return path; // for the pointer; the keyboard has Insert
  attribute(path, "tabindex", 0);
  attribute(path, "role", "button");
  return path;
}

function renderRing(ring, state, network, image) {
  ring.hidden = state.query === null || state.correcting === network.name || network.attention.length === 0;
  if (ring.hidden) return;
  ring.style.left = `${(100 * state.query.x) / image.width}%`;
  ring.style.top = `${(100 * state.query.y) / image.height}%`;
}

function renderTip(tip, state, image, network, objects) {
  const place = [state.hovered, state.selected].find((one) => one?.network === network.name);
  const object = place && objects.find(({ key }) => key === place.key);
  tip.hidden = !object || Boolean(state.dragged) || Boolean(state.draft);
  if (!object) return;
  text(tip, object.score === null || object.byPerson ? object.label : `${object.label} ${percent(object.score)}`);
  const [x1, y1, x2, y2] = boxOf(object);
  const below = y1 < 0.12 * image.height;
  tip.classList.toggle("below", below);
  const across = (x1 + x2) / 2 / image.width;
  tip.style.left = `${100 * across}%`;
  tip.style.top = `${(100 * (below ? y2 : y1)) / image.height}%`;
  tip.style.setProperty("--shift", `${-100 * Math.min(1, Math.max(0, across))}%`);
}

// ---------------------------------------------------------------- pointer and keys -> actions

/** `network()` names the pane's network now. */
export function listenToStage({ stage, shapes }, network, store, actions) {
  let stroke = null; // a pointer that is down: {kind, ...}

  const placeOf = (event) => {
    const image = imageOf(store.state);
    const box = shapes.getBoundingClientRect();
    return [
      clamp(((event.clientX - box.left) / box.width) * image.width, image.width),
      clamp(((event.clientY - box.top) / box.height) * image.height, image.height),
    ];
  };
  const keyAt = (event) => event.target.closest?.(".outlines > g")?.dataset.key ?? null;
  const isCorrecting = () => store.state.correcting === network();

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const point = placeOf(event);
    if (isCorrecting() && store.state.tool !== "select") {
      event.preventDefault();
      stage.focus({ preventScroll: true });
      stage.setPointerCapture(event.pointerId);
      stroke = { kind: "draw", from: point, points: [point] };
      if (store.state.tool === "box") actions.draft({ points: [point], cursor: point });
      return;
    }
    const handle = event.target.closest?.(".handle")?.dataset.handle;
    if (handle && isCorrecting()) {
      event.preventDefault();
      stage.setPointerCapture(event.pointerId);
      stroke = grab(handle, point);
      return;
    }
    const key = keyAt(event);
    if (event.pointerType === "touch") {
      stroke = { kind: "tap", key }; // or the beginning of scrolling, which cancels it
    } else if (clickOn(key, point)) {
      stage.setPointerCapture(event.pointerId);
      stroke = { kind: "look" };
    }
  });

  /** Whether it was a place that can be dragged on. */
  function clickOn(key, point) {
    if (isCorrecting()) {
      actions.select(network(), key);
    } else if (key !== null) {
      actions.lookAtObject(network(), key);
    } else {
      actions.select(network(), null);
      actions.lookFrom(...point);
      return true;
    }
    return false;
  }

  function grab(handle, point) {
    const [type, part, index] = handle.split("-");
    const object = selectedObject(store.state, network());
    if (type === "m") {
      const added = withNewVertex(object, Number(part), Number(index), point);
      return { kind: "vertex", object: added, part: Number(part), index: Number(index) + 1, moved: true };
    }
    return { kind: type === "k" ? "keypoint" : "vertex", object, part: Number(part), index: Number(index), moved: false };
  }

  stage.addEventListener("pointermove", (event) => {
    if (!stroke) {
      actions.hover(network(), keyAt(event));
      if (isCorrecting() && store.state.draft && store.state.tool === "outline") actions.draft({ ...store.state.draft, cursor: placeOf(event) });
      return;
    }
    const point = placeOf(event);
    if (stroke.kind === "look") actions.lookFrom(...point);
    if (stroke.kind === "draw") drawTo(point);
    if (stroke.kind === "vertex" || stroke.kind === "keypoint") {
      stroke.moved = true;
      stroke.object = moved(stroke, point);
      actions.drag(stroke.object);
    }
  });

  function drawTo(point) {
    stroke.points.push(point);
    if (store.state.tool === "box") actions.draft({ points: [stroke.from], cursor: point });
    else if (stroke.points.length >= FREEHAND) actions.draft({ points: stroke.points, cursor: null });
  }

  stage.addEventListener("pointerup", (event) => {
    const ended = stroke;
    stroke = null;
    if (!ended) return;
    if (ended.kind === "vertex" || ended.kind === "keypoint") actions.drop(ended.moved ? ended.object : null);
    if (ended.kind === "tap") clickOn(ended.key, placeOf(event));
    if (ended.kind === "draw") endStroke(ended, placeOf(event));
  });
  stage.addEventListener("pointercancel", () => {
    if (stroke?.kind === "vertex" || stroke?.kind === "keypoint") actions.drop(null);
    if (stroke?.kind === "draw") actions.draft(null);
    stroke = null;
  });
  stage.addEventListener("pointerleave", () => actions.hover(network(), null));

  function endStroke({ from, points }, point) {
    const pixel = imageOf(store.state).width / shapes.getBoundingClientRect().width; // image px per screen px
    if (store.state.tool === "box") {
      if (distance(from, point) > 4 * pixel) actions.add(network(), { box: [...from, ...point] });
      else actions.draft(null);
      return;
    }
    if (points.length >= FREEHAND) {
      const drawn = simplify(points, 1.5 * pixel);
      closeOutline(distance(drawn[0], drawn.at(-1)) < 5 * pixel ? drawn.slice(0, -1) : drawn);
      return;
    }
    const drawn = store.state.draft?.points ?? [];
    if (drawn.length >= 3 && distance(drawn[0], point) < 10 * pixel) closeOutline(drawn);
    else actions.draft({ points: [...drawn, point], cursor: point });
  }

  function closeOutline(points) {
    if (points.length >= 3) actions.add(network(), { polygons: [points] });
    else actions.draft(null);
  }

  stage.addEventListener("dblclick", (event) => {
    // The target is the stage, which has captured the pointer.
    const handle = document.elementFromPoint(event.clientX, event.clientY)?.closest(".handle.vertex")?.dataset.handle;
    if (handle && isCorrecting()) removeVertex(handle);
  });

  function removeVertex(handle) {
    const [, part, index] = handle.split("-").map(Number);
    const object = selectedObject(store.state, network());
    if (object && !object.box) actions.change(network(), withoutVertex(object, part, index));
  }

  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const handle = event.target.dataset?.handle;
    const used = handle ? keyOnHandle(event, handle) : keyOnStage(event);
    if (!used) return;
    event.preventDefault();
    event.stopPropagation();
  });

  function keyOnHandle(event, handle) {
    const [type, part, index] = handle.split("-");
    const object = selectedObject(store.state, network());
    const step = arrow(event, event.shiftKey ? 10 : 1);
    if (step && type === "k") {
      const [x, y] = object.keypoints[index];
      actions.change(network(), moved({ kind: "keypoint", object, index: Number(index) }, inside([x + step[0], y + step[1]])), handle);
      return true;
    }
    if (step) {
      const [x, y] = (object.box ? corners(object.box) : object.polygons[part])[index];
      actions.change(network(), withVertex(object, Number(part), Number(index), inside([x + step[0], y + step[1]])), handle);
      return true;
    }
    if (event.key === "Delete" && type === "v") {
      removeVertex(handle);
      return true;
    }
    if ((event.key === "Insert" || event.key === "+") && type === "v" && !object.box) {
      const points = object.polygons[part];
      const between = middle(points[index], points[(Number(index) + 1) % points.length]);
      actions.change(network(), withNewVertex(object, Number(part), Number(index), between));
      return true;
    }
    return false;
  }

  function keyOnStage(event) {
    const { state } = store;
    const image = imageOf(state);
    if (isCorrecting() && state.tool !== "select") return keyWhileDrawing(event, image);
    if (isCorrecting()) return false;
    const step = arrow(event, stepOf(state, image, event.shiftKey));
    if (!step && event.key !== "Home" && event.key !== "Enter" && event.key !== " ") return false;
    const start = state.query && event.key !== "Home" ? state.query : { x: image.width / 2, y: image.height / 2 };
    const [dx, dy] = state.query && step ? step : [0, 0];
    actions.lookFrom(...inside([start.x + dx, start.y + dy]));
    return true;
  }

  /** A cell of the chosen layer per key press; with Shift a pixel. */
  function stepOf(state, image, fine) {
    if (fine) return 1;
    const look = state.looks[network()]?.result;
    if (!look || look.layers.length === 0) return Math.max(image.width, image.height) / 32;
    const layer = state.layer < 0 ? look.layers.at(-1) : look.layers[Math.min(state.layer, look.layers.length - 1)];
    return (look.seen_box_xyxy[2] - look.seen_box_xyxy[0]) / layer.width;
  }

  function keyWhileDrawing(event, image) {
    const { state } = store;
    const draft = state.draft ?? { points: [], cursor: null };
    const cursor = draft.cursor ?? [image.width / 2, image.height / 2];
    const step = arrow(event, event.shiftKey ? 1 : Math.max(image.width, image.height) / 64);
    if (step) actions.draft({ ...draft, cursor: inside([cursor[0] + step[0], cursor[1] + step[1]]) });
    else if (event.key === " " && state.tool === "box" && draft.points.length === 1) actions.add(network(), { box: [...draft.points[0], ...cursor] });
    else if (event.key === " ") actions.draft({ points: [...draft.points, cursor], cursor });
    else if (event.key === "Enter" && state.tool === "box" && draft.points.length === 1) actions.add(network(), { box: [...draft.points[0], ...cursor] });
    else if (event.key === "Enter" && state.tool === "outline") closeOutline(draft.points);
    else if (event.key === "Backspace" && draft.points.length > 0) actions.draft({ ...draft, points: draft.points.slice(0, -1) });
    else return false;
    return true;
  }

  function inside([x, y]) {
    const image = imageOf(store.state);
    return [clamp(x, image.width), clamp(y, image.height)];
  }
}

function moved({ kind, object, part, index }, point) {
  if (kind === "vertex") return withVertex(object, part, index, point);
  return { ...object, keypoints: object.keypoints.with(index, [...point, object.keypoints[index][2]]) };
}

function arrow({ key }, step) {
  return { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[key] ?? null;
}

/** Inside the image: its last pixel's end is one past it, and attention is asked for a pixel that exists. */
function clamp(value, size) {
  return Math.min(Math.max(value, 0), size - 0.01);
}
