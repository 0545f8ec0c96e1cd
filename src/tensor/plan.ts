// Places a program's buffers in one arena: two buffers share memory when one is done before the other begins.
// Largest first, each at the lowest place that is free for its time. Not the arena (memory.ts). Read next: program.ts.
import type { Operand } from "../native/instructions.ts";
import { Buffer, Part } from "./memory.ts";

const alignment = 64;
const roomOf = (buffer: Buffer): number => Math.ceil(Math.max(buffer.bytes, 1) / alignment) * alignment;

/** Instructions that share a list of what is placed at their time: few enough lists for long lives, short enough ones for brief lives. */
const slice = 64;

/** From the first to the last instruction that uses a buffer. */
interface Life { readonly buffer: Buffer; readonly first: number; last: number; readonly bytes: number; seen: number }

export interface Plan {
  /** Of the arena. */
  readonly bytes: number;
  /** Of them for what stays from run to run or to its end: inputs, constants, outputs. */
  readonly fixed: number;
  /** What is there at the fullest moment: bytes, and the instruction that made it. */
  readonly peak: readonly { bytes: number; made: number }[];
}

/**
 * Sets the offset of every buffer.
 * @param operands each instruction's operands, in the order of instructions
 * @param planned buffers whose contents matter only between their first and last instruction
 * @param fixed buffers that keep theirs from run to run (inputs, constants) or to its end (outputs)
 */
export function planMemory(operands: readonly (readonly Operand[])[], planned: ReadonlySet<Buffer>, fixed: readonly Buffer[]): Plan {
  const always = new Set(fixed);
  let floor = 0;
  for (const buffer of always) {
    buffer.offset = floor;
    floor += roomOf(buffer);
  }
  const lives = livesIn(operands, planned, always);
  const end = placeAll(lives, floor, operands.length);
  return { bytes: end, fixed: floor, peak: fullest(lives, operands.length) };
}

function livesIn(operands: readonly (readonly Operand[])[], planned: ReadonlySet<Buffer>, always: ReadonlySet<Buffer>): Life[] {
  const lives = new Map<Buffer, Life>();
  operands.forEach((list, i) => {
    for (const operand of list) {
      const buffer = operand instanceof Part ? operand.buffer : operand;
      if (!(buffer instanceof Buffer) || !planned.has(buffer) || always.has(buffer)) continue;
      const life = lives.get(buffer);
      if (life === undefined) lives.set(buffer, { buffer, first: i, last: i, bytes: roomOf(buffer), seen: -1 });
      else life.last = i;
    }
  });
  return [...lives.values()];
}

/** @returns the end of the last buffer */
function placeAll(lives: readonly Life[], floor: number, instructions: number): number {
  const slices: Life[][] = Array.from({ length: Math.ceil(instructions / slice) }, () => []);
  let end = floor;
  [...lives].sort((a, b) => b.bytes - a.bytes || a.first - b.first).forEach((life, turn) => {
    const [from, to] = [Math.floor(life.first / slice), Math.floor(life.last / slice)];
    const beside: Life[] = [];
    for (let i = from; i <= to; i++) {
      for (const other of slices[i]!) {
        if (other.seen === turn || other.last < life.first || life.last < other.first) continue;
        other.seen = turn;
        beside.push(other);
      }
    }
    beside.sort((a, b) => a.buffer.offset - b.buffer.offset);
    let offset = floor;
    for (const other of beside) {
      if (other.buffer.offset >= offset + life.bytes) break;
      offset = Math.max(offset, other.buffer.offset + other.bytes);
    }
    life.buffer.offset = offset;
    for (let i = from; i <= to; i++) slices[i]!.push(life);
    end = Math.max(end, offset + life.bytes);
  });
  return end;
}

/** What is alive at the instruction where most bytes are. */
function fullest(lives: readonly Life[], instructions: number): { bytes: number; made: number }[] {
  const changes = new Float64Array(instructions + 1);
  for (const { first, last, bytes } of lives) {
    changes[first]! += bytes;
    changes[last + 1]! -= bytes;
  }
  let [sum, most, at] = [0, -1, 0];
  changes.forEach((change, i) => {
    sum += change;
    if (sum > most) [most, at] = [sum, i];
  });
  return lives.filter(({ first, last }) => first <= at && at <= last).map(({ bytes, first }) => ({ bytes, made: first }));
}
