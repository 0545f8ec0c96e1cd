// Where numbers lie: bf16 parameters, reading and writing by pieces, what native memory is held for, whose numbers are whose, plans of
// programs, and the
// loss that writes its gradients where they belong. Not steps and programs as such: tensor-program.test.ts.
// Read next: src/tensor/memory.ts, src/tensor/plan.ts.
import { describe, expect, spyOn, test } from "bun:test";
import { activations } from "../src/tensor/device.ts";
import { capture, computeIn, flush, functional as F, manualSeed, memory, named, nn, noGrad, ones, optim, Parameter, randn, tensor, zeros, type Tensor } from "../src/tensor/egg.ts";
import { Buffer, beyond } from "../src/tensor/memory.ts";
import { planMemory } from "../src/tensor/plan.ts";
import { failure } from "./failure.ts";

const floats = (shape: readonly number[], seed: number): Float32Array => randn(shape, { seed }).toArray() as Float32Array;

describe("bf16 parameters", () => {
  const values = Float32Array.of(1, -2.5, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 3.3895313e38, 1e-40, -0, Infinity);
  // To nearest, ties to even; the largest of f32 rounds up to infinity where it must, here it does not.
  const bits = Uint16Array.of(0x3f80, 0xc020, 0x3f80, 0x3f82, 0x7f7f, 0x0001, 0x8000, 0x7f80);

  test("are made from f32 numbers, from bits, and from tensors of either type, and round as the kernels do", () => {
    const made = [
      new Parameter(values, [8], { dtype: "bf16" }), new Parameter(bits, [8]), new Parameter(tensor(values), [8], { dtype: "bf16" }), new Parameter(tensor(bits), [8]),
      new Parameter(tensor(values).to("bf16"), [8]), new Parameter(null, [8], { dtype: "bf16" }).copy_(tensor(values)), new Parameter(null, [8], { dtype: "bf16" }).copy_(bits),
    ];
    for (const each of made) {
      expect([each.dtype, each.requiresGrad, each.bytes]).toEqual(["bf16", false, 16]);
      const found = new Uint16Array(8);
      each.readRange(0, found);
      expect(found).toEqual(bits);
      each.release();
    }
    const wide = new Parameter(null, [8]).copy_(tensor(bits));
    expect([...wide.toArray()]).toEqual([1, -2.5, 1, 1.015625, 3.3895313892515355e38, 2 ** -133, -0, Infinity]);
    expect(new Parameter(Float32Array.of(NaN), [1], { dtype: "bf16" }).item()).toBeNaN();
    wide.release();
  });

  test("are weights of linear, matmul and embedding, whose other inputs get their gradients", () => {
    const rounded = (shape: readonly number[], seed: number): [Parameter, Float32Array] => {
      const parameter = new Parameter(floats(shape, seed), shape, { dtype: "bf16" });
      return [parameter, parameter.toArray() as Float32Array];
    };
    const [w, wide] = rounded([5, 7], 1);
    const [table, rows] = rounded([9, 7], 2);
    const ids = tensor([3, 8, 3], { dtype: "i32" });
    const run = (weight: Tensor, words: Tensor): number[][] => {
      const x = new Parameter(floats([3, 7], 3), [3, 7]);
      const h = x.add(F.embedding(ids, words));
      const y = F.linear(h, weight).matmul(weight);
      const out = [...y.toArray()];
      y.square().sum().backward();
      const found = [out, [...x.grad!.toArray()]];
      x.release();
      return found;
    };
    const expected = run(tensor(wide, { shape: [5, 7] }), tensor(rows, { shape: [9, 7] }));
    run(w, table).forEach((found, i) => found.forEach((value, j) => expect(value).toBeCloseTo(expected[i]![j]!, 4)));
    for (const each of [w, table]) each.release();
  });

  test("have no gradient and no optimizer; f32 ones with products in bf16 do", () => {
    expect(failure(() => new Parameter(values, [8], { dtype: "bf16", requiresGrad: true })).message).toBe("[tensor] a bf16 tensor cannot require gradients; f32 ones can.");
    const w = new Parameter(bits, [2, 4]);
    const error = failure(() => new optim.AdamW([["head", w]]));
    expect([error.kind, error.message, error.hint]).toEqual(["usage", "[optim] AdamW: parameter head (2, 4) is bf16, and only f32 can be updated.", 'Keep the weights in f32 and compute in bf16: computeIn("bf16", () => ...).']);
    w.release();
    const master = new Parameter(floats([4, 4], 5), [4, 4]);
    const optimizer = new optim.SGD([master], { lr: 1e-4 });
    const before = master.toArray();
    computeIn("bf16", () => F.linear(randn([3, 4], { seed: 6 }), master)).sum().backward();
    optimizer.step();
    expect(Math.max(...master.toArray().map((value, i) => Math.abs(value - before[i]!)))).toBeGreaterThan(1e-7); // less than bf16 could hold
    optimizer.release();
    master.release();
  });
});

