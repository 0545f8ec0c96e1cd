// `egg train` from the outside: what a run leaves behind, that it can be stopped at any moment and goes on bit for bit,
// and what a person or a script reads from it. Not the algorithm: golden.test.ts. Not what goes wrong: badinput.test.ts.
// Read next: signals.test.ts, DESIGN section 2 in the README's words.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { appendFileSync, chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { egg, environment, freshFolder, hasBegun, onlyRun, readJson, readLines, readSafetensors, run, sets, sha256, start, tiny, until } from "./program.ts";

setDefaultTimeout(60_000);

/** Metrics without what a clock decides. */
function timeless(lines: any[]): any[] {
  return lines.map(({ seconds, member_tokens_per_second, ...rest }) => rest);
}

function weightsSha256(file: string): string {
  const weights = [...readSafetensors(file).tensors].filter(([name]) => !name.startsWith("state."));
  return sha256(...weights.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { data }]) => data));
}

describe("a finished run", () => {
  const cwd = freshFolder("train");
  const config = { ...tiny, "model.layers": 2, "run.steps": 22 };
  const ended = run(["--json", ...sets(config)], { cwd });
  const folder = onlyRun(join(cwd, "runs"));
  const lines = readLines(folder);

  test("exits with 0, says what it does on stderr and one line of JSON on stdout", () => {
    expect({ code: ended.code, signal: ended.signal }).toEqual({ code: 0, signal: null });
    expect(ended.out).toMatch(/^\{[^\n]*\}\n$/);
    for (const words of ["builtin:fables: 65,536 bytes", "population 64", "step 22/22", "held-out", "writes:", "finished after 22 steps", "egg generate runs/egg.c-"]) {
      expect(ended.err).toContain(words);
    }
    expect(ended.err).not.toContain("\x1b");
  });

  test("leaves the files that it promises and no others", () => {
    expect(basename(folder)).toMatch(/^egg\.c-[a-z2-7]{12}$/);
    expect(readdirSync(folder).sort()).toEqual(["checkpoints", "config.json", "latest.json", "lock", "metrics.jsonl", "samples.txt", "summary.json"]);
    const kept = readdirSync(join(folder, "checkpoints")).sort();
    const best = readJson(folder, "latest.json").best.name;
    expect(kept).toEqual([...new Set([best, "step-00000020.safetensors", "step-00000022.safetensors"])].sort());
  });

  test("config.json holds the effective config, the program and the machine", () => {
    const { egg: program, machine, config: kept } = readJson(folder, "config.json");
    expect(kept).toEqual(JSON.parse(run(["config", "show", ...sets(config)], { cwd }).out));
    expect(Object.keys(program)).toEqual(["version", "commit"]);
    expect(run(["--version"], { cwd }).out).toStartWith(`egg ${program.version}`);
    expect(Object.keys(machine)).toEqual(["os", "release", "arch", "cpu", "cores"]);
  });

  test("metrics.jsonl has one short line a step, with losses where they are due", () => {
    expect(lines.map(({ step }) => step)).toEqual(Array.from({ length: 22 }, (_, i) => i + 1));
    for (const text of readFileSync(join(folder, "metrics.jsonl"), "utf8").split("\n")) expect(text.length).toBeLessThanOrEqual(300 + 64); // with the hash
    for (const line of lines) {
      const evaluated = line.step % 5 === 0 || line.step === 22;
      const keys = ["step", "seconds", "train_bits_per_byte", "member_tokens_per_second", "data_tokens", "fitness_plus", "fitness_minus", "updated_fraction"];
      if (evaluated) keys.push("val_bits_per_byte", "saturated_fraction");
      if ((line.step - 1) % 10 === 0) keys.push("loss_integer");
      expect(Object.keys(line)).toEqual([...keys, "weights_sha256"]);
      expect(line.data_tokens).toBe(line.step * 32 * 8);
      expect(line.fitness_plus + line.fitness_minus).toBeLessThanOrEqual(32);
      expect(line.updated_fraction).toBeWithin(0, 1.000001);
      expect(line.train_bits_per_byte).toBeWithin(4, 14);
    }
  });

  test("the checkpoint is a safetensors file with the promised names and shapes", () => {
    const { tensors, metadata } = readSafetensors(join(folder, "checkpoints/step-00000022.safetensors"));
    const layer = (l: number): [string, number[]][] => [
      [`layers.${l}.ln1.weight`, [16]], [`layers.${l}.ln2.weight`, [16]],
      ...["wf", "uf", "wh", "uh"].map((gate): [string, number[]] => [`layers.${l}.gru.${gate}.weight`, [16, 16]]),
      [`layers.${l}.gru.bf`, [16]], [`layers.${l}.gru.bh`, [16]],
      [`layers.${l}.mlp.expand.weight`, [64, 16]], [`layers.${l}.mlp.project.weight`, [16, 64]],
    ];
    const expected = new Map<string, number[]>([
      ["embedding.weight", [256, 16]], ["head.weight", [256, 16]], ["ln_out.weight", [16]], ...layer(0), ...layer(1),
      ["state.members", [64, 2, 16]], ["state.reference", [2, 16]],
    ]);
    expect(new Map([...tensors].map(([name, { shape }]) => [name, shape] as const).sort())).toEqual(new Map([...expected].sort()));
    for (const { dtype, shape, data } of tensors.values()) {
      expect(dtype).toBe("I8");
      expect(data.length).toBe(shape.reduce((product, n) => product * n, 1));
    }
    expect(metadata).toMatchObject({ step: "22", tokenizer: "bytes", program: readJson(folder, "config.json").egg.version });
    expect(JSON.parse(metadata["config"]!)).toEqual(readJson(folder, "config.json").config);
    expect(Number(metadata["val_bits_per_byte"])).toBeCloseTo(lines[21].val_bits_per_byte, 6);
  });

  test("all name the same weights", () => {
    const weights = weightsSha256(join(folder, "checkpoints/step-00000022.safetensors"));
    expect(lines[21].weights_sha256).toBe(weights);
    expect(readJson(folder, "summary.json").weights_sha256).toBe(weights);
    expect(weightsSha256(join(folder, "checkpoints/step-00000020.safetensors"))).toBe(lines[19].weights_sha256);
    const latest = readJson(folder, "latest.json");
    expect(latest).toMatchObject({ name: "step-00000022.safetensors", step: 22 });
    expect(sha256(readFileSync(join(folder, "checkpoints", latest.name)))).toBe(latest.sha256);
  });

  test("samples.txt holds a sample for each time", () => {
    const samples = readFileSync(join(folder, "samples.txt"), "utf8");
    expect([...samples.matchAll(/^=== step (\d+)$/gm)].map(([, step]) => Number(step))).toEqual([10, 20]);
    expect(samples).toContain("\nThe »");
  });

  test("summary.json is what --json printed, and adds up", () => {
    expect(readFileSync(join(folder, "summary.json"), "utf8")).toBe(ended.out);
    const { peak_rss_bytes, seconds, member_tokens_per_second, backend, ...summary } = JSON.parse(ended.out);
    expect(summary).toEqual({
      run: basename(folder), status: "finished", steps: 22, train_bits_per_byte: lines[21].train_bits_per_byte, val_bits_per_byte: lines[21].val_bits_per_byte,
      weights_sha256: lines[21].weights_sha256, parameters: 2 * 256 * 16 + 16 + 2 * (12 * 256 + 64), population: 64, member_tokens: 22 * 64 * 8,
      data_tokens: 22 * 32 * 8, threads: 2, stopped_by: "steps",
    });
    expect(peak_rss_bytes).toBeGreaterThan(10_000_000);
    expect(backend).toStartWith("cpu ");
    expect(member_tokens_per_second).toBeGreaterThan(0);
    expect(seconds).toBeGreaterThanOrEqual(0);
  });

  test("run again it prints the same and does nothing: not even the kernels are loaded", () => {
    const before = readdirSync(folder, { recursive: true }).map((name) => [name, statSync(join(folder, String(name))).mtimeMs]);
    const again = run(["--json", ...sets(config)], { cwd, env: { EGG_NATIVE_LIB: "/missing/libegg.so" } });
    expect({ code: again.code, out: again.out }).toEqual({ code: 0, out: ended.out });
    expect(again.err).toContain("is finished; --force starts it over");
    expect(readdirSync(folder, { recursive: true }).map((name) => [name, statSync(join(folder, String(name))).mtimeMs])).toEqual(before);
  });

  test("where it runs, where it is kept and how often it is saved make no other run of it", () => {
    const again = run(["--quiet", "--json", "--threads", "3", ...sets({ ...config, "run.keep": 9, "run.checkpoint_every": 1, "device.backend": "cpu" })], { cwd });
    expect({ code: again.code, out: again.out, err: again.err }).toEqual({ code: 0, out: ended.out, err: "" });
    const other = run(["--quiet", "--json", ...sets({ ...config, "run.seed": 43 })], { cwd });
    expect(JSON.parse(other.out).run).not.toBe(basename(folder));
    expect(JSON.parse(other.out).weights_sha256).not.toBe(JSON.parse(ended.out).weights_sha256);
  });
});

