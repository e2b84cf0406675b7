"use strict";
// What every page needs: the CSRF token, errors, questions before changes, the color scheme.
(() => {
  const texts = document.body.dataset;
  const token = document.querySelector("meta[name=csrf-token]").content;

  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.verb !== "get") event.detail.headers["X-CSRF-Token"] = token;
  });

  function message(text) {
    const box = document.createElement("div"), close = document.createElement("button");
    const line = document.createElement("span");
    line.textContent = text.charAt(0).toUpperCase() + text.slice(1);
    close.type = "button";
    close.className = "plain";
    close.textContent = "✕";
    close.setAttribute("aria-label", texts.close);
    close.addEventListener("click", () => box.remove());
    box.append(line, close);
    document.getElementById("messages").append(box);
    setTimeout(() => box.remove(), 15000);
  }

  async function send(address, options) {
    const headers = { ...options.headers, "X-CSRF-Token": token };
    let answer;
    try {
      answer = await fetch(address, { ...options, headers });
    } catch {
      message(texts.offline);
      return null;
    }
    if (answer.ok) return answer;
    message(await reason(answer));
    return null;
  }

  async function reason(answer) {
    try {
      return (await answer.json()).detail;
    } catch {
      return texts.failed;
    }
  }
  window.station = { message, send, token };

  document.addEventListener("htmx:responseError", (event) => {
    const answer = event.detail.xhr;
    if (answer.status === 401) return answer.getResponseHeader("HX-Redirect") || location.reload();
    let text = texts.failed;
    try { text = JSON.parse(answer.responseText).detail || text; } catch { /* not a problem document */ }
    message(text);
  });
  document.addEventListener("htmx:sendError", () => message(texts.offline));

  // A question before a change: keyboard and touch work as in the rest of the page.
  const dialog = document.getElementById("question");
  let asking = null;
  document.addEventListener("htmx:confirm", (event) => {
    if (!event.detail.question) return;
    event.preventDefault();
    asking = event.target;
    dialog.querySelector("p").textContent = event.detail.question;
    dialog.returnValue = "";
    dialog.addEventListener("close", () => { if (dialog.returnValue === "yes") event.detail.issueRequest(true); }, { once: true });
    dialog.showModal();
  });
  // Lists are loaded again at events; the button of an open question stays, or the answer would change nothing.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (dialog.open && event.detail.target.contains(asking)) event.detail.shouldSwap = false;
  });

  // The picture of the inspection before stays until the new one is loaded.
  let shown = null;
  const picture = () => document.querySelector("#panel .stage img");
  document.addEventListener("htmx:beforeSwap", () => { shown = picture(); });
  document.addEventListener("htmx:afterSwap", () => {
    const next = picture(), before = shown;
    if (!before || !next || before === next || next.complete) return;
    next.replaceWith(before);
    for (const end of ["load", "error"]) next.addEventListener(end, () => before.replaceWith(next), { once: true });
  });

  document.addEventListener("change", (event) => {
    const control = event.target;
    if (control.matches("[data-submit]")) control.form.requestSubmit();
    if (control.matches("[data-theme-choice]")) {
      document.documentElement.dataset.theme = control.value;
      document.cookie = `hyperspot_theme=${control.value}; path=/; max-age=31536000; samesite=lax`;
    }
  });

  // Wide screens have the room; the section of the page is in sight on narrow ones.
  if (matchMedia("(min-width: 48rem)").matches) document.querySelectorAll("details[data-wide]").forEach((one) => { one.open = true; });
  document.querySelectorAll(".nav [aria-current], .tabs [aria-current]").forEach((one) => { one.parentElement.scrollLeft = one.offsetLeft - one.parentElement.offsetLeft - 40; });

  // Menus close by Escape and by a click elsewhere.
  const menus = () => document.querySelectorAll("details.menu[open]");
  document.addEventListener("click", (event) => menus().forEach((menu) => { if (!menu.contains(event.target)) menu.open = false; }));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") menus().forEach((menu) => { menu.open = false; menu.querySelector("summary").focus(); });
  });
})();
