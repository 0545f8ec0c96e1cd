// kill -9 and signals at random moments of real runs: nothing is lost but the steps since the last save, and nothing is left lying about.
// The short version; `bun tests/soak.ts kill 10000` is the long one. What is examined, and how: kill.ts.
// Read next: signals.test.ts (signals in the midst of each kind of work), faults.test.ts (failing disks).
import { expect, test } from "bun:test";
import { killTrials } from "./kill.ts";
import { egg, freshFolder } from "./program.ts";

const trials = (kind: "kill" | "signals", count: number) => killTrials({ kind, count, folder: freshFolder("kill"), command: [egg], seed: Math.floor(Math.random() * 1e9) });

test("300 times kill -9", async () => {
  const figures = await trials("kill", 300);
  expect(figures.kills).toBeGreaterThanOrEqual(300);
  // With a checkpoint every third step at most, that is all that a kill can cost.
  expect(figures.mostLost).toBeLessThanOrEqual(3);
  // Some kills did hit a file while it was written, and some the start of a process.
  expect(figures.temporary).toBeGreaterThan(0);
  expect(figures.early).toBeGreaterThan(0);
}, 240_000);

test("20 times SIGINT or SIGTERM, half of them with a second signal", async () => {
  const figures = await trials("signals", 20);
  expect(figures.kills).toBeGreaterThanOrEqual(20);
}, 120_000);
