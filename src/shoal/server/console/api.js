/**
 * The server's API as this page uses it: plain calls that return parsed JSON, one stream, and errors in plain words.
 */

/** @typedef {{title: string, text: string, detail?: string, status?: number, code?: string}} Problem */

/** The status that an error would have had, had it come before the stream began. */
const STATUS_OF = { service_unavailable: 503, rate_limit_exceeded: 429, deadline_exceeded: 504 };

/** What to say for a status: what happened, and what to do. */
const WORDS = /** @type {Record<number, [string, string]>} */ ({
  0: ["The connection to the server was lost", "This page reconnects by itself; then try again."],
  400: ["The server refused this request", "Change what it names, then try again."],
  401: ["The server did not accept the API key", "Enter a valid key, then try again."],
  403: ["The server refused this page", "Its owner has to allow this address, then try again."],
  404: ["This model is not served here", "Choose another model at the top, then try again."],
  413: ["The message is too large for this server", "Shorten it, or start a new chat."],
  429: ["The server is busy", "All places in its queue are taken."],
  501: ["This server cannot do that", "Change what it names, then try again."],
  503: ["The server is not taking requests now", "It is starting or shutting down. Try again in a moment."],
  504: ["The answer took too long", "The server gave up on it. Ask for less, or try again when it is less busy."],
});
const TOO_LONG = ["This conversation is too long for the model",
  "Start a new chat, shorten your message or the system prompt, or lower max tokens."];
const UNKNOWN = ["Something went wrong on the server",
  "Try again. If it happens again, the server's log has the cause."];

/** Every failure of a call. `status` is 0 when no answer came. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message @param {{code?: string, retryAfterS?: number}} [more] */
  constructor(status, message, more = {}) {
    super(message);
    this.status = status;
    this.code = more.code ?? "";
    this.retryAfterS = more.retryAfterS;
  }
}

/** Server-sent events from text in any chunking: `push` returns the data of each event that has ended. */
export class SseParser {
  #buffer = "";
  #data = /** @type {string[]} */ ([]);

  /** @param {string} text @returns {string[]} */
  push(text) {
    this.#buffer += text;
    const events = [];
    for (let end = this.#lineEnd(); end; end = this.#lineEnd()) {
      const line = this.#buffer.slice(0, end.index);
      this.#buffer = this.#buffer.slice(end.index + end[0].length);
      if (line === "" && this.#data.length) events.push(this.#data.splice(0).join("\n"));
      else if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
    }
    return events;
  }

  /** A lone CR at the very end may be half of a CRLF, so it waits for the next push. */
  #lineEnd() {
    const end = /\r\n|\n|\r/.exec(this.#buffer);
    return end && end[0] === "\r" && end.index === this.#buffer.length - 1 ? null : end;
  }
}

export class Api {
  /** @param {() => string} key the API key to send, or "" */
  constructor(key) {
    this.key = key;
  }

  /** @returns {Promise<{id: string, parent?: string | null}[]>} */
  async models() {
    return (await (await this.#call("v1/models", { signal: patience() })).json()).data;
  }

  /** @returns {Promise<Record<string, any>>} EngineStats */
  async stats() {
    return (await this.#call("v1/stats", { signal: patience() })).json();
  }

  /** @returns {Promise<Record<string, any>>} MeshView */
  async mesh() {
    return (await this.#call("v1/mesh", { signal: patience() })).json();
  }

  /** @param {string} peer @returns {Promise<{peer: object, rtts_s: number[], failure: string}>} after up to a minute */
  async ping(peer) {
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", body: JSON.stringify({ peer }), headers, signal: AbortSignal.timeout(60_000) };
    return (await this.#call("v1/mesh/ping", init)).json();
  }

  /** @param {string} id of the answer @returns {Promise<any>} ReceiptView */
  async receipt(id) {
    return (await this.#call(`v1/receipts/${encodeURIComponent(id)}`, { signal: patience() })).json();
  }

  /** Raises ApiError 503 with the reason while the server loads or drains. */
  async ready() {
    await this.#call("readyz", { signal: patience() });
  }

  /**
   * Streams a chat completion. Throws ApiError, also when the stream breaks before its end; AbortError when aborted.
   * @param {object} body @param {AbortSignal} signal @returns {AsyncGenerator<any>} chunks as the API sends them
   */
  async *chat(body, signal) {
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", body: JSON.stringify(body), headers, signal };
    const response = await this.#call("v1/chat/completions", init);
    const parser = new SseParser();
    for await (const text of textOf(response.body, signal)) {
      for (const data of parser.push(text)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new ApiError(STATUS_OF[chunk.error.code] ?? 500, chunk.error.message, chunk.error);
        yield chunk;
      }
    }
    throw new ApiError(0, "The answer broke off before its end.");
  }

  /** @param {string} path @param {RequestInit & {headers?: Record<string, string>}} [init] */
  async #call(path, init = {}) {
    const key = this.key();
    const headers = { ...init.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...init, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "No answer from the server.");
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

/** Small calls that take this long are not going to be answered. */
function patience() {
  return AbortSignal.timeout(5000);
}

/** Text of a byte stream; characters split over chunks are put together. */
async function* textOf(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
  } catch (error) {
    if (signal.aborted) throw new DOMException("stopped", "AbortError");
    throw new ApiError(0, `The connection was lost (${error.message}).`);
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** @param {Response} response @returns {Promise<ApiError>} */
async function refusal(response) {
  const body = await response.text().catch(() => "");
  let error = {};
  try {
    error = JSON.parse(body).error ?? {};
  } catch {
    // Not ours: a proxy in between answered with a page.
  }
  const message = typeof error.message === "string" ? error.message : body.slice(0, 300) || response.statusText;
  const retryAfterS = Number(response.headers.get("retry-after")) || undefined;
  return new ApiError(response.status, message, { code: error.code ?? "", retryAfterS });
}

/**
 * What happened and what to do, for the person reading.
 * @param {ApiError | Error} error @returns {Problem}
 */
export function explain(error) {
  const { status = -1, code = "", message, retryAfterS } = /** @type {ApiError} */ (error);
  const [title, text] = code === "context_length_exceeded" ? TOO_LONG : (WORDS[status] ?? UNKNOWN);
  const wait = status === 429 ? ` Try again in ${Math.ceil(retryAfterS ?? 1)} s.` : "";
  return { title, text: text + wait, detail: message, status, code };
}
