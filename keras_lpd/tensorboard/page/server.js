/** The plugin's routes, which lie beside this module. */

/** An error whose message is meant for the reader of the page. */
export class Trouble extends Error {}

async function get(route, parameters, signal, read) {
  const url = new URL(route, import.meta.url);
  url.search = new URLSearchParams(parameters).toString();
  let response;
  try {
    response = await fetch(url, { signal });
    if (response.ok) {
      return await read(response);
    }
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    if (error instanceof SyntaxError) {
      throw new Trouble(`TensorBoard's answer to "${route}" is not readable.`);
    }
    throw new Trouble("TensorBoard does not answer. Is it still running?");
  }
  const { tag, run, step } = parameters;
  if (response.status === 404 && tag) {
    throw new Trouble(
      `TensorBoard has no "${tag}" of the run "${run}" at epoch ${step + 1}.`,
    );
  }
  throw new Trouble(
    `TensorBoard answers "${route}" with ${response.status} ${response.statusText}.`,
  );
}

/** Of two regular questions, the second must not wait for the first for ever. */
const inTime = () => AbortSignal.timeout(60_000);

const asJson = (response) => response.json();

/** By run: a `Map`, where even "constructor" is only a name. */
const byRun = async (response) => new Map(Object.entries(await response.json()));

/** @returns {Promise<Map<string, import("./timeline.js").Tags>>} */
export const getRuns = () => get("runs", {}, inTime(), byRun);

/** @returns {Promise<Map<string, [number, number][]>>} step and overlap */
export const getCurves = () => get("curves", {}, inTime(), byRun);

/**
 * @typedef {object} Address of one tensor
 * @property {string} run
 * @property {string} tag
 * @property {number} step
 */

/** @param {Address} address */
export const getJson = (address, signal) => get("tensor", address, signal, asJson);

/** @param {Address} address @returns {Promise<Blob>} */
export const getBlob = (address, signal) =>
  get("tensor", address, signal, (response) => response.blob());

/** @param {Address} address @returns {Promise<ArrayBuffer>} */
export const getBuffer = (address, signal) =>
  get("tensor", address, signal, (response) => response.arrayBuffer());
