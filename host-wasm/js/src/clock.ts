declare const performance: { now(): number };

/**
 * Milliseconds that never go back. A wall clock may be set back, and `performance.now()` stands still while some systems
 * sleep, so it is whichever of the two has gone on further.
 */
export function monotonic(): () => number {
  const wallStart = Date.now();
  const start = performance.now();
  let last = 0;
  return () => {
    last = Math.max(last, performance.now() - start, Date.now() - wallStart);
    return last;
  };
}
