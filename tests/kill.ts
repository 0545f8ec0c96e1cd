// Kills ./egg at random moments, again and again until its run is done, and examines the run folder after each.
// The examiner shares no code with egg's own reader: what it reads, it reads by the format's description.
// Used by kill.test.ts (some hundred kills) and soak.ts (as many as asked for). Not resume at a chosen step: resume.ts.
import fs from "node:fs";
import { join } from "node:path";
import { seededRandom } from "../src/models/sampling.ts";
import { onlyRun, readJson, readLines, readSafetensors, run, sets, sha256, start, until, type Ended } from "./program.ts";

/** What to run. `whole` is how it goes without a kill. */
interface Plan {
  config: Record<string, string | number>;
  checkpointEvery: number;
  keep: number;
}

interface Whole { name: string; lines: any[]; samples: { step: number; text: string }[]; summary: any }

/** What an examined folder holds. */
export interface Examined {
  /** Step of the newest checkpoint; 0 where there is none. */
  saved: number;
  checkpoints: number;
  /** Whole lines of metrics. */
  lines: number;
  /** metrics.jsonl up to the line of the newest checkpoint, which no later process may change. */
  settled: Buffer;
  /** Signs of a write that was cut short: a temporary file, a part of a line, a latest.json that is one behind. */
  temporary: boolean;
  torn: boolean;
  behind: boolean;
}

export interface Figures {
  kills: number;
  runs: number;
  /** Kills before the process had begun with its steps. */
  early: number;
  temporary: number;
  torn: number;
  behind: number;
  /** The most steps that one kill lost. */
  mostLost: number;
  mostFiles: number;
}

export interface Trials {
  count: number;
  folder: string;
  command: string[];
  seed: number;
  /** Runs at a time. */
  lanes?: number;
  /** "kill" sends SIGKILL; "signals" SIGINT and SIGTERM, with half of them followed by a second signal of any kind. */
  kind: "kill" | "signals";
  /** Told after every run. */
  progress?: (figures: Figures) => void;
}

function demand(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

function randomPlan(random: () => number): Plan {
  const whole = (from: number, to: number): number => from + Math.floor(random() * (to - from + 1));
  const checkpointEvery = whole(1, 3);
  const keep = whole(2, 3);
  const gru = { preset: "egg.c", "model.hidden": 16, "model.layers": whole(1, 2), "trainer.population": 2 * whole(1, 16), "trainer.threshold": whole(1, 60) };
  const contexts = { preset: "egg", "model.order": 1 + 2 * whole(0, 1), "model.table_bits": whole(4, 6), "trainer.population": 32 * whole(1, 3) };
  const config = {
    ...(random() < 0.5 ? gru : contexts), "data.path": "builtin:fables:64KiB", "trainer.sequence": whole(1, 8), "run.seed": whole(0, 1e9), "run.steps": whole(20, 120), "run.eval_every": whole(0, 1) * whole(1, 20),
    "run.sample_every": whole(0, 1) * whole(1, 20), "run.sample_tokens": whole(1, 30), "run.checkpoint_every": checkpointEvery, "run.keep": keep, "run.fingerprint_every": 1,
  };
  return { config, checkpointEvery, keep };
}

/** Without what depends on the clock. */
export function timeless(line: any): any {
  const { seconds, member_tokens_per_second, ...rest } = line;
  return rest;
}

export function samplesOf(folder: string): { step: number; text: string }[] {
  const file = join(folder, "samples.txt");
  if (!fs.existsSync(file)) return [];
  const text = fs.readFileSync(file, "utf8");
  return text.split(/^(?==== step \d+$)/m).filter((part) => part !== "").map((part) => ({ step: Number(/^=== step (\d+)/.exec(part)?.[1]), text: part }));
}

/** Reads a checkpoint and verifies it: no byte without a tensor, and the content hash by its definition. */
export function readWhole(file: string): { step: number; loss: number | null; weights: string; tensors: ReturnType<typeof readSafetensors>["tensors"]; metadata: Record<string, string> } {
  const bytes = fs.readFileSync(file);
  const headEnd = 8 + Number(bytes.readBigUInt64LE(0));
  const { tensors, metadata } = readSafetensors(file);
  const covered = [...tensors.values()].reduce((sum, { data }) => sum + data.length, headEnd);
  demand(covered === bytes.length, `${file}: tensors end at ${covered} of ${bytes.length} bytes`);
  const at = bytes.indexOf(`"content_sha256":"`) + `"content_sha256":"`.length;
  const claimed = bytes.toString("latin1", at, at + 64);
  demand(metadata["content_sha256"] === claimed, `${file}: no content hash`);
  bytes.fill("0", at, at + 64);
  demand(sha256(bytes) === claimed, `${file}: the content hash is wrong`);
  const weights = [...tensors].filter(([name]) => !name.startsWith("state.")).sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { data }]) => data);
  const loss = metadata["val_bits_per_byte"];
  return { step: Number(metadata["step"]), loss: loss === undefined ? null : Number(loss), weights: sha256(...weights), tensors, metadata };
}

