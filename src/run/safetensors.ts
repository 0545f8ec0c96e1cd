// The safetensors container: named tensors and text metadata to bytes, and back, strictly.
// Not files and not checkpoints: what is in ours, and how it reaches the disk, is in checkpoint.ts.
// Format: 8 bytes little-endian header length, JSON header, data (github.com/huggingface/safetensors). Read next: checkpoint.ts.
import { EggError } from "../errors.ts";
import { piecesOf, type Bytes, type SavedTensor, type StoredBytes, type TensorEntry } from "../models/tensors.ts";
import type { Source } from "./reading.ts";

/** Where a tensor lies: `begin` (included) and `end` (not) count bytes from the start of the data, behind the header. */
interface TensorPlace {
  name: string;
  dtype: TensorEntry["dtype"];
  shape: number[];
  begin: number;
  end: number;
}

const bytesPerElement = { I8: 1, U8: 1, BOOL: 1, F16: 2, BF16: 2, I32: 4, F32: 4, I64: 8 } as const;

/**
 * What egg accepts in a file. The header limit is the reference library's; the others keep hostile files cheap: `nameBytes` holds
 * for every key, `metadataBytes` for all metadata together, counted as they stand in the header.
 */
export const safetensorsLimits = { headerBytes: 100_000_000, tensors: 65_536, nameBytes: 512, dimensions: 8, metadata: 1024, metadataBytes: 16_777_216 } as const;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const count = (value: number | bigint): string => value.toLocaleString("en-US");

/** A whole file, but of another kind. */
function foreign(where: string, what: string): EggError {
  return new EggError("corrupt", `[safetensors] ${where}: ${what}.`, { hint: "Give a checkpoint of egg, or a model's .safetensors file." });
}

function corrupt(where: string, what: string): EggError {
  return new EggError("corrupt", `[safetensors] ${where}: ${what}.`, {
    hint: "The file is damaged or is not a safetensors file. Use another checkpoint, or copy the file again.",
  });
}

/**
 * Lays tensors and metadata out as one safetensors file. Returns it in pieces, the header first and then each
 * tensor's own bytes, so that nothing big is copied.
 *
 * The header lists tensors in ascending name order by code unit and is padded with spaces so that data starts at a
 * multiple of 8. The data holds wide elements first, by name within a width, as the reference writer does: readers
 * that map the file need every tensor aligned to its element.
 */
export function encodeSafetensors(tensors: ReadonlyMap<string, SavedTensor>, metadata: Record<string, string>): [Uint8Array, ...Bytes[]] {
  const size = (tensor: SavedTensor): number => piecesOf(tensor).reduce((sum, piece) => sum + piece.byteLength, 0);
  const byName = [...tensors].sort(([a], [b]) => (a < b ? -1 : 1));
  const byWidth = [...byName].sort(([, a], [, b]) => bytesPerElement[b.dtype] - bytesPerElement[a.dtype]);
  const begins = new Map<string, number>();
  let total = 0;
  for (const [name, tensor] of byWidth) {
    begins.set(name, total);
    total += size(tensor);
  }
  const fields = byName.map(([name, tensor]) => {
    const begin = begins.get(name) ?? 0;
    return `${JSON.stringify(name)}:${JSON.stringify({ dtype: tensor.dtype, shape: tensor.shape, data_offsets: [begin, begin + size(tensor)] })}`;
  });
  if (Object.keys(metadata).length > 0) fields.unshift(`"__metadata__":${JSON.stringify(metadata)}`);
  const json = new TextEncoder().encode(`{${fields.join(",")}}`);
  const head = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  head.set(json, 8);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  parseHeader(head.subarray(8), total, "file to be written"); // never write what we would refuse to read
  return [head, ...byWidth.flatMap(([, tensor]) => piecesOf(tensor))];
}

