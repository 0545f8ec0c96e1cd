// The int8 recurrent model `egg`: names and shapes of its tensors, the same in every rule. No arithmetic: kernels/int8/ has the
// forward pass (forward.zig) and the initial weights (egg_c.zig, nano_egg.zig). Read next: src/learners/eggroll-int8.ts.
import { EggError } from "../errors.ts";
import type { NativeModel } from "../native/int8.ts";
import { bytesNow, elements, expectTensors, type SavedTensor, type TensorEntry } from "./tensors.ts";

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
}

/** All tensors (int8) in the order of kernels/int8/model.zig. V vocabulary, H hidden. */
export function eggTensors({ layers, hidden: H, vocabulary: V }: EggShape): EggTensor[] {
  const tensors: Omit<EggTensor, "index">[] = [
    { name: "embedding.weight", shape: [V, H] },
    { name: "head.weight", shape: [V, H] },
    { name: "ln_out.weight", shape: [H] },
  ];
  for (let l = 0; l < layers; l++) {
    tensors.push({ name: `layers.${l}.ln1.weight`, shape: [H] });
    for (const gate of ["wf", "uf", "wh", "uh"]) tensors.push({ name: `layers.${l}.gru.${gate}.weight`, shape: [H, H] });
    for (const bias of ["bf", "bh"]) tensors.push({ name: `layers.${l}.gru.${bias}`, shape: [H] });
    tensors.push({ name: `layers.${l}.ln2.weight`, shape: [H] });
    tensors.push({ name: `layers.${l}.mlp.expand.weight`, shape: [4 * H, H] });
    tensors.push({ name: `layers.${l}.mlp.project.weight`, shape: [H, 4 * H] });
  }
  return tensors.map((tensor, index) => ({ ...tensor, index }));
}

/** Weights of the model, in number: all are int8, so also its bytes. */
export function eggParameters(shape: EggShape): number {
  return eggTensors(shape).reduce((sum, tensor) => sum + elements(tensor.shape), 0);
}

/** Bytes of the largest tensor: room for reading or writing any of them. */
export function largestTensor(shape: EggShape): number {
  return Math.max(...eggTensors(shape).map((tensor) => elements(tensor.shape)));
}

/**
 * Looks whether `tensors` are the weights of such a model; tensors named `state.*` do not matter. To be asked before memory is taken
 * for the model: the shape may come from a file that claims anything.
 * @throws EggError("corrupt") that names what is missing, extra or of the wrong shape
 */
export function expectWeights(shape: EggShape, tensors: ReadonlyMap<string, TensorEntry>): void {
  expectTensors(tensors, eggTensors(shape).map((tensor) => ({ name: tensor.name, dtype: "I8", shape: tensor.shape })), ["state."]);
}

/**
 * Copies weights by name into native memory; tensors named `state.*` are left alone.
 * @throws EggError("corrupt") as expectWeights does
 */
export function writeWeights(model: NativeModel, tensors: ReadonlyMap<string, TensorEntry>): void {
  expectWeights(model, tensors);
  for (const tensor of eggTensors(model)) {
    const data = bytesNow(tensors.get(tensor.name)!.data);
    if (data.includes(0x80)) {
      throw new EggError("corrupt", `[checkpoint] tensor ${tensor.name}: holds -128, where -127 is the least.`, { hint: "Egg never writes it: the file comes from elsewhere." });
    }
    model.write(tensor.index, data);
  }
}

/** All weights, each copied out of native memory when its bytes are asked for: into `room`, which holds the largest tensor. */
export function savedWeights(model: NativeModel, room = new Uint8Array(largestTensor(model))): Map<string, SavedTensor> {
  return new Map(
    eggTensors(model).map(({ name, shape, index }) => {
      const byteLength = elements(shape);
      return [name, { dtype: "I8", shape, data: { byteLength, read: () => model.read(index, byteLength, room) } }];
    }),
  );
}
