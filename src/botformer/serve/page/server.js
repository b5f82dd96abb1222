// Asks the server: carries the token, waits while it is busy, and turns every failure into words.

const TOKEN = "botformer-token";
const MOST_RETRIES = 8;

export class ServerError extends Error {
  /** `status` is 0 where no answer came. */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Moves `#token=...` from the address bar into this tab's storage: an address that is copied or shared has no secret. */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return;
  keepToken(token);
  history.replaceState(null, "", location.pathname + location.search);
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

/**
 * One request; the response, or a ServerError whose message can be shown.
 * A server whose queue is full says when to come back: `onWait(seconds)` is told, and the request is sent again.
 */
export async function ask(path, { method = "GET", body, headers = {}, signal, onWait } = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const all = token === null ? headers : { ...headers, Authorization: `Bearer ${token}` };
  for (let attempt = 0; ; attempt += 1) {
    const response = await send(new URL(path, document.baseURI), { method, body, headers: all, signal });
    if (response.ok) return response;
    if (response.status !== 429 || attempt === MOST_RETRIES) {
      throw new ServerError(await detailOf(response), response.status);
    }
    const seconds = secondsToWait(response);
    onWait?.(seconds);
    await wait(seconds, signal);
  }
}

export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

/** The server's answer for one image; outlines and every score, so that the page can choose the threshold. */
export function predict(network, file, options) {
  const query = new URLSearchParams({ network, format: "json", outlines: "true", threshold: "0" });
  const headers = { "Content-Type": "application/octet-stream" };
  return askJson(`predict?${query}`, { method: "POST", body: file, headers, ...options });
}

export function attention(image, network, { x, y }, options) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ image, network, x, y });
  return askJson("attention", { method: "POST", body, headers, ...options });
}

/** A zip file of the images with their corrected annotations. `files` are [name, Blob]. */
export async function corrections(format, annotations, files, options) {
  const form = new FormData();
  form.append("annotations", JSON.stringify(annotations));
  for (const [name, file] of files) form.append("images", file, name);
  const response = await ask(`corrections?format=${format}`, { method: "POST", body: form, ...options });
  return response.blob();
}

async function send(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. See whether botformer serve still runs, then try again.", 0);
  }
}

async function detailOf(response) {
  const body = await response.json().catch(() => null);
  if (typeof body?.detail === "string") return body.detail;
  return `The server answered ${response.status} ${response.statusText}`.trim() + ".";
}

function secondsToWait(response) {
  const after = Number(response.headers.get("Retry-After"));
  return Number.isFinite(after) && after > 0 ? Math.min(after, 60) : 1;
}

function wait(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("no longer wanted", "AbortError"));
    });
  });
}
