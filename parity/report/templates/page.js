// What the reader chose, and the page that follows from it. The address names it, so that it can be sent on.

const checks = RUN.checks,
  failing = checks.filter((check) => !check.passes);
const stages = [...new Set(checks.map((check) => check.stage))];
const start = failing[0] || checks.find((check) => check.kind === "inference") || checks[0];
const state = { case: start?.case, record: start?.record, check: failing[0]?.number ?? null, tensor: null, limit: 60 };

function fill(select, values, chosen, word = (value) => value) {
  select.replaceChildren(
    ...values.map((value) => {
      const option = h("option", { value }, word(value));
      option.selected = value === chosen;
      return option;
    }),
  );
}
const ofCase = () => checks.filter((check) => check.case === state.case);

function showCase() {
  const own = ofCase(),
    records = [...new Set(own.map((check) => check.record))];
  if (!records.includes(state.record)) state.record = (own.find((check) => !check.passes) || own[0]).record;
  const failed = new Set(own.filter((check) => !check.passes).map((check) => check.record));
  fill(byId("case"), [...new Set(checks.map((check) => check.case))], state.case);
  fill(byId("record"), records, state.record, (record) => (failed.has(record) ? `${NO} ${record}` : record));
  byId("training").replaceChildren(...training(own));
  document.querySelectorAll(".of-case").forEach((element) => {
    element.textContent = state.case;
  });
  showRecord();
  showList();
}

function showRecord() {
  const own = ofCase().filter((check) => check.record === state.record);
  byId("record").value = state.record;
  byId("chain").replaceChildren(...chain(own, stages));
  byId("ties").replaceChildren(...ties(ofCase(), state.record).filter(Boolean));
}

function showCheck(focus) {
  const check = checks[state.check];
  byId("panel").replaceChildren(...(check ? [checkPanel(check, state.tensor)] : []));
  if (!focus) return;
  const target = check ? byId(state.tensor === null ? "check" : "tensor") : byId("start");
  target?.focus({ preventScroll: true });
  target?.scrollIntoView({ block: "start" });
}

/** Whether a check has the text in its stage, record or way; or the number of its tensors that have it. */
function hits(check, text) {
  if (!text || `${check.stage} ${check.record} ${wayOf(check)} ${check.verdict}`.toLowerCase().includes(text))
    return check.tensors.length || true;
  return check.tensors.filter((row) => row[FIELDS.name].toLowerCase().includes(text)).length;
}

function showList() {
  const text = byId("text").value.trim().toLowerCase(),
    wanted = byId("verdict").value;
  const rows = ofCase()
    .filter((check) => wanted === "all" || check.passes === (wanted === "passed"))
    .map((check) => [check, hits(check, text)])
    .filter(([, count]) => count);
  byId("count").textContent = `${plural(rows.length, "check")} of ${whole(ofCase().length)}`;
  const heads = ["Stage", "Run", "Record", "Verdict", "#Error", "#Of budget", "Used most", "#Seconds"];
  const cells = rows.slice(0, state.limit).map(([check]) => {
    const found = text ? check.tensors.findIndex((row) => row[FIELDS.name].toLowerCase().includes(text)) : -1;
    return h(
      "tr",
      { class: check.passes ? null : "failed" },
      h("td", {}, h("a", { class: "id", href: linkOf(check, found < 0 ? undefined : found) }, check.stage)),
      h("td", {}, wayOf(check)),
      h("td", {}, check.record),
      h("td", {}, verdict(check.passes, check.verdict)),
      h("td", { class: "n" }, errorText(check)),
      h("td", { class: "n" }, check.share || (check.passes ? "exact" : DASH)),
      h("td", { class: "id" }, found < 0 ? check.worst || DASH : check.tensors[found][FIELDS.name]),
      h("td", { class: "n" }, number(check.seconds, 2)),
    );
  });
  const more =
    rows.length > state.limit
      ? h(
          "button",
          {
            type: "button",
            onclick: () => {
              state.limit = Infinity;
              showList();
            },
          },
          `Show ${plural(rows.length - state.limit, "more check")}`,
        )
      : null;
  byId("list").replaceChildren(
    ...[
      rows.length ? table(heads, cells) : h("p", { class: "quiet" }, "No check is left by these filters."),
      more,
    ].filter(Boolean),
  );
}

/** Follow the address: #check-3 and #check-3-tensor-0; any other is a place on the page. */
function follow(focus) {
  const [, number_, tensor] = /^#check-(\d+)(?:-tensor-(\d+))?$/.exec(location.hash) || [];
  if (number_ === undefined || !checks[number_]) {
    if (focus && location.hash === "#start") {
      state.check = null;
      showCheck(true);
    }
    return;
  }
  const check = checks[number_];
  Object.assign(state, { check: check.number, tensor: tensor === undefined ? null : Number(tensor) });
  if (check.case !== state.case) (Object.assign(state, { case: check.case, record: check.record }), showCase());
  else if (check.record !== state.record) {
    state.record = check.record;
    showRecord();
  }
  showCheck(focus);
}

/** Arrow keys go from cell to cell and from row to row; Escape goes back to where one came from. */
function keys(event) {
  if (event.target.matches?.("input, select, textarea")) return;
  if (event.key === "Escape" && byId("check")) {
    location.hash = state.tensor !== null ? linkOf(checks[state.check]) : "#start";
    return;
  }
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const cell = event.target.closest?.("td, th"),
    lines = cell && [...cell.closest("table").rows].filter((row) => row.offsetParent !== null);
  if (!step || !cell) return;
  let row = lines.indexOf(cell.parentElement),
    column = cell.cellIndex;
  for (;;) {
    row += step[0];
    column += step[1];
    const next = lines[row]?.cells[column];
    if (!next) return;
    const link = next.querySelector("a, button");
    if (link) {
      event.preventDefault();
      link.focus();
      return;
    }
  }
}

function begin() {
  document.addEventListener("keydown", keys);
  document
    .querySelectorAll("[data-copy]")
    .forEach((button) =>
      button.addEventListener("click", () =>
        copy(button.dataset.text || textOfTable(byId(button.dataset.copy)), button),
      ),
    );
  document.querySelectorAll("button[aria-controls]").forEach((button) =>
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") !== "true";
      button.setAttribute("aria-expanded", open);
      byId(button.getAttribute("aria-controls")).hidden = !open;
    }),
  );
  if (!checks.length) return;
  byId("case").addEventListener("change", (event) => {
    state.case = event.target.value;
    state.limit = 60;
    showCase();
  });
  byId("record").addEventListener("change", (event) => {
    state.record = event.target.value;
    showRecord();
  });
  byId("verdict").addEventListener("change", showList);
  byId("text").addEventListener("input", showList);
  addEventListener("hashchange", () => follow(true));
  showCase();
  showCheck(false);
  follow(Boolean(location.hash));
}
begin();
