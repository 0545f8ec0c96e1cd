// The config from end to end: real files, EGG_SET, --set and flags through loadConfig; the JSONC reader; the overflow proofs.
// Not the command line in front of it (arguments.test.ts), nor the schema and the texts that egg writes (schema.test.ts).
// Read next: src/config/load.ts.

import { afterAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { relative, resolve } from "node:path";
import { bounds } from "../src/config/bounds.ts";
import { initText, knobsHelp } from "../src/config/init.ts";
import { parseJsonc, type JsonNode } from "../src/config/jsonc.ts";
import { appliesTo, defaultConfig, knobs, sections, setAt, type Config, type Knob } from "../src/config/knobs.ts";
import { effectiveConfigText, loadConfig } from "../src/config/load.ts";
import { nearest } from "../src/config/nearest.ts";
import { defaultPreset, presetConfig, presets } from "../src/config/presets.ts";
import { EggError } from "../src/errors.ts";
import { configFile } from "./configfile.ts";

setDefaultTimeout(60_000);
const { folder, file, write, problems, fileProblems, remove } = configFile();
afterAll(remove);
beforeEach(() => void delete process.env["EGG_SET"]);

/** The shape that the rest of egg relies on, written out once by hand. */
interface Contract {
  preset: string;
  data: { path: string; tokenizer: string; validation: number };
  model: {
    type: "egg" | "gpt" | "llama"; hidden?: number; layers?: number; order?: number; table_bits?: number; width?: number; heads?: number; kv_heads?: number; head_width?: number; feed_forward_width?: number; block?: number;
    norm?: "auto" | "layer" | "rms"; position?: "auto" | "learned" | "rope" | "none"; feed_forward?: "auto" | "gelu" | "relu" | "swiglu" | "geglu"; bias?: "auto" | "on" | "off"; tied?: "auto" | "on" | "off";
    dropout?: number; rope_base?: number; rope_factor?: number; rope_original?: number; rope_low?: number; rope_high?: number; norm_eps?: number; from?: string;
  };
  trainer: {
    type: "eggroll-int8" | "backprop"; population?: number; sequence?: number; sigma_shift?: number; rule?: "egg" | "egg.c" | "nano-egg"; learning_rate?: number; decay_shift?: number; threshold?: number;
    alpha?: number; alpha_decay_timestep?: number; group_size?: number; use_clt?: boolean; noise_reuse?: number; num_perturbations?: number; optimizer?: "adamw" | "adam" | "lion" | "sgd"; batch?: number;
    accumulation?: number; schedule?: "constant" | "linear" | "cosine" | "inverse_sqrt"; warmup?: number; min_rate?: number; weight_decay?: number; beta1?: number; beta2?: number; clip?: number;
    precision?: "f32" | "bf16"; recompute?: boolean;
  };
  run: {
    steps: number; minutes: number; patience: number; stop_metric: "val_bits_per_byte" | "train_bits_per_byte"; min_delta: number;
    seed: number; eval_every: number; sample_every: number; checkpoint_every: number; keep: number;
    out: string; fingerprint_every: number; tensorboard: boolean; prompt: string; sample_tokens: number;
  };
  device: { backend: "auto" | "cpu"; threads: number };
}
type Flat<T> = T extends object ? { [K in keyof T]: Flat<T[K]> } : T;
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const sameShape: Same<Flat<Config>, Flat<Contract>> = true;

describe("the table of knobs", () => {
  test("gives the contract's type and the defaults of egg", () => {
    expect(sameShape).toBe(true);
    const { config, sources } = loadConfig();
    expect(config).toEqual({
      preset: "egg",
      data: { path: "builtin:fables", tokenizer: "bytes", validation: 0.1 },
      model: { type: "egg", order: 6, table_bits: 16 },
      trainer: { type: "eggroll-int8", rule: "egg", population: 4096, sequence: 16, sigma_shift: 4, learning_rate: 0.5, decay_shift: 9 },
      run: {
        steps: 20_000, minutes: 0, patience: 0, stop_metric: "val_bits_per_byte", min_delta: 0, seed: 1, eval_every: 500, sample_every: 5000, checkpoint_every: 5000, keep: 3, out: "runs",
        fingerprint_every: 0, tensorboard: false, prompt: "The ", sample_tokens: 128,
      },
      device: { backend: "auto", threads: 0 },
    });
    expect([...sources.keys()]).toEqual((knobs as readonly Knob[]).filter((knob) => appliesTo(knob, "egg")).map(({ path }) => path) as typeof knobs[number]["path"][]);
    expect(sources.get("trainer.learning_rate")).toBe("preset egg");
    expect(sources.get("run.keep")).toBe("default");
  });

  test("gives the GRU's presets their defaults", () => {
    const { config, sources } = loadConfig({ sets: ["preset=egg.c"] });
    expect(config).toEqual({
      preset: "egg.c",
      data: { path: "builtin:fables", tokenizer: "bytes", validation: 0.1 },
      model: { type: "egg", hidden: 128, layers: 4 },
      trainer: { type: "eggroll-int8", rule: "egg.c", population: 128, sequence: 256, sigma_shift: 4, threshold: 160 },
      run: {
        steps: 300, minutes: 0, patience: 0, stop_metric: "val_bits_per_byte", min_delta: 0, seed: 42, eval_every: 10, sample_every: 50, checkpoint_every: 100, keep: 3, out: "runs",
        fingerprint_every: 0, tensorboard: false, prompt: "The ", sample_tokens: 128,
      },
      device: { backend: "auto", threads: 0 },
    });
    expect([...sources.keys()]).toEqual((knobs as readonly Knob[]).filter((knob) => appliesTo(knob, "egg.c")).map(({ path }) => path) as typeof knobs[number]["path"][]);
    expect(sources.get("trainer.threshold")).toBe("preset egg.c");
    expect(sources.get("run.seed")).toBe("default");
  });

  test("has the ranges that the rest of egg relies on", () => {
    const ranges = Object.fromEntries(knobs.flatMap((k: Knob) => (k.kind === "integer" || k.kind === "number" ? [[k.path, [k.min, k.max, k.kind === "integer" ? (k.multipleOf ?? 1) : 0]]] : [])));
    expect(ranges).toMatchObject({
      "data.validation": [0, 0.5, 0], "model.order": [1, 8, 1], "model.table_bits": [4, 24, 1], "model.hidden": [16, 4096, 16], "model.layers": [1, 64, 1], "trainer.population": [2, 1048576, 2],
      "trainer.sequence": [1, 1048576, 1], "trainer.sigma_shift": [0, 8, 1], "trainer.learning_rate": [1e-6, 16, 0], "trainer.decay_shift": [0, 30, 1], "trainer.threshold": [0, 2147483647, 1], "run.seed": [0, 4294967295, 1],
      "run.fingerprint_every": [0, 1000000000, 1], "device.threads": [0, 1024, 1],
    });
  });

  test("help has one line a knob with default and range", () => {
    const lines = knobsHelp().split("\n");
    expect(lines.length).toBe(knobs.length);
    expect(lines[0]).toMatch(/^preset +"egg" +named set .*; "egg", "egg\.c", "nano-egg", .* or "llama-shakespeare"$/);
    expect(lines.find((line) => line.startsWith("trainer.population "))).toMatch(/ 128 .*\[members\]; an even number from 2 to 1048576; only for trainer\.type eggroll-int8$/);
  });

  test("every preset and every default is itself allowed", () => {
    expect(Object.keys(presets)).toContain(defaultPreset);
    for (const name of Object.keys(presets)) {
      expect(loadConfig({ file: write(effectiveConfigText(presetConfig(name))) }).config).toEqual(presetConfig(name));
    }
  });
});

describe("single-edit typos", () => {
  /** Every string one edit away from a word: deletions, swaps, replacements, insertions. */
  function typos(word: string): Set<string> {
    const letters = [..."abcdefghijklmnopqrstuvwxyz_.0"];
    const all = new Set<string>();
    for (let i = 0; i <= word.length; i++) {
      const [head, tail] = [word.slice(0, i), word.slice(i)];
      if (tail !== "") all.add(head + tail.slice(1));
      if (tail.length > 1) all.add(head + tail[1] + tail[0] + tail.slice(2));
      for (const letter of letters) {
        all.add(head + letter + tail);
        if (tail !== "") all.add(head + letter + tail.slice(1));
      }
    }
    return all;
  }
  // A word may be one edit away from two knobs ("run.seep"): either is a right suggestion then.
  const meant = new Map<string, Set<string>>();
  for (const { path } of knobs) for (const typo of typos(path)) meant.set(typo, (meant.get(typo) ?? new Set()).add(path));
  for (const { path } of knobs) meant.delete(path);
  const suggestion = (line: string) => /: unknown key; did you mean (\S+)\?$/.exec(line)?.[1] ?? line;

  test("of every knob are caught in --set, all at once", () => {
    const words = [...meant.keys()];
    expect(words.length).toBeGreaterThan(10_000);
    const lines = problems(() => loadConfig({ sets: words.map((word) => `${word}=1`) }));
    expect(lines.length).toBe(words.length);
    lines.forEach((line, i) => {
      expect(line.startsWith(`--set ${words[i]}=1: unknown key`)).toBe(true);
      expect([...meant.get(words[i]!)!]).toContain(suggestion(line));
    });
  });

  test("of every knob are caught in a file, with their places", () => {
    for (const section of sections) {
      const all = [...meant.keys()].filter((word) => word.startsWith(`${section}.`)).map((word) => word.slice(section.length + 1));
      // A file has 10,000 values at most.
      for (let first = 0; first < all.length; first += 9000) {
        const words = all.slice(first, first + 9000);
        const lines = fileProblems(`{ "${section}": {\n${words.map((word) => `  "${word}": 1`).join(",\n")}\n} }`);
        expect(lines.length).toBe(words.length);
        lines.forEach((line, i) => {
          expect(line.startsWith(`egg.json:${i + 2}:3 ${section}.${words[i]}: unknown key`)).toBe(true);
          expect([...meant.get(`${section}.${words[i]}`)!]).toContain(suggestion(line));
        });
      }
    }
  });

  test("of every section and of preset are caught at the top level", () => {
    for (const name of [...sections, "preset"]) {
      const words = [...typos(name)].filter((word) => word !== name && word !== "");
      const lines = fileProblems(JSON.stringify(Object.fromEntries(words.map((word) => [word, {}]))));
      expect(lines.map(suggestion)).toEqual(words.map(() => name));
    }
  });

  test("a right name in the wrong place finds its section; nonsense finds nothing", () => {
    expect(fileProblems('{"population": 4, "model": {"threshhold": 1}, "run.seed": 3, "xyzzy": 1}')).toEqual([
      "egg.json:1:2 population: unknown key; did you mean trainer.population?",
      "egg.json:1:29 model.threshhold: unknown key; did you mean trainer.threshold?",
      'egg.json:1:47 run.seed: found a dotted key, write "run": { "seed": … }',
      "egg.json:1:62 xyzzy: unknown key",
    ]);
  });

  test("nearest counts a swap as one edit, ignores case, and stays near", () => {
    expect(nearest("popluation", ["position", "population"])).toBe("population");
    expect(nearest("CONFIG", ["config"])).toBe("config");
    expect(nearest("ab", ["ba"])).toBe("ba");
    expect(nearest("abcd", ["badc"])).toBeUndefined();
    expect(nearest("checkpoint_evrey", ["checkpoint_every"])).toBe("checkpoint_every");
    expect(nearest("x".repeat(1_000_000), ["population"])).toBeUndefined();
    expect(nearest("seep", ["keep", "seed"])).toBe("seed");
  });
});

describe("layers", () => {
  test("go defaults < preset < file < EGG_SET < --set < flags, and sources say which won", () => {
    write('{\n  "run": { "seed": 1, "steps": 1, "keep": 5 },\n  "trainer": { "threshold": 9 }, "preset": "egg.c"\n}');
    const path = relative(process.cwd(), file);
    process.env["EGG_SET"] = " run.seed=2, run.steps=2 ,run.prompt=a\\, b";
    const { config, sources } = loadConfig({
      file: path,
      sets: ["run.seed=3", "run.eval_every=7", "run.eval_every=8", "run.out=set", "device.backend=cpu"],
      flags: { "run.out": { flag: "--out", value: "flag" }, "run.keep": { flag: "--keep", value: undefined } },
    });
    expect(config.run).toMatchObject({ seed: 3, steps: 2, keep: 5, prompt: "a, b", eval_every: 8, out: "flag", checkpoint_every: 100 });
    expect(config.trainer).toMatchObject({ threshold: 9, population: 128 });
    expect(config.device.backend).toBe("cpu");
    expect(Object.fromEntries(sources)).toMatchObject({
      preset: `${path}:3:44`, "run.seed": "--set run.seed=3", "run.steps": "EGG_SET run.steps=2", "run.keep": `${path}:2:43`, "run.out": "--out",
      "run.eval_every": "--set run.eval_every=8", "trainer.threshold": `${path}:3:29`, "trainer.population": "preset egg.c", "run.checkpoint_every": "default", "data.path": "default",
    });
    delete process.env["EGG_SET"];
    expect(loadConfig().sources.get("preset")).toBe("default");
  });

  test("the preset may be named in any layer, and a wrong one gives the near name and the list", () => {
    expect(loadConfig({ file: write('{"$schema": "x", "preset": "egg.c"}') }).sources.get("preset")).toBe(`${file}:1:28`);
    expect(loadConfig({ sets: ["preset=egg.c"] }).config).toEqual(presetConfig("egg.c"));
    expect(problems(() => loadConfig({ sets: ["preset=egc.c"] }))).toEqual(['--set preset=egc.c: found "egc.c", allowed "egg", "egg.c", "nano-egg", "gpt-nano", "gpt2", "llama-tiny", "llama-small", "llama-medium" or "llama-shakespeare"; did you mean "egg.c"?']);
    expect(fileProblems('{"preset": "constructor"}')).toEqual(['egg.json:1:12 preset: found "constructor", allowed "egg", "egg.c", "nano-egg", "gpt-nano", "gpt2", "llama-tiny", "llama-small", "llama-medium" or "llama-shakespeare"']);
    expect(fileProblems('{"preset": 5}')).toEqual(['egg.json:1:12 preset: found 5, allowed "egg", "egg.c", "nano-egg", "gpt-nano", "gpt2", "llama-tiny", "llama-small", "llama-medium" or "llama-shakespeare"']);
  });

  test("a preset that is not named follows from trainer.type, or else from model.type", () => {
    for (const [sets, source] of [[["model.type=gpt"], "model.type"], [["trainer.type=backprop"], "trainer.type"], [["trainer.type=backprop", "model.type=gpt"], "trainer.type"]] as const) {
      const { config, sources } = loadConfig({ sets });
      expect(config).toEqual(presetConfig("gpt-nano"));
      expect(sources.get("preset")).toBe(source);
      expect(sources.get("run.steps")).toBe("preset gpt-nano");
    }
    expect(loadConfig({ file: write('{"model": {"type": "llama"}}'), sets: ["run.steps=3"] }).config).toMatchObject({ preset: "gpt-nano", model: { type: "llama", width: 128 }, trainer: { learning_rate: 0.004 }, run: { steps: 3 } });
    expect(loadConfig({ sets: ["trainer.type=eggroll-int8"] }).config).toEqual(presetConfig("egg"));
    expect(loadConfig({ sets: ["preset=gpt2", "model.type=llama"] }).config.preset).toBe("gpt2");
  });

  test("a preset for another trainer.type is refused, with those to take", () => {
    const gradients = 'take preset "gpt-nano", "gpt2", "llama-tiny", "llama-small", "llama-medium" or "llama-shakespeare"';
    expect(fileProblems('{"preset": "egg", "trainer": {"type": "backprop", "batch": 2}}')).toEqual([`egg.json:1:39 trainer.type: found "backprop", but preset "egg" is for trainer.type eggroll-int8; ${gradients}`]);
    expect(problems(() => loadConfig({ sets: ["preset=gpt-nano", "trainer.type=eggroll-int8"] }))).toEqual(['--set trainer.type=eggroll-int8: found "eggroll-int8", but preset "gpt-nano" is for trainer.type backprop; take preset "egg", "egg.c" or "nano-egg"']);
    expect(problems(() => loadConfig({ sets: ["preset=egg", "model.type=gpt", "trainer.batch=2"] }))).toEqual([
      '--set trainer.batch=2: only for trainer.type backprop, and trainer.type is "eggroll-int8"',
      '--set model.type=gpt: found "gpt", allowed with trainer.type eggroll-int8 "egg"; preset=gpt-nano trains one',
    ]);
    expect(problems(() => loadConfig({ sets: ["trainer.type=eggroll-int8", "model.type=gpt"] }))).toEqual(['--set model.type=gpt: found "gpt", allowed with trainer.type eggroll-int8 "egg"; preset=gpt-nano trains one']);
  });

  test("--set reads values by the knob's kind", () => {
    const set = (...sets: string[]) => loadConfig({ sets }).config;
    expect(set("data.validation=.25", "run.steps=1e3", "run.prompt=a=b", "run.out=007")).toMatchObject({ data: { validation: 0.25 }, run: { steps: 1000, prompt: "a=b", out: "007" } });
    expect(Object.is(set("run.seed=-0").run.seed, 0)).toBe(true);
    expect(set("run.prompt=").run.prompt).toBe("");
    expect(problems(() => set("foo", "run.seed", "=3", "run.seed=", "run.seed=abc", "run.seed=0x10", "run.seed=1e999", "run.seed= 1", "run=3", "run.out=", "data.validation=NaN"))).toEqual([
      '--set foo: found no "=", expected path=value such as run.seed=7',
      '--set run.seed: found no "=", expected path=value such as run.seed=7',
      "--set =3: unknown key",
      "--set run=3: a section, not a key; its keys: " + knobs.flatMap(({ path }) => (path.startsWith("run.") ? [path] : [])).join(", "),
      '--set run.seed=: found "", allowed a whole number from 0 to 4294967295',
      '--set run.seed=abc: found "abc", allowed a whole number from 0 to 4294967295',
      '--set run.seed=0x10: found "0x10", allowed a whole number from 0 to 4294967295',
      '--set run.seed=1e999: found "1e999", allowed a whole number from 0 to 4294967295',
      '--set run.seed= 1: found " 1", allowed a whole number from 0 to 4294967295',
      '--set run.out=: found "", allowed a path of 1 to 4096 characters without NUL',
      '--set data.validation=NaN: found "NaN", allowed a number from 0 to 0.5',
    ]);
  });

  test("EGG_SET: empty is none, faults are named", () => {
    process.env["EGG_SET"] = " ";
    expect(loadConfig().config).toEqual(presetConfig(defaultPreset));
    process.env["EGG_SET"] = "run.seed=1,,run.sede=2,run.seed=-1";
    expect(problems(() => loadConfig())).toEqual([
      'EGG_SET : found no "=", expected path=value such as run.seed=7',
      "EGG_SET run.sede=2: unknown key; did you mean run.seed?",
      "EGG_SET run.seed=-1: found -1, allowed a whole number from 0 to 4294967295",
    ]);
  });

  test("all problems of all layers come at once", () => {
    write(`{
  "model": [],
  "data": { "path": "", "tokenizer": "byte" },
  "trainer": { "popluation": 2,
      "population": 127, "threshold": {}, "sequence": null },
  "run": { "seed": "42", "steps": 1.5, "prompt": false, "keep": 1 },
}`);
    process.env["EGG_SET"] = "device.threads=2000";
    expect(problems(() => loadConfig({ file, sets: ["preset=egg.c", "device.backend=cpuu", "x"], flags: { "run.out": { flag: "--out", value: "" } } }))).toEqual([
      "egg.json:2:12 model: found an array, allowed a section { … }",
      "egg.json:4:16 trainer.popluation: unknown key; did you mean trainer.population?",
      '--set x: found no "=", expected path=value such as run.seed=7',
      'egg.json:3:21 data.path: found "", allowed a path of 1 to 4096 characters without NUL',
      "egg.json:5:21 trainer.population: found 127, allowed an even number from 2 to 1048576",
      "egg.json:5:39 trainer.threshold: found an object, allowed a whole number from 0 to 2147483647",
      "egg.json:5:55 trainer.sequence: found null, allowed a whole number from 1 to 1048576",
      'egg.json:6:20 run.seed: found "42", allowed a whole number from 0 to 4294967295',
      "egg.json:6:35 run.steps: found 1.5, allowed a whole number from 0 to 1000000000",
      "egg.json:6:50 run.prompt: found false, allowed a text of at most 65536 characters",
      "egg.json:6:65 run.keep: found 1, allowed a whole number from 2 to 1000000",
      "EGG_SET device.threads=2000: found 2000, allowed a whole number from 0 to 1024",
      '--set device.backend=cpuu: found "cpuu", allowed "auto" or "cpu"; did you mean "cpu"?',
      '--out (run.out): found "", allowed a path of 1 to 4096 characters without NUL',
      'egg.json:3:38 data.tokenizer: found "byte", allowed with trainer.type eggroll-int8 "bytes"; did you mean "bytes"?',
    ]);
  });

  test("a value that a later layer replaces is still checked, and a broken file does not hide --set", () => {
    expect(problems(() => loadConfig({ file: write('{"run": {"seed": -1}}'), sets: ["run.seed=1"] })).length).toBe(1);
    expect(problems(() => loadConfig({ file: write("{"), sets: ["run.sede=1"] }))).toEqual([
      'egg.json:1:2 expected a key in double quotes or "}", found the end of the file',
      "--set run.sede=1: unknown key; did you mean run.seed?",
    ]);
  });
});

describe("the file", () => {
  test("that is missing is named by its absolute path, with what to do", () => {
    try {
      loadConfig({ file: "no/such/egg.json" });
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(EggError);
      expect(error).toMatchObject({ kind: "usage", message: `${resolve("no/such/egg.json")}: no such file`, hint: "egg config init writes a config file to start from" });
    }
    expect(problems(() => loadConfig({ file: folder }))).toEqual([`${folder}: is a folder, expected a file`]);
    expect(problems(() => loadConfig({ file: "" }))).toEqual(['"": no such file']);
  });

  test("may be a pipe", () => {
    const code = `import { loadConfig } from ${JSON.stringify(resolve("src/config/load.ts"))}; console.log(loadConfig({ file: "/dev/stdin" }).config.run.seed)`;
    const child = Bun.spawnSync([process.execPath, "-e", code], { stdin: Buffer.from('{"run":{"seed":77}}') });
    expect(child.stdout.toString()).toBe("77\n");
  });

  test("may begin with a byte order mark, end lines with CR LF, and hold comments and trailing commas", () => {
    write('\uFEFF// one\r\n{ /* two\r\n*/ "run": {\r\n\t"prompt": "é\\u00e9\\ud83d\\ude00/*no*/", // three\r\n\t"seed": 5,},}\r\n// four');
    const { config, sources } = loadConfig({ file });
    expect(config.run).toMatchObject({ prompt: "éé😀/*no*/", seed: 5 });
    expect(sources.get("run.seed")).toBe(`${file}:5:10`);
  });

  test("has a size limit, and an endless one ends", () => {
    const body = (length: number) => `{"run":{"seed":5}}${" ".repeat(length - 18)}`;
    expect(loadConfig({ file: write(body(1_048_576)) }).config.run.seed).toBe(5);
    expect(fileProblems(body(1_048_577))).toEqual(["egg.json:1:1 expected at most 1048576 bytes, found more"]);
    expect(problems(() => loadConfig({ file: "/dev/zero" }))).toEqual(["/dev/zero:1:1 expected at most 1048576 bytes, found more"]);
  });

  test.each([
    [[0x7b, 0x0a, 0x20, 0xff, 0x7d], "2:2"],
    [[0x7b, 0x22, 0xc3, 0xa9, 0xc3, 0x22], "1:4"],
    [[0x7b, 0xed, 0xa0, 0x80], "1:2"],
    [[0x7b, 0x7d, 0xe2, 0x82], "1:3"],
    [[0xff, 0xfe, 0x7b, 0x00], "1:1"],
  ])("with bytes %p that are not UTF-8 is refused at %s", (bytes, place) => {
    expect(fileProblems(new Uint8Array(bytes))).toEqual([`egg.json:${place} expected UTF-8 text, found bytes that are not`]);
  });

  test.each([
    ["", '1:1 expected a value (a number, a text in double quotes, true, false, null, "{" or "["), found the end of the file'],
    ["\n\n// x", "3:5 expected a value"],
    ["[]", "1:1 the config: found an array, allowed an object of sections"],
    ['"x"', '1:1 the config: found "x", allowed'],
    ["{} {}", '1:4 expected nothing after the config, found "{"'],
    ["{run: 1}", '1:2 expected a key in double quotes or "}", found run'],
    ["{'run': 1}", '1:2 expected a key in double quotes or "}", found "\'"'],
    ["{,}", '1:2 expected a key in double quotes or "}", found ","'],
    ['{"a": [,]}', '1:8 expected a value'],
    ['{"a" 1}', '1:6 expected ":" after the key "a", found 1'],
    ['{"a": 1 "b": 2}', '1:9 expected "," or "}", found a text'],
    ['{"a": 1,, "b": 2}', '1:9 expected a key in double quotes or "}", found ","'],
    ['{"a": [1 2]}', '1:10 expected "," or "]", found 2'],
    ['{"a": [1}', '1:9 expected "," or "]", found "}"'],
    ['{"a": True}', "1:7 expected a value (a number, a text in double quotes, true, false, null, \"{\" or \"[\"), found True"],
    ['{"a": nul}', "found nul"],
    ['{"a": NaN}', "found NaN"],
    ['{"a":\n 01}', "2:2 expected a number such as 12, -0.5 or 1e3, found 01"],
    ['{"a": +1}', "1:7 expected a number such as 12, -0.5 or 1e3, found +1"],
    ['{"a": .5}', "found .5"],
    ['{"a": 5.}', "found 5."],
    ['{"a": 1e}', "found 1e"],
    ['{"a": 0x10}', "found 0x10"],
    ['{"a": -}', "found -"],
    ['{"a": -Infinity}', "found -Infinity"],
    ['{"a": 1_000}', "found 1_000"],
    ['{"a": 1e400}', "1:7 expected a number below 1.8e308, found 1e400"],
    ['{"a": "x', "1:9 expected '\"' to end the text that begins at 1:7, found the end of the file"],
    ['{"a": "x\n"}', "1:9 expected '\"' to end the text that begins at 1:7, found the end of the line"],
    ['{"a": "x\ty"}', "1:9 expected no control characters in a text (write \\n, \\t or \\u00XX), found U+0009"],
    ['{"a": "\\x41"}', '1:8 expected an escape such as \\n, \\", \\\\ or \\u00e9, found \\x'],
    ['{"a": "\\u12g4"}', "1:8 expected an escape"],
    ['{"a": "\\ud83d"}', "1:8 expected an escape"],
    ['{"a": "\\ude00\\ud83d"}', "1:8 expected an escape"],
    ['{"a": "\\ud83d\\u0041"}', "1:8 expected an escape"],
    ['{"a": 1, /* b', '1:14 expected "*/" to end the comment that begins at 1:10, found the end of the file'],
    ['{"a": 1} /', '1:10 expected nothing after the config, found "/"'],
    ['{"a":\u00a01}', "1:6 expected a value"],
    ['{"run": {"seed": 1,\n "steps": 2, "se\\u0065d": 3}}', '2:14 expected each key once, found "seed" again (first at 1:10)'],
    ['{"run": {}, "run": {}}', '1:13 expected each key once, found "run" again (first at 1:2)'],
    ['{"__proto__": {"seed": 1}}', "1:2 __proto__: unknown key"],
    ['{"run": {"__proto__": 1, "constructor": 2}}', "1:10 run.__proto__: unknown key"],
    ['{"$schema": 1}', "1:13 $schema: found 1, allowed a text"],
    ['{"name": "x"}', "1:2 name: unknown key"],
    ['{"run": {"name": "x"}}', "1:10 run.name: unknown key"],
  ])("%p is refused", (text, message) => {
    const [first] = fileProblems(text);
    expect(first).toStartWith("egg.json:");
    expect(first).toContain(message);
  });

  test("takes 10,000 values and not one more", () => {
    const many = (values: number) => new TextEncoder().encode(`[${"0,".repeat(values - 1)}]`);
    expect(parseJsonc(many(10_000), "x").kind).toBe("array");
    expect(problems(() => parseJsonc(many(10_001), "x"))).toEqual(["x:1:20000 expected at most 10000 values, found more"]);
  });

  test("nests 64 levels and not 65", () => {
    const deep = (levels: number) => new TextEncoder().encode("[".repeat(levels) + "]".repeat(levels));
    expect(parseJsonc(deep(64), "x").kind).toBe("array");
    expect(problems(() => parseJsonc(deep(65), "x"))).toEqual(["x:1:65 expected at most 64 levels of nesting, found more"]);
    expect(problems(() => parseJsonc(deep(100_000), "x"))).toEqual(["x:1:65 expected at most 64 levels of nesting, found more"]);
  });

  test("cut off anywhere is an error with a place", () => {
    const text = initText("egg.c").trimEnd();
    for (let length = 0; length < text.length; length++) {
      expect(problems(() => parseJsonc(new TextEncoder().encode(text.slice(0, length)), "x"))[0]).toMatch(/^x:\d+:\d+ expected .+, found .+$/);
    }
  });

  test("reads all that JSON.parse reads, alike, over mutations of a real one", () => {
    const value = (node: JsonNode): unknown =>
      node.kind === "scalar" ? node.value : node.kind === "array" ? node.items.map(value) : Object.fromEntries(node.entries.map((entry) => [entry.key, value(entry.value)]));
    const seed = '{"a": [1, -2.5e3, true, null, "x\\n\\u0041"], "b": {"c": "d", "e": []}, "f": 10}';
    const letters = '{}[]",:\\/0129.eE+-*tfnu \n\t';
    let random = 12345;
    const next = (limit: number) => (random = (Math.imul(random, 1103515245) + 12345) >>> 0) % limit;
    let agreed = 0;
    for (let i = 0; i < 20_000; i++) {
      let text = seed;
      for (let edits = 1 + next(3); edits > 0; edits--) {
        const at = next(text.length);
        text = text.slice(0, at) + (next(3) > 0 ? letters[next(letters.length)] : "") + text.slice(at + next(2));
      }
      let expected: unknown;
      try {
        expected = JSON.parse(text);
      } catch {
        continue; // comments and trailing commas are not JSON: the tables above cover them
      }
      try {
        expect(value(parseJsonc(new TextEncoder().encode(text), "x"))).toEqual(expected);
        agreed++;
      } catch (error) {
        if (!(error instanceof EggError) || !/expected each key once|1\.8e308/.test(error.message)) throw error;
      }
    }
    expect(agreed).toBeGreaterThan(1000);
  });
});

describe("overflow proofs", () => {
  test("hold at the widest of every range", () => {
    const widest = defaultConfig();
    widest.trainer.rule = "egg.c"; // of the rules, the one whose sums every range was made for
    for (const knob of knobs as readonly Knob[]) if (knob.kind === "integer") setAt(widest, knob.path as (typeof knobs)[number]["path"], knob.max);
    expect(bounds.map((bound) => bound.problem(widest))).toEqual(bounds.map(() => undefined));
  });

  test("fail beyond 32 bits, with the numbers", () => {
    const [product, votes] = bounds;
    const standard = presetConfig("egg.c");
    const hidden = (value: number) => product!.problem({ ...standard, model: { type: "egg", layers: 1, hidden: value } });
    expect(4 * 4384 * 127 * 31 * 31).toBeLessThan(2 ** 31);
    expect(hidden(4384)).toBeUndefined();
    expect(hidden(4400)).toBe("found 4400, but the widest product reaches 4 x 4400 x 127 x 31 x 31 = 2148027200, more than the 2147483647 that 32 bits hold");
    const population = (value: number) => votes!.problem({ ...standard, trainer: { ...standard.trainer, population: value } });
    expect((4_469_268 / 2) * 31 * 31).toBeLessThan(2 ** 31);
    expect(population(4_469_268)).toBeUndefined();
    expect(population(4_469_270)).toContain("= 2147484235, more than");
    expect(population(2 ** 23)).toContain("= 4030726144, more than");
    expect(fileProblems('{"model": {"hidden": 8192}, "preset": "egg.c"}')).toEqual([
      "egg.json:1:22 model.hidden: found 8192, allowed a multiple of 16 from 16 to 4096",
      "egg.json:1:22 model.hidden: found 8192, but the widest product reaches 4 x 8192 x 127 x 31 x 31 = 3999236096, more than the 2147483647 that 32 bits hold",
    ]);
    expect(fileProblems('{"model": {"hidden": "8192"}, "preset": "egg.c"}').length).toBe(1);
  });

  test("of rule egg: a row that is read everywhere gets the votes of all positions, 16 pairs of at most (31 x 127 + 16) / 32 x 31 each", () => {
    const votes = (population: number, sequence: number) => (population / 32) * sequence * 16 * Math.floor((31 * 127 + 16) / 32) * 31;
    expect(votes(16_384, 64)).toBeLessThan(2 ** 31);
    expect(votes(16_384, 128)).toBeGreaterThan(2 ** 31);
    const told = (population: number, sequence: number) => fileProblems(`{"trainer": {"population": ${population}, "sequence": ${sequence}}}`);
    expect(loadConfig({ file: write('{"trainer": {"population": 16384, "sequence": 64}}') }).config.trainer).toMatchObject({ population: 16_384, sequence: 64 });
    expect(told(16_416, 64)).toEqual(["egg.json:1:28 trainer.population: found 16416, allowed in rule egg at most 16384: with more, the votes for a row that is read everywhere would not fit into 32 bits"]);
    expect(told(32, 65)).toEqual(["egg.json:1:44 trainer.sequence: found 65, allowed in rule egg at most 64: with more, the votes for a row that is read everywhere would not fit into 32 bits"]);
    expect(told(48, 16)).toEqual(["egg.json:1:28 trainer.population: found 48, allowed in rule egg a multiple of 32: 16 mirrored pairs read the same text"]);
    // A preset of another rule brings a sequence that this one does not take.
    expect(fileProblems('{"preset": "nano-egg", "trainer": {"rule": "egg"}}')[0]).toStartWith("preset nano-egg trainer.sequence: found 100, allowed in rule egg at most 64");
  });

  test("knobs of other rules are refused, wherever they stand", () => {
    expect(fileProblems('{"model": {"hidden": 64}, "trainer": {"threshold": 3}}')).toEqual([
      'egg.json:1:22 model.hidden: only for trainer.rule egg.c and nano-egg, and trainer.rule is "egg"',
      'egg.json:1:52 trainer.threshold: only for trainer.rule egg.c, and trainer.rule is "egg"',
    ]);
    expect(problems(() => loadConfig({ sets: ["preset=egg.c", "model.order=3"] }))).toEqual(['--set model.order=3: only for trainer.rule egg, and trainer.rule is "egg.c"']);
  });
});
