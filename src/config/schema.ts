// The JSON schema of egg.json, made from the table of knobs, for editors and other checkers.
// Not how egg itself checks a config (load.ts), though a test holds the two to the same verdicts.
// Read next: init.ts.

import { bounds, limitsOf, type WrongValue } from "./bounds.ts";
import { appliesTo, knobs, longest, rules, sections, valueAt, type Knob, type KnobPath, type Rule } from "./knobs.ts";
import { defaultPreset, presetConfig, presets, presetValues } from "./presets.ts";

type JsonSchema = { [key: string]: unknown };

/**
 * A fresh JSON schema object (draft 2020-12): types, ranges, what each rule knows, and which knobs do not go together. It takes what
 * `egg config check` takes, but for one thing that it cannot say: that a group divides the population.
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
      ...rules.flatMap(ruleSchemas),
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

/** Knobs of other rules are not there; widths and populations are such that nothing overflows. */
function ruleSchemas(rule: Rule): JsonSchema[] {
  const strangers = (section: string) => Object.fromEntries(knobs.flatMap((knob: Knob) => (knob.path.startsWith(`${section}.`) && !appliesTo(knob, rule) ? [[knob.path.slice(section.length + 1), false]] : [])));
  const limits = Object.entries(limitsOf(rule)).map(([path, { most, multipleOf }]) => [path, { ...(most === undefined ? {} : { maximum: most }), ...(multipleOf === undefined ? {} : { multipleOf }) }] as const);
  const within = (section: string) => Object.fromEntries(limits.flatMap(([path, limit]) => (path.startsWith(`${section}.`) ? [[path.slice(section.length + 1), limit]] : [])));
  const parts = ["model", "trainer"].map((section) => [section, { properties: { ...within(section), ...strangers(section) } }]);
  return [{ anyOf: [{ not: has(rule) }, { properties: Object.fromEntries(parts) }] }, ...presetsBeyond(rule)];
}

/** Where a preset of another rule brings a value that this rule does not take, a config of both must have one of its own. */
function presetsBeyond(rule: Rule): JsonSchema[] {
  return Object.entries(limitsOf(rule)).flatMap(([path, { most = Infinity, multipleOf = 1 }]) => {
    const [section = "", name = ""] = path.split(".");
    const names = Object.keys(presets).filter((preset) => {
      const value = valueAt(presetValues(preset), path as KnobPath) as number;
      return value > most || value % multipleOf !== 0;
    });
    if (names.length === 0) return [];
    const preset = { properties: { preset: { enum: names } }, ...(names.includes(defaultPreset) ? {} : { required: ["preset"] }) };
    return [{ anyOf: [{ not: { allOf: [has(rule), preset] } }, { required: [section], properties: { [section]: { required: [name] } } }] }];
  });
}

/** Fits a config of this rule: it names the rule, or else a preset of it, or none where the default one is of it. */
function has(rule: Rule): JsonSchema {
  const named = (value: JsonSchema): JsonSchema => ({ required: ["trainer"], properties: { trainer: { required: ["rule"], properties: { rule: value } } } });
  const ofRule = Object.keys(presets).filter((name) => presetConfig(name).trainer.rule === rule);
  const preset = { properties: { preset: { enum: ofRule } }, ...(ofRule.includes(defaultPreset) ? {} : { required: ["preset"] }) };
  return { anyOf: [named({ const: rule }), { allOf: [{ not: named({}) }, preset] }] };
}

function knobSchema(knob: Knob): JsonSchema {
  const description = knob.help + (knob.unit === undefined ? "" : ` [${knob.unit}]`) + (knob.rule === undefined ? "" : `; only for trainer.rule ${[knob.rule].flat().join(" and ")}`);
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
