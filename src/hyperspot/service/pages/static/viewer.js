"use strict";
// Zooms and pans layers of the same size: pointer, wheel, pinch, and keys.
class Viewer {
  constructor(root) {
    this.root = root;
    this.viewport = root.querySelector(".viewport");
    this.layers = root.querySelector(".layers");
    this.size = [Number(root.dataset.width), Number(root.dataset.height)];
    this.view = { x: 0, y: 0, zoom: 1 };
    this.pointers = new Map();
    this.draw = null; // Called with a pointer event and a point in the image; takes the pointer if it returns true.
    this.layers.style.width = `${this.size[0]}px`;
    this.layers.style.height = `${this.size[1]}px`;
    this.listen();
    new ResizeObserver(() => { if (!this.touched) this.fit(); }).observe(this.viewport);
    this.fit();
  }

  get box() { return [this.viewport.clientWidth, this.viewport.clientHeight]; }
  get whole() { return Math.min(this.box[0] / this.size[0], this.box[1] / this.size[1]); }

  fit() {
    const zoom = this.whole || 1;
    this.view = { zoom, x: (this.box[0] - this.size[0] * zoom) / 2, y: (this.box[1] - this.size[1] * zoom) / 2 };
    this.touched = false;
    this.show();
  }

  show() {
    const { x, y, zoom } = this.view;
    this.layers.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    this.layers.style.setProperty("--zoom", zoom);
    this.layers.classList.toggle("pixels", zoom >= 3);
    const output = this.root.querySelector("[data-zoom]");
    if (output) output.textContent = `${Math.round(100 * zoom)} %`;
  }

  zoomAt([x, y], factor) {
    const { view } = this, zoom = Math.min(40, Math.max(Math.min(this.whole / 2, 1), view.zoom * factor));
    view.x = x - (x - view.x) * zoom / view.zoom;
    view.y = y - (y - view.y) * zoom / view.zoom;
    view.zoom = zoom;
    this.touched = true;
    this.show();
  }

  zoom(factor) { this.zoomAt([this.box[0] / 2, this.box[1] / 2], factor); }

  move(x, y) {
    this.view.x += x;
    this.view.y += y;
    this.touched = true;
    this.show();
  }

  showRegion(left, top, width, height) {
    const zoom = Math.min(12, 0.5 * Math.min(this.box[0] / width, this.box[1] / height));
    this.view = { zoom, x: this.box[0] / 2 - (left + width / 2) * zoom, y: this.box[1] / 2 - (top + height / 2) * zoom };
    this.touched = true;
    this.show();
  }

  place(event) {
    const box = this.viewport.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  toImage(event) {
    const [x, y] = this.place(event);
    return [(x - this.view.x) / this.view.zoom, (y - this.view.y) / this.view.zoom];
  }

  listen() {
    const { viewport } = this;
    viewport.addEventListener("pointerdown", (event) => {
      viewport.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, this.place(event));
      this.drawing = this.pointers.size === 1 && event.button === 0 && Boolean(this.draw) && this.draw(event, this.toImage(event));
    });
    viewport.addEventListener("pointermove", (event) => {
      if (!this.pointers.has(event.pointerId)) return;
      const before = [...this.pointers.values()], at = this.place(event), old = this.pointers.get(event.pointerId);
      this.pointers.set(event.pointerId, at);
      if (this.pointers.size === 2) {
        const after = [...this.pointers.values()];
        const middle = (pair) => [0, 1].map((axis) => (pair[0][axis] + pair[1][axis]) / 2);
        const span = (pair) => Math.max(1, Math.hypot(pair[0][0] - pair[1][0], pair[0][1] - pair[1][1]));
        this.move(middle(after)[0] - middle(before)[0], middle(after)[1] - middle(before)[1]);
        this.zoomAt(middle(after), span(after) / span(before));
      } else if (this.drawing) this.draw(event, this.toImage(event));
      else this.move(at[0] - old[0], at[1] - old[1]);
    });
    for (const name of ["pointerup", "pointercancel"])
      viewport.addEventListener(name, (event) => {
        this.pointers.delete(event.pointerId);
        if (this.drawing) this.draw(event, this.toImage(event));
        this.drawing = false;
      });
    viewport.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomAt(this.place(event), Math.exp(-event.deltaY / 400));
    }, { passive: false });
    viewport.addEventListener("keydown", (event) => {
      const step = 60, moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "+" || event.key === "=") this.zoom(1.25);
      else if (event.key === "-") this.zoom(0.8);
      else if (event.key === "0") this.fit();
      else if (moves[event.key] && !this.keepArrows) this.move(...moves[event.key]);
      else return;
      event.preventDefault();
    });
    this.root.addEventListener("click", (event) => {
      const action = event.target.closest("[data-view]");
      if (!action) return;
      if (action.dataset.view === "fit") this.fit();
      else if (action.dataset.view === "pixels") this.zoom(1 / this.view.zoom);
      else this.zoom(action.dataset.view === "in" ? 1.25 : 0.8);
    });
    this.root.addEventListener("input", (event) => {
      const { layer } = event.target.dataset;
      if (!layer) return;
      const shown = this.root.querySelector(layer);
      if (event.target.type === "range") shown.style.opacity = event.target.value / 100;
      else shown.toggleAttribute("hidden", !event.target.checked);
    });
    // Regions: a row of the table and its box in the image belong together.
    const mark = (index) => this.root.querySelectorAll("[data-region]").forEach((one) => one.classList.toggle("active", one.dataset.region === index));
    for (const name of ["pointerover", "focusin"])
      this.root.addEventListener(name, (event) => {
        const region = event.target.closest?.("[data-region]");
        mark(region ? region.dataset.region : "");
      });
    this.root.addEventListener("click", (event) => {
      const button = event.target.closest("[data-box]");
      if (button) this.showRegion(...button.dataset.box.split(" ").map(Number));
    });
    // The opacity of the heatmap as the server rendered the slider.
    this.root.querySelectorAll("input[type=range][data-layer]").forEach((slider) => { this.root.querySelector(slider.dataset.layer).style.opacity = slider.value / 100; });
  }
}

function startViewers(root) {
  root.querySelectorAll("[data-viewer]").forEach((element) => { if (!element.viewer) element.viewer = new Viewer(element); });
}
startViewers(document);
document.addEventListener("htmx:load", (event) => startViewers(event.detail.elt.parentElement || event.detail.elt));
