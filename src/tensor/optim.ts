// Optimizers over native memory: neighbouring parameters are updated together by one instruction, and all state lies in one
// arena, taken when the optimizer is made. Not the formulas (kernels/float/ops.zig: Optimize, Clip). Read next: schedules.ts.
import { EggError } from "../errors.ts";
import type { NativeArena } from "../native/float.ts";
import type { Operand } from "../native/instructions.ts";
import { capturing, emit, flush, withTag } from "./device.ts";
import { checkMemory, giveArena, runsOf, takeArena, type Run } from "./memory.ts";
import { checkNames } from "./nn-module.ts";
import { Parameter, tensor, type Tensor } from "./tensor.ts";
import { emptyData, product, settleGradient, show, type Shape } from "./value.ts";

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

/**
 * A piece of the parameters' memory and, `at` bytes into each kind of state, its state. `decays`: holds matrices. `settings`:
 * where learning rate and number of the update are.
 */
interface Piece { w: Operand; grad: Operand; count: number; at: number; decays: boolean; settings: number }

/** What one step works on: pieces to update, and pieces of gradients whose sums of squares make the norm. */
interface Work { pieces: Piece[]; sums: { grad: Operand; count: number }[] }

/** What an optimizer remembers about a parameter, by PyTorch's name: "layers.0.weight.exp_avg"; read and written piece by piece. */
export interface Moment {
  readonly name: string;
  readonly shape: Shape;
  /** Copies the elements from `first` on into `target`. */
  readRange(first: number, target: Float32Array): void;
  /** Overwrites the elements from `first` on. */
  writeRange(first: number, values: Float32Array): void;
}

/** `steps`: updates of each parameter that has not had all `step` of them, by its name; absent where there is none. */
export interface OptimizerState { rule: string; step: number; steps?: Record<string, number>; tensors: Record<string, Tensor> }

const titles = { sgd: "SGD", adam: "Adam", adamw: "AdamW", lion: "Lion" };

/** Elements of one instruction: kernels count in 32 bits. */
const piece_max = 2 ** 30;
const line = 64;
const clip_at = 0;
const norms_at = line;
/** Learning rate and number of the update, of one parameter. */
const settings_bytes = 8;
/** Sets of parameters whose work is kept. */
const works_max = 16;

abstract class Optimizer {
  readonly parameters: readonly Parameter[];
  readonly #names: readonly string[];
  readonly #rule: Rule;
  #state: NativeArena | null;
  /** Kinds of state by PyTorch's names, and where each begins in the arena. */
  readonly #kinds: { name: string; at: number }[];
  /** Where a parameter's state begins in each kind. */
  readonly #places: number[] = [];
  /** The work of a step by which parameters have gradients. */
  readonly #works = new Map<string, Work>();
  /** Programs that have this optimizer's step. */
  readonly #programs = new WeakSet<object>();
  /** Where each parameter's settings begin in the arena. */
  readonly #settingsAt: number;
  readonly #settings: Float32Array<ArrayBuffer>;
  /** Updates of each parameter: Adam corrects its averages by them. */
  readonly #counts: number[];
  #lr = 0;
  #steps = 0;

