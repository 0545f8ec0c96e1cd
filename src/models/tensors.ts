// Tensors as checkpoints hold them, by name, and the check that a model's are all there. Not the container
// (src/run/safetensors.ts) and not the float tensor library. Read next: egg.ts.
import { EggError } from "../errors.ts";

/** One tensor: `data` are the raw little-endian bytes, row-major; their number is the product of `shape` times the width of `dtype`. */
export interface TensorEntry {
  dtype: "I8" | "I32" | "I64" | "U8" | "F32" | "F16" | "BF16" | "BOOL";
  shape: number[];
  data: Uint8Array | StoredBytes;
}

/** Bytes that lie in a file: a large model is not held twice to be loaded. */
export interface StoredBytes {
  readonly byteLength: number;
  /** All of them, or those from `begin` to `end` (not included): in the front of `room` where given, else in memory of their own. */
  read(begin?: number, end?: number, room?: Uint8Array): Uint8Array;
}

/** Some bytes of a tensor: its own memory, or read from a file, into `room` where given. */
export function partNow({ data }: TensorEntry, begin: number, end: number, room?: Uint8Array): Uint8Array {
  return data instanceof Uint8Array ? data.subarray(begin, end) : data.read(begin, end, room);
}

/** Bytes that are fetched when they are needed and not kept: a large model is not copied to be saved. */
export interface LazyBytes {
  readonly byteLength: number;
  /** The bytes, good until the next read of the same source. */
  read(): Uint8Array;
}

export type Bytes = Uint8Array | LazyBytes;

export function bytesNow(bytes: Bytes): Uint8Array {
  return bytes instanceof Uint8Array ? bytes : bytes.read();
}

/** A tensor to be saved: its bytes in one piece or in several, back to back. */
export interface SavedTensor {
  dtype: TensorEntry["dtype"];
  shape: number[];
  data: Bytes | readonly Bytes[];
}

export function piecesOf({ data }: SavedTensor): readonly Bytes[] {
  return "byteLength" in data ? [data] : data;
}

export interface ExpectedTensor {
  name: string;
  /** One type, or all that will do. */
  dtype: TensorEntry["dtype"] | readonly TensorEntry["dtype"][];
  shape: readonly number[];
}

/** Elements of a tensor of this shape. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

/**
 * Throws EggError("corrupt") unless `found` holds exactly the expected tensors, naming every one that is missing, extra or
 * of another shape or type (up to eight). Tensors whose names begin with one of `ignored` may be there or not.
 */
export function expectTensors(found: ReadonlyMap<string, TensorEntry>, expected: readonly ExpectedTensor[], ignored: readonly string[] = []): void {
  const problems: string[] = [];
  for (const { name, dtype, shape } of expected) {
    const tensor = found.get(name);
    if (tensor === undefined) problems.push(`${name}: missing`);
    else if (![dtype].flat().includes(tensor.dtype) || tensor.shape.join() !== shape.join()) {
      problems.push(`${name}: expected ${[dtype].flat().join(" or ")} (${shape.join(", ")}), found ${tensor.dtype} (${tensor.shape.join(", ")})`);
    }
  }
  const names = new Set(expected.map(({ name }) => name));
  for (const name of found.keys()) {
    if (!names.has(name) && !ignored.some((prefix) => name.startsWith(prefix))) problems.push(`${name}: unknown tensor`);
  }
  if (problems.length === 0) return;
  const shown = problems.slice(0, 8).map((problem) => `\n  ${problem}`).join("");
  throw new EggError("corrupt", `[checkpoint] ${problems.length} tensors do not fit the model:${shown}${problems.length > 8 ? `\n  and ${problems.length - 8} more` : ""}`, {
    hint: "This checkpoint belongs to another model or config. Give the run folder that it came from.",
  });
}
