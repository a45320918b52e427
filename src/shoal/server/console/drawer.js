/**
 * A side panel that is a column where there is room and slides over the page where there is not.
 * As an overlay it behaves like a dialog: the rest is inert, Escape and the scrim close it, and the focus goes in and
 * comes back.
 */

import { byId } from "./dom.js";

export class Drawer {
  /**
   * @param {HTMLElement} panel @param {HTMLElement} button opens and closes it
   * @param {string} overlayQuery media query under which it slides over the page
   * @param {(open: boolean) => void} [toggled] told of changes while it is a column
   */
  constructor(panel, button, overlayQuery, toggled = () => {}) {
    this.panel = panel;
    this.button = button;
    this.toggled = toggled;
    this.overlay = matchMedia(overlayQuery);
    this.open = false;
    button.addEventListener("click", () => this.set(!this.open));
    panel.querySelector("[data-close]").addEventListener("click", () => this.set(false));
    panel.addEventListener("keydown", (event) => event.key === "Escape" && this.#escape(event));
    byId("scrim").addEventListener("click", () => this.set(false));
    this.overlay.addEventListener("change", () => this.set(false));
  }

  /** @param {boolean} open */
  set(open) {
    const covers = this.overlay.matches;
    const was = this.open;
    this.open = open;
    this.panel.toggleAttribute("data-open", open);
    this.button.setAttribute("aria-expanded", String(open));
    if (covers || !open) this.#cover(covers && open);
    if (covers && open) this.panel.querySelector("[data-close]").focus();
    else if (covers && was) this.button.focus();
    if (!covers && was !== open) this.toggled(open);
  }

  /** Closes it if it covers the page; a column stays. */
  uncover() {
    if (this.overlay.matches) this.set(false);
  }

  #cover(covered) {
    byId("scrim").hidden = !covered;
    for (const other of byId("shell").children) {
      if (other !== this.panel && other !== byId("scrim")) other.inert = covered;
    }
  }

  #escape(event) {
    if (!this.overlay.matches || !this.open) return;
    event.stopPropagation();
    this.set(false);
  }
}