  constructor(parameters: Parameters, kinds: readonly string[], rule: Rule) {
    this.#rule = rule;
    if (typeof (parameters as Partial<Parameter[]>)[Symbol.iterator] !== "function") this.#refuse("parameters are no list", "Give model.parameters() or model.namedParameters().");
    const all = [...parameters as Iterable<Parameter | readonly [string, Parameter]>].map((each, i): [string, Parameter] => (Array.isArray(each) ? (each as [string, Parameter]) : [`${i}`, each as Parameter]));
    for (const [name, each] of all) {
      if (!(each instanceof Parameter)) this.#refuse(`${name} is no Parameter`, "Give model.parameters(), or Parameters that you made; there are no groups: make an optimizer for each.");
      each.checkAlive(titles[rule.rule]);
    }
    const named = all.filter(([, parameter], i) => parameter.requiresGrad && all.findIndex(([, other]) => other === parameter) === i);
    const twice = named.find(([name], i) => named.findIndex(([other]) => other === name) !== i);
    if (twice !== undefined) this.#refuse(`two parameters go by the name ${twice[0]}`);
    for (const [name, { dtype, shape }] of all) if (dtype !== "f32") this.#refuse(`parameter ${name} ${show(shape)} is ${dtype}, and only f32 can be updated`, 'Keep the weights in f32 and compute in bf16: computeIn("bf16", () => ...).');
    if (named.length === 0) this.#refuse("there are no parameters that require gradients");
    if (capturing() !== null) this.#refuse("make optimizers before a program is captured");
    for (const name of ["clip", "weightDecay", "eps"] as const) if (!(rule[name] >= 0 && Number.isFinite(rule[name]))) this.#refuse(`${name} = ${rule[name]} is not a number from 0`);
    for (const beta of [rule.beta1, rule.beta2]) if (!(beta >= 0 && beta < 1)) this.#refuse(`${rule.rule === "sgd" ? "momentum" : "a beta"} of ${beta} is not in 0 .. 1`);
    if (rule.nesterov && rule.beta1 === 0) this.#refuse("nesterov needs a momentum");
    this.lr = rule.lr;
    this.#names = named.map(([name]) => name);
    this.parameters = named.map(([, parameter]) => parameter);
    this.#counts = this.parameters.map(() => 0);
    this.#settings = new Float32Array(new ArrayBuffer(settings_bytes * this.parameters.length));
    const blocks = new Set(this.parameters.map(({ memory }) => memory.block!));
    const gradients = [...blocks].reduce((sum, { missing }) => sum + missing, 0);
    const bytes = this.#layOut();
    checkMemory(`gradients and state of ${titles[rule.rule]}`, gradients + kinds.length * bytes);
    const sums = this.parameters.reduce((sum, { bytes }) => sum + Math.ceil((bytes + line) / (4 * piece_max)), 0); // at most, however they lie
    this.#settingsAt = norms_at + Math.ceil((4 * sums) / line) * line;
    const first = this.#settingsAt + Math.ceil((settings_bytes * this.parameters.length) / line) * line;
    this.#kinds = kinds.map((name, i) => ({ name, at: first + i * bytes }));
    this.#state = takeArena("optimizers", first + kinds.length * bytes);
  }

