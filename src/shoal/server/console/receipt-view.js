/**
 * The badge under an answer that was signed. Opened, it says in plain words what the receipt shows and what it does not.
 */

import { downloadJson, el, icon, iconButton } from "./dom.js";

/** @typedef {import("./store.js").Turn} Turn */
/** @typedef {{valid: boolean, holds: string[], problems: string[], parts: string[], verdicts: string[],
 *             receipt: string, opening: string | null, model: string, weights: string, node: string}} Evidence */

const MEANING = "The signer cannot deny or change this answer, nor leave its receipt out of its chain unnoticed. " +
  "A signature alone does not show that the model named is the one that ran: checks do.";

/** @param {Turn} turn with a receipt @param {(id: string) => Promise<Evidence>} look @returns {HTMLElement} */
export function badge(turn, look) {
  const words = el("div", { class: "evidence", "aria-live": "polite" }, el("p", { text: "Looking…" }));
  const summary = el("summary", { title: "What this answer's receipt shows" }, icon("check"), el("span", { text: "Signed" }));
  const box = el("details", { class: "receipt" }, summary, words);
  box.addEventListener("toggle", () => box.open && fill(box, words, turn.receipt.id, look), { once: true });
  return box;
}

async function fill(box, words, id, look) {
  try {
    const found = await look(id);
    const told = name(found);
    box.classList.toggle("invalid", told.includes(", and "));
    box.querySelector("summary span").textContent = told;
    words.replaceChildren(...lines(found, id));
  } catch (error) {
    words.replaceChildren(el("p", { text: `The receipt cannot be looked at now: ${error.message}` }));
  }
}

/** @param {Evidence} found the strongest true word for it */
function name({ valid, verdicts }) {
  if (!valid) return "Signed, and does not hold";
  if (verdicts.some((text) => text.startsWith("fail"))) return "Signed, and failed a check";
  return verdicts.some((text) => text.startsWith("pass")) ? "Signed and audited" : "Signed";
}

/** @param {Evidence} found @param {string} id */
function lines(found, id) {
  const listed = [...found.problems, ...found.holds, ...found.parts, ...found.verdicts];
  const weights = found.weights ? `weights ${found.weights.slice(0, 16)}…` : "weights not named";
  const { receipt, opening } = found;
  return [
    el("ul", {}, ...listed.map((text) => el("li", { text })), el("li", { text: `model ${found.model}, ${weights}` })),
    el("p", { text: MEANING }),
    iconButton("download", "Download receipt", () => downloadJson(`${id}.json`, opening ? { receipt, opening } : { receipt }), false),
  ];
}
