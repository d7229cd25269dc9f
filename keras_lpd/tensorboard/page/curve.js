/** Mean overlap over the epochs: how the runs kept the neighbours while training. */

import { element, setAttribute, setText, svg } from "./dom.js";
import { colorOf } from "./palette.js";
import { ticks } from "./ticks.js";
import { epochName, percent } from "./words.js";

const MARGIN = { top: 10, right: 14, bottom: 38, left: 50 };
const DASHES = [null, "7 3", "2 3"];

/** A run's looks: a colour and a dash, as many lines are told apart by both. */
const looks = (index) => ({
  stroke: `var(${colorOf(index)})`,
  "stroke-dasharray": DASHES[index % DASHES.length],
});

function makeLegendItem(run, index, onToggle) {
  const box = element("input", { type: "checkbox" });
  const name = element("span", { class: "cut" });
  const value = element("span", { class: "legend-value" });
  const line = svg("line", { x1: 0, y1: 5, x2: 22, y2: 5, ...looks(index) });
  const node = element(
    "label",
    { class: "legend-item" },
    box,
    svg("svg", { width: 22, height: 10, "aria-hidden": "true" }, line),
    name,
    value,
  );
  setText(name, run || ".");
  box.addEventListener("change", () => onToggle(run, box.checked));
  return { node, box, value };
}

/**
 * @param {object} handlers
 * @param {(run: string, shown: boolean) => void} handlers.onToggle
 * @param {(step: number) => void} handlers.onStep
 */
