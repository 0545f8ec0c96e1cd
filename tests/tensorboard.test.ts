// TensorBoard's event file of real runs, read by a decoder written from the formats' own descriptions (TFRecord, CRC-32C,
// protobuf wire format), which shares nothing with the writer, and by TensorBoard itself where Python has it.
// EGG_PYTHON names another python3 than the one of PATH. Read next: src/run/tensorboard.ts.
import { describe, expect, test } from "bun:test";
import { appendFileSync, cpSync, existsSync, readFileSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { metricsText } from "../src/run/metrics.ts";
import { crc32c, eventsName, openEvents, tags } from "../src/run/tensorboard.ts";
import { freshFolder, onlyRun, readLines, run, sets, start, tiny, until } from "./program.ts";

// ---- an independent decoder

/** CRC-32C by long division of polynomials over GF(2), bit by bit, most significant coefficient first. */
function crcByDivision(bytes: Uint8Array): number {
  const bits = [...bytes].flatMap((byte) => Array.from({ length: 8 }, (_, bit) => (byte >> bit) & 1));
  const message = [...bits, ...Array<number>(32).fill(0)].map((bit, at) => (at < 32 ? bit ^ 1 : bit));
  const generator = [...(0x11edc6f41).toString(2)].map(Number);
  for (let at = 0; at + 32 < message.length; at++) if (message[at] === 1) generator.forEach((bit, i) => (message[at + i]! ^= bit));
  return message.slice(-32).reduce((crc, bit, at) => crc + (bit ^ 1) * 2 ** at, 0);
}

const masked = (crc: number): number => (((BigInt(crc) >> 15n) | (BigInt(crc) << 17n)) + 0xa282ead8n & 0xffffffffn) as unknown as number;

/** Protobuf fields by number; varints as bigint, the rest as bytes. */
function fields(bytes: Uint8Array): Map<number, (bigint | Uint8Array)[]> {
  const found = new Map<number, (bigint | Uint8Array)[]>();
  let at = 0;
  const varint = (): bigint => {
    for (let value = 0n, shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const wire = key & 7;
    let value: bigint | Uint8Array;
    if (wire === 0) value = varint();
    else {
      const length = wire === 1 ? 8 : wire === 5 ? 4 : wire === 2 ? Number(varint()) : NaN;
      if (!(at + length <= bytes.length)) throw new Error(`wire type ${wire} with ${length} bytes at ${at}`);
      value = bytes.subarray(at, at + length);
      at += length;
    }
    found.set(key >> 3, [...(found.get(key >> 3) ?? []), value]);
  }
  return found;
}

const view = (bytes: unknown): DataView => new DataView((bytes as Uint8Array).buffer, (bytes as Uint8Array).byteOffset, (bytes as Uint8Array).byteLength);
const text = (bytes: unknown): string => new TextDecoder().decode(bytes as Uint8Array);

interface Event { wallTime: number; step: number; version: string | null; scalars: Record<string, number> }

/** Every record must be whole and its CRCs right. */
function decode(file: string): Event[] {
  const bytes = new Uint8Array(readFileSync(file));
  const events: Event[] = [];
  for (let at = 0; at < bytes.length; ) {
    const header = view(bytes.subarray(at, at + 12));
    const length = Number(header.getBigUint64(0, true));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(BigInt(header.getUint32(8, true))).toBe(BigInt(masked(crcByDivision(bytes.subarray(at, at + 8)))));
    expect(BigInt(view(bytes.subarray(at + 12 + length, at + 16 + length)).getUint32(0, true))).toBe(BigInt(masked(crcByDivision(data))));
    const event = fields(data);
    const summary = event.has(5) ? (fields(event.get(5)![0] as Uint8Array).get(1) ?? []) : [];
    events.push({
      wallTime: view(event.get(1)![0]).getFloat64(0, true),
      step: Number(event.get(2)?.[0] ?? 0n),
      version: event.has(3) ? text(event.get(3)![0]) : null,
      scalars: Object.fromEntries(summary.map((value) => {
        const scalar = fields(value as Uint8Array);
        return [text(scalar.get(1)![0]), view(scalar.get(2)![0]).getFloat32(0, true)];
      })),
    });
    at += 16 + length;
  }
  return events;
}

/** What the file must say: each line of metrics.jsonl once, in order, values as 32-bit floats. */
const expected = (folder: string) => readLines(folder).map((line) => ({
  step: line.step,
  scalars: Object.fromEntries(tags.flatMap(([key, tag]) => (typeof line[key] === "number" ? [[tag, Math.fround(line[key])]] : []))),
}));

function check(folder: string): Event[] {
  const [first, ...events] = decode(join(folder, eventsName));
  expect(first).toMatchObject({ version: "brain.Event:2", step: 0, scalars: {} });
  expect(events.map(({ step, scalars }) => ({ step, scalars }))).toEqual(expected(folder));
  for (const [at, { wallTime }] of events.entries()) expect(wallTime).toBeGreaterThan((events[at - 1]?.wallTime ?? 1.7e9) - 0.02); // seconds in metrics.jsonl have two decimals
  return events;
}

// ---- tests

test("CRC-32C gives the known vectors, and what long division gives", () => {
  const vectors: [Uint8Array, number][] = [
    [new Uint8Array(32), 0x8a9136aa], // RFC 3720, B.4
    [new Uint8Array(32).fill(255), 0x62a8ab43],
    [Uint8Array.from({ length: 32 }, (_, at) => at), 0x46dd794e],
    [Uint8Array.from({ length: 32 }, (_, at) => 31 - at), 0x113fdb5c],
    [new TextEncoder().encode("123456789"), 0xe3069283], // the usual check value
    [new Uint8Array(0), 0],
  ];
  for (const [bytes, crc] of vectors) expect([crc32c(bytes), bytes.length < 4 ? crc : crcByDivision(bytes)]).toEqual([crc, crc]);
});

const program = { ...tiny, "run.steps": 30, "run.checkpoint_every": 10, "run.tensorboard": "true" };

describe("a run", () => {
  const home = freshFolder("tensorboard");
  expect(run(["--quiet", ...sets(program)], { cwd: home }).code).toBe(0);
  const folder = onlyRun(join(home, "runs"));

  test("writes each step once, with the values of metrics.jsonl", () => {
    const events = check(folder);
    expect(events).toHaveLength(30);
    expect(events.filter(({ scalars }) => "loss/val_bits_per_byte" in scalars).map(({ step }) => step)).toEqual([5, 10, 15, 20, 25, 30]);
    for (const tag of ["loss/train_bits_per_byte", "rate/member_tokens_per_second", "weights/updated_fraction"]) for (const { scalars } of events) expect(scalars[tag]).toBeNumber();
    expect(readdirSync(folder).filter((name) => name.includes("tfevents"))).toEqual([eventsName]);
  });

  test("is the same run with the knob and without", () => {
    expect(run(["--quiet", "--json", ...sets({ ...program, "run.tensorboard": "false" })], { cwd: home }).code).toBe(0);
    expect(onlyRun(join(home, "runs"))).toBe(folder);
  });

  test("without the knob writes no event file; --force deletes one", () => {
    const other = freshFolder("tensorboard-force");
    cpSync(folder, join(other, "runs", folder.split("/").at(-1)!), { recursive: true });
    expect(run(["--quiet", "--force", ...sets({ ...program, "run.tensorboard": "false" })], { cwd: other }).code).toBe(0);
    expect(existsSync(join(onlyRun(join(other, "runs")), eventsName))).toBe(false);
  });

  test("is read by TensorBoard itself, with equal values", () => {
    const python = process.env["EGG_PYTHON"] ?? "python3";
    const script = `
import json, sys
try:
    from tensorboard.backend.event_processing import event_accumulator
except ImportError:
    sys.exit(77)
a = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={"tensors": 0, "scalars": 0})
a.Reload()
names = a.Tags()["scalars"]
print(json.dumps({n: [[e.step, e.value] for e in a.Scalars(n)] for n in names}))`;
    const child = Bun.which(python) === null ? null : Bun.spawnSync([python, "-c", script, folder], { stdout: "pipe", stderr: "pipe" });
    if (child === null || child.exitCode === 77) {
      console.log(`skipped: ${child === null ? `no ${python}` : `${python} has no tensorboard`}; EGG_PYTHON names another python3`);
      return;
    }
    if (child.exitCode !== 0) throw new Error(child.stderr.toString());
    const lines = readLines(folder);
    const wanted = Object.fromEntries(tags.flatMap(([key, tag]) => {
      const points = lines.flatMap((line) => (typeof line[key] === "number" ? [[line.step, Math.fround(line[key])]] : []));
      return points.length === 0 ? [] : [[tag, points]];
    }));
    expect(JSON.parse(child.stdout.toString())).toEqual(wanted);
  }, 60_000);
});

describe("a run that goes on", () => {
  test("has no step twice and none missing, after kill -9 at any moment", async () => {
    const home = freshFolder("tensorboard-kill");
    const args = ["--quiet", ...sets({ ...program, "run.steps": 2000, "run.checkpoint_every": 25 })];
    let kills = 0;
    for (const least of [30, 300, 700, 1100]) {
      const child = start(args, { cwd: home });
      const runs = join(home, "runs");
      const events = () => join(onlyRun(runs), eventsName);
      const lines = () => (existsSync(runs) && readdirSync(runs).length > 0 && existsSync(events()) ? statSync(join(onlyRun(runs), "metrics.jsonl")).size / 200 : 0);
      let done = false;
      void child.ended.then(() => (done = true));
      await until("steps", () => done || lines() > least);
      child.kill("SIGKILL");
      if ((await child.ended).signal === "SIGKILL") kills++;
      if (least === 300) truncateSync(events(), statSync(events()).size - 7); // as a power failure may leave it
    }
    expect(kills).toBeGreaterThan(1);
    expect(run(args, { cwd: home }).code).toBe(0);
    expect(check(onlyRun(join(home, "runs")))).toHaveLength(2000);
  }, 60_000);
});

describe("opening", () => {
  const line = (step: number, more = {}) => ({ step, seconds: step * 2, train_bits_per_byte: 5 / step, member_tokens_per_second: 1000 + step, data_tokens: 8 * step, fitness_plus: 3, fitness_minus: 4, updated_fraction: 0.25, ...more });
  const written = (folder: string, steps: number) => writeFileSync(join(folder, "metrics.jsonl"), Array.from({ length: steps }, (_, at) => `${metricsText(line(at + 1))}\n`).join(""));
  const file = (folder: string) => join(folder, eventsName);
  const open = (folder: string, now = () => 1_800_000_000) => openEvents(file(folder), join(folder, "metrics.jsonl"), now);
  const folderOf = (steps: number): string => {
    const folder = freshFolder("events");
    written(folder, steps);
    open(folder).close();
    return folder;
  };

  test("fills in what metrics.jsonl has, at the times that its seconds tell", () => {
    const folder = folderOf(200);
    const events = check(folder);
    expect(events.map(({ wallTime }) => wallTime)).toEqual(Array.from({ length: 200 }, (_, at) => 1_800_000_000 - (199 - at) * 2));
    expect(events).toHaveLength(200);
  });

  test("keeps what is there but for the last step, which may have got its evaluation since", () => {
    const folder = folderOf(5);
    const before = readFileSync(file(folder));
    written(folder, 4);
    appendFileSync(join(folder, "metrics.jsonl"), `${metricsText(line(5, { val_bits_per_byte: 1.5 }))}\n`);
    const events = open(folder, () => 1_900_000_000);
    events.append(line(6));
    events.close();
    appendFileSync(join(folder, "metrics.jsonl"), `${metricsText(line(6))}\n`);
    expect(check(folder).map(({ wallTime }) => wallTime > 1_850_000_000)).toEqual([false, false, false, false, true, true]);
    expect(readFileSync(file(folder)).subarray(0, before.length - 200)).toEqual(before.subarray(0, before.length - 200));
  });

  test("cuts steps off that the metrics no longer have", () => {
    const folder = folderOf(300);
    const first = readFileSync(file(folder));
    written(folder, 150);
    open(folder).close();
    check(folder);
    written(folder, 300);
    open(folder, () => 1_900_000_000).close();
    check(folder);
    // Byte for byte as long: a TensorBoard that is reading finds the next record where it looks for it.
    expect(statSync(file(folder)).size).toBe(first.length);
  });

  test("heals every cut and every flipped byte", () => {
    const folder = folderOf(3);
    const whole = readFileSync(file(folder));
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(file(folder), whole.subarray(0, length));
      open(folder).close();
      expect(readFileSync(file(folder)).equals(whole)).toBe(true);
    }
    for (let at = 0; at < whole.length; at++) {
      const damaged = Buffer.from(whole);
      damaged[at]! ^= 1 << (at % 8);
      writeFileSync(file(folder), damaged);
      open(folder).close();
      expect(readFileSync(file(folder)).equals(whole)).toBe(true);
    }
  });

  test("without metrics there is the head alone", () => {
    const folder = freshFolder("events-none");
    open(folder).close();
    expect(decode(file(folder))).toEqual([{ wallTime: 1_800_000_000, step: 0, version: "brain.Event:2", scalars: {} }]);
    rmSync(file(folder));
  });
});
