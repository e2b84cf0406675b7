const trade = JSON.parse(document.getElementById("trade-off-data").textContent);
const images = trade.images, calibration = trade.calibration, count = calibration.length;
const promised = trade.promised, chart = document.querySelector(".trade .chart"), slider = document.getElementById("rate");
const cards = new Map([...document.querySelectorAll(".image")].map(card => [Number(card.dataset.index), card]));

/** The most calibration images that may reach the score of an anomalous image, as `Calibration.from_scores` counts. */
function aboveAt(rate) {
  let above = Math.floor(rate * (count + 1));
  while ((1 + above) / (count + 1) > rate) above -= 1;
  return above;
}

function thresholdAt(rate) {
  return calibration[count - 1 - aboveAt(rate)];
}

/** Threshold, counts and decisions at a promised rate. */
function resultsAt(rate) {
  const threshold = thresholdAt(rate), decisions = images.map(image => image.score > threshold);
  const called = label => images.filter((image, index) => image.label === label && decisions[index]).length;
  return {threshold, detected: called(1), falseAlarms: called(0), decisions};
}

const defective = images.filter(image => image.label === 1).length, good = images.length - defective;
const before = resultsAt(promised);
const percent = share => `${(100 * share).toFixed(1)} %`;
const share = (part, whole) => whole ? `${percent(part / whole)} (${part} of ${whole})` : "–";
const change = by => by ? ` ${by > 0 ? "+" : "−"}${Math.abs(by)}` : "";
// Five digits are fewer than a score has.
const scoreText = score => String(Number(score.toPrecision(5)));

/** The shortest decimal number that promises what the rate promises. */
function decimal(rate) {
  for (let scale = 100; ; scale *= 10) {
    const rounded = Math.ceil(rate * scale - 1e-9) / scale;
    if (aboveAt(rounded) === aboveAt(rate) && rounded < 1) return String(rounded);
    if (scale > 1e12) return String(rate);
  }
}

function showRate(rate) {
  const results = resultsAt(rate), step = aboveAt(rate) + 1;
  slider.value = step;
  const found = share(results.detected, defective), alarms = share(results.falseAlarms, good);
  slider.setAttribute("aria-valuetext", `${percent(rate)}: detection rate ${found}, false alarms ${alarms}`);
  const texts = {
    rate: percent(rate), threshold: scoreText(results.threshold), found, alarms, option: decimal(rate),
    "found-change": change(results.detected - before.detected),
    "alarms-change": change(results.falseAlarms - before.falseAlarms),
  };
  for (const [name, text] of Object.entries(texts)) {
    document.querySelectorAll(`[data-show="${name}"]`).forEach(place => { place.textContent = text; });
  }
  placeMarker(rate, results);
  moveThreshold(results.threshold);
  relabel(results.decisions);
  listChanges(results.decisions);
}

function placeMarker(rate, results) {
  const plot = trade.plot, x = plot.left + plot.width * Math.min(rate / trade.limit, 1);
  const marker = document.getElementById("marker"), line = marker.querySelector("line");
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
  for (const [name, part, whole] of [["found", results.detected, defective], ["alarms", results.falseAlarms, good]]) {
    const dot = marker.querySelector(`.${name}`);
    dot?.setAttribute("cx", x);
    dot?.setAttribute("cy", plot.top + plot.height * (1 - part / whole));
  }
}

/** Moves the threshold in the histogram of scores; one beyond the test scores stays at the edge of the plot. */
function moveThreshold(threshold) {
  const line = document.querySelector("line.threshold"), {low, high} = line.dataset;
  const place = score => trade.plot.width * Math.min(Math.max((score - low) / (high - low), 0), 1);
  const shift = place(threshold) - place(before.threshold);
  for (const part of [line, document.querySelector(".threshold-name")]) {
    part.setAttribute("transform", `translate(${shift} 0)`);
  }
}

function relabel(decisions) {
  const counts = {changed: 0};
  cards.forEach((card, index) => {
    const [kind, text] = trade.outcomes[images[index].label][Number(decisions[index])];
    const changed = decisions[index] !== before.decisions[index], tag = card.querySelector(".tag");
    card.dataset.kind = kind;
    card.toggleAttribute("data-changed", changed);
    tag.className = `tag ${kind}`;
    tag.textContent = text;
    counts[kind] = (counts[kind] ?? 0) + 1;
    counts.changed += changed;
  });
  document.querySelectorAll("[data-count]").forEach(place => {
    place.textContent = counts[place.dataset.count] ?? 0;
  });
}

/** Lists the images that change side, with a thumbnail of those in the gallery. */
function listChanges(decisions) {
  const outcome = (index, all) => trade.outcomes[images[index].label][Number(all[index])][1];
  const changed = [...images.keys()].filter(index => decisions[index] !== before.decisions[index]);
  document.getElementById("changes").textContent = changed.length
    ? `${changed.length} ${changed.length === 1 ? "image changes" : "images change"} side`
    : "No image changes side";
  document.getElementById("changed").replaceChildren(...changed.map(index => {
    const item = document.createElement("li"), button = document.createElement("button"), card = cards.get(index);
    const text = document.createElement("span");
    text.textContent = `${images[index].name}: ${outcome(index, before.decisions)} → ${outcome(index, decisions)}`;
    button.type = "button";
    button.disabled = !card;
    if (card) {
      const thumbnail = new Image();
      thumbnail.src = card.querySelector("img").src;
      thumbnail.alt = "";
      button.append(thumbnail);
      button.addEventListener("click", () => show(card));
    }
    button.append(text);
    item.append(button);
    return item;
  }));
}

/** The rate of a step of the slider; at the step of the promised rate, that rate. */
function rateOf(step) {
  return step === aboveAt(promised) + 1 ? promised : step / (count + 1);
}

function drag(event) {
  const box = chart.getBoundingClientRect(), plot = trade.plot;
  const x = ((event.clientX - box.left) / box.width * chart.viewBox.baseVal.width - plot.left) / plot.width;
  const step = Math.round(x * trade.limit * (count + 1));
  showRate(rateOf(Math.min(Math.max(step, 1), Number(slider.max))));
}

slider.addEventListener("input", () => showRate(rateOf(Number(slider.value))));
document.getElementById("reset").addEventListener("click", () => showRate(promised));
chart.addEventListener("pointerdown", event => {
  chart.setPointerCapture(event.pointerId);
  drag(event);
});
chart.addEventListener("pointermove", event => {
  if (event.buttons) drag(event);
});
document.getElementById("changes").textContent = "Move the slider, or drag in the chart, to see which images change side";
document.body.classList.add("with-script");
document.getElementById("controls").hidden = false;
document.getElementById("only-changed")?.parentElement.removeAttribute("hidden");
