// Checks that a range alone does not give: proofs, worked out for each config, that the integer kernels cannot overflow, and knobs
// that must fit each other. Not the kernels' own code; the magnitudes below are the contract that they keep.
// Read next: load.ts, which runs this table after all layers are merged; schema.ts.

import { alternatives, methodOf, type Config, type KnobPath, type Method, type Rule } from "./knobs.ts";
import { nearest } from "./nearest.ts";
import { gradientPreset, learnsByGradients } from "./presets.ts";

/** Largest magnitude of an int8 weight or activation (never -128), and of one perturbation value. */
const int8 = 127;
const noise: Record<Rule, number> = { egg: 31, "egg.c": 31, "nano-egg": 86 };
const int32 = 2 ** 31 - 1;

/** One row: it names the knob by which the rule is broken, and can say so in a config file's JSON schema where it can be broken there. */
export interface Bound {
  /** The knob to which a message points. */
  path: KnobPath;
  /** What goes wrong, in the words of a problem line; undefined where all is well. Plain numbers, no rounding. */
  problem(config: Config): string | undefined;
  /** What a file that breaks it has: values at paths. All of these together are wrong. Left out where no file within the ranges can. */
  wrongTogether?: Readonly<Partial<Record<KnobPath, WrongValue>>>;
}

/** A value that is there, or (`missingOr`) also none, where the default is meant. */
export type WrongValue = { is: number } | { atLeast: number } | { missingOr: string };

export const bounds: readonly Bound[] = [
  {
    // The widest perturbed product, mlp.project: (x . b) * a over 4 x hidden columns, before its shift.
    path: "model.hidden",
    problem: ({ model: { hidden = 0 }, trainer: { rule = "egg" } }) =>
      overflow(`found ${hidden}`, `the widest product reaches 4 x ${hidden} x ${int8} x ${noise[rule]} x ${noise[rule]}`, 4 * hidden * int8 * noise[rule] ** 2),
  },
  {
    // The votes of a step for one weight: one a * b for each mirrored pair.
    path: "trainer.population",
    problem: ({ trainer: { population = 0, rule = "egg" } }) =>
      rule === "egg" ? undefined : overflow(`found ${population}`, `the votes for a weight reach ${population} / 2 x ${noise[rule]} x ${noise[rule]}`, (population / 2) * noise[rule] ** 2),
  },
  // Rule egg: the votes of a step for one weight, where all its positions read the same row: 16 pairs x (31 x 127 / 32) x 31 a position.
  ...(["trainer.population", "trainer.sequence"] as const).map((path): Bound => ({
    path,
    problem: (config) => {
      const limit = limitsOf(methodOf(config))[path];
      const { population = 0, sequence = 0, rule } = config.trainer;
      const value = path === "trainer.population" ? population : sequence;
      if (rule !== "egg" || limit === undefined) return undefined;
      if (limit.multipleOf !== undefined && value % limit.multipleOf !== 0) return `found ${value}, allowed in rule egg a multiple of ${limit.multipleOf}: 16 mirrored pairs read the same text`;
      return value > limit.most! ? `found ${value}, allowed in rule egg at most ${limit.most}: with more, the votes for a row that is read everywhere would not fit into 32 bits` : undefined;
    },
  })),
  {
    path: "trainer.group_size",
    problem: ({ trainer: { group_size = 2, population = 0 } }) =>
      population % group_size === 0 ? undefined : `found ${group_size}, which does not divide trainer.population ${population}`,
  },
  // What a way to learn can train, and how it reads the text.
  ...(["model.type", "data.tokenizer"] as const).map((path): Bound => ({
    path,
    problem: (config) => {
      const words = limitsOf(methodOf(config))[path]?.oneOf;
      const value = path === "model.type" ? config.model.type : config.data.tokenizer;
      if (words === undefined || words.includes(value)) return undefined;
      const near = nearest(value, words);
      const hint = path === "model.type" && learnsByGradients(value) ? `; preset=${gradientPreset} trains one` : near === undefined ? "" : `; did you mean ${JSON.stringify(near)}?`;
      return `found ${JSON.stringify(value)}, allowed with trainer.type ${config.trainer.type} ${alternatives(words)}${hint}`;
    },
  })),
  {
    path: "model.heads",
    problem: ({ model: { width = 1, heads = 1, head_width = 0, position, type } }) => {
      if (head_width !== 0) return undefined;
      if (width % heads !== 0) return `found ${heads}, which does not divide model.width ${width}`;
      return rotates(position, type) && (width / heads) % 2 !== 0 ? `found ${heads}, but rotary positions need heads of an even width, and ${width} / ${heads} is ${width / heads}` : undefined;
    },
  },
  {
    path: "model.head_width",
    problem: ({ model: { head_width = 0, position, type } }) => (rotates(position, type) && head_width % 2 !== 0 ? `found ${head_width}, but rotary positions need heads of an even width` : undefined),
  },
  {
    path: "model.rope_high",
    problem: ({ model: { rope_low = 0, rope_high = 1 } }) => (rope_high > rope_low ? undefined : `found ${rope_high}, which is not above model.rope_low ${rope_low}`),
  },
  {
    path: "model.kv_heads",
    problem: ({ model: { heads = 1, kv_heads = 0 } }) => (kv_heads !== 0 && heads % kv_heads !== 0 ? `found ${kv_heads}, which does not divide model.heads ${heads}` : undefined),
  },
  {
    path: "run.patience",
    problem: ({ run: { patience, eval_every } }) => (patience > 0 && eval_every === 0 ? `found ${patience}, but run.eval_every is 0, so nothing is ever evaluated` : undefined),
    wrongTogether: { "run.patience": { atLeast: 1 }, "run.eval_every": { is: 0 } },
  },
  {
    path: "run.patience",
    problem: ({ run: { patience, stop_metric }, data: { validation } }) =>
      patience > 0 && validation === 0 && stop_metric === "val_bits_per_byte"
        ? `found ${patience}, but data.validation is 0, so there is no held-out loss to wait for; run.stop_metric can be "train_bits_per_byte"`
        : undefined,
    wrongTogether: { "run.patience": { atLeast: 1 }, "data.validation": { is: 0 }, "run.stop_metric": { missingOr: "val_bits_per_byte" } },
  },
];

/** What a way to learn allows beyond the knobs' own ranges, by the proofs above. */
export function limitsOf(method: Method): Partial<Record<KnobPath, { most?: number; multipleOf?: number; oneOf?: readonly string[] }>> {
  if (method === "backprop") return { "model.type": { oneOf: ["gpt", "llama"] } };
  const common = { "model.type": { oneOf: ["egg"] }, "data.tokenizer": { oneOf: ["bytes"] } } as const;
  // 16,384 / 32 groups of 64 positions: 32,768 x 16 x 123 x 31 < 2^31.
  if (method === "egg") return { ...common, "trainer.population": { most: 16_384, multipleOf: 32 }, "trainer.sequence": { most: 64 } };
  return {
    ...common,
    "model.hidden": { most: Math.floor(int32 / (4 * int8 * noise[method] ** 2)) },
    "trainer.population": { most: 2 * Math.floor(int32 / noise[method] ** 2) },
  };
}

function rotates(position: string | undefined, type: string): boolean {
  return position === "rope" || (position === "auto" && type === "llama");
}

function overflow(found: string, sum: string, value: number): string | undefined {
  return value > int32 ? `${found}, but ${sum} = ${value}, more than the ${int32} that 32 bits hold` : undefined;
}