const temporaryName = /^\..+\.tmp$/;

/**
 * Examines the folder of a run that has been killed, or has ended; throws at the first thing that is wrong.
 * @param signalled a SIGINT or SIGTERM has been sent before: more steps than those due are saved
 * @param over the run is done; otherwise, after such a signal, the newest step may lack its evaluation and its sample
 */
function examine(folder: string, { checkpointEvery, keep }: Plan, whole: Whole, before: Examined | null, signalled: boolean, over = false): Examined & { files: number } {
  const lenient = signalled && !over;
  const names = fs.readdirSync(folder);
  const inside = names.includes("checkpoints") ? fs.readdirSync(join(folder, "checkpoints")) : [];
  const temporary = [...names, ...inside].filter((name) => temporaryName.test(name));
  demand(temporary.length <= 1, `leftovers grow: ${temporary.join(", ")}`);
  const known = ["checkpoints", "config.json", "latest.json", "lock", "metrics.jsonl", "samples.txt", "summary.json", ...temporary];
  demand(names.every((name) => known.includes(name)), `unknown files: ${names.join(", ")}`);

  // Every checkpoint that has its name is whole and holds the weights of its step.
  const files = inside.filter((name) => !temporaryName.test(name)).sort();
  const steps = files.map((name) => {
    const { step, weights } = readWhole(join(folder, "checkpoints", name));
    demand(name === `step-${String(step).padStart(8, "0")}.safetensors`, `${name} holds step ${step}`);
    if (step > 0) demand(weights === whole.lines[step - 1].weights_sha256, `${name}: other weights than the uninterrupted run has at this step`);
    return step;
  });
  // The best, and one being added; one more only where kill after kill fell between a save and the deletion behind it.
  demand(steps.length <= Math.max(keep + 1, before?.checkpoints ?? 0) + 1, `checkpoints grow: ${files.join(", ")}`);
  const saved = steps.at(-1) ?? 0;
  demand(saved >= (before?.saved ?? 0), `the newest checkpoint was of step ${before?.saved}, is of step ${saved}`);

  // The best and the last two are there; latest.json names one that is.
  if (!signalled) {
    const due = whole.lines.map(({ step }) => step).filter((step) => step <= saved && (step % checkpointEvery === 0 || step === whole.lines.length));
    for (const step of due.slice(-2)) demand(steps.includes(step), `of the last two, step ${step} is gone`);
    // Metrics are rounded, so several may be the lowest.
    const lossOf = (step: number): number => whole.lines[step - 1].val_bits_per_byte ?? Infinity;
    const lowest = Math.min(...due.map(lossOf));
    demand(lowest === Infinity || steps.some((step) => step > 0 && lossOf(step) === lowest), `the best one, with a loss of ${lowest}, is gone`);
  }
  let behind = false;
  if (names.includes("latest.json")) {
    const latest = readJson(folder, "latest.json");
    demand(files.includes(latest.name), `latest.json names ${latest.name}, which is gone`);
    // A later kill may fall between a checkpoint that is written again with its loss and latest.json.
    demand(lenient || sha256(fs.readFileSync(join(folder, "checkpoints", latest.name))) === latest.sha256, `latest.json has another hash than ${latest.name}`);
    behind = latest.step !== saved;
  } else behind = files.length > 0;

  // Metrics have no gap and no step twice; nothing is lost but the steps since the last save.
  const text = names.includes("metrics.jsonl") ? fs.readFileSync(join(folder, "metrics.jsonl")) : Buffer.alloc(0);
  const ends: number[] = [];
  for (let at = text.indexOf(0x0a); at >= 0; at = text.indexOf(0x0a, at + 1)) ends.push(at + 1);
  const torn = text.length > (ends.at(-1) ?? 0);
  const lines = ends.map((end, i) => timeless(JSON.parse(text.toString("utf8", i === 0 ? 0 : ends[i - 1], end))));
  lines.forEach((line, i) => {
    const { val_bits_per_byte, saturated_fraction, ...rest } = timeless(whole.lines[i]);
    const wanted = lenient && i === lines.length - 1 && line.val_bits_per_byte === undefined ? rest : timeless(whole.lines[i]);
    demand(Bun.deepEquals(line, wanted), `line ${i + 1} of the metrics is ${JSON.stringify(line)} instead of ${JSON.stringify(wanted)}`);
  });
  demand(saved <= lines.length, `step ${saved} is saved, the metrics have ${lines.length} lines`);
  const due = Math.max(0, Math.floor((lines.length - 1) / checkpointEvery)) * checkpointEvery;
  demand(saved >= due, `step ${due} should have been saved: ${lines.length} lines of metrics, checkpoint of step ${saved}`);
  if (before !== null) demand(text.subarray(0, before.settled.length).equals(before.settled), "lines of metrics were changed that a checkpoint had settled");
  const settledSteps = lenient ? saved - 1 : saved;

  // Samples are those of the uninterrupted run; none is missing but that of the newest checkpoint, which is made behind it: who goes on makes up for it.
  const samples = samplesOf(folder);
  samples.forEach((sample, i) => demand(Bun.deepEquals(sample, whole.samples[i]), `sample ${i + 1} is ${JSON.stringify(sample)} instead of ${JSON.stringify(whole.samples[i])}`));
  const dueSamples = whole.samples.filter(({ step }) => (over ? step <= saved : step < saved)).length;
  demand(samples.length >= dueSamples, `${samples.length} samples, ${dueSamples} are due at step ${saved}`);

  return {
    saved, checkpoints: steps.length, lines: lines.length, settled: Buffer.from(text.subarray(0, settledSteps <= 0 ? 0 : ends[settledSteps - 1])),
    temporary: temporary.length > 0, torn, behind, files: names.length + inside.length,
  };
}

