// The page of `egg watch`: a server on the loopback interface that shows run folders and what the machine does.
// It only answers: nothing is written, nothing of a request reaches the file system, and nothing happens while nobody looks.
// The page itself is dashboard.html, put into the program as text. Read next: follow.ts and runs.ts, where the numbers come from.
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { EggError } from "../errors.ts";
import type { MetricsLine } from "../run/metrics.ts";
import pageText from "./dashboard.html" with { type: "text" };
import { Curve, Tail, type Point } from "./follow.ts";
import { findRuns, readRun, type RunRecord, type RunSample } from "./runs.ts";

const page = pageText as unknown as string; // to the type checker an .html is a bundle, whatever its import says

/** Points of a curve at most; a page is about as many pixels wide. */
export const curvePoints = 1024;
const stepKeys = ["train_bits_per_byte", "member_tokens_per_second", "updated_fraction", "tokens_per_second", "gradient_norm"] as const;
const heldOutKeys = ["val_bits_per_byte", "saturated_fraction"] as const;
const samplesShown = 20;
const sampleLength = 8192; // characters

/** Requests that come closer together than this get the same answer, however many look. */
const fresh_ms = 200;
/** Runs whose files stay as they are get read this seldom: only who holds the lock can have changed. */
const quiet_ms = 2000;
/** Ports tried after the usual one, when none was asked for. */
const usualPort = 6116;
const portsTried = 20;

/** A point as it is sent: [step, seconds, lines, means…] and, where it stands for several lines, least… and greatest…. */
type SentPoint = (number | null)[];

/** A curve's points from number `from` on: what comes before has not changed since the page last asked. */
interface SentCurve {
  from: number;
  points: SentPoint[];
}

interface SentRun {
  key: number;
  folder: string;
  name: string;
  /** "waiting": nothing is there yet. */
  status: RunRecord["status"] | "waiting";
  trouble: string | null;
  stepsDone: number;
  stepsPlanned: number | null;
  secondsDone: number;
  last: MetricsLine | null;
  heldOut: number | null;
  bestHeldOut: number | null;
  /** To be sent back with the next request. */
  have: string;
  steps: SentCurve;
  evaluations: SentCurve;
  /** Newest first; left out where the page has them. */
  samples?: RunSample[];
  config?: [string, unknown][];
}

/** The answer to GET /data. */
export interface SentData {
  /** Another number: another server, whose `have` is not this one's. */
  server: string;
  load: { cpu: number | null; cores: number; memoryUsed: number; memoryTotal: number };
  runs: SentRun[];
}

/** A run folder, whether it is there or not. */
class Watched {
  readonly folder: string;
  readonly key: number;
  readonly #tryLock: (fd: number) => boolean;
  readonly #tail: Tail;
  readonly #steps = new Curve(stepKeys, curvePoints);
  readonly #evaluations = new Curve(heldOutKeys, curvePoints);
  #record: RunRecord | null = null;
  #last: MetricsLine | null = null;
  #samples: RunSample[] = [];
  #stamp = "";
  #readAt = -Infinity;
  #samplesStamp = "";
  #samplesVersion = 0;
  #configVersion = 0;
  #trouble: string | null = null;

  constructor(folder: string, key: number, tryLock: (fd: number) => boolean) {
    this.folder = folder;
    this.key = key;
    this.#tryLock = tryLock;
    this.#tail = new Tail(path.join(folder, "metrics.jsonl"));
  }

