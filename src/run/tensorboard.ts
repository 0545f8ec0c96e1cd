// TensorBoard's event file of a run, on request (run.tensorboard): the numbers of metrics.jsonl in the form that TensorBoard reads.
// A copy, never a source: what it lacks is filled in from metrics.jsonl whenever a run goes on. egg itself does not read it.
// Format: TFRecord around protobuf (tensorflow/core/util/event.proto, framework/summary.proto). Read next: metrics.ts.
import fs from "node:fs";
import { appendBytes, ioError } from "./files.ts";
import { readMetrics, written, type MetricsLine } from "./metrics.ts";
import { readPlain } from "./reading.ts";

/** One name for all resumptions, so that nothing piles up. TensorBoard takes every file whose name holds "tfevents". */
export const eventsName = "events.out.tfevents.egg";

/** What TensorBoard shows, by key of a line of metrics. A value is the one in metrics.jsonl, as a 32-bit float. */
export const tags: readonly (readonly [keyof MetricsLine, string])[] = [
  ["train_bits_per_byte", "loss/train_bits_per_byte"],
  ["val_bits_per_byte", "loss/val_bits_per_byte"],
  ["loss_integer", "loss/integer"],
  ["threshold", "trainer/threshold"],
  ["rate", "trainer/rate"],
  ["member_tokens_per_second", "rate/member_tokens_per_second"],
  ["tokens_per_second", "rate/tokens_per_second"],
  ["gradient_norm", "trainer/gradient_norm"],
  ["learning_rate", "trainer/learning_rate"],
  ["updated_fraction", "weights/updated_fraction"],
  ["saturated_fraction", "weights/saturated_fraction"],
  ["fitness_plus", "fitness/plus"],
  ["fitness_minus", "fitness/minus"],
];

export interface EventsFile {
  /** @throws EggError("resources") when the event does not fit on the disk; the file then ends with the event before. */
  append(line: MetricsLine): void;
  close(): void;
}

/**
 * Opens a run's event file so that it holds the steps of metrics.jsonl, each once: later steps and a torn end are cut off,
 * missing ones are added. To be called when metrics.jsonl has been cut back to the checkpoint.
 * @param now seconds since 1970; a step that is filled in gets the time that its training seconds tell
 * @throws EggError("resources") when it cannot be written
 */
export function openEvents(file: string, metricsFile: string, now: () => number = () => Date.now() / 1000): EventsFile {
  const lines = readMetrics(metricsFile);
  const last = lines.at(-1);
  // The last step is written anew: it may have got its evaluation since.
  const { end, step } = wholeRecords(file, (last?.step ?? 1) - 1);
  const descriptor = opened(file, end);
  try {
    if (end === 0) appendBytes(descriptor, versionRecord(now()), file);
    const missing = lines.filter((line) => line.step > step).map((line) => eventRecord(line, now() - (last!.seconds - line.seconds)));
    if (missing.length > 0) appendBytes(descriptor, Buffer.concat(missing), file);
  } catch (error) {
    fs.closeSync(descriptor);
    throw error;
  }
  return {
    append: (line) => appendBytes(descriptor, eventRecord(written(line), now()), file),
    close: () => fs.closeSync(descriptor),
  };
}

function opened(file: string, end: number): number {
  try {
    if (fs.existsSync(file)) fs.truncateSync(file, end);
    return fs.openSync(file, "a", 0o666);
  } catch (error) {
    throw ioError(error, "open", file);
  }
}

// ---- records

/** A TFRecord: length (u64), its masked CRC, the data, their masked CRC; little endian. */
function record(data: Buffer): Buffer {
  const bytes = Buffer.alloc(data.length + 16);
  bytes.writeBigUInt64LE(BigInt(data.length), 0);
  bytes.writeUInt32LE(maskedCrc(bytes.subarray(0, 8)), 8);
  bytes.set(data, 12);
  bytes.writeUInt32LE(maskedCrc(data), 12 + data.length);
  return bytes;
}

/** How far the file holds whole records of this program with steps of at most `limit`, and the last of these steps. */
function wholeRecords(file: string, limit: number): { end: number; step: number } {
  const bytes = readPlain(file) ?? Buffer.alloc(0);
  let step = 0;
  let end = 0;
  while (end + 16 <= bytes.length) {
    const length = Number(bytes.readBigUInt64LE(end));
    const data = bytes.subarray(end + 12, end + 12 + length);
    const whole = end + 16 + length <= bytes.length && bytes.readUInt32LE(end + 8) === maskedCrc(bytes.subarray(end, end + 8)) && bytes.readUInt32LE(end + 12 + length) === maskedCrc(data);
    if (!whole) break;
    const found = end === 0 ? 0 : stepOf(data);
    if (found === null || found > limit) break;
    [step, end] = [found, end + 16 + length];
  }
  return { end, step };
}

const versionRecord = (wallTime: number): Buffer => record(Buffer.concat([field(1, wallTime), bytesField(3, Buffer.from("brain.Event:2"))]));

/** Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } … } } */
function eventRecord(line: MetricsLine, wallTime: number): Buffer {
  const values = tags.flatMap(([key, tag]) => {
    const value = line[key];
    if (typeof value !== "number") return [];
    const simple = Buffer.alloc(5, (2 << 3) | 5);
    simple.writeFloatLE(value, 1);
    return [bytesField(1, Buffer.concat([bytesField(1, Buffer.from(tag)), simple]))];
  });
  return record(Buffer.concat([field(1, wallTime), Buffer.from([2 << 3, ...varint(line.step)]), bytesField(5, Buffer.concat(values))]));
}

/** The step of an event as eventRecord writes it: behind the wall time; null for anything else. */
function stepOf(data: Buffer): number | null {
  if (data.length < 11 || data[0] !== ((1 << 3) | 1) || data[9] !== 2 << 3) return null;
  let step = 0;
  for (let at = 10, scale = 1; at < data.length && at < 20; at++, scale *= 128) {
    step += (data[at]! & 127) * scale;
    if (data[at]! < 128) return step;
  }
  return null;
}

// ---- protobuf, as much as an event needs

function field(number: number, double: number): Buffer {
  const bytes = Buffer.alloc(9, (number << 3) | 1);
  bytes.writeDoubleLE(double, 1);
  return bytes;
}

const bytesField = (number: number, bytes: Buffer): Buffer => Buffer.concat([Buffer.from([(number << 3) | 2, ...varint(bytes.length)]), bytes]);

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}

// ---- CRC-32C (Castagnoli), reflected

let table: Uint32Array | undefined;

/** CRC-32C of bytes, as an unsigned number (RFC 3720, appendix B.4 has vectors). */
export function crc32c(bytes: Uint8Array): number {
  table ??= Uint32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    return crc;
  });
  let crc = 0xffffffff;
  for (const byte of bytes) crc = table[(crc ^ byte) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** The CRC as TFRecord stores it: rotated and shifted, so that a CRC of a text that holds CRCs is not weak. */
function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
