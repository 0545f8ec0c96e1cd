// Makes dist/: one executable for each platform, each with its own kernel library inside, and checks every one as far as
// this machine can. Cross-compiles all of it; runtimes come from npm, held against package-lock.json.
// Read next: build.ts (one executable), macho.ts (the check that stands in for a Mac).
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildExecutable, BuildError, bunVersion, expectAnswer, hostPlatform, platforms, root, runScript, type Platform } from "./build.ts";
import { checkSignature } from "./macho.ts";

/**
 * Integrity that package-lock.json demands of a package, as npm writes it ("sha512-...").
 *
 * @throws BuildError when the package, this version of it, or its hash is not in the lock file
 */
export function lockedIntegrity(name: string, version: string): string {
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { version: string; integrity?: string } | undefined>;
  };
  const entry = lock.packages[`node_modules/${name}`];
  if (entry?.version !== version || entry.integrity === undefined) {
    throw new BuildError(`package-lock.json has no hash for ${name}@${version}`);
  }
  return entry.integrity;
}

/** Throws BuildError when `bytes` are not the ones that `integrity` ("sha512-<base64>") stands for. */
export function verifyIntegrity(what: string, bytes: Uint8Array, integrity: string): void {
  const dash = integrity.indexOf("-");
  const found = createHash(integrity.slice(0, dash)).update(bytes).digest("base64");
  if (found !== integrity.slice(dash + 1)) {
    throw new BuildError(`${what}: hash ${found} is not the one in package-lock.json (${integrity.slice(dash + 1)})`);
  }
}

/** Path of Bun's executable for a platform: downloaded once, its package's hash checked every time. */
function runtimeFor(platform: Platform): string {
  const folder = join(root, "zig-out/runtimes");
  mkdirSync(folder, { recursive: true });
  const archive = join(folder, `${platform.runtime.replace("@", "").replace("/", "-")}-${bunVersion}.tgz`);
  if (!existsSync(archive)) {
    const own = join(folder, `download-${process.pid}`);
    mkdirSync(own);
    try {
      must(["npm", "pack", `${platform.runtime}@${bunVersion}`, "--pack-destination", own, "--loglevel=error"], folder);
      renameSync(join(own, archive.slice(folder.length + 1)), archive);
    } finally {
      rmSync(own, { recursive: true, force: true });
    }
  }
  verifyIntegrity(archive, readFileSync(archive), lockedIntegrity(platform.runtime, bunVersion));
  const unpacked = join(folder, platform.name);
  rmSync(unpacked, { recursive: true, force: true });
  mkdirSync(unpacked);
  must(["tar", "-xzf", archive, "-C", unpacked], folder);
  return join(unpacked, "package/bin/bun");
}

/**
 * What can be checked of an executable without starting it: its file format, that it holds the library byte for byte,
 * and on macOS both signatures.
 *
 * @throws BuildError that names the file and what is wrong
 */
export function checkFile(platform: Platform, executable: string, library: string): string {
  const bytes = readFileSync(executable);
  const inner = readFileSync(library);
  if (bytes.indexOf(inner) < 0) throw new BuildError(`${executable} does not hold ${library}`);
  if (platform.name.startsWith("darwin")) {
    const results = [[executable, checkSignature(bytes)], [library, checkSignature(inner)]] as const;
    for (const [file, { problems }] of results) {
      if (problems.length > 0) throw new BuildError(`${file}: ${problems.join("; ")}`);
    }
    return `${results[0][1].pages} + ${results[1][1].pages} page hashes valid`;
  }
  const machine = platform.name.endsWith("x64") ? 62 : 183; // EM_X86_64, EM_AARCH64
  for (const [file, content] of [[executable, bytes], [library, inner]] as const) {
    if (content.readUInt32BE(0) !== 0x7f454c46 || content.readUInt16LE(18) !== machine) {
      throw new BuildError(`${file} is not an ELF file for ${platform.name}`);
    }
  }
  return "ELF headers valid";
}

function must(command: string[], cwd: string): void {
  const run = Bun.spawnSync(command, { cwd, stdin: "ignore" });
  if (run.exitCode !== 0) {
    throw new BuildError(`${run.stdout}${run.stderr}\`${command.join(" ")}\` failed: ${run.signalCode ?? `exit code ${run.exitCode}`}`);
  }
}

async function main(zig: string): Promise<void> {
  const dist = join(root, "dist");
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(dist);
  const sums: string[] = [];
  const launched: string[] = [];
  const checked: string[] = [];
  for (const platform of platforms) {
    const file = `egg-${platform.name}`;
    const executable = join(dist, file);
    const library = join(root, "zig-out", platform.name, "lib", platform.library);
    console.error(`egg: ${file}`);
    must([zig, "build", "-Doptimize=ReleaseFast", `-Dtarget=${platform.zigTarget}`, "-p", join(root, "zig-out", platform.name)], root);
    await buildExecutable(platform, library, executable, runtimeFor(platform));
    const findings = checkFile(platform, executable, library);
    if (platform === hostPlatform()) {
      expectAnswer(executable);
      must([executable, "info"], "/"); // loads the kernel library
      launched.push(`${file} (${findings})`);
    } else {
      checked.push(`${file} (${findings})`);
    }
    sums.push(`${createHash("sha256").update(readFileSync(executable)).digest("hex")}  ${file}\n`);
    console.error(`egg: ${file}, ${(statSync(executable).size / 1e6).toFixed(0)} MB, ${findings}`);
  }
  writeFileSync(join(dist, "SHA256SUMS"), sums.join(""));
  writeFileSync(join(dist, "README"), `Started when they were made: ${launched.join(", ")}. Only checked, not started: ${checked.join(", ")}.\n`);
}

if (import.meta.main) {
  runScript(async () => {
    const zig = process.argv[2];
    if (zig === undefined) throw new BuildError("started by `npm run release`, which sets up first");
    await main(zig);
  });
}
