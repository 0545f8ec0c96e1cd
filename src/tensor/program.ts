// Programs: a function of tensors traced once, its memory planned, and then run again and again as one native job, with new
// inputs in the same places. Not the executor (kernels/float/run.zig). Read next: device.ts, plan.ts.
import { EggError } from "../errors.ts";
import { InstructionList, NativeArena, NativeProgram } from "../native/float.ts";
import { cancel } from "../native/machine.ts";
import type { Dtype } from "./tensor.ts";
import { capturing, closeScope, context, nextStep, openScope, persistent, recordInto, streamCounter, trainingStep, untag, type Phase, type Recorder } from "./device.ts";
import { Block, Buffer, checkMemory } from "./memory.ts";
import { planMemory } from "./plan.ts";
import { valuesIn } from "./tape.ts";
import { Tensor } from "./tensor.ts";
import { bytesOf, checkShape, product, settleGradients, show, type Data, type Shape } from "./value.ts";

export type InputSpecs = Record<string, { shape: Shape; dtype?: Dtype }>;

/** What is recorded while the function runs. */
class Trace implements Recorder {
  readonly list = new InstructionList(true);
  readonly planned = new Set<Buffer>();
  readonly constants: { buffer: Buffer; values: NodeJS.TypedArray }[] = [];
  readonly actions: { run: () => void; undo: () => void }[] = [];
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

  beforeRun(run: () => void, undo: () => void): void {
    this.actions.push({ run, undo });
  }

  stepNumber(): Buffer {
    return (this.step ??= this.constant(new Int32Array(new ArrayBuffer(4))));
  }
}

/** Time of one instruction in the last timed run. */
export interface Timing { phase: Phase; name: string; op: string; nanoseconds: number }

/** A captured function. Holds its memory until `release`. */
export class Program<I extends InputSpecs, O> {
  /** What the function returned; tensors among it hold the last run's values. */
  readonly outputs: O;
  /** Bytes of planned memory: all results and gradients in between, inputs and constants. */
  readonly bytes: number;
  readonly instructions: number;
  readonly #inputs: Record<string, Tensor>;
  readonly #trace: Trace;
  readonly #arena: NativeArena;
  readonly #native: NativeProgram;

  constructor(trace: Trace, inputs: Record<string, Tensor>, outputs: O) {
    this.#trace = trace;
    this.#inputs = inputs;
    this.outputs = outputs;
    const fixed = [...Object.values(inputs).map((input) => input.buffer!), ...trace.constants.map(({ buffer }) => buffer), ...valuesIn(outputs).flatMap((value) => (trace.planned.has(value.buffer!) ? [value.buffer!] : []))];
    this.bytes = planMemory(trace.list.operands, trace.planned, fixed);
    this.instructions = trace.list.count;
    checkMemory("this program", this.bytes, persistent.bytes);
    const block = new Block(Math.max(this.bytes, 64));
    this.#arena = block.arena;
    for (const buffer of [...trace.planned, ...fixed]) {
      buffer.arena = block.arena.handle;
      buffer.block = block;
    }
    for (const { buffer, values } of trace.constants) if (values.byteLength > 0) this.#arena.write(buffer.offset, values);
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
      if (!done) this.#undo();
    }
  }

  /** Copies the inputs in, runs, and returns when it is done. */
  runNow(inputs: { [N in keyof I]: Data }, options: { timed?: boolean } = {}): void {
    this.#prepare(inputs);
    try {
      this.#native.runNow(options.timed ?? false);
    } catch (error) {
      this.#undo();
      throw error;
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
    if (step !== null) this.#arena.write(step.offset, Int32Array.of(nextStep()));
    for (const action of this.#trace.actions) action.run();
  }

  /** As if the run had not been begun. */
  #undo(): void {
    for (const action of this.#trace.actions.toReversed()) action.undo();
    if (this.#trace.step !== null) trainingStep(trainingStep() - 1);
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
    const times = this.#native.times();
    return this.#trace.list.heads().map(({ op, tag }, i) => ({ ...untag(tag), op, nanoseconds: times[i]! }));
  }

  release(): void {
    this.#native.release();
    this.#arena.release();
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
