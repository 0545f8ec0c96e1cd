// The one loop that carries a run from wherever it stands to its end: steps, evaluations, samples, checkpoints, metrics.
// It does not know which learner it drives, nor where its news are shown: both are given to it.
// Read next: src/learners/learner.ts, folder.ts, checkpoint.ts.
import path from "node:path";
import fs from "node:fs";
import type { Config } from "../config/knobs.ts";
import type { Learner } from "../learners/learner.ts";
import { finishSave, loadLatest, saveCheckpoint, weightsSha256, type LoadedCheckpoint } from "./checkpoint.ts";
import { appendDurably, ioError } from "./files.ts";
import { canonicalJson, forceFresh, openRun, runState, writeRunConfig, writeSummary } from "./folder.ts";
import { lockRun } from "./lock.ts";
import { peakMemory } from "./memory.ts";
import { openMetrics, readMetrics, replaceLast, truncateAfter, type MetricsLine } from "./metrics.ts";
import { readPlain } from "./reading.ts";
import { catchSignals, type Stop, type StopSignal } from "./signals.ts";
import { StopRule } from "./stop.ts";
import type { Summary } from "./summary.ts";
import { eventsName, openEvents } from "./tensorboard.ts";
import { Watchdog } from "./watchdog.ts";
import { DebugStats, debugStatsName, saturatedFraction } from "./weightstats.ts";

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
  /** Write figures of each tensor to debug-stats.jsonl at evaluations. */
  debugStats: boolean;
  /** What samples continue. */
  prompt: Uint8Array;
  /** What its tokens are, for people, where they are not bytes by nature; else null. */
  tokenizer: string | null;
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
  // What is refused for a new run, for want of memory or threads, is refused before there is a folder.
  const early = fs.existsSync(plan.folder) ? null : plan.createLearner();
  early?.initialize(); // what it is to start from may be missing, or of another shape
  openRun(plan.folder);
  const lock = lockRun(plan.folder, plan.tryLock);
  try {
    if (plan.force) forceFresh(plan.folder);
    // Another process may have finished it while this one came.
    const { state, summary } = runState(plan.folder);
    if (state === "finished") return { summary: summary!, signal: null };
    const learner = early ?? plan.createLearner();
    writeRunConfig(plan.folder, plan.config, plan.program);
    const run = new Run(plan, learner);
    if (run.resume(early !== null) !== null) Bun.gc(true); // the pieces that it was loaded through make room before the first step
    // Up to here there is nothing to save, and a signal ends the process at once.
    const stop = catchSignals((signal) => {
      plan.listener.stopping(signal);
      learner.cancel();
    });
    try {
      return await run.toEnd(stop);
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
  readonly #metricsFile: string;
  readonly #samplesFile: string;
  readonly #rule: StopRule;
  readonly #watchdog: Watchdog;
  #debugStats: DebugStats | null = null;
  #stop: Stop | null = null;
  /** Steps done. */
  #step = 0;
  /** Seconds of training, over all resumptions. */
  #seconds = 0;
  #train: number | null = null;
  /** Held-out loss of the present weights, and the last one known. */
  #valNow: number | null = null;
  #valLast: number | null = null;
  #lossIntegerNow: number | undefined;
  #saturatedNow: number | undefined;
  #savedAt = -1;
  /** Whether a signal kept an evaluation or a sample from the present step. */
  #cutShort = false;
  /** The metrics of the step that a resumed run goes on from, and the step of the last sample that it found. */
  #lastLine: MetricsLine | null = null;
  #lastSample = 0;

  constructor(plan: RunPlan, learner: Learner) {
    this.#plan = plan;
    this.#learner = learner;
    this.#metricsFile = path.join(plan.folder, "metrics.jsonl");
    this.#samplesFile = path.join(plan.folder, "samples.txt");
    this.#rule = new StopRule(plan.config.run);
    this.#watchdog = new Watchdog(plan.config);
  }

  /**
   * Takes up the last good checkpoint, or the start where there is none; cuts metrics and samples back to it. Returns its step, or null.
   * @param initialized the learner stands at the start already
   */
  resume(initialized: boolean): number | null {
    const { config, folder, listener } = this.#plan;
    const found = loadLatest(folder);
    for (const { reason } of found?.passedOver ?? []) listener.warned(`passed over a damaged checkpoint: ${reason}`);
    const checkpoint = found?.checkpoint ?? null;
    if (checkpoint === null) {
      if (!initialized) this.#learner.initialize();
    } else {
      finishSave(folder, checkpoint, config.run.keep);
      this.#learner.load(checkpoint.tensors);
      this.#step = this.#savedAt = checkpoint.step;
      this.#valNow = this.#valLast = checkpoint.valBitsPerByte;
    }
    // Of what is wrong in these lines an earlier process has warned.
    this.#lastLine = truncateAfter(this.#metricsFile, this.#step, (line) => {
      if (line.step < this.#step) this.#watchdog.tell(line);
    });
    if (this.#plan.debugStats) this.#debugStats = new DebugStats(path.join(folder, debugStatsName), this.#step);
    this.#lastSample = truncateSamples(this.#samplesFile, this.#step);
    if (this.#lastLine !== null) {
      this.#seconds = this.#lastLine.seconds;
      this.#train = this.#lastLine.train_bits_per_byte;
      const lines = this.#valLast === null || this.#plan.config.run.patience > 0 ? readMetrics(this.#metricsFile) : [];
      this.#valLast ??= lines.findLast((line) => line.val_bits_per_byte !== undefined)?.val_bits_per_byte ?? null;
      for (const line of lines) if (line.step < this.#step) this.#rule.tell(line);
    }
    listener.started(this.#learner, checkpoint);
    return checkpoint?.step ?? null;
  }

  async toEnd(stop: Stop): Promise<RunOutcome> {
    const { config } = this.#plan;
    this.#stop = stop;
    await this.#catchUp();
    const metrics = openMetrics(this.#metricsFile);
    const events = config.run.tensorboard ? openEvents(path.join(this.#plan.folder, eventsName), this.#metricsFile) : null;
    try {
      while (this.#rule.reason(this.#step, this.#seconds) === null) {
        await turn();
        if (stop.requested !== null) break;
        const line = await this.#trainStep();
        if (line === null) break;
        if (this.#evaluationDue()) {
          await this.#evaluate();
          Object.assign(line, this.#evaluated());
        }
        if (due(this.#step, config.run.fingerprint_every)) line.weights_sha256 = weightsSha256(this.#learner.save());
        metrics.append(line);
        events?.append(line);
        this.#watch(line);
        // Where a run ends with its loss, the weights of the lowest one are what it was for.
        const best = this.#rule.tell(line) && config.run.patience > 0;
        if (best || due(this.#step, config.run.checkpoint_every)) {
          metrics.sync();
          this.#checkpoint();
        }
        if (due(this.#step, config.run.sample_every)) await this.#sample(); // behind the checkpoint: no trouble with it shall cost steps
      }
      metrics.sync();
      if (this.#savedAt !== this.#step) this.#checkpoint();
      await turn(); // the last chance to hear a signal that shall stop a shell's loop of runs
    } finally {
      metrics.close();
      events?.close();
    }
    const summary = this.#summarize();
    writeSummary(this.#plan.folder, summary);
    return { summary, signal: stop.requested };
  }

  /** The evaluation before the first step; or the evaluation and the sample that a signal kept from the last step. */
  async #catchUp(): Promise<void> {
    if (this.#step === 0) return await this.#evaluate();
    let line = this.#lastLine;
    let told = true;
    if (line?.step === this.#step && this.#evaluationDue() && line.val_bits_per_byte === undefined) {
      await this.#evaluate();
      if (this.#valNow !== null) {
        line = { ...line, ...this.#evaluated() };
        this.#checkpoint(); // again, with its loss; a run that is killed before the next line does both once more
        replaceLast(this.#metricsFile, line);
        told = false;
      }
    }
    if (line?.step === this.#step) {
      this.#rule.tell(line);
      if (told) this.#watchdog.tell(line);
      else this.#watch(line);
    }
    if (due(this.#step, this.#plan.config.run.sample_every) && this.#lastSample < this.#step) await this.#sample();
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
      [learner.unit === "tokens" ? "tokens_per_second" : "member_tokens_per_second"]: learner.tokensPerStep / seconds,
      data_tokens: this.#step * learner.dataTokensPerStep,
      fitness_plus: report.fitnessPlus,
      fitness_minus: report.fitnessMinus,
      updated_fraction: report.updatedFraction,
      gradient_norm: report.gradientNorm,
      learning_rate: report.learningRate,
      threshold: report.threshold,
      rate: report.rate,
      loss_integer: report.lossInteger,
    };
    this.#plan.listener.stepped(line, seconds);
    return line;
  }

  #watch(line: MetricsLine): void {
    for (const { message } of this.#watchdog.tell(line)) this.#plan.listener.warned(message);
  }

  #stopping(): boolean {
    return this.#stop !== null && this.#stop.requested !== null;
  }

  #evaluationDue(): boolean {
    return due(this.#step, this.#plan.config.run.eval_every) || this.#rule.isLast(this.#step, this.#seconds);
  }

  async #evaluate(): Promise<void> {
    if (this.#plan.config.run.eval_every === 0) return;
    const evaluation = this.#stopping() ? null : await this.#learner.evaluate();
    this.#valNow = evaluation?.bitsPerByte ?? null;
    this.#lossIntegerNow = evaluation?.lossInteger;
    if (this.#valNow === null) {
      this.#cutShort ||= this.#stopping();
      return;
    }
    const weights = this.#learner.save();
    this.#saturatedNow = saturatedFraction(weights);
    this.#debugStats?.append(this.#step, weights);
    this.#valLast = this.#valNow;
    this.#plan.listener.evaluated(this.#step, this.#valNow);
  }

  /** What the last evaluation adds to its step's line. */
  #evaluated(): Partial<MetricsLine> {
    if (this.#valNow === null) return {};
    return { val_bits_per_byte: this.#valNow, saturated_fraction: this.#saturatedNow, ...(this.#lossIntegerNow === undefined ? {} : { loss_integer: this.#lossIntegerNow }) };
  }

  async #sample(): Promise<void> {
    const { config, prompt, formatSample, listener } = this.#plan;
    const continuation = this.#stopping() ? null : await this.#learner.sample(prompt, config.run.sample_tokens, config.run.seed + this.#step);
    if (continuation === null) {
      this.#cutShort ||= this.#stopping();
      return;
    }
    const sample = { prompt, continuation };
    appendDurably(this.#samplesFile, formatSample(this.#step, sample).replace(/\n$/, ""));
    listener.sampled(this.#step, sample);
  }

  /** To be called with the metrics on the disk: none of the saved steps may be missing there. */
  #checkpoint(): void {
    const { config, folder, program } = this.#plan;
    saveCheckpoint(folder, {
      step: this.#step,
      tensors: this.#learner.save(),
      config: canonicalJson(config),
      tokenizer: this.#learner.tokenizer,
      dataCursor: JSON.stringify({ step: this.#step }),
      program: program.version,
      valBitsPerByte: this.#valNow,
    }, config.run.keep);
    this.#savedAt = this.#step;
  }

  #summarize(): Summary {
    const learner = this.#learner;
    const tokens = this.#step * learner.tokensPerStep;
    const perSecond = this.#seconds === 0 ? 0 : Math.round(tokens / this.#seconds);
    const reason = this.#cutShort ? null : this.#rule.reason(this.#step, this.#seconds);
    return {
      run: path.basename(this.#plan.folder),
      status: reason === null ? "interrupted" : "finished",
      steps: this.#step,
      seconds: round(this.#seconds, 2),
      train_bits_per_byte: round(this.#train, 6),
      val_bits_per_byte: round(this.#valLast, 6),
      weights_sha256: weightsSha256(learner.save()),
      parameters: learner.parameters,
      ...(this.#plan.tokenizer === null ? {} : { tokenizer: this.#plan.tokenizer }),
      ...(learner.unit === "tokens" ? { tokens_per_second: perSecond } : { population: learner.population!, member_tokens: tokens, member_tokens_per_second: perSecond }),
      data_tokens: this.#step * learner.dataTokensPerStep,
      peak_rss_bytes: peakMemory(),
      backend: learner.backend,
      threads: learner.threads,
      stopped_by: reason,
    };
  }
}

/** Lets signals and timers through: a run of short steps would never come to them. */
function turn(): Promise<void> {
  return new Promise((resume) => setImmediate(resume));
}

function due(step: number, every: number): boolean {
  return every > 0 && step % every === 0;
}

function round(value: number, places: number): number;
function round(value: number | null, places: number): number | null;
function round(value: number | null, places: number): number | null {
  return value === null ? null : Number(value.toFixed(places));
}

/** Cuts samples of later steps off, and a line without its end; each sample begins with `=== step N`. Returns the step of the last one left, or 0. */
function truncateSamples(file: string, step: number): number {
  try {
    const text = readPlain(file)?.toString("latin1") ?? "";
    const end = text.lastIndexOf("\n") + 1;
    const samples = [...text.slice(0, end).matchAll(/^=== step (\d+)$/gm)].map(({ 1: number, index }) => ({ step: Number(number), index }));
    const later = samples.findIndex((sample) => sample.step > step);
    const keep = samples[later]?.index ?? end;
    if (keep < text.length) fs.truncateSync(file, keep);
    return (later < 0 ? samples : samples.slice(0, later)).at(-1)?.step ?? 0;
  } catch (error) {
    throw ioError(error, "shorten", file);
  }
}