test("--quiet prints nothing at all, and --quiet --json the line alone", () => {
  const cwd = freshFolder("train");
  expect(run(["-q", ...sets(tiny)], { cwd })).toEqual({ code: 0, signal: null, out: "", err: "" });
  const { out, err } = run(["-q", "--json", "--name", "other", ...sets(tiny)], { cwd });
  expect({ lines: out.split("\n").length, err }).toEqual({ lines: 2, err: "" });
});

test("--force starts over and gives the same again; what egg did not write stays", () => {
  const cwd = freshFolder("train");
  const first = JSON.parse(run(["-q", "--json", ...sets(tiny)], { cwd }).out);
  const folder = onlyRun(join(cwd, "runs"));
  writeFileSync(join(folder, "notes.txt"), "mine");
  appendFileSync(join(folder, "metrics.jsonl"), "not a line\n");
  const { code, out } = run(["-q", "--json", "--force", ...sets(tiny)], { cwd });
  expect(code).toBe(0);
  expect(JSON.parse(out).weights_sha256).toBe(first.weights_sha256);
  expect(readLines(folder).length).toBe(20);
  expect(readFileSync(join(folder, "notes.txt"), "utf8")).toBe("mine");
});

test("--force leaves a folder alone that is not a run", () => {
  const cwd = freshFolder("train");
  run(["-q", ...sets({ ...tiny, "run.steps": 0 })], { cwd });
  const folder = onlyRun(join(cwd, "runs"));
  writeFileSync(join(folder, "config.json"), "{}");
  const { code, err } = run(["-q", "--force", ...sets({ ...tiny, "run.steps": 0 })], { cwd, env: {} });
  // A finished run is told by its summary; without config.json of egg nothing in it may be deleted.
  expect(code).toBe(2);
  expect(err).toContain("--force deletes nothing");
  expect(existsSync(join(folder, "checkpoints/step-00000000.safetensors"))).toBeTrue();
});

