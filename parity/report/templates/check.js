// One check: its tensors, its decisions, the commands.

/** One check: what did not pass, how to run just that, and all its tensors. */
function checkPanel(check, chosen) {
  const bad = check.decisions.filter((decision) => !decision.passes);
  const inside =
    check.locate || check.located
      ? [
          h("dt", {}, "Look inside the stage"),
          h(
            "dd",
            {},
            check.located ? h("pre", { class: "located" }, check.located) : null,
            check.locate ? command(check.locate) : null,
            check.located
              ? null
              : h(
                  "span",
                  { class: "quiet small" },
                  "names the first module that differs, live in both engines; with --json FILE in this folder, the page shows it",
                ),
          ),
        ]
      : [];
  return h(
    "section",
    {
      class: `panel-check ${check.passes ? "good" : "bad"}`,
      id: "check",
      tabindex: "-1",
      "aria-label": `Check ${check.stage}`,
    },
    h(
      "div",
      { class: "between" },
      h(
        "h3",
        {},
        verdict(check.passes, check.verdict),
        " ",
        h("span", { class: "id" }, check.stage),
        h("span", { class: "quiet" }, ` ${wayOf(check)}, record ${check.record} of ${check.case}`),
      ),
      h("a", { class: "close", href: "#start" }, "Close", h("span", { class: "quiet" }, " Esc")),
    ),
    check.why ? h("p", {}, check.why) : null,
    h("dl", { class: "facts" }, h("dt", {}, "Run just this"), h("dd", {}, command(check.rerun)), inside),
    check.notes.length
      ? h(
          "ul",
          { class: "notes" },
          check.notes.map((note) => h("li", {}, note)),
        )
      : null,
    bad.length
      ? [
          h("h5", {}, "Decisions that noise does not explain"),
          h(
            "ul",
            { class: "notes" },
            bad.map((decision) =>
              h(
                "li",
                {},
                h("span", { class: "id" }, decision.name),
                ": ",
                verdict(false, decision.word),
                `, ${decision.uncertified} of ${plural(decision.flips, "flip")} uncertified${decision.note ? `; ${decision.note}` : ""}`,
              ),
            ),
          ),
        ]
      : null,
    chosen === null || !check.tensors[chosen] ? null : tensorPanel(check, tensorOf(check.tensors[chosen])),
    tensorTable(check, chosen),
  );
}

const FEW = 50;

function tensorTable(check, chosen, limit = FEW) {
  if (!check.tensors.length) return h("p", {}, "No tensor of this stage was compared, and that is a failure.");
  const heads = [
    "Tensor",
    "Verdict",
    "Shape",
    "Worst at",
    "#Greatest error",
    "#Allowed",
    "#Budget needed",
    "#Of budget",
    "#Over budget",
  ];
  const rows = check.tensors
    .slice(0, Math.max(limit, (chosen ?? 0) + 1))
    .map((row, at) => tensorRow(check, tensorOf(row), at, at === chosen));
  const block = table(heads, rows, { class: "tensors" });
  const left = check.tensors.length - rows.length;
  if (left > 0)
    block.append(
      h(
        "button",
        { type: "button", onclick: () => block.replaceWith(tensorTable(check, chosen, Infinity)) },
        `Show ${plural(left, "more tensor")}`,
      ),
    );
  return block;
}

function tensorRow(check, tensor, at, current) {
  const n = (text) => h("td", { class: "n" }, text),
    compared = tensor.max !== null;
  return h(
    "tr",
    { class: tensor.passes ? null : "failed", "aria-current": current ? "true" : null },
    h(
      "td",
      {},
      h("a", { class: "id", href: linkOf(check, at) }, tensor.name),
      tensor.kind ? h("span", { class: "under" }, tensor.kind) : null,
    ),
    h(
      "td",
      {},
      verdict(tensor.passes, tensor.word),
      tensor.note ? h("span", { class: "under note" }, tensor.note) : null,
    ),
    h("td", {}, tensor.shape.join(" \u00d7 ") || DASH, h("span", { class: "under" }, tensor.unit)),
    h("td", {}, tensor.at),
    n(number(tensor.max)),
    n(number(tensor.allowed)),
    n(number(tensor.needed)),
    n(compared && tensor.budget ? shareOf(tensor.used) : DASH),
    n(compared ? `${whole(tensor.over)} of ${whole(tensor.count)}` : "not compared"),
  );
}
