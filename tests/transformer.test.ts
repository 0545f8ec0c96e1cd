// A transformer that reads and writes text: bits per byte against logits and a softmax in f64, generation against full forward
// passes over the context that the rule gives, reuse of memory, what is refused. Not the model: transformer-golden.test.ts.
import { afterAll, describe, expect, test } from "bun:test";
import type { Tokenizer } from "../src/data/tokenizer.ts";
import type { Tokens } from "../src/data/tokens.ts";
import { saveTransformer } from "../src/models/transformer-names.ts";
import { transformerShape, type TransformerShape } from "../src/models/transformer-shape.ts";
import { droppedOf, openTransformer, TransformerText } from "../src/models/transformer-text.ts";
import { Transformer } from "../src/models/transformer.ts";
import { sampleToken, seededRandom } from "../src/models/sampling.ts";
import { bytesNow, piecesOf } from "../src/models/tensors.ts";
import { context } from "../src/tensor/device.ts";
import { manualSeed, noGrad, tensor } from "../src/tensor/egg.ts";
import { failure } from "./failure.ts";

const sizes = { vocabulary: 23, layers: 2, width: 16, heads: 4, block: 8, feedForward: 24 };
const shapes = {
  gpt: transformerShape({ ...sizes, family: "gpt", dropout: 0.3 }),
  llama: transformerShape({ ...sizes, family: "llama", kvHeads: 2, block: 9, dropout: 0.3, tied: false }),
  none: transformerShape({ ...sizes, family: "llama", position: "none", block: 1 }),
};

/** Ids whose texts have different lengths. */
const tokenizer = {
  kind: "bpe", name: "letters", vocabulary: 21, definition: "", hash: "", endOfText: 20,
  encode: (text: Uint8Array) => Uint32Array.from(text, (byte) => byte - 97),
  decode: (ids: ArrayLike<number>) => new Uint8Array(Array.from(ids).flatMap((id) => Array(1 + (id % 3)).fill(97 + id))),
  lengths: Uint16Array.from({ length: 21 }, (_, id) => 1 + (id % 3)),
} as Tokenizer;

const tokensOf = (ids: readonly number[]): Tokens => ({
  count: ids.length, name: "some text",
  read: (offset, target) => {
    if (offset + target.length > ids.length) throw new Error(`read ${offset} .. ${offset + target.length} of ${ids.length}`);
    target.set(ids.slice(offset, offset + target.length));
  },
});
const text = Array.from({ length: 5000 }, (_, i) => (i * i + 3 * i + (i >> 3)) % 21);

function made(shape: TransformerShape): Transformer {
  manualSeed(6);
  const model = new Transformer(shape);
  for (const [i, parameter] of model.parameters().entries()) parameter.copy_(parameter.toArray().map((value, j) => 10 * value + 0.3 * Math.sin(i + j)) as Float32Array);
  return model;
}

const logitsOf = (model: Transformer, ids: readonly number[]): Float32Array =>
  noGrad(() => model.logits(tensor(Int32Array.from(ids), { shape: [1, ids.length] }), null)).toArray() as Float32Array;

