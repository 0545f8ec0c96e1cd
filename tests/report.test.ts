// What a person sees: messages and errors through real processes and a real pseudo-terminal, progress lines against a
// clock that the test moves, sampled text, the summary. Not the figures in them.
// Next: src/report/terminal.ts, where all of it is written.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { exitCodes } from "../src/errors.ts";
import { createProgress, formatClock, formatCount, formatLoss, liveLine, plainLine, sparkline } from "../src/report/progress.ts";
import type { ProgressState } from "../src/report/progress.ts";
import { formatBytes, summaryJson, summaryTable } from "../src/report/summary.ts";
import type { SummaryContext } from "../src/report/summary.ts";
import { makeColors } from "../src/report/terminal.ts";
import type { Terminal } from "../src/report/terminal.ts";
import { createTextStream, plainSample, separatorLine, showSample } from "../src/report/text.ts";
import type { Summary } from "../src/run/summary.ts";

const source = (file: string) => JSON.stringify(path.join(import.meta.dir, "../src", file));
const off = makeColors(false);
const utf8 = (text: string) => new TextEncoder().encode(text);
const strip = (text: string) => text.replace(/\x1b\[\d+m/g, "");

let folder = "";
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "egg-report-"));
});
afterAll(() => fs.rmSync(folder, { recursive: true }));

/** Writes a small program that uses the terminal, for a process of its own. */
function program(body: string): string {
  const file = path.join(folder, `program-${Bun.hash(body).toString(16)}.ts`);
  const head = `import { createTerminal, reportError, writeOut } from ${source("report/terminal.ts")};
    import { EggError } from ${source("errors.ts")};
    const terminal = createTerminal({ quiet: process.argv[2] === "quiet" });\n`;
  fs.writeFileSync(file, head + body);
  return file;
}

const environment = (extra: Record<string, string>) => {
  const { NO_COLOR: _, EGG_DEBUG: __, ...rest } = process.env;
  return { ...rest, TERM: "xterm-256color", ...extra };
};

function inPipes(body: string, words: string[] = [], extra: Record<string, string> = {}) {
  const done = Bun.spawnSync([process.execPath, program(body), ...words], { env: environment(extra) });
  return { code: done.exitCode, out: done.stdout.toString(), err: done.stderr.toString() };
}

/** All that a process writes to a pseudo-terminal of so many columns, lines ended as egg ended them. */
async function inTerminal(body: string, columns: number, extra: Record<string, string> = {}, words: string[] = []) {
  const pieces: Uint8Array[] = [];
  let ended = () => {};
  const end = new Promise<void>((resolve) => (ended = resolve));
  const child = Bun.spawn([process.execPath, program(body), ...words], {
    env: environment(extra),
    terminal: { cols: columns, rows: 24, data: (_, piece) => void pieces.push(piece.slice()), exit: () => ended() },
  });
  await child.exited;
  child.terminal?.close();
  await end;
  return Buffer.concat(pieces).toString().replaceAll("\r\n", "\n");
}

/** In a shell, where redirections can be what no spawn option offers. Gives the program's exit code. */
function inShell(body: string, redirection: string): string {
  const codeFile = path.join(folder, "code");
  const command = `(${process.execPath} ${program(body)}; echo $? > ${codeFile}) ${redirection}`;
  Bun.spawnSync(["sh", "-c", command], { env: environment({}) });
  return fs.readFileSync(codeFile, "utf8").trim();
}

