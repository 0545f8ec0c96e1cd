// Presets: named sets of defaults, one table row each. A preset lists the values that make it what it is, and no others.
// Not here: the knobs' own defaults and ranges (knobs.ts), and what overrides a preset (load.ts).
// Read next: load.ts.

import { allowed, alternatives, defaultConfig, knobs, setAt, valueAt, type Config, type Knob, type PartialConfig } from "./knobs.ts";

export interface Preset {
  help: string;
  values: Omit<PartialConfig, "preset">;
}

export const presets: Readonly<Record<string, Preset>> = {
  "egg.c": {
    help: "the model and the training of egg.c: int8 GRU, hidden 128, 4 layers, 64 pairs",
    values: {
      model: { hidden: 128, layers: 4 },
      trainer: { population: 128, sequence: 256, sigma_shift: 4, threshold: 160 },
    },
  },
};

/** The preset of a config that names none; the table of knobs says which. */
export const defaultPreset: string = defaultConfig().preset;

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
  if (!isPreset(name)) throw new RangeError(`no preset ${name}`);
  const config = defaultConfig();
  const values: PartialConfig = { ...presets[name]!.values, preset: name };
  for (const { path } of knobs) {
    const value = valueAt(values, path);
    if (value !== undefined) setAt(config, path, value);
  }
  return config;
}
