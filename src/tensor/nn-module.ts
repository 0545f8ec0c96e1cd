// What layers have in common: finding parameters by PyTorch's names, training or evaluating, and saving and loading weights.
// Not the layers themselves. Read next: nn.ts.
import { EggError } from "../errors.ts";
import { Parameter, Tensor, tensor } from "./tensor.ts";
import { sameShape, show, type Data, type Shape } from "./value.ts";

/** Names of a list for a message, the first few of many. */
function listed(names: readonly string[]): string {
  const most = 20;
  return names.length <= most ? names.join(", ") : `${names.slice(0, most).join(", ")} and ${names.length - most} more`;
}

/**
 * Compares what is given to a loadStateDict with what is expected, by name and shape.
 * @param who the part of egg that asks, for the message
 * @throws EggError("data") that lists all that is missing, unknown, or of another shape
 */
export function checkNames(who: string, hint: string, expected: ReadonlyMap<string, Shape>, given: Readonly<Record<string, { shape: Shape }>>): void {
  const missing = [...expected.keys()].filter((name) => !Object.hasOwn(given, name));
  const extra = Object.keys(given).filter((name) => !expected.has(name));
  const wrong = [...expected].flatMap(([name, shape]) => {
    const found = Object.hasOwn(given, name) ? given[name] : undefined;
    return found === undefined || sameShape(found.shape, shape) ? [] : [`${name} is ${show(found.shape)}, expected ${show(shape)}`];
  });
  const parts = [["missing", missing], ["extra", extra], ["wrong shape", wrong]] as const;
  const words = parts.flatMap(([what, names]) => (names.length === 0 ? [] : [`${what}: ${listed(names)}`]));
  if (words.length > 0) throw new EggError("data", `[${who}] loadStateDict: ${words.join("; ")}.`, { hint: `Nothing was loaded. ${hint}` });
}

/** bf16 keeps its bits: reading widens to f32, and the upper half is what it was. */
function numbersOf(value: Tensor): Data {
  const numbers = value.toArray();
  if (value.dtype !== "bf16") return numbers;
  const bits = new Uint32Array(numbers.buffer);
  return Uint16Array.from({ length: bits.length }, (_, i) => bits[i]! >>> 16);
}

/**
 * A layer or a model: a class whose fields are parameters, modules, or arrays of them. A parameter's name is the way to it,
 * such as "layers.0.up.weight", in the order in which the fields were set.
 */
export abstract class Module {
  /** Set by train() and eval(): whether dropout is at work. */
  training = true;

  abstract forward(...inputs: never[]): unknown;

  /** The parts by name. Fields beginning with # and other kinds of values are not parts. */
  protected parts(): [string, Parameter | Module][] {
    const isPart = (value: unknown): value is Parameter | Module => value instanceof Parameter || value instanceof Module;
    return Object.entries(this).flatMap(([name, value]): [string, Parameter | Module][] => {
      if (isPart(value)) return [[name, value]];
      return Array.isArray(value) ? value.flatMap((each, i): [string, Parameter | Module][] => (isPart(each) ? [[`${name}.${i}`, each]] : [])) : [];
    });
  }

  /** This module ("") and all inside, each once. */
  namedModules(prefix = "", seen: Set<Module> = new Set()): [string, Module][] {
    if (seen.has(this)) return [];
    seen.add(this);
    const inside = this.parts().flatMap(([name, part]) => (part instanceof Module ? part.namedModules(prefix === "" ? name : `${prefix}.${name}`, seen) : []));
    return [[prefix, this], ...inside];
  }

  /** All parameters by name, each once: one that is shared (a tied head) goes by its first name. */
  namedParameters(): [string, Parameter][] {
    const seen = new Set<Parameter>();
    return this.namedModules().flatMap(([prefix, module]) => module.parts().flatMap(([name, part]): [string, Parameter][] => {
      if (!(part instanceof Parameter) || seen.has(part)) return [];
      seen.add(part);
      return [[prefix === "" ? name : `${prefix}.${name}`, part]];
    }));
  }

  parameters(): Parameter[] {
    return this.namedParameters().map(([, parameter]) => parameter);
  }

  /** How many numbers can be learned. */
  get parameterCount(): number {
    return this.parameters().reduce((sum, { numel }) => sum + numel, 0);
  }

  train(on = true): this {
    for (const [, module] of this.namedModules()) module.training = on;
    return this;
  }

  eval(): this {
    return this.train(false);
  }

  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.zeroGrad();
  }

  /** A copy of all parameters by name, in JavaScript memory. */
  stateDict(): Record<string, Tensor> {
    return Object.fromEntries(this.namedParameters().map(([name, parameter]) => [name, tensor(numbersOf(parameter), { shape: parameter.shape })]));
  }

  /**
   * Overwrites all parameters, or none where anything does not fit or cannot be read.
   * @throws EggError("data") that lists what is missing, extra, of the wrong shape or type
   */
  loadStateDict(state: Readonly<Record<string, Tensor>>): void {
    const own = this.namedParameters();
    checkNames("nn", "Make the model with the settings that it was saved with.", new Map(own.map(([name, { shape }]) => [name, shape])), state);
    const types = own.filter(([name, { dtype }]) => state[name]!.dtype !== dtype).map(([name, { dtype }]) => `${name} is ${state[name]!.dtype}, expected ${dtype}`);
    if (types.length > 0) throw new EggError("data", `[nn] loadStateDict: wrong type: ${listed(types)}.`, { hint: "Nothing was loaded. Convert with to(\"f32\") first." });
    const numbers = own.map(([name]) => numbersOf(state[name]!));
    for (const [, parameter] of own) parameter.checkAlive("loadStateDict");
    own.forEach(([, parameter], i) => parameter.copy_(numbers[i]!));
  }

  /** Gives the memory of all parameters back. The module cannot be used any more. */
  release(): void {
    for (const parameter of this.parameters()) parameter.release();
  }
}
