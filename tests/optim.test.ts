// Optimizers and schedules: the golden steps on every tier, resume to the bit, clipping, skipped updates, decay, errors.
// Not the kernels alone (kernels/float/optimize_test.zig). Read next: src/tensor/optim.ts, src/tensor/schedules.ts.
import { afterAll, describe, expect, spyOn, test } from "bun:test";
import { machine } from "../src/native/machine.ts";
import { holdings } from "../src/tensor/memory.ts";
import { capture, memory, nn, optim, Parameter, schedules, tensor, useThreads, manualSeed, ones, randn, functional as F, type Tensor } from "../src/tensor/egg.ts";
import { failure } from "./failure.ts";
import optimGolden from "./golden/optim.json";
import scheduleGolden from "./golden/schedules.json";

const { AdamW, Lion, SGD } = optim;
const tiers = machine().tiers.filter(({ available }) => available).map(({ name }) => name);
afterAll(() => useThreads(0));

interface Settings { lr: number; momentum?: number; nesterov?: boolean; beta1?: number; beta2?: number; eps?: number; weight_decay: number }

function make(kind: string, parameters: Iterable<Parameter>, { lr, momentum, nesterov, beta1, beta2, eps, weight_decay: weightDecay }: Settings): optim.Optimizer {
  const betas = [beta1!, beta2!] as const;
  switch (kind) {
    case "sgd": return new SGD(parameters, { lr, momentum, nesterov, weightDecay });
    case "adam": return new optim.Adam(parameters, { lr, betas, eps, weightDecay });
    case "adamw": return new AdamW(parameters, { lr, betas, eps, weightDecay });
    case "lion": return new Lion(parameters, { lr, betas, weightDecay });
    default: throw new Error(`the optimizer ${kind} is not known here`);
  }
}

/** Gives a parameter exactly this gradient. */
function giveGradient(parameter: Parameter, gradient: readonly number[]): void {
  parameter.mul(tensor(Float32Array.from(gradient), { shape: parameter.shape })).sum().backward();
}

describe.each(tiers)("golden steps on %s", (tier) => {
  test.each(optimGolden.cases.map((each) => [each.name, each] as const))("%s", (_, { kind, settings, weights }) => {
    useThreads(2, tier);
    const w = new Parameter(Float32Array.from(optimGolden.start), [7, 1]); // a matrix, so that it decays
    const optimizer = make(kind, [w], settings as Settings);
    optimGolden.gradients.forEach((gradient, t) => {
      optimizer.zeroGrad();
      giveGradient(w, gradient);
      optimizer.step();
      const found = w.toArray();
      const largest = Math.max(...weights[t]!.map(Math.abs));
      const allowed = Math.max(1e-5 * largest, kind.startsWith("adam") ? 0.05 * settings.lr : 0);
      weights[t]!.forEach((expected, i) => expect(Math.abs(found[i]! - expected)).toBeLessThanOrEqual(allowed));
    });
    expect(optimizer.steps).toBe(4);
    optimizer.release();
    w.release();
  });
});

describe("schedules", () => {
  test.each(scheduleGolden.cases.map((each) => [each.name, each] as const))("%s", (_, { kind, params, steps, lr }) => {
    const { min_lr: minLr, ...rest } = params as { lr: number; warmup: number; total: number; min_lr?: number };
    const name = (kind === "inverse_sqrt" ? "inverseSqrt" : kind) as keyof typeof schedules;
    steps.forEach((step, i) => expect(Math.abs(schedules[name](step, { ...rest, minLr }) - lr[i]!)).toBeLessThanOrEqual(1e-15 + 1e-12 * lr[i]!));
  });

  test("refuse what is no number", () => {
    expect(failure(() => schedules.cosine(-1, { lr: 1, total: 5 })).message).toBe("[schedules] cosine: step = -1 is not a number from 0.");
    expect(failure(() => schedules.linear(0, { lr: 1, total: NaN })).message).toContain("total = NaN");
    expect(failure(() => schedules.constant(0, { lr: Infinity })).message).toContain("lr = Infinity");
    // A share of the run as warm-up would give ten times lr at step 0.
    for (const name of ["constant", "linear", "cosine", "inverseSqrt"] as const) expect(failure(() => schedules[name](0, { lr: 1, warmup: 0.1, total: 100 })).message).toBe(`[schedules] ${name}: warmup = 0.1 is not a whole number of steps.`);
    expect(failure(() => schedules.cosine(0, { lr: 1, total: 10.5 })).message).toContain("total = 10.5 is not a whole number of steps");
  });
});

