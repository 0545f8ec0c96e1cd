// The JSON schema against the loader, over good and bad configs of every rule; the commented init text; the canonical text.
// Not what the loader says about a fault (config.test.ts).
// Read next: src/config/schema.ts.

import { afterAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { initText } from "../src/config/init.ts";
import { appliesTo, knobs, methodOf, sections, setAt, valueAt, type Config, type Knob, type KnobPath } from "../src/config/knobs.ts";
import { canonicalConfig, effectiveConfigText, loadConfig } from "../src/config/load.ts";
import { choicesOf, presetConfig, presets } from "../src/config/presets.ts";
import { configSchema } from "../src/config/schema.ts";
import { EggError } from "../src/errors.ts";
import { seededRandom } from "../src/models/sampling.ts";
import { configFile } from "./configfile.ts";

setDefaultTimeout(60_000);
const { file, write, problems, fileProblems, remove } = configFile();
afterAll(remove);
beforeEach(() => void delete process.env["EGG_SET"]);

describe("schema, init and saved texts", () => {
  // Strict: a word that the validator does not know, or that cannot apply, is an error.
  const valid = new Ajv2020({ strict: true, strictRequired: false, strictTypes: false }).compile(configSchema());
  const loads = (config: unknown) => {
    try {
      loadConfig({ file: write(JSON.stringify(config)) });
      return true;
    } catch (error) {
      if (error instanceof EggError) return false;
      throw error;
    }
  };

  /** Whether the last config that was loaded is refused for what JSON schema cannot say, and for nothing else. */
  const beyondSchema = (verdict: boolean): boolean => !verdict && problems(() => loadConfig({ file })).every((line) => / which does not divide |need heads of an even width|which is not above /.test(line));

  /** Configs that are good or bad by their rule alone. */
  const rulesApart = [
    { trainer: { alpha: 2 } }, { preset: "nano-egg", trainer: { alpha: 2 } }, { trainer: { rule: "nano-egg", alpha: 2 } }, { preset: "nano-egg", trainer: { rule: "egg.c", alpha: 2 } },
    { preset: "nano-egg", trainer: { threshold: 2 } }, { preset: "egg.c", trainer: { threshold: 2 } }, { preset: "nano-egg", trainer: { rule: "egg.c", threshold: 2 } },
    { preset: "nano-egg", model: { hidden: 560 } }, { preset: "nano-egg", model: { hidden: 576 } }, { preset: "nano-egg", trainer: { population: 580_714 } },
    { preset: "nano-egg", trainer: { population: 580_716 } }, { preset: "egg.c", trainer: { population: 580_716 } },
    { model: { order: 3 } }, { model: { hidden: 64 } }, { preset: "egg.c", model: { order: 3 } }, { trainer: { rule: "egg.c" }, model: { hidden: 64 } }, { preset: "egg", trainer: { threshold: 2 } },
    ...[32, 48, 16_384, 16_416].map((population) => ({ trainer: { population } })), ...[64, 65].map((sequence) => ({ preset: "egg", trainer: { sequence } })),
    ...["egg.c", "nano-egg"].flatMap((preset) => [{ preset, trainer: { rule: "egg" } }, { preset, trainer: { rule: "egg", sequence: 64 } }, { preset, trainer: { rule: "egg", sequence: 65 } }]),
    { preset: "gpt-nano" }, { preset: "gpt-nano", trainer: { type: "eggroll-int8" } }, { preset: "gpt-nano", trainer: { type: "eggroll-int8" }, model: { type: "egg" } }, { trainer: { type: "backprop" } },
    { preset: "gpt-nano", trainer: { type: "eggroll-int8", population: 32, sequence: 8 }, model: { type: "egg" }, data: { tokenizer: "bytes" } }, { trainer: { type: "backprop" }, model: { type: "llama" } },
    { preset: "gpt-nano", trainer: { rule: "egg" } }, { preset: "llama-tiny", trainer: { population: 4 } }, { model: { type: "gpt" } }, { data: { tokenizer: "characters" } }, { preset: "gpt2", data: { tokenizer: "x" } },
    { model: { type: "llama" }, trainer: { batch: 2 } }, { preset: "egg", model: { type: "gpt" } }, { preset: "egg", trainer: { type: "backprop" }, model: { type: "gpt" } }, { model: { type: "gpt" }, trainer: { type: "eggroll-int8" } },
    { model: { type: "egg" }, trainer: { type: "backprop" } }, { model: { type: "gpt" }, trainer: { rule: "egg.c" } }, { trainer: { type: "backprop", population: 4 } }, { model: { type: "gpt" }, data: { tokenizer: "bpe:9" } },
    { preset: "egg.c", trainer: { population: 48 } }, { trainer: { rule: "egg.c", population: 48 } }, { trainer: { rule: "nano-egg" } },
  ];

  test("the schema and the loader give the same verdict on good and bad values of every knob", () => {
    const common = [null, true, [], {}, "", "x", "128", "bytes", "egg", "egg.c", "eggroll-int8", "auto", "cpu", "a\0b", "😀".repeat(4096), "😀".repeat(4097), "x".repeat(65_536), "x".repeat(65_537), 0, 1, 2, 3, 8, 16, 17, 0.5, 1.5, -1, 1e300];
    let good = 0;
    let bad = 0;
    for (const knob of knobs as readonly Knob[]) {
      const edges = "min" in knob ? [knob.min, knob.max, knob.min - 1, knob.max + 1, knob.max + 0.5, knob.min - 2, knob.max + 16] : [];
      for (const value of [...common, ...edges, knob.default]) {
        const config = {};
        const method = [knob.only ?? "egg"].flat()[0]!;
        if (method === "backprop") setAt(config, "preset", "gpt-nano");
        else if (knob.only !== undefined) setAt(config, "trainer.rule", method);
        setAt(config, knob.path as (typeof knobs)[number]["path"], value);
        if (knob.path === "trainer.group_size") setAt(config, "trainer.population", 1_048_576 / 2); // of which every power of two is a divisor
        const verdict = loads(config);
        if (beyondSchema(verdict)) continue; // such as a group of 1,048,576, a divisor of no population
        if (valid(config) !== verdict) throw new Error(`${knob.path}: ${JSON.stringify(value)?.slice(0, 80)}: the loader says ${verdict}, the schema not`);
        verdict ? good++ : bad++;
      }
    }
    for (const config of [{ $schema: "x" }, { $schema: 1 }, {}, [], { run: [] }, { run: { name: "x" } }, { rum: {} }, ...Object.keys(presets).map(presetConfig), ...rulesApart]) {
      expect([config, valid(config)]).toEqual([config, loads(config)]);
    }
    expect(good).toBeGreaterThan(100);
    expect(bad).toBeGreaterThan(400);
  });

  test("the schema and the loader give the same verdict on random configs, good ones and ones with a few faults", () => {
    const random = seededRandom(20261120);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
    const between = (min: number, max: number): number => min + Math.floor(random() * (max - min + 1));
    const good = (knob: Knob): unknown => {
      const choices = choicesOf(knob);
      if (choices !== undefined) return pick(choices);
      if (knob.kind === "boolean") return random() < 0.5;
      if (knob.kind === "string") return pick(["x", "é😀", "a/b.txt", " ", ...(knob.form === "text" ? ["", "a\0b"] : [])]);
      if (knob.kind === "number") return pick([knob.min, knob.max, knob.min + random() * (knob.max - knob.min)]);
      if (knob.kind !== "integer") throw new Error(knob.kind);
      const step = knob.multipleOf ?? 1;
      return pick([knob.min, knob.max, step * between(Math.ceil(knob.min / step), Math.floor(knob.max / step))]);
    };
    const bad = [null, true, "", "x", 0, -1, 0.3, 3, 1e300, [], {}, "a\0b", 2 ** 53];
    const verdicts = { good: 0, bad: 0, together: 0 };
    for (let round = 0; round < 4000; round++) {
      const config: any = random() < 0.2 ? { $schema: pick(["./egg.schema.json", "", 7]) } : {};
      // These rule each other: they shall often stand beside each other.
      const often = ["run.patience", "run.eval_every", "run.stop_metric", "data.validation"];
      for (const knob of knobs as readonly (Knob & { path: KnobPath })[]) {
        if (random() < (often.includes(knob.path) ? 0.6 : knob.only !== undefined ? 0.02 : 0.15)) setAt(config, knob.path, random() < 0.01 ? pick(bad) : good(knob));
      }
      if (random() < 0.02) config[pick(["rum", "run.seed", "__proto_", ...sections])] = pick(bad);
      if (random() < 0.02 && typeof (config.run ??= {}) === "object" && config.run !== null) config.run["stepz"] = 1;
      const verdict = loads(config);
      if (beyondSchema(verdict)) continue;
      if (valid(config) !== verdict) throw new Error(`the loader says ${verdict}, the schema not: ${JSON.stringify(config).slice(0, 500)}`);
      verdict ? verdicts.good++ : verdicts.bad++;
      if (!verdict && problems(() => loadConfig({ file: write(JSON.stringify(config)) })).every((line) => / run\.patience: found \d+, but /.test(line))) verdicts.together++;
    }
    expect(verdicts.good).toBeGreaterThan(500);
    expect(verdicts.bad).toBeGreaterThan(500);
    expect(verdicts.together).toBeGreaterThan(100);
  });

  test("knobs that would do nothing beside each other are refused with both names", () => {
    expect(fileProblems('{"run": {"patience": 3, "eval_every": 0}}')).toEqual(["egg.json:1:22 run.patience: found 3, but run.eval_every is 0, so nothing is ever evaluated"]);
    expect(fileProblems('{"run": {"patience": 3}, "data": {"validation": 0}}')[0]).toStartWith("egg.json:1:22 run.patience: found 3, but data.validation is 0");
    expect(loadConfig({ file: write('{"run": {"patience": 3, "stop_metric": "train_bits_per_byte"}, "data": {"validation": 0}}') }).config.run.patience).toBe(3);
    expect(problems(() => loadConfig({ sets: ["run.eval_every=0", "run.patience=1"] }))).toEqual(["--set run.patience=1: found 1, but run.eval_every is 0, so nothing is ever evaluated"]);
  });

  test("the schema has description and default of every knob, and closed objects", () => {
    const schema = configSchema() as any;
    expect(schema.$schema).toBe("https://json-schema.org/draft/2020-12/schema");
    expect(schema.additionalProperties).toBe(false);
    for (const { path, default: value, help } of knobs) {
      const [first = "", second] = path.split(".");
      const row = second === undefined ? schema.properties[first] : schema.properties[first].properties[second];
      expect(row.default).toBe(value);
      expect(row.description).toStartWith(help);
      if (second !== undefined) expect(schema.properties[first].additionalProperties).toBe(false);
    }
  });

  test("the init text loads to the preset's values and explains each knob", () => {
    for (const name of Object.keys(presets)) {
      const text = initText(name);
      const { config, sources } = loadConfig({ file: write(text) });
      expect(config).toEqual(presetConfig(name));
      expect([...sources.values()].every((source) => source.startsWith(file))).toBe(true);
      for (const knob of knobs as readonly Knob[]) expect(text.includes(`// ${knob.help}`)).toBe(appliesTo(knob, methodOf(config)));
    }
    expect(problems(() => initText("eg.c"))).toEqual(['preset: found "eg.c", allowed "egg", "egg.c", "nano-egg", "gpt-nano", "gpt2", "llama-tiny", "llama-small", "llama-medium" or "llama-shakespeare"; did you mean "egg.c"?']);
  });

  test("the effective text is in table order and loads to itself; the canonical string does not depend on order of writing", () => {
    const { config } = loadConfig({ sets: ["run.seed=7", "run.prompt=é\n\"", "data.validation=0.3"] });
    const text = effectiveConfigText(config);
    expect(text).toBe(`${JSON.stringify(config, null, 2)}\n`);
    expect(Object.keys(JSON.parse(text))).toEqual(["preset", "data", "model", "trainer", "run", "device"]);
    expect(loadConfig({ file: write(text) }).config).toEqual(config);
    const backwards = Object.fromEntries(Object.entries(config).reverse().map(([key, part]) => [key, typeof part === "object" ? Object.fromEntries(Object.entries(part).reverse()) : part])) as unknown as Config;
    expect(effectiveConfigText(backwards)).toBe(text);
    expect(canonicalConfig(backwards)).toBe(canonicalConfig(config));
    expect(canonicalConfig(presetConfig("egg"))).toBe(
      '{"data":{"path":"builtin:fables","tokenizer":"bytes","validation":0.1},"device":{"backend":"auto","threads":0},"model":{"order":6,"table_bits":16,"type":"egg"},' +
        '"preset":"egg","run":{"checkpoint_every":5000,"eval_every":500,"fingerprint_every":0,"keep":3,"min_delta":0,"minutes":0,"out":"runs","patience":0,"prompt":"The ","sample_every":5000,"sample_tokens":128,"seed":1,"steps":20000,"stop_metric":"val_bits_per_byte","tensorboard":false},' +
        '"trainer":{"decay_shift":9,"learning_rate":0.5,"population":4096,"rule":"egg","sequence":16,"sigma_shift":4,"type":"eggroll-int8"}}',
    );
    expect(canonicalConfig(presetConfig("egg.c"))).toBe(
      '{"data":{"path":"builtin:fables","tokenizer":"bytes","validation":0.1},"device":{"backend":"auto","threads":0},"model":{"hidden":128,"layers":4,"type":"egg"},' +
        '"preset":"egg.c","run":{"checkpoint_every":100,"eval_every":10,"fingerprint_every":0,"keep":3,"min_delta":0,"minutes":0,"out":"runs","patience":0,"prompt":"The ","sample_every":50,"sample_tokens":128,"seed":42,"steps":300,"stop_metric":"val_bits_per_byte","tensorboard":false},' +
        '"trainer":{"population":128,"rule":"egg.c","sequence":256,"sigma_shift":4,"threshold":160,"type":"eggroll-int8"}}',
    );
    for (const knob of knobs as readonly (Knob & { path: (typeof knobs)[number]["path"] })[]) {
      const other = structuredClone(config);
      setAt(other, knob.path, `${valueAt(config, knob.path)}1`);
      expect(canonicalConfig(other)).not.toBe(canonicalConfig(config));
    }
  });
});
