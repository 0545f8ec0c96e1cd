// tokenizer.json, the file format of the Hugging Face tokenizers: byte-level BPE, and single characters as egg writes them, from and to it.
// What would tokenize a text in another way than the file's own library is refused by name, never guessed at. What only adds
// tokens around a text (post_processor) is read over. Read next: bpe.ts, which works by the tables that come out.

import { EggError } from "../errors.ts";
import { bytesOfName, byteNames, type AddedToken, type BpeTables } from "./bpe.ts";
import { patterns, type Pattern } from "./pretokenize.ts";
import { illFormed } from "./utf8.ts";

/** Ids are below this: they must fit beside a position in one exact number. */
const mostIds = 2 ** 20;
const longestToken = 65_535;

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Fields = { [key: string]: Json };

/**
 * The tables of a tokenizer.json. `where` names the file in errors.
 * @throws EggError("data") for what is no such file or not supported, naming the field, what was found and what is supported
 */
export function readTokenizerJson(text: string, where: string): BpeTables {
  return bpeTables(parse(text, where), refusalIn(where));
}

/**
 * The same, and the symbols (utf8.ts) of a file of single characters, by id.
 * @throws EggError("data") as above
 */
export function readTokenizerFile(text: string, where: string): BpeTables | Int32Array {
  const file = parse(text, where);
  return fields(file["model"])?.["type"] === "WordLevel" ? readCharacters(file, refusalIn(where)) : bpeTables(file, refusalIn(where));
}

type Refuse = (field: string, found: unknown, supported: string) => never;

function refusalIn(where: string): Refuse {
  return (field, found, supported) => {
    const shown = JSON.stringify(found) ?? "nothing";
    throw new EggError("data", `[tokenizer] ${where}: ${field}: found ${shown.length > 120 ? `${shown.slice(0, 117)}...` : shown}, supported ${supported}.`, {
      hint: "egg reads byte-level BPE: a ByteLevel pre-tokenizer, no normalizer; and the single characters that it exports itself. Train one of its own with: egg data train-tokenizer",
    });
  };
}

function bpeTables(file: Fields, refuse: Refuse): BpeTables {
  const only = (field: string, value: Json | undefined, allowed: readonly Json[]): void => {
    if (!allowed.includes(value ?? null)) refuse(field, value, allowed.map((one) => JSON.stringify(one)).join(" or "));
  };
  const model = fields(file["model"]) ?? refuse("model", file["model"], "a BPE model");
  only("model.type", model["type"], ["BPE", null]);
  for (const field of ["truncation", "padding"]) only(field, file[field], [null]);
  const normalizer = fields(file["normalizer"]);
  if ((file["normalizer"] ?? null) !== null && !(normalizer?.["type"] === "Sequence" && Array.isArray(normalizer["normalizers"]) && normalizer["normalizers"].length === 0)) {
    refuse("normalizer", file["normalizer"], "none");
  }
  const decoder = file["decoder"] ?? null;
  if (decoder !== null && fields(decoder)?.["type"] !== "ByteLevel") refuse("decoder", decoder, "ByteLevel");
  checkPostProcessor(file["post_processor"] ?? null, refuse);
  only("model.dropout", model["dropout"], [null, 0]);
  only("model.continuing_subword_prefix", model["continuing_subword_prefix"], [null, ""]);
  only("model.end_of_word_suffix", model["end_of_word_suffix"], [null, ""]);
  only("model.byte_fallback", model["byte_fallback"], [null, false]);
  only("model.ignore_merges", model["ignore_merges"], [null, false, true]);

  const names = readVocabulary(model["vocab"], refuse);
  const ids = new Map<string, number>();
  for (const [id, name] of names.entries()) if (name !== null) ids.set(name, id);
  const absent = byteNames.filter((name) => !ids.has(name));
  if (absent.length > 0) refuse("model.vocab", `no token for ${absent.length} of the 256 bytes, the first being ${absent[0]}`, "the whole byte-level alphabet");
  const merges = readMerges(model["merges"], ids, refuse);
  const added = readAdded(file["added_tokens"] ?? [], names, ids, refuse);
  return { names, merges, ...readPreTokenizer(file["pre_tokenizer"] ?? null, refuse), ignoreMerges: model["ignore_merges"] === true, added };
}

function parse(text: string, where: string): Fields {
  let file: Json;
  try {
    file = JSON.parse(text) as Json;
  } catch (cause) {
    throw new EggError("data", `[tokenizer] ${where}: it is no JSON (${(cause as Error).message}).`, { hint: "Name a tokenizer.json of the Hugging Face format.", cause });
  }
  const found = fields(file);
  if (found !== null && "model" in found) return found;
  throw new EggError("data", `[tokenizer] ${where}: it is JSON, but no tokenizer: a field "model" is missing.`, { hint: "Name a tokenizer.json of the Hugging Face format." });
}

function fields(value: Json | undefined): Fields | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : null;
}

const isId = (id: Json | undefined): id is number => Number.isInteger(id) && (id as number) >= 0 && (id as number) < mostIds;
const idRange = `ids from 0 to ${(mostIds - 1).toLocaleString("en-US")}`;

