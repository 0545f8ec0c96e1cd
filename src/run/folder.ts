// The run folder: its name from what decides the result, what state it is in, its small files, and RUN on the command line.
// Not checkpoints (checkpoint.ts), not metrics.jsonl (metrics.ts), not the lock (lock.ts).
// Read next: summary.ts and metrics.ts.
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Config } from "../config/knobs.ts";
import { nearest } from "../config/nearest.ts";
import { EggError } from "../errors.ts";
import { checkpointFolder, checkpointName } from "./checkpoint.ts";
import { errorCode, ioError, makeFolder, syncFolder, writeDurably } from "./files.ts";
import { readPlain } from "./reading.ts";
import { longestSummary, parseSummary, type Summary } from "./summary.ts";
import { eventsName } from "./tensorboard.ts";
import { debugStatsName } from "./weightstats.ts";

/** Part of every run's id. Raise it when the same config and data would give other weights than before. */
export const numericsVersion = 1;

/**
 * What does not enter a run's id, because it changes neither the weights nor what a line of metrics or a sample says:
 * where it runs, where it is kept and how often it is saved. The data's path is left out for its content, whose
 * fingerprint enters instead. All else enters, `run.eval_every` and the sampling knobs too: they decide what the
 * folder's files hold, so another value must not find a finished run and stop there.
 */
export const identityExcludes: readonly string[] = ["device", "run.out", "run.keep", "run.checkpoint_every", "run.tensorboard", "data.path"];

/** Knobs that came later, with what egg did before: each enters only with another value, so that runs of earlier versions keep their ids. */
export const identityAdditions: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ["run.minutes", 0], ["run.patience", 0], ["run.stop_metric", "val_bits_per_byte"], ["run.min_delta", 0], ["trainer.rule", "egg.c"],
]);

/** JSON with sorted keys and without spaces: equal values give equal text. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    part !== null && typeof part === "object" && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

/** The id of a run: 12 lower-case base32 characters (60 bits) of SHA-256 over config, data and numerics version. */
export function runId(config: Config, dataFingerprint: string): string {
  const identity = Object.entries(config).flatMap(([section, values]): [string, unknown][] =>
    typeof values === "object" ? Object.entries(values).map(([name, value]) => [`${section}.${name}`, value]) : [[section, values]],
  );
  const entering = identity.filter(([knob, value]) =>
    identityAdditions.has(knob) ? value !== identityAdditions.get(knob) : !identityExcludes.some((excluded) => knob === excluded || knob.startsWith(`${excluded}.`)));
  const digest = createHash("sha256").update(canonicalJson({ config: Object.fromEntries(entering), data: dataFingerprint, numerics: numericsVersion })).digest();
  let id = "";
  let bits = BigInt(`0x${digest.toString("hex")}`) >> 196n;
  for (; id.length < 12; bits >>= 5n) id = "abcdefghijklmnopqrstuvwxyz234567".charAt(Number(bits & 31n)) + id;
  return id;
}

/**
 * The folder of a run, `<run.out>/<name or preset>-<id>`; creates nothing.
 * @param name from --name; undefined takes the preset's
 * @throws EggError("usage") for a name that is not 1 to 64 letters, digits, `.`, `_`, `-`, the first no `.` or `-`
 */
export function runFolder(config: Config, name: string | undefined, dataFingerprint: string): string {
  const given = name ?? config.preset;
  if (!/^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/.test(given)) {
    throw new EggError("usage", `[run] name ${JSON.stringify(given)}: allowed are 1 to 64 letters, digits, ".", "_" and "-", the first of them no "." or "-".`, {
      hint: "Choose another --name, such as sweep-1.",
    });
  }
  return path.join(config.run.out, `${given}-${runId(config, dataFingerprint)}`);
}

export interface RunState {
  /** "new": egg has written nothing here; "unfinished": to be resumed; "finished": `summary` says how it came out. */
  state: "new" | "unfinished" | "finished";
  summary: Summary | null;
}

/** In which state a run is; writes nothing and needs no lock. A summary that cannot be read counts as none. */
export function runState(folder: string): RunState {
  const summary = readSummary(folder);
  if (summary?.status === "finished") return { state: "finished", summary };
  const begun = fs.existsSync(path.join(folder, "config.json"));
  return { state: begun ? "unfinished" : "new", summary };
}

/** The newest checkpoint of a run by its name, good or not: its step, and its size in bytes. Null where there is none. */
export function newestCheckpoint(folder: string): { step: number; bytes: number } | null {
  const checkpoints = checkpointFolder(folder);
  try {
    const found = fs.readdirSync(checkpoints).map((name) => ({ name, step: Number(checkpointName.exec(name)?.[1] ?? -1) }));
    const newest = found.reduce((best, other) => (other.step > best.step ? other : best), { name: "", step: -1 });
    return newest.step < 0 ? null : { step: newest.step, bytes: fs.statSync(path.join(checkpoints, newest.name)).size };
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return null;
    throw ioError(error, "read folder", checkpoints);
  }
}

/** Creates the folders of a run that are not there yet, and tells its state. To be called before the lock is taken. */
export function openRun(folder: string): RunState {
  makeFolder(checkpointFolder(folder));
  return runState(folder);
}

/** Writes config.json: the program, this machine and the effective config. To be called with the lock held. */
export function writeRunConfig(folder: string, config: Config, program: { version: string; commit: string | null }): void {
  const cpus = os.cpus();
  const machine = { os: os.platform(), release: os.release(), arch: os.arch(), cpu: cpus[0]?.model.trim() ?? "unknown", cores: cpus.length };
  writeText(path.join(folder, "config.json"), JSON.stringify({ egg: program, machine, config }, null, 2));
}

