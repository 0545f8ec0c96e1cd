// The built ./egg as a person's shell starts it: another folder, a small environment, real files. For tests only.
// No assertions here. Read next: train.test.ts, the first to use it.
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll } from "bun:test";

export const root = resolve(import.meta.dir, "..");
export const egg = join(root, "egg");
if (!existsSync(egg)) throw new Error("./egg is missing; `npm run build` makes it");

/** A fresh folder, deleted after the file's tests. */
export function freshFolder(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `egg-${name}-`));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Start { cwd: string; env?: Record<string, string>; prefix?: string[]; command?: string[] }
export interface Ended { code: number | null; signal: string | null; out: string; err: string }

/** Nothing of this process's own EGG_… reaches the program. */
export function environment(cwd: string, more: Record<string, string> = {}): Record<string, string> {
  return { PATH: process.env["PATH"]!, HOME: cwd, TMPDIR: tmpdir(), ...more };
}

/** Runs egg to its end; standard input is empty. */
export function run(args: readonly string[], { cwd, env, prefix = [], command = [egg] }: Start): Ended {
  const child = Bun.spawnSync([...prefix, ...command, ...args], { cwd, env: environment(cwd, env), stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  return { code: child.exitCode, signal: signalName(child.signalCode), out: child.stdout.toString(), err: child.stderr.toString() };
}

function signalName(signal: unknown): string | null {
  return typeof signal === "string" ? signal : null;
}

export interface Started { pid: number; kill(signal: NodeJS.Signals): void; err(): string; ended: Promise<Ended> }

/** Starts egg and returns at once; what it says on standard error can be read while it runs. */
export function start(args: readonly string[], { cwd, env, prefix = [], command = [egg] }: Start): Started {
  const child = Bun.spawn([...prefix, ...command, ...args], { cwd, env: environment(cwd, env), stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  let err = "";
  const reading = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) err += decoder.decode(chunk, { stream: true });
  })();
  const ended = (async () => {
    const [out] = await Promise.all([new Response(child.stdout).text(), reading, child.exited]);
    return { code: child.exitCode, signal: signalName(child.signalCode), out, err };
  })();
  return { pid: child.pid, kill: (signal) => child.kill(signal), err: () => err, ended };
}

/** Waits until `ready` says so; throws after `seconds`, which only a broken program needs. */
export async function until(what: string, ready: () => boolean, seconds = 20): Promise<void> {
  const deadline = performance.now() + seconds * 1000;
  while (!ready()) {
    if (performance.now() > deadline) throw new Error(`waited ${seconds} s for ${what}`);
    await Bun.sleep(2);
  }
}

/** `--set` for each entry. */
export function sets(values: Record<string, string | number>): string[] {
  return Object.entries(values).flatMap(([path, value]) => ["--set", `${path}=${value}`]);
}

const short = {
  "data.path": "builtin:fables:64KiB", "trainer.population": 64, "trainer.sequence": 8, "device.threads": 2,
  "run.steps": 20, "run.eval_every": 5, "run.sample_every": 10, "run.sample_tokens": 16, "run.checkpoint_every": 5, "run.keep": 2, "run.fingerprint_every": 1,
};

/** A GRU so small that a step takes less than a millisecond, on a short text. */
export const tiny = { preset: "egg.c", ...short, "model.hidden": 16, "model.layers": 1, "trainer.threshold": 300 };

/** The same of the default preset. */
export const tinyContexts = { preset: "egg", ...short, "model.order": 3, "model.table_bits": 6 };

/** Whether a run below `cwd` has metrics. Safe from the first moment: the folders are made one after the other. */
export function hasBegun(cwd: string): boolean {
  const runs = join(cwd, "runs");
  return existsSync(runs) && readdirSync(runs).some((name) => existsSync(join(runs, name, "metrics.jsonl")));
}

/** The one run folder in `runs`, as a path. */
export function onlyRun(runs: string): string {
  const names = readdirSync(runs);
  if (names.length !== 1) throw new Error(`one run expected in ${runs}, found ${names.join(", ")}`);
  return join(runs, names[0]!);
}

export function readJson(...path: string[]): any {
  return JSON.parse(readFileSync(join(...path), "utf8"));
}

/** The lines of metrics.jsonl; every one must be whole. */
export function readLines(folder: string): any[] {
  const text = readFileSync(join(folder, "metrics.jsonl"), "utf8");
  return text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
}

export interface Tensor { dtype: string; shape: number[]; data: Uint8Array }

/** Reads a safetensors file by the format's own description: length, JSON, data. */
export function readSafetensors(file: string): { tensors: Map<string, Tensor>; metadata: Record<string, string> } {
  const bytes = new Uint8Array(readFileSync(file));
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const { __metadata__: metadata, ...entries } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const tensors = new Map<string, Tensor>();
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries<any>(entries)) {
    tensors.set(name, { dtype, shape, data: bytes.subarray(8 + length + begin, 8 + length + end) });
  }
  return { tensors, metadata };
}

export function sha256(...parts: Uint8Array[]): string {
  const digest = new Bun.CryptoHasher("sha256");
  for (const part of parts) digest.update(part);
  return digest.digest("hex");
}
