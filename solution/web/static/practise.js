// The part "Practise": an exam question by question, its score, and a review of the mistakes.

import { get, send, sendBytes } from "./api.js";
import { rank, rightTag } from "./answer.js";
import { announce, byId, el, plural } from "./dom.js";
import { forget, keep, kept } from "./store.js";

const CHOICES = ["1st", "2nd", "3rd"];
const STORED = "practise.exams"; // the keys of the exams that were begun here: title and count
const progressOf = (key) => `practise.${key}`; // {choices: {row: letters}, row, given: {name, text}}
const LOOK_AGAIN = 1000; // milliseconds
const MOST_KEPT = 1_000_000; // characters of a file that the browser keeps

let drawn = 0; // counts what was shown: an answer that comes late is not put into another view

const view = () => byId("practise");

function draw(...children) {
  drawn += 1;
  view().replaceChildren(...children.flat().filter(Boolean));
  view().querySelector("h1")?.focus();
}

const title = (text) => el("h1", { tabindex: "-1" }, text);
const link = (hash, text, style = "quiet") => el("a", { class: `button ${style}`, href: hash }, text);

// Show the exam of a key, or the list of exams.
export async function showPractise(key) {
  const number = ++drawn;
  try {
    if (!key) await showList(number);
    else await showExam(key);
  } catch (error) {
    draw(title("Practise"), el("p", { class: "error", role: "alert" }, error.message), el("p", {}, link("#practise", "All exams")));
  }
}

// --- the list of exams ---------------------------------------------------------------------

async function showList(number) {
  const found = await get("exams");
  if (number !== drawn) return;
  const list = el("ul", { class: "exams" }, examCards(found));
  draw(title("Practise with an exam"), list.children.length ? list : null, giveExam(list.children.length > 0));
  if (isMaking(found)) lookAgain(list, found);
}

const isMaking = ({ coming }) => coming.some((exam) => !exam.problem);

// Look for exams that were being made, as long as the list is shown; the form below it stays as it is.
function lookAgain(list, before) {
  setTimeout(async () => {
    const found = await get("exams").catch(() => before);
    if (!list.isConnected) return;
    if (JSON.stringify(found) !== JSON.stringify(before)) {
      list.replaceChildren(...examCards(found));
      announce("The list of exams has changed.");
    }
    if (isMaking(found)) lookAgain(list, found);
  }, LOOK_AGAIN);
}

function examCards({ exams, coming }) {
  const offered = new Set(exams.map((exam) => exam.key));
  const begun = Object.entries(kept(STORED) ?? {}).filter(([key]) => !offered.has(key) && kept(progressOf(key))?.given);
  const all = [...exams, ...begun.map(([key, exam]) => ({ key, ...exam, own: true }))];
  return [...all.map(examCard), ...coming.map(comingCard)];
}

function comingCard({ title, problem }) {
  const state = problem
    ? el("p", { class: "error" }, problem)
    : [el("p", { class: "hint" }, "These questions are being made."), el("progress", { "aria-label": "Waiting" })];
  return el("li", {}, el("div", {}, el("h2", { dir: "auto" }, title), state));
}

function examCard(exam) {
  const done = Object.keys(kept(progressOf(exam.key))?.choices ?? {}).length;
  const remove = el("button", { type: "button", class: "quiet", onclick: () => {
    forgetExam(exam.key);
    card.remove();
    announce(`${exam.title} is removed.`);
  } }, "Remove");
  const card = el("li", {},
    el("div", {}, el("h2", { dir: "auto" }, exam.title),
      el("p", { class: "hint" }, plural(exam.count, "question"), done ? `, ${done} answered` : "")),
    el("div", { class: "actions" }, link(`#practise/${exam.key}`, done ? "Go on" : "Start", "primary"), exam.own ? remove : null));
  return card;
}

function forgetExam(key) {
  const stored = kept(STORED) ?? {};
  delete stored[key];
  keep(STORED, stored);
  forget(progressOf(key));
}

