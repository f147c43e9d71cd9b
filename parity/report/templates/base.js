// What everything on the page uses: the run's data, elements, figures as text, copying.

const FIELDS = {};
const RUN = JSON.parse(document.getElementById("run").textContent);
RUN.fields.forEach((name, at) => {
  FIELDS[name] = at;
});
const NOT_FINITE = { inf: Infinity, "-inf": -Infinity, nan: NaN };
const real = (value) => (typeof value === "string" ? NOT_FINITE[value] : value);
const byId = (id) => document.getElementById(id);
const TIMES = "\u00d7",
  DASH = "\u2013",
  YES = "\u2713",
  NO = "\u2715";

/** A tensor's row as an object; rows are lists, so that thousands of them stay small. */
function tensorOf(row) {
  const found = {};
  for (const name in FIELDS) found[name] = row[FIELDS[name]];
  for (const name of ["max", "allowed", "rms", "allowedRms", "relative", "needed", "budget", "used"])
    found[name] = real(found[name]);
  return found;
}

/** An element with attributes and children. Text is set as text: nothing of the data is ever read as HTML. */
function h(tag, attributes, ...children) {
  const element =
    tag === "svg" || h.svg.has(tag)
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}
h.svg = new Set(["image", "rect", "text", "g"]);

/** A figure for people, as Python's report.figures.number writes it. */
function number(value, digits = 3) {
  if (value === null || value === undefined) return DASH;
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "\u221e" : "-\u221e";
  const size = Math.abs(value);
  if (size === 0 || (size >= 1e-3 && size < 10 ** digits)) return String(Number(value.toPrecision(digits)));
  if (size >= 1e-3 && size < 1e6) return Math.round(value).toLocaleString("en-US");
  return value.toExponential(digits - 1).replace("e+", "e");
}
const whole = (value) => value.toLocaleString("en-US");
const plural = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

function verdict(passes, word) {
  return h(
    "span",
    { class: `verdict ${passes ? "good" : "bad"}` },
    h("span", { "aria-hidden": "true" }, passes ? YES : NO),
    ` ${word}`,
  );
}

/** How much of the budget was used, as Python's report.checks.share says it. */
function shareOf(used) {
  if (used === null || !Number.isFinite(used)) return DASH;
  if (used === 0) return "exact";
  return used > 1 ? number(used, 2) + TIMES : used < 0.01 ? "<1 %" : `${Math.round(100 * used)} %`;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "offscreen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const says = button.textContent;
  button.textContent = "Copied";
  byId("said").textContent = "Copied";
  setTimeout(() => {
    button.textContent = says;
    byId("said").textContent = "";
  }, 1500);
}

/** A button that copies what `text` gives when it is pressed. */
function copyButton(text, label = "Copy as text") {
  return h("button", { type: "button", class: "copy", onclick: (event) => copy(text(), event.currentTarget) }, label);
}

const command = (text) =>
  h(
    "div",
    { class: "run" },
    h("code", { class: "command" }, text),
    copyButton(() => text, "Copy command"),
  );

/** Rows of cells as text: tab-separated, so that a spreadsheet takes it. */
const asText = (rows) => rows.map((row) => row.map((cell) => String(cell ?? "")).join("\t")).join("\n") + "\n";
const textOfTable = (table) =>
  asText([...table.rows].map((row) => [...row.cells].map((cell) => cell.innerText.replace(/\s+/g, " ").trim())));

/** A table with a button that copies it. `heads` are texts; those that begin with "#" stand to the right. */
function table(heads, rows, attributes = {}) {
  const right = heads.map((head) => head.startsWith("#"));
  const cell = (value, at) => h("td", { class: right[at] ? "n" : null }, value);
  const element = h(
    "table",
    attributes,
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        heads.map((head, at) => h("th", { scope: "col", class: right[at] ? "n" : null }, head.replace("#", ""))),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map((row) => (row instanceof Element ? row : h("tr", {}, row.map(cell)))),
    ),
  );
  return h(
    "div",
    { class: "block" },
    h("div", { class: "scroll", tabindex: "0" }, element),
    copyButton(() => textOfTable(element)),
  );
}
