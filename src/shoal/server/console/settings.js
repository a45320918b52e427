/**
 * System prompt and sampling controls. An empty field is not sent, so the server's default holds; a value out of range
 * is said to be so beside the field and is not sent either.
 */

import { el } from "./dom.js";

/** @typedef {import("./store.js").Settings} Settings */
/** @typedef {{key: string, label: string, hint: string, unset: string, min: number, max: number, step: number}} Field
 *  `unset` is shown while the field is empty: what the server does then. */

/** @returns {Field} */
function field(key, label, hint, unset, min, max, step) {
  return { key, label, hint, unset, min, max, step };
}

/** In the order of the page. */
const FIELDS = [
  field("temperature", "Temperature", "0 always takes the likeliest token", "1", 0, 2, 0.05),
  field("top_p", "Top-p", "Keep the likeliest tokens up to this mass", "1", 0.01, 1, 0.01),
  field("top_k", "Top-k", "Keep this many tokens; 0 keeps all", "all", 0, 1e6, 1),
  field("min_p", "Min-p", "Drop tokens below this share of the likeliest", "0", 0, 1, 0.01),
  field("max_tokens", "Max tokens", "Longest answer", "no limit", 1, 1e7, 1),
  field("seed", "Seed", "Same seed, same answer", "random", 0, 2 ** 53 - 1, 1),
  field("repetition_penalty", "Repetition penalty", "Above 1 makes repeats less likely", "1", 0.05, 2, 0.05),
];

export class SettingsForm {
  #settings = /** @type {Settings} */ ({ model: "", system: "", sampling: {} });

  /** @param {HTMLFormElement} form @param {(settings: Settings) => void} changed */
  constructor(form, changed) {
    this.changed = changed;
    this.system = el("textarea", { id: "system", rows: "3", placeholder: "How the model should answer" });
    this.stop = el("textarea", { id: "stop-strings", rows: "2", placeholder: "One per line, \\n for a newline" });
    this.inputs = FIELDS.map(({ key, unset, min, max, step }) => el("input", { id: `set-${key}`, type: "number",
      min, max, step, inputmode: "decimal", placeholder: unset, "aria-describedby": `about-${key}` }));
    this.reset = el("button", { type: "button", class: "button quiet", text: "Reset", onclick: () => this.#reset() });
    form.append(...this.#layout());
    form.addEventListener("input", () => this.#read());
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** @param {Settings} settings */
  show(settings) {
    this.#settings = settings;
    const stop = settings.sampling.stop ?? [];
    this.system.value = settings.system;
    this.stop.value = stop.map((text) => text.replaceAll("\n", "\\n")).join("\n");
    FIELDS.forEach(({ key }, index) => (this.inputs[index].value = settings.sampling[key] ?? ""));
    this.#mark();
  }

  #layout() {
    const rows = FIELDS.map(({ key, label, hint }, index) => el("div", { class: "field" },
      el("label", { for: `set-${key}`, text: label }), this.inputs[index],
      el("p", { id: `about-${key}`, text: hint })));
    return [
      el("h2", { id: "settings-title", text: "This conversation" }),
      el("div", { class: "field wide" }, el("label", { for: "system", text: "System prompt" }), this.system),
      el("div", { class: "row heading" }, el("h3", { text: "Sampling" }), this.reset), ...rows,
      el("div", { class: "field wide" }, el("label", { for: "stop-strings", text: "Stop at" }), this.stop),
    ];
  }

  #read() {
    const stop = this.stop.value.split("\n").filter(Boolean).map((text) => text.replaceAll("\\n", "\n"));
    const all = FIELDS.map(({ key }, index) => [key, this.inputs[index]]);
    const set = all.filter(([, input]) => input.value !== "" && input.validity.valid);
    this.#settings.system = this.system.value;
    this.#settings.sampling = Object.fromEntries(set.map(([key, input]) => [key, input.valueAsNumber]));
    if (stop.length) this.#settings.sampling.stop = stop;
    this.#mark();
    this.changed(this.#settings);
  }

  /** Shows which fields are set and which cannot be sent as they stand. */
  #mark() {
    FIELDS.forEach((field, index) => {
      const { validity, validationMessage, parentElement } = this.inputs[index];
      parentElement.classList.toggle("set", validity.valid && this.inputs[index].value !== "");
      this.inputs[index].setAttribute("aria-invalid", String(!validity.valid));
      parentElement.lastElementChild.textContent = validity.valid ? field.hint : `Not sent: ${validationMessage}`;
    });
    this.reset.hidden = Object.keys(this.#settings.sampling).length === 0;
  }

  #reset() {
    this.show(Object.assign(this.#settings, { sampling: {} }));
    this.changed(this.#settings);
    this.inputs[0].focus();
  }
}
