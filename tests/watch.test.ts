// `egg watch`: the server's rules by raw requests, its numbers against metrics.jsonl, and the page in a real Chromium
// beside a real run: what it shows, that news arrive, that it stays when the run or the server ends.
// Not how it looks. Read next: browser.ts, src/report/dashboard.ts.
import { afterAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { basename, join } from "node:path";
import { tryLockFile } from "../src/native/machine.ts";
import { curvePoints, serveDashboard, type SentData } from "../src/report/dashboard.ts";
import { Curve } from "../src/report/follow.ts";
import type { MetricsLine } from "../src/run/metrics.ts";
import { findChromium, startBrowser, type Browser, type Page } from "./browser.ts";
import { freshFolder, readLines, run, sets, start, tiny, until, type Started } from "./program.ts";

const line = (step: number, more: object = {}): MetricsLine & Record<string, unknown> => ({
  step, seconds: Number((step * 0.25).toFixed(2)), train_bits_per_byte: Number((5 + Math.sin(step) / 3).toFixed(6)), member_tokens_per_second: 1000 + ((step * 7919) % 500), data_tokens: step * 8,
  fitness_plus: 1, fitness_minus: 2, updated_fraction: Number((1 / (step + 1)).toFixed(5)), ...(step % 10 === 0 ? { val_bits_per_byte: Number((6 - step / 1e6).toFixed(6)) } : {}), ...more,
});
const linesText = (from: number, to: number): string => Array.from({ length: to - from + 1 }, (_, i) => `${JSON.stringify(line(from + i))}\n`).join("");
const configText = (run: object = {}): string => JSON.stringify({ egg: { version: "0.1.0", commit: null }, machine: {}, config: { preset: "egg.c", trainer: { population: 64 }, run: { steps: 100, seed: 1, ...run } } });

/** A run folder as a running or killed process leaves it. */
function writeRun(folder: string, steps: number, run: object = {}): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config.json"), configText(run));
  writeFileSync(join(folder, "metrics.jsonl"), linesText(1, steps));
}

/** Starts egg; what a failing test leaves running is killed at the end. */
const children: Started[] = [];
function begin(args: string[], cwd: string): Started {
  const child = start(args, { cwd });
  children.push(child);
  return child;
}
afterAll(async () => {
  for (const child of children) child.kill("SIGKILL");
  await Promise.all(children.map((child) => child.ended));
});

/** What a page would keep: asks, and puts the answers together. */
class Reader {
  server = "";
  have = new Map<number, string>();
  curves = new Map<number, { steps: any[]; evaluations: any[] }>();
  bytes = 0;
  constructor(readonly address: string) {}
  async ask(): Promise<SentData> {
    await Bun.sleep(220); // closer together, the answers are the same
    const have = [...this.have].map(([key, value]) => `${key}:${value}`).join(",");
    const response = await fetch(`${this.address}data?server=${this.server}&have=${have}`);
    const text = await response.text();
    this.bytes = text.length;
    const data = JSON.parse(text) as SentData;
    this.server = data.server;
    for (const run of data.runs) {
      const curves = this.curves.get(run.key) ?? { steps: [], evaluations: [] };
      for (const name of ["steps", "evaluations"] as const) curves[name].splice(run[name].from, Infinity, ...run[name].points);
      this.curves.set(run.key, curves);
      this.have.set(run.key, run.have);
    }
    return data;
  }
}

const stepPoint = (each: any) => [each.step, each.seconds, 1, each.train_bits_per_byte, each.member_tokens_per_second, each.updated_fraction, null, null];
const heldOutPoints = (lines: any[]) => lines.filter((each) => each.val_bits_per_byte !== undefined).map((each) => [each.step, each.seconds, 1, each.val_bits_per_byte, each.saturated_fraction ?? null]);