describe("by pieces", () => {
  test("a parameter and an optimizer's state are read and written, and go on to the same bits", () => {
    manualSeed(2);
    const model = new nn.Sequential(new nn.Linear(6, 11), new nn.Linear(11, 3));
    const optimizer = new optim.AdamW(model.namedParameters());
    const train = (): number => {
      optimizer.zeroGrad();
      const loss = model.forward(randn([4, 6], { seed: 1 })).square().mean();
      loss.backward();
      optimizer.step();
      return loss.item();
    };
    train();
    const stored = [...model.parameters(), ...optimizer.moments()];
    const kept = stored.map((each) => {
      const count = each.shape.reduce((a, b) => a * b, 1);
      const all = new Float32Array(count);
      for (let first = 0; first < count; first += 5) each.readRange(first, all.subarray(first, first + 5));
      return all;
    });
    expect(kept.slice(0, 4).map((each) => [...each])).toEqual(model.parameters().map((each) => [...each.toArray()]));
    const state = optimizer.stateDict();
    expect(optimizer.moments().map(({ name }) => name)).toEqual(Object.keys(state.tensors));
    expect(kept.slice(4).map((each) => [...each])).toEqual(Object.values(state.tensors).map((each) => [...each.toArray()]));
    const expected = [train(), train()];
    stored.forEach((each, i) => {
      for (let first = 0; first < kept[i]!.length; first += 7) each.writeRange(first, kept[i]!.subarray(first, first + 7));
    });
    optimizer.steps = 1;
    expect([train(), train()]).toEqual(expected);
    optimizer.release();
    model.release();
  });

  test("what is beyond the end, of another type, or not there is refused", () => {
    const w = new Parameter(new Float32Array(6), [2, 3]);
    const optimizer = new optim.Lion([w]);
    const [moment] = optimizer.moments();
    const cases: [() => unknown, string][] = [
      [() => w.readRange(5, new Float32Array(2)), "[tensor] readRange: 2 elements from 5 on are not within (2, 3), which has 6."],
      [() => w.writeRange(-1, new Float32Array(2)), "[tensor] writeRange: 2 elements from -1 on are not within (2, 3), which has 6."],
      [() => w.readRange(0, new Int32Array(2)), "[tensor] readRange: Int32Array for a f32 tensor (2, 3), which takes Float32Array."],
      [() => w.writeRange(0, new Uint16Array(2)), "[tensor] writeRange: Uint16Array for a f32 tensor (2, 3), which takes Float32Array."],
      [() => capture({}, () => w.readRange(0, new Float32Array(2))), "[tensor] readRange: values cannot be read or written while a program is captured."],
      [() => w.copy_(new Int32Array(6)), "[tensor] copy_: 6 values in Int32Array for a f32 tensor (2, 3), which takes 6 in Float32Array."],
      [() => moment!.readRange(4, new Float32Array(3)), "[optim] Lion: 3 elements from 4 on are not within 0.exp_avg (2, 3)."],
      [() => moment!.writeRange(0.5, new Float32Array(1)), "[optim] Lion: 1 elements from 0.5 on are not within 0.exp_avg (2, 3)."],
    ];
    for (const [action, words] of cases) expect(failure(action).message).toBe(words);
    w.readRange(6, new Float32Array(0));
    optimizer.release();
    w.release();
    expect(failure(() => w.readRange(0, new Float32Array(1))).message).toContain("was released");
  });
});

