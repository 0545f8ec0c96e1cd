// From logits to the next token: repetition penalty, temperature, top-k, top-p, min-p, and the random numbers for the choice.
// Not the model: it makes the logits. The same seed gives the same tokens on every platform, bit for bit.
// Next: generate.ts, which calls it in a loop.

import { EggError } from "../errors.ts";

/**
 * How freely to choose. Applied in this order: the penalty first, since it is about the model's own logits and must reach
 * the choice at temperature 0 too (a division by the temperature keeps the sign, so the two could change places); the
 * temperature next, so that the three that leave tokens out count in the probabilities that are drawn from.
 */
export interface SamplingOptions {
  /** Logits of the context's last tokens are divided by this where positive, multiplied where negative; 1 changes nothing. */
  repetition_penalty?: number;
  /** How many of the context's last tokens that is; 0 is all of them, 64 where left out. */
  repetition_window?: number;
  /** 0 takes the most likely token; 1 is the model's own distribution; more is flatter. */
  temperature: number;
  /** Keep this many of the most likely tokens; 0 keeps all. */
  top_k: number;
  /** Of those, keep the fewest that hold this part of their probability, at least one; 1 keeps all, 0 the likeliest. */
  top_p: number;
  /** Of those, keep the ones at least this times as likely as the likeliest; 0 keeps all. */
  min_p: number;
}

/** Tokens that the penalty looks back on where `repetition_window` is left out. */
export const usualWindow = 64;

/** Chooses token after token of one text: the random numbers go on, and the penalty knows what was read and chosen before. */
export class Sampler {
  readonly #options: SamplingOptions;
  readonly #unit: number;
  readonly #random: () => number;
  /** Tokens to remember; 0 where nothing asks for them. */
  readonly #window: number;
  #recent: number[] = [];

  /** `unit` as in sampleToken. Throws EggError("usage") for options or a seed out of range. */
  constructor(options: SamplingOptions, seed: number, unit: number) {
    checkSampling(options);
    const { repetition_penalty = 1, repetition_window = usualWindow } = options;
    this.#options = options;
    this.#unit = unit;
    this.#random = seededRandom(seed);
    this.#window = repetition_penalty === 1 ? 0 : repetition_window === 0 ? Infinity : repetition_window;
  }

