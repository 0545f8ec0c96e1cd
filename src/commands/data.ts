// `egg data`: tells what a text is, trains a tokenizer, makes a token file, writes the built-in text.
// Not the work: src/data/ has it (facts.ts, bpe-train.ts, tokens.ts, tokenfile.ts). Here are the files it goes to, and the words about it.
import fs from "node:fs";
import path from "node:path";
import { defineCommand, type CommandDef } from "citty";
import { trainBpe } from "../data/bpe-train.ts";
import { openCorpus, type Corpus } from "../data/corpus.ts";
import { factsOf } from "../data/facts.ts";
import { writeTokenizerJson } from "../data/huggingface.ts";
import { TokenFileWriter } from "../data/tokenfile.ts";
import { bpeTokenizer, openTokenizer, tokenizerFrom } from "../data/tokenizer.ts";
import { encodeCorpus } from "../data/tokens.ts";
import { EggError } from "../errors.ts";
import { formatBytes, shellWord } from "../report/summary.ts";
import { createTerminal, writeOut, type Terminal } from "../report/terminal.ts";
import { errorCode, ioError, writeDurably } from "../run/files.ts";
import { catchSignals, dieBySignal } from "../run/signals.ts";
import { helpText, parseArguments, subcommandLine, wantsHelp, type StrictArgs } from "./arguments.ts";

const data = { type: "string", required: true, description: "a file, a folder or a built-in corpus", valueHint: "PATH" } as const;
const json = { type: "boolean", description: "print one line of JSON" } as const;
const quiet = { type: "boolean", alias: "q", description: "no progress" } as const;
const force = { type: "boolean", description: "write over an existing file" } as const;

const infoArgs = {
  path: { type: "positional", description: "a file, a folder, a built-in corpus or a token file", required: true, valueHint: "PATH" },
  json,
  quiet,
} satisfies StrictArgs;
const tokenizeArgs = {
  data,
  tokenizer: { type: "string", required: true, description: "bytes, characters (those of the text), or a tokenizer.json", valueHint: "FILE" },
  out: { type: "string", required: true, description: "token file to write", valueHint: "FILE" },
  force,
  json,
  quiet,
} satisfies StrictArgs;
const trainArgs = {
  data,
  vocabulary: { type: "string", kind: "integer", min: 256, max: 1_000_000, required: true, description: "how many tokens, the 256 bytes included" },
  out: { type: "string", description: "tokenizer to write", default: "tokenizer.json", valueHint: "FILE" },
  "end-of-text": { type: "boolean", description: "with a token <|endoftext|>, found where a text has these words" },
  force,
  json,
  quiet,
} satisfies StrictArgs;
const builtinArgs = {
  text: { type: "positional", description: "builtin:fables:SIZE:SEED", default: "builtin:fables" },
  out: { type: "string", description: "file to write; default: standard output", valueHint: "FILE" },
  force,
} satisfies StrictArgs;

export const commands: Record<string, { help: string; args: StrictArgs; run: (argv: string[]) => Promise<void> }> = {
  info: { help: "tell what a text or a token file consists of", args: infoArgs, run: info },
  tokenize: { help: "write a text as token ids, to be mapped into memory", args: tokenizeArgs, run: tokenize },
  "train-tokenizer": { help: "learn byte-level BPE from a text and write a tokenizer.json", args: trainArgs, run: trainTokenizer },
  builtin: { help: "write the built-in text", args: builtinArgs, run: builtin },
};

const root: CommandDef = { meta: { description: "look at texts, make tokenizers and token files" }, args: {} };

export async function run(argv: string[]): Promise<number> {
  const { command, rest } = subcommandLine("data", argv, Object.keys(commands));
  if (command === "help") {
    writeOut(helpText("egg data", root, Object.fromEntries(Object.entries(commands).map(([name, { help }]) => [name, help]))));
    return 0;
  }
  const { help, args, run: perform } = commands[command]!;
  if (wantsHelp(args, rest)) writeOut(helpText(`egg data ${command}`, defineCommand({ meta: { description: help }, args })));
  else await perform(rest);
  return 0;
}

const number = (value: number): string => value.toLocaleString("en-US");

