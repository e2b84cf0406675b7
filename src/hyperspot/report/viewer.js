const viewer = document.getElementById("viewer"), panels = document.getElementById("panels");
for (const panel of panels.children) if (!panel.querySelector("img")) panel.prepend(new Image());
let current;

/** Shows the pictures of a card. */
function show(card) {
  current = card;
  const pictures = card.querySelectorAll(".enlarge img");
  panels.querySelectorAll("img").forEach((large, place) => {
    large.src = pictures[place].src;
    large.alt = pictures[place].alt;
  });
  const legend = card.querySelector(".legend");
  viewer.querySelector("p").textContent = [...legend.children].map(part => part.textContent).join(" · ");
  if (!viewer.open) viewer.showModal();
}

/** Shows the next (1) or previous (-1) visible card. */
function step(by) {
  const shown = [...document.querySelectorAll(".image")].filter(card => card.offsetParent);
  if (shown.length) show(shown[(Math.max(shown.indexOf(current), 0) + by + shown.length) % shown.length]);
}

/** Shows one picture alone, or all three again. */
function toggle(panel) {
  panel.classList.toggle("large", panels.classList.toggle("single"));
}

document.querySelector("main").addEventListener("click", event => {
  const button = event.target.closest(".enlarge");
  if (button) show(button.closest(".image"));
});
viewer.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (event.target === viewer || button?.dataset.close !== undefined) viewer.close();
  else if (button?.dataset.step) step(Number(button.dataset.step));
  else if (button) toggle(button);
});
viewer.addEventListener("keydown", event => {
  const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (by) step(by);
});
viewer.addEventListener("close", () => {
  panels.classList.remove("single");
  panels.querySelector(".large")?.classList.remove("large");
  current.querySelector(".enlarge").focus();
});
