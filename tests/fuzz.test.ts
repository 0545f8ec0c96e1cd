// Each parser of foreign bytes: the kept seeds again, then a short fuzz with a fresh seed. The fuzzer itself must find planted bugs.
// The long runs are `bun tests/soak.ts fuzz NAME N`. Read next: fuzz-targets.ts.
import { describe, expect, test } from "bun:test";
import fs from "node:fs";
import { join } from "node:path";
import { Finding, fuzz, seedsOf, tried, type Target } from "./fuzz.ts";
import { targets } from "./fuzz-targets.ts";

const names = Object.keys(targets);

test("every target has seeds, and every folder of seeds a target", () => {
  expect(fs.readdirSync(join(import.meta.dir, "fuzz-seeds")).sort()).toEqual([...names].sort());
});

test.each(names)("%s: seeds, each cut at every byte, and 5,000 inputs", (name) => {
  const target = targets[name]!;
  const seeds = seedsOf(name);
  expect(seeds.length).toBeGreaterThan(1);
  for (const { bytes } of seeds) {
    for (let length = bytes.length; length >= 0; length -= Math.max(1, bytes.length >> 8)) tried(target, bytes.slice(0, length));
  }
  const seed = Math.floor(Math.random() * 1e9);
  const figures = fuzz(target, seeds.map(({ bytes }) => bytes), 5000, seed);
  expect(figures.executions).toBe(5000);
  expect(figures.outcomes).toBeGreaterThan(3);
}, 60_000);

test.each(names)("%s: the grammar makes inputs that are accepted and inputs that are not", (name) => {
  const target = targets[name]!;
  const outcomes: string[] = [];
  fuzz({ words: target.words, make: (random) => target.make(random), ...(target.mend === undefined ? {} : { mend: target.mend }), check: (bytes) => {
    outcomes.push(target.check(bytes));
    return String(outcomes.length);
  } }, [], 1500, 1);
  const good = outcomes.filter((outcome) => outcome.startsWith("good")).length;
  expect(good).toBeGreaterThan(10);
  expect(good).toBeLessThan(outcomes.length - 10);
}, 60_000);

describe("the fuzzer finds", () => {
  const planted = (check: Target["check"], more: Partial<Target> = {}): Target => ({ words: ["magic", "word"], make: (random) => random.bytes(random.below(40)), check, ...more });
  const finding = (target: Target): Finding => {
    try {
      fuzz(target, [], 200_000, 1);
    } catch (error) {
      if (error instanceof Finding) return error;
      throw error;
    }
    throw new Error("found nothing");
  };
  const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

  test("a crash behind two steps that each show as an outcome", () => {
    const found = finding(planted((bytes) => {
      const at = text(bytes).indexOf("magic");
      if (at < 0) return "nothing";
      if (text(bytes).slice(at, at + 9) !== "magicword") return "the first step";
      if ((bytes[at + 9] ?? 0) < 0x80) return "the second step";
      return (undefined as unknown as string).trim();
    }));
    expect(found.message).toContain("TypeError");
    expect(text(found.input)).toContain("magicword");
  });

  test("memory taken by what the input claims", () => {
    const claims = planted((bytes) => String(new Uint8Array(bytes[0] === 200 ? 100_000 : 1).length), { allocates: 2 });
    expect(finding(claims).message).toContain("allocates 100000 bytes");
    expect(fuzz({ ...claims, allocates: undefined as never }, [], 2000, 1).executions).toBe(2000);
  });

  test("an input that takes ever longer", () => {
    const slow = planted((bytes) => {
      let sum = 0;
      for (let i = 0; i < 100_000_000 && bytes.length > 200_000; i++) sum ^= i;
      return String(sum & 1);
    }, { patience_ms: 15 });
    expect(finding(slow).message).toMatch(/takes \d+ ms/);
  });
});
