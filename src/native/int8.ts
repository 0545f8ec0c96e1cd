// The int8 model, its training step and its evaluation, as objects over native memory. Shapes are checked on both sides.
// Not the algorithm (kernels/int8/eggroll.zig) and not the choice of data (src/learners/eggroll-int8.ts).
import { EggError } from "../errors.ts";
import { call, emptyRecord, emptyWord, pack, unpack, type RecordOf } from "./abi.ts";
import { join, type Context } from "./machine.ts";

type Handle = number;

/** Numbers of the rules (kernels/int8/rule.zig). */
const rules = { "egg.c": 0, "nano-egg": 1 } as const;

export interface ModelShape {
  /** Whose arithmetic: trainer.rule of the config. */
  rule: keyof typeof rules;
  layers: number;
  hidden: number;
  vocabulary: number;
}

function created(create: (out: DataView) => void): Handle {
  const out = emptyWord();
  create(out);
  return out.getUint32(0, true);
}

/** Throws unless `buffer` holds exactly `bytes`: the library would refuse it too, with fewer words. */
function expectBytes(what: string, buffer: Uint8Array | Int8Array | Int32Array, bytes: number): void {
  if (buffer.byteLength !== bytes) {
    throw new EggError("internal", `[native] ${what}: expected ${bytes} bytes, found ${buffer.byteLength}.`);
  }
}

/** Weights of one model in native memory. Tensors are numbered as in src/models/egg.ts. */
export class NativeModel {
  readonly context: Context;
  readonly handle: Handle;
  readonly rule: ModelShape["rule"];
  readonly layers: number;
  readonly hidden: number;
  readonly vocabulary: number;

  /** @throws EggError("resources") that names the bytes needed */
  constructor(context: Context, { rule, ...shape }: ModelShape) {
    this.context = context;
    this.rule = rule;
    this.layers = shape.layers;
    this.hidden = shape.hidden;
    this.vocabulary = shape.vocabulary;
    this.handle = created((out) => call("egg_int8_model_create", [context.handle, pack("ModelShape", { ...shape, rule: rules[rule] }), out]));
  }

  /** Bytes of one recurrent state (layers x hidden). */
  get stateBytes(): number {
    return this.layers * this.hidden;
  }

  /** Sets all weights to the rule's initial ones; egg.c has the same for every seed. */
  initialize(seed: number): void {
    call("egg_int8_model_initialize", [this.handle, seed]);
  }

  write(tensor: number, values: Uint8Array | Int8Array): void {
    call("egg_int8_model_write", [this.handle, tensor, values, values.byteLength]);
  }

  /** Copies a tensor out; into the front of `room` where given. */
  read(tensor: number, bytes: number, room?: Uint8Array): Uint8Array {
    const values = room?.subarray(0, bytes) ?? new Uint8Array(bytes);
    call("egg_int8_model_read", [this.handle, tensor, values, bytes]);
    return values;
  }

  release(): void {
    call("egg_release", [this.handle]);
  }
}

export interface TrainerShape {
  /** Antithetic pairs: half the population. */
  pairs: number;
  sequence: number;
  /** Pairs that read the same stream; default 1. */
  pairs_per_stream?: number;
  sigma_shift: number;
  /** Groups of 16 pairs that run side by side; 0: the library chooses. Never changes a result. */
  panel_groups?: number;
  /** How members are run: 0 the library chooses, 1 in panels, 2 by rows. Never changes a result. */
  mode?: number;
  /** Seed of the noise where it is the run's (nano-egg); default 0. */
  seed?: number;
  /** 1: only the signs of the noise count in the update; default 0. */
  signs?: number;
}

/** What one step is told: the seed of its noise (egg.c) or the noise's epoch (nano-egg), and the threshold of its update. */
export type StepOrder = RecordOf<"StepOrder">;
export type StepResult = RecordOf<"StepResult">;

/** A population on a model: streams in, one step, losses out. */
export class NativeTrainer {
  readonly model: NativeModel;
  readonly shape: TrainerShape;
  readonly handle: Handle;

  /** @throws EggError("resources") that names the bytes needed */
  constructor(model: NativeModel, shape: TrainerShape) {
    this.model = model;
    this.shape = shape;
    this.handle = created((out) => call("egg_int8_trainer_create", [model.handle, packShape(shape), out]));
  }

  /** Memory that a trainer of this shape takes besides its model, in bytes. */
  static bytesNeeded(model: NativeModel, shape: TrainerShape): number {
    const out = emptyWord();
    call("egg_int8_trainer_bytes", [model.handle, packShape(shape), out]);
    return out.getFloat64(0, true);
  }

