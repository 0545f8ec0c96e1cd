// A transformer's parameters by the names and in the layout that files on the Hugging Face hub have: gpt as GPT-2 (matrices
// lie (in, out), queries, keys and values in one), llama as LlamaForCausalLM. Checking, saving piece by piece, loading.
// Not the container (src/run/safetensors.ts), not config.json (transformer-foreign.ts). Read next: tensors.ts.
import { EggError } from "../errors.ts";
import type { nn, Parameter } from "../tensor/egg.ts";
import { elements, expectTensors, partNow, type LazyBytes, type SavedTensor, type TensorEntry } from "./tensors.ts";
import { isGated, type TransformerShape } from "./transformer-shape.ts";
import type { Transformer } from "./transformer.ts";

/** A tensor of a file: some rows of a parameter. */
interface Entry {
  readonly name: string;
  /** In the file. */
  readonly shape: readonly number[];
  /** The way to the parameter in the model. */
  readonly parameter: string;
  readonly first: number;
  /** The file has it as (in, out), the model as (out, in). */
  readonly transposed: boolean;
  /** Rows of a head whose pairs lie side by side in the model and halves apart in the file; 0: as they are. */
  readonly unpaired: number;
}

/** Types that weights may have in a file. */
const loadable = ["F32", "F16", "BF16"] as const;
/** Elements that are read or written at a time. */
const at_once = 1 << 20;

/** All tensors of a model of this shape, in the order of the model. */
function entriesOf(shape: TransformerShape): Entry[] {
  return shape.family === "gpt" ? gptEntries(shape) : llamaEntries(shape);
}

function entry(name: string, shape: readonly number[], parameter: string, { first = 0, transposed = false, unpaired = 0 } = {}): Entry {
  return { name, shape, parameter, first, transposed, unpaired };
}

function norm(shape: TransformerShape, name: string, parameter: string): Entry[] {
  const parts = shape.norm === "layer" && shape.bias ? ["weight", "bias"] : ["weight"];
  return parts.map((part) => entry(`${name}.${part}`, [shape.width], `${parameter}.${part}`));
}

function gptEntries(shape: TransformerShape): Entry[] {
  const { vocabulary, layers, width, heads, kvHeads, headWidth: d, feedForward, block, bias } = shape;
  const linear = (name: string, parameter: string, inputs: number, outputs: number, first = 0): Entry[] => [
    entry(`${name}.weight`, [inputs, outputs], `${parameter}.weight`, { first, transposed: true }),
    ...(bias ? [entry(`${name}.bias`, [outputs], `${parameter}.bias`, { first })] : []),
  ];
  return [
    entry("wte.weight", [vocabulary, width], "embedding.weight"),
    ...(shape.position === "learned" ? [entry("wpe.weight", [block, width], "positions.weight")] : []),
    ...Array.from({ length: layers }, (_, i) => [
      ...norm(shape, `h.${i}.ln_1`, `blocks.${i}.norm1`),
      ...linear(`h.${i}.attn.c_attn`, `blocks.${i}.attention.qkv`, width, (heads + 2 * kvHeads) * d),
      ...linear(`h.${i}.attn.c_proj`, `blocks.${i}.attention.out`, heads * d, width),
      ...norm(shape, `h.${i}.ln_2`, `blocks.${i}.norm2`),
      ...(isGated(shape) ? linear(`h.${i}.mlp.c_gate`, `blocks.${i}.feedForward.up`, width, feedForward) : []),
      ...linear(`h.${i}.mlp.c_fc`, `blocks.${i}.feedForward.up`, width, feedForward, isGated(shape) ? feedForward : 0),
      ...linear(`h.${i}.mlp.c_proj`, `blocks.${i}.feedForward.down`, feedForward, width),
    ]).flat(),
    ...norm(shape, "ln_f", "norm"),
    ...(shape.tied ? [] : [entry(headName, [vocabulary, width], "head.weight")]),
  ];
}

