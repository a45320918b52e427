/**
 * The console of a Shoal server: wires the parts together and owns nothing but that.
 *
 * Files: api (calls, event stream, errors in words), answer (one answer and its measures), session (conversations at
 * work), store (conversations kept), chat-view and turn-view (messages), markdown, its -blocks and -inline, highlight
 * (output to DOM nodes), engine-view, connection (is the server there), settings, models, composer, sidebar, drawer,
 * key-dialog, dom, theme (before first paint); mesh-view with mesh-map, mesh-layout, mesh-table, mesh-lists, mesh-words
 * and peer-page (the peers).
 */

import { Api } from "./api.js";
import { announce, ChatView } from "./chat-view.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { byId, copyText, el, fillIcons, icon } from "./dom.js";
import { Drawer } from "./drawer.js";
import { EngineView } from "./engine-view.js";
import { KeyDialog } from "./key-dialog.js";
import { meshAddress, MeshPage } from "./mesh-view.js";
import { ModelChoice } from "./models.js";
import { Session } from "./session.js";
import { SettingsForm } from "./settings.js";
import { addressed, Sidebar } from "./sidebar.js";
import { onOtherTab, preference, setPreference } from "./store.js";

const STATUS = {
  connecting: "Connecting", online: "Ready", starting: "Starting", locked: "Key needed",
  refused: "Refused", offline: "Offline",
};

fillIcons();
const keys = new KeyDialog(() => connection.doubt());
const api = new Api(() => keys.key);
const hooks = { opened: showConversation, listed: () => sidebar.show(), grew, ended };
const session = new Session(api, hooks, firstSettings());
const chat = new ChatView({
  start: (text) => send(text),
  edit: (turn, text) => session.edit(turn, text),
  regenerate: (turn) => session.regenerate(turn),
  resume: (turn) => session.resume(turn),
  look: (id) => api.receipt(id),
});
const composer = new Composer(send, () => session.stop());
const sidebar = new Sidebar(session);
const models = new ModelChoice(changeModel);
const settings = new SettingsForm(byId("settings"), () => session.touch());
const engine = new EngineView(byId("engine"));
const mesh = new MeshPage(byId("mesh"), api, answerers);
const sidebarDrawer = new Drawer(byId("sidebar"), byId("open-sidebar"), "(max-width: 859px)");
const inspector = new Drawer(byId("inspector"), byId("open-inspector"), "(max-width: 1179px)",
  (open) => setPreference("inspector", open ? "" : "closed"));
const connection = new Connection(api, { stats: showStats, state: showState, restarted: loadModels });

wire();
showMesh(meshAddress(location.hash));
if (!session.open(addressed() ?? "")) showConversation();
if (!inspector.overlay.matches && preference("inspector") !== "closed") inspector.set(true);
connection.check();

