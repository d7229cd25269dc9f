/** What is listed, and how it is sorted. */

import { element, setAttribute } from "./dom.js";
import { SORTS, classes, outcomes } from "./selection.js";
import { className, count } from "./words.js";

function field(name, label, control) {
  return element(
    "div",
    { class: "field" },
    element("label", { for: name }, label),
    control,
  );
}

const makeSelect = (name) => element("select", { id: name, "data-testid": name });

const option = (value, name) => element("option", { value }, name);

/** @param {{onWish: (wish: object) => void}} handlers */
export function makeFilters({ onWish }) {
  const sort = makeSelect("sort");
  sort.append(...SORTS.map(([value, name]) => option(value, name)));
  const classFilter = makeSelect("class-filter");
  const outcomeFilter = makeSelect("outcome-filter");
  const help = element("p", { class: "help muted", id: "filter-help" });
  const matches = element("p", {
    class: "count muted",
    role: "status",
    "data-testid": "count",
  });
  const node = element(
    "div",
    { class: "filters" },
    field("sort", "Sort", sort),
    field("class-filter", "Class", classFilter),
    field("outcome-filter", "Outcome", outcomeFilter),
    help,
    matches,
  );
  let drawn = null;

  sort.addEventListener("change", () => onWish({ sort: sort.value }));
  classFilter.addEventListener("change", () =>
    onWish({ classFilter: classFilter.value }),
  );
  outcomeFilter.addEventListener("change", () =>
    onWish({ outcomeFilter: outcomeFilter.value }),
  );

  const disable = (select, reason) => {
    select.disabled = Boolean(reason);
    select.title = reason ?? "";
    setAttribute(select, "aria-describedby", reason && "filter-help");
  };

  /** The options depend on the epoch only, and rebuilding would close a menu. */
  const offer = (epoch) => {
    const { samples } = epoch;
    classFilter.replaceChildren(
      option("all", "all classes"),
      ...classes(epoch).map((index) =>
        option(String(index), className(samples, index)),
      ),
    );
    disable(classFilter, samples.labels ? null : "The samples have no labels.");

    const offered = outcomes(epoch);
    outcomeFilter.replaceChildren(
      ...offered.map(({ value, name, missing }) => {
        const choice = option(value, name);
        choice.disabled = Boolean(missing);
        choice.title = missing ?? "";
        return choice;
      }),
    );
    const reasons = [...new Set(offered.flatMap(({ missing }) => missing ?? []))];
    const none = offered.every(({ value, missing }) => value === "all" || missing);
    disable(outcomeFilter, none ? reasons.join(" ") : null);
    help.textContent = reasons.join(" ");
    help.hidden = !reasons.length;
  };

  /** What the offer depends on, compared from epoch to epoch. */
  const kind = ({ samples, teacher, student }) => [
    samples,
    Boolean(teacher.predictions),
    Boolean(student.predictions),
  ];

  const draw = (view) => {
    if (!view.epoch) {
      return;
    }
    const now = kind(view.epoch);
    if (!drawn || now.some((part, i) => part !== drawn[i])) {
      drawn = now;
      offer(view.epoch);
    }
    sort.value = view.sort;
    classFilter.value = view.classFilter;
    outcomeFilter.value = view.outcomeFilter;
    const total = count(view.epoch.samples.count);
    matches.textContent = `${count(view.order.length)} of ${total} samples`;
  };

  return { node, draw };
}
