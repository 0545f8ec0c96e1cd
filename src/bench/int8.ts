// The benchmarks of `egg bench int8`, from one matrix product to whole training steps, each as a share of the peak that is
// measured before and after it. The list of what is measured is here, with the floors; how, in windows.ts and steps.ts.
import { openContext, type Context } from "../native/machine.ts";
import { readSizes, type Hardware } from "./machine.ts";
import type { Figure, Item, Section } from "./steady.ts";
import { matrixMacs, measureSteps, type StepPatience, type StepRates, type StepShape } from "./steps.ts";
import { measure, type BenchShape, type Measured, type Patience } from "./windows.ts";

export interface Int8Options {
  context: Context;
  hardware: Hardware;
  windows: Patience;
  steps: StepPatience;
  /** Tokens of a sequence: 128, or fewer where there is little time. */
  sequence: number;
}

/** Members side by side in a panel: more of them run as independent panels, as in training. */
const panelMembers = 64;
const shapes = [
  { rule: "egg.c", hidden: 128, layers: 2, forward: 0.87, step: 0.83, noise: 0.01 },
  { rule: "egg.c", hidden: 256, layers: 6, forward: 0.91, step: 0.89, noise: 0.01 },
  { rule: "nano-egg", hidden: 256, layers: 6, forward: 0.88, step: 0.85, noise: 0.05 },
  { rule: "egg.c", hidden: 512, layers: 4, forward: 0.93, step: 0.91, noise: 0.01 },
  { rule: "egg.c", hidden: 1024, layers: 4, forward: null, step: null, noise: 0.01 }, // larger than most last-level caches
] as const;
type Model = Pick<StepShape, "rule" | "hidden" | "layers">;
/** The floors are those of AVX-512 VNNI; what other instructions give, they must use to 85 %. The scalar tier is the oracle, and has none. */
const otherTiers = 0.85;

/** All sections for this machine, nothing measured yet. */
export function int8Sections(options: Int8Options): Section[] {
  const { context } = options;
  const floor = (value: number | null): number | null =>
    value === null || context.tier === "scalar" ? null : context.tier === "avx512vnni" ? value : Math.min(value, otherTiers);
  return [
    { name: "read", title: "Memory: reading, all threads side by side where it says so", items: memory(options) },
    { name: "P1", title: "P1: int8 matrix product with rank-one term (rows x cols, N members)", items: products(options, floor(0.95)) },
    ...training(options, floor),
  ];
}

const plain = { clock: "wall", floor: null, ceiling: null, ratio: null } as const;

function memory(options: Int8Options): Item[] {
  return threadCounts(options).flatMap(({ all, threads, suffix }) =>
    readSizes(options.hardware, threads).map(({ level, bytes }) => {
      const id = `read/${level}${suffix}`;
      const kib = Math.ceil(bytes / 1024);
      return { id, all, run: async () => windowFigure(options, { what: "read", kib }, all, { ...plain, id, label: `${level}, ${size(kib)} a thread`, unit: "B/s", threads, macs: 0, parameters: { kib } }) };
    }));
}

function products(options: Int8Options, floor: number | null): Item[] {
  return threadCounts(options).flatMap(({ all, threads, suffix }) =>
    [[512, 512], [2048, 512], [512, 2048]].flatMap(([rows, cols]) =>
      [32, 64, 128, 512, 1024].map((members) => {
        const groups = Math.min(members, panelMembers) / 32;
        const panels = members / 32 / groups;
        const id = `P1/${rows}x${cols}/N${members}${suffix}`;
        const shape: BenchShape = { what: "matmul", rows, cols, groups, panels };
        return { id, all, run: async () => windowFigure(options, shape, all, { ...plain, id, label: `${rows} x ${cols}, N ${members}`, unit: "MAC/s", threads, macs: 1, floor, parameters: { rows: rows!, cols: cols!, members } }) };
      })));
}