function readVocabulary(vocab: Json | undefined, refuse: Refuse): (string | null)[] {
  const byName = fields(vocab);
  if (byName === null) return refuse("model.vocab", vocab, "an object that gives each token its id");
  const entries = Object.entries(byName);
  const names: (string | null)[] = [];
  for (const [name, id] of entries) {
    if (!isId(id)) return refuse(`model.vocab[${JSON.stringify(name)}]`, id, idRange);
    while (names.length <= id) names.push(null);
    if (names[id] !== null) refuse(`model.vocab[${JSON.stringify(name)}]`, id, `one token an id; that one is ${JSON.stringify(names[id])} too`);
    if (name === "" || bytesOfName(name).length > longestToken) refuse("model.vocab", name, `tokens of 1 to ${longestToken.toLocaleString("en-US")} bytes`);
    names[id] = name;
  }
  return names;
}

function readMerges(merges: Json | undefined, ids: ReadonlyMap<string, number>, refuse: Refuse): Int32Array {
  if (!Array.isArray(merges)) return refuse("model.merges", merges, "a list");
  const triples = new Int32Array(merges.length * 3);
  for (const [rank, merge] of merges.entries()) {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    const [left, right] = Array.isArray(pair) && pair.length === 2 ? pair : [];
    const at = `model.merges[${rank}]`;
    if (typeof left !== "string" || typeof right !== "string") return refuse(at, merge, '"left right" or ["left", "right"]');
    for (const [i, name] of [left, right, left + right].entries()) {
      triples[rank * 3 + i] = ids.get(name) ?? refuse(at, merge, `tokens of model.vocab; ${JSON.stringify(name)} is none`);
    }
  }
  return triples;
}

function readAdded(list: Json, names: (string | null)[], ids: ReadonlyMap<string, number>, refuse: Refuse): AddedToken[] {
  if (!Array.isArray(list)) return refuse("added_tokens", list, "a list");
  const taken = new Set<number>();
  return list.map((entry, i) => {
    const at = `added_tokens[${i}]`;
    const token = fields(entry);
    const { id, content } = token ?? {};
    if (token === null || typeof content !== "string" || !isId(id)) return refuse(at, entry, `a token with content and ${idRange}`);
    for (const field of ["single_word", "lstrip", "rstrip"]) {
      if (token[field] === true) refuse(`${at}.${field} (${JSON.stringify(content)})`, true, "false");
    }
    const own = ids.get(content);
    if (own !== undefined ? own !== id : (names[id] ?? null) !== null) refuse(`${at}.id (${JSON.stringify(content)})`, id, own !== undefined ? `${own}, as in model.vocab` : "an id that no other token has");
    if (taken.has(id)) refuse(`${at}.id (${JSON.stringify(content)})`, id, "an id that no other added token has");
    if (Buffer.byteLength(content) > longestToken) refuse(at, content, `tokens of up to ${longestToken.toLocaleString("en-US")} bytes`);
    taken.add(id);
    while (names.length <= id) names.push(null);
    return { id, content, special: token["special"] === true, normalized: token["normalized"] === true };
  });
}

/** The step that cuts a text into words: ByteLevel by itself, or a Split by one of the known patterns and then ByteLevel without one. */
function readPreTokenizer(value: Json, refuse: Refuse): { pattern: Pattern; addPrefixSpace: boolean } {
  const whole = fields(value);
  const steps = whole?.["type"] === "Sequence" && Array.isArray(whole["pretokenizers"]) ? whole["pretokenizers"].map((step) => fields(step)) : [whole];
  const last = steps.at(-1);
  if (last?.["type"] !== "ByteLevel") return refuse("pre_tokenizer", value, "ByteLevel, or a Sequence of a Split and ByteLevel");
  const addPrefixSpace = last["add_prefix_space"] !== false; // the format's default is true
  const byRegex = last["use_regex"] !== false;
  if (steps.length === 1 && byRegex) return { pattern: "gpt2", addPrefixSpace };
  const [split] = steps;
  if (steps.length !== 2 || split?.["type"] !== "Split" || byRegex || addPrefixSpace) {
    return refuse("pre_tokenizer", value, "ByteLevel with use_regex, or a Sequence of a Split and ByteLevel without use_regex and add_prefix_space");
  }
  const isolates = (split["behavior"] === "Isolated" && split["invert"] !== true) || (split["behavior"] === "Removed" && split["invert"] === true);
  if (!isolates) refuse("pre_tokenizer: Split", { behavior: split["behavior"], invert: split["invert"] }, "behavior Isolated");
  const regex = fields(split["pattern"])?.["Regex"];
  const found = (Object.keys(patterns) as Pattern[]).find((pattern) => patterns[pattern] === regex);
  return found === undefined ? refuse("pre_tokenizer: Split.pattern", split["pattern"], `the patterns of ${Object.keys(patterns).join(", ")}`) : { pattern: found, addPrefixSpace };
}

