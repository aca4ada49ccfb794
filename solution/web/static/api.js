// Requests to the server that sent this page. All addresses are relative: a proxy may put a path in front.

export class Failed extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(`api/${path}`, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed("The server does not answer. Is it still running?", 0);
  }
  let value = null;
  try {
    value = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (!response.ok || value === null) {
    throw new Failed(value?.error ?? `The server answered with the status ${response.status}.`, response.status);
  }
  return value;
}

export const get = (path, signal) => request(path, { signal });

export const send = (path, value) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

export const sendBytes = (path, bytes) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: bytes });

export const giveUp = (name) => request(`questions/${name}`, { method: "DELETE" }).catch(() => {});

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Follow a question in the queue until its answer is there. `tell` takes each state of it.
export async function follow(name, tell, signal) {
  let seen = "";
  let failures = 0;
  for (;;) {
    let now;
    try {
      now = await get(`questions/${name}?seen=${seen}`, signal);
      failures = 0;
    } catch (error) {
      // A phone that slept or a server that starts again; not a question that is gone.
      if (error.status !== 0 || ++failures > 5) throw error;
      await pause(1000);
      continue;
    }
    if (now.state === "done") return now.answer;
    if (now.state === "failed") throw new Failed(now.error, 500);
    seen = now.seen;
    tell(now);
  }
}
