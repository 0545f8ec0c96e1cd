// The run folder: ids, names, states, --force, RUN arguments, the lock and the signals, between real processes.
// Checkpoints and metrics have tests of their own.
import { afterAll, expect, test } from "bun:test";
import { dlopen } from "bun:ffi";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Config } from "../src/config/knobs.ts";
import { canonicalJson, forceFresh, openRun, readSummary, resolveRun, runFolder, runId, runState, summaryLine, writeRunConfig, writeSummary } from "../src/run/folder.ts";
import { lockRun } from "../src/run/lock.ts";
import type { Summary } from "../src/run/summary.ts";
import { failure } from "./failure.ts";

const root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "egg-folder-")));
afterAll(() => fs.rmSync(root, { recursive: true, force: true }));
const source = path.join(import.meta.dir, "..", "src", "run");

const config: Config = {
  preset: "egg.c",
  data: { path: "text.txt", tokenizer: "bytes", validation: 0.1 },
  model: { type: "egg", hidden: 64, layers: 2 },
  trainer: { type: "eggroll-int8", rule: "egg.c", population: 32, sequence: 16, sigma_shift: 4, threshold: 160 },
  run: { steps: 10, minutes: 0, patience: 0, stop_metric: "val_bits_per_byte", min_delta: 0, seed: 1, eval_every: 5, sample_every: 0, checkpoint_every: 5, keep: 3, out: "runs", fingerprint_every: 0, tensorboard: false, prompt: "The ", sample_tokens: 8 },
  device: { backend: "auto", threads: 0 },
};
const program = { version: "0.1.0", commit: null };
const summary: Summary = {
  run: "x", status: "finished", steps: 10, seconds: 1.5, train_bits_per_byte: 2, val_bits_per_byte: null, weights_sha256: "0".repeat(64), parameters: 5,
  population: 32, member_tokens: 9, member_tokens_per_second: 8, data_tokens: 7, peak_rss_bytes: 6, backend: "cpu", threads: 2,
};

test("an id is 12 base32 characters that only what decides the result changes", () => {
  const id = runId(config, "data");
  expect(id).toMatch(/^[a-z2-7]{12}$/);
  expect(runId(structuredClone(config), "data")).toBe(id);
  expect(runId(config, "other data")).not.toBe(id);
  const excluded = new Set(["data.path", "run.out", "run.keep", "run.checkpoint_every", "run.tensorboard", "device.backend", "device.threads"]);
  const ids = new Set([id]);
  let knobs = 0;
  for (const [section, values] of Object.entries(config)) {
    for (const name of typeof values === "object" ? Object.keys(values) : [""]) {
      const changed: any = structuredClone(config);
      if (name === "") changed[section] += "x";
      else changed[section][name] = typeof changed[section][name] === "number" ? changed[section][name] + 1 : "changed";
      const other = runId(changed, "data");
      knobs++;
      if (excluded.has(`${section}.${name}`)) expect(other).toBe(id);
      else ids.add(other);
    }
  }
  expect(ids.size).toBe(1 + knobs - excluded.size); // all others differ, from each other too
});

test("an id does not depend on the order of keys, and stays what it is over versions", () => {
  const reordered = Object.fromEntries(Object.entries(config).reverse().map(([key, value]) => [key, typeof value === "object" ? Object.fromEntries(Object.entries(value).reverse()) : value]));
  expect(runId(reordered as unknown as Config, "data")).toBe(runId(config, "data"));
  expect(canonicalJson({ b: [2, { d: 1, c: "é" }], a: null })).toBe(`{"a":null,"b":[2,{"c":"é","d":1}]}`);
  // Base32 of the first 60 bits of the hash, worked out here in another way.
  const identity = { config: { preset: "egg.c", "data.tokenizer": "bytes", "data.validation": 0.1, "model.type": "egg", "model.hidden": 64, "model.layers": 2, "trainer.type": "eggroll-int8",
    "trainer.population": 32, "trainer.sequence": 16, "trainer.sigma_shift": 4, "trainer.threshold": 160, "run.steps": 10, "run.seed": 1, "run.eval_every": 5, "run.sample_every": 0,
    "run.fingerprint_every": 0, "run.prompt": "The ", "run.sample_tokens": 8 }, data: "data", numerics: 1 };
  const bits = [...new Bun.CryptoHasher("sha256").update(canonicalJson(identity)).digest()].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  expect(runId(config, "data")).toBe(Array.from({ length: 12 }, (_, i) => "abcdefghijklmnopqrstuvwxyz234567"[parseInt(bits.slice(i * 5, i * 5 + 5), 2)]).join(""));
});

