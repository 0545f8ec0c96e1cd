// A strict JSONC reader (JSON with comments and trailing commas) that keeps the place of every key and value.
// Not a general parser: limits are those of a config file, and the first fault ends it.
// Read next: load.ts, which checks what was read against the table of knobs.

import { EggError } from "../errors.ts";

/** 1-based; columns count UTF-16 units, as editors do in file:line:column. */
export interface Place {
  line: number;
  column: number;
}

export type JsonNode =
  | { kind: "object"; at: Place; entries: { key: string; at: Place; value: JsonNode }[] }
  | { kind: "array"; at: Place; items: JsonNode[] }
  | { kind: "scalar"; at: Place; value: string | number | boolean | null };

/** Largest config file, in bytes. */
export const longestFile = 1_048_576;
const deepest = 64;
const mostValues = 10_000;

const words: ReadonlyMap<string, boolean | null> = new Map([["true", true], ["false", false], ["null", null]]);
const escapes: ReadonlyMap<string, string> = new Map([
  ['"', '"'], ["\\", "\\"], ["/", "/"], ["b", "\b"], ["f", "\f"], ["n", "\n"], ["r", "\r"], ["t", "\t"],
]);
const jsonNumber = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;

/**
 * The tree of a JSONC file (UTF-8, a byte order mark allowed).
 * Throws EggError("usage") "name:line:column expected …, found …" on the first fault: wrong syntax, a key given twice, bad escapes and
 * numbers, control characters, more than 64 levels, 10,000 values or 1 MiB, bytes that are not UTF-8.
 */
export function parseJsonc(bytes: Uint8Array, name: string): JsonNode {
  if (bytes.length > longestFile) fail(name, { line: 1, column: 1 }, `expected at most ${longestFile} bytes, found more`);
  return new Reader(decode(bytes, name), name).file();
}

function fail(name: string, at: Place, message: string): never {
  throw new EggError("usage", `${name}:${at.line}:${at.column} ${message}`);
}

function decode(bytes: Uint8Array, name: string): string {
  const read = (length: number, stream: boolean) => new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, length), { stream });
  try {
    return read(bytes.length, false);
  } catch {
    // The longest prefix that a streaming decoder takes ends where the fault is.
    let good = 0;
    for (let bad = bytes.length + 1; bad - good > 1; ) {
      const middle = (good + bad) >> 1;
      try {
        read(middle, true);
        good = middle;
      } catch {
        bad = middle;
      }
    }
    const lines = read(good, true).split(/\r\n|\r|\n/);
    fail(name, { line: lines.length, column: lines.at(-1)!.length + 1 }, "expected UTF-8 text, found bytes that are not");
  }
}

class Reader {
  private index = 0;
  private values = 0;
  private line = 1;
  private lineStart = 0;

  constructor(
    private readonly text: string,
    private readonly name: string,
  ) {}

  file(): JsonNode {
    this.space();
    const root = this.value(0);
    this.space();
    if (this.index < this.text.length) this.wrong("nothing after the config");
    return root;
  }

  private place(): Place {
    return { line: this.line, column: this.index - this.lineStart + 1 };
  }

  private wrong(expected: string, at = this.place()): never {
    return fail(this.name, at, `expected ${expected}, found ${this.here()}`);
  }

  /** What stands here, for a message: a word, a character, or the end. */
  private here(): string {
    if (this.index >= this.text.length) return "the end of the file";
    const run = /[\w.+-]+/y;
    run.lastIndex = this.index;
    const word = run.exec(this.text)?.[0];
    if (word !== undefined) return word.length > 40 ? `${word.slice(0, 39)}…` : word;
    const code = this.text.codePointAt(this.index)!;
    if (code > 0x20 && code < 0x7f) return String.fromCodePoint(code) === '"' ? "a text" : `"${String.fromCodePoint(code)}"`;
    return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  }

  /** Skips blanks and comments. Lines end with LF, CR LF or CR. */
  private space(): void {
    for (;;) {
      const char = this.text[this.index];
      if (char === " " || char === "\t") this.index++;
      else if (char === "\n" || char === "\r") this.lineEnd();
      else if (char === "/" && this.text[this.index + 1] === "/") {
        while (this.index < this.text.length && this.text[this.index] !== "\n" && this.text[this.index] !== "\r") this.index++;
      } else if (char === "/" && this.text[this.index + 1] === "*") this.blockComment();
      else return;
    }
  }

  private lineEnd(): void {
    this.index += this.text.startsWith("\r\n", this.index) ? 2 : 1;
    this.line++;
    this.lineStart = this.index;
  }