describe("memory()", () => {
  test("tells what each kind holds, and forgets what was released", () => {
    const before = memory();
    const count = 500_000;
    const w = new Parameter(null, [count]);
    const optimizer = new optim.AdamW([w]);
    const step = capture({ x: { shape: [count] } }, ({ x }) => {
      optimizer.zeroGrad();
      w.mul(x).sum().backward();
      optimizer.step();
    });
    const held = memory();
    expect(held.parameters).toBeGreaterThanOrEqual(4 * count);
    expect(held.gradients).toBeGreaterThanOrEqual(4 * count);
    expect([held.optimizers - before.optimizers, held.programs - before.programs]).toEqual([optimizer.bytes, step.bytes]);
    expect(optimizer.bytes).toBeGreaterThanOrEqual(8 * count);
    expect(step.bytes).toBeGreaterThanOrEqual(8 * count);
    step.release();
    optimizer.release();
    w.release();
    expect({ ...memory(), workspace: 0 }).toEqual({ ...before, workspace: 0 });
  });

  test("of results is what lives: nothing after a step, also one that ends inside noGrad", () => {
    const w = new Parameter(new Float32Array(1000), [1000]);
    w.sum().backward();
    const before = memory();
    const loss = w.mul(2).sum();
    expect(memory().activations).toBeGreaterThan(before.activations);
    const inside = noGrad(() => {
      const kept = w.add(1);
      loss.backward();
      return [kept, w.add(3).sum()] as const;
    });
    expect(failure(() => inside[0].toArray()).message).toContain("died at backward()");
    expect(inside[1].item()).toBe(3000);
    expect(w.grad!.toArray()[0]).toBe(3);
    w.sum().backward();
    expect(memory()).toEqual(before);
    w.release();
  });

  test("that grows because no step ends is told once, in words", () => {
    const warn = spyOn(process, "emitWarning").mockImplementation(() => {});
    const held = spyOn(activations, "inUse");
    const w = new Parameter(null, [1]);
    const read = (): void => { for (let i = 0; i < 110; i++) noGrad(() => w.add(1)).item(); };
    try {
      w.sum().backward();
      read();
      expect(warn).not.toHaveBeenCalled();
      held.mockReturnValue(2 ** 30);
      read();
      expect(warn).toHaveBeenCalledTimes(1);
      expect(warn).toHaveBeenCalledWith(expect.stringContaining("noGrad(() => ...)"), "EggWarning" as {});
    } finally {
      held.mockRestore();
      warn.mockRestore();
      w.release();
    }
  });

  test("is what is resident, to 5 %", () => {
    const file = `
      import { capture, memory, optim, Parameter } from "${import.meta.dir}/../src/tensor/egg.ts";
      new Parameter(null, [1]).sum().item();
      const sum = () => Object.values(memory()).reduce((a, b) => a + b, 0);
      const look = () => { Bun.gc(true); return { resident: process.memoryUsage.rss(), told: sum() }; };
      const before = look();
      const w = new Parameter(null, [2500, 4000]);
      const optimizer = new optim.AdamW([w]);
      const step = capture({ x: { shape: [500, 4000] } }, ({ x }) => {
        optimizer.zeroGrad();
        x.matmul(w, { transposeB: true }).exp().log().square().mean().backward();
        optimizer.step();
      });
      step.runNow({ x: new Float32Array(500 * 4000) });
      const after = look();
      console.log(JSON.stringify([after.resident - before.resident, after.told - before.told]));
    `;
    const { stdout, stderr } = Bun.spawnSync([process.execPath, "-e", file], { cwd: `${import.meta.dir}/..`, env: { ...process.env }, stdout: "pipe", stderr: "pipe" });
    expect(stderr.toString()).toBe("");
    const [resident, told] = JSON.parse(stdout.toString()) as [number, number];
    expect(told).toBeGreaterThan(180e6);
    expect(Math.abs(resident - told)).toBeLessThan(0.05 * told + 8e6); // x in JavaScript, 8 MB, comes and goes with its collector
  });
});

