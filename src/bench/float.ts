// The benchmarks of `egg bench float`: matrix products against the machine's own library and against the peak of f32 and bf16,
// attention against the peak, and what passes memory on against the measured bandwidth. The climb up to them: ladder.ts.
import { openBlas, type Blas } from "../native/blas.ts";
import { InstructionList, NativeArena, NativeProgram } from "../native/float.ts";
import type { Operand, Values } from "../native/instructions.ts";
import { machine, type Context } from "../native/machine.ts";
import { operand } from "./reference.ts";
import { sampleInTurn, timed, type Sampled, type Timed } from "./samples.ts";
import type { Item, Section } from "./steady.ts";
import { measure, type BenchShape, type Patience } from "./windows.ts";

export interface FloatOptions {
  /** The same kernels on one thread and on all. */
  one: Context;
  all: Context;
  /** For each figure. */
  seconds: number;
  windows: Patience;
  quick: boolean;
}

interface Product { name: string; m: number; n: number; k: number; ta?: boolean; tb?: boolean }

const squares = [256, 512, 1024, 2048].map((n): Product => ({ name: `${n}`, m: n, n, k: n }));
/** Products of a transformer, T 1024 C 384 and T 256 C 768: forward x W^T, backward dy W, and the weights' dy^T x. */
const transformer: Product[] = [
  { name: "qkv-384", m: 1024, n: 1152, k: 384, tb: true },
  { name: "up-384", m: 1024, n: 1536, k: 384, tb: true },
  { name: "down-384", m: 1024, n: 384, k: 1536, tb: true },
  { name: "dx-384", m: 1024, n: 384, k: 1536 },
  { name: "dw-384", m: 1536, n: 384, k: 1024, ta: true },
  { name: "up-768", m: 256, n: 3072, k: 768, tb: true },
  { name: "dw-768", m: 3072, n: 768, k: 256, ta: true },
  { name: "head-768", m: 256, n: 50257, k: 768, tb: true },
];

/** All sections of P7, nothing measured yet, and what cannot be measured here. */
export function floatSections(options: FloatOptions): { sections: Section[]; unavailable: { id: string; reason: string }[] } {
  const blas = openBlas();
  const shapes = [...squares, ...transformer];
  const unavailable = typeof blas === "string" ? [{ id: "P7/blas", reason: blas }] : [];
  // A library with threads of its own choice is compared with all of egg's only.
  const compared = typeof blas === "string" ? [] : counts(options).filter(({ context, all }) => blas.useThreads(context.threads) || all);
  if (typeof blas !== "string" && compared.every(({ all }) => all)) unavailable.push({ id: "P7/blas", reason: `${blas.name} cannot be told to use one thread` });
  if (!hasBf16(options.all)) unavailable.push({ id: "P7/bf16", reason: "this CPU or tier has no bf16 products; bf16 is rounded to and computed in f32" });
  const sections: Section[] = [
    { name: "P7/f32", title: "P7: f32 matrix products, share of the measured peak", items: counts(options).flatMap((count) => shapes.map((shape) => peakItem(options, count, shape))) },
    ...(typeof blas === "string" || compared.length === 0 ? [] : [{ name: "P7/blas", title: "P7: the same by the machine's own library, and how many times as fast egg is", items: compared.flatMap((count) => shapes.map((shape) => blasItem(options, blas, count, shape))) }]),
    ...(hasBf16(options.all) ? [{ name: "P7/bf16", title: "P7: bf16 matrix products, share of the measured bf16 peak", items: counts(options).flatMap((count) => squares.map((shape) => bf16Item(options, count, shape))) }] : []),
    { name: "P7/attention", title: "P7: attention, T 1024, heads of 64, share of the measured peak", items: counts(options).flatMap((count) => attention(options, count)) },
    { name: "P7/memory", title: "P7: elementwise operations and norms, share of the measured bandwidth", items: counts(options).flatMap((count) => memory(options, count)) },
  ];
  return { sections, unavailable };
}

interface Count { context: Context; all: boolean; suffix: string }

function counts({ one, all }: FloatOptions): Count[] {
  const single = { context: one, all: false, suffix: "" };
  return all.threads === 1 ? [single] : [single, { context: all, all: true, suffix: "/all" }];
}

/** Whether the CPU and these kernels multiply pairs of bf16. */
export function hasBf16({ tier }: Context): boolean {
  return tier === "avx512vnni" && machine().features.includes("avx512_bf16");
}

const plain = { clock: "wall", floor: null, ceiling: null, ratio: null, macs: 0 } as const;

/** Instructions over arrays of `sizes` floats, as a program. */
class Bench {
  readonly #arena: NativeArena;
  readonly #program: NativeProgram;
  readonly run: Timed;

