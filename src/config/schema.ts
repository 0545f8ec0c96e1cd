// The JSON schema of egg.json, made from the table of knobs, for editors and other checkers.
// Not how egg itself checks a config (load.ts), though a test holds the two to the same verdicts.
// Read next: init.ts.

import { bounds, type WrongValue } from "./bounds.ts";
import { knobs, longest, sections, type Knob } from "./knobs.ts";
import { presets } from "./presets.ts";

type JsonSchema = { [key: string]: unknown };

/** A fresh JSON schema object (draft 2020-12): types, ranges, and which knobs do not go together. It takes what `egg config check` takes. */
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
    allOf: bounds.flatMap(({ wrongTogether }) => (wrongTogether === undefined ? [] : [{ not: together(Object.entries(wrongTogether)) }])),
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

function knobSchema(knob: Knob): JsonSchema {
  const description = knob.help + (knob.unit === undefined ? "" : ` [${knob.unit}]`);
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
