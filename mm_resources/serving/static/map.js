"use strict";
// The map: points on a canvas, and a lasso whose samples become a filter.
(async () => {
  const canvas = document.getElementById("map");
  if (!canvas) return;
  const answer = await fetch(canvas.dataset.source);
  const found = await answer.json();
  const status = document.getElementById("status");
  if (!answer.ok) { status.textContent = found.detail; return; }
  const colors = ["#2f6fd0", "#c2571a", "#2a8a57", "#a5399a", "#8a6d00", "#0d8a96", "#c23b4e", "#6a52c7", "#6b7280"];
  const select = document.getElementById("color"), legend = document.getElementById("legend");
  const pen = canvas.getContext("2d");
  let line = [], chosen = new Set(), paint = () => colors[8];
  const place = (i) => [12 + found.x[i] * (canvas.clientWidth - 24), 12 + (1 - found.y[i]) * (canvas.clientHeight - 24)];

  function choosePaint() {
    const values = found[select.value].map((value) => value ?? "(none)");
    legend.replaceChildren();
    const entry = (color, name) => {
      const item = document.createElement("span"), dot = document.createElementNS("http://www.w3.org/2000/svg", "svg"), circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      dot.setAttribute("width", 12); dot.setAttribute("height", 12); dot.setAttribute("aria-hidden", "true");
      circle.setAttribute("cx", 6); circle.setAttribute("cy", 6); circle.setAttribute("r", 5); circle.setAttribute("fill", color);
      dot.append(circle); item.append(dot, name); legend.append(item);
    };
    if (select.value === "quality_score") {
      const shade = (value) => `hsl(${Math.round(220 * Number(value))} 70% 48%)`;
      for (const value of [0, 0.5, 1]) entry(shade(value), String(value));
      paint = (i) => shade(values[i]);
      return;
    }
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
    const first = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 8).map(([name]) => name);
    first.forEach((name, i) => entry(colors[i], `${name} ${counts.get(name)}`));
    if (counts.size > 8) entry(colors[8], `${counts.size - 8} others`);
    paint = (i) => { const at = first.indexOf(values[i]); return colors[at < 0 ? 8 : at]; };
  }

  function draw() {
    const ratio = devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (let i = 0; i < found.x.length; i++) {
      const [x, y] = place(i);
      pen.globalAlpha = chosen.size && !chosen.has(i) ? 0.18 : 0.85;
      pen.fillStyle = paint(i);
      pen.beginPath(); pen.arc(x, y, chosen.has(i) ? 5 : 3.5, 0, 7); pen.fill();
    }
    pen.globalAlpha = 1;
    if (line.length > 1) { pen.strokeStyle = colors[0]; pen.lineWidth = 2; pen.beginPath(); line.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y)); pen.stroke(); }
  }

  function inside([x, y]) {
    let is = false;
    for (let i = 0, j = line.length - 1; i < line.length; j = i++) {
      const [a, b] = line[i], [c, d] = line[j];
      if ((b > y) !== (d > y) && x < (c - a) * (y - b) / (d - b) + a) is = !is;
    }
    return is;
  }

  function show() {
    const samples = [...new Map([...chosen].map((i) => [found.sample_id[i], i]))];
    document.getElementById("chosen").textContent = samples.length ? `${samples.length} samples are chosen` : "No sample is chosen";
    const grid = document.getElementById("picked"), filter = document.getElementById("filter");
    grid.replaceChildren(); filter.replaceChildren();
    if (!samples.length) return;
    const scope = { version: found.pin.dataset_version, modality: found.pin.modality };
    const ids = samples.map(([id]) => `'${id}'`);
    const kept = ids.slice(0, 100);
    const where = `sample_id IN (${kept.join(", ")})`;
    const link = document.createElement("a");
    link.className = "button"; link.href = `/samples?${new URLSearchParams({ ...scope, where })}`;
    link.textContent = kept.length < ids.length ? `Filter by the first ${kept.length}` : "Filter by them";
    filter.append(link);
    for (const [id, i] of samples.slice(0, 48)) {
      const card = document.createElement("article"), title = document.createElement("h3"), to = document.createElement("a");
      card.className = "card"; card.tabIndex = 0; card.setAttribute("aria-label", found.key[i]);
      if (found.pin.modality !== "text") { const picture = document.createElement("img"); picture.loading = "lazy"; picture.alt = found.key[i]; picture.src = `/v1/media/${found.content_hash[i]}?preview=192`; card.append(picture); }
      to.href = `/sample/${id}?${new URLSearchParams(scope)}`; to.textContent = found.key[i];
      title.append(to); card.append(title); grid.append(card);
    }
  }

  // The sample under the pointer.
  const tip = document.getElementById("tip");
  let shown = -1;
  function point([x, y]) {
    let best = -1, least = 100;
    for (let i = 0; i < found.x.length; i++) { const [a, b] = place(i), far = (a - x) ** 2 + (b - y) ** 2; if (far < least) { least = far; best = i; } }
    tip.hidden = best < 0;
    if (best < 0) { shown = -1; return; }
    if (best !== shown) {
      shown = best;
      tip.replaceChildren();
      if (found.pin.modality !== "text") { const picture = document.createElement("img"); picture.alt = ""; picture.src = `/v1/media/${found.content_hash[best]}?preview=128`; picture.addEventListener("error", () => picture.remove()); tip.append(picture); }
      tip.append([found.key[best], found.label[best], found.split[best]].filter(Boolean).join(" · "));
    }
    tip.style.left = `${Math.min(x + 14, canvas.clientWidth - 200)}px`; tip.style.top = `${y > canvas.clientHeight / 2 ? Math.max(0, y - 170) : y + 14}px`;
  }

  const at = (event) => [event.offsetX, event.offsetY];
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); line = [at(event)]; });
  canvas.addEventListener("pointermove", (event) => { if (line.length) { line.push(at(event)); draw(); } else point(at(event)); });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  canvas.addEventListener("pointerup", () => {
    chosen = new Set(line.length > 2 ? found.x.map((_, i) => i).filter((i) => inside(place(i))) : []);
    line = []; draw(); show();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") { chosen = new Set(); line = []; draw(); show(); } });
  select.addEventListener("change", () => { choosePaint(); draw(); });
  addEventListener("resize", draw);
  choosePaint(); draw();
  document.getElementById("drawn").textContent = `${found.x.length.toLocaleString("en")} of ${found.rows.toLocaleString("en")} vectors.`;
})();
