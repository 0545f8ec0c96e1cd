// The int8 recurrent model `egg`: names, shapes and initial values of its tensors. No arithmetic of the forward pass:
// kernels/int8/forward.zig does that. Read next: src/learners/eggroll-int8.ts.
import { EggError } from "../errors.ts";
import type { NativeModel } from "../native/int8.ts";
import { elements, expectTensors, type SavedTensor, type TensorEntry } from "./tensors.ts";

export interface EggShape {
  layers: number;
  hidden: number;
  vocabulary: number;
}

export interface EggTensor {
  name: string;
  /** Row = output. */
  shape: number[];
  /** Number in kernels/int8/model.zig. */
  index: number;
  init: "noise" | "zero" | "norm";
}

/** All tensors (int8) in the order of kernels/int8/model.zig. V vocabulary, H hidden. */
export function eggTensors({ layers, hidden: H, vocabulary: V }: EggShape): EggTensor[] {
  const tensors: Omit<EggTensor, "index">[] = [
    { name: "embedding.weight", shape: [V, H], init: "noise" },
    { name: "head.weight", shape: [V, H], init: "noise" },
    { name: "ln_out.weight", shape: [H], init: "norm" },
  ];
  for (let l = 0; l < layers; l++) {
    tensors.push({ name: `layers.${l}.ln1.weight`, shape: [H], init: "norm" });
    for (const gate of ["wf", "uf", "wh", "uh"]) tensors.push({ name: `layers.${l}.gru.${gate}.weight`, shape: [H, H], init: "noise" });
    for (const bias of ["bf", "bh"]) tensors.push({ name: `layers.${l}.gru.${bias}`, shape: [H], init: "zero" });
    tensors.push({ name: `layers.${l}.ln2.weight`, shape: [H], init: "norm" });
    tensors.push({ name: `layers.${l}.mlp.expand.weight`, shape: [4 * H, H], init: "noise" });
    tensors.push({ name: `layers.${l}.mlp.project.weight`, shape: [H, 4 * H], init: "noise" });
  }
  return tensors.map((tensor, index) => ({ ...tensor, index }));
}

/** Weights of the model, in number: all are int8, so also its bytes. */
export function eggParameters(shape: EggShape): number {
  return eggTensors(shape).reduce((sum, tensor) => sum + elements(tensor.shape), 0);
}

/** Seed of egg.c's initial weights; the run's seed only drives the perturbations. */
const initialSeed = 42;
/** 1.0 in fixed point: the initial weight of a layer norm. */
const one = 16;

/**
 * Initial weights of preset egg.c: one xorshift32 stream (Marsaglia 2003) from seed 42, each value uniform 0..31 with a
 * random sign, in the order embedding, head, then layer by layer the GRU and the MLP matrices.
 */
export function* initialWeights(shape: EggShape): Generator<[EggTensor, Uint8Array]> {
  let x = initialSeed;
  for (const tensor of eggTensors(shape)) {
    const values = new Uint8Array(elements(tensor.shape));
    if (tensor.init === "norm") values.fill(one);
    if (tensor.init === "noise") {
      for (let i = 0; i < values.length; i++) {
        x ^= x << 13;
        x ^= x >>> 17;
        x ^= x << 5;
        const magnitude = (x >>> 1) & 31;
        values[i] = (x & 1) === 1 ? magnitude : -magnitude;
      }
    }
    yield [tensor, values];
  }
}

/**
 * Copies weights by name into native memory; tensors named `state.*` are left alone.
 * @throws EggError("corrupt") that names what is missing, extra or of the wrong shape
 */
export function writeWeights(model: NativeModel, tensors: ReadonlyMap<string, TensorEntry>): void {
  const expected = eggTensors(model);
  expectTensors(tensors, expected.map(({ name, shape }) => ({ name, dtype: "I8", shape })), ["state."]);
  for (const tensor of expected) {
    const { data } = tensors.get(tensor.name)!;
    if (data.includes(0x80)) {
      throw new EggError("corrupt", `[checkpoint] tensor ${tensor.name}: holds -128, where -127 is the least.`, { hint: "Egg never writes it: the file comes from elsewhere." });
    }
    model.write(tensor.index, data);
  }
}

/** All weights, each copied out of native memory when its bytes are asked for. */
export function savedWeights(model: NativeModel): Map<string, SavedTensor> {
  return new Map(
    eggTensors(model).map(({ name, shape, index }) => {
      const byteLength = elements(shape);
      return [name, { dtype: "I8", shape, data: { byteLength, read: () => model.read(index, byteLength) } }];
    }),
  );
}
