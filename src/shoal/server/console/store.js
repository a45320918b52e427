/**
 * Conversations in localStorage: one entry each, so that saving a growing answer rewrites only its own conversation,
 * and nothing else to keep in step: the list is the entries themselves.
 *
 * Bounded: beyond MAX_CONVERSATIONS, or when the browser's quota is reached, the longest untouched go first.
 * What comes out of storage is parsed, since another version of this page may have written it.
 */

/** @typedef {"done" | "streaming" | "stopped" | "interrupted" | "failed"} Status */
/** @typedef {{ttftMs?: number, tokensPerS?: number, promptTokens?: number, tokens?: number, cachedTokens?: number,
 *             cost?: Object<string, {value: number, source: string}>, finish?: string, providers?: string[]}} Metrics */
/** @typedef {{role: "user" | "assistant", content: string, status: Status, model?: string, metrics?: Metrics,
 *             problem?: import("./api.js").Problem, receipt?: {id: string}}} Turn */
/** @typedef {{model: string, system: string, sampling: Record<string, number | string[]>}} Settings */
/** @typedef {{id: string, title: string, updated: number, settings: Settings, turns: Turn[]}} Conversation */

const ROLES = new Set(["user", "assistant"]);
const PREFIX = "shoal.chat.";
export const MAX_CONVERSATIONS = 100;

/** localStorage, or a Map with the same three methods where the browser blocks it. */
function openStorage() {
  try {
    localStorage.getItem(PREFIX);
    return localStorage;
  } catch {
    const memory = new Map();
    return {
      getItem: (key) => memory.get(key) ?? null,
      setItem: (key, value) => void memory.set(key, value),
      removeItem: (key) => void memory.delete(key),
      get length() { return memory.size; },
      key: (index) => [...memory.keys()][index] ?? null,
    };
  }
}

const storage = openStorage();

/** @param {Settings} [settings] inherited from the conversation before @returns {Conversation} */
export function newConversation(settings) {
  const inherited = settings ? structuredClone(settings) : { model: "", system: "", sampling: {} };
  const id = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
  return { id, title: "New chat", updated: Date.now(), settings: inherited, turns: [] };
}

/** Saves, dropping the oldest others for as long as the browser says there is no room. */
export function save(conversation) {
  const text = JSON.stringify(conversation);
  const others = list().filter(({ id }) => id !== conversation.id);
  for (const old of others.splice(MAX_CONVERSATIONS - 1)) remove(old.id);
  for (;;) {
    try {
      storage.setItem(PREFIX + conversation.id, text);
      return true;
    } catch {
      const oldest = others.pop();
      if (!oldest) return false;
      remove(oldest.id);
    }
  }
}

/** @param {string} id @returns {Conversation | null} */
export function load(id) {
  return parse(storage.getItem(PREFIX + id));
}

/** @param {string} id */
export function remove(id) {
  storage.removeItem(PREFIX + id);
}

/** @returns {Conversation[]} latest first */
export function list() {
  const keys = Array.from({ length: storage.length }, (_, index) => storage.key(index) ?? "");
  const found = keys.filter((key) => key.startsWith(PREFIX)).map((key) => parse(storage.getItem(key)));
  return found.filter((item) => item !== null).sort((a, b) => b.updated - a.updated);
}

/** Calls back when another tab has changed a conversation. @param {(id: string) => void} changed */
export function onOtherTab(changed) {
  addEventListener("storage", ({ key }) => {
    if (key?.startsWith(PREFIX)) changed(key.slice(PREFIX.length));
  });
}

/** @param {string} name @param {string} [fallback] */
export function preference(name, fallback = "") {
  return storage.getItem(`shoal.${name}`) ?? fallback;
}

/** @param {string} name @param {string} value "" forgets it */
export function setPreference(name, value) {
  if (value) storage.setItem(`shoal.${name}`, value);
  else storage.removeItem(`shoal.${name}`);
}

/** @param {string | null} text @returns {Conversation | null} null for what this version cannot read */
function parse(text) {
  try {
    const { id, title, updated, settings, turns } = JSON.parse(text ?? "");
    const { model, system, sampling } = settings;
    if (typeof id !== "string" || !Array.isArray(turns) || typeof sampling !== "object") return null;
    const kept = turns.filter((turn) => typeof turn?.content === "string" && ROLES.has(turn.role));
    const clean = { model: String(model ?? ""), system: String(system ?? ""), sampling: sampling ?? {} };
    return { id, title: String(title), updated: Number(updated) || 0, settings: clean, turns: kept };
  } catch {
    return null;
  }
}
