// `egg data` as a person runs it: a text looked at, a tokenizer trained, a token file made and told about; then everything that can be wrong
// with paths, options, texts, tokenizers and disks. Not the parts: bpe.test.ts, tokenizer.test.ts, tokens.test.ts. Next: src/commands/data.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fables } from "../src/data/fables.ts";
import { TokenFile } from "../src/data/tokenfile.ts";
import { openTokenizer, tokenizerFrom } from "../src/data/tokenizer.ts";
import { canMount, onSmallDisk } from "./disk.ts";
import { freshFolder, run, start, until } from "./program.ts";

setDefaultTimeout(60_000);

const cwd = freshFolder("datacommand");
const at = (name: string): string => join(cwd, name);
const data = (...args: (string | number)[]) => run(["data", ...args.map(String)], { cwd });
const golden = readFileSync(join(import.meta.dir, "golden/huggingface-bpe.json"), "utf8");
const story = Buffer.concat([fables(300_000, 9), new TextEncoder().encode("ä漢\0<|endoftext|>end")]);
writeFileSync(at("story.txt"), story);
writeFileSync(at("theirs.json"), JSON.stringify(JSON.parse(golden).tokenizer));
writeFileSync(at("no.json"), '{"preset":"egg"}');
writeFileSync(at("bert.json"), JSON.stringify({ normalizer: { type: "BertNormalizer" }, model: { type: "WordPiece", vocab: {} } }));
mkdirSync(at("folder"));
mkdirSync(at("empty"));

/** The one line of JSON. */
function json({ code, out, err }: ReturnType<typeof run>): Record<string, unknown> {
  expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
  expect(out).toMatch(/^\{.*\}\n$/);
  return JSON.parse(out) as Record<string, unknown>;
}

