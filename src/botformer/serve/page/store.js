// The page's state, the one place that changes it, and what is said to the person beside it.

import { plural } from "./elements.js";
import { ServerError } from "./server.js";
import { initialState } from "./state.js";

export const store = { state: initialState() };
let render = () => {};
let planned = false;

export function renderWith(renderState) {
  render = renderState;
}

/** Applies changes and renders once, however many changes there are in this turn. */
export function change(patch = {}) {
  Object.assign(store.state, patch);
  if (planned) return;
  planned = true;
  queueMicrotask(() => {
    planned = false;
    render(store.state);
  });
}

/** To screen readers. */
export function say(words) {
  document.getElementById("status").textContent = words;
}

/** To everybody, over the page. */
export function notify(words) {
  const { notices } = store.state;
  if (notices.some((notice) => notice.words === words)) return;
  const id = (notices.at(-1)?.id ?? 0) + 1;
  change({ notices: [...notices, { id, words }].slice(-3) });
}

/** Tells in `where.waiting` that the server is busy. */
export function waiting(where) {
  return (seconds) => {
    where.waiting = `The server is busy; trying again in ${plural(seconds, "second")} …`;
    change();
  };
}

/** Hands a failure of the server to `tell` in words, and asks for the token where it is missing. */
export function failed(error, tell) {
  if (error.status === 401) document.getElementById("token-dialog").showModal();
  if (error instanceof ServerError) tell(error.message);
  else throw error;
}
