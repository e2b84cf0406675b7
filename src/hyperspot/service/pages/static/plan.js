"use strict";
// Draws a region of interest: polygons, zones, a scale and rules. Served by `hyperspot roi` and by the station.
const COLORS = { include: "#40c057", ignore: "#fa5252", zone: "#4dabf7", line: "#fcc419" };
const RULES = ["min_area", "min_length", "min_width", "max_count", "min_distance"];
const $ = (id) => document.getElementById(id);
// All texts stand in the page, which may be in any language.
const text = (name) => $("texts").getAttribute(`data-${name.replace("_", "-")}`);
const canvas = $("canvas"), picture = new Image();
let plan = null, size = [1, 1], tool = "include", open = [], cursor = null, state = { shapes: [], line: [] };
let view = { x: 0, y: 0, zoom: 1 }, past = [], future = [], dragged = null;
const pointers = new Map();

const copy = (value) => JSON.parse(JSON.stringify(value));
function note(edit) { past.push(copy(state)); future = []; edit(); draw(); }
function change(edit) { note(edit); refresh(); }
function step(from, to) { if (!from.length) return; to.push(copy(state)); state = from.pop(); refresh(); }
function undo() { if (open.length) { open.pop(); draw(); } else step(past, future); }
const toScreen = ([x, y]) => [view.x + x * view.zoom, view.y + y * view.zoom];
const toImage = ([x, y]) => [(x - view.x) / view.zoom, (y - view.y) / view.zoom].map((one, axis) => Math.round(10 * Math.min(size[axis], Math.max(0, one))) / 10);
const near = (one, other) => Math.hypot(one[0] - other[0], one[1] - other[1]) < 14;

