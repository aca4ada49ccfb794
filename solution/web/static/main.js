// Which part of the page is shown, and what its foot says.

import { get } from "./api.js";
import { startAsk } from "./ask.js";
import { byId } from "./dom.js";
import { showPractise } from "./practise.js";

const PARTS = ["ask", "practise"];

function route(isFirst) {
  const [name, key] = location.hash.slice(1).split("/");
  const shown = PARTS.includes(name) ? name : "ask";
  for (const part of PARTS) {
    byId(part).hidden = part !== shown;
    byId(`to-${part}`).toggleAttribute("aria-current", false);
  }
  byId(`to-${shown}`).setAttribute("aria-current", "page");
  document.title = `${shown === "ask" ? "Ask" : "Practise"} · LLM Science Exam`;
  if (shown === "practise") showPractise(key ? decodeURIComponent(key) : "");
  else if (!isFirst) byId("ask").querySelector("h1").focus();
}

async function showAbout() {
  const about = await get("about");
  const parts = [about.title, about.loading || about.rankers.join(", ")];
  if (about.map3) {
    const [score, low, high] = about.map3.map((value) => value.toFixed(3));
    parts.push(`MAP@3 ${score} (${low} to ${high}) on questions it had not learnt from`);
  }
  byId("about").textContent = parts.filter(Boolean).join(" · ");
  if (about.loading || !about.rankers.length) setTimeout(() => showAbout().catch(() => {}), 2000);
}

// By a script: the address keeps naming the part that is shown.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
startAsk();
window.addEventListener("hashchange", () => route(false));
route(true);
showAbout().catch(() => {});
