import { KachetError } from "./errors.js";

/** Fetches that are on their way, so that whoever asks for the same waits for it instead of asking again. */
export class Flights<T> {
  readonly #flights = new Map<string, Flight<T>>();
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(
    readonly limit: number,
    readonly waitingLimit: number,
  ) {}

  /** What is on its way under this key, if it began at `since` or later. */
  find(key: string, since: number): Promise<T> | undefined {
    const flight = this.#flights.get(key);
    return flight !== undefined && flight.startedAt >= since ? flight.outcome : undefined;
  }

  /** Begins one. No more than `limit` run at a time; the others wait in the order in which they came. */
  begin(key: string | null, startedAt: number, body: () => Promise<T>): Promise<T> {
    const outcome = this.#run(body);
    if (key !== null) {
      const flight = { startedAt, outcome };
      this.#flights.set(key, flight);
      const land = () => {
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
      };
      outcome.then(land, land);
    }
    return outcome;
  }

  async #run(body: () => Promise<T>): Promise<T> {
    if (this.#running >= this.limit) {
      if (this.#waiting.length >= this.waitingLimit) {
        const message = `${this.limit} fetches are on their way and ${this.#waiting.length} wait`;
        throw new KachetError("TOO_MANY_FETCHES", message);
      }
      // Whoever lands hands its place over, so that the count stays as it is.
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else {
      this.#running += 1;
    }
    try {
      return await body();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}

interface Flight<T> {
  startedAt: number;
  outcome: Promise<T>;
}

/** Rejects when `signal` aborts, and does as `promise` does before that. */
export function until<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    const settled = () => signal.removeEventListener("abort", abort);
    promise.then(resolve, reject).finally(settled);
  });
}
