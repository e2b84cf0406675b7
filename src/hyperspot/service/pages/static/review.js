"use strict";
// Labels by one key each, and masks drawn on the image.
(() => {
  const panel = document.getElementById("review");
  if (!panel) return;
  const COLOR = "#ff2d95";
  let tool = "move", last = null, corners = [], cursor = null, drawn = false;
  const find = (selector) => panel.querySelector(selector);
  const viewer = () => find("[data-viewer]")?.viewer;
  const canvas = () => find("canvas.mask");

  function brush() {
    const image = viewer();
    return Math.max(1, Number(find("[data-brush]").value) / 400 * Math.min(...image.size));
  }

  function stroke(from, to) {
    const context = canvas().getContext("2d");
    context.globalCompositeOperation = tool === "eraser" ? "destination-out" : "source-over";
    context.strokeStyle = COLOR;
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = brush();
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
    drawn = true;
  }

  function showCorners() {
    const svg = find(".layers svg");
    svg.querySelector(".open")?.remove();
    const points = cursor ? [...corners, cursor] : corners;
    if (!points.length) return;
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const cross = cursor ? [[-6, 0], [6, 0], [0, 0], [0, -6], [0, 6]].map(([x, y]) => [cursor[0] + x / viewer().view.zoom, cursor[1] + y / viewer().view.zoom]) : [];
    line.setAttribute("class", "open outline");
    line.setAttribute("points", [...points, ...cross].map((point) => point.join(",")).join(" "));
    svg.append(line);
  }

  function closePolygon() {
    if (corners.length > 2) {
      const context = canvas().getContext("2d");
      context.globalCompositeOperation = "source-over";
      context.fillStyle = COLOR;
      context.beginPath();
      corners.forEach((point, index) => index ? context.lineTo(...point) : context.moveTo(...point));
      context.fill();
      drawn = true;
    }
    corners = [];
    showCorners();
  }

  function pointer(event, point) {
    if (tool === "move") return false;
    if (tool === "polygon") {
      if (event.type !== "pointerdown") return true;
      cursor = null;
      const near = corners.length > 2 && Math.hypot(point[0] - corners[0][0], point[1] - corners[0][1]) * viewer().view.zoom < 14;
      if (near) closePolygon();
      else { corners.push(point); showCorners(); }
      return true;
    }
    if (event.type === "pointerdown") last = point;
    if (event.type !== "pointerup" && event.type !== "pointercancel") { stroke(last, point); last = point; }
    return true;
  }

  function choose(name) {
    tool = name;
    corners = [];
    cursor = null;
    panel.querySelectorAll("[data-tool]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.tool === name)));
    if (!viewer()) return;
    viewer().draw = pointer;
    viewer().keepArrows = name !== "move";
    find(".viewport").style.cursor = name === "move" ? "" : "crosshair";
    showCorners();
  }

  function loadMask(address) {
    const image = new Image();
    image.onload = () => {
      const target = canvas(), context = target.getContext("2d");
      const copy = document.createElement("canvas");
      copy.width = target.width;
      copy.height = target.height;
      const pen = copy.getContext("2d", { willReadFrequently: true });
      pen.drawImage(image, 0, 0, copy.width, copy.height);
      const pixels = pen.getImageData(0, 0, copy.width, copy.height);
      for (let index = 0; index < pixels.data.length; index += 4) {
        const marked = pixels.data[index] > 127;
        pixels.data.set([255, 45, 149, marked ? 255 : 0], index);
      }
      context.putImageData(pixels, 0, 0);
      drawn = true;
    };
    image.src = address;
  }

  // Black and white; null without a marked pixel.
  async function maskFile() {
    if (!drawn) return null;
    const source = canvas(), context = source.getContext("2d");
    const pixels = context.getImageData(0, 0, source.width, source.height);
    let any = false;
    for (let index = 0; index < pixels.data.length; index += 4) {
      const level = pixels.data[index + 3] > 127 ? 255 : 0;
      any = any || level > 0;
      pixels.data.set([level, level, level, 255], index);
    }
    if (!any) return null;
    const copy = document.createElement("canvas");
    copy.width = source.width;
    copy.height = source.height;
    copy.getContext("2d").putImageData(pixels, 0, 0);
    return new Promise((resolve) => { copy.toBlob(resolve, "image/png"); });
  }

  let sending = false;
  async function post(address, data, said) {
    if (sending) return;
    sending = true;
    try {
      const answer = await station.send(address, { method: "POST", body: data });
      if (!answer) return;
      const html = await answer.text();
      htmx.swap(panel, html, { swapStyle: "innerHTML" });
      fresh();
      document.getElementById("said").textContent = said;
    } finally {
      sending = false;
    }
  }

  async function label(name, word) {
    const form = find("[data-answers]"), data = new FormData();
    if (!form.dataset.address) return;
    data.append("label", name);
    data.append("comment", form.elements.comment.value);
    const mask = name === "defect" ? await maskFile() : null;
    if (mask) data.append("mask", mask, "mask.png");
    await post(form.dataset.address, data, `${panel.dataset.said} ${word}`);
  }

  function undo() {
    const button = find("[data-undo]"), data = new FormData();
    data.append("product", button.dataset.product);
    return post("/review/undo", data, button.textContent.trim());
  }

  function fresh() {
    drawn = false;
    startViewers(panel);
    choose("move");
  }

  panel.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { label: name, tool: chosen, mask, clear, undo: back } = button.dataset;
    if (name) label(name, button.firstChild.textContent.trim());
    else if (chosen) choose(chosen);
    else if (mask) loadMask(mask);
    else if (clear !== undefined) { canvas().getContext("2d").clearRect(0, 0, canvas().width, canvas().height); drawn = false; choose(tool); }
    else if (back !== undefined) undo();
  });

  function drawByKeys(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = (event.shiftKey ? 20 : 4) / viewer().view.zoom;
    if (moves[event.key]) {
      const from = cursor || viewer().size.map((side) => side / 2), to = [0, 1].map((axis) => from[axis] + step * moves[event.key][axis]);
      cursor = [0, 1].map((axis) => Math.min(viewer().size[axis], Math.max(0, to[axis])));
      if (tool !== "polygon" && event.ctrlKey) stroke(from, cursor);
    } else if (event.key === " " && cursor) {
      if (tool === "polygon") corners.push([...cursor]);
      else stroke(cursor, cursor);
    } else if (event.key === "Enter" && tool === "polygon") closePolygon();
    else if (event.key === "Escape") { corners = []; cursor = null; }
    else return false;
    showCorners();
    return true;
  }

  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input:not([type=range]), textarea, select") || document.querySelector("dialog[open]")) return;
    if (event.target.closest(".viewport") && tool !== "move" && drawByKeys(event)) return event.preventDefault();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const answers = { d: "defect", g: "good", u: "unsure" }, tools = { m: "move", b: "brush", e: "eraser", p: "polygon" };
    if (answers[key]) find(`[data-label=${answers[key]}]`)?.click();
    else if (key === "z") undo();
    else if (tools[key] && viewer()) choose(tools[key]);
    else if ((key === "arrowleft" || key === "arrowright") && !event.target.closest(".viewport, input")) {
      const button = find(`[data-go=${key === "arrowleft" ? "previous" : "next"}]`);
      if (button && !button.disabled) button.click();
    } else return;
    event.preventDefault();
  });
  panel.addEventListener("htmx:afterSwap", fresh);
  addEventListener("load", fresh);
})();
