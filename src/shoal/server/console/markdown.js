/**
 * Block Markdown to DOM nodes, once or while it streams in.
 *
 * `splitBlocks` reads lines left to right and never changes its mind about a block once the next one has begun with a
 * whole line; `MarkdownStream` rests on that: it renders a finished block once and only the last one again.
 * A dialect for chat: every newline breaks the line, four leading spaces are not code, and HTML is text.
 */

import { copyButton, el } from "./dom.js";
import { highlight } from "./highlight.js";
import { inline } from "./markdown-inline.js";

/** @typedef {"blank" | "fence" | "heading" | "rule" | "quote" | "list" | "table" | "text"} Kind */
/** @typedef {{kind: Kind, lines: string[], offset: number, fence: string}} Block
 *  `fence` is the mark of the fence that is open at its end, "" for none; a list may hold one, whatever its indent. */

const MAX_DEPTH = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?\s*#*$/;
const RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const ITEM = /^( *)([-*+]|(\d{1,9})[.)])(\s+|$)/;
const DELIMITER = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

/** @param {string} line @returns {Kind} the block that this line would begin */
function kindOf(line) {
  if (!line.trim()) return "blank";
  if (FENCE.test(line)) return "fence";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (/^ {0,3}>/.test(line)) return "quote";
  return ITEM.test(line) ? "list" : "text";
}

/** @param {Block} block @param {string} line whether `line` belongs to `block` */
function continues(block, line) {
  const kind = kindOf(line);
  switch (block.kind) {
    case "fence": return block.fence !== "";
    case "blank": case "quote": return kind === block.kind;
    case "table": return kind === "text";
    case "text": return kind === "text" || (kind === "list" && !/^ {0,3}(?:[-*+]|1[.)])\s+\S/.test(line));
    case "list": return block.fence !== "" || kind === "blank" || /^ {2,}/.test(line) || continuesList(block, kind, line);
    default: return false;
  }
}

function continuesList(block, kind, line) {
  if (kind === "list") return Boolean(ITEM.exec(line)[3]) === Boolean(ITEM.exec(block.lines[0])[3]);
  return kind === "text" && block.lines.at(-1).trim() !== "";
}

/** @param {string} text @returns {Block[]} */
export function splitBlocks(text) {
  const blocks = /** @type {Block[]} */ ([]);
  let offset = 0;
  for (const line of text.split("\n")) {
    const last = blocks.at(-1);
    if (last?.kind === "text" && beginsTable(last.lines.at(-1), line)) pushTable(blocks, line, offset);
    else if (last && continues(last, line)) extend(last, line);
    else blocks.push({ kind: kindOf(line), lines: [line], offset, fence: fenceAfter("", line) });
    offset += line.length + 1;
  }
  return blocks;
}

function extend(block, line) {
  block.lines.push(line);
  if (block.kind === "fence" || block.kind === "list") block.fence = fenceAfter(block.fence, line);
}

/** @param {string} open mark of the fence that is open before `line`, or "" @returns {string} the one open after it */
function fenceAfter(open, line) {
  if (!open) return /^\s*(?:(?:[-*+]|\d{1,9}[.)])\s+)?(`{3,}|~{3,})[^`]*$/.exec(line)?.[1] ?? "";
  const end = /^\s*(`{3,}|~{3,})\s*$/.exec(line)?.[1] ?? "";
  return end.startsWith(open) ? "" : open;
}

function beginsTable(header, line) {
  const isHeader = header.includes("|") && kindOf(header) === "text";
  return isHeader && DELIMITER.test(line) && cells(header).length === cells(line).length;
}

/** The last line of a paragraph turns out to be the head of a table. */
function pushTable(blocks, line, offset) {
  const paragraph = blocks.at(-1);
  const header = paragraph.lines.pop();
  if (!paragraph.lines.length) blocks.pop();
  blocks.push({ kind: "table", lines: [header, line], offset: offset - header.length - 1, fence: "" });
}

function cells(row) {
  const inner = row.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));
}

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

/** Text of each item: a marker no deeper than the first one's content begins a new one. */
function listItems(lines, indent) {
  const items = /** @type {string[][]} */ ([]);
  let width = 2;
  let fence = "";
  for (const line of lines) {
    const item = fence ? null : ITEM.exec(line);
    fence = fenceAfter(fence, line);
    if (item && item[1].length < indent + 2) {
      width = item[1].length + item[2].length + Math.min(Math.max(item[4].length, 1), 4);
      items.push([line.slice(item[0].length)]);
    } else items.at(-1).push(line.slice(Math.min(width, line.search(/\S|$/))));
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
