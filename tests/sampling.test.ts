// Sampling: the distribution, the exact sets of top-k, top-p and min-p, and tokens that are the same everywhere.
// Not the models that make the logits. Expected sets and probabilities are worked out by hand or in plain Math.
// Next: tests/report.test.ts, where sampled bytes are shown.

import { describe, expect, test } from "bun:test";
import { EggError } from "../src/errors.ts";
import { checkSampling, sampleToken, Sampler, seededRandom } from "../src/models/sampling.ts";
import type { SamplingOptions } from "../src/models/sampling.ts";

const plain: SamplingOptions = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 };
const sixteenth = 1 / 16;

/** The share of [0, 1) that leads to each token: random is walked through in equal parts, from their middles. */
function shares(logits: Int8Array | Float32Array, options: Partial<SamplingOptions>, unit = sixteenth, parts = 960): number[] {
  const counts = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < parts; i += 1) counts[sampleToken(logits, unit, { ...plain, ...options }, () => (i + 0.5) / parts)]! += 1;
  return counts.map((count) => count / parts);
}

/** Tokens that can come at all. */
const kept = (logits: Int8Array | Float32Array, options: Partial<SamplingOptions>): number[] =>
  shares(logits, options).flatMap((share, token) => (share > 0 ? [token] : []));

function usageError(act: () => unknown): EggError {
  try {
    act();
  } catch (error) {
    if (error instanceof EggError) return error;
  }
  throw new Error("expected an EggError");
}

describe("the distribution", () => {
  const logits = Int8Array.of(-127, 30, 12, -5, 30, 41, 0, 127 - 90);

  function chiSquare(counts: number[], probabilities: number[]): number {
    const total = counts.reduce((a, b) => a + b);
    return counts.reduce((sum, count, i) => sum + (count - total * probabilities[i]!) ** 2 / (total * probabilities[i]!), 0);
  }
  function softmax(values: Iterable<number>, unit: number): number[] {
    const weights = [...values].map((value) => Math.pow(2, value * unit));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((weight) => weight / sum);
  }

  for (const temperature of [0.7, 1, 1.6]) {
    for (const seed of [1, 2, 3]) {
      test(`temperature ${temperature}, seed ${seed}`, () => {
        const random = seededRandom(seed);
        const counts = new Array<number>(8).fill(0);
        for (let i = 0; i < 40_000; i += 1) counts[sampleToken(logits, sixteenth, { ...plain, temperature }, random)]! += 1;
        expect(chiSquare(counts, softmax(logits, sixteenth / temperature))).toBeLessThan(24.32); // 7 degrees, p 0.001
        expect(chiSquare(counts, softmax(logits, sixteenth / temperature / 1.1))).toBeGreaterThan(24.32); // a wrong one shows
      });
    }
  }

  test("probabilities of two tokens are exact for every int8 distance", () => {
    for (let distance = 0; distance <= 254; distance += 1) {
      const pair = Int8Array.of(127, 127 - distance);
      const first = 1 / (1 + Math.pow(2, -distance / 16));
      expect(sampleToken(pair, sixteenth, plain, () => first - 1e-12)).toBe(0);
      if (first + 1e-12 < 1) expect(sampleToken(pair, sixteenth, plain, () => first + 1e-12)).toBe(1);
    }
  });

  test("natural float logits, with one ruled out", () => {
    const logits = Float32Array.of(Math.log(3), -Infinity, 0);
    expect(shares(logits, {}, Math.LOG2E)).toEqual([0.75, 0, 0.25]);
  });

  test("far below the top is never, and the ends of random stay inside", () => {
    const logits = Float32Array.of(-5000, 0, -5000);
    expect(sampleToken(logits, 1, plain, () => 0)).toBe(1);
    expect(sampleToken(logits, 1, plain, () => 1 - 2 ** -53)).toBe(1);
  });
});

