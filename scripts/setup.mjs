// Puts everything in place that one of the npm scripts needs, then does it: start, test, build or release.
// Plain Node, because it runs before anything is installed; Bun runs it just as well. Nothing here knows what egg does.
// Read next: build.ts (makes the executable), test.ts (runs the suite), release.ts (all platforms).
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join, resolve } from "node:path";
import { isatty } from "node:tty";

const root = resolve(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "..");
const lockFile = join(root, "package-lock.json");
const bun = join(root, "node_modules/bun/bin/bun.exe"); // on every system; Bun's own installer names it so
const executable = join(root, "egg");
const libraryName = process.platform === "darwin" ? "libegg.dylib" : "libegg.so";

/** Everything that the executable is made from. */
const inputs = ["build.zig", "build.zig.zon", "kernels", "package-lock.json", "package.json", "scripts/build.ts", "shaders", "src", "tsconfig.json"];

const [task, ...words] = process.argv.slice(2);
process.chdir(root);

switch (task) {
  case "start":
    prepare(true);
    await hand(executable, words.some((word) => /^(-c|--config)(=|$)/.test(word)) ? words : ["--config", "egg.json", ...words]);
    break;
  case "build":
    prepare(true);
    break;
  case "test":
    prepare(true);
    await hand(bun, ["scripts/test.ts", zig(), ...words]);
    break;
  case "release":
    prepare(false);
    await hand(bun, ["scripts/release.ts", zig(), ...words]);
    break;
  default:
    fail(`usage: node scripts/setup.mjs start|test|build|release (not ${task ?? "nothing"})`, 2);
}

/** Tools, then the executable where asked for. Several of these may be started at once: one works, the others wait. */
function prepare(build) {
  if (process.platform !== "linux" && process.platform !== "darwin") fail(`egg is for Linux and macOS, not for ${process.platform}`);
  if (toolsAreHere() && (!build || executableIsFresh())) return;
  const unlock = lock();
  try {
    if (!toolsAreHere()) installTools();
    if (build && !executableIsFresh()) buildExecutable();
  } finally {
    unlock();
  }
}

// ---- tools: Bun, Zig and the few packages, exactly as package-lock.json names them

function toolsStamp() {
  return join(root, "node_modules/.egg-tools");
}

function toolsAreHere() {
  const wanted = sha256(readFileSync(lockFile));
  if (!existsSync(bun) || !readdirOrEmpty(join(root, "node_modules/@zigc")).length) return false;
  if (readOrNull(toolsStamp()) === wanted) return true;
  // Installed by hand, by `npm ci`: as good, if it is the same and works.
  if (!installedMatchesLock() || bunProblem() !== null) return false;
  writeFileSync(toolsStamp(), wanted);
  return true;
}

/** Compares what npm wrote down at its last install with package-lock.json. */
function installedMatchesLock() {
  const written = readOrNull(join(root, "node_modules/.package-lock.json"));
  if (written === null) return false;
  const installed = JSON.parse(written).packages;
  for (const [path, wanted] of Object.entries(JSON.parse(readFileSync(lockFile, "utf8")).packages)) {
    if (path === "") continue;
    const found = installed[path];
    if (found === undefined && wanted.optional) continue;
    if (found?.version !== wanted.version) return false;
    if (found.integrity && wanted.integrity && found.integrity !== wanted.integrity) return false;
  }
  return true;
}

function installTools() {
  const npm = spawnSync("npm", ["--version"], { stdio: "ignore" }).error === undefined;
  if (npm) {
    say("installing tools (npm ci)…");
    // NODE_ENV=production must not leave out the tools.
    must("npm", ["ci", "--include=dev", "--include=optional", "--no-audit", "--no-fund", "--loglevel=error"]);
  } else {
    const found = process.versions.bun ? process.execPath : "bun";
    if (spawnSync(found, ["--version"]).error) fail("npm is not on PATH (it comes with Node.js), and neither is bun; one of them is needed");
    say("installing tools (bun install)…");
    must(found, ["install", "--frozen-lockfile", "--no-save"]);
  }
  let problem = bunProblem();
  if (problem !== null) {
    // npm 12, and npm with ignore-scripts, do not run Bun's own installer.
    must(process.execPath, ["node_modules/bun/install.js"]);
    problem = bunProblem();
  }
  if (problem !== null) fail(`node_modules/bun does not work: ${problem}`);
  zig();
  writeFileSync(toolsStamp(), sha256(readFileSync(lockFile)));
}

/** Null when the installed Bun is the pinned one and starts; otherwise what is wrong. */
function bunProblem() {
  const wanted = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).devDependencies.bun;
  const run = spawnSync(bun, ["--version"], { encoding: "utf8" });
  if (run.error) return run.error.message;
  if (run.status !== 0) return run.stderr.trim();
  return run.stdout.trim() === wanted ? null : `it is version ${run.stdout.trim()}, not ${wanted}`;
}

