// A run that goes on from any step, on other threads and other kernels, against the same run that never stopped: every bit of it.
// The stop is made by hand, so that each step is hit exactly: the folder is put as a kill at that step leaves it.
// Used by resume.test.ts and soak.ts. Kills of a running process, at moments of their own choosing: kill.ts.
import fs from "node:fs";
import { join } from "node:path";
import type { Rule } from "../src/config/knobs.ts";
import { presetConfig, presets } from "../src/config/presets.ts";
import { seededRandom } from "../src/models/sampling.ts";
import { readWhole, samplesOf, timeless } from "./kill.ts";
import { onlyRun, readJson, readLines, run, sets } from "./program.ts";

/** Of integers, which give the same bits on all kernels. */
export const integerPresets = Object.keys(presets).filter((name) => presetConfig(name).trainer.type === "eggroll-int8");

export interface ResumeFigures { cases: number; tierChanges: number; threadChanges: number; presets: string[] }

interface Cases {
  count: number;
  folder: string;
  command: string[];
  seed: number;
  progress?: (figures: ResumeFigures) => void;
}

const checkpointFile = (folder: string, step: number): string => join(folder, "checkpoints", `step-${String(step).padStart(8, "0")}.safetensors`);

const stepsSaved = (folder: string): number[] => fs.readdirSync(join(folder, "checkpoints")).map((name) => Number(/^step-(\d+)\.safetensors$/.exec(name)?.[1])).sort((a, b) => a - b);

/** The step with the lowest of the losses that are known, the first of equals. */
function bestOf(steps: readonly number[], losses: ReadonlyMap<number, number | null>): number | null {
  let best: number | null = null;
  for (const step of steps) {
    const loss = losses.get(step) ?? null;
    if (loss !== null && (best === null || loss < losses.get(best)!)) best = step;
  }
  return best;
}

/** The newest `keep`, and the best. */
function retained(steps: readonly number[], keep: number, losses: ReadonlyMap<number, number | null>): number[] {
  const best = bestOf(steps, losses);
  return [...new Set([...(best === null ? [] : [best]), ...steps.slice(-keep)])].sort((a, b) => a - b);
}

function same(what: string, found: unknown, wanted: unknown): void {
  if (!Bun.deepEquals(found, wanted)) throw new Error(`${what} differ: ${JSON.stringify(found)?.slice(0, 2000)} instead of ${JSON.stringify(wanted)?.slice(0, 2000)}`);
}

