// What is shown to users of the library runs: each example of docs/tensors.md and README prints what it says, the programs in
// examples/ learn, all through `import ... from "egg"`. Also a short soak. Not the operations: tensor.test.ts.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./program.ts";

/** Runs a file with little address space, so that what leaks or reserves too much does not go unseen. */
function run(cwd: string, ...words: string[]): { out: string; err: string } {
  const { stdout, stderr } = Bun.spawnSync(["sh", "-c", 'ulimit -v 8000000 2>/dev/null; exec "$@"', "sh", process.execPath, ...words], { cwd, env: process.env });
  return { out: stdout.toString(), err: stderr.toString() };
}

describe("docs/tensors.md and README.md", () => {
  const blocks = ["docs/tensors.md", "README.md"].flatMap((file) => [...readFileSync(join(root, file), "utf8").matchAll(/^```ts\n([^]*?)^```/gm)].map(([, body]) => body!));
  let folder = "";
  beforeAll(() => {
    // As a program that depends on egg: the package by its name, from outside.
    folder = mkdtempSync(join(tmpdir(), "egg-docs-"));
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(root, join(folder, "node_modules/egg"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("have examples that say what they print", () => expect(blocks.filter((block) => block.includes("// -> ")).length).toBeGreaterThanOrEqual(6));

  test.each(blocks.map((block, i) => [i + 1, block] as const))("example %d", (i, block) => {
    const file = join(folder, `example${i}.ts`);
    writeFileSync(file, block);
    const { out, err } = run(folder, file);
    expect(err).toBe("");
    const flat = (text: string): string => text.replace(/\s+/g, " ").trim();
    expect(flat(out)).toBe(flat([...block.matchAll(/\/\/ -> (.*)/g)].map(([, said]) => said!).join("\n")));
  }, 60_000);

  test("type-check", () => {
    for (const [i, block] of blocks.entries()) writeFileSync(join(folder, `example${i + 1}.ts`), `${block}\nexport {};\n`);
    const settings = JSON.parse(readFileSync(join(root, "tsconfig.json"), "utf8"));
    symlinkSync(join(root, "node_modules/bun-types"), join(folder, "node_modules/bun-types"));
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: settings.compilerOptions, include: ["*.ts"] }));
    const { out, err } = run(folder, "check");
    expect(out + err).toContain("No type errors");
  }, 60_000);
});

describe("examples", () => {
  const short = (file: string): string => {
    expect(readFileSync(join(root, file), "utf8").split("\n").length).toBeLessThan(60);
    const { out, err } = run(root, file);
    expect(err).toBe("");
    return out;
  };

  test("XOR is learned by every optimizer", () => {
    const lines = short("examples/xor.ts").trim().split("\n");
    expect(lines.map((line) => line.slice(0, 14).trim())).toEqual(["SGD", "SGD, momentum", "SGD, Nesterov", "Adam", "AdamW", "Lion"]);
    for (const line of lines) expect(line).toContain(" 100 % right");
  }, 60_000);

  test("spirals are told apart", () => {
    expect(Number(/([\d.]+) % of 600 new points right/.exec(short("examples/spiral.ts"))![1])).toBeGreaterThan(98);
  }, 60_000);

  test("drawn digits are read", () => {
    expect(Number(/([\d.]+) % of 1000 new drawings read/.exec(short("examples/digits.ts"))![1])).toBeGreaterThanOrEqual(97);
  }, 120_000);
});

test("2,000 tiny training steps take no more memory than 200", () => {
  const { out, err } = run(root, "tests/tensor-soak.ts", "2000");
  expect(err).toBe("");
  expect(out).toContain("no growth in 2000 steps");
}, 120_000);
