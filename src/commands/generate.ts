// `egg generate`: continues a prompt with a trained model; the text goes to standard output, byte for byte.
// Not the model (src/models/generate.ts) and not the rule of choice (src/models/sampling.ts).
import { defineCommand } from "citty";
import { checkSampling } from "../models/sampling.ts";
import { createTextStream } from "../report/text.ts";
import { colorsFor, createTerminal, isTerminal, writeOut } from "../report/terminal.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";
import { checkpointArg, openModel } from "./trained.ts";

export const args = {
  run: { type: "positional", description: "run folder or checkpoint file", required: true },
  checkpoint: checkpointArg,
  prompt: { type: "string", description: "text to continue", default: "", valueHint: "TEXT" },
  tokens: { type: "string", kind: "integer", min: 0, max: 100_000_000, default: "256", description: "tokens to write", valueHint: "N" },
  temperature: { type: "string", kind: "number", min: 0, max: 100, default: "1", description: "0 always takes the likeliest token", valueHint: "T" },
  "top-k": { type: "string", kind: "integer", min: 0, max: 1_000_000, default: "0", description: "choose among the K likeliest tokens; 0 among all", valueHint: "K" },
  "top-p": { type: "string", kind: "number", min: 0, max: 1, default: "1", description: "choose among the fewest that hold this share of the probability", valueHint: "P" },
  "min-p": { type: "string", kind: "number", min: 0, max: 1, default: "0", description: "leave out tokens less likely than this share of the likeliest", valueHint: "P" },
  seed: { type: "string", kind: "integer", min: 0, max: Number.MAX_SAFE_INTEGER, default: "0", description: "the same seed gives the same text", valueHint: "S" },
  quiet: { type: "boolean", alias: "q", description: "write the text and nothing else" },
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
  const { model, tokenizer } = openModel(values.run, values.checkpoint);
  const prompt = new TextEncoder().encode(values.prompt);
  const rate = new Rate(prompt.length);
  const tokens = rate.watch(model.generate(Uint8Array.from(tokenizer.encode(prompt)), values.tokens, options, values.seed));

  // A terminal gets text that is safe to show, anything else the bytes themselves.
  if (!isTerminal(1)) {
    let open = writeOut(prompt);
    for (const token of tokens) if (!(open = open && writeOut(tokenizer.decode([token])))) return 0;
  } else {
    const colors = colorsFor(1);
    const text = createTextStream(colors);
    writeOut(colors.green(text.push(prompt)));
    for (const token of tokens) writeOut(colors.cyan(text.push(tokenizer.decode([token]))));
    writeOut(`${text.end()}\n`);
  }
  if (values.tokens > 0) createTerminal({ quiet: values.quiet }).info(rate.text());
  return 0;
}

/** How fast the model read and wrote: without what showing the text took. */
class Rate {
  readonly #promptTokens: number;
  #reading = 0;
  #writing = 0;
  #written = 0;

  constructor(promptTokens: number) {
    this.#promptTokens = promptTokens;
  }

  *watch(tokens: Iterator<number>): Generator<number> {
    for (;;) {
      const begun = performance.now();
      const { done, value } = tokens.next();
      const seconds = (performance.now() - begun) / 1000;
      if (done === true) return;
      if (this.#written++ === 0) this.#reading = seconds;
      else this.#writing += seconds;
      yield value;
    }
  }

  text(): string {
    const perSecond = (tokens: number, seconds: number): string => `${Math.round(tokens / seconds).toLocaleString("en")} tokens/s`;
    const read = this.#promptTokens < 64 ? "" : `read ${this.#promptTokens.toLocaleString("en")} tokens at ${perSecond(this.#promptTokens, this.#reading)}, `;
    const wrote = `wrote ${this.#written.toLocaleString("en")} ${this.#written === 1 ? "token" : "tokens"}`;
    return `${read}${wrote}${this.#written < 2 ? "" : ` at ${perSecond(this.#written - 1, this.#writing)}`}`;
  }
}
