// `egg export`: writes a trained transformer for other programs: one GGUF file for llama.cpp, or a folder as on the Hugging Face hub.
// Not the formats: src/models/gguf-llama.ts, gguf.ts and transformer-hub.ts. Read next: trained.ts, which finds the checkpoint.
import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { defineCommand } from "citty";
import { descends } from "../config/knobs.ts";
import { tokenizerFrom } from "../data/tokenizer.ts";
import { EggError } from "../errors.ts";
import { encodeGguf } from "../models/gguf.ts";
import { llamaGguf } from "../models/gguf-llama.ts";
import type { Bytes } from "../models/tensors.ts";
import { hubFiles, type Exported, type ExportType } from "../models/transformer-hub.ts";
import { expectTransformer } from "../models/transformer-names.ts";
import { shapeOfConfig } from "../models/transformer-shape.ts";
import { createTerminal, writeOut } from "../report/terminal.ts";
import { makeFolder, writeDurably } from "../run/files.ts";
import { encodeSafetensors } from "../run/safetensors.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";
import { checkpointArg, openCheckpoint } from "./trained.ts";

export const args = {
  run: { type: "positional", description: "run folder or checkpoint file", required: true },
  out: { type: "string", description: "file to write, a name that ends in .gguf; with --format safetensors a folder", required: true, valueHint: "PATH" },
  format: { type: "enum", options: ["gguf", "safetensors"], default: "gguf", description: "gguf for llama.cpp (llama models); safetensors as on the Hugging Face hub (gpt and llama models)" },
  dtype: { type: "enum", options: ["f32", "f16", "bf16"], default: "f32", description: "numbers of the weights" },
  checkpoint: checkpointArg,
  force: { type: "boolean", description: "replace what is there" },
  json: { type: "boolean", description: "print one line of JSON" },
} satisfies StrictArgs;

const command = defineCommand({ meta: { description: "write a gpt or llama model for other programs" }, args });

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg export", command));
    return 0;
  }
  const { values } = parseArguments("export", args, argv);
  const { out, format } = values;
  const dtype = values.dtype.toUpperCase() as ExportType;
  const isFile = format === "gguf";
  if (isFile !== /\.gguf$/i.test(out)) {
    throw new EggError("usage", `--out: found ${JSON.stringify(out)}, allowed ${isFile ? "a name that ends in .gguf" : "the name of a folder"}.`, {
      hint: isFile ? "--format safetensors writes a folder." : "--format gguf writes a .gguf file.",
    });
  }
  if (existsSync(out)) expectReplaceable(out, isFile, values.force);
  else if (!existsSync(dirname(resolve(out)))) throw new EggError("usage", `[export] ${out}: there is no folder ${dirname(out)}.`, { hint: `Make it first: mkdir -p ${dirname(out)}` });
  const { model, step } = exported(values.run, values.checkpoint);
  const files = isFile ? gguf(model, out, dtype) : hub(model, out, dtype);
  write(files, isFile || existsSync(out) ? null : out);
  const bytes = [...files.values()].flat().reduce((sum, { byteLength }) => sum + byteLength, 0);
  if (values.json) writeOut(`${JSON.stringify({ run: values.run, step, format, dtype: values.dtype, files: [...files.keys()], bytes })}\n`);
  else createTerminal({ quiet: false }).success(`wrote ${isFile ? out : `${[...files.keys()].map((file) => basename(file)).join(", ")} into ${out}`}: ${bytes.toLocaleString("en-US")} bytes, weights ${values.dtype}, step ${step}`);
  return 0;
}

/** Writes all of it, or nothing into a folder that is made for it. */
function write(files: ReadonlyMap<string, readonly Bytes[]>, folder: string | null): void {
  if (folder !== null) makeFolder(folder);
  try {
    for (const [file, pieces] of files) writeDurably(file, pieces);
  } catch (error) {
    if (folder !== null) rmSync(folder, { recursive: true, force: true });
    throw error;
  }
}

function expectReplaceable(out: string, isFile: boolean, force: boolean): void {
  const stat = statSync(out);
  if (isFile ? !stat.isFile() : !stat.isDirectory()) throw new EggError("usage", `[export] ${out}: is ${stat.isDirectory() ? "a folder" : isFile ? "no plain file" : "no folder"}.`, { hint: "Name another with --out." });
  if (!force && (isFile || readdirSync(out).length > 0)) {
    throw new EggError("usage", `[export] ${out}: is there already${isFile ? "" : ", and not empty"}; nothing was written.`, { hint: "Name another with --out, or replace it with --force." });
  }
}

function exported(run: string, which: string): { model: Exported; step: number } {
  const { checkpoint, config } = openCheckpoint(run, which);
  if (!descends(config)) {
    throw new EggError("usage", `[export] ${run}: a model of the type ${config.model.type}, which no other program knows; gpt and llama models can be exported.`, {
      hint: "Its checkpoints are safetensors files, which other programs can read as they are. A model of the type llama: egg --set preset=llama-tiny",
    });
  }
  const tokenizer = tokenizerFrom(checkpoint.tokenizer);
  const shape = shapeOfConfig(config, tokenizer.vocabulary);
  expectTransformer(shape, checkpoint.tensors);
  const tensors = new Map([...checkpoint.tensors].filter(([name]) => !name.startsWith("state.")));
  const folder = resolve(checkpoint.path, "../..");
  return { model: { name: basename(folder), shape, tokenizer, tensors }, step: checkpoint.step };
}

function gguf(model: Exported, out: string, dtype: ExportType): Map<string, readonly Bytes[]> {
  const { values, tensors, vocabulary } = llamaGguf(model, dtype);
  if (vocabulary.lost !== null) {
    createTerminal({ quiet: false }).warn(`a GGUF vocabulary needs a token that ends a text, and this one has none: llama.cpp will stop at the character ${JSON.stringify(vocabulary.lost)}. Models with the tokenizers bytes and bpe have no such gap.`);
  }
  return new Map([[out, encodeGguf(values, tensors)]]);
}

function hub(model: Exported, out: string, dtype: ExportType): Map<string, readonly Bytes[]> {
  const { tensors, texts } = hubFiles(model, dtype);
  const files: [string, readonly Bytes[]][] = [["model.safetensors", encodeSafetensors(tensors, { format: "pt" })], ...[...texts].map(([name, text]): [string, Bytes[]] => [name, [new TextEncoder().encode(text)]])];
  return new Map(files.map(([name, pieces]) => [join(out, name), pieces]));
}
