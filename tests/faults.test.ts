// Disks that fail under the real program: full to the last page, without inodes, read-only, limited in size of files, and with
// errors of input and output put into single system calls. What was saved before is good; the error says what and how much.
// Skipped with the reason where there is no root (tmpfs) or no strace. The same below the program: checkpoint.test.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fs from "node:fs";
import { join } from "node:path";
import { canMount, fill, makeRoom, onSmallDisk, remount } from "./disk.ts";
import { readWhole, samplesOf, timeless } from "./kill.ts";
import { egg, freshFolder, onlyRun, readJson, readLines, run, sets, start, type Ended } from "./program.ts";

setDefaultTimeout(120_000);

const config = (steps: number) => ({
  preset: "egg.c", "data.path": "builtin:fables:16KiB", "model.hidden": 16, "model.layers": 1, "trainer.population": 2, "trainer.sequence": 4, "trainer.threshold": 1, "run.steps": steps,
  "run.eval_every": 0, "run.sample_every": 1, "run.sample_tokens": 8, "run.checkpoint_every": 1, "run.keep": 2, "run.fingerprint_every": 1,
});
const args = (steps: number, out: string): string[] => ["-q", "--json", "--threads", "1", "--out", out, ...sets(config(steps))];

/** How the run goes on a good disk, for each number of steps. */
const whole = new Map([1, 2, 3].map((steps) => {
  const cwd = freshFolder("faults");
  const { code, out } = run(args(steps, "runs"), { cwd });
  if (code !== 0) throw new Error(`the run on a good disk ended with ${code}`);
  const folder = onlyRun(join(cwd, "runs"));
  return [steps, { weights: JSON.parse(out).weights_sha256, lines: readLines(folder).map(timeless), samples: samplesOf(folder) }] as const;
}));

const kinds = { config: "config.json", metrics: "metrics.jsonl", samples: "samples.txt", checkpoint: ".safetensors", latest: "latest.json", summary: "summary.json" };

/** Which of the run's files an error names; "folder" for anything else. */
const kindOf = (message: string): string => Object.entries(kinds).find(([, name]) => message.split(":").some((part) => part.trim().endsWith(name)))?.[0] ?? "folder";

/** The run has failed as it should: exit code 4 and one clear error. What was saved before is whole. Returns the file that the error names. */
function expectFailure(ended: Ended, out: string, steps: number, message: RegExp): string {
  expect({ code: ended.code, signal: ended.signal, out: ended.out }).toEqual({ code: 4, signal: null, out: "" });
  expect(ended.err).toMatch(message);
  expect(ended.err.match(/error:/g)?.length).toBe(1);
  expect(ended.err).not.toContain("    at ");
  if (fs.existsSync(out)) {
    const names = fs.readdirSync(out, { recursive: true }).map(String);
    expect(names.filter((name) => name.endsWith(".tmp"))).toEqual([]);
    for (const name of names.filter((name) => name.endsWith(".safetensors"))) {
      const { step, weights } = readWhole(join(out, name));
      expect(weights).toBe(whole.get(steps)!.lines[step - 1].weights_sha256);
    }
    for (const name of names.filter((name) => name.endsWith("metrics.jsonl"))) expect(fs.readFileSync(join(out, name), "utf8")).toMatch(/^(\{.*\}\n)*$/);
    for (const name of names.filter((name) => /(config|latest|summary)\.json$/.test(name))) readJson(out, name);
  }
  return kindOf(/cannot (.*)/.exec(ended.err)?.[1] ?? "");
}

/** The same command, once the disk is good again, ends as if nothing had happened. */
function expectRecovery(cwd: string, out: string, steps: number): void {
  const { code, err } = run(args(steps, out), { cwd });
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const folder = onlyRun(out);
  expect(readLines(folder).map(timeless)).toEqual(whole.get(steps)!.lines);
  expect(samplesOf(folder)).toEqual(whole.get(steps)!.samples);
  expect(readJson(folder, "summary.json").weights_sha256).toBe(whole.get(steps)!.weights);
  expect(readWhole(join(folder, "checkpoints", readJson(folder, "latest.json").name)).step).toBe(steps);
  expect(fs.readdirSync(join(folder, "checkpoints")).length).toBeLessThanOrEqual(2);
}