describe("messages", () => {
  const four = `terminal.info("one"); terminal.success("two"); terminal.warn("three"); terminal.error("four\\nand more");`;

  test("go to stderr in one plain style", () => {
    const { out, err } = inPipes(four);
    expect(out).toBe("");
    expect(err).toBe("egg: one\negg: two\negg: warning: three\negg: error: four\n     and more\n");
  });
  test("quiet keeps warnings and errors", () => {
    expect(inPipes(`${four} terminal.print("sample"); terminal.draw("live");`, ["quiet"]).err).toBe(
      "egg: warning: three\negg: error: four\n     and more\n",
    );
  });
  test("equal ones are all shown", () => {
    expect(inPipes(`for (let i = 0; i < 20; i += 1) terminal.info("again");`).err).toBe("egg: again\n".repeat(20));
  });
  test("no control character of a quoted name reaches the terminal", () => {
    expect(inPipes(`terminal.warn("file \\x1b[2J\\x07\\x9b.txt\\r");`).err).toBe("egg: warning: file \\x1b[2J\\x07\\x9b.txt\\x0d\n");
  });
  test("a megabyte through a pipe arrives whole", () => {
    expect(inPipes(`terminal.print("x".repeat(1 << 20));`).err.length).toBe((1 << 20) + 1);
  });

  test("colours on a terminal; NO_COLOR and TERM=dumb obeyed", async () => {
    const body = `terminal.warn("w");`;
    expect(await inTerminal(body, 80)).toBe("egg: \x1b[33mwarning:\x1b[39m w\n");
    expect(await inTerminal(body, 80, { NO_COLOR: "1" })).toBe("egg: warning: w\n");
    expect(await inTerminal(body, 80, { TERM: "dumb" })).toBe("egg: warning: w\n");
  });
  test("a message goes above the live line and does not tear it", async () => {
    const body = `terminal.draw("step 1"); terminal.info("hello"); terminal.draw("step 2"); terminal.keepLine(); terminal.info("end");`;
    const clear = "\r\x1b[2K";
    expect(await inTerminal(body, 80)).toBe(`${clear}step 1${clear}egg: hello\nstep 1${clear}step 2\negg: end\n`);
    expect(await inTerminal(body, 80, { TERM: "dumb" })).toBe("egg: hello\negg: end\n");
    expect(inPipes(body).err).toBe("egg: hello\negg: end\n");
  });
  test.each([40, 80, 120])("the width of a terminal of %d columns", async (columns) => {
    expect(await inTerminal(`terminal.info(String(terminal.width()));`, columns)).toBe(`egg: ${columns}\n`);
  });
  test("80 columns where there is no terminal", () => {
    expect(inPipes(`terminal.info(String(terminal.width()) + terminal.live);`).err).toBe("egg: 80false\n");
  });

  const long = `for (let i = 0; i < 5000; i += 1) terminal.error("x".repeat(100)); process.exitCode = 9;`;
  test("a reader of stderr that has gone away does not end the run", () => expect(inShell(long, "2>&1 | true")).toBe("9"));
  test("a closed stderr does not end the run", () => expect(inShell(long, "2>&-")).toBe("9"));
});

describe("data on stdout", () => {
  test("is whole", () => expect(inPipes(`writeOut(new Uint8Array(300000).fill(65)); writeOut("é");`).out).toBe(`${"A".repeat(300000)}é`));
  test("false where the reader has gone away", () => {
    expect(inShell(`let n = 0; while (n < 1e5 && writeOut("y".repeat(100))) n += 1; process.exitCode = n < 1e5 ? 9 : 8;`, "| true")).toBe("9");
  });
  test.skipIf(!fs.existsSync("/dev/full"))("a full disk is an error that says so", () => {
    expect(inShell(`try { writeOut("data"); } catch (error) { process.exitCode = reportError(error); }`, `> /dev/full 2> ${folder}/full`)).toBe("4");
    expect(fs.readFileSync(`${folder}/full`, "utf8")).toMatch(/^egg: error: \[output\] stdout: .*ENOSPC.*\n     hint: The disk is full/);
  });
});

