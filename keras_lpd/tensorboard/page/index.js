/**
 * The "Neighborhoods" dashboard: TensorBoard imports this module in an empty frame
 * and calls `render`.
 */

import { start } from "./app.js";
import { element } from "./dom.js";
import { followTheme } from "./theme.js";

/** Waits for the style sheet, so that nothing is measured or seen without it. */
function loadStyle() {
  return new Promise((resolve) => {
    const link = element("link", {
      rel: "stylesheet",
      href: new URL("style.css", import.meta.url).href,
    });
    link.addEventListener("load", resolve);
    link.addEventListener("error", resolve);
    document.head.append(link);
  });
}

export async function render() {
  document.documentElement.lang = "en";
  document.title = "Neighborhoods";
  followTheme();
  await loadStyle();
  start(document.body);
}
