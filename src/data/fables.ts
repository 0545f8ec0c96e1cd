// The built-in corpus: a seeded story machine whose entropy per byte is known exactly.
// Not a language model and not the words themselves: those are in fables-grammar.ts. Read that file next.
//
// A story is a sequence of weighted choices; stories are independent draws, so the entropy rate of the endless text
// is E[bits of choices per story] / E[bytes per story]. That is the entropy of the TEXT only if no text can come from
// two different sequences of choices. Here every rule writes a prefix code: wherever alternatives meet, no text of
// one (with what follows it in its sentence) begins a text of another. By induction from the words up, two different
// derivations of a rule differ before either ends: at the first choice where they part, either the alternatives
// differ, which the rule above excludes, or the same alternative was derived twice in different ways, which induction
// excludes. tests/fables.test.ts proves the condition for every choice by walking the automata of its alternatives.

import { EggError } from "../errors.ts";
import { lists, rules } from "./fables-grammar.ts";

/** Goes up whenever one byte of the text for some seed changes; part of the fingerprint of the built-in corpus. */
export const fablesVersion = 1;

/** What a node of the compiled grammar does. */
export const Op = { text: 0, sequence: 1, choice: 2, word: 3, recall: 4 } as const;

/** A node of the compiled grammar. One shape for all kinds, so that the generator's loop stays fast. */
export interface FableNode {
  readonly op: number;
  /** text: the one text. word, recall: the text for each word of the list, in the form that the sentence needs. */
  readonly texts: string[];
  /** sequence: the parts. choice: the alternatives. */
  readonly items: FableNode[];
  /** choice, word: integer weights of the alternatives; their sum is a power of two, so that probabilities are exact. */
  readonly weights: number[];
  /** word: the variable that remembers the index of the word, or -1. recall: the variable to repeat. */
  readonly variable: number;
  /** word, recall: the list's name; others: where the node stands, for messages. */
  readonly name: string;
  /** choice, word: the alternative for each value of the random bits; the bits are `random >>> shift`. */
  readonly table: Uint16Array;
  readonly shift: number;
  /** text, word, recall: where each text lies in the byte pool. */
  readonly starts: Int32Array;
  readonly ends: Int32Array;
}

export interface FablesGrammar {
  readonly story: FableNode;
  readonly variables: string[];
  /** The texts of all nodes, one after the other. */
  readonly pool: Uint8Array;
  readonly longestStory: number;
}

let compiled: FablesGrammar | undefined;

/** The grammar of the stories, compiled on first use (a few milliseconds). */
export function fablesGrammar(): FablesGrammar {
  compiled ??= compile();
  return compiled;
}

/**
 * `size` bytes of fables, the last one cut where the size ends. The same bytes on every machine: integer arithmetic
 * only. `seed` is an integer, 0 .. 2^32-1.
 */
export function fables(size: number, seed: number): Uint8Array {
  const { story, variables, pool, longestStory } = fablesGrammar();
  let out: Uint8Array;
  try {
    out = new Uint8Array(size);
  } catch (cause) {
    throw new EggError("resources", `[data] builtin:fables: no memory for ${size.toLocaleString("en-US")} bytes of text.`, {
      hint: "Ask for less, such as builtin:fables:64MiB.",
      cause,
    });
  }
  const random = xoshiro128(seed);
  const bound = new Int32Array(variables.length);
  let target = out;
  let position = 0;

  function tell(node: FableNode): void {
    let index = 0;
    switch (node.op) {
      case Op.sequence: {
        const items = node.items;
        for (let i = 0; i < items.length; i++) tell(items[i]!);
        return;
      }
      case Op.choice:
        tell(node.items[node.table[random() >>> node.shift]!]!);
        return;
      case Op.word:
        index = node.table[random() >>> node.shift]!;
        if (node.variable >= 0) bound[node.variable] = index;
        break;
      case Op.recall:
        index = bound[node.variable]!;
        break;
    }
    const end = node.ends[index]!;
    for (let i = node.starts[index]!; i < end; i++) target[position++] = pool[i]!;
  }

  while (size - position >= longestStory) tell(story);
  let written = position;
  target = new Uint8Array(longestStory);
  while (written < size) {
    position = 0;
    tell(story);
    const take = Math.min(position, size - written);
    out.set(target.subarray(0, take), written);
    written += take;
  }
  return out;
}

/** The exact entropy of the endless text, in bits per byte: what the best possible model would reach. */
export function fablesEntropy(): number {
  const { bits, bytes } = expectation(fablesGrammar().story, new Map());
  return bits / bytes;
}

interface Expectation {
  bits: number;
  bytes: number;
}

/**
 * Expected bits of choices and expected bytes of one node. A repeated word costs no bits; its expected length is that
 * of its list, because no probability in the grammar depends on which word was drawn.
 */
