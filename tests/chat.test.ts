// `egg chat` from the outside: lines through a pipe, and keys on a terminal. The expected answers are what `egg generate` writes
// for the conversation so far. Not how a text is chosen (sampling.test.ts) or ended (generate.test.ts). Read next: src/commands/chat.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tokenizerFrom } from "../src/data/tokenizer.ts";
import { loadLatest } from "../src/run/checkpoint.ts";
import { egg, environment, freshFolder, onlyRun, run, sets, tinyContexts, until } from "./program.ts";

setDefaultTimeout(60_000);

const cwd = freshFolder("chat");
const trained = run(["--json", "--quiet", ...sets({ ...tinyContexts, "data.path": "builtin:fables:256KiB", "model.table_bits": 12, "trainer.population": 512, "run.steps": 60, "run.eval_every": 0, "run.sample_every": 0 })], { cwd });
if (trained.code !== 0) throw new Error(trained.err);
const folder = onlyRun(join(cwd, "runs"));

/** Gives lines to `egg chat` through a pipe. */
function chat(lines: string | Uint8Array, args: string[] = [], of = folder): { code: number | null; out: string; err: string } {
  const child = Bun.spawnSync([egg, "chat", of, ...args], { cwd, env: environment(cwd), stdin: Buffer.from(lines), stdout: "pipe", stderr: "pipe" });
  return { code: child.exitCode, out: child.stdout.toString(), err: child.stderr.toString() };
}

/** What `egg generate` writes behind a text. */
function continued(text: string, args: string[], of = folder): string {
  const { code, out } = run(["generate", of, "--quiet", `--prompt=${text}`, ...args], { cwd });
  expect(code).toBe(0);
  return out.slice(text.length);
}

/** The first line of an answer that is not empty, with the line ends before it, as chat takes it by default. */
const firstLine = (text: string): string => /^[\r\n]*[^\n]*/.exec(text)![0];

