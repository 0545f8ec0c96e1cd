// The built-in corpus: its entropy is exact only if every story has one derivation; that is proved here, not sampled.
// Not about reading corpora: that is data.test.ts. Read src/data/fables.ts next.

import { expect, test } from "bun:test";
import { fables, fablesEntropy, fablesGrammar, fablesVersion, Op, type FableNode } from "../src/data/fables.ts";

const text = (size: number, seed: number) => new TextDecoder().decode(fables(size, seed));
const { story, variables } = fablesGrammar();

// ---- a parser that knows only the grammar, and finds every derivation ----

interface Derivation {
  bits: number;
}

/** All derivations of `source[from, to)` as one story. Backtracking over everything: no choice is taken for granted. */
function derivations(source: string, from: number, to: number): Derivation[] {
  const found: Derivation[] = [];
  const bound: number[] = variables.map(() => -1);
  const walk = (node: FableNode, at: number, bits: number, next: (at: number, bits: number) => void): void => {
    const total = node.weights.reduce((a, b) => a + b, 0);
    if (node.op === Op.text) {
      if (source.startsWith(node.texts[0]!, at)) next(at + node.texts[0]!.length, bits);
    } else if (node.op === Op.sequence) {
      const item = (i: number, at: number, bits: number): void =>
        i === node.items.length ? next(at, bits) : walk(node.items[i]!, at, bits, (at, bits) => item(i + 1, at, bits));
      item(0, at, bits);
    } else if (node.op === Op.choice) {
      node.items.forEach((item, i) => walk(item, at, bits - Math.log2(node.weights[i]! / total), next));
    } else if (node.op === Op.word) {
      node.texts.forEach((word, i) => {
        if (!source.startsWith(word, at)) return;
        const before = bound[node.variable];
        if (node.variable >= 0) bound[node.variable] = i;
        next(at + word.length, bits - Math.log2(node.weights[i]! / total));
        if (node.variable >= 0) bound[node.variable] = before!;
      });
    } else {
      const word = node.texts[bound[node.variable]!];
      if (word === undefined) throw new Error(`${node.name} is repeated before it is drawn`);
      if (source.startsWith(word, at)) next(at + word.length, bits);
    }
  };
  walk(story, from, 0, (at, bits) => {
    if (at === to) found.push({ bits });
  });
  return found;
}

test("each of the stories of 2 MiB has exactly one derivation, and their cost meets the exact rate within 1 %", () => {
  const source = text(2 * 2 ** 20, 7);
  let stories = 0;
  let bits = 0;
  let start = 0;
  for (let end = source.indexOf("\n\n"); end >= 0; end = source.indexOf("\n\n", start)) {
    const found = derivations(source, start, end + 2);
    if (found.length !== 1) throw new Error(`${found.length} derivations of: ${source.slice(start, end)}`);
    bits += found[0]!.bits;
    stories += 1;
    start = end + 2;
  }
  expect(stories).toBeGreaterThanOrEqual(2000);
  const ratio = bits / start / fablesEntropy();
  expect(ratio).toBeGreaterThan(0.99);
  expect(ratio).toBeLessThan(1.01);
}, 60_000);

test("the parser counts two derivations where a grammar has two, and none for a story that is not one", () => {
  expect(derivations("Once upon a time.\n\n", 0, 19)).toHaveLength(0);
  const one = text(4000, 3);
  const end = one.indexOf("\n\n") + 2;
  expect(derivations(one, 0, end)).toHaveLength(1);
  expect(derivations(one, 0, end - 1)).toHaveLength(0);
});

// ---- the proof: no text of an alternative, with all that follows, begins a text of another ----

/** What is still to be written after a place in the grammar. */
interface Rest {
  id: number;
  node: FableNode;
  next: Rest | null;
}

/** Inside a text of a leaf: `text[at]` is the next character. `text` is "" where the story is over. */
interface Place {
  id: number;
  text: string;
  at: number;
  next: Rest | null;
}

