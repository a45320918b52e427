/**
 * What the mesh view says, as words and numbers for people: pure functions of what the server told.
 */

/** @typedef {Record<string, any>} PeerView as in core/service.py */
/** @typedef {"direct" | "punched" | "relayed" | "none"} Kind of link */

/** @type {Record<Kind, string>} */
export const KINDS = {
  direct: "direct", punched: "direct, through a hole in a NAT", relayed: "through a relay", none: "no link now",
};

const SHARING = {
  private: "Nobody else: this machine's model answers its own clients only.",
  swarm: "Members of its swarm: whoever has its ticket may use this machine's model.",
  listed: "The peers that were listed by id, nobody else.",
  public: "Everybody who finds this machine.",
};

/** @param {string} id a peer's, or a provider's name @returns {string} as the command line shortens it */
export function short(id) {
  return id.slice(0, 10);
}

/** @param {string} name of a provider, as `usage.shoal.providers` has it */
export function provider(name) {
  if (name === "local") return "this machine";
  return name.startsWith("upstream:") ? `upstream ${name.slice(9)}` : `peer ${short(name)}`;
}

/** @param {string[]} names in the order in which they answered */
export function providers(names) {
  return names.map(provider).join(", then ");
}

/** @param {PeerView} peer @returns {Kind} */
export function kindOf({ state, path }) {
  if (state !== "connected") return "none";
  return path in KINDS ? path : "direct";
}

export function sharing(mode) {
  return SHARING[mode] ?? mode;
}

/** @param {number | null} value seconds */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.9995) return `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

/** @param {number} value */
export function bytes(value) {
  const step = Math.min(4, Math.floor(Math.log10(Math.max(1, value)) / 3));
  return `${(value / 1000 ** step).toFixed(step ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB"][step]}`;
}

/** @param {number} value a count */
export function count(value) {
  return new Intl.NumberFormat("en").format(value);
}

/** @param {PeerView} peer whose own word it is */
export function load({ models, running, waiting, seats }) {
  if (!models.length) return "–";
  return `${running} / ${seats}${waiting ? `, ${waiting} waiting` : ""}`;
}

/** @param {PeerView} peer */
export function price({ models, price_usd_per_mtok: price }) {
  if (!models.length) return "–";
  return price ? `$${price} per million` : "free";
}

/** @param {number} at seconds since 1970 */
export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** One line for a peer's drawing. @param {PeerView} peer */
export function sentence(peer) {
  const kind = kindOf(peer);
  const link = kind === "none" ? "" : `, ${KINDS[kind]} over ${peer.carrier}, ${seconds(peer.rtt_s)}`;
  return `${short(peer.id)}: ${peer.state}${link}`;
}
