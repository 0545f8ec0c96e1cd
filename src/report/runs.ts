// A run folder as one record, for lists, comparisons, plots and pages: what it is, how far it came, what is wrong with it.
// Reads only, and forgives: a half-written or damaged folder gives a record with the trouble in it. The files' own
// formats are in src/run/. Read next: curves.ts, src/commands/runs.ts.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { EggError } from "../errors.ts";
import type { Unit } from "../learners/learner.ts";
import { checkpointFolder, checkpointName } from "../run/checkpoint.ts";
import { errorCode } from "../run/files.ts";
import { parseMetrics, readMetrics, type MetricsLine } from "../run/metrics.ts";
import { openPlain, openSource } from "../run/reading.ts";
import { readSafetensors } from "../run/safetensors.ts";
import { parseSummary, type Summary } from "../run/summary.ts";

/** "running": a process holds the run's lock. "interrupted": it can be resumed. "damaged": see `trouble`. */
export type RunStatus = "finished" | "interrupted" | "running" | "damaged";

export interface RunRecord {
  /** The path as it was given. */
  readonly folder: string;
  /** The folder's own name, which is the run's. */
  readonly name: string;
  readonly status: RunStatus;
  /** What could not be read, in one line; null where all could. */
  readonly trouble: string | null;
  /** The effective config by path, such as "trainer.population", in the order of the file; empty where it cannot be read. */
  readonly config: ReadonlyMap<string, unknown>;
  /** From config.json, as far as they are there. */
  readonly program: { version: string; commit: string | null } | null;
  readonly machine: ReadonlyMap<string, unknown>;
  /** The outcome where the run has ended, also an early one; null while it runs, and where a later process was killed. */
  readonly summary: Summary | null;
  /** Steps done, and steps that the config asks for (null: not known). */
  readonly steps: number;
  readonly stepsPlanned: number | null;
  /** Seconds of training. */
  readonly seconds: number;
  /** Held-out losses in bits per byte; null where none is known. For the best of very long metrics see readRun. */
  readonly lastHeldOut: number | null;
  readonly bestHeldOut: number | null;
  /** Member-tokens of EGGROLL, tokens of backprop: `unit` says which. */
  readonly tokensPerSecond: number | null;
  readonly unit: Unit;
  /** When the run last wrote something, in milliseconds since 1970; 0 where nothing can be seen. */
  readonly changed: number;
  /** All lines, read anew at each call. @throws EggError("corrupt") where one before the last cannot be read */
  metrics(): MetricsLine[];
  /** Samples in the order in which they were written, read anew at each call; the last 16 MiB of them at most. */
  samples(): RunSample[];
  /** Checkpoints in order of their steps, read anew at each call. */
  checkpoints(): RunCheckpoint[];
}

export interface RunSample {
  step: number;
  /** As samples.txt has it: » stands between the prompt and what the model wrote. */
  text: string;
}

export interface RunCheckpoint {
  name: string;
  bytes: number;
  step: number;
  /** The content hash that the file claims; null where its header cannot be read. Not checked here: `egg verify` does. */
  contentSha256: string | null;
  valBitsPerByte: number | null;
}

const smallFile = 1024 * 1024;
const tailBytes = 64 * 1024;
/** The end of the metrics that is parsed: some 35 steps, over which the rate of a run without a summary is taken. */
const parsedBytes = 8 * 1024;
/** Up to this size, metrics are searched for evaluations from end to end: some 18,000 steps, a millisecond. */
const searchedBytes = 4 * 1024 * 1024;
const samplesBytes = 16 * 1024 * 1024;

/**
 * Reads a run folder. Nothing is thrown for what the files hold; only little is read: the small files and the end of
 * metrics.jsonl. Where that is larger than 4 MiB, the best loss is the lowest of the best checkpoint's and of the last lines'.
 * @param tryLock locks an open file without waiting (src/native/machine.ts, tryLockFile), or says that another has it
 */
