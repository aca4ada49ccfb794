// Elements, numbers as texts, and news for screen readers.

// An element: el("p", {class: "hint", onclick: f}, "text", child, ...). Children that are null are left out.
export function el(name, properties, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") node.toggleAttribute(key, value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

// A share as a whole number of percent; one that is neither none nor all is not rounded to it.
export function percent(share) {
  const number = Math.round(100 * share);
  if (number === 0 && share > 0) return "<\u00a01\u00a0%";
  if (number === 100 && share < 1) return ">\u00a099\u00a0%";
  return `${number}\u00a0%`;
}

export function seconds(value) {
  return value < 0.01 ? "<\u00a00.01\u00a0s" : `${value.toFixed(value < 10 ? 2 : 0)}\u00a0s`;
}

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Read aloud by screen readers, shown nowhere.
export function announce(text) {
  byId("status").textContent = text;
}

// A bar: the page's policy forbids style attributes in HTML, but not a script that sets a property.
export function bar(share) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, fill);
}
