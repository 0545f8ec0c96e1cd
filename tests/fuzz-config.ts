// The fuzz targets of the config: a file of JSONC, the config in it, and the texts of --set and EGG_SET.
// Not the run folder's files: fuzz-targets.ts. Read next: fuzz.ts, which makes the inputs.
import { longestFile, parseJsonc, type JsonNode } from "../src/config/jsonc.ts";
import { accepts, appliesTo, knobs, methodOf, valueAt, type Config, type Knob, type KnobPath } from "../src/config/knobs.ts";
import { canonicalConfig, loadConfig } from "../src/config/load.ts";
import { isPreset } from "../src/config/presets.ts";
import type { Random, Target } from "./fuzz.ts";
import { decoded, encode, json, must, often, outcome, parsed, shape } from "./fuzz-properties.ts";

/** Plain JSON from JSONC, by a scan of its own: comments become blanks, and a comma before a closing bracket goes. */
function plainJson(text: string): string {
  const plain: string[] = [];
  let comma = -1;
  let significant = "[";
  for (let at = 0; at < text.length; ) {
    const char = text[at]!;
    if (char === '"') {
      let end = at + 1;
      while (end < text.length && text[end] !== '"') end += text[end] === "\\" ? 2 : 1;
      plain.push(text.slice(at, end + 1));
      [at, significant, comma] = [end + 1, '"', -1];
    } else if (char === "/" && text[at + 1] === "/") {
      while (at < text.length && text[at] !== "\n" && text[at] !== "\r") at++;
      plain.push(" ");
    } else if (char === "/" && text[at + 1] === "*") {
      const end = text.indexOf("*/", at + 2);
      if (end < 0) return "/*";
      plain.push(" ");
      at = end + 2;
    } else {
      if (char === ",") comma = "[{,:".includes(significant) ? -1 : plain.length;
      else if ((char === "]" || char === "}") && comma >= 0) plain[comma] = " ";
      if (!" \t\r\n".includes(char)) {
        significant = char;
        if (char !== ",") comma = -1;
      }
      plain.push(char);
      at++;
    }
  }
  return plain.join("");
}

function same(node: JsonNode, value: unknown): boolean {
  if (node.kind === "scalar") return node.value === value;
  if (node.kind === "array") return Array.isArray(value) && value.length === node.items.length && node.items.every((item, i) => same(item, value[i]));
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.keys(value).length === node.entries.length && node.entries.every(({ key, value: child }) => Object.hasOwn(value, key) && same(child, (value as Record<string, unknown>)[key]));
}

/** What egg refuses on purpose, though JSON.parse takes it. */
const stricterConfig = /expected each key once|below 1\.8e308|levels of nesting|values, found more|expected at most \d+ bytes/;

export const jsonc: Target = {
  words: ["{", "}", "[", "]", ",", ":", '"', "\\", "//", "/*", "*/", "\\u", "\\ud800", "true", "null", "\ufeff", "\u2028", "\r", "1e5", ",]", ",}", "é", new Uint8Array([0xff]), new Uint8Array([0])],
  make: (random) => encode(json(random, 5, !random.oneIn(3))),
  check(bytes) {
    const result = outcome(["usage"], () => parseJsonc(bytes, "egg.json"));
    const text = decoded(bytes);
    const reference = text === null ? null : parsed(plainJson(text));
    if ("value" in result) {
      must(reference !== null && same(result.value, reference.value), "what is accepted is what JSON.parse reads");
      return `good ${result.value.kind} ${Math.min(bytes.length >> 4, 20)}`;
    }
    const halfPair = /an escape such as/.test(result.error.message) && /\\u[dD][89abAB]|\\u[dD][c-fC-F]/.test(text ?? "");
    must(reference === null || stricterConfig.test(result.error.message) || halfPair || bytes.length > longestFile, "what JSON.parse reads is accepted");
    return shape(result.error);
  },
};

function expectConfig(config: Config): void {
  for (const knob of knobs as readonly (Knob & { path: KnobPath })[]) {
    const value = valueAt(config, knob.path);
    if (!appliesTo(knob, methodOf(config))) must(value === undefined, `${knob.path} is another method's`);
    else must(knob.path === "preset" ? isPreset(value) : accepts(knob, value), `${knob.path} is in its range`);
  }
}

