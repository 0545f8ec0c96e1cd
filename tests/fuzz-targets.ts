// What is fuzzed: each parser of foreign bytes with its grammar, its words and the properties that it must keep on any input.
// Each has a second reader of its own here to agree with; those of the config are in fuzz-config.ts. Read next: fuzz.ts, which makes the inputs.
import { zstdCompressSync, constants as zlib } from "node:zlib";
import { configOf } from "../src/commands/trained.ts";
import { unpackZstd } from "../src/data/zstd.ts";
import { eggTensors } from "../src/models/egg.ts";
import { expectTextModel } from "../src/models/text-model.ts";
import { bytesNow, elements, type Bytes } from "../src/models/tensors.ts";
import { summaryJson, summaryTable } from "../src/report/summary.ts";
import { makeColors } from "../src/report/terminal.ts";
import { parseLatest, readCheckpoint } from "../src/run/checkpoint.ts";
import { metricsText, parseMetrics, placeToCut, type MetricsLine } from "../src/run/metrics.ts";
import { encodeSafetensors, readSafetensors } from "../src/run/safetensors.ts";
import { parseSummary } from "../src/run/summary.ts";
import type { Random, Target } from "./fuzz.ts";
import { config, jsonc, sets } from "./fuzz-config.ts";
import { sourceOf } from "./source.ts";
import { decoded, encode, json, must, often, outcome, parsed, shape, texts, type Input } from "./fuzz-properties.ts";

const widths: Record<string, number> = { I8: 1, U8: 1, BOOL: 1, F16: 2, BF16: 2, I32: 4, F32: 4, I64: 8 };

function container(header: string | Uint8Array, data: number): Input {
  const text = typeof header === "string" ? encode(header) : header;
  const bytes = new Uint8Array(8 + text.length + data);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  for (let i = 8 + text.length; i < bytes.length; i++) bytes[i] = i & 0x7f;
  return bytes;
}

function tensorFields(random: Random, total: { bytes: number }): string[] {
  return Array.from({ length: random.below(5) }, (_, i) => {
    const dtype = random.oneIn(20) ? random.of(["F64", "F8_E4M3", "toString"]) : random.of(Object.keys(widths));
    const sizes = Array.from({ length: random.below(random.oneIn(9) ? 11 : 4) }, () => random.below(random.oneIn(50) ? 2 ** 31 : 4));
    const bytes = Math.min(sizes.reduce((product, size) => product * size, widths[dtype] ?? 2), 2 ** 53);
    const begin = random.oneIn(30) ? random.below(99) : total.bytes;
    const end = begin + (random.oneIn(30) ? random.below(99) : bytes);
    if (end < 2000) total.bytes = end;
    const fields = [`"dtype":"${dtype}"`, `"shape":[${sizes.join()}]`, `"data_offsets":[${begin},${end}]`];
    if (random.oneIn(4)) fields.reverse();
    if (random.oneIn(40)) fields.splice(random.below(3), 1);
    return `"${random.oneIn(9) ? random.of(texts) : "w"}${random.oneIn(30) ? "" : i}":{${fields.join()}}`;
  });
}

/** The container by the reference library's rules (safetensors/src/tensor.rs), through JSON.parse; null where they refuse it. */
function referenceReader(bytes: Uint8Array): { tensors: Map<string, { dtype: string; shape: number[]; begin: number; end: number }>; metadata: Record<string, string> } | null {
  if (bytes.length < 8) return null;
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  if (length > 100_000_000 || length > bytes.length - 8 || bytes[8] !== 0x7b) return null;
  const text = bytes.subarray(8, 8 + length);
  const value = decoded(text);
  const root = value === null || (text[0] === 0xef && text[1] === 0xbb) ? null : parsed(value);
  if (root === null || typeof root.value !== "object" || root.value === null) return null;
  const { __metadata__: metadata = {}, ...infos } = root.value as Record<string, any>;
  if (typeof metadata !== "object" || metadata === null || Array.isArray(metadata) || Object.values(metadata).some((each) => typeof each !== "string")) return null;
  const whole = (list: unknown): list is number[] => Array.isArray(list) && list.every((each) => Number.isSafeInteger(each) && each >= 0 && !Object.is(each, -0));
  const tensors: NonNullable<ReturnType<typeof referenceReader>>["tensors"] = new Map();
  for (const [name, info] of Object.entries(infos)) {
    if (typeof info !== "object" || info === null || !Object.hasOwn(widths, info.dtype) || !whole(info.shape) || !whole(info.data_offsets) || info.data_offsets.length !== 2) return null;
    const [begin, end] = info.data_offsets as [number, number];
    if (end < begin || info.shape.reduce((product: bigint, size: number) => product * BigInt(size), BigInt(widths[info.dtype]!)) !== BigInt(end - begin)) return null;
    tensors.set(name, { dtype: info.dtype, shape: info.shape, begin, end });
  }
  let covered = 0;
  for (const { begin, end } of [...tensors.values()].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== covered) return null;
    covered = end;
  }
  return covered === bytes.length - 8 - length ? { tensors, metadata } : null;
}

