// Many short windows of one kernel: the fast ones show what it can do, whoever else uses the machine (the slow ones show
// that somebody does). The loop inside a window is native (kernels/bench.zig). Which shapes: int8.ts, float.ts.
import { call, emptyRecord, emptyWord, pack, unpack, type RecordOf } from "../native/abi.ts";
import type { Context } from "../native/machine.ts";

/** By their number in kernels/bench.zig. */
const kinds = ["peak", "clock", "read", "matmul", "noise", "update", "multiply_add", "dot_bf16", "scale", "add"] as const;

export interface BenchShape {
  what: (typeof kinds)[number];
  /** Of the matrix. */
  rows?: number;
  cols?: number;
  /** Groups of 16 pairs: of a panel (matmul), of the population (update), made in turn (noise). */
  groups?: number;
  /** Panels taken in turn (matmul). */
  panels?: number;
  /** Of the model whose matrices of this shape are updated. */
  hidden?: number;
  layers?: number;
  /** Memory a thread (read, scale, add). */
  kib?: number;
}

/** Rates of some windows or steps, in work a second. */
export interface Rates {
  median: number;
  /** The 98th percentile: what the kernel does while nobody disturbs it. */
  p98: number;
  /** Distance between the quartiles, as a share of the median; null for a single sample, of which nobody knows. */
  spread: number | null;
  samples: number;
  /** The slowest and the fastest, where they are told. */
  min?: number;
  max?: number;
}

/** The same work by two clocks: wall time, and the CPU time of the threads that did it. */
export interface Measured {
  wall: Rates;
  /** 98th percentile of the work a second of CPU time: one thread's rate, also where others take turns with it. */
  perCpuSecond: number;
}

/** How long to look. */
export interface Patience {
  /** Windows at most. */
  windows: number;
  /** Seconds at most. */
  seconds: number;
}

/** Long enough that reading the clock does not count, short enough to fall between two interruptions. */
const window_s = 0.0004;
/** Few figures are better than none, however slow the kernel. */
const fewest = 3;

/** Windows of one shape, on the calling thread or on all; by wall clock from the first thread's start to the last one's end. */
export function measure(context: Context, shape: BenchShape, allThreads: boolean, patience: Patience): Measured {
  const { what, ...rest } = shape;
  const handle = emptyWord();
  const fields = { rows: 0, cols: 0, groups: 0, panels: 0, hidden: 0, layers: 0, kib: 0, ...rest, what: kinds.indexOf(what) };
  call("egg_bench_open", [context.handle, pack("BenchShape", fields), handle]);
  const bench = handle.getUint32(0, true);
  try {
    const record = emptyRecord("BenchWindow");
    const window = (repeats: number): RecordOf<"BenchWindow"> => {
      call("egg_bench_window", [bench, repeats, allThreads ? 1 : 0, record]);
      return unpack("BenchWindow", record);
    };
    const repeats = calibrate(window);
    const wall: number[] = [];
    const cpu: number[] = [];
    const end = performance.now() + patience.seconds * 1000;
    while (wall.length < patience.windows && (wall.length < fewest || performance.now() < end)) {
      const { seconds, cpu_seconds, work } = window(repeats);
      wall.push(work / seconds);
      cpu.push(work / cpu_seconds);
    }
    return { wall: summarize(wall), perCpuSecond: summarize(cpu).p98 };
  } finally {
    call("egg_release", [bench]);
  }
}

/** Repeats that fill a window; runs until the machine is warm. */
function calibrate(window: (repeats: number) => { seconds: number }): number {
  let repeats = 1;
  for (let round = 0; round < 30; round++) {
    // Disturbed windows look long: the best of three counts.
    const seconds = Math.min(...[0, 1, 2].map(() => window(repeats).seconds));
    if (seconds >= window_s * 0.7) break;
    const factor = window_s / Math.max(seconds, window_s / 64);
    repeats = Math.min(Math.max(Math.round(repeats * factor), repeats + 1), 2 ** 20);
  }
  return repeats;
}

/** Median, 98th percentile and spread of at least one figure. */
export function summarize(figures: readonly number[]): Rates {
  const sorted = Float64Array.from(figures).sort();
  const at = (share: number): number => {
    const place = share * (sorted.length - 1);
    const low = Math.floor(place);
    const high = Math.min(low + 1, sorted.length - 1);
    return sorted[low]! + (sorted[high]! - sorted[low]!) * (place - low);
  };
  const median = at(0.5);
  return { median, p98: at(0.98), spread: figures.length === 1 ? null : (at(0.75) - at(0.25)) / median, samples: figures.length };
}