/** One line, keys in the order of the object: what summary.json holds and --json prints. */
export const summaryLine = (summary: Summary): string => JSON.stringify(summary);

export function writeSummary(folder: string, summary: Summary): void {
  writeText(path.join(folder, "summary.json"), summaryLine(summary));
}

/** The largest config.json that is read, in bytes: a config file and what egg puts around it. */
export const longestConfig = 8_388_608;

/** Null where there is none, or none that can be read. */
export function readSummary(folder: string): Summary | null {
  const bytes = readSmall(path.join(folder, "summary.json"), longestSummary);
  return bytes === null ? null : parseSummary(bytes);
}

/**
 * --force: deletes what egg wrote into a run folder and nothing else; the folder and its lock stay. To be called with
 * the lock held. An absent folder, or one that no run has begun in, is left as it is.
 * @throws EggError("usage") when the folder holds files but no run of egg
 */
export function forceFresh(folder: string): void {
  try {
    const names = fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => name !== "lock" && name !== "checkpoints") : [];
    const checkpoints = checkpointFolder(folder);
    const saved = fs.existsSync(checkpoints) ? fs.readdirSync(checkpoints) : [];
    if (names.length + saved.length === 0) return;
    const config = readJson(path.join(folder, "config.json"));
    if (!isObject(config) || !isObject(config.egg) || !isObject(config.config)) {
      throw new EggError("usage", `[run] ${folder}: holds ${names[0] ?? `checkpoints/${saved[0]}`}, but no config.json of egg, so --force deletes nothing.`, {
        hint: "Move the folder away by hand, or choose another --out or --name.",
      });
    }
    // The summary first and the config last: whenever this is cut short, what remains is a run that is not finished.
    for (const name of ["summary.json", "latest.json"]) fs.rmSync(path.join(folder, name), { force: true });
    for (const name of saved.filter((name) => checkpointName.test(name))) fs.rmSync(path.join(checkpoints, name));
    for (const name of ["metrics.jsonl", "samples.txt", debugStatsName, eventsName]) fs.rmSync(path.join(folder, name), { force: true });
    if (saved.length > 0) syncFolder(checkpoints);
    syncFolder(folder);
    fs.rmSync(path.join(folder, "config.json"));
    syncFolder(folder);
  } catch (error) {
    throw ioError(error, "start over in", folder);
  }
}

/**
 * What RUN on a command line means: a run folder, or a checkpoint file.
 * @param runs where runs lie by default, for the "did you mean"
 * @throws EggError("usage") for anything else, with the nearest names there are
 */
export function resolveRun(text: string, runs = "runs"): { kind: "folder" | "checkpoint"; path: string } {
  const found = look(text);
  if (found?.isFile()) return { kind: "checkpoint", path: text };
  if (found?.isDirectory()) {
    if (fs.existsSync(path.join(text, "config.json"))) return { kind: "folder", path: text };
    const parent = path.dirname(path.resolve(text));
    const inside = path.basename(path.resolve(text)) === "checkpoints" && fs.existsSync(path.join(parent, "config.json"));
    throw new EggError("usage", `[run] ${text}: a folder, but not of a run: it has no config.json.`, {
      hint: inside ? `Did you mean ${path.relative("", parent) || "."}?` : near(path.join(text, "x"), [text]),
    });
  }
  if (found !== undefined) throw new EggError("usage", `[run] ${text}: neither a run folder nor a checkpoint file.`, { hint: near(text, [runs]) });
  throw new EggError("usage", `[run] ${JSON.stringify(text)}: no such run folder or checkpoint file.`, { hint: near(text, [path.dirname(text), runs]) });
}

function look(text: string): fs.Stats | undefined {
  try {
    return fs.statSync(text);
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return undefined;
    throw ioError(error, "open", text);
  }
}

/** The hint: runs whose names begin with the given one or are near it, else the first few there are. */
function near(text: string, folders: string[]): string {
  const wanted = path.basename(text);
  const paths = [...new Set(folders.map((folder) => path.normalize(folder)))].flatMap((folder) => listRuns(folder));
  const close = nearest(wanted, paths.map((run) => path.basename(run)));
  const fitting = paths.filter((run) => path.basename(run) === close || (wanted !== "" && path.basename(run).startsWith(wanted)));
  if (fitting.length > 0) return `Did you mean ${fitting.slice(0, 5).join(", ")}?`;
  if (paths.length > 0) return `There are ${paths.slice(0, 5).join(", ")}${paths.length > 5 ? ` and ${paths.length - 5} more` : ""}.`;
  return "Give a run folder, such as runs/egg.c-…, or a file from its checkpoints folder.";
}

/** Paths of the runs in a folder, by name; none where it cannot be read. */
export function listRuns(folder: string): string[] {
  try {
    return fs.readdirSync(folder).sort().map((name) => path.join(folder, name)).filter((run) => fs.existsSync(path.join(run, "config.json")));
  } catch {
    return []; // for hints and completion only
  }
}

function writeText(file: string, text: string): void {
  writeDurably(file, [new TextEncoder().encode(`${text}\n`)]);
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readSmall(file, longestConfig)?.toString() ?? "");
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) return undefined;
    throw error;
  }
}

/** Null where there is no such file, or none of ours: something else with its name, or more than `most` bytes. */
function readSmall(file: string, most: number): Buffer | null {
  try {
    return readPlain(file, most);
  } catch (error) {
    if (error instanceof EggError && error.kind === "corrupt") return null;
    throw error;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