function prover() {
  const nodeIds = new Map<FableNode, number>();
  const textIds = new Map<string, number>();
  const rests = new Map<number, Rest>();
  const places = new Map<number, Place>();
  const numbered = <T>(ids: Map<T, number>, value: T): number => {
    const known = ids.get(value);
    if (known !== undefined) return known;
    ids.set(value, ids.size);
    return ids.size - 1;
  };
  const rest = (node: FableNode, next: Rest | null): Rest => {
    const key = numbered(nodeIds, node) * 2 ** 26 + (next === null ? 0 : next.id + 1);
    let known = rests.get(key);
    if (!known) rests.set(key, (known = { id: rests.size, node, next }));
    return known;
  };
  const place = (text: string, at: number, next: Rest | null): Place => {
    const key = (numbered(textIds, text) * 128 + at) * 2 ** 26 + (next === null ? 0 : next.id + 1);
    let known = places.get(key);
    if (!known) places.set(key, (known = { id: places.size, text, at, next }));
    return known;
  };

  /** The leaves that may come next. A repeated word may be any of its list: more texts than there are, so the proof is safe. */
  function leaves(from: Rest | null): Place[] {
    if (from === null) return [place("", 0, null)];
    const { node, next } = from;
    if (node.op === Op.sequence) return leaves(node.items.reduceRight<Rest | null>((after, item) => rest(item, after), next));
    if (node.op === Op.choice) return node.items.flatMap((item) => leaves(rest(item, next)));
    return node.texts.flatMap((text) => (text === "" ? leaves(next) : [place(text, 0, next)]));
  }

  /** Walks all alternatives in step, character by character; a text that two can write, or that one ends inside, is a fault. */
  function faults(alternatives: Place[][], names: string[]): string[] {
    const seen = new Set<string>();
    type Thread = { alternative: number; place: Place };
    const start = alternatives.flatMap((places, alternative) => places.map((place) => ({ alternative, place })));
    const open: { threads: Thread[]; read: string }[] = [{ threads: start, read: "" }];
    for (let group = open.pop(); group; group = open.pop()) {
      const ended = group.threads.find((thread) => thread.place.text === "");
      const other = group.threads.find((thread) => thread.alternative !== ended?.alternative);
      if (ended && other) return [`${names[ended.alternative]} and ${names[other.alternative]} both write "${group.read}"`];
      const byLetter = new Map<string, Map<number, Thread>>();
      for (const { alternative, place: from } of group.threads) {
        const letter = from.text[from.at]!;
        const threads = byLetter.get(letter) ?? new Map<number, Thread>();
        byLetter.set(letter, threads);
        threads.set(from.id * 1024 + alternative, { alternative, place: from });
      }
      for (const [letter, threads] of byLetter) {
        // Only where two alternatives agree on the letter is it read; one alone is told apart.
        const [first, ...others] = threads.values();
        if (others.every((thread) => thread.alternative === first!.alternative)) continue;
        const after = new Map<number, Thread>();
        for (const { alternative, place: { text, at, next } } of threads.values()) {
          const reached = at + 1 < text.length ? [place(text, at + 1, next)] : leaves(next);
          for (const to of reached) after.set(to.id * 1024 + alternative, { alternative, place: to });
        }
        const key = [...after.keys()].sort((a, b) => a - b).join(",");
        if (seen.has(key)) continue;
        seen.add(key);
        open.push({ threads: [...after.values()], read: group.read + letter });
      }
    }
    return [];
  }

  return { rest, leaves, place, faults };
}

/** Every choice of the grammar in every place where it stands; returns the faults and how many choices were proved. */
function prove(root: FableNode): { faults: string[]; choices: number } {
  const { rest, leaves, place, faults } = prover();
  const visited = new Set<number>();
  const all: string[] = [];
  let choices = 0;
  const visit = (node: FableNode, next: Rest | null): void => {
    const here = rest(node, next).id;
    if (visited.has(here)) return;
    visited.add(here);
    if (node.op === Op.sequence) {
      node.items.reduceRight<Rest | null>((after, item) => (visit(item, after), rest(item, after)), next);
    } else if (node.op === Op.choice) {
      choices += 1;
      all.push(...faults(node.items.map((item) => leaves(rest(item, next))), node.items.map((item, i) => `${node.name}: ${i + 1} ${item.name}`)));
      for (const item of node.items) visit(item, next);
    } else if (node.op === Op.word) {
      choices += 1;
      const starts = node.texts.map((text) => (text === "" ? leaves(next) : [place(text, 0, next)]));
      all.push(...faults(starts, node.texts));
    }
  };
  visit(root, null);
  return { faults: all, choices };
}

test("the grammar is a prefix code: alternatives part before one of them ends, in every place of every choice", () => {
  const { faults, choices } = prove(story);
  expect(faults).toEqual([]);
  expect(choices).toBeGreaterThan(1000);
}, 120_000);

