// The golden vectors of two tiny models (tests/golden/gpt-tiny.*, llama-tiny.*: f64 results of an independent program, rounded
// once): logits, losses, activations, every gradient, optimizer trajectories, greedy text. Within 1e-5 of a tensor's largest
// value. Not the model's identities (transformer-identities.test.ts), nor checkpoints (transformer-names.test.ts).
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { transformerParameters, transformerShape } from "../src/models/transformer-shape.ts";
import { Transformer } from "../src/models/transformer.ts";
import { functional as F, noGrad, optim, tensor, type Parameter, type Tensor } from "../src/tensor/egg.ts";
import gptGolden from "./golden/gpt-tiny.json";
import llamaGolden from "./golden/llama-tiny.json";
import { readSafetensors, root } from "./program.ts";

interface Golden {
  config: { V: number; D: number; L: number; H: number; K: number; I: number; T: number; norm_eps: number; rope_base?: number };
  batch: number; params: number; loss: number; loss_ignore: number; grad_norm: number;
  f32_err: { grad_max: number };
  generate: { prompt: number[]; tokens: number[] };
  optimizers: Record<string, { settings: Record<string, number | null>; losses: number[]; grad_norms: number[]; loose?: string[]; exempt?: unknown[] }>;
}

const families = [["gpt", gptGolden as unknown as Golden], ["llama", llamaGolden as unknown as Golden]] as const;

