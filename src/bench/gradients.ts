// The benchmarks of `egg bench train`: whole steps of training by gradients, tokens a second as a share of the f32 peak, counted as
// 6 multiplications and additions for each parameter and token; and bf16 against f32. Data are random. Read next: src/models/transformer.ts.
import { transformerParameters, transformerShape, type TransformerShape } from "../models/transformer-shape.ts";
import { Transformer } from "../models/transformer.ts";
import type { Context } from "../native/machine.ts";
import { context as current, manualSeed, useThreads } from "../tensor/device.ts";
import { AdamW } from "../tensor/optim.ts";
import { capture } from "../tensor/program.ts";
import { computeIn } from "../tensor/tensor.ts";
import { sampleInTurn, timed, type Timed } from "./samples.ts";
import type { Figure, Item, Section } from "./steady.ts";

export interface TrainOptions {
  /** The same kernels on one thread and on all. */
  one: Context;
  all: Context;
  /** For each figure. */
  seconds: number;
  /** Whether this CPU and tier have bf16 products. */
  bf16: boolean;
}

interface Shape { name: string; title: string; batch: number; shape: TransformerShape; floor: number }

const gpt = (vocabulary: number, layers: number, width: number, heads: number, block: number): TransformerShape => transformerShape({ family: "gpt", vocabulary, layers, width, heads, block });

/** Two shapes of nanoGPT and GPT-2's, with the share of the peak that one thread is to reach. */
const shapes: readonly Shape[] = [
  { name: "nano", title: "4 layers x 128, block 64, batch 12", batch: 12, shape: gpt(65, 4, 128, 4, 64), floor: 0.68 },
  { name: "small", title: "6 layers x 384, block 256, batch 4", batch: 4, shape: gpt(65, 6, 384, 6, 256), floor: 0.74 },
  { name: "gpt2", title: "GPT-2 124M, block 64, batch 4", batch: 4, shape: gpt(50_257, 12, 768, 12, 64), floor: 0.73 },
];

/** Work of a step: forward, and twice as much for the gradients of activations and weights. */
const flops = ({ batch, shape }: Shape): number => 6 * transformerParameters(shape) * batch * shape.block;
const tokens = ({ batch, shape }: Shape): number => batch * shape.block;

/** All sections of P8, nothing measured yet, and what cannot be measured here. */
export function trainSections(options: TrainOptions): { sections: Section[]; unavailable: { id: string; reason: string }[] } {
  const { one, all, bf16 } = options;
  const items = shapes.flatMap((shape) => [item(options, shape, one, false), ...(all.threads === 1 ? [] : [item(options, shape, all, true)])]);
  const unavailable = bf16 ? [] : [{ id: "P8/bf16", reason: "this CPU or tier has no bf16 products" }];
  return {
    sections: [
      { name: "P8/f32", title: "P8: training steps with AdamW, share of the measured f32 peak", items },
      ...(bf16 ? [{ name: "P8/bf16", title: "P8: products in bf16, times the speed of f32", items: shapes.map((shape) => bf16Item(options, shape)) }] : []),
    ],
    unavailable,
  };
}

/** A captured step on random tokens, ready to be run. */
function openStep({ batch, shape }: Shape, context: Context, compute: "f32" | "bf16"): { run: Timed; bytes: number; release(): void } {
  const before = current();
  useThreads(context.threads, context.tier);
  try {
    manualSeed(1);
    const model = new Transformer(shape, {});
    const optimizer = new AdamW(model.parameters(), { lr: 1e-4, weightDecay: 0.1, clip: 1 });
    const input = { shape: [batch, shape.block], dtype: "i32" } as const;
    const program = capture({ ids: input, targets: input }, ({ ids, targets }) => {
      optimizer.zeroGrad();
      const loss = computeIn(compute, () => model.loss(ids, targets));
      loss.backward();
      optimizer.step();
      return { loss };
    });
    const ids = Int32Array.from({ length: batch * shape.block }, (_, i) => (i * 7919) % shape.vocabulary);
    program.runNow({ ids, targets: ids }); // the first step meets memory that nobody has touched
    return {
      run: timed(() => program.runNow({ ids, targets: ids })),
      bytes: 4 * 2 * model.parameterCount + optimizer.bytes + program.bytes,
      release() {
        program.release();
        optimizer.release();
        model.release();
      },
    };
  } finally {
    useThreads(before.threads, before.tier);
  }
}

function item({ seconds }: TrainOptions, shape: Shape, context: Context, all: boolean): Item {
  const id = `P8/f32/${shape.name}${all ? "/all" : ""}`;
  return { id, all, run: async (): Promise<Figure> => {
    const step = openStep(shape, context, "f32");
    const [found] = sampleInTurn([{ run: step.run, work: tokens(shape) }], seconds);
    step.release();
    return {
      id, label: shape.title, unit: "tokens/s", threads: context.threads, clock: "wall", ...found!, macs: flops(shape) / tokens(shape), ratio: null, floor: all ? 0.95 * shape.floor : shape.floor,
      ceiling: null, parameters: { parameters: transformerParameters(shape.shape), tokens: tokens(shape), planned_bytes: step.bytes },
    };
  } };
}

/** Both take turns; the figure is the rate in bf16, the ratio is to f32. */
function bf16Item({ one, seconds }: TrainOptions, shape: Shape): Item {
  const id = `P8/bf16/${shape.name}`;
  return { id, all: false, run: async (): Promise<Figure> => {
    const [half, full] = [openStep(shape, one, "bf16"), openStep(shape, one, "f32")];
    const [fast, slow] = sampleInTurn([half, full].map(({ run }) => ({ run, work: tokens(shape) })), seconds);
    half.release();
    full.release();
    return {
      id, label: shape.title, unit: "tokens/s", threads: one.threads, clock: "wall", ...fast!, macs: 0, ratio: fast!.rates.p98 / slow!.rates.p98, cpuRatio: fast!.perCpuSecond / slow!.perCpuSecond,
      floor: 1.4, ceiling: null, parameters: { tokens: tokens(shape), f32: slow!.rates.p98 },
    };
  } };
}
