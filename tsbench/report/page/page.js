"use strict";
// What the page does beyond plain tables. Text from the results is set as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Theme: the system's until the button is used.

const theme = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const chosen = document.documentElement.dataset.theme;
  theme.setAttribute("aria-pressed", String(chosen ? chosen === "dark" : system.matches));
}

theme.addEventListener("click", () => {
  const dark = theme.getAttribute("aria-pressed") === "true";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  showTheme();
});
system.addEventListener("change", showTheme);

// Provenance: a dialog with the birth certificates behind a figure. Escape closes it, focus returns.

const made = document.getElementById("made");
document.getElementById("made-close").addEventListener("click", () => made.close());
made.addEventListener("click", (event) => {
  if (event.target === made) made.close(); // the backdrop
});

function showMade(title, keys, group = "") {
  document.getElementById("made-title").textContent = title;
  document.getElementById("made-group").textContent = group;
  const known = keys.filter((key) => key in data.facts);
  const blocks = known.map((key) => {
    const list = element("dl");
    for (const [name, value] of data.facts[key]) list.append(element("dt", name), element("dd", value));
    if (known.length === 1) return list;
    const folded = element("details");
    const facts = Object.fromEntries(data.facts[key]);
    const seed = "Seed" in facts ? `, seed ${facts.Seed}` : "";
    folded.append(element("summary", `${facts.Cell ?? facts.Timed} · ${facts.Data}${seed}`), list);
    return folded;
  });
  document.getElementById("made-records").replaceChildren(...blocks);
  made.showModal();
}

function madeButton(text, show) {
  const button = element("button", text, { type: "button", "aria-haspopup": "dialog" });
  button.addEventListener("click", show);
  return button;
}

function addProvenance() {
  for (const cell of document.querySelectorAll("td[data-figure]")) {
    const button = madeButton("", () => {
      const row = cell.closest("tr");
      const label = `${cell.dataset.score.toUpperCase()} ${cell.textContent}: ${row.cells[0].textContent}`;
      const group = `Best and second best are among: ${data.settings[row.dataset.group]}.`;
      showMade(label, row.dataset.made.split(" "), group);
    });
    button.append(...cell.childNodes);
    cell.append(button);
  }
  for (const place of document.querySelectorAll("p[data-made]")) {
    const keys = place.dataset.made.split(" ");
    place.append(madeButton("Where these figures come from", () => showMade(place.dataset.about, keys)));
  }
}

// Score tables: sorting by the buttons in their headings, filters, and a line that counts.

function compare(one, other, order, sign) {
  if (order === "text") return sign * one.textContent.localeCompare(other.textContent, "en");
  const [a, b] = [one.dataset.value, other.dataset.value];
  if (a === "" || b === "") return (a === "") - (b === ""); // what is missing is last either way
  return sign * (a - b);
}

function sortBy(table, heading) {
  const place = heading.cellIndex;
  const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  const sign = direction === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  rows.sort((one, other) => compare(one.cells[place], other.cells[place], heading.dataset.order, sign));
  body.append(...rows);
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  table.classList.add("sorted");
}

function setUpTable(block) {
  const table = block.querySelector("table");
  const form = block.querySelector("form");
  const status = block.querySelector("[role=status]");
  const rows = [...table.tBodies[0].rows];
  const values = new Map(rows.map((row) => [row, JSON.parse(row.dataset.filters)]));
  const filters = [...form.querySelectorAll("[data-filter]")];
  const scores = form.querySelector("[data-scores]");

  for (const heading of table.tHead.rows[0].cells) {
    const button = element("button", heading.textContent, { type: "button" });
    button.addEventListener("click", () => sortBy(table, heading));
    heading.replaceChildren(button);
  }
  function update() {
    const wanted = filters.filter((filter) => filter.value);
    let shown = 0;
    for (const row of rows) {
      const own = values.get(row);
      row.hidden = wanted.some((filter) => own[filter.dataset.filter] !== filter.value);
      shown += !row.hidden;
    }
    for (const cell of table.querySelectorAll("[data-score]")) {
      cell.hidden = Boolean(scores.value) && cell.dataset.score !== scores.value;
    }
    status.textContent = `${shown} of ${rows.length} rows shown.`;
  }
  form.addEventListener("change", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  update();
}

// Forecast browser: one window of one channel by one method.

const drawing = document.getElementById("drawing");
const HEIGHT = 380, LEFT = 52, RIGHT = 12, BOTTOM = 40, TOP = 12;

function unpack(packed) {
  if (!(packed.data instanceof Int16Array)) {
    const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    packed.data = Int16Array.from({ length: bytes.length / 2 }, (_, place) => view.getInt16(2 * place, true));
  }
  return packed;
}

// The values of the last axis at the given places of those before it; NaN where one is missing.
function series(packed, ...places) {
  const { shape, scale, data: values } = unpack(packed);
  const length = shape[shape.length - 1];
  const row = places.reduce((total, place, axis) => total * shape[axis] + place, 0);
  const own = values.subarray(row * length, (row + 1) * length);
  return Array.from(own, (value) => (value === -32768 ? NaN : value * scale));
}

function shape(name, attributes, text = "") {
  const made = document.createElementNS(drawing.namespaceURI, name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function path(values, x, y) {
  let pen = "M";
  let text = "";
  values.forEach((value, place) => {
    if (Number.isNaN(value)) pen = "M";
    else [text, pen] = [`${text}${pen}${x(place).toFixed(1)} ${y(value).toFixed(1)}`, "L"];
  });
  return text;
}

function ticks(low, high) {
  const raw = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= raw);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, place) => (first + place) * step);
}

