// Whole training steps of a given shape, timed: the real trainer on random text. Not the learner with its data, which
// `egg bench step` measures (training.ts). Read next: int8.ts.
import { NativeModel, NativeTrainer, type ModelShape } from "../native/int8.ts";
import type { Context } from "../native/machine.ts";
import { summarize, type Measured, type Rates } from "./windows.ts";

export interface StepShape {
  rule: ModelShape["rule"];
  hidden: number;
  layers: number;
  /** Members of the population, a multiple of 32. */
  members: number;
  /** Tokens a member; fewer where a step would take longer than allowed. */
  sequence: number;
}

export interface StepRates extends Measured {
  /** What was measured, with the sequence as it became. */
  shape: StepShape;
  /** Member-tokens a second of CPU time in the forward pass alone. */
  forward: Rates;
  /** Shares of the threads' CPU time. */
  noise: Rates;
  update: Rates;
}

export interface StepPatience {
  /** For all steps of a shape, and for one. */
  seconds: number;
  longest: number;
}

const vocabulary = 256;
/** Of preset egg.c, and of nano-egg after some hundred steps: it does not matter how many weights move. */
const threshold = { "egg.c": 160, "nano-egg": 20 };
const sigma_shift = 4;
const fewest = 3;

/** Multiply-adds of the model's matrices a member-token: 12 L H² + V H, and nothing else. */
export function matrixMacs({ layers, hidden }: { layers: number; hidden: number }): number {
  return 12 * layers * hidden ** 2 + vocabulary * hidden;
}

/** Steps until the patience ends; wall time is what a caller waits for. */
export async function measureSteps(context: Context, wanted: StepShape, patience: StepPatience): Promise<StepRates> {
  const model = new NativeModel(context, { ...wanted, vocabulary });
  try {
    model.initialize(0);
    const shape = { ...wanted, sequence: await fittingSequence(model, wanted, patience.longest) };
    const wall: number[] = [];
    const busy: number[] = [];
    const forward: number[] = [];
    const noise: number[] = [];
    const update: number[] = [];
    const memberTokens = shape.members * shape.sequence;
    await withTrainer(model, shape, async (step) => {
      const end = performance.now() + patience.seconds * 1000;
      while (wall.length < fewest || performance.now() < end) {
        const { seconds, phases } = await step();
        const cpu = phases.noise + phases.forward + phases.update;
        wall.push(memberTokens / seconds);
        busy.push(memberTokens / cpu);
        forward.push(memberTokens / phases.forward);
        noise.push(phases.noise / cpu);
        update.push(phases.update / cpu);
      }
    });
    return { shape, wall: summarize(wall), perCpuSecond: summarize(busy).p98, forward: summarize(forward), noise: summarize(noise), update: summarize(update) };
  } finally {
    model.release();
  }
}

type Step = () => Promise<{ seconds: number; phases: ReturnType<NativeTrainer["phases"]> }>;

/** Lends a function that carries out one step. */
async function withTrainer(model: NativeModel, { members, sequence }: StepShape, use: (step: Step) => Promise<void>): Promise<void> {
  const trainer = new NativeTrainer(model, { pairs: members / 2, sequence, sigma_shift });
  const batch = randomBytes((members / 2) * (sequence + 1));
  let seed = 1;
  try {
    await use(async () => {
      const begun = performance.now();
      await trainer.step(batch, { seed: seed++, threshold: threshold[model.rule] });
      return { seconds: (performance.now() - begun) / 1000, phases: trainer.phases() };
    });
  } finally {
    trainer.release();
  }
}

/** The sequence that keeps a step within `longest` seconds, at most the wanted one. Warms the machine up on its way. */
async function fittingSequence(model: NativeModel, wanted: StepShape, longest: number): Promise<number> {
  const short = Math.min(2, wanted.sequence);
  let fastest = Infinity;
  await withTrainer(model, { ...wanted, sequence: short }, async (step) => {
    fastest = (await step()).seconds;
    if (fastest < longest) fastest = Math.min(fastest, (await step()).seconds);
  });
  return Math.min(wanted.sequence, Math.max(short, Math.floor((short * longest) / fastest)));
}

/** The same bytes every time. */
function randomBytes(count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  let x = 42;
  for (let i = 0; i < count; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x >>> 8;
  }
  return bytes;
}
