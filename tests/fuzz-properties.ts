// What the fuzz targets share: running a parser and naming what came out, properties, readers of their own, JSON by grammar.
// No target: those are in fuzz-config.ts and fuzz-targets.ts. Read next: fuzz-config.ts.
import { EggError, type ErrorKind } from "../src/errors.ts";
import type { Random } from "./fuzz.ts";

export type Input = Uint8Array<ArrayBuffer>;

export const encode = (text: string): Input => new TextEncoder().encode(text);
const strict = new TextDecoder("utf-8", { fatal: true });

/** What `action` gives, or its EggError. Any other error, and one of another kind, is thrown on: that is a finding. */
export function outcome<T>(kinds: readonly ErrorKind[], action: () => T): { value: T } | { error: EggError } {
  try {
    return { value: action() };
  } catch (error) {
    if (error instanceof EggError && kinds.includes(error.kind) && error.message.length < 20_000_000) return { error };
    throw error;
  }
}

/** An error's message without what differs from input to input. */
export function shape({ message }: EggError): string {
  return message.slice(0, 400).replace(/"(?:[^"\\]|\\.)*"?/g, '""').replace(/[\d,]+/g, "0").replace(/(tensor|key of|found|metadata) \S+/g, "$1");
}

const counts = new Map<string, number>();

/** True at first, and then for one in eight: for properties that take much longer than the parser. */
export function often(name: string): boolean {
  const count = counts.get(name) ?? 0;
  counts.set(name, count + 1);
  return count < 1000 || count % 8 === 0;
}

export function must(truth: boolean, what: string): asserts truth {
  if (!truth) throw new Error(`property broken: ${what}`);
}

export function parsed(text: string): { value: unknown } | null {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch {
    return null;
  }
}

export function decoded(bytes: Uint8Array): string | null {
  try {
    return strict.decode(bytes);
  } catch {
    return null;
  }
}

// ---- JSON by grammar

export const texts = ["a", "run", "model", "é", "𝄞", "\\n", "\\u00e9", "\\ud83d\\ude00", "\\ud800", "", "__proto__", "constructor", "//", "/*", ",]", "\\\\", '\\"', "$schema", "seed", "1"];
const numbers = ["0", "-0", "1", "12", "-1.5", "1e3", "1E-2", "9007199254740993", "1e400", "0.1", "1e-400"];

export function json(random: Random, depth: number, jsonc: boolean): string {
  const gap = (): string => (jsonc && random.oneIn(8) ? random.of([" ", "\n", "\t", "\r\n", "/* , ] */", "// }\n", "/**/"]) : random.oneIn(6) ? " " : "");
  const kind = random.below(depth > 0 ? 8 : 5);
  if (kind === 0) return random.of(numbers);
  if (kind === 1) return random.of(["true", "false", "null"]);
  if (kind <= 4) return `"${random.of(texts)}${random.oneIn(3) ? random.of(texts) : ""}"`;
  const items: string[] = [];
  for (let n = random.below(5); n > 0; n--) items.push(gap() + (kind === 5 ? "" : `"${random.of(texts)}${random.below(30)}"${gap()}:${gap()}`) + json(random, depth - 1, jsonc) + gap());
  const trailing = jsonc && items.length > 0 && random.oneIn(3) ? `,${gap()}` : "";
  return kind === 5 ? `[${items.join(",")}${trailing}]` : `{${items.join(",")}${trailing}}`;
}
