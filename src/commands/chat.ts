// `egg chat`: a conversation with a trained model, line by line: one growing text, which the model continues after each line.
// Not the model, not the line editor (src/report/lines.ts), not where an answer ends (src/report/continuation.ts). Read next: generate.ts.
import { existsSync } from "node:fs";
import { defineCommand } from "citty";
import { numberFromText } from "../config/knobs.ts";
import { nearest } from "../config/nearest.ts";
import { tokenizerFrom } from "../data/tokenizer.ts";
import { EggError } from "../errors.ts";
import { checkSampling, type SamplingOptions } from "../models/sampling.ts";
import type { Conversation, TextModel } from "../models/text-model.ts";
import { createContinuation, stopStrings } from "../report/continuation.ts";
import { openLines, type Lines } from "../report/lines.ts";
import { createTextStream } from "../report/text.ts";
import { colorsFor, createTerminal, isTerminal, reportError, writeOut } from "../report/terminal.ts";
import { writeDurably } from "../run/files.ts";
import { catchSignals, dieBySignal, type StopSignal } from "../run/signals.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";
import { Rate, samplingArgs, samplingOf, weightsText } from "./generate.ts";
import { checkpointArg, openModel, weightsArg } from "./trained.ts";

export const args = {
  run: { type: "positional", description: "run folder or checkpoint file", required: true },
  checkpoint: checkpointArg,
  prompt: { type: "string", description: "text that the conversation begins with", default: "", valueHint: "TEXT" },
  user: { type: "string", description: "what stands before each of your lines", default: "", valueHint: "TEXT" },
  model: { type: "string", description: "what stands before each answer", default: "", valueHint: "TEXT" },
  tokens: { type: "string", kind: "integer", min: 1, max: 100_000_000, default: "256", description: "longest answer", valueHint: "N" },
  stop: { type: "string", repeated: true, description: "end an answer before this one; without it, at the end of its first line", valueHint: "TEXT" },
  ...samplingArgs,
  weights: weightsArg,
  quiet: { type: "boolean", alias: "q", description: "do not tell how fast the model wrote" },
} satisfies StrictArgs;

const command = defineCommand({ meta: { description: "talk with a trained model, line by line" }, args });

const commands: readonly { name: string; value?: string; help: string }[] = [
  { name: "help", help: "show these" },
  { name: "reset", help: "begin the conversation anew" },
  { name: "seed", value: "N", help: "begin the random numbers anew, from N" },
  { name: "temperature", value: "T", help: "choose more freely, or less" },
  { name: "save", value: "FILE", help: "write the conversation into a new file" },
  { name: "quit", help: "leave, as Ctrl-D does" },
];
const commandHelp = [...commands.map(({ name, value, help }) => `  ${`/${name} ${value ?? ""}`.padEnd(15)}${help}`), "  //...          a line that begins with a slash", "Ctrl-C ends an answer."].join("\n");

/** Signals are heard between tokens this often. */
const slice_ms = 25;

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg chat", command));
    return 0;
  }
  const { values, repeated } = parseArguments("chat", args, argv);
  const stops = repeated.stop.length > 0 ? stopStrings(repeated.stop) : null;
  const options = samplingOf(values);
  const trained = openModel(values.run, values.checkpoint, values.weights);
  const terminal = createTerminal({ quiet: values.quiet });
  if (values.weights === "int8") terminal.info(weightsText(trained));
  const leave = (signal: StopSignal): never => {
    lines.close();
    return dieBySignal(signal);
  };
  const lines: Lines = openLines(() => leave("SIGINT"));
  const chat = new Chat(trained.model, { lineEnd: lineEndOf(trained.checkpoint.tokenizer), begin: values.prompt, user: values.user, model: values.model, tokens: values.tokens, stops, options, seed: values.seed });
  if (lines.edited) terminal.info("/help shows what you can do besides talking; Ctrl-D leaves.");
  for (;;) {
    const waiting = catchSignals(leave);
    const line = await lines.next(values.user || "> ");
    waiting.release();
    if (line === null) return 0;
    try {
      const word = /^\/(?!\/)\s*(\S*)\s*(.*?)\s*$/s.exec(new TextDecoder().decode(line));
      if (word !== null) {
        if (word[1] === "quit") return 0;
        if (word[1] === "help") terminal.print(commandHelp);
        else chat.obey(word[1]!, word[2]!);
        continue;
      }
      const signal = await chat.turn(line[0] === 0x2f ? line.subarray(1) : line, terminal.info);
      if (signal === "gone") return 0;
      if (signal === "SIGTERM") leave(signal);
    } catch (error) {
      // A person tries again; a script that goes on would talk about something else.
      if (!lines.edited || !(error instanceof EggError)) throw error;
      reportError(error);
    }
  }
}

/** What stands between lines: nothing, where a vocabulary has no line end. */
function lineEndOf(tokenizer: string): string {
  try {
    tokenizerFrom(tokenizer).encode(Uint8Array.of(10));
    return "\n";
  } catch {
    return "";
  }
}