describe("temperature", () => {
  test("0 is the first of the largest, and asks for no random number", () => {
    const never = () => {
      throw new Error("asked for a random number");
    };
    expect(sampleToken(Int8Array.of(3, 9, -2, 9), sixteenth, { ...plain, temperature: 0 }, never)).toBe(1);
    expect(sampleToken(Float32Array.of(-7, -7), 1, { ...plain, temperature: 0 }, never)).toBe(0);
  });
  test("2 takes the square root of the probabilities", () => {
    expect(shares(Int8Array.of(64, 0), { temperature: 2 })).toEqual([0.8, 0.2]);
  });
  test("a very small one does not overflow", () => {
    expect(shares(Int8Array.of(1, 2, 2), { temperature: 1e-300 })).toEqual([0, 0.5, 0.5]);
  });
});

describe("the kept sets", () => {
  // Probabilities 1/8, 1/2, 1/8, 1/4.
  const logits = Int8Array.of(-32, 0, -32, -16);

  test.each([
    [0, [0, 1, 2, 3]],
    [1, [1]],
    [2, [1, 3]],
    [3, [0, 1, 3]], // the tie goes to the lower index
    [4, [0, 1, 2, 3]],
    [99, [0, 1, 2, 3]],
  ])("top-k %d", (top_k, tokens) => expect(kept(logits, { top_k })).toEqual(tokens));

  test.each([
    [0, [1]],
    [0.001, [1]],
    [0.5, [1]],
    [0.501, [1, 3]],
    [0.75, [1, 3]],
    [0.76, [0, 1, 3]],
    [0.875, [0, 1, 3]],
    [0.876, [0, 1, 2, 3]],
    [1, [0, 1, 2, 3]],
  ])("top-p %d", (top_p, tokens) => expect(kept(logits, { top_p })).toEqual(tokens));

  test.each([
    [0, [0, 1, 2, 3]],
    [0.25, [0, 1, 2, 3]],
    [0.251, [1, 3]],
    [0.5, [1, 3]],
    [0.501, [1]],
    [1, [1]],
  ])("min-p %d", (min_p, tokens) => expect(kept(logits, { min_p })).toEqual(tokens));

  test("what is kept shares the whole probability", () => {
    expect(shares(logits, { top_k: 2 }).map((share) => Math.round(share * 3))).toEqual([0, 2, 0, 1]);
  });
  test("top-p counts in what top-k left: 1/2 of 3/4 is 2/3", () => {
    expect(kept(logits, { top_k: 2, top_p: 0.66 })).toEqual([1]);
    expect(kept(logits, { top_k: 2, top_p: 0.67 })).toEqual([1, 3]);
  });
  test("temperature comes before the others", () => {
    // At temperature 2 the weights are 0.5, 1, 0.5, 0.707.
    expect(kept(logits, { temperature: 2, min_p: 0.6 })).toEqual([1, 3]);
    expect(kept(logits, { temperature: 2, top_p: 0.5 })).toEqual([1, 3]);
  });
  test("min-p cuts after top-k and top-p", () => {
    expect(kept(logits, { top_k: 3, top_p: 0.99, min_p: 0.3 })).toEqual([1, 3]);
    expect(kept(logits, { top_k: 3, min_p: 0.2 })).toEqual([0, 1, 3]);
  });
  test("equal tokens: as many as asked for, from the front", () => {
    expect(kept(new Int8Array(256), { top_k: 5 })).toEqual([0, 1, 2, 3, 4]);
    expect(kept(new Float32Array(8), { top_p: 0.5 })).toEqual([0, 1, 2, 3]);
  });
  test("a vocabulary of 32,768", () => {
    const large = Float32Array.from({ length: 32_768 }, (_, i) => (i * 7919) % 32_768);
    const top = [0, 1, 2].map((below) => large.indexOf(32_767 - below));
    const random = seededRandom(1);
    const tokens = new Set(Array.from({ length: 60 }, () => sampleToken(large, 0.01, { ...plain, top_k: 3 }, random)));
    expect(tokens).toEqual(new Set(top));
  });
});

