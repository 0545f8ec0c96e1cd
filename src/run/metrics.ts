// metrics.jsonl: one line a step, appended while a run goes, cut back when it resumes, read by reports.
// Not the progress line on the screen, and no checkpoint: what resume needs is not in here.
// Read next: loop.ts, which writes it; src/report/, which reads it.
import fs from "node:fs";
import path from "node:path";
import { EggError } from "../errors.ts";
import { appendLine, errorCode, ioError, syncFolder } from "./files.ts";

/** One step. Rates and shares are of this step alone; `seconds` and `data_tokens` count from the run's start. */
export interface MetricsLine {
  step: number;
  seconds: number;
  train_bits_per_byte: number;
  member_tokens_per_second: number;
  data_tokens: number;
  fitness_plus: number;
  fitness_minus: number;
  updated_fraction: number;
  /** At evaluations. */
  val_bits_per_byte?: number | undefined;
  /** Where a preset must match its reference. */
  loss_integer?: number | undefined;
  /** With run.fingerprint_every. */
  weights_sha256?: string | undefined;
}

// Decimals that are written. What is not listed is whole or text.
const decimals: Partial<Record<keyof MetricsLine, number>> = {
  seconds: 2, train_bits_per_byte: 6, member_tokens_per_second: 0, updated_fraction: 5, val_bits_per_byte: 6, loss_integer: 6,
};

const keys: readonly (keyof MetricsLine)[] = [
  "step", "seconds", "train_bits_per_byte", "member_tokens_per_second", "data_tokens", "fitness_plus", "fitness_minus", "updated_fraction",
  "val_bits_per_byte", "loss_integer", "weights_sha256",
];

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

/** The JSON of a line: keys in fixed order, undefined ones left out, numbers rounded to what they can mean. */
export function metricsText(line: MetricsLine): string {
  const fields = keys.flatMap((key) => {
    const value = line[key];
    const places = decimals[key];
    return value === undefined ? [] : [[key, typeof value === "number" && places !== undefined ? Number(value.toFixed(places)) : value]];
  });
  return JSON.stringify(Object.fromEntries(fields));
}

/**
 * For resume: cuts the file behind the last line with a step of at most `step`, for good. A torn last line goes too.
 * @returns the last line kept; null when none is, or there is no file
 * @throws EggError("corrupt") when a line before that cannot be read
 */
export function truncateAfter(file: string, step: number): MetricsLine | null {
  const bytes = readBytes(file);
  if (bytes === null) return null;
  let last: MetricsLine | null = null;
  let keep = 0;
  let broken: number | undefined;
  for (const { line, number, end } of walk(bytes)) {
    if (line === null) broken ??= number;
    else if (line.step > step) break;
    else if (broken !== undefined) throw brokenLine(file, broken);
    else [last, keep] = [line, end];
  }
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

/**
 * All lines; none when there is no file. The last line may be torn, as a killed process or a running one leaves it.
 * @throws EggError("corrupt") when any other line cannot be read
 */
export function readMetrics(file: string): MetricsLine[] {
  const lines: MetricsLine[] = [];
  let broken: number | undefined;
  for (const { line, number } of walk(readBytes(file) ?? Buffer.alloc(0))) {
    if (broken !== undefined) throw brokenLine(file, broken);
    if (line === null) broken = number;
    else lines.push(line);
  }
  return lines;
}

/** Each line with its number from 1 and the byte behind it; `line` is null where it is torn or not ours. */
function* walk(bytes: Buffer): Generator<{ line: MetricsLine | null; number: number; end: number }> {
  for (let start = 0, number = 1; start < bytes.length; number++) {
    const newline = bytes.indexOf(0x0a, start);
    const end = newline < 0 ? bytes.length : newline + 1;
    yield { line: newline < 0 ? null : parse(bytes.toString("utf8", start, newline)), number, end };
    start = end;
  }
}

function parse(text: string): MetricsLine | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && Number.isInteger((value as MetricsLine).step) ? (value as MetricsLine) : null;
  } catch {
    return null;
  }
}

function brokenLine(file: string, number: number): EggError {
  return new EggError("corrupt", `[metrics] ${file}: line ${number} is not a line of metrics (JSON with a whole number "step").`, {
    hint: `Delete or repair line ${number}, or move the file away: the checkpoints do not need it.`,
  });
}

function readBytes(file: string): Buffer | null {
  try {
    return fs.readFileSync(file);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw ioError(error, "read", file);
  }
}

function system<T>(action: string, file: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw ioError(error, action, file);
  }
}
