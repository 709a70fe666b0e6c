// The server's API. The token, if the server requires one, comes behind # in the address: page/#token=…

/** Read at every request: a change of what is behind # does not load the page again. A plus is part of a token. */
function given() {
  const token = location.hash.startsWith("#token=") ? location.hash.slice("#token=".length) : null;
  try {
    return token && decodeURIComponent(token);
  } catch {
    // A percent sign of the token itself.
    return token;
  }
}

function headers() {
  const token = given();
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** The parts of an error that the server states. */
function problemText({ problem, got, expected, why, fix }) {
  const more = Object.entries({ got, expected, why, fix }).filter(([, value]) => value);
  return [problem, ...more.map(([key, value]) => `${key}: ${value}`)].join("; ");
}

async function checked(response) {
  if (response.ok) return response;
  let text = `${response.status} ${response.statusText}`;
  try {
    text = problemText(await response.json());
  } catch {
    // No JSON: the status line is all there is.
  }
  if (response.status === 401) {
    text = given() ? "This server requires another token than the one in this address." : "This server requires a token.";
    text += ` Open the page as ${location.origin}${location.pathname}#token=TOKEN.`;
  }
  if (response.status === 429) text += `; retry after ${response.headers.get("Retry-After")} s`;
  throw new Error(text);
}

async function post(path, parts, signal) {
  const body = new FormData();
  for (const [name, value] of Object.entries(parts)) {
    if (value === null || value === undefined) continue;
    if (value instanceof Blob) body.append(name, value, name);
    else body.append(name, String(value));
  }
  return checked(await fetch(path, { method: "POST", body, headers: headers(), signal }));
}

/** Trimap from strokes, a box, or another trimap and a change of its unknown band; a PNG. The signal ends the work. */
export async function trimap(parts, signal) {
  return (await post("v1/trimap", parts, signal)).blob();
}

/** A new identity for a job: chosen here, so that a job can be ended whose response has not come yet. */
export function identity() {
  // randomUUID is there in secure contexts only, and the page may be served without TLS.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Start a matte: the job of an identity. */
export async function start(id, parts, signal) {
  await post("v1/jobs", { ...parts, id }, signal);
}

/** End a job; its events then end with an error. */
export async function cancel(id, { keepalive = false } = {}) {
  const response = await fetch(`v1/jobs/${id}`, { method: "DELETE", headers: headers(), keepalive });
  // A job that has just ended is unknown.
  if (response.status !== 404) await checked(response);
}

/**
 * Follow a job's events until it is done, and return its warnings; `onProgress` gets its state: phase, done, total.
 * The error of a job that failed has `failed`.
 */
export async function follow(id, onProgress) {
  const response = await checked(await fetch(`v1/jobs/${id}/events`, { headers: headers() }));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the connection was closed before the matte was done");
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (!data) continue;
      const state = JSON.parse(data);
      if (state.state === "failed") throw Object.assign(new Error(problemText(state.error)), { failed: true });
      if (state.state === "done") return state.warnings ?? [];
      onProgress(state);
    }
  }
}

/** One output of a job that is done, as the file that the API gives. */
export async function result(id, output) {
  return (await checked(await fetch(`v1/jobs/${id}/result?output=${output}`, { headers: headers() }))).blob();
}