test("a run's folder is out/name-id; other names are refused", () => {
  const id = runId(config, "data");
  expect(runFolder(config, undefined, "data")).toBe(path.join("runs", `egg.c-${id}`));
  expect(runFolder({ ...config, run: { ...config.run, out: "/a/b" } }, "sweep_1.x-Y", "data")).toBe(`/a/b/sweep_1.x-Y-${id}`);
  expect(path.basename(runFolder(config, "x".repeat(64), "data")).length).toBe(64 + 13);
  for (const name of ["", "x".repeat(65), "a/b", "..", ".hidden", "-x", "a b", "é", "a\n"]) {
    const error = failure(() => runFolder(config, name, "data"));
    expect([error.kind, error.message]).toEqual(["usage", expect.stringContaining(JSON.stringify(name))]);
  }
});

test("a run is new, unfinished, finished", () => {
  const folder = path.join(root, "deep", "er", "run-1");
  expect(runState(folder)).toEqual({ state: "new", summary: null });
  expect(fs.existsSync(folder)).toBe(false);
  expect(openRun(folder).state).toBe("new");
  expect(fs.readdirSync(folder)).toEqual(["checkpoints"]);
  writeRunConfig(folder, config, program);
  const written = JSON.parse(fs.readFileSync(path.join(folder, "config.json"), "utf8"));
  expect(written).toEqual({ egg: program, config, machine: expect.objectContaining({ os: process.platform, arch: process.arch, cores: os.cpus().length, cpu: expect.any(String) }) });
  expect(openRun(folder).state).toBe("unfinished");
  writeSummary(folder, { ...summary, status: "interrupted" });
  expect(openRun(folder)).toEqual({ state: "unfinished", summary: { ...summary, status: "interrupted" } });
  writeSummary(folder, summary);
  expect(openRun(folder)).toEqual({ state: "finished", summary });
  expect(fs.readFileSync(path.join(folder, "summary.json"), "utf8")).toBe(`${summaryLine(summary)}\n`);
  expect(summaryLine(summary).startsWith(`{"run":"x","status":"finished","steps":10,`)).toBe(true);
  fs.truncateSync(path.join(folder, "summary.json"), 20); // damaged: as if there were none, so that the run is looked at again
  expect(readSummary(folder)).toBeNull();
  expect(openRun(folder).state).toBe("unfinished");
});

test("a folder that cannot be made is a clear error", () => {
  const file = path.join(root, "a-file");
  fs.writeFileSync(file, "");
  const error = failure(() => openRun(path.join(file, "run")));
  expect([error.kind, error.message]).toEqual(["usage", expect.stringContaining("a part of the path is a file")]);
});

test("--force deletes what egg wrote and nothing else", () => {
  const folder = path.join(root, "forced");
  openRun(folder);
  const ours = ["config.json", "metrics.jsonl", "latest.json", "samples.txt", "summary.json", "checkpoints/step-00000300.safetensors"];
  const others = ["lock", "notes.txt", "checkpoints/mine.safetensors"];
  for (const name of [...ours, ...others]) fs.writeFileSync(path.join(folder, name), "x");
  const error = failure(() => forceFresh(folder)); // config.json is none of ours
  expect([error.kind, error.message]).toEqual(["usage", expect.stringContaining("no config.json of egg")]);
  for (const name of [...ours, ...others]) expect(fs.existsSync(path.join(folder, name))).toBe(true);
  writeRunConfig(folder, config, program);
  forceFresh(folder);
  for (const name of ours) expect(fs.existsSync(path.join(folder, name))).toBe(false);
  for (const name of others) expect(fs.existsSync(path.join(folder, name))).toBe(true);
  expect(runState(folder).state).toBe("new");
});

