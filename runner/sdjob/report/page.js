"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function draw(name, attributes, parent, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}

function make(name, properties, parent) {
  const element = Object.assign(document.createElement(name), properties);
  if (parent) parent.appendChild(element);
  return element;
}

const figure = (value) => {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return Number(value.toPrecision(3)).toExponential();
  return String(Number(value.toPrecision(4)));
};

// ---- axes ---------------------------------------------------------------------------------------------------------------------

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * (1 - 1e-9));
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + 1e-9 * step; index++) found.push(index * step || 0);
  return found;
}

// The ends of an axis are marks themselves, so that a curve lies between two of them.
function rounded(low, high, count) {
  const [first, second] = ticks(low, high, count);
  const step = second - first || high - low;
  return [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
}

function powers(low, high) {
  const found = [];
  const first = Math.ceil(Math.log10(low)), last = Math.floor(Math.log10(high));
  const every = Math.max(1, Math.ceil((last - first + 1) / 5));
  for (let power = first; power <= last; power += every) found.push(10 ** power);
  return found.length > 1 ? found : [low, high];
}

function scaleOf(chart) {
  const values = [...chart.segments, ...chart.extra].flatMap((segment) => segment.y);
  let low = Math.min(...values), high = Math.max(...values);
  const sorted = values.filter((value) => value > 0).sort((a, b) => a - b);
  const middle = sorted[Math.floor(sorted.length / 2)];
  // One spike of fifty times the usual would press all the rest of the curve into a line.
  if (chart.key !== "learning_rate" && low > 0 && high > 50 * middle) {
    return { log: true, low, high, to: (value) => Math.log(value / low) / Math.log(high / low), marks: powers(low, high) };
  }
  if (low > 0 && low < 0.6 * high) low = 0;
  if (low === high) { low -= Math.abs(low) || 1; high += Math.abs(high) || 1; }
  [low, high] = rounded(low, high, 4);
  return { log: false, low, high, to: (value) => (value - low) / (high - low), marks: ticks(low, high, 4) };
}

// ---- curves -------------------------------------------------------------------------------------------------------------------

const views = [];

function plot(place) {
  const chart = data.charts.find((one) => one.key === place.dataset.chart);
  place.replaceChildren();
  const width = place.clientWidth, height = place.clientHeight;
  const area = { left: 52, right: width - 8, top: 14, bottom: height - 22 };
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, place);
  const scale = chart.segments.length ? scaleOf(chart) : { low: 0, high: 1, to: () => 0, marks: [] };
  const x = (step) => area.left + (step / Math.max(1, data.lastStep)) * (area.right - area.left);
  const y = (value) => area.bottom - scale.to(value) * (area.bottom - area.top);
  axes(svg, { area, scale, x, y });
  attempts(svg, { area, x });
  const hasMean = chart.smooth.length > 0;
  for (const segment of chart.segments) curve(svg, segment, { x, y }, segment.lost ? "lost" : hasMean ? "each" : "each only");
  for (const segment of chart.smooth) curve(svg, segment, { x, y }, "smooth");
  for (const segment of chart.extra) {
    curve(svg, segment, { x, y }, "extra");
    segment.x.forEach((step, at) => draw("circle", { class: "dot", cx: x(step), cy: y(segment.y[at]), r: 3 }, svg));
  }
  for (const step of chart.notFinite) draw("path", { class: "odd", d: `M${x(step)} ${area.top + 8}l-5 -8h10z` }, svg);
  const cursor = draw("line", { class: "cursor", y1: area.top, y2: area.bottom, x1: -9, x2: -9 }, svg);
  svg.addEventListener("pointermove", (event) => {
    const inside = event.clientX - svg.getBoundingClientRect().left - area.left;
    show(Math.round((inside / (area.right - area.left)) * data.lastStep));
    tell([chart.title, ...reading(chart, shown)], event);
  });
  svg.addEventListener("pointerleave", hush);
  views.push({ chart, cursor, x, readout: place.closest("article").querySelector(".readout") });
}

