/**
 * Colour for code, the same four kinds in every language: strings, comments, numbers, words of the language.
 * A guess for the eye only: what is shown is the code itself, whatever the guess.
 */

import { el } from "./dom.js";

const MAX_CHARS = 20_000;
const HASH_COMMENTS = /^(?:py|python|sh|bash|shell|zsh|console|rb|ruby|ya?ml|toml|make(?:file)?|dockerfile|perl|r)$/i;
const PLAIN = /^(?:text|txt|plain|plaintext|markdown|md|output|log)?$/i;
const WORDS = new Set(("and as assert async await break case catch class const continue def default del do elif else " +
  "enum except export extends false finally fn for from func function go if impl implements import in interface is " +
  "lambda let loop match mod mut new nil None not null or package pass private pub public raise return self static " +
  "struct super switch this throw true True False try type typeof use var void where while with yield").split(" "));

const STRING = /"""[^]*?"""|'''[^]*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/.source;
const REST = /(?<number>\b\d[\w.]*)|(?<word>[A-Za-z_]\w*)/.source;

/** @param {boolean} hash whether # begins a comment */
function grammar(hash) {
  const comment = hash ? "#[^\n]*" : "//[^\n]*|/\\*[^]{0,4000}?\\*/";
  return new RegExp(`(?<string>${STRING})|(?<comment>${comment})|${REST}`, "g");
}

/** @param {string} code @param {string} language as written after the fence @returns {(Node | string)[]} */
export function highlight(code, language) {
  if (code.length > MAX_CHARS || PLAIN.test(language)) return [code];
  const nodes = /** @type {(Node | string)[]} */ ([]);
  let plain = 0;
  for (const found of code.matchAll(grammar(HASH_COMMENTS.test(language)))) {
    const kind = kindOf(found.groups);
    if (!kind) continue;
    nodes.push(code.slice(plain, found.index), el("span", { class: kind, text: found[0] }));
    plain = found.index + found[0].length;
  }
  return [...nodes, code.slice(plain)];
}

/** @param {Record<string, string | undefined>} groups @returns {string | undefined} a class, none for ordinary names */
function kindOf(groups) {
  const kind = Object.keys(groups).find((name) => groups[name] !== undefined);
  return kind === "word" && !WORDS.has(groups.word ?? "") ? undefined : kind;
}
