// Figures: drawn by Plotly, in the page's colours, each with its figures as text.

const drawn = new Map(); // element -> how to draw it again, in other colours or another width
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Text that Plotly shows as it is: it would take <b> for bold. */
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

let script = null;

/** Plotly's script, loaded with the first figure that is looked at: the page itself does not wait for it. */
function plotly() {
  script ??= new Promise((resolve, reject) => {
    const element = h("script", { src: "plotly.min.js" });
    element.addEventListener("load", () => resolve(window.Plotly));
    element.addEventListener("error", () => reject(new Error("no plotly.min.js")));
    document.head.append(element);
  });
  return script;
}

/**
 * A figure: `draw()` gives Plotly's traces and layout, `rows` the same as rows of text.
 * `pick` is called with the custom data of a point that was clicked.
 */
function figure(title, draw, rows, { height = 300, pick = null } = {}) {
  const plot = h("div", { class: "plotly", role: "img", "aria-label": title, style: `height: ${height}px` });
  const element = h(
    "figure",
    {},
    h("figcaption", {}, title),
    plot,
    copyButton(() => asText([[title], ...rows()])),
  );
  const redraw = async () => {
    let lib;
    try {
      lib = await plotly();
    } catch {
      plot.style.height = "auto";
      plot.replaceChildren(
        h(
          "p",
          { class: "quiet" },
          "This figure needs plotly.min.js beside the page. Its figures can still be copied as text.",
        ),
      );
      return;
    }
    if (!plot.isConnected) return void drawn.delete(plot);
    const { traces, layout } = draw();
    const first = !plot.classList.contains("js-plotly-plot");
    await lib.react(plot, traces, themed(layout, height), {
      displaylogo: false,
      responsive: true,
      displayModeBar: false,
    });
    if (first && pick)
      plot.on("plotly_click", (event) => event.points[0]?.customdata !== undefined && pick(event.points[0].customdata));
  };
  drawn.set(plot, redraw);
  // Drawn when it comes near the window: a page of many figures opens at once.
  new IntersectionObserver(
    (entries, observer) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        observer.disconnect();
        redraw();
      }
    },
    { rootMargin: "400px" },
  ).observe(plot);
  return element;
}

function themed(layout, height) {
  const axis = {
    gridcolor: colour("grid"),
    linecolor: colour("line"),
    zeroline: false,
    automargin: true,
    fixedrange: true,
  };
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("text") };
  const whole = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font,
    height,
    margin: { l: 8, r: 12, t: 8, b: 36 },
    legend: { orientation: "h", y: -0.16, yanchor: "top" },
    hoverlabel: { font: { family: font.family } },
    dragmode: false,
    ...layout,
  };
  return { ...whole, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
}

const powers = { type: "log", exponentformat: "power", dtick: undefined, nticks: 6 };

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  drawn.forEach((redraw, plot) => (plot.isConnected ? redraw() : drawn.delete(plot))),
);