  constructor(context: Context, sizes: readonly number[], add: (list: InstructionList, at: Operand[]) => void) {
    let bytes = 0;
    const offsets = sizes.map((count) => {
      const offset = bytes;
      bytes += Math.ceil(count / 16) * 64 + 64;
      return offset;
    });
    this.#arena = new NativeArena(bytes);
    sizes.forEach((count, i) => this.#arena.write(offsets[i]!, operand(count, i + 1)));
    const list = new InstructionList();
    add(list, offsets.map((offset) => ({ arena: this.#arena.handle, offset })));
    this.#program = new NativeProgram(context, list);
    this.run = timed(() => this.#program.runNow());
  }

  release(): void {
    this.#program.release();
    this.#arena.release();
  }
}

/** Rates of one instruction over arrays of `sizes` floats. */
function rates({ seconds }: FloatOptions, { context }: Count, work: number, sizes: readonly number[], add: (list: InstructionList, at: Operand[]) => void): Sampled {
  const bench = new Bench(context, sizes, add);
  try {
    return sampleInTurn([{ run: bench.run, work }], seconds)[0]!;
  } finally {
    bench.release();
  }
}

const flops = ({ m, n, k }: Product): number => 2 * m * n * k;
const describe = ({ m, n, k, ta = false, tb = false }: Product): string => `(${m}, ${k})${ta ? " from columns" : ""} (${k}, ${n})${tb ? " from rows" : ""}`;

function gemmBench(context: Context, { m, n, k, ta = false, tb = false }: Product, compute: "f32" | "bf16"): Bench {
  return new Bench(context, [m * k, k * n, m * n], (list, [a, b, c]) => list.add("gemm", {
    a, b, c, m, n, k, lda: ta ? m : k, ldb: tb ? k : n, ldc: n, ta, tb, outer: 1, inner: 1, a_outer: 0, a_inner: 0, b_outer: 0, b_inner: 0, c_outer: 0,
    c_inner: 0, a_dtype: compute, b_dtype: compute, c_dtype: "f32", compute, activation: "none", alpha: 1, beta: 0,
  }));
}

function peakItem(options: FloatOptions, { context, all, suffix }: Count, shape: Product): Item {
  const id = `P7/f32/${shape.name}${suffix}`;
  return { id, all, run: async () => {
    const bench = gemmBench(context, shape, "f32");
    const [found] = sampleInTurn([{ run: bench.run, work: flops(shape) }], options.seconds);
    bench.release();
    return { ...plain, id, label: describe(shape), unit: "FLOP/s", threads: context.threads, ...found!, macs: 1, floor: 0.85, parameters: sizesOf(shape) };
  } };
}

const sizesOf = ({ m, n, k }: Product): Record<string, number> => ({ m, n, k });

/** Both take turns; the figure is the library's rate, the ratio is egg's to it. */
function blasItem(options: FloatOptions, blas: Blas, { context, all, suffix }: Count, shape: Product): Item {
  const id = `P7/blas/${shape.name}${suffix}`;
  return { id, all, run: async () => {
    blas.useThreads(context.threads);
    const { m, n, k } = shape;
    const [a, b, c] = [operand(m * k, 1), operand(k * n, 2), new Float32Array(m * n)];
    const bench = gemmBench(context, shape, "f32");
    const [own, other] = sampleInTurn([{ run: bench.run, work: flops(shape) }, { run: timed(() => blas.multiply(c, a, b, shape)), work: flops(shape) }], options.seconds);
    bench.release();
    return { ...plain, id, label: `${blas.name}: ${describe(shape)}`, unit: "FLOP/s", threads: context.threads, ...other!, ratio: own!.rates.p98 / other!.rates.p98, cpuRatio: own!.perCpuSecond / other!.perCpuSecond, floor: 1, parameters: { ...sizesOf(shape), egg: own!.rates.p98 } };
  } };
}

function bf16Item(options: FloatOptions, { context, all, suffix }: Count, shape: Product): Item {
  const id = `P7/bf16/${shape.name}${suffix}`;
  return { id, all, run: async () => {
    const bench = gemmBench(context, shape, "bf16");
    const [found] = sampleInTurn([{ run: bench.run, work: flops(shape) }], options.seconds);
    bench.release();
    const { wall: { p98: peak }, perCpuSecond } = measure(context, { what: "dot_bf16" }, all, options.windows);
    return { ...plain, id, label: describe(shape), unit: "FLOP/s", threads: context.threads, ...found!, ratio: found!.rates.p98 / peak, cpuRatio: found!.perCpuSecond / perCpuSecond, floor: 0.85, parameters: { ...sizesOf(shape), peak } };
  } };
}

function attention(options: FloatOptions, count: Count): Item[] {
  const [time, d, heads] = [1024, 64, 8];
  const { context, all, suffix } = count;
  const row = heads * d;
  const size = time * row;
  const shape = {
    batch: 1, q_len: time, kv_len: time, heads, kv_heads: heads, d, q_batch: 0, q_time: row, q_head: d, k_batch: 0, k_time: row, k_head: d, v_batch: 0,
    v_time: row, v_head: d, o_batch: 0, o_time: row, o_head: d, scale: 1 / Math.sqrt(d),
  };
  return [false, true].flatMap((causal) => {
    const pairs = causal ? (time * (time + 1)) / 2 : time * time;
    // Two products forward, five backward; only pairs that are seen count, and exponentials do not.
    return [["forward", 2, 0.6], ["backward", 5, 0.5]].map(([pass, matrices, floor]): Item => {
      const id = `P7/attention/${pass}${causal ? "-causal" : ""}${suffix}`;
      return { id, all, run: async () => {
        const work = 2 * Number(matrices) * pairs * d * heads;
        const found = pass === "forward"
          ? rates(options, count, work, [size, size, size, size, heads * time], (list, [q, k, v, o, lse]) => list.add("attention", { q, k, v, o, lse, causal, ...shape }))
          : backward(options, count, work, size, heads * time, { causal, ...shape });
        return { ...plain, id, label: `${pass}, ${heads} heads${causal ? ", causal: half of the pairs" : ""}`, unit: "FLOP/s", threads: context.threads, ...found, macs: 1, floor: Number(floor), parameters: { time, d, heads } };
      } };
    });
  });
}

/** The backward needs a forward's results in the same memory. */
function backward({ seconds }: FloatOptions, { context }: Count, work: number, size: number, rows: number, shape: Omit<Values<"attention">, "q" | "k" | "v" | "o" | "lse">): Sampled {
  let forward: InstructionList | null = null;
  const bench = new Bench(context, [...Array<number>(5).fill(size), rows, size, size, size], (list, [q, k, v, o, dout, lse, dq, dk, dv]) => {
    forward = new InstructionList();
    forward.add("attention", { q, k, v, o, lse, ...shape });
    list.add("attention_backward", { q, k, v, o, lse, dout, dq, dk, dv, ...shape });
  });
  const before = new NativeProgram(context, forward!);
  before.runNow();
  before.release();
  const [found] = sampleInTurn([{ run: bench.run, work }], seconds);
  bench.release();
  return found!;
}

/** Arrays far beyond the caches: a copy's or a sum's loop sets the limit, counted in the bytes that must be read and written. */
function memory(options: FloatOptions, count: Count): Item[] {
  const { context, all, suffix } = count;
  const width = 1024;
  const rows = options.quick ? 2048 : 16384;
  const size = rows * width;
  const limit = (what: "scale" | "add", arrays: number): number => {
    const shape: BenchShape = { what, kib: Math.ceil((size * 4 * arrays) / 1024 / (all ? context.threads : 1)) };
    return measure(context, shape, all, options.windows).wall.p98;
  };
  const item = (name: string, label: string, what: "scale" | "add", arrays: number, sizes: number[], add: (list: InstructionList, at: Operand[]) => void): Item => {
    const id = `P7/memory/${name}${suffix}`;
    return { id, all, run: async () => {
      const bandwidth = limit(what, what === "scale" ? 2 : 3);
      const found = rates(options, count, 4 * size * arrays, sizes, add);
      return { ...plain, id, label, unit: "B/s", threads: context.threads, ...found, perCpuSecond: null, ratio: found.rates.p98 / bandwidth, floor: 0.7, parameters: { rows, width, bandwidth } };
    } };
  };
  const two = [size, size];
  const three = [size, size, size];
  const per = [rows, rows];
  const strides = { rows, width, x_stride: width, up_stride: width, y_stride: width };
  return [
    item("add", "y = a + b", "add", 3, three, (list, [a, b, y]) => list.add("binary", { a, b, y, rows, cols: width, operation: "add", broadcast: "same", alpha: 1 })),
    item("bias", "y = a + row", "scale", 2, [...two, width], (list, [a, y, b]) => list.add("binary", { a, b, y, rows, cols: width, operation: "add", broadcast: "row", alpha: 1 })),
    item("scale", "y = 2 x", "scale", 2, two, (list, [x, y]) => list.add("unary", { x, y, count: size, operation: "identity", alpha: 2, beta: 0 })),
    item("gelu", "y = gelu(x)", "scale", 2, two, (list, [x, y]) => list.add("activate", { x, y, ...strides, activation: "gelu" })),
    item("swiglu", "y = silu(gate) up", "add", 3, three, (list, [x, up, y]) => list.add("activate", { x, up, y, ...strides, activation: "silu" })),
    item("layernorm", "layer norm", "scale", 2, [...two, width, width, ...per], (list, [x, y, weight, bias, mean, rstd]) => list.add("norm", { x, y, weight, bias, mean, rstd, rows, width, mode: "layer", eps: 1e-5 })),
    item("rmsnorm", "RMS norm", "scale", 2, [...two, width, rows], (list, [x, y, weight, rstd]) => list.add("norm", { x, y, weight, rstd, rows, width, mode: "rms", eps: 1e-5 })),
    item("layernorm-backward", "layer norm, backward", "add", 3, [...three, width, width, width, ...per], (list, [dy, x, dx, weight, dweight, dbias, mean, rstd]) => list.add("norm_backward", { dy, x, dx, weight, dweight, dbias, mean, rstd, rows, width, mode: "layer" })),
    item("softmax", "softmax of rows", "scale", 2, two, (list, [x, y]) => list.add("softmax", { x, y, rows, width, mode: "softmax" })),
  ];
}