describe("errors", () => {
  test.each(Object.entries(exitCodes))("kind %s exits with %d", (kind, code) => {
    const body = `process.exitCode = reportError(new EggError("${kind}", "[part] two\\nlines.", { hint: "Do\\nthis." }));`;
    expect(inPipes(body)).toEqual({ code, out: "", err: "egg: error: [part] two\n     lines.\n     hint: Do\n     this.\n" });
  });
  test("without a hint, and never silenced by quiet", () => {
    expect(inPipes(`process.exitCode = reportError(new EggError("data", "gone"));`, ["quiet"]).err).toBe("egg: error: gone\n");
  });
  test("anything else is a bug in egg, without a stack", () => {
    const { code, err } = inPipes(`process.exitCode = reportError(new TypeError("x is \\x1bnot a function"));`);
    expect(code).toBe(1);
    expect(err).toStartWith("egg: internal error: TypeError: x is \\x1bnot a function\n     This is a bug in egg.");
    expect(err).toContain("EGG_DEBUG=1");
    expect(err).not.toContain("program-");
    expect(inPipes(`process.exitCode = reportError("a string");`).err).toStartWith("egg: internal error: a string\n");
  });
  test("with EGG_DEBUG the stacks of the error and its cause", () => {
    const body = `reportError(new EggError("data", "outer", { cause: new RangeError("inner") }));`;
    const { err } = inPipes(body, [], { EGG_DEBUG: "1" });
    expect(err).toContain("caused by RangeError: inner");
    expect(err.match(/program-/g)?.length).toBeGreaterThanOrEqual(2);
  });
  test("below the last state of the run", async () => {
    const shown = await inTerminal(`terminal.draw("step 1"); reportError(new EggError("data", "gone"));`, 80, { NO_COLOR: "1" });
    expect(shown).toBe("\r\x1b[2Kstep 1\negg: error: gone\n");
  });
});

const middle: ProgressState = {
  step: 120,
  steps: 300,
  fraction: null,
  trainBitsPerByte: 3.4212,
  heldOutBitsPerByte: 3.5129,
  recent: Array.from({ length: 120 }, (_, i) => 9 - i / 20),
  tokensPerSecond: 1_234_567,
  unit: "member-tokens",
  etaSeconds: 151.4,
};