describe.each(families)("%s-tiny", (family, golden) => {
  const { tensors } = readSafetensors(join(root, `tests/golden/${family}-tiny.safetensors`));
  const floats = (name: string): Float32Array => new Float32Array(tensors.get(name)!.data.slice().buffer);
  const integers = (name: string): Int32Array => new Int32Array(tensors.get(name)!.data.slice().buffer);
  const { V, D, L, H, K, I, T, norm_eps, rope_base = 10_000 } = golden.config;
  const shape = transformerShape({
    family, vocabulary: V, layers: L, width: D, heads: H, kvHeads: K, feedForward: I, block: T, normEps: norm_eps, ropeBase: rope_base, ropePairs: "interleaved",
  });
  const model = new Transformer(shape);
  afterAll(() => model.release());

  /** Golden tensors by the names of the model's parameters: rows of wq, wk, wv and of gate, up lie behind each other there. */
  const namesOf = (parameter: string): string[] => {
    const part = /^blocks\.(\d+)\.(\w+)(?:\.(\w+))?\.(weight|bias)$/.exec(parameter);
    if (part === null) return [parameter.replace("embedding", "embed").replace("positions", "pos")];
    const [, layer, module, inner, kind] = part;
    const names = { qkv: ["wq", "wk", "wv"], out: ["wo"], up: family === "llama" ? ["gate", "up"] : ["up"], down: ["down"] }[inner ?? ""] ?? [module!];
    return names.map((name) => `layers.${layer}.${name}.${kind}`);
  };
  const joined = (from: string, parameter: string): Float32Array => {
    const parts = namesOf(parameter).map((name) => floats(`${from}.${name}`));
    return Float32Array.from(parts.flatMap((part) => [...part]));
  };
  /** Elements of a parameter as [golden name, values there]. */
  const split = (parameter: string, values: ArrayLike<number>): [string, number[]][] => {
    let at = 0;
    return namesOf(parameter).map((name) => {
      const { length } = floats(`weights.${name}`);
      return [name, Array.from({ length }, () => values[at++]!)];
    });
  };

  const tokens = tensor(integers("tokens"), { shape: [golden.batch, T] });
  const targets = tensor(integers("targets"), { shape: [golden.batch, T] });
  const ignoring = tensor(integers("targets_ignore"), { shape: [golden.batch, T] });
  const each = (action: (name: string, parameter: Parameter) => void): void => model.namedParameters().forEach(([name, parameter]) => action(name, parameter));
  beforeEach(() => {
    each((name, parameter) => parameter.copy_(joined("weights", name)));
    model.zeroGrad();
    model.train();
  });

  const expectClose = (what: string, found: ArrayLike<number>, expected: ArrayLike<number>): void => {
    expect([what, found.length]).toEqual([what, expected.length]);
    const largest = Array.from(expected).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    for (let i = 0; i < expected.length; i++) if (!(Math.abs(found[i]! - expected[i]!) <= 1e-5 * largest)) throw new Error(`${what}[${i}]: found ${found[i]}, expected ${expected[i]}, largest ${largest}`);
  };
  /** A key bias has a gradient of 0 by theory (`loose`): no more than rounding noise of the others. */
  const noise = Object.values(golden.optimizers).flatMap(({ loose = [] }) => loose);
  const expectGradient = (part: string, values: readonly number[]): void => {
    if (noise.includes(part)) expect(Math.max(...values.map(Math.abs))).toBeLessThan(1e-6 * golden.f32_err.grad_max);
    else expectClose(part, values, floats(`grads.${part}`));
  };
  const relative = (found: number, expected: number): number => Math.abs(found / expected - 1);

  test("has the golden number of parameters", () => {
    expect(model.parameterCount).toBe(golden.params);
    expect(transformerParameters(shape)).toBe(golden.params);
  });

  test("has the golden logits and what goes from block to block", () => {
    const found = noGrad(() => {
      const embedded = model.embed(tokens);
      const layers = model.blocks.reduce<Tensor[]>((all, block) => [...all, block.forward(all.at(-1)!, null)], [embedded]).slice(1);
      return { embedded, layers, norm: model.norm.forward(layers.at(-1)!), hidden: model.hidden(tokens), logits: model.logits(tokens), last: model.logits(tokens, null, { last: true }) };
    });
    expectClose("embed", found.embedded.toArray(), floats("acts.embed"));
    found.layers.forEach((layer, i) => expectClose(`layer ${i}`, layer.toArray(), floats(`acts.layers.${i}`)));
    for (const value of [found.norm, found.hidden]) expectClose("norm", value.toArray(), floats("acts.norm"));
    const expected = floats("logits");
    expectClose("logits", found.logits.toArray(), expected);
    const lasts = Array.from({ length: golden.batch }, (_, i) => [...expected.subarray(((i + 1) * T - 1) * V, (i + 1) * T * V)]).flat();
    expectClose("last", found.last.toArray(), lasts);
  });

  test("has the golden losses and gradients, with all logits at once or in chunks", () => {
    const loss = model.loss(tokens, targets);
    loss.backward();
    expect(relative(loss.item(), golden.loss)).toBeLessThan(1e-5);
    let squares = 0;
    each((name, parameter) => {
      const found = parameter.grad!.toArray();
      for (const value of found) squares += value * value;
      for (const [part, values] of split(name, found)) expectGradient(part, values);
    });
    expect(relative(Math.sqrt(squares), golden.grad_norm)).toBeLessThan(1e-5);
    model.zeroGrad();
    const whole = F.crossEntropy(model.logits(tokens), targets);
    whole.backward();
    expect(relative(whole.item(), golden.loss)).toBeLessThan(1e-5);
    each((name, parameter) => split(name, parameter.grad!.toArray()).forEach(([part, values]) => expectGradient(part, values)));
  });

  test("has the golden loss and gradient where targets do not count", () => {
    const loss = model.loss(tokens, ignoring);
    loss.backward();
    expect(relative(loss.item(), golden.loss_ignore)).toBeLessThan(1e-5);
    expectClose("embed", model.embedding.weight.grad!.toArray(), floats("grads_ignore.embed.weight"));
  });

  const rules = { adamw: optim.AdamW, lion: optim.Lion, sgd: optim.SGD } as const;
  test.each(Object.keys(golden.optimizers) as (keyof typeof rules)[])("trains as the golden %s does", (rule) => {
    const { settings, losses, grad_norms, loose = [], exempt = [] } = golden.optimizers[rule]!;
    const { lr, clip, beta1, beta2, momentum, weight_decay } = settings as Record<string, number>;
    const betas = beta1 === undefined ? {} : { betas: [beta1, beta2!] as const };
    const optimizer = new rules[rule](model.namedParameters(), { lr, clip: clip ?? 0, weightDecay: weight_decay ?? 0, ...betas, ...(momentum === undefined ? {} : { momentum }) });
    losses.forEach((expected, step) => {
      optimizer.zeroGrad();
      const loss = model.loss(tokens, targets);
      loss.backward();
      expect(relative(loss.item(), expected)).toBeLessThan(1e-5);
      if (step === losses.length - 1) return;
      optimizer.step();
      expect(relative(optimizer.gradientNorm(), grad_norms[step]!)).toBeLessThan(1e-5);
    });
    optimizer.release();
    // AdamW divides small gradients by small numbers: 0.05 lr. `loose`: gradients that are rounding noise. `exempt`: elements
    // of Lion's whose sign rounding may turn.
    let turned = 0;
    each((name, parameter) => split(name, parameter.toArray()).forEach(([part, values]) => {
      const expected = floats(`${rule}.${part}`);
      const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const allowed = loose.includes(part) ? 5 * lr! : Math.max(1e-5 * largest, rule === "adamw" ? 0.05 * lr! : 0);
      const wrong = values.filter((value, i) => !(Math.abs(value - expected[i]!) <= allowed)).length;
      if (rule === "lion") turned += wrong;
      else expect([part, wrong]).toEqual([part, 0]);
    }));
    expect(turned).toBeLessThanOrEqual(exempt.length);
  });

  describe("writes the golden tokens, one full forward and a cache giving the golden logits alike", () => {
    const { prompt, tokens: text } = golden.generate;
    const ids = Int32Array.from(text.slice(0, -1));
    const expected = floats("generate.logits");
    const part = (from: number, to: number): Tensor => tensor(ids.slice(from, to), { shape: [1, to - from] });
    const greedy = (logits: ArrayLike<number>): number[] =>
      Array.from({ length: logits.length / V }, (_, row) => Array.from({ length: V }, (_, i) => i).reduce((best, i) => (logits[row * V + i]! > logits[row * V + best]! ? i : best)));

    test("full", () => {
      const logits = noGrad(() => model.eval().logits(part(0, ids.length))).toArray();
      expectClose("logits", logits, expected);
      expect(greedy(logits).slice(prompt.length - 1)).toEqual(text.slice(prompt.length));
    });

    test.each([["the prompt, then token by token", [prompt.length]], ["token by token", []], ["in pieces", [3, 4, 9]]])("%s", (_, cuts) => {
      const ends = [...cuts, ...Array.from({ length: ids.length }, (_, i) => i + 1).filter((end) => end > (cuts.at(-1) ?? 0))];
      const caches = model.eval().caches(1, ids.length);
      const logits = ends.flatMap((end, i) => [...noGrad(() => model.logits(part(ends[i - 1] ?? 0, end), caches)).toArray()]);
      expectClose("logits", logits, expected);
      expect(greedy(logits).slice(prompt.length - 1)).toEqual(text.slice(prompt.length));
      for (const cache of caches) cache.release();
    });
  });
});
