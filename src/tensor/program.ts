// Programs: a function of tensors traced once, its memory planned, and then run again and again as one native job, with new
// inputs in the same places. Not the executor (kernels/float/run.zig). Read next: device.ts, plan.ts.
import { EggError } from "../errors.ts";
import { InstructionList, NativeProgram } from "../native/float.ts";
import { cancel, join } from "../native/machine.ts";
import type { Dtype } from "./tensor.ts";
import { capturing, closeScope, context, nextStep, openScope, recordInto, runBeside, running, streamCounter, trainingStep, untag, type Phase, type Recorder } from "./device.ts";
import { Block, Buffer, checkMemory } from "./memory.ts";
import { planMemory, type Plan } from "./plan.ts";
import { apart, valuesIn } from "./tape.ts";
import { Tensor } from "./tensor.ts";
import { bytesOf, checkShape, checkType, product, settleGradients, show, type Data, type Shape, type Value } from "./value.ts";

/** Shapes and types (f32 where not given) of a program's inputs. */
export type InputSpecs = Record<string, { shape: Shape; dtype?: Dtype }>;

/** What is recorded while the function runs. */
class Trace implements Recorder {
  readonly list = new InstructionList(true);
  readonly planned = new Set<Buffer>();
  /** Memory of others that instructions work on, with the shape of what is in it. */
  readonly links = new Map<Buffer, Shape>();
  readonly constants: { buffer: Buffer; values: NodeJS.TypedArray }[] = [];
  readonly actions: { before: () => void; after: () => void }[] = [];
  readonly varying: { instruction: number; field: string; value: () => number }[] = [];
  step: Buffer | null = null;

  buffer(bytes: number): Buffer {
    const buffer = new Buffer(bytes);
    this.planned.add(buffer);
    return buffer;
  }

  owns(buffer: Buffer): boolean {
    return this.planned.has(buffer);
  }

