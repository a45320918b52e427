/**
 * Lists beside the map: who was asked for which answer and why, blobs on their way, and what this node is in its mesh.
 */

import { copyButton, el } from "./dom.js";
import { bytes, clock, count, provider, sharing } from "./mesh-words.js";

/** @typedef {Record<string, any>} MeshView as in core/service.py */
/** @typedef {Record<string, any>} Decision */

/** Latest request first; where one request has several lines, it moved on. @param {Decision[]} decisions */
export function decisionList(decisions) {
  const requests = new Map();
  for (const decision of decisions) {
    requests.set(decision.request_id, [...(requests.get(decision.request_id) ?? []), decision]);
  }
  if (!requests.size) return el("p", { class: "quiet", text: "Nothing was asked of this node yet." });
  return el("ol", { class: "decisions" }, ...[...requests.values()].reverse().map(request));
}

function request(decisions) {
  const at = decisions.at(-1).at;
  const moved = decisions.length > 1 ? el("p", { class: "moved", text: `Moved on ${times(decisions.length - 1)}` }) : null;
  const time = el("time", { datetime: new Date(at * 1000).toISOString(), text: clock(at) });
  return el("li", {}, time, moved, el("ul", {}, ...decisions.map(attempt)));
}

function attempt({ provider: name, why, outcome, num_tokens: tokens }) {
  const isPeer = name !== "local" && !name.startsWith("upstream:");
  const who = isPeer ? el("a", { href: `#mesh=${name}`, text: provider(name) }) : el("span", { text: provider(name) });
  const kind = outcome.startsWith("failed") ? "failed" : outcome === "answered" ? "answered" : "ended";
  return el("li", { class: kind }, el("p", {}, who, ` ${outcome}, ${count(tokens)} tokens`),
    el("p", { class: "quiet", text: `Expected: ${why}` }));
}

function times(number) {
  return number === 1 ? "once" : `${number} times`;
}

/** Coming, going, and what ended in the last minute. @param {Record<string, any>[]} transfers as in core/service.py */
export function transferList(transfers) {
  return el("ul", { class: "transfers" }, ...transfers.map(transfer));
}

function transfer({ name, done_bytes: done, size_bytes: size, outcome, rate_bps: rate, ...other }) {
  const what = size ? `${bytes(done)} of ${bytes(size)}` : "looking for it";
  const speed = outcome || !rate ? "" : `, ${bytes(rate)}/s`;
  const line = el("p", { class: "quiet" }, what, ...partners(other), speed, outcome ? `: ${outcome}` : "");
  const bar = outcome ? null : el("progress", { max: Math.max(1, size), value: done, "aria-label": name });
  return el("li", { class: outcome ? "over" : "" }, el("p", { class: "blob", text: name }), bar, line);
}

/** One peer by its name, several as a number. */
function partners({ direction, num_peers: number, peers = [] }) {
  if (!number) return [];
  const word = direction === "up" ? " to " : " from ";
  if (number > 1 || !peers.length) return [word, `${number} ${number === 1 ? "peer" : "peers"}`];
  return [word, el("a", { href: `#mesh=${peers[0]}`, text: provider(peers[0]) })];
}

/** @param {MeshView} view of a node that is in a mesh */
export function aboutNode(view) {
  const list = (items) => (items.length ? el("ul", {}, ...items.map((text) => el("li", {}, el("code", { text })))) : null);
  return facts([
    ["Id", el("span", { class: "id" }, el("code", { text: view.id }), copyButton(() => view.id, "Copy this node's id"))],
    ["Serves", sharing(view.sharing)],
    ["NAT", view.nat || "Not known: no public peer has said yet how this machine looks from outside."],
    ["Addresses", list([...new Set(view.addresses)])],
    ["Relays", list(view.relays) ?? "None. Peers behind strict NATs may need one (--relay URL)."],
  ]);
}

/** A list of what is known; null is not. @param {[string, Node | string | null][]} pairs */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== "");
  return el("dl", { class: "facts" }, ...known.flatMap(([name, value]) =>
    [el("dt", { text: name }), el("dd", {}, value)]));
}

/** What to do when there is no mesh, or nobody else in it. @param {MeshView} view */
export function emptyState(view) {
  const line = (text) => el("p", { class: "command" }, el("code", { text }), copyButton(() => text, `Copy ${text}`));
  if (!view.id) {
    return el("div", { class: "empty" }, el("h2", { text: "This node is on its own" }),
      el("p", { text: "Start it like this and it prints a ticket; members of your swarm may then use its model:" }),
      line("shoal up --share"), el("p", { text: "With the ticket of somebody else's node, join theirs:" }),
      line("shoal join TICKET"));
  }
  return el("div", { class: "empty" }, el("h2", { text: "Nobody else is here yet" }),
    el("p", { text: "Print this node's ticket:" }), line("shoal ticket"),
    el("p", { text: "and use it on another machine. Whoever has the ticket is a member: send it privately." }),
    line("shoal join TICKET"));
}