describe("the server", () => {
  const home = freshFolder("watch");
  const folder = join(home, "runs", "one");
  writeRun(folder, 30);
  const address = serveDashboard([folder], 0, tryLockFile);
  const port = Number(new URL(address).port);

  /** The answer to bytes on a connection of its own. */
  async function raw(request: string): Promise<{ status: number; head: string; body: string }> {
    let text = "";
    await new Promise<void>((resolve, reject) => {
      const enough = () => /\r\n\r\n/.test(text);
      void Bun.connect({
        hostname: "127.0.0.1",
        port,
        socket: {
          data(socket, bytes) {
            text += bytes.toString();
            if (enough()) setTimeout(() => socket.end(), 20);
          },
          close: () => resolve(),
          error: (_, error) => reject(error),
        },
      }).then((socket) => socket.write(request), reject);
    });
    const cut = text.indexOf("\r\n\r\n");
    return { status: Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1]), head: text.slice(0, cut), body: text.slice(cut + 4) };
  }

  test("answers under the names of this machine only", async () => {
    for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, `LOCALHOST:${port}`, `[::1]:${port}`]) {
      expect([host, (await raw(`GET /data HTTP/1.1\r\nHost: ${host}\r\n\r\n`)).status]).toEqual([host, 200]);
    }
    for (const host of ["evil.example", `evil.example:${port}`, "127.0.0.1", "localhost", `127.0.0.1:${port + 1}`, `127.0.0.1.evil.example:${port}`, `localhost:${port}.evil.example`, `0.0.0.0:${port}`, `127.0.0.2:${port}`, ""]) {
      for (const place of ["/", "/data"]) {
        const { status, body } = await raw(`GET ${place} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
        expect([host, status === 403 || status === 400]).toEqual([host, true]);
        expect(body).not.toMatch(/egg watch|"one"/);
      }
    }
    expect((await raw("GET /data HTTP/1.0\r\n\r\n")).status).toBe(403);
    expect((await raw(`GET http://evil.example:${port}/data HTTP/1.1\r\nHost: evil.example\r\n\r\n`)).status).toBe(403);
    expect([400, 403]).toContain((await raw(`GET /data HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1:${port}\r\n\r\n`)).status);
  });

  test("takes GET and HEAD and nothing else", async () => {
    for (const method of ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"]) {
      const { status, head } = await raw(`${method} /data HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Length: 0\r\n\r\n`);
      expect([method, status]).toEqual([method, 405]);
      expect(head.toLowerCase()).toContain("allow: get, head");
    }
    const { status, body } = await raw(`HEAD / HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`);
    expect([status, body]).toEqual([200, ""]);
    const posted = await fetch(`${address}data`, { method: "POST", body: "x".repeat(100_000) });
    expect([405, 413]).toContain(posted.status);
  });

  test("knows two places; no path reaches the file system", async () => {
    for (const place of ["/config.json", "/runs/one/config.json", "/data/", "/data/../metrics.jsonl", "/..%2f..%2fetc/passwd", "/%2e%2e/config.json", "//etc/passwd", "/index.html", "/data%00", "/\\..\\x"]) {
      expect([place, (await raw(`GET ${place} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`)).status]).toEqual([place, 404]);
    }
    for (const query of ["have=../../etc/passwd", "have=0:1e9.1e9", "have=0:-1.-1.-1.-1.-1.-1", "have=%00", "server=x&have=:::,,,", `have=${"9".repeat(5000)}`]) {
      const data = (await (await fetch(`${address}data?${query}`)).json()) as SentData;
      expect(data.runs[0]!.steps.points).toHaveLength(30);
    }
  });

  test("listens on the loopback interface alone", async () => {
    const others = Object.values(networkInterfaces()).flat().filter((each) => each !== undefined && !each.internal && each.family === "IPv4");
    for (const { address: outside } of others as { address: string }[]) await expect(fetch(`http://${outside}:${port}/data`)).rejects.toThrow();
    if (existsSync("/proc/net/tcp")) {
      const hex = port.toString(16).toUpperCase().padStart(4, "0");
      const listening = ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((file) => readFileSync(file, "utf8").split("\n")).filter((row) => new RegExp(`^\\s*\\d+: [0-9A-F]+:${hex} [0-9A-F]+:0000 0A`).test(row));
      expect(listening.map((row) => row.trim().split(/\s+/)[1])).toEqual([`0100007F:${hex}`]);
    }
  });

  test("gives the page with a policy that lets nothing else in", async () => {
    const response = await fetch(address);
    const page = await response.text();
    expect(response.headers.get("content-type")).toBe("text/html; charset=utf-8");
    expect(response.headers.get("x-content-type-options")).toBe("nosniff");
    expect(response.headers.get("cache-control")).toBe("no-store");
    const policy = response.headers.get("content-security-policy")!;
    for (const tag of ["script", "style"]) {
      const parts = [...page.matchAll(new RegExp(`<${tag}[^>]*>([^]*?)</${tag}>`, "g"))];
      expect(parts).toHaveLength(1);
      expect(policy).toContain(`${tag}-src 'sha256-${createHash("sha256").update(parts[0]![1]!).digest("base64")}'`);
    }
    expect(policy).toStartWith("default-src 'none';");
    expect(policy).not.toContain("unsafe");
    const addresses = [...page.matchAll(/(?:https?:)?\/\/[\w.-]+\.\w+/g)].map(([text]) => text).filter((text) => text !== "http://www.w3.org");
    expect(addresses).toEqual([]);
    expect(page).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(/);
  });

  test("sends what metrics.jsonl holds, then only what is new", async () => {
    const reader = new Reader(address);
    const { runs: [first], load } = await reader.ask();
    const lines = readLines(folder);
    expect(reader.curves.get(0)).toEqual({ steps: lines.map(stepPoint), evaluations: heldOutPoints(lines) });
    expect(first).toMatchObject({ name: "one", status: "interrupted", stepsDone: 30, stepsPlanned: 100, last: lines.at(-1), heldOut: lines[29].val_bits_per_byte, bestHeldOut: lines[29].val_bits_per_byte });
    expect(Object.fromEntries(first!.config!)).toEqual({ preset: "egg.c", "trainer.population": 64, "run.steps": 100, "run.seed": 1 });
    expect(load.cores).toBeGreaterThan(0);
    expect(load.memoryUsed).toBeGreaterThan(0);
    expect(load.memoryUsed).toBeLessThan(load.memoryTotal);

    appendFileSync(join(folder, "metrics.jsonl"), linesText(31, 33) + '{"step":34,"seco');
    const { runs: [second] } = await reader.ask();
    expect(second!.steps).toEqual({ from: 29, points: [30, 31, 32, 33].map((step) => stepPoint(line(step))) });
    expect(second!.config).toBeUndefined();
    expect(second!.samples).toBeUndefined();
    appendFileSync(join(folder, "metrics.jsonl"), `${JSON.stringify(line(34)).slice('{"step":34,"seco'.length)}\n`);
    await reader.ask();
    expect(reader.curves.get(0)!.steps).toEqual(readLines(folder).map(stepPoint));
  });

  test("follows a run that is cut back, started over, or gone and back", async () => {
    const file = join(folder, "metrics.jsonl");
    const reader = new Reader(address);
    await reader.ask();
    const same = async () => {
      await reader.ask();
      const lines = existsSync(file) ? readLines(folder) : [];
      expect(reader.curves.get(0)).toEqual({ steps: lines.map(stepPoint), evaluations: heldOutPoints(lines) });
    };
    truncateSync(file, linesText(1, 12).length); // a resume
    await same();
    // Cut back and grown past the old end, at once.
    writeFileSync(file, linesText(1, 10) + Array.from({ length: 60 }, (_, i) => `${JSON.stringify(line(11 + i, { train_bits_per_byte: 1 }))}\n`).join(""));
    await same();
    rmSync(file); // --force
    await same();
    writeFileSync(file, linesText(1, 3));
    await same();
    const away = join(home, "away");
    renameSync(folder, away);
    expect((await reader.ask()).runs[0]).toMatchObject({ status: "waiting", stepsDone: 0, last: null });
    writeRun(folder, 5, { seed: 9 });
    const { runs: [back] } = await reader.ask();
    expect(new Map(back!.config!).get("run.seed")).toBe(9);
    await same();
  });

  test("leaves lines out that it cannot read, and says so", async () => {
    const damaged = join(home, "damaged");
    writeRun(damaged, 4);
    appendFileSync(join(damaged, "metrics.jsonl"), `rubbish\n[]\n\n${JSON.stringify({ ...line(5), train_bits_per_byte: "<b>5</b>" })}\n${"x".repeat(2_000_000)}\n${linesText(5, 8)}`);
    const reader = new Reader(serveDashboard([damaged], 0, tryLockFile));
    const { runs: [run] } = await reader.ask();
    expect(reader.curves.get(0)!.steps.map(([step]: number[]) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(run!.trouble).toContain("metrics.jsonl");
  });

  test("shows the runs in a folder of runs, new ones too", async () => {
    const runs = join(home, "sweep");
    const reader = new Reader(serveDashboard([runs, folder, `${folder}/`], 0, tryLockFile));
    expect((await reader.ask()).runs.map(({ name, status }) => [name, status])).toEqual([["sweep", "waiting"], ["one", "interrupted"]]);
    writeRun(join(runs, "b"), 2);
    expect((await reader.ask()).runs.map(({ name }) => name)).toEqual(["one", "b"]);
    writeRun(join(runs, "a"), 2);
    expect((await reader.ask()).runs.map(({ name, key }) => [name, key])).toEqual([["one", 1], ["b", 2], ["a", 3]]);
  });

  test("stays light with a run of 120,000 steps, and loses no extreme", async () => {
    const long = join(home, "long");
    writeRun(long, 0);
    const lines = Array.from({ length: 120_000 }, (_, i) => line(i + 1, i === 77_777 ? { train_bits_per_byte: 9.5 } : i === 50_001 ? { train_bits_per_byte: 0.5 } : {}));
    writeFileSync(join(long, "metrics.jsonl"), lines.map((each) => `${JSON.stringify(each)}\n`).join(""));
    const reader = new Reader(serveDashboard([long], 0, tryLockFile));
    const { runs: [run] } = await reader.ask();
    expect(reader.bytes).toBeLessThan(250_000);
    expect(run).toMatchObject({ stepsDone: 120_000, last: lines.at(-1) });
    const { steps, evaluations } = reader.curves.get(0)!;
    expect(steps.length).toBeGreaterThan(curvePoints / 2 - 2);
    expect(steps.length).toBeLessThanOrEqual(curvePoints);
    expect(steps.reduce((sum, point) => sum + point[2], 0)).toBe(120_000);
    expect(evaluations.reduce((sum, point) => sum + point[2], 0)).toBe(12_000);
    let at = 0;
    for (const [step, seconds, count, ...values] of steps) {
      const part = lines.slice(at, (at += count));
      expect([step, seconds]).toEqual([part.at(-1)!.step, part.at(-1)!.seconds]);
      for (const [i, key] of (["train_bits_per_byte", "member_tokens_per_second", "updated_fraction"] as const).entries()) {
        const numbers = part.map((each) => each[key] as number);
        expect(values[i]).toBeCloseTo(numbers.reduce((sum, value) => sum + value, 0) / count, 6);
        expect([values[5 + i], values[10 + i]]).toEqual([Math.min(...numbers), Math.max(...numbers)]);
      }
    }
    appendFileSync(join(long, "metrics.jsonl"), linesText(120_001, 120_001));
    await reader.ask();
    expect(reader.bytes).toBeLessThan(2500);
    expect(reader.curves.get(0)!.steps.reduce((sum, point) => sum + point[2], 0)).toBe(120_001);
  }, 30_000);
});

test("a curve of any length keeps mean, least and greatest, with gaps", () => {
  for (const length of [0, 1, 7, 8, 9, 16, 17, 100, 1000]) {
    const curve = new Curve(["train_bits_per_byte", "loss_integer"], 8);
    const lines = Array.from({ length }, (_, i) => line(i + 1, i % 3 === 0 ? { loss_integer: (i * 7919) % 101 } : i % 3 === 1 ? { loss_integer: NaN } : {}));
    for (const each of lines) curve.add(each);
    expect(curve.points.length).toBeLessThanOrEqual(8);
    let at = 0;
    for (const point of curve.points) {
      const part = lines.slice(at, (at += point.lines));
      const known = part.map((each) => each.loss_integer).filter((value) => Number.isFinite(value)) as number[];
      expect([point.min[1], point.max[1]]).toEqual(known.length === 0 ? [null, null] : [Math.min(...known), Math.max(...known)]);
      if (known.length > 0) expect(point.mean[1]!).toBeCloseTo(known.reduce((sum, value) => sum + value, 0) / known.length, 9);
    }
    expect(at).toBe(length);
  }
});

describe("the program", () => {
  const home = freshFolder("watch-program");
  writeRun(join(home, "one"), 3);
  const addressOf = async (child: Started): Promise<string> => {
    await until("the address", () => /http:\S+/.test(child.err()));
    return /http:\S+/.exec(child.err())![0];
  };

  test.each(["SIGINT", "SIGTERM"] as const)("says where it serves, and dies by %s", async (signal) => {
    const child = begin(["watch", "one"], home);
    const address = await addressOf(child);
    expect(child.err()).toBe(`egg: ${address} shows one; Ctrl-C ends it\n`);
    expect(await (await fetch(address)).text()).toBe(readFileSync(join(import.meta.dir, "..", "src", "report", "dashboard.html"), "utf8"));
    child.kill(signal);
    expect(await child.ended).toMatchObject({ signal, out: "" });
  });

  test("takes the next port when none was asked for; a taken one is a clear error", async () => {
    const first = begin(["watch", "one"], home);
    const second = begin(["watch", "one"], home);
    const [one, two] = [await addressOf(first), await addressOf(second)];
    expect(one).not.toBe(two);
    const port = new URL(one).port;
    const third = run(["watch", "one", "--port", port], { cwd: home });
    expect(third).toMatchObject({ code: 4, out: "" });
    expect(third.err).toContain(`[watch] cannot listen on port ${port} of 127.0.0.1: another program uses it.`);
    for (const child of [first, second]) child.kill("SIGTERM");
    await Promise.all([first.ended, second.ended]);
  });

  test("refuses a file and a word too few, and says what is not there yet", async () => {
    expect(run(["watch", "one/config.json"], { cwd: home })).toMatchObject({ code: 2, err: expect.stringContaining("[watch] one/config.json: a file, not a run folder.") });
    expect(run(["watch"], { cwd: home })).toMatchObject({ code: 2, err: expect.stringContaining("egg watch needs RUN") });
    expect(run(["watch", "one", "--port", "70000"], { cwd: home })).toMatchObject({ code: 2 });
    const child = begin(["watch", "later", "--port", "0"], home);
    await addressOf(child);
    expect(child.err()).toContain("later is not there; it is shown as soon as it is");
    child.kill("SIGTERM");
    await child.ended;
  });
});

const chromium = findChromium();
if (chromium === null) console.log("skipped: the page in a browser, as no Chromium is installed; EGG_CHROMIUM names one");

describe.skipIf(chromium === null)("the page in Chromium", () => {
  let browser: Browser | undefined;
  const opened = async (address: string): Promise<Page> => {
    browser ??= await startBrowser(chromium!);
    return await browser.open(address);
  };
  afterAll(async () => await browser?.close());
  /** Text of the cells of each row: name, status, steps, training loss, … */
  const rows = (page: Page): Promise<string[][]> => page.evaluate(`[...document.querySelectorAll("#runs tbody tr")].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))`);
  /** What the readout of each chart says, by chart: [run, step, value as text, exact value]. */
  const readoutsNow = `[...document.querySelectorAll(".readout")].map((list) => [...list.querySelectorAll("li[data-run]")].map((item) => [item.dataset.run, +item.dataset.step, item.querySelector("b").textContent, +item.dataset.value]))`;
  const readouts = (page: Page): Promise<[string, number, string, number][][]> => page.evaluate(readoutsNow);

  /** Walks through a chart with the keys and compares every value with metrics.jsonl. */
  async function expectCurves(page: Page, folder: string): Promise<void> {
    const lines = readLines(folder);
    const metrics = ["train_bits_per_byte", "val_bits_per_byte", "member_tokens_per_second", "tokens_per_second", "gradient_norm", "updated_fraction", "saturated_fraction"];
    const percent = (value: number): string => `${(value * 100).toFixed(value < 0.1 ? 2 : 1)} %`;
    const texts: ((value: number) => string)[] = [(v) => v.toFixed(4), (v) => v.toFixed(4), (v) => v.toLocaleString("en"), (v) => v.toLocaleString("en"), (v) => String(v), percent, percent];
    for (const [chart, metric] of metrics.entries()) {
      const wanted = lines.filter((each) => each[metric] !== undefined).map((each) => [basename(folder), each.step, texts[chart]!(each[metric]), each[metric]]);
      await page.evaluate(`{
        window.seen = [];
        document.onkeyup = () => window.seen.push(...${readoutsNow}[${chart}]);
        document.querySelectorAll(".plot")[${chart}].focus();
      }`);
      // Real presses take a frame each: one chart proves that they arrive, the others get made-up ones.
      if (wanted.length === 0) continue; // of backprop: the chart is not there
      const keys = wanted.map((_, i) => (i === 0 ? "Home" : "ArrowRight"));
      if (chart === 1) await Promise.all(keys.map((key) => page.press(key)));
      else await page.evaluate(`for (const key of ${JSON.stringify(keys)}) for (const type of ["keydown", "keyup"]) document.activeElement.dispatchEvent(new KeyboardEvent(type, { key, bubbles: true }))`);
      expect(await page.evaluate<unknown[]>("window.seen")).toEqual(wanted);
    }
  }

  test("follows a run from before it begins until after it ends, and when it starts over", async () => {
    const home = freshFolder("watch-live");
    const server = begin(["watch", "runs"], home);
    await until("the address", () => /http:\S+/.test(server.err()));
    const address = /http:\S+/.exec(server.err())![0];
    const page = await opened(address);
    await page.until("the waiting run", `document.querySelector("#runs tbody")?.innerText.includes("waiting")`);

    const args = ["--quiet", "--name", "live", ...sets({ ...tiny, "trainer.population": 512, "trainer.sequence": 64, "run.steps": 60, "run.sample_every": 20, "run.prompt": "<i>x" })];
    let name = "";
    const folder = (): string => join(home, "runs", name);
    for (const force of [[], ["--force"]]) {
      const training = begin([...args, ...force], home);
      const before = force.length === 0 ? "" : readFileSync(join(folder(), "metrics.jsonl"), "utf8");
      await until("steps", () => {
        name = (existsSync(join(home, "runs")) ? readdirSync(join(home, "runs"))[0] : undefined) ?? "none";
        const file = join(folder(), "metrics.jsonl");
        const text = existsSync(file) ? readFileSync(file, "utf8") : "";
        return text.slice(0, 100) !== before.slice(0, 100) && text.split("\n").length > 10;
      });
      // Halted in the midst of it, so that there is one state to compare, however fast the machine is.
      training.kill("SIGSTOP");
      await Bun.sleep(50); // until it has stopped
      const halted = readLines(folder()).at(-1);
      expect(halted.step).toBeLessThan(60);
      await page.until("the halted run", `document.querySelector("#runs tbody").innerText.includes("running") && document.querySelectorAll(".readout li")[0].dataset.step === "${halted.step}"`);
      const [row] = await rows(page);
      expect(row!.slice(0, 4)).toEqual([basename(folder()), "running", `${halted.step} of 60`, halted.train_bits_per_byte.toFixed(4)]);
      training.kill("SIGCONT");
      expect((await training.ended).code).toBe(0);
      await page.until("the end", `document.querySelector("#runs tbody").innerText.includes("finished") && document.querySelectorAll(".readout li")[0].dataset.step === "60"`);
      const lines = readLines(folder());
      const last = lines.at(-1);
      const best = Math.min(...lines.flatMap((each) => each.val_bits_per_byte ?? []));
      expect((await rows(page))[0]).toEqual([
        basename(folder()), "finished", "60 of 60", last.train_bits_per_byte.toFixed(4), last.val_bits_per_byte.toFixed(4), best.toFixed(4), `${last.member_tokens_per_second.toLocaleString("en")} member-tokens/s`,
        `${(last.updated_fraction * 100).toFixed(last.updated_fraction < 0.1 ? 2 : 1)} %`, expect.stringMatching(/^[\d.]+ s$/), "–",
      ]);
      await expectCurves(page, folder());
    }
    // Samples as text, the newest first, and the whole config of a single run.
    const samples = readFileSync(join(folder(), "samples.txt"), "utf8").split(/^=== step \d+\n/m).slice(1).map((text) => text.trimEnd().replace("»", ""));
    expect((await page.evaluate<string[]>(`[...document.querySelectorAll("pre")].map((pre) => pre.textContent.trimEnd())`)).reverse()).toEqual(samples);
    expect(await page.evaluate(`[...document.querySelectorAll("#settings tbody tr")].map((row) => row.innerText).join()`)).toContain("trainer.population\t512");
    expect(page.errors).toEqual([]);
    expect(page.requests.filter((each) => !each.startsWith(address) && !each.startsWith("data:"))).toEqual([]);

    // The server goes away and another comes to its place.
    server.kill("SIGTERM");
    await server.ended;
    await page.until("the loss of the server", `document.getElementById("connection").textContent.includes("no connection")`);
    expect((await rows(page))[0]![1]).toBe("finished");
    const again = begin(["watch", "runs", "--port", new URL(address).port], home);
    await page.until("the next server", `document.getElementById("connection").textContent === "connected"`);
    await page.until("its data", `document.querySelectorAll(".readout li")[0].dataset.step === "60"`);
    again.kill("SIGTERM");
    await again.ended;
  }, 240_000);

  test("overlays runs, shows what differs, hides and zooms, and takes every text as text", async () => {
    const home = freshFolder("watch-text");
    const evil = "<img src=x onerror=document.title='broken'>";
    const names = [evil, "plain", '"><script>document.title=1</script>'.replaceAll("/", "")];
    for (const [i, name] of names.entries()) {
      writeRun(join(home, name), 50 + 10 * i, { seed: i, prompt: evil });
      writeFileSync(join(home, name, "samples.txt"), `=== step 1\n${evil}» <b>bold</b> ${i}\n\n=== step 2\nThe » later\n\n`);
    }
    const page = await opened(serveDashboard(names.map((name) => join(home, name)), 0, tryLockFile));
    await page.until("the runs", `document.querySelectorAll(".readout li[data-run]").length === 12`);
    expect((await rows(page)).map(([name]) => name)).toEqual(names);
    expect(await page.evaluate(`[...document.querySelectorAll("pre")].map((pre) => pre.textContent)`)).toContain(`${evil} <b>bold</b> 0`);
    expect(await page.evaluate(`document.querySelectorAll("img, b b, main script, pre b, pre img").length`)).toBe(0);
    expect(await page.evaluate("document.title")).toBe("egg watch");
    expect(await page.evaluate(`[...document.querySelectorAll("#settings tbody tr")].map((row) => row.innerText)`)).toEqual(["run.seed\t0\t1\t2"]);
    expect((await readouts(page))[0]!.map(([, step]) => step)).toEqual([50, 60, 70]);

    const press = (selector: string) => page.evaluate(`document.querySelector(${JSON.stringify(selector)}).click()`);
    await press("#only input");
    expect(await page.evaluate(`document.querySelectorAll("#settings tbody tr").length`)).toBe(5);
    await press("#runs tbody tr input");
    expect((await readouts(page))[0]!.map(([, step]) => step)).toEqual([60, 70]);
    await page.evaluate(`document.querySelector(".plot").focus()`);
    for (const key of ["Home", "+"]) await page.press(key);
    expect(await page.evaluate(`document.getElementById("whole").hidden`)).toBe(false);
    await press("#whole");
    expect(await page.evaluate(`document.getElementById("whole").hidden`)).toBe(true);
    await press("input[value=seconds]");
    await page.press("Home");
    await page.evaluate(`document.querySelector(".plot").focus()`);
    await page.press("Home");
    expect(await page.evaluate(`document.querySelector(".readout li").textContent`)).toContain("0.25 s");

    const ground = () => page.evaluate<string>("getComputedStyle(document.body).backgroundColor");
    const shades: string[] = [];
    for (const value of ["light", "dark"]) {
      await page.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] });
      shades.push(await ground());
    }
    expect(shades[0]).not.toBe(shades[1]);
    for (const width of [360, 1600]) {
      await page.send("Emulation.setDeviceMetricsOverride", { width, height: 800, deviceScaleFactor: 1, mobile: false });
      expect(await page.evaluate<number>("document.documentElement.scrollWidth")).toBeLessThanOrEqual(width);
    }
    expect(page.errors).toEqual([]);
  }, 120_000);
});
