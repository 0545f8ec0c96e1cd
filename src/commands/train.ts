// `egg train`: reads the config, opens the text, lets the run loop work, and shows how it goes.
// No training here: src/run/loop.ts drives, src/learners/ learn. Read next: src/run/loop.ts.
import path from "node:path";
import { defineCommand } from "citty";
import { evolves, knobAt, type Config } from "../config/knobs.ts";
import { effectiveConfigText, loadConfig } from "../config/load.ts";
import { openCorpus, type Corpus } from "../data/corpus.ts";
import { tokenizerContent } from "../data/tokenizer.ts";
import { EggError } from "../errors.ts";
import { createLearner, openText } from "../learners/create.ts";
import type { Learner } from "../learners/learner.ts";
import { chooseTier, openContext, tryLockFile } from "../native/machine.ts";
import { dryRunJson, dryRunTable, type DryRun } from "../report/estimate.ts";
import { profileTable } from "../report/profile.ts";
import { createProgress, formatLoss, type Progress } from "../report/progress.ts";
import { shellWord, summaryJson, summaryTable } from "../report/summary.ts";
import { createTerminal, writeOut, type Terminal } from "../report/terminal.ts";
import { plainSample, showSample } from "../report/text.ts";
import { estimateTime } from "../run/estimate.ts";
import { writeDurably } from "../run/files.ts";
import { newestCheckpoint, runFolder, runState } from "../run/folder.ts";
import { runLoop, type RunListener } from "../run/loop.ts";
import { admitPlan, type PeakPlan } from "../run/memory.ts";
import { firstMetrics } from "../run/metrics.ts";
import { dieBySignal } from "../run/signals.ts";
import type { Summary } from "../run/summary.ts";
import { Profiler } from "../tensor/profile.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";
import { program } from "./program.ts";
import { originFor } from "./start.ts";

export const args = {
  config: { type: "string", alias: "c", description: "config file (JSON, comments allowed); without it the default preset", valueHint: "FILE" },
  set: { type: "string", description: "set one knob, such as trainer.population=64", valueHint: "PATH=VALUE", repeated: true },
  out: { type: "string", description: "folder for run folders, instead of run.out", valueHint: "DIR" },
  name: { type: "string", description: "name of the run, instead of the preset's", valueHint: "NAME" },
  threads: { type: "string", kind: "integer", min: 1, max: 1024, description: "threads that compute, instead of device.threads", valueHint: "N" },
  force: { type: "boolean", description: "start over: delete what an earlier run of this config left" },
  "debug-stats": { type: "boolean", description: "write entropy, size and saturation of each tensor to debug-stats.jsonl at evaluations" },
  profile: { type: "boolean", description: "trainer.type backprop: say at the end where the time went, and write it to profile.json" },
  "dry-run": { type: "boolean", description: "say what would run, how much memory and time it would take, and write nothing" },
  json: { type: "boolean", description: "print the summary as one line of JSON on standard output" },
  quiet: { type: "boolean", alias: "q", description: "show warnings and errors only" },
} satisfies StrictArgs;