export interface Safetensors {
  /** In the order of their data; the bytes stay in the file until they are asked for. */
  tensors: Map<string, TensorEntry & { data: StoredBytes }>;
  metadata: Record<string, string>;
  /** All that stands before the data. */
  head: Buffer;
}

/**
 * Reads and checks what stands before the data. Nothing is taken by what the file claims before it is known to be as long.
 * @param where names the file in errors
 * @throws EggError("corrupt") for every departure from the format, naming the tensor, what was found and what is allowed
 */
export function readSafetensors(source: Source, where: string): Safetensors {
  const start = Buffer.alloc(Math.min(8, source.size));
  source.fill(start, 0);
  const head = Buffer.alloc(8 + headerLength(start, source.size, where));
  source.fill(head, 0);
  const { places, metadata } = parseHeader(head.subarray(8), source.size - head.length, where);
  const tensors: Safetensors["tensors"] = new Map();
  for (const { name, dtype, shape, begin, end } of places) {
    const byteLength = end - begin;
    const read = (from = 0, to = byteLength, room?: Uint8Array): Uint8Array => {
      const bytes = room?.subarray(0, to - from) ?? allocate(to - from, name, where);
      source.fill(bytes, head.length + begin + from);
      return bytes;
    };
    tensors.set(name, { dtype, shape, data: { byteLength, read } });
  }
  return { tensors, metadata, head };
}

function allocate(bytes: number, tensor: string, where: string): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch (error) {
    throw new EggError("resources", `[safetensors] ${where}: tensor ${tensor} takes ${count(bytes)} bytes, more than could be allocated.`, {
      hint: "Close other programs, or use a machine with more memory.", cause: error,
    });
  }
}

/** The header's length in bytes, from the first 8 bytes of a file of `fileBytes`; checked against the file and the limit. */
function headerLength(start: Uint8Array, fileBytes: number, where: string): number {
  if (start.length < 8) throw corrupt(where, `a file needs at least 8 bytes, this one holds ${count(start.length)}`);
  const length = new DataView(start.buffer, start.byteOffset, 8).getBigUint64(0, true);
  if (new TextDecoder("latin1").decode(start.subarray(0, 4)) === "GGUF") throw foreign(where, "a GGUF file; egg reads safetensors");
  if (start.subarray(0, 8).every((byte) => byte >= 9)) throw foreign(where, "not a safetensors file: its first 8 bytes are no length");
  if (length > BigInt(safetensorsLimits.headerBytes)) {
    throw corrupt(where, `the header claims ${count(length)} bytes, ${count(safetensorsLimits.headerBytes)} are allowed`);
  }
  if (Number(length) > fileBytes - 8) {
    throw corrupt(where, `the header claims ${count(length)} bytes, the file holds ${count(fileBytes - 8)} behind its first 8`);
  }
  return Number(length);
}

/**
 * Checks and reads the header text (`header`, without the 8 length bytes) of a file with `dataBytes` bytes behind it.
 * Returns the tensors in the order of their data, which they cover from 0 to `dataBytes` without hole or overlap.
 */
function parseHeader(header: Uint8Array, dataBytes: number, where: string): { places: TensorPlace[]; metadata: Record<string, string> } {
  const cursor = new HeaderCursor(header, where);
  const places: TensorPlace[] = [];
  const metadata = new Map<string, string>();
  if (header[0] !== 0x7b) throw corrupt(where, "the header does not begin with {");
  cursor.object("the header", (name) => {
    if (name === "__metadata__") {
      const begin = cursor.at;
      cursor.object("__metadata__", (key) => {
        if (metadata.size === safetensorsLimits.metadata) throw corrupt(where, `__metadata__: more than the ${count(metadata.size)} texts that are allowed`);
        metadata.set(key, cursor.string(`metadata ${key}`, safetensorsLimits.metadataBytes - (cursor.at - begin)));
      });
      return;
    }
    if (places.length === safetensorsLimits.tensors) throw corrupt(where, `tensor ${name}: more than the ${count(places.length)} tensors that are allowed`);
    places.push(readPlace(cursor, name, where));
  });
  cursor.end();
  checkCover(places, dataBytes, where);
  return { places, metadata: Object.fromEntries(metadata) };
}

