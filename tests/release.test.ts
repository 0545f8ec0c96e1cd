// What the release is made of: the kernel library cross-built for every platform, the signature check that stands in for
// a Mac, and the hashes of the runtimes. Not the executables themselves: `npm run release` makes and checks those.
// Read next: scripts/release.ts, scripts/macho.ts.
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bunVersion, platforms, root, type Platform } from "../scripts/build.ts";
import { checkSignature } from "../scripts/macho.ts";
import { checkFile, lockedIntegrity, verifyIntegrity } from "../scripts/release.ts";
import { bunCounts, zigCounts } from "../scripts/test.ts";

setDefaultTimeout(180_000);

const installedZig = join(root, `node_modules/@zigc/${process.platform}-${process.arch}/bin/zig`);
const zig = existsSync(installedZig) ? installedZig : "zig";
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "egg-release-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Cross-builds the kernel library as the release does; its path. */
function library(platform: Platform): string {
  const prefix = join(folder, platform.name);
  const path = join(prefix, "lib", platform.library);
  if (existsSync(path)) return path;
  const run = Bun.spawnSync([zig, "build", "-Doptimize=ReleaseFast", `-Dtarget=${platform.zigTarget}`, "-p", prefix], { cwd: root });
  if (run.exitCode !== 0) throw new Error(run.stderr.toString());
  return path;
}

const darwin = platforms.find((platform) => platform.name === "darwin-arm64")!;

describe("the kernel library", () => {
  test.each(platforms.map((platform) => [platform.name, platform] as const))("cross-builds for %s", (_, platform) => {
    // Holds itself, trivially; what counts here is its format and its signature.
    expect(checkFile(platform, library(platform), library(platform))).toContain("valid");
  });

  test("of another platform is refused", () => {
    const [x64, arm64] = platforms as [Platform, Platform];
    expect(() => checkFile(arm64, library(x64), library(x64))).toThrow("not an ELF file for linux-arm64");
    expect(() => checkFile(darwin, library(x64), library(x64))).toThrow("not a 64-bit Mach-O file");
  });

  test("that is not in the executable is noticed", () => {
    const executable = join(folder, "without");
    writeFileSync(executable, readFileSync(library(darwin)).subarray(0, -1));
    expect(() => checkFile(darwin, executable, library(darwin))).toThrow("does not hold");
  });
});

describe("the signature check", () => {
  const good = (): Buffer => readFileSync(library(darwin));

  test("accepts what the linker signed, page by page", () => {
    const bytes = good();
    const { pages, problems } = checkSignature(bytes);
    expect(problems).toEqual([]);
    expect(pages).toBeGreaterThan(0);
  });

  test("finds one changed bit in any page", () => {
    const original = good();
    const { pages } = checkSignature(original);
    const pageSize = 2 ** original[original.indexOf(Buffer.from("fade0c02", "hex")) + 39]!;
    for (let page = 0; page < pages; page++) {
      const bytes = good();
      bytes[page * pageSize + 12]! ^= 0x10; // byte 12 of the file is its type, which the check does not read
      expect(checkSignature(bytes).problems).toEqual([
        `1 of ${pages} pages differ from their hash, the first is page ${page} (byte ${page * pageSize})`,
      ]);
    }
  });

  test("finds a changed hash, a missing signature and a file cut short", () => {
    expect(checkSignature(good().subarray(0, -64)).problems).not.toEqual([]);
    expect(checkSignature(good().subarray(0, 40)).problems).toEqual(["the file ends in the middle of its signature"]);
    expect(checkSignature(new Uint8Array(0)).problems).not.toEqual([]);

    const directory = good();
    const at = directory.indexOf(Buffer.from("fade0c02", "hex"));
    directory[at + directory.readUInt32BE(at + 16)]! ^= 1; // the first page's hash
    expect(checkSignature(directory).problems.join()).toContain("the first is page 0");

    const unsigned = good();
    let command = 32;
    while (unsigned.readUInt32LE(command) !== 0x1d) command += unsigned.readUInt32LE(command + 4);
    unsigned.writeUInt32LE(0x26, command); // LC_FUNCTION_STARTS instead
    expect(checkSignature(unsigned).problems).toEqual(["has no code signature"]);
  });
});

describe("runtimes", () => {
  test.each(platforms.map((platform) => [platform.runtime] as const))("package-lock.json pins %s", (name) => {
    expect(lockedIntegrity(name, bunVersion)).toMatch(/^sha512-[A-Za-z0-9+/]{86}==$/);
    expect(() => lockedIntegrity(name, "1.0.0")).toThrow("no hash for");
  });

  test("other bytes than the pinned ones are refused", () => {
    const hash = `sha512-${new Bun.CryptoHasher("sha512").update("pinned").digest("base64")}`;
    expect(() => verifyIntegrity("package", Buffer.from("pinned"), hash)).not.toThrow();
    expect(() => verifyIntegrity("package", Buffer.from("Pinned"), hash)).toThrow("is not the one in package-lock.json");
  });
});

describe("the counts of `npm test`", () => {
  test("are read from Zig's summary", () => {
    expect(zigCounts("Build Summary: 5/5 steps succeeded; 11/12 tests passed (1 skipped)\n", 0)).toEqual({ passed: 11, failed: 0, skipped: 1 });
    expect(zigCounts("Build Summary: 1/3 steps succeeded (1 failed); 1/4 tests passed (1 skipped, 1 failed, 1 crashed)", 1)).toEqual({ passed: 1, failed: 2, skipped: 1 });
    expect(zigCounts("Build Summary: 3/3 steps succeeded; 7/7 tests passed\n", 0)).toEqual({ passed: 7, failed: 0, skipped: 0 });
  });

  test("are read from Bun's summary", () => {
    const output = "x.test.ts:\n(pass) 3 fail\n\n\x1b[0m 10 pass\x1b[0m\n 1 skip\n 2 todo\n 3 fail\n 4 expect() calls\nRan 16 tests across 2 files.\n";
    expect(bunCounts(output, 1)).toEqual({ passed: 10, failed: 3, skipped: 3 });
  });

  test("show a failure when a command failed without one, or ran nothing", () => {
    expect(zigCounts("error: 1 compilation errors\n", 1)).toEqual({ passed: 0, failed: 1, skipped: 0 });
    expect(zigCounts("Build Summary: 3/3 steps succeeded\n", 0)).toEqual({ passed: 0, failed: 1, skipped: 0 });
    expect(bunCounts(" 10 pass\n 0 fail\n", 1)).toEqual({ passed: 10, failed: 1, skipped: 0 });
  });
});
