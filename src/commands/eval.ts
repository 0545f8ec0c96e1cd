// `egg eval`: the loss of a trained model on text, in exact bits per byte. Without --data: the run's own held-out text.
// Not the measuring: src/models/evaluate.ts. Read next: trained.ts, which finds and opens the model.
import { defineCommand } from "citty";
import { openCorpus } from "../data/corpus.ts";
import { EggError } from "../errors.ts";
import { formatLoss } from "../report/progress.ts";
import { writeOut } from "../report/terminal.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";
import { checkpointArg, checkWeights, openModel, weightsArg } from "./trained.ts";

export const args = {
  run: { type: "positional", description: "run folder or checkpoint file", required: true },
  data: { type: "string", description: "text to measure on: a file, a folder or a built-in corpus; default: what the run held out", valueHint: "PATH" },
  checkpoint: checkpointArg,
  weights: { ...weightsArg, description: "int8: measure besides what rounding the weights to int8, with a scale a row, costs (gpt and llama models)" },
  json: { type: "boolean", description: "print one line of JSON" },
} satisfies StrictArgs;

const command = defineCommand({ meta: { description: "measure a trained model on text" }, args });

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg eval", command));
    return 0;
  }
  const { values } = parseArguments("eval", args, argv);
  const { model, config, checkpoint } = openModel(values.run, values.checkpoint, "f32");
  checkWeights(values.run, config, values.weights);
  const corpus = await openCorpus(values.data ?? config.data.path);
  const heldOut = values.data === undefined ? config.data.validation : undefined;
  if (heldOut === 0) {
    throw new EggError("usage", `[eval] ${values.run}: the run held no text out (data.validation is 0).`, { hint: "Name a text with --data PATH." });
  }
  if (values.data !== undefined && corpus.bytes < 2) {
    throw new EggError("data", `[eval] ${corpus.name}: an evaluation needs 2 bytes, found ${corpus.bytes}.`, { hint: "Name a longer text with --data." });
  }
  const loss = (await model.loss(corpus, Infinity, heldOut))!; // never cancelled: a signal ends the process, which leaves nothing behind
  let rounded: number | null = null;
  if (values.weights === "int8") {
    model.release?.();
    const int8 = openModel(checkpoint.path, values.checkpoint, "int8").model;
    rounded = (await int8.loss(corpus, Infinity, heldOut))!.bitsPerByte;
  }
  corpus.close();
  const result = {
    run: values.run,
    step: checkpoint.step,
    data: corpus.name,
    tokens: loss.tokens,
    bytes: loss.bytes,
    bits_per_byte: Number(loss.bitsPerByte.toFixed(6)),
    ...(rounded === null ? {} : { int8_bits_per_byte: Number(rounded.toFixed(6)) }),
    ...(loss.lossInteger === undefined ? {} : { loss_integer: Number(loss.lossInteger.toFixed(6)) }),
    entropy_bits_per_byte: corpus.entropyBitsPerByte,
  };
  if (values.json) {
    writeOut(`${JSON.stringify(result)}\n`);
    return 0;
  }
  const floor = corpus.entropyBitsPerByte === null ? "" : `, entropy floor ${formatLoss(corpus.entropyBitsPerByte)}`;
  const perToken = loss.bytes === loss.tokens ? "" : `, ${((loss.bitsPerByte * loss.bytes * Math.LN2) / loss.tokens).toFixed(4)} nats a token`;
  writeOut(`${formatLoss(loss.bitsPerByte)} bits/byte${perToken} on ${loss.bytes.toLocaleString("en")} bytes of ${corpus.name} (step ${checkpoint.step}${floor})\n`);
  if (rounded !== null) writeOut(`${formatLoss(rounded)} bits/byte with int8 weights, ${Math.abs(rounded - loss.bitsPerByte).toFixed(6)} ${rounded < loss.bitsPerByte ? "less" : "more"}\n`);
  return 0;
}
