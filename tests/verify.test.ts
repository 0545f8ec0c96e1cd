// `egg verify` and damaged runs, with the built program: bits and lengths of a real checkpoint, each file of a run damaged in turn,
// files that lie about their size, names that lead elsewhere, pipes. What the parsers refuse in detail: safetensors.test.ts, fuzz.test.ts.
import { beforeAll, describe, expect, test } from "bun:test";
import fs from "node:fs";
import { join } from "node:path";
import { bytesNow } from "../src/models/tensors.ts";
import { saveCheckpoint } from "../src/run/checkpoint.ts";
import { encodeSafetensors } from "../src/run/safetensors.ts";
import { damageCheckpoint, everyBit } from "./bits.ts";
import { egg, environment, freshFolder, onlyRun, readJson, readSafetensors, run, sets, sha256, tiny } from "./program.ts";

const home = freshFolder("verify");
let original: string;
let copies = 0;

beforeAll(() => {
  expect(run(["--out", "runs", "--quiet", ...sets({ ...tiny, "run.keep": 3 })], { cwd: home }).code).toBe(0);
  original = onlyRun(join(home, "runs"));
});

/** A copy of the finished run to be damaged, in a folder of runs of its own; "unfinished" goes on when it is trained again. */
function copyOf(state: "finished" | "unfinished" = "finished"): { runs: string; folder: string; file(step: number): string } {
  const runs = join(home, `runs-${copies++}`);
  const folder = join(runs, original.split("/").at(-1)!);
  fs.cpSync(original, folder, { recursive: true });
  if (state === "unfinished") fs.rmSync(join(folder, "summary.json"));
  return { runs, folder, file: (step) => join(folder, "checkpoints", `step-${String(step).padStart(8, "0")}.safetensors`) };
}

const train = (runs: string) => run(["--out", runs, ...sets({ ...tiny, "run.keep": 3 })], { cwd: home });
const verify = (...args: string[]) => run(["verify", ...args], { cwd: home });

function verifyJson(...args: string[]): { code: number | null; found: any } {
  const { code, out, err } = verify(...args, "--json");
  expect(out.split("\n").length).toBe(2);
  expect(err).toBe("");
  return { code, found: JSON.parse(out) };
}

function flip(file: string, at = -100): void {
  const bytes = fs.readFileSync(file);
  const place = at < 0 ? bytes.length + at : at;
  bytes[place]! ^= 16;
  fs.writeFileSync(file, bytes);
}

/** Everything in a folder: names, contents and times of change. */
function contents(folder: string): string[] {
  return fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).sort().map((name) => {
    const file = join(folder, name);
    const stat = fs.lstatSync(file);
    return `${name} ${stat.mtimeMs} ${stat.isFile() ? sha256(fs.readFileSync(file)) : stat.isDirectory() ? "folder" : "other"}`;
  });
}

const damagedFiles = ({ checkpoints, files }: any): string[] => [...checkpoints, ...files].filter(({ verdict }) => verdict === "damaged").map(({ file }) => file.split("/").at(-1));

test("every bit of a checkpoint's header, a random one of each byte of data, every length: all noticed", () => {
  const bytes = new Uint8Array(fs.readFileSync(copyOf().file(20)));
  const dataStart = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const { bits, truncations, missed } = damageCheckpoint(bytes, (byte) => (byte < dataStart ? everyBit : [Math.floor(Math.random() * 8)]));
  expect(missed).toEqual([]);
  expect([bits, truncations]).toEqual([dataStart * 7 + bytes.length, bytes.length]);
}, 120_000);