describe("from a text to a token file", () => {
  test("train-tokenizer, tokenize, info; the tokens are those of the text", () => {
    const trained = json(data("train-tokenizer", "--data", "story.txt", "--vocabulary", 400, "--end-of-text", "--json"));
    const own = openTokenizer(at("tokenizer.json"), null);
    expect(trained).toMatchObject({ out: "tokenizer.json", vocabulary: 400, merges: 143, bytes: story.length, hash: own.hash });
    expect(own.endOfText).toBe(399);

    const ended = data("tokenize", "--data", "story.txt", "--tokenizer", "tokenizer.json", "--out", "folder/story.tokens");
    expect(ended).toMatchObject({ code: 0, out: "" });
    expect(ended.err).toMatch(/^egg: wrote folder\/story\.tokens: [\d,]+ tokens of bpe \(400\), \d\.\d{3} bytes each, /);
    const file = TokenFile.openIf(at("folder/story.tokens"))!;
    const ids = new Int32Array(file.count);
    file.read(0, ids, 400);
    expect(file).toMatchObject({ textBytes: story.length, width: 2, hash: own.hash });
    expect(ids.indexOf(399)).toBe(ids.length - own.encode(new TextEncoder().encode("end")).length - 1);
    expect(Buffer.from(tokenizerFrom(file.definition).decode(ids)).equals(story)).toBe(true);
    expect(readdirSync(at("folder"))).toEqual(["story.tokens"]);

    expect(json(data("info", "folder/story.tokens", "--json"))).toMatchObject({ bytes: story.length, tokens: file.count, bytes_per_token: story.length / file.count, tokenizer: "bpe (400)", vocabulary: 400, width: 2, hash: own.hash });
    expect(data("info", "folder/story.tokens").out).toContain(`tokens                ${file.count.toLocaleString("en-US")}\n`);
    expect(data("info", "folder/story.tokens").out).toContain(`ids sha256            ${file.idsHash}\n`);
    const other = readFileSync(at("folder/story.tokens"));
    other.writeUInt16LE(other.readUInt16LE(other.length - 2) ^ 1, other.length - 2);
    writeFileSync(at("other.tokens"), other);
    expect(data("info", "other.tokens", "--json")).toMatchObject({ code: 3, out: "", err: expect.stringContaining("other.tokens: a damaged token file: its ids do not have the hash in its head") });
    rmSync(at("other.tokens"));
    // The sum of what training counted is what encoding makes, the end of text aside.
    expect(trained["tokens"]).toBe(file.count - 1);
  });

  test("with each kind of tokenizer, one by other tools too; --force writes over", () => {
    for (const [word, name] of [["bytes", "bytes"], ["characters", "characters (7"], ["theirs.json", "bpe (502)"]] as const) {
      const made = json(data("tokenize", "--data", "story.txt", "--tokenizer", word, "--out", "again.tokens", "--force", "--json"));
      expect(made["tokenizer"]).toStartWith(name);
      const file = TokenFile.openIf(at("again.tokens"))!;
      const ids = new Int32Array(file.count);
      file.read(0, ids, Number(made["vocabulary"]));
      expect(Buffer.from(tokenizerFrom(file.definition).decode(ids)).equals(story)).toBe(true);
    }
  });

  test("info tells of a text what it consists of", () => {
    writeFileSync(at("small.txt"), Buffer.concat([Buffer.from("one\ntwo ä\0three\0"), Buffer.of(0xff)]));
    expect(json(data("info", "small.txt", "--json"))).toMatchObject({ path: "small.txt", bytes: 18, characters: 16, distinct_characters: 11, ill_formed_bytes: 1, distinct_bytes: 13, lines: 2, documents: 3, entropy_bits_per_byte: null });
    const { code, out, err } = data("info", "small.txt");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toContain("ill formed bytes      1\n");
    expect(json(data("info", "builtin:fables:10KB", "--json"))["entropy_bits_per_byte"]).toBeCloseTo(0.917, 2);
  });

  test("builtin writes the text, to standard output or a file", () => {
    const { code, out } = data("builtin", "builtin:fables:20KB:7");
    expect({ code, same: out === Buffer.from(fables(20_000, 7)).toString() }).toEqual({ code: 0, same: true });
    expect(data("builtin", "builtin:fables:20KB:7", "--out", "fables.txt")).toMatchObject({ code: 0, out: "", err: "egg: wrote fables.txt: 20,000 bytes\n" });
    expect(readFileSync(at("fables.txt"), "utf8")).toBe(out);
  });

  test("a text with too few pairs gives a smaller vocabulary and says so", () => {
    writeFileSync(at("short.txt"), "egg egg");
    const { code, err } = data("train-tokenizer", "--data", "short.txt", "--vocabulary", 1000, "--out", "short.json");
    expect(code).toBe(0);
    expect(err).toContain("258 tokens instead of 1,000: no pair is left that occurs twice in this text");
    expect(openTokenizer(at("short.json"), null).vocabulary).toBe(258);
  });

  test("a signal in the middle leaves no file behind", async () => {
    const process = start(["data", "tokenize", "--data", "builtin:fables:200MB", "--tokenizer", "tokenizer.json", "--out", "folder/long.tokens"], { cwd });
    await until("the temporary file", () => readdirSync(at("folder")).some((name) => name.endsWith(".tmp")));
    process.kill("SIGINT");
    expect(await process.ended).toMatchObject({ code: null, signal: "SIGINT" });
    expect(readdirSync(at("folder"))).toEqual(["story.tokens"]);
  });
});