test("a run of no steps is the initial model", () => {
  const cwd = freshFolder("train");
  const { code, out } = run(["-q", "--json", ...sets({ ...tiny, "run.steps": 0 })], { cwd });
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ status: "finished", steps: 0, train_bits_per_byte: null, member_tokens: 0, member_tokens_per_second: 0 });
  expect(JSON.parse(out).val_bits_per_byte).toBeWithin(7, 11);
  expect(run(["generate", onlyRun(join(cwd, "runs")), "--tokens", "5"], { cwd }).code).toBe(0);
});

describe("where values come from", () => {
  test("file < EGG_SET < --set < flag, and the last --set wins", () => {
    const cwd = freshFolder("train");
    writeFileSync(join(cwd, "a.json"), `{ // a comment\n "run": { "steps": 1, "seed": 1, "keep": 5, "out": "file" }, "device": { "threads": 2 } }`);
    const { run: kept, device } = JSON.parse(run(
      ["--config", "a.json", "--dry-run", "--set", "run.seed=3", "--set", "run.seed=4", "--set", "device.threads=3", "--threads", "1", "--out", "flag"],
      { cwd, env: { EGG_SET: "run.seed=2,run.steps=2" } },
    ).out);
    expect({ steps: kept.steps, seed: kept.seed, keep: kept.keep, out: kept.out, threads: device.threads }).toEqual({ steps: 2, seed: 4, keep: 5, out: "flag", threads: 1 });
    expect(readdirSync(cwd)).toEqual(["a.json"]); // --dry-run makes nothing
  });

  test("--out and --name say where a run lies, with absolute paths and from any folder", () => {
    const cwd = freshFolder("train");
    mkdirSync(join(cwd, "work"));
    writeFileSync(join(cwd, "text.md"), "a hen lays an egg. ".repeat(500));
    writeFileSync(join(cwd, "c.json"), JSON.stringify({ data: { path: join(cwd, "text.md") } }));
    const { "data.path": _, ...small } = tiny;
    const { code, out } = run(["train", "-c", join(cwd, "c.json"), "-q", "--json", "--out", join(cwd, "here/and/there"), "--name", "hens_1", ...sets(small)], { cwd: join(cwd, "work") });
    expect(code).toBe(0);
    expect(onlyRun(join(cwd, "here/and/there"))).toBe(join(cwd, "here/and/there", JSON.parse(out).run));
    expect(JSON.parse(out).run).toMatch(/^hens_1-/);
    expect(readdirSync(join(cwd, "work"))).toEqual([]);
  });
});

