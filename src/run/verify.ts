// Looks through a checkpoint file or a run folder and says of each file whether it is whole. It never writes and never repairs.
// Safe on files from anywhere: they are only parsed, no name in them is followed. Read next: checkpoint.ts, src/commands/verify.ts.
import fs from "node:fs";
import path from "node:path";
import { EggError } from "../errors.ts";
import { checkpointFolder, checkpointName, hashFile, loadCheckpoint, longestLatest, parseLatest, weightsSha256, type Latest } from "./checkpoint.ts";
import { longestConfig } from "./folder.ts";
import { parseMetrics, placeToCut, type MetricsLine } from "./metrics.ts";
import { readPlain } from "./reading.ts";
import { longestSummary, parseSummary, type Summary } from "./summary.ts";

/** What became of one file. `reason` says why it is damaged, or what is worth knowing of a missing one. */
export interface Verdict {
  file: string;
  verdict: "whole" | "damaged" | "missing";
  reason: string | null;
}

export interface CheckpointVerdict extends Verdict {
  bytes: number;
  /** Of a whole one; null otherwise. `sha256` is what sha256sum prints, the other two are those of the README's checkpoints. */
  content: {
    step: number; program: string; val_bits_per_byte: number | null; sha256: string; content_sha256: string; weights_sha256: string;
    tensors: { name: string; dtype: string; shape: number[]; bytes: number }[];
  } | null;
}

export interface RunVerdict {
  run: string;
  /** Newest first. */
  checkpoints: CheckpointVerdict[];
  files: Verdict[];
  finished: boolean;
  /** What `egg train` would go on from, by the step; null where it could not, and then `reason` says why. */
  resume: { file: string; step: number } | null;
  reason: string | null;
}

/** Verifies every bit of a checkpoint file. @throws EggError("usage") where there is no such file, "resources" where it must not be read */
export function verifyCheckpoint(file: string): CheckpointVerdict {
  let bytes = 0;
  try {
    bytes = fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0;
    const checkpoint = loadCheckpoint(file);
    const tensors = [...checkpoint.tensors].map(([name, tensor]) => ({
      name, dtype: tensor.dtype, shape: tensor.shape, bytes: tensor.data.byteLength,
    }));
    const named = checkpointName.exec(path.basename(file))?.[1];
    const content = {
      step: checkpoint.step, program: checkpoint.program, val_bits_per_byte: checkpoint.valBitsPerByte,
      sha256: hashFile(file), content_sha256: checkpoint.contentSha256, weights_sha256: weightsSha256(checkpoint.tensors), tensors,
    };
    if (named !== undefined && Number(named) !== checkpoint.step) {
      return { file, verdict: "damaged", reason: `[checkpoint] ${file}: its name says step ${Number(named)}, but it holds step ${checkpoint.step}.`, bytes, content };
    }
    return { file, verdict: "whole", reason: null, bytes, content };
  } catch (error) {
    return { file, verdict: "damaged", reason: reasonOf(error), bytes, content: null };
  }
}

/**
 * Verifies all that egg keeps in a run folder. May be called while the run goes.
 * @throws EggError where a file must not be read
 */
export function verifyRun(folder: string): RunVerdict {
  // The metrics after the checkpoints: in a run that goes on, they then reach at least as far.
  const checkpoints = namesIn(checkpointFolder(folder)).flatMap((name) => {
    try {
      return [verifyCheckpoint(path.join(checkpointFolder(folder), name))];
    } catch (error) {
      if (error instanceof EggError && error.kind === "usage") return []; // deleted meanwhile
      throw error;
    }
  });
  const newest = checkpoints.find(({ content }) => content !== null);
  const step = newest?.content?.step ?? 0;
  let summary: Summary | null = null;
  const files = [
    look(folder, "config.json", longestConfig, (bytes, file) => {
      const value = json(bytes);
      if (!isObject(value) || !isObject(value["egg"]) || !isObject(value["config"])) throw damaged(file, "not the config of a run");
    }),
    look(folder, "latest.json", longestLatest, (bytes, file) => checkLatest(parseLatest(bytes, file), checkpoints, file)),
    look(folder, "metrics.jsonl", Infinity, (bytes, file) => checkSteps(parseMetrics(bytes, file), step, file)),
    look(folder, "summary.json", longestSummary, (bytes, file) => {
      summary = parseSummary(bytes);
      if (summary === null) throw damaged(file, "not the summary of a run");
      const { steps, weights_sha256 } = summary;
      if (steps === newest?.content?.step && weights_sha256 !== newest.content.weights_sha256) throw damaged(file, `its weights are not those of ${newest.file}`);
    }),
  ];
  const finished = (summary as Summary | null)?.status === "finished";
  const resume = newest?.content === undefined || newest.content === null ? null : { file: newest.file, step };
  if (resume === null) {
    return { run: folder, checkpoints, files, finished, resume, reason: checkpoints.length === 0 ? "there is no checkpoint yet" : "none of the checkpoints is whole" };
  }
  try {
    if (!finished) placeToCut(readPlain(path.join(folder, "metrics.jsonl")) ?? new Uint8Array(0), step, path.join(folder, "metrics.jsonl"));
  } catch (error) {
    return { run: folder, checkpoints, files, finished, resume: null, reason: reasonOf(error) };
  }
  return { run: folder, checkpoints, files, finished, resume, reason: null };
}

function checkLatest(latest: Latest, checkpoints: readonly CheckpointVerdict[], file: string): void {
  const found = checkpoints.find((checkpoint) => path.basename(checkpoint.file) === latest.name);
  if (found === undefined) throw damaged(file, `it names ${latest.name}, which is not there`);
  if (found.content !== null && found.content.sha256 !== latest.sha256) throw damaged(file, `its sha256 is not that of ${latest.name}`);
}

function checkSteps(lines: readonly MetricsLine[], step: number, file: string): void {
  let last = 0;
  for (const line of lines) {
    if (line.step !== last + 1) throw damaged(file, `no lines for the steps from ${last + 1} to ${line.step - 1}`);
    last = line.step;
  }
  if (last < step) throw damaged(file, `no lines for the steps from ${last + 1} to ${step}, of which there is a checkpoint`);
}

function look(folder: string, name: string, most: number, check: (bytes: Uint8Array, file: string) => void): Verdict {
  const file = path.join(folder, name);
  try {
    const bytes = readPlain(file, most);
    if (bytes === null) return { file, verdict: "missing", reason: null };
    check(bytes, file);
    return { file, verdict: "whole", reason: null };
  } catch (error) {
    return { file, verdict: "damaged", reason: reasonOf(error) };
  }
}

/** Why a file is damaged; any other trouble is thrown on. */
function reasonOf(error: unknown): string {
  if (error instanceof EggError && error.kind === "corrupt") return error.message;
  throw error;
}

function damaged(file: string, what: string): EggError {
  return new EggError("corrupt", `[run] ${file}: ${what}.`);
}

function namesIn(folder: string): string[] {
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => checkpointName.test(name)) : [];
  const step = (name: string): number => Number(checkpointName.exec(name)?.[1]);
  return names.sort((a, b) => step(b) - step(a));
}

function json(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