function llamaEntries(shape: TransformerShape): Entry[] {
  const { vocabulary, layers, width, heads, kvHeads, headWidth: d, feedForward, block, bias } = shape;
  const pairs = shape.position === "rope" && shape.ropePairs === "interleaved" ? d : 0;
  const linear = (name: string, parameter: string, inputs: number, outputs: number, first = 0, unpaired = 0): Entry[] => [
    entry(`${name}.weight`, [outputs, inputs], `${parameter}.weight`, { first, unpaired }),
    ...(bias ? [entry(`${name}.bias`, [outputs], `${parameter}.bias`, { first, unpaired })] : []),
  ];
  return [
    entry("model.embed_tokens.weight", [vocabulary, width], "embedding.weight"),
    ...(shape.position === "learned" ? [entry("model.embed_positions.weight", [block, width], "positions.weight")] : []),
    ...Array.from({ length: layers }, (_, i) => {
      const [to, from] = [`model.layers.${i}`, `blocks.${i}`];
      return [
        ...norm(shape, `${to}.input_layernorm`, `${from}.norm1`),
        ...linear(`${to}.self_attn.q_proj`, `${from}.attention.qkv`, width, heads * d, 0, pairs),
        ...linear(`${to}.self_attn.k_proj`, `${from}.attention.qkv`, width, kvHeads * d, heads * d, pairs),
        ...linear(`${to}.self_attn.v_proj`, `${from}.attention.qkv`, width, kvHeads * d, (heads + kvHeads) * d),
        ...linear(`${to}.self_attn.o_proj`, `${from}.attention.out`, heads * d, width),
        ...norm(shape, `${to}.post_attention_layernorm`, `${from}.norm2`),
        ...(isGated(shape) ? linear(`${to}.mlp.gate_proj`, `${from}.feedForward.up`, width, feedForward) : []),
        ...linear(`${to}.mlp.up_proj`, `${from}.feedForward.up`, width, feedForward, isGated(shape) ? feedForward : 0),
        ...linear(`${to}.mlp.down_proj`, `${from}.feedForward.down`, feedForward, width),
      ];
    }).flat(),
    ...norm(shape, "model.norm", "norm"),
    ...(shape.tied ? [] : [entry(headName, [vocabulary, width], "head.weight")]),
  ];
}

const headName = "lm_head.weight";

// ---- checking

/** Buffers that older files hold besides the weights: causal masks and rotary frequencies. They follow from the shape. */
const buffers = /(?:^|\.)(?:h\.\d+\.attn\.(?:bias|masked_bias)|rotary_emb\.inv_freq)$/;

/**
 * The tensors that count, by the names used here: without the prefix that GPT-2 files of some writers have, and without what
 * says nothing: buffers, names that begin with one of `ignored`, and a head that is the embedding once more.
 */
function weightsIn(shape: TransformerShape, tensors: ReadonlyMap<string, TensorEntry>, ignored: readonly string[]): Map<string, TensorEntry> {
  const found = new Map<string, TensorEntry>();
  for (const [name, tensor] of tensors) {
    const plain = shape.family === "gpt" ? name.replace(/^transformer\./, "") : name;
    if (!buffers.test(plain) && !ignored.some((prefix) => name.startsWith(prefix))) found.set(plain, tensor);
  }
  const head = found.get(headName);
  const embedding = found.get(entriesOf(shape)[0]!.name);
  if (!shape.tied || head === undefined || embedding === undefined) return found;
  if (head.dtype !== embedding.dtype || !equalBytes(head, embedding)) {
    throw new EggError("corrupt", `[checkpoint] tensor ${headName}: another one than the embedding, but the model's head is the embedding.`, { hint: "Make the model with a head of its own (not tied)." });
  }
  found.delete(headName);
  return found;
}

function equalBytes(a: TensorEntry, b: TensorEntry): boolean {
  const { byteLength } = a.data;
  if (b.data.byteLength !== byteLength) return false;
  for (let at = 0; at < byteLength; at += at_once) {
    const end = Math.min(byteLength, at + at_once);
    if (Buffer.compare(partNow(a, at, end), partNow(b, at, end)) !== 0) return false;
  }
  return true;
}

/**
 * Looks whether `tensors` are those of a model of this shape, before any memory is taken for it. F32, F16 and BF16 will do.
 * @param ignored names that begin so may be there or not
 * @throws EggError("corrupt") that names what is missing, extra or of the wrong shape
 */
export function expectTransformer(shape: TransformerShape, tensors: ReadonlyMap<string, TensorEntry>, ignored: readonly string[] = ["state."]): void {
  expectTensors(weightsIn(shape, tensors, ignored), entriesOf(shape).map(({ name, shape }) => ({ name, dtype: loadable, shape })));
}

// ---- saving

function parametersOf(model: Transformer): Map<string, Parameter> {
  return new Map(model.namedParameters());
}

/** Where element `i` of a saved entry comes from, for entries that are not a plain stretch of the parameter. */
function rowOf({ unpaired }: Entry, row: number): number {
  if (unpaired === 0) return row;
  const within = row % unpaired;
  const half = unpaired / 2;
  return row - within + (within < half ? 2 * within : 2 * (within - half) + 1);
}

/** Memory that saving goes through, kept from save to save: what is let go of here and there stays with the process for a while. */
export class SavingRoom {
  readonly #parts: Float32Array<ArrayBuffer>[] = [];