const command = defineCommand({ meta: { description: "train a model; an unfinished run goes on where it stopped" }, args });

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg train", command));
    return 0;
  }
  const { values, repeated } = parseArguments("train", args, argv);
  const { config } = loadConfig({
    ...(values.config === undefined ? {} : { file: values.config }),
    sets: repeated.set,
    flags: { "run.out": { flag: "--out", value: values.out }, "device.threads": { flag: "--threads", value: values.threads } },
  });
  const terminal = createTerminal({ quiet: values.quiet });
  const corpus = await openCorpus(config.data.path);
  try {
    const folder = runFolder(config, values.name, corpus.fingerprint() + tokenizerContent(config.data.tokenizer));
    const again = commandText({ "--config": values.config, "--set": repeated.set, "--out": values.out, "--name": values.name, "--threads": values.threads }) + (values["debug-stats"] ? " --debug-stats" : "");
    const report = (summary: Summary, view: View | null): void => {
      if (summary.stopped_by === "minutes" || summary.stopped_by === "patience") terminal.info(endText(summary, config));
      // The entropy of a built-in text takes longer to work out than all else that a finished run does.
      if (!terminal.quiet) {
        terminal.print(summaryTable(summary, {
          folder,
          firstTrainBitsPerByte: firstMetrics(path.join(folder, "metrics.jsonl"))?.train_bits_per_byte ?? null,
          firstHeldOutBitsPerByte: view?.firstHeldOut ?? null,
          entropyBitsPerByte: corpus.entropyBitsPerByte,
          prompt: promptToTry(config),
          resumeCommand: summary.status === "interrupted" ? again : null,
          colors: terminal.colors,
        }));
      }
      if (values.json) writeOut(summaryJson(summary));
    };

    const tell = (dryRun: DryRun): void => {
      terminal.print(dryRunTable(dryRun, terminal.colors));
      writeOut(values.json ? dryRunJson(dryRun) : effectiveConfigText(config));
    };

    const { state, summary: known } = runState(folder);
    const over = state === "finished" && !values.force;
    if (values["dry-run"] && over) {
      tell({ folder, state, config, estimate: null });
      return 0;
    }
    if (over) {
      terminal.info(`${folder} is finished; --force starts it over`);
      report(known!, null);
      return 0;
    }

    // What can be refused is refused before there is a folder.
    const saved = values.force ? null : newestCheckpoint(folder);
    const text = openText(config, corpus, originFor(saved === null ? null : folder));
    const tokenizer = text.kind === "tokens" ? text.tokenizer.name : null;
    if (values.profile && text.kind !== "tokens") throw new EggError("usage", `[train] --profile: tells where the time of trainer.type backprop goes, and this config has ${config.trainer.type}.`, { hint: "egg bench step tells where the time of EGGROLL goes." });
    const profiler = values.profile ? new Profiler() : null;
    const tier = chooseTier();
    const prepare = (): { learner: Learner; plan: PeakPlan } => {
      let plan: PeakPlan;
      const learner = createLearner(text, openContext(config.device.threads, tier), (parts, held) => {
        plan = admitPlan(parts, { steps: config.run.steps - (saved?.step ?? 0), warm: text.kind === "bytes" && config.data.path.startsWith("builtin:") }, held);
      }, profiler);
      return { learner, plan: plan! };
    };
    if (values["dry-run"]) {
      const { learner, plan } = prepare();
      const time = await estimateTime(learner, config, saved?.step ?? 0);
      tell({ folder, state: values.force ? "new" : state, config, estimate: { plan, time, stepsDone: saved?.step ?? 0, parameters: learner.parameters, tokensPerStep: learner.tokensPerStep, unit: learner.unit } });
      return 0;
    }
    const view = new View(terminal, corpus, tokenizer, config.run.steps);
    const { summary, signal } = await runLoop({
      config,
      folder,
      force: values.force,
      debugStats: values["debug-stats"],
      prompt: text.prompt,
      tokenizer,
      program,
      createLearner: () => prepare().learner,
      formatSample: plainSample,
      tryLock: tryLockFile,
      listener: view,
    });
    view.end();
    report(summary, view);
    if (profiler !== null && profiler.steps > 0) {
      const profile = profiler.report();
      writeDurably(path.join(folder, "profile.json"), [Buffer.from(summaryJson(profile))]);
      terminal.print(profileTable(profile, terminal.colors));
    }
    if (signal !== null) {
      const rest = summary.status === "finished" ? "the run is finished" : "the checkpoint is saved, the same command goes on from it";
      terminal.info(`stopped by ${signal} after step ${summary.steps}; ${rest}`);
      dieBySignal(signal);
    }
    return 0;
  } finally {
    corpus.close();
  }
}