describe("through a pipe", () => {
  test("each line is a turn; the model continues one growing text, answers end at their first line", () => {
    const { code, out, err } = chat("The hen\nOnce upon a time\n\nthe last one", ["--tokens", "50", "--temperature", "0.6", "--seed", "5"]);
    let text = "";
    const answers: string[] = [];
    for (const [turn, line] of ["The hen", "Once upon a time", "", "the last one"].entries()) {
      text += `${text === "" || text.endsWith("\n") ? "" : "\n"}${line}\n`;
      const answer = firstLine(continued(text, ["--tokens", "50", "--temperature", "0.6", "--seed", String(5 + turn)]));
      text += answer;
      answers.push(answer.replace(/^[\r\n]+/, ""));
    }
    expect({ code, out }).toEqual({ code: 0, out: answers.map((answer) => `${answer}\n`).join("") });
    expect(out.trim().length).toBeGreaterThan(40);
    expect(err).toMatch(/^(egg: (?:read [\d,]+ tokens at [\d,]+ tokens\/s, )?wrote \d+ tokens(?: at [\d,]+ tokens\/s)?\n){4}$/);
  });

  test("prefixes and stop strings make the template; --prompt begins the text", () => {
    const args = ["--tokens", "60", "--temperature", "0.6"];
    const { code, out, err } = chat("hi\nand\n", ["--quiet", "--prompt", "A talk.", "--user", "U: ", "--model", "M: ", "--stop", " the", "--stop", "\nU", ...args]);
    const first = "A talk.\nU: hi\nM: ";
    const answer = continued(first, ["--stop", " the", "--stop", "\nU", ...args, "--seed", "0"]);
    const second = `${first}${answer}${answer.endsWith("\n") ? "" : "\n"}U: and\nM: `;
    expect({ code, out, err }).toEqual({ code: 0, out: `${answer}\n${continued(second, ["--stop", " the", "--stop", "\nU", ...args, "--seed", "1"])}\n`, err: "" });
  });

  test("/save writes the conversation, /reset begins it anew, /seed and /temperature hold from there on", () => {
    const args = ["--tokens", "30", "--quiet", "--seed", "2"];
    const { code, out } = chat("one\n/save talk.txt\n/reset\none\n/temperature 0\ntwo\n/seed 9\n/temperature 1.5\nthree\n/save later.txt\n/quit\nnever\n", args);
    expect(code).toBe(0);
    const [first, again, cold] = out.split("\n");
    expect(again).toBe(first!);
    expect(readFileSync(join(cwd, "talk.txt"), "utf8")).toBe(`one\n${firstLine(continued("one\n", ["--tokens", "30", "--seed", "2"]))}`);
    const later = readFileSync(join(cwd, "later.txt"), "utf8");
    expect(later.startsWith(readFileSync(join(cwd, "talk.txt"), "utf8"))).toBe(true);
    expect(later).toContain(`\ntwo\n${later.split("two\n")[1]!.match(/^\n*/)![0]}${cold}`);
    const before = later.slice(0, later.indexOf("three\n") + 6);
    expect(later.slice(before.length)).toBe(firstLine(continued(before, ["--tokens", "30", "--seed", "9", "--temperature", "1.5"])));
    expect(later).not.toContain("never");
  });

  test("a line that begins with two slashes is a line with one; bytes and CRLF come through", () => {
    expect(chat("//help\n/save slash.txt\n", ["--tokens", "1", "--quiet"]).code).toBe(0);
    expect(readFileSync(join(cwd, "slash.txt"), "latin1")).toStartWith("/help\n");
    expect(chat(Buffer.from("a\xff\xe9b\r\n/save bytes.txt\r\n", "latin1"), ["--tokens", "1", "--quiet"]).code).toBe(0);
    expect(readFileSync(join(cwd, "bytes.txt"), "latin1")).toStartWith("a\xff\xe9b\n");
  });

  test("no lines are no conversation", () => {
    expect(chat("")).toEqual({ code: 0, out: "", err: "" });
  });

  test("a reader that goes away ends it", () => {
    const child = Bun.spawnSync(["sh", "-c", `yes the | "$0" chat "$1" --quiet | head -2`, egg, folder], { cwd, env: environment(cwd), timeout: 20_000 });
    expect(child.stdout.toString().split("\n").length).toBe(3);
    expect(child.stderr.toString()).toBe("");
  });

  test.each([
    [["nowhere"], "", "nowhere"],
    [[folder, "--stop", ""], "", "--stop: found an empty text"],
    [[folder, "--tokens", "0"], "", '--tokens: found "0", allowed a whole number from 1'],
    [[folder, "--top-p", "1.5"], "", 'top-p: found "1.5", allowed a number from 0 to 1'],
    [[folder, "--promt", "x"], "", "did you mean --prompt?"],
    [[folder], "/hlep\n", "unknown command /hlep; did you mean /help?"],
    [[folder], "/\n", "unknown command /"],
    [[folder], "/seed\n", "/seed needs a value: /seed N"],
    [[folder], "/seed x\n", '/seed: found "x", allowed a whole number from 0'],
    [[folder], "/temperature -1\n", '/temperature: found "-1", allowed a number from 0 to 100'],
    [[folder], "/reset now\n", '/reset takes nothing behind it, found "now"'],
    [[folder], "/save there.txt\n", "there.txt: is there already"],
  ])("%j with %j is refused: %s", (args, lines, message) => {
    writeFileSync(join(cwd, "there.txt"), "mine");
    const child = Bun.spawnSync([egg, "chat", ...args], { cwd, env: environment(cwd), stdin: Buffer.from(lines) });
    expect({ code: child.exitCode, out: child.stdout.toString() }).toEqual({ code: 2, out: "" });
    expect(child.stderr.toString()).toContain(message);
    expect(readFileSync(join(cwd, "there.txt"), "utf8")).toBe("mine");
  });

  test("a file that cannot be written is said, and the exit code is its own", () => {
    expect(chat("x\n/save no/such/folder.txt\n", ["--tokens", "1", "--quiet"])).toMatchObject({ code: 2, err: expect.stringContaining("cannot write no/such/folder.txt: no such file or folder") });
    expect(existsSync(join(cwd, "no"))).toBe(false);
  });
});

/** A model of another kind, trained for a moment. */
function trainedAs(out: string, values: Record<string, string | number>): string {
  const { code, err } = run(["--json", "--quiet", ...sets({ "run.eval_every": 0, "run.sample_every": 0, "run.out": out, ...values })], { cwd });
  if (code !== 0) throw new Error(err);
  return onlyRun(join(cwd, out));
}