/** What the finished run must have in common with the uninterrupted one. */
function examineEnd(folder: string, plan: Plan, whole: Whole, before: Examined | null, signalled: boolean): void {
  const found = examine(folder, plan, whole, before, signalled, true);
  demand(found.checkpoints <= plan.keep + 1, "a finished run has more checkpoints than it should keep");
  demand(!found.temporary && !found.torn && !found.behind, "a finished run has leftovers");
  demand(found.lines === whole.lines.length && found.saved === found.lines, `a finished run has ${found.lines} lines and a checkpoint of step ${found.saved}, should have ${whole.lines.length}`);
  demand(samplesOf(folder).length === whole.samples.length, "a finished run lacks samples");
  const { weights_sha256, val_bits_per_byte, train_bits_per_byte, member_tokens, data_tokens, status } = readJson(folder, "summary.json");
  const wanted = whole.summary;
  demand(status === "finished" && weights_sha256 === wanted.weights_sha256, `weights ${weights_sha256}, ${status}, instead of ${wanted.weights_sha256}`);
  for (const [name, value] of Object.entries({ val_bits_per_byte, train_bits_per_byte, member_tokens, data_tokens })) {
    demand(value === wanted[name], `summary: ${name} is ${value} instead of ${wanted[name]}`);
  }
}

/** The same run without a kill; saving less often makes it fast and changes nothing. */
function runWhole(plan: Plan, cwd: string, command: string[]): Whole {
  const ended = run(["-q", "--out", "whole", ...sets({ ...plan.config, "run.checkpoint_every": 0 })], { cwd, command });
  demand(ended.code === 0, `the uninterrupted run ended with ${ended.code}: ${ended.err}`);
  const folder = onlyRun(join(cwd, "whole"));
  return { name: folder.slice(join(cwd, "whole").length + 1), lines: readLines(folder), samples: samplesOf(folder), summary: readJson(folder, "summary.json") };
}

/** Sleeps that long, to a fraction of a millisecond. */
async function pause(milliseconds: number): Promise<void> {
  const end = performance.now() + milliseconds;
  if (milliseconds > 2) await Bun.sleep(Math.floor(milliseconds) - 1);
  while (performance.now() < end);
}

