/** Both maps, the key to their colours and shapes, and what is under the pointer. */

import { element } from "./dom.js";
import { makeMap } from "./map.js";
import { MARK_NAMES, mark } from "./marks.js";
import { colorOf } from "./palette.js";
import { classes } from "./selection.js";
import { makeThumbnail } from "./thumbnail.js";
import { className, kept, labelOf } from "./words.js";

const KEYED = 10; // as many classes have a colour of their own

function makeTip() {
  const thumbnail = makeThumbnail(64);
  const title = element("strong");
  const text = element("span");
  const node = element(
    "div",
    { class: "tip", "aria-hidden": "true", hidden: true },
    thumbnail.node,
    element("div", {}, title, text),
  );

  const draw = ({ epoch, hovered, pointer }) => {
    node.hidden = !epoch || hovered === null || !pointer;
    if (node.hidden) {
      return;
    }
    thumbnail.draw(epoch, hovered);
    title.textContent = labelOf(epoch.samples, hovered) ?? `sample ${hovered}`;
    const share = `${kept(epoch, hovered)} of ${epoch.samples.k} kept`;
    text.textContent = `#${hovered}, ${share}`;
    // Towards the middle of the page, so that it is never cut off.
    const { offsetWidth, offsetHeight } = node;
    const leftwards = pointer.x + 16 + offsetWidth > window.innerWidth;
    const upwards = pointer.y + 16 + offsetHeight > window.innerHeight;
    const x = leftwards ? pointer.x - 16 - offsetWidth : pointer.x + 16;
    const y = upwards ? pointer.y - 16 - offsetHeight : pointer.y + 16;
    node.style.transform = `translate(${x}px, ${y}px)`;
  };

  return { node, draw };
}

function classKey(epoch) {
  const known = classes(epoch);
  const items = known.slice(0, KEYED).map((index) => {
    const dot = element("span", { class: "dot" });
    dot.style.backgroundColor = `var(${colorOf(index)})`;
    const name = className(epoch.samples, index);
    return element(
      "span",
      { class: "key-item", title: name },
      dot,
      element("span", { class: "cut" }, name),
    );
  });
  if (known.length > KEYED) {
    const more = `and ${known.length - KEYED} more, in the same colours again`;
    items.push(element("span", { class: "muted" }, more));
  }
  return items;
}

/** @param {Parameters<typeof makeMap>[1]} handlers */
export function makeMaps(handlers) {
  const teacher = makeMap("teacher", handlers);
  const student = makeMap("student", handlers);
  const tip = makeTip();
  const classItems = element("div", { class: "key" });
  const markItems = element(
    "div",
    { class: "key" },
    ...Object.entries(MARK_NAMES).map(([kind, name]) =>
      element("span", { class: "key-item" }, mark(kind), name),
    ),
  );
  const figure = (title, map) =>
    element("div", { class: "figure" }, element("h3", {}, title), map.node);
  const node = element(
    "section",
    { class: "maps", "aria-label": "Maps" },
    figure("Teacher’s map", teacher),
    figure("Student’s map", student),
    element("div", { class: "keys" }, markItems, classItems),
    tip.node,
  );
  let keyed = null;

  const draw = (view) => {
    if (view.epoch && view.epoch.samples !== keyed) {
      keyed = view.epoch.samples;
      classItems.replaceChildren(...classKey(view.epoch));
    }
    teacher.draw(view);
    student.draw(view);
    tip.draw(view);
  };

  return { node, draw };
}