describe("a transformer reads only what is new", () => {
  const fables = "the old hen said to the fox that there was a farm by the river, and the fox said that he knew it well. ";
  // Of subwords, so that what was written may be cut otherwise when it is read.
  const model = trainedAs("gpt", { preset: "gpt-nano", "data.path": "builtin:fables:256KiB", "data.tokenizer": "bpe:300", "model.layers": 2, "model.width": 32, "model.block": 160, "trainer.batch": 4, "trainer.warmup": 5, "run.steps": 60 });

  test("the answers are those of a model that reads the whole text each time, past its block too", () => {
    const lines = [fables, "and then?", fables.slice(20), "so the hen went there", fables, "and"];
    const args = ["--temperature", "0", "--stop", " the", "--stop", "\n", "--tokens", "24"];
    const { code, out } = chat(`${lines.join("\n")}\n/save whole.txt\n`, ["--quiet", ...args], model);
    let text = "";
    const answers = lines.map((line) => {
      text += `${text === "" || text.endsWith("\n") ? "" : "\n"}${line}\n`;
      const answer = continued(text, args, model);
      text += answer;
      return `${answer}\n`;
    });
    expect({ code, out }).toEqual({ code: 0, out: answers.join("") });
    expect(readFileSync(join(cwd, "whole.txt"), "utf8")).toBe(text);
    const { tokenizer } = loadLatest(model)!.checkpoint;
    expect(tokenizerFrom(tokenizer).encode(Buffer.from(text)).length).toBeGreaterThan(1.5 * 160); // the context gave way once at least
  });

  test("each turn tells what it has read; /reset begins anew, and the same seed gives the same again", () => {
    const line = (fables + fables).slice(0, 120);
    const { code, out, err } = chat(`${line}\n/save first.txt\nand\n${line}\n/save all.txt\n/reset\n${line}\nand\n${line}\n/save again.txt\n`, ["--tokens", "1", "--seed", "7"], model);
    expect(code).toBe(0);
    const said = out.split("\n");
    expect(said.slice((said.length - 1) / 2, -1)).toEqual(said.slice(0, (said.length - 1) / 2)); // an answer may be a line end
    const all = readFileSync(join(cwd, "all.txt"), "utf8");
    expect(readFileSync(join(cwd, "again.txt"), "utf8")).toBe(all);
    const { encode } = tokenizerFrom(loadLatest(model)!.checkpoint.tokenizer);
    const ids = (text: string): number[] => [...encode(Buffer.from(text))];
    const first = ids(`${line}\n`);
    const [before, whole] = [ids(all.slice(0, all.indexOf("and\n") + 4)), ids(all.slice(0, all.lastIndexOf(line) + line.length + 1))];
    expect(whole.length).toBeLessThan(161);
    const added = whole.length - before.findIndex((id, i) => id !== whole[i] || i === before.length - 1) - 1;
    const reads = [...err.matchAll(/read (\d+) tokens/g)].map(([, count]) => Number(count));
    expect(reads).toEqual([first.length, added, first.length, added]); // "and" is too short to tell a speed
  });
});

test("a transformer talks past its block; a character that it does not know is refused", () => {
  writeFileSync(join(cwd, "abc.txt"), "abc cab\n".repeat(200));
  const model = trainedAs("small", { preset: "gpt-nano", "data.path": "abc.txt", "data.tokenizer": "characters", "model.layers": 1, "model.width": 16, "model.heads": 2, "model.block": 8, "trainer.batch": 2, "run.steps": 2 });
  const { code, out } = chat("abc\ncab cab cab cab cab\n", ["--tokens", "20", "--quiet", "--stop", "@"], model);
  expect(code).toBe(0);
  expect(out.length).toBe(2 * 21);
  expect(chat("abc\nxyz\n", ["--tokens", "5", "--quiet"], model)).toMatchObject({ code: 3, err: expect.stringContaining('"x" (U+0078)') });
});

