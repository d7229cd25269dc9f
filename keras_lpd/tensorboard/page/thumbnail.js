/** A sample's picture, cut from the sheet, or its name in a box where it has none. */

import { element } from "./dom.js";
import { labelOf } from "./words.js";

/** Up to this size, in pixels, a picture is shown in whole multiples, unsmoothed. */
const SMALL = 64;

/** The factor that fits a picture into a square without blurring small ones. */
function scaleTo(size, { width, height }) {
  const scale = size / Math.max(width, height);
  const sharp = scale >= 1 && Math.max(width, height) <= SMALL;
  return { sharp, scale: sharp ? Math.floor(scale) : scale };
}

/** @param {number} size of the square that it fits in, in CSS pixels */
export function makeThumbnail(size) {
  const canvas = element("canvas");
  const index = element("span", { class: "thumbnail-index" });
  const label = element("span", { class: "thumbnail-label" });
  const node = element(
    "div",
    { class: "thumbnail", "aria-hidden": "true" },
    canvas,
    index,
    label,
  );
  node.style.setProperty("--size", `${size}px`);
  let shape = null;

  const fit = (thumbnails) => {
    if (shape === thumbnails) {
      return;
    }
    shape = thumbnails;
    const { sharp, scale } = scaleTo(size, thumbnails);
    canvas.width = thumbnails.width;
    canvas.height = thumbnails.height;
    canvas.style.width = `${thumbnails.width * scale}px`;
    canvas.style.height = `${thumbnails.height * scale}px`;
    canvas.classList.toggle("sharp", sharp);
  };

  /** @param {import("./epoch.js").Epoch} epoch */
  const draw = ({ samples, sheet }, sample) => {
    node.classList.toggle("named", !sheet);
    if (!sheet) {
      index.textContent = String(sample);
      label.textContent = size < SMALL / 2 + 1 ? "" : labelOf(samples, sample) ?? "";
      return;
    }
    fit(samples.thumbnails);
    const { width, height, columns } = samples.thumbnails;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.drawImage(
      sheet,
      (sample % columns) * width,
      Math.floor(sample / columns) * height,
      width,
      height,
      0,
      0,
      width,
      height,
    );
  };

  return { node, draw };
}
