/**
 * System prompt and sampling controls. An empty field is not sent, so the server's default holds; a value out of range
 * is said to be so beside the field and is not sent either.
 */

import { el } from "./dom.js";

/** @typedef {import("./store.js").Settings} Settings */
/** @typedef {{key: string, label: string, hint: string, unset: string, min: number, max: number, step: number}} Field */

/** @type {Field[]} */
const FIELDS = [
  { key: "temperature", label: "Temperature", hint: "0 always takes the likeliest token", unset: "1", min: 0, max: 2, step: 0.05 },
  { key: "top_p", label: "Top-p", hint: "Keep the likeliest tokens up to this mass", unset: "1", min: 0.01, max: 1, step: 0.01 },
  { key: "top_k", label: "Top-k", hint: "Keep this many tokens; 0 keeps all", unset: "all", min: 0, max: 1e6, step: 1 },
  { key: "min_p", label: "Min-p", hint: "Drop tokens below this share of the likeliest", unset: "0", min: 0, max: 1, step: 0.01 },
  { key: "max_tokens", label: "Max tokens", hint: "Longest answer", unset: "no limit", min: 1, max: 1e7, step: 1 },
  { key: "seed", label: "Seed", hint: "Same seed, same answer", unset: "random", min: 0, max: 2 ** 53 - 1, step: 1 },
  { key: "repetition_penalty", label: "Repetition penalty", hint: "Above 1 makes repeats less likely", unset: "1", min: 0.05, max: 2, step: 0.05 },
];

export class SettingsForm {
  #settings = /** @type {Settings} */ ({ model: "", system: "", sampling: {} });

  /** @param {HTMLFormElement} form @param {(settings: Settings) => void} changed */
  constructor(form, changed) {
    this.changed = changed;
    this.system = el("textarea", { id: "system", rows: "3", placeholder: "How the model should answer" });
    this.stop = el("textarea", { id: "stop-strings", rows: "2", placeholder: "One per line, \\n for a newline" });
    this.inputs = FIELDS.map((field) => el("input", { id: `set-${field.key}`, type: "number", inputmode: "decimal", placeholder: field.unset,
      min: field.min, max: field.max, step: field.step, "aria-describedby": `about-${field.key}` }));
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
    const rows = FIELDS.map((field, index) => el("div", { class: "field" },
      el("label", { for: `set-${field.key}`, text: field.label }), this.inputs[index], el("p", { id: `about-${field.key}`, text: field.hint })));
    return [
      el("h2", { id: "settings-title", text: "This conversation" }),
      el("div", { class: "field wide" }, el("label", { for: "system", text: "System prompt" }), this.system),
      el("div", { class: "row heading" }, el("h3", { text: "Sampling" }), this.reset), ...rows,
      el("div", { class: "field wide" }, el("label", { for: "stop-strings", text: "Stop at" }), this.stop),
    ];
  }

  #read() {
    const stop = this.stop.value.split("\n").filter(Boolean).map((text) => text.replaceAll("\\n", "\n"));
    const set = FIELDS.map(({ key }, index) => [key, this.inputs[index]]).filter(([, input]) => input.value !== "" && input.validity.valid);
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
