"use strict";
const seconds = Number(document.body.dataset.seconds);
const state = document.getElementById("state");

async function look() {
  try {
    const answer = await fetch("body", { cache: "no-store" });
    if (!answer.ok) throw new Error(`${answer.status}`);
    const seen = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceChildren(...seen.body.childNodes);
    state.textContent = `live, every ${seconds} s`;
    state.className = "faint";
  } catch {
    state.textContent = "not live: dualstore dashboard does not answer; what is shown is of the time below";
    state.className = "not-met";
  }
}

setInterval(() => { if (!document.hidden) look(); }, seconds * 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
