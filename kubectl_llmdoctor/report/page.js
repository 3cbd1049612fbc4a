"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);

  // Without this script everything is unfolded.
  for (const details of all("details[data-fold]")) details.open = false;

  // -- filters
  const form = by("filters");
  if (form) {
    const items = all("[data-ns]");
    const fields = ["f-text", "f-ns", "f-severity", "f-id", "f-context"].map(by);
    const order = ["critical", "warning", "info"];
    const texts = new Map();
    const textOf = (item) => {
      if (!texts.has(item)) texts.set(item, item.textContent.toLowerCase());
      return texts.get(item);
    };

    const filter = () => {
      const [text, space, severity, id, context] = fields.map((field) => (field ? field.value : ""));
      const words = text.toLowerCase().split(/\s+/).filter(Boolean);
      const worst = severity ? order.indexOf(severity.slice(1)) : order.length;
      let shown = 0;
      for (const item of items) {
        const data = item.dataset;
        const rank = order.indexOf(data.severity);
        const fits =
          (!space || "=" + data.ns === space) &&
          (!context || "=" + (data.context || "") === context) &&
          (!severity || (rank >= 0 && rank <= worst)) &&
          (!id || data.ids.split(" ").includes(id.slice(1))) &&
          words.every((word) => textOf(item).includes(word));
        item.hidden = !fits;
        shown += fits;
      }
      for (const count of all(".count[data-all]")) {
        const own = all("[data-ns]", count.closest("section"));
        if (!own.length) continue;
        const left = own.filter((item) => !item.hidden).length;
        count.textContent = left === own.length ? count.dataset.all : `${left} of ${count.dataset.all}`;
      }
      by("shown").textContent =
        shown === items.length ? `${shown} workloads` : `${shown} of ${items.length} workloads match`;
    };

    let timer;
    form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(filter, 80);
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    by("unfold").addEventListener("click", () => {
      for (const details of all("main details")) details.open = true;
    });
    by("fold").addEventListener("click", () => {
      for (const details of all("details.target")) details.open = false;
    });

    // An id in the overview is a way to its workloads.
    for (const code of all("[data-id]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "id";
      button.textContent = code.textContent;
      button.setAttribute("aria-label", `Show only workloads with ${code.textContent}`);
      button.addEventListener("click", () => {
        by("f-id").value = "=" + code.dataset.id;
        filter();
        by("f-id").focus();
      });
      code.replaceWith(button);
    }
    form.hidden = false;
    filter();
  }

  // What scrolls by itself must be reachable by keyboard.
  for (const box of all(".table")) if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;

  // -- copying
  const select = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  for (const button of all("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      let done = true;
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        select(code); // a page from a mail may have no clipboard; then what to copy is selected
        done = document.execCommand("copy");
      }
      button.textContent = done ? "Copied" : "Selected";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }

  // -- paper shows everything
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });
})();
