// Presets: named sets of defaults, one table row each. A preset lists the values that make it what it is, and no others.
// Not here: the knobs' own defaults and ranges (knobs.ts), and what overrides a preset (load.ts).
// Read next: load.ts.

import { allowed, alternatives, defaultConfig, knobs, setAt, valueAt, withoutStrangers, type Config, type Knob, type PartialConfig } from "./knobs.ts";

export interface Preset {
  help: string;
  values: Omit<PartialConfig, "preset">;
}

const gradients = { type: "backprop", optimizer: "adamw", schedule: "cosine", min_rate: 0.1, weight_decay: 0.1, beta1: 0.9, beta2: 0.95, clip: 1 } as const;

function llama(size: string, model: NonNullable<Preset["values"]["model"]>, vocabulary: number, batch: number): Preset {
  return {
    help: `a Llama of ${size}, blocks of ${model.block}, vocabulary ${vocabulary}`,
    values: {
      data: { tokenizer: `bpe:${vocabulary}` },
      model: { type: "llama", ...model },
      trainer: { ...gradients, batch, learning_rate: 6e-4, warmup: 100 },
      run: { steps: 5000, seed: 1, eval_every: 250, sample_every: 500, checkpoint_every: 500 },
    },
  };
}

export const presets: Readonly<Record<string, Preset>> = {
  egg: {
    help: "egg's own model and training: contexts of 1 to 6 bytes, 2,048 pairs; the one that learns best",
    values: {
      model: { order: 6, table_bits: 16 },
      trainer: { rule: "egg", population: 4096, sequence: 16, sigma_shift: 4, learning_rate: 0.5, decay_shift: 9 },
      run: { steps: 20_000, seed: 1, eval_every: 500, sample_every: 5000, checkpoint_every: 5000 },
    },
  },
  "egg.c": {
    help: "the model and the training of egg.c: int8 GRU, hidden 128, 4 layers, 64 pairs",
    values: {
      model: { hidden: 128, layers: 4 },
      trainer: { rule: "egg.c", population: 128, sequence: 256, sigma_shift: 4, threshold: 160 },
    },
  },
  "nano-egg": {
    help: "the model and the training of nano-egg: every parameter learns; hidden 256, 6 layers, 512 pairs",
    values: {
      model: { hidden: 256, layers: 6 },
      trainer: {
        rule: "nano-egg", population: 1024, sequence: 100, sigma_shift: 4, alpha: 4, alpha_decay_timestep: 1000, group_size: 2, use_clt: true,
        noise_reuse: 1, num_perturbations: 0,
      },
      run: { steps: 1000, seed: 0, eval_every: 10 },
    },
  },
  "gpt-nano": {
    help: "a GPT that learns in minutes: 4 layers x 128, blocks of 64 characters",
    values: {
      data: { tokenizer: "characters" },
      model: { type: "gpt", layers: 4, width: 128, heads: 4, block: 64 },
      trainer: { ...gradients, batch: 12, learning_rate: 4e-3, min_rate: 0.01, warmup: 100 },
      run: { steps: 2000, seed: 1, eval_every: 250, sample_every: 500, checkpoint_every: 500 },
    },
  },
  gpt2: {
    help: "the shape of GPT-2, 124M with its vocabulary of 50,257: 12 layers x 768, blocks of 1,024",
    values: {
      data: { tokenizer: "bpe:50257" },
      model: { type: "gpt", layers: 12, width: 768, heads: 12, block: 1024 },
      trainer: { ...gradients, batch: 1, accumulation: 8, learning_rate: 6e-4, warmup: 200 },
      run: { steps: 10_000, seed: 1, eval_every: 250, sample_every: 500, checkpoint_every: 250 },
    },
  },
  "llama-tiny": llama("4 layers x 256", { layers: 4, width: 256, heads: 4, feed_forward_width: 512, block: 512 }, 32_000, 8),
  "llama-small": llama("8 layers x 512", { layers: 8, width: 512, heads: 8, feed_forward_width: 1024, block: 2048 }, 32_000, 2),
  "llama-medium": llama("16 layers x 1024", { layers: 16, width: 1024, heads: 16, feed_forward_width: 2816, block: 2048 }, 32_000, 1),
  "llama-shakespeare": llama("6 layers x 256", { layers: 6, width: 256, heads: 8, feed_forward_width: 512, block: 512 }, 2048, 8),
};

/** The preset of a config that names none and asks for no gradients; the table of knobs says which. */
export const defaultPreset: string = defaultConfig().preset;
/** The preset of a config that names none, and that asks for gradients by its trainer.type or else by its model.type. */
export const gradientPreset = "gpt-nano";

/** What a config starts from that has these values, each undefined where it is left out. */
export function startingPreset(preset: unknown, trainerType: unknown, modelType: unknown): string {
  if (isPreset(preset)) return preset;
  return (trainerType ?? (learnsByGradients(modelType) ? "backprop" : undefined)) === "backprop" ? gradientPreset : defaultPreset;
}

/** Whether models of this type learn by trainer.type backprop. */
export function learnsByGradients(modelType: unknown): boolean {
  return modelType === "gpt" || modelType === "llama";
}

/** Names of the presets for a trainer.type. */
export function presetsFor(trainerType: string): string[] {
  return Object.keys(presets).filter((name) => presetValues(name).trainer.type === trainerType);
}

/** What is wrong with a config whose trainer.type is not that of its preset, whose rate and length mean nothing to it; undefined where it fits. */
export function presetMisfit({ preset, trainer: { type } }: Config): string | undefined {
  const fitting = presetsFor(type);
  if (!isPreset(preset) || fitting.length === 0 || fitting.includes(preset)) return undefined;
  return `found "${type}", but preset "${preset}" is for trainer.type ${presetValues(preset).trainer.type}; take preset ${alternatives(fitting)}`;
}

/** Whether there is a preset of that name. */
export function isPreset(name: unknown): name is string {
  return typeof name === "string" && Object.hasOwn(presets, name);
}

/** The words of which a knob takes one: its choices, or the presets' names; undefined where it takes more than a few words. */
export function choicesOf(knob: Knob): readonly string[] | undefined {
  return knob.path === "preset" ? Object.keys(presets) : knob.kind === "choice" ? knob.choices : undefined;
}

/** What a knob allows, for people, the presets' names included. */
export function allowedFor(knob: Knob): string {
  const choices = choicesOf(knob);
  return choices === undefined ? allowed(knob) : alternatives(choices);
}

/** A fresh config: defaults, then the preset's values. Throws RangeError for a name that is none (a caller's bug). */
export function presetConfig(name: string): Config {
  return withoutStrangers(presetValues(name));
}

/** The same with the knobs of all methods, for layers above that may choose another. */
export function presetValues(name: string): Config {
  if (!isPreset(name)) throw new RangeError(`no preset ${name}`);
  const config = defaultConfig();
  const values: PartialConfig = { ...presets[name]!.values, preset: name };
  for (const { path } of knobs) {
    const value = valueAt(values, path);
    if (value !== undefined) setAt(config, path, value);
  }
  return config;
}
