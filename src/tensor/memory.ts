// Native memory for tensors: pools of arenas from which buffers are taken and given back, first fit, always in the same way,
// so that a step's buffers lie where the last step's lay. Not what they hold (value.ts). Read next: device.ts.
import { totalmem } from "node:os";
import { EggError } from "../errors.ts";
import { NativeArena } from "../native/float.ts";
import type { Operand } from "../native/instructions.ts";

/** Buffers begin at multiples of this: a cache line. */
const alignment = 64;
const align = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;

/** What native memory is held for. */
export type Holding = "parameters" | "gradients" | "optimizers" | "activations" | "programs" | "data";

/** Bytes that were ever used of all arenas that there are, given back since or not; the rest of an arena is not real memory yet. */
export const holdings: Record<Holding, number> = { parameters: 0, gradients: 0, optimizers: 0, activations: 0, programs: 0, data: 0 };

/** @throws EggError("resources") where the system does not give that much */
function newArena(what: Holding, bytes: number): NativeArena {
  try {
    return new NativeArena(bytes);
  } catch (error) {
    if (!(error instanceof EggError && error.message.startsWith("[native] an arena needs"))) throw error;
    throw refusal(what, bytes, "the system does not give them");
  }
}

/** An arena of zeros, all of which will be used. @throws EggError("resources") where the system does not give that much */
export function takeArena(what: Holding, bytes: number): NativeArena {
  const arena = newArena(what, bytes);
  holdings[what] += bytes;
  return arena;
}

export function giveArena(what: Holding, arena: NativeArena): void {
  arena.release();
  holdings[what] -= arena.bytes;
}

/** An arena of a pool, and one of the same size and layout for the gradients of what is in it. */
export class Block {
  readonly arena: NativeArena;
  readonly #what: Holding;
  #gradients: NativeArena | null = null;
  /** Bytes from the start that were ever used; all behind are zeros. */
  #used = 0;

  constructor(what: Holding, bytes: number) {
    this.#what = what;
    this.arena = newArena(what, bytes);
  }

  /** The arena that holds at an offset the gradient of this block's buffer there; made (zeros) when first asked for. */
  get gradients(): NativeArena {
    if (this.#gradients === null) {
      this.#gradients = newArena("gradients", this.arena.bytes);
      holdings.gradients += this.#used;
    }
    return this.#gradients;
  }

  get hasGradients(): boolean {
    return this.#gradients !== null;
  }

  /** Bytes that gradients will take which are not there yet. */
  get missing(): number {
    return this.#gradients === null ? this.#used : 0;
  }

  /** From now on the memory up to `end` is used. @returns whether what begins at `start` was used before, and is not zeros */
  use(start: number, end: number): boolean {
    const before = start < this.#used;
    const more = Math.max(0, end - this.#used);
    holdings[this.#what] += more;
    if (this.#gradients !== null) holdings.gradients += more;
    this.#used += more;
    return before;
  }

  /** Gives all of it back to the system. */
  release(): void {
    this.arena.release();
    holdings[this.#what] -= this.#used;
  }

  /** Makes a buffer and its gradient zeros, with the gap behind it. */
  clear({ offset, bytes, reused }: Buffer): void {
    if (!reused) return;
    const end = offset + align(Math.max(bytes, 1));
    const zeros = new Uint8Array(new ArrayBuffer(Math.min(end - offset, 1 << 20)));
    for (const arena of this.#gradients === null ? [this.arena] : [this.arena, this.#gradients]) {
      for (let at = offset; at < end; at += zeros.length) arena.write(at, zeros.subarray(0, end - at));
    }
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

/** A piece of a pool's memory, or one that a program's plan will place. Without a block: not placed yet, or given back. */
export class Buffer implements Operand {
  arena = 0;
  offset = 0;
  block: Block | null = null;
  /** Something else was here before: not zeros. */
  reused = false;
  /** The number of its last change (value.ts), where it is there for good. */
  changed = 0;
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
  readonly #what: Holding;
  readonly #first: number;
  readonly blocks: Block[] = [];
  /** In the order of blocks and offsets; neighbours are joined. */
  #free: Range[] = [];

  /**
   * @param first bytes of the first arena; later ones are at least as large as all before
   */
  constructor(what: Holding, first: number) {
    this.#what = what;
    this.#first = first;
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
    buffer.reused = range.block.use(range.offset, range.offset + size);
    range.offset += size;
    range.bytes -= size;
    if (range.bytes === 0) this.#free.splice(place, 1);
    return buffer;
  }

  /** Bytes that something is in now, of all blocks or of those with gradients. */
  inUse(blocks: readonly Block[] = this.blocks): number {
    const all = blocks.reduce((sum, { arena }) => sum + arena.bytes, 0);
    return this.#free.reduce((sum, { block, bytes }) => (blocks.includes(block) ? sum - bytes : sum), all);
  }

  /** Makes the memory free for what is taken next; the system does not get it back. */
  give(buffer: Buffer): void {
    const bytes = align(Math.max(buffer.bytes, 1));
    const { block, offset } = buffer;
    if (block === null) throw new EggError("internal", "[tensor] a buffer was given back twice.");
    buffer.block = null;
    buffer.arena = 0;
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
    const have = this.blocks.reduce((sum, block) => sum + block.arena.bytes, 0);
    const bytes = align(Math.max(size, this.#first, have));
    // All that is taken plus this must fit; where only the spare room does not, take no spare room.
    const wanted = have + bytes <= machineBytes() / 2 ? bytes : size;
    checkMemory(this.#what, wanted);
    const block = new Block(this.#what, wanted);
    this.blocks.push(block);
    this.#free.push({ block, offset: 0, bytes: wanted });
  }
}

/** Memory of this machine, or of the part of it that this process may use. */
const machineBytes = (): number => Math.min(totalmem(), process.constrainedMemory() || Infinity);

/** @throws EggError("resources") where `bytes`, with all that is held already, are beyond this machine */
export function checkMemory(what: string, bytes: number): void {
  const limit = machineBytes();
  const held = Object.values(holdings).reduce((sum, each) => sum + each, 0);
  if (held + bytes > limit) throw refusal(what, held + bytes, `this machine has ${limit.toLocaleString("en")}`);
}

const refusal = (what: string, bytes: number, why: string): EggError => new EggError("resources", `[tensor] ${what}: ${bytes.toLocaleString("en")} bytes are needed, ${why}.`, {
  hint: "Use smaller shapes or batches; run what needs no gradients inside noGrad(() => ...), where results are freed at its end.",
});
