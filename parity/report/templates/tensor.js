// One tensor: where the error is, how it spreads, and the worst values.

const LEVEL = { nothing: 0, exact: 1, lowest: 2, highest: 254, broken: 255 };

/** The errors of a map's bins: null where nothing was kept, NaN for what is not finite. */
function errorsOf(map) {
  const levels = Uint8Array.from(atob(map.levels), (letter) => letter.charCodeAt(0));
  const low = Math.log10(real(map.low)),
    high = Math.log10(real(map.high));
  const error = (level) => {
    if (level === LEVEL.nothing) return null;
    if (level === LEVEL.exact) return 0;
    if (level === LEVEL.broken) return NaN;
    return 10 ** (low + ((level - LEVEL.lowest) / (LEVEL.highest - LEVEL.lowest)) * (high - low));
  };
  return Array.from({ length: map.rows }, (_, row) =>
    Array.from(levels.slice(row * map.columns, (row + 1) * map.columns), error),
  );
}

/** An axis of a map: its bins are named by the first index of the tensor in them. */
function places(name, bins) {
  const total = Number(/\((\d+)\)$/.exec(name)?.[1] ?? 1),
    step = Math.max(1, Math.ceil(bins / 6));
  const at = Array.from({ length: Math.ceil(bins / step) }, (_, place) => place * step);
  return {
    title: { text: name },
    showgrid: false,
    tickvals: at,
    ticktext: at.map((bin) => String(Math.ceil((bin * total) / bins))),
  };
}

function heatMap(tensor) {
  const { map } = tensor.detail,
    errors = errorsOf(map);
  const low = Math.log10(real(map.low) || 1e-30),
    high = Math.log10(real(map.high) || 1e-30);
  const z = errors.map((row) =>
    row.map((error) =>
      error === null ? null : Number.isNaN(error) ? high : error === 0 ? low - 0.3 : Math.log10(error),
    ),
  );
  const text = errors.map((row) =>
    row.map((error) =>
      error === null ? "nothing kept" : error === 0 ? "no error" : Number.isNaN(error) ? "not finite" : number(error),
    ),
  );
  const broken = errors.flatMap((row, y) => row.flatMap((error, x) => (Number.isNaN(error) ? [[x, y]] : [])));
  const ticks = [...new Set([low, (low + high) / 2, high])];
  const draw = () => ({
    traces: [
      {
        type: "heatmap",
        z,
        text,
        colorscale: "Cividis",
        zmin: low - 0.3,
        zmax: Math.max(high, low + 0.01),
        hoverongaps: false,
        xgap: 0,
        hovertemplate: `${map.down || "row"} bin %{y}, ${map.across} bin %{x}<br>greatest error %{text}<extra></extra>`,
        colorbar: {
          tickvals: ticks,
          ticktext: ticks.map((tick) => number(10 ** tick, 2)),
          thickness: 12,
          title: { text: "error", side: "right" },
        },
      },
      ...(broken.length
        ? [
            {
              type: "scatter",
              mode: "markers",
              x: broken.map((at) => at[0]),
              y: broken.map((at) => at[1]),
              name: "not finite",
              hoverinfo: "skip",
              marker: { symbol: "x", color: colour("bad"), size: 6 },
            },
          ]
        : []),
    ],
    layout: {
      showlegend: false,
      xaxis: places(map.across, map.columns),
      yaxis: { ...places(map.down, map.rows), autorange: "reversed" },
    },
  });
  return figure(
    "Where the error is: the greatest of each bin",
    draw,
    () => [[`${map.down} down, ${map.across} across`], ...text],
    { height: 340 },
  );
}