describe("lines of progress", () => {
  test.each([
    [120, "step 120/300  train 3.421 bits/byte  held-out 3.513  1.23 M member-tokens/s  ETA 2:31  ████▇▇▇▇▆▆▆▆▅▅▅▅▅▄▄▄▄▃▃▃▃▂▂▂▂▁▁▁▁"],
    [79, "step 120/300  train 3.421 bits/byte  held-out 3.513  1.23 M/s  ETA 2:31  █▇▅▃▂▁"],
    [60, "step 120/300  3.421  held 3.513  1.23 M/s  ETA 2:31  █▇▆▄▃▂▁"],
    [39, "120/300  3.421  held 3.513  ETA 2:31"],
    [30, "120/300  3.421  ETA 2:31"],
    [14, "120/300  3.421"],
    [9, "120/300 …"],
    [1, "…"],
    [0, ""],
  ])("%d columns", (width, line) => {
    expect(liveLine(middle, width, off)).toBe(line);
  });

  test("fit every width, with colours too, and hold no word such as NaN", () => {
    const unknown = { ...middle, trainBitsPerByte: NaN, heldOutBitsPerByte: null, tokensPerSecond: Infinity, etaSeconds: NaN, recent: [] };
    const large = { ...middle, step: 1_234_567, steps: 9_999_999, fraction: 0.999, etaSeconds: 1e7, tokensPerSecond: 9.99e14 };
    for (const state of [middle, unknown, large, { ...unknown, fraction: NaN, trainBitsPerByte: 12.3456 }]) {
      for (let width = 0; width <= 160; width += 1) {
        const line = liveLine(state, width, makeColors(true));
        expect(Bun.stringWidth(line)).toBeLessThanOrEqual(width);
        expect(strip(line)).toBe(liveLine(state, width, off));
        expect(line).not.toMatch(/NaN|Infinity|null|undefined/);
      }
      expect(plainLine(state)).not.toMatch(/NaN|Infinity|null|undefined|\x1b|\r/);
    }
  });
  test("show the part of a long step", () => {
    expect(liveLine({ ...middle, step: 7, fraction: 0.0799 }, 30, off)).toBe("  7/300  7%  3.421  ETA 2:31");
    expect(plainLine({ ...middle, step: 7, fraction: 0.42 })).toBe(
      "step   7/300 42%  train 3.421 bits/byte  1.23 M member-tokens/s  ETA 2:31",
    );
  });
  test("the sparkline has eight levels and keeps old bars while new ones come", () => {
    expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8)).toBe("▁▂▃▄▅▆▇█");
    expect(sparkline([5, 5, 5.001], 8)).toBe("▁▁▁");
    expect(sparkline([9, 9, 1, 7, 4], 3)).toBe("▁█▅"); // the last three
    expect(sparkline([9, 9, 1, 3, 5, 7, 0], 3)).toBe("▃█▁"); // pairs, of which the last three: 2, 6, and 0 alone
    expect(sparkline([], 8)).toBe("");
    const noise = Array.from({ length: 64 }, (_, i) => (i * 7) % 11);
    expect(sparkline(noise.slice(0, 60), 16).slice(2)).toBe(sparkline(noise, 16).slice(0, 14));
  });
  test("figures are short", () => {
    expect([0, 7, 0.26, 950, 999.4, 999.6, 12_345, 999_600, 1_234_567, 45.6e9, 7.89e12, 5e15].map(formatCount)).toEqual(
      ["0", "7", "0.3", "950", "999", "1.00 k", "12.3 k", "1.00 M", "1.23 M", "45.6 G", "7.89 T", "5000 T"],
    );
    expect([0, 7, 59.6, 151, 3599, 3723, 86_399, 100_000].map(formatClock)).toEqual(
      ["0:00", "0:07", "1:00", "2:31", "59:59", "1:02:03", "23:59:59", "1 d 03 h"],
    );
    expect([640, 12_600, 191e6, 1023 * 1024, 1024 * 1024, 1.32e9].map(formatBytes)).toEqual(["640 B", "12.3 KiB", "182 MiB", "1023 KiB", "1.00 MiB", "1.23 GiB"]);
    expect([formatLoss(NaN), formatLoss(null), formatCount(Infinity), formatClock(null), formatBytes(NaN)]).toEqual(["", "", "", "", "unknown"]);
  });
});

/** A terminal that keeps what it is told, and a clock that the test moves. */
function stage(live: boolean) {
  const printed: string[] = [];
  const drawn: string[] = [];
  const clock = { now: 1000 };
  const keep = (text: string) => void printed.push(text);
  const terminal: Terminal = {
    quiet: false, live, colors: off, width: () => 120, info: keep, success: keep, warn: keep, error: keep, print: keep,
    draw: (line) => void drawn.push(line),
    keepLine: () => void drawn.push("(kept)"),
  };
  const start = (firstStep: number, steps: number, tokensPerStep = 1000) =>
    createProgress(terminal, { firstStep, steps, tokensPerStep, unit: "member-tokens", now: () => clock.now });
  return { printed, drawn, clock, start };
}

