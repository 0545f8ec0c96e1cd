// What model.from names, for a run that is to begin with it: its tokenizer and its weights.
// Not whether they go with the run's text (src/learners/create.ts). Read next: trained.ts.
import { openTokenizer, tokenizerFrom } from "../data/tokenizer.ts";
import type { Origin } from "../learners/create.ts";
import { loadLatest } from "../run/checkpoint.ts";
import { isForeign } from "../run/foreign.ts";
import { openCheckpoint, openStart, tokenizerBeside } from "./trained.ts";

/**
 * @param resumed the folder of a run that goes on, whose own tokenizer it is by now: what it began with may be gone. Null for a new run.
 */
export function originFor(resumed: string | null): Origin {
  return {
    weights: openStart,
    tokenizer(from) {
      const own = resumed === null ? null : loadLatest(resumed);
      if (own !== null) return tokenizerFrom(own.checkpoint.tokenizer);
      if (!isForeign(from)) return tokenizerFrom(openCheckpoint(from, "newest").checkpoint.tokenizer);
      const file = tokenizerBeside(from);
      return file === null ? null : openTokenizer(file, null);
    },
  };
}
