// Geometry of outlines and boxes, in px of the upright image. Nothing here changes its arguments.

export function corners([x1, y1, x2, y2]) {
  return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]];
}

export function boundingBox(points) {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

export function boxOf(object) {
  return object.box ?? boundingBox(object.polygons.flat());
}

export function centreOf(object) {
  const [x1, y1, x2, y2] = boxOf(object);
  return { x: (x1 + x2) / 2, y: (y1 + y2) / 2 };
}

export function boxArea(object) {
  const [x1, y1, x2, y2] = boxOf(object);
  return (x2 - x1) * (y2 - y1);
}

/** The `d` of an SVG path. */
export function pathOf(object) {
  const polygons = object.box ? [corners(object.box)] : object.polygons;
  return polygons.map((points) => `M${points.map(([x, y]) => `${round(x)} ${round(y)}`).join("L")}Z`).join("");
}

/** The object with one vertex elsewhere. A box keeps its opposite corner, and may be turned inside out. */
export function withVertex(object, part, index, [x, y]) {
  if (!object.box) {
    const polygons = object.polygons.map((points, at) => (at === part ? points.with(index, [x, y]) : points));
    return { ...object, polygons };
  }
  const [fixedX, fixedY] = corners(object.box)[(index + 2) % 4];
  return { ...object, box: [fixedX, fixedY, x, y] };
}

export function withNewVertex(object, part, after, point) {
  const polygons = object.polygons.map((points, at) => (at === part ? points.toSpliced(after + 1, 0, point) : points));
  return { ...object, polygons };
}

/** Without one vertex; a triangle loses the whole part, the last triangle stays. */
export function withoutVertex(object, part, index) {
  const points = object.polygons[part];
  if (points.length > 3) return { ...object, polygons: object.polygons.with(part, points.toSpliced(index, 1)) };
  return object.polygons.length > 1 ? { ...object, polygons: object.polygons.toSpliced(part, 1) } : object;
}

export function middle([x1, y1], [x2, y2]) {
  return [(x1 + x2) / 2, (y1 + y2) / 2];
}

export function sorted([x1, y1, x2, y2]) {
  return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
}

export function distance([x1, y1], [x2, y2]) {
  return Math.hypot(x1 - x2, y1 - y2);
}

/** Ramer, Douglas and Peucker: no point of the line is further than `tolerance` from the result. */
export function simplify(points, tolerance) {
  if (points.length < 3) return points;
  const first = points[0];
  const last = points.at(-1);
  let furthest = 0;
  let most = 0;
  for (let at = 1; at < points.length - 1; at += 1) {
    const away = fromSegment(points[at], first, last);
    if (away > most) [furthest, most] = [at, away];
  }
  if (most <= tolerance) return [first, last];
  const left = simplify(points.slice(0, furthest + 1), tolerance);
  return [...left.slice(0, -1), ...simplify(points.slice(furthest), tolerance)];
}

function fromSegment([x, y], [x1, y1], [x2, y2]) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const length = dx * dx + dy * dy;
  const along = length === 0 ? 0 : Math.max(0, Math.min(1, ((x - x1) * dx + (y - y1) * dy) / length));
  return Math.hypot(x - x1 - along * dx, y - y1 - along * dy);
}

export function round(value) {
  return Math.round(value * 100) / 100;
}
