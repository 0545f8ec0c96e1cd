// Programs: a function of tensors traced once, its memory planned, and then run again and again as one native job, with new
// inputs in the same places. Not the executor (kernels/float/run.zig). Read next: device.ts, plan.ts.
import { EggError } from "../errors.ts";
import { InstructionList, NativeProgram } from "../native/float.ts";
import { cancel } from "../native/machine.ts";
import type { Dtype } from "./tensor.ts";
import { capturing, closeScope, context, nextStep, openScope, recordInto, streamCounter, trainingStep, untag, type Phase, type Recorder } from "./device.ts";
import { Block, Buffer, checkMemory } from "./memory.ts";
import { planMemory, type Plan } from "./plan.ts";
import { valuesIn } from "./tape.ts";
import { Tensor } from "./tensor.ts";
import { bytesOf, checkShape, checkType, product, settleGradients, show, type Data, type Shape } from "./value.ts";

export type InputSpecs = Record<string, { shape: Shape; dtype?: Dtype }>;

/** What is recorded while the function runs. */
class Trace implements Recorder {
  readonly list = new InstructionList(true);
  readonly planned = new Set<Buffer>();
  readonly constants: { buffer: Buffer; values: NodeJS.TypedArray }[] = [];
  readonly actions: { before: () => void; after: () => void }[] = [];
  readonly varying: { instruction: number; field: string; value: () => number }[] = [];
  step: Buffer | null = null;

  buffer(bytes: number): Buffer {
    const buffer = new Buffer(bytes);
    this.planned.add(buffer);
    return buffer;
  }

  constant(values: NodeJS.TypedArray): Buffer {
    const buffer = new Buffer(values.byteLength);
    this.constants.push({ buffer, values: values.slice() });
    return buffer;
  }

  aroundRun(before: () => void, after: () => void): void {
    this.actions.push({ before, after });
  }

  vary(instruction: number, field: string, value: () => number): void {
    this.varying.push({ instruction, field, value });
  }

  stepNumber(): Buffer {
    return (this.step ??= this.constant(new Int32Array(new ArrayBuffer(4))));
  }
}

/** An instruction of a program: its phase, the name that it was emitted under, its operation, and the shape of a product. */
export interface Operation { phase: Phase; name: string; op: string; product?: string }
/** Its time in the last timed run. */
export interface Timing extends Operation { nanoseconds: number }

/** A captured function. Holds its memory until `release`. */
export class Program<I extends InputSpecs, O> {
  /** What the function returned; tensors among it hold the last run's values. */
  readonly outputs: O;
  /** Bytes of planned memory: all results and gradients in between, inputs and constants. */
  readonly bytes: number;
  readonly instructions: number;
  readonly #inputs: Record<string, Tensor>;
  readonly #trace: Trace;
  readonly #plan: Plan;
  readonly #block: Block;
  readonly #native: NativeProgram;

