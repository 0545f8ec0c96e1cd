// Optimizers over native memory: neighbouring parameters are updated together by one instruction, and all state lies in one
// arena, taken when the optimizer is made. Not the formulas (kernels/float/ops.zig: Optimize, Clip). Read next: schedules.ts.
import { EggError } from "../errors.ts";
import { NativeArena } from "../native/float.ts";
import type { Operand } from "../native/instructions.ts";
import { beforeUpdate, capturing, emit, flush, persistent, withTag } from "./device.ts";
import { checkMemory, runsOf } from "./memory.ts";
import { checkNames } from "./nn-module.ts";
import { tensor, type Parameter, type Tensor } from "./tensor.ts";
import { product, settleGradient, show, type Shape } from "./value.ts";

/** From `parameters()` or, for state that goes by their names, from `namedParameters()`. */
export type Parameters = Iterable<Parameter> | Iterable<readonly [string, Parameter]>;

export interface OptimizerOptions {
  /** Learning rate; may be set later, before each step. */
  lr?: number;
  /** Gradients of all parameters together are scaled down to this norm. 0: never. */
  clip?: number;
  /** Of tensors with two or more axes only. */
  weightDecay?: number;
}

interface Rule { rule: "sgd" | "adam" | "adamw" | "lion"; beta1: number; beta2: number; eps: number; nesterov: boolean; lr: number; clip: number; weightDecay: number }

/** A piece of the parameters' memory and, `at` bytes into each kind of state, its state. `decays`: holds matrices. */
interface Piece { w: Operand; grad: Operand; count: number; at: number; decays: boolean }

/** What an optimizer remembers about a parameter, by PyTorch's name: "layers.0.weight.exp_avg". */
export interface Moment { readonly name: string; readonly shape: Shape; read(): Float32Array; write(values: Float32Array): void }

export interface OptimizerState { rule: string; step: number; tensors: Record<string, Tensor> }

const titles = { sgd: "SGD", adam: "Adam", adamw: "AdamW", lion: "Lion" };

/** Elements of one instruction: kernels count in 32 bits. */
const piece_max = 2 ** 30;
const line = 64;
const settings_at = 0;
const clip_at = line;
const norms_at = 2 * line;

abstract class Optimizer {
  readonly parameters: readonly Parameter[];
  readonly #names: readonly string[];
  readonly #rule: Rule;
  readonly #arena: NativeArena;
  readonly #pieces: Piece[] = [];
  /** Where the sum of squares of each part goes. */
  readonly #sums: { grad: Operand; count: number; at: Operand }[] = [];
  /** Kinds of state by PyTorch's names, and where each begins in the arena. */
  readonly #kinds: { name: string; at: number }[];
  /** Where a parameter's state begins in each kind. */
  readonly #places: number[] = [];
  #lr = 0;
  #steps = 0;

  constructor(parameters: Parameters, kinds: readonly string[], rule: Rule) {
    const named = [...parameters as Iterable<Parameter | readonly [string, Parameter]>]
      .map((each, i): [string, Parameter] => (Array.isArray(each) ? (each as [string, Parameter]) : [`${i}`, each as Parameter]))
      .filter(([, parameter], i, all) => parameter.requiresGrad && all.findIndex(([, other]) => other === parameter) === i);
    this.#rule = rule;
    if (named.length === 0) this.#refuse("there are no parameters that require gradients");
    if (capturing() !== null) this.#refuse("make optimizers before a program is captured");
    for (const name of ["clip", "weightDecay", "eps"] as const) if (!(rule[name] >= 0 && Number.isFinite(rule[name]))) this.#refuse(`${name} = ${rule[name]} is not a number from 0`);
    for (const beta of [rule.beta1, rule.beta2]) if (!(beta >= 0 && beta < 1)) this.#refuse(`${rule.rule === "sgd" ? "momentum" : "a beta"} of ${beta} is not in 0 .. 1`);
    if (rule.nesterov && rule.beta1 === 0) this.#refuse("nesterov needs a momentum");
    this.lr = rule.lr;
    this.#names = named.map(([name]) => name);
    this.parameters = named.map(([, parameter]) => parameter);
    const blocks = new Set(this.parameters.map(({ memory }) => memory.block!));
    const gradients = [...blocks].reduce((sum, block) => sum + (block.hasMirror("gradients") ? 0 : block.arena.bytes), 0);
    const all = runsOf(this.parameters.map(({ memory }) => memory)).reduce((sum, { bytes }) => sum + bytes, 0);
    checkMemory(`gradients and state of ${titles[rule.rule]}`, gradients + kinds.length * all, persistent.blocks.reduce((sum, block) => sum + block.bytes, 0));
    const bytes = this.#layOut();
    const sums = this.#layOutSums();
    const first = norms_at + Math.ceil((4 * sums) / line) * line;
    this.#arena = new NativeArena(first + kinds.length * bytes);
    this.#kinds = kinds.map((name, i) => ({ name, at: first + i * bytes }));
    this.#sums.forEach((sum, i) => (sum.at = this.#at(norms_at + 4 * i)));
  }

