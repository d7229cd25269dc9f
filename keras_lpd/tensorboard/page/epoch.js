/**
 * All that the page shows of one run at one epoch, fetched and cached.
 *
 * @typedef {object} Model
 * @property {string} name
 * @property {string} layer
 * @property {number} width
 *
 * @typedef {object} Samples
 * @property {number} count
 * @property {number} k
 * @property {number[] | null} labels
 * @property {string[] | null} class_names
 * @property {{width: number, height: number, columns: number} | null} thumbnails
 * @property {Model} teacher
 * @property {Model} student
 *
 * @typedef {object} Side what one of the two models makes of the samples
 * @property {Int32Array} neighbors k of each sample, nearest first
 * @property {Float32Array} distances
 * @property {Float32Array} map x and y of each sample
 * @property {Int32Array | null} predictions
 *
 * @typedef {object} Epoch
 * @property {string} run
 * @property {number} step
 * @property {Samples} samples
 * @property {ImageBitmap | null} sheet thumbnails of all samples
 * @property {Side} teacher
 * @property {Side} student
 * @property {Float32Array} overlap
 */

import { Cache } from "./cache.js";
import { Trouble, getBlob, getBuffer, getJson } from "./server.js";
import { writtenFor } from "./timeline.js";

const cache = new Cache(128 * 1024 * 1024);

/** Makes the next reading of a run ask the server again. */
export const forgetRun = (run) => cache.forget(run);

/**
 * @param {import("./server.js").Address} address
 * @param {() => Promise<{value: unknown, bytes: number}>} fetched
 */
async function cached({ run, tag, step }, fetched) {
  const key = Cache.key(run, tag, step);
  const known = cache.get(key);
  if (known !== undefined) {
    return known;
  }
  const { value, bytes } = await fetched();
  cache.set(key, run, value, bytes);
  return value;
}

const readSamples = (address, signal) =>
  cached(address, async () => {
    const value = await getJson(address, signal);
    return { value, bytes: 16 * value.count };
  });

/** An image of all the thumbnails, or `null` if the browser cannot make one of it. */
const readSheet = (address, signal) =>
  cached(address, async () => {
    const blob = await getBlob(address, signal);
    const value = await createImageBitmap(blob).catch(() => null);
    return { value, bytes: value ? 4 * value.width * value.height : 0 };
  });

async function readArray(address, Numbers, length, signal) {
  const numbers = await cached(address, async () => {
    const buffer = await getBuffer(address, signal);
    const whole = buffer.byteLength % Numbers.BYTES_PER_ELEMENT === 0;
    return { value: new Numbers(whole ? buffer : 0), bytes: buffer.byteLength };
  });
  if (numbers.length !== length) {
    throw new Trouble(
      `"${address.tag}" of the run "${address.run}" does not fit its samples: ` +
        `${numbers.length} numbers instead of ${length}.`,
    );
  }
  return numbers;
}

/**
 * @param {string} run
 * @param {import("./timeline.js").Tags} tags
 * @param {number} step
 * @param {AbortSignal} signal
 * @returns {Promise<Epoch>}
 */
export async function readEpoch(run, tags, step, signal) {
  const once = (tag) => ({ run, tag, step: writtenFor(tags[tag], step) });
  const samples = await readSamples(once("samples"), signal);
  const { count, k } = samples;

  const readSide = async (model, at, hasPredictions) => {
    const [neighbors, distances, map, predictions] = await Promise.all([
      readArray(at(`${model}/neighbors`), Int32Array, count * k, signal),
      readArray(at(`${model}/distances`), Float32Array, count * k, signal),
      readArray(at(`${model}/map`), Float32Array, count * 2, signal),
      hasPredictions
        ? readArray(at(`${model}/predictions`), Int32Array, count, signal)
        : null,
    ]);
    return { neighbors, distances, map, predictions };
  };

  const now = (tag) => ({ run, tag, step });
  const [sheet, teacher, student, overlap] = await Promise.all([
    samples.thumbnails && tags.thumbnails?.length
      ? readSheet(once("thumbnails"), signal)
      : null,
    readSide("teacher", once, Boolean(tags["teacher/predictions"]?.length)),
    readSide("student", now, Boolean(tags["student/predictions"]?.includes(step))),
    readArray(now("overlap"), Float32Array, count, signal),
  ]);
  return { run, step, samples, sheet, teacher, student, overlap };
}
