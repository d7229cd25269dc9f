/** Light or dark, as the TensorBoard around this frame is, else as the system is. */

const DARK = "dark-mode";

/** Tells of a change of theme: what is drawn on a canvas has to be drawn again. */
export const themeChanges = new EventTarget();

function surroundings() {
  try {
    return window.parent === window ? null : window.parent.document.body;
  } catch {
    return null; // a parent of another origin keeps its document to itself
  }
}

function apply(dark) {
  const theme = dark ? "dark" : "light";
  if (document.documentElement.dataset.theme !== theme) {
    document.documentElement.dataset.theme = theme;
    themeChanges.dispatchEvent(new Event("change"));
  }
}

export function followTheme() {
  const body = surroundings();
  if (body) {
    const look = () => apply(body.classList.contains(DARK));
    new MutationObserver(look).observe(body, { attributeFilter: ["class"] });
    look();
  } else {
    const preference = window.matchMedia("(prefers-color-scheme: dark)");
    preference.addEventListener("change", () => apply(preference.matches));
    apply(preference.matches);
  }
}

/** What a CSS custom property is in the present theme. */
export function themed(property) {
  return getComputedStyle(document.documentElement).getPropertyValue(property).trim();
}
