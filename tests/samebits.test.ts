// The same bits on every CPU tier, thread count, panel width and way of running members: weights, states and losses after
// some steps, for widths that no vector divides and populations with every kind of remainder.
// Whole golden runs are in golden.test.ts, single kernels in kernels/int8/twins_test.zig.
import { createHash } from "node:crypto";
import { expect, test } from "bun:test";
import { NativeModel, NativeTrainer } from "../src/native/int8.ts";
import { machine, openContext, type Context } from "../src/native/machine.ts";
import { weightsOf } from "./weights.ts";

const threads = [1, 2, 3, 5];
const tiers = machine().tiers.filter(({ available, name }) => available && name !== "scalar").map(({ name }) => name);
const contexts = new Map<string, Context>();

function context(tier: (typeof tiers)[number] | "scalar", count: number): Context {
  const key = `${tier} ${count}`;
  if (!contexts.has(key)) contexts.set(key, openContext(count, tier));
  return contexts.get(key)!;
}

interface Case {
  hidden: number;
  layers: number;
  population: number;
  sequence: number;
  steps: number;
}

/** SHA-256 over weights, states and losses after the steps. */
async function run(of: Context, { hidden, layers, population, sequence, steps }: Case, way: { panel_groups?: number; mode?: number }): Promise<string> {
  const model = new NativeModel(of, { rule: "egg.c", layers, hidden, vocabulary: 256 });
  model.initialize(42);
  const trainer = new NativeTrainer(model, { pairs: population / 2, sequence, sigma_shift: 4, ...way });
  const hash = createHash("sha256");
  for (let step = 0; step < steps; step++) {
    const batch = Uint8Array.from({ length: (population / 2) * (sequence + 1) }, (_, i) => 32 + ((i + step) * 2654435761) % 90);
    await trainer.step(batch, { seed: 1000 + step * 77, threshold: 160 });
    hash.update(trainer.losses());
  }
  for (const { data } of weightsOf(model).values()) hash.update(data);
  hash.update(trainer.readStates(0, population));
  trainer.release();
  model.release();
  return hash.digest("hex");
}

const cases: Case[] = [
  ...[2, 6, 30, 34, 128].map((population) => ({ hidden: 48, layers: 2, population, sequence: 5, steps: 20 })),
  { hidden: 80, layers: 1, population: 1000, sequence: 3, steps: 3 },
  { hidden: 208, layers: 1, population: 34, sequence: 4, steps: 4 },
  { hidden: 512, layers: 1, population: 6, sequence: 4, steps: 3 },
  { hidden: 1024, layers: 1, population: 30, sequence: 2, steps: 2 },
];

for (const each of cases) {
  const name = `hidden ${each.hidden}, population ${each.population}`;
  test(name, async () => {
    const expected = await run(context(tiers[0] ?? "scalar", 1), each, {});
    for (const tier of tiers) {
      for (const count of threads) {
        for (const panel_groups of [1, 2, 3, 4]) expect(`${tier} ${count} ${panel_groups} ${await run(context(tier, count), each, { panel_groups })}`).toBe(`${tier} ${count} ${panel_groups} ${expected}`);
        // By rows: only where a thread has a core, or its barriers wait for the scheduler.
        if (each.population <= 128 && count <= 2) expect(`${tier} ${count} rows ${await run(context(tier, count), each, { mode: 2 })}`).toBe(`${tier} ${count} rows ${expected}`);
      }
    }
    if (each.hidden === 48 && each.population <= 34) expect(await run(context("scalar", 2), each, {})).toBe(expected);
  }, 60_000);
}
