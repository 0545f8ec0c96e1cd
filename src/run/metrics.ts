// metrics.jsonl: one line a step, appended while a run goes, cut back when it resumes, read by reports.
// Not the progress line on the screen, and no checkpoint: what resume needs is not in here.
// Read next: loop.ts, which writes it; src/report/, which reads it.
import fs from "node:fs";
import path from "node:path";
import { EggError } from "../errors.ts";
import { appendLine, ioError, syncFolder, writeDurably } from "./files.ts";
import { openPlain, readPlain } from "./reading.ts";

/** One step. Rates and shares are of this step alone; `seconds` and `data_tokens` count from the run's start. */
export interface MetricsLine {
  step: number;
  seconds: number;
  train_bits_per_byte: number;
  /** Of EGGROLL; backprop has tokens_per_second. */
  member_tokens_per_second?: number | undefined;
  tokens_per_second?: number | undefined;
  data_tokens: number;
  /** Of EGGROLL. */
  fitness_plus?: number | undefined;
  fitness_minus?: number | undefined;
  updated_fraction?: number | undefined;
  /** Of backprop. */
  gradient_norm?: number | undefined;
  learning_rate?: number | undefined;
  /** Where they change from step to step: the step's threshold (alpha above 1 in rule nano-egg), its rate as a share of the first (rule egg). */
  threshold?: number | undefined;
  rate?: number | undefined;
  /** At evaluations. */
  val_bits_per_byte?: number | undefined;
  /** At evaluations: of the weights that are not 0, the share at +-127. */
  saturated_fraction?: number | undefined;
  /** Where a preset must match its reference. */
  loss_integer?: number | undefined;
  /** With run.fingerprint_every. */
  weights_sha256?: string | undefined;
}

// Decimals that are written. What is not listed is whole or text.
const decimals = {
  seconds: 2, train_bits_per_byte: 6, member_tokens_per_second: 0, tokens_per_second: 0, gradient_norm: 5, learning_rate: 10, updated_fraction: 5, rate: 4, val_bits_per_byte: 6,
  saturated_fraction: 4, loss_integer: 6,
} satisfies Partial<Record<keyof MetricsLine, number>>;

const keys: readonly (keyof MetricsLine)[] = [
  "step", "seconds", "train_bits_per_byte", "member_tokens_per_second", "tokens_per_second", "data_tokens", "fitness_plus", "fitness_minus", "updated_fraction",
  "gradient_norm", "learning_rate",
  "threshold", "rate", "val_bits_per_byte", "saturated_fraction", "loss_integer", "weights_sha256",
];

/** What a line may lack, and what in it is text; all else is a number. */
const optional: ReadonlySet<keyof MetricsLine> = new Set(["member_tokens_per_second", "tokens_per_second", "fitness_plus", "fitness_minus", "updated_fraction", "gradient_norm", "learning_rate", "threshold", "rate", "val_bits_per_byte", "saturated_fraction", "loss_integer", "weights_sha256"]);
const texts: ReadonlySet<keyof MetricsLine> = new Set(["weights_sha256"]);
/** What a line of EGGROLL has, all of it, where it is none of backprop with its tokens_per_second. */
const evolution = ["member_tokens_per_second", "fitness_plus", "fitness_minus", "updated_fraction"] as const satisfies readonly (keyof MetricsLine)[];
/** In bytes with the newline: far more than egg writes (300), so that a reader keeps a long line out of memory. */
const longestLine = 4096;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export interface MetricsFile {
  /** @throws EggError("resources") when the line does not fit on the disk; the file then ends with the line before. */
  append(line: MetricsLine): void;
  /** Puts all lines on the disk for good. To be called before a checkpoint is saved, so that none of its steps can be missing. */
  sync(): void;
  close(): void;
}

/** Opens the file for appending, and creates it. */
export function openMetrics(file: string): MetricsFile {
  const descriptor = system("open", file, () => {
    const isNew = !fs.existsSync(file);
    const opened = fs.openSync(file, "a", 0o666);
    if (isNew) syncFolder(path.dirname(file));
    return opened;
  });
  return {
    append: (line) => appendLine(descriptor, metricsText(line), file),
    sync: () => system("write", file, () => fs.fsyncSync(descriptor)),
    close: () => fs.closeSync(descriptor),
  };
}

/** The line as it comes back from the file: undefined values left out, numbers rounded to what they can mean. */
export function written(line: MetricsLine): MetricsLine {
  const fields = keys.flatMap((key) => {
    const value = line[key];
    const places = (decimals as Partial<Record<keyof MetricsLine, number>>)[key];
    return value === undefined ? [] : [[key, typeof value === "number" && places !== undefined ? Number(value.toFixed(places)) : value]];
  });
  return Object.fromEntries(fields) as MetricsLine;
}

/** Seconds as `written` has them. */
export function secondsWritten(seconds: number): number {
  return Number(seconds.toFixed(decimals.seconds));
}

/** The JSON of a line: keys in fixed order. */
export function metricsText(line: MetricsLine): string {
  return JSON.stringify(written(line));
}

/**
 * For resume: cuts the file behind the last line with a step of at most `step`, for good. A torn last line goes too.
 * @param onKept is given every line kept, in order
 * @returns the last line kept; null when none is, or there is no file
 * @throws EggError("corrupt") when a line before that cannot be read
 */