/** Done of a total, as it goes: a live line on a terminal, anywhere else a line every ten seconds. */
function createMeter(terminal: Terminal): { show(what: string, done: number, total: number): void; clear(): void } {
  const began = performance.now();
  let shown = began;
  return {
    show(what, done, total) {
      const now = performance.now();
      if (now - shown < (terminal.live ? 100 : 10_000)) return;
      shown = now;
      const line = `${what} ${Math.floor((done / Math.max(total, 1)) * 100)} % of ${number(total)}, ${Math.round((now - began) / 1000)} s`;
      if (terminal.live) terminal.draw(line);
      else terminal.info(line);
    },
    clear: () => terminal.draw(""),
  };
}

async function info(argv: string[]): Promise<void> {
  const { values } = parseArguments("data info", infoArgs, argv);
  const corpus = await openCorpus(values.path);
  const terminal = createTerminal({ quiet: values.quiet });
  const found = corpus.tokenFile === undefined ? textInfo(corpus, terminal) : tokenInfo(corpus, terminal);
  corpus.close();
  if (values.json) return void writeOut(`${JSON.stringify(Object.fromEntries(found))}\n`);
  const shown = (key: string, value: string | number | null): string => (typeof value !== "number" ? String(value) : key.includes("_per_") ? value.toFixed(4) : number(value));
  writeOut(found.flatMap(([key, value]) => (value === null ? [] : [`${key.replaceAll("_", " ").padEnd(22)}${shown(key, value)}\n`])).join(""));
}

type Row = [key: string, value: string | number | null];

function textInfo(corpus: Corpus, terminal: Terminal): Row[] {
  const meter = createMeter(terminal);
  const facts = factsOf(corpus, (bytes) => meter.show("reading: bytes", bytes, corpus.bytes));
  meter.clear();
  const { bytes, characters, distinctCharacters, illFormedBytes, distinctBytes, lines, documents } = facts;
  return [
    ["path", corpus.name], ["bytes", bytes], ["characters", characters], ["distinct_characters", distinctCharacters], ["ill_formed_bytes", illFormedBytes],
    ["distinct_bytes", distinctBytes], ["lines", lines], ["documents", documents], ["entropy_bits_per_byte", corpus.entropyBitsPerByte], ["fingerprint", corpus.fingerprint()],
  ];
}

function tokenInfo(corpus: Corpus, terminal: Terminal): Row[] {
  const file = corpus.tokenFile!;
  const tokenizer = tokenizerFrom(file.definition);
  const meter = createMeter(terminal);
  file.check(tokenizer.vocabulary, (tokens) => meter.show("checking: tokens", tokens, file.count));
  meter.clear();
  return [
    ["path", corpus.name], ["bytes", file.textBytes], ["tokens", file.count], ["bytes_per_token", file.textBytes / file.count], ["tokenizer", tokenizer.name],
    ["vocabulary", tokenizer.vocabulary], ["width", file.width], ["hash", file.hash], ["ids_sha256", file.idsHash], ["file_bytes", file.fileBytes], ["fingerprint", corpus.fingerprint()],
  ];
}

/** Throws unless a file may be written there: before the work, not after it. */
function expectRoom(out: string, force: boolean): void {
  const existing = fs.statSync(out, { throwIfNoEntry: false });
  if (existing?.isDirectory()) throw new EggError("usage", `[data] ${out}: it is a folder, not a file.`, { hint: "Name a file with --out." });
  if (existing !== undefined && !force) throw new EggError("usage", `[data] ${out}: exists already.`, { hint: "Choose another name, or --force to write over it." });
  const folder = path.dirname(out);
  if (fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) throw new EggError("usage", `[data] ${out}: there is no folder ${folder}.`, { hint: `Make it first: mkdir -p ${shellWord(folder)}` });
}

/** What a failed write means to people: there is no checkpoint to go on from here. Other errors stay as they are. */
function writeError(error: unknown, out: string): unknown {
  const failure = ioError(error, "write", out);
  if (!(failure instanceof EggError) || failure.kind !== "resources" || errorCode(failure.cause) === undefined) return failure;
  return new EggError(failure.kind, failure.message, { hint: "Free some space, or choose another place with --out; nothing was left behind.", cause: failure.cause });
}

