// Float memory and programs in the kernel library: arenas, lists of instructions, running them at once or as a job.
// Not what an operation means (kernels/float/ops.zig) nor when it is used (src/tensor). Read next: instructions.ts, abi.ts.
import { EggError } from "../errors.ts";
import { call, emptyRecord, emptyWord, unpack } from "./abi.ts";
import { args, enums, layoutOf, type EnumName, type Field, type OpName, type Operand, type Values } from "./instructions.ts";
import { join, wait, type Context } from "./machine.ts";

/** One call copies less than 4 GiB. */
const copy_max = 2 ** 30;

/** Native memory of a fixed size, zeros at first, 64-byte aligned. Lives until `release`. */
export class NativeArena {
  readonly handle: number;
  readonly bytes: number;

  /** @throws EggError("resources") that names the bytes */
  constructor(bytes: number) {
    const out = emptyWord();
    call("egg_float_arena_create", [bytes, out]);
    this.handle = out.getUint32(0, true);
    this.bytes = bytes;
  }

  write(offset: number, values: NodeJS.TypedArray): void {
    this.#inParts(values, (bytes, done) => call("egg_float_arena_write", [this.handle, offset + done, bytes, bytes.byteLength]));
  }

  /** Fills `values` from `offset` on. */
  read(offset: number, values: NodeJS.TypedArray): void {
    this.#inParts(values, (bytes, done) => call("egg_float_arena_read", [this.handle, offset + done, bytes, bytes.byteLength]));
  }

  #inParts(values: NodeJS.TypedArray, copy: (part: Uint8Array, done: number) => void): void {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    if (bytes.length <= copy_max) return copy(bytes, 0);
    for (let done = 0; done < bytes.length; done += copy_max) copy(bytes.subarray(done, done + copy_max), done);
  }

  release(): void {
    call("egg_release", [this.handle]);
  }
}

/** Bytes of one instruction: operation, tag, arguments. */
const instruction_bytes = 256;
const args_at = 8;

interface Slot { readonly name: string; readonly field: Field; readonly at: number; readonly values: readonly string[] }
const slots: readonly (readonly Slot[])[] = Object.values<Record<string, Field>>(args).map((fields) => {
  let at = args_at;
  return Object.entries(fields).map(([name, field]) => {
    const slot = { name, field, at, values: field in enums ? enums[field as EnumName] : [] };
    at += layoutOf(field).bytes;
    return slot;
  });
});
const op_numbers = new Map<string, number>(enums.Op.map((name, i) => [name, i]));

/** An operation and what it is told. */
export interface Instruction { readonly op: OpName; readonly values: Values<OpName> }

/** A list of instructions in the library's form. Grows as needed and can be used again after `clear`. */
export class InstructionList {
  /** Each instruction's operands, where they are placed later (`resolve`). */
  readonly operands: Operand[][] = [];
  readonly #places: number[][] = [];
  readonly #deferred: boolean;
  #view = new DataView(new ArrayBuffer(64 * instruction_bytes));
  #bytes = new Uint8Array(this.#view.buffer);
  #last: Instruction | null = null;
  count = 0;

  /** @param deferred operands get their places after the last `add`; then `resolve` writes them */
  constructor(deferred = false) {
    this.#deferred = deferred;
  }

  clear(): void {
    this.count = 0;
    this.#last = null;
  }

  /** What was added last. */
  get last(): Instruction | null {
    return this.#last;
  }

