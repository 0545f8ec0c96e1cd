// Loads the config: defaults < preset < file < EGG_SET < --set < flags, every problem of every layer reported at once. A preset that is
// not named follows from trainer.type and model.type (startingPreset).
// Not here: what a knob is (knobs.ts), how JSONC is read (jsonc.ts), or the run's name (a flag, not a config key).
// Read next: src/commands, which call this, and schema.ts.

import { closeSync, openSync, readSync } from "node:fs";
import { resolve } from "node:path";
import { EggError } from "../errors.ts";
import { bounds } from "./bounds.ts";
import { longestFile, parseJsonc, type JsonNode, type Place } from "./jsonc.ts";
import { accepts, appliesTo, found, knobAt, knobs, methodOf, methods, numberFromText, onlyFor, rules, sections, setAt, valueAt, withoutStrangers, type Config, type Knob, type KnobPath, type KnobValue } from "./knobs.ts";
import { nearest } from "./nearest.ts";
import { allowedFor, choicesOf, defaultPreset, isPreset, presetMisfit, presets, presetValues, startingPreset } from "./presets.ts";

/** Values that came from options of their own, such as { "run.out": { flag: "--out", value: "here" } }; undefined values are left out. */
export type Flags = { [P in KnobPath]?: { flag: string; value: KnobValue<P> | undefined } };

export interface Loaded {
  config: Config;
  /** Where each value came from: "default", "preset egg.c", a preset that is not named itself from "model.type", "egg.json:7:15", "EGG_SET run.seed=2", "--set run.seed=2", "--out". */
  sources: Map<KnobPath, string>;
}

/** A value that a layer gives to a knob, with its place for `sources` and its label for messages. */
interface Setting {
  path: KnobPath;
  value: unknown;
  source: string;
  label: string;
}

/**
 * The effective config of a command. `file` is a path to JSONC (none: no file layer), `bytes` its content where it is read already; `sets` are texts "path=value", later ones win;
 * the environment variable EGG_SET holds the like, parted by commas ("\," is a comma in a value).
 * Throws EggError("usage") with one line a problem: "egg.json:7:15 trainer.population: found 127, allowed an even number from 2 to 1048576".
 */
export function loadConfig(options: { file?: string; bytes?: Uint8Array; sets?: readonly string[]; flags?: Flags } = {}): Loaded {
  const problems: string[] = [];
  const settings: Setting[] = [];
  let missing = false;
  if (options.file !== undefined) {
    try {
      settings.push(...fileSettings(options.bytes ?? readFile(options.file), options.file, problems));
    } catch (error) {
      if (!(error instanceof EggError)) throw error;
      problems.push(error.message);
      missing = error.cause !== undefined;
    }
  }
  const environment = process.env["EGG_SET"]?.trim() ?? "";
  // A comma parts two settings unless a backslash stands before it.
  const parts = environment === "" ? [] : environment.split(/(?<!\\),/).map((part) => part.trim().replaceAll("\\,", ","));
  for (const part of parts) settings.push(...textSetting("EGG_SET", part, problems));
  for (const text of options.sets ?? []) settings.push(...textSetting("--set", text, problems));
  for (const [path, { flag, value }] of Object.entries(options.flags ?? {}) as [KnobPath, { flag: string; value: unknown }][]) {
    if (value !== undefined) settings.push({ path, value, source: flag, label: `${flag} (${path})` });
  }

  for (const setting of settings) {
    const problem = settingProblem(setting);
    if (problem !== undefined) problems.push(`${setting.label}: ${problem}`);
  }
  const loaded = merge(settings);
  const { trainer } = loaded.config;
  const method = methodOf(loaded.config);
  const known = (methods as readonly unknown[]).includes(method); // another is reported above
  for (const { path, label } of settings) {
    const knob = knobAt(path)!;
    if (known && !appliesTo(knob, method)) problems.push(`${label}: ${onlyFor(knob)}, and ${trainer.type === "eggroll-int8" && rules.some((rule) => appliesTo(knob, rule)) ? `trainer.rule is ${found(trainer.rule)}` : `trainer.type is ${found(trainer.type)}`}`);
  }
  const labelOf = (path: KnobPath): string => settings.findLast((setting) => setting.path === path)?.label ?? `${loaded.sources.get(path)} ${path}`;
  const misfit = presetMisfit(loaded.config);
  if (misfit !== undefined) problems.push(`${labelOf("trainer.type")}: ${misfit}`);
  // Bounds that the values of such a preset break would only be noise.
  for (const { path, problem } of misfit === undefined ? bounds : []) {
    if (typeof valueAt(loaded.config, path) !== typeof knobAt(path)!.default) continue; // reported above, or another method's
    const text = problem(loaded.config);
    if (text !== undefined) problems.push(`${labelOf(path)}: ${text}`);
  }
  if (problems.length > 0) {
    const hint = missing ? "egg config init writes a config file to start from" : "egg config init shows every key and what it allows";
    throw new EggError("usage", problems.join("\n"), { hint });
  }
  return loaded;
}

