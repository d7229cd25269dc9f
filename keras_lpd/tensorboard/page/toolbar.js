/** Which run and which epoch is shown. */

import { element, setAttribute, setText } from "./dom.js";
import { count, epochName } from "./words.js";

/** @param {{onRun: (run: string) => void, onStep: (step: number) => void}} handlers */
export function makeToolbar({ onRun, onStep }) {
  const select = element("select", { id: "run", "data-testid": "run" });
  const slider = element("input", {
    id: "epoch",
    type: "range",
    min: 0,
    step: 1,
    "data-testid": "epoch",
  });
  const label = element("output", {
    for: "epoch",
    class: "epoch-label",
    "data-testid": "epoch-label",
  });
  const last = element("span", { class: "muted" });
  const about = element("span", { class: "muted about" });
  const node = element(
    "header",
    { class: "toolbar" },
    element("label", { for: "run" }, "Run"),
    select,
    element("label", { for: "epoch" }, "Epoch"),
    slider,
    element("span", { class: "epoch-name" }, label, last),
    about,
  );
  let runs = [];
  let steps = [];

  select.addEventListener("change", () => onRun(runs[select.selectedIndex]));
  slider.addEventListener("input", () => onStep(steps[Number(slider.value)]));

  /** New options only where runs have changed: the menu may be open. */
  const drawRuns = (names) => {
    if (names.length !== runs.length || names.some((name, i) => name !== runs[i])) {
      runs = names;
      select.replaceChildren(
        ...names.map((name) => element("option", { value: name }, name || ".")),
      );
    }
  };

  const draw = (view) => {
    node.hidden = view.run === null;
    if (view.run === null) {
      return;
    }
    drawRuns([...view.runs.keys()]);
    select.selectedIndex = runs.indexOf(view.run);
    select.title = view.run;

    steps = view.runs.get(view.run).steps;
    setAttribute(slider, "max", steps.length - 1);
    slider.value = String(steps.indexOf(view.step));
    slider.disabled = steps.length < 2;
    const total = ` of ${steps.at(-1) + 1}`;
    setAttribute(slider, "aria-valuetext", epochName(view.step) + total);
    label.textContent = epochName(view.step);
    last.textContent = total;

    const samples = view.epoch?.samples;
    const scope = (k, n) => `${k} neighbours of each of ${count(n)} samples`;
    setText(about, samples ? scope(samples.k, samples.count) : "");
  };

  return { node, draw };
}
