/** Colours of classes and runs: ten, which `style.css` has for either theme. */

const COLORS = 10;

/** The custom property of an index; further ones begin anew. */
export function colorOf(index) {
  return `--color-${((index % COLORS) + COLORS) % COLORS}`;
}

/** The custom property of a sample's class. */
export function colorOfSample(samples, sample) {
  return samples.labels ? colorOf(samples.labels[sample]) : "--color-none";
}

/** Paints the small dot that stands before a class name. */
export function paintDot(node, samples, sample) {
  node.hidden = !samples.labels;
  node.style.backgroundColor = `var(${colorOfSample(samples, sample)})`;
}