function merge(settings: readonly Setting[]): Loaded {
  const given = (path: KnobPath): unknown => settings.findLast((setting) => setting.path === path)?.value;
  const name = startingPreset(given("preset"), given("trainer.type"), given("model.type"));
  const config = presetValues(name);
  const sources = new Map<KnobPath, string>();
  for (const { path } of knobs) {
    sources.set(path, path !== "preset" && valueAt({ ...presets[name]!.values }, path) !== undefined ? `preset ${name}` : "default");
  }
  if (name !== defaultPreset) sources.set("preset", given("trainer.type") === undefined ? "model.type" : "trainer.type");
  for (const { path, value, source } of settings) {
    setAt(config, path, value);
    sources.set(path, source);
  }
  for (const knob of knobs as readonly (Knob & { path: KnobPath })[]) if (!appliesTo(knob, methodOf(config))) sources.delete(knob.path);
  return { config: withoutStrangers(config), sources };
}

function settingProblem({ path, value }: Setting): string | undefined {
  const knob = knobAt(path)!;
  if (path === "preset" ? isPreset(value) : accepts(knob, value)) return undefined;
  const near = typeof value === "string" ? nearest(value, choicesOf(knob) ?? []) : undefined;
  return `found ${found(value)}, allowed ${allowedFor(knob)}${near === undefined ? "" : `; did you mean ${JSON.stringify(near)}?`}`;
}

/** Keys that a reference has and egg does not, with the reason. */
const refused: ReadonlyMap<string, string> = new Map([
  ["trainer.fast_fitness", "nano-egg's fitness is always the sign of a pair's difference: its other way is broken in the reference"],
  ["trainer.rank", "perturbations are of rank 1: nano-egg's update for a higher rank is broken in the reference"],
]);

/** "unknown key" with the nearest path there is: a near path, or the same or a near name in another section. */
function unknownKey(path: string): string {
  if (sections.includes(path)) return `a section, not a key; its keys: ${knobs.flatMap((k) => (k.path.startsWith(`${path}.`) ? [k.path] : [])).join(", ")}`;
  const refusal = refused.get(path);
  if (refusal !== undefined) return `found, but ${refusal}`;
  const last = (text: string) => text.slice(text.lastIndexOf(".") + 1);
  const paths = knobs.map((knob) => knob.path);
  const name = nearest(last(path), paths.map(last));
  const near = nearest(path, [...sections, ...paths]) ?? paths.find((known) => last(known) === name);
  return `unknown key${near === undefined ? "" : `; did you mean ${near}?`}`;
}

function textSetting(origin: string, text: string, problems: string[]): Setting[] {
  const label = `${origin} ${text}`;
  const cut = text.indexOf("=");
  const path = text.slice(0, cut);
  const knob = knobAt(path);
  if (cut < 0) problems.push(`${label}: found no "=", expected path=value such as run.seed=7`);
  else if (knob === undefined) problems.push(`${label}: ${unknownKey(path)}`);
  else {
    const value = text.slice(cut + 1);
    return [{ path: knob.path, value: valueFromText(knob, value), source: label, label }];
  }
  return [];
}