describe("numbers are a tensor's own", () => {
  test("a typed array, a shape and a gradient that are written to afterwards change nothing", () => {
    const data = Float32Array.of(1, 2);
    const shape = [2];
    const [x, y, w] = [tensor(data, { shape, requiresGrad: true }), zeros(shape), new Parameter(data, shape)];
    const sums: number[] = [];
    for (let i = 0; i < 3; i++) {
      sums.push(x.detach().sum().item());
      data.fill(7);
      shape[0] = 5000;
    }
    expect([sums, y.sum().item(), w.shape, x.toList()]).toEqual([[3, 3, 3], 0, [2], [1, 2]]);
    x.sum().backward();
    const { grad } = x;
    x.sum().backward();
    expect([grad!.toList(), x.grad!.toList()]).toEqual([[1, 1], [2, 2]]);
    w.release();
  });

  test("one that was changed between its use and backward() is refused where backward needs it", () => {
    const [x, w] = [new Parameter(Float32Array.of(1, 2), [2]), new Parameter(Float32Array.of(3, 4), [2])];
    const optimizer = new optim.SGD([x, w], { lr: 1 });
    x.sum().add(w.sum()).backward();
    const program = capture({}, () => optimizer.step());
    const changes: (() => void)[] = [
      () => w.copy_(Float32Array.of(5, 6)), () => w.writeRange(1, Float32Array.of(7)), () => F.assign(w, 0, 0, ones([2])), () => optimizer.step(),
      () => program.runNow({}),
    ];
    for (const change of changes) {
      for (const used of [() => x.mul(w), () => x.mul(w.detach()), () => x.mul(w.reshape(2)), () => F.checkpoint((a) => a.mul(w), x), () => F.checkpoint((a, b) => a.mul(b), x, w)]) {
        const loss = used().sum();
        change();
        const error = failure(() => loss.backward());
        expect([error.kind, error.message]).toEqual(["usage", "[tensor] backward: mul: an input (2) was changed after it was used; its gradients would be those of other numbers."]);
      }
    }
    // Where only its gradient is asked for, or after the change, all is well.
    for (const each of [x, w]) each.zeroGrad();
    const loss = x.add(w).sum();
    w.copy_(Float32Array.of(5, 6));
    loss.backward();
    x.mul(w).sum().backward();
    expect(x.grad!.toList()).toEqual([6, 7]);
    for (const each of [program, x, w, optimizer]) each.release();
  });

  test("a program's output, once the program ran again, too", () => {
    const program = capture({ x: { shape: [1] } }, ({ x }) => ({ y: x.mul(2) }));
    const w = new Parameter(Float32Array.of(3), [1]);
    program.runNow({ x: Float32Array.of(1) });
    const loss = program.outputs.y.mul(w).sum();
    program.runNow({ x: Float32Array.of(2) });
    expect(failure(() => loss.backward()).message).toContain("was changed after it was used");
    program.release();
    expect(failure(() => program.outputs.y.item()).message).toContain("was released");
    w.release();
  });
});

