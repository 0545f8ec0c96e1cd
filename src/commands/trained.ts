// A trained model by the RUN word of the command line: finds the checkpoint, checks it, puts it into native memory.
// Not the container (src/run/checkpoint.ts) and not the meaning of RUN (src/run/folder.ts). Read next: generate.ts, eval.ts.
import { EggError } from "../errors.ts";
import { accepts, appliesTo, knobAt, valueAt, type Config, type KnobPath } from "../config/knobs.ts";
import { tokenizers, type Tokenizer } from "../data/tokenizer.ts";
import { openTextModel, type TextModel } from "../models/text-model.ts";
import { openContext } from "../native/machine.ts";
import { createTerminal } from "../report/terminal.ts";
import { loadBest, loadCheckpoint, loadLatest, type LoadedCheckpoint } from "../run/checkpoint.ts";
import { resolveRun } from "../run/folder.ts";
import type { StrictArg } from "./arguments.ts";

/** Which checkpoint of a run folder: the newest is the one that the run's summary tells of. */
export const checkpointArg = {
  type: "enum", options: ["newest", "best"], default: "newest",
  description: "which checkpoint of a run folder: the newest, or the one with the lowest held-out loss",
} as const satisfies StrictArg;

export interface Trained {
  model: TextModel;
  tokenizer: Tokenizer;
  config: Config;
  checkpoint: LoadedCheckpoint;
}

/**
 * Opens the newest good checkpoint of a run folder, the best one, or one file; says which damaged ones it passed over.
 * @throws EggError where there is none, or where it holds no model of egg
 */
export function openModel(run: string, which: string): Trained {
  const { kind, path } = resolveRun(run);
  const checkpoint = kind === "checkpoint" ? loadCheckpoint(path) : which === "best" ? best(path) : newest(path);
  const config = configOf(checkpoint);
  const tokenizer = tokenizers[config.data.tokenizer];
  return { model: openTextModel(openContext(config.device.threads), config, checkpoint.tensors), tokenizer, config, checkpoint };
}

/** What the commands need to know of the run; other knobs may have come or gone since it was written. */
const needed: readonly KnobPath[] = ["model.type", "trainer.rule", "model.order", "model.table_bits", "model.hidden", "model.layers", "data.path", "data.validation", "data.tokenizer", "device.threads"];

/** The config that a checkpoint holds. @throws EggError("corrupt") where this version cannot use it */
export function configOf({ path, config, program }: LoadedCheckpoint): Config {
  try {
    const parsed = JSON.parse(config) as Config;
    const rule = knobAt("trainer.rule")!;
    const known = (path: KnobPath) => accepts(knobAt(path)!, valueAt(parsed, path));
    if (accepts(rule, valueAt(parsed, "trainer.rule")) && needed.every((path) => !appliesTo(knobAt(path)!, parsed.trainer.rule) || known(path))) return parsed;
  } catch {
    // no JSON: the same trouble
  }
  throw new EggError("corrupt", `[checkpoint] ${path}: its config is none that this version of egg can use; egg ${program} wrote it.`, {
    hint: "Use the version of egg that wrote it.",
  });
}

function best(folder: string): LoadedCheckpoint {
  const found = loadBest(folder);
  if (found !== null) return found;
  throw new EggError("usage", `[run] ${folder}: has no checkpoint whose held-out loss was measured.`, {
    hint: "Leave out --checkpoint best. A run measures it every run.eval_every steps, where data.validation is above 0.",
  });
}

function newest(folder: string): LoadedCheckpoint {
  const found = loadLatest(folder);
  if (found === null) {
    throw new EggError("usage", `[run] ${folder}: has no checkpoint yet.`, { hint: "Train it first; a checkpoint is saved every run.checkpoint_every steps and at the end." });
  }
  const terminal = createTerminal({ quiet: false });
  for (const { reason } of found.passedOver) terminal.warn(`passed over a damaged checkpoint: ${reason}`);
  return found.checkpoint;
}
