// The chain of stages of one record: error against noise floor and budget, isolated beside cascade.

const FLOATS = { fp64: "float64", fp32: "float32" };
const devices = new Set(RUN.checks.map((check) => check.device));

/** In which way a check was made, as Python's report.run_matrix.way_name says it. */
function wayOf(check) {
  const way = `${FLOATS[check.dtype] || check.dtype} ${check.kind === "inference" ? check.mode : check.kind}`;
  return devices.size > 1 ? `${way}, ${check.device}` : way;
}

const linkOf = (check, tensor) => `#check-${check.number}${tensor === undefined ? "" : `-tensor-${tensor}`}`;
const errorText = (check) =>
  check.error === null ? DASH : real(check.error) === 0 ? "exact" : number(real(check.error), 2);

/** Figures of a record's stages, one a dtype and device. */
function chain(checks, stages) {
  const groups = new Map();
  for (const check of checks) {
    const key = `${FLOATS[check.dtype] || check.dtype} on ${check.device}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(check);
  }
  return [...groups].map(([name, found]) =>
    chainFigure(
      name,
      found,
      stages.filter((stage) => found.some((check) => check.stage === stage)),
    ),
  );
}

function chainFigure(name, checks, stages) {
  const view = { checks, stages, ...span(checks) };
  const draw = () => ({
    traces: [
      mark(view, "floor", "noise floor", "diamond-open", 8),
      mark(view, "budget", "budget", "line-ns", 12),
      ...Object.keys(LANES).flatMap((mode) => [lane(view, mode, true), lane(view, mode, false)]),
    ].filter((trace) => trace.x.length),
    layout: chainLayout(view),
  });
  const heads = ["stage", "run", "verdict", "worst tensor", "error", "noise floor", "budget", "of budget used"];
  const row = (check) => [
    ...[check.stage, wayOf(check), check.verdict, check.worst, errorText(check)],
    ...[number(real(check.floor)), number(real(check.budget)), check.share],
  ];
  const pick = (target) => (location.hash = target);
  return figure(name, draw, () => [heads, ...checks.map(row)], { height: 110 + 40 * stages.length, pick });
}

/** The ends of the axis. Errors far below every noise floor do not stretch it. */
function span(checks) {
  const positive = (key) => checks.map((check) => real(check[key])).filter((value) => value > 0 && value < Infinity);
  const floors = positive("floor"),
    shown = [...positive("error"), ...floors, ...positive("budget")];
  if (!shown.length) return { low: 1e-17, high: 1 };
  const least = floors.length ? Math.min(...floors) / 1e3 : 0;
  return { low: Math.max(Math.min(...shown), least) / 3, high: 3 * Math.max(...shown) };
}

// Mode -> how far beside the stage's line it is drawn, and its symbols: passed, and not.
const LANES = { isolated: [-0.17, "circle", "x"], cascade: [0.17, "square-open", "x-open"] };
const xOf = (view, value) => Math.min(Math.max(real(value), view.low), view.high);
const yOf = (view, check) => view.stages.indexOf(check.stage) + (LANES[check.mode] || LANES.isolated)[0];

function lane(view, mode, passes) {
  const own = view.checks.filter((check) => check.mode === mode && check.passes === passes && check.error !== null);
  const tone = colour(passes ? "good" : "bad");
  return {
    ...{ type: "scatter", mode: "markers", name: passes ? mode : `${mode}, did not pass` },
    x: own.map((check) => xOf(view, check.error)),
    y: own.map((check) => yOf(view, check)),
    customdata: own.map((check) => linkOf(check)),
    text: own.map(told),
    ...{ hovertemplate: "%{text}<extra></extra>", cliponaxis: false },
    marker: {
      ...{ symbol: LANES[mode][passes ? 1 : 2], size: passes ? 9 : 11, color: tone },
      line: { width: 1.5, color: tone },
    },
  };
}

/** What is told of a check where the pointer rests on it. */
function told(check) {
  const figures = `error ${errorText(check)}, noise floor ${number(real(check.floor))}`;
  const lines = [
    ...[`${check.stage}, ${check.mode}: ${check.verdict}`, check.worst],
    ...[`${figures}, budget ${number(real(check.budget))}`, `${check.share || "none"} of the budget used`],
  ];
  return lines.map(plain).join("<br>");
}

function mark(view, key, name, symbol, size) {
  const some = view.checks.filter((check) => real(check[key]) > 0);
  return {
    ...{ type: "scatter", mode: "markers", name, hoverinfo: "skip" },
    x: some.map((check) => xOf(view, check[key])),
    y: some.map((check) => yOf(view, check)),
    marker: { symbol, size, color: colour("mark"), line: { width: 1.5, color: colour("mark") } },
  };
}

function chainLayout(view) {
  const { stages, low, high } = view;
  const between = (_, place) => ({
    ...{ type: "line", xref: "paper", x0: 0, x1: 1, y0: place + 0.5, y1: place + 0.5 },
    line: { color: colour("line"), width: 1 },
  });
  const ticks = { tickvals: stages.map((_, place) => place), ticktext: stages.map(plain), ticksuffix: "\u2002" };
  const range = [Math.log10(low), Math.log10(high)];
  return {
    xaxis: { ...powers, title: { text: "RMS error over RMS of the truth" }, range },
    yaxis: { ...ticks, range: [stages.length - 0.4, -0.6], showgrid: false },
    legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
    margin: { l: 8, r: 12, t: 46, b: 40 },
    shapes: stages.slice(1).map(between),
    annotations: firstToDiverge(view, range),
  };
}

function firstToDiverge(view, range) {
  const first = view.checks.find((check) => !check.passes);
  if (!first || first.error === null) return [];
  const x = Math.log10(xOf(view, first.error));
  return [
    {
      ...{ x, y: yOf(view, first), text: "<b>first to diverge</b>", font: { color: colour("bad") } },
      ...{ showarrow: true, arrowcolor: colour("bad"), arrowhead: 2, bgcolor: colour("page") },
      ...{ ax: x > (range[0] + range[1]) / 2 ? -70 : 70, ay: 0 },
    },
  ];
}
