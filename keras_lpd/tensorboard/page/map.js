/**
 * One embedding on two canvases: all points below, drawn anew only when they change,
 * and above them what moves with the choice.
 */

import { element, withModifier } from "./dom.js";
import { MARKS } from "./marks.js";
import { colorOfSample } from "./palette.js";
import { nearest, place, towards } from "./plane.js";
import { neighborhood } from "./selection.js";
import { themeChanges, themed } from "./theme.js";

const MARGIN = 14;
const REACH = 28; // as far from the pointer, in pixels, a point is still meant

const DIRECTIONS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

const SHAPES = Object.fromEntries(
  Object.entries(MARKS).map(([kind, outline]) => [kind, new Path2D(outline)]),
);

const radius = (count) => (count > 4000 ? 1.6 : count > 1200 ? 2.1 : 3);

/**
 * @param {"teacher" | "student"} side
 * @param {object} handlers
 * @param {(sample: number) => void} handlers.onSample
 * @param {(sample: number | null, pointer?: object) => void} handlers.onHover
 */
export function makeMap(side, { onSample, onHover }) {
  const points = element("canvas", { "aria-hidden": "true" });
  const marks = element("canvas", {
    tabindex: 0,
    role: "application",
    "aria-label":
      `Map of the ${side}'s features. ` +
      "Arrow keys go to the next sample in their direction.",
    "data-testid": `${side}-map`,
  });
  const node = element("div", { class: "map" }, points, marks);
  /** @type {Float32Array | null} */
  let placed = null;
  let size = { width: 0, height: 0, ratio: 1 };
  let view = null;
  let drawn = null;

  const prepare = (canvas) => {
    const { width, height, ratio } = size;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    return context;
  };

  const drawPoints = () => {
    const { epoch, order } = view;
    const { samples } = epoch;
    placed = place(epoch[side].map, size.width, size.height, MARGIN);
    const context = prepare(points);
    const r = radius(samples.count);
    const dot = (i) => {
      context.beginPath();
      context.arc(placed[2 * i], placed[2 * i + 1], r, 0, 2 * Math.PI);
      context.fill();
    };
    const listed = new Uint8Array(samples.count);
    for (const i of order) {
      listed[i] = 1;
    }
    context.fillStyle = themed("--faded");
    for (let i = 0; i < samples.count; i += 1) {
      if (!listed[i]) {
        dot(i);
      }
    }
    // In order of the index, not of the class: no class hides the others.
    const colors = new Map();
    context.globalAlpha = samples.count > 1200 ? 0.75 : 0.85;
    for (let i = 0; i < samples.count; i += 1) {
      if (listed[i]) {
        const property = colorOfSample(samples, i);
        if (!colors.has(property)) {
          colors.set(property, themed(property));
        }
        context.fillStyle = colors.get(property);
        dot(i);
      }
    }
  };

  const drawMarks = () => {
    const { epoch, sample, hovered } = view;
    const context = prepare(marks);
    const [ink, halo, accent, kept] = [
      "--ink",
      "--panel",
      "--accent",
      "--shared",
    ].map(themed);
    const at = (i) => [placed[2 * i], placed[2 * i + 1]];

    const outlined = (i, kind, scale, fill, line) => {
      context.save();
      context.translate(...at(i));
      context.scale(scale, scale);
      context.lineJoin = "round";
      context.strokeStyle = halo;
      context.lineWidth = 4 / scale;
      context.stroke(SHAPES[kind]);
      context.fillStyle = fill;
      context.fill(SHAPES[kind]);
      context.strokeStyle = line;
      context.lineWidth = 1.4 / scale;
      context.stroke(SHAPES[kind]);
      context.restore();
    };

    if (sample !== null) {
      const found = neighborhood(epoch, sample);
      const kinds = new Map();
      found.student.forEach((i) => kinds.set(i, "student"));
      found.teacher.forEach((i) => kinds.set(i, "teacher"));
      found.shared.forEach((i) => kinds.set(i, "shared"));
      context.strokeStyle = ink;
      context.globalAlpha = kinds.size > 30 ? 0.15 : 0.35;
      for (const i of kinds.keys()) {
        context.beginPath();
        context.moveTo(...at(sample));
        context.lineTo(...at(i));
        context.stroke();
      }
      context.globalAlpha = 1;
      for (const [i, kind] of kinds) {
        const shared = kind === "shared";
        outlined(i, kind, 0.8, shared ? kept : halo, shared ? kept : ink);
      }
      outlined(sample, "chosen", 1, accent, ink);
    }
    if (hovered !== null && hovered < epoch.samples.count) {
      context.beginPath();
      context.arc(...at(hovered), 10, 0, 2 * Math.PI);
      context.strokeStyle = halo;
      context.lineWidth = 5;
      context.stroke();
      context.strokeStyle = accent;
      context.lineWidth = 2.5;
      context.stroke();
    }
    drawn = view;
  };

  const redraw = () => {
    if (view?.epoch && size.width > 0 && size.height > 0) {
      drawPoints();
      drawMarks();
    }
  };

  const draw = (now) => {
    view = { ...now };
    if (!view.epoch) {
      placed = drawn = null;
    } else if (view.epoch !== drawn?.epoch || view.order !== drawn.order) {
      redraw();
    } else if (view.sample !== drawn.sample || view.hovered !== drawn.hovered) {
      drawMarks();
    }
  };

  const measure = () => {
    size = {
      width: node.clientWidth,
      height: node.clientHeight,
      ratio: window.devicePixelRatio,
    };
    redraw();
  };

  /** Moving a window to another screen changes the ratio, and no element's size. */
  const watchRatio = () => {
    const query = `(resolution: ${window.devicePixelRatio}dppx)`;
    window.matchMedia(query).addEventListener(
      "change",
      () => {
        measure();
        watchRatio();
      },
      { once: true },
    );
  };

  new ResizeObserver(measure).observe(node);
  watchRatio();
  themeChanges.addEventListener("change", redraw);

  const under = ({ offsetX, offsetY }) =>
    placed && nearest(placed, view.order, offsetX, offsetY, REACH);

  marks.addEventListener("pointermove", (event) => {
    onHover(under(event), { x: event.clientX, y: event.clientY });
  });
  marks.addEventListener("pointerleave", () => onHover(null));
  marks.addEventListener("click", (event) => {
    const sample = under(event);
    if (sample !== null) {
      onSample(sample);
    }
  });
  marks.addEventListener("keydown", (event) => {
    const direction = DIRECTIONS[event.key];
    if (!direction || !placed || withModifier(event)) {
      return;
    }
    event.preventDefault();
    const sample = towards(placed, view.order, view.sample, direction);
    if (sample !== null) {
      onSample(sample);
    }
  });

  return { node, draw };
}
