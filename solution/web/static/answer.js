// An answer with its reasons: ranked options, what each ranker says, passages, seconds.

import { follow, giveUp, send } from "./api.js";
import { announce, bar, el, percent, plural, seconds } from "./dom.js";

const MARK_KINDS = {
  embedding: "Marked: the sentence nearest in meaning to the question with each option.",
  terms: "Marked: the sentence that shares the most words with the question and each option.",
};

// Options that have room beside each other in a window of any width above that of a phone.
const MOST_COLUMNS = 6;

// Ask the server to rank the options; shows the place in the queue and the news in `place`, then the answer in `target`.
// `known`: the name of a question that is in the queue already. `begun` takes the name.
export async function rank({ question, known, place, target, begun, right, level, focuses = true }) {
  const stop = new AbortController();
  const text = el("p", {}, "Sending the question");
  let name = known;
  const button = el("button", { type: "button", class: "quiet", onclick: () => stop.abort() }, "Stop waiting");
  place.replaceChildren(el("div", { class: "waiting" }, el("progress", { "aria-label": "Waiting" }), text, button));
  target.replaceChildren();
  try {
    name ??= (await send("questions", question)).name;
    begun?.(name);
    const answer = await follow(name, (now) => {
      const line = news(now);
      if (line !== text.textContent) {
        text.textContent = line;
        announce(line);
      }
    }, stop.signal);
    place.replaceChildren();
    target.replaceChildren(shownAnswer(answer, right, level));
    announce(`Ranked. First: ${answer.order[0]}, ${percent(answer.confidence)}.`);
    if (focuses) target.querySelector("[tabindex='-1']")?.focus();
    return answer;
  } catch (error) {
    place.replaceChildren();
    if (error.name !== "AbortError") throw error;
    if (name) giveUp(name);
    announce("Stopped.");
    return null;
  }
}

function news(now) {
  const line = now.news ? now.news[0].toUpperCase() + now.news.slice(1) : "";
  if (now.state !== "waiting") return line || "Ranking the options";
  const place = now.place === 1 ? "Your question is next." : `${plural(now.place - 1, "question")} before yours.`;
  return line ? `${place} ${line}` : place;
}

export function shownAnswer(answer, right = null, level = 2) {
  const heading = (step, text, properties) => el(`h${Math.min(6, level + step)}`, properties, text);
  return el(
    "div",
    { class: "answer" },
    heading(0, "Ranked options", { tabindex: "-1" }),
    ranking(answer, right),
    confidence(answer),
    answer.notes.map((note) => el("p", { class: "note" }, note)),
    heading(1, "What each ranker says"),
    rankers(answer, right),
    heading(1, "Passages"),
    passages(answer),
    stages(answer),
  );
}

function ranking(answer, right) {
  const places = new Map(answer.options.map((option, place) => [option.letter, place]));
  return el(
    "ol",
    { class: "ranking" },
    answer.order.map((letter, rank) => {
      const place = places.get(letter);
      const share = answer.probabilities[place];
      return el(
        "li",
        { class: rank === 0 ? "first" : null },
        el("span", { class: "letter" }, letter),
        el("span", { class: "text", dir: "auto" }, answer.options[place].text, letter === right ? rightTag() : null),
        el("span", { class: "share" }, percent(share)),
        bar(share),
      );
    }),
  );
}

export const rightTag = () => el("span", { class: "tag right" }, "right");

function confidence(answer) {
  if (answer.rankers.every((ranker) => !ranker.family)) return null; // words were counted, and no ensemble was asked
  const known = answer.reliability;
  const sure = `The ensemble gives ${answer.order[0]} a probability of ${percent(answer.confidence)}.`;
  if (known === null) {
    return el("p", { class: "confidence" }, `${sure} How often it is right at that confidence is not known.`);
  }
  return el(
    "p",
    { class: "confidence" },
    `${sure} When it was about as sure (${percent(known.confidence_low)} to ${percent(known.confidence_high)}) on ` +
      `questions it had not learnt from, its first choice was right in `,
    el("strong", {}, percent(known.share)),
    ` of ${plural(known.questions, "question")} (95 % interval ${percent(known.low)} to ${percent(known.high)}).`,
  );
}

