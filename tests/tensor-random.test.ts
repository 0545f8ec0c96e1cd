// rand and randn: seeds give sequences that have nothing in common, with the moments and the variety that they promise.
// Not dropout's masks (tensor.test.ts) and not first weights (nn.test.ts). Read next: src/tensor/random.ts.
import { describe, expect, test } from "bun:test";
import { manualSeed, nn, rand, randn } from "../src/tensor/egg.ts";
import { failure } from "./failure.ts";

const count = 1_000_000;
const makers = { rand: (seed: number, n = count) => rand([n], { seed }).toArray(), randn: (seed: number, n = count) => randn([n], { seed }).toArray() };
// Neighbours, factors of counters, seeds that differ beyond 32 bits only, and (with 1) a pair that a counter without the seed in
// its hash made the same but for a shift of five.
const seeds = [0, 1, 2, 3, 7, 1000, 3806525600, 0x9e3779b1, 0x85ebca6b, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1];

describe.each(Object.entries(makers))("%s", (name, make) => {
  test("no two seeds share a run of numbers, shifted or not", () => {
    const n = 4000;
    const runs = new Map<string, number>();
    for (const seed of seeds) {
      const values = make(seed, n);
      for (let i = 0; i + 3 <= n; i++) {
        const run = `${values[i]},${values[i + 1]},${values[i + 2]}`;
        expect(runs.get(run) ?? seed).toBe(seed);
        runs.set(run, seed);
      }
    }
    expect(runs.size).toBe(seeds.length * (n - 2));
  });

  test("mean, variance and correlations of a million", () => {
    const [mean, variance] = name === "rand" ? [0.5, 1 / 12] : [0, 1];
    const deviation = Math.sqrt(variance! / count);
    const all = [1, 2].map((seed) => make(seed).map((value) => value - mean!) as Float32Array);
    const product = (a: Float32Array, b: Float32Array, shift: number): number => a.reduce((sum, value, i) => sum + value * (b[i + shift] ?? 0), 0) / count;
    for (const values of all) {
      expect(Math.abs(product(values, values.map(() => 1), 0))).toBeLessThan(4 * deviation);
      expect(Math.abs(product(values, values, 0) / variance! - 1)).toBeLessThan(0.006);
      for (const shift of [1, 2, 3]) expect(Math.abs(product(values, values, shift) / variance!)).toBeLessThan(0.005);
    }
    for (const shift of [0, 1, 2]) expect(Math.abs(product(all[0]!, all[1]!, shift) / variance!)).toBeLessThan(0.005);
  });

  test("a million are distinct, but for what rounding to f32 must bring together", () => {
    const values = make(5);
    // Of 2^24 values, 1 - e^(-n/2^24) of them are met: 971,000. Normal numbers have more near 0.
    expect(new Set([...values]).size).toBeGreaterThan(960_000);
    if (name === "rand") expect(values.every((value) => value >= 0 && value < 1)).toBe(true);
    const past = values.filter((value) => Math.abs(value) > 3).length / count;
    if (name === "randn") expect(Math.abs(past - 0.0027)).toBeLessThan(0.0003);
  });

  test("the same seed gives the same numbers, and a longer tensor begins with a shorter one's", () => {
    expect(make(9, 100)).toEqual(make(9, 100));
    expect([...make(9, 101)].slice(0, 100)).toEqual([...make(9, 100)]);
  });

  test("a seed that is none is refused", () => {
    for (const seed of [-1, 0.5, NaN, 2 ** 53]) expect(failure(() => make(seed, 1)).message).toBe(`[tensor] ${name}: the seed ${seed} is not a whole number from 0.`);
  });
});

test("data of a seed is not the first weights of that seed", () => {
  manualSeed(1);
  const layer = new nn.Linear(40, 30, { std: 1 });
  const data = new Set(randn([2000], { seed: 1 }).toArray());
  expect([...layer.weight.toArray()].filter((value) => data.has(value)).length).toBeLessThan(3);
  layer.release();
});