describe("the repetition penalty", () => {
  /** Shares after the rule of the paper, written out: x / R where x > 0, x * R else, for each token of `recent` once. */
  function expected(logits: number[], penalty: number, recent: number[], temperature = 1): number[] {
    const weights = logits.map((x, token) => Math.exp((recent.includes(token) ? (x > 0 ? x / penalty : x * penalty) : x) / temperature));
    const sum = weights.reduce((a, b) => a + b);
    return weights.map((weight) => weight / sum);
  }
  const values = [2, -1, 0, 0.5, -0.25];
  const logits = Float32Array.from(values); // exact in f32
  const drawn = (options: Partial<SamplingOptions>, recent: number[], parts = 20_000): number[] => {
    const counts = values.map(() => 0);
    for (let i = 0; i < parts; i += 1) counts[sampleToken(logits, Math.LOG2E, { ...plain, ...options }, () => (i + 0.5) / parts, recent)]! += 1;
    return counts.map((count) => count / parts);
  };

  test.each([
    [1.3, [0, 1, 2], 1],
    [4, [0, 0, 0, 3, 4], 1], // three times is penalized once
    [0.5, [0, 1], 1], // below 1: likelier
    [2, [1, 3], 0.7],
    [1.3, [], 1],
    [2, [0, 1, 2, 3, 4], 1],
  ])("%d over %j at temperature %d", (repetition_penalty, recent, temperature) => {
    const shares = drawn({ repetition_penalty, temperature }, recent);
    for (const [token, share] of expected(values, repetition_penalty, recent, temperature).entries()) expect(Math.abs(shares[token]! - share)).toBeLessThan(1.1 / 20_000);
    if (recent.length > 0 && repetition_penalty !== 1) expect(shares).not.toEqual(drawn({ temperature }, []));
  });

  test("reaches the choice at temperature 0, of int8 logits too", () => {
    const greedy = { ...plain, temperature: 0, repetition_penalty: 2 };
    expect(sampleToken(Int8Array.of(100, 60, -3), sixteenth, greedy, () => 0, [0])).toBe(1);
    expect(sampleToken(Int8Array.of(-100, -60, -40), sixteenth, greedy, () => 0, [2])).toBe(1);
    expect(sampleToken(Int8Array.of(100, 60, -3), sixteenth, greedy, () => 0, [1, 2])).toBe(0);
  });

  test("comes before what leaves tokens out", () => {
    expect(new Set(drawn({ repetition_penalty: 100, top_k: 1 }, [0]).flatMap((share, token) => (share > 0 ? [token] : [])))).toEqual(new Set([3]));
    expect(new Set(drawn({ repetition_penalty: 100, min_p: 0.9 }, [0, 3]).flatMap((share, token) => (share > 0 ? [token] : [])))).toEqual(new Set([0, 2, 3]));
  });

  test("leaves a token that is ruled out where it is", () => {
    const ruledOut = Float32Array.of(-Infinity, 1, 0);
    for (const penalty of [0.01, 100]) expect(sampleToken(ruledOut, 1, { ...plain, repetition_penalty: penalty }, () => 0, [0, 1])).not.toBe(0);
  });

  test("a sampler looks back on the window: read tokens and chosen ones, 64 where nothing else is said, all at 0", () => {
    const random = seededRandom(3);
    const rows = Array.from({ length: 400 }, () => Float32Array.from({ length: 30 }, () => random() * 6 - 3));
    const prompt = Array.from({ length: 100 }, () => Math.floor(random() * 30));
    for (const [window, last] of [[undefined, 64], [1, 1], [5, 5], [0, Infinity], [1000, 1000]] as const) {
      for (const parts of [[prompt], [prompt.slice(0, 37), prompt.slice(37, 98), prompt.slice(98)], []]) {
        const options = { ...plain, repetition_penalty: 1.8, repetition_window: window };
        const sampler = new Sampler(options, 9, 1);
        const text = parts.flat();
        for (const part of parts) sampler.read(part);
        const draw = seededRandom(9);
        for (const row of rows) {
          const token = sampleToken(row, 1, options, draw, text.slice(Math.max(0, text.length - last)));
          expect(sampler.next(row)).toBe(token);
          text.push(token);
        }
      }
    }
  });

  test("1 is off: a sampler gives what it gave before there was one", () => {
    // Drawn by the version before the penalty.
    const random = seededRandom(5);
    const logits = Float32Array.from({ length: 300 }, () => random() * 40 - 20);
    const pinned = [
      [plain, [232, 180, 277, 127, 50, 196, 94, 94, 222, 1, 286, 173]],
      [{ temperature: 0.8, top_k: 40, top_p: 0.9, min_p: 0.02 }, [212, 158, 265, 104, 43, 172, 72, 72, 196, 1, 280, 157]],
    ] as const;
    for (const [options, tokens] of pinned) {
      for (const more of [{}, { repetition_penalty: 1 }, { repetition_penalty: 1, repetition_window: 3 }]) {
        const sampler = new Sampler({ ...options, ...more }, 11, 1 / 4);
        sampler.read([1, 2, 3]);
        expect(tokens.map(() => sampler.next(logits))).toEqual([...tokens]);
      }
    }
  });
});