test("--force leaves an absent folder and one that no run began in as they are", () => {
  forceFresh(path.join(root, "absent"));
  expect(fs.existsSync(path.join(root, "absent"))).toBe(false);
  const folder = path.join(root, "begun");
  openRun(folder);
  forceFresh(folder);
  expect(fs.readdirSync(folder)).toEqual(["checkpoints"]);
});

test("RUN is a run folder or a checkpoint file; anything else names what is near", () => {
  const runs = path.join(root, "runs");
  for (const name of ["egg.c-aaaaaaaaaaaa", "egg.c-bbbbbbbbbbbb", "big-cccccccccccc"]) {
    openRun(path.join(runs, name));
    writeRunConfig(path.join(runs, name), config, program);
  }
  fs.mkdirSync(path.join(runs, "not-a-run"));
  const big = path.join(runs, "big-cccccccccccc");
  const file = path.join(big, "checkpoints", "step-00000001.safetensors");
  fs.writeFileSync(file, "");
  expect(resolveRun(big, runs)).toEqual({ kind: "folder", path: big });
  expect(resolveRun(file, runs)).toEqual({ kind: "checkpoint", path: file });
  const hint = (text: string): string | undefined => {
    const error = failure(() => resolveRun(text, runs));
    expect(error.kind).toBe("usage");
    expect(error.message).toContain(text);
    return error.hint;
  };
  expect(hint("big-ccccccccccdc")).toBe(`Did you mean ${big}?`);
  expect(hint("egg.c")).toBe(`Did you mean ${path.join(runs, "egg.c-aaaaaaaaaaaa")}, ${path.join(runs, "egg.c-bbbbbbbbbbbb")}?`);
  expect(hint(path.join(runs, "big"))).toBe(`Did you mean ${big}?`);
  expect(hint("zzz")).toContain("There are");
  expect(hint("")).toContain("There are");
  expect(hint(path.join(big, "config.json", "x"))).toContain("There are");
  expect(hint(path.join(runs, "not-a-run"))).toBeDefined();
  expect(hint(runs)).toContain(big);
  expect(hint(path.join(big, "checkpoints"))).toContain("big-cccccccccccc?");
  expect(failure(() => resolveRun("x", path.join(root, "no-runs"))).hint).toContain("Give a run folder");
});

const libc = dlopen(process.platform === "darwin" ? "libSystem.dylib" : "libc.so.6", { flock: { args: ["i32", "i32"], returns: "i32" } });
const flock = (fd: number): boolean => libc.symbols.flock(fd, 2 | 4) === 0;

