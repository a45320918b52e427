/**
 * Inline Markdown to DOM nodes: code, emphasis, strike, links, breaks. Anything else is text.
 *
 * Model output is hostile here. Only text nodes and the elements named in this file are made, the one attribute
 * that comes from the text is a link's address, and `safeUrl` decides on it. Images are never loaded: they become
 * links.
 * Delimiters without an end are remembered, so that a run of them costs linear time.
 */

import { el } from "./dom.js";

const MAX_DEPTH = 8;
const MAX_LABEL = 1000;
const TARGET = /^\(\s*<?((?:[^\s<>()]|\([^\s<>()]*\))*)>?(?:\s+["'(][^"')\n]*["')])?\s*\)/;
const SPECIAL = /[\\`*_~[!<\n]|https?:\/\//g;
const SCHEMES = new Set(["http:", "https:", "mailto:"]);
const PAIRS = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

/**
 * @param {string} raw @returns {string | null} a normalised absolute address, null unless http, https or mailto.
 * Relative addresses are refused: they would point into this server.
 */
export function safeUrl(raw) {
  try {
    const url = new URL(raw.trim());
    return SCHEMES.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** @param {string} text @param {number} [depth] @returns {DocumentFragment} */
export function inline(text, depth = 0) {
  const out = document.createDocumentFragment();
  if (depth > MAX_DEPTH) {
    out.append(text);
    return out;
  }
  const missing = new Set();
  let plain = 0;
  let at = next(text, 0);
  while (at < text.length) {
    const found = match(text, at, depth, missing);
    if (found) {
      out.append(text.slice(plain, at), found.node);
      plain = at + found.length;
    }
    at = next(text, found ? plain : at + 1);
  }
  out.append(text.slice(plain));
  return out;
}

/** Where the next character that may mean something is, or the end. */
function next(text, from) {
  SPECIAL.lastIndex = from;
  return SPECIAL.exec(text)?.index ?? text.length;
}

/** @returns {{node: Node | string, length: number} | null} the construct that starts at `at`, if one does */
function match(text, at, depth, missing) {
  switch (text[at]) {
    case "\\": return escape(text, at);
    case "\n": return { node: el("br"), length: 1 };
    case "`": return code(text, at, missing);
    case "<": return lineBreak(text, at) ?? autolink(text, at);
    case "!": return text[at + 1] === "[" ? link(text, at + 1, 1, depth, missing) : null;
    case "[": return link(text, at, 0, depth, missing);
    case "h": return bareUrl(text, at);
    default: return emphasis(text, at, depth, missing);
  }
}

function escape(text, at) {
  return /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "") ? { node: text[at + 1], length: 2 } : null;
}

function code(text, at, missing) {
  const ticks = /^`+/.exec(text.slice(at, at + 16))[0];
  const end = missing.has(ticks) ? -1 : text.indexOf(ticks, at + ticks.length);
  if (end < 0) {
    missing.add(ticks);
    return { node: ticks, length: ticks.length };
  }
  const body = text.slice(at + ticks.length, end).replace(/\n/g, " ");
  const isPadded = body.startsWith(" ") && body.endsWith(" ") && body.trim() !== "";
  return { node: el("code", { text: isPadded ? body.slice(1, -1) : body }), length: end + ticks.length - at };
}

function anchor(href, content) {
  return el("a", { href, rel: "noopener noreferrer nofollow", target: "_blank", title: href }, content);
}

/** The one tag that models write inside table cells. */
function lineBreak(text, at) {
  const found = /^<br\s*\/?>/i.exec(text.slice(at, at + 8));
  return found && { node: el("br"), length: found[0].length };
}

function autolink(text, at) {
  const found = /^<([a-z][a-z0-9+.-]{1,31}:[^\s<>]{1,2000})>/i.exec(text.slice(at, at + 2100));
  const href = found && safeUrl(found[1]);
  return href ? { node: anchor(href, found[1]), length: found[0].length } : null;
}

function bareUrl(text, at) {
  const found = /^https?:\/\/[^\s<>"`]{1,2000}/.exec(text.slice(at, at + 2100));
  const ends = found?.[0].includes("(") ? /[.,;:!?'*_~\]]+$/ : /[.,;:!?'*_~)\]]+$/;
  const trimmed = found?.[0].replace(ends, "");
  const href = trimmed && safeUrl(trimmed);
  return href ? { node: anchor(href, trimmed), length: trimmed.length } : null;
}

/** `[label](address "title")`; with `bang` 1 an image, shown as a link to it. Unsafe addresses leave the label only. */
function link(text, at, bang, depth, missing) {
  if (!missing.has("](") && text.indexOf("](", at) < 0) missing.add("](");
  const close = missing.has("](") ? -1 : labelEnd(text, at);
  const target = close < 0 ? null : TARGET.exec(text.slice(close + 1, close + 2400));
  if (!target) return null;
  const href = safeUrl(target[1]);
  const label = text.slice(at + 1, close) || target[1];
  const content = inline(label, href ? MAX_DEPTH : depth + 1);
  return { node: href ? anchor(href, content) : content, length: bang + close + 1 - at + target[0].length };
}

/** The `]` that closes the `[` at `at`, or -1. */
function labelEnd(text, at) {
  let open = 0;
  for (let index = at; index < Math.min(text.length, at + MAX_LABEL); index += 1) {
    if (text[index] === "\\") index += 1;
    else if (text[index] === "[") open += 1;
    else if (text[index] === "]" && (open -= 1) === 0) return index;
  }
  return -1;
}

function emphasis(text, at, depth, missing) {
  for (const [mark, tag] of PAIRS) {
    if (!text.startsWith(mark, at) || missing.has(mark)) continue;
    if (/\s/.test(text[at + mark.length] ?? " ")) continue;
    if (mark[0] === "_" && /\w/.test(text[at - 1] ?? "")) continue;
    const end = closer(text, at + mark.length, mark);
    if (end >= 0) {
      const content = inline(text.slice(at + mark.length, end), depth + 1);
      return { node: el(tag, {}, content), length: end + mark.length - at };
    }
    missing.add(mark);
  }
  return null;
}

/** Where `mark` closes: after a non-space, outside code, and for a single mark not at a double one. */
function closer(text, from, mark) {
  for (let at = from; at < text.length; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "`") at = Math.max(at, text.indexOf("`", at + 1));
    else if (text.startsWith(mark, at) && at > from && !/\s/.test(text[at - 1])) {
      const isLonger = text[at + mark.length] === mark[0];
      if (isLonger) at += mark.length === 1 ? 1 : 0;
      else if (mark[0] !== "_" || !/\w/.test(text[at + mark.length] ?? "")) return at;
    }
  }
  return -1;
}