/** Kills one run until it is done. */
async function killOneRun({ command, kind, count }: Trials, cwd: string, random: () => number, figures: Figures): Promise<void> {
  const plan = randomPlan(random);
  const whole = runWhole(plan, cwd, command);
  const folder = join(cwd, "runs", whole.name);
  const choose = <T>(...of: T[]): T => of[Math.floor(random() * of.length)]!;
  let before: Examined | null = null;
  let signalled = false;
  let reach = 25; // milliseconds after the first step began; more where no process comes far
  for (;;) {
    const args = ["--threads", choose("1", "2"), "--out", "runs", ...sets(plan.config)];
    const more = random() < 0.25 ? { env: { EGG_CPU: "scalar" } } : {};
    if (figures.kills >= count) {
      const ended = run(["-q", ...args], { cwd, command, ...more });
      demand(ended.code === 0, `the run ended with ${ended.code}: ${ended.err}`);
      return examineEnd(folder, plan, whole, before, signalled);
    }
    const process = start(args, { cwd, command, ...more });
    let over = false;
    void process.ended.then(() => (over = true));
    if (random() > 0.15) await until("the start", () => over || process.err().includes("int8 weights"), 60);
    await pause(random() * reach);
    const signal = kind === "kill" ? "SIGKILL" : choose("SIGINT", "SIGTERM");
    process.kill(signal);
    let second: NodeJS.Signals | null = null;
    if (kind === "signals" && random() < 0.5) {
      await pause(random() * 10);
      process.kill((second = choose("SIGINT", "SIGTERM", "SIGKILL")));
    }
    const ended = await process.ended;
    if (ended.code === 0) return examineEnd(folder, plan, whole, before, signalled);
    demand(ended.signal !== null && [signal, second].includes(ended.signal as NodeJS.Signals), `ended with ${ended.code ?? ended.signal}: ${ended.err}`);
    figures.kills++;
    if (!ended.err.includes("int8 weights")) figures.early++;
    const from = /going on from step (\d+)/.exec(ended.err)?.[1];
    if (from !== undefined) demand(Number(from) === (before?.saved ?? 0), `went on from step ${from}, saved was ${before?.saved}`);
    if (!fs.existsSync(folder)) continue;

    signalled ||= signal !== "SIGKILL";
    const found = examine(folder, plan, whole, before, signalled);
    if (kind === "signals" && stopped(ended)) {
      demand(found.lines === found.saved && !found.temporary, `stopped in peace at step ${found.lines}, but saved step ${found.saved}`);
      demand(readJson(folder, "summary.json").steps === found.saved, "the summary has another step");
    }
    reach = found.lines > (before?.lines ?? 0) ? 25 : reach * 1.5;
    for (const sign of ["temporary", "torn", "behind"] as const) if (found[sign]) figures[sign]++;
    figures.mostLost = Math.max(figures.mostLost, found.lines - found.saved);
    figures.mostFiles = Math.max(figures.mostFiles, found.files);
    before = found;
  }
}

/** Whether the process said that it had stopped as asked, with everything saved. */
const stopped = ({ err }: Ended): boolean => /stopped by SIG(INT|TERM) after step/.test(err);

/** Runs the trials; throws with the folder of the run, which then stays, at the first one that fails. */
export async function killTrials(trials: Trials): Promise<Figures> {
  const figures: Figures = { kills: 0, runs: 0, early: 0, temporary: 0, torn: 0, behind: 0, mostLost: 0, mostFiles: 0 };
  let next = 0;
  const lane = async (): Promise<void> => {
    while (figures.kills < trials.count) {
      const number = next++;
      const cwd = join(trials.folder, `run-${number}`);
      fs.mkdirSync(cwd, { recursive: true });
      try {
        await killOneRun(trials, cwd, seededRandom(trials.seed + number), figures);
      } catch (error) {
        throw new Error(`run ${number} of seed ${trials.seed}, after ${figures.kills} kills, in ${cwd}: ${(error as Error).message}`, { cause: error });
      }
      fs.rmSync(cwd, { recursive: true });
      figures.runs++;
      trials.progress?.(figures);
    }
  };
  await Promise.all(Array.from({ length: trials.lanes ?? 2 }, lane));
  return figures;
}