  /** Tells it of tokens that the model has read. */
  read(tokens: ArrayLike<number>): void {
    for (let i = Math.max(0, tokens.length - this.#window); i < tokens.length; i += 1) this.#recent.push(tokens[i]!);
    if (this.#recent.length > 2 * this.#window) this.#recent = this.#recent.slice(-this.#window); // seldom: a copy each time would cost more
  }

  /** The next token after the logits of the model's last one. */
  next(logits: Int8Array | Float32Array): number {
    const recent = this.#recent.length > this.#window ? this.#recent.slice(-this.#window) : this.#recent;
    const token = sampleToken(logits, this.#unit, this.#options, this.#random, recent);
    this.read([token]);
    return token;
  }
}

/**
 * Chooses a token. `logits`: one per token of the vocabulary; probability is proportional to 2^(logit * unit), so unit is
 * 1/16 for int8 logits and log2(e) for natural ones. A float logit of -Infinity rules its token out. `random` gives
 * numbers in [0, 1) and is called once, or never at temperature 0. Ties go to the lower index. `recent`: the tokens that
 * the repetition penalty is for, each counted once however often it stands there (Keskar et al. 2019, CTRL, section 4.1).
 * Throws EggError("usage") for options out of range, EggError("numeric") for logits that are no numbers.
 */
export function sampleToken(
  logits: Int8Array | Float32Array,
  unit: number,
  options: SamplingOptions,
  random: () => number,
  recent: ArrayLike<number> = [],
): number {
  checkSampling(options);
  const { repetition_penalty = 1 } = options;
  const scores = repetition_penalty === 1 ? logits : penalized(logits, repetition_penalty, recent);
  const best = argmax(scores);
  if (options.temperature === 0) return best;
  const weights = relativeWeights(scores, scores[best]!, unit / options.temperature);
  const { weight: least, ties } = leastKept(weights, options);

  // One pass in order of index: what is kept, and its sum so far.
  let tiesLeft = ties;
  let sum = 0;
  for (let token = 0; token < weights.length; token += 1) {
    const weight = weights[token]!;
    const kept = weight > least || (weight === least && tiesLeft-- > 0);
    if (kept) sum += weight;
    else weights[token] = 0;
  }
  const target = random() * sum;
  let passed = 0;
  for (let token = 0; token < weights.length; token += 1) {
    passed += weights[token]!;
    if (passed > target) return token;
  }
  return best; // only where rounding made target equal to the sum
}

/** Throws EggError("usage") that names every option out of its range. */
export function checkSampling(options: SamplingOptions): void {
  const { repetition_penalty = 1, repetition_window = usualWindow, temperature, top_k, top_p, min_p } = options;
  const wrong: string[] = [];
  if (!(repetition_penalty > 0 && repetition_penalty < Infinity)) {
    wrong.push(`repetition-penalty: expected a number above 0, found ${repetition_penalty}`);
  }
  if (!(Number.isSafeInteger(repetition_window) && repetition_window >= 0)) {
    wrong.push(`repetition-window: expected a whole number from 0 up, found ${repetition_window}`);
  }
  if (!(temperature >= 0 && temperature < Infinity)) {
    wrong.push(`temperature: expected a number from 0 up, found ${temperature}`);
  }
  if (!(Number.isSafeInteger(top_k) && top_k >= 0)) wrong.push(`top-k: expected a whole number from 0 up, found ${top_k}`);
  if (!(top_p >= 0 && top_p <= 1)) wrong.push(`top-p: expected 0 to 1, found ${top_p}`);
  if (!(min_p >= 0 && min_p <= 1)) wrong.push(`min-p: expected 0 to 1, found ${min_p}`);
  if (wrong.length === 0) return;
  throw new EggError("usage", `[sampling] ${wrong.join("; ")}.`, {
    hint: "repetition-penalty 1, temperature 1, top-k 0, top-p 1, min-p 0 leave the model's own distribution as it is.",
  });
}

/**
 * Random numbers in [0, 1) with 53 bits each: sfc32 (Chris Doty-Humphrey, PractRand), two outputs a number, its state
 * filled by splitmix32 from the low and then the high half of the seed. Exact 32-bit integer arithmetic.
 * Throws EggError("usage") unless the seed is a whole number of 0 .. 2^53 - 1.
 */
export function seededRandom(seed: number): () => number {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new EggError("usage", `[sampling] seed: expected a whole number from 0 to ${Number.MAX_SAFE_INTEGER}, found ${seed}.`);
  }
  let mix = seed | 0; // the low 32 bits
  const splitmix32 = (): number => {
    mix = (mix + 0x9e3779b9) | 0;
    let z = mix;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return z ^ (z >>> 16);
  };
  let a = splitmix32();
  let b = splitmix32();
  mix ^= Math.floor(seed / 2 ** 32);
  let c = splitmix32();
  let counter = 1;
  const sfc32 = (): number => {
    const out = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + out) | 0;
    return out >>> 0;
  };
  for (let round = 0; round < 12; round += 1) sfc32();
  return () => {
    const high = sfc32() >>> 5; // 27 bits
    const low = sfc32() >>> 6; // 26 bits
    return (high * 2 ** 26 + low) / 2 ** 53;
  };
}

function penalized(logits: Int8Array | Float32Array, penalty: number, recent: ArrayLike<number>): Float64Array {
  const scores = Float64Array.from(logits);
  for (let i = 0; i < recent.length; i += 1) {
    const logit = logits[recent[i]!]!; // not the score: a token that stands there twice is made less likely once
    scores[recent[i]!] = logit > 0 ? logit / penalty : logit * penalty;
  }
  return scores;
}

function argmax(logits: Int8Array | Float32Array | Float64Array): number {
  let best = 0;
  for (let token = 0; token < logits.length; token += 1) {
    const logit = logits[token]!;
    // Written so that NaN fails it.
    if (!(logit < Infinity)) {
      throw new EggError("numeric", `[sampling] logit of token ${token}: expected a number, found ${logit}.`, { hint: "The model's weights are not finite: take an earlier checkpoint; egg train ends a run whose numbers overflow." });
    }
    if (logit > logits[best]!) best = token;
  }
  if (!(logits[best]! > -Infinity)) {
    const found = `found ${logits.length} logits that rule all out`;
    throw new EggError("numeric", `[sampling] expected at least one token to choose from, ${found}.`);
  }
  return best;
}

// Probabilities relative to the likeliest token, whose weight is exactly 1.
function relativeWeights(logits: Int8Array | Float32Array | Float64Array, top: number, scale: number): Float64Array {
  const weights = new Float64Array(logits.length);
  for (let token = 0; token < logits.length; token += 1) {
    const below = logits[token]! - top;
    weights[token] = below === 0 ? 1 : exp2(below * scale);
  }
  return weights;
}

// The smallest weight that is kept, and how many tokens of exactly that weight are.
function leastKept(weights: Float64Array, options: SamplingOptions): { weight: number; ties: number } {
  const { top_k, top_p, min_p } = options;
  if ((top_k === 0 || top_k >= weights.length) && top_p === 1) return { weight: min_p, ties: Infinity };

  const sorted = weights.slice().sort(); // ascending; a typed array sorts by number, without a callback
  const from = top_k === 0 ? 0 : Math.max(0, sorted.length - top_k);
  let mass = 0;
  for (let i = sorted.length - 1; i >= from; i -= 1) mass += sorted[i]!;
  let first = sorted.length;
  let kept = 0;
  do kept += sorted[--first]!;
  while (first > from && kept < top_p * mass);

  const weight = sorted[first]!;
  if (weight < min_p) return { weight: min_p, ties: Infinity };
  let ties = 0;
  for (let i = first; i < sorted.length && sorted[i] === weight; i += 1) ties += 1;
  return { weight, ties };
}

const exp2Series = taylorOfExp2(15);
const halvings = new Float64Array(1075).fill(1);
for (let k = 1; k < halvings.length; k += 1) halvings[k] = halvings[k - 1]! / 2;

// 2^x for x <= 0 to within 2 units in the last place. Math.pow may differ between systems in the last bit, and with it
// a sample; sums and products of doubles do not.
function exp2(x: number): number {
  const whole = Math.round(x);
  if (!(whole > -1075)) return 0;
  const part = x - whole; // -0.5 .. 0.5
  let sum = 0;
  for (let n = exp2Series.length - 1; n >= 0; n -= 1) sum = sum * part + exp2Series[n]!;
  return sum * halvings[-whole]!;
}

// The factors of x^n: ln(2)^n / n!
function taylorOfExp2(terms: number): Float64Array {
  const series = new Float64Array(terms);
  let term = 1;
  for (let n = 0; n < terms; n += 1) {
    series[n] = term;
    term = (term * Math.LN2) / (n + 1);
  }
  return series;
}
