// Samples of anything that can be repeated, from nanoseconds to minutes: warmed up, long enough for the clock, and not longer than
// asked. For integer kernels there are windows.ts. Read next: ladder.ts, float.ts.
import { summarize, type Rates } from "./windows.ts";

/** What takes longer than this, and than twice the time for it, is run once. */
const long_s = 0.3;
/** A sample shorter than this is repeated inside. */
const shortest_s = 0.002;
const most = 200;

/** Seconds that `repeats` runs take. */
export type Timed = (repeats: number) => number;

/** As Measured in windows.ts: a thread's rate by CPU time is what it is worth where others take turns with it. */
export interface Sampled { rates: Rates; perCpuSecond: number }

/** Runs and tells the seconds. */
export function timed(run: () => void): Timed {
  return (repeats) => {
    const begin = Bun.nanoseconds();
    for (let i = 0; i < repeats; i++) run();
    return (Bun.nanoseconds() - begin) / 1e9;
  };
}

/**
 * Rates of several things that take turns, so that a disturbance meets all of them.
 * @param things each with the work of one run
 * @param seconds for each, but at least three samples; what takes far longer is run once, cold
 */
export function sampleInTurn(things: readonly { run: Timed; work: number }[], seconds: number): Sampled[] {
  const states = things.map(({ run, work }) => {
    const begin = cpuSeconds();
    const first = run(1);
    const cpu = cpuSeconds() - begin;
    if (first > Math.max(2 * seconds, long_s)) return { run, work, repeats: 0, rates: [work / first], cpu: [work / cpu], left: 0 };
    const again = Math.max(run(1), 1e-9);
    const repeats = Math.min(Math.max(1, Math.ceil(shortest_s / again)), 2 ** 20);
    run(repeats); // warm
    return { run, work, repeats, rates: [] as number[], cpu: [] as number[], left: seconds };
  });
  for (let round = 0; round < most; round++) {
    const open = states.filter(({ left, rates, repeats }) => left > 0 || (repeats > 0 && rates.length < 3));
    if (open.length === 0) break;
    for (const state of open) {
      const begin = cpuSeconds();
      const spent = state.run(state.repeats);
      const work = state.work * state.repeats;
      state.cpu.push(work / Math.max(cpuSeconds() - begin, 1e-6));
      state.rates.push(work / Math.max(spent, 1e-9));
      state.left -= spent;
    }
  }
  return states.map(({ rates, cpu }) => ({
    rates: { ...summarize(rates), min: Math.min(...rates), max: Math.max(...rates) },
    // The mean: the system may tell the time of a thread that runs just now a tick late, which evens out.
    perCpuSecond: cpu.length / cpu.reduce((sum, rate) => sum + 1 / rate, 0),
  }));
}

/** CPU time of this process, all threads. */
function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
