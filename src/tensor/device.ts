// Where instructions go: into a queue that is run when a value is read (eager), or into the list of a program that is being
// captured. Also threads, scopes of memory, and names for profiles. Not operations (ops-*.ts). Read next: memory.ts, tape.ts.
import { EggError } from "../errors.ts";
import { InstructionList, runInstructions, workspaceBytes, type Instruction } from "../native/float.ts";
import type { OpName, Values } from "../native/instructions.ts";
import { openContext, type Context, type TierName } from "../native/machine.ts";
import { Buffer, holdings, Pool, type Holding } from "./memory.ts";

/** Parameters and other tensors that live until they are released. */
export const persistent = new Pool("parameters", 1 << 20);
/** Results of operations, until the step ends. */
export const activations = new Pool("activations", 1 << 20);
/** Data copied in during this step; not reused before the queue has run. */
const uploads = new Pool("data", 1 << 16);

/** Instructions of a queue, at most. */
const queue_max = 2048;

// ---- threads

let current: Context | null = null;
const contexts = new Map<string, Context>();

/** The threads and kernels that run instructions: one thread a core, the fastest tier, unless `useThreads` said otherwise. */
export function context(): Context {
  return (current ??= opened(0));
}

function opened(threads: number, tier?: TierName): Context {
  const key = `${threads} ${tier ?? ""}`;
  let found = contexts.get(key);
  if (found === undefined) contexts.set(key, (found = openContext(threads, tier)));
  return found;
}

/**
 * Runs everything from now on with that many threads (0: one a core). Results do not depend on it.
 * @param tier kernels of another CPU tier, for tests; results may differ in the last bits
 * @throws EggError("usage") for no whole number from 0
 */
export function useThreads(threads: number, tier?: TierName): void {
  if (!Number.isInteger(threads) || threads < 0) throw new EggError("usage", `[tensor] useThreads: ${threads} is not a number of threads; 0 is one a core.`);
  flush();
  current = opened(threads, tier);
}

// ---- where instructions go

/** A program being captured: buffers have no place yet. */
export interface Recorder {
  readonly list: InstructionList;
  buffer(bytes: number): Buffer;
  /** Whether a buffer is the program's own. */
  owns(buffer: Buffer): boolean;
  /** Other memory that the program works on: it runs only while that is there. */
  link(buffer: Buffer, shape: readonly number[]): void;
  /** Memory that keeps its values from run to run, for what is data to the captured function. */
  constant(values: NodeJS.TypedArray): Buffer;
  /** Does something in JavaScript before each run, and after each that ended well: not cancelled, and no id out of range. */
  aroundRun(before: () => void, after: () => void): void;
  /** A number of an instruction that is asked for again before each run; of an operand, its place in its arena in bytes. */
  vary(instruction: number, field: string, value: () => number): void;
  /** i32: the number of the step that a run is. */
  stepNumber(): Buffer;
}

let recorder: Recorder | null = null;
const queue = new InstructionList();

export function capturing(): Recorder | null {
  return recorder;
}

/** Makes `next` receive all instructions (null: the queue again). */
export function recordInto(next: Recorder | null): void {
  flush();
  recorder = next;
}

/** An operation that is put off until it is known what follows it. */
let delayed: { owner: object; action: () => void } | null = null;

/** Puts off what `action` emits until anything else is emitted or run, unless `withdraw` comes first. */
export function delay(owner: object, action: () => void): void {
  hurry();
  delayed = { owner, action };
}

/** Takes back what was put off, if it is `owner`'s and still waits. */
export function withdraw(owner: object): boolean {
  if (delayed?.owner !== owner) return false;
  delayed = null;
  return true;
}

function hurry(): void {
  const waiting = delayed;
  delayed = null;
  waiting?.action();
}

/** Whether an instruction multiplies, in its place, the whole of what a product has just written: the product can do it on the way. */
function multiplies(last: Instruction | null, next: Instruction): boolean {
  if (last?.op !== "gemm" || next.op !== "binary") return false;
  const { c, m, n, ldc, outer, inner, beta, factor, c_dtype } = last.values as Values<"gemm">;
  const { operation, broadcast, a, y, rows, cols, alpha, accumulate } = next.values as Values<"binary">;
  const whole = m * n === rows * cols && ldc === n && outer * inner === 1 && c_dtype === "f32";
  return a === c && y === c && whole && beta === 0 && factor === undefined && operation === "multiply" && broadcast === "same" && alpha === 1 && accumulate !== true;
}