  async refresh(now: number): Promise<void> {
    const stamp = ["config.json", "metrics.jsonl", "summary.json", "latest.json", "lock"].map((name) => stampOf(path.join(this.folder, name))).join();
    const samplesStamp = stampOf(path.join(this.folder, "samples.txt"));
    try {
      this.#trouble = null;
      if (stamp !== this.#stamp || now - this.#readAt > quiet_ms) {
        const config = JSON.stringify([...(this.#record?.config ?? [])]);
        this.#record = exists(this.folder) ? readRun(this.folder, this.#tryLock) : null;
        if (JSON.stringify([...(this.#record?.config ?? [])]) !== config) this.#configVersion++;
        this.#readAt = now;
      }
      if (samplesStamp !== this.#samplesStamp) {
        this.#samples = (this.#record?.samples() ?? []).slice(-samplesShown).reverse();
        this.#samplesVersion++;
        this.#samplesStamp = samplesStamp;
      }
      if (stamp !== this.#stamp) await this.#follow();
      this.#stamp = stamp;
    } catch (error) {
      this.#trouble = error instanceof Error ? error.message : String(error);
    }
  }

  async #follow(): Promise<void> {
    await this.#tail.read(
      (line) => {
        this.#last = line;
        this.#steps.add(line);
        if (line.val_bits_per_byte !== undefined) this.#evaluations.add(line);
      },
      () => {
        this.#last = null;
        this.#steps.clear();
        this.#evaluations.clear();
      },
    );
  }

  /** @param have what the page has, as `have` of the last answer; anything else counts as nothing */
  send(have: string | undefined): SentRun {
    const [steps, stepsFrom, evaluations, evaluationsFrom, samples, config] = (have ?? "").split(".").map(Number);
    const record = this.#record;
    const unreadable = this.#tail.unreadable === 0 ? null : `metrics.jsonl: ${this.#tail.unreadable} lines cannot be read`;
    return {
      key: this.key,
      folder: this.folder,
      name: path.basename(path.resolve(this.folder)),
      status: record?.status ?? "waiting",
      trouble: this.#trouble ?? record?.trouble ?? unreadable,
      stepsDone: this.#last?.step ?? record?.steps ?? 0,
      stepsPlanned: record?.stepsPlanned ?? null,
      secondsDone: this.#last?.seconds ?? record?.seconds ?? 0,
      last: this.#last,
      heldOut: this.#evaluations.points.at(-1)?.lines === 1 ? this.#evaluations.points.at(-1)!.mean[0]! : (record?.lastHeldOut ?? null),
      bestHeldOut: least([...this.#evaluations.points.map((point) => point.min[0]!), record?.bestHeldOut ?? null]),
      have: [this.#steps.generation, this.#steps.points.length, this.#evaluations.generation, this.#evaluations.points.length, this.#samplesVersion, this.#configVersion].join("."),
      steps: sendCurve(this.#steps, steps, stepsFrom),
      evaluations: sendCurve(this.#evaluations, evaluations, evaluationsFrom),
      ...(samples === this.#samplesVersion ? {} : { samples: this.#samples.map(({ step, text }) => ({ step, text: text.slice(0, sampleLength) })) }),
      ...(config === this.#configVersion ? {} : { config: [...(record?.config ?? [])] }),
    };
  }
}

function sendCurve(curve: Curve, generation: number | undefined, count: number | undefined): SentCurve {
  const known = generation === curve.generation && Number.isSafeInteger(count) && count! <= curve.points.length;
  const from = known ? Math.max(0, count! - 1) : 0; // the last point may have grown
  return { from, points: curve.points.slice(from).map(sendPoint) };
}

function sendPoint({ step, seconds, lines, mean, min, max }: Point): SentPoint {
  return lines === 1 ? [step, seconds, lines, ...mean] : [step, seconds, lines, ...mean, ...min, ...max];
}

function least(values: readonly (number | null)[]): number | null {
  return values.reduce((best, value) => (value === null || (best !== null && best <= value) ? best : value), null);
}

function stampOf(file: string): string {
  try {
    const { ino, size, mtimeMs } = fs.statSync(file);
    return `${ino}:${size}:${mtimeMs}`;
  } catch {
    return ""; // not there, or not to be seen: reading it says so
  }
}

const exists = (folder: string): boolean => fs.statSync(folder, { throwIfNoEntry: false }) !== undefined;

/** What is to be seen, read anew when somebody asks. */
class Watch {
  readonly server = randomBytes(6).toString("hex");
  readonly #words: readonly string[];
  readonly #tryLock: (fd: number) => boolean;
  readonly #known = new Map<string, Watched>();
  #shown: Watched[] = [];
  #refreshing: Promise<void> | null = null;
  #refreshedAt = -Infinity;
  #times = cpuTimes();
  #cpu: number | null = null;

  constructor(words: readonly string[], tryLock: (fd: number) => boolean) {
    this.#words = words;
    this.#tryLock = tryLock;
  }

  /** @param have `have` of each run by its key, as "key:have,key:have" */
  async data(have: string): Promise<SentData> {
    await (this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = null)));
    const known = new Map(have.split(",").map((part) => part.split(":") as [string, string]));
    const memoryTotal = os.totalmem();
    return {
      server: this.server,
      load: { cpu: this.#cpu, cores: os.cpus().length, memoryUsed: memoryTotal - os.freemem(), memoryTotal },
      runs: this.#shown.map((run) => run.send(known.get(String(run.key)))),
    };
  }

  async #refresh(): Promise<void> {
    const now = performance.now();
    if (now - this.#refreshedAt < fresh_ms) return;
    this.#refreshedAt = now;
    const times = cpuTimes();
    const total = times.total - this.#times.total;
    if (total > 0) [this.#cpu, this.#times] = [(times.busy - this.#times.busy) / total, times];
    // By whole paths: "runs/one" and "runs/one/" are one run.
    const folders = new Map(this.#words.flatMap(runsOf).map((folder) => [path.resolve(folder), folder]));
    for (const [place, folder] of folders) if (!this.#known.has(place)) this.#known.set(place, new Watched(folder, this.#known.size, this.#tryLock));
    this.#shown = [...this.#known].filter(([place]) => folders.has(place)).map(([, run]) => run);
    for (const run of this.#shown) await run.refresh(now);
  }
}

/** The run folders that a word of the command line stands for now: itself, or those in it. */
function runsOf(word: string): string[] {
  try {
    const inside = findRuns(word);
    return inside.length === 0 || fs.readdirSync(word).some((name) => ["lock", "metrics.jsonl", "checkpoints"].includes(name)) ? [word] : inside;
  } catch {
    return [word]; // not there yet
  }
}

function cpuTimes(): { busy: number; total: number } {
  let busy = 0;
  let idle = 0;
  for (const { times } of os.cpus()) {
    busy += times.user + times.nice + times.sys + times.irq;
    idle += times.idle;
  }
  return { busy, total: busy + idle };
}

// ---- the server

const hashOf = (tag: string): string => {
  const text = new RegExp(`<${tag}>([^]*?)</${tag}>`).exec(page)?.[1] ?? "";
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
};

const headers = (): Record<string, string> => ({
  "Content-Security-Policy":
    `default-src 'none'; script-src ${hashOf("script")}; style-src ${hashOf("style")}; connect-src 'self'; img-src data:; ` +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cache-Control": "no-store",
});

/** The names under which a browser on this machine reaches the server. Another one is a web site that points its own name here. */
const namesOf = (port: number): string[] => ["127.0.0.1", "localhost", "[::1]"].flatMap((name) => [`${name}:${port}`, ...(port === 80 ? [name] : [])]);

/**
 * Serves the page until the process ends.
 * @param words run folders, folders of run folders, or what will be one
 * @param port 0 = any free one; undefined = 6116, or the next that is free
 * @param tryLock locks an open file without waiting, or says that another has it
 * @returns the address, such as "http://127.0.0.1:6116/"
 * @throws EggError("resources") when the port cannot be had
 */
export function serveDashboard(words: readonly string[], port: number | undefined, tryLock: (fd: number) => boolean): string {
  const watch = new Watch(words, tryLock);
  const common = headers();
  const answer = (status: number, text: string, more: Record<string, string> = {}): Response =>
    new Response(text, { status, headers: { ...common, "Content-Type": "text/plain; charset=utf-8", ...more } });
  const serve = (at: number) => {
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: at,
      reusePort: false, // left out, two processes get one port, and each connection goes to either
      development: false,
      maxRequestBodySize: 0,
      fetch: async (request) => {
        if (!namesOf(server.port!).includes(request.headers.get("host")?.toLowerCase() ?? "")) return answer(403, "The Host header is none of this server's names.\n");
        if (request.method !== "GET" && request.method !== "HEAD") return answer(405, "Only GET and HEAD.\n", { Allow: "GET, HEAD" });
        const { pathname, searchParams } = new URL(request.url);
        if (pathname === "/") return answer(200, page, { "Content-Type": "text/html; charset=utf-8" });
        if (pathname !== "/data") return answer(404, "There are / and /data.\n");
        const have = searchParams.get("server") === watch.server ? (searchParams.get("have") ?? "") : "";
        return answer(200, JSON.stringify(await watch.data(have)), { "Content-Type": "application/json" });
      },
      error: () => answer(500, "The server could not answer.\n"),
    });
    return server;
  };
  const ports = port === undefined ? [...Array.from({ length: portsTried }, (_, i) => usualPort + i), 0] : [port];
  for (const at of ports) {
    try {
      return `http://127.0.0.1:${serve(at).port}/`;
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "EADDRINUSE" && at !== ports.at(-1)) continue;
      const why = code === "EADDRINUSE" ? "another program uses it" : code === "EACCES" ? "ports below 1024 are for the administrator" : (error as Error).message;
      throw new EggError("resources", `[watch] cannot listen on port ${at} of 127.0.0.1: ${why}.`, { hint: "Choose another --port, or leave it out: then a free one is taken.", cause: error });
    }
  }
  throw new Error("no port was tried");
}