export function makeCurve({ onToggle, onStep }) {
  const plot = svg("svg", { role: "img", "data-testid": "curve" });
  const frame = element("div", { class: "plot" }, plot);
  const legend = element("div", {
    class: "legend",
    role: "group",
    "aria-label": "Runs in the plot",
  });
  const node = element(
    "section",
    { class: "figure", "aria-label": "Mean overlap" },
    element("h3", {}, "Mean overlap"),
    frame,
    legend,
  );
  /** @type {Map<string, number>} a run keeps its looks when others come and go */
  const places = new Map();
  /** @type {Map<string, ReturnType<typeof makeLegendItem>>} */
  let items = new Map();
  let view = null;
  let toStep = null;

  const drawLegend = (runs) => {
    const same = runs.length === items.size && runs.every((run) => items.has(run));
    if (!same) {
      items = new Map(
        runs.map((run) => [run, makeLegendItem(run, places.get(run), onToggle)]),
      );
      legend.replaceChildren(...[...items.values()].map((item) => item.node));
    }
    for (const [run, { node: item, box, value }] of items) {
      box.checked = !view.hidden.has(run);
      item.classList.toggle("current", run === view.run);
      const point = view.curves.get(run)?.find(([step]) => step === view.step);
      value.textContent = point ? percent(point[1]) : "";
      value.title = point ? `at ${epochName(view.step)}` : "";
    }
  };

  const line = (run, points, current, [x, y]) => {
    const look = looks(places.get(run));
    const group = svg("g", { class: current ? "current" : null });
    const way = points.map(([step, value]) => `${x(step)},${y(value)}`).join(" ");
    group.append(
      svg("title", {}, run),
      svg("polyline", { points: way, ...look }),
    );
    if (points.length === 1) {
      const [[step, value]] = points;
      const alone = { cx: x(step), cy: y(value), r: 3, fill: look.stroke };
      group.append(svg("circle", alone));
    }
    return group;
  };

  const axes = (width, height, [x, y], [xTicks, yTicks]) => {
    const [left, bottom] = [MARGIN.left, height - MARGIN.bottom];
    const right = width - MARGIN.right;
    return [
      ...yTicks.flatMap((value) => [
        svg("line", {
          class: "grid",
          x1: left,
          x2: right,
          y1: y(value),
          y2: y(value),
        }),
        svg("text", { class: "y", x: left - 6, y: y(value) + 4 }, percent(value)),
      ]),
      ...xTicks.flatMap((epoch) => [
        svg("line", {
          class: "axis",
          x1: x(epoch - 1),
          x2: x(epoch - 1),
          y1: bottom,
          y2: bottom + 4,
        }),
        svg(
          "text",
          { class: "x", x: x(epoch - 1), y: bottom + 16 },
          String(epoch),
        ),
      ]),
      svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      svg("text", { class: "x", x: (left + right) / 2, y: height - 5 }, "epoch"),
      svg(
        "text",
        {
          class: "x",
          transform: `translate(12 ${(MARGIN.top + bottom) / 2}) rotate(-90)`,
        },
        "neighbours kept",
      ),
    ];
  };

  const marker = (point, [x, y], width, height) => {
    const [step, value] = point;
    const bottom = height - MARGIN.bottom;
    const late = x(step) > width - MARGIN.right - 44;
    return [
      svg("circle", { class: "now", cx: x(step), cy: y(value), r: 4.5 }),
      svg(
        "text",
        {
          class: late ? "value late" : "value",
          x: x(step) + (late ? -8 : 8),
          y: Math.min(bottom - 6, y(value) + 16),
        },
        percent(value),
      ),
    ];
  };

  const drawPlot = () => {
    const { clientWidth: width, clientHeight: height } = frame;
    toStep = null;
    if (!view || width < 1 || height < 1) {
      return;
    }
    setAttribute(plot, "viewBox", `0 0 ${width} ${height}`);
    const lines = [...view.curves].filter(([run]) => !view.hidden.has(run));
    // The current run is drawn last, above the others.
    lines.sort(([a], [b]) => (a === view.run) - (b === view.run));
    const points = lines.flatMap(([, curve]) => curve);
    const steps = points.map(([step]) => step);
    const first = Math.min(...steps, view.step ?? 0);
    const last = Math.max(...steps, view.step ?? 0);
    const top = Math.min(1, Math.max(0.05, ...points.map(([, value]) => value)) * 1.05);
    const right = width - MARGIN.right;
    const bottom = height - MARGIN.bottom;
    const wide = Math.max(1, last - first);
    const centre = last === first ? 0.5 : 0;
    const x = (step) =>
      MARGIN.left + ((step - first) / wide + centre) * (right - MARGIN.left);
    const y = (value) => bottom - (value / top) * (bottom - MARGIN.top);

    const parts = axes(width, height, [x, y], [
      ticks(first + 1, last + 1, Math.max(2, width / 55), 1),
      ticks(0, top, Math.max(2, height / 45)),
    ]);
    const current = view.curves.get(view.run)?.find(([step]) => step === view.step);
    if (view.step !== null) {
      const at = { x1: x(view.step), x2: x(view.step), y1: MARGIN.top, y2: bottom };
      parts.push(svg("line", { class: "cursor", ...at }));
    }
    for (const [run, curve] of lines) {
      parts.push(line(run, curve, run === view.run, [x, y]));
    }
    if (current && !view.hidden.has(view.run)) {
      parts.push(...marker(current, [x, y], width, height));
    }
    plot.replaceChildren(...parts);
    setAttribute(
      plot,
      "aria-label",
      current
        ? `Mean overlap of ${view.run}, ${epochName(view.step)}: ${percent(current[1])}`
        : "Mean overlap of the runs over the epochs",
    );
    toStep = (pixel) =>
      first + ((pixel - MARGIN.left) / (right - MARGIN.left) - centre) * wide;
  };

  const draw = (now) => {
    view = {
      run: now.run,
      step: now.step,
      steps: now.runs.get(now.run)?.steps ?? [],
      curves: now.curves,
      hidden: now.hiddenRuns,
    };
    const runs = [...view.curves.keys()];
    for (const run of runs) {
      if (!places.has(run)) {
        places.set(run, places.size);
      }
    }
    drawLegend(runs);
    drawPlot();
  };

  new ResizeObserver(drawPlot).observe(frame);

  // A shortcut for the pointer; the keyboard has the slider.
  plot.addEventListener("click", (event) => {
    if (toStep && view.steps.length) {
      const wanted = toStep(event.clientX - plot.getBoundingClientRect().left);
      const distance = (step) => Math.abs(step - wanted);
      onStep(view.steps.reduce((a, b) => (distance(b) < distance(a) ? b : a)));
    }
  });

  return { node, draw };
}
