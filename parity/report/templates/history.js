// The plots of the history: what was written into the page, drawn by Plotly; names are only ever set as text.

const DATA = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const PASSES = "ewc", NOT_RUN = ".", ALL = "all";
const WORDS = { e: "equal", w: "within budget", c: "certified", i: "inconclusive", d: "diverged", n: "not finite", t: "wrong dtype", s: "wrong shape", x: "extra", m: "missing" };
const RUN_FIGURES = { seconds: "time of all checks, s", flips: "flips of decisions", ap: "AP on COCO, and detections that match, %", passed: "checks that passed", ran: "checks that were run" };
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#7a6ad8"]; // Okabe and Ito's, and one more
const LEAST = 1e-3; // the smallest share of a budget that is drawn: below it all is as good

/** Plotly reads a little HTML in its texts: nothing of a name may be it. */
const safe = text => String(text).replace(/[&<>]/g, sign => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[sign]);
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const unique = names => [...new Set(names)];
const measured = DATA.runs.some(run => Object.keys(run.ap).length);
if (!measured) delete RUN_FIGURES.ap;
const share = value => (value === null || value === undefined ? "" : value < 0.01 && value > 0 ? "<1 %" : `${Math.round(100 * value)} %`);

function offer(select, values, words = values) {
  const before = select.value;
  select.replaceChildren(...values.map((value, i) => new Option(words[i], value)));
  if (values.includes(before)) select.value = before;
}

/** The runs that are looked at, and for each check that some of them ran its place in their lists. */
function chosen() {
  const last = Number(at("span").value);
  const runs = DATA.runs.filter(run => run.device === at("device").value);
  return last ? runs.slice(-last) : runs;
}

const ran = (runs, i) => runs.some(run => (run.verdicts[i] || NOT_RUN) !== NOT_RUN);
const checksOf = (runs, name, stage) =>
  DATA.checks.map((key, i) => ({ key, i })).filter(({ key, i }) => (name === ALL || key[0] === name) && (stage === ALL || key[2] === stage) && ran(runs, i));

/** What several checks come to in one run: the worst of them. */
function worst(run, checks) {
  let used = null, bad = 0, count = 0;
  for (const { i } of checks) {
    const letter = run.verdicts[i] || NOT_RUN;
    if (letter === NOT_RUN) continue;
    count += 1;
    if (!PASSES.includes(letter)) bad += 1;
    if (run.used[i] !== null && (used === null || run.used[i] > used)) used = run.used[i];
  }
  return { used, bad, count };
}

function frame(runs, more) {
  const step = Math.max(1, Math.ceil(runs.length / Math.max(2, Math.floor((at("map").clientWidth - 150) / 95))));
  const ticks = runs.map((_, i) => i).filter(i => i % step === 0);
  const axis = { gridcolor: colour("--grid"), linecolor: colour("--line"), zeroline: false, automargin: true };
  const wide = at("map").clientWidth > 560;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--text"), family: colour("--sans"), size: wide ? 12 : 11 },
    margin: { l: 10, r: 10, t: 10, b: 40 }, hovermode: "closest", dragmode: wide ? "zoom" : false, ...more,
    xaxis: { ...axis, tickvals: ticks, ticktext: ticks.map(i => safe(runs[i].when.slice(0, 10))), range: [-0.5, runs.length - 0.5], showgrid: false, tickangle: 0 },
    yaxis: { ...axis, ...more.yaxis },
    shapes: [...runs.flatMap((run, i) => (run.marked ? [mark(i)] : [])), ...(more.shapes || [])],
  };
}

const mark = i => ({ type: "line", x0: i - 0.5, x1: i - 0.5, y0: 0, y1: 1, yref: "paper", layer: "above", line: { color: colour("--mark"), width: 1, dash: "dot" } });
const told = run => [run.name, run.when, run.commit && `commit ${run.commit}`, ...run.changes.slice(0, 6)].filter(Boolean).map(safe).join("<br>");

/** Small marks below a plot: where the commit, or anything else, changed. */
function changes(runs) {
  const there = runs.map((run, i) => ({ run, i })).filter(({ run }) => run.changes.length);
  return {
    type: "scatter", mode: "markers", yaxis: "y2", cliponaxis: false, showlegend: false, hoverinfo: "text", x: there.map(({ i }) => i), y: there.map(() => 0),
    text: there.map(({ run }) => told(run)),
    marker: { symbol: "line-ns-open", size: 7, color: there.map(({ run }) => colour(run.marked ? "--mark" : "--quiet")) },
  };
}
const below = { overlaying: "y", range: [0, 1], visible: false, fixedrange: true };