/** A second process that does `body` with run, lockRun and flock at hand, and prints what it prints. */
function child(folder: string, body: string): ReturnType<typeof Bun.spawn<"ignore", "pipe", "inherit">> {
  const program = path.join(root, `child-${Math.random()}.ts`);
  fs.writeFileSync(program, `
    import { dlopen } from "bun:ffi";
    import fs from "node:fs";
    import { lockRun } from ${JSON.stringify(path.join(source, "lock.ts"))};
    import { catchSignals, dieBySignal } from ${JSON.stringify(path.join(source, "signals.ts"))};
    const libc = dlopen(process.platform === "darwin" ? "libSystem.dylib" : "libc.so.6", { flock: { args: ["i32", "i32"], returns: "i32" } });
    const flock = (fd: number): boolean => libc.symbols.flock(fd, 2 | 4) === 0;
    const run = ${JSON.stringify(folder)};
    const say = (text: unknown) => fs.writeSync(1, text + "\\n");
    ${body}`);
  return Bun.spawn([process.execPath, program], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
}
const firstWords = async (process: { stdout: ReadableStream<Uint8Array> }): Promise<string> => {
  const reader = process.stdout.getReader();
  const { value } = await reader.read();
  reader.releaseLock();
  return new TextDecoder().decode(value).trim();
};

test("one process per run: the other is told who has it, and kill -9 lets it go", async () => {
  const folder = path.join(root, "locked");
  openRun(folder);
  fs.writeFileSync(path.join(folder, "checkpoints", ".step-00000001.safetensors.1.0123abcd.tmp"), "left by a killed process");
  const holder = child(folder, `lockRun(run, flock); const left = Bun.spawn(["sleep", "60"]); say("locked " + left.pid); setInterval(() => {}, 1000);`);
  const [locked, sleeper] = (await firstWords(holder)).split(" ");
  expect(locked).toBe("locked");
  expect(fs.readdirSync(path.join(folder, "checkpoints"))).toEqual([]);
  const temporary = path.join(folder, `.latest.json.${holder.pid}.0123abcd.tmp`);
  fs.writeFileSync(temporary, "being written by the holder");
  const error = failure(() => lockRun(folder, flock));
  expect([error.kind, error.exitCode]).toEqual(["locked", 5]);
  expect(error.message).toContain(`locked by process ${holder.pid} on ${os.hostname()}`);
  expect(fs.existsSync(temporary)).toBe(true); // whoever lacks the lock clears nothing
  holder.kill("SIGKILL");
  await holder.exited;
  const lock = lockRun(folder, flock); // although a child of the killed process lives on:
  process.kill(Number(sleeper), "SIGKILL");
  expect(fs.existsSync(temporary)).toBe(false);
  const second = child(folder, `try { lockRun(run, flock); say("locked") } catch (error) { say(error.message) }`);
  expect(await firstWords(second)).toContain(`locked by process ${process.pid} on`);
  lock.release();
  lock.release();
  lockRun(folder, flock).release();
});

test("the first signal asks to stop, after which the process dies by that signal", async () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const process = child(root, `
      const stop = catchSignals((signal) => say("asked " + signal));
      say("ready " + stop.requested);
      const timer = setInterval(() => { if (stop.requested !== null) { clearInterval(timer); say("saved"); stop.release(); dieBySignal(stop.requested); } }, 5);`);
    const reader = process.stdout.getReader();
    let text = new TextDecoder().decode((await reader.read()).value);
    process.kill(signal);
    for (let part = await reader.read(); !part.done; part = await reader.read()) text += new TextDecoder().decode(part.value);
    await process.exited;
    expect(text).toBe(`ready null\nasked ${signal}\nsaved\n`);
    expect(process.signalCode).toBe(signal);
  }
});

test("the second signal ends at once, by that signal", async () => {
  const process = child(root, `catchSignals((signal) => say("asked " + signal)); say("ready"); setInterval(() => {}, 1000);`);
  const reader = process.stdout.getReader();
  await reader.read();
  process.kill("SIGINT");
  expect(new TextDecoder().decode((await reader.read()).value)).toBe("asked SIGINT\n");
  process.kill("SIGTERM");
  await process.exited;
  expect(process.signalCode).toBe("SIGTERM");
});

test("Ctrl-C in a shell loop stops the loop too, as an exit code of 130 would not", async () => {
  const loop = async (end: string): Promise<string> => {
    const program = path.join(root, `loop-${Math.random()}.ts`);
    fs.writeFileSync(program, `
      import fs from "node:fs";
      import { catchSignals, dieBySignal } from ${JSON.stringify(path.join(source, "signals.ts"))};
      const stop = catchSignals();
      fs.writeSync(1, "run\\n");
      setInterval(() => { if (stop.requested) ${end}; }, 5);`);
    const shell = Bun.spawn(["bash", "-c", `for i in 1 2; do "$0" "$1"; done; echo all done`, process.execPath, program], { stdout: "pipe", detached: true });
    let text = "";
    for await (const part of shell.stdout) {
      text += new TextDecoder().decode(part);
      if (text.endsWith("run\n")) process.kill(-shell.pid, "SIGINT"); // the whole foreground group, as a terminal does
    }
    await shell.exited;
    return text;
  };
  expect(await loop("dieBySignal(stop.requested)")).toBe("run\n");
  expect(await loop("process.exit(130)")).toBe("run\nrun\nall done\n");
});