describe.each(Object.entries(shapes))("%s", (_, shape) => {
  const model = made(shape).eval();
  const reader = new TransformerText(model, tokenizer);
  afterAll(() => {
    reader.release();
    model.release();
  });
  const { block, vocabulary } = shape;

  /** -log2 p of each token but the first of a window, by a softmax in f64. */
  const bitsOf = (window: readonly number[]): number[] => {
    const logits = logitsOf(model, window.slice(0, -1));
    return window.slice(1).map((target, t) => {
      const row = Array.from(logits.subarray(t * vocabulary, (t + 1) * vocabulary));
      return Math.log2(row.reduce((sum, logit) => sum + Math.exp(logit), 0)) - row[target]! / Math.LN2;
    });
  };
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

  test("its loss is the softmax's in f64, each token predicted once, in bits per byte", async () => {
    const ids = text.slice(0, 2 + 5 * block); // the last window is cut short
    const windows = Array.from({ length: 6 }, (_, i) => ids.slice(i * block, (i + 1) * block + 1));
    const bytes = sum(ids.slice(1).map((id) => tokenizer.lengths[id]!));
    model.train(); // dropout stays out of it, and is there again afterwards
    const found = await reader.loss(tokensOf(ids), Infinity);
    expect(model.training && model.blocks[0]!.training).toBe(true);
    model.eval();
    expect(found).toMatchObject({ tokens: ids.length - 1, bytes });
    expect(Math.abs(found!.bitsPerByte / (sum(windows.flatMap(bitsOf)) / bytes) - 1)).toBeLessThan(2e-6);
  });

  test("of a long text, as many windows as asked for are read, evenly spread", async () => {
    const windows = Math.floor((text.length - 1) / block);
    const chosen = Array.from({ length: 5 }, (_, i) => Math.floor((i * Math.ceil((text.length - 1) / block)) / 5) * block).map((start) => text.slice(start, start + block + 1));
    const found = await reader.loss(tokensOf(text), 5 * block + block - 1);
    expect(found!.tokens).toBe(5 * block);
    const bytes = sum(chosen.flatMap((window) => window.slice(1)).map((id) => tokenizer.lengths[id]!));
    expect(found!.bytes).toBe(bytes);
    expect(Math.abs(found!.bitsPerByte / (sum(chosen.flatMap(bitsOf)) / bytes) - 1)).toBeLessThan(2e-6);
    const all = await reader.loss(tokensOf(text), Infinity);
    expect(all!.tokens).toBe(text.length - 1);
    expect(windows).toBeGreaterThan(2 * 2048 / block); // more than one run of the program
  });

  test("it is cancelled between two runs", async () => {
    const running = reader.loss(tokensOf(text), Infinity);
    reader.cancel();
    expect(await running).toBeNull();
    expect(await reader.loss(tokensOf(text.slice(0, 9)), Infinity)).not.toBeNull();
  });

  const options = { temperature: 0.8, top_k: 0, top_p: 0.95, min_p: 0 };
  /** The same by full forward passes. */
  const written = (prompt: readonly number[], count: number, seed: number): { ids: number[]; margin: number } => {
    const random = seededRandom(seed);
    const ids = [...prompt];
    let margin = Infinity;
    for (let i = 0; i < count; i++) {
      const logits = logitsOf(model, ids.slice(droppedOf(ids.length, block))).slice(-vocabulary).slice(0, tokenizer.vocabulary);
      const [first, second] = [...logits].sort((a, b) => b - a) as [number, number];
      margin = Math.min(margin, first - second);
      ids.push(sampleToken(logits, Math.LOG2E, seed === 0 ? { ...options, temperature: 0 } : { ...options, repetition_penalty: seed }, random, ids.slice(-64)));
    }
    return { ids: ids.slice(prompt.length), margin };
  };

  test.each([3, 1, block, block + 1, 4 * block + 3])("a prompt of %p tokens goes on as full forward passes have it, far beyond a block", (length) => {
    const prompt = text.slice(0, length);
    const expected = written(prompt, 5 * block + 7, 0);
    expect(expected.margin).toBeGreaterThan(1e-4); // else rounding might choose
    expect([...reader.begin().continue(prompt, 5 * block + 7, { ...options, temperature: 0 }, 0)]).toEqual(expected.ids);
    for (const seed of [1, 2]) expect([...reader.begin().continue(prompt, 30, { ...options, repetition_penalty: seed }, seed)]).toEqual(written(prompt, 30, seed).ids);
  });

  test("a text that grows goes on as full forward passes have it, and only what is new is read", () => {
    const conversation = reader.begin();
    let ids = text.slice(0, 3);
    let held: number[] = [];
    const read: number[] = [];
    for (let turn = 0; turn < 9; turn++) {
      const expected = written(ids, 4, 0);
      expect(expected.margin).toBeGreaterThan(1e-4);
      expect([...conversation.continue(ids, 4, { ...options, temperature: 0 }, 0)]).toEqual(expected.ids);
      const context = ids.slice(droppedOf(ids.length, block));
      const common = context.findIndex((id, i) => i === context.length - 1 || id !== held[i]);
      expect(conversation.read).toBe(context.length - common);
      read.push(conversation.read);
      const all = [...ids, ...expected.ids.slice(0, -1)]; // nobody has asked what follows on the last one
      held = all.slice(droppedOf(all.length, block));
      ids = [...ids, ...expected.ids.slice(0, turn % 3 === 2 ? 2 : 4), ...text.slice(10 * turn, 10 * turn + (turn % 3))]; // the end of some answers is not taken over
    }
    expect(read[0]).toBe(block === 1 ? 1 : 3);
    expect(read[1]).toBe(1);
    expect(Math.max(...read)).toBeWithin(1, block + 1);
    // Another text with other weights: nothing is left of the one before.
    const parameter = model.parameters()[0]!;
    const before = parameter.toArray().slice();
    parameter.copy_(before.map((value) => -value) as Float32Array);
    expect([...reader.begin().continue(ids, 4, { ...options, temperature: 0 }, 0)]).toEqual(written(ids, 4, 0).ids);
    parameter.copy_(before as Float32Array);
    expect(failure(() => conversation.continue([], 4, options, 0).next()).message).toContain("at least one token");
  });

  test("the context is a block at most, half of one at least, and does not depend on where the prompt ended", () => {
    for (let count = 1; count < 6 * block; count++) {
      const kept = count - droppedOf(count, block);
      expect(kept).toBeWithin(Math.min(count, Math.floor(block / 2) + (block === 1 ? 1 : 0)), block + 1);
      expect(droppedOf(count + 1, block)).toBeGreaterThanOrEqual(droppedOf(count, block));
    }
    const whole = [...reader.begin().continue(text.slice(0, 5), 40, options, 3)];
    expect([...reader.begin().continue(text.slice(0, 5), 20, options, 3)]).toEqual(whole.slice(0, 20));
    const greedy = { ...options, temperature: 0 };
    const first = [...reader.begin().continue(text.slice(0, 5), 40, greedy, 3)];
    expect([...reader.begin().continue([...text.slice(0, 5), ...first.slice(0, 17)], 23, greedy, 3)]).toEqual(first.slice(17));
  });

  test("bytes in, bytes out; an empty prompt begins behind the end of a text", () => {
    const prompt = Uint8Array.from([97, 99, 101]);
    const ids = [...reader.begin().continue([0, 2, 4], 12, options, 9)];
    const texts = (ids: number[]) => ids.slice(0, [...ids, 20].indexOf(20)).map((id) => tokenizer.decode([id])); // up to the end of a text
    expect([...reader.begin().generate(prompt, 12, options, 9)]).toEqual(texts(ids));
    expect([...reader.begin().generate(new Uint8Array(0), 5, options, 9)]).toEqual(texts([...reader.begin().continue([20], 5, options, 9)]));
    expect(ids.every((id) => id < tokenizer.vocabulary)).toBe(true); // the model has two ids more
  });

  test("two texts at once are refused, and memory is taken once", async () => {
    const { bytes } = reader;
    expect(bytes).toBeGreaterThan(0);
    const first = reader.begin().continue([1], 9, options, 1);
    first.next();
    const second = reader.begin().continue([1], 9, options, 1);
    second.next();
    expect(failure(() => first.next()).message).toContain("another one was begun");
    expect([...second]).toHaveLength(8);
    await reader.loss(tokensOf(text.slice(0, 50)), Infinity);
    expect(reader.bytes).toBe(bytes);
  });
});

