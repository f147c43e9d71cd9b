// Decisions: what came out otherwise, whether noise explains it, how close the others were.

const MOST = 40; // decisions of a figure
const KINDS = { nms: "NMS", topk: "top-k" };

function ties(checks, record) {
  const all = checks.flatMap((check) => check.decisions.map((decision) => [check, decision]));
  if (!all.length) return [h("p", { class: "quiet" }, "The stages that ran make no decision.")];
  const flipped = all.filter(([, decision]) => decision.flips || !decision.passes),
    steady = all.filter((pair) => !flipped.includes(pair));
  const uncertified = flipped.filter(([, decision]) => !decision.passes).length;
  const says = flipped.length
    ? `${plural(flipped.length, "decision")} of ${whole(all.length)} came out otherwise: ${uncertified ? `${uncertified} of them beyond noise, which is a bug` : "all within noise, certified as ties"}.`
    : `No choice came out otherwise in any of ${whole(all.length)}.`;
  const cliffs = new Map();
  for (const [, decision] of all)
    if (decision.note) cliffs.set(decision.note, (cliffs.get(decision.note) || new Set()).add(decision.name));
  return [
    h("p", {}, verdict(!uncertified, says)),
    flipped.length ? decisionTable(flipped) : null,
    swapsOf(flipped.filter(([, decision]) => decision.swaps?.length)),
    h("div", { class: "charts" }, marginFigures(all.filter(([check]) => check.record === record))),
    cliffs.size
      ? h(
          "ul",
          { class: "notes" },
          [...cliffs].map(([note, names]) =>
            h(
              "li",
              {},
              note,
              h(
                "span",
                { class: "where" },
                ` (${[...names].slice(0, 3).join(", ")}${names.size > 3 ? ` and ${names.size - 3} more` : ""})`,
              ),
            ),
          ),
        )
      : null,
    steady.length ? later(`${plural(steady.length, "decision")} without a flip`, () => decisionTable(steady)) : null,
  ].flat();
}

const SHOWN = 12; // rows of a table of decisions, those beyond noise first
const SWAPS = 2; // decisions whose swaps are shown at once, those beyond noise and with boxes first

function swapsOf(pairs) {
  const weight = ([, decision]) => 2 * decision.passes + !decision.picture;
  const order = [...pairs].sort((a, b) => weight(a) - weight(b));
  const rest = order.slice(SWAPS);
  return [
    ...order.slice(0, SWAPS).map((pair) => swapped(...pair)),
    rest.length
      ? later(`Swaps of ${plural(rest.length, "more decision")}`, () => rest.map((pair) => swapped(...pair)))
      : null,
  ];
}

/** Details whose content is made when they are opened. */
function later(summary, content) {
  const element = h("details", { class: "plain" }, h("summary", {}, summary));
  element.addEventListener(
    "toggle",
    () => element.open && element.childElementCount === 1 && element.append(h("div", { class: "inside" }, content())),
  );
  return element;
}

function decisionTable(pairs, limit = SHOWN) {
  const heads = [
    "Decision",
    "Run",
    "Verdict",
    "Kind",
    "#Chosen",
    "#Flips",
    "#Certified",
    "#Uncertified",
    "#Smallest margin",
    "#IoU margin",
    "#Noise",
    "#Tolerance needed",
  ];
  const order = [...pairs].sort((a, b) => a[1].passes - b[1].passes);
  const rows = order.slice(0, limit).map(([check, each]) => {
    const n = (value) => h("td", { class: "n" }, value);
    return h(
      "tr",
      { class: each.passes ? null : "failed" },
      h("td", {}, h("a", { class: "id", href: linkOf(check) }, each.name)),
      h("td", {}, wayOf(check), h("span", { class: "under" }, check.record)),
      h("td", {}, verdict(each.passes, each.word)),
      h("td", {}, KINDS[each.kind] || each.kind),
      n(whole(each.count)),
      n(each.flips),
      n(each.certified),
      n(each.uncertified),
      n(number(real(each.smallest_margin))),
      n(number(real(each.smallest_iou_margin))),
      n(number(real(each.noise))),
      n(number(real(each.needed))),
    );
  });
  const block = table(heads, rows);
  const more = () => block.replaceWith(decisionTable(pairs, Infinity));
  const left = pairs.length - rows.length;
  if (left > 0) block.append(h("button", { type: "button", onclick: more }, `Show ${plural(left, "more decision")}`));
  return block;
}