describe("texts", () => {
  test("a file, a folder with it and its .zst are the same text, so the same run; stdin may be closed", () => {
    const cwd = freshFolder("train");
    const text = Buffer.from("Öl, egg & hen; the fox is late.\n".repeat(400));
    writeFileSync(join(cwd, "story.txt"), text);
    mkdirSync(join(cwd, "folder/sub"), { recursive: true });
    writeFileSync(join(cwd, "folder/sub/story.txt"), text);
    writeFileSync(join(cwd, "folder/picture.png"), "not text");
    writeFileSync(join(cwd, "story.zst"), Bun.zstdCompressSync(text));
    const results = ["story.txt", "folder", "story.zst", join(cwd, "story.txt")].map((path, i) => {
      const command = ["sh", "-c", `exec "$0" "$@" <&-`, egg];
      return run(["-q", "--json", "--out", `runs${i}`, ...sets({ ...tiny, "data.path": path })], { cwd, command });
    });
    expect(results.map(({ code, err }) => ({ code, err }))).toEqual(results.map(() => ({ code: 0, err: "" })));
    const [first, ...others] = results.map(({ out }) => JSON.parse(out));
    for (const other of others) expect({ run: other.run, weights: other.weights_sha256 }).toEqual({ run: first.run, weights: first.weights_sha256 });
  });

  test("two files in a folder are one text with a zero byte between them", () => {
    const cwd = freshFolder("train");
    const [a, b] = ["first ".repeat(900), "second ".repeat(900)];
    mkdirSync(join(cwd, "folder"));
    writeFileSync(join(cwd, "folder/a.txt"), a);
    writeFileSync(join(cwd, "folder/b.txt"), b);
    writeFileSync(join(cwd, "both.bin"), `${a}\0${b}`);
    const [folder, file] = ["folder", "both.bin"].map((path) => JSON.parse(run(["-q", "--json", "--out", path.slice(0, 3), ...sets({ ...tiny, "data.path": path })], { cwd }).out));
    expect(folder.weights_sha256).toBe(file.weights_sha256);
  });

  test("held-out loss on the built-in text falls", () => {
    const cwd = freshFolder("train");
    const { code, out } = run(["-q", "--json", ...sets({ preset: "egg.c", "model.hidden": 32, "model.layers": 1, "trainer.population": 128, "trainer.sequence": 32, "trainer.threshold": 600, "run.steps": 300, "run.eval_every": 20 })], { cwd });
    expect(code).toBe(0);
    const losses = readLines(onlyRun(join(cwd, "runs"))).flatMap(({ val_bits_per_byte }) => val_bits_per_byte ?? []);
    expect(losses.length).toBe(15);
    expect(losses.at(-1)).toBeLessThan(losses[0] - 1.5);
    expect(JSON.parse(out).val_bits_per_byte).toBe(losses.at(-1));
  });
});

