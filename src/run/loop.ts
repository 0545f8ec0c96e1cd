// The one loop that carries a run from wherever it stands to its end: steps, evaluations, samples, checkpoints, metrics.
// It does not know which learner it drives, nor where its news are shown: both are given to it.
// Read next: src/learners/learner.ts, folder.ts, checkpoint.ts.
import path from "node:path";
import fs from "node:fs";
import type { Config } from "../config/knobs.ts";
import type { Learner } from "../learners/learner.ts";
import { loadLatest, saveCheckpoint, weightsSha256, type LoadedCheckpoint } from "./checkpoint.ts";
import { appendLine, ioError } from "./files.ts";
import { canonicalJson, forceFresh, openRun, runState, writeRunConfig, writeSummary } from "./folder.ts";
import { lockRun } from "./lock.ts";
import { openMetrics, truncateAfter, type MetricsLine } from "./metrics.ts";
import { catchSignals, type Stop, type StopSignal } from "./signals.ts";
import type { Summary } from "./summary.ts";

export interface Sample {
  prompt: Uint8Array;
  continuation: Uint8Array;
}

/** What the loop tells while it goes. All are called between steps, except `within`. */
export interface RunListener {
  /** Before the first step; `resumed` is the checkpoint that it goes on from. */
  started(learner: Learner, resumed: LoadedCheckpoint | null): void;
  warned(message: string): void;
  /** The share of the current step that is done, 0..1. */
  within(share: number): void;
  stepped(line: MetricsLine, seconds: number): void;
  evaluated(step: number, bitsPerByte: number): void;
  sampled(step: number, sample: Sample): void;
  /** The first signal was heard; the run stops at the next safe point. */
  stopping(signal: StopSignal): void;
}

export interface RunPlan {
  config: Config;
  folder: string;
  /** Start over: delete what an earlier run left in the folder. */
  force: boolean;
  program: { version: string; commit: string | null };
  createLearner: () => Learner;
  /** A sample in the form that samples.txt has. */
  formatSample: (step: number, sample: Sample) => string;
  tryLock: (fd: number) => boolean;
  listener: RunListener;
}

export interface RunOutcome {
  summary: Summary;
  /** The signal to die by, once all is printed. */
  signal: StopSignal | null;
}

/**
 * Runs to the end, or until a signal. A finished run is not run again; an unfinished one goes on from its last good
 * checkpoint, bit for bit as if it had never stopped.
 */
export async function runLoop(plan: RunPlan): Promise<RunOutcome> {
  openRun(plan.folder);
  const lock = lockRun(plan.folder, plan.tryLock);
  try {
    if (plan.force) forceFresh(plan.folder);
    // Another process may have finished it while this one came.
    const { state, summary } = runState(plan.folder);
    if (state === "finished") return { summary: summary!, signal: null };
    let learner: Learner | null = null;
    const stop = catchSignals((signal) => {
      plan.listener.stopping(signal);
      learner?.cancel();
    });
    try {
      learner = plan.createLearner();
      writeRunConfig(plan.folder, plan.config, plan.program);
      return await new Run(plan, learner, stop).toEnd();
    } finally {
      stop.release();
    }
  } finally {
    lock.release();
  }
}

class Run {
  readonly #plan: RunPlan;
  readonly #learner: Learner;
  readonly #stop: Stop;
  readonly #metricsFile: string;
  readonly #samplesFile: string;
  /** Steps done. */
  #step = 0;
  /** Seconds of training, over all resumptions. */
  #seconds = 0;
  #train: number | null = null;
  /** Held-out loss of the present weights, and the last one known. */
  #valNow: number | null = null;
  #valLast: number | null = null;
  #savedAt = -1;

  constructor(plan: RunPlan, learner: Learner, stop: Stop) {
    this.#plan = plan;
    this.#learner = learner;
    this.#stop = stop;
    this.#metricsFile = path.join(plan.folder, "metrics.jsonl");
    this.#samplesFile = path.join(plan.folder, "samples.txt");
  }