export function readRun(folder: string, tryLock: (fd: number) => boolean): RunRecord {
  const troubles: string[] = [];
  const attempt = <T>(file: string, read: (file: string) => T | null): T | null => {
    try {
      return read(path.join(folder, file));
    } catch (error) {
      troubles.push(`${file}: ${reasonOf(error)}`);
      return null;
    }
  };
  const header = attempt("config.json", readConfig);
  const ended = attempt("summary.json", readSummaryFile);
  const finished = ended?.status === "finished";
  const running = !finished && isLocked(path.join(folder, "lock"), tryLock);
  const tail = attempt("metrics.jsonl", readTail);
  const latest = attempt("latest.json", readLatestBest);
  if (!running && header === null && troubles.length === 0) troubles.push("it has no config.json");
  if (finished && tail === null && ended.steps > 0 && troubles.length === 0) troubles.push("metrics.jsonl is missing, though the run is finished");
  const status: RunStatus = running ? "running" : troubles.length > 0 ? "damaged" : finished ? "finished" : "interrupted";
  const last = tail?.lines.at(-1);
  // A run that went on after its last summary, and was killed, has a summary of the past.
  const summary = ended !== null && (finished || (!running && ended.steps >= (last?.step ?? 0))) ? ended : null;
  const known = [tail?.best, latest, summary?.val_bits_per_byte].filter(isFigure);
  const config = header?.config ?? new Map<string, unknown>();
  const planned = config.get("run.steps");
  return {
    folder,
    name: path.basename(path.resolve(folder)),
    status,
    trouble: troubles.length === 0 ? null : troubles.join("; "),
    config,
    program: header?.program ?? null,
    machine: header?.machine ?? new Map(),
    summary,
    steps: summary?.steps ?? last?.step ?? 0,
    stepsPlanned: isFigure(planned) ? planned : null,
    seconds: summary?.seconds ?? figure(last?.seconds) ?? 0,
    lastHeldOut: figure(summary?.val_bits_per_byte) ?? tail?.lastHeldOut ?? null,
    bestHeldOut: known.length === 0 ? null : Math.min(...known),
    unit: config.get("trainer.type") === "backprop" ? "tokens" : "member-tokens",
    tokensPerSecond: figure(summary?.member_tokens_per_second ?? summary?.tokens_per_second) ?? meanRate(tail?.lines ?? []),
    changed: tail?.changed ?? changedAt(folder),
    metrics: () => readMetrics(path.join(folder, "metrics.jsonl")),
    samples: () => readSamples(path.join(folder, "samples.txt")),
    checkpoints: () => readCheckpoints(folder),
  };
}

/**
 * The run folders inside `folder`, by name, as paths; those that only look like one included, so that they can be told
 * about. A run folder itself gives itself.
 * @throws EggError("usage") where there is no such folder
 */
export function findRuns(folder: string): string[] {
  let entries: string[];
  try {
    if (fs.existsSync(path.join(folder, "config.json"))) return [folder];
    entries = fs.readdirSync(folder);
  } catch (error) {
    const why = errorCode(error) === "ENOENT" ? "no such folder" : errorCode(error) === "ENOTDIR" ? "a file, not a folder" : reasonOf(error);
    throw new EggError("usage", `[runs] ${folder}: ${why}.`, { hint: "Give the folder in which run folders lie; run.out and --out decide where that is." });
  }
  const marks = new Set(["config.json", "metrics.jsonl", "summary.json", "latest.json", "checkpoints", "lock"]);
  return entries.sort().map((name) => path.join(folder, name)).filter((run) => {
    try {
      return fs.readdirSync(run).some((name) => marks.has(name));
    } catch (error) {
      return errorCode(error) === "EACCES" || errorCode(error) === "EPERM"; // a row with its reason
    }
  });
}

