/**
 * One answer: builds the request, follows the stream, measures it, and leaves the turn in a final state.
 */

import { ApiError, explain } from "./api.js";

/** @typedef {import("./store.js").Turn} Turn */
/** @typedef {import("./store.js").Settings} Settings */

const CONTINUE = "Continue your last message from exactly where it stops. Do not repeat any of it.";

/**
 * The body of a chat request. Sampling fields are sent only when set, so the server's defaults stay the server's.
 * @param {Settings} settings @param {Turn[]} turns @param {boolean} resume the last turn is an answer to go on with
 */
export function requestBody(settings, turns, resume) {
  const messages = turns.filter((turn) => turn.content !== "").map(({ role, content }) => ({ role, content }));
  if (settings.system.trim()) messages.unshift({ role: "system", content: settings.system });
  if (resume) messages.push({ role: "user", content: CONTINUE });
  const model = settings.model || undefined;
  const receipt = resume ? undefined : true;  // of a whole answer, not of its rest
  return { model, receipt, messages, stream: true, stream_options: { include_usage: true }, ...settings.sampling };
}

/** Times and counts of one stream. Times are this page's; token counts are the server's once it has said them. */
class Meter {
  #start = performance.now();
  #first = 0;
  #last = 0;
  #pieces = 0;
  #usage = /** @type {any} */ (null);

  piece() {
    this.#last = performance.now();
    this.#first ||= this.#last;
    this.#pieces += 1;
  }

  usage(usage) {
    this.#usage = usage;
  }

  /** What was read or modelled of the answer's cost; nothing that is absent. */
  #cost() {
    const { energy_j, water_l, carbon_g, cost_usd } = this.#usage?.shoal ?? {};
    const known = Object.entries({ energy_j, water_l, carbon_g, cost_usd }).filter(([, reading]) => reading);
    return known.length ? Object.fromEntries(known) : undefined;
  }

  /** @returns {import("./store.js").Metrics} the rate is that of the tokens after the first */
  read() {
    const tokens = this.#usage?.completion_tokens;
    const seconds = (this.#last - this.#first) / 1000;
    const after = (tokens ?? this.#pieces) - 1;
    return {
      ttftMs: this.#first ? this.#first - this.#start : undefined,
      tokensPerS: after > 0 && seconds > 0 ? after / seconds : undefined,
      tokens,
      promptTokens: this.#usage?.prompt_tokens,
      cachedTokens: this.#usage?.prompt_tokens_details?.cached_tokens,
      cost: this.#cost(),
      providers: this.#usage?.shoal?.providers,
    };
  }
}

/**
 * Streams into `turn` until it ends, is stopped or fails; never throws.
 * @param {import("./api.js").Api} api @param {object} body @param {Turn} turn
 * @param {AbortSignal} signal @param {() => void} changed called after each change of the turn
 */
export async function stream(api, body, turn, signal, changed) {
  const meter = new Meter();
  let finish = "";
  try {
    for await (const chunk of chunks(api, body, signal)) {
      if (chunk.receipt) turn.receipt = { id: chunk.id };
      if (chunk.usage) meter.usage(chunk.usage);
      const choice = chunk.choices?.[0];
      finish = choice?.finish_reason ?? finish;
      if (choice?.delta?.content) {
        meter.piece();
        turn.content += choice.delta.content;
      }
      turn.metrics = { ...meter.read(), finish };
      changed();
    }
    turn.status = "done";
  } catch (error) {
    fail(turn, error);
  }
  changed();
}

/** False once the server has said that it signs nothing. */
let isSigning = true;

/** Asks for a receipt where the server signs answers. */
async function* chunks(api, body, signal) {
  try {
    yield* api.chat(isSigning ? body : { ...body, receipt: undefined }, signal);
  } catch (error) {
    if (error.code !== "receipts_off" || !isSigning) throw error;
    isSigning = false;
    yield* chunks(api, body, signal);
  }
}

/** @param {Turn} turn @param {Error} error */
function fail(turn, error) {
  if (error.name === "AbortError") {
    turn.status = "stopped";
    return;
  }
  const lost = error instanceof ApiError && error.status === 0 && turn.content !== "";
  turn.status = lost ? "interrupted" : "failed";
  turn.problem = explain(error);
}
