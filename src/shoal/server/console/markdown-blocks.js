/**
 * Text to blocks of lines. Lines are read left to right, and nothing changes its mind about a block once the next one
 * has begun with a whole line, except that the last line of a paragraph may turn out to be the head of a table.
 * A dialect for chat: four leading spaces are not code, HTML is text, and a fence within a list ends where it ends,
 * however it is indented.
 */

/** @typedef {"blank" | "fence" | "heading" | "rule" | "quote" | "list" | "table" | "text"} Kind */
/** @typedef {{kind: Kind, lines: string[], offset: number, fence: string}} Block
 *  `fence` is the mark of the fence that is open at its end, "" for none; a list may hold one, whatever its indent. */

export const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
export const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?\s*#*$/;
const RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
export const ITEM = /^( *)([-*+]|(\d{1,9})[.)])(\s+|$)/;
const INTERRUPTS = /^ {0,3}(?:[-*+]|1[.)])\s+\S/;
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
    case "text": return kind === "text" || (kind === "list" && !INTERRUPTS.test(line));
    case "list": return block.fence !== "" || continuesList(block, kind, line);
    default: return false;
  }
}

function continuesList(block, kind, line) {
  if (kind === "blank" || /^ {2,}/.test(line)) return true;
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
export function fenceAfter(open, line) {
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

export function cells(row) {
  const inner = row.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));
}