async function tokenize(argv: string[]): Promise<void> {
  const { values } = parseArguments("data tokenize", tokenizeArgs, argv);
  const { out } = values;
  const terminal = createTerminal({ quiet: values.quiet });
  const began = performance.now();
  const corpus = await openCorpus(values.data);
  if (corpus.tokenFile !== undefined) {
    throw new EggError("data", `[data] ${corpus.name}: it is a token file already.`, { hint: `Name the text that it was made from; egg data info ${shellWord(corpus.name)} tells about the file.` });
  }
  expectRoom(out, values.force);
  const tokenizer = openTokenizer(values.tokenizer, corpus);
  const meter = createMeter(terminal);
  const stop = catchSignals();
  let writer: TokenFileWriter | undefined;
  try {
    writer = new TokenFileWriter(out, tokenizer);
    for (const { ids, bytes } of encodeCorpus(corpus, tokenizer)) {
      writer.write(ids);
      meter.show("encoding: bytes", bytes, corpus.bytes);
      await new Promise((resolve) => setImmediate(resolve)); // signals are heard here
      if (stop.requested === null) continue;
      writer.abandon();
      dieBySignal(stop.requested);
    }
    writer.finish(corpus.bytes);
  } catch (error) {
    writer?.abandon();
    throw writeError(error, out);
  } finally {
    stop.release();
    meter.clear();
    corpus.close();
  }
  const made = {
    out, tokens: writer.tokens, bytes: corpus.bytes, bytes_per_token: corpus.bytes / writer.tokens, tokenizer: tokenizer.name, vocabulary: tokenizer.vocabulary,
    hash: tokenizer.hash, seconds: Number(((performance.now() - began) / 1000).toFixed(3)),
  };
  if (values.json) writeOut(`${JSON.stringify(made)}\n`);
  terminal.success(`wrote ${out}: ${number(made.tokens)} tokens of ${tokenizer.name}, ${made.bytes_per_token.toFixed(3)} bytes each, ${formatBytes(fs.statSync(out).size)}`);
}

async function trainTokenizer(argv: string[]): Promise<void> {
  const { values } = parseArguments("data train-tokenizer", trainArgs, argv);
  const { out } = values;
  const terminal = createTerminal({ quiet: values.quiet });
  const began = performance.now();
  const corpus = await openCorpus(values.data);
  expectRoom(out, values.force);
  const meter = createMeter(terminal);
  const endOfText = values["end-of-text"] ? "<|endoftext|>" : "";
  const { tables, counts, tokens } = trainBpe(corpus, values.vocabulary, endOfText, ({ phase, done, total }) => meter.show(phase === "counting" ? "counting words: bytes" : "merging: pairs", done, total));
  meter.clear();
  corpus.close();
  const tokenizer = bpeTokenizer(tables);
  try {
    writeDurably(out, [new TextEncoder().encode(`${writeTokenizerJson(tables, true)}\n`)]);
  } catch (error) {
    throw writeError(error, out);
  }
  if (tokenizer.vocabulary < values.vocabulary) {
    terminal.warn(`${number(tokenizer.vocabulary)} tokens instead of ${number(values.vocabulary)}: no pair is left that occurs twice in this text`);
  }
  const made = {
    out, vocabulary: tokenizer.vocabulary, merges: counts.length, bytes: corpus.bytes, tokens, bytes_per_token: corpus.bytes / tokens,
    hash: tokenizer.hash, seconds: Number(((performance.now() - began) / 1000).toFixed(3)),
  };
  if (values.json) writeOut(`${JSON.stringify(made)}\n`);
  terminal.success(`wrote ${out}: ${tokenizer.name}, ${made.bytes_per_token.toFixed(3)} bytes a token on ${corpus.name}`);
}

async function builtin(argv: string[]): Promise<void> {
  const { values } = parseArguments("data builtin", builtinArgs, argv);
  if (!values.text.startsWith("builtin:")) {
    throw new EggError("usage", `[data] ${values.text}: no built-in text; these begin with builtin:.`, { hint: "The form is builtin:fables:SIZE:SEED, such as builtin:fables:64MiB:7." });
  }
  const corpus = await openCorpus(values.text);
  if (values.out !== undefined) expectRoom(values.out, values.force);
  const text = new Uint8Array(corpus.bytes);
  corpus.read(0, text);
  if (values.out === undefined) return void writeOut(text);
  try {
    writeDurably(values.out, [text]);
  } catch (error) {
    throw writeError(error, values.out);
  }
  createTerminal({ quiet: false }).success(`wrote ${values.out}: ${number(corpus.bytes)} bytes`);
}