export function truncateAfter(file: string, step: number, onKept: (line: MetricsLine) => void = () => {}): MetricsLine | null {
  const bytes = readPlain(file);
  if (bytes === null) return null;
  const { last, keep } = placeToCut(bytes, step, file, onKept);
  if (keep === bytes.length) return last;
  system("write", file, () => {
    const descriptor = fs.openSync(file, "r+");
    try {
      fs.ftruncateSync(descriptor, keep);
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
  });
  return last;
}

/** Puts `line` in the place of the last one, which has its step: whoever reads the file finds the one or the other. */
export function replaceLast(file: string, line: MetricsLine): void {
  const bytes = readPlain(file) ?? new Uint8Array(0);
  const { keep } = placeToCut(bytes, line.step - 1, file);
  writeDurably(file, [bytes.subarray(0, keep), Buffer.from(`${metricsText(line)}\n`)]);
}

/**
 * Where truncateAfter cuts: how many bytes it keeps, and the last line among them. What stands behind the line of `step` does not
 * matter, and neither does a last line without its end, as a killed process leaves it.
 * @throws EggError("corrupt") when any other line cannot be read
 */
export function placeToCut(bytes: Uint8Array, step: number, file: string, onKept: (line: MetricsLine) => void = () => {}): { last: MetricsLine | null; keep: number } {
  let last: MetricsLine | null = null;
  let keep = 0;
  let broken: number | undefined;
  for (const { line, number, end, torn } of walk(bytes)) {
    if (line === null) broken ??= torn ? undefined : number;
    else if (line.step > step) break;
    else if (broken !== undefined) throw brokenLine(file, broken);
    else {
      [last, keep] = [line, end];
      onKept(line);
    }
  }
  if (broken !== undefined && (last?.step ?? 0) < step) throw brokenLine(file, broken);
  return { last, keep };
}

/** All lines of a file, as parseMetrics reads them; none when there is no file. */
export function readMetrics(file: string): MetricsLine[] {
  return parseMetrics(readPlain(file) ?? new Uint8Array(0), file);
}

/** The first line of a file; null where there is none, or none that is whole. */
export function firstMetrics(file: string): MetricsLine | null {
  if (!fs.existsSync(file)) return null;
  const descriptor = openPlain(file);
  try {
    const bytes = Buffer.alloc(longestLine);
    const end = bytes.subarray(0, fs.readSync(descriptor, bytes, 0, longestLine, 0)).indexOf(0x0a);
    return end < 0 ? null : parseLine(bytes.subarray(0, end));
  } finally {
    fs.closeSync(descriptor);
  }
}

/**
 * All lines. The last one may be torn, as a killed process or a running one leaves it.
 * @param file names the file in errors
 * @throws EggError("corrupt") when any other line cannot be read, or its step does not come after the one before
 */
export function parseMetrics(bytes: Uint8Array, file: string): MetricsLine[] {
  const lines: MetricsLine[] = [];
  let broken: number | undefined;
  for (const { line, number } of walk(bytes)) {
    if (broken !== undefined) throw brokenLine(file, broken);
    if (line === null) broken = number;
    else lines.push(line);
  }
  return lines;
}

/** Each line with its number from 1 and the byte behind it; `line` is null where it is not ours, `torn` where its end is missing. */
function* walk(bytes: Uint8Array): Generator<{ line: MetricsLine | null; number: number; end: number; torn: boolean }> {
  let step = 0;
  for (let start = 0, number = 1; start < bytes.length; number++) {
    const newline = bytes.indexOf(0x0a, start);
    const torn = newline < 0;
    const end = torn ? bytes.length : newline + 1;
    let line = torn ? null : parseLine(bytes.subarray(start, newline));
    if (line !== null && line.step <= step) line = null;
    step = line?.step ?? step;
    yield { line, number, end, torn };
    start = end;
  }
}

/** A line without its newline, its numbers numbers: what was written as null because it was none comes back as NaN. Null for anything else. */
export function parseLine(bytes: Uint8Array): MetricsLine | null {
  if (bytes.length >= longestLine) return null;
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(bytes));
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null) return null;
  const line: Record<string, unknown> = {};
  for (const key of keys) {
    const found = Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined;
    if (found === undefined ? !optional.has(key) : typeof found !== (texts.has(key) ? "string" : "number") && (found !== null || texts.has(key))) return null;
    if (typeof found === "string" && !/^[0-9a-f]{64}$/.test(found)) return null;
    if (found !== undefined) line[key] = found ?? NaN;
  }
  if (line["tokens_per_second"] === undefined && evolution.some((key) => line[key] === undefined)) return null;
  return Number.isSafeInteger(line["step"]) && (line["step"] as number) > 0 ? (line as unknown as MetricsLine) : null;
}

function brokenLine(file: string, number: number): EggError {
  return new EggError("corrupt", `[metrics] ${file}: line ${number} is not a line of metrics (JSON with all of its numbers, and a "step" above the last).`, {
    hint: `Delete or repair line ${number}, or move the file away: the checkpoints do not need it.`,
  });
}

function system<T>(action: string, file: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw ioError(error, action, file);
  }
}
