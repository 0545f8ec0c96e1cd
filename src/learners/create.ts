// Which learner a config asks for, and what it reads. Not how any of them learns.
// Read next: eggroll-contexts.ts (rule egg), eggroll-int8.ts (the other rules), backprop.ts.
import { descends, evolves, type Config, type ConfigOf, type Rule } from "../config/knobs.ts";
import { splitCorpus, type Corpus } from "../data/corpus.ts";
import { openTokenizer, type Tokenizer } from "../data/tokenizer.ts";
import { openTokens, splitTokens } from "../data/tokens.ts";
import type { Context } from "../native/machine.ts";
import type { Profiler } from "../tensor/profile.ts";
import { Backprop, requireTokens, type Start, type TokenText } from "./backprop.ts";
import { EggrollContexts, requireContextsText } from "./eggroll-contexts.ts";
import { EggrollInt8, requireText as requireInt8Text } from "./eggroll-int8.ts";
import type { Admit, Learner } from "./learner.ts";

/** Text to learn from and text that is held out: bytes for EGGROLL in integers, tokens for backprop. */
export type RunText =
  | { kind: "bytes"; config: ConfigOf<Rule>; train: Corpus; heldOut: Corpus | null }
  | (TokenText & { kind: "tokens"; config: ConfigOf<"backprop"> });

/**
 * Cuts a run's text as its config says.
 * @param openStart reads the weights that model.from names, for a model with this tokenizer
 * @throws EggError("data") where it is too short for the config, or the tokenizer does not go with it
 */
export function openText(config: Config, corpus: Corpus, openStart: (from: string, tokenizer: Tokenizer) => Start): RunText {
  if (evolves(config)) {
    const text = splitCorpus(corpus, config.data.validation);
    if (byContexts(config)) requireContextsText(config, text.train);
    else requireInt8Text(config, text.train);
    return { kind: "bytes", config, ...text };
  }
  if (!descends(config)) throw new RangeError(`no learner ${config.trainer.type}`);
  const tokenizer = openTokenizer(config.data.tokenizer, corpus);
  const text = splitTokens(openTokens(corpus, tokenizer), config.data.validation);
  requireTokens(config, text.train);
  const { from } = config.model;
  return { kind: "tokens", config, ...text, tokenizer, start: from === "none" ? null : () => openStart(from, tokenizer) };
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
