// The whole suite: type check, the kernels' tests in Zig, then `bun test`; at the end one line with the sum.
// Not the set-up, which has happened when this runs (setup.mjs). No test is written here: they are in tests/ and kernels/.
// Read next: .ci/run, tests/.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./build.ts";

interface Counts { passed: number; failed: number; skipped: number }

/** Runs a command, shows its output as it comes, and keeps it. */
async function run(command: string[]): Promise<{ code: number; output: string }> {
  console.error(`\n$ ${command.map((word) => word.replace(`${root}/`, "")).join(" ")}`);
  const child = Bun.spawn(command, { cwd: root, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  let output = "";
  const show = async (stream: ReadableStream<Uint8Array>): Promise<void> => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      const text = decoder.decode(chunk, { stream: true });
      output += text;
      process.stderr.write(text);
    }
  };
  await Promise.all([show(child.stdout), show(child.stderr)]);
  const code = await child.exited;
  return { code, output };
}

/** Reads the counts of `zig build test --summary all`: "Build Summary: 5/5 steps succeeded; 11/12 tests passed (1 skipped)". */
export function zigCounts(output: string, code: number): Counts {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const [, passed, total, details] of output.matchAll(/; (\d+)\/(\d+) tests passed(?: \(([^)]*)\))?/g)) {
    const skipped = Number(details?.match(/(\d+) skipped/)?.[1] ?? 0);
    counts.passed += Number(passed);
    counts.skipped += skipped;
    counts.failed += Number(total) - Number(passed) - skipped;
  }
  return settled(counts, code);
}

/** Reads the counts at the end of `bun test`: lines such as " 12 pass", " 1 skip", " 1 todo", " 2 fail". */
export function bunCounts(output: string, code: number): Counts {
  const summary = Bun.stripANSI(output).slice(-2000);
  const count = (word: string): number => Number([...summary.matchAll(new RegExp(`^ *(\\d+) ${word}$`, "gm"))].at(-1)?.[1] ?? 0);
  return settled({ passed: count("pass"), failed: count("fail"), skipped: count("skip") + count("todo") }, code);
}

/** A command that failed, or ran no test at all, is a failure even where its counts show none. */
function settled(counts: Counts, code: number): Counts {
  if (counts.failed === 0 && (code !== 0 || counts.passed + counts.skipped === 0)) counts.failed = 1;
  return counts;
}

/** Lines of source under a folder. */
function lines(folder: string): number {
  let sum = 0;
  if (!existsSync(join(root, folder))) return sum;
  for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !/\.(ts|mjs|zig|m|h|metal)$/.test(entry.name)) continue;
    sum += readFileSync(join(entry.parentPath, entry.name), "utf8").split("\n").length - 1;
  }
  return sum;
}

async function main(zig: string, filters: string[]): Promise<void> {
  const total = { passed: 0, failed: 0, skipped: 0 };
  const add = (counts: Counts): void => {
    for (const key of ["passed", "failed", "skipped"] as const) total[key] += counts[key];
  };
  if ((await run([process.execPath, "check"])).code !== 0) total.failed++;

  // Side by side: each compiles on one core for minutes. On ARM itself the first are the ARM kernels' tests; elsewhere an emulator runs those.
  const emulated = process.arch !== "arm64" && Bun.which("qemu-aarch64") !== null;
  if (process.arch !== "arm64" && !emulated) {
    console.error("skipped: the ARM kernels' tests (there is no qemu-aarch64 here; Debian has it in qemu-user)");
    total.skipped++;
  }
  const targets = [[], ...(emulated ? [["-Dtarget=aarch64-linux-musl", "-fqemu"]] : [])];
  for (const kernels of await Promise.all(targets.map((target) => run([zig, "build", "test", ...target, "--summary", "all"])))) add(zigCounts(kernels.output, kernels.code));

  // The library with Zig's safety checks on, for the tests that run inside Bun; those that start ./egg use its own.
  if ((await run([zig, "build", "-Doptimize=ReleaseSafe", "-p", "zig-out/test"])).code !== 0) total.failed++;
  const tests = await run([process.execPath, "test", ...filters]);
  add(bunCounts(tests.output, tests.code));

  const format = (count: number): string => count.toLocaleString("en-US");
  console.log(`\n${["src", "kernels", "shaders", "tests"].map((folder) => `${folder} ${format(lines(folder))}`).join(" ")}`);
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  process.exit(total.failed === 0 ? 0 : 1);
}

if (import.meta.main) {
  const [zig, ...filters] = process.argv.slice(2);
  if (zig === undefined) throw new Error("started by `npm test`, which sets up first");
  await main(zig, filters);
}