describe("resume", () => {
  const config = { ...tiny, "model.hidden": 32, "run.steps": 120, "run.eval_every": 7, "run.sample_every": 12, "run.checkpoint_every": 10 };
  const whole = freshFolder("train");
  const reference = run(["-q", "--json", "--threads", "2", ...sets(config)], { cwd: whole });
  const wholeRun = onlyRun(join(whole, "runs"));
  const machines: { args: string[]; env?: Record<string, string> }[] = [
    { args: ["--threads", "1"] }, { args: ["--threads", "3"] }, { args: ["--threads", "2"], env: { EGG_CPU: "scalar" } }, { args: [] },
  ];

  test.each(["SIGKILL", "SIGINT", "SIGTERM"] as const)("after %s, again and again, with other threads and other kernels, equals an uninterrupted run", async (signal) => {
    const cwd = freshFolder("train");
    const folder = join(cwd, "runs", basename(wholeRun));
    const count = () => (existsSync(join(folder, "metrics.jsonl")) ? readFileSync(join(folder, "metrics.jsonl"), "latin1").split("\n").length - 1 : 0);
    let [stops, done] = [0, 0];
    for (const target of [4, 23, 41, 58, 84, 84, 101]) {
      const { args, env } = machines[stops % machines.length]!;
      const process = start(["-q", ...args, ...sets(config)], { cwd, ...(env === undefined ? {} : { env }) });
      let over = false;
      void process.ended.then(() => (over = true));
      await until(`step ${target}`, () => over || count() >= Math.max(target, done));
      process.kill(signal);
      const ended = await process.ended;
      if (ended.code === 0) continue; // it was faster than the signal
      expect({ signal: ended.signal, err: ended.err }).toEqual({ signal, err: "" });
      stops++;
      done = count();
      if (signal !== "SIGKILL") expect(readJson(folder, "summary.json")).toMatchObject({ status: "interrupted", steps: done });
    }
    expect(stops).toBeGreaterThan(2);
    const { code, out } = run(["-q", "--json", ...sets(config)], { cwd });
    expect(code).toBe(0);
    const { seconds, member_tokens_per_second, peak_rss_bytes, threads, ...summary } = JSON.parse(out);
    expect(JSON.parse(reference.out)).toMatchObject(summary);
    expect(timeless(readLines(folder))).toEqual(timeless(readLines(wholeRun)));
    expect(readFileSync(join(folder, "samples.txt"), "utf8")).toBe(readFileSync(join(wholeRun, "samples.txt"), "utf8"));
    const last = "checkpoints/step-00000120.safetensors";
    expect([...readSafetensors(join(folder, last)).tensors]).toEqual([...readSafetensors(join(wholeRun, last)).tensors]);
    expect(readdirSync(folder, { recursive: true }).filter((name) => String(name).endsWith(".tmp"))).toEqual([]);
  });

  test("from a damaged newest checkpoint goes on from the one before and says so", () => {
    const cwd = freshFolder("train");
    run(["-q", ...sets(config)], { cwd });
    const folder = onlyRun(join(cwd, "runs"));
    const newest = join(folder, "checkpoints/step-00000120.safetensors");
    const bytes = readFileSync(newest);
    bytes[bytes.length - 9]! ^= 4;
    writeFileSync(newest, bytes);
    writeFileSync(join(folder, "summary.json"), readFileSync(join(folder, "summary.json"), "utf8").replace("finished", "interrupted"));
    const { code, out, err } = run(["--quiet", "--json", ...sets(config)], { cwd });
    expect(code).toBe(0);
    expect(err).toContain("warning: passed over a damaged checkpoint");
    expect(err).toContain("step-00000120.safetensors");
    expect(JSON.parse(out).weights_sha256).toBe(JSON.parse(reference.out).weights_sha256);
    expect(timeless(readLines(folder))).toEqual(timeless(readLines(wholeRun)));
    expect(weightsSha256(newest)).toBe(JSON.parse(reference.out).weights_sha256);
  });
});

