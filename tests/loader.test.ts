// Starts the built ./egg in places where loading a native library usually fails, as a user would: another folder, another
// user, temp folders that are missing, read-only or mounted noexec. Not the check of its version: src/native/abi.ts.
// Read next: src/native/library.ts.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, chownSync, copyFileSync, constants, existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { EggError } from "../src/errors.ts";
import { loadLibrary } from "../src/native/library.ts";

setDefaultTimeout(60_000);

const root = resolve(import.meta.dir, "..");
const isRoot = process.getuid!() === 0;
const nobody = 65534;
const lastResort = `/var/tmp/egg-${process.getuid!()}`; // the cache folder behind all others
let egg: string; // a copy of ./egg in a folder that everybody may enter
let base: string; // fresh folder of this file
let count = 0;

/** A fresh, empty folder. */
function fresh(mode = 0o755): string {
  const folder = join(base, `case-${count++}`);
  mkdirSync(folder);
  chmodSync(folder, mode);
  return folder;
}

interface Start { env?: Record<string, string>; cwd?: string; args?: string[]; prefix?: string[] }

/** Runs egg with nothing in its environment but a fresh HOME and TMPDIR and what the case asks for. */
function start({ env = {}, cwd = "/", args = ["info"], prefix = [] }: Start): { code: number; out: string; err: string } {
  const clean = { PATH: process.env["PATH"]!, HOME: fresh(0o777), TMPDIR: fresh(0o777), ...env };
  const run = Bun.spawnSync([...prefix, egg, ...args], { cwd, env: clean, stdin: "ignore" });
  return { code: run.exitCode, out: run.stdout.toString(), err: run.stderr.toString() };
}

/** Expects that `egg info` could load its library. */
function expectLoaded(run: { code: number; out: string; err: string }): void {
  expect({ code: run.code, err: run.err }).toEqual({ code: 0, err: "" });
  expect(run.out.length).toBeGreaterThan(0);
}

/** The copies in a cache folder, e.g. ["libegg-0123456789abcdef.so"]. */
function copies(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

const copyName = /^libegg-[0-9a-f]{16}\.(so|dylib)$/;
const missing = "/missing/temp/folder"; // as TMPDIR: Bun's own extraction fails
const homeCache = process.platform === "darwin" ? "Library/Caches/egg" : ".cache/egg";

beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), "egg-loader-"));
  chmodSync(base, 0o755);
  if (!existsSync(join(root, "egg"))) throw new Error("./egg is missing; `npm run build` makes it");
  egg = join(base, "egg");
  copyFileSync(join(root, "egg"), egg, constants.COPYFILE_FICLONE);
  chmodSync(egg, 0o755);
});

afterAll(() => {
  rmSync(base, { recursive: true, force: true });
  rmSync(lastResort, { recursive: true, force: true });
});

/** What starts a command in its own view of the mounts, with `folders` as fresh noexec file systems; null where forbidden. */
function noexec(folders: string[]): string[] | null {
  const script = `${folders.map((folder) => `mount -t tmpfs -o noexec,mode=1777 none '${folder}' && `).join("")} exec "$@"`;
  const prefix = ["unshare", isRoot ? "-m" : "-rm", "sh", "-c", script, "sh"];
  if (Bun.which("unshare") === null) return null;
  return Bun.spawnSync([...prefix, "true"], { stderr: "ignore" }).exitCode === 0 ? prefix : null;
}

const canMount = noexec(["/mnt"]) !== null;
if (!canMount) console.error("loader.test.ts: noexec cases skipped: this user may not mount (needs Linux with root or user namespaces)");
if (!isRoot) console.error("loader.test.ts: other-user cases skipped: only root can become another user");

