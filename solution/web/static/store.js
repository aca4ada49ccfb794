// What the browser keeps between two visits. In some frames it keeps nothing: then it is kept until the page closes.

const memory = new Map();

function storage(name) {
  try {
    return window[name];
  } catch {
    return null;
  }
}

export function keep(key, value, where = "localStorage") {
  const text = JSON.stringify(value);
  memory.set(key, text);
  try {
    storage(where)?.setItem(key, text);
  } catch {
    // Full, or forbidden.
  }
}

export function kept(key, where = "localStorage") {
  let text = memory.get(key) ?? null;
  try {
    text = storage(where)?.getItem(key) ?? text;
  } catch {
    // Forbidden.
  }
  try {
    return text === null ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

export function forget(key, where = "localStorage") {
  memory.delete(key);
  try {
    storage(where)?.removeItem(key);
  } catch {
    // Forbidden.
  }
}