function expectation(node: FableNode, known: Map<FableNode, Expectation>): Expectation {
  const before = known.get(node);
  if (before) return before;
  const result: Expectation = { bits: 0, bytes: 0 };
  if (node.op === Op.text) {
    result.bytes = node.texts[0]!.length;
  } else if (node.op === Op.sequence) {
    for (const item of node.items) {
      const part = expectation(item, known);
      result.bits += part.bits;
      result.bytes += part.bytes;
    }
  } else {
    const total = node.weights.reduce((sum, weight) => sum + weight, 0);
    node.weights.forEach((weight, i) => {
      const p = weight / total;
      if (node.op === Op.choice) {
        const part = expectation(node.items[i]!, known);
        result.bits += p * part.bits;
        result.bytes += p * part.bytes;
      } else {
        result.bytes += p * node.texts[i]!.length;
      }
      if (node.op !== Op.recall) result.bits -= p * Math.log2(p);
    });
  }
  known.set(node, result);
  return result;
}

// ---- from the tables of fables-grammar.ts to nodes ----

const masculine: Record<string, string> = { he: "he", him: "him", his: "his", He: "He", His: "His" };
const feminine: Record<string, string> = { he: "she", him: "her", his: "her", He: "She", His: "Her" };

/** The forms that a sentence can ask of a word: `fox`, `.a` a fox, `.A` A fox, `.cap` Fox; with a gender also `.he` and so on. */
function formOf(entry: string, form: string): string {
  const [word, gender] = entry.split("/") as [string, string | undefined];
  const vowel = /^(?:[aeiou]|honest|hour)/.test(word) && !/^(?:one-|ewe|us[eu])/.test(word);
  switch (form) {
    case "":
      return word;
    case "a":
      return (vowel ? "an " : "a ") + word;
    case "A":
      return (vowel ? "An " : "A ") + word;
    case "cap":
      return word.charAt(0).toUpperCase() + word.slice(1);
  }
  const text = (gender === "she" ? feminine : masculine)[form];
  if (gender === undefined || text === undefined) throw new Error(`fables: ${entry} has no form .${form}`);
  return text;
}

/** Integer weights with a power of two as their sum, as near to the wanted proportions as largest remainders get. */
function apportion(wanted: number[], total: number): number[] {
  const sum = wanted.reduce((a, b) => a + b, 0);
  const exact = wanted.map((weight) => (weight * total) / sum);
  const weights = exact.map((weight) => Math.max(1, Math.floor(weight)));
  let left = total - weights.reduce((a, b) => a + b, 0);
  const byRemainder = exact.map((_, i) => i).sort((a, b) => exact[b]! - weights[b]! - (exact[a]! - weights[a]!) || a - b);
  for (const i of byRemainder) if (left > 0) (weights[i]! += 1), (left -= 1);
  for (let i = 0; left < 0; i = (i + 1) % weights.length) if (weights[i]! > 1) (weights[i]! -= 1), (left += 1);
  return weights;
}

/** Lists are in order of use: weight 1 / (rank + slope), so that a larger slope is flatter. */
function zipf(count: number, slope: number): number[] {
  return Array.from({ length: count }, (_, rank) => Math.floor(2 ** 20 / (rank + slope)));
}

type Lottery = Pick<FableNode, "weights" | "table" | "shift">;

function lottery(wanted: number[], total: number): Lottery {
  const weights = apportion(wanted, total);
  const table = new Uint16Array(total);
  weights.reduce((from, weight, i) => (table.fill(i, from, from + weight), from + weight), 0);
  return { weights, table, shift: 32 - Math.log2(total) };
}

function cached<T>(done: Map<string, T>, key: string, make: () => T): T {
  const before = done.get(key);
  if (before !== undefined) return before;
  const made = make();
  done.set(key, made);
  return made;
}

const nothing: FableNode = {
  op: -1, name: "", texts: [], items: [], weights: [], variable: -1,
  table: new Uint16Array(0), shift: 0, starts: new Int32Array(0), ends: new Int32Array(0),
};

