"use strict";
document.documentElement.classList.add("js");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Filter: rows of the overview, and the exports below them.
const filter = document.getElementById("filter");
if (filter) {
  const rows = all("#overview > tbody");
  const apply = () => {
    const wanted = filter.value.trim().toLowerCase();
    const verdict = document.querySelector("input[name=only]:checked").value;
    let shown = 0;
    for (const row of rows) {
      const named = row.querySelector(".name").textContent.toLowerCase().includes(wanted);
      const visible = named && (verdict === "all" || row.dataset.verdict === verdict);
      row.hidden = !visible;
      document.getElementById(row.dataset.of).hidden = !visible;
      shown += visible;
    }
    document.getElementById("shown").textContent = `${shown} of ${rows.length} shown`;
  };
  filter.addEventListener("input", apply);
  all("input[name=only]").forEach((choice) => choice.addEventListener("change", apply));
  filter.form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

// Sort: a figure by its value, what is no figure after all of them.
const value = (body, column) => {
  const text = body.rows[0].cells[column].textContent.trim();
  const number = parseFloat(text);
  return [Number.isNaN(number) ? Infinity : number, text];
};
for (const table of all("table.sortable")) {
  all("thead th", table).forEach((head, column) => {
    if ("plain" in head.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...table.tBodies].map((body) => [value(body, column), body]);
      keyed.sort(([a], [b]) => (a[0] === b[0] ? a[1].localeCompare(b[1]) : a[0] - b[0]) * (down ? -1 : 1));
      table.append(...keyed.map(([, body]) => body));
    });
  });
}

// Open a fixture, and show the failing ones alone.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[aria-controls]");
  if (!button) return;
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(open));
  document.getElementById(button.getAttribute("aria-controls")).classList.toggle("open", open);
});
document.addEventListener("change", (event) => {
  if (event.target.matches(".only-failing")) {
    event.target.closest("details").classList.toggle("failing-only", event.target.checked);
  }
});

// A link to an export opens it.
const follow = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.matches("details")) {
    target.open = true;
    target.querySelector("summary").focus();
    target.scrollIntoView();
  }
};
addEventListener("hashchange", follow);
follow();
