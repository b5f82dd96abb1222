// What a person changed about a network's answer for one image, as values that are never changed in place.
//
// A correction is {edits, added, label, checked}: edits by detection (null for a deleted one), own objects, the right
// class, and "all right as shown". A record is {now, past, step, exported}: the correction with its undo history.

import { boxOf, corners, round, sorted } from "./outlines.js";

const UNTOUCHED = { edits: {}, added: [], label: null, checked: false };
const MOST_STEPS = 500;

export function newRecord() {
  return { now: UNTOUCHED, past: [], step: "", exported: null };
}

/** A step of the same name as the last one belongs to it: ten presses of an arrow key are undone together. */
export function commit(record, now, step = "") {
  const past = step && step === record.step ? record.past : [...record.past, record.now].slice(-MOST_STEPS);
  return { ...record, now, past, step };
}

export function undo(record) {
  if (record.past.length === 0) return record;
  return { ...record, now: record.past.at(-1), past: record.past.slice(0, -1), step: "" };
}

export function isCorrected({ now }) {
  return now.checked || now.label !== null || now.added.length > 0 || Object.keys(now.edits).length > 0;
}

/** Whether something would be lost if the page were closed: corrections, or the threshold that chose the rest. */
export function isUnexported(record, threshold) {
  if (record.exported === null) return isCorrected(record);
  return record.exported.now !== record.now || record.exported.threshold !== threshold;
}

/** The record, which may have changed since, after `written` of it was exported. */
export function asExported(record, written, threshold) {
  return { ...record, exported: { now: written.now, threshold } };
}

/** A detection of the server as an object that can be corrected. Its points are visible ones (COCO's 2). */
export function objectOf(detection, index) {
  const outlines = (detection.outlines ?? []).filter((points) => points.length >= 3);
  return {
    key: `d${index}`,
    index,
    category_id: detection.category_id,
    label: detection.label,
    score: detection.score,
    ...(outlines.length > 0 ? { polygons: outlines } : { box: detection.box_xyxy }),
    keypoints: detection.keypoints?.map(([x, y]) => [x, y, 2]) ?? null,
    byPerson: false,
  };
}

/**
 * The objects of an image: detections from the threshold on, those that a person touched whatever their score, without
 * the deleted ones, and the person's own.
 */
export function objectsOf(detections, threshold, correction = UNTOUCHED) {
  const objects = detections.map((detection, index) => {
    const key = `d${index}`;
    if (!(key in correction.edits)) return detection.score >= threshold ? objectOf(detection, index) : null;
    return correction.edits[key];
  });
  return [...objects.filter((object) => object !== null), ...correction.added];
}

export function withObject(correction, object) {
  const changed = { ...object, byPerson: true };
  if (object.key.startsWith("d")) return { ...correction, edits: { ...correction.edits, [object.key]: changed } };
  const at = correction.added.findIndex(({ key }) => key === object.key);
  const added = at < 0 ? [...correction.added, changed] : correction.added.with(at, changed);
  return { ...correction, added };
}

export function withoutObject(correction, key) {
  if (key.startsWith("d")) return { ...correction, edits: { ...correction.edits, [key]: null } };
  return { ...correction, added: correction.added.filter((object) => object.key !== key) };
}

/** The "annotations" of POST /corrections. `images` are {name, width, height, record, threshold, result}. */
export function annotationsOf(network, images) {
  const categories = network.classes.map((name, index) => ({
    id: network.category_ids?.[index] ?? index + 1,
    name,
    ...(network.keypoints?.length ? { keypoints: network.keypoints, skeleton: network.skeleton } : {}),
  }));
  return { task: network.task, categories, images: images.map((image) => imageOf(network, image)) };
}

function imageOf(network, { name, width, height, record, threshold, result }) {
  const image = { name, width, height };
  if (network.task === "classification") return { ...image, label: record.now.label ?? result.top5[0].label };
  const objects = objectsOf(result.detections, threshold, record.now);
  return { ...image, objects: objects.map((object) => annotationOf(network, object)) };
}

function annotationOf(network, object) {
  const annotation = { category_id: object.category_id };
  if (network.kind === "mask_rcnn") {
    const polygons = object.polygons ?? [corners(sorted(object.box))];
    annotation.polygons = polygons.map((points) => points.map(([x, y]) => [round(x), round(y)]));
  } else {
    annotation.box_xyxy = sorted(boxOf(object)).map(round);
  }
  if (network.keypoints?.length) {
    annotation.keypoints = (object.keypoints ?? network.keypoints.map(() => [0, 0, 0])).map(([x, y, v]) =>
      v === 0 ? [0, 0, 0] : [round(x), round(y), v],
    );
  }
  return annotation;
}
