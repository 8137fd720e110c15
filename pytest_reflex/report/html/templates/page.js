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

// Sort: a figure by its value, what is no figure after all of them; a name with its numbers as numbers.
const names = new Intl.Collator(undefined, { numeric: true });
const value = (body, column) => {
  const cell = body.rows[0].cells[column];
  const number = cell.matches(".text") ? NaN : parseFloat(cell.textContent);
  return [Number.isNaN(number) ? Infinity : number, cell.textContent.trim()];
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
      keyed.sort(([a], [b]) => (a[0] === b[0] ? names.compare(a[1], b[1]) : a[0] - b[0]) * (down ? -1 : 1));
      table.append(...keyed.map(([, body]) => body));
    });
  });
}

// Open a fixture, and show the failing ones alone.
const show = (button, open) => {
  button.setAttribute("aria-expanded", String(open));
  document.getElementById(button.getAttribute("aria-controls")).classList.toggle("open", open);
};
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[aria-controls]");
  if (button) show(button, button.getAttribute("aria-expanded") !== "true");
});
document.addEventListener("change", (event) => {
  if (event.target.matches(".only-failing")) {
    event.target.closest("details").classList.toggle("failing-only", event.target.checked);
  }
});

// A link to an export opens it; one to a fixture opens that too, whatever is filtered.
const follow = () => {
  let [name, idx] = [location.hash.slice(1), null];
  try {
    [, name, idx] = decodeURIComponent(name).match(/^(.*?)(?:\/fixture-(\d+))?$/s);
  } catch {
    return; // no fragment of this page's
  }
  const exported = name && document.getElementById(name);
  if (!exported || !exported.matches("details.export")) return;
  exported.hidden = false;
  exported.open = true;
  const body = idx && all("table.fixtures > tbody", exported).find((one) => one.rows[0].cells[0].textContent === idx);
  if (!body) {
    exported.querySelector("summary").focus();
    exported.scrollIntoView();
    return;
  }
  const only = exported.querySelector(".only-failing");
  if (only && only.checked) only.click();
  const button = body.querySelector("button[aria-controls]");
  if (button) show(button, true);
  all(".linked", exported).forEach((other) => other.classList.remove("linked"));
  body.classList.add("linked");
  (button || exported.querySelector("summary")).focus();
  body.scrollIntoView({ block: "center" });
};
addEventListener("hashchange", follow);
follow();
// A browser that comes to a fragment by itself takes the focus away once more.
addEventListener("load", follow);