/** What a text means to a knob; the text itself where it means nothing, for the message. */
function valueFromText(knob: Knob, text: string): unknown {
  if (knob.kind === "integer" || knob.kind === "number") return numberFromText(text) ?? text;
  if (knob.kind === "boolean" && (text === "true" || text === "false")) return text === "true";
  return text;
}

function fileSettings(bytes: Uint8Array, file: string, problems: string[]): Setting[] {
  const at = ({ line, column }: Place) => `${file}:${line}:${column}`;
  const root = parseJsonc(bytes, file);
  if (root.kind !== "object") throw new EggError("usage", `${at(root.at)} the config: found ${found(plain(root))}, allowed an object of sections`);
  const settings: Setting[] = [];
  const take = (path: string, key: Place, value: JsonNode) => {
    const knob = knobAt(path);
    if (knob === undefined) problems.push(`${at(key)} ${path}: ${unknownKey(path)}`);
    else settings.push({ path: knob.path, value: plain(value), source: at(value.at), label: `${at(value.at)} ${path}` });
  };
  for (const { key, at: keyAt, value } of root.entries) {
    if (key === "$schema") {
      if (typeof plain(value) !== "string") problems.push(`${at(value.at)} $schema: found ${found(plain(value))}, allowed a text`);
    } else if (key.includes(".") && knobAt(key) !== undefined) {
      const [section, name] = key.split(".");
      problems.push(`${at(keyAt)} ${key}: found a dotted key, write "${section}": { "${name}": … }`);
    } else if (!sections.includes(key)) take(key, keyAt, value);
    else if (value.kind !== "object") problems.push(`${at(value.at)} ${key}: found ${found(plain(value))}, allowed a section { … }`);
    else for (const entry of value.entries) take(`${key}.${entry.key}`, entry.at, entry.value);
  }
  return settings;
}

/** The value for messages and checks; no knob takes an object or an array, so their contents do not matter. */
function plain(node: JsonNode): unknown {
  return node.kind === "scalar" ? node.value : node.kind === "array" ? [] : {};
}

/** Reads at most one byte more than is allowed, so that pipes such as <(…) work and an endless one ends. */
function readFile(file: string): Uint8Array {
  try {
    const descriptor = openSync(file, "r");
    try {
      const bytes = new Uint8Array(longestFile + 1);
      let length = 0;
      for (let count = -1; count !== 0 && length < bytes.length; length += count) count = readSync(descriptor, bytes, length, bytes.length - length, null);
      return bytes.subarray(0, length);
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "no such file" : code === "EISDIR" ? "is a folder, expected a file" : `cannot be read (${code})`;
    throw new EggError("usage", `${file === "" ? '""' : resolve(file)}: ${why}`, { cause });
  }
}

/** The config as people read it and as the run folder keeps it: JSON, sections and keys in table order, a newline at the end. */
export function effectiveConfigText(config: Config): string {
  return `${JSON.stringify(ordered(config, knobs.map((knob) => knob.path)), null, 2)}\n`;
}

/** Every value with where it came from: plain text in columns, one line a knob. */
export function sourcesText({ config, sources }: Loaded): string {
  const rows = [...sources].map(([path, source]) => [path, JSON.stringify(valueAt(config, path)), source] as const);
  const width = (column: 0 | 1): number => Math.max(...rows.map((row) => row[column].length));
  return rows.map(([path, value, source]) => `${path.padEnd(width(0))}  ${value.padEnd(width(1))}  ${source}\n`).join("");
}

/** The config as it is hashed: compact JSON, sections and keys in ascending order, so that moving a table row changes no hash. */
export function canonicalConfig(config: Config): string {
  const paths = knobs.map((knob) => knob.path).sort();
  return JSON.stringify(ordered(config, paths));
}

function ordered(config: Config, paths: readonly KnobPath[]): object {
  const copy = {};
  for (const path of paths) setAt(copy, path, valueAt(config, path));
  return copy;
}
