// Reverse-mode differentiation: operations are written down as they happen, and read backwards. One rule for all of them;
// what each operation does is in the op table. Not the table (ops-*.ts), not the user's calls (tensor.ts). Read next: ops-elementwise.ts.
import { EggError } from "../errors.ts";
import type { DtypeName, Operand } from "../native/instructions.ts";
import {
  capturing, closeScope, currentScope, delay, drop, emit, endStep, flush, moveTo, nextStep, openScope, streamCounter, tag, take, untag, withdraw, withTag,
} from "./device.ts";
import type { Buffer } from "./memory.ts";
import { bytesOf, changeCount, checkShape, emptyData, gradientOf, product, sameShape, setFresh, show, type Shape, type Value } from "./value.ts";

/** A row of the op table. `A`: what an operation is told besides its inputs. */
export interface Operation<A> {
  readonly name: string;
  /** What users know it as, where that depends on the attributes. */
  label?(attributes: A): string;
  /** The result's shape. Refuses (with `refuse`) inputs of wrong shapes or types. */
  shape(inputs: readonly Value[], attributes: A): Shape;
  /** f32 where absent. */
  dtype?(inputs: readonly Value[], attributes: A): DtypeName;
  /** The value whose memory the result shares, in another shape; `forward` is not called then. */
  view?(inputs: readonly Value[], attributes: A): Value;
  forward?(step: Forward<A>): void;
  /** Parameters that are no inputs may get gradients too. */
  readonly hidden?: boolean;
  /** Absent: gradients stop here. */
  backward?(step: Backward<A>): void;
  /**
   * For losses: the value and, of a gradient of 1, the gradients at once. Called instead of `forward` and `backward` where
   * backward() begins at the result and nothing was done since. `into` is null where an input needs no gradient.
   */
  together?(step: Forward<A>, into: (i: number) => { at: Operand; accumulate: boolean } | null): void;
}

/** Says that an operation cannot take these inputs. */
export function refuse(name: string, inputs: readonly Value[], why: string): never {
  throw new EggError("usage", `[tensor] ${name}: ${inputs.map((input) => show(input.shape)).join(" and ")}: ${why}.`);
}

/** What was done. `since`: changes of values that there had been by then; `backward` must not find newer ones. */
interface Node { readonly operation: Operation<any>; readonly inputs: readonly Value[]; readonly output: Value; readonly attributes: any; readonly saved: Map<string, Buffer>; readonly name: string; readonly step: Forward<any> | null; readonly since: number }

/** What `forward` works with. */
export class Forward<A> {
  readonly inputs: readonly Value[];
  readonly output: Value;
  readonly attributes: A;
  /** A backward pass may follow: keep what it needs. */
  readonly recording: boolean;
  readonly saved = new Map<string, Buffer>();
  readonly #name: string;

  constructor(name: string, inputs: readonly Value[], output: Value, attributes: A, recording: boolean) {
    this.#name = name;
    this.inputs = inputs;
    this.output = output;
    this.attributes = attributes;
    this.recording = recording;
  }

  /** Where input `i` is. */
  at(i: number): Operand {
    return this.inputs[i]!.place(this.#name);
  }

  get y(): Buffer {
    return this.output.buffer!;
  }

  /** Memory that `backward` finds under the same name. */
  save(name: string, bytes: number): Buffer {
    const buffer = take(bytes);
    this.saved.set(name, buffer);
    return buffer;
  }

  /** Memory for this operation only. */
  temporary<T>(bytes: number, use: (at: Buffer) => T): T {
    return temporary(bytes, use);
  }
}

function temporary<T>(bytes: number, use: (at: Buffer) => T): T {
  const buffer = take(bytes);
  try {
    return use(buffer);
  } finally {
    drop(buffer);
  }
}

/** Gradients on their way. */
type Gradients = Map<Value, Buffer>;

/** What `backward` works with. Each needed input gets its share by one of `into`, `write`, `pass`. */
export class Backward<A> {
  readonly inputs: readonly Value[];
  readonly output: Value;
  readonly attributes: A;
  readonly #node: Node;
  readonly #gradients: Gradients;
  /** The gradient of the output. */
  readonly dy: Buffer;

  constructor(node: Node, gradients: Gradients, dy: Buffer) {
    this.#node = node;
    this.#gradients = gradients;
    this.inputs = node.inputs;
    this.output = node.output;
    this.attributes = node.attributes;
    this.dy = dy;
  }

  needs(i: number): boolean {
    return this.inputs[i]?.requiresGrad === true;
  }

  /** Where the numbers of input `i` are. @throws EggError("usage") where they are no longer those that it was computed from */
  at(i: number): Operand {
    const { operation: { name }, since } = this.#node;
    this.inputs[i]!.checkUnchanged(name, since);
    return this.inputs[i]!.place(name);
  }