describe("progress", () => {
  test("draws at most ten times a second", () => {
    const { drawn, clock, start } = stage(true);
    const progress = start(0, 1000);
    for (let i = 0; i < 2000; i += 1) {
      clock.now += 0.005;
      progress.within((i % 10) / 10);
      if (i % 10 === 9) progress.step({ step: (i + 1) / 10, trainBitsPerByte: 5, seconds: 0.05 });
    }
    expect(drawn.length).toBeGreaterThan(90);
    expect(drawn.length).toBeLessThanOrEqual(101); // 10 seconds
    expect(drawn.at(-1)).toMatch(/^step  1\d\d\/1000  train 5\.000 bits\/byte  20\.0 k member-tokens\/s  ETA 0:4\d  ▁+$/);
  });

  test("the first step shows its part, a rate and an ETA before it ends", () => {
    const { drawn, clock, start } = stage(true);
    const progress = start(0, 10, 4000);
    progress.within(0);
    clock.now += 8;
    progress.within(0.2);
    expect(drawn).toEqual(["step  0/10", "step  0/10 20%  100 member-tokens/s  ETA 6:32"]);
  });

  test("the rate leaves evaluations out, the ETA counts them in", () => {
    const { drawn, clock, start } = stage(true);
    const progress = start(0, 100);
    for (let step = 1; step <= 10; step += 1) {
      clock.now += 1;
      progress.step({ step, trainBitsPerByte: 4, seconds: 1 });
      clock.now += 1;
      progress.evaluated(4.5);
    }
    clock.now += 1;
    progress.within(0);
    // 10 steps in 19 seconds, of which 10 trained; 90 to go.
    expect(drawn.at(-1)).toStartWith("step  10/100  train 4.000 bits/byte  held-out 4.500  1.00 k member-tokens/s  ETA 2:51");
  });

  test("rates follow what happened last", () => {
    const { drawn, clock, start } = stage(true);
    const progress = start(0, 1000);
    const run = (from: number, to: number, seconds: number) => {
      for (let step = from; step < to; step += 1) {
        clock.now += seconds;
        progress.step({ step: step + 1, trainBitsPerByte: null, seconds });
      }
    };
    run(0, 100, 1);
    run(100, 500, 0.1);
    expect(drawn.at(-1)).toBe("step  500/1000  10.0 k member-tokens/s  ETA 0:50");
  });

  test("losses that are no numbers are left out", () => {
    const { drawn, printed, clock, start } = stage(true);
    const progress = start(0, 3);
    progress.evaluated(NaN);
    progress.step({ step: 1, trainBitsPerByte: NaN, seconds: 0 });
    clock.now += 1;
    progress.step({ step: 2, trainBitsPerByte: Infinity, seconds: 0 });
    progress.finish();
    expect(`${drawn} ${printed}`).not.toMatch(/NaN|Infinity|null/);
  });

  test("pause takes the line away, resume brings it back, finish leaves it", () => {
    const { drawn, clock, start } = stage(true);
    const progress = start(4, 5);
    progress.within(0);
    progress.pause();
    clock.now += 1;
    progress.step({ step: 5, trainBitsPerByte: 2, seconds: 1 });
    progress.evaluated(3);
    progress.resume();
    progress.finish();
    progress.finish();
    progress.within(0.5);
    const last = "step 5/5  train 2.000 bits/byte  held-out 3.000  1.00 k member-tokens/s  ▁";
    expect(drawn).toEqual(["step 4/5", "", last, last, "(kept)"]);
  });

  const plainRun = (firstStep: number, steps: number, seconds: number) => {
    const { drawn, printed, clock, start } = stage(false);
    const progress = start(firstStep, steps);
    for (let step = firstStep; step < steps; step += 1) {
      for (let part = 0; part < 20; part += 1) {
        progress.within(part / 20);
        clock.now += seconds / 20;
      }
      progress.step({ step: step + 1, trainBitsPerByte: 4, seconds });
    }
    progress.finish();
    expect(drawn.filter((line) => line !== "(kept)")).toEqual([]);
    expect(printed.join("")).not.toMatch(/[\r\x1b]/);
    return printed;
  };
  test.each([
    [0, 1, 0.1, 1],
    [0, 7, 0.1, 7],
    [0, 100, 0.1, 100],
    [0, 300, 0.1, 100],
    [0, 301, 0.1, 76],
    [250, 300, 0.1, 50],
    [0, 12_345, 0.1, 100],
    [0, 3, 7200, 60], // hours a step: each of its twenty parts
    [0, 50, 600, 100],
    [0, 50, 20, 50],
  ])("plain lines from step %d to %d of %d s", (firstStep, steps, seconds, lines) => {
    const printed = plainRun(firstStep, steps, seconds);
    expect(printed.length).toBe(lines);
    expect(printed.at(-1)).toStartWith(`step ${steps}/${steps}  train 4.000 bits/byte  `);
  });
  test("every third step of 300", () => {
    expect(plainRun(0, 300, 0.1).slice(0, 2)).toEqual([
      "step   3/300  train 4.000 bits/byte  10.0 k member-tokens/s  ETA 0:30",
      "step   6/300  train 4.000 bits/byte  10.0 k member-tokens/s  ETA 0:29",
    ]);
  });
  test("evaluations have plain lines of their own", () => {
    const { printed, start } = stage(false);
    const progress = start(0, 300);
    progress.step({ step: 1, trainBitsPerByte: 4, seconds: 1 });
    progress.evaluated(5.4321);
    progress.finish();
    expect(printed).toEqual([
      "step   1/300  held-out 5.432 bits/byte",
      "step   1/300  train 4.000 bits/byte  1.00 k member-tokens/s  ETA 4:59",
    ]);
  });
});

