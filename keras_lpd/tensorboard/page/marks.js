/**
 * Shapes that tell, in the rows and on the maps, in whose neighbourhood a sample is:
 * a shape is seen where a colour is not.
 */

import { svg } from "./dom.js";

/** Outlines around (0, 0) in a box of about 10 by 10. */
export const MARKS = {
  chosen: "M6,0 A6,6 0 1 1 -6,0 A6,6 0 1 1 6,0 Z",
  shared: "M5,0 A5,5 0 1 1 -5,0 A5,5 0 1 1 5,0 Z",
  teacher: "M-4.5,-4.5 H4.5 V4.5 H-4.5 Z",
  student: "M0,-6 L6,0 L0,6 L-6,0 Z",
};

export const MARK_NAMES = {
  chosen: "chosen",
  shared: "in both",
  teacher: "teacher only",
  student: "student only",
};

/** @param {keyof typeof MARKS} kind */
export function mark(kind) {
  return svg(
    "svg",
    { class: `mark mark-${kind}`, viewBox: "-7 -7 14 14", "aria-hidden": "true" },
    svg("path", { d: MARKS[kind] }),
  );
}