  constructor(trace: Trace, inputs: Record<string, Tensor>, outputs: O) {
    this.#trace = trace;
    this.#inputs = inputs;
    this.outputs = outputs;
    const fixed = [...Object.values(inputs).map((input) => input.buffer!), ...trace.constants.map(({ buffer }) => buffer), ...valuesIn(outputs).flatMap((value) => (trace.planned.has(value.buffer!) ? [value.buffer!] : []))];
    this.#plan = planMemory(trace.list.operands, trace.planned, fixed);
    this.bytes = this.#plan.bytes;
    this.instructions = trace.list.count;
    checkMemory("this program", this.bytes);
    const block = (this.#block = new Block("programs", Math.max(this.bytes, 64)));
    block.use(0, block.arena.bytes);
    for (const buffer of [...trace.planned, ...fixed]) {
      buffer.arena = block.arena.handle;
      buffer.block = block;
    }
    for (const { buffer, values } of trace.constants) if (values.byteLength > 0) this.#block.arena.write(buffer.offset, values);
    for (const value of valuesIn(outputs)) value.scope = null;
    trace.list.resolve();
    this.#native = new NativeProgram(context(), trace.list);
  }

  /**
   * Copies the inputs in and runs as a job; the event loop goes on meanwhile.
   * @returns false when it was cancelled, which is possible until its first optimizer step; no weight has changed then
   * @throws EggError("data") where an id or a target is out of range
   */
  async run(inputs: { [N in keyof I]: Data }, options: { timed?: boolean; onProgress?: (share: number) => void } = {}): Promise<boolean> {
    this.#prepare(inputs);
    let done = false;
    try {
      return (done = await this.#native.run(options.timed ?? false, options.onProgress));
    } finally {
      this.#conclude(done);
    }
  }

  /** Operation and name of each instruction, in their order; of products also the shape, "m x n x k" or "batch x m x n x k". */
  operations(): Operation[] {
    const { list } = this.#trace;
    return list.heads().map(({ op, tag }, i) => {
      if (op !== "gemm") return { op, ...untag(tag) };
      const [m, n, k, outer, inner] = ["m", "n", "k", "outer", "inner"].map((field) => list.number(i, field)!) as [number, number, number, number, number];
      return { op, ...untag(tag), product: [...(outer * inner === 1 ? [] : [outer * inner]), m, n, k].join(" x ") };
    });
  }

  /** Changes a number in one instruction before the next run (NativeProgram.patch), such as a position while tokens are generated. */
  patch(instruction: number, field: string, value: number): void {
    this.#native.patch(instruction, field, value);
  }

  /** Copies the inputs in, runs, and returns when it is done. */
  runNow(inputs: { [N in keyof I]: Data }, options: { timed?: boolean } = {}): void {
    this.#prepare(inputs);
    let done = false;
    try {
      this.#native.runNow(options.timed ?? false);
      done = true;
    } finally {
      this.#conclude(done);
    }
  }

  #prepare(inputs: Record<string, Data>): void {
    if (capturing() !== null) throw new EggError("usage", "[tensor] a program cannot be run while another is captured.");
    for (const [name, input] of Object.entries(this.#inputs)) {
      const values = inputs[name];
      if (values === undefined) throw new EggError("usage", `[tensor] program: the input ${name} ${show(input.shape)} is missing.`);
      input.write(`program input ${name}`, values);
    }
    const step = this.#trace.step;
    if (step !== null) this.#block.arena.write(step.offset, Int32Array.of(nextStep()));
    for (const { before } of this.#trace.actions) before();
    for (const { instruction, field, value } of this.#trace.varying) this.#native.patch(instruction, field, value());
  }

  /** A run that did not end well counts as not begun. */
  #conclude(done: boolean): void {
    if (!done && this.#trace.step !== null) trainingStep(trainingStep() - 1);
    if (!done) return;
    let first: unknown = null;
    for (const { after } of this.#trace.actions) {
      try {
        after();
      } catch (error) {
        first ??= error; // what an optimizer does after a run is not left out
      }
    }
    if (first !== null) throw first;
  }

  /** Asks a run to end early. */
  cancel(): void {
    cancel(this.#native.context);
  }

  /** What the last run ran on: lanes of the kernels' vectors (1: the plain twins), threads that had something to do. */
  get ran(): { lanes: number; threads: number } {
    return this.#native.ran;
  }

  /** Times of all instructions in the last timed run, in their order. */
  profile(): Timing[] {
    const times = this.times();
    return this.operations().map((operation, i) => ({ ...operation, nanoseconds: times[i]! }));
  }

  /** The same times alone, in nanoseconds. */
  times(): Float64Array {
    return this.#native.times();
  }

  /**
   * What the planned memory is for where most of it is in use, by the part that made it, largest first. Inputs, constants and
   * outputs, which stay, have no part. Room that no other buffer fits into makes `bytes` a little more than the sum.
   */
  held(): { name: string; phase: Phase; bytes: number }[] {
    const heads = this.#trace.list.heads();
    const parts = new Map<string, { name: string; phase: Phase; bytes: number }>();
    const add = (name: string, phase: Phase, bytes: number): void => {
      const part = parts.get(`${phase} ${name}`);
      if (part === undefined) parts.set(`${phase} ${name}`, { name, phase, bytes });
      else part.bytes += bytes;
    };
    add("inputs, constants and outputs", "forward", this.#plan.fixed);
    for (const { bytes, made } of this.#plan.peak) {
      const { name, phase } = untag(heads[made]!.tag);
      add(name, phase, bytes);
    }
    return [...parts.values()].sort((a, b) => b.bytes - a.bytes);
  }

  release(): void {
    this.#native.release();
    this.#block.release();
    for (const value of valuesIn(this.outputs)) if (this.#trace.planned.has(value.buffer!)) value.buffer = null;
  }
}

/**
 * Traces `action` once, without computing anything, and plans its memory.
 * @param inputs shapes of the tensors that each run fills
 * @param action gets the inputs; must do the same whatever their values are, and cannot read values
 */
export function capture<I extends InputSpecs, O>(inputs: I, action: (inputs: { [N in keyof I]: Tensor }) => O): Program<I, O> {
  if (capturing() !== null) throw new EggError("usage", "[tensor] capture: another program is being captured.");
  settleGradients();
  const trace = new Trace();
  const outer = openScope();
  const tensors = Object.fromEntries(Object.entries(inputs).map(([name, { shape, dtype = "f32" }]) => {
    checkShape(`capture input ${name}`, shape);
    checkType(`capture input ${name}`, dtype);
    const input = new Tensor(shape, dtype);
    input.buffer = new Buffer(product(shape) * bytesOf(dtype));
    input.origin = { op: `input ${name}`, shapes: [] };
    return [name, input];
  }));
  const streams = streamCounter();
  recordInto(trace);
  let outputs: O;
  try {
    streamCounter(0);
    outputs = action(tensors as { [N in keyof I]: Tensor });
    settleGradients();
  } finally {
    recordInto(null);
    streamCounter(streams);
    closeScope("the end of capture", outer);
  }
  return new Program(trace, tensors, outputs);
}