  /** Gives the last instruction an operand that it was added without. */
  amend(field: string, operand: Operand): void {
    const { op, values } = this.#last!;
    const place = (this.count - 1) * instruction_bytes + slots[op_numbers.get(op)!]!.find(({ name }) => name === field)!.at;
    if (this.#deferred) {
      this.operands.at(-1)!.push(operand);
      this.#places.at(-1)!.push(place);
    } else setOperand(this.#view, place, operand);
    this.#last = { op, values: { ...values, [field]: operand } };
  }

  /** The instructions as bytes; good until the next `add`. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.count * instruction_bytes);
  }

  /**
   * Appends an instruction.
   * @param tag comes back with faults and times
   * @throws EggError("internal") for a number that does not fit its field
   */
  add<O extends OpName>(op: O, values: Values<O>, tag = 0): void {
    const base = this.count * instruction_bytes;
    if (base + instruction_bytes > this.#bytes.length) this.#grow();
    const view = this.#view;
    const number = op_numbers.get(op)!;
    view.setUint32(base, number, true);
    view.setUint32(base + 4, tag, true);
    this.#bytes.fill(0, base + args_at, base + instruction_bytes);
    const operands: Operand[] = [];
    const places: number[] = [];
    for (const { name, field, at, values: names } of slots[number]!) {
      const value = (values as Record<string, unknown>)[name];
      const place = base + at;
      switch (field) {
        case "ref":
          if (value === undefined || value === null) break;
          if (this.#deferred) {
            operands.push(value as Operand);
            places.push(place);
          } else setOperand(view, place, value as Operand);
          break;
        case "f32": view.setFloat32(place, value as number, true); break;
        case "f64": view.setFloat64(place, value as number, true); break;
        case "i32": view.setInt32(place, value as number, true); break;
        case "bool": view.setUint32(place, value === true ? 1 : 0, true); break;
        case "u32": view.setUint32(place, word(value, op, name), true); break;
        case "u32x6": for (let i = 0; i < 6; i++) view.setUint32(place + 4 * i, word((value as number[])[i], op, name), true); break;
        default: view.setUint32(place, word(names.indexOf(value as string), op, name), true);
      }
    }
    if (this.#deferred) {
      this.operands.push(operands);
      this.#places.push(places);
    }
    this.#last = { op, values };
    this.count++;
  }

  /** Writes where the operands are by now. */
  resolve(): void {
    this.operands.forEach((list, i) => list.forEach((operand, j) => setOperand(this.#view, this.#places[i]![j]!, operand)));
  }

  /** Operation and tag of each instruction. */
  heads(): { op: OpName; tag: number }[] {
    return Array.from({ length: this.count }, (_, i) => ({
      op: enums.Op[this.#view.getUint32(i * instruction_bytes, true)]!, tag: this.#view.getUint32(i * instruction_bytes + 4, true),
    }));
  }

  /** A whole number among an instruction's arguments; null where its operation has none of that name. */
  number(instruction: number, field: string): number | null {
    const base = instruction * instruction_bytes;
    const slot = slots[this.#view.getUint32(base, true)]!.find(({ name }) => name === field);
    return slot === undefined ? null : this.#view.getUint32(base + slot.at, true);
  }

  /** Where an instruction's operand is; null where its operation has none of that name. */
  operand(instruction: number, field: string): Operand | null {
    const base = instruction * instruction_bytes;
    const slot = slots[this.#view.getUint32(base, true)]!.find(({ name }) => name === field);
    if (slot === undefined) return null;
    const [arena, low, high] = [0, 8, 12].map((at) => this.#view.getUint32(base + slot.at + at, true)) as [number, number, number];
    return { arena, offset: low + high * 2 ** 32 };
  }

  #grow(): void {
    const larger = new Uint8Array(new ArrayBuffer(2 * this.#bytes.length));
    larger.set(this.#bytes);
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}

function word(value: unknown, op: string, name: string): number {
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 32) return value as number;
  throw new EggError("internal", `[tensor] ${op}: ${name} = ${String(value)} is beyond a kernel's 32 bits.`, {
    hint: "No size or stride may pass 4,294,967,295 elements.",
  });
}

function setOperand(view: DataView, at: number, { arena, offset }: Operand): void {
  if (arena === 0 || !Number.isSafeInteger(offset) || offset < 0) throw new EggError("internal", `[tensor] an operand at ${offset} of arena ${arena}.`);
  view.setUint32(at, arena, true);
  view.setUint32(at + 8, offset % 2 ** 32, true);
  view.setUint32(at + 12, Math.floor(offset / 2 ** 32), true);
}

/** The error of an id or a target that is out of range, with the number itself. */
function outOfRange(list: InstructionList, result: DataView): EggError {
  const { instruction, element } = unpack("RunResult", result);
  const at = instruction - 1;
  const found = new Int32Array(new ArrayBuffer(4));
  const numberIn = (field: string): number => {
    const { arena, offset } = list.operand(at, field)!;
    call("egg_float_arena_read", [arena, offset + 4 * element, found, found.byteLength]);
    return found[0]!;
  };
  const row = `in row ${element} of the ${list.number(at, "rows")} that are computed together`; // a chunk, of linearCrossEntropy
  const [vocabulary, classes] = [list.number(at, "vocabulary"), list.number(at, "classes")];
  const words = classes === null ? `embedding: id ${numberIn("ids")} ${row} is not in the table, whose rows are 0 .. ${vocabulary! - 1}`
    : `crossEntropy: target ${numberIn("targets")} ${row} is no class; they are 0 .. ${classes - 1}`;
  return new EggError("data", `[tensor] ${words}.`, { hint: "Numbers beyond come from data or a tokenizer of another vocabulary; targets that do not count are ignoreIndex." });
}

/**
 * Links and runs instructions, and returns when they are done.
 * @throws EggError("data") where an id or target is out of range, EggError("internal") for arguments that do not fit
 */
export function runInstructions(context: Context, list: InstructionList): void {
  const bytes = list.bytes;
  const result = emptyRecord("RunResult");
  if (call("egg_float_run", [context.handle, bytes, bytes.length, result], ["fault"]) === "fault") throw outOfRange(list, result);
}

/** Bytes that the library keeps for the workers of this context's programs. */
export function workspaceBytes(context: Context): number {
  const out = emptyWord();
  call("egg_float_workspace_bytes", [context.handle, out]);
  return out.getFloat64(0, true);
}

/** Instructions linked once, to be run many times. Holds its arenas: release it before them. */
export class NativeProgram {
  readonly context: Context;
  readonly count: number;
  readonly #handle: number;
  readonly #ops: readonly OpName[];
  readonly #list: InstructionList;
  readonly #result = emptyRecord("RunResult");

  constructor(context: Context, list: InstructionList) {
    const out = emptyWord();
    const bytes = list.bytes;
    call("egg_float_program_create", [context.handle, bytes, bytes.length, emptyRecord("RunResult"), out]);
    this.context = context;
    this.count = list.count;
    this.#list = list;
    this.#ops = list.heads().map(({ op }) => op);
    this.#handle = out.getUint32(0, true);
  }

  /**
   * Changes one number among an instruction's arguments, for all runs from now on: a size, a position, a factor; of an operand,
   * its place in its arena in bytes. Checked as when the program was made: on an error nothing changes.
   */
  patch(instruction: number, field: string, value: number): void {
    const op = this.#ops[instruction];
    const slot = op === undefined ? undefined : slots[op_numbers.get(op)!]!.find(({ name }) => name === field);
    if (slot === undefined) throw new EggError("internal", `[tensor] patch: instruction ${instruction} (${op ?? "there is none"}) has no ${field}.`);
    call("egg_float_program_patch", [this.#handle, instruction, slot.at - args_at, value]);
  }

  /** Runs it and returns when it is done. @returns seconds in kernels where `timed`, else 0 */
  runNow(timed = false): number {
    if (call("egg_float_program_run", [this.#handle, timed ? 1 : 0, this.#result], ["fault"]) === "fault") throw outOfRange(this.#list, this.#result);
    return unpack("RunResult", this.#result).seconds;
  }

  /**
   * Runs it as a job while the event loop goes on; `cancel(context)` ends it between two instructions, but not after its
   * first optimizer step.
   * @returns false when it was cancelled
   */
  async run(timed = false, onProgress?: (share: number) => void): Promise<boolean> {
    this.start(timed);
    await join(this.context, onProgress);
    return this.finish();
  }

  /** Starts what `run` does, to be ended by `finish`. */
  start(timed: boolean): void {
    call("egg_float_program_start", [this.#handle, timed ? 1 : 0]);
  }

  /** Waits for the end. @returns false when it was cancelled */
  finish(): boolean {
    wait(this.context);
    const status = call("egg_float_program_finish", [this.#handle, this.#result], ["cancelled", "fault"]);
    if (status === "fault") throw outOfRange(this.#list, this.#result);
    return status === "ok";
  }

  /** What the last run ran on: lanes of the kernels' vectors (1: the plain twins), threads that had something to do. */
  get ran(): { lanes: number; threads: number } {
    const { ran } = unpack("RunResult", this.#result);
    return { lanes: ran & 0xffff, threads: ran >>> 16 };
  }

  /** Nanoseconds of each instruction in the last timed run. */
  times(): Float64Array {
    const times = new Float64Array(new ArrayBuffer(8 * this.count));
    call("egg_float_program_times", [this.#handle, times, times.byteLength]);
    return times;
  }

  release(): void {
    call("egg_release", [this.#handle]);
  }
}