  get y(): Operand {
    return this.output.buffer!;
  }

  saved(name: string): Buffer {
    return this.#node.saved.get(name)!;
  }

  temporary<T>(bytes: number, use: (at: Buffer) => T): T {
    return temporary(bytes, use);
  }

  /** `use` gets the gradient of the output times `factor`, element by element. It is overwritten where no other value's shares its memory. */
  multiplied(factor: Operand, use: (gradient: Buffer) => void): void {
    const into = (y: Buffer): void => {
      emit("binary", { a: this.dy, b: factor, y, rows: 1, cols: this.output.numel, operation: "multiply", broadcast: "same", alpha: 1 });
      use(y);
    };
    if (this.dy.users === 1) into(this.dy);
    else this.temporary(this.dy.bytes, into);
  }

  /** Where input `i`'s gradient goes, by the very next instruction, and whether that must add to what is there. Call only where `needs(i)`. */
  into(i: number): { at: Operand; accumulate: boolean } {
    return target(this.#gradients, this.inputs[i]!);
  }

  /**
   * For instructions that write several gradients at once: a place to write input `i`'s (without adding) in `use`; also where
   * nobody needs it.
   */
  write(indices: readonly number[], use: (places: Operand[]) => void): void {
    const finished: (() => void)[] = [];
    const places = indices.map((i, order): Operand => {
      const value = this.inputs[i]!;
      const first = indices.findIndex((other) => this.inputs[other] === value) === order;
      if (this.needs(i) && first && !this.#gradients.has(value) && (!value.isPersistent || gradientOf(value).fresh)) return this.into(i).at;
      const buffer = take(value.bytes);
      finished.push(() => {
        if (this.needs(i)) this.give(value, buffer);
        drop(buffer);
      });
      return buffer;
    });
    use(places);
    for (const finish of finished) finish();
  }

  /** Input `i`'s gradient is the output's, element by element. */
  pass(i: number): void {
    const value = this.inputs[i]!;
    if (!this.needs(i)) return;
    if (value.isPersistent || this.#gradients.has(value)) return this.give(value, this.dy);
    this.dy.users++;
    this.#gradients.set(value, this.dy);
  }

  /** Adds to the gradient of a value, an input or one that was used inside. */
  give(value: Value, from: Operand): void {
    const { at, accumulate } = target(this.#gradients, value);
    emit("unary", { x: from, y: at, count: value.numel, operation: "identity", alpha: 1, beta: 0, accumulate });
  }
}

function target(gradients: Gradients, value: Value): { at: Operand; accumulate: boolean } {
  if (value.isPersistent) {
    const gradient = gradientOf(value);
    const accumulate = !gradient.fresh;
    setFresh(value, false);
    return { at: gradient.at, accumulate };
  }
  const found = gradients.get(value);
  const count = value.numel;
  if (found === undefined) {
    const buffer = take(4 * count);
    gradients.set(value, buffer);
    return { at: buffer, accumulate: false };
  }
  if (found.users === 1) return { at: found, accumulate: true };
  const own = take(4 * count); // shared with another value's gradient: that one must stay as it is
  emit("unary", { x: found, y: own, count, operation: "identity", alpha: 1, beta: 0 });
  drop(found);
  gradients.set(value, own);
  return { at: own, accumulate: true };
}

// ---- writing down

let tape: Node[] = [];
let recording = true;
/** What nodes note instead of the present while something is computed again: no value may have changed since then. */
let again: number | null = null;

/** Runs `action` with a tape of its own: what is on this one stays as it is. */
export function apart<T>(action: () => T): T {
  const before = tape;
  tape = [];
  try {
    return action();
  } finally {
    tape = before;
  }
}

/** What is looked at when NaN is hunted (debug.ts): f32 numbers at a place, input `input` of an operation, its result, or an input's gradient. */
export interface Looked { what: "input" | "result" | "gradient"; name: string; inputs: readonly Value[]; input: number; at: Operand; numel: number }
type Look = (looked: Looked) => void;
let inspect: Look | null = null;

export function inspectWith(look: Look | null): void {
  inspect = look;
}

/** Shows `look` the inputs that no operation made, then the result. */
function lookAt(look: Look, name: string, inputs: readonly Value[], output: Value): void {
  inputs.forEach((input, i) => {
    if (input.dtype === "f32" && (input.data !== null || input.isPersistent)) look({ what: "input", name, inputs, input: i, at: input.place(name), numel: input.numel });
  });
  if (output.dtype === "f32") look({ what: "result", name, inputs, input: 0, at: output.place(name), numel: output.numel });
}

/** Shows `look` the gradients that an operation has just added to. */
function lookAtGradients(look: Look, { operation, inputs, attributes }: Node, gradients: Gradients): void {
  const name = operation.label?.(attributes) ?? operation.name;
  inputs.forEach((input, i) => {
    const at = !input.requiresGrad || input.gradient?.fresh === true ? undefined : input.isPersistent ? gradientOf(input).at : gradients.get(input);
    if (at !== undefined) look({ what: "gradient", name, inputs, input: i, at, numel: input.numel });
  });
}

/**
 * Does an operation and writes it down where gradients are asked for.
 * @param make an empty value of the caller's class
 */
export function apply<A, T extends Value>(make: (shape: Shape, dtype: DtypeName) => T, operation: Operation<A>, inputs: readonly Value[], attributes: A): T {
  const name = operation.label?.(attributes) ?? operation.name;
  for (const input of inputs) {
    input.checkAlive(name);
    if (again !== null) input.checkUnchanged(name, again);
  }
  const shape = operation.shape(inputs, attributes);
  checkShape(name, shape);
  const output = make(shape, operation.dtype?.(inputs, attributes) ?? "f32");
  const differentiate = recording && operation.backward !== undefined && (operation.hidden === true || inputs.some((input) => input.requiresGrad));
  output.origin = { op: name, shapes: inputs.map((input) => input.shape) };
  output.scope = currentScope();
  let step: Forward<A> | null = null;
  const from = operation.view?.(inputs, attributes);
  if (from !== undefined) {
    if (from.data !== null) {
      output.data = from.data;
      output.scope = null;
    } else {
      output.buffer = from.buffer!;
      output.buffer.users++;
      output.scope = from.scope;
    }
  } else {
    output.buffer = take(product(shape) * bytesOf(output.dtype));
    const forward = (step = new Forward(name, inputs, output, attributes, differentiate));
    const within = untag(tag());
    if (differentiate && operation.together !== undefined && new Set(inputs).size === inputs.length) delay(output, () => withTag(within.name, within.phase, () => operation.forward!(forward)));
    else operation.forward!(forward);
    if (!differentiate) for (const buffer of forward.saved.values()) drop(buffer);
  }
  if (differentiate) {
    output.requiresGrad = true;
    output.onTape = true;
    tape.push({ operation, inputs, output, attributes, saved: step?.saved ?? new Map(), name: untag(tag()).name, step, since: again ?? changeCount() });
  }
  if (inspect !== null) lookAt(inspect, name, inputs, output);
  return output;
}

/**
 * Computes without writing anything down. What `action` returns (a tensor, or an array or object of tensors) stays for the
 * scope around it; all else that it made is freed at its end.
 */
export function noGrad<T>(action: () => T): T {
  const before = recording;
  const outer = openScope();
  recording = false;
  let result: T;
  try {
    result = action();
    for (const value of valuesIn(result)) {
      if (value.scope !== currentScope() || value.died) continue;
      value.scope = outer;
      if (value.buffer !== null) moveTo(value.buffer, outer);
    }
  } finally {
    recording = before;
    closeScope("the end of noGrad(() => ...)", outer);
  }
  return result;
}

export function isRecording(): boolean {
  return recording;
}

function isValue(thing: unknown): thing is Value {
  return typeof thing === "object" && thing !== null && "onTape" in thing && "scope" in thing;
}

/** The tensors in a tensor, an array, or an object. */
export function valuesIn(thing: unknown): Value[] {
  if (isValue(thing)) return [thing];
  if (Array.isArray(thing)) return thing.flatMap(valuesIn);
  if (typeof thing === "object" && thing !== null && Object.getPrototypeOf(thing) === Object.prototype) return Object.values(thing).flatMap(valuesIn);
  return [];
}

// ---- reading backwards

/**
 * Adds the gradients of `root` to all leaves that require them, then ends the step: every result dies, but the numbers of a
 * `root` of one element stay.
 * @param gradient of root; 1 where absent, which needs a root of one element
 */
export function backward(root: Value, gradient?: Value): void {
  const why = root.whyNoBackward();
  const hint = root.spent ? "Call backward() once on each result; compute the result again for another." : "Compute it from Parameters, or from tensors made with { requiresGrad: true }, outside noGrad.";
  if (why !== "") throw new EggError("usage", `[tensor] backward: ${why}.`, { hint });
  root.checkAlive("backward");
  if (gradient === undefined && root.numel !== 1) throw new EggError("usage", `[tensor] backward: ${root.origin.op} gave ${show(root.shape)}; only a tensor of one element needs no gradient given.`);
  if (gradient !== undefined && !sameShape(gradient.shape, root.shape)) refuse("backward", [root, gradient], "a gradient has its tensor's shape");
  if (gradient !== undefined && gradient.dtype !== "f32") refuse("backward", [root, gradient], `the gradient is ${gradient.dtype}; gradients are f32, also of ${root.dtype} tensors`);
  const gradients: Gradients = new Map();
  const nodes = tape;
  const last = nodes.at(-1);
  tape = [];
  if (gradient === undefined && last?.output === root && withdraw(root)) {
    const into = (i: number) => (last.inputs[i]?.requiresGrad === true ? target(gradients, last.inputs[i]!) : null);
    withTag(last.name, "forward", () => last.operation.together!(last.step!, into));
  } else {
    const seed = take(4 * root.numel);
    if (gradient === undefined) emit("fill", { y: seed, count: 1, value: 1 });
    else emit("unary", { x: gradient.place("backward"), y: seed, count: root.numel, operation: "identity", alpha: 1, beta: 0 });
    gradients.set(root, seed);
  }
  const value = capturing() === null && root.numel === 1 ? root.read("backward") : null;
  try {
    sweep(nodes, gradients);
    const leaves = [...gradients].filter(([leaf]) => !leaf.onTape && leaf.requiresGrad);
    if (leaves.length > 0 && capturing() !== null) refuse("capture", leaves.map(([leaf]) => leaf), "only parameters can get gradients in a program");
    flush();
    for (const [leaf, buffer] of leaves) addToData(leaf, buffer);
  } finally {
    for (const node of nodes) node.output.spent = true;
    endStep("backward()");
  }
  if (capturing() === null) nextStep();
  if (value !== null) {
    root.data = value;
    root.buffer = null;
    root.scope = null;
    root.onTape = false;
    root.requiresGrad = false;
  }
}

/** Runs the nodes backwards; frees what they leave behind. */
function sweep(nodes: readonly Node[], gradients: Gradients): void {
  const before = recording;
  recording = false;
  try {
    for (let i = nodes.length - 1; i >= 0; i--) {
      const node = nodes[i]!;
      const dy = gradients.get(node.output);
      if (dy !== undefined) {
        gradients.delete(node.output);
        withTag(node.name, "backward", () => node.operation.backward!(new Backward(node, gradients, dy)));
        if (inspect !== null) lookAtGradients(inspect, node, gradients);
        drop(dy);
      }
      for (const buffer of node.saved.values()) drop(buffer);
      if (node.output.buffer !== null) drop(node.output.buffer);
    }
  } finally {
    recording = before;
  }
}

/** Gradients of leaves in JavaScript memory are kept there. */
function addToData(leaf: Value, buffer: Buffer): void {
  const found = emptyData("f32", leaf.numel) as Float32Array;
  if (found.length > 0) buffer.block!.arena.read(buffer.offset, found);
  const sum = leafGradients.get(leaf);
  if (sum === undefined) leafGradients.set(leaf, found);
  else for (let i = 0; i < sum.length; i++) sum[i]! += found[i]!;
}

export const leafGradients = new WeakMap<Value, Float32Array>();

interface Checkpoint { readonly action: (...inputs: Value[]) => Value; readonly streams: number; readonly copy: (value: Value) => Value; readonly result: Value; readonly since: number }

/** Computes `action` without keeping what is inside; backward computes it again. */
const checkpointed: Operation<Checkpoint> = {
  name: "checkpoint",
  hidden: true,
  shape: (_, { result }) => result.shape,
  view: (_, { result }) => result,
  backward(step) {
    const { action, streams, copy, since } = step.attributes;
    const outer = { streams: streamCounter(), recording, again };
    const inputs = step.inputs.map(copy);
    const inner: Gradients = new Map();
    streamCounter(streams);
    recording = true;
    again = since;
    try {
      apart(() => {
        const result = action(...inputs);
        step.dy.users++;
        inner.set(result, step.dy);
        sweep(tape, inner);
      });
    } finally {
      ({ recording, again } = outer);
      streamCounter(outer.streams);
    }
    // What is left are the inputs, as copies, and what else was made outside.
    for (const [leaf, gradient] of inner) {
      const value = step.inputs[inputs.indexOf(leaf)] ?? leaf;
      if (value.requiresGrad) step.give(value, gradient);
      drop(gradient);
    }
  },
};

/**
 * Computes `action(...inputs)` keeping only inputs and result; backward computes the inside again, bit for bit the same.
 * @param copy another tensor of the same numbers, without its history
 */
export function checkpoint<T extends Value>(make: (shape: Shape, dtype: DtypeName) => T, action: (...inputs: T[]) => T, inputs: readonly T[], copy: (value: Value) => T): T {
  if (!recording) return action(...inputs);
  const [streams, since] = [streamCounter(), again ?? changeCount()];
  const result = noGrad(() => action(...inputs));
  const output = apply(make, checkpointed, inputs, { action: action as never, streams, copy, result, since });
  if (result.buffer !== null) drop(result.buffer);
  return output;
}