test("two processes on one run: the second is told who has it, and harms nothing", async () => {
  const cwd = freshFolder("train");
  const config = { ...tiny, "run.steps": 100_000, "run.eval_every": 0, "run.sample_every": 0, "run.checkpoint_every": 1000 };
  const first = start(["-q", ...sets(config)], { cwd });
  await until("the first steps", () => hasBegun(cwd));
  for (const more of [[], ["--force"]]) {
    const second = run(["-q", ...more, ...sets(config)], { cwd });
    expect(second.code).toBe(5);
    expect(second.err).toContain(`locked by process ${first.pid} on `);
  }
  first.kill("SIGTERM");
  expect((await first.ended).signal).toBe("SIGTERM");
  expect(run(["-q", ...sets({ ...config, "run.keep": 3 }), "--dry-run"], { cwd }).code).toBe(0);
  const summary = readJson(onlyRun(join(cwd, "runs")), "summary.json");
  expect(readLines(onlyRun(join(cwd, "runs"))).map(({ step }) => step)).toEqual(Array.from({ length: summary.steps }, (_, i) => i + 1));
});

describe("--json is exactly one line of JSON on standard output", () => {
  const cwd = freshFolder("train");
  run(["-q", ...sets(tiny)], { cwd });
  const folder = onlyRun(join(cwd, "runs"));
  test.each([
    ["train", ["--quiet", ...sets(tiny)]], ["train", ["--dry-run", "--quiet", ...sets(tiny)]], ["train", ["--dry-run", "--quiet", "--force", ...sets(tiny)]], ["eval", [folder]],
    ["eval", [folder, "--checkpoint", "best"]], ["verify", [folder]], ["info", []], ["runs list", ["runs"]], ["runs compare", [folder, folder]],
  ])("egg %s %p", (command, args) => {
    const { code, out, err } = run([...command.split(" "), "--json", ...args], { cwd });
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^[^\n]+\n$/);
    expect(typeof JSON.parse(out)).toBe("object");
  });
});

describe("where the output goes", () => {
  const shell = (script: string, cwd: string) => {
    const child = Bun.spawnSync(["bash", "-c", script, egg], { cwd, env: environment(cwd), stdin: "ignore" });
    return { code: child.exitCode, out: child.stdout.toString(), err: child.stderr.toString() };
  };

  test("a reader that goes away does no harm", () => {
    const cwd = freshFolder("train");
    const { out, err } = shell(`"$0" -q --json ${sets(tiny).join(" ")} | true; echo "\${PIPESTATUS[0]}"`, cwd);
    expect({ out, err }).toEqual({ out: "0\n", err: "" });
    expect(readJson(onlyRun(join(cwd, "runs")), "summary.json").status).toBe("finished");
    expect(shell(`"$0" ${sets(tiny).join(" ")} --force 2>&1 | head -n 1; echo "\${PIPESTATUS[0]}"`, cwd).out).toEndWith("\n0\n");
  });

  test("a full stdout is an error, after the run is safe", () => {
    const cwd = freshFolder("train");
    const { code, err } = shell(`"$0" -q --json ${sets(tiny).join(" ")} > /dev/full`, cwd);
    expect(code).toBe(4);
    expect(err).toContain("[output] stdout: cannot write");
    expect(readJson(onlyRun(join(cwd, "runs")), "summary.json").status).toBe("finished");
  });
});

test("files get the mode that the umask gives", () => {
  const cwd = freshFolder("train");
  run(["-q", ...sets(tiny)], { cwd, command: ["sh", "-c", `umask 027; exec "$0" "$@"`, egg] });
  const folder = onlyRun(join(cwd, "runs"));
  for (const name of readdirSync(folder, { recursive: true })) {
    const state = statSync(join(folder, String(name)));
    expect(`${name} ${(state.mode & 0o777).toString(8)}`).toBe(`${name} ${state.isDirectory() ? "750" : "640"}`);
  }
  chmodSync(folder, 0o755);
});