function rowsOf(runs) {
  const name = at("case").value;
  const checks = checksOf(runs, name, ALL);
  const part = name === ALL ? 0 : 2;
  return unique(checks.map(({ key }) => key[part])).map(row => ({ row, checks: checks.filter(({ key }) => key[part] === row) }));
}

function drawMap(runs) {
  const rows = rowsOf(runs).reverse();
  const cells = rows.map(({ checks }) => runs.map(run => worst(run, checks)));
  const good = cells.map(row => row.map(cell => (cell.count && !cell.bad ? (cell.used === null ? 1 : Math.min(1, cell.used)) : null)));
  const failed = cells.map(row => row.map(cell => (cell.bad ? 1 : null)));
  const text = cells.map((row, y) => row.map((cell, x) =>
    `${safe(rows[y].row)}<br>${told(runs[x])}<br>${cell.count ? `${cell.count - cell.bad} of ${cell.count} passed, ${cell.used === null ? "no figure" : `at most ${share(cell.used)} of the budget`}` : "not run"}`));
  const width = at("map").clientWidth / runs.length;
  const bad = width < 6 ? [] : cells.flatMap((row, y) => row.flatMap((cell, x) => (cell.bad ? [[x, y]] : []))); // no room for a cross
  const labels = rows.map(({ row }) => safe(row));
  const heat = (z, from, to) => ({
    type: "heatmap", z, x: runs.map((_, i) => i), y: labels.map((_, i) => i), text, hoverinfo: "text", hoverongaps: false, zmin: 0, zmax: 1,
    xgap: width < 6 ? 0 : 1, ygap: 2, colorscale: [[0, from], [1, to]], showscale: false,
  });
  const crosses = {
    type: "scatter", mode: "markers", x: bad.map(([x]) => x), y: bad.map(([, y]) => y), hoverinfo: "skip", showlegend: false,
    marker: { symbol: "x-thin", size: Math.min(10, width), line: { color: colour("--page"), width: 2 } },
  };
  const layout = frame(runs, { height: 70 + 26 * rows.length, yaxis: { tickvals: labels.map((_, i) => i), ticktext: labels, range: [-0.9, rows.length - 0.5], fixedrange: true, showgrid: false }, yaxis2: below });
  Plotly.react("map", [heat(good, colour("--good-soft"), colour("--good")), heat(failed, colour("--bad"), colour("--bad")), crosses, changes(runs)], layout, { responsive: true, displaylogo: false, displayModeBar: false });
}

/** AP, and what matched, of the chosen case or of all: the figures that were measured in any of the runs. */
function apLines(runs) {
  const name = at("case").value;
  const keys = unique(runs.flatMap(run => Object.keys(run.ap))).filter(key => (name === ALL ? / (AP|matched)( |$)/.test(key) : key.startsWith(`${name} `)));
  return keys.map(key => ({
    name: key, values: runs.map(run => run.ap[key] ?? null), bad: runs.map(() => false), words: runs.map(run => (key in run.ap ? `${run.ap[key]} %` : "not measured")),
  }));
}

/** One line a check of the chosen case and stage; or one of a figure of the whole run. */
function linesOf(runs) {
  const figure = at("figure").value;
  if (figure === "ap") return apLines(runs);
  if (RUN_FIGURES[figure]) return [{ name: RUN_FIGURES[figure], values: runs.map(run => run[figure]), bad: runs.map(run => !run.passes), words: runs.map(run => (run.passes ? "same" : "not the same")) }];
  const checks = checksOf(runs, at("case").value, at("stage").value);
  const several = unique(checks.map(({ key }) => key[0])).length > 1;
  return checks.map(({ key, i }) => ({
    name: [...(several ? [key[0]] : []), key[1], ...(at("stage").value === ALL ? [key[2]] : []), key[3], key[4]].join(" "),
    values: runs.map(run => ((run.verdicts[i] || NOT_RUN) === NOT_RUN ? null : run.used[i])),
    bad: runs.map(run => !(PASSES + NOT_RUN).includes(run.verdicts[i] || NOT_RUN)),
    words: runs.map(run => WORDS[run.verdicts[i]] || "not run"),
  }));
}