describe("on a terminal", () => {
  /** Starts `egg chat` on a terminal of its own; keys are written to it, and waited for what it shows. */
  function open(args: string[], stdout: "terminal" | "file" = "terminal") {
    let seen = "";
    const decoder = new TextDecoder();
    const command = stdout === "terminal" ? [egg, "chat", folder, ...args] : ["sh", "-c", 'exec "$@" > answers.txt', "sh", egg, "chat", folder, ...args];
    const child = Bun.spawn(command, { cwd, env: environment(cwd, { TERM: "xterm" }), terminal: { cols: 200, rows: 50, data: (_, bytes) => void (seen += decoder.decode(bytes, { stream: true })) } });
    const plain = () => seen.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, "").replaceAll("\r", "");
    return {
      child,
      all: () => plain(),
      /** Writes keys; what is shown from then on, as soon as it has `awaited` in it. */
      async keys(keys: string, awaited: string | RegExp): Promise<string> {
        const from = plain().length;
        child.terminal!.write(keys);
        const shown = () => plain().slice(from);
        const there = () => (typeof awaited === "string" ? shown().includes(awaited) : awaited.test(shown()));
        await until(`${awaited} after ${JSON.stringify(keys)}`, there).catch((error) => {
          throw new Error(`${error.message}: ${JSON.stringify(plain().slice(-300))}`);
        });
        return shown();
      },
    };
  }
  const prompt = /> $/;

  test("lines can be edited and come again from the history; Ctrl-D leaves", async () => {
    const { child, keys, all } = open(["--tokens", "30", "--temperature", "0.6"]);
    await keys("", prompt);
    const piped = chat("The hen\n", ["--tokens", "30", "--temperature", "0.6", "--quiet"]).out;
    expect(await keys("The hxn\x7f\x7fen\r", /tokens\/s\n> $/)).toContain(`\n${piped}`);
    await keys("\x1b[A\r", /> The hen\n[^>]*tokens\/s\n> $/); // the line before
    expect(await keys("/help\r", /> $/)).toContain("/save FILE");
    expect(await keys("/nope\r", /> $/)).toContain("unknown command /nope"); // a person tries again
    await keys("more\r", /tokens\/s\n> $/);
    child.terminal!.write("\x04");
    await child.exited;
    expect({ code: child.exitCode, signal: child.signalCode }).toEqual({ code: 0, signal: null });
    expect(all()).toStartWith("egg: /help shows what you can do besides talking; Ctrl-D leaves.\n");
  });

  test("Ctrl-C ends the answer that is being written, a second one ends egg, as by the signal", async () => {
    const { child, keys } = open(["--tokens", "100000000", "--stop", "@@"]);
    await keys("", prompt);
    await keys("The hen\r", /hen\n[^]{200}/);
    await keys("\x03", /wrote [\d,]+ tokens at [\d,]+ tokens\/s\n> $/);
    await keys("again\r", /again\n[^]{200}/); // the conversation goes on
    await keys("\x03", /tokens\/s\n> $/);
    child.terminal!.write("half a li\x03");
    await child.exited;
    expect(child.signalCode).toBe("SIGINT"); // a shell sees 130, and ends a loop
  });

  test("SIGTERM ends it, in an answer and at the prompt", async () => {
    for (const line of ["", "The hen\r"]) {
      const { child, keys } = open(["--tokens", "100000000", "--stop", "@@"]);
      await keys("", prompt);
      if (line !== "") await keys(line, /hen\n[^]{200}/);
      child.kill("SIGTERM");
      await child.exited;
      expect(child.signalCode).toBe("SIGTERM");
    }
  });

  test("answers can go into a file: prompt and figures stay on the terminal", async () => {
    const { child, keys, all } = open(["--tokens", "30", "--temperature", "0.6"], "file");
    await keys("", prompt);
    await keys("The hen\r", /tokens\/s\n> $/);
    child.terminal!.write("/quit\r");
    await child.exited;
    const piped = chat("The hen\n", ["--tokens", "30", "--temperature", "0.6", "--quiet"]).out;
    expect(readFileSync(join(cwd, "answers.txt"), "utf8")).toBe(piped);
    expect(all()).not.toContain(piped.trim());
  });

  test("no control byte of the model's reaches it", async () => {
    const { child, keys } = open(["--tokens", "300", "--temperature", "9", "--stop", "@@@", "--model", "M: "]);
    await keys("", prompt);
    const shown = await keys("x\r", /tokens\/s\n> $/);
    expect(shown).toContain("\nM: ");
    expect(shown.replace(/[\n\t]/g, "")).not.toMatch(/[\x00-\x1f\x7f\x80-\x9f]/);
    child.kill("SIGKILL");
    await child.exited;
  });
});
