// Models of other programs on disk: a folder as the Hugging Face hub has it (config.json, model.safetensors, in one file or in
// shards), or a lone safetensors file. Only read. Not what config.json means: src/models/transformer-foreign.ts.
import fs from "node:fs";
import path from "node:path";
import { EggError } from "../errors.ts";
import type { TensorEntry } from "../models/tensors.ts";
import { expectSizes, foreignShape, shapeOfTensors } from "../models/transformer-foreign.ts";
import type { TransformerShape } from "../models/transformer-shape.ts";
import { ioError } from "./files.ts";
import { openSource, readPlain } from "./reading.ts";
import { readSafetensors } from "./safetensors.ts";

export interface ForeignModel {
  shape: TransformerShape;
  /** As the files have them; loadTransformer (src/models/transformer-names.ts) takes them so. */
  tensors: Map<string, TensorEntry>;
  /** The file or folder, for messages. */
  where: string;
}

/** JSON beside weights is small. */
const longestJson = 64 * 2 ** 20;
const shardName = /^[\w.-]+\.safetensors$/;

/**
 * Reads a model of model_type gpt2 or llama.
 * @param heads of attention, where no config.json says it
 * @throws EggError("data") for a model that egg does not compute, "corrupt" for damaged files, "usage" where there are none
 */
export function openForeign(place: string, heads: number | null = null): ForeignModel {
  const isFolder = isDirectory(place);
  const folder = isFolder ? place : path.dirname(place);
  const configFile = path.join(folder, "config.json");
  const config = readJson(configFile);
  const shape = config === null ? null : foreignShape(config, configFile);
  const tensors = new Map<string, TensorEntry>();
  for (const file of isFolder ? weightFiles(folder) : [place]) {
    for (const [name, tensor] of readSafetensors(openSource(file), file).tensors) {
      if (tensors.has(name)) throw new EggError("corrupt", `[checkpoint] ${file}: tensor ${name} stands in another shard too.`);
      tensors.set(name, tensor);
    }
  }
  if (shape !== null) expectSizes(shape, tensors, configFile);
  return { shape: shape ?? shapeOfTensors(tensors, heads, place), tensors, where: place };
}

function isDirectory(place: string): boolean {
  try {
    return fs.statSync(place).isDirectory();
  } catch (error) {
    throw ioError(error, "open", place);
  }
}

function readJson(file: string): unknown {
  const bytes = readPlain(file, longestJson);
  if (bytes === null) return null;
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new EggError("corrupt", `[checkpoint] ${file}: not JSON.`, { cause: error });
  }
}

/** One file, or the shards that an index names: plain names of the same folder, nothing else. */
function weightFiles(folder: string): string[] {
  const whole = path.join(folder, "model.safetensors");
  const indexFile = `${whole}.index.json`;
  const index = fs.existsSync(whole) ? null : readJson(indexFile);
  if (index === null) {
    if (fs.existsSync(whole)) return [whole];
    throw new EggError("data", `[checkpoint] ${folder}: no model.safetensors and no model.safetensors.index.json.`, { hint: "Egg reads safetensors only; convert other formats first." });
  }
  const map = (index as { weight_map?: unknown }).weight_map;
  const names = typeof map === "object" && map !== null ? [...new Set(Object.values(map))] : [];
  const strange = names.find((name) => typeof name !== "string" || !shardName.test(name));
  if (names.length === 0 || strange !== undefined) {
    throw new EggError("corrupt", `[checkpoint] ${indexFile}: weight_map ${names.length === 0 ? "names no file" : `names ${JSON.stringify(strange)}, which is not a .safetensors file of this folder`}.`);
  }
  return (names as string[]).sort().map((name) => path.join(folder, name));
}

/** Whether a place holds a model, and not one that egg trained: whose checkpoints carry a hash of their content. */
export function isForeign(place: string): boolean {
  const found = fs.statSync(place, { throwIfNoEntry: false });
  try {
    if (found?.isDirectory()) return ["model.safetensors", "model.safetensors.index.json"].some((name) => fs.existsSync(path.join(place, name))) || "model_type" in Object(readJson(path.join(place, "config.json")));
    if (found?.isFile() !== true) return false;
    return !("content_sha256" in readSafetensors(openSource(place), place).metadata);
  } catch {
    return false; // who reads it as egg's own says what is wrong with it
  }
}
