/** Points in the plane: where they come to lie in a box, and which is near. */

/**
 * Centres the points in the box, with the same scale for x and y: distances in a map
 * mean something.
 *
 * @param {Float32Array} map x and y of each point
 * @returns {Float32Array} the same in pixels, y downwards; NaN stays NaN
 */
export function place(map, width, height, margin) {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < map.length; i += 2) {
    const [x, y] = [map[i], map[i + 1]];
    if (Number.isFinite(x) && Number.isFinite(y)) {
      left = Math.min(left, x);
      right = Math.max(right, x);
      low = Math.min(low, y);
      high = Math.max(high, y);
    }
  }
  const wide = right - left || Number.MIN_VALUE;
  const tall = high - low || Number.MIN_VALUE;
  const scale = Math.min(
    Math.max(0, width - 2 * margin) / wide,
    Math.max(0, height - 2 * margin) / tall,
  );
  const placed = new Float32Array(map.length);
  for (let i = 0; i < map.length; i += 2) {
    placed[i] = width / 2 + (map[i] - (left + right) / 2) * scale;
    placed[i + 1] = height / 2 - (map[i + 1] - (low + high) / 2) * scale;
  }
  return placed;
}

/**
 * @param {Float32Array} points
 * @param {Iterable<number>} among indices of points
 * @param {(dx: number, dy: number) => number} cost of going there; the least wins
 * @returns {number | null} none where all cost `Infinity`
 */
function cheapest(points, among, x, y, cost) {
  let best = null;
  let least = Infinity;
  for (const i of among) {
    const price = cost(points[2 * i] - x, points[2 * i + 1] - y);
    if (price < least) {
      least = price;
      best = i;
    }
  }
  return best;
}

/** The point nearest to (x, y), if it is within reach. */
export function nearest(points, among, x, y, reach) {
  const cost = (dx, dy) => {
    const square = dx * dx + dy * dy;
    return square <= reach * reach ? square : Infinity;
  };
  return cheapest(points, among, x, y, cost);
}

/** The next point from one of them, seen in a direction: less than 45 degrees off. */
export function towards(points, among, from, [right, down]) {
  const cost = (dx, dy) => {
    const ahead = dx * right + dy * down;
    const aside = Math.abs(dx * down - dy * right);
    return ahead > 0.5 && aside <= ahead ? ahead + aside : Infinity;
  };
  return cheapest(points, among, points[2 * from], points[2 * from + 1], cost);
}