describe("random numbers", () => {
  // From an independent implementation of splitmix32 and sfc32 in Python, in units of 2^-53.
  test.each([
    [0, [1240587991554947, 225746052129405, 5242469001080950, 2540472452946417]],
    [42, [5194644465952312, 1917903069396524, 2109460690795975, 7565369824050032]],
    [2 ** 32 + 42, [3221339130081597, 2710170116237154, 8016499122427177, 3934343315693088]],
    [2 ** 53 - 1, [8177220061093110, 2974855448943478, 7283929285215166, 7715167889034762]],
  ])("seed %d", (seed, expected) => {
    const random = seededRandom(seed);
    expect(expected.map(() => random() * 2 ** 53)).toEqual(expected);
  });

  test("the same seed gives the same tokens, another seed others", () => {
    const logits = Int8Array.from({ length: 256 }, (_, i) => (i * 37) % 61);
    const options = { temperature: 0.8, top_k: 100, top_p: 0.95, min_p: 0.01 };
    const draw = (seed: number) => {
      const random = seededRandom(seed);
      return Array.from({ length: 200 }, () => sampleToken(logits, sixteenth, options, random));
    };
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });

  test.each([-1, 0.5, NaN, 2 ** 53])("seed %d is refused", (seed) => {
    expect(usageError(() => seededRandom(seed)).kind).toBe("usage");
  });
});

describe("refusals", () => {
  test.each([
    ["temperature", { temperature: -0.1 }],
    ["temperature", { temperature: NaN }],
    ["temperature", { temperature: Infinity }],
    ["top-k", { top_k: -1 }],
    ["top-k", { top_k: 1.5 }],
    ["top-p", { top_p: -0.01 }],
    ["top-p", { top_p: 1.01 }],
    ["min-p", { min_p: -0.01 }],
    ["min-p", { min_p: 1.01 }],
    ["repetition-penalty", { repetition_penalty: 0 }],
    ["repetition-penalty", { repetition_penalty: -1 }],
    ["repetition-penalty", { repetition_penalty: NaN }],
    ["repetition-penalty", { repetition_penalty: Infinity }],
    ["repetition-window", { repetition_window: -1 }],
    ["repetition-window", { repetition_window: 1.5 }],
  ] as [string, Partial<SamplingOptions>][])("%s out of range", (name, options) => {
    const error = usageError(() => sampleToken(new Int8Array(4), sixteenth, { ...plain, ...options }, Math.random));
    expect(error.kind).toBe("usage");
    expect(error.message).toContain(`${name}: expected`);
    expect(error.message).toContain(`found ${Object.values(options)[0]}`);
  });
  test("all of them at once", () => {
    const { message } = usageError(() => checkSampling({ temperature: -1, top_k: -1, top_p: 2, min_p: 2 }));
    for (const name of ["temperature", "top-k", "top-p", "min-p"]) expect(message).toContain(`${name}:`);
  });
  test.each([
    ["token 1", Float32Array.of(0, NaN)],
    ["token 0", Float32Array.of(Infinity, 0)],
    ["rule all out", Float32Array.of(-Infinity, -Infinity)],
    ["found 0 logits", new Float32Array(0)],
  ])("logits that are no numbers: %s", (part, logits) => {
    const error = usageError(() => sampleToken(logits, 1, plain, Math.random));
    expect(error.kind).toBe("numeric");
    expect(error.message).toContain(part);
  });
});