function axes(svg, { area, scale, x, y }) {
  for (const mark of scale.marks) {
    draw("line", { class: "grid-line", x1: area.left, x2: area.right, y1: y(mark), y2: y(mark) }, svg);
    draw("text", { x: area.left - 6, y: y(mark) + 4, "text-anchor": "end" }, svg, figure(mark));
  }
  for (const step of ticks(0, Math.max(1, data.lastStep), Math.max(2, Math.floor((area.right - area.left) / 110)))) {
    if (!Number.isInteger(step)) continue;
    const near = x(step) > area.right - 20;
    draw("text", { x: x(step), y: area.bottom + 16, "text-anchor": near ? "end" : "middle" }, svg, step.toLocaleString("en"));
  }
  if (scale.log) draw("text", { x: area.right, y: area.top - 3, "text-anchor": "end" }, svg, "log scale");
}

function attempts(svg, { area, x }) {
  let labelledTo = -Infinity;
  svg.classList.toggle("crowded", data.attempts.length > (area.right - area.left) / 40);
  for (const one of data.attempts) {
    if (one.reached > one.kept) {
      const band = { x: x(one.kept), y: area.top, width: Math.max(1, x(one.reached) - x(one.kept)), height: area.bottom - area.top };
      draw("rect", { class: "lost-band", ...band }, svg);
    }
    if (data.attempts.length < 2) continue;
    draw("line", { class: "mark", x1: x(one.start), x2: x(one.start), y1: area.top, y2: area.bottom }, svg);
    if (x(one.start) < labelledTo) continue;
    draw("text", { x: x(one.start) + 3, y: area.top - 3 }, svg, `${one.a}`);
    labelledTo = x(one.start) + 24;
  }
}

function curve(svg, segment, { x, y }, name) {
  const points = segment.x.map((step, at) => `${x(step).toFixed(1)} ${y(segment.y[at]).toFixed(1)}`);
  if (points.length > 1) draw("path", { class: name, d: "M" + points.join("L") }, svg);
  else draw("circle", { class: `${name} single`, cx: x(segment.x[0]), cy: y(segment.y[0]), r: 2.5 }, svg);
}

// ---- what lies under the pointer; the slider and the tables say the same without one ---------------------------------------------

const tip = make("div", { id: "tip", hidden: true }, document.body);
tip.setAttribute("aria-hidden", "true");