  async toEnd(): Promise<RunOutcome> {
    const { config, listener } = this.#plan;
    listener.started(this.#learner, this.#resume());
    if (this.#step === 0) await this.#evaluate();
    const metrics = openMetrics(this.#metricsFile);
    try {
      while (this.#step < config.run.steps && this.#stop.requested === null) {
        const line = await this.#trainStep();
        if (line === null) break;
        if (due(this.#step, config.run.eval_every) || this.#step === config.run.steps) {
          await this.#evaluate();
          if (this.#valNow !== null) line.val_bits_per_byte = this.#valNow;
        }
        if (due(this.#step, config.run.fingerprint_every)) line.weights_sha256 = weightsSha256(this.#learner.save());
        metrics.append(line);
        if (due(this.#step, config.run.sample_every)) this.#sample();
        if (due(this.#step, config.run.checkpoint_every)) this.#checkpoint(() => metrics.sync());
      }
      this.#checkpoint(() => metrics.sync());
    } finally {
      metrics.close();
    }
    const summary = this.#summarize();
    writeSummary(this.#plan.folder, summary);
    return { summary, signal: this.#stop.requested };
  }

  /** Takes up the last good checkpoint, or the start where there is none; cuts metrics and samples back to it. */
  #resume(): LoadedCheckpoint | null {
    const found = loadLatest(this.#plan.folder);
    for (const { reason } of found?.passedOver ?? []) this.#plan.listener.warned(`passed over a damaged checkpoint: ${reason}`);
    const checkpoint = found?.checkpoint ?? null;
    if (checkpoint === null) this.#learner.initialize();
    else {
      this.#learner.load(checkpoint.tensors);
      this.#step = this.#savedAt = checkpoint.step;
      this.#valNow = this.#valLast = checkpoint.valBitsPerByte;
    }
    const last = truncateAfter(this.#metricsFile, this.#step);
    truncateSamples(this.#samplesFile, this.#step);
    if (last !== null) {
      this.#seconds = last.seconds;
      this.#train = last.train_bits_per_byte;
    }
    return checkpoint;
  }

  async #trainStep(): Promise<MetricsLine | null> {
    const learner = this.#learner;
    const begun = performance.now();
    const report = await learner.step(this.#step, (share) => this.#plan.listener.within(share));
    if (report === null) return null;
    const seconds = (performance.now() - begun) / 1000;
    this.#step += 1;
    this.#seconds += seconds;
    this.#train = report.trainBitsPerByte;
    this.#valNow = null;
    const line: MetricsLine = {
      step: this.#step,
      seconds: this.#seconds,
      train_bits_per_byte: report.trainBitsPerByte,
      member_tokens_per_second: learner.memberTokensPerStep / seconds,
      data_tokens: this.#step * learner.dataTokensPerStep,
      fitness_plus: report.fitnessPlus,
      fitness_minus: report.fitnessMinus,
      updated_fraction: report.updatedFraction,
      loss_integer: report.lossInteger,
    };
    this.#plan.listener.stepped(line, seconds);
    return line;
  }

  async #evaluate(): Promise<void> {
    if (this.#plan.config.run.eval_every === 0) return;
    this.#valNow = await this.#learner.evaluate();
    if (this.#valNow === null) return;
    this.#valLast = this.#valNow;
    this.#plan.listener.evaluated(this.#step, this.#valNow);
  }

  #sample(): void {
    const { config, formatSample, listener } = this.#plan;
    const prompt = new TextEncoder().encode(config.run.prompt);
    const sample = { prompt, continuation: this.#learner.sample(prompt, config.run.sample_tokens, config.run.seed + this.#step) };
    const fd = openForAppend(this.#samplesFile);
    try {
      appendLine(fd, formatSample(this.#step, sample).replace(/\n$/, ""), this.#samplesFile);
    } finally {
      fs.closeSync(fd);
    }
    listener.sampled(this.#step, sample);
  }

  /** Saves, unless these weights are saved already. Metrics come first: none of the saved steps may be missing there. */
  #checkpoint(syncMetrics: () => void): void {
    if (this.#savedAt === this.#step) return;
    const { config, folder, program } = this.#plan;
    syncMetrics();
    saveCheckpoint(folder, {
      step: this.#step,
      tensors: this.#learner.save(),
      config: canonicalJson(config),
      tokenizer: config.data.tokenizer,
      dataCursor: JSON.stringify({ step: this.#step }),
      program: program.version,
      valBitsPerByte: this.#valNow,
    }, config.run.keep);
    this.#savedAt = this.#step;
  }

  #summarize(): Summary {
    const learner = this.#learner;
    const memberTokens = this.#step * learner.memberTokensPerStep;
    return {
      run: path.basename(this.#plan.folder),
      status: this.#step >= this.#plan.config.run.steps ? "finished" : "interrupted",
      steps: this.#step,
      seconds: round(this.#seconds, 2),
      train_bits_per_byte: round(this.#train, 6),
      val_bits_per_byte: round(this.#valLast, 6),
      weights_sha256: weightsSha256(learner.save()),
      parameters: learner.parameters,
      population: learner.population,
      member_tokens: memberTokens,
      member_tokens_per_second: this.#seconds === 0 ? 0 : Math.round(memberTokens / this.#seconds),
      data_tokens: this.#step * learner.dataTokensPerStep,
      peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
      backend: learner.backend,
      threads: learner.threads,
    };
  }
}

function due(step: number, every: number): boolean {
  return every > 0 && step % every === 0;
}

function round(value: number, places: number): number;
function round(value: number | null, places: number): number | null;
function round(value: number | null, places: number): number | null {
  return value === null ? null : Number(value.toFixed(places));
}

function openForAppend(file: string): number {
  try {
    return fs.openSync(file, "a", 0o666);
  } catch (error) {
    throw ioError(error, "open", file);
  }
}

/** Cuts samples of later steps off; each sample begins with `=== step N`. */
function truncateSamples(file: string, step: number): void {
  if (!fs.existsSync(file)) return;
  try {
    const text = fs.readFileSync(file, "latin1");
    const later = [...text.matchAll(/^=== step (\d+)$/gm)].find(([, number]) => Number(number) > step);
    if (later !== undefined) fs.truncateSync(file, later.index);
  } catch (error) {
    throw ioError(error, "shorten", file);
  }
}
