/**
 * The page's state, and the only place where it changes. Every part of the page is
 * drawn from it; what happens in a part comes back through its handlers.
 *
 * @typedef {object} Run
 * @property {import("./timeline.js").Tags} tags
 * @property {number[]} steps
 *
 * @typedef {object} View
 * @property {boolean} asked whether the server has answered yet
 * @property {boolean} begun whether a run has data, if not yet of a whole epoch
 * @property {Map<string, Run>} runs that have at least one epoch
 * @property {Map<string, [number, number][]>} curves
 * @property {Set<string>} hiddenRuns not in the plot of curves
 * @property {string | null} run
 * @property {number | null} step
 * @property {import("./epoch.js").Epoch | null} epoch what is drawn of run and step
 * @property {number | null} sample
 * @property {string} sort
 * @property {string} classFilter
 * @property {string} outcomeFilter
 * @property {number[]} order the samples that are listed
 * @property {number | null} hovered
 * @property {{x: number, y: number} | null} pointer where it hovers over a map
 */

import { makeChosen } from "./chosen.js";
import { makeCurve } from "./curve.js";
import { element } from "./dom.js";
import { forgetRun, readEpoch } from "./epoch.js";
import { makeFilters } from "./filters.js";
import { makeList } from "./list.js";
import { makeMaps } from "./maps.js";
import { makeMessages } from "./messages.js";
import { makeNeighbors } from "./neighbors.js";
import { Newest } from "./newest.js";
import { keepFresh } from "./refresh.js";
import { possibleFilters, select } from "./selection.js";
import { Trouble, getCurves, getRuns } from "./server.js";
import { rewritten, stepsOf } from "./timeline.js";
import { makeToolbar } from "./toolbar.js";
import { sentence } from "./words.js";

const PAUSE = 40; // ms: while a slider moves, not every epoch on its way is asked for

const inOrder = new Intl.Collator("en", { numeric: true }).compare;

function inWords(error) {
  if (!(error instanceof Trouble)) {
    console.error(error);
  }
  return error instanceof Trouble ? error.message : `Something went wrong: ${error}`;
}

