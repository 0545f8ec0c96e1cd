// SIGINT and SIGTERM: the first asks the run to stop at the next safe point, the second ends the process at once.
// Not SIGPIPE: Bun ignores it, and a reader that went away shows as EPIPE on writing, which the writer has to expect.
// Read next: loop.ts, which asks `requested` after each step.

export type StopSignal = "SIGINT" | "SIGTERM";

export interface Stop {
  /** The signal that asked to stop, or null. */
  readonly requested: StopSignal | null;
  /** Gives both signals their usual meaning back. */
  release(): void;
}

const signals = ["SIGINT", "SIGTERM"] as const;

/** `timeout` and npm send the same signal several times over; nobody presses Ctrl-C twice within this time. */
const echo_ms = 100;

/**
 * Watches for SIGINT and SIGTERM. JavaScript hears of them only between its own steps, so what is being written when
 * the first arrives is written to the end.
 * @param onFirst called on the first one, e.g. to cancel native work
 */
export function catchSignals(onFirst: (signal: StopSignal) => void = () => {}): Stop {
  let requested: StopSignal | null = null;
  let requestedAt = 0;
  const handle = (signal: StopSignal): void => {
    if (requested !== null) {
      if (signal === requested && performance.now() - requestedAt < echo_ms) return;
      dieBySignal(signal);
    }
    requested = signal;
    requestedAt = performance.now();
    onFirst(signal);
  };
  for (const signal of signals) process.on(signal, handle);
  return {
    get requested() {
      return requested;
    },
    release() {
      for (const signal of signals) process.removeListener(signal, handle);
    },
  };
}

/**
 * Ends the process by a signal, after clean-up. Never by process.exit(130): a shell loop would go on with its next run,
 * since only a death by SIGINT tells the shell that the user wants out.
 */
export function dieBySignal(signal: StopSignal): never {
  for (const each of signals) process.removeAllListeners(each);
  process.kill(process.pid, signal);
  // Reached only where the parent had the signal ignored or blocked.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
  process.exit(signal === "SIGINT" ? 130 : 143);
}
