/** The chosen sample: how it looks, what it is, and what the models say of it. */

import { element, setText } from "./dom.js";
import { paintDot } from "./palette.js";
import { isRight } from "./selection.js";
import { makeThumbnail } from "./thumbnail.js";
import { className, kept, labelOf, percent } from "./words.js";

function fact(name, ...before) {
  const value = element("span", { class: "cut" });
  const note = element("span", { class: "note" });
  const node = element(
    "div",
    { class: "fact" },
    element("dt", {}, name),
    element("dd", {}, ...before, value, note),
  );
  return { node, value, note };
}

export function makeChosen() {
  const thumbnail = makeThumbnail(128);
  const title = element("h2");
  const dot = element("span", { class: "dot" });
  const label = fact("Label", dot);
  const predicted = { teacher: fact("Teacher"), student: fact("Student") };
  const overlap = element("strong");
  const share = element("span", { class: "muted" });
  const bar = element("span", { class: "bar-fill" });
  const node = element(
    "section",
    { class: "chosen", "aria-label": "Chosen sample", "data-testid": "chosen" },
    thumbnail.node,
    element(
      "div",
      { class: "facts" },
      title,
      element(
        "dl",
        {},
        label.node,
        predicted.teacher.node,
        predicted.student.node,
      ),
      element(
        "div",
        { class: "chosen-overlap" },
        element("div", {}, overlap, share),
        element("div", { class: "bar", "aria-hidden": "true" }, bar),
      ),
    ),
  );

  const drawPrediction = (epoch, side, sample) => {
    const { samples } = epoch;
    const { predictions } = epoch[side];
    const { value, note } = predicted[side];
    note.textContent = "";
    if (!predictions) {
      setText(value, "no prediction");
      value.classList.add("muted");
      return;
    }
    setText(value, className(samples, predictions[sample]));
    value.classList.remove("muted");
    if (samples.labels) {
      const right = isRight(epoch, side, sample);
      note.textContent = right ? "✓ right" : "✗ wrong";
      note.classList.toggle("wrong", !right);
    }
  };

  const draw = ({ epoch, sample }) => {
    if (!epoch || sample === null) {
      return;
    }
    const { samples } = epoch;
    node.dataset.sample = String(sample);
    thumbnail.draw(epoch, sample);
    title.textContent = `Sample ${sample}`;
    const name = labelOf(samples, sample);
    setText(label.value, name ?? "no label");
    label.value.classList.toggle("muted", name === null);
    paintDot(dot, samples, sample);
    drawPrediction(epoch, "teacher", sample);
    drawPrediction(epoch, "student", sample);
    overlap.textContent = percent(epoch.overlap[sample]);
    share.textContent = ` kept, ${kept(epoch, sample)} of ${samples.k}`;
    bar.style.width = percent(epoch.overlap[sample]);
  };

  return { node, draw };
}