describe("the library loads", () => {
  test("from another folder", () => expectLoaded(start({})));

  test.skipIf(!isRoot)("as another user, without a home", () => {
    const prefix = ["setpriv", `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups"];
    if (Bun.which("setpriv") === null) prefix.splice(0, prefix.length, "su", "-s", "/bin/sh", "nobody", "-c", 'exec "$0" "$@"');
    expectLoaded(start({ prefix, env: { HOME: "/nonexistent" } }));
  });

  test.each([
    ["TMPDIR missing", { TMPDIR: missing }],
    ["TMPDIR relative", { TMPDIR: "d" }],
    ["BUN_TMPDIR missing", { BUN_TMPDIR: missing }],
    ["TMPDIR a file", { TMPDIR: "/etc/hostname" }],
  ])("%s: from the cache in the home folder", (_, env) => {
    const HOME = fresh();
    expectLoaded(start({ env: { ...env, HOME } }));
    const [name, ...others] = copies(join(HOME, homeCache));
    expect(name).toMatch(copyName);
    expect(others).toEqual([]);
    expect(statSync(join(HOME, homeCache)).mode & 0o777).toBe(0o700);
    expect(statSync(join(HOME, homeCache, name!)).mode & 0o777).toBe(0o700);
  });

  test.skipIf(!isRoot)("TMPDIR read-only", () => {
    const prefix = ["setpriv", `--reuid=${nobody}`, `--regid=${nobody}`, "--clear-groups"];
    const HOME = fresh(0o777);
    expectLoaded(start({ prefix, env: { HOME, TMPDIR: fresh(0o555) } }));
    expect(copies(join(HOME, homeCache))).toHaveLength(1);
  });

  test("EGG_CACHE_DIR comes before the home folder, XDG_CACHE_HOME too", () => {
    const [chosen, xdg, HOME] = [fresh(), fresh(), fresh()];
    expectLoaded(start({ env: { TMPDIR: missing, HOME, XDG_CACHE_HOME: xdg } }));
    expect(copies(join(xdg, "egg"))).toHaveLength(1);
    expectLoaded(start({ env: { TMPDIR: missing, HOME, XDG_CACHE_HOME: fresh(), EGG_CACHE_DIR: chosen } }));
    expect(copies(join(chosen, `egg-${process.getuid!()}`))).toHaveLength(1);
    expect(copies(HOME)).toEqual([]);
  });

  test.skipIf(!canMount)("TMPDIR noexec: from the home folder", () => {
    const [TMPDIR, HOME] = [fresh(), fresh()];
    expectLoaded(start({ env: { TMPDIR, HOME }, prefix: noexec([TMPDIR])! }));
    expect(copies(join(HOME, homeCache))).toHaveLength(1);
  });

  test.skipIf(!canMount)("everything noexec: from memory", () => {
    const [TMPDIR, HOME] = [fresh(), fresh()];
    expectLoaded(start({ env: { TMPDIR, HOME }, prefix: noexec([TMPDIR, HOME, "/var/tmp"])! }));
  });
});

describe("a copy in the cache", () => {
  /** A home folder whose cache holds the copy of one run. */
  function filled(): { HOME: string; folder: string; file: string } {
    const HOME = fresh();
    expectLoaded(start({ env: { TMPDIR: missing, HOME } }));
    const folder = join(HOME, homeCache);
    return { HOME, folder, file: join(folder, copies(folder)[0]!) };
  }

  test("is used again as it is", () => {
    const { HOME, file } = filled();
    const before = statSync(file);
    expectLoaded(start({ env: { TMPDIR: missing, HOME } }));
    expect([statSync(file).ino, statSync(file).mtimeMs]).toEqual([before.ino, before.mtimeMs]);
  });

  test.each([
    ["same size, one other byte", (good: Buffer) => { const bad = Buffer.from(good); bad[good.length >> 1]! ^= 1; return bad; }],
    ["cut off", (good: Buffer) => good.subarray(0, 100)],
  ])("is replaced when its content differs: %s", (_, damage) => {
    const { HOME, folder, file } = filled();
    const good = readFileSync(file);
    writeFileSync(file, damage(good));
    expectLoaded(start({ env: { TMPDIR: missing, HOME } }));
    expect(readFileSync(file).equals(good)).toBe(true);
    expect(copies(folder)).toHaveLength(1);
  });

  test("is replaced when it is a link or others may write to it", () => {
    const { HOME, folder, file } = filled();
    const elsewhere = join(fresh(), "other");
    copyFileSync(file, elsewhere);
    rmSync(file);
    symlinkSync(elsewhere, file);
    expectLoaded(start({ env: { TMPDIR: missing, HOME } }));
    expect(lstatSync(file).isFile()).toBe(true);
    chmodSync(file, 0o777);
    chmodSync(folder, 0o777);
    expectLoaded(start({ env: { TMPDIR: missing, HOME } }));
    expect(statSync(file).mode & 0o777).toBe(0o700);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
  });

  test.skipIf(!isRoot)("is never taken from a folder of another user", () => {
    const { HOME, folder, file } = filled();
    writeFileSync(file, "not a library");
    chownSync(folder, nobody, nobody);
    expectLoaded(start({ env: { TMPDIR: missing, HOME } }));
    expect(readFileSync(file, "utf8")).toBe("not a library");
  });

  test("is whole when many start at once", async () => {
    const HOME = fresh();
    const env = { PATH: process.env["PATH"]!, HOME, TMPDIR: missing };
    const runs = Array.from({ length: 12 }, () => Bun.spawn([egg, "info"], { cwd: "/", env, stdin: "ignore", stdout: "ignore", stderr: "inherit" }));
    expect(await Promise.all(runs.map((run) => run.exited))).toEqual(runs.map(() => 0));
    expect(copies(join(HOME, homeCache))).toHaveLength(1);
  });
});

describe("when the library cannot be loaded", () => {
  // With a limit of 0 bytes for written files no copy can be made, neither on a disk nor in memory.
  test("the error names each place with its reason and says what to do", () => {
    const HOME = fresh();
    rmSync(lastResort, { recursive: true, force: true }); // a copy of an earlier run would do
    const run = start({ env: { HOME, EGG_CACHE_DIR: "/dev/null" }, prefix: ["sh", "-c", `trap '' XFSZ; ulimit -f 0; exec "$@"`, "sh"] });
    expect(run.code).toBe(4);
    expect(run.out).toBe("");
    for (const part of ["libegg", `/dev/null/egg-${process.getuid!()}: ENOTDIR`, `${join(HOME, homeCache)}: EFBIG`, "/var/tmp/egg-", "Set EGG_CACHE_DIR"]) {
      expect(run.err).toContain(part);
    }
    if (process.platform === "linux") expect(run.err).toContain("memory: EFBIG");
    expect(copies(join(HOME, homeCache))).toEqual([]); // no half file stays behind
  });

  test("EGG_NATIVE_LIB that does not exist ends it, although the embedded one would do", () => {
    const run = start({ env: { EGG_NATIVE_LIB: "/missing/libegg.so" } });
    expect(run.code).toBe(4);
    expect(run.err).toContain("EGG_NATIVE_LIB");
    expect(run.err).toContain("/missing/libegg.so");
  });

  test("a command that needs no library starts all the same", () => {
    const run = start({ env: { EGG_NATIVE_LIB: "/missing/libegg.so" }, args: ["--help"] });
    expect(run.code).toBe(0);
  });

  test("a library of another version is named as such", () => {
    const before = process.env["EGG_NATIVE_LIB"];
    try {
      delete process.env["EGG_NATIVE_LIB"];
      loadLibrary({ no_such_symbol: { args: [], returns: "u32" } });
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(EggError);
      expect((error as EggError).kind).toBe("resources");
      expect((error as EggError).message).toContain("no_such_symbol");
    } finally {
      if (before !== undefined) process.env["EGG_NATIVE_LIB"] = before;
    }
  });
});

test("what lies in the user's folder is neither run nor read", () => {
  const cwd = fresh(0o777);
  const trace = join(cwd, "was-run");
  writeFileSync(join(cwd, ".env"), "EGG_NATIVE_LIB=/missing/libegg.so\n");
  writeFileSync(join(cwd, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
  writeFileSync(join(cwd, "preload.ts"), `require("fs").writeFileSync(${JSON.stringify(trace)}, "");\n`);
  writeFileSync(join(cwd, "package.json"), "{ not json");
  writeFileSync(join(cwd, "tsconfig.json"), "{ not json");
  expectLoaded(start({ cwd }));
  expect(existsSync(trace)).toBe(false);
});
