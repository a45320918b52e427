/** The message box: grows with its text, sends on Enter, keeps a draft over a reload, swaps Send for Stop. */

import { byId } from "./dom.js";
import { preference, setPreference } from "./store.js";

export class Composer {
  #busy = false;

  /** @param {(text: string) => void} send @param {() => void} stop */
  constructor(send, stop) {
    this.send = send;
    this.stopButton = byId("stop");
    this.sendButton = byId("send");
    this.prompt = byId("prompt");
    this.prompt.value = preference("draft");
    this.prompt.addEventListener("input", () => this.#changed());
    this.prompt.addEventListener("keydown", (event) => this.#key(event));
    byId("composer").addEventListener("submit", (event) => this.#submit(event));
    this.stopButton.addEventListener("click", () => this.#stop(stop));
    addEventListener("keydown", (event) => event.key === "Escape" && this.#busy && this.#stop(stop));
    this.#changed();
  }

  /** @param {boolean} busy an answer is being received */
  setBusy(busy) {
    this.#busy = busy;
    this.stopButton.hidden = !busy;
    this.sendButton.hidden = busy;
  }

  focus() {
    this.prompt.focus();
  }

  #stop(stop) {
    stop();
    this.focus();
  }

  #key(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.#submit(event);
  }

  #submit(event) {
    event.preventDefault();
    const text = this.prompt.value.trim();
    if (!text || this.#busy) return;
    this.prompt.value = "";
    this.#changed();
    this.send(text);
  }

  #changed() {
    setPreference("draft", this.prompt.value.slice(0, 20_000));
    this.sendButton.disabled = this.prompt.value.trim() === "";
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${this.prompt.scrollHeight}px`;
  }
}
