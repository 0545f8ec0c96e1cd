// What goes wrong from outside: command lines, configs, texts, memory, disks, damaged files. Each ends with its exit code
// and words that say what, where and what to do; never with a stack trace, never with anything lost.
// Not bugs inside: abi.test.ts has those. Read next: src/errors.ts, the kinds and their exit codes.
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { canonicalConfig } from "../src/config/load.ts";
import { presetConfig } from "../src/config/presets.ts";
import { saveCheckpoint } from "../src/run/checkpoint.ts";
import { egg, freshFolder, hasBegun, onlyRun, readJson, readLines, root, run, sets, sha256, start, tiny, until, type Ended } from "./program.ts";

setDefaultTimeout(60_000);

/** Hash of every file under a folder, lock files aside. */
function contents(folder: string): Record<string, string> {
  const files = readdirSync(folder, { recursive: true }).map(String).filter((name) => !name.endsWith("/lock") && statSync(join(folder, name)).isFile());
  return Object.fromEntries(files.sort().map((name) => [name, sha256(readFileSync(join(folder, name)))]));
}

function expectRefused(ended: Ended, code: number, words: readonly string[]): void {
  expect({ code: ended.code, signal: ended.signal, out: ended.out, err: ended.err }).toMatchObject({ code, signal: null, out: "" });
  for (const word of words) expect(ended.err).toContain(word);
  expect(ended.err).toStartWith("egg: error: ");
  expect(ended.err).not.toMatch(/^ +at /m);
  expect(ended.err).not.toContain("internal error");
}

interface Case {
  args: (string | number)[];
  code: number;
  words: string[];
  env?: Record<string, string>;
  files?: Record<string, string | Uint8Array>;
}

/** Runs every case in a folder of its own with its files; afterwards exactly those files are there. */
function table(cases: Case[]): void {
  test.each(cases.map((one) => [one.args.join(" ").slice(0, 100) || JSON.stringify(one.env), one] as const))("egg %s", (_, { args, code, words, env, files = {} }) => {
    const cwd = freshFolder("bad");
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(join(cwd, name, ".."), { recursive: true });
      writeFileSync(join(cwd, name), text);
    }
    const before = contents(cwd);
    expectRefused(run(args.map(String), { cwd, ...(env === undefined ? {} : { env }) }), code, words);
    expect(contents(cwd)).toEqual(before);
    expect(existsSync(join(cwd, "runs"))).toBeFalse();
  });
}

const set = (path: string, value: unknown): string[] => ["--set", `${path}=${value}`];

describe("command lines", () => {
  table([
    { args: ["trian"], code: 2, words: ['unknown command "trian"', "did you mean train?"] },
    { args: ["egg.json"], code: 2, words: ["egg --config egg.json"] },
    { args: ["train", "more"], code: 2, words: ['unexpected word "more"'] },
    { args: ["--confg", "x"], code: 2, words: ["unknown option --confg", "did you mean --config?"] },
    { args: ["-config", "x"], code: 2, words: ["did you mean --config?"] },
    { args: ["--steps", 5], code: 2, words: ["--set run.steps="] },
    { args: ["--config"], code: 2, words: ["--config needs a value"] },
    { args: ["--out", "--json"], code: 2, words: ["--out needs a value, found the option --json"] },
    { args: ["--json=yes"], code: 2, words: ["--json takes no value"] },
    { args: ["--name", "a", "--name", "b"], code: 2, words: ["--name is given twice"] },
    { args: ["--name", "../up"], code: 2, words: ['name "../up"', "letters, digits"] },
    { args: ["--threads", 0], code: 2, words: ['--threads: found "0"', "a whole number from 1 to 1024"] },
    { args: ["--threads", 1025], code: 2, words: ['--threads: found "1025"'] },
    { args: ["--threads", "many"], code: 2, words: ['--threads: found "many"'] },
    { args: ["--threads", 1e300], code: 2, words: ["--threads: found"] },
    { args: ["generate"], code: 2, words: ["egg generate needs RUN"] },
    { args: ["generate", "nowhere"], code: 2, words: ['"nowhere": no such run folder or checkpoint file'] },
    { args: ["eval", "nowhere"], code: 2, words: ['"nowhere": no such run folder'] },
    { args: ["eval"], code: 2, words: ["egg eval needs RUN"] },
    { args: ["generate", "x", "--tokens", -1], code: 2, words: ["--tokens: found", "a whole number from 0 to 100000000"] },
    { args: ["generate", "x", "--temperature", "hot"], code: 2, words: ["--temperature: found", "a number from 0 to 100"] },
    { args: ["generate", "x", "--top-p", -0.1], code: 2, words: ["top-p", "from 0 to 1"] },
    { args: ["generate", "x", "--seed", 1.5], code: 2, words: ["--seed: found"] },
    { args: ["config"], code: 2, words: ["egg config needs a command", "init|show|check|schema"] },
    { args: ["config", "shw"], code: 2, words: ["did you mean egg config show?"] },
    { args: ["config", "init", "no/such/folder.json"], code: 2, words: ["cannot write no/such/folder.json", "no such file or folder"] },
    { args: ["config", "init"], code: 2, words: ["egg.json: exists already", "--force"], files: { "egg.json": "mine" } },
    { args: ["info", "all"], code: 2, words: ['unexpected word "all"'] },
  ]);
});

