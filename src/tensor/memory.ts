// Native memory for tensors: pools of arenas from which buffers are taken and given back, first fit, always in the same way,
// so that a step's buffers lie where the last step's lay. Not what they hold (value.ts). Read next: device.ts.
import { totalmem } from "node:os";
import { EggError } from "../errors.ts";
import { NativeArena } from "../native/float.ts";
import type { Operand } from "../native/instructions.ts";

/** Buffers begin at multiples of this: a cache line. */
const alignment = 64;
const align = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

/** An arena of a pool, with arenas of the same size and layout beside it: gradients, optimizer state. */
export class Block {
  readonly arena: NativeArena;
  readonly #mirrors = new Map<string, NativeArena>();
  /** Bytes from the start that were ever used; all behind are zeros. */
  #touched = 0;

  constructor(bytes: number) {
    this.arena = new NativeArena(bytes);
  }

  /** The arena that holds at an offset what belongs to this block's buffer there; made (zeros) when first asked for. */
  mirror(name: string): NativeArena {
    let found = this.#mirrors.get(name);
    if (found === undefined) this.#mirrors.set(name, (found = new NativeArena(this.arena.bytes)));
    return found;
  }

  hasMirror(name: string): boolean {
    return this.#mirrors.has(name);
  }

  /** Makes a buffer zeros, here and in the mirrors, with the gap behind it. */
  clear(buffer: Buffer): void {
    const end = buffer.offset + align(Math.max(buffer.bytes, 1));
    if (buffer.offset < this.#touched) {
      const zeros = new Uint8Array(new ArrayBuffer(Math.min(end - buffer.offset, 1 << 20)));
      for (const arena of [this.arena, ...this.#mirrors.values()]) {
        for (let at = buffer.offset; at < end; at += zeros.length) arena.write(at, zeros.subarray(0, end - at));
      }
    }
    this.#touched = Math.max(this.#touched, end);
  }

  get bytes(): number {
    return this.arena.bytes * (1 + this.#mirrors.size);
  }
}

/** Buffers side by side in one block, with the gaps between them (zeros, that may be worked on too). */
export interface Run { readonly block: Block; readonly offset: number; bytes: number; readonly indices: number[] }

/** Groups buffers of a persistent pool into as few runs as possible, in the order of memory. `indices` are places in `buffers`. */
export function runsOf(buffers: readonly Buffer[]): Run[] {
  const blocks = [...new Set(buffers.map((buffer) => buffer.block!))];
  const order = buffers.map((_, i) => i).sort((a, b) => blocks.indexOf(buffers[a]!.block!) - blocks.indexOf(buffers[b]!.block!) || buffers[a]!.offset - buffers[b]!.offset);
  const runs: Run[] = [];
  for (const i of order) {
    const { block, offset, bytes } = buffers[i]!;
    const last = runs.at(-1);
    if (last !== undefined && last.block === block && last.offset + align(last.bytes) === offset) {
      last.bytes = offset - last.offset + bytes;
      last.indices.push(i);
    } else runs.push({ block: block!, offset, bytes, indices: [i] });
  }
  return runs;
}

/** A piece of a pool's memory, or one that a program's plan will place (arena 0 until then). */
export class Buffer implements Operand {
  arena = 0;
  offset = 0;
  block: Block | null = null;
  readonly bytes: number;
  /** Gradients may be shared; the last to let go frees. */
  users = 1;

  constructor(bytes: number) {
    this.bytes = bytes;
  }
}

/** A place inside a buffer. */
export class Part implements Operand {
  readonly buffer: Buffer;
  readonly delta: number;

  constructor(buffer: Buffer, delta: number) {
    this.buffer = buffer;
    this.delta = delta;
  }

  get arena(): number {
    return this.buffer.arena;
  }

  get offset(): number {
    return this.buffer.offset + this.delta;
  }
}

/** The place `bytes` behind another; where that is not placed yet, they will be placed together. */
export function beyond(at: Operand, bytes: number): Operand {
  if (bytes === 0) return at;
  if (at instanceof Buffer) return new Part(at, bytes);
  return at instanceof Part ? new Part(at.buffer, at.delta + bytes) : { arena: at.arena, offset: at.offset + bytes };
}

interface Range { block: Block; offset: number; bytes: number }

/** Memory that grows by whole arenas and never moves. After a step like the one before it has all it needs. */
export class Pool {
  readonly #what: string;
  readonly #first: number;
  readonly blocks: Block[] = [];
  /** In the order of blocks and offsets; neighbours are joined. */
  #free: Range[] = [];
  used = 0;
  peak = 0;

  /**
   * @param what for messages: "activations"
   * @param first bytes of the first arena; later ones are at least as large as all before
   */
  constructor(what: string, first: number) {
    this.#what = what;
    this.#first = first;
  }

  /** Bytes of all arenas, without mirrors. */
  get bytes(): number {
    return this.blocks.reduce((sum, block) => sum + block.arena.bytes, 0);
  }

  /** @throws EggError("resources") where the machine has not that much memory */
  take(bytes: number): Buffer {
    const size = align(Math.max(bytes, 1));
    let place = this.#free.findIndex((range) => range.bytes >= size);
    if (place < 0) {
      this.#grow(size);
      place = this.#free.length - 1;
    }
    const range = this.#free[place]!;
    const buffer = new Buffer(bytes);
    buffer.block = range.block;
    buffer.arena = range.block.arena.handle;
    buffer.offset = range.offset;
    range.offset += size;
    range.bytes -= size;
    if (range.bytes === 0) this.#free.splice(place, 1);
    this.used += size;
    this.peak = Math.max(this.peak, this.used);
    return buffer;
  }

  give(buffer: Buffer): void {
    const bytes = align(Math.max(buffer.bytes, 1));
    const { block, offset } = buffer;
    if (block === null) throw new EggError("internal", "[tensor] a buffer was given back twice.");
    buffer.block = null;
    buffer.arena = 0;
    this.used -= bytes;
    const index = this.blocks.indexOf(block);
    let at = this.#free.findIndex((range) => range.block === block ? range.offset > offset : this.blocks.indexOf(range.block) > index);
    if (at < 0) at = this.#free.length;
    const before = this.#free[at - 1];
    const after = this.#free[at];
    const joinsBefore = before !== undefined && before.block === block && before.offset + before.bytes === offset;
    const joinsAfter = after !== undefined && after.block === block && offset + bytes === after.offset;
    if (joinsBefore && joinsAfter) {
      before.bytes += bytes + after.bytes;
      this.#free.splice(at, 1);
    } else if (joinsBefore) before.bytes += bytes;
    else if (joinsAfter) {
      after.offset = offset;
      after.bytes += bytes;
    } else this.#free.splice(at, 0, { block, offset, bytes });
  }

  #grow(size: number): void {
    const bytes = align(Math.max(size, this.#first, this.bytes));
    // All that is taken plus this must fit; where only the spare room does not, take no spare room.
    const wanted = this.bytes + bytes <= machineBytes() / 2 ? bytes : size;
    checkMemory(this.#what, wanted, this.bytes);
    const block = new Block(wanted);
    this.blocks.push(block);
    this.#free.push({ block, offset: 0, bytes: wanted });
  }
}

/** Memory of this machine, or of the part of it that this process may use. */
const machineBytes = (): number => Math.min(totalmem(), process.constrainedMemory() || Infinity);

/** @throws EggError("resources") where `bytes` more are beyond this machine */
export function checkMemory(what: string, bytes: number, have = 0): void {
  const limit = machineBytes();
  if (have + bytes <= limit) return;
  throw new EggError("resources", `[tensor] ${what}: ${(have + bytes).toLocaleString("en")} bytes are needed, this machine has ${limit.toLocaleString("en")}.`, {
    hint: "Use smaller shapes or batches; run what needs no gradients inside noGrad(() => ...), where results are freed at its end.",
  });
}