/** The Zig compiler: the one from npm (not its wrapper, which starts Node first), else one on PATH of the same version. */
function zig() {
  const installed = join(root, `node_modules/@zigc/${process.platform}-${process.arch}/bin/zig`);
  if (existsSync(installed)) return installed;
  const wanted = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).devDependencies.zig.split("@").at(-1);
  const found = spawnSync("zig", ["version"], { encoding: "utf8" });
  if (!found.error && found.stdout.trim() === wanted) return "zig";
  return fail(`npm has no Zig for ${process.platform}-${process.arch} here (${installed}); put Zig ${wanted} on PATH`);
}

// ---- the executable

function executableStamp() {
  return join(root, "zig-out/egg.stamp");
}

/** True when ./egg is the one that the last build made, and nothing it was made from has changed since. */
function executableIsFresh() {
  const made = statOrNull(executable);
  return made !== null && readOrNull(executableStamp()) === `${inputsHash()} ${made.size} ${made.mtimeMs}`;
}

function buildExecutable() {
  const hash = inputsHash(); // before the build: a file changed meanwhile means another build next time
  say("building");
  must(zig(), ["build", "-Doptimize=ReleaseFast"]);
  if (!existsSync(join(root, "zig-out/lib", libraryName))) fail(`zig build left no zig-out/lib/${libraryName}`);
  must(bun, ["scripts/build.ts"]);
  const made = statSync(executable);
  writeFileSync(executableStamp(), `${hash} ${made.size} ${made.mtimeMs}`);
}

/** Hash over the names and contents of all inputs, and over the commit, which the executable carries. */
function inputsHash() {
  const hash = createHash("sha256");
  const add = (path) => {
    const state = statOrNull(join(root, path));
    if (state === null) return;
    if (state.isDirectory()) {
      for (const name of readdirSync(join(root, path)).sort()) add(`${path}/${name}`);
    } else {
      hash.update(`${path}\0${state.size}\0`).update(readFileSync(join(root, path)));
    }
  };
  for (const path of inputs) add(path);
  if (existsSync(join(root, ".git"))) {
    const git = spawnSync("git", ["--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], { cwd: root, encoding: "utf8" });
    hash.update(git.stdout ?? "");
  }
  return hash.digest("hex");
}

// ---- running things

/** Runs a tool to its end. Its output is shown only when it fails; then this process ends with its exit code. */
function must(command, args) {
  const run = spawnSync(command, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"], maxBuffer: 1 << 28 });
  if (run.status === 0) return;
  if (run.stdout) process.stderr.write(run.stdout);
  if (run.stderr) process.stderr.write(run.stderr);
  const how = run.error ? run.error.message : run.signal ? `ended by ${run.signal}` : `exit code ${run.status}`;
  fail(`\`${command.replace(`${root}/`, "")} ${args.join(" ")}\` failed: ${how}`, run.status ?? (run.signal ? 128 + constants.signals[run.signal] : 1));
}

/** Becomes the command, as far as Node can: same streams, signals passed on, same end. */
async function hand(command, args) {
  const child = spawn(command, args, { cwd: root, stdio: "inherit" });
  // Ctrl-C on a terminal reaches the whole group, so the child has it already, and for egg a second one means "at once".
  const typed = isatty(0) || isatty(2);
  const last = new Map();
  const pass = (signal) => {
    if (signal === "SIGINT" && typed) return;
    const now = Date.now();
    const again = now - (last.get(signal) ?? -Infinity) < 1000; // npm sends on what this process got by itself too
    last.set(signal, now);
    if (!again) child.kill(signal);
  };
  const passed = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const signal of passed) process.on(signal, pass);
  const end = await new Promise((done) => {
    child.on("error", (error) => fail(`${command} does not start: ${error.message}`));
    child.on("exit", (code, signal) => done({ code, signal }));
  });
  for (const signal of passed) process.removeListener(signal, pass);
  if (end.signal === null) process.exit(end.code);
  process.kill(process.pid, end.signal);
  setTimeout(() => process.exit(128 + constants.signals[end.signal]), 1000); // where the parent has the signal ignored
}

/** Waits until no other setup works in this folder, then holds it. Returns what gives it free. */
function lock() {
  const path = join(root, "zig-out/setup.lock");
  mkdirSync(join(root, "zig-out"), { recursive: true });
  const free = () => rmSync(path, { force: true });
  for (let waited = 0; ; waited++) {
    try {
      writeFileSync(path, String(process.pid), { flag: "wx" });
      process.on("exit", free);
      return free;
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
    }
    const holder = Number(readOrNull(path));
    if (holder > 0 ? !isAlive(holder) : waited > 50) {
      free();
      continue;
    }
    if (waited === 10) say(`waiting for another set-up (process ${holder})`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

function sha256(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

function readOrNull(path) {
  return existsSync(path) ? readFileSync(path, "utf8") : null;
}

function readdirOrEmpty(path) {
  return existsSync(path) ? readdirSync(path) : [];
}

function statOrNull(path) {
  return statSync(path, { throwIfNoEntry: false }) ?? null;
}

function say(text) {
  process.stderr.write(`egg: ${text}\n`);
}

function fail(text, code = 1) {
  say(text);
  process.exit(code);
}
