// Makes the executable: bundles src/main.ts, embeds the kernel library, and starts the result to see that it answers.
// Not the kernel library (build.zig makes it) and not the choice whether to build at all (setup.mjs).
// Read next: release.ts (the same for all platforms), src/native/library.ts (how the library comes out again).
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { join, resolve } from "node:path";

export const root = resolve(import.meta.dir, "..");

/** A platform that egg is made for, with the names that each tool has for it. */
export interface Platform {
  name: string; // as in dist/egg-<name>; also Node's `${process.platform}-${process.arch}`
  bunTarget: Bun.Build.CompileTarget;
  zigTarget: string;
  library: string; // file name of the kernel library
  runtime: string; // npm package that holds Bun's executable for it
}

export const platforms: readonly Platform[] = [
  { name: "linux-x64", bunTarget: "bun-linux-x64", zigTarget: "x86_64-linux-gnu.2.17", library: "libegg.so", runtime: "@oven/bun-linux-x64" },
  { name: "linux-arm64", bunTarget: "bun-linux-arm64", zigTarget: "aarch64-linux-gnu.2.17", library: "libegg.so", runtime: "@oven/bun-linux-aarch64" },
  { name: "darwin-arm64", bunTarget: "bun-darwin-arm64", zigTarget: "aarch64-macos", library: "libegg.dylib", runtime: "@oven/bun-darwin-aarch64" },
];

/** Trouble that the builder can do something about: printed as one line, without a stack. */
export class BuildError extends Error {}

const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  version: string;
  devDependencies: { bun: string };
};

/** Version of Bun that embedding and loading were proven with; package.json pins it. */
export const bunVersion = manifest.devDependencies.bun;

/**
 * Builds one executable. The same inputs give the same bytes, wherever the folder stands.
 *
 * @param library path of the kernel library for that platform
 * @param outfile where the executable goes; replaced in one step, so one that is running is not disturbed
 * @param runtime Bun's executable for that platform; left out, the running Bun (the host's own platform)
 * @returns SHA-256 of the embedded library, hex
 * @throws BuildError when Bun is another version, the library is missing, or the bundler reports anything
 */
export async function buildExecutable(platform: Platform, library: string, outfile: string, runtime = process.execPath): Promise<string> {
  if (Bun.version !== bunVersion) {
    throw new BuildError(`this is Bun ${Bun.version}, egg is built with ${bunVersion} only; use node_modules/.bin/bun`);
  }
  if (!existsSync(library)) throw new BuildError(`the kernel library ${library} is missing; \`npm run build\` makes it`);
  const contents = new Uint8Array(readFileSync(library));
  const sha256 = createHash("sha256").update(contents).digest("hex");

  process.chdir(root);
  // The name of the output is part of the executable, so it is always "egg", in a folder of this process.
  const folder = join(root, "zig-out", `bundle-${process.pid}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  try {
    const result = await Bun.build({
      entrypoints: ["./src/main.ts"], // relative, like the library's path below: absolute ones get into the executable
      root,
      format: "esm", // bytecode would make it CommonJS, which breaks `import.meta` without failing the build
      bytecode: true,
      minify: true,
      sourcemap: "linked",
      splitting: true,
      define: {
        EGG_VERSION: JSON.stringify(manifest.version),
        EGG_COMMIT: JSON.stringify(commit()),
        EGG_LIB_SHA256: JSON.stringify(sha256),
      },
      compile: {
        target: platform.bunTarget,
        executablePath: runtime,
        outfile: join(folder, "egg"),
        autoloadDotenv: false, // egg must not run or obey what lies in the user's folder
        autoloadBunfig: false,
      },
      plugins: [{
        name: "egg:native",
        setup(build) {
          build.onResolve({ filter: /^egg:native$/ }, () => ({ path: `/${platform.library}`, namespace: "egg-native" }));
          build.onLoad({ filter: /./, namespace: "egg-native" }, () => ({ contents, loader: "file" }));
        },
      }],
    });
    if (!result.success || result.logs.length > 0) throw new BuildError(messages(result.logs) || "the bundler failed");
    const executable = join(folder, "egg");
    if (!existsSync(executable)) throw new BuildError(`the bundler left no ${executable}`);
    renameSync(executable, outfile);
  } catch (error) {
    if (error instanceof AggregateError) throw new BuildError(messages(error.errors));
    throw error;
  } finally {
    rmSync(folder, { recursive: true, force: true }); // with the source maps, which are inside the executable too
  }
  return sha256;
}

/**
 * Starts an executable and expects the version on stdout. A bundle can be broken although the bundler said nothing.
 *
 * @throws BuildError when it does not start, fails, or answers something else
 */
export function expectAnswer(executable: string, prefix: string[] = []): void {
  const command = [...prefix, executable, "--version"];
  const run = Bun.spawnSync(command, { cwd: "/", stdin: "ignore" });
  const answer = run.stdout.toString().trim();
  if (run.exitCode !== 0 || !answer.includes(manifest.version)) {
    throw new BuildError(`${command.join(" ")} did not answer with version ${manifest.version}: ${run.signalCode ?? `exit code ${run.exitCode}`}\n${answer}\n${run.stderr.toString().trim()}`);
  }
}

/** The bundler's messages with the lines of source that they are about. */
function messages(logs: readonly unknown[]): string {
  return logs.map((log) => Bun.inspect(log)).join("\n");
}

/** The platform of this machine. */
export function hostPlatform(): Platform {
  const name = `${process.platform}-${process.arch}`;
  const platform = platforms.find((one) => one.name === name);
  if (platform === undefined) throw new BuildError(`egg is not made for ${name}, only for ${platforms.map((one) => one.name).join(", ")}`);
  return platform;
}

/** The checked-out commit; "" outside a checkout. Never writes to the repository. */
function commit(): string {
  if (!existsSync(join(root, ".git"))) return "";
  const run = Bun.spawnSync(["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], { cwd: root, stderr: "ignore" });
  return run.exitCode === 0 ? run.stdout.toString().trim() : "";
}

/** Runs one step of a build script; trouble becomes its last line and exit code 1. */
export function runScript(step: () => Promise<void>): void {
  step().catch((error: unknown) => {
    console.error(error instanceof BuildError ? `egg: ${error.message}` : error);
    process.exit(1);
  });
}

async function main(): Promise<void> {
  const platform = hostPlatform();
  const outfile = join(root, "egg");
  await buildExecutable(platform, join(root, "zig-out/lib", platform.library), outfile);
  expectAnswer(outfile);
  console.error(`egg: ./egg is built (${(statSync(outfile).size / 1e6).toFixed(0)} MB)`);
}

if (import.meta.main) runScript(main);