/** A model with matrices and vectors in turn, and its data. */
function problem(): { model: nn.Sequential; loss: () => Tensor } {
  manualSeed(3);
  const model = new nn.Sequential(new nn.Linear(5, 13, { activation: "gelu" }), new nn.LayerNorm(13), new nn.Linear(13, 3));
  const x = randn([16, 5], { seed: 1 });
  const y = tensor(Int32Array.from({ length: 16 }, (_, i) => i % 3));
  return { model, loss: () => F.crossEntropy(model.forward(x), y) };
}

function train(loss: () => Tensor, optimizer: optim.Optimizer, steps: number): number[] {
  return Array.from({ length: steps }, () => {
    optimizer.zeroGrad();
    const value = loss();
    value.backward();
    optimizer.lr = schedules.linear(optimizer.steps, { lr: 0.01, total: 20, warmup: 3 });
    optimizer.step();
    return value.item();
  });
}

const bitsOf = (state: Record<string, Tensor>): Record<string, number[]> => Object.fromEntries(Object.entries(state).map(([name, value]) => [name, [...new Int32Array(value.toArray().buffer)]]));
const kinds: Record<string, (parameters: [string, Parameter][]) => optim.Optimizer> = {
  sgd: (parameters) => new SGD(parameters, { clip: 1, weightDecay: 0.1 }),
  nesterov: (parameters) => new SGD(parameters, { momentum: 0.9, nesterov: true, weightDecay: 0.1 }),
  adam: (parameters) => new optim.Adam(parameters, { weightDecay: 0.1 }),
  adamw: (parameters) => new AdamW(parameters, { clip: 0.5 }),
  lion: (parameters) => new Lion(parameters, { clip: 0.5, weightDecay: 0.1 }),
};

describe.each(Object.keys(kinds))("%s", (name) => {
  test("goes on from its state with the bits of a run that was never broken off", () => {
    const whole = problem();
    const one = kinds[name]!(whole.model.namedParameters());
    const losses = train(whole.loss, one, 9);
    expect(losses[8]!).toBeLessThan(losses[0]!);

    const first = problem();
    const before = kinds[name]!(first.model.namedParameters());
    const early = train(first.loss, before, 4);
    const [weights, state] = [first.model.stateDict(), before.stateDict()];
    before.release();
    first.model.release();

    const second = problem();
    train(second.loss, new SGD(second.model.parameters()), 2); // other weights than those to come
    second.model.loadStateDict(weights);
    const after = kinds[name]!(second.model.namedParameters());
    after.loadStateDict(state);
    expect([...early, ...train(second.loss, after, 5)]).toEqual(losses);
    expect(bitsOf(second.model.stateDict())).toEqual(bitsOf(whole.model.stateDict()));
    expect(bitsOf(after.stateDict().tensors)).toEqual(bitsOf(one.stateDict().tensors));
    for (const each of [one, after]) each.release();
    for (const { model } of [whole, second]) model.release();
  });

  test("captured, does the same to the bit, with the learning rate of each step", async () => {
    const eager = problem();
    const one = kinds[name]!(eager.model.namedParameters());
    const losses = train(eager.loss, one, 6);
    const { model, loss } = problem();
    const optimizer = kinds[name]!(model.namedParameters());
    const program = capture({}, () => {
      optimizer.zeroGrad();
      const value = loss();
      value.backward();
      optimizer.step();
      return value;
    });
    const found: number[] = [];
    for (let i = 0; i < 6; i++) {
      optimizer.lr = schedules.linear(optimizer.steps, { lr: 0.01, total: 20, warmup: 3 });
      if (i % 2 === 0) expect(await program.run({})).toBe(true);
      else program.runNow({});
      found.push(program.outputs.item());
    }
    expect(found).toEqual(losses);
    expect(optimizer.steps).toBe(6);
    expect(bitsOf(model.stateDict())).toEqual(bitsOf(eager.model.stateDict()));
    expect(optimizer.gradientNorm()).toBe(one.gradientNorm());
    program.release();
    for (const each of [one, optimizer]) each.release();
    for (const each of [model, eager.model]) each.release();
  });

  test("changes nothing where a gradient is not finite, and does not count the step: eager and captured", () => {
    const { model, loss } = problem();
    const optimizer = kinds[name]!(model.namedParameters());
    train(loss, optimizer, 2);
    const [weights, state] = [bitsOf(model.stateDict()), bitsOf(optimizer.stateDict().tensors)];
    for (const bad of [NaN, Infinity]) {
      optimizer.zeroGrad();
      loss().mul(bad).backward();
      optimizer.step();
      expect(optimizer.gradientNorm()).not.toBeLessThan(Infinity);
      expect(optimizer.steps).toBe(2);
      expect(bitsOf(model.stateDict())).toEqual(weights);
      expect(bitsOf(optimizer.stateDict().tensors)).toEqual(state);
    }
    const program = capture({ factor: { shape: [] } }, ({ factor }) => {
      optimizer.zeroGrad();
      const value = loss();
      value.mul(factor).backward();
      optimizer.step();
      return value;
    });
    for (const bad of [NaN, Infinity]) {
      program.runNow({ factor: Float32Array.of(bad) });
      expect(optimizer.steps).toBe(2);
      expect(bitsOf(model.stateDict())).toEqual(weights);
    }
    // What follows has the bits of a run in which the skipped steps never were.
    const other = problem();
    const plain = kinds[name]!(other.model.namedParameters());
    train(other.loss, plain, 2);
    for (let i = 0; i < 3; i++) {
      plain.zeroGrad();
      other.loss().backward();
      plain.step();
      program.runNow({ factor: Float32Array.of(1) });
      program.runNow({ factor: Float32Array.of(NaN) });
    }
    expect([optimizer.steps, plain.steps]).toEqual([5, 5]);
    expect(bitsOf(model.stateDict())).toEqual(bitsOf(other.model.stateDict()));
    program.release();
    for (const each of [optimizer, plain]) each.release();
    for (const each of [model, other.model]) each.release();
  });
});