  #refuse(why: string, hint?: string): never {
    throw new EggError("usage", `[optim] ${titles[this.#rule.rule]}: ${why}.`, hint === undefined ? {} : { hint });
  }

  /** Settings, norms and all state, until `release`. */
  get #arena(): NativeArena {
    return this.#state ?? this.#refuse("this optimizer was released");
  }

  #at(offset: number): Operand {
    return { arena: this.#arena.handle, offset };
  }

  /** Parameters of `indices` that decay, or that do not, in as few pieces as they lie in. */
  #runs(indices: readonly number[], decays: boolean): { run: Run; indices: number[] }[] {
    const members = indices.filter((i) => decays === (this.#rule.weightDecay > 0 && this.parameters[i]!.shape.length >= 2));
    return runsOf(members.map((i) => this.parameters[i]!.memory)).map((run) => ({ run, indices: run.indices.map((i) => members[i]!) }));
  }

  /** State lies as the parameters do, matrices and the rest apart where only matrices decay. @returns bytes of one kind of state */
  #layOut(): number {
    let used = 0;
    for (const decays of [true, false]) {
      for (const { run, indices } of this.#runs([...this.parameters.keys()], decays)) {
        for (const i of indices) this.#places[i] = used + this.parameters[i]!.memory.offset - run.offset;
        used += Math.ceil(run.bytes / line) * line;
      }
    }
    return used;
  }

  /**
   * What a step of these parameters works on. Where the number of updates matters, one instruction updates only parameters
   * that have had equally many: now, or in a program, which other steps may come between, whenever it is run.
   */
  #work(indices: readonly number[]): Work {
    const counting = this.#rule.rule === "adam" || this.#rule.rule === "adamw";
    const counts = this.#counts;
    const together = !counting || (capturing() === null && indices.every((i) => counts[i] === counts[indices[0]!]));
    const groups = together ? [indices] : [...Map.groupBy(indices, (i) => (capturing() === null ? counts[i] : i)).values()];
    const key = groups.length === 1 && indices.length === this.parameters.length ? "" : groups.join(";");
    const known = this.#works.get(key);
    if (known !== undefined) return known;
    const cut = ({ block, offset, bytes }: Run): { w: Operand; grad: Operand; count: number; from: number }[] =>
      Array.from({ length: Math.ceil(bytes / (4 * piece_max)) }, (_, i) => {
        const from = i * 4 * piece_max;
        const [w, grad] = [block.arena, block.gradients].map(({ handle }): Operand => ({ arena: handle, offset: offset + from })) as [Operand, Operand];
        return { w, grad, count: Math.min(piece_max, (bytes - from) / 4), from };
      });
    const work: Work = {
      pieces: groups.flatMap((group) => [true, false].flatMap((decays) => this.#runs(group, decays).flatMap(({ run, indices: [first] }) =>
        cut(run).map(({ from, ...piece }) => ({ ...piece, at: this.#places[first!]! + from, decays, settings: this.#settingsAt + settings_bytes * first! }))))),
      sums: runsOf(indices.map((i) => this.parameters[i]!.memory)).flatMap(cut),
    };
    if (this.#works.size >= works_max) this.#works.clear();
    this.#works.set(key, work);
    return work;
  }

  get lr(): number {
    return this.#lr;
  }

  set lr(value: number) {
    if (!(value >= 0 && Number.isFinite(value))) this.#refuse(`lr = ${value} is not a number from 0`);
    this.#lr = value;
  }

  /**
   * Updates made; a step that was skipped does not count. May be set where a run goes on from another's state: then every
   * parameter counts as having had so many.
   */
  get steps(): number {
    return this.#steps;
  }

  set steps(value: number) {
    if (!Number.isInteger(value) || value < 0) this.#refuse(`steps = ${value} is not a whole number from 0`);
    this.#steps = value;
    this.#counts.fill(value);
  }

  /** Bytes of native memory that this optimizer holds. */
  get bytes(): number {
    return this.#arena.bytes;
  }

  zeroGrad(): void {
    for (const parameter of this.parameters) parameter.zeroGrad();
  }

  /**
   * Updates the parameters that have gradients; the others stay as they are. In a program that does not begin with zeroGrad,
   * all count as having them. Where a gradient is NaN or infinite the step is skipped: no weight, no state and no count of
   * steps changes (see gradientNorm).
   * @param scale what gradients are multiplied with first, such as 1 / accumulated batches
   */
  step(scale = 1): void {
    for (const parameter of this.parameters) parameter.checkAlive(titles[this.#rule.rule]);
    const recorder = capturing();
    const given = [...this.parameters.keys()].filter((i) => {
      const { gradient } = this.parameters[i]!;
      return gradient === null ? recorder !== null : !gradient.fresh;
    });
    if (given.length === 0) this.#refuse("step() without a backward() before it: no parameter has a gradient");
    if (recorder !== null && this.#programs.has(recorder)) this.#refuse("a second step() in one program; capture another program for it");
    if (recorder !== null) this.#programs.add(recorder);
    withTag("optimizer", "update", () => {
      for (const i of given) settleGradient(this.parameters[i]!);
      const { pieces, sums } = this.#work(given);
      sums.forEach(({ grad, count }, i) => emit("reduce", { x: grad, y: this.#at(norms_at + 4 * i), outer: 1, axis: count, inner: 1, operation: "sumsq", alpha: 1 }));
      const clip = this.#at(clip_at);
      emit("clip", { sumsq: this.#at(norms_at), out: clip, count: sums.length, max_norm: this.#rule.clip, scale });
      const announce = (): void => {
        this.#counts.forEach((count, i) => this.#settings.set([this.#lr, count + 1], 2 * i));
        this.#arena.write(this.#settingsAt, this.#settings);
      };
      const changed = (): void => given.forEach((i) => this.parameters[i]!.changed());
      // Kernels decide whether gradients are finite and the step is made; it counts if so.
      const count = (): void => {
        changed();
        if (this.#clipped()[2] !== 1) return;
        this.#steps++;
        for (const i of given) this.#counts[i]!++;
      };
      changed();
      if (recorder === null) {
        flush(); // now the decision is made; and an earlier step, with its own settings, is over
        announce();
        count();
      } else recorder.aroundRun(announce, count);
      const { rule, beta1, beta2, eps, nesterov, weightDecay } = this.#rule;
      for (const { w, grad, count, at, decays, settings } of pieces) {
        const [m, v] = this.#kinds.map((kind) => this.#at(kind.at + at));
        emit("optimize", { w, grad, m, v, clip, settings: this.#at(settings), count, rule, beta1, beta2, eps, decay: decays ? weightDecay : 0, nesterov });
      }
    });
  }

  /** The norm of all gradients at the last step, scaled but not clipped. NaN or infinite: that step changed nothing. */
  gradientNorm(): number {
    return this.#clipped()[1]!;
  }

  /** Scale, norm, and 1 where all was finite, of the last step. */
  #clipped(): Float32Array {
    return this.#read(clip_at, new Float32Array(new ArrayBuffer(12)));
  }

  #read(offset: number, target: Float32Array): Float32Array {
    if (capturing() !== null) this.#refuse("values cannot be read while a program is captured");
    flush();
    if (target.length > 0) this.#arena.read(offset, target);
    return target;
  }

  /** State of each parameter, for checkpoints: a large one is never copied as a whole. */
  moments(): Moment[] {
    return this.#kinds.flatMap((kind) => this.parameters.map(({ shape }, i): Moment => {
      const name = `${this.#names[i]}.${kind.name}`;
      const count = product(shape);
      const place = (first: number, { length }: Float32Array): number => {
        if (!Number.isInteger(first) || first < 0 || first + length > count) this.#refuse(`${length} elements from ${first} on are not within ${name} ${show(shape)}`);
        return kind.at + this.#places[i]! + 4 * first;
      };
      return {
        name, shape,
        readRange: (first, target) => void this.#read(place(first, target), target),
        writeRange: (first, values) => {
          const at = place(first, values);
          flush();
          if (values.length > 0) this.#arena.write(at, values);
        },
      };
    }));
  }

  /** All that is needed, besides weights and settings, to go on with the same bits: a copy. */
  stateDict(): OptimizerState {
    const tensors = Object.fromEntries(this.moments().map(({ name, shape, readRange }) => {
      const values = emptyData("f32", product(shape)) as Float32Array;
      readRange(0, values);
      return [name, tensor(values, { shape })];
    }));
    const behind = this.#names.flatMap((name, i): [string, number][] => (this.#counts[i] === this.#steps ? [] : [[name, this.#counts[i]!]]));
    return { rule: this.#rule.rule, step: this.#steps, ...(behind.length === 0 ? {} : { steps: Object.fromEntries(behind) }), tensors };
  }

  /** @throws EggError("data") where the state is another rule's, or names, shapes or counts do not fit; nothing is loaded then */
  loadStateDict({ rule, step, steps = {}, tensors }: OptimizerState): void {
    if (rule !== this.#rule.rule) throw new EggError("data", `[optim] loadStateDict: the state is of ${rule}, the optimizer is ${this.#rule.rule}.`);
    if (!Number.isInteger(step) || step < 0) throw new EggError("data", `[optim] loadStateDict: ${step} is not a number of steps.`);
    const wrong = Object.entries(steps).find(([name, count]) => !this.#names.includes(name) || !Number.isInteger(count) || count < 0 || count > step);
    if (wrong !== undefined) throw new EggError("data", `[optim] loadStateDict: ${wrong[1]} updates of ${wrong[0]}: not a parameter, or not a number of 0 .. ${step}.`);
    const moments = this.moments();
    const types = Object.entries(tensors).filter(([, { dtype }]) => dtype !== "f32").map(([name, { dtype }]) => `${name} is ${dtype}`);
    if (types.length > 0) throw new EggError("data", `[optim] loadStateDict: ${types.join(", ")}; state is f32.`);
    checkNames("optim", "Make the optimizer with the parameters, under the names, that it was saved with.", new Map(moments.map(({ name, shape }) => [name, shape])), tensors);
    const numbers = moments.map(({ name }) => tensors[name]!.toArray() as Float32Array);
    moments.forEach(({ writeRange }, i) => writeRange(0, numbers[i]!));
    this.steps = step;
    this.#names.forEach((name, i) => (this.#counts[i] = steps[name] ?? step));
  }

  /** Gives the memory back. The optimizer cannot be used any more. @throws EggError("usage") while there are programs that step it */
  release(): void {
    flush();
    try {
      giveArena("optimizers", this.#arena);
    } catch (error) {
      if (!(error instanceof EggError) || error.kind === "usage") throw error;
      this.#refuse("programs that step this optimizer are still there", "Release them first.");
    }
    this.#state = null;
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
