// A trained model by the RUN word of the command line: finds the checkpoint, checks it, puts it into native memory.
// Not the container (src/run/checkpoint.ts) and not the meaning of RUN (src/run/folder.ts). Read next: generate.ts, eval.ts.
import { EggError } from "../errors.ts";
import { accepts, knobAt, valueAt, type Config, type KnobPath } from "../config/knobs.ts";
import { tokenizers, type Tokenizer } from "../data/tokenizer.ts";
import { writeWeights } from "../models/egg.ts";
import { NativeModel } from "../native/int8.ts";
import { openContext } from "../native/machine.ts";
import { createTerminal } from "../report/terminal.ts";
import { loadCheckpoint, loadLatest, type LoadedCheckpoint } from "../run/checkpoint.ts";
import { resolveRun } from "../run/folder.ts";

export interface Trained {
  model: NativeModel;
  tokenizer: Tokenizer;
  config: Config;
  checkpoint: LoadedCheckpoint;
}

/**
 * Opens the newest good checkpoint of a run folder, or one file; says which damaged ones it passed over.
 * @throws EggError where there is none, or where it holds no model of egg
 */
export function openModel(run: string): Trained {
  const { kind, path } = resolveRun(run);
  const checkpoint = kind === "checkpoint" ? loadCheckpoint(path) : newest(path);
  const config = configOf(checkpoint);
  const tokenizer = tokenizers[config.data.tokenizer];
  const model = new NativeModel(openContext(config.device.threads), { layers: config.model.layers, hidden: config.model.hidden, vocabulary: tokenizer.vocabulary });
  writeWeights(model, checkpoint.tensors);
  return { model, tokenizer, config, checkpoint };
}

/** What the commands need to know of the run; other knobs may have come or gone since it was written. */
const needed: readonly KnobPath[] = ["model.type", "model.hidden", "model.layers", "data.path", "data.validation", "data.tokenizer", "device.threads"];

function configOf({ path, config, program }: LoadedCheckpoint): Config {
  try {
    const parsed = JSON.parse(config) as Config;
    if (needed.every((knob) => accepts(knobAt(knob)!, valueAt(parsed, knob)))) return parsed;
  } catch {
    // no JSON: the same trouble
  }
  throw new EggError("corrupt", `[checkpoint] ${path}: its config is none that this version of egg can use; egg ${program} wrote it.`, {
    hint: "Use the version of egg that wrote it.",
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