describe.skipIf(!canMount)("a full disk", () => {
  test("with any number of free pages: each kind of write fails somewhere, and none does harm", async () => {
    const failed = new Set<string>();
    // One step fills as many pages as it has files; the second step finds a checkpoint that must survive.
    for (const [steps, pages] of [...Array.from({ length: 10 }, (_, pages) => [1, pages]), [2, 10], [2, 11], [2, 12]] as [number, number][]) {
      await onSmallDisk("size=256k", (disk) => {
        fill(disk, pages);
        const out = join(disk, "runs");
        const ended = run(args(steps, out), { cwd: disk });
        if (ended.code !== 0) {
          failed.add(expectFailure(ended, out, steps, /\[disk\] cannot [\w ]+ \S+: the disk is full; [1-9][\d,]* bytes needed, \d[\d,]* bytes free\./));
          expect(ended.err).toContain("hint: Free some space and run the same command again");
          if (steps === 2) expect(fs.readdirSync(join(onlyRun(out), "checkpoints"))).toContain("step-00000001.safetensors");
        }
        makeRoom(disk);
        expectRecovery(disk, out, steps);
      });
    }
    expect([...failed].sort()).toEqual(Object.keys(kinds).sort());
  });

  test("without room for another file", async () => {
    let failures = 0;
    for (const files of [2, 3, 4, 5, 6, 7, 8, 10]) {
      await onSmallDisk(`size=256k,nr_inodes=${files}`, (disk) => {
        const out = join(disk, "runs");
        const ended = run(args(1, out), { cwd: disk });
        if (ended.code !== 0) {
          expectFailure(ended, out, 1, /\[disk\] cannot [\w ]+ \S+: the disk has no room for another file; [1-9][\d,]* bytes needed, [1-9][\d,]* bytes free\./);
          failures++;
        }
        remount(disk, "nr_inodes=100");
        expectRecovery(disk, out, 1);
      });
    }
    expect(failures).toBeGreaterThan(5);
  });

  test("that is read-only", async () => {
    await onSmallDisk("size=1m", (disk) => {
      const out = join(disk, "runs");
      fill(disk, 8); // so that the run ends in its midst
      expectFailure(run(args(2, out), { cwd: disk }), out, 2, /the disk is full/);
      makeRoom(disk);
      remount(disk, "ro");
      expectFailure(run(args(2, out), { cwd: disk }), out, 2, /the file system is read-only \(EROFS\)/);
      expectFailure(run(args(1, out), { cwd: disk }), out, 2, /cannot create folder .*the file system is read-only \(EROFS\)/);
      remount(disk, "rw");
      expectRecovery(disk, out, 2);
    });
  });
});

test("a limit on the size of files: the write that came out short is noticed", () => {
  const cwd = freshFolder("faults");
  const out = join(cwd, "runs");
  for (const kibibytes of [2, 5, 9]) { // metrics and config still fit
    const ended = run(args(3, out), { cwd, command: ["bash", "-c", `ulimit -f ${kibibytes}; exec "$0" "$@"`, egg] });
    expect(expectFailure(ended, out, 3, /the file would be larger than files may be here \(EFBIG\)/)).toBe("checkpoint");
    expect(ended.err).toContain("ulimit -f");
  }
  expectRecovery(cwd, out, 3);
});

test("a run that does not fit into memory leaves no folder behind", () => {
  const cwd = freshFolder("faults");
  const { code, err } = run([...args(1, "runs"), ...sets({ "model.hidden": 4096, "model.layers": 64, "trainer.population": 1_048_576, "trainer.sequence": 4 })], { cwd });
  expect({ code, err }).toEqual({ code: 4, err: expect.stringContaining("bytes") });
  expect(fs.readdirSync(cwd)).toEqual([]);
});

// strace puts an error in the place of the n-th call of a kind.
const canTrace = Bun.which("strace") !== null && Bun.spawnSync(["strace", "-qq", "-o", "/dev/null", "true"]).exitCode === 0;
if (!canTrace) console.error("skipped: tests of failing system calls need strace");

describe.skipIf(!canTrace)("an error of the disk", () => {
  /** Fails each call from `first` on, one a run, until a run comes through; returns the files whose writing failed. */
  async function failEach(calls: string, error: string, moments: readonly number[], message: RegExp): Promise<string[]> {
    const failed: string[] = [];
    const next = [...moments];
    const lane = async (): Promise<void> => {
      for (let when = next.shift(); when !== undefined; when = next.shift()) {
        const cwd = freshFolder("faults");
        const out = join(cwd, "runs");
        const prefix = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", `trace=${calls}`, "-e", `inject=${calls}:error=${error}:when=${when}`];
        const ended = await start(args(3, out), { cwd, prefix }).ended;
        if (ended.code === 0) throw new Error(`${calls} ${when}: the error was not noticed`);
        failed.push(expectFailure(ended, out, 3, message));
        expectRecovery(cwd, out, 3);
      }
    };
    await Promise.all([lane(), lane()]);
    return [...new Set(failed)].sort();
  }

  const io = /\[disk\] cannot [\w ]+ \S+: the disk reported an input\/output error \(EIO\)\./;
  const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1);

  test("fsync that fails is a save that failed", async () => {
    expect(await failEach("fsync", "EIO", upTo(14), io)).toEqual(["checkpoint", "config", "folder", "latest", "metrics", "samples"]);
  });

  test("rename", async () => {
    expect(await failEach("rename", "EIO", upTo(8), io)).toEqual(["checkpoint", "config", "latest", "summary"]);
  });

  test("unlink of an old checkpoint", async () => {
    expect(await failEach("unlink", "EIO", [1], io)).toEqual(["folder"]);
  });

  test("a folder that may not be made", async () => {
    expect(await failEach("mkdir", "EACCES", upTo(2), /cannot create folder \S+: permission denied \(EACCES\)/)).toEqual(["folder"]);
  });
});

