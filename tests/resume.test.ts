// Resume gives the same bits, from any step, on other threads and other kernels; and long runs stay flat in memory and open files.
// Short versions of `bun tests/soak.ts resume 200` and `bun tests/soak.ts steps 100000`. What is compared, and how: resume.ts, steps.ts.
import { expect, test } from "bun:test";
import { egg, freshFolder } from "./program.ts";
import { integerPresets, resumeCases } from "./resume.ts";
import { measureFlatness } from "./steps.ts";

test("20 random runs, each resumed at a random step", async () => {
  const figures = await resumeCases({ count: 20, folder: freshFolder("resume"), command: [egg], seed: Math.floor(Math.random() * 1e9) });
  expect(figures.cases).toBe(20);
  expect(figures.presets.toSorted()).toEqual(integerPresets.toSorted());
  expect(figures.threadChanges).toBeGreaterThan(0);
}, 120_000);

test.skipIf(process.platform !== "linux")("40,000 steps take no more memory, and no more open files, at the end than soon after the start", async () => {
  const { risePercent, handles } = await measureFlatness({ steps: 40_000, warmUp: 0.4, folder: freshFolder("steps"), command: [egg] });
  expect(risePercent).toBeLessThan(4); // of about 60 MB; 150 bytes left behind by each of the 24,000 steps would be 6
  expect(new Set(handles).size).toBe(1);
}, 120_000);