function fit() {
  const [w, h] = [canvas.clientWidth, canvas.clientHeight];
  view.zoom = 0.95 * Math.min(w / size[0], h / size[1]);
  view.x = (w - size[0] * view.zoom) / 2; view.y = (h - size[1] * view.zoom) / 2;
  draw();
}
function zoomAt([x, y], factor) {
  const zoom = Math.min(64, Math.max(0.02, view.zoom * factor));
  view.x = x - (x - view.x) * zoom / view.zoom; view.y = y - (y - view.y) * zoom / view.zoom; view.zoom = zoom;
  draw();
}
function path(context, points, closed) {
  context.beginPath();
  points.map(toScreen).forEach(([x, y], index) => index ? context.lineTo(x, y) : context.moveTo(x, y));
  if (closed) context.closePath();
}
function draw() {
  const context = canvas.getContext("2d"), ratio = devicePixelRatio || 1;
  const [w, h] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, w, h);
  context.imageSmoothingEnabled = view.zoom < 2;
  context.drawImage(picture, view.x, view.y, size[0] * view.zoom, size[1] * view.zoom);
  const drawing = open.length ? [{ kind: tool, points: open, open: true }] : [];
  const line = state.line.length ? [{ kind: "line", points: state.line, open: true }] : [];
  for (const shape of [...state.shapes, ...line, ...drawing]) {
    path(context, shape.points, !shape.open);
    context.fillStyle = COLORS[shape.kind] + "33"; 
    if (!shape.open) context.fill();
    for (const [color, thickness] of [["#000b", 5], [COLORS[shape.kind], 2.5]]) { context.strokeStyle = color; context.lineWidth = thickness; context.stroke(); }
    for (const point of shape.points) { const [x, y] = toScreen(point); context.beginPath(); context.arc(x, y, 5, 0, 7); context.fillStyle = COLORS[shape.kind]; context.fill(); }
    if (shape.name) { const [x, y] = toScreen(shape.points[0]); context.font = "600 15px system-ui"; context.fillStyle = "#fff"; context.strokeStyle = "#000"; context.lineWidth = 3; context.strokeText(shape.name, x + 9, y - 9); context.fillText(shape.name, x + 9, y - 9); }
  }
  if (cursor) { const [x, y] = toScreen(cursor); context.strokeStyle = "#fff"; context.lineWidth = 1; context.beginPath(); context.moveTo(x - 14, y); context.lineTo(x + 14, y); context.moveTo(x, y - 14); context.lineTo(x, y + 14); context.stroke(); }
}
function close() {
  if (tool === "line" || open.length < 3) return;
  const points = open; open = [];
  const taken = new Set(state.shapes.map((shape) => shape.name));
  let number = 1; while (taken.has(`zone${number}`)) number += 1;
  change(() => state.shapes.push(tool === "zone" ? { kind: "zone", points, name: `zone${number}` } : { kind: tool, points }));
}
function corner(point) {
  if (tool === "move") return;
  if (open.length > 2 && near(toScreen(open[0]), toScreen(point))) return close();
  open.push(point);
  if (tool === "line" && open.length === 2) { const line = open; open = []; change(() => { state.line = line; }); scale(); $("length").focus(); return; }
  draw();
}
function scale() {
  const mm = parseFloat($("length").value);
  if (state.line.length === 2 && mm > 0) $("mm").value = (mm / Math.hypot(state.line[0][0] - state.line[1][0], state.line[0][1] - state.line[1][1])).toPrecision(6);
}
function grab(at) {
  for (const points of [...state.shapes.map((shape) => shape.points), state.line])
    for (let index = 0; index < points.length; index += 1) if (near(toScreen(points[index]), at)) return { points, index };
  return { view: { ...view }, at };
}
const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, place(event));
  cursor = null;
  if (pointers.size === 2) { dragged = null; return; }
  dragged = tool === "move" || event.button === 1 ? grab(place(event)) : { click: place(event) };
  if (dragged.points) { past.push(copy(state)); future = []; dragged = grab(place(event)); }
});
canvas.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) return;
  const before = [...pointers.values()], at = place(event);
  pointers.set(event.pointerId, at);
  if (pointers.size === 2) {
    const after = [...pointers.values()], middle = (pair) => [0, 1].map((axis) => (pair[0][axis] + pair[1][axis]) / 2);
    const span = (pair) => Math.hypot(pair[0][0] - pair[1][0], pair[0][1] - pair[1][1]);
    const [from, to] = [middle(before), middle(after)];
    view.x += to[0] - from[0]; view.y += to[1] - from[1];
    zoomAt(to, span(after) / Math.max(1, span(before)));
  } else if (dragged && dragged.points) { dragged.points[dragged.index] = toImage(at); draw(); }
  else if (dragged && dragged.view) { view.x = dragged.view.x + at[0] - dragged.at[0]; view.y = dragged.view.y + at[1] - dragged.at[1]; draw(); }
});
function release(event) {
  const pinched = pointers.size > 1;
  pointers.delete(event.pointerId);
  if (!pinched && dragged && dragged.click && event.type === "pointerup" && near(dragged.click, place(event))) corner(toImage(place(event)));
  if (dragged && dragged.points) { scale(); refresh(); }
  dragged = null;
}
canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
canvas.addEventListener("dblclick", close);
canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoomAt(place(event), Math.exp(-event.deltaY / 500)); }, { passive: false });
addEventListener("resize", draw);

function choose(name) {
  tool = name; open = [];
  document.querySelectorAll("[data-tool]").forEach((button) => button.setAttribute("aria-pressed", button.dataset.tool === name));
  $("hint").textContent = text(`hint-${name === "line" || name === "move" ? name : "polygon"}`);
  draw();
}
document.querySelectorAll("[data-tool]").forEach((button) => button.addEventListener("click", () => choose(button.dataset.tool)));
$("undo").onclick = undo;
$("redo").onclick = () => step(future, past);
$("fit").onclick = fit;
const middle = () => [canvas.clientWidth / 2, canvas.clientHeight / 2];
$("larger").onclick = () => zoomAt(middle(), 1.25);
$("smaller").onclick = () => zoomAt(middle(), 0.8);
$("length").oninput = scale;
addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase(), command = event.ctrlKey || event.metaKey;
  if (command && key === "s") { event.preventDefault(); save(); return; }
  if (event.target.matches("input, select")) return;
  if (command && key === "z") { event.preventDefault(); if (event.shiftKey) step(future, past); else undo(); return; }
  if (command && key === "y") { event.preventDefault(); step(future, past); return; }
  if (command || event.altKey) return;
  const tools = { i: "include", g: "ignore", z: "zone", l: "line", m: "move" };
  if (tools[key]) choose(tools[key]);
  else if (key === "f") fit();
  else if (key === "+" || key === "=") zoomAt(middle(), 1.25);
  else if (key === "-") zoomAt(middle(), 0.8);
  else if (key === "escape") { open = []; draw(); }
  else if (key === "backspace" && open.length) { open.pop(); draw(); }
  else if (event.target === canvas) {
    const moves = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };
    if (moves[key]) {
      event.preventDefault();
      const far = event.shiftKey ? 10 : 1, from = cursor || toImage(middle());
      cursor = [0, 1].map((axis) => Math.min(size[axis], Math.max(0, from[axis] + far * moves[key][axis])));
      draw();
    } else if (key === " " && cursor) { event.preventDefault(); corner([...cursor]); }
    else if (key === "enter") { event.preventDefault(); close(); }
  }
});