describe("sampled text", () => {
  const show = (...pieces: Uint8Array[]) => {
    const stream = createTextStream(off);
    return pieces.map((piece) => stream.push(piece)).join("") + stream.end();
  };

  test.each([
    ["plain text with newline\nand tab\t", "plain text with newline\nand tab\t"],
    ["\x07\x1b[31m\r\x7f", "\\x07\\x1b[31m\\x0d\\x7f"],
    ["é Ω 世界 🥚 \u200d", "é Ω 世界 🥚 \u200d"],
    ["\u009b31m", "\\xc2\\x9b31m"], // the one-character form of ESC [
    ["\u202eabc\u2028\ufeff", "\\xe2\\x80\\xaeabc\\xe2\\x80\\xa8\\xef\\xbb\\xbf"],
    ["one\x00two\n\x00three", `one\n${separatorLine}\ntwo\n${separatorLine}\nthree`],
    ["\x00", `${separatorLine}\n`],
  ])("%j", (text, shown) => expect(show(utf8(text))).toBe(shown));

  test.each([
    [[0xff, 0x41], "\\xffA"],
    [[0xc3, 0x41], "\\xc3A"],
    [[0xe2, 0x82], "\\xe2\\x82"], // cut at the end
    [[0xe2, 0xc3, 0xa9], "\\xe2é"],
    [[0xc0, 0xaf], "\\xc0\\xaf"], // overlong
    [[0xe0, 0x80, 0x80], "\\xe0\\x80\\x80"],
    [[0xed, 0xa0, 0x80], "\\xed\\xa0\\x80"], // a surrogate
    [[0xf4, 0x90, 0x80, 0x80], "\\xf4\\x90\\x80\\x80"], // past U+10FFFF
    [[0xe2, 0x1b], "\\xe2\\x1b"],
    [[0xe2, 0x00], `\\xe2\n${separatorLine}\n`],
  ])("invalid bytes %j", (bytes, shown) => expect(show(Uint8Array.from(bytes))).toBe(shown));

  test("a character torn between pieces is held back until it is whole", () => {
    const stream = createTextStream(off);
    const [first, second, third, fourth] = utf8("🥚");
    expect([first, second, third, fourth].map((byte) => stream.push(Uint8Array.of(byte!)))).toEqual(["", "", "", "🥚"]);
    expect(stream.end()).toBe("");
  });

  test("any bytes in any pieces: the same text, nothing that steers a terminal", () => {
    let state = 12345;
    const next = (below: number) => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % 65_521 % below;
    for (let round = 0; round < 300; round += 1) {
      const bytes = Uint8Array.from({ length: 1 + next(40) }, () => (next(2) ? 0x80 + next(128) : next(256)));
      const cut = next(bytes.length + 1);
      const whole = show(bytes);
      expect(show(bytes.subarray(0, cut), bytes.subarray(cut))).toBe(whole);
      expect(show(...[...bytes].map((byte) => Uint8Array.of(byte)))).toBe(whole);
      expect(whole).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]/);
    }
  });

  test("every valid character of the decoder of the platform is taken for valid here", () => {
    for (const code of [0x80, 0xa0, 0x7ff, 0x800, 0xfff, 0x1000, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x3ffff, 0x40000, 0x10ffff]) {
      const character = String.fromCodePoint(code);
      expect(show(utf8(character))).toBe(code === 0x80 ? "\\xc2\\x80" : character);
    }
  });

  test("a sample: two colours, or a mark where there are none", () => {
    const bytes = utf8("The é fox");
    const sample = { prompt: bytes.subarray(0, 5), continuation: bytes.subarray(5) }; // cut inside é
    expect(showSample(sample, makeColors(true))).toBe("\x1b[32mThe \x1b[39m\x1b[36mé fox\x1b[39m");
    expect(showSample(sample, off)).toBe("The »é fox");
    expect(plainSample(50, sample)).toBe("=== step 50\nThe »é fox\n\n");
  });
});

