"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // Theme: that of the system until a choice is made.
  const stored = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = byId("theme");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const label = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
  };
  if (stored === "dark" || stored === "light") root.dataset.theme = stored;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* a page from a file may not store */ }
    label();
  });
  system.addEventListener("change", label);
  label();

  // Sorting: a button in each heading; numbers by value, words by alphabet, what is missing last.
  const valueOf = (row, at) => {
    const cell = row.cells[at];
    return cell.dataset.value !== undefined && cell.dataset.value !== "" && !Number.isNaN(Number(cell.dataset.value))
      ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    const missing = (value) => value === "" || value === "–";
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    return typeof a === "number" && typeof b === "number" ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const sortBy = (table, heading, at) => {
    const isDown = heading.getAttribute("aria-sort") === "ascending";
    all("thead th", table).forEach((each) => each.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", isDown ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [valueOf(row, at), row]);
    const missing = (value) => value === "" || value === "–";
    rows.sort(([a], [b]) => (missing(a) || missing(b) ? compare(a, b) : (isDown ? -1 : 1) * compare(a, b)));
    body.append(...rows.map(([, row]) => row));
  };
  all("table.claims, table.sortable").forEach((table) => {
    all("thead th", table).forEach((heading, at) => {
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.className = "sorter";
      sorter.append(...heading.childNodes);
      heading.append(sorter);
      sorter.addEventListener("click", () => sortBy(table, heading, at));
    });
  });

  // Filters of the claims, where there are some.
  const claimFilters = () => {
    const filters = byId("filters");
    if (!filters) return () => {};
    const fields = { text: byId("f-text"), source: byId("f-source"), verdict: byId("f-verdict"), kind: byId("f-kind") };
    const rows = all("#claims-table tbody tr");
    const cards = new Map(all("#claim-cards details").map((card) => [card.dataset.card, card]));
    const texts = new Map(rows.map((row) => [row, `${row.textContent} ${cards.get(row.dataset.card).textContent}`.toLowerCase()]));
    const applyFilters = () => {
      const words = fields.text.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row) => {
        const isShown = words.every((word) => texts.get(row).includes(word))
          && (!fields.source.value || row.dataset.sourceId === fields.source.value)
          && (!fields.verdict.value || row.dataset.verdict === fields.verdict.value)
          && (!fields.kind.value || row.dataset.kinds.split(",").includes(fields.kind.value));
        row.hidden = !isShown;
        cards.get(row.dataset.card).hidden = !isShown;
        shown += isShown;
      });
      byId("f-count").value = shown === rows.length ? `all ${shown}` : `${shown} of ${rows.length}`;
    };
    filters.hidden = false;
    filters.addEventListener("input", applyFilters);
    filters.addEventListener("reset", () => setTimeout(applyFilters));
    applyFilters();
    const preset = (name, value) => { filters.reset(); fields[name].value = value; applyFilters(); };
    all("a[data-verdict]").forEach((link) => link.addEventListener("click", () => preset("verdict", link.dataset.verdict)));
    all("a[data-source-id]").forEach((link) => link.addEventListener("click", () => preset("source", link.dataset.sourceId)));
    return () => { filters.reset(); applyFilters(); };
  };
  const clearClaims = claimFilters();

  // Search of the records.
  const recordSearch = () => {
    const field = byId("r-text");
    if (!field) return () => {};
    const cards = all("#record-cards > details");
    const texts = cards.map((card) => card.textContent.toLowerCase());
    const apply = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      cards.forEach((card, at) => {
        card.hidden = !words.every((word) => texts[at].includes(word));
        shown += !card.hidden;
      });
      byId("r-count").value = shown === cards.length ? `all ${shown}` : `${shown} of ${cards.length}`;
    };
    byId("record-filter").hidden = false;
    field.addEventListener("input", apply);
    apply();
    return () => { field.value = ""; apply(); };
  };
  const clearRecords = recordSearch();

  all("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));

  // Deep links open what they lead to, also where a filter hides it.
  const open = () => {
    let id = "";
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    const target = id && byId(id);
    const card = target && target.closest("details");
    if (!card) return;
    if (card.hidden) { clearClaims(); clearRecords(); }
    for (let each = card; each; each = each.parentElement.closest("details")) each.open = true;
    card.querySelector("summary").focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", open);
  open();

  // On paper everything is open.
  let opened = [];
  addEventListener("beforeprint", () => { all("details:not([open])").forEach((each) => { each.open = true; opened.push(each); }); });
  addEventListener("afterprint", () => { opened.forEach((each) => { each.open = false; }); opened = []; });

  // Commands can be copied.
  if (navigator.clipboard) {
    all(".command").forEach((box) => {
      const copy = document.createElement("button");
      copy.type = "button";
      copy.className = "quiet copy";
      copy.textContent = "Copy";
      copy.setAttribute("aria-label", `Copy: ${box.textContent}`);
      copy.addEventListener("click", async () => {
        await navigator.clipboard.writeText(box.querySelector("code").textContent);
        copy.textContent = "Copied";
        setTimeout(() => { copy.textContent = "Copy"; }, 1500);
      });
      box.append(copy);
    });
  }

  // A number that was touched says where it comes from.
  const origin = byId("origin");
  let timer = 0;
  document.addEventListener("click", (event) => {
    const number = event.target.closest("[data-source]");
    origin.hidden = !number;
    if (!number) return;
    const file = number.dataset.source.startsWith("#") ? number.closest("[data-file]").dataset.file : "";
    origin.value = `${number.textContent} from ${(file + number.dataset.source).replace("#", ", field ")}`;
    clearTimeout(timer);
    timer = setTimeout(() => { origin.hidden = true; }, 6000);
  });
})();
