// Which learner a config asks for, and what it reads. Not how any of them learns.
// Read next: eggroll-contexts.ts (rule egg), eggroll-int8.ts (the other rules), backprop.ts.
import { descends, evolves, knobAt, type Config, type ConfigOf, type Rule } from "../config/knobs.ts";
import { splitCorpus, type Corpus } from "../data/corpus.ts";
import { isMadeFromText, openTokenizer, tokenizerFrom, type Tokenizer } from "../data/tokenizer.ts";
import { openTokens, splitTokens, type Tokens } from "../data/tokens.ts";
import { EggError } from "../errors.ts";
import type { Context } from "../native/machine.ts";
import type { Profiler } from "../tensor/profile.ts";
import { Backprop, requireTokens, type Start, type TokenText } from "./backprop.ts";
import { EggrollContexts, requireContextsText } from "./eggroll-contexts.ts";
import { EggrollInt8, requireText as requireInt8Text } from "./eggroll-int8.ts";
import type { Admit, Learner } from "./learner.ts";

/** Text to learn from and text that is held out: bytes for EGGROLL in integers, tokens for backprop. `prompt` is what samples continue. */
export type RunText = { prompt: Uint8Array } & (
  | { kind: "bytes"; config: ConfigOf<Rule>; train: Corpus; heldOut: Corpus | null }
  | (TokenText & { kind: "tokens"; config: ConfigOf<"backprop"> })
);

/** Reads what model.from names. */
export interface Origin {
  /** Its tokenizer; null where nothing says which that is. */
  tokenizer(from: string): Tokenizer | null;
  /** Its weights, for a model with this tokenizer. */
  weights(from: string, tokenizer: Tokenizer): Start;
}

/**
 * Cuts a run's text as its config says.
 * @throws EggError("data") where it is too short for the config, or the tokenizer does not go with it; "usage" where run.prompt does not
 */
export function openText(config: Config, corpus: Corpus, origin: Origin): RunText {
  if (evolves(config)) {
    const text = splitCorpus(corpus, config.data.validation);
    if (byContexts(config)) requireContextsText(config, text.train);
    else requireInt8Text(config, text.train);
    return { kind: "bytes", config, ...text, prompt: new TextEncoder().encode(config.run.prompt) };
  }
  if (!descends(config)) throw new RangeError(`no learner ${config.trainer.type}`);
  const { from } = config.model;
  const tokenizer = from === "none" ? openTokenizer(config.data.tokenizer, corpus) : tokenizerToGoOn(config, corpus, origin);
  const text = splitTokens(from === "none" ? openTokens(corpus, tokenizer) : tokensToGoOn(from, corpus, tokenizer), config.data.validation);
  requireTokens(config, text.train);
  return { kind: "tokens", config, ...text, tokenizer, start: from === "none" ? null : () => origin.weights(from, tokenizer), prompt: promptOf(config, tokenizer) };
}

/** That of model.from, which takes the place of one that would be made from the text. */
function tokenizerToGoOn({ data, model: { from } }: ConfigOf<"backprop">, corpus: Corpus, origin: Origin): Tokenizer {
  const theirs = origin.tokenizer(from);
  const made = isMadeFromText(data.tokenizer);
  if (theirs !== null && made && corpus.tokenFile === undefined) return theirs;
  const ours = made && corpus.tokenFile !== undefined ? tokenizerFrom(corpus.tokenFile.definition) : openTokenizer(data.tokenizer, corpus);
  if (theirs === null || theirs.hash === ours.hash) return ours;
  const file = `egg export ${from} --format safetensors --out DIR writes its tokenizer.json`;
  throw new EggError("data", `[model] model.from ${from}: its tokens are ${theirs.name}, this run's are ${ours.name}, and not the same.`, {
    hint: corpus.tokenFile === undefined ? `data.tokenizer=characters takes the tokens of that model, whatever they are; ${file}.` : `Make the token file again with those tokens: ${file}.`,
  });
}

function tokensToGoOn(from: string, corpus: Corpus, tokenizer: Tokenizer): Tokens {
  try {
    return openTokens(corpus, tokenizer);
  } catch (cause) {
    throw lacking(cause, "data", `[model] model.from ${from}: its tokens are not enough for ${corpus.name}`, "Leave such characters out of the text, or train without model.from.");
  }
}

/** run.prompt; where that is left at its default and the vocabulary lacks some of it, the beginning of a text. */
function promptOf({ run }: Config, tokenizer: Tokenizer): Uint8Array {
  const prompt = new TextEncoder().encode(run.prompt);
  try {
    tokenizer.encode(prompt);
    return prompt;
  } catch (cause) {
    if (run.prompt === knobAt("run.prompt")!.default) return new Uint8Array(0);
    throw lacking(cause, "usage", "[config] run.prompt", "Set it to a text of such characters; an empty one is the beginning of a text.");
  }
}

/** The error for a text of which a vocabulary of characters lacks some. */
function lacking(cause: unknown, kind: "usage" | "data", what: string, hint: string): unknown {
  const why = cause instanceof EggError && cause.kind === "data" ? /^\[tokenizer\] characters: (.*)/s.exec(cause.message) : null;
  return why === null ? cause : new EggError(kind, `${what}: ${why[1]}`, { hint, cause });
}

/**
 * Takes the memory that training needs.
 * @param profiler is told where the time of backprop's steps goes
 * @param admit is told the plan before anything large is taken, and throws where it does not fit
 * @throws EggError("resources") where memory is too small
 */
export function createLearner(text: RunText, context: Context, admit: Admit, profiler: Profiler | null = null): Learner {
  if (text.kind === "tokens") return new Backprop(text.config, text, context, admit, profiler);
  const { config } = text;
  return byContexts(config) ? new EggrollContexts(config, text, context, admit) : new EggrollInt8(config, text, context, admit);
}

function byContexts(config: ConfigOf<Rule>): config is ConfigOf<"egg"> {
  return config.trainer.rule === "egg";
}