describe("configs", () => {
  const file = (text: string | Uint8Array, words: string[]): Case => ({ args: ["--config", "c.json"], code: 2, words, files: { "c.json": text } });
  table([
    { args: ["--config", "nowhere.json"], code: 2, words: ["nowhere.json: no such file", "egg config init"] },
    { args: ["--config", "."], code: 2, words: ["is a folder, expected a file"] },
    file("", ["c.json:1:1", "end of the file"]),
    file("[]", ["found an array, allowed an object"]),
    file('{ "model": }', ["c.json:1:12"]),
    file(Uint8Array.of(0xff, 0xfe, 0, 1), ["c.json"]),
    file('{ "modle": { "hidden": 64 } }', ["c.json:1:3", "unknown key", "did you mean model?"]),
    file('{ "trainer": { "population": 127 } }', ["c.json:1:30 trainer.population: found 127, allowed an even number from 2 to 1048576"]),
    file('{ "trainer": { "population": "64" } }', ['found "64"']),
    file('{ "run": { "steps": 1 }, "run": { "steps": 2 } }', ["c.json:1:26"]),
    // All at once, in every layer.
    {
      args: ["-c", "c.json", ...set("preset", "egg.c"), ...set("model.hidden", 100), ...set("data.validation", 0.9)], code: 2, env: { EGG_SET: "run.keep=1,run.sede=3" },
      files: { "c.json": '{\n  "trainer": { "population": 3, "sequnce": 5 },\n  "run": { "steps": "many" }\n}' },
      words: [
        "c.json:2:30 trainer.population: found 3", "c.json:2:33 trainer.sequnce: unknown key; did you mean trainer.sequence?", 'c.json:3:21 run.steps: found "many"',
        "--set model.hidden=100: found 100, allowed a multiple of 16", "--set data.validation=0.9", "EGG_SET run.keep=1", "EGG_SET run.sede=3: unknown key; did you mean run.seed?",
      ],
    },
    ...([
      ["trainer.population", 7, "an even number from 2 to 1048576"], ["trainer.population", 0, "an even number"], ["trainer.population", -2, "an even number"],
      ["trainer.population", 2e9, "an even number"], ["model.hidden", 8, "a multiple of 16 from 16 to 4096"], ["model.hidden", 20, "a multiple of 16"],
      ["model.hidden", 4112, "a multiple of 16"], ["model.layers", 0, "from 1 to 64"], ["trainer.sequence", 0, "from 1 to"], ["trainer.sigma_shift", 9, "from 0 to 8"],
      ["run.seed", -1, "from 0 to 4294967295"], ["run.seed", 4294967296, "from 0 to 4294967295"], ["run.steps", 1.5, "a whole number"], ["run.steps", "", "a whole number"],
      ["run.steps", "NaN", "a whole number"], ["device.threads", 1025, "from 0 to 1024"], ["device.backend", "gpu", '"auto" or "cpu"'], ["data.tokenizer", "byte", 'did you mean "bytes"?'],
      ["preset", "egg.d", 'did you mean "egg.c"?'], ["run.out", "", "a path"],
    ] as const).map(([path, value, allowed]): Case => ({ args: set(path, value), code: 2, words: [`--set ${path}=${value}: found `, allowed] })),
    { args: ["--set", "run.seed"], code: 2, words: ['found no "="'] },
    { args: set("run.step", 3), code: 2, words: ["unknown key; did you mean run.steps?"] },
    { args: set("model", 3), code: 2, words: ["a section, not a key"] },
    { args: ["config", "check"], env: { EGG_SET: "x" }, code: 2, words: ['EGG_SET x: found no "="'] },
    { args: sets(tiny), env: { EGG_CPU: "sse9" }, code: 2, words: ['EGG_CPU: found "sse9", allowed scalar', "egg info"] },
    { args: sets(tiny), env: { EGG_CPU: process.arch === "x64" ? "neon" : "avx2" }, code: 2, words: ["EGG_CPU: found", "not built for"] },
  ]);
});