function wire() {
  byId("new-chat").addEventListener("click", startNew);
  byId("theme").addEventListener("click", switchTheme);
  byId("endpoint").textContent = apiAddress();
  byId("copy-endpoint").addEventListener("click", copyAddress);
  addEventListener("hashchange", followAddress);
  document.querySelector(".skip").addEventListener("click", (event) => (event.preventDefault(), skip()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  onOtherTab(() => sidebar.show());
  showTheme();
}

async function copyAddress() {
  announce((await copyText(apiAddress())) ? "Address copied" : "Copying failed");
}

function apiAddress() {
  return new URL("v1", location.href).href.replace(/#.*/, "");
}

/** The first chat begins with the model chosen last. */
function firstSettings() {
  return { model: preference("model"), system: "", sampling: {} };
}

/** A message may be quicker than the list of models. @param {string} text */
async function send(text) {
  if (!session.current.settings.model) await loadModels();
  session.send(text);
  composer.focus();
  announce("Answering");
}

function startNew() {
  showMesh(null);
  session.startNew();
  sidebarDrawer.uncover();
  composer.focus();
}

function followAddress() {
  showMesh(meshAddress(location.hash));
  const id = addressed();
  if (mesh.isOpen || id === session.current.id) return sidebarDrawer.uncover();
  if (!id || !session.open(id)) session.startNew();
  sidebarDrawer.uncover();
}

function skip() {
  if (mesh.isOpen) mesh.focus();
  else composer.focus();
}

/** @returns {string[]} who computed the last answer of the open chat */
function answerers() {
  const names = session.current.turns.findLast((turn) => turn.role === "assistant")?.metrics?.providers;
  return Array.isArray(names) ? names.map(String) : [];
}

/** @param {string | null} peer as `meshAddress` gives it; null: the chat */
function showMesh(peer) {
  byId("main").dataset.view = peer === null ? "chat" : "mesh";
  mesh.show(peer);
  document.querySelector(".skip").textContent = peer === null ? "Skip to the message box" : "Skip to the mesh";
  showTitle();
}

/** What the page is called, and where the link beside the title leads. */
function showTitle() {
  const { current } = session;
  const name = mesh.isOpen ? "Mesh" : current.turns.length ? current.title : "";
  byId("title").textContent = name || "New chat";
  document.title = name ? `${name} – Shoal` : "Shoal";
  const other = mesh.isOpen ? ["chat", "Chat", current.turns.length ? `#c=${current.id}` : "#"] : ["mesh", "Mesh", "#mesh"];
  const link = byId("open-mesh");
  link.setAttribute("href", other[2]);
  if (link.textContent !== other[1]) link.replaceChildren(icon(other[0]), el("span", { text: other[1] }));
  link.setAttribute("aria-label", other[1]);
}

/** Shows the open conversation as it now is, wherever it came from; while the mesh is looked at the address is its. */
function showConversation() {
  const { current, liveTurn } = session;
  const address = current.turns.length ? current.id : null;
  const isElsewhere = !mesh.isOpen && (addressed() !== address || meshAddress(location.hash) !== null);
  if (isElsewhere) history.pushState(null, "", address ? `#c=${address}` : location.pathname);
  showModel();
  showTitle();
  settings.show(current.settings);
  chat.show(current.turns, liveTurn);
  composer.setBusy(liveTurn !== null);
  sidebar.show();
}

function grew(turn) {
  chat.update(turn, true);
}

function ended(turn, isOpen) {
  if (isOpen) {
    chat.update(turn, false);
    composer.setBusy(false);
    chat.speak(turn);
  }
  if (turn.problem?.status === 401) keys.ask();
  connection.check();
  if ([0, 401, 503].includes(turn.problem?.status ?? -1)) connection.doubt();
}

/** A model that is no longer served gives way to the default. */
function showModel() {
  const { settings: its } = session.current;
  its.model = models.show(its.model);
  byId("welcome-model").textContent = its.model || "the model";
}

function changeModel(model) {
  session.current.settings.model = model;
  showModel();
  setPreference("model", model);
  session.touch();
}

async function loadModels() {
  try {
    models.set(await api.models());
    showModel();
  } catch (error) {
    console.warn("Could not list the models; the next check tries again.", error);
    connection.doubt();
  }
}

function showStats(stats) {
  engine.update(stats, performance.now());
  const { num_running: running, num_waiting: waiting } = stats;
  const work = [running && `${running} running`, waiting && `${waiting} waiting`].filter(Boolean).join(", ");
  byId("status-text").textContent = stats.is_draining ? "Shutting down" : work || STATUS.online;
  byId("status").classList.toggle("busy", running > 0);
}

/** @type {import("./connection.js").Listener["state"]} */
function showState(state, before, why) {
  byId("status").dataset.state = state;
  byId("status-text").textContent = STATUS[state];
  byId("engine").classList.toggle("stale", state !== "online");
  if (state === "locked") keys.ask();
  if (state === "online") {
    keys.dismiss();
    loadModels();
  }
  if (state === "online" && before !== "connecting") announce("Connected again");
  showBanner({
    offline: "The server does not answer. This page keeps trying and loses nothing.",
    starting: `The server is not ready yet: ${why}`,
    refused: `The server refuses this page: ${why}`,
  }[state]);
}

/** @param {string | undefined} text */
function showBanner(text) {
  byId("banner").textContent = text ?? "";
  byId("banner").hidden = !text;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function showTheme() {
  byId("theme").setAttribute("aria-pressed", String(isDark()));
}

/** Choosing what the system has anyway means following the system again. */
function switchTheme() {
  const wanted = isDark() ? "light" : "dark";
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  if (wanted === system) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = wanted;
  setPreference("theme", wanted === system ? "" : wanted);
  showTheme();
}