function marginFigures(pairs) {
  const groups = new Map();
  for (const [check, decision] of pairs) {
    if (!groups.has(wayOf(check))) groups.set(wayOf(check), []);
    groups.get(wayOf(check)).push(decision);
  }
  const close = (each) => (each.smallest_margin ?? Infinity) / (real(each.noise) || 1e-300);
  return [...groups].map(([way, found]) =>
    marginFigure(way, [...found].sort((a, b) => close(a) - close(b)).slice(0, MOST)),
  );
}

function marginFigure(way, found) {
  const names = found.map((each) => plain(each.name));
  const points = (key, some) => ({ x: some.map((each) => real(each[key])), y: some.map((each) => plain(each.name)) });
  const positive = (key) => found.filter((each) => real(each[key]) > 0 && Number.isFinite(real(each[key])));
  const draw = () => ({
    traces: [
      {
        type: "scatter",
        mode: "markers",
        name: "noise",
        ...points("noise", positive("noise")),
        marker: { symbol: "diamond-open", size: 8, color: colour("mark") },
      },
      {
        type: "scatter",
        mode: "markers",
        name: "smallest margin",
        ...points("smallest_margin", positive("smallest_margin")),
        marker: { symbol: "circle", size: 8, color: colour("good") },
      },
      {
        type: "scatter",
        mode: "markers",
        name: "tolerance its flips need",
        ...points(
          "needed",
          positive("needed").filter((each) => each.flips),
        ),
        marker: { symbol: "x", size: 9, color: colour("bad") },
      },
    ].filter((trace) => trace.x.length),
    layout: {
      xaxis: { ...powers, title: { text: "difference of two scores" } },
      yaxis: { categoryarray: names, categoryorder: "array", autorange: "reversed", type: "category" },
      legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
      margin: { l: 8, r: 12, t: 40, b: 40 },
    },
  });
  const rows = () => [
    ["decision", "smallest margin", "noise", "tolerance needed", "flips"],
    ...found.map((each) => [
      each.name,
      number(real(each.smallest_margin)),
      number(real(each.noise)),
      number(real(each.needed)),
      each.flips,
    ]),
  ];
  return figure(`How close the choices were: ${way}`, draw, rows, { height: 110 + 20 * found.length });
}

/** The swapped indices of a decision, their boxes drawn on the image where both are known. */
function swapped(check, decision) {
  const boxed = decision.swaps.filter((swap) => swap.box);
  const rank = (value) => (value === null ? "not chosen" : whole(value + 1));
  const rows = decision.swaps.map((swap) => [
    String(swap.index),
    number(swap.score, 6),
    rank(swap.actual_rank),
    rank(swap.expected_rank),
  ]);
  return h(
    "div",
    { class: "swap" },
    h("h5", {}, h("span", { class: "id" }, decision.name), `, ${wayOf(check)}, ${check.record}`),
    h(
      "div",
      { class: "pair" },
      decision.picture && boxed.length ? boxes(decision, boxed) : null,
      table(["#Query", "#Score (truth)", "#Rank, new engine", "#Rank, legacy engine"], rows),
    ),
  );
}

function boxes(decision, boxed) {
  const picture = new Image();
  const svg = h("svg", {
    class: "boxes",
    viewBox: "0 0 320 240",
    role: "img",
    "aria-label": `Boxes of the swapped queries of ${decision.name}`,
  });
  picture.onload = () => {
    const width = 320,
      height = (width * picture.naturalHeight) / picture.naturalWidth;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.append(
      h("image", { href: decision.picture, width, height, preserveAspectRatio: "none" }),
      ...boxed.map((swap, at) => {
        const [left, top, right, bottom] = swap.box.map((share, side) => share * (side % 2 ? height : width));
        const lost = swap.actual_rank === null,
          gained = swap.expected_rank === null;
        return h(
          "g",
          { class: lost ? "legacy-only" : gained ? "new-only" : "moved" },
          h("rect", { x: left, y: top, width: Math.max(right - left, 1), height: Math.max(bottom - top, 1) }),
          h(
            "text",
            {
              x: Math.min(Math.max(left + 3, 2), width - 40),
              y: Math.min(Math.max(top + 11 + 11 * (at % 4), 11), height - 3),
            },
            `${swap.index}${lost ? " legacy" : gained ? " new" : ""}`,
          ),
        );
      }),
    );
  };
  picture.src = decision.picture;
  return svg;
}