/** What egg refuses on purpose, though the reference takes it; numbers such as 1e0 pass JSON.parse, but not the reference. */
const stricterHeader = /stands twice|unknown key|are allowed|that are allowed|takes more than|a number above|padding|not valid UTF-8 JSON|(shape|data_offsets): unexpected [.eE-]/;

/** Whether a header that JSON.parse reads holds equal keys: it keeps the last of them, whatever the others say. */
function keysTwice(bytes: Uint8Array): boolean {
  const text = decoded(bytes.subarray(8, 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true))))!;
  let keys = 0;
  JSON.parse(text, (_key, value: unknown) => (typeof value === "object" && value !== null && !Array.isArray(value) && (keys += Object.keys(value).length), value));
  return text.match(/"(?:[^"\\]|\\.)*"\s*:/g)!.length > keys;
}

const joined = (pieces: readonly Bytes[]): Input => new Uint8Array(Buffer.concat(pieces.map(bytesNow)));

const safetensors: Target = {
  words: ['"dtype":"I8"', '"shape":[]', '"data_offsets":[0,0]', '"__metadata__":{}', "{", "}", "[", "]", ",", ":", '"', "\\u0061", "\\ud800", "[0,4294967296,4294967296]", '"a":', " ", new Uint8Array(8), new Uint8Array(8).fill(255), new Uint8Array([0xc0, 0xaf])],
  make(random) {
    const total = { bytes: 0 };
    const fields = tensorFields(random, total);
    if (random.oneIn(3)) fields.splice(random.below(fields.length + 1), 0, `"__metadata__":{${random.oneIn(3) ? "" : `"k":"${random.of(texts)}"`}}`);
    return container(`{${fields.join()}}${" ".repeat(random.below(3))}`, total.bytes + (random.oneIn(20) ? 1 : 0));
  },
  /** Half of the mutated ones get a length that fits, or they would all end at the first rule. */
  mend(bytes, random) {
    const end = bytes.lastIndexOf(0x7d);
    if (end < 8 || random.oneIn(2)) return bytes;
    const mended = bytes.slice();
    new DataView(mended.buffer).setBigUint64(0, BigInt(end + 1 - 8), true);
    return mended;
  },
  check(bytes) {
    const result = outcome(["corrupt"], () => readSafetensors(sourceOf(bytes), "f"));
    const reference = referenceReader(bytes);
    if ("error" in result) {
      must(reference === null || stricterHeader.test(result.error.message) || keysTwice(bytes), "what the reference reads is accepted");
      return shape(result.error);
    }
    const { tensors, metadata, head } = result.value;
    must(reference !== null && reference.tensors.size === tensors.size, "what is accepted is what the reference reads");
    must(JSON.stringify(reference.metadata) === JSON.stringify(metadata), "the same metadata");
    const start = bytes.length - [...tensors.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
    must(start === head.length, "the data begin behind the head");
    for (const [name, { dtype, shape: sizes, data }] of tensors) {
      const other = reference.tensors.get(name)!;
      must(other.dtype === dtype && other.shape.join() === sizes.join(), "the same types and shapes");
      must(Buffer.from(data.read()).equals(bytes.subarray(start + other.begin, start + other.end)), "the same bytes");
    }
    const again = readSafetensors(sourceOf(joined(encodeSafetensors(tensors, metadata))), "again");
    must(again.tensors.size === tensors.size && JSON.stringify(again.metadata) === JSON.stringify(metadata), "what is written is read back");
    for (const [name, { data }] of tensors) must(Buffer.from(data.read()).equals(again.tensors.get(name)!.data.read()), "the same data");
    return `good ${tensors.size} ${Object.keys(metadata).length}`;
  },
};

const hashField = Buffer.from(`"content_sha256":"`);
const sha256 = (bytes: Uint8Array): string => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");

/** The file with a content hash that is right, where it has one at all: damage that no hash shows. */
function sealed(bytes: Input): Input {
  const at = Buffer.from(bytes.buffer).indexOf(hashField) + hashField.length;
  if (at < hashField.length || at + 64 > bytes.length) return bytes;
  const copy = bytes.slice();
  copy.fill(0x30, at, at + 64);
  copy.set(encode(sha256(copy)), at);
  return copy;
}

/** The tensors of the smallest model. */
function modelFields(total: { bytes: number }): string[] {
  return eggTensors({ hidden: 16, layers: 1, vocabulary: 256 }).map(({ name, shape }) => {
    const begin = total.bytes;
    total.bytes += elements(shape);
    return `"${name}":{"dtype":"I8","shape":[${shape.join()}],"data_offsets":[${begin},${total.bytes}]}`;
  });
}

/** The tensors of the smallest context model, which has seen one byte. */
function contextsFields(total: { bytes: number }, order: number): string[] {
  const weights = Array.from({ length: order }, (_, table) => ({ name: `contexts.${table + 1}.weight`, dtype: "I8", shape: [[2, 4, 16][table]!, 2] }));
  return [{ name: "vocabulary.bytes", dtype: "U8", shape: [1] }, ...weights].map(({ name, dtype, shape }) => {
    const begin = total.bytes;
    total.bytes += elements(shape);
    return `"${name}":{"dtype":"${dtype}","shape":[${shape.join()}],"data_offsets":[${begin},${total.bytes}]}`;
  });
}

const checkpoint: Target = {
  words: [...safetensors.words, '"step":"1"', '"content_sha256":"', '"config":"{}"', '"val_bits_per_byte":"NaN"', "state.", '\\"content_sha256\\":\\"', "000000"],
  allocates: 2,
  make(random) {
    const total = { bytes: 0 };
    const rule = random.of(["egg", "egg.c", "nano-egg"]);
    const model: Record<string, unknown> = rule === "egg"
      ? { type: "egg", order: random.of([1, 2, 3, 8, 1e9, -1]), table_bits: random.of([4, 4, 4, 24, 31, 0]) }
      : { type: "egg", hidden: random.of([16, 32, 4096, 17, -1]), layers: random.oneIn(50) ? 64 : random.of([1, 2, 0]) };
    const order = typeof model["order"] === "number" && model["order"] >= 1 && model["order"] <= 3 ? model["order"] : null;
    const fields = order !== null && random.oneIn(2) ? contextsFields(total, order)
      : model["hidden"] === 16 && model["layers"] === 1 && random.oneIn(2) ? modelFields(total) : tensorFields(random, total);
    const inner = random.oneIn(5) ? json(random, 2, false) : JSON.stringify({ preset: rule, data: { path: "x", tokenizer: "bytes", validation: 0.1 }, model, trainer: { rule }, device: { threads: 1 } });
    const metadata: Record<string, string> = {
      program: "0", config: inner, step: random.of(["1", "0", "01", "-1", "1e3", "999999999999999"]), tokenizer: "bytes", data_cursor: "{}",
      val_bits_per_byte: random.of(["2.5", "NaN", "x", "1e999"]), content_sha256: "0".repeat(64),
    };
    if (random.oneIn(9)) delete metadata[random.of(Object.keys(metadata))];
    return container(`{"__metadata__":${JSON.stringify(metadata)}${fields.map((field) => `,${field}`).join("")}}`, total.bytes);
  },
  mend(bytes, random) {
    const mended = safetensors.mend!(bytes, random);
    return random.oneIn(3) ? mended : sealed(mended);
  },
  check(bytes) {
    const result = outcome(["corrupt"], () => readCheckpoint(sourceOf(bytes), "f"));
    if ("error" in result) return shape(result.error).slice(0, 120);
    const found = result.value;
    const { metadata } = referenceReader(bytes)!;
    must(metadata["content_sha256"] === found.contentSha256 && sha256(sealed(bytes)) === sha256(bytes), "the content hash is right");
    must(Number.isSafeInteger(found.step) && found.step >= 0 && String(found.step) === metadata["step"], "the step is a step");
    must(found.valBitsPerByte === null || Number.isFinite(found.valBitsPerByte), "the loss is a number");
    const usable = outcome(["corrupt"], () => {
      expectTextModel(configOf(found), found.tensors, found.tokenizer);
    });
    return "error" in usable ? `good file, ${shape(usable.error).slice(0, 60)}` : "good model";
  },
};

// ---- metrics, latest.json, summary.json

const metricsKeys = ["step", "seconds", "train_bits_per_byte", "member_tokens_per_second", "data_tokens", "fitness_plus", "fitness_minus", "updated_fraction"];
/** What a line of backprop lacks of these, and what it has. */
const ofEvolution = ["member_tokens_per_second", "fitness_plus", "fitness_minus", "updated_fraction"];
const ofBackprop = ["tokens_per_second", "gradient_norm", "learning_rate"];

function goodLine(text: string | null, after: number): boolean {
  const value = text === null || text.length > 4095 ? null : (parsed(text)?.value as Record<string, unknown> | null | undefined);
  if (typeof value !== "object" || value === null) return false;
  const own = (key: string): unknown => (Object.hasOwn(value, key) ? value[key] : undefined);
  const number = (key: string): boolean => own(key) === null || typeof own(key) === "number";
  const optional = (key: string): boolean => own(key) === undefined || number(key);
  const hash = own("weights_sha256");
  const required = own("tokens_per_second") === undefined ? metricsKeys : metricsKeys.filter((key) => !ofEvolution.includes(key));
  return required.every(number) && [...ofEvolution, ...ofBackprop].every(optional) && optional("val_bits_per_byte") && optional("loss_integer") && Number.isSafeInteger(own("step")) && (own("step") as number) > after &&
    (hash === undefined || (typeof hash === "string" && /^[0-9a-f]{64}$/.test(hash)));
}

const metrics: Target = {
  words: [...[...metricsKeys, ...ofBackprop].map((key) => `"${key}":`), "\n", "{", "}", ",", "null", "1e999", "-1", '"x"', "[", "\0", '"weights_sha256":"', "__proto__"],
  make(random) {
    let step = random.below(3);
    const lines = Array.from({ length: random.below(6) }, () => {
      step += random.oneIn(15) ? random.below(3) : 1;
      const line = { step, seconds: step / 3, train_bits_per_byte: 8 / step, member_tokens_per_second: 1000, data_tokens: step * 9, fitness_plus: 1, fitness_minus: 2, updated_fraction: 0.5 };
      return metricsText(random.oneIn(3) ? { ...line, val_bits_per_byte: random.of([2, NaN]), weights_sha256: "a".repeat(64) } as MetricsLine : line);
    });
    return encode(lines.join("\n") + (random.oneIn(4) ? "" : "\n"));
  },
  check(bytes) {
    const parts = Buffer.from(bytes.buffer).toString("latin1").split("\n").map((part) => decoded(Buffer.from(part, "latin1")));
    const torn = bytes.length > 0 && bytes.at(-1) !== 0x0a;
    let step = 0;
    const verdicts = parts.slice(0, -1).map((part) => {
      const good = goodLine(part, step);
      if (good) step = (JSON.parse(part!) as MetricsLine).step;
      return good;
    });
    const firstBad = verdicts.indexOf(false);
    const result = outcome(["corrupt"], () => parseMetrics(bytes, "f"));
    for (const at of often("metrics") ? [0, 1, step - 1, step, step + 1] : [step]) {
      const cut = outcome(["corrupt"], () => placeToCut(bytes, at, "f"));
      if ("error" in cut) must(firstBad >= 0, "a whole file can be cut");
      else {
        const kept = parseMetrics(bytes.subarray(0, cut.value.keep), "kept");
        must(kept.every((line) => line.step <= at) && kept.at(-1)?.step === cut.value.last?.step, "a cut keeps whole lines up to its step");
        must(firstBad >= 0 || cut.value.last?.step === parseMetrics(bytes, "f").findLast((line) => line.step <= at)?.step, "a cut keeps all lines up to its step");
      }
    }
    if ("error" in result) {
      must(firstBad >= 0 && (firstBad < verdicts.length - 1 || torn), "good lines are accepted");
      return `${shape(result.error)} ${Math.min(firstBad, 9)}`;
    }
    must(firstBad < 0 || firstBad === verdicts.length - 1, "a bad line within is not accepted");
    must(result.value.length === verdicts.filter(Boolean).length, "all good lines are there");
    const text = result.value.map((line) => `${metricsText(line)}\n`).join("");
    must(parseMetrics(encode(text), "again").map((line) => `${metricsText(line)}\n`).join("") === text, "what is written is read back");
    return `good ${Math.min(verdicts.length, 9)} ${torn} ${firstBad < 0}`;
  },
};

const checkpointFile = /^step-[0-9]{8,15}\.safetensors$/;

const latest: Target = {
  words: ['"name":', '"step":', '"sha256":', '"best":', "null", "../", "step-00000001.safetensors", "\\u002e\\u002e/", "/etc/passwd", "a".repeat(64), "{", "}", ",", "\0"],
  make(random) {
    const step = random.of([0, 1, 300, 99_999_999, 123_456_789]);
    const name = random.oneIn(6) ? random.of(["../step-00000001.safetensors", "/step-00000001.safetensors", "step-1.safetensors", "", "step-00000001.safetensors\n"]) : `step-${String(step).padStart(8, "0")}.safetensors`;
    const best = random.oneIn(2) ? null : random.of<unknown>([{ name, step, val_bits_per_byte: 2.5 }, { name, step: step + 1, val_bits_per_byte: 2.5 }, { name, step, val_bits_per_byte: "2" }, [], 1]);
    return encode(`${JSON.stringify({ name, step, sha256: random.oneIn(5) ? random.of(["A".repeat(64), ""]) : "a".repeat(64), best })}\n`);
  },
  check(bytes) {
    const result = outcome(["corrupt"], () => parseLatest(bytes, "f"));
    if ("error" in result) return shape(result.error);
    const { name, step, sha256, best } = result.value;
    must(checkpointFile.test(name) && Number(name.slice(5, -12)) === step && /^[0-9a-f]{64}$/.test(sha256), "a checkpoint's name, nothing else");
    must(best === null || (checkpointFile.test(best.name) && Number.isFinite(best.val_bits_per_byte)), "a best checkpoint's name, nothing else");
    must(JSON.stringify(parseLatest(encode(JSON.stringify(result.value)), "again")) === JSON.stringify(result.value), "what is written is read back");
    return `good ${best === null} ${Object.keys(result.value).length}`;
  },
};

const aSummary = {
  run: "egg.c-abcdefghijkl", status: "finished", steps: 10, seconds: 1.5, train_bits_per_byte: 2.5, val_bits_per_byte: null, weights_sha256: "a".repeat(64), parameters: 100,
  population: 64, member_tokens: 1e6, member_tokens_per_second: 1e5, data_tokens: 1e4, peak_rss_bytes: 1e7, backend: "cpu avx2", threads: 2,
};

const { population: _, member_tokens: __, member_tokens_per_second: ___, ...common } = aSummary;
const aBackpropSummary = { ...common, tokens_per_second: 1e4 };

const summary: Target = {
  words: [...Object.keys(aSummary).map((key) => `"${key}":`), "null", "1e999", "-1", '"x"', "{", "}", ",", "\\u001b[2J", "\\u2028", "[]", "true"],
  make(random) {
    const changed = { ...(random.oneIn(4) ? aBackpropSummary : aSummary), [random.of(Object.keys(aSummary))]: random.of<unknown>([null, 0, -1, 1e300, "", "x", "\u001b[31m", "\u2028", [], {}, true]) };
    return encode(JSON.stringify(random.oneIn(5) ? aSummary : changed));
  },
  check(bytes) {
    const found = parseSummary(bytes);
    if (found === null) return `none ${Math.min(bytes.length >> 4, 40)}`;
    const reference = JSON.parse(decoded(bytes)!) as Record<string, unknown>;
    must(JSON.stringify(found) === JSON.stringify(reference) && Object.keys(Object.hasOwn(reference, "tokens_per_second") ? aBackpropSummary : aSummary).every((key) => Object.hasOwn(reference, key)), "what is accepted is what JSON.parse reads");
    const table = summaryTable(found, { folder: "runs/x", firstTrainBitsPerByte: null, firstHeldOutBitsPerByte: null, entropyBitsPerByte: null, prompt: "", resumeCommand: "egg", colors: makeColors(false) });
    must(!/[\x00-\x09\x0b-\x1f\x7f-\x9f]/.test(table), "no control sequence reaches the terminal");
    must(summaryJson(found).indexOf("\n") === summaryJson(found).length - 1, "one line of JSON");
    return `good ${found.status} ${Object.keys(found).length} ${Object.entries(found).filter(([, value]) => value === null).map(([key]) => key).join()}`;
  },
};

// ---- zstd

/** Pieces of text with their frames: levels, with and without a checksum, with and without a declared size. */
const frames = [0, 1, 7, 100, 3000, 20_000, 400_000].flatMap((length) =>
  [[1, 0, 1], [3, 1, 1], [19, 0, 0], [3, 1, 0]].map(([level, checksum, size]) => {
    const text = Buffer.from(Array.from({ length }, (_, i) => (length === 3000 || length > 300_000 ? 65 : (i * i * 7 + (i >> 3)) & 255)));
    return { text, sized: size === 1, frame: new Uint8Array(zstdCompressSync(text, { params: { [zlib.ZSTD_c_compressionLevel]: level!, [zlib.ZSTD_c_checksumFlag]: checksum!, [zlib.ZSTD_c_contentSizeFlag]: size! } })) };
  }),
);
const zstdLimit = 300_000;
/** Inputs of the grammar, what they must give, and whether all of their frames declare their size. */
const packed = new WeakMap<Uint8Array, { text: Buffer; sized: boolean }>();

const zstd: Target = {
  words: [new Uint8Array([0x28, 0xb5, 0x2f, 0xfd]), new Uint8Array([0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9]), new Uint8Array(8).fill(255), new Uint8Array([1, 0, 0]), new Uint8Array([3, 0, 0x40, 7])],
  make(random) {
    const chosen = Array.from({ length: 1 + random.below(3) }, () => random.of(frames));
    const pieces: Uint8Array[] = chosen.map(({ frame }) => frame);
    if (random.oneIn(4)) {
      const skipped = new Uint8Array(8 + random.below(20));
      new DataView(skipped.buffer).setUint32(0, 0x184d2a50 + random.below(16), true);
      new DataView(skipped.buffer).setUint32(4, skipped.length - 8, true);
      pieces.splice(random.below(pieces.length + 1), 0, skipped);
    }
    const bytes = new Uint8Array(Buffer.concat(pieces));
    packed.set(bytes, { text: Buffer.concat(chosen.map(({ text }) => text)), sized: chosen.every(({ sized }) => sized) });
    return bytes;
  },
  check(bytes) {
    const result = outcome(["data", "resources"], () => unpackZstd(bytes, zstdLimit, "f"));
    const expected = packed.get(bytes);
    if ("error" in result) {
      // Without a declared size a frame counts as what its blocks could hold at most.
      must(expected === undefined || (result.error.kind === "resources" && (!expected.sized || expected.text.length > zstdLimit)), "a whole file is read");
      return shape(result.error).replace(/\(damaged.*/, "");
    }
    must(result.value.length <= zstdLimit, "no more than the limit");
    must(expected === undefined || expected.text.equals(result.value), "what was packed comes out");
    return `good ${Math.min(result.value.length >> 8, 20)}`;
  },
};

/** By the names that `bun tests/soak.ts fuzz NAME N` takes. */
export const targets: Readonly<Record<string, Target>> = { jsonc, config, sets, safetensors, checkpoint, metrics, latest, summary, zstd };
