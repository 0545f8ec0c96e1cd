// The GGUF container, version 3: named values and named tensors to bytes, and back, strictly. Not what llama.cpp wants to find
// in it: gguf-llama.ts. Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Little-endian: magic, version, two counts, values,
// places of tensors (dims innermost first), then the tensors' bytes, each at a multiple of 32. Read next: gguf-llama.ts.
import { EggError } from "../errors.ts";
import type { Bytes } from "./tensors.ts";

/** A value of the types that are written. `array` holds the type of its elements, which an empty one would not tell. */
export type GgufValue =
  | { type: "u32" | "i32" | "f32"; value: number }
  | { type: "u64"; value: bigint }
  | { type: "bool"; value: boolean }
  | { type: "string"; value: string }
  | { type: "array"; of: "string"; value: string[] }
  | { type: "array"; of: "i32"; value: number[] };

/** `shape` is row-major, the outermost first, as everywhere else in egg. */
export interface GgufPlace {
  name: string;
  dtype: GgufType;
  shape: number[];
  /** Bytes from the start of the file. */
  begin: number;
  end: number;
}

export type GgufType = keyof typeof tensorTypes;
export interface GgufTensor {
  dtype: GgufType;
  shape: readonly number[];
  /** Row-major, little-endian, in pieces that lie back to back. */
  data: readonly Bytes[];
}

/** Type numbers of the format, and bytes of an element. */
const tensorTypes = { F32: { id: 0, bytes: 4 }, F16: { id: 1, bytes: 2 }, I8: { id: 24, bytes: 1 }, BF16: { id: 30, bytes: 2 } } as const;
const valueTypes = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10 } as const;

const magic = 0x46554747; // "GGUF"
const version = 3;
const alignment = 32;
/** As ggml has it. */
const mostDims = 4;
const longestName = 63;

const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;
const sizeOf = (data: readonly Bytes[]): number => data.reduce((sum, { byteLength }) => sum + byteLength, 0);

/**
 * Lays values and tensors out as one file, in the order in which they are given. Returns it in pieces, so that nothing big is copied.
 */
export function encodeGguf(values: ReadonlyMap<string, GgufValue>, tensors: ReadonlyMap<string, GgufTensor>): Bytes[] {
  const head = new Writer();
  head.u32(magic);
  head.u32(version);
  head.u64(tensors.size);
  head.u64(values.size);
  for (const [name, value] of values) {
    head.string(name);
    head.u32(valueTypes[value.type]);
    head.value(value);
  }
  let offset = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    head.string(name);
    head.u32(shape.length);
    for (const size of [...shape].reverse()) head.u64(size);
    head.u32(tensorTypes[dtype].id);
    head.u64(offset);
    offset = aligned(offset + sizeOf(data));
  }
  const padding = (bytes: number): Bytes[] => (aligned(bytes) === bytes ? [] : [new Uint8Array(aligned(bytes) - bytes)]);
  const front = [head.bytes(), ...padding(head.length)];
  readGguf(Buffer.concat(front as Uint8Array[]), aligned(head.length) + offset, "file to be written"); // never write what we would refuse to read
  return [...front, ...[...tensors.values()].flatMap(({ data }) => [...data, ...padding(sizeOf(data))])];
}

class Writer {
  readonly #parts: Uint8Array[] = [];
  length = 0;

  #put(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.length += bytes.length;
  }

  #number(bytes: number, set: (view: DataView) => void): void {
    const part = new Uint8Array(bytes);
    set(new DataView(part.buffer));
    this.#put(part);
  }

  u32(value: number): void {
    this.#number(4, (view) => view.setUint32(0, value, true));
  }

  u64(value: number | bigint): void {
    this.#number(8, (view) => view.setBigUint64(0, BigInt(value), true));
  }

  string(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(bytes.length);
    this.#put(bytes);
  }

  value(value: GgufValue): void {
    if (value.type === "string") this.string(value.value);
    else if (value.type === "u64") this.u64(value.value);
    else if (value.type === "bool") this.#put(Uint8Array.of(value.value ? 1 : 0));
    else if (value.type === "f32") this.#number(4, (view) => view.setFloat32(0, value.value, true));
    else if (value.type !== "array") this.u32(value.value);
    else {
      this.u32(valueTypes[value.of]);
      this.u64(value.value.length);
      if (value.of === "string") for (const text of value.value) this.string(text);
      else this.#put(new Uint8Array(Int32Array.from(value.value).buffer));
    }
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.#parts);
  }
}

function corrupt(where: string, what: string): EggError {
  return new EggError("corrupt", `[gguf] ${where}: ${what}.`, { hint: "The file is damaged, or of another version of GGUF than 3, or holds types that egg does not read." });
}

/**
 * What stands in a file: values by name, and the places of the tensors in the order of the file.
 * @param head the file's first bytes, at least all before the tensors
 * @throws EggError("corrupt") for every departure from the format, before memory is taken for what a damaged file claims
 */
