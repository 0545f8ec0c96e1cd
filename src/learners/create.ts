// Which learner a config asks for. Not how any of them learns.
// Read next: eggroll-contexts.ts (rule egg), eggroll-int8.ts (the other rules).
import type { Config } from "../config/knobs.ts";
import type { Corpus } from "../data/corpus.ts";
import type { Context } from "../native/machine.ts";
import { EggrollContexts, requireContextsText } from "./eggroll-contexts.ts";
import { EggrollInt8, requireText as requireInt8Text } from "./eggroll-int8.ts";
import type { Learner, MemoryPlan } from "./learner.ts";

/** Throws EggError("data") where the text is too short for a run of this config. */
export function requireText(config: Config, train: Corpus): void {
  (config.trainer.rule === "egg" ? requireContextsText : requireInt8Text)(config, train);
}

/**
 * Takes the memory that training needs.
 * @param admit is told the plan before anything large is taken, and throws where it does not fit
 * @throws EggError("data") where the text is too short, EggError("resources") where memory is
 */
export function createLearner(config: Config, text: { train: Corpus; heldOut: Corpus | null }, context: Context, admit: (plan: MemoryPlan) => void): Learner {
  return config.trainer.rule === "egg" ? new EggrollContexts(config, text, context, admit) : new EggrollInt8(config, text, context, admit);
}