function draw(forecast) {
  const { context, target, point, bands } = forecast;
  const all = [context, target, point, ...bands.flatMap((band) => [band.low, band.high])].flat();
  const known = all.filter((value) => !Number.isNaN(value));
  let [low, high] = [Math.min(...known), Math.max(...known)];
  if (!(high > low)) [low, high] = [low - 1, low + 1];
  const width = Math.max(300, drawing.clientWidth); // a unit is a pixel, so that text keeps its size
  drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const steps = context.length + target.length;
  const x = (place) => LEFT + (place / (steps - 1)) * (width - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - BOTTOM - TOP);
  const after = (place) => x(place + context.length);
  const parts = [];
  for (const value of ticks(low, high)) {
    parts.push(shape("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    const label = String(Number(value.toPrecision(6)));
    parts.push(shape("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, label));
  }
  for (const { low: lower, high: upper } of bands) {
    const back = path([...upper].reverse(), (place) => after(upper.length - 1 - place), y);
    parts.push(shape("path", { class: "band", d: `${path(lower, after, y)}${back.replace("M", "L")}Z` }));
  }
  parts.push(shape("path", { class: "context", d: path(context, x, y) }));
  parts.push(shape("path", { class: "target", d: path(target, after, y) }));
  parts.push(shape("path", { class: "point", d: path(point, after, y) }));
  const border = x(context.length - 0.5);
  parts.push(shape("line", { class: "axis", x1: border, x2: border, y1: TOP, y2: HEIGHT - BOTTOM }));
  for (const [place, anchor, text] of [
    [x(0), "start", `${-context.length} steps`],
    [border, "middle", "0"],
    [x(steps - 1), "end", `+${target.length} steps`],
  ]) parts.push(shape("text", { x: place, y: HEIGHT - 16, "text-anchor": anchor }, text));
  drawing.replaceChildren(...parts);
}

function legend(bands) {
  const entries = [["context", "context"], ["target", "what came"], ["point", "forecast (median)"]];
  const items = entries.map(([kind, text]) => [shape("path", { class: kind, d: "M0 5H32" }), text]);
  bands.forEach((band, place) => { // an inner interval lies on those around it
    const marks = shape("g", {});
    for (let layer = 0; layer <= place; layer++) marks.append(shape("rect", { class: "band", width: 32, height: 10 }));
    items.push([marks, band.name]);
  });
  document.querySelector(".legend").replaceChildren(...items.map(([mark, text]) => {
    const item = element("li");
    const picture = shape("svg", { viewBox: "0 0 32 10", "aria-hidden": "true" });
    picture.append(mark);
    item.append(picture, text);
    return item;
  }));
}

// What the drawing shows, in words, for those who do not see it and beside it for those who do.
function describe(setting, method, channel, window, { target, point, bands }) {
  const pairs = target.map((value, place) => [value, place]).filter(([value]) => !Number.isNaN(value));
  const error = pairs.reduce((sum, [value, place]) => sum + Math.abs(value - point[place]), 0) / pairs.length;
  const inside = bands.map(({ name, low, high }) => {
    const held = pairs.filter(([value, place]) => value >= low[place] && value <= high[place]).length;
    return `${Math.round((100 * held) / pairs.length)} % of what came is in the ${name}`;
  });
  const what = [setting.label, setting.channels[channel], `from ${setting.times[window]}`, method.label];
  const facts = [`Mean absolute error of this window ${error.toFixed(3)}, in standardised units`, ...inside];
  return `${what.join(" · ")}. ${facts.join("; ")}.`;
}

function setUpBrowser() {
  const [setting, method, channel, window] = ["setting", "method", "channel", "window"].map((name) =>
    document.getElementById(`browser-${name}`));
  function fill(select, texts) {
    const kept = Math.max(0, texts.indexOf(select.selectedOptions[0]?.textContent));
    select.replaceChildren(...texts.map((text, place) => element("option", text, { value: place })));
    select.value = kept;
  }
  function show() {
    const chosen = data.forecasts[setting.value];
    const fan = chosen.methods[method.value];
    const [one, place] = [Number(window.value), Number(channel.value)];
    const forecast = {
      context: series(chosen.context, one, place),
      target: series(chosen.target, one, place),
      point: series(fan.series, one, place, 0),
      bands: fan.bands.map(([low, high, name]) => ({
        name, low: series(fan.series, one, place, low), high: series(fan.series, one, place, high),
      })),
    };
    draw(forecast);
    legend(forecast.bands);
    const text = describe(chosen, fan, place, one, forecast);
    document.getElementById("drawing-text").textContent = text;
    const button = madeButton("Where this forecast comes from", () => showMade(fan.label, [fan.key]));
    document.getElementById("drawing-made").replaceChildren(button);
  }
  function choose() {
    const chosen = data.forecasts[setting.value];
    fill(method, chosen.methods.map((each) => each.label));
    fill(channel, chosen.channels);
    fill(window, chosen.times);
    show();
  }
  addEventListener("resize", show);
  fill(setting, data.forecasts.map((each) => each.label));
  setting.addEventListener("change", choose);
  for (const select of [method, channel, window]) select.addEventListener("change", show);
  choose();
}

for (const hidden of document.querySelectorAll("[data-script]")) hidden.hidden = false;
for (const unneeded of document.querySelectorAll(".without-script")) unneeded.hidden = true;
showTheme();
addProvenance();
document.querySelectorAll(".scores").forEach(setUpTable);
if (data.forecasts.length) setUpBrowser();
