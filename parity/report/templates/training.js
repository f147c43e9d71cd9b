// Training: loss terms, gradients by parameter, groups and schedules, and the trajectory.

function training(checks) {
  const loss = checks.filter((check) => check.stage === "loss" && check.kind === "training");
  const parts = [
    lossTerms(loss),
    ...["gradients", "optimizer_step"].map((stage) =>
      parameters(
        checks.filter((check) => check.stage === stage && check.kind === "training"),
        stage,
      ),
    ),
    recipe(checks.filter((check) => check.kind === "recipe")),
    trajectory(checks.filter((check) => check.kind === "trajectory")),
  ].filter(Boolean);
  return parts.length
    ? parts
    : [
        h(
          "p",
          { class: "quiet" },
          "No training check is among these results: records train-\u2026, trajectory and recipe hold them.",
        ),
      ];
}

const worstFirst = (checks) => [...checks].sort((a, b) => a.passes - b.passes || real(b.used) - real(a.used));
const SYMBOLS = ["circle", "square-open"],
  CROSSES = ["x", "x-open"]; // float64, float32

/** Terms of the loss: the greatest share of its budget that each used, over all records. */
function lossTerms(checks) {
  if (!checks.length) return null;
  const found = new Map();
  for (const check of worstFirst(checks))
    for (const [at, row] of check.tensors.entries()) {
      const tensor = tensorOf(row),
        key = `${tensor.name}\t${FLOATS[check.dtype] || check.dtype}`;
      if (!found.has(key) || found.get(key)[1].used < tensor.used) found.set(key, [check, tensor, at]);
    }
  const all = [...found].map(([key, [check, tensor, at]]) => ({ float: key.split("\t")[1], check, tensor, at }));
  const floats = [...new Set(all.map((each) => each.float))].sort().reverse();
  const rows = all
    .sort((a, b) => a.tensor.passes - b.tensor.passes || a.tensor.name.localeCompare(b.tensor.name))
    .map(({ float, check, tensor, at }) => [
      h("a", { class: "id", href: linkOf(check, at) }, tensor.name),
      float,
      verdict(tensor.passes, tensor.word),
      tensor.actual || DASH,
      tensor.expected || DASH,
      number(tensor.max),
      shareOf(tensor.used),
      check.record,
    ]);
  const terms = [...new Set(all.map((each) => plain(each.tensor.name)))];
  const draw = () => ({
    traces: floats.map((float) => {
      const own = all.filter(
        (each) => each.float === float && each.tensor.used > 0 && Number.isFinite(each.tensor.used),
      );
      return {
        type: "scatter",
        mode: "markers",
        name: float,
        y: own.map((each) => plain(each.tensor.name)),
        x: own.map((each) => each.tensor.used),
        customdata: own.map((each) => linkOf(each.check, each.at)),
        marker: {
          size: 9,
          symbol: own.map((each) => (each.tensor.passes ? SYMBOLS : CROSSES)[Number(float !== "float64")]),
          color: own.map((each) => colour(each.tensor.passes ? "good" : "bad")),
        },
      };
    }),
    layout: limitAt(
      { yaxis: { type: "category", categoryarray: terms, categoryorder: "array", autorange: "reversed" } },
      "x",
    ),
  });
  const block = table(
    ["Term", "Run", "Verdict", "#New engine", "#Legacy engine", "#Error", "#Of budget", "Worst record"],
    rows,
  );
  return h(
    "div",
    {},
    h("h3", {}, "Loss terms"),
    figure(
      "Share of its budget that each term used, 1 being all of it",
      draw,
      () => [
        ["term", "run", "of budget"],
        ...all.map((each) => [each.tensor.name, each.float, shareOf(each.tensor.used)]),
      ],
      {
        height: 100 + 18 * terms.length,
        pick: (target) => {
          location.hash = target;
        },
      },
    ),
    all.length > 12 ? later(plural(all.length, "value"), () => block) : block,
  );
}

const limitAt = (layout, way) => ({
  ...layout,
  [`${way}axis`]: { ...powers, title: { text: "of the budget" } },
  legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
  margin: { l: 8, r: 12, t: 40, b: 40 },
  shapes: [
    {
      type: "line",
      [`${way}0`]: 1,
      [`${way}1`]: 1,
      [`${way === "x" ? "y" : "x"}ref`]: "paper",
      [`${way === "x" ? "y" : "x"}0`]: 0,
      [`${way === "x" ? "y" : "x"}1`]: 1,
      line: { color: colour("mark"), width: 2 },
    },
  ],
});

const TITLES = { gradients: "Gradients by parameter", optimizer_step: "Parameters after the optimiser's step" };