describe("a step", () => {
  test("scales all gradients down to the global norm, over several pieces of memory", () => {
    const a = new Parameter(new Float32Array(3), [3]);
    const gap = new Parameter(new Float32Array(500).fill(7), [500]);
    const b = new Parameter(new Float32Array(4), [2, 2]);
    const optimizer = new SGD([a, b], { lr: 1, clip: 1 });
    const step = (scale?: number): number[] => {
      optimizer.zeroGrad();
      a.mul(tensor([1, 2, 2])).sum().add(b.mul(2).sum()).backward(); // norm 5
      optimizer.step(scale);
      return [...a.toArray(), ...b.toArray()];
    };
    expect(step().map((value) => value.toFixed(5))).toEqual([1, 2, 2, 2, 2, 2, 2].map((g) => (-g / 5).toFixed(5)));
    expect(optimizer.gradientNorm()).toBe(5);
    const before = step();
    expect(step(0.1).map((value, i) => (value - before[i]!).toFixed(5))).toEqual([1, 2, 2, 2, 2, 2, 2].map((g) => (-g / 10).toFixed(5)));
    expect(optimizer.gradientNorm()).toBeCloseTo(0.5, 6);
    expect(gap.toArray()).toEqual(new Float32Array(500).fill(7));
    optimizer.release();
    for (const each of [a, gap, b]) each.release();
  });

  test("decays matrices only, also where they lie between vectors", () => {
    const parameters = [[4], [2, 2], [3], [1, 5], [2, 2, 2], []].map((shape) => new Parameter(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1), shape));
    const optimizer = new AdamW(parameters, { lr: 0.5, weightDecay: 0.5 });
    parameters.map((each) => each.mul(0).sum()).reduce((a, b) => a.add(b)).backward();
    optimizer.step();
    expect(parameters.map((each) => [...new Set(each.toArray())])).toEqual([[1], [0.75], [1], [0.75], [0.75], [1]]);
    optimizer.release();
    for (const each of parameters) each.release();
  });

  test("leaves parameters without a gradient as they are: no decay, no momentum; eager and captured", () => {
    const names = ["used", "first", "second", "never"];
    const run = (captured: boolean): number[][] => {
      const [used, first, second, never] = names.map((_, i) => new Parameter(Float32Array.of(1, 2, 3, 4), i % 2 === 0 ? [2, 2] : [4])) as [Parameter, Parameter, Parameter, Parameter];
      const all = [used, first, second, never];
      const optimizer = new AdamW(all, { lr: 0.1, weightDecay: 0.5, clip: 1 });
      const steps = [first, second].map((other) => () => {
        optimizer.zeroGrad();
        used.reshape(4).add(other.reshape(4).square()).sum().backward();
        optimizer.step();
      });
      const programs = captured ? steps.map((step) => capture({}, step)) : [];
      const seen: number[][] = [];
      for (const i of [0, 0, 1, 0]) {
        const before = all.map((each) => [...each.toArray()]);
        if (captured) programs[i]!.runNow({});
        else steps[i]!();
        const moved = all.map((each, j) => [...each.toArray()].some((value, k) => value !== before[j]![k]));
        expect(moved).toEqual([true, i === 0, i === 1, false]);
        seen.push(all.flatMap((each) => [...each.toArray()]), [optimizer.gradientNorm()]);
      }
      const state = optimizer.stateDict().tensors;
      expect([...state["3.exp_avg"]!.toArray()]).toEqual([0, 0, 0, 0]);
      seen.push(...Object.values(state).map((each) => [...each.toArray()]));
      for (const program of programs) program.release();
      optimizer.release();
      for (const each of all) each.release();
      return seen;
    };
    expect(run(true)).toEqual(run(false));
  });

  test("corrects Adam's averages by the updates that each parameter has had: eager, captured, and from a state", () => {
    const run = (captured: boolean, reload: boolean): number[][] => {
      const [early, late] = [1, 1].map((value) => new Parameter(Float32Array.of(value), [1])) as [Parameter, Parameter];
      let optimizer = new optim.Adam([["early", early], ["late", late]], { lr: 0.1 });
      const [first, both] = [[early], [early, late]].map((used) => () => {
        optimizer.zeroGrad();
        used.map((each) => each.sum()).reduce((a, b) => a.add(b)).backward();
        optimizer.step();
      }) as [() => void, () => void];
      const programs = captured ? [first, both].map((step) => capture({}, step)) : [];
      const seen = [0, 0, 1, 1, 0, 1].map((which, i) => {
        if (captured) programs[which]!.runNow({});
        else [first, both][which]!();
        if (reload && i === 3) {
          const state = optimizer.stateDict();
          expect(state).toMatchObject({ step: 4, steps: { late: 2 } });
          optimizer.release();
          optimizer = new optim.Adam([["early", early], ["late", late]], { lr: 0.1 });
          optimizer.loadStateDict(state);
        }
        return [early.item(), late.item()];
      });
      for (const program of programs) program.release();
      for (const each of [optimizer, early, late]) each.release();
      return seen;
    };
    const seen = run(false, false);
    // A steady gradient of 1 moves a weight by lr at each of its own updates.
    [[0.9, 1], [0.8, 1], [0.7, 0.9], [0.6, 0.8], [0.5, 0.8], [0.4, 0.7]].forEach((expected, i) => expected.forEach((value, j) => expect(seen[i]![j]!).toBeCloseTo(value, 5)));
    expect(run(true, false)).toEqual(seen);
    expect(run(false, true)).toEqual(seen);
  });

  test("takes a state in which all parameters have had all updates, and refuses counts that cannot be", () => {
    const w = new Parameter(Float32Array.of(1), [1]);
    const optimizer = new optim.Adam([["w", w]], { lr: 0.1 });
    const state = optimizer.stateDict();
    expect(Object.keys(state)).toEqual(["rule", "step", "tensors"]);
    optimizer.loadStateDict({ ...state, step: 7 });
    expect(optimizer.stateDict()).toEqual({ ...state, step: 7 });
    const wrong: Record<string, number>[] = [{ w: 8 }, { w: -1 }, { w: 0.5 }, { v: 1 }];
    for (const steps of wrong) expect(failure(() => optimizer.loadStateDict({ ...state, step: 7, steps })).kind).toBe("data");
    for (const each of [optimizer, w]) each.release();
  });

  test("of gradients that one program adds up and another one uses", () => {
    const w = new Parameter(Float32Array.of(1, 2), [2]);
    const optimizer = new SGD([w], { lr: 0.5 });
    const micro = capture({ x: { shape: [2] } }, ({ x }) => w.mul(x).sum().backward());
    const update = capture({}, () => {
      optimizer.step(0.5);
      optimizer.zeroGrad();
    });
    for (let i = 0; i < 2; i++) {
      micro.runNow({ x: Float32Array.of(1, 2) });
      micro.runNow({ x: Float32Array.of(3, 2) });
      update.runNow({});
    }
    expect(w.toList()).toEqual([-1, 0]);
    for (const each of [micro, update]) each.release();
    optimizer.release();
    w.release();
  });

  test("leaves frozen and foreign parameters alone, and takes each once", () => {
    const [own, frozen, foreign] = [true, false, true].map((requiresGrad) => new Parameter(Float32Array.of(1, 1), [2], { requiresGrad })) as [Parameter, Parameter, Parameter];
    const optimizer = new SGD([own, frozen, own], { lr: 0.25 });
    own.add(frozen).add(foreign).sum().backward();
    optimizer.step();
    expect([own, frozen, foreign].map((each) => each.toList())).toEqual([[0.75, 0.75], [1, 1], [1, 1]]);
    optimizer.release();
    for (const each of [own, frozen, foreign]) each.release();
  });
});