describe("texts", () => {
  const text = (path: string, words: string[], files: Case["files"] = {}, more: string[] = []): Case => ({ args: [...set("data.path", path), ...more], code: 3, words, files });
  table([
    text("nowhere.txt", ["nowhere.txt: there is no such file or folder", "builtin:fables"]),
    text("empty.txt", ["empty.txt: it is empty"], { "empty.txt": "" }),
    text("short.txt", ["short.txt", "needs 257 bytes", "found 90 bytes", "lower trainer.sequence"], { "short.txt": "x".repeat(100) }, set("preset", "egg.c")),
    text("short.txt", ["short.txt", "needs 20 bytes", "found 18 bytes", "lower trainer.sequence"], { "short.txt": "x".repeat(20) }),
    text("folder", ["folder: no text files in this folder", ".txt"], { "folder/photo.jpg": "x", "folder/.hidden.txt": "x" }),
    text("folder", ["it is empty"], { "folder/a.txt": "" }),
    text("text.zst", ["text.zst: not a whole zstd file"], { "text.zst": "no zstd at all" }),
    text("text.zst", ["text.zst: not a whole zstd file"], { "text.zst": Bun.zstdCompressSync(Buffer.from("egg ".repeat(5000))).subarray(0, 20) }),
    text("builtin:fabels", ['"fabels"', "Did you mean builtin:fables?"]),
    text("builtin:fables:lots", ['size "lots"', "64MiB"]),
    text("builtin:fables:1MiB:x", ['seed "x"']),
    text("/dev/zero", ["/dev/zero: it is a device; a corpus is a file or a folder"]),
    text("builtin:fables:64KiB", ["needs 65,537 bytes", "found 58,982 bytes"], {}, [...set("preset", "egg.c"), ...set("trainer.sequence", 65536)]),
  ]);

  const isRoot = process.getuid!() === 0;
  const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
  const canChange = !isRoot || Bun.which("setpriv") !== null;
  if (!canChange) console.error("badinput.test.ts: cases of missing permissions skipped: root without setpriv");

  test.skipIf(!canChange)("that may not be read, and folders that may not be written to, are named", () => {
    // The program may lie where only this user can go.
    const cwd = freshFolder("bad");
    chmodSync(cwd, 0o755);
    const program = join(cwd, "egg");
    copyFileSync(egg, program);
    const own = { cwd, prefix: isRoot ? asNobody : [], command: [program], env: { HOME: "/nonexistent" } };
    writeFileSync(join(cwd, "secret.txt"), "x".repeat(9999), { mode: 0o000 });
    writeFileSync(join(cwd, "secret.json"), "{}", { mode: 0o000 });
    mkdirSync(join(cwd, "locked"), { mode: 0o555 });
    expectRefused(run(set("data.path", "secret.txt"), own), 3, ["secret.txt: no permission to read it"]);
    expectRefused(run(["--config", "secret.json"], own), 2, ["secret.json", "cannot be read (EACCES)"]);
    expectRefused(run(["--out", "locked/runs", ...sets(tiny)], own), 4, ["locked/runs", "permission denied", "--out"]);
    expect(readdirSync(join(cwd, "locked"))).toEqual([]);
  });
});

