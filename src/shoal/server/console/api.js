/**
 * The server's API as this page uses it: plain calls that return parsed JSON, one stream, and errors in plain words.
 */

/** @typedef {{title: string, text: string, detail?: string, status?: number, code?: string}} Problem */

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
    const response = await this.#call("v1/chat/completions", { method: "POST", body: JSON.stringify(body), headers, signal });
    const parser = new SseParser();
    for await (const text of textOf(response.body, signal)) {
      for (const data of parser.push(text)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new ApiError(chunk.error.status ?? 500, chunk.error.message, { code: chunk.error.code });
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
  const { status = -1, code = "", message } = /** @type {ApiError} */ (error);
  const say = (title, text, detail = message) => ({ title, text, detail, status, code });
  if (code === "context_length_exceeded") {
    return say("This conversation is too long for the model", "Start a new chat, shorten your message or the system prompt, or lower max tokens.");
  }
  switch (status) {
    case 0: return say("The connection to the server was lost", "What arrived is kept. This page reconnects by itself; then continue or try again.");
    case 401: case 403: return say("The server did not accept the API key", "Enter a valid key, then try again.");
    case 404: return say("This model is not served here", "Choose another model at the top, then try again.");
    case 413: return say("The message is too large for this server", "Shorten it, or start a new chat.");
    case 429: return say("The server is busy", `All places in its queue are taken. Try again in ${Math.ceil(error.retryAfterS ?? 1)} s.`);
    case 503: return say("The server is not taking requests now", "It is starting or shutting down. Try again in a moment.");
    case 400: case 422: return say("The server refused this request", "Change what it names, then try again.");
    default: return say("Something went wrong on the server", "Try again. If it happens again, the server's log has the cause.");
  }
}