describe("a file", () => {
  test("that is whole: step, hashes, tensors", () => {
    const { folder, file } = copyOf();
    const { code, found } = verifyJson(file(20));
    expect(code).toBe(0);
    const bytes = fs.readFileSync(file(20));
    const { tensors, metadata } = readSafetensors(file(20));
    const weights = [...tensors].filter(([name]) => !name.startsWith("state.")).sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { data }]) => data);
    expect(found).toMatchObject({ file: file(20), verdict: "whole", reason: null, bytes: bytes.length });
    expect(found.content).toMatchObject({ step: 20, program: metadata["program"], sha256: sha256(bytes), content_sha256: metadata["content_sha256"], weights_sha256: sha256(...weights) });
    expect(found.content.weights_sha256).toBe(readJson(folder, "summary.json").weights_sha256);
    const listed = [...tensors].map(([name, { dtype, shape, data }]) => ({ name, dtype, shape, bytes: data.length }));
    expect(found.content.tensors.sort((a: any, b: any) => (a.name < b.name ? -1 : 1))).toEqual(listed.sort((a, b) => (a.name < b.name ? -1 : 1)));
    const text = verify(file(20)).out;
    for (const words of [": whole", "step            20", found.content.weights_sha256, "layers.0.gru.wf.weight (16, 16), 256 bytes"]) expect(text).toContain(words);
  });

  test("that is damaged, cut, foreign, empty, renamed: exit 7 and why", () => {
    const { file } = copyOf();
    flip(file(20));
    fs.truncateSync(file(15), 3000);
    fs.renameSync(file(10), file(99));
    fs.writeFileSync(file(1), "");
    fs.copyFileSync(join(import.meta.dir, "golden/sample.safetensors"), file(2));
    for (const [step, why] of [[20, "content hash should be"], [15, "the file holds"], [99, "its name says step 99, but it holds step 10"], [1, "this one holds 0"], [2, "no checkpoint of egg"]] as const) {
      const { code, found } = verifyJson(file(step));
      expect([code, found.verdict, found.reason]).toEqual([7, "damaged", expect.stringContaining(why)]);
      expect(verify(file(step))).toMatchObject({ code: 7, err: "", out: expect.stringContaining(why) });
    }
    expect(verify(join(home, "none.safetensors"))).toMatchObject({ code: 2, out: "" });
    expect(verify(home)).toMatchObject({ code: 2, out: "" });
  });

  test("whose names hold control sequences: none reaches the terminal", () => {
    const folder = freshFolder("names");
    const { path } = saveCheckpoint(folder, { step: 1, tensors: new Map([["\u001b[2J\u0007w", { dtype: "I8", shape: [1], data: new Uint8Array(1) }]]), config: "{}", tokenizer: "bytes", dataCursor: "", program: "\u001b]0;x\u0007", valBitsPerByte: null }, 2);
    const { code, out } = verify(path);
    expect(code).toBe(0);
    expect(out).toContain("\\x1b[2J\\x07w");
    expect(out).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f]/);
  });
});