function readPlace(cursor: HeaderCursor, name: string, where: string): TensorPlace {
  const of = `tensor ${name}`;
  let dtype: string | undefined, shape: number[] | undefined, offsets: number[] | undefined;
  cursor.object(of, (key) => {
    if (key === "dtype") dtype = cursor.string(`${of}, dtype`, safetensorsLimits.nameBytes);
    else if (key === "shape") shape = cursor.integers(`${of}, shape`, safetensorsLimits.dimensions);
    else if (key === "data_offsets") offsets = cursor.integers(`${of}, data_offsets`, 2);
    else throw corrupt(where, `${of}: unknown key ${JSON.stringify(key)}, allowed are dtype, shape, data_offsets`);
  });
  if (dtype === undefined || shape === undefined || offsets === undefined) throw corrupt(where, `${of}: dtype, shape and data_offsets are all needed`);
  if (!Object.hasOwn(bytesPerElement, dtype)) {
    throw foreign(where, `${of}: element type ${JSON.stringify(dtype)}, egg reads ${Object.keys(bytesPerElement).join(", ")}`);
  }
  const [begin, end] = offsets;
  if (begin === undefined || end === undefined) throw corrupt(where, `${of}: data_offsets needs 2 numbers, found ${offsets.length}`);
  if (end < begin) throw corrupt(where, `${of}: begins at byte ${count(begin)} and ends at byte ${count(end)}`);
  const kind = dtype as TensorEntry["dtype"];
  let bytes: number = bytesPerElement[kind];
  for (const size of shape) {
    if (size > 0 && bytes > Number.MAX_SAFE_INTEGER / size) {
      throw corrupt(where, `${of}: shape [${shape.join(", ")}] takes more than ${count(Number.MAX_SAFE_INTEGER)} bytes`);
    }
    bytes *= size;
  }
  if (bytes !== end - begin) {
    throw corrupt(where, `${of}: shape [${shape.join(", ")}] of ${kind} takes ${count(bytes)} bytes, its offsets hold ${count(end - begin)}`);
  }
  return { name, dtype: kind, shape, begin, end };
}

function checkCover(places: TensorPlace[], dataBytes: number, where: string): void {
  places.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let covered = 0;
  let before = "the start of the data";
  for (const { name, begin, end } of places) {
    const of = `tensor ${name}`;
    if (begin < covered) throw corrupt(where, `${of}: begins at byte ${count(begin)}, inside ${before}, which ends at byte ${count(covered)}`);
    if (begin > covered) throw corrupt(where, `${of}: begins at byte ${count(begin)}, ${before} ends at byte ${count(covered)}: a hole`);
    if (end > dataBytes) throw corrupt(where, `${of}: ends at byte ${count(end)} of the data, the file holds ${count(dataBytes)}`);
    covered = end;
    before = of;
  }
  if (covered !== dataBytes) throw corrupt(where, `the tensors take ${count(covered)} bytes, the file holds ${count(dataBytes)} bytes of data`);
}

/** Walks the header's JSON. JSON.parse would keep the last of two equal keys, and let a file mean two things. */
class HeaderCursor {
  /** Bytes read. */
  at = 0;
  constructor(private readonly bytes: Uint8Array, private readonly where: string) {}

  /** Reads `{"key":value,…}`; `readValue` reads each value. Equal keys are refused. */
  object(of: string, readValue: (key: string) => void): void {
    this.expect(0x7b, of);
    const seen = new Set<string>();
    if (this.accept(0x7d)) return;
    do {
      const key = this.string(`a key of ${of}`, safetensorsLimits.nameBytes);
      if (seen.has(key)) throw corrupt(this.where, `${of}: the key ${JSON.stringify(key)} stands twice in the header`);
      seen.add(key);
      this.expect(0x3a, of);
      readValue(key);
    } while (this.accept(0x2c));
    this.expect(0x7d, of);
  }

