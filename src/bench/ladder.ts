// `egg bench ladder`: how fast the same work becomes from the textbook's loops to threads and the vendor's library, and that it stays
// right. Sizes, sections, and what is told of each level. The levels: levels.ts, step-levels.ts. Pictures: ladder-plot.ts.
import { EggError } from "../errors.ts";
import type { Context } from "../native/machine.ts";
import { attentions, products, type Level, type Workload } from "./levels.ts";
import { deviation, someRows } from "./reference.ts";
import type { Report } from "./report.ts";
import { sampleInTurn } from "./samples.ts";
import type { Figure, Item, Section } from "./steady.ts";
import { trainingSteps } from "./step-levels.ts";

export interface LadderOptions {
  /** The same kernels on one thread and on all. */
  one: Context;
  all: Context;
  /** For each figure. */
  seconds: number;
  /** Seconds that one run may take; longer ones are left out. */
  longest: number;
  quick: boolean;
}

/** Rows that are compared with f64, at most, so that the comparison does not take longer than the product. */
const rows_compared = 8;
/** From this size on a level's rate tells what a larger one takes; below, calls and loops cost as much as the work. */
const telling = 64;
/** A level further from f64 than this is wrong, not imprecise. */
const most_wrong = 1e-3;

/** An unmeasured level by id, and why. */
export type Unavailable = NonNullable<Report["unavailable"]>;

/** All sections, nothing measured yet. What turns out to be unavailable is added to `unavailable` while they are measured. */
export function ladderSections(options: LadderOptions): { sections: Section[]; unavailable: Unavailable } {
  const { one, all, quick } = options;
  const workloads: [Workload, number[]][] = [
    [products(one, all), quick ? [4, 16, 64, 256, 512] : [4, 16, 64, 128, 256, 512, 1024, 2048]],
    [attentions(one, all), quick ? [4, 16, 64, 256] : [4, 16, 64, 256, 1024, 2048]],
    [trainingSteps(one, all), quick ? [16, 64] : [16, 64, 128, 256, 512]],
  ];
  const unavailable: Unavailable = [];
  const sections = workloads.map(([workload, sizes]): Section => {
    const usable = workload.levels.filter(({ missing }) => missing === null);
    return { name: workload.name, title: workload.title, items: sizes.flatMap((size) => usable.map((level) => itemOf(options, workload, level, size, unavailable))) };
  });
  for (const [workload] of workloads) for (const { name, missing } of workload.levels) if (missing !== null) unavailable.push({ id: `${workload.name}/${name}`, reason: missing });
  return { sections, unavailable };
}

const lastRates = new WeakMap<Level, number>();

/** About how fast a level is beyond `telling`: as at the size before, or as one run there. */
function roughRate(level: Level): number {
  const known = lastRates.get(level);
  if (known !== undefined) return known;
  const running = level.open(telling);
  try {
    return running.work / running.run(1);
  } finally {
    running.release();
  }
}

const references = new WeakMap<Workload, { size: number; rows: number[]; width: number; expected: Float64Array[] }>();

function itemOf(options: LadderOptions, workload: Workload, level: Level, size: number, unavailable: Unavailable): Item {
  const id = `${workload.name}/${size}/${level.name}`;
  return {
    id,
    all: level.all,
    run: async () => {
      const rate = size > telling ? roughRate(level) : Infinity;
      const running = level.open(size);
      try {
        const guess = running.work / rate;
        if (guess > options.longest) {
          unavailable.push({ id, reason: `one run would take about ${Math.ceil(guess)} s, allowed are ${options.longest} s (--longest)` });
          return null;
        }
        const [sampled] = sampleInTurn([running], options.seconds);
        if (size >= telling) lastRates.set(level, sampled!.rates.median);
        const ran = running.ran();
        return figureOf(options, workload, level, size, { ...sampled!, ran, error: errorOf(workload, size, running.output()), parameters: running.parameters ?? {} });
      } finally {
        running.release();
      }
    },
  };
}

function figureOf(options: LadderOptions, workload: Workload, level: Level, size: number, found: Pick<Figure, "rates" | "perCpuSecond" | "ran" | "error" | "parameters">): Figure {
  const id = `${workload.name}/${size}/${level.name}`;
  if (!(found.error! <= most_wrong)) throw new EggError("internal", `[ladder] ${id}: the result is ${found.error} away from that in f64.`);
  return {
    id, label: level.title, unit: "FLOP/s", threads: level.all ? options.all.threads : 1, clock: "wall", floor: null, ceiling: null, ratio: null, macs: 1,
    ...found, parameters: { size, ...found.parameters },
  };
}

/** How far some rows of the result are from f64; the right ones are computed once a size. */
function errorOf(workload: Workload, size: number, output: Float32Array): number {
  let right = references.get(workload);
  if (right?.size !== size) {
    const rows = workload.name === "step" ? [0] : someRows(size, rows_compared);
    right = { size, rows, ...workload.reference(size, rows) };
    references.set(workload, right);
  }
  return deviation(output, right.width, right.rows, right.expected);
}