  private blockComment(): void {
    const start = this.place();
    this.index += 2;
    while (!this.text.startsWith("*/", this.index)) {
      if (this.index >= this.text.length) this.wrong(`"*/" to end the comment that begins at ${start.line}:${start.column}`);
      if (this.text[this.index] === "\n" || this.text[this.index] === "\r") this.lineEnd();
      else this.index++;
    }
    this.index += 2;
  }

  private value(depth: number): JsonNode {
    const at = this.place();
    const char = this.text[this.index];
    if (++this.values > mostValues) fail(this.name, at, `expected at most ${mostValues} values, found more`);
    if ((char === "{" || char === "[") && depth >= deepest) fail(this.name, at, `expected at most ${deepest} levels of nesting, found more`);
    if (char === "{") return this.object(at, depth);
    if (char === "[") return this.array(at, depth);
    if (char === '"') return { kind: "scalar", at, value: this.string() };
    return { kind: "scalar", at, value: this.word() };
  }

  private object(at: Place, depth: number): JsonNode {
    const entries: { key: string; at: Place; value: JsonNode }[] = [];
    const seen = new Map<string, Place>();
    this.index++;
    for (;;) {
      this.space();
      if (this.text[this.index] === "}") break;
      if (this.text[this.index] !== '"') this.wrong('a key in double quotes or "}"');
      const keyAt = this.place();
      const key = this.string();
      const first = seen.get(key);
      if (first !== undefined) fail(this.name, keyAt, `expected each key once, found ${JSON.stringify(key)} again (first at ${first.line}:${first.column})`);
      seen.set(key, keyAt);
      this.space();
      if (this.text[this.index] !== ":") this.wrong(`":" after the key ${JSON.stringify(key)}`);
      this.index++;
      this.space();
      entries.push({ key, at: keyAt, value: this.value(depth + 1) });
      this.space();
      if (this.text[this.index] === ",") this.index++;
      else if (this.text[this.index] !== "}") this.wrong('"," or "}"');
    }
    this.index++;
    return { kind: "object", at, entries };
  }

  private array(at: Place, depth: number): JsonNode {
    const items: JsonNode[] = [];
    this.index++;
    for (;;) {
      this.space();
      if (this.text[this.index] === "]") break;
      items.push(this.value(depth + 1));
      this.space();
      if (this.text[this.index] === ",") this.index++;
      else if (this.text[this.index] !== "]") this.wrong('"," or "]"');
    }
    this.index++;
    return { kind: "array", at, items };
  }

  /** A number, true, false or null: everything up to the next character that cannot be part of one. */
  private word(): number | boolean | null {
    const run = /[\w.+-]+/y;
    run.lastIndex = this.index;
    const word = run.exec(this.text)?.[0] ?? "";
    const constant = words.get(word);
    const numeric = /^[-+.\d]/.test(word);
    if (constant === undefined && !numeric) this.wrong('a value (a number, a text in double quotes, true, false, null, "{" or "[")');
    if (numeric && !jsonNumber.test(word)) this.wrong("a number such as 12, -0.5 or 1e3");
    const value = constant === undefined ? Number(word) : constant;
    if (typeof value === "number" && !Number.isFinite(value)) this.wrong("a number below 1.8e308");
    this.index += word.length;
    return value === 0 ? 0 : value;
  }

  private string(): string {
    const start = this.place();
    let value = "";
    this.index++;
    for (;;) {
      const char = this.text[this.index];
      if (char === undefined || char === "\n" || char === "\r")
        fail(this.name, this.place(), `expected '"' to end the text that begins at ${start.line}:${start.column}, found the end of the ${char === undefined ? "file" : "line"}`);
      if (char < " ") this.wrong("no control characters in a text (write \\n, \\t or \\u00XX)");
      if (char === "\\") value += this.escape();
      else {
        value += char;
        this.index++;
        if (char === '"') return value.slice(0, -1);
      }
    }
  }

  private escape(): string {
    const at = this.place();
    const expected = 'an escape such as \\n, \\", \\\\ or \\u00e9';
    const wrong = (length: number): never => {
      const text = this.text.slice(this.index, this.index + length);
      return fail(this.name, at, `expected ${expected}, found ${/^[\x20-\x7e]*$/.test(text) ? text : "a stray backslash"}`);
    };
    const plain = escapes.get(this.text[this.index + 1] ?? "");
    if (plain !== undefined) {
      this.index += 2;
      return plain;
    }
    if (this.text[this.index + 1] !== "u") wrong(2);
    // One unit, or a high and a low surrogate that belong together; half a pair is no character.
    const [unit] = /^\\u(?:[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(?![dD][89a-fA-F])[\da-fA-F]{4})/.exec(this.text.slice(this.index, this.index + 12)) ?? [];
    if (unit === undefined) return wrong(6);
    this.index += unit.length;
    return String.fromCharCode(...unit.split("\\u").slice(1).map((hex) => parseInt(hex, 16)));
  }
}