function drawLines(runs) {
  const lines = linesOf(runs), ofRun = Boolean(RUN_FIGURES[at("figure").value]);
  const shown = ofRun || lines.length <= 16 ? lines : worstLines(lines);
  const top = Math.max(10, ...shown.flatMap(line => line.values.filter(value => value !== null)));
  const y = line => line.values.map((value, i) => (ofRun ? value : line.bad[i] && value === null ? top : value === null ? null : Math.max(value, LEAST)));
  const hover = (line, i) => `${safe(line.name)}<br>${ofRun ? line.values[i] : `${line.words[i]}, ${line.values[i] === null ? "no figure" : `${share(line.values[i])} of the budget`}`}<br>${told(runs[i])}`;
  const traces = shown.map((line, n) => ({ // lines without a mark at each point: thousands of those are slow
    type: "scatter", mode: runs.length < 3 ? "markers" : "lines", name: safe(line.name), x: runs.map((_, i) => i), y: y(line), text: runs.map((_, i) => hover(line, i)),
    hoverinfo: "text", connectgaps: false, line: { width: 1.5, color: COLOURS[n % COLOURS.length], dash: ["solid", "dash", "dot"][Math.floor(n / COLOURS.length) % 3] },
  }));
  const points = shown.flatMap(line => { const at = y(line); return line.bad.flatMap((bad, i) => (bad ? [{ x: i, y: at[i], text: hover(line, i) }] : [])); });
  traces.push({
    type: "scatter", mode: "markers", x: points.map(point => point.x), y: points.map(point => point.y), text: points.map(point => point.text), hoverinfo: "text", showlegend: false, cliponaxis: false,
    marker: { symbol: "x", size: 8, color: colour("--bad"), line: { color: colour("--page"), width: 1 } },
  });
  const limit = { type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: colour("--bad"), width: 1.5, dash: "dash" } };
  const scale = ofRun ? { rangemode: at("figure").value === "ap" ? "normal" : "tozero" } : { type: "log", title: { text: "share of the budget" }, tickvals: [0.001, 0.01, 0.1, 1, 10, 100, 1e4, 1e6], ticktext: ["≤0.1 %", "1 %", "10 %", "all", "10×", "100×", "1e4×", "1e6×"] };
  const layout = frame(runs, { height: 380, yaxis: scale, yaxis2: below, shapes: ofRun ? [] : [limit], showlegend: shown.length > 1, legend: { orientation: "h", y: -0.15, font: { size: 11 } } });
  Plotly.react("lines", [...traces, changes(runs)], layout, { responsive: true, displaylogo: false, displayModeBar: false });
  at("lines-title").textContent = ofRun ? RUN_FIGURES[at("figure").value] : `Greatest error of each check${shown.length < lines.length ? `: the ${shown.length} of ${lines.length} that used most; choose a case and a stage` : ""}`;
  at("text").value = [["run", "when", ...lines.map(line => line.name)], ...runs.map((run, i) => [run.name, run.when, ...lines.map(line => `${line.values[i] ?? ""}${line.bad[i] ? " ✕" : ""}`)])]
    .map(row => row.join("\t")).join("\n");
}

/** Where many lines are chosen: those that fail, then those that come nearest to their budget, in the newest run that has them. */
function worstLines(lines) {
  const newest = line => line.values.findLast(value => value !== null) ?? 0;
  return [...lines].sort((a, b) => b.bad.includes(true) - a.bad.includes(true) || newest(b) - newest(a)).slice(0, 8);
}

function draw() {
  if (!window.Plotly) { at("no-plotly").hidden = false; return; }
  const runs = chosen();
  offer(at("case"), [ALL, ...unique(checksOf(runs, ALL, ALL).map(({ key }) => key[0]))]);
  offer(at("stage"), [ALL, ...unique(checksOf(runs, at("case").value, ALL).map(({ key }) => key[2]))]);
  drawMap(runs);
  drawLines(runs);
}

function begin() {
  offer(at("device"), unique(DATA.runs.map(run => run.device).reverse()));
  offer(at("figure"), ["used", ...Object.keys(RUN_FIGURES)], ["error, as a share of the budget", ...Object.values(RUN_FIGURES)]);
  for (const id of ["device", "span", "case", "stage", "figure"]) at(id).addEventListener("change", draw);
  document.querySelector("form.choices").addEventListener("submit", event => event.preventDefault());
  at("which").addEventListener("change", event => {
    for (const row of document.querySelectorAll("#runs tbody tr")) row.hidden = Boolean(event.target.value) && !row.classList.contains(event.target.value);
  });
  at("copy").addEventListener("click", async () => {
    at("text").select();
    try { await navigator.clipboard.writeText(at("text").value); } catch { document.execCommand("copy"); }
    at("copy").textContent = "Copied";
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
  document.documentElement.dataset.drawn = Math.round(performance.now());
}

if (DATA.runs.length) window.addEventListener("DOMContentLoaded", begin);