/** Sections of whole steps, and of the phases inside them. */
function training(options: Int8Options, floor: (value: number | null) => number | null): Section[] {
  const { context, sequence } = options;
  const full = sequence === 128;
  const measured = new Map<string, StepRates>();
  // Contexts live as long as the process, so each number of threads gets one.
  const contexts = new Map([[context.threads, context]]);
  const on = (threads: number): Context => {
    if (!contexts.has(threads)) contexts.set(threads, openContext(threads, context.tier));
    return contexts.get(threads)!;
  };
  const steps = async (threads: number, { rule, hidden, layers }: Model, members: number, tokens: number, again: boolean): Promise<StepRates> => {
    const key = [threads, rule, hidden, layers, members, tokens].join();
    if (again || !measured.has(key)) measured.set(key, await measureSteps(on(threads), { rule, hidden, layers, members, sequence: tokens }, options.steps));
    return measured.get(key)!;
  };
  const describe = ({ shape }: StepRates) => ({ hidden: shape.hidden, layers: shape.layers, members: shape.members, sequence: shape.sequence });
  const population = 64 * Math.max(2, context.threads); // N 128 on two threads: at least one panel for each
  const nameOf = ({ rule, hidden, layers }: Model): string => `H${hidden}-L${layers}${rule === "egg.c" ? "" : `/${rule}`}`;
  const labelOf = ({ rule, hidden, layers }: Model): string => `H ${hidden}, L ${layers}${rule === "egg.c" ? "" : `, ${rule}`}`;

  const forward = shapes.map((model): Item => {
    const id = `P2/${nameOf(model)}`;
    return { id, all: false, run: async () => {
      const rates = await steps(1, model, 128, sequence, true);
      return { ...plain, id, label: labelOf(model), unit: "member-tokens/s", threads: 1, clock: "cpu", rates: rates.forward, perCpuSecond: null, macs: matrixMacs(model), floor: full ? floor(model.forward) : null, parameters: describe(rates) };
    } };
  });
  const whole = shapes.map((model): Item => {
    const id = `P3/${nameOf(model)}`;
    return { id, all: true, run: async () => {
      const rates = await steps(context.threads, model, population, sequence, true);
      const parameters = { ...describe(rates), noise_share: rates.noise.median, update_share: rates.update.median };
      return { ...plain, id, label: labelOf(model), unit: "member-tokens/s", threads: context.threads, rates: rates.wall, perCpuSecond: rates.perCpuSecond, macs: matrixMacs(model), floor: full ? floor(model.step) : null, parameters };
    } };
  });
  const updates = [64, 512].map((pairs): Item => {
    const id = `P5/${pairs}`;
    return { id, all: false, run: async () => {
      const { wall, perCpuSecond } = updateOfModel(options, pairs);
      return { ...plain, id, label: `${pairs} pairs, matrices of H 512, L 4`, unit: "MAC/s", threads: 1, rates: wall, perCpuSecond, macs: 1, floor: floor(pairs === 64 ? 0.7 : 0.85), parameters: { pairs, hidden: 512, layers: 4 } };
    } };
  });
  const values = threadCounts(options).map(({ all, threads, suffix }): Item => {
    const id = `P6/values${suffix}`;
    const shape: BenchShape = { what: "noise", rows: 512, cols: 512, groups: 32 };
    return { id, all, run: async () => windowFigure(options, shape, all, { ...plain, id, label: "noise", unit: "values/s", threads, macs: 0, parameters: { rows: 512, cols: 512 } }) };
  });
  const shares = shapes.map((model): Item => {
    const id = `P6/share/${nameOf(model)}`;
    return { id, all: true, run: async () => {
      const rates = await steps(context.threads, model, population, sequence, false);
      return { ...plain, id, label: `noise in a step, ${labelOf(model)}`, unit: "of the step", threads: context.threads, clock: "cpu", rates: rates.noise, perCpuSecond: null, macs: 0, ratio: rates.noise.median, ceiling: full ? model.noise : null, parameters: describe(rates) };
    } };
  });
  const scaling = threadSteps(context.threads).map((threads): Item => {
    const id = `P9/t${threads}`;
    return { id, all: threads > 1, run: async () => {
      // As many members for each thread, so that every thread has the same to do.
      const model: Model = { rule: "egg.c", hidden: 512, layers: 4 };
      const tokens = Math.min(32, sequence);
      const base = await steps(1, model, 64, tokens, threads === 1);
      const rates = threads === 1 ? base : await steps(threads, model, 64 * threads, tokens, true);
      return { ...plain, id, label: `${threads} ${threads === 1 ? "thread" : "threads"}, H 512, L 4`, unit: "member-tokens/s", threads, rates: rates.wall, perCpuSecond: null, macs: 0, ratio: rates.wall.p98 / (threads * base.wall.p98), floor: threads === 1 ? null : 0.9, parameters: describe(rates) };
    } };
  });
  return [
    { name: "P2", title: `P2: forward pass, one thread, N 128, T ${sequence}`, items: forward },
    { name: "P3", title: `P3: whole training step, N ${population}, T ${sequence}`, items: whole },
    { name: "P5", title: "P5: update of the weights", items: updates },
    { name: "P6", title: "P6: noise", items: [...values, ...shares] },
    { name: "P9", title: "P9: threads, 64 members for each: rate / (threads x rate of one)", items: scaling },
  ];
}

