/**
 * Which epochs a run has, and where what belongs to one of them was written.
 *
 * @typedef {Record<string, number[]>} Tags the steps of each tag, ascending
 */

const ONCE = ["samples", "teacher/neighbors", "teacher/distances", "teacher/map"];
const EACH_EPOCH = [
  "student/neighbors",
  "student/distances",
  "student/map",
  "overlap",
];

/**
 * The steps that have everything the page needs. While a training writes, the last
 * step may have only a part of it.
 *
 * @param {Tags} tags
 * @returns {number[]}
 */
export function stepsOf(tags) {
  if (ONCE.some((tag) => !tags[tag]?.length)) {
    return [];
  }
  const [first, ...others] = EACH_EPOCH.map((tag) => new Set(tags[tag]));
  return [...first].filter((step) => others.every((steps) => steps.has(step)));
}

/**
 * What is written once per training belongs to all later steps, until a second
 * training in the same folder writes it anew.
 *
 * @param {number[]} steps ascending
 * @param {number} step
 */
export function writtenFor(steps, step) {
  return steps.findLast((written) => written <= step) ?? steps[0];
}

/**
 * Whether a run was written anew since its curve was read: values that were there
 * have changed or gone.
 *
 * @param {[number, number][]} before
 * @param {[number, number][]} now
 */
export function rewritten(before, now) {
  const values = new Map(now);
  return before.some(([step, value]) => values.get(step) !== value);
}