  /**
   * One training step. Resolves to null when it was cancelled, and then nothing has changed.
   * @param batch the streams, pairs / pairs_per_stream x (sequence + 1) bytes
   */
  async step(batch: Uint8Array, order: StepOrder, onProgress?: (share: number) => void): Promise<StepResult | null> {
    expectBytes("batch", batch, Math.ceil(this.shape.pairs / (this.shape.pairs_per_stream ?? 1)) * (this.shape.sequence + 1));
    call("egg_int8_trainer_batch", [this.handle, batch, batch.byteLength]);
    call("egg_int8_step_start", [this.handle, pack("StepOrder", order)]);
    await join(this.model.context, onProgress);
    const result = emptyRecord("StepResult");
    return call("egg_int8_step_finish", [this.handle, result], ["cancelled"]) === "ok" ? unpack("StepResult", result) : null;
  }

  /** Integer losses of the last step, in 1/16 bit summed over the sequence: [2 x pairs], member 2p is pair p's plus side. */
  losses(): Int32Array {
    const losses = new Int32Array(2 * this.shape.pairs);
    call("egg_int8_step_losses", [this.handle, losses, losses.byteLength]);
    return losses;
  }

  /** CPU seconds of the last step by phase, summed over the threads. */
  phases(): RecordOf<"BenchPhases"> {
    const phases = emptyRecord("BenchPhases");
    call("egg_bench_phases", [this.handle, phases]);
    return unpack("BenchPhases", phases);
  }

  /** Recurrent states of members `first` .. `first + count`: [count][layers][hidden]; in the front of `room` where given. */
  readStates(first: number, count: number, room?: Uint8Array): Uint8Array {
    const bytes = count * this.model.stateBytes;
    const states = room?.subarray(0, bytes) ?? new Uint8Array(bytes);
    call("egg_int8_trainer_states_read", [this.handle, first, count, states, states.byteLength]);
    return states;
  }

  writeStates(first: number, states: Uint8Array): void {
    const count = states.byteLength / this.model.stateBytes;
    call("egg_int8_trainer_states_write", [this.handle, first, count, states, states.byteLength]);
  }

  release(): void {
    call("egg_release", [this.handle]);
  }
}

function packShape(shape: TrainerShape): DataView {
  return pack("TrainerShape", { pairs_per_stream: 1, panel_groups: 0, mode: 0, seed: 0, signs: 0, ...shape });
}

export type EvaluateResult = RecordOf<"EvaluateResult">;

/** Streams of text read side by side with clean weights. */
export class NativeEvaluator {
  readonly model: NativeModel;
  readonly streams: number;
  readonly length: number;
  readonly handle: Handle;

  /** @param length the longest window, in tokens a stream */
  constructor(model: NativeModel, streams: number, length: number) {
    this.model = model;
    this.streams = streams;
    this.length = length;
    this.handle = created((out) => call("egg_int8_evaluator_create", [model.handle, streams, length, out]));
  }

  /**
   * Reads a window and moves the states on. Resolves to null when it was cancelled; the states must then be written again.
   * @param window streams x (length + 1) bytes
   * @returns sums over all streams: tokens, exact softmax bits, integer loss in 1/16 bit
   */
  async evaluate(window: Uint8Array, length: number): Promise<EvaluateResult | null> {
    expectBytes("window", window, this.streams * (length + 1));
    call("egg_int8_evaluate_start", [this.handle, length, window, window.byteLength]);
    await join(this.model.context);
    const result = emptyRecord("EvaluateResult");
    return call("egg_int8_evaluate_finish", [this.handle, result], ["cancelled"]) === "ok" ? unpack("EvaluateResult", result) : null;
  }

  /** Reads `text` with the first stream; returns the next token's logits, in 1/16 bit. */
  feed(text: Uint8Array): Int8Array {
    const logits = new Int8Array(this.model.vocabulary);
    call("egg_int8_feed", [this.handle, text, text.byteLength, logits, logits.byteLength]);
    return logits;
  }

  readStates(): Uint8Array {
    const states = new Uint8Array(this.streams * this.model.stateBytes);
    call("egg_int8_evaluator_states_read", [this.handle, states, states.byteLength]);
    return states;
  }

  writeStates(states: Uint8Array): void {
    call("egg_int8_evaluator_states_write", [this.handle, states, states.byteLength]);
  }

  release(): void {
    call("egg_release", [this.handle]);
  }
}
