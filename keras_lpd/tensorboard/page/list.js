/**
 * The list of samples. Only the rows in sight exist, so that ten thousand scroll as
 * fluently as ten.
 */

import { element, setAttribute, setText, withModifier } from "./dom.js";
import { paintDot } from "./palette.js";
import { isRight } from "./selection.js";
import { makeThumbnail } from "./thumbnail.js";
import { className, kept, labelOf, percent } from "./words.js";

const ROW = 44; // the height of `.row` in style.css
const MARGIN = 4; // rows beyond the edges, against flashes

/** What each key adds to the position in the list, given the rows of one page. */
const MOVES = {
  ArrowDown: () => 1,
  ArrowUp: () => -1,
  PageDown: (page) => page,
  PageUp: (page) => -page,
  Home: () => -Infinity,
  End: () => Infinity,
};

/** Who predicted what, with a tick or a cross where labels say so. */
function verdict(epoch, side, sample) {
  const { samples } = epoch;
  const predicted = epoch[side].predictions[sample];
  const name = className(samples, predicted);
  if (!samples.labels) {
    return { text: name, right: null };
  }
  const right = isRight(epoch, side, sample);
  return { text: right ? "✓" : `✗ ${name}`, right };
}

function makeRow() {
  const thumbnail = makeThumbnail(32);
  const dot = element("span", { class: "dot" });
  const label = element("span", { class: "cut" });
  const index = element("span", { class: "muted row-index" });
  const verdicts = { student: element("span"), teacher: element("span") };
  const overlap = element("span", { class: "row-overlap" });
  const bar = element("span", { class: "bar-fill" });
  const node = element(
    "div",
    { class: "row", role: "option" },
    thumbnail.node,
    element(
      "div",
      {},
      element("div", { class: "row-label" }, dot, label, index),
      element("div", { class: "row-verdicts" }, verdicts.teacher, verdicts.student),
    ),
    element(
      "div",
      { class: "row-kept" },
      overlap,
      element("span", { class: "bar", "aria-hidden": "true" }, bar),
    ),
  );

  const drawVerdict = (epoch, side, sample) => {
    const cell = verdicts[side];
    cell.hidden = !epoch[side].predictions;
    if (!cell.hidden) {
      const { text, right } = verdict(epoch, side, sample);
      setText(cell, `${side} ${text}`);
      cell.className = right === true ? "verdict" : "verdict long";
      cell.classList.toggle("wrong", right === false);
    }
  };

  const row = { node, position: -1, sample: -1, epoch: null };

  row.draw = (epoch, sample, position, size) => {
    const name = labelOf(epoch.samples, sample);
    node.id = `sample-${sample}`;
    node.dataset.sample = String(sample);
    node.style.transform = `translateY(${position * ROW}px)`;
    setAttribute(node, "aria-posinset", position + 1);
    setAttribute(node, "aria-setsize", size);
    thumbnail.draw(epoch, sample);
    paintDot(dot, epoch.samples, sample);
    setText(label, name ?? `sample ${sample}`);
    index.textContent = name === null ? "" : `#${sample}`;
    drawVerdict(epoch, "teacher", sample);
    drawVerdict(epoch, "student", sample);
    overlap.textContent = percent(epoch.overlap[sample]);
    overlap.title = `${kept(epoch, sample)} of ${epoch.samples.k} neighbours kept`;
    bar.style.width = percent(epoch.overlap[sample]);
    Object.assign(row, { position, sample, epoch });
  };

  /** A row out of use is nobody's: its sample may stand in another row. */
  row.leave = () => {
    node.removeAttribute("id");
    delete node.dataset.sample;
    row.position = -1;
  };

  return row;
}

/**
 * @param {object} handlers
 * @param {(sample: number) => void} handlers.onSample
 * @param {(sample: number | null) => void} handlers.onHover
 */
export function makeList({ onSample, onHover }) {
  const space = element("div", { class: "list-space", role: "presentation" });
  const node = element(
    "div",
    {
      class: "list",
      role: "listbox",
      tabindex: 0,
      "aria-label": "Samples",
      "data-testid": "list",
    },
    space,
  );
  /** @type {ReturnType<typeof makeRow>[]} row i shows positions i, i + length, ... */
  let rows = [];
  let view = null;
  let drawn = { order: null, sample: null, epoch: null };

  const enoughRows = () => {
    const needed = Math.ceil(node.clientHeight / ROW) + 2 * MARGIN;
    if (rows.length < needed) {
      rows = Array.from({ length: needed }, makeRow);
      space.replaceChildren(...rows.map((row) => row.node));
    }
  };

  const drawRows = () => {
    if (!view?.epoch) {
      return;
    }
    enoughRows();
    const { epoch, order, sample: chosen } = view;
    const first = Math.max(0, Math.floor(node.scrollTop / ROW) - MARGIN);
    let active = null;
    for (let position = first; position < first + rows.length; position += 1) {
      const row = rows[position % rows.length];
      row.node.hidden = position >= order.length;
      if (row.node.hidden) {
        row.leave();
        continue;
      }
      const sample = order[position];
      const same =
        row.position === position && row.sample === sample && row.epoch === epoch;
      if (!same || order !== drawn.order) {
        row.draw(epoch, sample, position, order.length);
      }
      setAttribute(row.node, "aria-selected", String(sample === chosen));
      if (sample === chosen) {
        active = row.node.id;
      }
    }
    setAttribute(node, "aria-activedescendant", active);
  };

  const reveal = (position) => {
    const top = position * ROW;
    const { scrollTop, clientHeight } = node;
    if (top < scrollTop) {
      node.scrollTop = top;
    } else if (top + ROW > scrollTop + clientHeight) {
      node.scrollTop = top + ROW - clientHeight;
    }
  };

  const draw = (now) => {
    view = now;
    node.classList.toggle("empty", !view.order.length);
    space.style.height = `${view.order.length * ROW}px`;
    // Another wish begins at its top; another epoch keeps the place in the ranking.
    if (view.order !== drawn.order && view.epoch === drawn.epoch) {
      node.scrollTop = 0;
    } else if (view.sample !== drawn.sample && view.sample !== null) {
      const position = view.order.indexOf(view.sample);
      if (position >= 0) {
        reveal(position);
      }
    }
    drawRows();
    drawn = { order: view.order, sample: view.sample, epoch: view.epoch };
  };

  node.addEventListener("scroll", drawRows, { passive: true });
  new ResizeObserver(drawRows).observe(node);

  const sampleAt = (target) => {
    const row = target.closest?.("[data-sample]");
    return row ? Number(row.dataset.sample) : null;
  };
  node.addEventListener("click", ({ target }) => {
    const sample = sampleAt(target);
    if (sample !== null) {
      onSample(sample);
    }
  });
  node.addEventListener("pointerover", ({ target }) => onHover(sampleAt(target)));
  node.addEventListener("pointerleave", () => onHover(null));
  node.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move || !view?.order.length || withModifier(event)) {
      return;
    }
    event.preventDefault();
    const page = Math.max(1, Math.floor(node.clientHeight / ROW) - 1);
    const last = view.order.length - 1;
    const from = view.order.indexOf(view.sample);
    const to = Math.min(last, Math.max(0, from + move(page)));
    reveal(to);
    onSample(view.order[to]);
  });

  return { node, draw };
}