describe("what is wrong is said", () => {
  const tokenize = (text: string, tokenizer: string, out = "x.tokens"): string[] => ["tokenize", "--data", text, "--tokenizer", tokenizer, "--out", out];
  const train = (text: string, vocabulary: string | number, ...more: string[]): string[] => ["train-tokenizer", "--data", text, "--vocabulary", String(vocabulary), "--out", "x.json", ...more];
  const cases: [args: string[], code: number, words: string[]][] = [
    [[], 2, ["egg data needs a command", "info|tokenize|train-tokenizer|builtin"]],
    [["tokenise"], 2, ["did you mean egg data tokenize?"]],
    [["info"], 2, ["egg data info needs PATH"]],
    [["info", "nowhere.txt"], 3, ["nowhere.txt: there is no such file or folder"]],
    [["info", "empty"], 3, ["no text files in this folder"]],
    [["info", "cut.tokens"], 3, ["cut.tokens: a damaged token file: expected", "egg data tokenize"]],
    [["tokenize", "--data", "story.txt"], 2, ["--tokenizer is missing"]],
    [tokenize("nowhere.txt", "bytes"), 3, ["nowhere.txt"]],
    [tokenize("story.txt", "bites"), 3, ["bites: there is no such file", "did you mean bytes?"]],
    [tokenize("story.txt", "folder"), 3, ["folder: it is a folder"]],
    [tokenize("story.txt", "story.txt"), 3, ["story.txt: it is no JSON"]],
    [tokenize("story.txt", "no.json"), 3, ['no.json: it is JSON, but no tokenizer: a field "model" is missing']],
    [tokenize("story.txt", "bert.json"), 3, ["bert.json: model.type", '"WordPiece"', '"BPE"', "egg data train-tokenizer"]],
    [tokenize("folder/story.tokens", "bytes"), 3, ["story.tokens: it is a token file already"]],
    [tokenize("story.txt", "folder/story.tokens"), 3, ["story.tokens: it is no text, and so no tokenizer.json"]],
    [tokenize("story.txt", "bytes", "folder/story.tokens"), 2, ["story.tokens: exists already", "--force"]],
    [tokenize("story.txt", "bytes", "folder"), 2, ["folder: it is a folder, not a file"]],
    [tokenize("story.txt", "bytes", "no/where/x.tokens"), 2, ["there is no folder no/where", "mkdir -p no/where"]],
    [train("story.txt", 255), 2, ['--vocabulary: found "255"', "from 256 to 1000000"]],
    [train("story.txt", "many"), 2, ['--vocabulary: found "many"']],
    [train("story.txt", 256, "--end-of-text"), 2, ["a vocabulary of 256", "and one for the end of text"]],
    [train("folder/story.tokens", 300), 3, ["it holds tokens, not text"]],
    [["train-tokenizer", "--data", "story.txt"], 2, ["--vocabulary is missing"]],
    [["builtin", "story.txt"], 2, ["story.txt: no built-in text", "builtin:fables:SIZE:SEED"]],
    [["builtin", "builtin:fabels"], 3, ["Did you mean builtin:fables?"]],
    [["builtin", "builtin:fables", "--out", "story.txt"], 2, ["story.txt: exists already"]],
  ];

  test.each(cases.map(([args, code, words]) => [args.join(" "), args, code, words] as const))("egg data %s", (_, args, code, words) => {
    writeFileSync(at("cut.tokens"), readFileSync(at("folder/story.tokens")).subarray(0, -1));
    const before = readdirSync(cwd);
    const ended = data(...args);
    expect({ code: ended.code, out: ended.out, err: ended.err }).toMatchObject({ code, out: "" });
    for (const word of words) expect(ended.err).toContain(word);
    expect(ended.err).toStartWith("egg: error: ");
    expect(ended.err).not.toContain("internal error");
    expect(readdirSync(cwd)).toEqual(before);
  });

  test("a text that cannot be cut, which bytes can take", () => {
    writeFileSync(at("dashes.txt"), Buffer.alloc(17 * 2 ** 20, "-"));
    const refused = data(...tokenize("dashes.txt", "tokenizer.json"));
    expect(refused.code).toBe(3);
    expect(refused.err).toContain("no break between words within 16,777,216 bytes from byte 0 on");
    expect(readdirSync(cwd).filter((name) => name.endsWith(".tmp") || name === "x.tokens")).toEqual([]);
    expect(json(data(...tokenize("dashes.txt", "bytes"), "--json"))["tokens"]).toBe(17 * 2 ** 20);
    rmSync(at("dashes.txt"));
  });

  test.skipIf(!canMount)("a disk that is full, which leaves nothing behind", () =>
    onSmallDisk("size=256k", (folder) => {
      for (const args of [tokenize("story.txt", "bytes", join(folder, "x.tokens")), ["builtin", "builtin:fables:1MB", "--out", join(folder, "x.txt")]]) {
        const { code, err } = data(...args);
        expect(code).toBe(4);
        expect(err).toContain("the disk is full");
        expect(err).toContain("nothing was left behind");
        expect(err).not.toContain("checkpoint");
        expect(readdirSync(folder)).toEqual([]);
      }
    }));
});
