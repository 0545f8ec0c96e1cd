// The levels of the ladder for a matrix product and for attention: each opened for a size, run, and asked what really ran. The same
// operands for all. A whole training step: step-levels.ts. Which sizes, and the measuring: ladder.ts.
import { EggError } from "../errors.ts";
import { openBlas, type Blas } from "../native/blas.ts";
import { InstructionList, NativeArena, NativeProgram } from "../native/float.ts";
import { plainLevels, runLevel, softmaxRows, type PlainLevel } from "../native/ladder.ts";
import type { Context, TierName } from "../native/machine.ts";
import { attentionRows, operand, productRows } from "./reference.ts";
import { timed, type Timed } from "./samples.ts";

/** A level that is ready to run on operands of one size. */
export interface Running {
  run: Timed;
  /** Multiplications and additions of one run, as the problem needs them, whatever the level does. */
  work: number;
  /** The result of the last run; every value is overwritten by a run, and was NaN before the first. */
  output(): Float32Array;
  /** What ran, as the code told of itself. Throws EggError("internal") where that is not what the level names. */
  ran(): string;
  /** Anything to be told with the figure. */
  parameters?: Record<string, number>;
  release(): void;
}

export interface Level {
  name: string;
  title: string;
  /** Whether it uses all threads. */
  all: boolean;
  /** Why it cannot run on this machine; null where it can. */
  missing: string | null;
  open(size: number): Running;
}

/** What is computed at each level. */
export interface Workload {
  name: string;
  title: string;
  /** What a size is. */
  sizeName: string;
  levels: Level[];
  /** Rows of the right result in f64, and their width. */
  reference(size: number, rows: readonly number[]): { width: number; expected: Float64Array[] };
}

/** Lanes of f32 that a tier's vectors have. */
export function lanesOf(tier: TierName): number {
  return { scalar: 1, avx2: 8, avxvnni: 8, avx512vnni: 16, neon: 4, dotprod: 4 }[tier];
}

const ladderError = (level: string, expected: string, found: string): never => {
  throw new EggError("internal", `[ladder] ${level}: expected ${expected}, but ${found} ran.`);
};

/** Throws unless vectors of the tier ran, on at most `threads` threads. @returns what ran, in words; `threads` the most seen */
export function describeRan(level: string, tier: TierName, found: { lanes: number; threads: number }, threads: number): string {
  const lanes = lanesOf(tier);
  const words = (of: { lanes: number; threads: number }): string => `${of.lanes === 1 ? "plain twins" : `vectors of ${of.lanes}`} on ${of.threads} ${of.threads === 1 ? "thread" : "threads"}`;
  if (found.lanes !== lanes || found.threads < 1 || found.threads > threads) ladderError(level, words({ lanes, threads }), words(found));
  return `${tier}: ${words(found)}`;
}

/** A plain level: what it returns must be its own number, and as many inner loops as it has. */
function plain(level: PlainLevel, sizes: { m: number; n: number; k: number }, data: Float32Array, from: number, work: number, loops: number): Running {
  let last: { level: number; inner: number } | null = null;
  const told = (number: number): string => Object.entries(plainLevels).find(([, value]) => value === number)?.[0] ?? `level ${number}`;
  return {
    run: (repeats) => {
      const { seconds, ...rest } = runLevel(level, sizes, data, repeats);
      last = rest;
      return seconds;
    },
    work,
    output: () => data.subarray(from),
    ran: () => {
      if (last === null) return ladderError(level, level, "nothing");
      if (last.level !== plainLevels[level] || last.inner !== loops) ladderError(level, `${level} with ${loops} inner loops`, `${told(last.level)} with ${last.inner}`);
      return `${told(last.level)}: ${last.inner} inner loops`;
    },
    release: () => {},
  };
}