/** A number that can be shown and compared; files may hold anything. */
export function isFigure(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

function figure(value: unknown): number | null {
  return isFigure(value) ? value : null;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function reasonOf(error: unknown): string {
  if (error instanceof SyntaxError) return "no whole JSON";
  const code = errorCode(error);
  const inner = error instanceof EggError ? errorCode(error.cause) : code;
  if (inner === "EACCES" || inner === "EPERM") return "permission denied";
  if (error instanceof EggError && error.kind === "corrupt") return "not a file";
  return error instanceof EggError ? error.message : code !== undefined ? `cannot be read (${code})` : (error as Error).message;
}

class Unusable extends Error {}

/** The bytes of a file from `from(size)` on, with its size and time; null where there is none. */
function readPart(file: string, from: (size: number) => number, limit: number): { bytes: Buffer; size: number; changed: number } | null {
  let descriptor: number;
  try {
    descriptor = openPlain(file);
  } catch (error) {
    if (error instanceof EggError && ["ENOENT", "ENOTDIR"].includes(errorCode(error.cause) ?? "")) return null;
    throw error;
  }
  try {
    const { size, mtimeMs } = fs.fstatSync(descriptor);
    const start = from(size);
    if (size - start > limit) throw new Unusable(`${size.toLocaleString("en-US")} bytes, more than ${limit.toLocaleString("en-US")}`);
    const bytes = Buffer.alloc(size - start);
    let length = 0;
    for (let count = -1; count !== 0 && length < bytes.length; length += count) count = fs.readSync(descriptor, bytes, length, bytes.length - length, start + length);
    return { bytes: bytes.subarray(0, length), size, changed: mtimeMs };
  } finally {
    fs.closeSync(descriptor);
  }
}

function readJson(file: string): unknown {
  const part = readPart(file, () => 0, smallFile);
  return part === null ? null : JSON.parse(part.bytes.toString("utf8"));
}

function readConfig(file: string): { config: Map<string, unknown>; program: RunRecord["program"]; machine: Map<string, unknown> } | null {
  const value = readJson(file);
  if (value === null) return null;
  if (!isObject(value) || !isObject(value["config"])) throw new Unusable("none of a run: it has no config in it");
  const config = new Map<string, unknown>();
  for (const [section, values] of Object.entries(value["config"])) {
    if (isObject(values)) for (const [name, each] of Object.entries(values)) config.set(`${section}.${name}`, each);
    else config.set(section, values);
  }
  const { egg, machine } = value;
  const program = isObject(egg) && typeof egg["version"] === "string" ? { version: egg["version"], commit: typeof egg["commit"] === "string" ? egg["commit"] : null } : null;
  return { config, program, machine: new Map(Object.entries(isObject(machine) ? machine : {})) };
}

function readSummaryFile(file: string): Summary | null {
  const part = readPart(file, () => 0, smallFile);
  if (part === null) return null;
  const summary = parseSummary(part.bytes);
  if (summary === null) throw new Unusable("not the summary of a run");
  return summary;
}

/** The held-out loss of the best checkpoint. */
function readLatestBest(file: string): number | null {
  const value = readJson(file);
  const best = isObject(value) ? value["best"] : null;
  const loss = isObject(best) ? figure(best["val_bits_per_byte"]) : null;
  return loss === null ? null : Number(loss.toFixed(6)); // as the metrics have it
}

/** The last lines of metrics.jsonl, and the last and the lowest held-out loss in what was read. A torn last line is forgiven. */
function readTail(file: string): { lines: MetricsLine[]; lastHeldOut: number | null; best: number | null; changed: number } | null {
  const part = readPart(file, (size) => (size > searchedBytes ? size - tailBytes : 0), searchedBytes);
  if (part === null) return null;
  const { bytes, size, changed } = part;
  const end = bytes.lastIndexOf(0x0a) + 1;
  const from = Math.max(0, end - parsedBytes);
  const start = from === 0 && bytes.length === size ? 0 : bytes.indexOf(0x0a, from) + 1;
  let lines: MetricsLine[];
  try {
    lines = parseMetrics(bytes.subarray(start, end), file);
  } catch {
    throw new Unusable("one of its last lines is no line of metrics");
  }
  return { lines, changed, ...heldOutLosses(bytes.subarray(0, end)) };
}

/** Evaluations are found by their key: parsing every line would take a hundred times as long. */
function heldOutLosses(bytes: Buffer): { lastHeldOut: number | null; best: number | null } {
  const key = Buffer.from('"val_bits_per_byte":');
  let lastHeldOut: number | null = null;
  let best: number | null = null;
  for (let at = bytes.indexOf(key); at >= 0; at = bytes.indexOf(key, at + key.length)) {
    const value = Number.parseFloat(bytes.toString("latin1", at + key.length, at + key.length + 24));
    if (!Number.isFinite(value)) continue;
    lastHeldOut = value;
    best = Math.min(best ?? value, value);
  }
  return { lastHeldOut, best };
}

/** Over the steps of the last lines: tokens by time, not the mean of rates. */
function meanRate(lines: readonly MetricsLine[]): number | null {
  const rates = lines.map((line) => line.member_tokens_per_second ?? line.tokens_per_second ?? 0).filter((rate) => isFigure(rate) && rate > 0);
  return rates.length === 0 ? null : Math.round(rates.length / rates.reduce((sum, rate) => sum + 1 / rate, 0));
}

/**
 * Whether a process holds the lock. Taking it only to see would, for that moment, turn away a run that starts; so the
 * lock is tried only where the process that signed it still lives or cannot be asked (another machine or container).
 */
function isLocked(file: string, tryLock: (fd: number) => boolean): boolean {
  try {
    const part = readPart(file, () => 0, 300);
    const [, pid, host] = /^(\d+) (\S+)\n/.exec(part?.bytes.toString("utf8") ?? "") ?? [];
    if (part === null || (host === os.hostname() && !lives(Number(pid)))) return false;
    const descriptor = fs.openSync(file, "r");
    try {
      return !tryLock(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
  } catch {
    return false; // a lock that cannot be opened: nobody here holds it
  }
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === "EPERM";
  }
}

function changedAt(folder: string): number {
  const times = ["", "config.json", "summary.json"].map((name) => fs.statSync(path.join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0);
  return Math.max(...times);
}

function readSamples(file: string): RunSample[] {
  const part = readPart(file, (size) => Math.max(0, size - samplesBytes), samplesBytes);
  if (part === null) return [];
  const text = part.bytes.toString("utf8");
  const heads = [...text.matchAll(/^=== step (\d+)\n/gm)];
  return heads.map((head, i) => ({ step: Number(head[1]), text: text.slice(head.index + head[0].length, heads[i + 1]?.index).replace(/\n{1,2}$/, "") }));
}

function readCheckpoints(folder: string): RunCheckpoint[] {
  let names: string[];
  try {
    names = fs.readdirSync(checkpointFolder(folder));
  } catch {
    return [];
  }
  const found = names.flatMap((name) => {
    const step = checkpointName.exec(name)?.[1];
    return step === undefined ? [] : [{ name, step: Number(step) }];
  });
  return found.sort((a, b) => a.step - b.step).flatMap(({ name, step }) => {
    try {
      const file = path.join(checkpointFolder(folder), name);
      return [{ name, step, ...readHead(file) }];
    } catch {
      return []; // deleted meanwhile: only the newest are kept
    }
  });
}

function readHead(file: string): Pick<RunCheckpoint, "bytes" | "contentSha256" | "valBitsPerByte"> {
  const bytes = fs.statSync(file).size;
  try {
    const { metadata } = readSafetensors(openSource(file), file);
    const loss = Number(metadata["val_bits_per_byte"] ?? "NaN");
    return { bytes, contentSha256: metadata["content_sha256"] ?? null, valBitsPerByte: figure(loss) };
  } catch (error) {
    if (error instanceof EggError && error.kind === "corrupt") return { bytes, contentSha256: null, valBitsPerByte: null };
    throw error;
  }
}
