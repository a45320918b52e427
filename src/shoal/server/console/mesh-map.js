/**
 * The map: this node in the middle, peers around it. A link's kind is its colour and its dashes, its throughput its
 * width, and its round trip stands on it. The table says the same in words, so screen readers and the Tab key pass over.
 */

import { el, svg } from "./dom.js";
import { shapeFor, spots, viewBox } from "./mesh-layout.js";
import { KINDS, provider, seconds, sentence, short } from "./mesh-words.js";

/** @typedef {import("./mesh-layout.js").Spot} Spot */
/** @typedef {{answered: Set<string>, failed: Set<string>, words: string}} Credits who answered, who failed */

const FISH = "M-7.500-3.200l3.800 3.200q5.600-5.800 11.300 0q-5.700 5.800-11.300 0l-3.800 3.200Z";
const NOTES = { answered: "answered", failed: "failed", "answered failed": "began, then failed" };
const MORE = { direct: "more direct", punched: "more punched", relayed: "more relayed", none: "without a link" };

export class MeshMap {
  #drawn = /** @type {Map<string, Piece>} */ (new Map());

  constructor() {
    this.links = svg("g", { class: "links" });
    this.labels = svg("g", { class: "labels" });
    this.peers = svg("g", { class: "peers" });
    this.me = svg("g", { class: "me" }, svg("circle", { r: 25 }), svg("path", { d: FISH, transform: "scale(2)" }),
      svg("text", { y: 42 }));
    this.drawing = svg("svg", { class: "map", "aria-hidden": "true" }, this.links, this.peers, this.me, this.labels);
    this.caption = el("p", { class: "caption" });
    this.node = el("figure", { class: "mesh-map" }, this.drawing, legend(), this.caption);
  }

  /** @param {Record<string, any>} view MeshView @param {Credits} credits */
  update(view, credits) {
    const shape = shapeFor(this.node.clientWidth);
    const found = spots(view.peers, upstreams(view), credits.answered, shape);
    this.drawing.setAttribute("viewBox", viewBox(shape, found.length));
    const kept = new Map(found.map((spot) => [spot.key, this.#drawn.get(spot.key) ?? this.#add(spot)]));
    for (const [key, piece] of this.#drawn) if (!kept.has(key)) piece.remove();
    this.#drawn = kept;
    for (const spot of found) kept.get(spot.key)?.update(spot, credits);
    write(this.me.lastChild, "this node");
    this.me.setAttribute("class", credits.answered.has("local") ? "me answered" : "me");
    write(this.caption, credits.words);
  }

  #add(spot) {
    const piece = new Piece(spot);
    this.links.append(piece.line);
    this.labels.append(piece.label);
    this.peers.append(piece.node);
    return piece;
  }
}

/** One peer, upstream server or group of peers, with its link. */
class Piece {
  /** @param {Spot} spot */
  constructor(spot) {
    this.line = svg("line", { x1: 0, y1: 0 });
    this.label = svg("text", { class: "rtt" });
    this.title = svg("title", {});
    this.name = svg("text", { y: 29 });
    this.note = svg("text", { class: "note-line", y: 43 });
    const shape = spot.upstream ? svg("rect", { x: -14, y: -14, width: 28, height: 28, rx: 4 })
      : svg("circle", { r: spot.count ? 21 : 15 });
    const inside = spot.count ? svg("text", { class: "many", y: 5 }) : svg("path", { d: FISH });
    const parts = [this.title, svg("circle", { class: "halo", r: 22 }), shape, inside, this.name, this.note];
    this.node = spot.peer ? svg("a", { href: `#mesh=${spot.key}`, tabindex: -1 }, ...parts) : svg("g", {}, ...parts);
    this.inside = inside;
  }

  /** @param {Spot} spot @param {Credits} credits */
  update(spot, { answered, failed }) {
    const { x, y, peer, kind, key, labelAt } = spot;
    const state = [answered.has(key) && "answered", failed.has(key) && "failed"].filter(Boolean).join(" ");
    this.node.setAttribute("class", `peer ${kind} ${state}`);
    this.node.setAttribute("transform", `translate(${x} ${y})`);
    this.line.setAttribute("x2", String(x));
    this.line.setAttribute("y2", String(y));
    this.line.setAttribute("class", `link ${kind} ${state}`);
    this.line.setAttribute("stroke-width", String(width(peer)));
    this.label.setAttribute("x", String(Math.round(x * labelAt)));
    this.label.setAttribute("y", String(Math.round(y * labelAt) + 4));
    write(this.label, peer && kind !== "none" ? seconds(peer.rtt_s) : "");
    write(this.name, peer ? short(key) : spot.upstream ? provider(key) : MORE[kind]);
    write(this.note, NOTES[state] ?? (peer && kind === "none" ? peer.state : ""));
    write(this.title, peer ? sentence(peer) : spot.count ? `${spot.count} more: see the table` : provider(key));
    if (spot.count) write(this.inside, `+${spot.count}`);
  }

  remove() {
    for (const node of [this.line, this.label, this.node]) node.remove();
  }
}

/** Thicker by a step for each tenfold of bytes a second above a kilobyte. */
function width(peer) {
  const rate = peer?.throughput_bps ?? 0;
  return Math.min(8, 1.75 + Math.max(0, Math.log10(Math.max(1, rate)) - 3)).toFixed(2);
}

function upstreams({ decisions }) {
  const names = decisions.map((decision) => decision.provider).filter((name) => name.startsWith("upstream:"));
  return [...new Set(names)].sort().slice(0, 4);
}

function legend() {
  const sample = (kind) => svg("svg", { viewBox: "0 0 34 8", "aria-hidden": "true" },
    svg("line", { class: `link ${kind}`, x1: 2, x2: 32, y1: 4, y2: 4, "stroke-width": 2 }));
  const items = Object.entries(KINDS).map(([kind, words]) => el("span", {}, sample(kind), words));
  return el("p", { class: "kinds" }, ...items, el("span", { text: "thicker: more bytes a second" }));
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