/** Appends an instruction (kernels/float/ops.zig says what it does), or lets the last one do its work. */
export function emit<O extends OpName>(op: O, values: Values<O>): void {
  if (delayed !== null) hurry();
  const list = recorder === null ? queue : recorder.list;
  if (multiplies(list.last, { op, values })) list.amend("factor", (values as Values<"binary">).b!);
  else list.add(op, values, tag());
  if (recorder === null && queue.count >= queue_max) flush();
}

/** A program that runs while JavaScript goes on. `end` waits for it. */
export interface Job { end(): void }
let job: Job | null = null;

/** The program that runs beside JavaScript, if one does. */
export function running(): Job | null {
  return job;
}

/** @param next null: it is over */
export function runBeside(next: Job | null): void {
  job = next;
}

/** Waits for a program that runs, then runs what is queued. Results can be read afterwards. */
export function flush(): void {
  if (delayed !== null) hurry();
  job?.end();
  if (queue.count === 0) return;
  try {
    runInstructions(context(), queue);
  } catch (error) {
    endScopes("an error before it was computed"); // what was to be computed never will be
    throw error;
  } finally {
    queue.clear();
  }
}

// ---- memory of a step

/** What values of a scope share: whether they are still there, and if not, why. */
export interface Life { alive: boolean; ended: string }

/** The buffers of a step, or of a noGrad call inside it. They die together. */
export class Scope {
  life: Life = { alive: true, ended: "" };
  readonly outer: Scope | null;
  readonly buffers = new Set<Buffer>();
  readonly uploads: Buffer[] = [];
  /** How often something native was read. */
  reads = 0;

  constructor(outer: Scope | null = null) {
    this.outer = outer;
  }

  /** All values die, all memory is free again. */
  end(reason: string): void {
    this.life.alive = false;
    this.life.ended = reason;
    this.life = { alive: true, ended: "" };
    for (const buffer of this.buffers) if (buffer.block !== null) activations.give(buffer);
    for (const buffer of this.uploads) if (buffer.block !== null) uploads.give(buffer);
    this.buffers.clear();
    this.uploads.length = 0;
    this.reads = 0;
  }
}

let scope = new Scope();

/** Ends the current scope and those around it; they go on, empty. */
function endScopes(reason: string): void {
  for (let each: Scope | null = scope; each !== null; each = each.outer) each.end(reason);
}

/** More of one step's results, read more often than training does, are taken for what should be inside noGrad. */
const unended_bytes = 2 ** 30;
const unended_reads = 100;
let warned = false;

/** Something native was read. Says once, in words, where results pile up because no step ends. */
export function noteRead(): void {
  if (++scope.reads < unended_reads || warned) return;
  const bytes = activations.inUse();
  if (bytes < unended_bytes) return;
  warned = true;
  process.emitWarning(`${bytes.toLocaleString("en")} bytes of results are kept for a backward() that has not come. Compute what needs no gradients inside noGrad(() => ...), where results are freed at its end.`, "EggWarning");
}

export function currentScope(): Scope {
  return scope;
}

/**
 * Opens a scope inside the current one. Close it with `closeScope(outer)`.
 * @param apart the end of a step inside it does not end those around it
 */
export function openScope(apart = false): Scope {
  hurry();
  const outer = scope;
  scope = new Scope(apart ? null : outer);
  return outer;
}

/** Ends the current scope: its buffers are free again. `outer`: the scope to go on with. */
export function closeScope(reason: string, outer: Scope): void {
  try {
    flush();
  } finally {
    scope.end(reason);
    scope = outer;
  }
}

/** Ends the step: all that is in the current scope and those around it. */
export function endStep(reason: string): void {
  try {
    flush();
  } finally {
    endScopes(reason);
  }
}

/** Moves a buffer of the current scope to another, which it will die with. */
export function moveTo(buffer: Buffer, target: Scope): void {
  if (scope.buffers.delete(buffer)) target.buffers.add(buffer);
  const at = scope.uploads.indexOf(buffer);
  if (at >= 0) target.uploads.push(...scope.uploads.splice(at, 1));
}