test("the proof sees an ambiguity where there is one", () => {
  const leaf = (...texts: string[]): FableNode => ({ ...story, op: texts.length > 1 ? Op.word : Op.text, texts, items: [], weights: texts.map(() => 1) });
  const line = (...items: FableNode[]): FableNode => ({ ...story, op: Op.sequence, items });
  // an ant + elope / antelope: the same text twice, once it is put together
  expect(prove(line(leaf("ant", "antelope"), leaf("elope", " ran"), leaf("."))).faults).toHaveLength(0);
  expect(prove(line(leaf("ant", "antelope"), leaf("elope.", ".") )).faults).toHaveLength(1);
  expect(prove(leaf("pea", "pear")).faults).toHaveLength(1);
  expect(prove(line(leaf("pea", "pear"), leaf(" "))).faults).toHaveLength(0);
  expect(prove(leaf("hen", "hen")).faults).toHaveLength(1);
});

test("every repeated word was drawn before, on every path", () => {
  const after = (node: FableNode, drawn: Set<number>): Set<number> => {
    if (node.op === Op.sequence) return node.items.reduce((known, item) => after(item, known), drawn);
    if (node.op === Op.choice) {
      const each = node.items.map((item) => after(item, drawn));
      return new Set([...each[0]!].filter((variable) => each.every((known) => known.has(variable))));
    }
    if (node.op === Op.word && node.variable >= 0) return new Set([...drawn, node.variable]);
    if (node.op === Op.recall && !drawn.has(node.variable)) throw new Error(`${node.name} may be repeated before it is drawn`);
    return drawn;
  };
  expect(after(story, new Set()).size).toBe(variables.length);
});

test("all weights are positive integers with a power of two as their sum, and the table deals them exactly", () => {
  const seen = new Set<FableNode>();
  const visit = (node: FableNode): void => {
    if (seen.has(node)) return;
    seen.add(node);
    node.items.forEach(visit);
    if (node.op !== Op.choice && node.op !== Op.word) return;
    const dealt = node.weights.map(() => 0);
    for (const i of node.table) dealt[i]! += 1;
    expect(dealt).toEqual(node.weights);
    expect(node.weights.every((weight) => Number.isInteger(weight) && weight > 0)).toBe(true);
    expect(node.table.length).toBe(2 ** (32 - node.shift));
  };
  visit(story);
});

test("the words: plain ASCII, sentences that begin and end, the right article, at least 700 words in use", () => {
  const source = text(2 ** 20, 5);
  expect(/^[\x20-\x7e\n]*$/.test(source)).toBe(true);
  const stories = source.split("\n\n").slice(0, -1);
  for (const one of stories) expect(one).toMatch(/^[A-Z].*[.]$/);
  for (const wrong of [/\ba [ai]\w*/i, /\ba o(?!ne-)\w*/i, /\ba e(?!we)\w*/i, /\ba u(?!s[eu])\w*/i, /\ban [^aeiouh]\w*/i, /\ban h(?!onest)\w*/i, /  /, /undefined/, /[<>{}|]/]) {
    expect(`${wrong}: ${source.match(wrong)?.[0]}`).toBe(`${wrong}: undefined`);
  }
  for (const one of stories) {
    const sentences = one.match(/[.?!]"?(?= [A-Z"]|$)/g)!.length;
    expect(sentences).toBeGreaterThanOrEqual(4);
    expect(sentences).toBeLessThanOrEqual(20);
  }
  const prose = source.replace(/"[^"]*" sang|(?:sang|called|cried) "[^"]*"|[A-Z][a-z]*-[a-z-]*!/g, "");
  const words = new Map<string, number>();
  for (const word of prose.match(/\b[a-z]+\b/g)!) words.set(word, (words.get(word) ?? 0) + 1);
  expect(words.size).toBeGreaterThanOrEqual(700);
});

test("the same text for the same seed, whatever the size; another text for another seed", () => {
  const long = fables(300_000, 1);
  for (const size of [1, 2, 1000, 4096, 299_999]) expect(fables(size, 1)).toEqual(long.slice(0, size));
  expect(fables(1000, 2)).not.toEqual(fables(1000, 1));
  expect(fables(1000, 2 ** 32 - 1)).not.toEqual(fables(1000, 0));
});

test("the text and its entropy are pinned: a change of either needs a new fablesVersion", () => {
  const sha256 = new Bun.CryptoHasher("sha256").update(fables(2 ** 20, 1)).digest("hex");
  expect({ version: fablesVersion, sha256, entropy: fablesEntropy().toFixed(9) }).toEqual({
    version: 1,
    sha256: "aec9722805dda45a8222e4b8cc0ec1b502cf200864d060b885faa4f865e3b994",
    entropy: "0.916769211",
  });
});