describe("a run", () => {
  test("that is whole; nothing is written", () => {
    const { folder } = copyOf();
    const before = contents(folder);
    const { code, found } = verifyJson(folder);
    expect([code, found.damaged, found.finished, found.resume.step]).toEqual([0, 0, true, 20]);
    expect(found.checkpoints.map((each: any) => each.content.step)).toEqual([20, 15, 10]);
    expect(found.files.map((each: any) => [each.file.split("/").at(-1), each.verdict])).toEqual(["config.json", "latest.json", "metrics.jsonl", "summary.json"].map((name) => [name, "whole"]));
    expect(verify(folder, "--strict")).toMatchObject({ code: 0, err: "", out: expect.stringContaining("all whole") });
    expect(contents(folder)).toEqual(before);
  });

  const lines = (folder: string) => fs.readFileSync(join(folder, "metrics.jsonl"), "utf8").split("\n");
  const put = (folder: string, name: string, text: string) => fs.writeFileSync(join(folder, name), text);
  const damages: [string, (run: ReturnType<typeof copyOf>) => void, string, string][] = [
    ["a checkpoint", ({ file }) => flip(file(15)), "step-00000015.safetensors", "content hash"],
    ["config.json", ({ folder }) => put(folder, "config.json", `{"egg": 1}`), "config.json", "not the config of a run"],
    ["latest.json", ({ folder }) => put(folder, "latest.json", `{"name":`), "latest.json", "not JSON"],
    ["latest.json of another file", ({ folder }) => put(folder, "latest.json", JSON.stringify({ ...readJson(folder, "latest.json"), sha256: "0".repeat(64) })), "latest.json", "its sha256 is not that of step-00000020"],
    ["latest.json without its file", ({ folder }) => put(folder, "latest.json", JSON.stringify({ ...readJson(folder, "latest.json"), name: "step-00000077.safetensors", step: 77 })), "latest.json", "which is not there"],
    ["a line of metrics", ({ folder }) => put(folder, "metrics.jsonl", lines(folder).with(4, "{").join("\n")), "metrics.jsonl", "line 5 is not a line of metrics"],
    ["a lost line of metrics", ({ folder }) => put(folder, "metrics.jsonl", lines(folder).toSpliced(4, 2).join("\n")), "metrics.jsonl", "no lines for the steps from 5 to 6"],
    ["lost last lines of metrics", ({ folder }) => put(folder, "metrics.jsonl", lines(folder).toSpliced(17, 3).join("\n")), "metrics.jsonl", "no lines for the steps from 18 to 20"],
    ["a number that is text", ({ folder }) => put(folder, "metrics.jsonl", lines(folder).join("\n").replace(/"train_bits_per_byte":[\d.]+/, `"train_bits_per_byte":"8"`)), "metrics.jsonl", "line 1 "],
    ["summary.json", ({ folder }) => put(folder, "summary.json", JSON.stringify({ ...readJson(folder, "summary.json"), steps: "20" })), "summary.json", "not the summary"],
    ["summary.json of other weights", ({ folder }) => put(folder, "summary.json", JSON.stringify({ ...readJson(folder, "summary.json"), weights_sha256: "0".repeat(64) })), "summary.json", "its weights are not those"],
  ];

  test.each(damages)("with %s damaged: it is listed, exit 0 while a good checkpoint is left, 7 with --strict", (_what, damage, name, why) => {
    const copy = copyOf();
    damage(copy);
    const before = contents(copy.folder);
    const { code, found } = verifyJson(copy.folder);
    expect(damagedFiles(found)).toEqual([name]);
    expect([...found.checkpoints, ...found.files].find(({ verdict }: any) => verdict === "damaged").reason).toContain(why);
    // A run that would have to go on past a broken line of metrics stops there.
    const stops = name === "summary.json" || name === "config.json" ? false : found.resume === null;
    expect([code, stops]).toEqual([0, false]);
    expect(verify(copy.folder, "--strict")).toMatchObject({ code: 7, out: expect.stringContaining("1 of 7 files damaged") });
    expect(contents(copy.folder)).toEqual(before);
  });

  test("that is not finished and has a broken line of metrics: verify tells that a resume would stop, and it does", () => {
    const { runs, folder } = copyOf("unfinished");
    put(folder, "metrics.jsonl", lines(folder).with(4, "{").join("\n"));
    const { code, found } = verifyJson(folder);
    expect([code, found.resume, found.reason]).toEqual([7, null, expect.stringContaining("line 5 is not a line of metrics")]);
    expect(train(runs)).toMatchObject({ code: 7, err: expect.stringContaining("line 5 is not a line of metrics") });
    fs.rmSync(join(folder, "metrics.jsonl"));
    expect(train(runs).code).toBe(0); // as the hint says
  });

  test("whose metrics are another file altogether is not emptied by a resume", () => {
    const { runs, folder } = copyOf("unfinished");
    put(folder, "metrics.jsonl", "these are\nmy notes\n");
    expect(train(runs)).toMatchObject({ code: 7, err: expect.stringContaining("line 1 is not a line of metrics") });
    expect(lines(folder)).toEqual(["these are", "my notes", ""]);
  });

  test("with damaged newest checkpoints: a resume says which it passed over, and comes to the same end", () => {
    const { runs, folder, file } = copyOf("unfinished");
    const { weights_sha256 } = readJson(original, "summary.json");
    flip(file(20));
    fs.truncateSync(file(15), 5000);
    const { code, found } = verifyJson(folder);
    expect([code, damagedFiles(found), found.resume.step]).toEqual([0, ["step-00000020.safetensors", "step-00000015.safetensors"], 10]);
    expect(verify(folder).out).toContain("a resume goes on from step 10, step-00000010.safetensors");
    const { code: trained, err } = train(runs);
    expect(trained).toBe(0);
    for (const words of [`passed over a damaged checkpoint: [checkpoint] ${file(20)}`, `passed over a damaged checkpoint: [safetensors] ${file(15)}`, "going on from step 10"]) expect(err.replaceAll(/\s+/g, " ")).toContain(words);
    expect(readJson(folder, "summary.json").weights_sha256).toBe(weights_sha256);
    expect(verifyJson(folder)).toMatchObject({ code: 0, found: { damaged: 0 } });
  });

  test("with no good checkpoint: exit 7 from verify, train and generate, and nothing is deleted", () => {
    const { runs, folder, file } = copyOf("unfinished");
    for (const step of [20, 15, 10]) flip(file(step));
    const checkpoints = contents(join(folder, "checkpoints"));
    const metrics = fs.readFileSync(join(folder, "metrics.jsonl"));
    const { code, found } = verifyJson(folder);
    expect([code, found.resume, found.reason, found.damaged]).toEqual([7, null, "none of the checkpoints is whole", 3]);
    for (const ended of [train(runs), run(["generate", folder], { cwd: home })]) {
      expect(ended).toMatchObject({ code: 7, out: "" });
      for (const step of [20, 15, 10]) expect(ended.err).toContain(file(step));
    }
    expect(contents(join(folder, "checkpoints"))).toEqual(checkpoints);
    expect(fs.readFileSync(join(folder, "metrics.jsonl")).equals(metrics)).toBe(true);
    fs.rmSync(join(folder, "checkpoints"), { recursive: true });
    fs.mkdirSync(join(folder, "checkpoints"));
    expect(verifyJson(folder)).toMatchObject({ code: 7, found: { reason: "there is no checkpoint yet", resume: null } });
  });
});

