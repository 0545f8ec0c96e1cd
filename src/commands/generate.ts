// `egg generate`: continues a prompt with a trained model; the text goes to standard output, byte for byte.
// Not the model (src/models/generate.ts), not the rule of choice (src/models/sampling.ts), not where a text ends (src/report/continuation.ts).
import fs from "node:fs";
import { defineCommand } from "citty";
import { EggError } from "../errors.ts";
import { checkSampling, type SamplingOptions } from "../models/sampling.ts";
import { createContinuation, stopStrings, type StoppedBy } from "../report/continuation.ts";
import { createTextStream } from "../report/text.ts";
import { colorsFor, createTerminal, isTerminal, writeOut } from "../report/terminal.ts";
import { ioError } from "../run/files.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";
import { checkpointArg, openModel, weightsArg, type Trained } from "./trained.ts";

/** The options of choosing, for every command that writes text. */
export const samplingArgs = {
  temperature: { type: "string", kind: "number", min: 0, max: 100, default: "1", description: "0 always takes the likeliest token", valueHint: "T" },
  "top-k": { type: "string", kind: "integer", min: 0, max: 1_000_000, default: "0", description: "choose among the K likeliest tokens; 0 among all", valueHint: "K" },
  "top-p": { type: "string", kind: "number", min: 0, max: 1, default: "1", description: "choose among the fewest that hold this share of the probability", valueHint: "P" },
  "min-p": { type: "string", kind: "number", min: 0, max: 1, default: "0", description: "leave out tokens less likely than this share of the likeliest", valueHint: "P" },
  "repetition-penalty": { type: "string", kind: "number", min: 0.01, max: 100, default: "1", description: "above 1 makes tokens less likely that came before; 1 is off", valueHint: "R" },
  "repetition-window": { type: "string", kind: "integer", min: 0, max: 1_000_000, default: "64", description: "how many of the last tokens that looks back on; 0 on all", valueHint: "N" },
  seed: { type: "string", kind: "integer", min: 0, max: Number.MAX_SAFE_INTEGER, default: "0", description: "the same seed gives the same text", valueHint: "S" },
} satisfies StrictArgs;

export const args = {
  run: { type: "positional", description: "run folder or checkpoint file", required: true },
  checkpoint: checkpointArg,
  prompt: { type: "string", description: "text to continue; without it the beginning of one", valueHint: "TEXT" },
  "prompt-file": { type: "string", description: "file of any bytes to continue, instead of --prompt; - is standard input", valueHint: "FILE" },
  tokens: { type: "string", kind: "integer", min: 0, max: 100_000_000, default: "256", description: "tokens to write", valueHint: "N" },
  stop: { type: "string", repeated: true, description: "end the text before this one, and leave it out", valueHint: "TEXT" },
  ...samplingArgs,
  weights: weightsArg,
  json: { type: "boolean", description: "print one line of JSON: what was written, without the prompt, and how fast" },
  quiet: { type: "boolean", alias: "q", description: "write the text and nothing else" },
} satisfies StrictArgs;

const command = defineCommand({ meta: { description: "continue a text with a trained model" }, args });

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg generate", command));
    return 0;
  }
  const { values, repeated } = parseArguments("generate", args, argv);
  const options = samplingOf(values);
  const stops = stopStrings(repeated.stop);
  const prompt = await promptOf(values);
  const trained = openModel(values.run, values.checkpoint, values.weights);
  const conversation = trained.model.begin();
  const rate = new Rate();
  const continuation = createContinuation(stops);
  const write = values.json ? null : isTerminal(1) ? toTerminal() : toPipe();
  const written: Uint8Array[] = [];
  const take = (bytes: Uint8Array): boolean => (write === null ? written.push(bytes) > 0 : write.text(bytes));
  const tokens = rate.watch(conversation.generate(prompt, values.tokens, options, values.seed));
  let next = tokens.next(); // before anything is shown: a prompt that the model cannot read is refused here
  if (write !== null && !write.prompt(prompt)) return 0;
  while (next.done !== true) {
    if (!take(continuation.push(next.value))) return 0;
    if (continuation.stopped) break;
    next = tokens.next();
  }
  take(continuation.end());
  write?.end();

  const stoppedBy: StoppedBy = continuation.stopped ? "stop" : rate.written === values.tokens ? "tokens" : "end of text";
  if (write === null) {
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(written));
    writeOut(`${JSON.stringify({ text, tokens: rate.written, ...rate.figures(), ...(values.weights === "int8" ? { weight_bytes: trained.model.weights!.bytes } : {}), stopped_by: stoppedBy })}\n`);
  } else if (values.tokens > 0) createTerminal({ quiet: values.quiet }).info(`${rate.text(conversation.read)}${values.weights === "int8" ? `, ${weightsText(trained)}` : ""}`);
  return 0;
}