/** @param {HTMLElement} root */
export function start(root) {
  /** @type {View} */
  const view = {
    asked: false,
    begun: false,
    runs: new Map(),
    curves: new Map(),
    hiddenRuns: new Set(),
    run: null,
    step: null,
    epoch: null,
    sample: null,
    sort: "worst",
    classFilter: "all",
    outcomeFilter: "all",
    order: [],
    hovered: null,
    pointer: null,
  };
  const newest = new Newest();
  let pause = 0;

  const onSample = (sample) => {
    view.sample = sample;
    if (!view.pointer) {
      view.hovered = null; // what was under the pointer has become another sample
    }
    drawEpoch();
    if (view.epoch) {
      live.textContent = sentence(view.epoch, sample);
    }
  };
  const onHover = (sample, pointer = null) => {
    if (view.hovered !== sample || pointer) {
      view.hovered = sample;
      view.pointer = sample === null ? null : pointer;
      maps.draw(view);
    }
  };
  const onWish = (wish) => {
    Object.assign(view, wish);
    view.order = view.epoch ? select(view.epoch, view) : [];
    drawEpoch();
  };
  const onRun = (run) => {
    const { steps } = view.runs.get(run);
    view.run = run;
    view.step = steps.includes(view.step) ? view.step : steps.at(-1);
    load();
  };
  const onStep = (step) => {
    if (step !== view.step) {
      view.step = step;
      load();
    }
  };
  const onToggle = (run, shown) => {
    if (shown) {
      view.hiddenRuns.delete(run);
    } else {
      view.hiddenRuns.add(run);
    }
    curve.draw(view);
  };

  const toolbar = makeToolbar({ onRun, onStep });
  const messages = makeMessages({ onRetry: () => refreshNow() });
  const filters = makeFilters({ onWish });
  const list = makeList({ onSample, onHover });
  const chosen = makeChosen();
  const neighbors = makeNeighbors({ onSample, onHover });
  const maps = makeMaps({ onSample, onHover });
  const curve = makeCurve({ onToggle, onStep });
  const live = element("div", { class: "unseen", "aria-live": "polite" });
  const ofEpoch = [filters, list, chosen, neighbors, maps];

  const focus = element("div", { class: "panel focus" }, chosen.node, neighbors.node);
  const plots = element(
    "div",
    { class: "plots" },
    element("div", { class: "panel" }, maps.node),
    element("div", { class: "panel" }, curve.node),
  );
  const main = element(
    "main",
    {},
    element("aside", { "aria-label": "All samples" }, filters.node, list.node),
    element("div", { class: "stage" }, focus, plots),
  );
  root.replaceChildren(toolbar.node, messages.node, main, live);

  function drawEpoch() {
    for (const part of ofEpoch) {
      part.draw(view);
    }
  }

  /** What is known of runs and epochs, whether or not the epoch shown is there. */
  function drawRuns() {
    main.hidden = view.run === null;
    toolbar.draw(view);
    messages.draw(view);
    if (!main.hidden) {
      curve.draw(view);
    }
  }

  function drawAll() {
    // Without the epoch's data its parts are away, but the curve stays.
    main.classList.toggle("without-epoch", !view.epoch);
    drawRuns();
    drawEpoch();
  }

  /** Dims what is there until it is of the epoch asked for. */
  function wait() {
    const other = view.epoch && view.epoch.run !== view.run;
    main.dataset.waiting = other ? "run" : "epoch";
    main.setAttribute("aria-busy", "true");
    drawRuns();
  }

  /** Forgets what is under way. */
  function stop() {
    clearTimeout(pause);
    newest.drop();
    delete main.dataset.waiting;
    main.setAttribute("aria-busy", "false");
  }

  function load() {
    const { run, step } = view;
    const { tags } = view.runs.get(run);
    stop();
    wait();
    pause = setTimeout(() => {
      newest.ask((signal) => readEpoch(run, tags, step, signal), {
        done: (epoch) => settle(epoch),
        failed: (error) => {
          view.epoch = null;
          view.order = [];
          messages.tell("epoch", inWords(error));
          stop();
          drawAll();
        },
      });
    }, PAUSE);
  }

  /** @param {import("./epoch.js").Epoch} epoch */
  function settle(epoch) {
    view.epoch = epoch;
    Object.assign(view, possibleFilters(epoch, view), { hovered: null, pointer: null });
    view.order = select(epoch, view);
    if (view.sample === null || view.sample >= epoch.samples.count) {
      view.sample = view.order[0] ?? 0;
    }
    messages.tell("epoch", null);
    stop();
    drawAll();
  }

  /** Takes in the server's runs; true where the epoch has to be read (again). */
  function takeRuns(found, curves) {
    const before = view.runs.get(view.run)?.steps;
    const follows = before === undefined || view.step === before.at(-1);
    let stale = false;
    for (const [run, curveBefore] of view.curves) {
      if (rewritten(curveBefore, curves.get(run) ?? [])) {
        forgetRun(run);
        stale ||= run === view.run;
      }
    }
    const all = [...found]
      .map(([run, tags]) => [run, { tags, steps: stepsOf(tags) }])
      .sort(([a], [b]) => inOrder(a, b));
    view.runs = new Map(all.filter(([, { steps }]) => steps.length));
    view.begun = found.size > 0;
    view.curves = new Map(
      [...view.runs.keys()].map((run) => [run, curves.get(run) ?? []]),
    );
    if (!view.runs.size) {
      Object.assign(view, { run: null, step: null, epoch: null, order: [] });
      messages.tell("epoch", null);
      stop();
      return false;
    }
    if (!view.runs.has(view.run)) {
      view.run = view.runs.keys().next().value;
    }
    const { steps } = view.runs.get(view.run);
    if (follows || !steps.includes(view.step)) {
      view.step = steps.at(-1);
    }
    const shown = view.epoch?.run === view.run && view.epoch.step === view.step;
    return stale || !shown;
  }

  const refreshNow = keepFresh(async () => {
    try {
      const [found, curves] = await Promise.all([getRuns(), getCurves()]);
      messages.tell("runs", null);
      view.asked = true;
      if (takeRuns(found, curves)) {
        load();
      } else {
        drawAll();
      }
    } catch (error) {
      messages.tell("runs", inWords(error));
      drawRuns();
    }
  });

  drawAll();
  refreshNow();
}