export function readGguf(head: Uint8Array, fileBytes: number, where: string): { values: Map<string, GgufValue>; tensors: GgufPlace[] } {
  const cursor = new Cursor(head, where);
  if (cursor.u32("magic") !== magic) throw corrupt(where, "it does not begin with GGUF");
  const found = cursor.u32("version");
  if (found !== version) throw corrupt(where, `version ${found}, expected ${version}`);
  // A tensor's place takes 24 bytes at least, a value 13.
  const tensorCount = cursor.count("tensors", 24);
  const valueCount = cursor.count("values", 13);
  const values = new Map<string, GgufValue>();
  for (let i = 0; i < valueCount; i++) {
    const name = cursor.string(`name of value ${i}`);
    if (values.has(name)) throw corrupt(where, `value ${name}: stands twice`);
    values.set(name, cursor.value(name));
  }
  const places: (GgufPlace & { offset: number })[] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const name = cursor.string(`name of tensor ${i}`);
    const of = `tensor ${name}`;
    if (names.has(name)) throw corrupt(where, `${of}: stands twice`);
    names.add(name);
    if (Buffer.byteLength(name) > longestName) throw corrupt(where, `${of}: its name has ${Buffer.byteLength(name)} bytes, allowed ${longestName}`);
    const dims = cursor.u32(of);
    if (dims > mostDims) throw corrupt(where, `${of}: ${dims} dimensions, allowed ${mostDims}`);
    const shape = Array.from({ length: dims }, () => cursor.size(of)).reverse();
    const id = cursor.u32(of);
    const type = Object.entries(tensorTypes).find(([, each]) => each.id === id);
    if (type === undefined) throw corrupt(where, `${of}: element type ${id}, egg reads ${Object.entries(tensorTypes).map(([name, { id }]) => `${id} (${name})`).join(", ")}`);
    const bytes = shape.reduce((product, size) => product * size, type[1].bytes);
    places.push({ name, dtype: type[0] as GgufType, shape, offset: cursor.size(of), begin: 0, end: bytes });
  }
  const start = aligned(cursor.at);
  for (const place of places) {
    place.begin = start + place.offset;
    place.end += place.begin;
    if (place.offset % alignment !== 0) throw corrupt(where, `tensor ${place.name}: begins at ${place.offset}, no multiple of ${alignment}`);
    if (!(place.end <= fileBytes)) throw corrupt(where, `tensor ${place.name}: ends at byte ${place.end}, the file holds ${fileBytes}`);
  }
  return { values, tensors: places.map(({ offset: _, ...place }) => place) };
}

class Cursor {
  at = 0;
  readonly #view: DataView;
  constructor(private readonly bytes: Uint8Array, private readonly where: string) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** Moves on by `length` bytes; the place where they begin. */
  #take(length: number, of: string): number {
    if (length > this.bytes.length - this.at) throw corrupt(this.where, `${of}: needs ${length} bytes at byte ${this.at}, the file holds ${this.bytes.length - this.at} more`);
    this.at += length;
    return this.at - length;
  }

  u32(of: string): number {
    return this.#view.getUint32(this.#take(4, of), true);
  }

  size(of: string): number {
    const value = this.#view.getBigUint64(this.#take(8, of), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw corrupt(this.where, `${of}: the number ${value} is beyond all files`);
    return Number(value);
  }

  /** A number of things that take `least` bytes each. */
  count(of: string, least: number): number {
    const count = this.size(of);
    const room = Math.floor((this.bytes.length - this.at) / least);
    if (count > room) throw corrupt(this.where, `${of}: the file claims ${count}, it has room for ${room}`);
    return count;
  }

  string(of: string): string {
    const length = this.count(of, 1);
    const start = this.#take(length, of);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.bytes.subarray(start, start + length));
    } catch {
      throw corrupt(this.where, `${of}: no UTF-8`);
    }
  }

  value(name: string): GgufValue {
    const of = `value ${name}`;
    const type = this.u32(of);
    switch (type) {
      case valueTypes.u32: return { type: "u32", value: this.u32(of) };
      case valueTypes.i32: return { type: "i32", value: this.u32(of) | 0 };
      case valueTypes.f32: return { type: "f32", value: this.#view.getFloat32(this.#take(4, of), true) };
      case valueTypes.u64: return { type: "u64", value: this.#view.getBigUint64(this.#take(8, of), true) };
      case valueTypes.bool: return { type: "bool", value: this.#flag(of) };
      case valueTypes.string: return { type: "string", value: this.string(of) };
      case valueTypes.array: break;
      default: throw corrupt(this.where, `${of}: type ${type}, egg reads ${Object.values(valueTypes).join(", ")}`);
    }
    const element = this.u32(of);
    if (element === valueTypes.string) return { type: "array", of: "string", value: Array.from({ length: this.count(of, 8) }, () => this.string(of)) };
    if (element === valueTypes.i32) return { type: "array", of: "i32", value: Array.from({ length: this.count(of, 4) }, () => this.u32(of) | 0) };
    throw corrupt(this.where, `${of}: an array of type ${element}, egg reads ${valueTypes.string} and ${valueTypes.i32}`);
  }

  #flag(of: string): boolean {
    const byte = this.bytes[this.#take(1, of)]!;
    if (byte > 1) throw corrupt(this.where, `${of}: ${byte} is neither 0 nor 1`);
    return byte === 1;
  }
}