// A table with a column for each option. Where these have no room beside each other, page.css stacks it: below the name of
// a ranker stand its shares, each with its letter. The roles keep it a table for screen readers in both forms.
function rankers(answer, right) {
  const row = (...cells) => el("tr", { role: "row" }, ...cells);
  const heads = answer.options.map((option) =>
    el("th", { scope: "col", role: "columnheader" }, option.letter, option.letter === right ? " (right)" : null),
  );
  const rows = answer.rankers.map((ranker) => {
    const name = el("th", { scope: "row", role: "rowheader" }, el("b", {}, ranker.name), el("span", { class: "family" }, weight(ranker)));
    if (ranker.probabilities === null) {
      const why = ranker.note || "not asked";
      return row(name, el("td", { colspan: answer.options.length, role: "cell", class: "none" }, why));
    }
    const most = Math.max(...ranker.probabilities);
    return row(name, ranker.probabilities.map((share, place) => {
      const { letter } = answer.options[place];
      const label = letter === right ? `${letter}✓` : letter;
      const cell = el("td", { role: "cell", class: share === most ? "most" : null },
        el("span", { class: "heat", "data-letter": label }, percent(share)));
      cell.style.setProperty("--share", `${Math.round(share * 100)}%`);
      return cell;
    }));
  });
  return el("table", { class: answer.options.length > MOST_COLUMNS ? "rankers many" : "rankers", role: "table", "aria-label": "What each ranker says" },
    el("thead", { role: "rowgroup" }, row(el("th", { scope: "col", role: "columnheader" }, "ranker"), heads)),
    el("tbody", { role: "rowgroup" }, rows));
}

function weight(ranker) {
  if (ranker.weight === null) return "in a stacker";
  if (ranker.weight === 0) return "read by another ranker";
  return `weight ${ranker.weight.toFixed(2).replace(/0$/, "")}`;
}

function passages(answer) {
  if (!answer.passages.length) return el("p", { class: "hint" }, "No passages were read.");
  const best = answer.order[0];
  const decides = answer.passages.map((passage) => passage.parts.some(([, letters]) => letters.includes(best)));
  const items = answer.passages.map((passage, place) =>
    el("details", { class: "passage", open: decides.includes(true) ? decides[place] : place === 0 },
      el("summary", {}, el("span", { class: "title", dir: "auto" }, passage.title || "Untitled passage"), marked(passage)),
      el("p", { dir: "auto" }, passage.parts.map(([text, letters]) => (letters ? mark(text, letters, best) : text)))),
  );
  const kind = MARK_KINDS[answer.mark_kind];
  return el("div", { class: "passages" }, kind ? el("p", { class: "hint" }, kind) : null, items);
}

function marked(passage) {
  const letters = [...new Set(passage.parts.flatMap(([, letters]) => [...letters]))].sort();
  if (!letters.length) return null;
  return el("span", { class: "decides" }, `marked for ${letters.join(", ")}`);
}

function mark(text, letters, best) {
  const options = [...letters].join(", ");
  return el("mark", { class: letters.includes(best) ? "best" : null }, text, el("span", { class: "for" }, el("span", { class: "unseen" }, " nearest to option "), options));
}

function stages(answer) {
  const { total, ...each } = answer.seconds;
  const rows = Object.entries(each).map(([stage, value]) =>
    el("tr", {}, el("th", { scope: "row" }, stage), el("td", {}, seconds(value)), el("td", {}, bar(value / total))),
  );
  return el("details", { class: "stages" },
    el("summary", {}, `Answered in ${seconds(total)}`),
    el("table", {}, el("caption", { class: "unseen" }, "Seconds by stage"),
      el("thead", { class: "unseen" }, el("tr", {}, ["stage", "seconds", "share"].map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows)));
}
