"use strict";
// Uploads files one after the other, chosen or dropped, with progress.
document.querySelectorAll("[data-upload]").forEach((form) => {
  const input = form.querySelector("input[type=file]"), bar = form.querySelector("progress"), line = form.querySelector("[role=status]");
  let busy = false;

  const sendOne = (file, progress) => new Promise((resolve) => {
    const request = new XMLHttpRequest(), data = new FormData();
    data.append("file", file, file.name);
    request.open("POST", form.dataset.upload);
    request.setRequestHeader("X-CSRF-Token", station.token);
    request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : 0);
    request.onerror = () => resolve(document.body.dataset.offline);
    request.onload = () => {
      if (request.status < 300) return resolve(null);
      let reason = document.body.dataset.failed;
      try { reason = JSON.parse(request.responseText).detail; } catch { /* not a problem document */ }
      return resolve(reason);
    };
    request.send(data);
  });

  async function upload(files) {
    if (busy || !files.length) return;
    busy = true;
    bar.hidden = false;
    let done = 0, failed = 0;
    for (const [index, file] of files.entries()) {
      line.textContent = `${index + 1} / ${files.length}`;
      const reason = await sendOne(file, (share) => { bar.value = (index + share) / files.length; });
      if (reason) { failed += 1; station.message(`${file.name}: ${reason}`); } else done += 1;
      bar.value = (index + 1) / files.length;
    }
    line.textContent = `${line.dataset.done} ${done} / ${files.length}`;
    bar.hidden = true;
    busy = false;
    input.value = "";
    if (form.dataset.refresh) htmx.trigger(form.dataset.refresh, "refresh");
    if (form.dataset.then && !failed) location.assign(form.dataset.then);
  }

  input.addEventListener("change", () => upload([...input.files]));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["dragover", "dragleave", "drop"])
    form.addEventListener(name, (event) => {
      event.preventDefault();
      form.classList.toggle("over", name === "dragover");
      if (name === "drop") upload([...event.dataTransfer.files]);
    });
});
