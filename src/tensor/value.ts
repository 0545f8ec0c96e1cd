// What an operation works on: shape, type, and where the numbers are (JavaScript memory, a step's memory, or for good).
// Not the user's class (tensor.ts) and not how gradients flow (tape.ts). Read next: tape.ts.
import { EggError } from "../errors.ts";
import type { NativeArena } from "../native/float.ts";
import type { DtypeName, Operand } from "../native/instructions.ts";
import { capturing, currentScope, emit, flush, noteRead, persistent, upload, type Life, type Recorder, type Scope } from "./device.ts";
import { checkMemory, type Buffer } from "./memory.ts";

export type Shape = readonly number[];
export type Data = Float32Array | Int32Array | Uint16Array;

/** Kernels count elements in 32 bits. */
const elements_max = 2 ** 32 - 1;

export const bytesOf = (dtype: DtypeName): number => (dtype === "bf16" ? 2 : 4);
export const show = (shape: Shape): string => `(${shape.join(", ")})`;
export const product = (shape: Shape): number => shape.reduce((a, b) => a * b, 1);
export const sameShape = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((size, i) => size === b[i]);

/** What holds a type's numbers as they are stored; bf16 as bits. */
const arrays = { f32: Float32Array, i32: Int32Array, bf16: Uint16Array };
const nameOf = (data: Data): string => data.constructor.name;

/** From here on memory is asked for before it is taken. */
const large = 2 ** 28;

/** An array of a type, zeros, in memory that does not move. @throws EggError("resources") where there is not that much */
export function emptyData(dtype: DtypeName, count: number): Data {
  const bytes = count * bytesOf(dtype);
  if (bytes >= large) checkMemory("numbers in JavaScript", bytes);
  try {
    return new arrays[dtype](new ArrayBuffer(bytes));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new EggError("resources", `[tensor] numbers in JavaScript: ${bytes.toLocaleString("en")} bytes are needed, the system does not give them.`, { hint: "Use smaller shapes." });
  }
}

/** @throws EggError("usage") for a type that is none */
export function checkType(op: string, dtype: string): void {
  if (!Object.hasOwn(arrays, dtype)) throw new EggError("usage", `[tensor] ${op}: ${JSON.stringify(dtype)} is not a type; allowed are ${Object.keys(arrays).join(", ")}.`);
}

/** bf16 as f32: the same numbers. */
function widen(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(new ArrayBuffer(4 * bits.length));
  for (let i = 0; i < words.length; i++) words[i] = bits[i]! << 16;
  return new Float32Array(words.buffer);
}