function giveExam(others) {
  const error = el("p", { class: "error", role: "alert" });
  const file = el("input", { type: "file", id: "exam-file", accept: ".csv,.tsv,.tab,.json,.jsonl,.ndjson,.gift,.xml,.aiken,.txt" });
  const text = el("textarea", { id: "exam-text", rows: "6", spellcheck: "false" });
  const form = el("form", { class: "give", novalidate: true },
    el("h2", {}, others ? "Another exam" : "Your exam"),
    el("div", { class: "field" }, el("label", { for: "exam-file" }, "A file"), file,
      el("p", { class: "hint" }, "CSV, JSON, GIFT, Moodle XML, Aiken, or text with lettered options, with the right answers. Only this server reads it, and it writes no file.")),
    el("div", { class: "field" }, el("label", { for: "exam-text" }, "Or its text"), text),
    error,
    el("div", { class: "actions" }, el("button", { type: "submit", class: "primary" }, "Start this exam")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    error.textContent = "";
    try {
      const given = file.files[0];
      if (!given && !text.value.trim()) throw new Error("Choose a file, or paste the exam's text.");
      const bytes = given ? new Uint8Array(await given.arrayBuffer()) : new TextEncoder().encode(text.value);
      const exam = await put(given?.name ?? "pasted text", bytes);
      location.hash = `#practise/${exam.key}`;
    } catch (problem) {
      error.textContent = problem.message;
    }
  });
  return form;
}

async function put(name, bytes) {
  const exam = await sendBytes(`exams?name=${encodeURIComponent(name)}`, bytes);
  const progress = kept(progressOf(exam.key)) ?? { choices: {}, row: 0 };
  // Kept here, so that a server that has started again can be given it again.
  if (bytes.length <= MOST_KEPT) progress.given = { name, bytes: toText(bytes) };
  keep(progressOf(exam.key), progress);
  remember(exam);
  return exam;
}

// Bytes as a text that storage can hold: one character a byte.
function toText(bytes) {
  let text = "";
  for (let place = 0; place < bytes.length; place += 8192) text += String.fromCharCode(...bytes.subarray(place, place + 8192));
  return btoa(text);
}

const toBytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

function remember({ key, title, count }) {
  keep(STORED, { ...kept(STORED), [key]: { title, count } });
}

// --- an exam -------------------------------------------------------------------------------

async function showExam(key) {
  const number = drawn;
  const progress = kept(progressOf(key)) ?? { choices: {}, row: 0 };
  let exam;
  try {
    exam = await get(`exams/${encodeURIComponent(key)}`);
  } catch (error) {
    if (error.status !== 404 || !progress.given) throw error;
    exam = await put(progress.given.name, toBytes(progress.given.bytes));
  }
  remember(exam);
  const run = { exam, progress, score: await send(`exams/${exam.key}/score`, { choices: progress.choices }) };
  if (number !== drawn) return;
  if (Object.keys(progress.choices).length === exam.count) showScore(run);
  else showQuestion(run, Math.min(progress.row ?? 0, exam.count - 1));
}

const save = ({ exam, progress }) => keep(progressOf(exam.key), progress);

function scoreLine({ exam, score }) {
  const parts = [`${score.answered} of ${exam.count} answered`];
  if (score.answered) parts.push(`${score.right} right`, `MAP@3 ${score.map3.toFixed(3)}`);
  return parts.join(" · ");
}

function examHead(run, row) {
  const done = el("progress", { max: run.exam.count, value: run.score.answered, "aria-label": "Questions answered" });
  return el("div", { class: "exam-head" },
    el("p", { class: "exam-title", dir: "auto" }, run.exam.title),
    title(`Question ${row + 1} of ${run.exam.count}`),
    done, el("p", { class: "hint" }, scoreLine(run)),
    run.exam.notes.length && row === 0 ? el("p", { class: "hint" }, run.exam.notes.join("; ")) : null);
}

