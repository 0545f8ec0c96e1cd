// `egg generate`: continues a prompt with a trained model; the text goes to standard output, byte for byte.
// Not the model (src/models/generate.ts) and not the rule of choice (src/models/sampling.ts).
import { defineCommand } from "citty";
import { generate } from "../models/generate.ts";
import { checkSampling } from "../models/sampling.ts";
import { createTextStream } from "../report/text.ts";
import { colorsFor, isTerminal, writeOut } from "../report/terminal.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";
import { openModel } from "./trained.ts";

const args = {
  run: { type: "positional", description: "run folder or checkpoint file", required: true },
  prompt: { type: "string", description: "text to continue", default: "", valueHint: "TEXT" },
  tokens: { type: "string", kind: "integer", min: 0, max: 100_000_000, default: "256", description: "tokens to write", valueHint: "N" },
  temperature: { type: "string", kind: "number", min: 0, max: 100, default: "1", description: "0 always takes the likeliest token", valueHint: "T" },
  "top-k": { type: "string", kind: "integer", min: 0, max: 1_000_000, default: "0", description: "choose among the K likeliest tokens; 0 among all", valueHint: "K" },
  "top-p": { type: "string", kind: "number", min: 0, max: 1, default: "1", description: "choose among the fewest that hold this share of the probability", valueHint: "P" },
  "min-p": { type: "string", kind: "number", min: 0, max: 1, default: "0", description: "leave out tokens less likely than this share of the likeliest", valueHint: "P" },
  seed: { type: "string", kind: "integer", min: 0, max: Number.MAX_SAFE_INTEGER, default: "0", description: "the same seed gives the same text", valueHint: "S" },
} satisfies StrictArgs;

const command = defineCommand({ meta: { description: "continue a text with a trained model" }, args });

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg generate", command));
    return 0;
  }
  const { values } = parseArguments("generate", args, argv);
  const options = { temperature: values.temperature, top_k: values["top-k"], top_p: values["top-p"], min_p: values["min-p"] };
  checkSampling(options);
  const { model, tokenizer } = openModel(values.run);
  const prompt = new TextEncoder().encode(values.prompt);
  const tokens = generate(model, Uint8Array.from(tokenizer.encode(prompt)), values.tokens, options, values.seed);

  // A terminal gets text that is safe to show, anything else the bytes themselves.
  if (!isTerminal(1)) {
    let open = writeOut(prompt);
    for (const token of tokens) if (!(open = open && writeOut(tokenizer.decode([token])))) break;
    return 0;
  }
  const colors = colorsFor(1);
  const text = createTextStream(colors);
  writeOut(colors.green(text.push(prompt)));
  for (const token of tokens) writeOut(colors.cyan(text.push(tokenizer.decode([token]))));
  writeOut(`${text.end()}\n`);
  return 0;
}
