// The ladder's levels of a whole training step: a small transformer of src/tensor, captured as a program and replayed, on the plain
// twins, on vectors, on threads. Not the model that egg trains. Its loss in f64: reference.ts. Read next: levels.ts, ladder.ts.
import type { Context } from "../native/machine.ts";
import { context as current, manualSeed, useThreads } from "../tensor/device.ts";
import { crossEntropy } from "../tensor/functional.ts";
import * as nn from "../tensor/nn.ts";
import { AdamW } from "../tensor/optim.ts";
import { capture } from "../tensor/program.ts";
import { type Tensor } from "../tensor/tensor.ts";
import { describeRan, metalLevels, notOnThreads, notOnVectors, type Level, type Workload } from "./levels.ts";
import { operand, transformerLoss } from "./reference.ts";
import { timed } from "./samples.ts";

const layers = 2;
const time = 64;
const batch = 4;
const vocabulary = 256;
const headWidth = 16;

class Block extends nn.Module {
  readonly norm1: nn.LayerNorm;
  readonly attention: nn.MultiHeadAttention;
  readonly norm2: nn.LayerNorm;
  readonly mlp: nn.MLP;

  constructor(width: number) {
    super();
    this.norm1 = new nn.LayerNorm(width);
    this.attention = new nn.MultiHeadAttention(width, headsOf(width), { std: 0.1 });
    this.norm2 = new nn.LayerNorm(width);
    this.mlp = new nn.MLP(width, { std: 0.1 });
  }

  override forward(x: Tensor): Tensor {
    const h = x.add(this.attention.forward(this.norm1.forward(x)));
    return h.add(this.mlp.forward(this.norm2.forward(h)));
  }
}

class Transformer extends nn.Module {
  readonly tokens: nn.Embedding;
  readonly positions: nn.Parameter;
  readonly blocks: Block[];
  readonly norm: nn.LayerNorm;
  readonly head: nn.Linear;

  constructor(width: number) {
    super();
    this.tokens = new nn.Embedding(vocabulary, width, { std: 0.5 });
    this.positions = new nn.Embedding(time, width, { std: 0.5 }).weight;
    this.blocks = Array.from({ length: layers }, () => new Block(width));
    this.norm = new nn.LayerNorm(width);
    this.head = new nn.Linear(width, vocabulary);
  }

  override forward(x: Tensor): Tensor {
    const h = this.tokens.forward(x).add(this.positions);
    return this.head.forward(this.norm.forward(this.blocks.reduce((each, block) => block.forward(each), h)));
  }
}

const headsOf = (width: number): number => Math.max(1, width / headWidth);
const ids = (seed: number): Int32Array => Int32Array.from(operand(batch * time, seed), (value) => Math.floor(((value + 1) / 2) * (vocabulary - 1)));

/** The weights that every level starts from. */
function newModel(width: number): Transformer {
  manualSeed(1);
  return new Transformer(width);
}

/** Multiplications and additions for a token: 6 for each weight of the matrices, and attention over the half of T that is seen. */
function work(width: number): number {
  return 6 * (12 * layers * width ** 2 + vocabulary * width) + 6 * layers * width * time;
}

/** One step of AdamW on 4 x 64 tokens; a size is the width. */
export function trainingSteps(one: Context, all: Context): Workload {
  const level = (name: string, title: string, threads: number, tier: Context["tier"], all: boolean): Level => ({
    name, title, all, missing: null,
    open: (width) => {
      const before = current();
      useThreads(threads, tier);
      try {
        const model = newModel(width);
        const optimizer = new AdamW(model.parameters(), { lr: 1e-3 });
        const program = capture({ x: { shape: [batch, time], dtype: "i32" }, y: { shape: [batch, time], dtype: "i32" } }, ({ x, y }) => {
          optimizer.zeroGrad();
          const loss = crossEntropy(model.forward(x), y);
          loss.backward();
          optimizer.step();
          return { loss };
        });
        const data = { x: ids(1), y: ids(2) };
        const first = new Float32Array([NaN]);
        const most = { lanes: 0, threads: 0 };
        const run = timed(() => program.runNow(data));
        return {
          run: (repeats) => {
            const seconds = run(repeats);
            if (Number.isNaN(first[0]) && repeats === 1) first[0] = program.outputs.loss.item(); // of the weights as they were
            most.lanes = program.ran.lanes;
            most.threads = Math.max(most.threads, program.ran.threads);
            return seconds;
          },
          work: work(width) * batch * time,
          output: () => first,
          ran: () => describeRan(name, tier, most, threads),
          parameters: { work: work(width) * batch * time, tokens: batch * time, weights: model.parameterCount, planned_bytes: program.bytes + 16 * model.parameterCount },
          release: () => {
            program.release();
            optimizer.release();
            model.release();
          },
        };
      } finally {
        useThreads(before.threads, before.tier);
      }
    },
  });
  const none = (name: string, title: string, missing: string): Level => ({ name, title, all: false, missing, open: () => { throw new Error(missing); } });
  return {
    name: "step",
    title: `Training step of a transformer of ${layers} layers on ${batch} x ${time} tokens, width C`,
    sizeName: "C",
    levels: [
      level("plain", "plain twins of all kernels, one thread", 1, "scalar", false),
      { ...level("simd", "vectors, one thread", 1, one.tier, false), missing: notOnVectors(one) },
      { ...level("threads", `${all.threads} threads`, all.threads, all.tier, true), missing: notOnThreads(all) },
      none("blas", "vendor BLAS", "a step's products have bias and activation in them and run as one program; BLAS has neither"),
      ...metalLevels({ metal: "Metal" }),
    ],
    reference: (width, rows) => {
      const model = newModel(width);
      const weights = new Map(model.namedParameters().map(([name, value]) => [name.replace(/^blocks\./, "").replace(/^positions$/, "positions.weight"), value.toArray() as Float32Array]));
      model.release();
      const loss = transformerLoss((name) => weights.get(name)!, { width, layers, heads: headsOf(width), vocabulary, time }, ids(1), ids(2));
      return { width: 1, expected: rows.map(() => Float64Array.of(loss)) };
    },
  };
}