function field(parent, name, value, changed, type) {
  const label = document.createElement("label"), input = document.createElement("input");
  label.append(name, input);
  if (type === "checkbox") input.type = type;
  input.value = value ?? "";
  input.addEventListener("change", () => changed(input.value.trim()));
  parent.append(label);
  return input;
}
function refresh() {
  const list = $("shapes");
  list.replaceChildren();
  state.shapes.forEach((shape, index) => {
    const box = document.createElement("fieldset"), legend = document.createElement("legend");
    const color = document.createElement("i"), remove = document.createElement("button");
    color.style.background = COLORS[shape.kind];
    remove.type = "button"; remove.textContent = text("delete"); remove.onclick = () => change(() => state.shapes.splice(index, 1));
    legend.append(color, text(shape.kind), remove);
    box.append(legend);
    if (shape.kind === "zone") {
      field(box, text("name"), shape.name, (value) => note(() => { shape.name = value; }));
      field(box, text("rate"), shape.rate, (value) => note(() => { shape.rate = value; }));
      for (const name of RULES) field(box, text(name), (shape.rules || {})[name], (value) => note(() => { shape.rules = { ...shape.rules, [name]: value }; }));
    }
    list.append(box);
  });
  if (!state.shapes.length) list.textContent = text("none");
  draw();
}
function rulesOf(given) {
  const rules = Object.fromEntries(Object.entries(given || {}).filter(([, value]) => value !== ""));
  if ("max_count" in rules) rules.max_count = Number(rules.max_count);
  return Object.keys(rules).length ? rules : undefined;
}
function result() {
  const of = (kind) => state.shapes.filter((shape) => shape.kind === kind);
  const zones = new Map();
  for (const shape of of("zone")) {
    const zone = zones.get(shape.name) || { name: shape.name, polygons: [] };
    zone.polygons.push(shape.points);
    if (shape.rate) zone.false_alarm_rate = Number(shape.rate);
    if (rulesOf(shape.rules)) zone.rules = rulesOf(shape.rules);
    zones.set(shape.name, zone);
  }
  const mm = $("mm").value.trim();
  return { ...plan, image_size: size, include: of("include").map((shape) => shape.points), ignore: of("ignore").map((shape) => shape.points),
    zones: [...zones.values()], mm_per_pixel: mm ? Number(mm) : undefined,
    rules: rulesOf(Object.fromEntries(RULES.map((name) => [name, $(name).value.trim()]))) , register: $("register").checked };
}
async function save() {
  $("message").className = "";
  if (open.length) { $("message").className = "error"; $("message").textContent = text("open"); return; }
  const answer = await fetch("save", { method: "POST", headers: { "Content-Type": "application/json", "X-CSRF-Token": document.querySelector("meta[name=csrf-token]")?.content ?? "" }, body: JSON.stringify(result()) });
  $("message").textContent = await answer.text();
  if (!answer.ok) $("message").className = "error";
  else $("save").disabled = true;
}
$("save").onclick = save;
async function start() {
  const given = await (await fetch("plan")).json();
  plan = given.plan; size = given.size;
  const zones = (plan.zones || []).flatMap((zone) => zone.polygons.map((points) => ({ kind: "zone", points, name: zone.name, rate: zone.false_alarm_rate, rules: zone.rules })));
  const plain = ["include", "ignore"].flatMap((kind) => (plan[kind] || []).map((points) => ({ kind, points })));
  state.shapes = [...plain, ...zones];
  for (const name of RULES) field($("rules"), text(name), (plan.rules || {})[name], () => {}).id = name;
  $("mm").value = plan.mm_per_pixel ?? "";
  $("register").checked = Boolean(plan.registration);
  picture.onload = fit;
  picture.src = "image";
  choose("include"); refresh();
}
start();