/** What the run loop tells, on the screen. */
class View implements RunListener {
  readonly #terminal: Terminal;
  readonly #corpus: Corpus;
  readonly #tokenizer: string | null;
  readonly #steps: number;
  #progress: Progress | null = null;
  #fromStart = true;
  /** Held-out loss at the start of the run; null where this process did not see it. */
  firstHeldOut: number | null = null;

  constructor(terminal: Terminal, corpus: Corpus, tokenizer: string | null, steps: number) {
    this.#terminal = terminal;
    this.#corpus = corpus;
    this.#tokenizer = tokenizer;
    this.#steps = steps;
  }

  started: RunListener["started"] = (learner, resumed) => {
    this.#fromStart = resumed === null;
    if (this.#terminal.quiet) return;
    const floor = this.#corpus.entropyBitsPerByte;
    this.#terminal.info(
      `${this.#corpus.name}: ${this.#corpus.bytes.toLocaleString("en")} bytes${floor === null ? "" : `, entropy ${formatLoss(floor)} bits/byte`}; ` +
        `${learner.parameters.toLocaleString("en")} ${learner.weights} weights, ${this.#tokenizer === null ? "" : `${this.#tokenizer}, `}${learner.population === null ? "" : `population ${learner.population.toLocaleString("en")}, `}${learner.backend}, ${learner.threads} ${learner.threads === 1 ? "thread" : "threads"}`,
    );
    if (resumed !== null) this.#terminal.info(`going on from step ${resumed.step} (${path.basename(resumed.path)})`);
    this.#progress = createProgress(this.#terminal, {
      firstStep: resumed?.step ?? 0,
      steps: this.#steps,
      floor,
      tokensPerStep: learner.tokensPerStep,
      unit: learner.unit,
      now: () => performance.now() / 1000,
    });
  };

  warned: RunListener["warned"] = (message) => this.#terminal.warn(message);
  within: RunListener["within"] = (share) => this.#progress?.within(share);

  stepped: RunListener["stepped"] = (line, seconds) => {
    this.#progress?.step({ step: line.step, trainBitsPerByte: line.train_bits_per_byte, seconds });
  };

  evaluated: RunListener["evaluated"] = (_step, bitsPerByte) => {
    if (this.#fromStart) this.firstHeldOut ??= bitsPerByte;
    this.#progress?.evaluated(bitsPerByte);
  };

  sampled: RunListener["sampled"] = (step, sample) => {
    this.#progress?.pause();
    this.#terminal.print(`${this.#terminal.colors.dim(`step ${step} writes:`)}\n${showSample(sample, this.#terminal.colors)}`);
    this.#progress?.resume();
  };

  stopping: RunListener["stopping"] = (signal) => {
    this.#terminal.info(`${signal}: stopping; once more to stop at once and lose the steps since the last checkpoint`);
  };

  end(): void {
    this.#progress?.finish();
  }
}

/** Why a run ended before its steps were done, and what to make of it. */
function endText({ stopped_by, steps }: Summary, { run }: Config): string {
  if (stopped_by === "minutes") return `stopped after step ${steps}: run.minutes (${run.minutes}) are over`;
  const evaluations = `${run.patience} ${run.patience === 1 ? "evaluation" : "evaluations"}`;
  return `stopped after step ${steps}: ${run.stop_metric} has not improved for ${evaluations}; --checkpoint best takes the weights with the lowest held-out loss`;
}

/** A prompt that the model can read, and that a command line shows well: the run's own, or any where the model reads bytes; else "". */
function promptToTry(config: Config): string {
  const { prompt } = config.run;
  if (prompt === knobAt("run.prompt")!.default) return evolves(config) ? "Once upon a time" : "";
  return /^[^\p{C}-][^\p{C}]{0,59}$/u.test(prompt) ? prompt : "";
}

/** The command that was typed, for the person to type again. */
function commandText(options: Record<string, undefined | string | number | readonly string[]>): string {
  const words = Object.entries(options).flatMap(([option, value]) => [value ?? []].flat().flatMap((each) => [option, shellWord(String(each))]));
  return ["egg", "train", ...words].join(" ");
}
