/**
 * Elements from data: strings become text nodes, so what a name contains is never
 * markup.
 */

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    setAttribute(node, name, value);
  }
  node.append(...children);
  return node;
}

/**
 * @param {Element} node
 * @param {string} name
 * @param {string | number | boolean | null | undefined} value nothing and `false`
 *   take the attribute away
 */
export function setAttribute(node, name, value) {
  if (value === false || value === null || value === undefined) {
    node.removeAttribute(name);
  } else {
    node.setAttribute(name, value === true ? "" : String(value));
  }
}

/** An HTML element with these attributes and children (elements or texts). */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  return fill(node, attributes, children);
}

/** Shows a text, in full on hovering, as it may be cut off. */
export function setText(node, text) {
  if (node.textContent !== text) {
    node.textContent = text;
    node.title = text;
  }
}

/** Keys with a modifier belong to the browser. @param {KeyboardEvent} event */
export const withModifier = (event) => event.ctrlKey || event.metaKey || event.altKey;
