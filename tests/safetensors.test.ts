// The safetensors container: golden file, round trip, and each rule of the header from both sides.
// Not checkpoints: those are in checkpoint.test.ts.
import { expect, test } from "bun:test";
import fs from "node:fs";
import path from "node:path";
import { EggError } from "../src/errors.ts";
import { bytesNow, type Bytes, type TensorEntry } from "../src/models/tensors.ts";
import { encodeSafetensors, readSafetensors, safetensorsLimits } from "../src/run/safetensors.ts";
import { sourceOf } from "./source.ts";

const golden = path.join(import.meta.dir, "golden");

const join = (chunks: readonly Bytes[]): Uint8Array => new Uint8Array(Buffer.concat(chunks.map(bytesNow)));

/** A file from a header text and a number of data bytes, with no check at all. */
function fileOf(header: string | Uint8Array, dataBytes: number): Uint8Array {
  const text = typeof header === "string" ? Buffer.from(header) : header;
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(BigInt(text.length));
  return join([start, text, new Uint8Array(dataBytes)]);
}

const read = (bytes: Uint8Array) => readSafetensors(sourceOf(bytes), "file.safetensors");

function failure(bytes: Uint8Array): string {
  try {
    read(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(EggError);
    expect((error as EggError).kind).toBe("corrupt");
    return (error as EggError).message;
  }
  throw new Error("decoded without complaint");
}

/** A reader of its own, after the published description: 8 bytes of length, JSON, then bytes at data_offsets. */
function independentReader(bytes: Uint8Array): { metadata: Record<string, string>; tensors: Record<string, { dtype: string; shape: number[]; data: Buffer }> } {
  const buffer = Buffer.from(bytes);
  const start = 8 + Number(buffer.readBigUInt64LE(0));
  const { __metadata__: metadata = {}, ...infos } = JSON.parse(buffer.toString("utf8", 8, start));
  const tensors: ReturnType<typeof independentReader>["tensors"] = {};
  const widths: Record<string, number> = { I8: 1, U8: 1, BOOL: 1, F16: 2, BF16: 2, I32: 4, F32: 4, I64: 8 };
  let total = 0;
  for (const [name, info] of Object.entries<any>(infos)) {
    const [begin, end] = info.data_offsets;
    const width = widths[info.dtype]!;
    expect(end - begin).toBe(info.shape.reduce((a: number, b: number) => a * b, width));
    expect((start + begin) % width).toBe(0); // readers that map the file need this
    tensors[name] = { dtype: info.dtype, shape: info.shape, data: buffer.subarray(start + begin, start + end) };
    total += end - begin;
  }
  expect(start + total).toBe(buffer.length);
  return { metadata, tensors };
}

test("golden file of the reference library decodes to the listed values", () => {
  const listed = JSON.parse(fs.readFileSync(path.join(golden, "sample.json"), "utf8")).safetensors;
  const bytes = new Uint8Array(fs.readFileSync(path.join(golden, "sample.safetensors")));
  expect(bytes.length).toBe(listed.bytes);
  const { tensors, metadata } = read(bytes);
  expect(metadata).toEqual(listed.metadata);
  expect([...tensors.keys()].sort()).toEqual(Object.keys(listed.tensors).sort());
  for (const [name, { dtype, shape, values }] of Object.entries<any>(listed.tensors)) {
    const tensor = tensors.get(name)!;
    expect([tensor.dtype, tensor.shape]).toEqual([dtype, shape]);
    const copy = new Uint8Array(bytesNow(tensor.data)).buffer;
    const found = dtype === "F32" ? new Float32Array(copy) : new Int8Array(copy);
    const wanted = dtype === "F32" ? Float32Array.from(values) : Int8Array.from(values);
    expect(Buffer.from(found.buffer).equals(Buffer.from(wanted.buffer))).toBe(true); // bits, so that -0 counts
  }
});

test("what is encoded is read back by this reader and by an independent one", () => {
  const entry = (dtype: TensorEntry["dtype"], shape: number[], bytes: number) => ({ dtype, shape, data: crypto.getRandomValues(new Uint8Array(bytes)) });
  const tensors = new Map([
    ["state.cursor", entry("I64", [2], 16)], ["b", entry("I8", [3, 5], 15)], ["a", entry("U8", [1], 1)], ["é \"quoted\" \\ \u0001", entry("I32", [], 4)],
    ["empty", entry("F32", [0, 3], 0)], ["Z", entry("F32", [2, 1], 8)], ["__proto__", entry("I8", [1, 1, 1, 1, 1, 1, 1, 2], 2)],
  ]);
  const metadata = { text: "café ✓ \n\u2028 \"q\"", empty: "" };
  const bytes = join(encodeSafetensors(tensors, metadata));
  const dataStart = 8 + Number(Buffer.from(bytes).readBigUInt64LE(0));
  expect(dataStart % 8).toBe(0);
  const ours = read(bytes);
  const theirs = independentReader(bytes);
  expect(ours.metadata).toEqual(metadata);
  expect(theirs.metadata).toEqual(metadata);
  expect(ours.tensors.size).toBe(tensors.size);
  for (const [name, { dtype, shape, data }] of tensors) {
    const found = ours.tensors.get(name)!;
    expect({ ...found, data: bytesNow(found.data) }).toEqual({ dtype, shape, data });
    if (name === "__proto__") continue; // a plain object, as the independent reader has, cannot hold it
    expect(theirs.tensors[name]).toMatchObject({ dtype, shape });
    expect(theirs.tensors[name]!.data.equals(data)).toBe(true);
  }
  const listed = [...Buffer.from(bytes).toString("utf8", 8, dataStart).matchAll(/"([^"]+)":\{"dtype"/g)].map((match) => match[1]!);
  expect(listed.filter((name) => !name.includes("\\"))).toEqual(["Z", "__proto__", "a", "b", "empty", "state.cursor"]);
  expect(join(encodeSafetensors(new Map([...tensors].reverse()), metadata))).toEqual(bytes);
});

test("big tensors are handed on, not copied", () => {
  const data = new Uint8Array(100_000);
  expect(encodeSafetensors(new Map([["w", { dtype: "I8", shape: [100_000], data }]]), {})[1]).toBe(data);
});

test("bytes in pieces, fetched when they are needed, make the same file", () => {
  const data = crypto.getRandomValues(new Uint8Array(1000));
  const lazy = (from: number, to: number) => ({ byteLength: to - from, read: () => data.slice(from, to) });
  const pieces = [lazy(0, 300), data.subarray(300, 301), lazy(301, 1000)];
  expect(join(encodeSafetensors(new Map([["w", { dtype: "I8", shape: [1000], data: pieces }]]), {}))).toEqual(
    join(encodeSafetensors(new Map([["w", { dtype: "I8", shape: [1000], data }]]), {})),
  );
});

test("no tensors and no metadata is a file", () => {
  const { tensors, metadata } = read(join(encodeSafetensors(new Map(), {})));
  expect([tensors.size, metadata]).toEqual([0, {}]);
});

test("the encoder refuses what the decoder would", () => {
  expect(() => encodeSafetensors(new Map([["w", { dtype: "I32", shape: [3], data: new Uint8Array(11) }]]), {})).toThrow("tensor w: shape [3] of I32 takes 12 bytes, its offsets hold 11");
});

const tensor = (dtype: string, shape: string, begin: number | string, end: number | string): string => `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;
const nine = "1,1,1,1,1,1,1,1,1";

// [rule, header, bytes of data, what the message says]; null = accepted
const rules: [string, string | Uint8Array, number, string | null][] = [
  ["white space between tokens and padding behind", `{ "a" : {"shape": [2], "dtype":"I8",\n"data_offsets":[0 , 2]} }   `, 2, null],
  ["escapes in names", `{"\\u00e9\\n":${tensor("I8", "[1]", 0, 1)}}`, 1, null],
  ["begins with {", ` {"a":${tensor("I8", "[1]", 0, 1)}}`, 1, "the header does not begin with {"],
  ["something behind the header", `{}x`, 0, "the header's padding: unexpected x at byte 10"],
  ["line break as padding", `{}\n`, 0, "unexpected byte 0x0a"],
  ["end inside", `{"a":`, 0, "tensor a: unexpected the end of the header at byte 13"],
  ["end inside a string", `{"a`, 0, "unexpected the end of the header"],
  ["comma at the end", `{"a":${tensor("I8", "[1]", 0, 1)},}`, 1, "unexpected }"],
  ["no object", `{"a":5}`, 0, "tensor a: unexpected 5"],
  ["the same tensor twice", `{"a":${tensor("I8", "[1]", 0, 1)},"a":${tensor("I8", "[1]", 1, 2)}}`, 2, `the key "a" stands twice`],
  ["the same tensor twice, once escaped", `{"a":${tensor("I8", "[1]", 0, 1)},"\\u0061":${tensor("I8", "[1]", 1, 2)}}`, 2, `the key "a" stands twice`],
  ["the same field twice", `{"a":{"dtype":"I8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, `tensor a: the key "dtype" stands twice`],
  ["the same metadata twice", `{"__metadata__":{"k":"1","k":"2"}}`, 0, `__metadata__: the key "k" stands twice`],
  ["metadata twice", `{"__metadata__":{},"__metadata__":{}}`, 0, `the key "__metadata__" stands twice`],
  ["metadata of another kind", `{"__metadata__":{"k":1}}`, 0, "metadata k: unexpected 1"],
  ["unknown field", `{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1],"x":1}}`, 1, `tensor a: unknown key "x"`],
  ["missing field", `{"a":{"dtype":"I8","shape":[1]}}`, 1, "tensor a: dtype, shape and data_offsets are all needed"],
  ["unknown type", `{"a":${tensor("F64", "[1]", 0, 8)}}`, 8, `tensor a: element type "F64", egg reads I8`],
  ["type from the prototype", `{"a":${tensor("toString", "[1]", 0, 2)}}`, 2, `element type "toString"`],
  ["8 dimensions", `{"a":${tensor("I8", "[1,1,1,1,1,1,1,1]", 0, 1)}}`, 1, null],
  ["9 dimensions", `{"a":${tensor("I8", `[${nine}]`, 0, 1)}}`, 1, "tensor a, shape: more than the 8"],
  ["negative size", `{"a":${tensor("I8", "[-1]", 0, 1)}}`, 1, "tensor a, shape: unexpected -"],
  ["fraction", `{"a":${tensor("I8", "[1.0]", 0, 1)}}`, 1, "tensor a, shape: unexpected ."],
  ["leading zero", `{"a":${tensor("I8", "[01]", 0, 1)}}`, 1, "tensor a, shape: unexpected"],
  ["number too large", `{"a":${tensor("I8", "[9007199254740992]", 0, 1)}}`, 1, "tensor a, shape: a number above 9,007,199,254,740,991"],
  ["product too large, zero modulo 2^64", `{"a":${tensor("I8", "[4294967296,4294967296]", 0, 0)}}`, 0, "tensor a: shape [4294967296, 4294967296] takes more than"],
  ["shape against offsets", `{"a":${tensor("F32", "[2,3]", 0, 23)}}`, 23, "tensor a: shape [2, 3] of F32 takes 24 bytes, its offsets hold 23"],
  ["one offset", `{"a":{"dtype":"I8","shape":[1],"data_offsets":[0]}}`, 1, "tensor a: data_offsets needs 2 numbers, found 1"],
  ["three offsets", `{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1,2]}}`, 1, "tensor a, data_offsets: more than the 2"],
  ["offsets the wrong way round", `{"a":${tensor("I8", "[1]", 1, 0)}}`, 1, "tensor a: begins at byte 1 and ends at byte 0"],
  ["order of the header does not matter", `{"b":${tensor("I8", "[1]", 1, 2)},"a":${tensor("I8", "[1]", 0, 1)}}`, 2, null],
  ["overlap", `{"a":${tensor("I8", "[3]", 0, 3)},"b":${tensor("I8", "[2]", 2, 4)}}`, 4, "tensor b: begins at byte 2, inside tensor a, which ends at byte 3"],
  ["the same bytes twice", `{"a":${tensor("I8", "[3]", 0, 3)},"b":${tensor("I8", "[3]", 0, 3)}}`, 3, "inside tensor"],
  ["hole", `{"a":${tensor("I8", "[3]", 0, 3)},"b":${tensor("I8", "[2]", 4, 6)}}`, 6, "tensor b: begins at byte 4, tensor a ends at byte 3: a hole"],
  ["hole at the start", `{"a":${tensor("I8", "[3]", 1, 4)}}`, 4, "tensor a: begins at byte 1, the start of the data ends at byte 0"],
  ["data too short", `{"a":${tensor("I8", "[3]", 0, 3)},"b":${tensor("I8", "[5]", 3, 8)}}`, 7, "tensor b: ends at byte 8 of the data, the file holds 7"],
  ["data too long", `{"a":${tensor("I8", "[3]", 0, 3)}}`, 4, "the tensors take 3 bytes, the file holds 4"],
  ["wrong UTF-8", Buffer.concat([Buffer.from(`{"`), Buffer.from([0xff]), Buffer.from(`":${tensor("I8", "[1]", 0, 1)}}`)]), 1, "is not valid UTF-8 JSON"],
  ["overlong UTF-8", Buffer.concat([Buffer.from(`{"`), Buffer.from([0xc0, 0xaf]), Buffer.from(`":${tensor("I8", "[1]", 0, 1)}}`)]), 1, "is not valid UTF-8 JSON"],
  ["half a surrogate pair", `{"\\ud800":${tensor("I8", "[1]", 0, 1)}}`, 1, "is not valid UTF-8 JSON"],
  ["wrong escape", `{"\\x":${tensor("I8", "[1]", 0, 1)}}`, 1, "is not valid UTF-8 JSON"],
  ["line break in a string", `{"a\n":${tensor("I8", "[1]", 0, 1)}}`, 1, "unexpected byte 0x0a"],
  ["name of 512 bytes", `{"${"é".repeat(256)}":${tensor("I8", "[1]", 0, 1)}}`, 1, null],
  ["name of 513 bytes", `{"${"é".repeat(256)}a":${tensor("I8", "[1]", 0, 1)}}`, 1, "a key of the header: the text at byte 9 of the file has 513 bytes, 512 are allowed"],
  ["name of 512 bytes, all escaped", `{"${"\\u0061".repeat(512)}":${tensor("I8", "[1]", 0, 1)}}`, 1, null],
  ["name of 513 bytes, all escaped", `{"${"\\u0061".repeat(513)}":${tensor("I8", "[1]", 0, 1)}}`, 1, "has 513 bytes, 512 are allowed"],
  ["type of a megabyte", `{"a":${tensor("I".repeat(1_000_000), "[1]", 0, 1)}}`, 1, "tensor a, dtype: the text at byte 22 of the file has 1,000,000 bytes, 512 are allowed"],
  ["field of a megabyte", `{"a":{"${"x".repeat(1_000_000)}":1}}`, 1, "a key of tensor a: the text at byte 14 of the file has 1,000,000 bytes"],
  ["metadata key of 512 bytes", `{"a":${tensor("I8", "[1]", 0, 1)},"__metadata__":{"${"k".repeat(512)}":""}}`, 1, null],
  ["metadata key of 513 bytes", `{"__metadata__":{"${"k".repeat(513)}":""}}`, 0, "a key of __metadata__: the text at byte 25 of the file has 513 bytes"],
];

test.each(rules)("header rule: %s", (_rule, header, dataBytes, message) => {
  const bytes = fileOf(header, dataBytes);
  if (message === null) expect(read(bytes).tensors.size).toBeGreaterThan(0);
  else expect(failure(bytes)).toContain(message);
});

test("1,024 metadata texts are read, one more is not", () => {
  const texts = (n: number): string => `{"__metadata__":{${Array.from({ length: n }, (_, i) => `"${i}":""`).join(",")}}}`;
  expect(Object.keys(read(fileOf(texts(safetensorsLimits.metadata), 0)).metadata).length).toBe(1024);
  expect(failure(fileOf(texts(safetensorsLimits.metadata + 1), 0))).toContain("__metadata__: more than the 1,024 texts that are allowed");
});

test("16 MiB of metadata are read, one byte more is not, in one text or in two", () => {
  const most = safetensorsLimits.metadataBytes;
  const texts = (...lengths: number[]): Uint8Array => fileOf(`{"__metadata__":{${lengths.map((length, i) => `"${i}":"${"x".repeat(length)}"`).join(",")}}}`, 0);
  const used = `{"0":"`.length - 1;
  expect(read(texts(most - used)).metadata["0"]!.length).toBe(most - used);
  expect(failure(texts(most - used + 1))).toContain("16,777,212 bytes, 16,777,211 are allowed");
  expect(failure(texts(most / 2, most / 2))).toContain("metadata 1: the text at byte 8,388,644 of the file has 8,388,608 bytes, 8,388,596 are allowed");
});