describe("memory", () => {
  // Each needs more than a quarter of a terabyte.
  test.skipIf(totalmem() > 250e9).each([
    [{ preset: "egg.c", "model.hidden": 4096, "model.layers": 64, "trainer.population": 1_048_576 }],
    [{ preset: "egg.c", "trainer.population": 1_048_576, "trainer.sequence": 1_048_576 }],
  ])("%p is refused before it is taken, with the bytes that it needs", (config) => {
    const cwd = freshFolder("bad");
    // Where the memory were taken, this limit would end the process in another way.
    const ended = run(["--json", ...sets(config)], { cwd, prefix: ["bash", "-c", 'ulimit -t 20; exec "$@"', "bash"] });
    expectRefused(ended, 4, ["out of memory: this run needs ", " bytes (model ", " are available", "Lower model.hidden", "model.table_bits"]);
    const [, needed, available] = /needs ([\d,]+) bytes .*, ([\d,]+) are available/.exec(ended.err)!.map((count) => Number(count.replaceAll(",", "")));
    expect(needed).toBeGreaterThan(available!);
    expect(needed).toBeGreaterThan(250e9);
  });
});

describe("a place that cannot be a run folder", () => {
  table([
    { args: ["--out", "file.txt", ...sets(tiny)], code: 2, words: ["file.txt", "a part of the path is a file, not a folder"], files: { "file.txt": "mine" } },
    { args: ["--out", "/proc/nothing", ...sets(tiny)], code: 2, words: ["cannot create folder /proc/nothing"] },
    { args: ["generate", "folder"], code: 2, words: ["folder: a folder, but not of a run"], files: { "folder/a.txt": "mine" } },
  ]);

  test("in use by another process", async () => {
    const cwd = freshFolder("bad");
    const config = sets({ ...tiny, "run.steps": 1_000_000, "run.fingerprint_every": 0, "run.sample_every": 0, "run.eval_every": 0 });
    const first = start(["-q", ...config], { cwd });
    await until("the first run", () => hasBegun(cwd));
    expectRefused(run(config, { cwd }), 5, [`locked by process ${first.pid}`, "--name"]);
    first.kill("SIGKILL");
    await first.ended;
  });
});

// ---- a full disk