/** A model's whole update, from windows of each of its four shapes of matrix. */
function updateOfModel({ context, windows }: Int8Options, pairs: number): Measured {
  const kinds = [
    { rows: 512, cols: 512, count: 16 },
    { rows: 2048, cols: 512, count: 4 },
    { rows: 512, cols: 2048, count: 4 },
    { rows: 256, cols: 512, count: 1 },
  ];
  const weights = kinds.reduce((sum, { rows, cols, count }) => sum + rows * cols * count, 0);
  const parts = kinds.map(({ rows, cols, count }) => ({
    share: (rows * cols * count) / weights,
    found: measure(context, { what: "update", rows, cols, groups: pairs / 16, hidden: 512, layers: 4 }, false, { ...windows, seconds: windows.seconds / 2 }),
  }));
  const together = (rate: (found: Measured) => number): number => 1 / parts.reduce((sum, { share, found }) => sum + share / rate(found), 0);
  return {
    wall: {
      median: together(({ wall }) => wall.median),
      p98: together(({ wall }) => wall.p98),
      spread: parts.reduce((sum, { share, found }) => sum + share * found.wall.spread!, 0), // of several windows each
      samples: parts.reduce((sum, { found }) => sum + found.wall.samples, 0),
    },
    perCpuSecond: together(({ perCpuSecond }) => perCpuSecond),
  };
}

function windowFigure({ context, windows }: Int8Options, shape: BenchShape, all: boolean, about: Omit<Figure, "rates" | "perCpuSecond">): Figure {
  const { wall, perCpuSecond } = measure(context, shape, all, windows);
  return { ...about, rates: wall, perCpuSecond };
}

/** One thread and, where there are more, all of them. */
function threadCounts({ context }: Int8Options): { all: boolean; threads: number; suffix: string }[] {
  const one = { all: false, threads: 1, suffix: "" };
  return context.threads === 1 ? [one] : [one, { all: true, threads: context.threads, suffix: "/all" }];
}

/** 1, 2, 3 … up to 8, then powers of two, and the last: a large machine would take an hour otherwise. */
function threadSteps(last: number): number[] {
  const counts = Array.from({ length: last }, (_, i) => i + 1);
  return counts.filter((count) => count <= 8 || count === last || Number.isInteger(Math.log2(count)));
}

function size(kib: number): string {
  return kib >= 10_240 ? `${Math.round(kib / 1024)} MiB` : `${kib} KiB`;
}