test("65,536 tensors are read, one more is not", () => {
  const names = (n: number): string => `{${Array.from({ length: n }, (_, i) => `"${i}":${tensor("I8", "[0]", 0, 0)}`).join(",")}}`;
  expect(read(fileOf(names(safetensorsLimits.tensors), 0)).tensors.size).toBe(65_536);
  expect(failure(fileOf(names(safetensorsLimits.tensors + 1), 0))).toContain("tensor 65536: more than the 65,536 tensors");
});

test("the header's length is checked before anything is read or allocated", () => {
  const claim = (length: bigint, rest = 2): Uint8Array => {
    const bytes = Buffer.from(fileOf("{}", rest - 2));
    bytes.writeBigUInt64LE(length);
    return new Uint8Array(bytes);
  };
  expect(failure(new Uint8Array(0))).toContain("needs at least 8 bytes, this one holds 0");
  expect(failure(new Uint8Array(7))).toContain("this one holds 7");
  expect(failure(claim(3n))).toContain("the header claims 3 bytes, the file holds 2");
  expect(failure(claim(0n))).toContain("does not begin with {");
  expect(failure(claim(100_000_001n))).toContain("claims 100,000,001 bytes, 100,000,000 are allowed");
  expect(failure(claim(2n ** 64n - 1n))).toContain("its first 8 bytes are no length");
});

test("a header of the largest size allowed is read", () => {
  const bytes = new Uint8Array(8 + safetensorsLimits.headerBytes).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(safetensorsLimits.headerBytes), true);
  bytes.set(Buffer.from("{}"), 8);
  expect(read(bytes).tensors.size).toBe(0);
});