function parameters(checks, stage) {
  const tables = worstFirst(checks).flatMap((check) =>
    check.tensors
      .map(tensorOf)
      .filter((tensor) => tensor.rows?.length)
      .map((tensor) => ({ check, tensor })),
  );
  if (!tables.length) return null;
  const kept = new Map(); // the worst record of each float
  for (const each of tables) {
    const key = `${each.tensor.name} ${each.check.dtype}`;
    if (!kept.has(key)) kept.set(key, each);
  }
  const title = (each) =>
    `${each.tensor.name}, ${FLOATS[each.check.dtype] || each.check.dtype}, ${each.check.record}: ${plural(each.tensor.rows.length, "parameter")}`;
  const exact = [...kept.values()].filter((each) => each.tensor.rows.every((row) => real(row[1]) === 0));
  const draw = (each) => () => {
    const share = (row) => real(row[1]) / each.tensor.budget,
      rows = [...each.tensor.rows].sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true }));
    const some = rows.filter((row) => share(row) > 0 && Number.isFinite(share(row)));
    return {
      traces: [
        {
          type: "scatter",
          mode: "markers",
          x: some.map((row) => rows.indexOf(row)),
          y: some.map(share),
          text: some.map((row) => plain(row[0])),
          hovertemplate: "%{text}<br>%{y:.2g} of its budget<extra></extra>",
          marker: {
            size: 6,
            color: some.map((row) => colour(share(row) > 1 ? "bad" : "good")),
            symbol: some.map((row) => (share(row) > 1 ? "x" : "circle")),
          },
        },
      ],
      layout: {
        ...limitAt({ xaxis: { title: { text: "parameters, by name" }, showgrid: false } }, "y"),
        showlegend: false,
      },
    };
  };
  const figures = [...kept.values()]
    .filter((each) => !exact.includes(each))
    .map((each) =>
      figure(title(each), draw(each), () => [
        ["parameter", "of budget"],
        ...each.tensor.rows.map((row) => [row[0], shareOf(real(row[1]) / each.tensor.budget)]),
      ]),
    );
  return h(
    "div",
    {},
    h("h3", {}, TITLES[stage]),
    exact.map((each) => h("p", {}, verdict(true, "exact"), ` ${title(each)}`)),
    h("div", { class: "charts" }, figures),
  );
}

function recipe(checks) {
  if (!checks.length) return null;
  const rows = checks.map((check) => [
    h("a", { class: "id", href: linkOf(check) }, check.stage),
    verdict(check.passes, check.verdict),
    check.share || "exact",
    String(check.tensors.length),
    check.worst || DASH,
  ]);
  return h(
    "div",
    {},
    h("h3", {}, "Groups, schedule, initialisation and training data"),
    table(["What", "Verdict", "#Of budget", "#Compared", "Used most"], rows),
    checks.some((check) => check.notes.length)
      ? h(
          "ul",
          { class: "notes" },
          checks.flatMap((check) =>
            check.notes.map((note) => h("li", {}, h("b", { class: "id" }, check.stage), ` ${note}`)),
          ),
        )
      : null,
  );
}

/** By step and stage, the greatest share of its budget that a tensor used. */
function trajectory(checks) {
  const check = worstFirst(checks)[0];
  if (!check) return null;
  const found = new Map(),
    steps = new Set();
  for (const row of check.tensors) {
    const tensor = tensorOf(row),
      parts = /^step\[(\d+)\]\.(\w+)/.exec(tensor.name);
    if (!parts) continue;
    steps.add(Number(parts[1]));
    if (!found.has(parts[2])) found.set(parts[2], new Map());
    const stage = found.get(parts[2]);
    stage.set(Number(parts[1]), Math.max(stage.get(Number(parts[1])) || 0, tensor.used));
  }
  const order = [...steps].sort((a, b) => a - b);
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash"],
    shades = ["good", "bad", "mark", "quiet"];
  const draw = () => ({
    traces: [...found].map(([stage, values], at) => ({
      type: "scatter",
      mode: "lines+markers",
      name: plain(stage),
      x: order,
      y: order.map((step) => (values.get(step) > 0 && Number.isFinite(values.get(step)) ? values.get(step) : null)),
      line: { color: colour(shades[at % 4]), dash: dashes[at % 5], width: 1.5 },
      marker: { symbol: at, size: 7 },
    })),
    layout: {
      ...limitAt({ xaxis: { title: { text: "step" }, dtick: 1 } }, "y"),
      margin: { l: 8, r: 12, t: 66, b: 40 },
    },
  });
  const rows = () => [
    ["stage", ...order.map((step) => `step ${step}`)],
    ...[...found].map(([stage, values]) => [stage, ...order.map((step) => shareOf(values.get(step) ?? null))]),
  ];
  return h(
    "div",
    {},
    h("h3", {}, "Trajectory"),
    h(
      "p",
      {},
      verdict(check.passes, check.verdict),
      ` over ${plural(order.length, "step")}; `,
      h("a", { href: linkOf(check) }, "its tensors"),
    ),
    figure("Share of its budget that each stage used, by step", draw, rows, { height: 340 }),
  );
}