describe("the summary", () => {
  const summary: Summary = {
    run: "egg.c-3f2a91c4", status: "finished", steps: 300, seconds: 183.2, train_bits_per_byte: 3.05, val_bits_per_byte: 3.2404,
    weights_sha256: "0123456789abcdef".repeat(4), parameters: 4_863_232, population: 1024, member_tokens: 491_520_000,
    member_tokens_per_second: 2_712_345, data_tokens: 30_000, peak_rss_bytes: 191e6, backend: "avx512vnni", threads: 1,
  };
  const context: SummaryContext = {
    folder: "runs/egg.c-3f2a91c4", firstTrainBitsPerByte: 8.912, firstHeldOutBitsPerByte: 8.905, entropyBitsPerByte: 2.1,
    prompt: "Once upon a time", resumeCommand: null, colors: off,
  };

  test("for people", () => {
    expect(summaryTable(summary, context)).toBe(
      `  run            egg.c-3f2a91c4, finished after 300 steps, 3:03 min of training
  training loss  8.912 → 3.050 bits/byte
  held-out loss  8.905 → 3.240 bits/byte, 1.140 above the floor
  entropy floor  2.100 bits/byte, the least that any model can reach
  model          4.86 M parameters
  training       population 1,024, 492 M member-tokens, 30.0 k tokens of data
  rate           2.71 M member-tokens/s
  backend        avx512vnni, 1 thread
  peak memory    182 MiB
  weights        sha256 0123456789abcdef…
  folder         runs/egg.c-3f2a91c4

Next:
  egg generate runs/egg.c-3f2a91c4 --prompt 'Once upon a time'
  egg eval runs/egg.c-3f2a91c4
`,
    );
  });
  test("what is not known is left out; an interrupted run says how to carry on", () => {
    const table = summaryTable(
      { ...summary, status: "interrupted", steps: 1, seconds: 59.94, val_bits_per_byte: null, member_tokens_per_second: NaN },
      { ...context, folder: "my runs/it's", firstTrainBitsPerByte: null, entropyBitsPerByte: null, resumeCommand: "egg --config egg.json" },
    );
    expect(table).toContain("interrupted after 1 step, 59.9 s of training\n");
    expect(table).toContain("training loss  3.050 bits/byte\n");
    expect(table).toContain("Next:\n  egg --config egg.json   (carries this run on)\n  egg generate 'my runs/it'\\''s' --prompt");
    expect(table).not.toMatch(/held-out|entropy|NaN|null/);
  });
  test("for scripts, exactly one line", () => {
    const line = summaryJson({ ...summary, run: "a\nb\u2028c\u2029", val_bits_per_byte: NaN });
    expect(line.split(/[\n\r\u2028\u2029]/)).toHaveLength(2);
    expect(line.endsWith("}\n")).toBe(true);
    expect(JSON.parse(line)).toEqual({ ...summary, run: "a\nb\u2028c\u2029", val_bits_per_byte: null });
  });
});
