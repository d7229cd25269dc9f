/** What has gone wrong, or what there is to do where there is nothing to show. */

import { element } from "./dom.js";

const HOW = 'model.fit(..., callbacks=[EmbeddingProjector("logs", dataset)])';

/** @param {{onRetry: () => void}} handlers */
export function makeMessages({ onRetry }) {
  const text = element("span");
  const retry = element("button", { class: "plain", type: "button" }, "Try again");
  const trouble = element("div", { class: "trouble" }, text, retry);
  const emptyTitle = element("h2");
  const emptyText = element("p");
  const how = element("code", {}, HOW);
  const empty = element("div", { class: "nothing" }, emptyTitle, emptyText, how);
  const node = element(
    "div",
    { role: "alert", "data-testid": "message" },
    trouble,
    empty,
  );
  retry.addEventListener("click", onRetry);

  /** @type {Map<string, string>} what troubles each part of the page */
  const troubles = new Map();

  const draw = (view) => {
    text.textContent = [...new Set(troubles.values())].join(" ");
    trouble.hidden = !troubles.size;
    empty.hidden = !view.asked || view.run !== null;
    if (view.begun) {
      emptyTitle.textContent = "The first epoch is under way.";
      emptyText.textContent = "The page shows it as soon as it is written.";
    } else {
      emptyTitle.textContent = "No neighborhoods in these logs yet.";
      emptyText.textContent =
        "Train with the callback EmbeddingProjector of keras-lpd, writing to the " +
        "folder that TensorBoard reads; the page shows the first epoch by itself:";
    }
    how.hidden = view.begun;
    node.hidden = trouble.hidden && empty.hidden;
  };

  return {
    node,
    draw,
    /** @param {string} part @param {string | null} words `null` when all is well */
    tell(part, words) {
      if (words === null) {
        troubles.delete(part);
      } else {
        troubles.set(part, words);
      }
    },
  };
}
