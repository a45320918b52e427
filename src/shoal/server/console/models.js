/** The choice of model: base models, and under each the adapters loaded for it. */

import { byId, el } from "./dom.js";

/** @typedef {{id: string, parent?: string | null}} Model */

export class ModelChoice {
  #models = /** @type {Model[]} */ ([]);

  /** @param {(model: string) => void} chosen */
  constructor(chosen) {
    this.select = byId("model");
    this.select.addEventListener("change", () => chosen(this.select.value));
  }

  /** @param {Model[]} models the server's default first */
  set(models) {
    this.#models = models;
    const bases = models.filter(({ parent }) => !parent);
    const adapters = models.filter(({ parent }) => parent);
    const parents = [...new Set(adapters.map(({ parent }) => parent))];
    const groups = parents.map((parent) => el("optgroup", { label: `Adapters of ${parent}` },
      ...adapters.filter((adapter) => adapter.parent === parent).map(option)));
    this.select.replaceChildren(...bases.map(option), ...groups);
    this.select.disabled = models.length === 0;
  }

  /** @param {string} wanted @returns {string} what is selected: `wanted` where it is served, else the default */
  show(wanted) {
    const served = this.#models.some(({ id }) => id === wanted);
    const model = served ? wanted : (this.#models[0]?.id ?? wanted);
    this.select.value = model;
    return model;
  }
}

function option({ id }) {
  return el("option", { value: id, text: id });
}
