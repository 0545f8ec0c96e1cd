// The knobs for people: a first egg.json with what each is for and allows as comments, and the same as a table of help.
// Not the effective config of a run (effectiveConfigText in load.ts), which has no comments.
// Read next: src/commands.

import { EggError } from "../errors.ts";
import { alternatives, appliesTo, knobs, methodOf, onlyFor, valueAt, type Config, type Knob, type KnobPath } from "./knobs.ts";
import { nearest } from "./nearest.ts";
import { allowedFor, isPreset, presetConfig, presets } from "./presets.ts";

/** Commented JSONC that loads to exactly the preset's values. Throws EggError("usage") for a preset that is none. */
export function initText(preset: string): string {
  const names = Object.keys(presets);
  if (!isPreset(preset)) {
    const near = nearest(preset, names);
    const ask = near === undefined ? "" : `; did you mean ${JSON.stringify(near)}?`;
    throw new EggError("usage", `preset: found ${JSON.stringify(preset)}, allowed ${alternatives(names)}${ask}`);
  }
  const config = presetConfig(preset);
  const lines = [
    "// The config of a run of egg. Lines that you delete fall back to the preset.",
    "{",
    "  // For editors that complete and check: egg config schema > egg.schema.json, and this line without its slashes",
    '  // "$schema": "./egg.schema.json",',
    "",
  ];
  let open = "";
  for (const knob of knobs) {
    if (!appliesTo(knob, methodOf(config))) continue;
    const section = knob.path.includes(".") ? knob.path.slice(0, knob.path.indexOf(".")) : "";
    if (section !== open) {
      if (open !== "") lines.push("  },");
      lines.push("", `  "${section}": {`);
      open = section;
    }
    lines.push(...knobLines(knob, config, section));
  }
  lines.push(...(open === "" ? [] : ["  }"]), "}", "");
  return lines.join("\n");
}

function knobLines(knob: Knob & { path: KnobPath }, config: Config, section: string): string[] {
  const indent = section === "" ? "  " : "    ";
  const name = section === "" ? knob.path : knob.path.slice(section.length + 1);
  return [`${indent}// ${explained(knob)}`, `${indent}"${name}": ${JSON.stringify(valueAt(config, knob.path))},`];
}

/** Every knob with its default and what it is for and allows: plain text in columns, one line a knob. */
export function knobsHelp(): string {
  const rows = knobs.map((knob: Knob) => [knob.path, JSON.stringify(knob.default), explained(knob)] as const);
  const width = (column: 0 | 1) => Math.max(...rows.map((row) => row[column].length));
  return rows.map(([path, value, text]) => `${path.padEnd(width(0))}  ${value.padEnd(width(1))}  ${text}`).join("\n");
}

/** "members a step, in mirrored pairs [members]; an even number from 2 to 1048576" */
function explained(knob: Knob): string {
  return `${knob.help}${knob.unit === undefined ? "" : ` [${knob.unit}]`}; ${allowedFor(knob)}${onlyFor(knob) === undefined ? "" : `; ${onlyFor(knob)}`}`;
}