function oneCase({ command }: Cases, cwd: string, preset: string, random: () => number, tiers: readonly string[], figures: ResumeFigures): void {
  const whole = (from: number, to: number): number => from + Math.floor(random() * (to - from + 1));
  const choose = <T>(of: readonly T[]): T => of[whole(0, of.length - 1)]!;
  const steps = whole(2, 14);
  const gru = { "model.hidden": 16 * whole(1, 3), "model.layers": whole(1, 3), "trainer.population": 2 * whole(1, 40) };
  const ofRule: Record<Rule, Record<string, number | string>> = {
    egg: { "model.order": whole(1, 5), "model.table_bits": whole(4, 8), "trainer.population": 32 * whole(1, 4), "trainer.learning_rate": 2 ** whole(-3, 2), "trainer.decay_shift": whole(0, 12) },
    "egg.c": { ...gru, "trainer.threshold": whole(0, 400) },
    "nano-egg": { ...gru, "trainer.alpha": choose([0.5, 2, 4]), "trainer.alpha_decay_timestep": whole(1, 20), "trainer.use_clt": choose(["true", "false"]), "trainer.noise_reuse": whole(0, 3) },
  };
  const config = {
    preset, ...ofRule[presetConfig(preset).trainer.rule!], "data.path": "builtin:fables:16KiB",
    "trainer.sequence": whole(1, 24), "trainer.sigma_shift": whole(1, 6), "run.seed": whole(0, 2 ** 32 - 1), "run.steps": steps,
    "run.eval_every": whole(0, 4), "run.sample_every": whole(0, 4), "run.sample_tokens": whole(1, 40), "run.fingerprint_every": whole(0, 3),
  };
  const machine = () => ({ threads: whole(1, 4), tier: choose(tiers) });
  const [first, second] = [machine(), machine()];
  const start = (out: string, { threads, tier }: typeof first, more: Record<string, number>) =>
    run(["--json", "--threads", String(threads), "--out", out, ...sets({ ...config, ...more })], { cwd, command, env: { EGG_CPU: tier } });

  // The run that never stops, with all its checkpoints.
  const uninterrupted = start("whole", first, { "run.checkpoint_every": 1, "run.keep": 1000 });
  same("exit codes", uninterrupted.code, 0);
  const original = onlyRun(join(cwd, "whole"));
  const checkpoints = new Map(stepsSaved(original).map((step) => [step, readWhole(checkpointFile(original, step))]));
  const losses = new Map([...checkpoints].map(([step, { loss }]) => [step, loss]));

  // The folder as a kill leaves it: no summary, what is saved ends with some step, metrics and samples with a later one or in the midst of it.
  const [stop, every, keep] = [whole(0, steps - 1), whole(1, 4), whole(2, 3)];
  fs.cpSync(join(cwd, "whole"), join(cwd, "runs"), { recursive: true });
  const folder = onlyRun(join(cwd, "runs"));
  fs.rmSync(join(folder, "summary.json"));
  fs.rmSync(join(folder, "latest.json"));
  const before = retained([...checkpoints.keys()].filter((step) => step <= stop), keep, losses);
  for (const step of checkpoints.keys()) if (!before.includes(step)) fs.rmSync(checkpointFile(folder, step));
  cutAfter(join(folder, "metrics.jsonl"), (text) => text.split("\n").slice(0, stop).reduce((bytes, line) => bytes + line.length + 1, 0), random);
  cutAfter(join(folder, "samples.txt"), () => samplesOf(original).filter(({ step }) => step <= stop).reduce((bytes, { text }) => bytes + Buffer.byteLength(text), 0), random);

  const resumed = start("runs", second, { "run.checkpoint_every": every, "run.keep": keep });
  same("exit codes", [resumed.code, /going on from step (\d+)/.exec(resumed.err)?.[1] ?? "0"], [0, String(stop)]);
  same("metrics", readLines(folder).map(timeless), readLines(original).map(timeless));
  same("samples", samplesOf(folder), samplesOf(original));
  const lasting = ({ seconds, member_tokens_per_second, peak_rss_bytes, backend, threads, ...rest }: any) => rest;
  same("summaries", lasting(JSON.parse(resumed.out)), lasting(JSON.parse(uninterrupted.out)));

  // The same weights and states, data cursors and losses, and the memory of which was best.
  const saved = [...before, ...[...checkpoints.keys()].filter((step) => step > stop && (step % every === 0 || step === steps))];
  same("checkpoints kept", stepsSaved(folder), retained(saved, keep, losses));
  for (const step of stepsSaved(folder)) {
    const [found, wanted] = [readWhole(checkpointFile(folder, step)), checkpoints.get(step)!];
    same(`tensors of step ${step}`, [...found.tensors].map(([name, { data }]) => [name, Buffer.from(data).toString("base64")]), [...wanted.tensors].map(([name, { data }]) => [name, Buffer.from(data).toString("base64")]));
    const lastingData = ({ config: _, content_sha256: __, ...rest }: Record<string, string>) => rest;
    same(`metadata of step ${step}`, lastingData(found.metadata), lastingData(wanted.metadata));
  }
  const best = bestOf(saved, losses);
  const { step: latest, best: bestFound } = readJson(folder, "latest.json");
  same("latest and best", [latest, bestFound?.step ?? null, bestFound?.val_bits_per_byte ?? null], [steps, best, best === null ? null : losses.get(best)]);

  figures.cases++;
  if (first.tier !== second.tier) figures.tierChanges++;
  if (first.threads !== second.threads) figures.threadChanges++;
  if (!figures.presets.includes(preset)) figures.presets.push(preset);
}

/** Cuts a file somewhere between `from` bytes and its end. */
function cutAfter(file: string, from: (text: string) => number, random: () => number): void {
  if (!fs.existsSync(file)) return;
  const least = from(fs.readFileSync(file, "latin1"));
  fs.truncateSync(file, least + Math.floor(random() * (fs.statSync(file).size - least + 1)));
}

/** Runs the cases; throws with the folder of the case, which then stays, at the first one that fails. */
export async function resumeCases(cases: Cases): Promise<ResumeFigures> {
  const figures: ResumeFigures = { cases: 0, tierChanges: 0, threadChanges: 0, presets: [] };
  const tiers = JSON.parse(run(["info", "--json"], { cwd: cases.folder, command: cases.command }).out).tiers.filter(({ available }: any) => available).map(({ name }: any) => name);
  const names = integerPresets;
  for (let number = 0; number < cases.count; number++) {
    const cwd = join(cases.folder, `case-${number}`);
    fs.mkdirSync(cwd, { recursive: true });
    try {
      oneCase(cases, cwd, names[number % names.length]!, seededRandom(cases.seed + number), tiers, figures);
    } catch (error) {
      throw new Error(`case ${number} of seed ${cases.seed}, in ${cwd}: ${(error as Error).message}`, { cause: error });
    }
    fs.rmSync(cwd, { recursive: true });
    cases.progress?.(figures);
  }
  return figures;
}