interface Manner {
  lineEnd: string;
  begin: string;
  user: string;
  model: string;
  tokens: number;
  /** Null ends answers at the end of a line. */
  stops: Uint8Array[] | null;
  options: SamplingOptions;
  seed: number;
}

class Chat {
  readonly #model: TextModel;
  readonly #manner: Manner;
  #text: Uint8Array;
  #conversation: Conversation;
  #turns = 0;

  constructor(model: TextModel, manner: Manner) {
    this.#model = model;
    this.#manner = manner;
    this.#text = encode(manner.begin);
    this.#conversation = model.begin();
  }

  /** A command, /save conversation.txt being ("save", "conversation.txt"). @throws EggError("usage") */
  obey(name: string, value: string): void {
    const known = commands.find((each) => each.name === name);
    if (known === undefined) {
      const near = nearest(name, commands.map(({ name }) => name));
      throw new EggError("usage", `[chat] unknown command /${name}${near === undefined ? "" : `; did you mean /${near}?`}`, { hint: "/help shows all. A line that begins with a slash: put another slash before it." });
    }
    if ((value === "") !== (known.value === undefined)) {
      throw new EggError("usage", known.value === undefined ? `[chat] /${name} takes nothing behind it, found ${JSON.stringify(value)}.` : `[chat] /${name} needs a value: /${name} ${known.value}`);
    }
    if (name === "reset") {
      this.#text = encode(this.#manner.begin);
      this.#conversation = this.#model.begin();
      this.#turns = 0;
    } else if (name === "seed") {
      this.#manner.seed = within(name, value, Number.MAX_SAFE_INTEGER, true);
      this.#turns = 0;
    } else if (name === "temperature") {
      const options = { ...this.#manner.options, temperature: within(name, value, 100, false) };
      checkSampling(options);
      this.#manner.options = options;
    } else this.#save(value);
  }

  #save(file: string): void {
    if (existsSync(file)) throw new EggError("usage", `[chat] ${file}: is there already, and nothing was written.`, { hint: "Name another file." });
    writeDurably(file, [this.#text]);
  }

  /** A line of the user's and the model's answer to it. Null, or the signal that ended the answer, or "gone" where nobody reads on. */
  async turn(line: Uint8Array, tell: (message: string) => void): Promise<StopSignal | "gone" | null> {
    const { lineEnd, user, model, tokens, stops, options, seed } = this.#manner;
    const { length } = this.#text;
    const begin = length > 0 && this.#text[length - 1] !== 10 ? lineEnd : "";
    const prompt = Buffer.concat([this.#text, encode(begin + user), line, encode(lineEnd + model)]);
    const continuation = createContinuation(stops ?? [Uint8Array.of(10)], stops === null);
    const rate = new Rate();
    const answer: Uint8Array[] = [];
    const screen = new Answer(model, stops === null);
    const signals = catchSignals();
    let open = true;
    try {
      let turned = performance.now();
      for (const token of rate.watch(this.#conversation.generate(prompt, tokens, options, (seed + this.#turns) % Number.MAX_SAFE_INTEGER))) {
        answer.push(continuation.push(token));
        open = screen.show(answer.at(-1)!);
        if (!open || continuation.stopped) break;
        if (performance.now() - turned < slice_ms) continue;
        await new Promise((resume) => setImmediate(resume));
        if (signals.requested !== null) break;
        turned = performance.now();
      }
      answer.push(continuation.end());
      open &&= screen.end(answer.at(-1)!);
    } finally {
      signals.release();
    }
    this.#text = Buffer.concat([prompt, ...answer]);
    this.#turns++;
    tell(rate.text(this.#conversation.read));
    return open ? signals.requested : "gone";
  }
}

/** An answer on standard output: as safe text on a terminal, as it is elsewhere. */
class Answer {
  readonly #colors = colorsFor(1);
  readonly #text = isTerminal(1) ? createTextStream(this.#colors) : null;
  /** Line ends in front of the answer are not shown. */
  #leading: boolean;

  constructor(prefix: string, byLine: boolean) {
    this.#leading = byLine;
    if (this.#text !== null && prefix !== "") writeOut(this.#colors.dim(this.#text.push(encode(prefix))));
  }

  /** False where the reader has gone away. */
  show(bytes: Uint8Array): boolean {
    let from = 0;
    while (this.#leading && from < bytes.length && (bytes[from] === 10 || bytes[from] === 13)) from++;
    const shown = bytes.subarray(from);
    if (shown.length === 0) return true;
    this.#leading = false;
    return writeOut(this.#text === null ? shown : this.#colors.cyan(this.#text.push(shown)));
  }

  end(bytes: Uint8Array): boolean {
    return this.show(bytes) && writeOut(`${this.#text?.end() ?? ""}\n`);
  }
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function within(name: string, text: string, max: number, whole: boolean): number {
  const value = numberFromText(text);
  if (value !== undefined && value >= 0 && value <= max && (!whole || Number.isSafeInteger(value))) return value;
  throw new EggError("usage", `[chat] /${name}: found ${JSON.stringify(text)}, allowed a ${whole ? "whole " : ""}number from 0 to ${max}.`);
}
