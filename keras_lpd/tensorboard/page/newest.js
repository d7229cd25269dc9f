/** Of several answers under way, only the one asked for last counts. */
export class Newest {
  #controller = null;

  /**
   * @template T
   * @param {(signal: AbortSignal) => Promise<T>} work
   * @param {{done: (value: T) => void, failed: (error: Error) => void}} handlers
   *   neither is called once something newer was asked for
   */
  async ask(work, { done, failed }) {
    this.#controller?.abort();
    const controller = new AbortController();
    this.#controller = controller;
    let value;
    try {
      value = await work(controller.signal);
    } catch (error) {
      if (!controller.signal.aborted) {
        failed(error);
      }
      return;
    }
    if (!controller.signal.aborted) {
      done(value);
    }
  }

  /** Whatever is under way counts no more. */
  drop() {
    this.#controller?.abort();
  }
}
