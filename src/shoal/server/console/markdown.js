/**
 * Block Markdown to DOM nodes, once or while it streams in; every newline of a paragraph breaks the line.
 *
 * `MarkdownStream` rests on what markdown-blocks says of its blocks: it renders a finished one once, and only the last
 * one again.
 */

import { copyButton, el } from "./dom.js";
import { highlight } from "./highlight.js";
import { cells, FENCE, fenceAfter, HEADING, ITEM, splitBlocks } from "./markdown-blocks.js";
import { inline } from "./markdown-inline.js";

/** @typedef {import("./markdown-blocks.js").Block} Block */

const MAX_DEPTH = 8;

/** @param {string} text @param {number} [depth] @returns {Node[]} */
export function renderMarkdown(text, depth = 0) {
  if (depth > MAX_DEPTH) return [el("p", { text })];
  return splitBlocks(text).filter(({ kind }) => kind !== "blank").map((block) => renderBlock(block, depth));
}

/** @param {Block} block @returns {HTMLElement} */
function renderBlock({ kind, lines }, depth) {
  switch (kind) {
    case "fence": return fence(lines);
    case "heading": return heading(lines[0]);
    case "rule": return el("hr");
    case "quote": return quote(lines, depth);
    case "list": return list(lines, depth);
    case "table": return table(lines);
    default: return el("p", {}, inline(lines.join("\n").trim()));
  }
}

/** Headings of an answer sit below the page's own (h1, h2), so that a screen reader's outline stays true. */
function heading(line) {
  const [, marks, text = ""] = HEADING.exec(line);
  return el(`h${Math.min(6, marks.length + 2)}`, {}, inline(text));
}

function quote(lines, depth) {
  const inner = lines.map((line) => line.replace(/^ {0,3}> ?/, "")).join("\n");
  return el("blockquote", {}, ...renderMarkdown(inner, depth + 1));
}

function fence(lines) {
  const [, mark, info] = FENCE.exec(lines[0]);
  const language = info.trim().split(/\s/)[0];
  const code = el("code", {}, ...highlight(fenceBody(lines, mark), language));
  const label = el("span", { class: "language", text: language || "text" });
  const head = el("div", { class: "code-head" }, label, copyButton(() => code.textContent, "Copy code"));
  return el("div", { class: "code" }, head, el("pre", { tabindex: "0", "aria-label": "Code" }, code));
}

function fenceBody(lines, mark) {
  const isEnded = lines.length > 1 && fenceAfter(mark, lines.at(-1)) === "";
  return lines.slice(1, isEnded ? -1 : undefined).join("\n");
}

function list(lines, depth) {
  const first = ITEM.exec(lines[0]);
  const items = listItems(lines, first[1].length);
  const loose = items.some((item) => /\n[ \t]*\n[ \t]*\S/.test(item));
  const start = first[3] && first[3] !== "1" ? first[3] : undefined;
  return el(first[3] ? "ol" : "ul", { start }, ...items.map((item) => listItem(item, loose, depth)));
}

/**
 * Text of each item: a marker no deeper than the first one's content begins a new one. Models often leave code in an
 * item unindented, so the first line of code says how much indent is the item's and how much is the code's.
 */
function listItems(lines, indent) {
  const items = /** @type {string[][]} */ ([]);
  let [width, fence, inCode] = [2, "", -1];
  for (const line of lines) {
    const item = fence ? null : ITEM.exec(line);
    const depth = line.search(/\S|$/);
    if (item && item[1].length < indent + 2) {
      width = item[1].length + item[2].length + Math.min(Math.max(item[4].length, 1), 4);
      items.push([line.slice(item[0].length)]);
    } else {
      if (fence && inCode < 0 && line.trim()) inCode = Math.min(width, depth);
      items.at(-1).push(line.slice(Math.min(fence && inCode >= 0 ? inCode : width, depth)));
    }
    fence = fenceAfter(fence, line);
    if (!fence) inCode = -1;
  }
  return items.map((item) => item.join("\n"));
}

function listItem(source, loose, depth) {
  const task = /^\[([ xX])\]\s+/.exec(source);
  const nodes = renderMarkdown(task ? source.slice(task[0].length) : source, depth + 1);
  if (!loose && nodes[0]?.nodeName === "P") nodes.splice(0, 1, ...nodes[0].childNodes);
  return el("li", { class: task ? "task" : undefined }, task ? (task[1] === " " ? "☐ " : "☑ ") : null, ...nodes);
}

function table(lines) {
  const [head, ...body] = lines.filter((_, index) => index !== 1).map(cells);
  const sides = cells(lines[1]).map(side);
  const row = (tag, scope, values) => el("tr", {}, ...sides.map((place, index) =>
    el(tag, { class: place, scope }, inline(values[index] ?? ""))));
  const rows = body.map((values) => row("td", undefined, values));
  const parts = [el("thead", {}, row("th", "col", head)), el("tbody", {}, ...rows)];
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, el("table", {}, ...parts));
}

/** @param {string} cell of the line under the head, such as `:-:` @returns {string | undefined} a class */
function side(cell) {
  if (!cell.endsWith(":")) return undefined;
  return cell.startsWith(":") ? "center" : "end";
}

/** Renders text that only grows. `update` costs as much as the last block is long. */
export class MarkdownStream {
  #offset = 0;
  #tail = /** @type {Node[]} */ ([]);

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
  }

  /** @param {string} text all of it so far */
  update(text) {
    const whole = text.slice(this.#offset, text.lastIndexOf("\n") + 1);
    const settled = whole ? splitBlocks(whole.slice(0, -1)).at(-1).offset : 0;
    if (settled > 0) this.#append(text.slice(this.#offset, this.#offset + settled), true);
    this.#offset += settled;
    this.#append(text.slice(this.#offset), false);
  }

  #append(text, final) {
    for (const node of this.#tail) node.remove();
    const nodes = renderMarkdown(text);
    this.root.append(...nodes);
    this.#tail = final ? [] : nodes;
  }
}