/** A value for a knob, right or nearly. */
function valueFor(knob: Knob, random: Random): unknown {
  if (random.oneIn(12)) return random.of<unknown>([null, "x", -1, 1.5, 2 ** 31, "", true, 1e300]);
  switch (knob.kind) {
    case "integer": return random.of([knob.min, knob.max, knob.default, knob.min + (knob.multipleOf ?? 1) * random.below(9), knob.max + 1]);
    case "number": return random.of([knob.min, knob.max, knob.default, knob.max / 3]);
    case "boolean": return random.oneIn(2);
    case "choice": return random.of(knob.choices);
    case "string": return knob.path === "preset" ? random.of(["egg", "egg.c", "nano-egg", "gpt-nano", "llama-tiny"]) : random.of([knob.default, "a b", "é,\\", "x=y", "\u0000", "-"]);
  }
}

const names = knobs.map((knob) => knob.path);

export const config: Target = {
  words: ["{", "}", '"run"', '"model"', '"hidden"', '"seed"', ":", ",", "{}", "[]", "16", '"$schema"', '"preset"', '"run.seed"', "//\n"],
  make(random) {
    if (random.oneIn(4)) return encode(json(random, 3, true));
    const sections = new Map<string, string[]>();
    for (let n = random.below(6); n > 0; n--) {
      const knob = random.of(knobs as readonly Knob[]);
      const [section, name] = knob.path.includes(".") ? knob.path.split(".") as [string, string] : ["", knob.path];
      sections.set(section, [...(sections.get(section) ?? []), `${JSON.stringify(name)}: ${JSON.stringify(valueFor(knob, random))}`]);
    }
    return encode(`{${[...sections].map(([section, fields]) => (section === "" ? fields.join() : `"${section}": {${fields.join()}}`)).join(",")}}`);
  },
  check(bytes) {
    const result = outcome(["usage"], () => loadConfig({ file: "egg.json", bytes }));
    if ("error" in result) return shape(result.error);
    if (!often("config")) return "good";
    expectConfig(result.value.config);
    const again = loadConfig({ file: "again.json", bytes: encode(canonicalConfig(result.value.config)) });
    must(canonicalConfig(again.config) === canonicalConfig(result.value.config), "what is written is read back");
    return "good";
  },
};

/** Texts for EGG_SET and --set: what stands before the first newline is EGG_SET, each further line a --set. */
export const sets: Target = {
  words: [...names, "=", ",", "\\,", "\n", "1e3", "-", "egg.c", " ", "0x10", "NaN", "+1", ".5", "run.", "=\\"],
  make(random) {
    const setting = (escape: boolean): string => {
      const knob = random.of(knobs as readonly Knob[]);
      const text = `${random.oneIn(12) ? random.of(names).slice(1) : knob.path}${random.oneIn(20) ? "" : "="}${String(valueFor(knob, random))}`;
      return escape ? text.replaceAll(",", "\\,") : text;
    };
    const lines = [Array.from({ length: random.below(3) }, () => setting(true)).join(",")];
    for (let n = random.below(3); n > 0; n--) lines.push(setting(false));
    return encode(lines.join("\n"));
  },
  check(bytes) {
    const [environment = "", ...given] = new TextDecoder().decode(bytes).split("\n");
    process.env["EGG_SET"] = environment.replaceAll("\0", "");
    try {
      const result = outcome(["usage"], () => loadConfig({ sets: given }));
      if ("error" in result) return shape(result.error).slice(0, 100);
      const { config } = result.value;
      if (!often("sets")) return "good";
      expectConfig(config);
      delete process.env["EGG_SET"];
      const all = names.filter((path) => valueAt(config, path) !== undefined).map((path) => `${path}=${String(valueAt(config, path))}`);
      must(canonicalConfig(loadConfig({ sets: all }).config) === canonicalConfig(config), "what --set gives is what --set takes");
      const commas = all.filter((text) => !/\\|^\s|\s$/.test(text)).map((text) => text.replaceAll(",", "\\,"));
      process.env["EGG_SET"] = commas.join(" , ");
      for (const [path, source] of loadConfig({ sets: all.filter((text) => /\\|^\s|\s$/.test(text)) }).sources) must(/^EGG_SET|^--set/.test(source), `${path} comes from EGG_SET or --set`);
      return "good";
    } finally {
      delete process.env["EGG_SET"];
    }
  },
};
