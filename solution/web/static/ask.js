// The part "Ask": a question is typed or pasted, and its options are ranked.

import { send } from "./api.js";
import { rank } from "./answer.js";
import { announce, byId, el, plural } from "./dom.js";
import { forget, keep, kept } from "./store.js";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const FEWEST = 2;
const USUAL = 5;
const EXAMPLE = {
  prompt: "Which force keeps the planets in their orbits around the Sun?",
  options: ["Magnetism", "Gravity", "Friction", "Surface tension", "The strong nuclear force"],
};
const DRAFT = "ask.draft";
const JOB = "ask.question";

let pasted = []; // the questions of a pasted text, where there are several
let chosen = 0;

const inputs = () => [...byId("options").querySelectorAll("textarea")];
const question = () => ({ prompt: byId("prompt").value, options: inputs().map((input) => input.value) });

export function startAsk() {
  byId("add-option").addEventListener("click", () => {
    addOption("").focus();
    relabel();
  });
  byId("prompt").addEventListener("paste", () => setTimeout(readPasted));
  byId("question-form").addEventListener("input", () => keep(DRAFT, question()));
  byId("question-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  byId("clear").addEventListener("click", () => {
    fill({ prompt: "", options: [] });
    forget(DRAFT);
    forget(JOB, "sessionStorage");
    setPasted([]);
    byId("ask-answer").replaceChildren();
    byId("prompt").focus();
  });
  byId("example").addEventListener("click", () => {
    setPasted([]);
    fill(EXAMPLE);
    announce("An example is filled in.");
  });
  fill(kept(DRAFT) ?? { prompt: "", options: [] });
  const known = kept(JOB, "sessionStorage");
  if (known) show({ known, focuses: false }).catch(() => forget(JOB, "sessionStorage"));
}

function addOption(text) {
  // It grows with its text (page.css), and Enter asks, as in a field of one line.
  const input = el("textarea", { rows: "1", autocomplete: "off" });
  input.value = text;
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("question-form").requestSubmit();
  });
  const remove = el("button", { type: "button", class: "remove" }, "×");
  const item = el("li", {}, el("label", {}), input, remove);
  remove.addEventListener("click", () => {
    const next = item.nextElementSibling ?? item.previousElementSibling;
    item.remove();
    relabel();
    keep(DRAFT, question());
    next?.querySelector("textarea")?.focus();
  });
  byId("options").append(item);
  return input;
}

function relabel() {
  const items = [...byId("options").children];
  items.forEach((item, place) => {
    const letter = LETTERS[place];
    const [label, input, remove] = item.children;
    input.id = `option-${letter}`;
    label.setAttribute("for", input.id);
    label.textContent = letter;
    remove.setAttribute("aria-label", `Remove option ${letter}`);
    remove.hidden = items.length <= FEWEST;
  });
  byId("add-option").hidden = items.length >= LETTERS.length;
}

function fill({ prompt, options }) {
  byId("prompt").value = prompt;
  byId("options").replaceChildren();
  for (let place = 0; place < (options.length || USUAL); place++) addOption(options[place] ?? "");
  relabel();
  setError("");
  keep(DRAFT, question());
}

function setError(text) {
  byId("ask-error").textContent = text;
}

const hasOptions = () => inputs().some((input) => input.value.trim());

// A text that holds options, too, is parted; another one stays as it was pasted.
async function readPasted() {
  if (hasOptions()) return;
  try {
    take(await send("read", { text: byId("prompt").value }));
  } catch {
    // It is a question without options, and they are typed next.
  }
}

function take({ questions, notes }) {
  setPasted(questions);
  fill(questions[0]);
  const form = notes[0]?.split(":")[0];
  announce(`${plural(questions.length, "question")} recognised${form ? `: ${form}` : ""}.`);
}

function setPasted(questions) {
  pasted = questions;
  chosen = 0;
  showSeveral();
}

function showSeveral() {
  const box = byId("several");
  box.hidden = pasted.length < 2;
  const step = (by, text) =>
    el("button", {
      type: "button",
      class: "quiet",
      disabled: chosen + by < 0 || chosen + by >= pasted.length,
      onclick: () => {
        chosen += by;
        fill(pasted[chosen]);
        showSeveral();
        announce(`Question ${chosen + 1} of ${pasted.length}.`);
      },
    }, text);
  box.replaceChildren(
    el("p", {}, `Question ${chosen + 1} of ${pasted.length} in the pasted text`),
    step(-1, "Previous"),
    step(1, "Next"),
  );
}

async function ask() {
  setError("");
  try {
    if (!hasOptions() && byId("prompt").value.trim()) take(await send("read", { text: byId("prompt").value }));
    const now = question();
    while (now.options.length > FEWEST && !now.options.at(-1).trim()) now.options.pop();
    await show({ question: now });
  } catch (error) {
    setError(error.message);
    byId("prompt").focus();
  }
}

function show(what) {
  const button = byId("question-form").querySelector("[type=submit]");
  button.disabled = true;
  return rank({
    ...what,
    place: byId("ask-progress"),
    target: byId("ask-answer"),
    begun: (name) => keep(JOB, name, "sessionStorage"),
  }).finally(() => {
    button.disabled = false;
  });
}