  #refuse(why: string): never {
    throw new EggError("usage", `[optim] ${titles[this.#rule.rule]}: ${why}.`);
  }

  #at(offset: number): Operand {
    return { arena: this.#arena.handle, offset };
  }

  /** Matrices and the rest apart where only matrices decay. @returns bytes of one kind of state */
  #layOut(): number {
    const decays = this.parameters.map(({ shape }) => this.#rule.weightDecay > 0 && shape.length >= 2);
    let used = 0;
    for (const kind of [true, false]) {
      const members = [...this.parameters.keys()].filter((i) => decays[i] === kind);
      for (const { block, offset, bytes, indices } of runsOf(members.map((i) => this.parameters[i]!.memory))) {
        for (const i of indices) this.#places[members[i]!] = used + this.parameters[members[i]!]!.memory.offset - offset;
        for (let from = 0; from < bytes; from += 4 * piece_max) {
          const [w, grad] = [block.arena, block.mirror("gradients")].map(({ handle }): Operand => ({ arena: handle, offset: offset + from })) as [Operand, Operand];
          this.#pieces.push({ w, grad, count: Math.min(piece_max, (bytes - from) / 4), at: used + from, decays: kind });
        }
        used += Math.ceil(bytes / line) * line;
      }
    }
    return used;
  }

  #layOutSums(): number {
    for (const { block, offset, bytes } of runsOf(this.parameters.map(({ memory }) => memory))) {
      const { handle } = block.mirror("gradients");
      for (let from = 0; from < bytes; from += 4 * piece_max) {
        this.#sums.push({ grad: { arena: handle, offset: offset + from }, count: Math.min(piece_max, (bytes - from) / 4), at: { arena: 0, offset: 0 } });
      }
    }
    return this.#sums.length;
  }

  get lr(): number {
    return this.#lr;
  }

  set lr(value: number) {
    if (!(value >= 0 && Number.isFinite(value))) this.#refuse(`lr = ${value} is not a number from 0`);
    this.#lr = value;
  }

  /** Steps taken. */
  get steps(): number {
    return this.#steps;
  }

  /** Bytes of native memory that this optimizer holds. */
  get bytes(): number {
    return this.#arena.bytes;
  }

  zeroGrad(): void {
    for (const parameter of this.parameters) parameter.zeroGrad();
  }

  /**
   * Updates all parameters by their gradients; those without gradients count as having gradients of zero. Where a gradient is
   * NaN or infinite, no weight and no state changes (the step is counted; see gradientNorm).
   * @param scale what gradients are multiplied with first, such as 1 / accumulated batches
   */
  step(scale = 1): void {
    for (const parameter of this.parameters) parameter.checkAlive(titles[this.#rule.rule]);
    if (capturing() === null && this.parameters.every(({ gradient }) => gradient === null || gradient.fresh)) this.#refuse("step() without a backward() before it: no parameter has a gradient");
    withTag("optimizer", "update", () => {
      for (const parameter of this.parameters) settleGradient(parameter);
      for (const { grad, count, at } of this.#sums) emit("reduce", { x: grad, y: at, outer: 1, axis: count, inner: 1, operation: "sumsq", alpha: 1 });
      const clip = this.#at(clip_at);
      emit("clip", { sumsq: this.#at(norms_at), out: clip, count: this.#sums.length, max_norm: this.#rule.clip, scale });
      beforeUpdate(() => {
        flush(); // an earlier step may wait in the queue with its own settings
        this.#arena.write(settings_at, Float32Array.of(this.#lr, ++this.#steps));
      }, () => this.#steps--);
      const { rule, beta1, beta2, eps, nesterov, weightDecay } = this.#rule;
      for (const { w, grad, count, at, decays } of this.#pieces) {
        const [m, v] = this.#kinds.map((kind) => this.#at(kind.at + at));
        emit("optimize", { w, grad, m, v, clip, settings: this.#at(settings_at), count, rule, beta1, beta2, eps, decay: decays ? weightDecay : 0, nesterov });
      }
    });
  }

  /** The norm of all gradients at the last step, scaled but not clipped. NaN or infinite: that step changed nothing. */
  gradientNorm(): number {
    return this.#read(clip_at, 3)[1]!;
  }

  #read(offset: number, count: number): Float32Array {
    if (capturing() !== null) this.#refuse("values cannot be read while a program is captured");
    flush();
    const values = new Float32Array(new ArrayBuffer(4 * count));
    if (count > 0) this.#arena.read(offset, values);
    return values;
  }

  /** State of each parameter, to be read and written piece by piece (checkpoints). */
  moments(): Moment[] {
    return this.#kinds.flatMap((kind) => this.parameters.map(({ shape }, i): Moment => {
      const name = `${this.#names[i]}.${kind.name}`;
      const at = kind.at + this.#places[i]!;
      return {
        name, shape,
        read: () => this.#read(at, product(shape)),
        write: (values) => {
          if (values.length !== product(shape)) this.#refuse(`${values.length} values for ${name} ${show(shape)}`);
          flush();
          if (values.length > 0) this.#arena.write(at, values);
        },
      };
    }));
  }

  /** All that is needed, besides weights and settings, to go on with the same bits: a copy. */
  stateDict(): OptimizerState {
    return { rule: this.#rule.rule, step: this.#steps, tensors: Object.fromEntries(this.moments().map(({ name, shape, read }) => [name, tensor(read(), { shape })])) };
  }

  /** @throws EggError("data") where the state is another rule's, or names and shapes do not fit; nothing is loaded then */
  loadStateDict({ rule, step, tensors }: OptimizerState): void {
    if (rule !== this.#rule.rule) throw new EggError("data", `[optim] loadStateDict: the state is of ${rule}, the optimizer is ${this.#rule.rule}.`);
    if (!Number.isInteger(step) || step < 0) throw new EggError("data", `[optim] loadStateDict: ${step} is not a number of steps.`);
    const moments = this.moments();
    checkNames("loadStateDict", new Map(moments.map(({ name, shape }) => [name, shape])), tensors);
    for (const { name, write } of moments) write(tensors[name]!.toArray() as Float32Array);
    this.#steps = step;
  }

  /** Gives the memory back. The optimizer, and programs that step it, cannot be used any more. */
  release(): void {
    flush();
    this.#arena.release();
  }
}

/** Gradient descent: g += weightDecay w; m = momentum m + g; w -= lr m, or with Nesterov lr (g + momentum m). */
export class SGD extends Optimizer {
  constructor(parameters: Parameters, options: OptimizerOptions & { momentum?: number; nesterov?: boolean } = {}) {
    const { lr = 1e-3, clip = 0, weightDecay = 0, momentum = 0, nesterov = false } = options;
    super(parameters, momentum === 0 ? [] : ["momentum_buffer"], { rule: "sgd", beta1: momentum, beta2: 0, eps: 0, nesterov, lr, clip, weightDecay });
  }
}

type AdamOptions = OptimizerOptions & { betas?: readonly [number, number]; eps?: number };
const adamKinds = ["exp_avg", "exp_avg_sq"];

/** Kingma and Ba 2015, with weightDecay as L2 in the gradient. */
export class Adam extends Optimizer {
  constructor(parameters: Parameters, options: AdamOptions = {}) {
    const { lr = 1e-3, clip = 0, weightDecay = 0, betas: [beta1, beta2] = [0.9, 0.999], eps = 1e-8 } = options;
    super(parameters, adamKinds, { rule: "adam", beta1, beta2, eps, nesterov: false, lr, clip, weightDecay });
  }
}

/** Adam with decay apart from the gradient: w *= 1 - lr weightDecay (Loshchilov and Hutter 2019). */
export class AdamW extends Optimizer {
  constructor(parameters: Parameters, options: AdamOptions = {}) {
    const { lr = 1e-3, clip = 0, weightDecay = 0.01, betas: [beta1, beta2] = [0.9, 0.999], eps = 1e-8 } = options;
    super(parameters, adamKinds, { rule: "adamw", beta1, beta2, eps, nesterov: false, lr, clip, weightDecay });
  }
}

/** Chen et al. 2023: w -= lr (sign(b1 m + (1 - b1) g) + weightDecay w); m = b2 m + (1 - b2) g. */
export class Lion extends Optimizer {
  constructor(parameters: Parameters, options: OptimizerOptions & { betas?: readonly [number, number] } = {}) {
    const { lr = 1e-4, clip = 0, weightDecay = 0, betas: [beta1, beta2] = [0.9, 0.99] } = options;
    super(parameters, ["exp_avg"], { rule: "lion", beta1, beta2, eps: 0, nesterov: false, lr, clip, weightDecay });
  }
}

export type { Optimizer };
