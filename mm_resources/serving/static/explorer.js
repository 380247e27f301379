"use strict";
// The explorer without it is complete but for media as queries, keys, and copying.
document.documentElement.classList.add("scripted");
const say = (text) => { const box = document.getElementById("status"); box.textContent = text; clearTimeout(say.timer); say.timer = setTimeout(() => { box.textContent = ""; }, 4000); };

// Texts of cards, when they come into view.
const fill = new IntersectionObserver((seen) => {
  for (const entry of seen) {
    if (!entry.isIntersecting) continue;
    fill.unobserve(entry.target);
    fetch(entry.target.dataset.text).then((answer) => answer.ok ? answer.text() : "").then((text) => { entry.target.textContent = text; });
  }
});
const observe = (root) => root.querySelectorAll("[data-text]").forEach((box) => fill.observe(box));
observe(document);

// What the browser cannot play is played as a clip that the service makes.
document.addEventListener("error", (event) => {
  const player = event.target;
  if (!player.dataset?.clip) return;
  player.src = player.dataset.clip; delete player.dataset.clip;
  say("The browser does not play this format: a clip of at most 20 seconds is made.");
  player.play().catch(() => say("It cannot be played."));
}, true);
// A content that cannot be shown says so.
document.addEventListener("error", (event) => {
  if (event.target.tagName !== "IMG" || !event.target.closest(".card, .stage")) return;
  const box = document.createElement("div");
  box.className = "none"; box.textContent = "no preview";
  event.target.replaceWith(box);
}, true);
// Version and modality are shown as soon as they are chosen.
document.querySelectorAll(".scope select").forEach((select) => select.addEventListener("change", () => select.form.submit()));

// A picture, sound or clip as the query: chosen, dropped or pasted.
const form = document.getElementById("search");
async function searchBy(file) {
  if (!file) return;
  const body = new FormData();
  for (const name of ["version", "modality", "where"]) body.append(name, form.elements[name].value);
  body.append("file", file, file.name || "pasted");
  const results = document.getElementById("results");
  results.setAttribute("aria-busy", "true");
  say(`Searching by ${file.name || "the pasted medium"} …`);
  const answer = await fetch(form.dataset.drop, { method: "POST", body });
  const text = await answer.text();
  results.removeAttribute("aria-busy");
  if (answer.headers.get("content-type").startsWith("text/html")) { results.innerHTML = text; observe(results); say("Done."); } else { say(JSON.parse(text).detail); }
}
if (form) {
  form.elements.file.addEventListener("change", () => searchBy(form.elements.file.files[0]));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); form.classList.toggle("over", kind === "dragover"); if (kind === "drop") searchBy(event.dataTransfer.files[0]); });
  }
  document.addEventListener("paste", (event) => searchBy([...event.clipboardData.files][0]));
}

// Commands are copied by a click or Enter.
const copy = (box) => navigator.clipboard.writeText(box.textContent).then(() => say("Copied."), () => say("Copy it by hand: the browser refuses."));
document.addEventListener("click", (event) => { const box = event.target.closest(".copy"); if (box) copy(box); });

// Keys: / to the box, arrows from card to card, Enter opens one.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA|VIDEO|AUDIO)$/.test(event.target.tagName);
  if (event.key === "/" && !typing && form) { event.preventDefault(); form.elements.q.focus(); return; }
  if (typing) return;
  if (event.key === "Enter" && event.target.classList.contains("copy")) { copy(event.target); return; }
  const cards = [...document.querySelectorAll(".card")];
  const at = cards.indexOf(event.target.closest(".card"));
  if (event.key === "Enter" && event.target === cards[at]) { cards[at].querySelector("h3 a")?.click(); return; }
  const grid = at >= 0 ? getComputedStyle(cards[at].parentElement).gridTemplateColumns.split(" ").length : 1;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid, ArrowUp: -grid }[event.key];
  if (step && cards.length && (at >= 0 || event.key === "ArrowRight")) { event.preventDefault(); cards[Math.max(0, Math.min(cards.length - 1, at + step))].focus(); }
});

