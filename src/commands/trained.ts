// A trained model by the RUN word of the command line: finds the checkpoint, checks it, puts it into native memory.
import { EggError } from "../errors.ts";
import type { Config } from "../config/knobs.ts";
import { writeWeights } from "../models/egg.ts";
import { NativeModel } from "../native/int8.ts";
import { openContext } from "../native/machine.ts";
import { createTerminal } from "../report/terminal.ts";
import { loadCheckpoint, loadLatest, type LoadedCheckpoint } from "../run/checkpoint.ts";
import { resolveRun } from "../run/folder.ts";

export interface Trained {
  model: NativeModel;
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
  const config = JSON.parse(checkpoint.config) as Config;
  const model = new NativeModel(openContext(config.device.threads), { layers: config.model.layers, hidden: config.model.hidden, vocabulary: 256 });
  writeWeights(model, checkpoint.tensors);
  return { model, config, checkpoint };
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
