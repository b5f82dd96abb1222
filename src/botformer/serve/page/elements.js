// Elements of the page: making them, and keeping them in step with a list without losing the keyboard's focus.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  Object.assign(node, properties);
  node.append(...children);
  return node;
}

export function svgElement(name, attributes = {}) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

/** Writes only what differs, for the browser lays out again after each write. `null` removes. */
export function attribute(node, name, value) {
  const text = value === null || value === undefined || value === false ? null : String(value === true ? "" : value);
  if (node.getAttribute(name) === text) return;
  if (text === null) node.removeAttribute(name);
  else node.setAttribute(name, text);
}

export function text(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

/** One child per item, in order; a child stays the same element as long as its item has the same key. */
export function keyed(parent, items, keyOf, make, update) {
  const wanted = new Set(items.map((item) => String(keyOf(item))));
  const kept = new Map();
  for (const node of [...parent.children]) {
    if (wanted.has(node.dataset.key)) kept.set(node.dataset.key, node);
    else node.remove();
  }
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let node = kept.get(key);
    if (!node) {
      node = make(item);
      node.dataset.key = key;
    }
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
    update?.(node, item);
  }
}

/** The named parts of a template's copy: `data-part="list"` is `parts.list`. */
export function partsOf(root) {
  const parts = { root };
  for (const node of root.querySelectorAll("[data-part]")) parts[node.dataset.part] = node;
  return parts;
}

export function percent(fraction, digits = 0) {
  return `${(100 * fraction).toFixed(digits)} %`;
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