function showQuestion(run, row) {
  run.progress.row = row;
  save(run);
  const question = run.exam.questions[row];
  if (run.progress.choices[row]) {
    showResult(run, row);
    return;
  }
  const chosen = [];
  const error = el("p", { class: "error", role: "alert" });
  const answerButton = el("button", { type: "button", class: "primary", disabled: true }, "Answer");
  const buttons = question.options.map(([letter, text]) => optionButton(letter, text));

  function optionButton(letter, text) {
    const badge = el("span", { class: "badge" });
    const button = el("button", { type: "button", class: "choice", "aria-pressed": "false", "data-letter": letter },
      el("span", { class: "letter" }, letter), el("span", { class: "text", dir: "auto" }, text), badge);
    button.addEventListener("click", () => choose(letter));
    return button;
  }

  function choose(letter) {
    const place = chosen.indexOf(letter);
    if (place >= 0) chosen.splice(place, 1);
    else if (chosen.length < CHOICES.length) chosen.push(letter);
    else announce("Three options are chosen already.");
    for (const button of buttons) {
      const rank = chosen.indexOf(button.dataset.letter);
      button.setAttribute("aria-pressed", String(rank >= 0));
      button.querySelector(".badge").textContent = rank >= 0 ? `${CHOICES[rank]} choice` : "";
    }
    answerButton.disabled = chosen.length === 0;
    if (chosen.length) announce(`Chosen: ${chosen.join(", then ")}.`);
  }

  answerButton.addEventListener("click", async () => {
    answerButton.disabled = true;
    error.textContent = "";
    const choices = { ...run.progress.choices, [row]: chosen };
    try {
      run.score = await send(`exams/${run.exam.key}/score`, { choices });
    } catch (problem) {
      error.textContent = problem.status === 404 ? "This exam is no longer on the server. Reload the page to give it again." : problem.message;
      answerButton.disabled = false;
      return;
    }
    run.progress.choices = choices;
    save(run);
    showResult(run, row);
  });

  const choices = el("div", { class: "choices", role: "group", "aria-label": "Options" }, buttons);
  choices.addEventListener("keydown", (event) => {
    const button = buttons.find((each) => each.dataset.letter === event.key.toUpperCase());
    if (button && !event.ctrlKey && !event.metaKey && !event.altKey) {
      button.focus();
      choose(button.dataset.letter);
    }
  });
  draw(
    examHead(run, row),
    el("p", { class: "prompt", dir: "auto" }, question.prompt),
    el("p", { class: "hint" }, "Choose one option, or up to three in the order in which you believe them."),
    choices,
    error,
    el("div", { class: "actions" }, answerButton, steps(run, row)),
  );
}

// Links to the other questions and to the score.
function steps(run, row) {
  const go = (to, text) => el("button", { type: "button", class: "quiet", onclick: () => showQuestion(run, to) }, text);
  return [
    row > 0 ? go(row - 1, "Previous") : null,
    row + 1 < run.exam.count && !run.progress.choices[row] ? go(row + 1, "Skip") : null,
    run.score.answered ? el("button", { type: "button", class: "quiet", onclick: () => showScore(run) }, "Score and mistakes") : null,
    link("#practise", "All exams"),
  ].filter(Boolean);
}

function nextOpen(run, row) {
  for (let step = 1; step <= run.exam.count; step++) {
    const next = (row + step) % run.exam.count;
    if (!run.progress.choices[next]) return next;
  }
  return null;
}

function showResult(run, row) {
  const result = run.score.results[row];
  const choices = run.progress.choices[row];
  const next = nextOpen(run, row);
  const nextButton = next === null
    ? el("button", { type: "button", class: "primary", onclick: () => showScore(run) }, "See the score")
    : el("button", { type: "button", class: "primary", onclick: () => showQuestion(run, next) }, "Next question");
  draw(
    examHead(run, row),
    el("p", { class: "prompt", dir: "auto" }, run.exam.questions[row].prompt),
    el("p", { class: "verdict" }, verdict(result, choices)),
    answeredOptions(run.exam.questions[row], result, choices),
    source(result),
    el("div", { class: "actions" }, nextButton, steps(run, row)),
    review(run, row, 2),
  );
  announce(verdict(result, choices));
}

