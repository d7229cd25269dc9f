/** Round numbers for the ticks of an axis. */

/**
 * @param {number} low
 * @param {number} high
 * @param {number} most as many steps at most
 * @param {number} least a step is not smaller
 * @returns {number[]} multiples of 1, 2 or 5 times a power of ten, from low to high
 */
export function ticks(low, high, most, least = 0) {
  const rough = Math.max((high - low) / Math.max(1, most), least, 1e-9);
  const power = 10 ** Math.floor(Math.log10(rough) + 1e-9);
  const step = [1, 2, 5, 10].find((times) => times * power >= rough * 0.999) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; i += 1) {
    found.push(i * step);
  }
  return found;
}