/** A small file system of its own; null where this user may not mount one. */
function smallDisk(size: string): { folder: string; resize(size: string): void } | null {
  const folder = mkdtempSync(join(tmpdir(), "egg-disk-"));
  if (process.platform !== "linux" || Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${size}`, "tmpfs", folder], { stderr: "ignore" }).exitCode !== 0) {
    rmSync(folder, { recursive: true });
    return null;
  }
  afterAll(() => {
    Bun.spawnSync(["umount", "-l", folder]);
    rmSync(folder, { recursive: true, force: true });
  });
  return { folder, resize: (to) => void Bun.spawnSync(["mount", "-o", `remount,size=${to}`, folder]) };
}

describe("a full disk", () => {
  const canMount = smallDisk("64k") !== null;
  if (!canMount) console.error("badinput.test.ts: full-disk cases skipped: this user may not mount (needs Linux and root)");
  const base = { ...tiny, "run.steps": 300, "run.eval_every": 50, "run.sample_every": 0, "run.checkpoint_every": 0, "run.fingerprint_every": 0 };

  test.skipIf(!canMount).each([
    ["the first checkpoint", "96k", { ...base, "model.hidden": 64, "run.checkpoint_every": 10 }, "cannot write", ".safetensors"],
    ["a later checkpoint", "240k", { ...base, "model.hidden": 64, "run.checkpoint_every": 10 }, "cannot write", ".safetensors"],
    ["the metrics", "36k", base, "cannot append to", "metrics.jsonl"],
    ["the samples", "48k", { ...base, "run.steps": 40, "run.sample_every": 4, "run.sample_tokens": 4000 }, "cannot append to", "samples.txt"],
  ] as const)("at %s: says what was needed, loses nothing, and goes on when there is room", (what, size, config, words, file) => {
    const disk = smallDisk(size)!;
    const cwd = freshFolder("bad");
    const args = ["-q", "--out", disk.folder, ...sets(config)];
    const ended = run(args, { cwd });
    expectRefused(ended, 4, [words, file, "the disk is full", " bytes needed, ", " bytes free", "the same command again"]);
    expect(Number(/([\d,]+) bytes needed/.exec(ended.err)![1]!.replaceAll(",", ""))).toBeGreaterThan(0);
    const folder = onlyRun(disk.folder);
    const steps = readLines(folder).map(({ step }) => step); // whole lines only
    expect(steps).toEqual(Array.from({ length: steps.length }, (_, i) => i + 1));
    expect(readdirSync(folder, { recursive: true }).filter((name) => String(name).endsWith(".tmp"))).toEqual([]);
    if (what === "a later checkpoint") expect(run(["generate", folder, "--tokens", "3"], { cwd }).code).toBe(0);

    disk.resize("20m");
    expect(run(args, { cwd })).toEqual({ code: 0, signal: null, out: "", err: "" });
    const elsewhere = run(["-q", "--json", ...sets(config)], { cwd });
    expect(readJson(folder, "summary.json").weights_sha256).toBe(JSON.parse(elsewhere.out).weights_sha256);
    expect(readLines(folder).length).toBe(config["run.steps"]);
  });
});

// ---- damaged and foreign files

describe("damaged checkpoints", () => {
  const cwd = freshFolder("bad");
  const config = { ...tiny, "run.steps": 10, "run.checkpoint_every": 5 };
  run(["-q", ...sets(config)], { cwd });
  const folder = onlyRun(join(cwd, "runs"));
  const good = readFileSync(join(folder, "checkpoints/step-00000010.safetensors"));
  let count = 0;
  const write = (bytes: Uint8Array): string => {
    const file = `damaged-${count++}.safetensors`;
    writeFileSync(join(cwd, file), bytes);
    return file;
  };
  const flipped = (at: number, bit: number): Uint8Array => {
    const bytes = Uint8Array.from(good);
    bytes[at]! ^= 1 << bit;
    return bytes;
  };

  test.each([0, 7, 8, 200, good.length >>> 1, good.length - 1])("cut off after %d bytes", (length) => {
    const file = write(good.subarray(0, length));
    for (const command of ["generate", "eval"]) expectRefused(run([command, file], { cwd }), 7, [file, "damaged"]);
  });

  test.each([0, 9, 50, 300, 0.3, 0.5, 0.7, 0.9999])("a bit is flipped at %d", (place) => {
    const file = write(flipped(place < 1 ? Math.floor(place * good.length) : place, 3));
    expectRefused(run(["generate", file], { cwd }), 7, [file]);
  });

  test("with something behind its end", () => {
    expectRefused(run(["generate", write(Buffer.concat([good, Buffer.from("more")]))], { cwd }), 7, ["holds"]);
  });

  test("a safetensors file of another program is told apart", () => {
    const file = join(root, "tests/golden/sample.safetensors");
    for (const command of ["generate", "eval"]) expectRefused(run([command, file], { cwd }), 3, [file, "neither wte.weight of a GPT-2 nor model.embed_tokens.weight of a Llama is among its"]);
  });

  test("a file that is none at all", () => {
    for (const name of ["metrics.jsonl", "summary.json", "samples.txt"]) expectRefused(run(["generate", join(folder, name)], { cwd }), 7, [name, "not a safetensors file"]);
    expectRefused(run(["generate", write(Buffer.from("GGUF\x03\0\0\0and so on", "latin1"))], { cwd }), 7, ["a GGUF file; egg reads safetensors"]);
  });

  test("a hub's folder that lacks its weights", () => {
    const hub = freshFolder("hub");
    writeFileSync(join(hub, "config.json"), JSON.stringify({ model_type: "llama", vocab_size: 8, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 1, intermediate_size: 8 }));
    expectRefused(run(["generate", hub], { cwd }), 3, [hub, "no model.safetensors and no model.safetensors.index.json"]);
  });

  test("one whose config says nothing that egg knows, or another model than its tensors", () => {
    const place = join(cwd, "made");
    const save = (text: string) => saveCheckpoint(place, { step: 1, tensors: new Map(), config: text, tokenizer: "bytes", dataCursor: "{}", program: "9.9.9", valBitsPerByte: null }, 2).path;
    for (const text of ["{}", "null", "not JSON", '{"model":{"type":"gpt","hidden":64,"layers":1}}']) expectRefused(run(["generate", save(text)], { cwd }), 7, ["egg 9.9.9 wrote it"]);
    expectRefused(run(["generate", save(canonicalConfig(presetConfig("egg.c")))], { cwd }), 7, ["do not fit the model", "embedding.weight: missing"]);
  });

  test("all of a run's: nothing is trained, nothing is deleted, --force starts over", () => {
    const other = freshFolder("bad");
    run(["-q", ...sets(config)], { cwd: other });
    const broken = onlyRun(join(other, "runs"));
    rmSync(join(broken, "summary.json"));
    for (const name of readdirSync(join(broken, "checkpoints"))) {
      const bytes = readFileSync(join(broken, "checkpoints", name));
      bytes[bytes.length - 1]! ^= 128;
      writeFileSync(join(broken, "checkpoints", name), bytes);
    }
    const before = contents(join(broken, "checkpoints"));
    const metrics = readFileSync(join(broken, "metrics.jsonl"), "utf8");
    for (const args of [sets(config), ["generate", broken], ["eval", broken]]) {
      expectRefused(run(args, { cwd: other }), 7, ["none of the", "step-00000010.safetensors", "step-00000005.safetensors", "Nothing was deleted", "--force"]);
    }
    expect(contents(join(broken, "checkpoints"))).toEqual(before);
    expect(readFileSync(join(broken, "metrics.jsonl"), "utf8")).toBe(metrics);
    expect(run(["-q", "--force", ...sets(config)], { cwd: other }).code).toBe(0);
    expect(readJson(broken, "summary.json").weights_sha256).toBe(readJson(folder, "summary.json").weights_sha256);
  });

  test("the newest of a run: generate and eval take the one before and say so", () => {
    const other = freshFolder("bad");
    run(["-q", ...sets(config)], { cwd: other });
    const broken = onlyRun(join(other, "runs"));
    writeFileSync(join(broken, "checkpoints/step-00000010.safetensors"), flipped(good.length - 5, 0));
    const { code, err, out } = run(["eval", broken, "--json"], { cwd: other });
    expect(code).toBe(0);
    expect(err).toContain("warning: passed over a damaged checkpoint");
    expect(JSON.parse(out).step).toBe(5);
    expect(run(["generate", broken, "--tokens", "4"], { cwd: other }).err).toContain("passed over");
  });

  test("a run that has none yet", () => {
    const other = freshFolder("bad");
    mkdirSync(join(other, "new/checkpoints"), { recursive: true });
    copyFileSync(join(folder, "config.json"), join(other, "new/config.json"));
    expectRefused(run(["generate", "new"], { cwd: other }), 2, ["new: has no checkpoint yet", "Train it first"]);
  });

  test("metrics with a broken line in the midst are refused by their number, and stay", () => {
    const other = freshFolder("bad");
    run(["-q", ...sets(config)], { cwd: other });
    const broken = onlyRun(join(other, "runs"));
    rmSync(join(broken, "summary.json"));
    const lines = readFileSync(join(broken, "metrics.jsonl"), "utf8").split("\n");
    lines[3] = "{ broken";
    writeFileSync(join(broken, "metrics.jsonl"), lines.join("\n"));
    expectRefused(run(sets(config), { cwd: other }), 7, ["metrics.jsonl: line 4", "the checkpoints do not need it"]);
    expect(readFileSync(join(broken, "metrics.jsonl"), "utf8")).toBe(lines.join("\n"));
  });
});

describe("eval", () => {
  const cwd = freshFolder("bad");
  run(["-q", ...sets({ ...tiny, "run.steps": 1, "data.validation": 0 })], { cwd });
  const folder = onlyRun(join(cwd, "runs"));
  writeFileSync(join(cwd, "one.txt"), "x");

  test.each([
    [[], 2, ["the run held no text out (data.validation is 0)", "--data"]],
    [["--data", "nowhere"], 3, ["nowhere: there is no such file or folder"]],
    [["--data", "one.txt"], 3, ["one.txt: an evaluation needs 2 bytes, found 1", "--data"]],
  ])("%p", (args, code, words) => {
    expectRefused(run(["eval", folder, ...args], { cwd }), code, words);
  });
});

test("EGG_DEBUG shows where an error came from", () => {
  const cwd = freshFolder("bad");
  const { code, err } = run(set("data.path", "nowhere"), { cwd, env: { EGG_DEBUG: "1" } });
  expect(code).toBe(3);
  expect(err).toMatch(/^ +at .*src\/data\/corpus\.ts/m);
});
