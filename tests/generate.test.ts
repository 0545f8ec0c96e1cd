// `egg generate` and `egg eval` from the outside, and the model's arithmetic against a plain forward pass written from
// egg.c's description: logits one by one, and bits per byte by an exact softmax in doubles. Where a text ends, and in which pieces it comes.
// Not the rule of choice: sampling.test.ts. Not conversations: chat.test.ts. Read next: kernels/int8/forward.zig, src/models/evaluate.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { byteNames } from "../src/data/bpe.ts";
import { openCorpus, splitCorpus } from "../src/data/corpus.ts";
import { writeWeights } from "../src/models/egg.ts";
import { RecurrentConversation } from "../src/models/generate.ts";
import { seededRandom } from "../src/models/sampling.ts";
import { NativeEvaluator, NativeModel } from "../src/native/int8.ts";
import { openContext } from "../src/native/machine.ts";
import { createContinuation, stopStrings } from "../src/report/continuation.ts";
import { plainSample } from "../src/report/text.ts";
import { egg, environment, freshFolder, onlyRun, readSafetensors, run, sets, tiny, type Tensor } from "./program.ts";

setDefaultTimeout(60_000);

// ---- egg.c's forward pass with clean weights, as its description has it

const clip = (v: number): number => Math.max(-127, Math.min(127, v));

class Plain {
  readonly #tensors: ReadonlyMap<string, Tensor>;
  readonly #layers: number;
  readonly #hidden: number;
  readonly states: number[][];

  constructor(tensors: ReadonlyMap<string, Tensor>, layers: number, hidden: number) {
    this.#tensors = tensors;
    this.#layers = layers;
    this.#hidden = hidden;
    this.states = Array.from({ length: layers }, () => new Array<number>(hidden).fill(0));
  }

  #weights(name: string): Int8Array {
    return new Int8Array(this.#tensors.get(name)!.data.slice().buffer);
  }

