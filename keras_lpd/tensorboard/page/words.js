/** How samples, classes and numbers are called on the page. */

/** @typedef {import("./epoch.js").Epoch} Epoch */

/** @param {import("./epoch.js").Samples} samples */
export function className(samples, index) {
  return String(samples.class_names?.[index] ?? index) || "(no name)";
}

/** The name of a sample's class, or `null` where samples have no labels. */
export function labelOf(samples, sample) {
  return samples.labels ? className(samples, samples.labels[sample]) : null;
}

/** Keras counts epochs from 0 and calls the first one "epoch 1"; so does the page. */
export const epochName = (step) => `epoch ${step + 1}`;

export const count = (number) => number.toLocaleString("en");

export const percent = (share) =>
  Number.isFinite(share) ? `${Math.round(100 * share)}%` : "–";

/** About three digits: enough to compare neighbours by. */
export function distance(value) {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) {
    return "–";
  }
  if (size >= 1e6 || (size > 0 && size < 1e-3)) {
    return value.toExponential(1);
  }
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/** How many of a sample's neighbours the student kept: the share, in neighbours. */
export function kept({ overlap, samples }, sample) {
  return Math.round(overlap[sample] * samples.k);
}

/** A sample in one sentence, for those who hear the page. @param {Epoch} epoch */
export function sentence(epoch, sample) {
  const label = labelOf(epoch.samples, sample);
  const called = label === null ? "" : `, ${label}`;
  return (
    `Sample ${sample}${called}: the student kept ${kept(epoch, sample)} of ` +
    `${epoch.samples.k} neighbours.`
  );
}
