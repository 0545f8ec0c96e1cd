// The JSON schema of egg.json, made from the table of knobs, for editors and other checkers.
// Not how egg itself checks a config (load.ts), though a test holds the two to the same verdicts.
// Read next: init.ts.

import { bounds, limitsOf, type WrongValue } from "./bounds.ts";
import { appliesTo, knobs, longest, methods, onlyFor, sections, valueAt, type Knob, type KnobPath, type Method } from "./knobs.ts";
import { defaultPreset, gradientPreset, presets, presetsFor, presetValues } from "./presets.ts";

type JsonSchema = { [key: string]: unknown };

/**
 * A fresh JSON schema object (draft 2020-12): types, ranges, what each way to learn knows, and which knobs do not go together. It
 * takes what `egg config check` takes, but for what it cannot say: that a group divides the population, and heads the width.
 */
export function configSchema(): JsonSchema {
  const properties: Record<string, JsonSchema> = { $schema: { type: "string", description: "for editors; egg ignores it" } };
  for (const knob of knobs) if (!knob.path.includes(".")) properties[knob.path] = knobSchema(knob);
  for (const section of sections) {
    const rows = knobs.filter((knob) => knob.path.startsWith(`${section}.`));
    properties[section] = {
      type: "object",
      additionalProperties: false,
      properties: Object.fromEntries(rows.map((knob) => [knob.path.slice(section.length + 1), knobSchema(knob)])),
    };
  }
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "egg.json",
    description: "The config of a run of egg. Every key may be left out: it then comes from the preset, or else is the default given here.",
    type: "object",
    additionalProperties: false,
    properties,
    allOf: [
      ...methods.flatMap(methodSchemas),
      ...["eggroll-int8", "backprop"].map((type): JsonSchema => ({ anyOf: [{ not: named("trainer.type", { const: type }) }, presetIn(presetsFor(type))] })),
      ...bounds.flatMap(({ wrongTogether }) => (wrongTogether === undefined ? [] : [{ not: together(Object.entries(wrongTogether)) }])),
    ],
  };
}

/** Fits a config that has all these values at once. Values of a wrong type fit too: their own rows refuse them. */
function together(values: [string, WrongValue][]): JsonSchema {
  return {
    allOf: values.map(([path, value]) => {
      const [section = "", name = ""] = path.split(".");
      if ("missingOr" in value) return { properties: { [section]: { properties: { [name]: { const: value.missingOr } } } } };
      const rule = "is" in value ? { const: value.is } : { minimum: value.atLeast };
      return { required: [section], properties: { [section]: { required: [name], properties: { [name]: rule } } } };
    }),
  };
}

/** Knobs of other methods are not there; widths and populations are such that nothing overflows. */
function methodSchemas(method: Method): JsonSchema[] {
  const strangers = (section: string) => Object.fromEntries(knobs.flatMap((knob: Knob) => (knob.path.startsWith(`${section}.`) && !appliesTo(knob, method) ? [[knob.path.slice(section.length + 1), false]] : [])));
  const limits = Object.entries(limitsOf(method)).map(([path, { most, multipleOf, oneOf }]) =>
    [path, { ...(most === undefined ? {} : { maximum: most }), ...(multipleOf === undefined ? {} : { multipleOf }), ...(oneOf === undefined ? {} : { enum: oneOf }) }] as const);
  const within = (section: string) => Object.fromEntries(limits.flatMap(([path, limit]) => (path.startsWith(`${section}.`) ? [[path.slice(section.length + 1), limit]] : [])));
  const parts = ["data", "model", "trainer"].map((section) => [section, { properties: { ...within(section), ...strangers(section) } }]);
  return [{ anyOf: [{ not: has(method) }, { properties: Object.fromEntries(parts) }] }, ...presetsBeyond(method)];
}

/** Where a preset of another method brings a value that this one does not take, a config of both must have one of its own. */
function presetsBeyond(method: Method): JsonSchema[] {
  return Object.entries(limitsOf(method)).flatMap(([path, { most = Infinity, multipleOf = 1, oneOf }]) => {
    const [section = "", name = ""] = path.split(".");
    const names = Object.keys(presets).filter((preset) => {
      const value = valueAt(presetValues(preset), path as KnobPath);
      return typeof value === "number" ? value > most || value % multipleOf !== 0 : oneOf?.includes(value as string) === false;
    });
    if (names.length === 0) return [];
    return [{ anyOf: [{ not: { allOf: [has(method), presetIn(names)] } }, { required: [section], properties: { [section]: { required: [name] } } }] }];
  });
}

/** Fits a config of this method: it says so, or leaves what it does not say to a preset that does. */
function has(method: Method): JsonSchema {
  if (method === "backprop") return knobIs("trainer.type", method);
  return { allOf: [knobIs("trainer.type", "eggroll-int8"), knobIs("trainer.rule", method)] };
}

/** Fits a config in which the knob has this value: it names it, or else a preset with it, or none where the default one has it. */
function knobIs(path: KnobPath, value: string): JsonSchema {
  return { anyOf: [named(path, { const: value }), { allOf: [{ not: named(path, {}) }, presetIn(Object.keys(presets).filter((preset) => valueAt(presetValues(preset), path) === value))] }] };
}

/** Fits a config that has a value there, and one of this schema. */
function named(path: KnobPath, schema: JsonSchema): JsonSchema {
  const [section = "", name = ""] = path.split(".");
  return { required: [section], properties: { [section]: { required: [name], properties: { [name]: schema } } } };
}

/** Fits a config that starts from one of these presets: it names it, or names none and asks for gradients, or for none, as the one does. */
function presetIn(names: readonly string[]): JsonSchema {
  const gradients = { anyOf: [named("trainer.type", { const: "backprop" }), { allOf: [{ not: named("trainer.type", {}) }, named("model.type", { enum: ["gpt", "llama"] })] }] };
  const unnamed = (asked: JsonSchema): JsonSchema => ({ allOf: [{ not: { required: ["preset"] } }, asked] });
  return {
    anyOf: [
      { required: ["preset"], properties: { preset: { enum: names } } },
      ...(names.includes(gradientPreset) ? [unnamed(gradients)] : []),
      ...(names.includes(defaultPreset) ? [unnamed({ not: gradients })] : []),
    ],
  };
}

function knobSchema(knob: Knob): JsonSchema {
  const description = knob.help + (knob.unit === undefined ? "" : ` [${knob.unit}]`) + (onlyFor(knob) === undefined ? "" : `; ${onlyFor(knob)}`);
  return { ...typeSchema(knob), default: knob.default, description };
}

function typeSchema(knob: Knob): JsonSchema {
  if (knob.path === "preset") return { type: "string", enum: Object.keys(presets) };
  switch (knob.kind) {
    case "integer":
      return { type: "integer", minimum: knob.min, maximum: knob.max, ...(knob.multipleOf === undefined ? {} : { multipleOf: knob.multipleOf }) };
    case "number":
      return { type: "number", minimum: knob.min, maximum: knob.max };
    case "choice":
      return { type: "string", enum: [...knob.choices] };
    case "boolean":
      return { type: "boolean" };
    case "string":
      if (knob.form === "text") return { type: "string", maxLength: longest.text };
      return { type: "string", minLength: 1, maxLength: longest.path, pattern: "^[^\\u0000]*$" };
  }
}