/** An instruction over `operands`, the result last, replayed as a program on a context's threads. */
function replayed(level: string, context: Context, operands: readonly Float32Array[], work: number, add: (list: InstructionList, at: { arena: number; offset: number }[]) => void): Running {
  let bytes = 0;
  const offsets = operands.map(({ byteLength }) => {
    const offset = bytes;
    bytes += Math.ceil(byteLength / 64) * 64 + 64; // not all at the same place in a page
    return offset;
  });
  const arena = new NativeArena(bytes);
  operands.forEach((values, i) => arena.write(offsets[i]!, values));
  // Small ones are many in a program, as in training: what is measured is the instruction, not the call from JavaScript.
  const copies = work < 1e6 ? 64 : 1;
  const list = new InstructionList();
  for (let i = 0; i < copies; i++) add(list, offsets.map((offset) => ({ arena: arena.handle, offset })));
  const program = new NativeProgram(context, list);
  const most = { lanes: 0, threads: 0 };
  const run = timed(() => program.runNow());
  return {
    run: (repeats) => {
      const seconds = run(repeats);
      const { lanes, threads } = program.ran;
      most.lanes = lanes;
      most.threads = Math.max(most.threads, threads);
      return seconds;
    },
    work: work * copies,
    output: () => {
      const result = new Float32Array(operands.at(-1)!.length);
      arena.read(offsets.at(-1)!, result);
      return result;
    },
    ran: () => describeRan(level, context.tier, most, context.threads),
    release: () => {
      program.release();
      arena.release();
    },
  };
}

function blasLevel(context: Context, open: (blas: Blas, size: number) => Omit<Running, "ran" | "release">): Level {
  const blas = openBlas();
  const level = { name: "blas", title: "vendor BLAS", all: true };
  if (typeof blas === "string") return { ...level, missing: blas, open: () => ladderError("blas", "a library", "nothing") };
  return {
    ...level,
    title: blas.useThreads(context.threads) ? blas.name : `${blas.name}, threads of its choice`,
    missing: null,
    open: (size) => {
      blas.useThreads(context.threads);
      return { ...open(blas, size), ran: () => `${blas.name} from ${blas.path}`, release: () => {} };
    },
  };
}

/** Levels on a graphics processor, which egg does not have: listed, so that nobody looks for them. */
export function metalLevels(titles: Record<string, string>): Level[] {
  const missing = process.platform === "darwin" ? "this version of egg has no Metal kernels" : `Metal is part of macOS; this is ${process.platform}`;
  return Object.entries(titles).map(([name, title]) => ({ name, title, all: false, missing, open: () => ladderError(name, "Metal", "nothing") }));
}

/** Why the levels "simd" and "threads" would be none of their own. */
export function notOnVectors({ tier }: Context): string | null {
  return tier === "scalar" ? "the scalar kernels are chosen (EGG_CPU), which have no vectors" : null;
}
export function notOnThreads(all: Context): string | null {
  return all.threads === 1 ? "there is one thread only (one core, or --threads 1)" : notOnVectors(all);
}

/** c = a b of n x n matrices. */
export function products(one: Context, all: Context): Workload {
  const work = (n: number): number => 2 * n ** 3;
  const operands = (n: number): Float32Array[] => [operand(n * n, 1), operand(n * n, 2), new Float32Array(n * n).fill(NaN)];
  const level = (name: PlainLevel, title: string, loops: (n: number) => number): Level => ({
    name, title, all: false, missing: null,
    open: (n) => {
      const data = new Float32Array(3 * n * n);
      operands(n).forEach((values, i) => data.set(values, i * n * n));
      return plain(name, { m: n, n, k: n }, data, 2 * n * n, work(n), loops(n));
    },
  });
  const gemm = (name: string, title: string, context: Context): Level => ({
    name, title, all: name === "threads", missing: name === "threads" ? notOnThreads(context) : notOnVectors(context),
    open: (n) => replayed(name, context, operands(n), work(n), (list, [a, b, c]) =>
      list.add("gemm", { a, b, c, ...square(n), outer: 1, inner: 1, a_outer: 0, a_inner: 0, b_outer: 0, b_inner: 0, c_outer: 0, c_inner: 0, a_dtype: "f32", b_dtype: "f32", c_dtype: "f32", compute: "f32", activation: "none", alpha: 1, beta: 0 })),
  });
  return {
    name: "gemm",
    title: "Matrix product, n x n",
    sizeName: "n",
    levels: [
      level("naive", "naive: rows times columns", (n) => n * n),
      level("reordered", "loop order: rows added to rows", (n) => n * n),
      level("blocked", "blocked and packed, plain loops", (n) => tiles(n)),
      gemm("simd", "vectors, one thread", one),
      gemm("threads", `${all.threads} threads`, all),
      blasLevel(all, (blas, n) => {
        const [a, b, c] = operands(n) as [Float32Array, Float32Array, Float32Array];
        return { run: timed(() => blas.multiply(c, a, b, { m: n, n, k: n })), work: work(n), output: () => c };
      }),
      ...metalLevels({ "metal-naive": "Metal, one thread an element", "metal-tiled": "Metal, tiles in threadgroup memory", "metal-matrix": "Metal, SIMD-group matrices", "metal-mps": "Metal Performance Shaders" }),
    ],
    reference: (n, rows) => {
      const [a, b] = operands(n) as [Float32Array, Float32Array];
      return { width: n, expected: productRows(a, b, n, n, rows) };
    },
  };
}