  #matmul(x: number[], name: string, shift: number): number[] {
    const weights = this.#weights(`${name}.weight`);
    return Array.from({ length: weights.length / x.length }, (_, r) => clip(x.reduce((sum, v, c) => sum + v * weights[r * x.length + c]!, 0) >> shift));
  }

  #norm(x: number[], name: string): number[] {
    const weights = this.#weights(`${name}.weight`);
    const mean = Math.max(1, Math.trunc(x.reduce((sum, v) => sum + Math.abs(v), 0) / x.length));
    return x.map((v, i) => clip(Math.trunc((v * weights[i]!) / mean)));
  }

  /** Reads a token; returns the logits of the next. */
  token(token: number): number[] {
    let x = [...this.#weights("embedding.weight").subarray(token * this.#hidden, (token + 1) * this.#hidden)];
    for (let l = 0; l < this.#layers; l++) {
      const at = `layers.${l}`;
      const h = this.states[l]!;
      const [bf, bh] = [this.#weights(`${at}.gru.bf`), this.#weights(`${at}.gru.bh`)];
      let residual = x;
      x = this.#norm(x, `${at}.ln1`);
      const [wf, uf] = [this.#matmul(x, `${at}.gru.wf`, 8), this.#matmul(h, `${at}.gru.uf`, 8)];
      const f = wf.map((v, i) => clip(clip(v + uf[i]!) + bf[i]!));
      const g = f.map((v, i) => ((v + 127) * h[i]!) >> 8);
      const [wh, uh] = [this.#matmul(x, `${at}.gru.wh`, 8), this.#matmul(g, `${at}.gru.uh`, 8)];
      const c = wh.map((v, i) => clip(clip(v + uh[i]!) + bh[i]!));
      this.states[l] = h.map((v, i) => clip(v + (((f[i]! + 127) * (c[i]! - v)) >> 8)));
      x = this.states[l]!.map((v, i) => clip(v + residual[i]!));
      residual = x;
      x = this.#norm(x, `${at}.ln2`);
      x = this.#matmul(this.#matmul(x, `${at}.mlp.expand`, 8), `${at}.mlp.project`, 9).map((v, i) => clip(v + residual[i]!));
    }
    return this.#matmul(this.#norm(x, "ln_out"), "head", 8);
  }
}

/** Bits of `target` under the logits: probabilities go with 2^(logit / 16). */
function bits(logits: number[], target: number): number {
  return Math.log2(logits.reduce((sum, logit) => sum + 2 ** (logit / 16), 0)) - logits[target]! / 16;
}

// ---- a small trained model for all tests

const cwd = freshFolder("generate");
const config = { ...tiny, "data.path": "text.txt", "model.hidden": 32, "model.layers": 2, "trainer.population": 128, "trainer.sequence": 32, "trainer.threshold": 600, "run.steps": 400, "run.fingerprint_every": 0, "run.checkpoint_every": 100 };
const text = Array.from({ length: 120 }, (_, i) => `Hen ${i} laid ${(i * i) % 7} eggs; the fox counted ${i % 5}. Café ✓\n`).join("");
writeFileSync(join(cwd, "text.txt"), text);
const trained = run(["--json", ...sets(config)], { cwd });
const folder = onlyRun(join(cwd, "runs"));
const file = join(folder, "checkpoints/step-00000400.safetensors");

/** Runs `egg generate` and gives its bytes. */
function write(args: (string | number)[], of = folder): Buffer {
  const child = Bun.spawnSync([egg, "generate", of, "--quiet", ...args.map(String)], { cwd, env: environment(cwd), stdin: "ignore" });
  expect({ code: child.exitCode, err: child.stderr.toString() }).toEqual({ code: 0, err: "" });
  return child.stdout;
}

describe("generate", () => {
  test("the same seed gives the same text, another seed another", () => {
    const first = write(["--tokens", 100, "--seed", 7]);
    expect(first.length).toBe(100);
    expect(write(["--tokens", 100, "--seed", 7])).toEqual(first);
    expect(write(["--tokens", 100, "--seed", 8])).not.toEqual(first);
    expect(write(["--tokens", 100])).toEqual(write(["--tokens", 100, "--seed", 0]));
    expect(write(["--tokens", 40, "--seed", 7])).toEqual(first.subarray(0, 40)); // length changes nothing before it
  });

  test("temperature 0 and top-k 1 take the likeliest, whatever the seed", () => {
    const greedy = write(["--tokens", 60, "--prompt", "Hen", "--temperature", 0]);
    for (const args of [["--seed", 5, "--temperature", 0], ["--top-k", 1], ["--top-k", 1, "--seed", 9, "--temperature", 3], ["--min-p", 1], ["--top-p", 1e-9]]) {
      const other = write(["--tokens", 60, "--prompt", "Hen", ...args]);
      // Of several likeliest tokens min-p keeps all.
      if (args[0] !== "--min-p") expect(other).toEqual(greedy);
      else expect(other.length).toBe(63);
    }
    expect(write(["--tokens", 60, "--prompt", "Hen", "--temperature", 2])).not.toEqual(greedy);
  });

  test.each([
    ["empty", ""], ["a letter", "x"], ["of many scripts", "Grüße, 鶏と卵 ✓ 🥚\n\ttab"], ["like an option", "--tokens"], ["the last character", "\u{10ffff}"], ["long", "egg ".repeat(2000)],
  ])("a prompt that is %s comes first, byte for byte", (_, prompt) => {
    const bytes = Buffer.from(prompt);
    const out = write([`--prompt=${prompt}`, "--tokens", 10]);
    expect(out.subarray(0, bytes.length)).toEqual(bytes);
    expect(out.length).toBe(bytes.length + 10);
  });

  test("no tokens is the prompt alone", () => {
    expect(write(["--prompt", "hen", "--tokens", 0]).toString()).toBe("hen");
    expect(write(["--tokens", 0]).length).toBe(0);
  });

  test("a prompt may come from a file or standard input, of any bytes", () => {
    const prompt = Buffer.from("The \xff hen\0", "latin1");
    writeFileSync(join(cwd, "prompt.bin"), prompt);
    const of = (source: string, stdin: Uint8Array | "ignore") => Bun.spawnSync([egg, "generate", folder, "--quiet", "--tokens", "9", "--prompt-file", source], { cwd, env: environment(cwd), stdin, stdout: "pipe", stderr: "pipe" });
    const fromFile = of("prompt.bin", "ignore");
    expect([fromFile.exitCode, fromFile.stdout.length, fromFile.stdout.subarray(0, prompt.length)]).toEqual([0, prompt.length + 9, prompt]);
    expect(of("-", prompt).stdout).toEqual(fromFile.stdout);
    expect(of("-", "ignore").stdout.length).toBe(9);
    expect(run(["generate", folder, "--prompt-file", "missing.txt"], { cwd })).toMatchObject({ code: 2, out: "", err: expect.stringContaining("missing.txt") });
    expect(run(["generate", folder, "--prompt-file", "prompt.bin", "--prompt", ""], { cwd })).toMatchObject({ code: 2, out: "", err: expect.stringContaining("both are given") });
  });

  test("a checkpoint file and its folder give the same, from anywhere and with any kernels", () => {
    const expected = write(["--prompt", "Hen", "--tokens", 80]);
    expect(write(["--prompt", "Hen", "--tokens", 80], file)).toEqual(expected);
    const child = Bun.spawnSync([egg, "generate", file, "--prompt", "Hen", "--tokens", "80"], { cwd: "/", env: environment(cwd, { EGG_CPU: "scalar" }) });
    expect(child.stdout).toEqual(expected);
  });

  test("an older checkpoint gives another text", () => {
    expect(write(["--tokens", 80], join(folder, "checkpoints/step-00000300.safetensors"))).not.toEqual(write(["--tokens", 80]));
  });

  test("tells its rate on standard error, unless quiet", () => {
    const child = Bun.spawnSync([egg, "generate", folder, "--prompt", "x".repeat(100), "--tokens", "20"], { cwd, env: environment(cwd), stdin: "ignore" });
    expect(child.stderr.toString()).toMatch(/^egg: read 100 tokens at [\d,]+ tokens\/s, wrote 20 tokens at [\d,]+ tokens\/s\n$/);
    expect(child.stdout.length).toBe(120);
  });

  test("samples.txt has what generate writes with the same prompt and seed", () => {
    const written = write(["--prompt", "The ", "--tokens", 16, "--seed", 42 + 400, "--temperature", 0.7]);
    const sample = plainSample(400, { prompt: written.subarray(0, 4), continuation: written.subarray(4) });
    expect(readFileSync(join(folder, "samples.txt"), "utf8")).toEndWith(sample);
  });

  test("has learned something of the text", () => {
    const known = new Set(new TextEncoder().encode(text)); // a sixth of all bytes
    const share = (of: string) => write(["--tokens", 2000, "--temperature", 0.5], of).filter((byte) => known.has(byte)).length / 2000;
    expect(share(folder)).toBeGreaterThan(0.7);
    expect(share(folder)).toBeGreaterThan(share(join(folder, "checkpoints/step-00000300.safetensors")));
  });
});

describe("stop strings", () => {
  const long = write(["--prompt", "Hen", "--tokens", 400, "--seed", 3]).subarray(3);
  /** A part of the text that stands nowhere before. */
  const partAt = (at: number, length: number): string => {
    const part = long.subarray(at, at + length).toString("latin1");
    if (/[^\x20-\x7e]/.test(part) || long.toString("latin1").indexOf(part) !== at) return partAt(at + 1, length);
    return part;
  };

  test("end the text before them, though tokens are shorter than they are", () => {
    for (const length of [1, 2, 3, 7]) {
      const stop = partAt(60, length);
      const at = long.toString("latin1").indexOf(stop);
      expect(write(["--prompt", "Hen", "--tokens", 400, "--seed", 3, `--stop=${stop}`])).toEqual(Buffer.concat([Buffer.from("Hen"), long.subarray(0, at)]));
    }
  });

  test("may be several: the first to come counts; one that does not come changes nothing", () => {
    const [early, late] = [partAt(50, 3), partAt(120, 3)];
    const at = long.toString("latin1").indexOf(early);
    for (const stops of [[early, late], [late, early], [late, early, "not in there at all"]]) {
      expect(write(["--prompt", "Hen", "--tokens", 400, "--seed", 3, ...stops.map((stop) => `--stop=${stop}`)])).toEqual(Buffer.concat([Buffer.from("Hen"), long.subarray(0, at)]));
    }
    expect(write(["--prompt", "Hen", "--tokens", 400, "--seed", 3, "--stop", "not in there at all"]).subarray(3)).toEqual(long);
  });

  test("are looked for in what the model writes, not in the prompt", () => {
    expect(write(["--prompt", "Hen. Hen.", "--tokens", 5, "--stop", "Hen"]).toString("latin1")).toStartWith("Hen. Hen.");
  });

  test.each([[["--stop", ""]], [["--stop=a", "--stop="]]])("%j is refused", (args) => {
    expect(run(["generate", folder, ...args], { cwd })).toMatchObject({ code: 2, out: "", err: expect.stringContaining("--stop: found an empty text, allowed is one of at least 1 character") });
  });
});

describe("--json", () => {
  const json = (args: string[]) => {
    const { code, out, err } = run(["generate", folder, "--json", ...args], { cwd });
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^\{[^\n]*\}\n$/);
    return JSON.parse(out);
  };

  test("is one line: what was written without the prompt, how fast, and why it ended", () => {
    const text = write(["--prompt", "Hen", "--tokens", 200, "--seed", 3]).subarray(3);
    const all = json(["--prompt", "Hen", "--tokens", "200", "--seed", "3"]);
    expect(all).toEqual({ text: new TextDecoder().decode(text), tokens: 200, seconds: expect.any(Number), tokens_per_second: expect.any(Number), stopped_by: "tokens" });
    expect(all.tokens_per_second * all.seconds).toBeGreaterThan(198); // of the seconds, some are for the prompt
    const [stop] = [...all.text.matchAll(/[ -~]{2}/g)].find(({ index }) => index > 30);
    const stopped = json(["--prompt", "Hen", "--tokens", "200", "--seed", "3", `--stop=${stop}`]);
    expect(stopped).toMatchObject({ text: all.text.slice(0, all.text.indexOf(stop)), stopped_by: "stop" });
    expect(stopped.tokens).toBeWithin(32, 200);
    expect(json(["--tokens", "0"])).toEqual({ text: "", tokens: 0, seconds: 0, tokens_per_second: null, stopped_by: "tokens" });
    expect(json(["--tokens", "1"])).toMatchObject({ tokens: 1, tokens_per_second: null });
  });
});

describe("the pieces of a continuation", () => {
  /** The text before the first stop string to be whole, of several the longest. */
  function cut(text: Uint8Array, stops: readonly Uint8Array[]): Uint8Array {
    for (let end = 1; end <= text.length; end++) {
      const lengths = stops.filter((stop) => stop.length <= end && Buffer.compare(text.subarray(end - stop.length, end), stop) === 0).map(({ length }) => length);
      if (lengths.length > 0) return text.subarray(0, end - Math.max(...lengths));
    }
    return text;
  }

  test("are whole characters, nothing of a stop string, together the text before it, however tokens cut it", () => {
    const random = seededRandom(20261120);
    const upTo = (n: number) => Math.floor(random() * n);
    const letters = ["a", "b", "\n", "é", "中", "🥚"];
    const draw = (length: number) => Array.from({ length }, () => letters[upTo(letters.length)]).join("");
    let stoppedTexts = 0;
    for (let round = 0; round < 1500; round++) {
      const text = new TextEncoder().encode(draw(upTo(30)));
      const stops = stopStrings(Array.from({ length: upTo(4) }, () => draw(1 + upTo(3))));
      const expected = cut(text, stops);
      const pieces = createContinuation(stops);
      let out = Buffer.alloc(0);
      for (let at = 0; at < text.length && !pieces.stopped; ) {
        const length = 1 + upTo(6);
        out = Buffer.concat([out, pieces.push(text.subarray(at, at + length))]);
        at += length;
        expect(out).toEqual(Buffer.from(expected.subarray(0, out.length)));
        expect(() => new TextDecoder("utf-8", { fatal: true }).decode(out)).not.toThrow();
        // What is held back may still become a stop string, or is part of one character.
        const held = text.subarray(out.length, Math.min(at, text.length));
        const mayStop = stops.some((stop) => Buffer.compare(held, stop.subarray(0, held.length)) === 0);
        if (!pieces.stopped && held.length > 3) expect(mayStop || stops.some((stop) => Buffer.compare(held.subarray(0, -3), stop.subarray(0, held.length - 3)) === 0)).toBe(true);
      }
      if (pieces.stopped) stoppedTexts++;
      else expect(expected.length).toBe(text.length);
      expect(Buffer.concat([out, pieces.end()])).toEqual(Buffer.from(expected));
    }
    expect(stoppedTexts).toBeWithin(300, 1400);
  });

  test("lose no byte of a text that is no UTF-8, and hold back no more than three", () => {
    const random = seededRandom(7);
    for (let round = 0; round < 300; round++) {
      const text = Uint8Array.from({ length: 40 }, () => [0x61, 0xc3, 0xa9, 0xe4, 0xb8, 0xf0, 0x9f, 0xff, 0x80][Math.floor(random() * 9)]!);
      const pieces = createContinuation([]);
      let out = Buffer.alloc(0);
      for (const [i, byte] of text.entries()) {
        out = Buffer.concat([out, pieces.push(Uint8Array.of(byte))]);
        expect(i + 1 - out.length).toBeLessThanOrEqual(3);
      }
      expect(Buffer.concat([out, pieces.end()])).toEqual(Buffer.from(text));
    }
  });

  test("a line end in front of everything can be left to stand", () => {
    const pieces = createContinuation(stopStrings(["\n"]), true);
    expect(Buffer.from(pieces.push(Buffer.from("\n\r\n"))).toString()).toBe("\n\r\n");
    expect(pieces.stopped).toBe(false);
    expect(Buffer.from(pieces.push(Buffer.from("hen\nfox"))).toString()).toBe("hen");
    expect(pieces.stopped).toBe(true);
  });
});

describe("the forward pass", () => {
  const { tensors } = readSafetensors(file);
  const weights = new Map([...tensors].filter(([name]) => !name.startsWith("state.")));
  const native = new NativeModel(openContext(1), { rule: "egg.c", layers: 2, hidden: 32, vocabulary: 256 });
  writeWeights(native, weights as never);

  test("gives the logits and the states of egg.c's description, token by token", () => {
    const plain = new Plain(weights, 2, 32);
    const reader = new NativeEvaluator(native, 1, 1);
    for (const token of new TextEncoder().encode(text.slice(0, 150))) {
      const expected = plain.token(token);
      expect([...reader.feed(Uint8Array.of(token))]).toEqual(expected);
      expect([...new Int8Array(reader.readStates().buffer)]).toEqual(plain.states.flat());
    }
    reader.release();
  });

  test("greedy text is what its logits say, an empty prompt is a new line", () => {
    const plain = new Plain(weights, 2, 32);
    let logits = plain.token(10);
    const expected: number[] = [];
    for (let i = 0; i < 40; i++) {
      const best = logits.indexOf(Math.max(...logits));
      expected.push(best);
      logits = plain.token(best);
    }
    const options = { temperature: 0, top_k: 0, top_p: 1, min_p: 0 };
    expect([...Buffer.concat([...new RecurrentConversation(native).generate(new Uint8Array(), 40, options, 1)])]).toEqual(expected);
    expect([...write(["--tokens", 40, "--temperature", 0])]).toEqual(expected);
  });

  test("a text that grows is read once, and goes on as if it were read from its beginning", () => {
    const options = { temperature: 1, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1.3 };
    const conversation = new RecurrentConversation(native);
    const written = (of: RecurrentConversation, text: Buffer, tokens: number) => Buffer.concat([...of.generate(text, tokens, options, 5)]);
    let text = Buffer.from("Hen 5");
    const read: number[] = [];
    for (const [tokens, kept] of [[20, 20], [20, 7], [1, 1], [0, 0]] as const) {
      const answer = written(conversation, text, tokens);
      expect(answer).toEqual(written(new RecurrentConversation(native), text, tokens));
      read.push(conversation.read);
      text = Buffer.concat([text, answer.subarray(0, kept), Buffer.from(" fox")]);
    }
    expect(read).toEqual([5, 24, 11, 5]); // the answer as it stands in the text, and what was added
    const other = Buffer.from("Hen 6 laid");
    for (const again of [other, other]) expect(written(conversation, again, 9)).toEqual(written(new RecurrentConversation(native), again, 9));
    expect(conversation.read).toBe(10);
  });

  test("the repetition penalty looks back on prompt and text, through the program too", () => {
    const prompt = new TextEncoder().encode("Hen 5");
    const greedy = (penalty: number, window: number): number[] => {
      const plain = new Plain(weights, 2, 32);
      const seen = [...prompt];
      let logits = [...prompt].map((token) => plain.token(token)).at(-1)!;
      for (let i = 0; i < 60; i++) {
        const recent = new Set(window === 0 ? seen : seen.slice(-window));
        const scores = logits.map((logit, token) => (!recent.has(token) ? logit : logit > 0 ? logit / penalty : logit * penalty));
        const best = scores.indexOf(Math.max(...scores));
        seen.push(best);
        logits = plain.token(best);
      }
      return seen;
    };
    const plainText = write(["--prompt", "Hen 5", "--tokens", 60, "--temperature", 0]);
    for (const [penalty, window] of [[1.5, 64], [1.2, 4], [3, 0]] as const) {
      const text = write(["--prompt", "Hen 5", "--tokens", 60, "--temperature", 0, "--repetition-penalty", penalty, "--repetition-window", window]);
      expect([...text]).toEqual(greedy(penalty, window));
      expect(text).not.toEqual(plainText);
    }
    for (const [option, value] of [["--repetition-penalty", "0"], ["--repetition-penalty", "-2"], ["--repetition-penalty", "x"], ["--repetition-window", "1.5"]] as const) {
      expect(run(["generate", folder, option, value], { cwd })).toMatchObject({ code: 2, out: "", err: expect.stringContaining(`${option}: found "${value}", allowed`) });
    }
  });

  /** Bits per byte of a text by the plain pass, cut into streams as egg eval does: at least 64 bytes each, at most 64 of them. */
  function plainLoss(bytes: Uint8Array): { bits: number; tokens: number } {
    const streams = Math.min(64, Math.max(1, Math.floor((bytes.length - 1) / 64)));
    const length = Math.floor((bytes.length - 1) / streams);
    let sum = 0;
    for (let s = 0; s < streams; s++) {
      const plain = new Plain(weights, 2, 32);
      for (let i = 0; i < length; i++) sum += bits(plain.token(bytes[s * length + i]!), bytes[s * length + i + 1]!);
    }
    return { bits: sum / (streams * length), tokens: streams * length };
  }

  test("egg eval measures what an exact softmax gives, on any text", () => {
    const other = "A hen, an egg: ✓ 42\n".repeat(20);
    writeFileSync(join(cwd, "other.txt"), other);
    const expected = plainLoss(new TextEncoder().encode(other));
    const { code, out } = run(["eval", folder, "--data", "other.txt", "--json"], { cwd });
    const result = JSON.parse(out);
    expect(code).toBe(0);
    expect(result).toMatchObject({ run: folder, step: 400, data: "other.txt", tokens: expected.tokens, entropy_bits_per_byte: null });
    expect(result.bits_per_byte).toBeCloseTo(expected.bits, 6);
    expect(result.loss_integer).toBeWithin(expected.bits - 0.2, expected.bits);
    expect(out).toMatch(/^\{[^\n]*\}\n$/);
    const words = run(["eval", file, "--data", "other.txt"], { cwd });
    expect(words.out).toBe(`${expected.bits.toFixed(3)} bits/byte on ${expected.tokens} bytes of other.txt (step 400)\n`);
    expect(words.err).toBe("");
  });

  test("without --data it is the run's own held-out text, and the loss that training saw", async () => {
    const corpus = await openCorpus(join(cwd, "text.txt"));
    const heldOut = splitCorpus(corpus, 0.1).heldOut!;
    const bytes = new Uint8Array(heldOut.bytes);
    heldOut.read(0, bytes);
    const { bits_per_byte } = JSON.parse(run(["eval", folder, "--json"], { cwd }).out);
    expect(bits_per_byte).toBeCloseTo(plainLoss(bytes).bits, 6);
    expect(bits_per_byte).toBeCloseTo(JSON.parse(trained.out).val_bits_per_byte, 6);
    expect(JSON.parse(run(["eval", folder, "--json"], { cwd, env: { EGG_CPU: "scalar" } }).out).bits_per_byte).toBe(bits_per_byte);
  });

  test("a uniform model has 8 bits per byte", () => {
    const zero = new Map([...weights].map(([name, tensor]) => [name, { ...tensor, data: new Uint8Array(tensor.data.length) }]));
    expect(bits(new Plain(zero, 2, 32).token(65), 66)).toBe(8);
  });
});

describe("a transformer", () => {
  const vocab = Object.fromEntries([...byteNames, "he", "hen"].map((name, id) => [name, id]));
  writeFileSync(join(cwd, "tokenizer.json"), JSON.stringify({
    model: { type: "BPE", vocab, merges: ["h e", "he n"] }, pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true }, decoder: { type: "ByteLevel" },
    added_tokens: [{ id: 258, content: "<|endoftext|>", special: true }],
  }));
  writeFileSync(join(cwd, "documents.txt"), "corn and a hen!<|endoftext|>".repeat(200));
  const small = { preset: "gpt-nano", "data.path": "documents.txt", "data.tokenizer": "tokenizer.json", "model.layers": 1, "model.width": 32, "model.heads": 2, "model.block": 16, "trainer.batch": 8, "trainer.learning_rate": 0.005, "trainer.warmup": 10, "run.steps": 250, "run.eval_every": 0, "run.sample_every": 0, "run.out": "transformers" };
  const { code, err } = run(["--quiet", "--json", ...sets(small)], { cwd });
  if (code !== 0) throw new Error(err);
  const folder = onlyRun(join(cwd, "transformers"));
  const json = (args: string[]) => JSON.parse(run(["generate", folder, "--json", ...args], { cwd }).out);

  test("ends where the model ends the text, and does not write that", () => {
    expect(json(["--prompt", "corn", "--temperature", "0"])).toMatchObject({ text: " and a hen!", tokens: 9, stopped_by: "end of text" }); // hen is one
    expect(json(["--prompt", "corn", "--temperature", "0", "--tokens", "4"])).toMatchObject({ text: " and", tokens: 4, stopped_by: "tokens" });
  });

  test("a stop string may begin and end inside of tokens", () => {
    expect(json(["--prompt", "corn", "--temperature", "0", "--stop", "en"])).toMatchObject({ text: " and a h", tokens: 8, stopped_by: "stop" });
    expect(json(["--prompt", "corn", "--temperature", "0", "--stop", "a he"])).toMatchObject({ text: " and ", tokens: 8, stopped_by: "stop" });
  });

  test("writes on and on past its block, and tells how many tokens it read, not bytes", () => {
    const { tokens, stopped_by } = json(["--prompt", "hen".repeat(50), "--temperature", "3", "--tokens", "100", "--top-k", "256"]);
    expect([tokens === 100 ? "tokens" : "end of text", tokens > 0]).toEqual([stopped_by, true]);
    const { err } = run(["generate", folder, "--prompt", "hen".repeat(100), "--tokens", "3", "--seed", "1"], { cwd });
    expect(err).not.toContain("read"); // 16 tokens are too few for a rate, 300 bytes would not be
  });
});

describe("on a terminal", () => {
  /** Runs egg under script(1), which gives it a terminal; what it wrote, with escapes. */
  function onTerminal(args: string[], env: Record<string, string> = {}): string {
    const line = [egg, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
    const command = process.platform === "darwin" ? ["script", "-q", "/dev/null", "sh", "-c", line] : ["script", "-qec", line, "/dev/null"];
    const child = Bun.spawnSync(command, { cwd, env: environment(cwd, { TERM: "xterm", ...env }), stdin: "ignore" });
    expect(child.exitCode).toBe(0);
    return child.stdout.toString();
  }
  const canScript = Bun.which("script") !== null;
  if (!canScript) console.error("generate.test.ts: terminal cases skipped: no script(1) here");

  test.skipIf(!canScript)("prompt and text have colours of their own, and no control byte of the model's reaches it", () => {
    const shown = onTerminal(["generate", folder, "--prompt", "Hen", "--tokens", "500", "--temperature", "3"]);
    expect(shown).toContain("\x1b[32mHen\x1b[39m");
    expect(shown).toContain("\x1b[36m");
    expect(shown.replace(/\x1b\[(32|36|39|2|22)m/g, "").replace(/[\r\n\t]/g, "")).not.toMatch(/[\x00-\x1f\x7f\x80-\x9f]/);
    expect(shown).toMatch(/\\x[0-9a-f]{2}/);
    expect(onTerminal(["generate", folder, "--prompt", "Hen", "--tokens", "50"], { NO_COLOR: "1" })).not.toContain("\x1b");
  });

  test.skipIf(!canScript)("training shows one live line and ends with the table", () => {
    const shown = onTerminal(["--name", "live", ...sets({ ...config, "run.steps": 120 })]);
    expect(shown).toContain("\r\x1b[2Kstep ");
    expect(shown).toContain("finished after 120 steps");
    expect(shown).not.toContain("NaN");
    const plain = onTerminal(["--name", "plain", ...sets({ ...config, "run.steps": 120 })], { NO_COLOR: "1", TERM: "dumb" });
    expect(plain).not.toContain("\x1b");
  });
});