describe("refused", () => {
  const w = new Parameter(new Float32Array(4), [2, 2]);
  const cases: [string, () => unknown, string][] = [
    ["no parameters", () => new SGD([]), "[optim] SGD: there are no parameters that require gradients."],
    ["a module", () => new SGD(new nn.Linear(1, 1) as never), "[optim] SGD: parameters are no list."],
    ["a tensor", () => new SGD([ones([2], { requiresGrad: true })] as never), "[optim] SGD: 0 is no Parameter."],
    ["groups", () => new SGD([{ params: [w], lr: 1 }] as never), "[optim] SGD: 0 is no Parameter."],
    ["one name of two", () => new SGD([["a", w], ["a", new Parameter(null, [1])]]), "[optim] SGD: two parameters go by the name a."],
    ["lr", () => new AdamW([w], { lr: NaN }), "[optim] AdamW: lr = NaN is not a number from 0."],
    ["beta", () => new optim.Adam([w], { betas: [0.9, 1] }), "[optim] Adam: a beta of 1 is not in 0 .. 1."],
    ["decay", () => new Lion([w], { weightDecay: -1 }), "[optim] Lion: weightDecay = -1 is not a number from 0."],
    ["momentum", () => new SGD([w], { momentum: 1.5 }), "[optim] SGD: momentum of 1.5 is not in 0 .. 1."],
    ["nesterov", () => new SGD([w], { nesterov: true }), "nesterov needs a momentum"],
    ["a later lr", () => (new SGD([w]).lr = -1), "lr = -1 is not"],
    ["no backward", () => new SGD([w]).step(), "[optim] SGD: step() without a backward() before it: no parameter has a gradient."],
    ["two steps in a program", () => { const optimizer = new SGD([w]); capture({}, () => { w.sum().backward(); optimizer.step(); optimizer.step(); }); }, "[optim] SGD: a second step() in one program"],
    ["a step in a program without gradients", () => { const optimizer = new SGD([w]); capture({}, () => { optimizer.zeroGrad(); optimizer.step(); }); }, "step() without a backward() before it"],
    ["steps", () => (new SGD([w]).steps = 1.5), "[optim] SGD: steps = 1.5 is not a whole number from 0."],
    ["state in another type", () => new Lion([w]).loadStateDict({ rule: "lion", step: 1, tensors: { "0.exp_avg": tensor(new Int32Array(4), { shape: [2, 2] }) } }), "[optim] loadStateDict: 0.exp_avg is i32; state is f32."],
    ["in a capture", () => capture({}, () => new SGD([w])), "make optimizers before a program is captured"],
    ["state of another rule", () => new SGD([w]).loadStateDict(new Lion([w]).stateDict()), "[optim] loadStateDict: the state is of lion, the optimizer is sgd."],
    ["state of other names", () => new Lion([w]).loadStateDict({ rule: "lion", step: 1, tensors: { "1.exp_avg": tensor([1]) } }), "[optim] loadStateDict: missing: 0.exp_avg; extra: 1.exp_avg."],
    ["state of other shapes", () => new Lion([w]).loadStateDict({ rule: "lion", step: 1, tensors: { "0.exp_avg": tensor([1]) } }), "[optim] loadStateDict: wrong shape: 0.exp_avg is (1), expected (2, 2)."],
  ];
  test.each(cases)("%s", (_, action, words) => expect(failure(action).message).toContain(words));

  test("what an optimizer is asked after its release, and a release before its programs'", () => {
    const optimizer = new optim.Adam([w]);
    const step = (): void => {
      w.sum().backward();
      optimizer.step();
    };
    const program = capture({}, step);
    const before = memory().optimizers;
    const state = optimizer.stateDict();
    const { bytes } = optimizer;
    expect(failure(() => optimizer.release()).message).toBe("[optim] Adam: programs that step this optimizer are still there.");
    program.runNow({});
    expect(w.toArray().every((value) => value < 0)).toBe(true);
    const weights = w.toList();
    program.release();
    optimizer.release();
    expect(before - memory().optimizers).toBe(bytes);
    for (const action of [() => optimizer.release(), step, () => optimizer.stateDict(), () => optimizer.loadStateDict(state), () => optimizer.gradientNorm(), () => optimizer.bytes]) {
      const error = failure(action);
      expect([error.kind, error.message]).toEqual(["usage", "[optim] Adam: this optimizer was released."]);
    }
    expect(before - memory().optimizers).toBe(bytes);
    expect(w.toList()).toEqual(weights);
    w.zeroGrad();
  });

  test("a parameter that was released", () => {
    const gone = new Parameter(new Float32Array(2), [2]);
    const optimizer = new SGD([gone]);
    gone.sum().backward();
    gone.release();
    expect(failure(() => optimizer.step()).message).toBe("[tensor] SGD: a tensor (2) was released.");
    optimizer.release();
  });

  test("a fault in the data leaves weights, state and the count of steps", async () => {
    const table = new Parameter(randn([4, 3], { seed: 1 }), [4, 3]);
    const optimizer = new AdamW([table]);
    const program = capture({ ids: { shape: [2], dtype: "i32" } }, ({ ids }) => {
      optimizer.zeroGrad();
      F.embedding(ids, table).square().sum().backward();
      optimizer.step();
    });
    program.runNow({ ids: Int32Array.of(1, 2) });
    const before = bitsOf({ table, ...optimizer.stateDict().tensors });
    expect(failure(() => program.runNow({ ids: Int32Array.of(1, 4) })).kind).toBe("data");
    expect(optimizer.steps).toBe(1);
    expect(bitsOf({ table, ...optimizer.stateDict().tensors })).toEqual(before);
    program.release();
    optimizer.release();
    table.release();
  });
});