function spread(tensor) {
  const { histogram } = tensor.detail;
  const from = (at) => real(histogram.first) + at / 2;
  const labels = histogram.counts.map((_, at) => `${number(10 ** from(at), 2)} to ${number(10 ** from(at + 1), 2)}`);
  const allowed = tensor.allowed > 0 && Number.isFinite(tensor.allowed) ? Math.log10(tensor.allowed) : null;
  const beyond = (at) => allowed !== null && from(at) >= allowed - 0.5;
  const draw = () => ({
    traces: [
      {
        type: "bar",
        x: histogram.counts.map((_, at) => from(at) + 0.25),
        y: histogram.counts,
        width: 0.47,
        text: labels,
        textposition: "none",
        hovertemplate: "error %{text}: %{y} values<extra></extra>",
        marker: {
          color: histogram.counts.map((_, at) => (beyond(at) ? colour("bad") : colour("good"))),
          pattern: { shape: histogram.counts.map((_, at) => (beyond(at) ? "/" : "")) },
        },
      },
    ],
    layout: {
      showlegend: false,
      xaxis: {
        title: { text: "error, " + plain(tensor.unit || "in the tensor's own unit") },
        tickprefix: "10<sup>",
        ticksuffix: "</sup>",
        dtick: Math.max(1, Math.ceil(histogram.counts.length / 12)),
      },
      yaxis: { title: { text: "values" }, type: "log", exponentformat: "power", dtick: 1 },
      shapes:
        allowed === null
          ? []
          : [
              {
                type: "line",
                x0: allowed,
                x1: allowed,
                yref: "paper",
                y0: 0,
                y1: 1,
                line: { color: colour("mark"), width: 2 },
              },
            ],
      annotations:
        allowed === null
          ? []
          : [{ x: allowed, yref: "paper", y: 1, text: "allowed", showarrow: false, xanchor: "left", xshift: 4 }],
    },
  });
  const rows = () => [
    ["error", "values"],
    ["none", histogram.exact],
    ["not finite", histogram.nonfinite],
    ...histogram.counts.map((count, at) => [labels[at], count]),
  ];
  const note = [
    histogram.exact ? `${whole(histogram.exact)} without any error` : "",
    histogram.nonfinite ? `${whole(histogram.nonfinite)} not finite` : "",
  ]
    .filter(Boolean)
    .join(", ");
  return figure(`How the error spreads${note ? ` (${note})` : ""}`, draw, rows, { height: 340 });
}

function worstValues(tensor) {
  const rows = tensor.detail.worst.map((each) => {
    const actual = real(each.actual),
      expected = real(each.expected);
    return [`[${each.index.join(", ")}]`, String(actual), String(expected), number(Math.abs(actual - expected))];
  });
  return [
    h("h5", {}, "Worst values"),
    table(["At", "#New engine (actual)", "#Legacy engine (expected)", "#Error"], rows),
  ];
}

/** Everything about one tensor of a check. */
function tensorPanel(check, tensor) {
  const compared = tensor.max !== null;
  const within = (text) => (tensor.unit ? `${text} ${tensor.unit}` : text);
  const rerun = check.passes ? [] : [h("dt", {}, "Run just this"), h("dd", {}, command(check.rerun))];
  const facts = compared
    ? [
        h("dt", {}, "Greatest error"),
        h("dd", {}, `${within(number(tensor.max))}, allowed ${number(tensor.allowed)}, at ${tensor.at}`),
        h("dt", {}, "RMS error"),
        h("dd", {}, `${within(number(tensor.rms))}, allowed ${number(tensor.allowedRms)}`),
        h("dt", {}, "Minimum budget"),
        h(
          "dd",
          {},
          `${number(tensor.needed)} ${TIMES} the noise floor would have passed, ${number(tensor.budget)} is allowed`,
        ),
        h("dt", {}, "Over budget"),
        h(
          "dd",
          {},
          `${whole(tensor.over)} of ${plural(tensor.count, "value")}${tensor.nonfinite ? `, ${whole(tensor.nonfinite)} not finite` : ""}`,
        ),
      ]
    : [];
  const both =
    tensor.actual || tensor.expected
      ? [
          h("dt", {}, "New engine"),
          h("dd", {}, within(tensor.actual)),
          h("dt", {}, "Legacy engine"),
          h("dd", {}, within(tensor.expected)),
        ]
      : [];
  const detail = tensor.detail
    ? [
        h("div", { class: "pair" }, tensor.detail.map ? heatMap(tensor) : null, spread(tensor)),
        tensor.detail.worst.length ? worstValues(tensor) : null,
      ]
    : [
        h(
          "p",
          { class: "quiet" },
          "Maps and worst values are kept of what did not pass, and of the worst tensor of each check that did.",
        ),
      ];
  return h(
    "section",
    { class: "tensor", id: "tensor", tabindex: "-1", "aria-label": `Tensor ${tensor.name}` },
    h(
      "h4",
      {},
      verdict(tensor.passes, tensor.word),
      " ",
      h("span", { class: "id" }, tensor.name),
      tensor.kind ? h("span", { class: "quiet" }, ` ${tensor.kind}`) : null,
      h("span", { class: "quiet" }, ` ${tensor.shape.join(" \u00d7 ") || "one number"}`),
    ),
    tensor.note ? h("p", {}, tensor.note) : null,
    h("dl", { class: "facts" }, facts, both, rerun),
    compared ? detail : null,
  );
}
