// Attention as colours: the bytes of the server, the colour scale of botformer's own figures, and canvases.

// Transparent to pale yellow over a darkened grey image, as in plots/attention_overlay.py: the value is in the lightness.
const STOPS = [
  [0.84, 0.37, 0.0, 0.0],
  [0.92, 0.52, 0.0, 0.55],
  [1.0, 0.93, 0.55, 0.8],
];
const SCALE = colourScale();
const MARK = "#56b4e9";
const DARK = 0.6;

function colourScale() {
  const colours = new Uint8ClampedArray(256 * 4);
  for (let value = 0; value < 256; value += 1) {
    const place = (value / 255) * (STOPS.length - 1);
    const below = Math.min(Math.floor(place), STOPS.length - 2);
    for (let channel = 0; channel < 4; channel += 1) {
      const [from, to] = [STOPS[below][channel], STOPS[below + 1][channel]];
      colours[4 * value + channel] = 255 * (from + (to - from) * (place - below));
    }
  }
  return colours;
}

/**
 * The maps of one layer, mean first: {name, width, height, values, most}, or null where the network has no such term.
 * `values` are bytes: one of b is (b / 255)^4 * `most` times the mean of all cells, in which layers can be compared.
 */
export function mapsOf(layer, positions) {
  const kept = DECODED.get(layer) ?? {};
  DECODED.set(layer, kept);
  kept[positions] ??= decode(layer, positions);
  return kept[positions];
}

const DECODED = new WeakMap(); // layer of the server's answer -> its maps: the same objects as long as it is shown

function decode(layer, positions) {
  const cells = layer.width * layer.height;
  return [layer.mean, ...layer.heads].map((head, index) => {
    const text = positions ? head.attention : head.content;
    if (text === null || text === undefined) return null;
    return {
      name: index === 0 ? "mean" : `head ${index}`,
      width: layer.width,
      height: layer.height,
      values: Uint8Array.from(atob(text), (character) => character.charCodeAt(0)),
      most: (positions ? head.max : head.content_max) * cells,
    };
  });
}

/**
 * The brightest value of maps, in times the mean of all cells: there the colours end. They begin at the mean, and are
 * logarithmic between, for attention may be a thousand times the mean in one cell.
 */
export function brightest(maps) {
  return Math.max(1, ...maps.map((map) => map?.most ?? 0));
}

/** One canvas pixel per cell, transparent up to the mean. */
export function paintMap(canvas, map, limit) {
  canvas.width = map.width;
  canvas.height = map.height;
  const pixels = new ImageData(map.width, map.height);
  const span = Math.log(limit);
  for (let cell = 0; cell < map.values.length; cell += 1) {
    const times = (map.values[cell] / 255) ** 4 * map.most;
    const value = times > 1 ? Math.round((255 * Math.log(times)) / span) : 0;
    pixels.data.set(SCALE.subarray(4 * value, 4 * value + 4), 4 * cell);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** A small image of what the network sees, with the map over it and a ring around the query (0 to 1 of that part). */
export function paintTile(canvas, thumbnail, seen, map, limit, query) {
  const [x1, y1, x2, y2] = seen;
  const long = 144 / Math.max(x2 - x1, y2 - y1);
  canvas.width = Math.max(1, Math.round((x2 - x1) * long));
  canvas.height = Math.max(1, Math.round((y2 - y1) * long));
  const context = canvas.getContext("2d");
  context.fillStyle = "#16191c";
  context.fillRect(0, 0, canvas.width, canvas.height);
  if (thumbnail) {
    const { canvas: small, width, height } = thumbnail;
    context.drawImage(small, -x1 * long, -y1 * long, width * long, height * long);
  }
  paintMap(SCRATCH, map, limit);
  context.imageSmoothingEnabled = true;
  context.drawImage(SCRATCH, 0, 0, canvas.width, canvas.height);
  ring(context, query.x * canvas.width, query.y * canvas.height);
}

const SCRATCH = document.createElement("canvas");

function ring(context, x, y) {
  for (const [width, colour] of [[5, "#000"], [2.5, MARK]]) {
    context.beginPath();
    context.arc(x, y, 6, 0, 2 * Math.PI);
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke();
  }
}

/**
 * The image in dark grey, at most 160 px long: what the tiles are drawn on. A dark image is made `brighter` first, as
 * botformer's figures do it: micrographs often use a tenth of the range.
 */
export function darkThumbnail(img, width, height) {
  const scale = Math.min(1, 160 / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(img, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const colours = pixels.data.filter((_, at) => at % 4 < 3).sort();
  const white = Math.max(1, colours[Math.floor(0.995 * (colours.length - 1))]);
  const brighter = white >= 128 ? 1 : Math.min(255 / white, 8);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const [red, green, blue] = pixels.data.subarray(at, at + 3);
    pixels.data.fill(DARK * Math.min(255, (brighter * (red + green + blue)) / 3), at, at + 3);
  }
  context.putImageData(pixels, 0, 0);
  return { canvas, width, height, brighter };
}

export function paintLegend(canvas) {
  canvas.width = 256;
  canvas.height = 1;
  const context = canvas.getContext("2d");
  context.putImageData(new ImageData(SCALE.slice(), 256, 1), 0, 0);
}
