// A fuzzer for the parsers of foreign bytes: well-formed inputs by grammar, mutations of inputs that did something new, and properties.
// Not the targets: fuzz-targets.ts. Short in fuzz.test.ts; long by `bun tests/soak.ts fuzz NAME N`, with the seeds of tests/fuzz-seeds.
import fs from "node:fs";
import { join } from "node:path";

/** Random numbers that a seed repeats (Marsaglia's xorshift32). */
export class Random {
  #x: number;

  constructor(seed: number) {
    this.#x = (Math.imul(seed, 2654435761) >>> 0) || 1;
  }

  /** A whole number from 0 to n - 1. */
  below(n: number): number {
    this.#x ^= this.#x << 13;
    this.#x ^= this.#x >>> 17;
    this.#x ^= this.#x << 5;
    return (this.#x >>> 0) % n;
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** True once in n times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.below(256);
    return bytes;
  }
}

export interface Target {
  /** Words of the format, for mutations. */
  words: readonly (string | Uint8Array)[];
  /** An input by the grammar: whole, or nearly so. */
  make(random: Random): Uint8Array<ArrayBuffer>;
  /** A mutated input as it is to be tried, where there is something to set right, such as a checksum. */
  mend?(bytes: Uint8Array<ArrayBuffer>, random: Random): Uint8Array<ArrayBuffer>;
  /**
   * Runs the parser and checks every property; throws where one fails. Returns what happened, in few words: an input with a new outcome
   * is kept and mutated further.
   */
  check(bytes: Uint8Array<ArrayBuffer>): string;
  /** What may be allocated in arrays by length, as a multiple of the input; not counted where it is left out. */
  allocates?: number;
  /** An input that takes longer three times in a row, of the processor's time, hangs; 2000 where it is left out. */
  patience_ms?: number;
}

export interface Figures {
  executions: number;
  /** Different outcomes, and inputs kept for them. */
  outcomes: number;
  /** The slowest input, milliseconds. */
  slowest_ms: number;
  seed: number;
}

/** A property that failed, with the input that shows it. */
export class Finding extends Error {
  constructor(readonly input: Uint8Array, message: string, cause: unknown) {
    super(message, { cause });
    this.name = "Finding";
  }
}

const longestInput = 4096;
const mostKept = 1000;
/** Bytes that a parser may allocate whatever the input. */
const slack = 4096;

/** The seeds that lie in the repository for a target. */
export function seedsOf(name: string): { file: string; bytes: Uint8Array<ArrayBuffer> }[] {
  const folder = join(import.meta.dir, "fuzz-seeds", name);
  return fs.existsSync(folder) ? fs.readdirSync(folder).sort().map((file) => ({ file, bytes: new Uint8Array(fs.readFileSync(join(folder, file))) })) : [];
}

/** Tries `executions` inputs. @throws Finding for the first that breaks a property */
export function fuzz(target: Target, seeds: readonly Uint8Array<ArrayBuffer>[], executions: number, seed: number, progress: (done: number) => void = () => {}): Figures {
  const random = new Random(seed);
  const kept = [...seeds, target.make(random)];
  const outcomes = new Set<string>();
  let slowest = 0;
  const traces = Error.stackTraceLimit;
  Error.stackTraceLimit = 0; // a parser's error is made a million times
  const counter = target.allocates === undefined ? undefined : countAllocations();
  try {
    for (let i = 0; i < executions; i++) {
      let input = i < kept.length ? kept[i]! : random.oneIn(6) ? target.make(random) : mutated(random.of(kept), kept, target.words, random);
      if (i >= seeds.length && target.mend !== undefined) input = target.mend(input, random);
      if (i % 20_000 === 19_999) input = blown(input, random);
      const [outcome, ms] = tried(target, input, counter);
      if (ms > slowest) slowest = ms;
      if (!outcomes.has(outcome) && outcomes.size < 20_000) {
        outcomes.add(outcome);
        if (input.length <= longestInput) {
          if (kept.length < mostKept) kept.push(input);
          else kept[seeds.length + random.below(mostKept - seeds.length)] = input;
        }
      }
      if (i % 100_000 === 99_999) progress(i + 1);
    }
  } finally {
    counter?.end();
    Error.stackTraceLimit = traces;
  }
  return { executions, outcomes: outcomes.size, slowest_ms: Number(slowest.toFixed(1)), seed };
}

/** One input: its outcome and its milliseconds. */
export function tried(target: Target, input: Uint8Array<ArrayBuffer>, counter: Counter = nothing): [string, number] {
  try {
    counter.bytes = 0;
    const begun = performance.now();
    const outcome = target.check(input);
    let ms = performance.now() - begun;
    const { patience_ms = 2000 } = target;
    const allocated = counter.bytes;
    if (target.allocates !== undefined && allocated > target.allocates * input.length + slack) throw new Error(`allocates ${allocated} bytes for ${input.length}`);
    // A clock on the wall also counts what other programs do.
    for (let again = 0; again < 2 && ms > patience_ms; again++) {
      const before = process.cpuUsage();
      target.check(input);
      const { user, system } = process.cpuUsage(before);
      ms = Math.min(ms, (user + system) / 1000);
    }
    if (ms > patience_ms) throw new Error(`takes ${Math.round(ms)} ms`);
    return [outcome, ms];
  } catch (error) {
    throw new Finding(input, `${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}\ninput (${input.length} bytes, base64): ${Buffer.from(input).toBase64().slice(0, 6000)}`, error);
  }
}

export interface Counter { bytes: number }
const nothing: Counter = { bytes: 0 };

/** Counts the bytes of arrays and buffers that are allocated by length, from here to `end`. */
function countAllocations(): Counter & { end(): void } {
  const { Uint8Array: array } = globalThis;
  const { alloc, allocUnsafe } = Buffer;
  const counter = { bytes: 0, end: () => Object.assign(globalThis, { Uint8Array: array }, void Object.assign(Buffer, { alloc, allocUnsafe })) };
  globalThis.Uint8Array = new Proxy(array, {
    construct(target, given: [number], newTarget) {
      if (typeof given[0] === "number") counter.bytes += given[0];
      return Reflect.construct(target, given, newTarget === globalThis.Uint8Array ? target : newTarget) as object;
    },
  });
  Buffer.alloc = ((size: number, ...rest: []) => ((counter.bytes += size), alloc.call(Buffer, size, ...rest))) as typeof Buffer.alloc;
  Buffer.allocUnsafe = (size: number) => ((counter.bytes += size), allocUnsafe.call(Buffer, size));
  return counter;
}

const edges = ["0", "-1", "1", "2", "8", "9", "255", "256", "65535", "65536", "2147483647", "2147483648", "4294967295", "4294967296", "9007199254740991", "9007199254740992", "18446744073709551615", "1e308", "1e309", "-0", "01", "1.5"];

/** One to four changes: bits, bytes, pieces taken out, doubled, exchanged, words of the format, numbers at the edges. */
function mutated(from: Uint8Array<ArrayBuffer>, others: readonly Uint8Array<ArrayBuffer>[], words: readonly (string | Uint8Array)[], random: Random): Uint8Array<ArrayBuffer> {
  let bytes = from.slice();
  for (let changes = 1 + random.below(random.oneIn(2) ? 1 : 4); changes > 0; changes--) {
    const at = random.below(bytes.length + 1);
    const length = Math.min(1 + random.below(random.oneIn(4) ? 64 : 4), bytes.length - at);
    switch (random.below(8)) {
      case 0: if (at < bytes.length) bytes[at]! ^= 1 << random.below(8); break;
      case 1: if (at < bytes.length) bytes[at] = random.below(256); break;
      case 2: bytes = spliced(bytes, at, length, none); break;
      case 3: bytes = spliced(bytes, at, 0, bytes.slice(at, at + length)); break;
      case 4: bytes = bytes.slice(0, at); break;
      case 5: {
        const other = random.of(others);
        const begin = random.below(other.length + 1);
        bytes = spliced(bytes, at, length, other.slice(begin, begin + 1 + random.below(64)));
        break;
      }
      case 6: {
        const word = random.of(words);
        bytes = spliced(bytes, at, random.oneIn(2) ? length : 0, typeof word === "string" ? new TextEncoder().encode(word) : word);
        break;
      }
      default: {
        let begin = at;
        while (begin < bytes.length && !digit(bytes[begin]!)) begin++;
        let end = begin;
        while (end < bytes.length && digit(bytes[end]!)) end++;
        if (end > begin) bytes = spliced(bytes, begin, end - begin, new TextEncoder().encode(random.of(edges)));
      }
    }
  }
  return bytes.length > longestInput ? bytes.slice(0, longestInput) : bytes;
}

const none = new Uint8Array(0);
const digit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;

function spliced(bytes: Uint8Array, at: number, remove: number, insert: Uint8Array): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(bytes.length - remove + insert.length);
  result.set(bytes.subarray(0, at));
  result.set(insert, at);
  result.set(bytes.subarray(at + remove), at + insert.length);
  return result;
}

/** A piece of the input many times over, to a quarter of a megabyte: what grows faster than the input shows itself. */
function blown(bytes: Uint8Array, random: Random): Uint8Array<ArrayBuffer> {
  const at = random.below(bytes.length + 1);
  const length = Math.min(1 + random.below(24), bytes.length - at);
  const times = length === 0 ? 0 : Math.floor(262_144 / length);
  const many = new Uint8Array(times * length);
  for (let i = 0; i < times; i++) many.set(bytes.subarray(at, at + length), i * length);
  return spliced(bytes, at, 0, many);
}