  /** Room for `length` elements, good until it is asked for again. */
  take(length: number, part: 0 | 1 = 0): Float32Array<ArrayBuffer> {
    if ((this.#parts[part]?.length ?? 0) < length) this.#parts[part] = new Float32Array(new ArrayBuffer(4 * length));
    return this.#parts[part]!.subarray(0, length);
  }
}

/** Bytes that saving a model of this shape goes through, with pieces of `others` elements besides. */
export function savingBytes(shape: TransformerShape, others: number): number {
  const whole = entriesOf(shape).map((each) => (each.transposed || each.unpaired > 0 ? elements(each.shape) : 0));
  const largest = Math.max(...whole);
  return 4 * (Math.max(largest, others, at_once) + largest);
}

/**
 * All weights, F32, each read out of native memory when its bytes are asked for: large ones in pieces. Bytes of one piece are
 * good until the next is read.
 */
export function saveTransformer(model: Transformer, room: SavingRoom = new SavingRoom()): Map<string, SavedTensor> {
  const parameters = parametersOf(model);
  const piece = (parameter: Parameter, first: number, length: number, arrange?: (values: Float32Array) => Float32Array): LazyBytes => ({
    byteLength: 4 * length,
    read() {
      const values = room.take(length);
      parameter.readRange(first, values);
      const { buffer, byteOffset } = arrange?.(values) ?? values;
      return new Uint8Array(buffer, byteOffset, 4 * length);
    },
  });
  return new Map(entriesOf(model.shape).map((each): [string, SavedTensor] => {
    const parameter = parameters.get(each.parameter)!;
    const columns = parameter.shape[1] ?? 1;
    const count = elements(each.shape);
    const first = each.first * columns;
    const data = each.transposed || each.unpaired > 0
      ? [piece(parameter, first, count, (values) => arranged(each, values, columns, false, room.take(values.length, 1)))]
      : Array.from({ length: Math.ceil(count / at_once) }, (_, i) => piece(parameter, first + i * at_once, Math.min(at_once, count - i * at_once)));
    return [each.name, { dtype: "F32", shape: [...each.shape], data }];
  }));
}

/** Rows of a parameter in the file's order, or (`back`) the file's in the parameter's. */
function arranged(each: Entry, values: Float32Array, columns: number, back: boolean, result: Float32Array = new Float32Array(values.length)): Float32Array {
  const rows = values.length / columns;
  if (!each.transposed) {
    for (let row = 0; row < rows; row++) {
      const [to, from] = back ? [rowOf(each, row), row] : [row, rowOf(each, row)];
      result.set(values.subarray(from * columns, (from + 1) * columns), to * columns);
    }
    return result;
  }
  // Square by square, so that both sides stay in a cache.
  const [height, width] = back ? [columns, rows] : [rows, columns];
  const side = 32;
  for (let top = 0; top < height; top += side) {
    for (let left = 0; left < width; left += side) {
      for (let i = top; i < Math.min(top + side, height); i++) {
        for (let j = left; j < Math.min(left + side, width); j++) result[j * height + i] = values[i * width + j]!;
      }
    }
  }
  return result;
}

// ---- loading

/**
 * Overwrites all weights, or none where anything does not fit.
 * @throws EggError("corrupt") as expectTransformer does
 */
export function loadTransformer(model: Transformer, tensors: ReadonlyMap<string, TensorEntry>, ignored: readonly string[] = ["state."]): void {
  expectTransformer(model.shape, tensors, ignored);
  const found = weightsIn(model.shape, tensors, ignored);
  const all = new Map<string, Parameter | nn.QuantizedMatrix>(model.namedWeights());
  for (const each of entriesOf(model.shape)) {
    const tensor = found.get(each.name)!;
    const weights = all.get(each.parameter)!;
    const columns = weights.shape[1] ?? 1;
    const count = elements(each.shape);
    const first = each.first * columns;
    const step = Math.max(1, Math.floor(at_once / columns)) * columns; // whole rows, which int8 weights need
    if (each.transposed || each.unpaired > 0) weights.writeRange(first, arranged(each, floatsOf(tensor, 0, count), columns, true));
    else for (let at = 0; at < count; at += step) weights.writeRange(first + at, floatsOf(tensor, at, Math.min(step, count - at)));
  }
}

/** Elements of a tensor as f32, to be read only. Its bytes may begin anywhere. */
function floatsOf(tensor: TensorEntry, first: number, count: number): Float32Array {
  const width = tensor.dtype === "F32" ? 4 : 2;
  const part = partNow(tensor, first * width, (first + count) * width);
  const { buffer, byteOffset } = part.byteOffset % width === 0 ? part : part.slice();
  if (tensor.dtype === "F32") return new Float32Array(buffer, byteOffset, count);
  const halves = new Uint16Array(buffer, byteOffset, count);
  const bits = new Uint32Array(count);
  if (tensor.dtype === "BF16") for (let i = 0; i < count; i++) bits[i] = halves[i]! << 16;
  else for (let i = 0; i < count; i++) bits[i] = widened(halves[i]!);
  return new Float32Array(bits.buffer);
}

/** The bits of an f16 (1 sign, 5 exponent, 10 fraction) as those of the same number in f32. */
function widened(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 31;
  let fraction = half & 0x3ff;
  if (exponent === 31) return sign | 0x7f800000 | (fraction << 13);
  if (exponent > 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  const shift = Math.clz32(fraction) - 21; // below the smallest normal f16: its leading bit becomes the hidden one
  fraction = (fraction << shift) & 0x3ff;
  return sign | ((113 - shift) << 23) | (fraction << 13);
}
