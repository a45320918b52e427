/**
 * Where each peer of the map stands: on one ellipse or two around this node, always in the same order, so that nothing
 * jumps between two looks. More than fit are counted in groups; the table has every one of them. Pure.
 */

import { kindOf } from "./mesh-words.js";

/** @typedef {import("./mesh-words.js").PeerView} PeerView */
/** @typedef {{key: string, x: number, y: number, peer?: PeerView, upstream?: string, count?: number,
 *             kind: import("./mesh-words.js").Kind, labelAt: number}} Spot labelAt: how far out on the link */
/** @typedef {{room: number, rx: number, ry: number}} Ring */
/** @typedef {{width: number, height: number, alone: Ring, rings: [Ring, Ring]}} Shape `alone`: where one ring will do */

/** In units of the drawing, about a pixel each. */
const WIDE = { width: 960, height: 540, alone: { room: 12, rx: 360, ry: 200 },
  rings: [{ room: 10, rx: 235, ry: 130 }, { room: 22, rx: 415, ry: 225 }] };
const MIDDLE = { width: 720, height: 500, alone: { room: 10, rx: 270, ry: 185 },
  rings: [{ room: 8, rx: 170, ry: 112 }, { room: 16, rx: 300, ry: 205 }] };
const NARROW = { width: 380, height: 460, alone: { room: 8, rx: 140, ry: 175 },
  rings: [{ room: 4, rx: 84, ry: 105 }, { room: 10, rx: 145, ry: 190 }] };
const FEW = 2;
const FEW_HEIGHT = 150;
const ORDER = ["direct", "punched", "relayed", "none"];

/** @param {number} px room on the page @returns {Shape} */
export function shapeFor(px) {
  return px < 560 ? NARROW : px < 860 ? MIDDLE : WIDE;
}

/** What is seen of the drawing: one or two stand beside this node, and need no height. @returns {string} a viewBox */
export function viewBox({ width, height }, total) {
  const seen = total <= FEW ? FEW_HEIGHT : height;
  return `${-width / 2} ${-seen / 2} ${width} ${seen}`;
}

/**
 * @param {PeerView[]} peers @param {string[]} upstreams names of servers that were asked
 * @param {Set<string>} answering ids that must be seen @param {Shape} shape @returns {Spot[]}
 */
export function spots(peers, upstreams, answering, shape) {
  const room = shape.rings.reduce((sum, ring) => sum + ring.room, 0) - upstreams.length;
  const ranked = [...peers].sort((a, b) => weight(b, answering) - weight(a, answering) || order(a.id, b.id));
  const fits = ranked.length <= room ? room : room - ORDER.length;
  const drawn = ranked.slice(0, fits).sort((a, b) => rank(a) - rank(b) || order(a.id, b.id));
  const items = [
    ...drawn.map((peer) => ({ key: peer.id, peer, kind: kindOf(peer) })),
    ...groups(ranked.slice(fits)),
    ...upstreams.map((upstream) => ({ key: upstream, upstream, kind: /** @type {const} */ ("none") })),
  ];
  return items.map((item, index) => ({ ...item, ...place(index, items.length, shape) }));
}

/** What is worth a place, most first: who answers, who is connected, who has something to offer. */
function weight(peer, answering) {
  return 4 * Number(answering.has(peer.id)) + 2 * Number(peer.state === "connected") + Number(peer.models.length > 0);
}

function rank(peer) {
  return ORDER.indexOf(kindOf(peer));
}

function order(a, b) {
  return a < b ? -1 : Number(a > b);
}

function groups(peers) {
  return ORDER.map((kind) => ({ kind, count: peers.filter((peer) => kindOf(peer) === kind).length }))
    .filter(({ count }) => count).map((group) => ({ ...group, key: `more ${group.kind}` }));
}

/** The inner ring fills first; the outer one begins half a step on, so that its links pass between the inner peers. */
function place(index, total, { alone, rings: [inner, outer] }) {
  if (total <= FEW) return at(alone, index / 2 + 0.25, 0.5);
  if (total <= alone.room) return at(alone, index / total, 0.56);
  if (index < inner.room) return at(inner, index / inner.room, 0.5);
  return at(outer, (index - inner.room + 0.5) / (total - inner.room), 0.79);
}

/** @param {Ring} ring @param {number} share of a turn, from the top */
function at({ rx, ry }, share, labelAt) {
  const turn = (share - 0.25) * 2 * Math.PI;
  return { x: Math.round(rx * Math.cos(turn)), y: Math.round(ry * Math.sin(turn)), labelAt };
}