/** f32 to the nearest bf16, ties to even, as bits. NaN stays NaN. */
export function narrow(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bits = emptyData("bf16", values.length) as Uint16Array;
  for (let i = 0; i < bits.length; i++) {
    const word = words[i]!;
    bits[i] = values[i]! !== values[i]! ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return bits;
}

/**
 * Numbers as a type stores them: f32 and bf16 the nearest, ties to even. A Float32Array that stays f32 is taken as it is.
 * @throws EggError("usage") for a number that i32 cannot hold
 */
export function encode(op: string, dtype: DtypeName, numbers: ArrayLike<number>): Data {
  if (dtype === "bf16") return narrow(numbers instanceof Float32Array ? numbers : Float32Array.from(numbers));
  if (dtype === "f32" && numbers instanceof Float32Array) return numbers;
  const data = emptyData(dtype, numbers.length);
  data.set(numbers);
  if (dtype === "i32") {
    for (let i = 0; i < data.length; i++) {
      if (data[i] !== numbers[i]) throw new EggError("usage", `[tensor] ${op}: ${numbers[i]} is not an i32; whole numbers from ${-(2 ** 31)} to ${2 ** 31 - 1} are.`);
    }
  }
  return data;
}

/** @throws EggError("usage") for a shape that is none, or too large */
export function checkShape(op: string, shape: Shape): void {
  if (!Array.isArray(shape)) throw new EggError("usage", `[tensor] ${op}: ${String(shape)} is not a shape; one is a list of sizes, such as [2, 3].`);
  if (!shape.every((size) => Number.isInteger(size) && size >= 0)) throw new EggError("usage", `[tensor] ${op}: ${show(shape)} is not a shape; sizes are whole numbers from 0.`);
  if (product(shape) > elements_max || shape.some((size) => size > elements_max)) throw new EggError("usage", `[tensor] ${op}: ${show(shape)} has more than ${elements_max.toLocaleString("en")} elements.`);
}

/** Longer axes are shown by this many of their first and last numbers. */
const shown_ends = 3;
const shown_max = 8;

/** Numbers of a shape as nested lists, to six digits, of long axes a part. */
export function render(numbers: ArrayLike<number>, shape: Shape): string {
  const build = (axis: number, at: number): string => {
    const size = shape[axis];
    if (size === undefined) return String(Number(numbers[at]!.toPrecision(6)));
    const step = product(shape.slice(axis + 1));
    const part = (first: number, count: number): string[] => Array.from({ length: count }, (_, i) => build(axis + 1, at + (first + i) * step));
    return `[${(size > shown_max ? [...part(0, shown_ends), "...", ...part(size - shown_ends, shown_ends)] : part(0, size)).join(", ")}]`;
  };
  return build(0, 0);
}

/** What made a value, for messages and profiles. */
export interface Origin { readonly op: string; readonly shapes: readonly Shape[] }
const describe = ({ op, shapes }: Origin): string => (shapes.length === 0 ? op : `${op} of ${shapes.map(show).join(" and ")}`);

/** Changes of values that are there for good, counted: what the tape remembers of when it saw them. */
let changes = 0;
export const changeCount = (): number => changes;

/**
 * A dense row-major array. Subclassed by Tensor only, for methods; all members but shape, dtype, numel, bytes and requiresGrad
 * are the library's own.
 */
export class Value {
  readonly shape: Shape;
  readonly dtype: DtypeName;
  /** Numbers in JavaScript memory, which nobody else may write to; null where they are native. @internal */
  data: Data | null = null;
  /** Native memory. @internal */
  buffer: Buffer | null = null;
  #scope: Scope | null = null;
  #life: Life | null = null;
  /** Gradients flow to it: it is a leaf that asked for them, or was made from one. */
  requiresGrad = false;
  /** On the tape: an operation's result. @internal */
  onTape = false;
  /** @internal */
  origin: Origin = { op: "tensor", shapes: [] };
  /** A backward pass has used up what made it. @internal */
  spent = false;
  /** Where a persistent leaf's gradient is summed; `fresh`: it counts as zeros, and the next backward writes instead of adding. @internal */
  gradient: { at: Operand; fresh: boolean } | null = null;
  #uploaded: { at: Operand; owner: Life | Recorder } | null = null;

  /** @internal */
  constructor(shape: Shape, dtype: DtypeName) {
    this.shape = shape;
    this.dtype = dtype;
  }

  /** The scope that the memory dies with; null: never. @internal */
  get scope(): Scope | null {
    return this.#scope;
  }

  set scope(scope: Scope | null) {
    this.#scope = scope;
    this.#life = scope?.life ?? null;
  }

  /** Its step is over. @internal */
  get died(): boolean {
    return this.#life !== null && !this.#life.alive;
  }

  /** How many numbers there are. */
  get numel(): number {
    return product(this.shape);
  }

  /** What they take. */
  get bytes(): number {
    return this.numel * bytesOf(this.dtype);
  }

  /** Native memory of its own, for good; not a result that only looks at such memory. @internal */
  get isPersistent(): boolean {
    return this.buffer !== null && this.#scope === null && !this.onTape;
  }

  /**
   * Where instructions find the numbers; copies them there first if they are in JavaScript memory.
   * @param op who asks, for messages
   * @throws EggError("usage") as checkAlive
   * @internal
   */
  place(op: string): Operand {
    if (this.data !== null) {
      const owner = capturing() ?? currentScope().life;
      const known = this.#uploaded;
      if (known !== null && known.owner === owner) return known.at;
      const at = upload(this.data);
      this.#uploaded = { at, owner };
      return at;
    }
    this.checkAlive(op);
    return this.buffer!;
  }

  /**
   * The one check before the numbers are used. A program that is being captured hears of memory that is there for good: it
   * will not run without it.
   * @throws EggError("usage") where it was released, died with its step, or would die before the program that is captured
   * @internal
   */
  checkAlive(op: string): void {
    if (this.data !== null) return;
    const { buffer } = this;
    const recorder = capturing();
    if (this.died) {
      throw new EggError("usage", `${this.#result(op)} died at ${this.#life!.ended}.`, {
        hint: "Results live until backward() or the end of noGrad(() => ...). Read them before, with item() or toArray(), or return them from noGrad.",
      });
    }
    if (buffer !== null && recorder !== null && recorder.owns(buffer)) return;
    if (buffer === null || buffer.block === null) throw new EggError("usage", `[tensor] ${op}: a tensor ${show(this.shape)} was released.`);
    if (recorder === null) return;
    if (this.#scope !== null) throw new EggError("usage", `${this.#result(op)} was computed outside the program that is captured and ends before it.`, { hint: "Compute it inside, make it an input of the program, or keep it in a Parameter." });
    recorder.link(buffer, this.shape);
  }

  #result(op: string): string {
    return `[tensor] ${op}: ${describe(this.origin)}, a result ${show(this.shape)},`;
  }

  /** Where it is there for good: the numbers were overwritten. @internal */
  changed(): void {
    this.buffer!.changed = ++changes;
  }

  /** @throws EggError("usage") where the numbers were overwritten after `since` changes. @internal */
  checkUnchanged(op: string, since: number): void {
    if (this.buffer === null || this.buffer.changed <= since) return;
    throw new EggError("usage", `[tensor] backward: ${op}: an input ${show(this.shape)} was changed after it was used; its gradients would be those of other numbers.`, {
      hint: "Call backward() before optimizer.step() or copy_(), or compute the result again. Gradients of this step are incomplete: zeroGrad().",
    });
  }

  /** The numbers, flat and row-major, as a copy. bf16 comes as f32. @internal */
  read(op: string): Float32Array | Int32Array {
    const data = this.stored(op);
    return data instanceof Uint16Array ? widen(data) : data;
  }

  /** The numbers as they are stored, bf16 as bits: a copy. @internal */
  stored(op: string): Data {
    if (capturing() !== null) throw new EggError("usage", `[tensor] ${op}: values cannot be read while a program is captured; return the tensor and read it after a run.`);
    const data = emptyData(this.dtype, this.numel);
    if (this.data !== null) data.set(this.data);
    else if (data.length > 0) {
      this.native(op).read(this.buffer!.offset, data);
      noteRead();
    } else this.checkAlive(op);
    return data;
  }

  /** Overwrites native numbers; bf16 as bits. @throws EggError("usage") where the type or the count does not fit. @internal */
  write(op: string, values: Data): void {
    this.checkFits(op, values);
    if (capturing() !== null) throw new EggError("usage", `[tensor] ${op}: values cannot be written while a program is captured.`);
    const arena = this.native(op);
    if (values.length > 0) arena.write(this.buffer!.offset, values);
    this.changed();
  }

  /** @internal */
  checkFits(op: string, values: Data): void {
    if (values.length === this.numel && values instanceof arrays[this.dtype]) return;
    throw new EggError("usage", `[tensor] ${op}: ${values.length} values in ${nameOf(values)} for a ${this.dtype} tensor ${show(this.shape)}, which takes ${this.numel} in ${arrays[this.dtype].name}.`);
  }

  /** The native memory that the numbers are in, after all that was to be computed. */
  protected native(op: string): NativeArena {
    this.checkAlive(op);
    flush();
    return this.buffer!.block!.arena;
  }

  /** Where elements of native memory begin, in bytes. @throws EggError("usage") where `data` has the wrong type, or there are not that many */
  protected rangeAt(op: string, first: number, data: Data): number {
    this.checkAlive(op);
    if (!(data instanceof arrays[this.dtype])) throw new EggError("usage", `[tensor] ${op}: ${nameOf(data)} for a ${this.dtype} tensor ${show(this.shape)}, which takes ${arrays[this.dtype].name}.`);
    if (!Number.isInteger(first) || first < 0 || first + data.length > this.numel) {
      throw new EggError("usage", `[tensor] ${op}: ${data.length} elements from ${first} on are not within ${show(this.shape)}, which has ${this.numel.toLocaleString("en")}.`);
    }
    if (capturing() !== null) throw new EggError("usage", `[tensor] ${op}: values cannot be read or written while a program is captured.`);
    return this.buffer!.offset + first * bytesOf(this.dtype);
  }

  /** Why it cannot be differentiated, or "". @internal */
  whyNoBackward(): string {
    if (this.spent) return `the graph of ${describe(this.origin)} was used up by an earlier backward()`;
    return this.onTape ? "" : `${describe(this.origin)}, a tensor ${show(this.shape)}, was not computed from tensors that require gradients`;
  }
}

/** Native memory of its own for a value, outside every step. */
export function makePersistent(value: Value): void {
  flush(); // what was queued may still use memory that was given back
  value.buffer = persistent.take(value.bytes);
  value.buffer.block!.clear(value.buffer);
  value.scope = null;
}

/** Persistent values whose gradients count as zeros. */
const fresh = new Set<Value>();

/** Where a persistent value's gradient is kept: at the same place in the gradients' arena. */
export function gradientOf(value: Value): { at: Operand; fresh: boolean } {
  if (value.gradient !== null && capturing() === null) return value.gradient;
  value.checkAlive("gradient");
  if (value.gradient !== null) return value.gradient;
  // A program adds to what it finds, unless it says zeroGrad itself: the arena is zeros.
  value.gradient = { at: { arena: value.buffer!.block!.gradients.handle, offset: value.buffer!.offset }, fresh: capturing() === null };
  if (value.gradient.fresh) fresh.add(value);
  return value.gradient;
}

/** The sum of a persistent value's gradients: a copy. */
export function readGradient(value: Value): Data {
  if (capturing() !== null) throw new EggError("usage", "[tensor] grad: values cannot be read while a program is captured.");
  flush();
  const numbers = emptyData("f32", value.numel);
  const { block, offset } = value.buffer!;
  if (numbers.length > 0) block!.gradients.read(offset, numbers);
  return numbers;
}

/** From now on the gradient counts as zeros, or (false) as what its memory holds. */
export function setFresh(value: Value, is: boolean): void {
  gradientOf(value).fresh = is;
  if (is) fresh.add(value);
  else fresh.delete(value);
}

/** Makes a gradient real that only counts as zeros, for who reads it. */
export function settleGradient(value: Value): void {
  if (gradientOf(value).fresh && value.numel > 0) emit("fill", { y: value.gradient!.at, count: value.numel, value: 0 });
  setFresh(value, false);
}

/** The same for all: a program begins and ends with real gradients. */
export function settleGradients(): void {
  for (const value of [...fresh]) settleGradient(value);
}

/** Gives a persistent value's memory back. */
export function releasePersistent(value: Value): void {
  flush();
  persistent.give(value.buffer!);
  value.buffer = null;
  value.gradient = null;
  fresh.delete(value);
}
