/**
 * The chosen sample's neighbours, a row for the teacher and one for the student.
 * A row is one stop of the Tab key; the arrow keys go through it.
 */

import { element, setAttribute, setText, withModifier } from "./dom.js";
import { MARK_NAMES, mark } from "./marks.js";
import { paintDot } from "./palette.js";
import { neighborhood } from "./selection.js";
import { makeThumbnail } from "./thumbnail.js";
import { distance, labelOf } from "./words.js";

function makeCell(side) {
  const thumbnail = makeThumbnail(64);
  const dot = element("span", { class: "dot" });
  const label = element("span", { class: "cut" });
  const index = element("span", { class: "neighbor-index muted" });
  const far = element("span", { class: "distance" });
  const badges = { shared: mark("shared"), [side]: mark(side) };
  const node = element(
    "button",
    { class: "neighbor", type: "button", tabindex: -1 },
    thumbnail.node,
    badges.shared,
    badges[side],
    element("span", { class: "neighbor-label" }, dot, label),
    index,
    far,
  );

  const draw = (epoch, sample, away, shared, rank) => {
    const name = labelOf(epoch.samples, sample);
    const kind = shared ? "shared" : side;
    node.dataset.sample = String(sample);
    node.dataset.shared = String(shared);
    thumbnail.draw(epoch, sample);
    paintDot(dot, epoch.samples, sample);
    setText(label, name ?? "");
    index.textContent = `#${sample}`;
    far.textContent = distance(away);
    setAttribute(badges.shared, "hidden", !shared);
    setAttribute(badges[side], "hidden", shared);
    const called = name === null ? "" : `, ${name}`;
    node.setAttribute(
      "aria-label",
      `Neighbour ${rank}: sample ${sample}${called}, ` +
        `distance ${distance(away)}, ${MARK_NAMES[kind]}`,
    );
    node.title =
      `Neighbour ${rank} of the ${side}, ${MARK_NAMES[kind]}\n` +
      `distance ${Number(away.toPrecision(7))}`;
  };

  return { node, draw };
}

function makeRow(side, name) {
  const about = element("span", { class: "muted cut" });
  const node = element("div", {
    class: "neighbors",
    role: "toolbar",
    "aria-label": `${name} nearest neighbours`,
    "data-testid": `${side}-row`,
  });
  const heading = element("h3", {}, name, " nearest", about);
  let cells = [];

  /** Cells stay from sample to sample, so that the one with the focus keeps it. */
  const draw = (epoch, sample, neighbors, shared) => {
    const { k } = epoch.samples;
    if (cells.length !== k) {
      cells = Array.from({ length: k }, () => makeCell(side));
      node.replaceChildren(...cells.map((cell) => cell.node));
      cells[0]?.node.setAttribute("tabindex", 0);
    }
    cells.forEach((cell, i) => {
      const away = epoch[side].distances[sample * k + i];
      cell.draw(epoch, neighbors[i], away, shared.has(neighbors[i]), i + 1);
    });
    const { name: model, layer, width } = epoch.samples[side];
    setText(about, `${model}, layer ${layer}, ${width} wide`);
  };

  return { node, heading, draw };
}

/**
 * @param {object} handlers
 * @param {(sample: number) => void} handlers.onSample
 * @param {(sample: number | null) => void} handlers.onHover
 */
export function makeNeighbors({ onSample, onHover }) {
  const teacher = makeRow("teacher", "Teacher’s");
  const student = makeRow("student", "Student’s");
  const summary = element("span", { class: "summary" });
  student.heading.append(summary);
  // Both rows scroll as one: neighbours of equal rank stay above each other.
  const node = element(
    "section",
    { class: "neighborhood", "aria-label": "Neighbours of the chosen sample" },
    teacher.heading,
    teacher.node,
    student.heading,
    student.node,
  );
  let shown = null;

  const cellOf = (target) => target.closest?.(".neighbor") ?? null;
  const sampleOf = (cell) => (cell ? Number(cell.dataset.sample) : null);

  const focus = (row, rank) => {
    const cells = row.children;
    cells[Math.min(cells.length - 1, Math.max(0, rank))]?.focus();
  };

  node.addEventListener("click", ({ target }) => {
    const cell = cellOf(target);
    if (cell) {
      onSample(sampleOf(cell));
    }
  });
  node.addEventListener("pointerover", ({ target }) =>
    onHover(sampleOf(cellOf(target))),
  );
  node.addEventListener("pointerleave", () => onHover(null));
  node.addEventListener("focusout", () => onHover(null));
  node.addEventListener("focusin", ({ target }) => {
    const cell = cellOf(target);
    if (!cell) {
      return;
    }
    for (const other of cell.parentElement.children) {
      other.tabIndex = other === cell ? 0 : -1;
    }
    onHover(sampleOf(cell));
  });
  node.addEventListener("keydown", (event) => {
    const cell = cellOf(event.target);
    if (!cell || withModifier(event)) {
      return;
    }
    const row = cell.parentElement;
    const rank = [...row.children].indexOf(cell);
    const moves = {
      ArrowLeft: [row, rank - 1],
      ArrowRight: [row, rank + 1],
      ArrowUp: [teacher.node, rank],
      ArrowDown: [student.node, rank],
      Home: [row, 0],
      End: [row, Infinity],
    };
    const move = moves[event.key];
    if (move) {
      event.preventDefault();
      focus(...move);
    }
  });

  const draw = ({ epoch, sample }) => {
    if (!epoch || sample === null) {
      return;
    }
    if (shown?.epoch === epoch && shown.sample === sample) {
      return;
    }
    shown = { epoch, sample };
    const found = neighborhood(epoch, sample);
    teacher.draw(epoch, sample, found.teacher, found.shared);
    student.draw(epoch, sample, found.student, found.shared);
    summary.replaceChildren(
      mark("shared"),
      `${found.shared.size} of ${epoch.samples.k} in both`,
    );
  };

  return { node, draw };
}
