// Checkpoints against what happens to them: flipped bits, cut files, a full disk, foreign files.
// Real files throughout. The container's own rules are in safetensors.test.ts; kill -9 and failing disks under the program: kill.test.ts, faults.test.ts.
import { afterAll, expect, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { EggError } from "../src/errors.ts";
import { type Checkpoint, finishSave, loadCheckpoint, loadLatest, readCheckpoint, saveCheckpoint, weightsSha256 } from "../src/run/checkpoint.ts";
import { appendLine, removeLeftovers, writeDurably } from "../src/run/files.ts";
import { openMetrics, readMetrics } from "../src/run/metrics.ts";
import { bytesNow, partNow, type TensorEntry } from "../src/models/tensors.ts";
import { encodeSafetensors } from "../src/run/safetensors.ts";
import { canMount, fill, makeRoom, onSmallDisk, remount } from "./disk.ts";
import { failure } from "./failure.ts";
import { sourceOf } from "./source.ts";

const root = fs.mkdtempSync(path.join(os.tmpdir(), "egg-checkpoint-"));
afterAll(() => fs.rmSync(root, { recursive: true, force: true }));
const fresh = (): string => fs.mkdtempSync(path.join(root, "run-"));

function checkpoint(step: number, valBitsPerByte: number | null = null, bytes = 40): Omit<Checkpoint, "tensors"> & { tensors: Map<string, TensorEntry> } {
  const tensors = new Map<string, TensorEntry>([
    ["head.weight", { dtype: "I8", shape: [bytes], data: new Uint8Array(bytes).fill(step) }],
    ["embedding.weight", { dtype: "I8", shape: [2, 3], data: Uint8Array.of(1, 2, 3, 4, 5, step & 255) }],
    ["state.step", { dtype: "I64", shape: [1], data: new Uint8Array(new BigInt64Array([BigInt(step)]).buffer) }],
  ]);
  return { step, tensors, config: `{"preset":"egg.c","text":"\\"content_sha256\\":\\"é"}`, tokenizer: "bytes", dataCursor: `{"at":${step}}`, program: "0.1.0", valBitsPerByte };
}

/** With the bytes of each tensor in memory. */
const held = (tensors: ReadonlyMap<string, TensorEntry>) => new Map([...tensors].sort().map(([name, tensor]) => [name, { ...tensor, data: bytesNow(tensor.data) }]));
const saved = (run: string): string[] => fs.readdirSync(path.join(run, "checkpoints")).sort();
const nameOf = (step: number): string => `step-${String(step).padStart(8, "0")}.safetensors`;
const latest = (run: string): any => JSON.parse(fs.readFileSync(path.join(run, "latest.json"), "utf8"));

test("what is saved is loaded", () => {
  const run = fresh();
  const before = checkpoint(300, 2.25);
  const { path: file } = saveCheckpoint(run, before, 3);
  expect(path.basename(file)).toBe("step-00000300.safetensors");
  const { checkpoint: after, passedOver } = loadLatest(run)!;
  expect(passedOver).toEqual([]);
  expect(after).toMatchObject({ step: 300, config: before.config, tokenizer: "bytes", dataCursor: `{"at":300}`, program: "0.1.0", valBitsPerByte: 2.25 });
  expect(held(after.tensors)).toEqual(held(before.tensors));
  const bytes = fs.readFileSync(file);
  expect(latest(run)).toEqual({
    name: "step-00000300.safetensors", step: 300, sha256: new Bun.CryptoHasher("sha256").update(bytes).digest("hex"),
    best: { name: "step-00000300.safetensors", step: 300, val_bits_per_byte: 2.25 },
  });
  // The content hash by its definition: the file with the hash's own digits as zeros.
  bytes.write("0".repeat(64), bytes.indexOf(after.contentSha256), "latin1");
  expect(new Bun.CryptoHasher("sha256").update(bytes).digest("hex")).toBe(after.contentSha256);
  const mode = fs.statSync(file).mode & 0o777;
  expect(mode).toBe(0o666 & ~process.umask());
});

test("weights_sha256 goes over raw bytes by name, without state.*", () => {
  const { tensors } = checkpoint(7);
  const bytes = [...bytesNow(tensors.get("embedding.weight")!.data), ...bytesNow(tensors.get("head.weight")!.data)];
  const wanted = new Bun.CryptoHasher("sha256").update(Uint8Array.from(bytes)).digest("hex");
  expect(weightsSha256(tensors)).toBe(wanted);
  expect(weightsSha256(new Map([...tensors].reverse()))).toBe(wanted);
});

test("every flipped bit and every truncation is noticed", () => {
  const run = fresh();
  const { path: file } = saveCheckpoint(run, checkpoint(1, 3.5), 3);
  const whole = fs.readFileSync(file);
  const headEnd = 8 + Number(whole.readBigUInt64LE(0));
  const missed: string[] = [];
  const attempt = (what: string, bytes: Uint8Array): void => {
    fs.writeFileSync(file, bytes);
    try {
      loadCheckpoint(file);
      missed.push(what);
    } catch (error) {
      if (!(error instanceof EggError) || error.kind !== "corrupt") missed.push(`${what}: ${error}`);
    }
  };
  let tried = 0;
  for (let at = 0; at < whole.length; at++) {
    const bits = at < headEnd ? [0, 1, 2, 3, 4, 5, 6, 7] : [Math.floor(Math.random() * 8)];
    for (const bit of bits) {
      const bytes = Buffer.from(whole);
      bytes[at]! ^= 1 << bit;
      attempt(`byte ${at}, bit ${bit}`, bytes);
      tried++;
    }
    attempt(`cut to ${at} bytes`, whole.subarray(0, at));
  }
  attempt("one byte more", Buffer.concat([whole, Buffer.alloc(1)]));
  expect(missed).toEqual([]);
  expect(tried).toBeGreaterThan(headEnd * 8);
  fs.writeFileSync(file, whole);
  expect(loadCheckpoint(file).step).toBe(1);
});

test("loading takes the newest whole one, names those it passes over, deletes nothing", () => {
  const run = fresh();
  for (const step of [100, 200, 300]) saveCheckpoint(run, checkpoint(step), 3);
  const file = (step: number): string => path.join(run, "checkpoints", nameOf(step));
  const bytes = fs.readFileSync(file(300));
  bytes[bytes.length - 1]! ^= 1;
  fs.writeFileSync(file(300), bytes);
  fs.truncateSync(file(200), 100);
  fs.rmSync(path.join(run, "latest.json"));
  fs.writeFileSync(path.join(run, "checkpoints", "step-99999999.safetensors.bak"), "not one of ours");
  const found = loadLatest(run)!;
  expect(found.checkpoint.step).toBe(100);
  expect(found.passedOver.map((each) => each.path)).toEqual([file(300), file(200)]);
  expect(found.passedOver[0]!.reason).toContain("content hash should be");
  expect(found.passedOver[1]!.reason).toMatch(/the header claims [\d,]+ bytes, the file holds 92/);

  fs.writeFileSync(file(100), "");
  const before = saved(run);
  const error = failure(() => loadLatest(run));
  expect([error.kind, error.exitCode]).toEqual(["corrupt", 7]);
  for (const step of [100, 200, 300]) expect(error.message).toContain(file(step));
  expect(saved(run)).toEqual(before);
});

test("a run without checkpoints has none to load", () => {
  expect(loadLatest(fresh())).toBeNull();
  expect(loadLatest(path.join(root, "nowhere"))).toBeNull();
});

test("retention keeps the newest, the last two, and the best", () => {
  const run = fresh();
  const steps = (): number[] => saved(run).map((name) => Number(name.slice(5, 13)));
  const losses: [number, number | null][] = [[1, 3], [2, 2], [3, null], [4, 2.5], [5, 2], [6, 4]];
  for (const [step, loss] of losses) saveCheckpoint(run, checkpoint(step, loss), 3);
  expect(steps()).toEqual([2, 4, 5, 6]); // 2 and 5 are equally good: the earlier counts
  expect(latest(run)).toMatchObject({ step: 6, best: { step: 2, val_bits_per_byte: 2 } });
  fs.rmSync(path.join(run, "latest.json")); // not needed to know the best
  saveCheckpoint(run, checkpoint(7, 3), 1);
  expect(steps()).toEqual([2, 6, 7]);
  saveCheckpoint(run, checkpoint(8, 1), 0);
  expect(steps()).toEqual([7, 8]);
});

test("what a save had still to do when its process died is done on resume: latest.json, and the deletion of old ones", () => {
  const run = fresh();
  const losses: [number, number | null][] = [[1, 1], [2, 3], [3, 2], [4, null]];
  for (const [step, loss] of losses) saveCheckpoint(run, checkpoint(step, loss), 9);
  const whole = { latest: fs.readFileSync(path.join(run, "latest.json"), "utf8"), files: saved(run) };
  // Killed before latest.json: it names the one before, or is not there at all.
  for (const before of [whole.latest.replaceAll("4", "3"), null, "", "[]", "null"]) {
    if (before === null) fs.rmSync(path.join(run, "latest.json"));
    else fs.writeFileSync(path.join(run, "latest.json"), before);
    finishSave(run, loadLatest(run)!.checkpoint, 9);
    expect(fs.readFileSync(path.join(run, "latest.json"), "utf8")).toBe(whole.latest);
  }
  // Nothing to do: the file is left alone.
  const { mtimeMs, ino } = fs.statSync(path.join(run, "latest.json"));
  finishSave(run, loadLatest(run)!.checkpoint, 9);
  expect(fs.statSync(path.join(run, "latest.json"))).toMatchObject({ mtimeMs, ino });
  expect(saved(run)).toEqual(whole.files);
  // Killed before the deletion: the best and the last two stay.
  finishSave(run, loadLatest(run)!.checkpoint, 2);
  expect(saved(run)).toEqual([1, 3, 4].map(nameOf));
});

test("damaged later files do not push out the one just saved", () => {
  const run = fresh();
  for (const step of [100, 200, 300, 400]) saveCheckpoint(run, checkpoint(step), 4);
  for (const step of [300, 400]) fs.truncateSync(path.join(run, "checkpoints", nameOf(step)), 50);
  const { deleted } = saveCheckpoint(run, checkpoint(250), 2);
  expect(deleted).toEqual([nameOf(100)]);
  const found = loadLatest(run)!;
  expect(found.checkpoint.step).toBe(250);
  expect(found.passedOver.length).toBe(2);
});

test("a file of another program says what is missing, a missing file that it is missing", () => {
  const golden = path.join(import.meta.dir, "golden", "sample.safetensors");
  const foreign = failure(() => loadCheckpoint(golden));
  expect(foreign.message).toContain("metadata lacks program, config, step, tokenizer, data_cursor, content_sha256");
  expect(foreign.hint).toContain("run folder");
  expect(failure(() => loadCheckpoint(path.join(root, "none.safetensors"))).message).toContain("no such file");
  expect(failure(() => loadCheckpoint(root)).message).toContain("not a file");
  const text = path.join(fresh(), "x.json");
  fs.writeFileSync(text, `{"preset": "egg.c", "run": {}}`);
  expect(failure(() => loadCheckpoint(text)).kind).toBe("corrupt");
});

test("a large tensor is verified in pieces, and read when it is asked for", () => {
  const run = fresh();
  const size = 3_000_000;
  const source = sourceOf(fs.readFileSync(saveCheckpoint(run, checkpoint(7, null, size), 3).path));
  const fills: number[] = [];
  const { tensors } = readCheckpoint({ ...source, fill: (target, position) => (fills.push(target.length), source.fill(target, position)) }, "counted");
  expect(Math.max(...fills)).toBe(2 ** 20);
  expect(fills.reduce((sum, bytes) => sum + bytes)).toBeGreaterThanOrEqual(size);
  fills.length = 0;
  const room = new Uint8Array(1000);
  const part = partNow(tensors.get("head.weight")!, size - 1000, size, room);
  expect([part.buffer, fills]).toEqual([room.buffer, [1000]]);
  expect(part.every((byte) => byte === 7)).toBe(true);
});

test("tensors stay in the file: any part of one can be read, and a file that is another one by then is refused", () => {
  const run = fresh();
  const { path: file } = saveCheckpoint(run, checkpoint(5), 3);
  const tensor = loadCheckpoint(file).tensors.get("embedding.weight")!;
  expect([...partNow(tensor, 1, 4)]).toEqual([2, 3, 4]);
  expect([...partNow(tensor, 6, 6)]).toEqual([]);
  const bytes = fs.readFileSync(file);
  const changes: [string, () => void, string, string][] = [
    ["written again", () => fs.utimesSync(file, 1, 1), "corrupt", "was changed while it was being read"],
    ["replaced", () => writeDurably(file, [bytes]), "corrupt", "was changed while it was being read"],
    ["cut", () => fs.truncateSync(file, bytes.length - 1), "corrupt", "was changed while it was being read"],
    ["deleted", () => fs.rmSync(file), "usage", "no such file"],
  ];
  for (const [, change, kind, message] of changes) {
    fs.writeFileSync(file, bytes);
    const { tensors } = loadCheckpoint(file);
    change();
    const error = failure(() => bytesNow(tensors.get("head.weight")!.data));
    expect([error.kind, error.message]).toEqual([kind as never, expect.stringContaining(message)]);
  }
});

test("a tensor or metadata hash that is not the content's is told with both", () => {
  const run = fresh();
  const metadata = { program: "0", config: "{}", step: "1", tokenizer: "bytes", data_cursor: "", content_sha256: "a".repeat(64) };
  const file = path.join(run, "x.safetensors");
  writeDurably(file, encodeSafetensors(new Map(), metadata));
  expect(failure(() => loadCheckpoint(file)).message).toMatch(/should be a{64}, but the content gives [0-9a-f]{64}/);
});

test.skipIf(!canMount)("full disk: a checkpoint that does not fit leaves the one before, and tells both numbers", async () => {
  await onSmallDisk("size=256k", (disk) => {
    saveCheckpoint(disk, checkpoint(100, null, 30_000), 3);
    const before = { files: saved(disk), latest: latest(disk) };
    for (const pages of [0, 1, 3, 7]) { // nothing written, the header only, in the middle, nearly all
      makeRoom(disk);
      fill(disk, pages);
      const error = failure(() => saveCheckpoint(disk, checkpoint(200, null, 30_000), 3));
      expect([error.kind, error.exitCode]).toEqual(["resources", 4]);
      expect(error.message).toMatch(new RegExp(`step-00000200\\.safetensors: the disk is full; 30,[0-9]{3} bytes needed, ${(pages * 4096).toLocaleString("en-US")} bytes free`));
      expect(saved(disk)).toEqual(before.files); // no temporary file either
      expect(latest(disk)).toEqual(before.latest);
      expect(loadLatest(disk)!.checkpoint.step).toBe(100);
    }
    makeRoom(disk);
    saveCheckpoint(disk, checkpoint(200, null, 30_000), 3);
    expect(loadLatest(disk)!.checkpoint.step).toBe(200);
  });
});

test.skipIf(!canMount)("full disk: latest.json that does not fit leaves the one before, and both checkpoints", async () => {
  await onSmallDisk("size=256k", (disk) => {
    saveCheckpoint(disk, checkpoint(100), 3);
    const before = latest(disk);
    fill(disk, 1); // the checkpoint fits, what follows does not
    const error = failure(() => saveCheckpoint(disk, checkpoint(200), 3));
    expect(error.message).toMatch(/latest\.json: the disk is full; 1\d\d bytes needed, 0 bytes free/);
    expect(latest(disk)).toEqual(before);
    expect(fs.readdirSync(disk).sort()).toEqual(["checkpoints", "filler", "latest.json"]);
    expect(loadLatest(disk)!.checkpoint.step).toBe(200);
  });
});

test.skipIf(!canMount)("full disk: metrics end with a whole line, and go on when there is room", async () => {
  await onSmallDisk("size=64k", (disk) => {
    const file = path.join(disk, "metrics.jsonl");
    const metrics = openMetrics(file);
    const line = (step: number) => ({ step, seconds: 1, train_bits_per_byte: 2, member_tokens_per_second: 3, data_tokens: 4, fitness_plus: 5, fitness_minus: 6, updated_fraction: 0 });
    metrics.append(line(1));
    fill(disk, 0);
    let step = 2;
    let error: EggError | undefined;
    while (error === undefined) {
      try {
        metrics.append(line(step++));
      } catch (thrown) {
        error = thrown as EggError;
      }
    }
    expect(error.kind).toBe("resources");
    expect(error.message).toMatch(/metrics\.jsonl: the disk is full; 1\d\d bytes needed, 0 bytes free/);
    const text = fs.readFileSync(file, "utf8");
    expect(text.length).toBeGreaterThan(4096 - 200); // the last page was full but for a part of a line
    expect(text.endsWith("}\n")).toBe(true);
    expect(readMetrics(file).length).toBe(step - 2);
    makeRoom(disk);
    metrics.append(line(step));
    metrics.close();
    expect(readMetrics(file).at(-1)!.step).toBe(step);
  });
});

test.skipIf(!canMount)("a read-only disk is named as that", async () => {
  await onSmallDisk("size=64k", (disk) => {
    saveCheckpoint(disk, checkpoint(1), 3);
    remount(disk, "ro");
    const error = failure(() => saveCheckpoint(disk, checkpoint(2), 3));
    expect([error.kind, error.message]).toEqual(["resources", expect.stringContaining("the file system is read-only (EROFS)")]);
    expect(loadLatest(disk)!.checkpoint.step).toBe(1);
  });
});

test("an append to a device without room fails instead of losing the line", () => {
  if (!fs.existsSync("/dev/full")) return console.error("skipped: no /dev/full here");
  const descriptor = fs.openSync("/dev/full", "a");
  expect(failure(() => appendLine(descriptor, "x", "/dev/full")).message).toContain("2 bytes needed");
  fs.closeSync(descriptor);
});

test("only our own leftovers are cleared", () => {
  const folder = fresh();
  const others = ["metrics.jsonl", ".notes.tmp", "a.1.0123abcd.tmp", ".x.1.0123abcd.tmp2"];
  for (const name of [...others, ".latest.json.4711.0123abcd.tmp"]) fs.writeFileSync(path.join(folder, name), "");
  removeLeftovers(folder);
  expect(fs.readdirSync(folder).sort()).toEqual(others.sort());
});
