// The golden vectors of single operations (tests/golden/ops.*: f64 results of an independent program, rounded once), within
// 1e-5 of the largest value of each tensor, on every CPU tier. Not finite differences: tensor.test.ts has those.
import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { InstructionList, NativeArena, runInstructions } from "../src/native/float.ts";
import { machine } from "../src/native/machine.ts";
import { context } from "../src/tensor/device.ts";
import * as F from "../src/tensor/functional.ts";
import { tensor, useThreads, type Tensor } from "../src/tensor/egg.ts";
import golden from "./golden/ops.json";
import { readSafetensors, root } from "./program.ts";

type Shapes = Record<string, number[]>;
interface GoldenCase { name: string; op: string; params: Record<string, unknown>; inputs: Shapes; outputs: Shapes; int_inputs?: Shapes; int_outputs?: Shapes; grads: Shapes }
const cases = golden.cases as unknown as GoldenCase[];
const { tensors } = readSafetensors(join(root, "tests/golden/ops.safetensors"));

const floats = (name: string): Float32Array => new Float32Array(tensors.get(name)!.data.slice().buffer);
const integers = (name: string): Int32Array => new Int32Array(tensors.get(name)!.data.slice().buffer);

function expectClose(what: string, found: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(found.length).toBe(expected.length);
  let largest = 0;
  for (let i = 0; i < expected.length; i++) if (Number.isFinite(expected[i]!)) largest = Math.max(largest, Math.abs(expected[i]!));
  for (let i = 0; i < expected.length; i++) {
    const [a, b] = [found[i]!, expected[i]!];
    if (!(a === b || Math.abs(a - b) <= 1e-5 * largest)) throw new Error(`${what}[${i}]: found ${a}, expected ${b}, largest ${largest}`);
  }
}

/** The library's way of doing a case. */
function apply({ op, params, inputs, name }: GoldenCase, of: Record<string, Tensor>): Tensor {
  const axis = params["axis"] === "all" ? undefined : (params["axis"] as number);
  const first = of[Object.keys(inputs)[0]!]!;
  switch (op) {
    case "matmul": return of["a"]!.matmul(of["b"]!, { transposeA: params["ta"] as boolean, transposeB: params["tb"] as boolean });
    case "linear": return F.linear(of["x"]!, of["w"]!, of["b"]!);
    case "add": return of["a"]!.add(of["b"]!);
    case "mul": return of["a"]!.mul(of["b"]!);
    case "sum": return first.sum(axis);
    case "max": return first.max(axis);
    case "relu": case "gelu": case "silu": return first.activate(op);
    case "swiglu": return F.swiglu(of["gate"]!, of["up"]!);
    case "softmax": return first.softmax();
    case "log_softmax": return first.logSoftmax();
    case "layernorm": return F.layerNorm(of["x"]!, of["w"]!, of["b"]!, params["eps"] as number);
    case "rmsnorm": return F.rmsNorm(of["x"]!, of["w"]!, params["eps"] as number);
    case "embedding": return F.embedding(of["ids"]!, of["table"]!);
    case "rope": return F.rope(first, { base: params["base"] as number, offset: params["offset"] as number });
    case "attention": return F.attention(of["q"]!, of["k"]!, of["v"]!);
    case "cross_entropy": return F.crossEntropy(of["logits"]!, of["targets"]!);
    case "fused_linear_cross_entropy": return F.linearCrossEntropy(of["x"]!, of["w"]!, of["targets"]!, { chunk: 16 });
    default: throw new Error(`${name}: the operation ${op} is not known here`);
  }
}

const tiers = machine().tiers.filter(({ available }) => available).map(({ name }) => name);
afterAll(() => useThreads(0));

for (const tier of tiers) {
  describe(tier, () => {
    test.each(cases.map((each) => [each.name, each] as const))("%s", (name, each) => {
      useThreads(2, tier);
      const of: Record<string, Tensor> = {};
      for (const [input, shape] of Object.entries(each.inputs)) of[input] = tensor(floats(`${name}.${input}`), { shape, requiresGrad: true });
      for (const [input, shape] of Object.entries(each.int_inputs ?? {})) of[input] = tensor(integers(`${name}.${input}`), { shape });
      const y = apply(each, of);
      expectClose(`${name}.y`, y.toArray(), floats(`${name}.y`));
      if (each.int_outputs?.["index"] !== undefined) {
        const { axis } = each.params;
        expect(of["x"]!.argmax(axis === "all" ? undefined : (axis as number)).toArray()).toEqual(integers(`${name}.index`));
      }
      y.backward(tensor(floats(`${name}.dy`), { shape: y.shape }));
      for (const gradient of Object.keys(each.grads)) expectClose(`${name}.${gradient}`, of[gradient.slice(1)]!.grad!.toArray(), floats(`${name}.${gradient}`));
    });
  });
}

test.each(tiers)("saved statistics on %s: mean, rstd, lse", (tier) => {
  useThreads(2, tier);
  for (const { name, op, inputs, params } of cases) {
    if (op !== "layernorm" && op !== "rmsnorm" && op !== "attention") continue;
    const arena = new NativeArena(1 << 20);
    let used = 0;
    const place = (count: number): { arena: number; offset: number } => ({ arena: arena.handle, offset: (used += 4 * count + 64) - 4 * count });
    const put = (values: Float32Array): { arena: number; offset: number } => {
      const at = place(values.length);
      arena.write(at.offset, values);
      return at;
    };
    const expectAt = (what: string, { offset }: { offset: number }): void => {
      const expected = floats(`${name}.${what}`);
      const found = new Float32Array(new ArrayBuffer(expected.byteLength));
      arena.read(offset, found);
      expectClose(`${name}.${what}`, found, expected);
    };
    const list = new InstructionList();
    if (op === "attention") {
      const [[batch, q_len, heads, d], [, kv_len, kv_heads]] = [inputs["q"], inputs["k"]] as [[number, number, number, number], [number, number, number, number]];
      const lse = place(batch * heads * q_len);
      const [q, k] = [[q_len * heads * d, heads * d, d], [kv_len * kv_heads * d, kv_heads * d, d]] as const;
      list.add("attention", {
        q: put(floats(`${name}.q`)), k: put(floats(`${name}.k`)), v: put(floats(`${name}.v`)), o: place(batch * q_len * heads * d), lse, batch, q_len, kv_len, heads, kv_heads, d,
        q_batch: q[0], q_time: q[1], q_head: q[2], k_batch: k[0], k_time: k[1], k_head: k[2], v_batch: k[0], v_time: k[1], v_head: k[2], o_batch: q[0], o_time: q[1], o_head: q[2],
        causal: true, scale: 1 / Math.sqrt(d),
      });
      runInstructions(context(), list);
      expectAt("lse", lse);
    } else {
      const [rows, width] = inputs["x"] as [number, number];
      const layer = op === "layernorm";
      const [mean, rstd] = [place(rows), place(rows)];
      list.add("norm", { x: put(floats(`${name}.x`)), y: place(rows * width), mean: layer ? mean : null, rstd, rows, width, mode: layer ? "layer" : "rms", eps: params["eps"] as number });
      runInstructions(context(), list);
      if (layer) expectAt("mean", mean);
      expectAt("rstd", rstd);
    }
    arena.release();
  }
});