function verdict(result, choices) {
  if (choices[0] === result.right) return "Right.";
  const place = choices.indexOf(result.right);
  if (place > 0) return `${result.right} is right: your ${CHOICES[place]} choice, ${place === 1 ? "half a point" : "a third of a point"}.`;
  return `${result.right} is right.`;
}

function answeredOptions(question, result, choices) {
  return el("ul", { class: "answered" }, question.options.map(([letter, text]) => {
    const place = choices.indexOf(letter);
    const kind = letter === result.right ? "is-right" : place === 0 ? "is-wrong" : null;
    return el("li", { class: kind },
      el("span", { class: "letter" }, letter),
      el("span", { class: "text", dir: "auto" }, text),
      el("span", { class: "tags" },
        letter === result.right ? rightTag() : null,
        place >= 0 ? el("span", { class: "tag" }, `your ${choices.length > 1 ? `${CHOICES[place]} ` : ""}choice`) : null));
  }));
}

function source(result) {
  return result.title ? el("p", { class: "hint", dir: "auto" }, `Made from the passage: ${result.title}`) : null;
}

// A button that shows passages and rankers of a question.
function review(run, row, level) {
  const { prompt, options } = run.exam.questions[row];
  const place = el("div", {});
  const target = el("div", {});
  const error = el("p", { class: "error", role: "alert" });
  const button = el("button", { type: "button", class: "quiet" }, "Show passages and rankers");
  button.addEventListener("click", async () => {
    button.hidden = true;
    error.textContent = "";
    const question = { prompt, options: options.map(([, text]) => text) };
    try {
      const answer = await rank({ question, place, target, right: shownLetter(options, run.score.results[row].right), level });
      button.hidden = answer !== null;
    } catch (problem) {
      error.textContent = problem.message;
      button.hidden = false;
    }
  });
  return el("div", { class: "review" }, button, error, place, target);
}

// A question with a gap among its letters is asked without it: the letters behind the gap move up.
function shownLetter(options, letter) {
  return String.fromCharCode(65 + options.findIndex(([each]) => each === letter));
}

function showScore(run) {
  const { exam, progress, score } = run;
  const wrong = Object.keys(progress.choices).map(Number).filter((row) => score.results[row].right !== progress.choices[row][0]);
  const next = nextOpen(run, -1 + exam.count);
  const figure = (value, text) => el("div", {}, el("dt", {}, text), el("dd", {}, value));
  const again = el("button", { type: "button", class: "quiet", onclick: () => {
    progress.choices = {};
    progress.row = 0;
    save(run);
    showPractise(exam.key);
  } }, "Start again");
  draw(
    el("p", { class: "exam-title", dir: "auto" }, exam.title),
    title(next === null ? "Your score" : "Your score until now"),
    el("dl", { class: "figures" },
      figure(score.answered ? score.map3.toFixed(3) : "–", "MAP@3"),
      figure(`${score.right} of ${score.answered}`, "right answers"),
      figure(`${score.answered} of ${exam.count}`, "answered")),
    el("p", { class: "hint" }, "MAP@3: the right option counts 1 as first choice, 1/2 as second, 1/3 as third; the mean over the answered questions."),
    el("div", { class: "actions" },
      next === null ? null : el("button", { type: "button", class: "primary", onclick: () => showQuestion(run, next) }, "Go on"),
      again, link("#practise", "All exams")),
    el("h2", {}, wrong.length ? plural(wrong.length, "mistake") : "No mistakes"),
    wrong.map((row) => el("article", { class: "mistake" },
      el("h3", {}, `Question ${row + 1}`),
      el("p", { class: "prompt", dir: "auto" }, exam.questions[row].prompt),
      answeredOptions(exam.questions[row], score.results[row], progress.choices[row]),
      source(score.results[row]),
      review(run, row, 4))),
  );
}
