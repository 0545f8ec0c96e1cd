// Places a program's buffers in one arena: two buffers share memory when one is done before the other begins.
// Largest first, each at the lowest place that is free for its time. Not the arena (memory.ts). Read next: program.ts.
import type { Operand } from "../native/instructions.ts";
import { Buffer, Part } from "./memory.ts";

const alignment = 64;

interface Life { buffer: Buffer; first: number; last: number; bytes: number }

/**
 * Sets the offset of every buffer.
 * @param operands each instruction's operands, in the order of instructions
 * @param planned buffers whose contents matter only between their first and last instruction
 * @param fixed buffers that keep theirs from run to run (inputs, constants) or to its end (outputs)
 * @returns bytes of the arena
 */
export function planMemory(operands: readonly (readonly Operand[])[], planned: ReadonlySet<Buffer>, fixed: readonly Buffer[]): number {
  const lives = new Map<Buffer, Life>();
  const always = new Set(fixed);
  const size = (buffer: Buffer): number => Math.ceil(Math.max(buffer.bytes, 1) / alignment) * alignment;
  for (const buffer of always) lives.set(buffer, { buffer, first: -1, last: operands.length, bytes: size(buffer) });
  operands.forEach((list, i) => {
    for (const operand of list) {
      const buffer = operand instanceof Part ? operand.buffer : operand;
      if (!(buffer instanceof Buffer) || !planned.has(buffer) || always.has(buffer)) continue;
      const life = lives.get(buffer);
      if (life === undefined) lives.set(buffer, { buffer, first: i, last: i, bytes: size(buffer) });
      else life.last = i;
    }
  });
  const placed: Life[] = []; // by offset
  let end = 0;
  for (const life of [...lives.values()].sort((a, b) => b.bytes - a.bytes || a.first - b.first)) {
    let offset = 0;
    for (const other of placed) {
      if (other.last < life.first || life.last < other.first) continue;
      if (other.buffer.offset >= offset + life.bytes) break;
      offset = Math.max(offset, other.buffer.offset + other.bytes);
    }
    life.buffer.offset = offset;
    const at = placed.findIndex((other) => other.buffer.offset > offset);
    placed.splice(at < 0 ? placed.length : at, 0, life);
    end = Math.max(end, offset + life.bytes);
  }
  return end;
}