test("state beyond the machine is refused when the optimizer is made, and nothing is taken", () => {
  const w = new Parameter(null, [3_000_000]);
  const before = memory().parameters;
  const limit = spyOn(process, "constrainedMemory").mockReturnValue(Object.values(holdings).reduce((a, b) => a + b, 0) + 20e6); // 12 MB of gradients fit, 24 MB of state do not
  try {
    const error = failure(() => new AdamW([w]));
    expect(error.kind).toBe("resources");
    expect(error.message).toMatch(/^\[tensor\] gradients and state of AdamW: [\d,]+ bytes are needed, this machine has [\d,]+\.$/);
    expect(memory().parameters).toBe(before);
    new SGD([w]).release(); // has no state
  } finally {
    limit.mockRestore();
    w.release();
  }
});

test("a released optimizer gives its memory back, and parameters' memory is not more for it", () => {
  const w = new Parameter(new Float32Array(1000), [1000]);
  w.sum().backward();
  const before = memory().parameters;
  const resident = process.memoryUsage.rss();
  for (let i = 0; i < 300; i++) {
    const optimizer = new AdamW([w]);
    optimizer.step();
    optimizer.gradientNorm();
    optimizer.release();
  }
  expect(memory().parameters).toBe(before);
  expect(process.memoryUsage.rss() - resident).toBeLessThan(100e6);
  w.release();
});