/** These add tokens around a text, or only move offsets: the ids of the text itself stay the same. */
function checkPostProcessor(value: Json, refuse: Refuse): void {
  if (value === null) return;
  const processor = fields(value);
  if (processor?.["type"] === "Sequence" && Array.isArray(processor["processors"])) processor["processors"].forEach((one) => checkPostProcessor(one, refuse));
  else if (!["ByteLevel", "TemplateProcessing", "RobertaProcessing", "BertProcessing"].includes(String(processor?.["type"]))) {
    refuse("post_processor", value, "ByteLevel, TemplateProcessing, RobertaProcessing, BertProcessing, or a Sequence of them");
  }
}

/**
 * The tokenizer.json of these tables: the same text for tokenizers that do the same. `lines`: a line for each token and merge, as files
 * have it; else all in one line.
 */
export function writeTokenizerJson({ names, merges, pattern, addPrefixSpace, ignoreMerges, added }: BpeTables, lines: boolean): string {
  const [open, comma, close] = lines ? ["\n      ", ",\n      ", "\n    "] : ["", ",", ""];
  const vocab = names.flatMap((name, id) => (name === null ? [] : [`${JSON.stringify(name)}:${id}`]));
  const merged: string[] = [];
  for (let i = 0; i < merges.length; i += 3) merged.push(JSON.stringify(`${names[merges[i]!]} ${names[merges[i + 1]!]}`));
  const level = { type: "ByteLevel", add_prefix_space: addPrefixSpace, trim_offsets: true, use_regex: pattern === "gpt2" };
  const split = { type: "Split", pattern: { Regex: patterns[pattern] }, behavior: "Isolated", invert: false };
  const rows = Object.entries({
    version: "1.0", truncation: null, padding: null,
    added_tokens: added.map(({ id, content, special, normalized }) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized, special })).sort((a, b) => a.id - b.id),
    normalizer: null,
    pre_tokenizer: pattern === "gpt2" ? level : { type: "Sequence", pretokenizers: [split, level] },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  }).map(([key, value]) => `"${key}":${JSON.stringify(value)}`);
  const model = Object.entries({ type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false, ignore_merges: ignoreMerges }).map(
    ([key, value]) => `"${key}":${JSON.stringify(value)}`,
  );
  model.push(`"vocab":{${open}${vocab.join(comma)}${close}}`, `"merges":[${open}${merged.join(comma)}${close}]`);
  const [start, next, end] = lines ? ["{\n  ", ",\n  ", "\n}"] : ["{", ",", "}"];
  const [inStart, inNext, inEnd] = lines ? ["{\n    ", ",\n    ", "\n  }"] : ["{", ",", "}"];
  rows.push(`"model":${inStart}${model.join(inNext)}${inEnd}`);
  return `${start}${rows.join(next)}${end}`;
}

/** The step that makes each character a word of its own. */
const eachCharacter = { type: "Split", pattern: { Regex: "[\\s\\S]" }, behavior: "Isolated", invert: false };

/** Only the form that writeCharactersJson has: a WordLevel model of whole words cannot be one of characters. */
function readCharacters(file: Fields, refuse: Refuse): Int32Array {
  const given = { normalizer: null, pre_tokenizer: eachCharacter, post_processor: null, added_tokens: [] as Json[] };
  for (const [field, supported] of Object.entries(given)) {
    if (!Bun.deepEquals(file[field] ?? null, supported)) refuse(field, file[field], `${JSON.stringify(supported)} with model.type WordLevel`);
  }
  const names = readVocabulary(fields(file["model"])!["vocab"], refuse);
  const symbols = Int32Array.from(names, (name, id) => symbolOf(name ?? "") ?? refuse("model.vocab", name, `one character for id ${id}, or a byte such as <0xFF>`));
  const misplaced = symbols.findIndex((symbol, id) => id > 0 && symbol <= symbols[id - 1]!);
  if (misplaced >= 0 || symbols.length === 0) refuse("model.vocab", names[misplaced] ?? {}, "characters in the order of their code points, and bytes behind them");
  return symbols;
}

/** A byte that belongs to no character stands in no text, and so has a name of its own. */
function symbolOf(name: string): number | null {
  const byte = /^<0x([89A-F][0-9A-F])>$/.exec(name);
  if (byte !== null) return illFormed + parseInt(byte[1]!, 16);
  return [...name].length === 1 && name.isWellFormed() ? name.codePointAt(0)! : null;
}

/** The tokenizer.json of a vocabulary of single characters: words of one character each. `tokens` are the bytes of each id. */
export function writeCharactersJson(tokens: readonly Uint8Array[]): string {
  // JSON.stringify would sort the digits among the keys.
  const name = (bytes: Uint8Array): string => (bytes.length === 1 && bytes[0]! > 0x7f ? `<0x${bytes[0]!.toString(16).toUpperCase()}>` : new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
  const vocab = tokens.map((bytes, id) => `${JSON.stringify(name(bytes))}:${id}`).join(",");
  const rows = { version: "1.0", truncation: null, padding: null, added_tokens: [], normalizer: null, pre_tokenizer: eachCharacter, post_processor: null, decoder: { type: "Fuse" } };
  return `${JSON.stringify(rows).slice(0, -1)},"model":{"type":"WordLevel","vocab":{${vocab}},"unk_token":"<unk>"}}`;
}