describe("hostile files", () => {
  test("names in latest.json that lead elsewhere are not followed", () => {
    const { runs, folder, file } = copyOf("unfinished");
    const outside = join(runs, "step-00000300.safetensors");
    fs.copyFileSync(file(20), outside);
    for (const name of ["../../step-00000300.safetensors", outside, "step-00000020.safetensors/../../../step-00000300.safetensors", "/dev/zero"]) {
      for (const latest of [{ name, step: 300, sha256: sha256(fs.readFileSync(outside)), best: null }, { ...readJson(original, "latest.json"), best: { name, step: 300, val_bits_per_byte: 0 } }]) {
        fs.writeFileSync(join(folder, "latest.json"), JSON.stringify(latest));
        const { code, found } = verifyJson(folder);
        expect([code, damagedFiles(found), found.resume.file]).toEqual([0, ["latest.json"], file(20)]);
      }
    }
    fs.rmSync(file(20));
    expect(train(runs)).toMatchObject({ code: 0, err: expect.stringContaining("going on from step 15") });
    expect(fs.readdirSync(runs).sort()).toEqual([folder.split("/").at(-1)!, "step-00000300.safetensors"]);
  });

  test("pipes, folders and devices in the place of files are passed over, not waited for", () => {
    const { runs, folder, file } = copyOf("unfinished");
    for (const name of [file(30), join(folder, "summary.json")]) expect(Bun.spawnSync(["mkfifo", name]).exitCode).toBe(0);
    fs.mkdirSync(file(40));
    fs.symlinkSync("/dev/zero", file(50));
    fs.rmSync(join(folder, "latest.json"));
    fs.symlinkSync("/dev/zero", join(folder, "latest.json"));
    const { code, found } = verifyJson(folder);
    expect([code, found.resume.step, found.finished]).toEqual([0, 20, false]);
    expect(damagedFiles(found)).toEqual([50, 40, 30].map((step) => file(step).split("/").at(-1)!).concat("latest.json", "summary.json"));
    const { code: trained, err } = train(runs);
    expect([trained, err]).toEqual([0, expect.stringContaining("going on from step 20")]);
  }, 30_000);

  /** Peak memory of a command, bytes. */
  function peak(...args: string[]): { code: number | null; bytes: number; err: string } {
    const child = Bun.spawnSync([egg, ...args], { cwd: home, env: environment(home), stdin: "ignore", stdout: "ignore", stderr: "pipe" });
    return { code: child.exitCode, bytes: child.resourceUsage.maxRSS, err: child.stderr.toString() };
  }
  function file(name: string, header: string, data = 0, claim = Buffer.byteLength(header)): string {
    const start = Buffer.alloc(8);
    start.writeBigUInt64LE(BigInt(claim));
    fs.writeFileSync(join(home, name), Buffer.concat([start, Buffer.from(header), Buffer.alloc(data)]));
    return join(home, name);
  }
  const megabyte = 1_048_576;
  const hostile: [string, () => string][] = [
    ["a header of 100 MB claimed in 43 bytes", () => file("a", `{"__metadata__":{"format":"pt"},"":1}`, 0, 100_000_000)],
    ["a petabyte of tensors claimed in 80 bytes", () => file("b", `{"w":{"dtype":"I8","shape":[1125899906842624],"data_offsets":[0,1125899906842624]}}`)],
    ["65,536 tensors", () => file("c", `{${Array.from({ length: 65_536 }, (_, i) => `"${i}":{"dtype":"I8","shape":[1,1,1,1,1,1,1,0],"data_offsets":[0,0]}`).join()}}`)],
    ["9 million metadata texts in 64 MB", () => file("d", `{"__metadata__":{${`"":"",`.repeat(9_000_000)}}}`)],
    ["metadata of 90 MB, one letter not Latin", () => file("e", `{"__metadata__":{"k":"Ж${"x".repeat(90_000_000)}"}}`)],
    ["metadata of 16 MB, one letter not Latin, with escapes", () => file("f", `{"__metadata__":{"k":"Ж\\n${"x".repeat(16_000_000)}"}}`)],
    ["a type of 90 MB", () => file("g", `{"w":{"dtype":"${"I".repeat(90_000_000)}","shape":[],"data_offsets":[0,0]}}`)],
  ];

  test.each(hostile)("%s: refused within twice the file's size and 96 MiB", (_what, make) => {
    const name = make();
    const usual = peak("verify", join(original, "checkpoints", "step-00000020.safetensors"));
    expect(usual.code).toBe(0);
    const { code, bytes } = peak("verify", name);
    expect(code).toBe(7);
    expect(bytes - usual.bytes).toBeLessThan(2 * fs.statSync(name).size + 96 * megabyte);
    fs.rmSync(name);
  }, 60_000);

  test("a checkpoint with a right hash that claims a model of 13 GB: refused before memory is taken", () => {
    const config = JSON.stringify({ preset: "egg.c", data: { path: "builtin:fables", tokenizer: "bytes", validation: 0.1 }, model: { type: "egg", hidden: 4096, layers: 64 }, trainer: { type: "eggroll-int8", rule: "egg.c" }, device: { threads: 1 } });
    const { path } = saveCheckpoint(freshFolder("claims"), { step: 1, tensors: new Map([["head.weight", { dtype: "I8", shape: [1], data: new Uint8Array(1) }]]), config, tokenizer: "bytes", dataCursor: "", program: "9", valBitsPerByte: null }, 2);
    const usual = peak("generate", original, "--tokens", "1");
    const { code, bytes, err } = peak("generate", path, "--tokens", "1");
    expect([code, err]).toEqual([7, expect.stringContaining("do not fit the model")]);
    expect(bytes).toBeLessThan(usual.bytes + 64 * megabyte);
  });

  test("metrics of one endless line, and a summary of 10 MB", () => {
    const { folder } = copyOf();
    fs.writeFileSync(join(folder, "metrics.jsonl"), `{"step":1,"x":[${"{},".repeat(7_000_000)}{}]}\n`);
    fs.writeFileSync(join(folder, "summary.json"), `{"status":"finished","x":"${"x".repeat(10_000_000)}"}`);
    const usual = peak("verify", original);
    const { code, bytes } = peak("verify", folder);
    expect(code).toBe(7);
    expect(bytes - usual.bytes).toBeLessThan(2 * 21_000_000 + 32 * megabyte);
  });

  test("a file of the encoder with a foreign hash is no checkpoint", () => {
    const name = join(home, "foreign.safetensors");
    fs.writeFileSync(name, Buffer.concat(encodeSafetensors(new Map(), { program: "0", config: "{}", step: "1", tokenizer: "bytes", data_cursor: "", content_sha256: "\u001b".repeat(64) }).map(bytesNow)));
    const { code, found } = verifyJson(name);
    expect([code, found.reason.replace(name, "").length < 600]).toEqual([7, true]);
  });
});
