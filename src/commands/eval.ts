// `egg eval`: the loss of a trained model on text, in exact bits per byte. Without --data: the run's own held-out text.
// Not the measuring: src/models/evaluate.ts. Read next: trained.ts, which finds and opens the model.
import { defineCommand } from "citty";
import { openCorpus, splitCorpus } from "../data/corpus.ts";
import { EggError } from "../errors.ts";
import { formatLoss } from "../report/progress.ts";
import { writeOut } from "../report/terminal.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";
import { checkpointArg, openModel } from "./trained.ts";

export const args = {
  run: { type: "positional", description: "run folder or checkpoint file", required: true },
  data: { type: "string", description: "text to measure on: a file, a folder or a built-in corpus; default: what the run held out", valueHint: "PATH" },
  checkpoint: checkpointArg,
  json: { type: "boolean", description: "print one line of JSON" },
} satisfies StrictArgs;

const command = defineCommand({ meta: { description: "measure a trained model on text" }, args });

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg eval", command));
    return 0;
  }
  const { values } = parseArguments("eval", args, argv);
  const { model, config, checkpoint } = openModel(values.run, values.checkpoint);
  const corpus = await openCorpus(values.data ?? config.data.path);
  const text = values.data === undefined ? splitCorpus(corpus, config.data.validation).heldOut : corpus;
  if (text === null) {
    throw new EggError("usage", `[eval] ${values.run}: the run held no text out (data.validation is 0).`, { hint: "Name a text with --data PATH." });
  }
  if (values.data !== undefined && text.bytes < 2) {
    throw new EggError("data", `[eval] ${text.name}: an evaluation needs 2 bytes, found ${text.bytes}.`, { hint: "Name a longer text with --data." });
  }
  const loss = (await model.loss(text, Infinity))!; // never cancelled: a signal ends the process, which leaves nothing behind
  corpus.close();
  const result = {
    run: values.run,
    step: checkpoint.step,
    data: text.name,
    tokens: loss.tokens,
    bits_per_byte: Number(loss.bitsPerByte.toFixed(6)),
    ...(loss.lossInteger === undefined ? {} : { loss_integer: Number(loss.lossInteger.toFixed(6)) }),
    entropy_bits_per_byte: text.entropyBitsPerByte,
  };
  if (values.json) {
    writeOut(`${JSON.stringify(result)}\n`);
    return 0;
  }
  const floor = text.entropyBitsPerByte === null ? "" : `, entropy floor ${formatLoss(text.entropyBitsPerByte)}`;
  writeOut(`${formatLoss(loss.bitsPerByte)} bits/byte on ${loss.tokens.toLocaleString("en")} bytes of ${text.name} (step ${checkpoint.step}${floor})\n`);
  return 0;
}