function tell([title, ...lines], event) {
  tip.replaceChildren();
  make("strong", { textContent: title }, tip);
  for (const line of lines) make("div", { textContent: line }, tip);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect(), gap = 14;
  const left = event.clientX + gap + width > document.documentElement.clientWidth ? event.clientX - gap - width : event.clientX + gap;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, event.clientY - gap - height)}px`;
}

function hush() { tip.hidden = true; }

function lasted(seconds) {
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => Math.round(seconds) >= size);
  let rest = Math.round(seconds);
  return units.slice(first, first + 2).map(([name, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return `${count} ${name}`;
  }).join(" ");
}

document.querySelectorAll(".bar").forEach((bar) => {
  const column = Number(bar.dataset.seconds) / bar.viewBox.baseVal.width;
  bar.addEventListener("pointermove", (event) => {
    const part = event.target.closest("rect");
    if (!part) return hush();
    const begin = part.x.baseVal.value * column, length = part.width.baseVal.value * column;
    tell([data.buckets[part.getAttribute("class").slice(2)], lasted(length), `from ${lasted(begin)} to ${lasted(begin + length)}`], event);
  });
  bar.addEventListener("pointerleave", hush);
});
window.addEventListener("scroll", hush, { passive: true });

// ---- the step that is looked at -----------------------------------------------------------------------------------------------

function nearest(segments, step) {
  let best = null;
  for (const segment of segments) {
    let low = 0, high = segment.x.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (segment.x[middle] < step) low = middle + 1; else high = middle;
    }
    for (const at of [low - 1, low]) {
      if (at < 0) continue;
      const found = { step: segment.x[at], value: segment.y[at], attempt: segment.a, lost: segment.lost };
      const away = Math.abs(found.step - step);
      if (!best || away < Math.abs(best.step - step) || (away === Math.abs(best.step - step) && best.lost)) best = found;
    }
  }
  return best;
}

function reading(chart, step) {
  const raw = nearest(chart.segments, step);
  if (!raw) return [];
  const unit = chart.unit ? ` ${chart.unit}` : "";
  const mean = nearest(chart.smooth, step), held = nearest(chart.extra, step);
  const parts = [`step ${raw.step.toLocaleString("en")}: ${figure(raw.value)}${unit}`];
  if (mean) parts.push(`mean ${figure(mean.value)}`);
  if (held) parts.push(`held out ${figure(held.value)}`);
  if (data.attempts.length > 1) parts.push(`attempt ${raw.attempt}${raw.lost ? ", lost" : ""}`);
  return parts;
}

let shown = data.lastStep;

function show(step) {
  shown = Math.min(data.lastStep, Math.max(0, step));
  const scrub = byId("scrub");
  scrub.value = shown;
  byId("scrub-step").textContent = shown.toLocaleString("en");
  const spoken = views.map((view) => `${view.chart.title} ${reading(view.chart, shown).join(", ") || "no number"}`);
  scrub.setAttribute("aria-valuetext", [`step ${shown}`, ...spoken].join("; "));
  for (const view of views) {
    view.cursor.setAttribute("x1", view.x(shown));
    view.cursor.setAttribute("x2", view.x(shown));
    view.readout.textContent = reading(view.chart, shown).join(" · ");
  }
}

function plotAll() {
  views.length = 0;
  document.querySelectorAll("[data-chart]").forEach(plot);
  if (views.length) show(shown);
}

if (byId("scrub")) {
  byId("scrub").max = data.lastStep;
  byId("scrub").addEventListener("input", (event) => show(Number(event.target.value)));
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) { width = window.innerWidth; plotAll(); }
  });
  plotAll();
}

// ---- samples ------------------------------------------------------------------------------------------------------------------

const samples = data.samples;

function pictures(parent, step, prompt) {
  (samples.cells[step][prompt] || []).forEach((picture, at, all) => {
    const which = all.length > 1 ? `, picture ${at + 1}` : "";
    make("img", { src: picture.src, width: picture.w, height: picture.h, alt: `${samples.prompts[prompt]}, step ${step}${which}` }, parent);
  });
}

function showSamples(index) {
  const step = samples.steps[index], grid = byId("sample-grid");
  byId("sample-step").textContent = step.toLocaleString("en");
  byId("sample").setAttribute("aria-valuetext", `step ${step}`);
  grid.replaceChildren();
  for (const prompt of Object.keys(samples.prompts)) {
    const figure = make("figure", {}, grid);
    make("figcaption", { textContent: samples.prompts[prompt] || "no prompt" }, figure);
    pictures(make("div", { className: "row" }, figure), step, prompt);
  }
  document.querySelectorAll("#sample-strip img").forEach((one) => one.classList.toggle("now", Number(one.dataset.index) === index));
}

function strip() {
  const place = byId("sample-strip");
  if (place.childElementCount) return;
  const table = make("table", {}, place);
  const head = make("tr", {}, make("thead", {}, table)), body = make("tbody", {}, table);
  make("th", { scope: "col", textContent: "Prompt" }, head);
  for (const step of samples.steps) make("th", { scope: "col", textContent: `Step ${step.toLocaleString("en")}` }, head);
  for (const prompt of Object.keys(samples.prompts)) {
    const row = make("tr", {}, body);
    make("th", { scope: "row", textContent: samples.prompts[prompt] || "no prompt" }, row);
    samples.steps.forEach((step, index) => {
      const cell = make("td", {}, row), picture = (samples.cells[step][prompt] || [])[0];
      if (!picture) return;
      const image = make("img", { src: picture.src, alt: `step ${step}`, width: picture.w, height: picture.h }, cell);
      image.dataset.index = index;
    });
  }
  showSamples(Number(byId("sample").value));
}

if (byId("sample")) {
  byId("sample").addEventListener("input", (event) => showSamples(Number(event.target.value)));
  byId("sample-strip").closest("details").addEventListener("toggle", strip);
  showSamples(samples.steps.length - 1);
}