/** Memory for a result, until the scope ends. Its contents are undefined. */
export function take(bytes: number): Buffer {
  if (recorder !== null) return recorder.buffer(bytes);
  const buffer = activations.take(bytes);
  scope.buffers.add(buffer);
  return buffer;
}

/** One user less; the last one frees. Later instructions may use the memory again, earlier ones are not disturbed. */
export function drop(buffer: Buffer): void {
  if (--buffer.users > 0 || buffer.block === null || !scope.buffers.delete(buffer)) return;
  activations.give(buffer);
}

/** Copies values from JavaScript to where instructions can read them, for the rest of the scope. */
export function upload(values: NodeJS.TypedArray): Buffer {
  if (recorder !== null) return recorder.constant(values);
  const buffer = uploads.take(values.byteLength);
  scope.uploads.push(buffer);
  if (values.byteLength > 0) buffer.block!.arena.write(buffer.offset, values);
  return buffer;
}

/**
 * Bytes of native memory that are in use now, by what they are for: results of operations are activations, copies of JavaScript
 * numbers data; programs hold their own of both. `workspace` is what threads need in between. What a step's end or release()
 * gives back serves what is made next and stays with the process; programs and optimizers give theirs back to the system.
 */
export function memory(): Record<Holding, number> & { workspace: number } {
  const workspace = [...contexts.values()].reduce((sum, each) => sum + workspaceBytes(each), 0);
  return {
    parameters: persistent.inUse(), gradients: persistent.inUse(persistent.blocks.filter(({ hasGradients }) => hasGradients)), optimizers: holdings.optimizers,
    activations: activations.inUse(), programs: holdings.programs, data: uploads.inUse(), workspace,
  };
}

// ---- names

const phases = ["forward", "backward", "update"] as const;
export type Phase = (typeof phases)[number];

const names: string[] = [""];
const numbers = new Map<string, number>([["", 0]]);
let name = "";
let phase: Phase = "forward";

/** What instructions are for, as one number: the name in the upper bits, the phase in the lower two. */
export function tag(): number {
  return numbers.get(name)! * 4 + phases.indexOf(phase);
}

export function untag(value: number): { phase: Phase; name: string } {
  return { phase: phases[value & 3]!, name: names[value >>> 2]! };
}

/** Runs `action` with its instructions under a name, such as "layer 3"; names in names are joined with " > ". */
export function named<T>(label: string, action: () => T): T {
  return withTag(name === "" ? label : `${name} > ${label}`, phase, action);
}

/** Runs `action` under exactly this name and phase. */
export function withTag<T>(label: string, kind: Phase, action: () => T): T {
  const before = [name, phase] as const;
  if (!numbers.has(label)) numbers.set(label, names.push(label) - 1);
  name = label;
  phase = kind;
  try {
    return action();
  } finally {
    [name, phase] = before;
  }
}

// ---- random streams of dropout

let seed = 0;
let step = 0;
let stream = 0;
let initial = 0;

/** Seeds initial weights and dropout. The same seed and calls give the same weights; with the same steps, the same masks, eager or captured. */
export function manualSeed(value: number): void {
  if (!Number.isInteger(value) || value < 0 || value >= 2 ** 32) throw new EggError("usage", `[tensor] manualSeed: ${value} is not a whole number from 0 to 4294967295.`);
  seed = value;
  step = 0;
  stream = 0;
  initial = 0;
}

/** The stream of the next random weights (nn-init.ts), counted since the seed was set. */
export function initialStream(): { seed: number; stream: number } {
  return { seed, stream: initial++ };
}

/** The next call's stream in this step. `set` puts the counter back, so that a part can be computed again. */
export function randomStream(): { seed: number; step: number; stream: number } {
  return { seed, step, stream: stream++ };
}

export function streamCounter(set?: number): number {
  if (set !== undefined) stream = set;
  return stream;
}

/** The number of the training step, for checkpoints. `set` goes on from another one. */
export function trainingStep(set?: number): number {
  if (set !== undefined && (!Number.isInteger(set) || set < 0)) throw new EggError("usage", `[tensor] trainingStep: ${set} is not a whole number from 0.`);
  if (set !== undefined) step = set;
  return step;
}

/** A training step is over: the next one draws other masks. @returns the step's number */
export function nextStep(): number {
  stream = 0;
  return step++;
}