const square = (n: number) => ({ m: n, n, k: n, lda: n, ldb: n, ldc: n });

/** Register tiles of the blocked level (kernels/float/ladder.zig: 4 x 4, 64 rows and 256 of k at a time). */
function tiles(n: number): number {
  const across = Math.ceil(n / 4);
  let down = 0;
  for (let row = 0; row < n; row += 64) down += Math.ceil(Math.min(64, n - row) / 4);
  return Math.ceil(n / 256) * down * across;
}

const d = 64;

/** Causal attention of one head of width 64 over `time` positions. */
export function attentions(one: Context, all: Context): Workload {
  // A query sees what is before it: half of all pairs, twice d multiply-adds each. Exponentials are not counted.
  const work = (time: number): number => 2 * time * (time + 1) * d;
  const operands = (time: number): Float32Array[] => [...[1, 2, 3].map((seed) => operand(time * d, seed)), new Float32Array(time * d).fill(NaN)];
  const level = (name: PlainLevel, title: string, loops: (time: number) => number): Level => ({
    name, title, all: false, missing: null,
    open: (time) => {
      const data = new Float32Array(4 * time * d);
      operands(time).forEach((values, i) => data.set(values, i * time * d));
      return plain(name, { m: time, n: 0, k: d }, data, 3 * time * d, work(time), loops(time));
    },
  });
  const flash = (name: string, title: string, context: Context): Level => ({
    name, title, all: name === "threads", missing: name === "threads" ? notOnThreads(context) : notOnVectors(context),
    open: (time) => replayed(name, context, operands(time), work(time), (list, [q, k, v, o]) =>
      list.add("attention", { q, k, v, o, batch: 1, q_len: time, kv_len: time, heads: 1, kv_heads: 1, d, causal: true, scale: 1 / Math.sqrt(d), ...denseStrides })),
  });
  const pairs = (time: number): number => (time * (time + 1)) / 2;
  return {
    name: "attention",
    title: `Attention, causal, one head of ${d}, T positions`,
    sizeName: "T",
    levels: [
      level("scores", "naive: all scores written out", (time) => pairs(time) + time * d),
      level("online", "one pass: no score is written", pairs),
      flash("simd", "vectors, one thread", one),
      flash("threads", `${all.threads} threads`, all),
      blasLevel(all, (blas, time) => {
        const [q, k, v, o] = operands(time) as [Float32Array, Float32Array, Float32Array, Float32Array];
        const scaled = q.map((value) => value / Math.sqrt(d));
        const scores = new Float32Array(time * time);
        const run = timed(() => {
          blas.multiply(scores, scaled, k, { m: time, n: time, k: d, tb: true });
          softmaxRows(scores, time);
          blas.multiply(o, scores, v, { m: time, n: d, k: time });
        });
        return { run, work: work(time), output: () => o };
      }),
      ...metalLevels({ "metal-naive": "Metal, one thread a query", "metal-flash": "Metal, blocks in threadgroup memory" }),
    ],
    reference: (time, rows) => {
      const [q, k, v] = operands(time) as [Float32Array, Float32Array, Float32Array];
      return { width: d, expected: attentionRows(q, k, v, d, rows) };
    },
  };
}

const denseStrides = {
  q_batch: 0, q_time: d, q_head: d, k_batch: 0, k_time: d, k_head: d, v_batch: 0, v_time: d, v_head: d, o_batch: 0, o_time: d, o_head: d,
};
