/** Asks again every half minute, while there is someone to see it. */

const PERIOD = 30_000;

/** TensorBoard gives the frames of its hidden dashboards no height. */
const seen = () => document.visibilityState === "visible" && window.innerHeight > 0;

/**
 * @param {() => Promise<void>} refresh never fails
 * @returns {() => Promise<void>} refreshes at once
 */
export function keepFresh(refresh) {
  let timer = 0;
  let last = -Infinity;
  let running = null;

  const now = () => {
    running ??= (async () => {
      clearTimeout(timer);
      await refresh();
      last = performance.now();
      timer = setTimeout(due, PERIOD);
      running = null;
    })();
    return running;
  };

  const due = () => {
    if (seen() && performance.now() - last >= PERIOD - 100) {
      now();
    }
  };

  document.addEventListener("visibilitychange", due);
  window.addEventListener("resize", due);
  return now;
}