describe("a plan", () => {
  test("never lets two buffers that live at one time overlap, and is no larger than all of them", () => {
    let state = 1;
    const random = (below: number): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % below;
    for (let round = 0; round < 20; round++) {
      const lives = Array.from({ length: 1 + random(300) }, () => ({ buffer: new Buffer(random(5000)), first: random(400), length: random(round % 2 === 0 ? 20 : 300) }));
      const fixed = Array.from({ length: random(4) }, () => new Buffer(random(3000)));
      const operands: Buffer[][] = Array.from({ length: 700 }, () => []);
      for (const { buffer, first, length } of lives) for (const i of [first, first + length]) operands[i]!.push(buffer);
      const plan = planMemory(operands.map((list) => list.map((buffer) => beyond(buffer, 4))), new Set(lives.map(({ buffer }) => buffer)), fixed);
      const all = [...lives, ...fixed.map((buffer) => ({ buffer, first: 0, length: 700 }))];
      const room = ({ bytes }: Buffer): number => Math.ceil(Math.max(bytes, 1) / 64) * 64;
      let most = 0;
      for (let i = 0; i < 700; i++) most = Math.max(most, all.reduce((sum, { buffer, first, length }) => sum + (first <= i && i <= first + length ? room(buffer) : 0), 0));
      for (const [i, a] of all.entries()) for (const b of all.slice(i + 1)) {
        if (a.first + a.length < b.first || b.first + b.length < a.first) continue;
        expect(a.buffer.offset + a.buffer.bytes <= b.buffer.offset || b.buffer.offset + b.buffer.bytes <= a.buffer.offset).toBe(true);
      }
      expect(plan.fixed + plan.peak.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(most);
      expect(plan.bytes).toBeGreaterThanOrEqual(most);
      expect(plan.bytes).toBeLessThan(1.5 * most);
    }
  });

  test("of a program tells what its memory is for where most is in use", () => {
    const program = capture({ x: { shape: [100, 10] } }, ({ x }) => {
      const wide = named("wide", () => x.expand(5, 100, 10).mul(2));
      return named("narrow", () => wide.sum(0).sum());
    });
    expect(program.held()[0]).toEqual({ name: "wide", phase: "forward", bytes: 2 * Math.ceil(20_000 / 64) * 64 });
    expect(program.held().find(({ name }) => name.startsWith("inputs"))!.bytes).toBeGreaterThanOrEqual(4000);
    expect(program.held().reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(program.bytes);
    program.release();
  });
});

describe("linearCrossEntropy", () => {
  const [rows, width, classes] = [37, 24, 501] as const;
  const targets = tensor(Int32Array.from({ length: rows }, (_, i) => (i % 5 === 4 ? -100 : (i * 41) % classes)));
  const make = (): { x: Parameter; w: Parameter; loss: () => Tensor; found: () => number[][]; release: () => void } => {
    const [x, w] = [new Parameter(floats([rows, width], 1), [rows, width]), new Parameter(floats([classes, width], 2).map((value) => value / 8), [classes, width])];
    return {
      x, w, loss: () => F.linearCrossEntropy(x, w, targets, { chunk: 16 }), found: () => [x, w].map((each) => [...each.grad!.toArray()]),
      release: () => { for (const each of [x, w]) each.release(); },
    };
  };

  test("straight into the gradients, or kept for a product with them: the same bits, eager and captured", () => {
    const { x, w, loss, found, release } = make();
    const zero = (): void => { for (const each of [x, w]) each.zeroGrad(); };
    const first = loss();
    const value = first.item(); // read before: the gradients wait
    first.backward();
    const expected = found();
    const ways: (() => void)[] = [
      () => loss().backward(), () => loss().mul(1).backward(), () => loss().reshape(1).backward(), () => loss().backward(tensor(1)),
      () => { const inner = loss(); noGrad(() => w.mul(2)).toArray(); inner.backward(); },
    ];
    for (const way of ways) {
      zero();
      way();
      expect(found()).toEqual(expected);
    }
    zero();
    const kept = loss();
    kept.backward();
    expect(kept.item()).toBe(value);
    const program = capture({}, () => {
      zero();
      const inside = loss();
      inside.backward();
      return inside;
    });
    program.runNow({});
    expect([program.outputs.item(), found()]).toEqual([value, expected]);
    // Chunks of logits, and nothing of the size of w.
    expect(program.bytes).toBeLessThan(4 * 16 * classes + 4 * classes * width);
    program.release();
    release();
  });

  test("adds to gradients that are there, the same bits eager and captured", () => {
    const { x, w, loss, found, release } = make();
    loss().backward();
    const once = found();
    loss().backward();
    const twice = found();
    twice.forEach((values, i) => values.forEach((value, j) => expect(Math.abs(value - 2 * once[i]![j]!)).toBeLessThan(1e-6)));
    for (const each of [x, w]) each.zeroGrad();
    const program = capture({}, () => loss().backward());
    for (let i = 0; i < 2; i++) program.runNow({});
    expect(found()).toEqual(twice);
    program.release();
    release();
  });

  test("is computed from what its inputs were when it was called", () => {
    const { x, w, loss, release } = make();
    const expected = loss();
    const [value] = [expected.item()];
    expected.backward();
    const waiting = loss();
    x.copy_(new Float32Array(rows * width));
    expect(waiting.item()).toBe(value);
    waiting.backward();
    const other = loss(); // now of zeros
    expect(other.item()).toBeCloseTo(Math.log(classes), 5);
    other.backward();
    expect(Math.max(...w.grad!.toArray())).toBeGreaterThan(0);
    flush();
    release();
  });

  test("of no rows, of frozen weights, and of weights in bf16", () => {
    const none = new Parameter(floats([0, 4], 1), [0, 4]);
    const w = new Parameter(floats([6, 4], 2), [6, 4]);
    const empty = F.linearCrossEntropy(none, w, tensor([], { dtype: "i32", shape: [0] }), { reduction: "sum" });
    empty.backward();
    expect([empty.item(), ...w.grad!.toArray()]).toEqual(new Array<number>(25).fill(0));
    const x = new Parameter(floats([3, 4], 3), [3, 4]);
    const ids = tensor([1, 5, 2], { dtype: "i32" });
    const short = new Parameter(w, [6, 4], { dtype: "bf16" });
    F.linearCrossEntropy(x, short.to("f32"), ids).backward();
    const expected = x.grad!.toArray();
    x.zeroGrad();
    F.linearCrossEntropy(x, short, ids).backward();
    x.grad!.toArray().forEach((value, i) => expect(value).toBeCloseTo(expected[i]!, 5));
    for (const each of [none, w, x, short]) each.release();
  });
});
