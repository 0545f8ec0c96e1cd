// A trained model by the RUN word of the command line: finds the checkpoint, checks it, puts it into native memory.
// Not the container (src/run/checkpoint.ts) and not the meaning of RUN (src/run/folder.ts). Read next: generate.ts, eval.ts.
import fs from "node:fs";
import path from "node:path";
import { EggError } from "../errors.ts";
import { accepts, appliesTo, descends, knobAt, methodOf, methods, valueAt, type Config, type KnobPath } from "../config/knobs.ts";
import { presetConfig } from "../config/presets.ts";
import { openTokenizer, tokenizerFrom, type Tokenizer } from "../data/tokenizer.ts";
import type { Start } from "../learners/backprop.ts";
import { openTextModel, shapeOfSaved, type TextModel } from "../models/text-model.ts";
import { knobsOfShape } from "../models/transformer-shape.ts";
import { openContext } from "../native/machine.ts";
import { createTerminal } from "../report/terminal.ts";
import { loadBest, loadCheckpoint, loadLatest, type LoadedCheckpoint } from "../run/checkpoint.ts";
import { canonicalJson, resolveRun } from "../run/folder.ts";
import { isForeign, openForeign } from "../run/foreign.ts";
import type { StrictArg } from "./arguments.ts";

/** Which checkpoint of a run folder: the newest is the one that the run's summary tells of. */
export const checkpointArg = {
  type: "enum", options: ["newest", "best"], default: "newest",
  description: "which checkpoint of a run folder: the newest, or the one with the lowest held-out loss",
} as const satisfies StrictArg;

/** What weights are computed with. */
export const weightsArg = {
  type: "enum", options: ["f32", "int8"], default: "f32",
  description: "int8: round the weights of products to int8 with a scale a row, a quarter of the memory and faster (gpt and llama models)",
} as const satisfies StrictArg;

export interface Trained {
  model: TextModel;
  config: Config;
  /** Its weights are in the model, and not kept twice. */
  checkpoint: Omit<LoadedCheckpoint, "tensors">;
}

/**
 * Opens the newest good checkpoint of a run folder, the best one, or one file; says which damaged ones it passed over. Also a model of
 * another program, a folder as the Hugging Face hub has it.
 * @param weights "f32" or "int8", as --weights says
 * @throws EggError where there is none, or where it holds no model that egg can compute, or none whose weights could be rounded
 */
export function openModel(run: string, which: string, weights: string): Trained {
  const trained = loadModel(run, which, weights);
  Bun.gc(true); // the pieces of the file that the model has copied
  return trained;
}

function loadModel(run: string, which: string, weights: string): Trained {
  const { config, checkpoint: { tensors, ...checkpoint } } = readModel(run, which);
  checkWeights(run, config, weights);
  return { model: openTextModel(openContext(config.device.threads), config, tensors, checkpoint.tokenizer, weights === "int8"), config, checkpoint };
}

/** @throws EggError("usage") where --weights int8 says nothing */
export function checkWeights(run: string, config: Config, weights: string): void {
  if (weights === "int8" && !descends(config)) {
    throw new EggError("usage", `[model] ${run}: a model of the type ${config.model.type}, whose weights are int8 already.`, { hint: "Leave out --weights int8. It is for gpt and llama models." });
  }
}

interface Read { config: Config; checkpoint: LoadedCheckpoint }

function readModel(run: string, which: string): Read {
  return isForeign(run) ? readForeign(run) : openCheckpoint(run, which);
}

/** The tokenizer.json of a model of another program; null where there is none. */
export function tokenizerBeside(place: string): string | null {
  const file = path.join(fs.statSync(place).isDirectory() ? place : path.dirname(place), "tokenizer.json");
  return fs.existsSync(file) ? file : null;
}

/** A model of another program, as if a run had saved it that held nothing out. */
function readForeign(place: string): Read {
  const { shape, tensors } = openForeign(place);
  const words = tokenizerBeside(place);
  if (words === null && shape.vocabulary !== 256) {
    throw new EggError("data", `[checkpoint] ${place}: there is no tokenizer.json beside it, and its ${shape.vocabulary.toLocaleString("en")} tokens are not bytes.`, { hint: "Put the model's tokenizer.json there." });
  }
  const tokenizer = openTokenizer(words ?? "bytes", null).definition;
  const config = presetConfig("gpt-nano");
  config.data = { ...config.data, validation: 0 };
  Object.assign(config.model, knobsOfShape(shape));
  return { config, checkpoint: { step: 0, tensors, config: canonicalJson(config), tokenizer, dataCursor: "{}", program: "another program", valBitsPerByte: null, path: place, contentSha256: "" } };
}

/**
 * The weights that model.from names: a run, a checkpoint, or a model of another program.
 * @throws EggError("data") where its tokens are not those of this run
 */
export function openStart(from: string, tokenizer: Tokenizer): Start {
  const { config, checkpoint } = readModel(from, "newest");
  if (!descends(config)) throw new EggError("data", `[model] model.from ${from}: holds a model of trainer.type ${config.trainer.type}, which gradients do not train.`, { hint: "Name a run of trainer.type backprop." });
  if (checkpoint.tokenizer !== tokenizer.definition) {
    throw new EggError("data", `[model] model.from ${from}: its tokens are ${tokenizerFrom(checkpoint.tokenizer).name}, this run's are ${tokenizer.name}, and not the same.`, { hint: "Give data.tokenizer the tokenizer.json that it was trained with." });
  }
  return { shape: shapeOfSaved(config, checkpoint.tensors, checkpoint.tokenizer), tensors: checkpoint.tensors, where: from };
}

/** A checkpoint of egg's own, as openModel finds it, without its model. */
export function openCheckpoint(run: string, which: string): Read {
  const { kind, path } = resolveRun(run);
  const checkpoint = kind === "checkpoint" ? loadCheckpoint(path) : which === "best" ? best(path) : newest(path);
  return { checkpoint, config: configOf(checkpoint) };
}

/** What the commands need to know of the run; other knobs may have come or gone since it was written. */
const needed: readonly KnobPath[] = [
  "model.type", "trainer.type", "trainer.rule", "model.order", "model.table_bits", "model.hidden", "model.width", "model.layers", "model.heads", "model.kv_heads", "model.feed_forward_width", "model.block",
  "model.norm", "model.position", "model.feed_forward", "model.bias", "model.tied", "model.rope_base", "model.norm_eps", "model.dropout", "data.path", "data.validation", "data.tokenizer", "device.threads",
];

/** The config that a checkpoint holds. @throws EggError("corrupt") where this version cannot use it */
export function configOf({ path, config, program }: LoadedCheckpoint): Config {
  try {
    const parsed = JSON.parse(config) as Config;
    const method = methodOf(parsed);
    const known = (path: KnobPath) => accepts(knobAt(path)!, valueAt(parsed, path));
    if ((methods as readonly unknown[]).includes(method) && needed.every((path) => !appliesTo(knobAt(path)!, method) || known(path))) return parsed;
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