// Marks wait some seconds, in which the last one can be taken back; then they are recorded for good.
const board = document.getElementById("marks");
const waiting = [];
async function record(entry) {
  waiting.splice(waiting.indexOf(entry), 1);
  const marks = [{ sample_id: entry.card.dataset.sample, ...entry.given }];
  const body = JSON.stringify({ dataset_version: board.dataset.version, modality: board.dataset.modality, marks });
  const answer = await fetch("/v1/marks", { method: "POST", headers: { "Content-Type": "application/json" }, body, keepalive: true });
  if (!answer.ok) { entry.restore(); say((await answer.json()).detail); }
}
function markCard(card, given) {
  const kind = Object.keys(given)[0], box = card.querySelector(".given"), before = [card.dataset.mark, box?.textContent];
  for (const earlier of waiting.filter((entry) => entry.card === card && kind in entry.given)) { clearTimeout(earlier.timer); waiting.splice(waiting.indexOf(earlier), 1); }
  const label = (text) => { if (box) { box.textContent = text; box.hidden = !text; } };
  const entry = { card, given, restore: () => { if (kind === "mark") card.dataset.mark = before[0]; else label(before[1]); } };
  if (kind === "mark") card.dataset.mark = given.mark; else label(given.label);
  entry.timer = setTimeout(() => record(entry), 4000);
  waiting.push(entry);
  say(`${card.getAttribute("aria-label")}: ${given[kind] || "no label"}. U takes it back.`);
}
if (board && board.dataset.allowed === "1") {
  addEventListener("pagehide", () => { for (const entry of [...waiting]) { clearTimeout(entry.timer); record(entry); } });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const key = event.key.toLowerCase();
    const card = event.target.closest("#marks .card");
    if (card && (key === "k" || key === "d")) { markCard(card, { mark: key === "k" ? "keep" : "drop" }); const next = card.nextElementSibling; if (next) next.focus(); }
    if (card && key === "l") {
      event.preventDefault();
      const label = prompt("Label of this sample; empty takes it away", card.querySelector(".given")?.textContent || "");
      if (label !== null) markCard(card, { label: label.trim() });
    }
    if (key === "u") {
      const last = waiting.pop();
      if (!last) { say("Nothing waits; mark the sample again to change it."); return; }
      clearTimeout(last.timer); last.restore(); last.card.focus(); say("Taken back.");
    }
  });
}

// A threshold that moves: bars change colour at once, counts come from the service.
for (const box of document.querySelectorAll(".threshold")) {
  const slider = box.querySelector("input");
  const bars = [...box.querySelectorAll("rect")];
  let timer = 0, asked = 0;
  const ask = async () => {
    const number = ++asked;
    const given = new URLSearchParams({ ...box.dataset, value: slider.value });
    const answer = await fetch(`/explore/what_if?${given}`);
    const found = await answer.json();
    if (number !== asked) return;
    if (!answer.ok) { say(found.detail); return; }
    const n = (value) => value.toLocaleString("en");
    box.querySelector(".counts").textContent = `${n(found.failing_then)} samples fail it instead of ${n(found.failing_now)}; ${n(found.kept_then)} of ${n(found.samples)} are kept instead of ${n(found.kept_now)}.`;
    box.querySelector("pre").textContent = found.profile;
  };
  slider.addEventListener("input", () => {
    const value = Number(slider.value), low = Number(slider.min), width = Number(slider.max) - low;
    box.querySelector("output").textContent = slider.dataset.whole === "1" ? Math.round(value) : Number(value.toPrecision(4));
    bars.forEach((bar, i) => { const middle = low + width * (i + 0.5) / bars.length; bar.classList.toggle("out", slider.dataset.least === "1" ? middle < value : middle > value); });
    clearTimeout(timer);
    timer = setTimeout(ask, 80);
  });
  box.addEventListener("submit", (event) => event.preventDefault());
}
