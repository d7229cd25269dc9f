/**
 * Which samples are listed, and in which order.
 *
 * @typedef {import("./epoch.js").Epoch} Epoch
 */

export const SORTS = [
  ["worst", "worst overlap first"],
  ["best", "best overlap first"],
  ["index", "by index"],
];

/**
 * Whether a model, `teacher` or `student`, predicts the class that the label says.
 *
 * @param {Epoch} epoch
 * @param {string} side
 * @param {number} sample
 */
export function isRight(epoch, side, sample) {
  return epoch[side].predictions[sample] === epoch.samples.labels[sample];
}

const right = (side) => ({ epoch, sample }) => isRight(epoch, side, sample);
const wrong = (side) => (choice) => !right(side)(choice);

/** Each outcome: its value, its name, whose predictions it needs, and its samples. */
const OUTCOMES = [
  ["all", "any outcome", [], () => true],
  [
    "student-wrong-teacher-right",
    "student wrong, teacher right",
    ["student", "teacher"],
    (choice) => wrong("student")(choice) && right("teacher")(choice),
  ],
  ["student-wrong", "student wrong", ["student"], wrong("student")],
  ["student-right", "student right", ["student"], right("student")],
  ["teacher-wrong", "teacher wrong", ["teacher"], wrong("teacher")],
];

/**
 * The outcomes one can filter by, and why one cannot.
 *
 * @param {Epoch} epoch
 * @returns {{value: string, name: string, missing: string | null}[]}
 */
export function outcomes(epoch) {
  return OUTCOMES.map(([value, name, sides]) => {
    const silent = sides.find((side) => !epoch[side].predictions);
    let missing = null;
    if (sides.length && !epoch.samples.labels) {
      missing = "The samples have no labels.";
    } else if (silent) {
      missing = `The ${silent} has no class predictions.`;
    }
    return { value, name, missing };
  });
}

/**
 * The classes that occur, by their index.
 *
 * @param {Epoch} epoch
 * @returns {number[]}
 */
export function classes(epoch) {
  return [...new Set(epoch.samples.labels ?? [])].sort((a, b) => a - b);
}

/**
 * Drops filters that the epoch cannot answer, as after a change of run.
 *
 * @param {Epoch} epoch
 * @param {{classFilter: string, outcomeFilter: string}} filters
 */
export function possibleFilters(epoch, { classFilter, outcomeFilter }) {
  const known = classes(epoch).some((index) => String(index) === classFilter);
  const outcome = outcomes(epoch).find(({ value }) => value === outcomeFilter);
  return {
    classFilter: known ? classFilter : "all",
    outcomeFilter: outcome && !outcome.missing ? outcomeFilter : "all",
  };
}

/**
 * The samples that pass the filters, sorted. Equal overlaps stay in index order.
 *
 * @param {Epoch} epoch
 * @param {{sort: string, classFilter: string, outcomeFilter: string}} wishes
 * @returns {number[]}
 */
export function select(epoch, { sort, classFilter, outcomeFilter }) {
  const { labels, count } = epoch.samples;
  const passes = OUTCOMES.find(([value]) => value === outcomeFilter)[3];
  const chosen = [];
  for (let sample = 0; sample < count; sample += 1) {
    const ofClass = classFilter === "all" || String(labels[sample]) === classFilter;
    if (ofClass && passes({ epoch, sample })) {
      chosen.push(sample);
    }
  }
  if (sort !== "index") {
    const sign = sort === "best" ? -1 : 1;
    chosen.sort((a, b) => sign * (epoch.overlap[a] - epoch.overlap[b]) || a - b);
  }
  return chosen;
}

/**
 * The neighbours that teacher and student both see around a sample.
 *
 * @param {Epoch} epoch
 * @returns {{teacher: Int32Array, student: Int32Array, shared: Set<number>}}
 */
export function neighborhood(epoch, sample) {
  const { k } = epoch.samples;
  const of = (side) => side.neighbors.subarray(sample * k, (sample + 1) * k);
  const teacher = of(epoch.teacher);
  const student = of(epoch.student);
  const kept = new Set(student);
  return { teacher, student, shared: new Set(teacher.filter((i) => kept.has(i))) };
}