function compile(): FablesGrammar {
  const variables: string[] = [];
  const variableLists: string[] = [];
  const rulesDone = new Map<string, FableNode | "open">();
  const oddsDone = new Map<string, Lottery>();
  const formsDone = new Map<string, Pick<FableNode, "texts" | "starts" | "ends">>();
  const poolParts: string[] = [];
  let poolLength = 0;

  function pooled(texts: string[]): Pick<FableNode, "texts" | "starts" | "ends"> {
    const starts = new Int32Array(texts.length);
    const ends = new Int32Array(texts.length);
    texts.forEach((text, i) => {
      starts[i] = poolLength;
      poolLength += text.length;
      ends[i] = poolLength;
      poolParts.push(text);
    });
    return { texts, starts, ends };
  }

  /** One line of the grammar's tables as a node; the parts that its kind does not use stay empty. */
  function node(op: number, name: string, given: Partial<FableNode>): FableNode {
    return { ...nothing, ...given, op, name };
  }

  /** `<rule>`, `<list.form>`, `<variable=list.form>`, `<variable.form>` */
  function reference(inside: string): FableNode {
    const [, binding, name, form = ""] = /^(?:(\w+)=)?(\w+)(?:\.(\w+))?$/.exec(inside) ?? [];
    if (name === undefined) throw new Error(`fables: <${inside}> is not a reference`);
    if (rules[name]) return rule(name);
    const recalled = variables.indexOf(name);
    const listName = recalled < 0 ? name : variableLists[recalled]!;
    const list = lists[listName];
    if (!list) throw new Error(`fables: nothing is called ${name} before <${inside}>`);
    const entries = list.words.split(",").map((entry) => entry.trim().replace(/\s+/g, " "));
    const odds = cached(oddsDone, listName, () => lottery(zipf(entries.length, list.slope), 2048));
    const forms = cached(formsDone, `${listName}.${form}`, () => pooled(entries.map((entry) => formOf(entry, form))));
    if (recalled >= 0) return node(Op.recall, name, { ...forms, ...odds, variable: recalled });
    if (binding === undefined) return node(Op.word, name, { ...forms, ...odds });
    let variable = variables.indexOf(binding);
    if (variable < 0) variable = variables.push(binding) - 1;
    variableLists[variable] ??= name;
    // One list for a variable: expectation() leans on it.
    if (variableLists[variable] !== name) throw new Error(`fables: ${binding} is drawn from two lists`);
    return node(Op.word, name, { ...forms, ...odds, variable });
  }

  /** A sentence: text with `<references>` and `{one|or|the other}`. */
  function sentence(source: string, name: string): FableNode {
    const items: FableNode[] = [];
    for (let at = 0; at < source.length; ) {
      if (source[at] === "<") {
        const end = source.indexOf(">", at);
        items.push(reference(source.slice(at + 1, end)));
        at = end + 1;
      } else if (source[at] === "{") {
        const parts = [""];
        let depth = 1;
        for (at += 1; depth > 0; at += 1) {
          const letter = source[at];
          if (letter === undefined) throw new Error(`fables: open brace in ${name}`);
          if (letter === "{") depth += 1;
          if (letter === "}") depth -= 1;
          if (letter === "|" && depth === 1) parts.push("");
          else if (depth > 0) parts[parts.length - 1] += letter;
        }
        items.push(alternatives(parts, name));
      } else {
        const end = source.slice(at).search(/[<{]/);
        const text = end < 0 ? source.slice(at) : source.slice(at, at + end);
        items.push(node(Op.text, name, pooled([text])));
        at += text.length;
      }
    }
    return items.length === 1 ? items[0]! : node(Op.sequence, name, { items });
  }

  /** Each alternative may open with its weight, as in `3* The end.`; without one it is 1. */
  function alternatives(sources: string[], name: string): FableNode {
    const parsed = sources.map((source) => /^(?:(\d+)\* )?([^]*)$/.exec(source)!);
    const items = parsed.map((part, i) => sentence(part[2]!, `${name} ${i + 1}`));
    if (items.length === 1) return items[0]!;
    const wanted = parsed.map((part) => Number(part[1] ?? 1));
    const sum = wanted.reduce((a, b) => a + b, 0);
    return node(Op.choice, name, { items, ...lottery(wanted, Number.isInteger(Math.log2(sum)) ? sum : 1024) });
  }

  function rule(name: string): FableNode {
    const done = rulesDone.get(name);
    if (done === "open") throw new Error(`fables: rule ${name} contains itself`);
    if (done) return done;
    rulesDone.set(name, "open");
    const result = alternatives(rules[name]!, name);
    rulesDone.set(name, result);
    return result;
  }

  const story = rule("story");
  const pool = new Uint8Array(poolLength);
  new TextEncoder().encodeInto(poolParts.join(""), pool);
  return { story, variables, pool, longestStory: longest(story, new Map()) };
}

function longest(node: FableNode, known: Map<FableNode, number>): number {
  let length = known.get(node);
  if (length !== undefined) return length;
  if (node.op === Op.sequence) length = node.items.reduce((sum, item) => sum + longest(item, known), 0);
  else if (node.op === Op.choice) length = Math.max(...node.items.map((item) => longest(item, known)));
  else length = Math.max(...node.texts.map((text) => text.length));
  known.set(node, length);
  return length;
}

/** xoshiro128** (Blackman and Vigna), its state filled from the seed by SplitMix32: 32 random bits a call. */
function xoshiro128(seed: number): () => number {
  let filler = seed >>> 0;
  const fill = () => {
    filler = (filler + 0x9e3779b9) | 0;
    let z = filler;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return z ^ (z >>> 15);
  };
  let a = fill();
  let b = fill();
  let c = fill();
  let d = fill() | 1; // never all zero
  return () => {
    const mixed = Math.imul(b, 5);
    const result = Math.imul((mixed << 7) | (mixed >>> 25), 9);
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = (d << 11) | (d >>> 21);
    return result;
  };
}