test("a saved model is opened again and writes the same", () => {
  const model = made(shapes.llama);
  const saved = new Map([...saveTransformer(model)].map(([name, each]) => [name, { ...each, data: new Uint8Array(Buffer.concat(piecesOf(each).map((piece) => bytesNow(piece).slice()))) }]));
  const [first, second] = [new TransformerText(model, tokenizer), openTransformer(context(), shapes.llama, saved, tokenizer)];
  const options = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 };
  expect([...second.begin().continue([3], 30, options, 4)]).toEqual([...first.begin().continue([3], 30, options, 4)]);
  for (const each of [first, second]) {
    each.release();
    each.model.release();
  }
});

test("what cannot be is refused", async () => {
  const model = made(shapes.gpt);
  const reader = new TransformerText(model, tokenizer);
  const options = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 };
  expect(failure(() => new TransformerText(model, { ...tokenizer, vocabulary: 24 })).message).toBe("[transformer] the tokenizer letters has 24 ids, the model 23.");
  expect(failure(() => [...reader.begin().continue([], 3, options, 1)]).message).toContain("at least one token");
  expect(failure(() => [...reader.begin().continue([23], 3, options, 1)]).kind).toBe("data");
  expect(failure(() => model.logits(tensor(new Int32Array(9), { shape: [1, 9] }))).message).toBe("[transformer] 9 positions, this model has learned 8.");
  expect(failure(() => model.hidden(tensor(new Int32Array(4)))).message).toBe("[transformer] ids (4): expected (batch, time).");
  const caches = model.caches(1, 9);
  expect(failure(() => noGrad(() => model.logits(tensor(new Int32Array(1), { shape: [1, 1] }), caches))).message).toContain("9 positions, this model has learned 8");
  for (const cache of caches) cache.release();
  expect(reader.loss(tokensOf([1]), 10)).rejects.toThrow("evaluation needs 2 tokens, found 1");
  reader.release();
  model.release();
});