  link(buffer: Buffer, shape: Shape): void {
    this.links.set(buffer, shape);
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

/** A run beside JavaScript. It ends once: when it is awaited, or before that for who needs what it works on (device.ts: flush). */
class Beside {
  readonly #finish: () => boolean;
  #outcome: (() => boolean) | null = null;

  constructor(finish: () => boolean) {
    this.#finish = finish;
    runBeside(this);
  }

  end(): void {
    if (this.#outcome !== null) return;
    runBeside(null);
    try {
      const done = this.#finish();
      this.#outcome = () => done;
    } catch (error) {
      this.#outcome = () => { throw error; }; // for who awaits the run
    }
  }

  outcome(): boolean {
    this.end();
    return this.#outcome!();
  }
}

/** A captured function. Holds its memory until `release`. */
export class Program<I extends InputSpecs, O> {
  /** What the function returned; tensors among it hold the last run's values. */
  readonly outputs: O;
  /** Bytes of planned memory: all results and gradients in between, inputs and constants. */
  readonly bytes: number;
  /** How many there are. */
  readonly instructions: number;
  readonly #inputs: Record<string, Tensor>;
  readonly #trace: Trace;
  readonly #plan: Plan;
  readonly #block: Block;
  readonly #native: NativeProgram;
  readonly #links: readonly (readonly [Buffer, Shape])[];
  readonly #results: readonly Value[];
  #released = false;

  constructor(trace: Trace, inputs: Record<string, Tensor>, outputs: O) {
    this.#trace = trace;
    this.#inputs = inputs;
    this.outputs = outputs;
    this.#links = [...trace.links];
    this.#results = valuesIn(outputs).filter(({ buffer }) => trace.planned.has(buffer!));
    const fixed = [...[...Object.values(inputs), ...this.#results].map(({ buffer }) => buffer!), ...trace.constants.map(({ buffer }) => buffer)];
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
   * Copies the inputs in and runs as a job; the event loop goes on meanwhile. What needs tensors before the end, such as
   * item() or copy_(), waits for it.
   * @returns false when it was cancelled, which is possible until its first optimizer step; no weight has changed then
   * @throws EggError("data") where an id or a target is out of range, EggError("usage") where inputs do not fit, another run
   * is not over, or a parameter was released: nothing was done then
   */
  async run(inputs: { [N in keyof I]: Data }, options: { timed?: boolean; onProgress?: (share: number) => void } = {}): Promise<boolean> {
    this.#prepare(inputs);
    const job = this.#start(options.timed ?? false);
    try {
      await join(this.#native.context, options.onProgress);
    } finally {
      job.end();
    }
    return job.outcome();
  }

  #start(timed: boolean): Beside {
    try {
      this.#native.start(timed);
    } catch (error) {
      this.#conclude(false);
      throw error;
    }
    return new Beside(() => this.#concluded(() => this.#native.finish()));
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
    this.#checkFree("patch");
    this.#native.patch(instruction, field, value);
  }

  /** Copies the inputs in, runs, and returns when it is done. @throws as `run` */
  runNow(inputs: { [N in keyof I]: Data }, options: { timed?: boolean } = {}): void {
    this.#prepare(inputs);
    this.#concluded(() => {
      this.#native.runNow(options.timed ?? false);
      return true;
    });
  }

  /** Nothing of the last run is touched before all that can be refused was looked at. */
  #prepare(inputs: Record<string, Data>): void {
    if (capturing() !== null) throw new EggError("usage", "[tensor] a program cannot be run while another is captured.");
    this.#checkFree("run");
    for (const [buffer, shape] of this.#links) {
      if (buffer.block === null) throw new EggError("usage", `[tensor] program: a parameter ${show(shape)} that it works on was released.`, { hint: "Release programs before their parameters; capture another one." });
    }
    for (const [name, input] of Object.entries(this.#inputs)) {
      const values = inputs[name];
      if (values === undefined) throw new EggError("usage", `[tensor] program: the input ${name} ${show(input.shape)} is missing.`);
      input.checkFits(`program input ${name}`, values);
    }
    for (const { before } of this.#trace.actions) before();
    for (const { instruction, field, value } of this.#trace.varying) this.#native.patch(instruction, field, value());
    for (const [name, input] of Object.entries(this.#inputs)) input.write(`program input ${name}`, inputs[name]!);
    for (const result of this.#results) result.changed();
    const step = this.#trace.step;
    if (step !== null) this.#block.arena.write(step.offset, Int32Array.of(nextStep()));
  }

  /** @throws EggError("usage") where it was released, or a program runs */
  #checkFree(op: string): void {
    if (this.#released) throw new EggError("usage", `[tensor] program: ${op}: it was released.`);
    if (running() !== null) throw new EggError("usage", `[tensor] program: ${op}: a program runs.`, { hint: "Await what run() gave first." });
  }

  #concluded(action: () => boolean): boolean {
    let done = false;
    try {
      return (done = action());
    } finally {
      this.#conclude(done);
    }
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

  /** Gives the memory back. Neither the program nor its outputs can be used any more. */
  release(): void {
    this.#checkFree("release");
    this.#released = true;
    this.#native.release();
    this.#block.release();
    for (const buffer of this.#trace.planned) buffer.block = null;
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
  const outer = openScope(true);
  const tensors = Object.fromEntries(Object.entries(inputs).map(([name, { shape, dtype = "f32" }]) => {
    checkShape(`capture input ${name}`, shape);
    checkType(`capture input ${name}`, dtype);
    const input = new Tensor([...shape], dtype);
    input.buffer = trace.buffer(product(shape) * bytesOf(dtype));
    input.origin = { op: `input ${name}`, shapes: [] };
    return [name, input];
  }));
  const streams = streamCounter();
  recordInto(trace);
  let outputs: O;
  try {
    streamCounter(0);
    outputs = apart(() => action(tensors as { [N in keyof I]: Tensor }));
    settleGradients();
  } finally {
    recordInto(null);
    streamCounter(streams);
    closeScope("the end of capture", outer);
  }
  return new Program(trace, tensors, outputs);
}