  integers(of: string, most: number): number[] {
    const values: number[] = [];
    this.expect(0x5b, of);
    if (this.accept(0x5d)) return values;
    do {
      if (values.length === most) throw corrupt(this.where, `${of}: more than the ${most} numbers that are allowed`);
      values.push(this.integer(of));
    } while (this.accept(0x2c));
    this.expect(0x5d, of);
    return values;
  }

  /** Reads a text of at most `most` bytes of UTF-8; nothing longer is ever copied. */
  string(of: string, most: number): string {
    this.expect(0x22, of);
    const start = this.at - 1;
    let escapes = 0;
    for (; ; this.at++) {
      const byte = this.bytes[this.at];
      if (byte === undefined || byte < 0x20) throw this.unexpected(of);
      if (byte === 0x22) break;
      if (byte === 0x5c) {
        escapes++;
        this.at++;
      }
    }
    const literal = this.bytes.subarray(start, ++this.at);
    // An escape of up to six bytes stands for one byte or more.
    const least = literal.length - 2 - 5 * escapes;
    if (least > most) throw this.tooLong(of, start, least, most);
    let value: string | undefined;
    try {
      const text = utf8.decode(literal);
      value = escapes > 0 ? (JSON.parse(text) as string) : text.slice(1, -1);
    } catch {
      // a wrong escape, or not UTF-8: the same complaint as for half a surrogate pair
    }
    if (value?.isWellFormed() !== true) throw corrupt(this.where, `${of}: text at byte ${count(8 + start)} of the file is not valid UTF-8 JSON`);
    const length = escapes > 0 ? Buffer.byteLength(value) : literal.length - 2;
    if (length > most) throw this.tooLong(of, start, length, most);
    return value;
  }

  private tooLong(of: string, start: number, bytes: number, most: number): EggError {
    return corrupt(this.where, `${of}: the text at byte ${count(8 + start)} of the file has ${count(bytes)} bytes, ${count(Math.max(most, 0))} are allowed`);
  }

  /** After the outermost brace only the padding may follow. */
  end(): void {
    while (this.bytes[this.at] === 0x20) this.at++;
    if (this.at < this.bytes.length) throw this.unexpected("the header's padding");
  }

  private integer(of: string): number {
    this.skipSpace();
    const start = this.at;
    let value = 0;
    for (let byte = this.bytes[this.at]; byte !== undefined && byte >= 0x30 && byte <= 0x39; byte = this.bytes[++this.at]) {
      value = value * 10 + (byte - 0x30);
      if (value > Number.MAX_SAFE_INTEGER) throw corrupt(this.where, `${of}: a number above ${count(Number.MAX_SAFE_INTEGER)}`);
    }
    if (this.at === start || (this.at - start > 1 && this.bytes[start] === 0x30)) throw this.unexpected(of);
    return value;
  }

  private skipSpace(): void {
    for (let byte = this.bytes[this.at]; byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09; byte = this.bytes[this.at]) this.at++;
  }

  private accept(byte: number): boolean {
    this.skipSpace();
    if (this.bytes[this.at] !== byte) return false;
    this.at++;
    return true;
  }

  private expect(byte: number, of: string): void {
    if (!this.accept(byte)) throw this.unexpected(of, String.fromCharCode(byte));
  }

  private unexpected(of: string, wanted?: string): EggError {
    const byte = this.bytes[this.at];
    const found = byte === undefined ? "the end of the header" : byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `byte 0x${byte.toString(16).padStart(2, "0")}`;
    return corrupt(this.where, `${of}: unexpected ${found} at byte ${count(8 + this.at)} of the file${wanted === undefined ? "" : `, expected ${wanted}`}`);
  }
}
