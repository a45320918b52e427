/**
 * Small pieces every view uses: building nodes, icons, the clipboard, downloads.
 * Text becomes text nodes here; nothing in this console ever parses HTML.
 */

const SVG = "http://www.w3.org/2000/svg";

/** Stroked 20 x 20 icons; one path each. */
const PATHS = {
  plus: "M10 4v12M4 10h12",
  close: "M5 5l10 10M15 5L5 15",
  menu: "M3 6h14M3 10h14M3 14h9",
  panel: "M3 6h8M15 6h2M3 14h2M9 14h8M13 4v4M7 12v4",
  theme: "M16.500 11.500A7 7 0 1 1 8.500 3.500a5.500 5.500 0 0 0 8 8Z",
  download: "M10 3v9M6 9l4 4 4-4M4 16.500h12",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10h6.600L14 6M8.500 9v4.500M11.500 9v4.500",
  copy: "M7 7h9v9H7zM4 13V4h9",
  check: "M4 10.500l4 4 8-9",
  retry: "M15.500 7A6.300 6.300 0 1 0 16 11.500M16 3.500V7.500h-4",
  edit: "M4 16l.8-3.500L13 4.300l2.700 2.700-8.200 8.200zM11.500 5.800l2.700 2.700",
  play: "M7 4.500l8 5.500-8 5.500z",
  send: "M10 16V4.500M5 9l5-5 5 5",
  stop: "M6 6h8v8H6z",
  mesh: "M8 10a2 2 0 1 0 4 0 2 2 0 1 0-4 0M8.500 8.500L5.500 5.500M11.800 9l4-2M9.300 11.900L7.500 16M4 4.500h1M16.500 6.500h.5M7 16.500h.5",
  chat: "M4 4.500h12v8.500H9.500L6 16v-3H4z",
  down: "M10 4v11M5 10.500l5 5 5-5",
};

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [props] `class`, `text`, `on<event>` listeners; anything else is an attribute
 * @param {...(Node | string | null)} children
 * @returns {HTMLElement}
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = String(value);
    else if (name === "text") node.textContent = String(value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** @param {string} tag @param {Record<string, string | number>} attributes @param {...Node} children */
export function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  const shape = svg("path", { d: PATHS[name] });
  return svg("svg", { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true", focusable: "false" }, shape);
}

/**
 * A button with an icon and, unless `compact`, its label beside it. The label is always its accessible name.
 * @param {keyof typeof PATHS} name @param {string} label @param {() => void} onclick @param {boolean} [compact]
 */
export function iconButton(name, label, onclick, compact = true) {
  const props = compact
    ? { type: "button", class: "icon-button small", "aria-label": label, title: label, onclick }
    : { type: "button", class: "button", onclick };
  return el("button", props, icon(name), compact ? null : el("span", { text: label }));
}

/** Puts the icon named by `data-icon` in front of each such element's content. */
export function fillIcons() {
  for (const node of document.querySelectorAll("[data-icon]")) node.prepend(icon(node.dataset.icon));
}

/** @param {string} id @returns {any} the element, which index.html is known to have */
export function byId(id) {
  return document.getElementById(id);
}

/** The Clipboard API exists on https and localhost only; over plain http on a LAN the old command still works. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "sr-only", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/** A copy button that says so when it has worked. @param {() => string} text @param {string} label */
export function copyButton(text, label) {
  const button = iconButton("copy", label, async () => {
    const copied = await copyText(text());
    button.replaceChildren(icon(copied ? "check" : "close"));
    button.setAttribute("aria-label", copied ? "Copied" : "Copying failed");
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      button.setAttribute("aria-label", label);
    }, 1500);
  });
  return button;
}

/** @param {string} name @param {unknown} value saved as indented JSON */
export function downloadJson(name, value) {
  const url = URL.createObjectURL(new Blob([JSON.stringify(value, null, 2)], { type: "application/json" }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