async function promptOf({ prompt, "prompt-file": file }: { prompt?: string | undefined; "prompt-file"?: string | undefined }): Promise<Uint8Array> {
  if (file === undefined) return new TextEncoder().encode(prompt ?? "");
  if (prompt !== undefined) throw new EggError("usage", "[generate] --prompt and --prompt-file: both are given, allowed is one of them.");
  try {
    return file === "-" ? await new Response(Bun.stdin.stream()).bytes() : fs.readFileSync(file);
  } catch (error) {
    throw ioError(error, "read", file);
  }
}

/** What int8 weights take, and would take as f32. */
export function weightsText({ model }: Trained): string {
  const { count, bytes } = model.weights!;
  const mega = (size: number): string => `${(size / 1e6).toFixed(1)} MB`;
  return `int8 weights of ${mega(bytes)}, as f32 ${mega(4 * count)}`;
}

type SamplingValues = Record<"temperature" | "top-k" | "top-p" | "min-p" | "repetition-penalty" | "repetition-window", number>;

/** The options as the models take them. @throws EggError("usage") for one out of its range */
export function samplingOf(values: SamplingValues): SamplingOptions {
  const options = {
    repetition_penalty: values["repetition-penalty"], repetition_window: values["repetition-window"],
    temperature: values.temperature, top_k: values["top-k"], top_p: values["top-p"], min_p: values["min-p"],
  };
  checkSampling(options);
  return options;
}

/** Takes the prompt, then the text piece by piece. False where the reader has gone away. */
interface Writer {
  prompt(bytes: Uint8Array): boolean;
  text(bytes: Uint8Array): boolean;
  end(): void;
}

/** The bytes themselves. */
function toPipe(): Writer {
  const write = (bytes: Uint8Array): boolean => bytes.length === 0 || writeOut(bytes);
  return { prompt: write, text: write, end() {} };
}

/** Text that is safe to show, in two colours. */
function toTerminal(): Writer {
  const colors = colorsFor(1);
  const text = createTextStream(colors);
  return {
    prompt: (bytes) => writeOut(colors.green(text.push(bytes))),
    text: (bytes) => writeOut(colors.cyan(text.push(bytes))),
    end: () => void writeOut(`${text.end()}\n`),
  };
}

/** How fast the model read and wrote: without what showing the text took. */
export class Rate {
  /** Tokens that the model has written, those of a stop string included. */
  written = 0;
  #reading = 0;
  #writing = 0;

  *watch(tokens: Generator<Uint8Array>): Generator<Uint8Array> {
    try {
      for (;;) {
        const begun = performance.now();
        const { done, value } = tokens.next();
        const seconds = (performance.now() - begun) / 1000;
        if (done === true) return;
        if (this.written++ === 0) this.#reading = seconds;
        else this.#writing += seconds;
        yield value;
      }
    } finally {
      tokens.return(undefined);
    }
  }

  /** All seconds, and how fast it wrote behind the first token, which waits for the prompt; null where there is no second. */
  figures(): { seconds: number; tokens_per_second: number | null } {
    const rate = this.written < 2 ? null : (this.written - 1) / this.#writing;
    return { seconds: Number((this.#reading + this.#writing).toFixed(6)), tokens_per_second: rate === null ? null : Number(rate.toPrecision(6)) };
  }

  /** The same for people; few tokens say nothing about how fast they were read. */
  text(tokensRead: number): string {
    const perSecond = (tokens: number, seconds: number): string => `${Math.round(tokens / seconds).toLocaleString("en")} tokens/s`;
    const read = tokensRead < 64 || this.written === 0 ? "" : `read ${tokensRead.toLocaleString("en")} tokens at ${perSecond(tokensRead, this.#reading)}, `;
    const wrote = `wrote ${this.written.toLocaleString("en")} ${this.written === 1 ? "token" : "tokens"}`;
    return `${read}${wrote}${this.written < 2 ? "" : ` at ${perSecond(this.written - 1, this.#writing)}`}`;
  }
}
