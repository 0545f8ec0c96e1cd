// nano-egg, bit for bit: weights, scores, states, an update and a whole training by an independent program, replayed by the library on
// every CPU tier and 1 to 5 threads, and by the compiled program. Not the single kernels: kernels/int8/nano_test.zig checks those.
// Read next: tests/golden/nano-egg.json, reference ESHyperscale/nano-egg, run.py.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { segmentOffsets, validationRows } from "../src/data/streams.ts";
import { zThreshold } from "../src/learners/nano-egg.ts";
import { writeWeights } from "../src/models/egg.ts";
import { NativeEvaluator, NativeModel, NativeTrainer, type TrainerShape } from "../src/native/int8.ts";
import { machine, openContext, type TierName } from "../src/native/machine.ts";
import golden from "./golden/nano-egg.json";
import { freshFolder, onlyRun, readLines, readSafetensors, run, sets, sha256 } from "./program.ts";
import { weightsOf } from "./weights.ts";

setDefaultTimeout(60_000);

interface Leaf { leaf: string; sha256: string; changed?: number }
interface Epoch {
  epoch: number;
  threshold: number;
  segment: number;
  score_sum: number;
  fitness: string;
  changed: number;
  states_sha256: string;
  params_sha256: string;
  /** Only of the first epochs, of the first and the last, and where the reference validates. */
  scores?: number[];
  leaves?: Leaf[];
  validation?: { sum: number; tokens: number; rows: number[] };
}
const epochs = golden.training[0]!.epochs as Epoch[];
const training = golden.training[0]!;
const { scores } = golden;

/** The reference's leaves and what egg calls them; `{l}` stands for each layer in turn. */
const leaves: Record<string, string> = {
  "blocks.att.Uf": "layers.{l}.gru.uf.weight", "blocks.att.Uh": "layers.{l}.gru.uh.weight", "blocks.att.Wf": "layers.{l}.gru.wf.weight",
  "blocks.att.Wh": "layers.{l}.gru.wh.weight", "blocks.att.bf": "layers.{l}.gru.bf", "blocks.att.bh": "layers.{l}.gru.bh",
  "blocks.ln1": "layers.{l}.ln1.weight", "blocks.ln2": "layers.{l}.ln2.weight", "blocks.mlp.0": "layers.{l}.mlp.expand.weight",
  "blocks.mlp.1": "layers.{l}.mlp.project.weight", emb: "embedding.weight", head: "head.weight", ln_out: "ln_out.weight",
};

type Tensors = ReadonlyMap<string, { data: Uint8Array }>;

function leafBytes(tensors: Tensors, leaf: string, layers: number): Uint8Array[] {
  const name = leaves[leaf]!;
  if (!name.includes("{l}")) return [tensors.get(name)!.data];
  return Array.from({ length: layers }, (_, l) => tensors.get(name.replace("{l}", String(l)))!.data);
}

/** Hash of all leaves in the reference's order. */
function paramsHash(tensors: Tensors, layers: number): string {
  return sha256(...golden.leaf_order.flatMap((leaf) => leafBytes(tensors, leaf, layers)));
}

function corpusOf({ text, bytes, sha256: expected }: { text: string; bytes: number; sha256: string }): Uint8Array {
  const unit = new TextEncoder().encode(text);
  const corpus = Uint8Array.from({ length: bytes }, (_, i) => unit[i % unit.length]!);
  if (sha256(corpus) !== expected) throw new Error("the corpus is not the one of the golden file");
  return corpus;
}

const asSign = (a: number, b: number): string => "-0+"[Math.sign(a - b) + 1]!;

function make(tier: TierName, threads: number, { width, layers, seed }: { width: number; layers: number; seed: number }, shape: TrainerShape): { model: NativeModel; trainer: NativeTrainer } {
  const model = new NativeModel(openContext(threads, tier), { rule: "nano-egg", layers, hidden: width, vocabulary: 256 });
  model.initialize(seed);
  return { model, trainer: new NativeTrainer(model, { seed, ...shape }) };
}

/** Replays the training and compares all that the golden file knows of it. */
async function replay(tier: TierName, threads: number, panelGroups: number): Promise<void> {
  const { config, corpus, validation_corpus, layout } = training;
  const text = corpusOf(corpus);
  const heldOut = corpusOf(validation_corpus);
  const { layers, population, sequence, group_size } = config;
  const { model, trainer } = make(tier, threads, config, {
    pairs: population / 2, sequence, pairs_per_stream: group_size / 2, sigma_shift: config.sigma_shift, panel_groups: panelGroups,
  });
  expect(paramsHash(weightsOf(model), layers)).toBe(training.init.all_leaves_sha256);
  for (const expected of epochs) {
    const { epoch } = expected;
    const offsets = segmentOffsets(text.length, layout.sequences, sequence, epoch);
    expect(offsets[1]! - offsets[0]!).toBe(layout.row_bytes);
    expect(offsets[0]).toBe(expected.segment * sequence);
    const batch = new Uint8Array(layout.sequences * (sequence + 1));
    offsets.forEach((offset, s) => batch.set(text.subarray(offset, offset + sequence + 1), s * (sequence + 1)));
    const threshold = zThreshold(config.alpha, config.alpha_decay_timestep, epoch);
    const before = weightsOf(model);
    const result = (await trainer.step(batch, { seed: epoch, threshold }))!;
    const losses = [...trainer.losses()];
    const after = weightsOf(model);
    expect({
      epoch, threshold, sum: -result.loss_sum, changed: result.changed, states: sha256(trainer.readStates(0, population)), params: paramsHash(after, layers),
      fitness: Array.from({ length: population / 2 }, (_, p) => asSign(losses[2 * p + 1]!, losses[2 * p]!)).join(""),
    }).toEqual({
      epoch, threshold: expected.threshold, sum: expected.score_sum, changed: expected.changed, states: expected.states_sha256, params: expected.params_sha256,
      fitness: expected.fitness,
    });
    if (expected.scores !== undefined) expect(losses.map((loss) => -loss)).toEqual(expected.scores);
    for (const { leaf, sha256: hash, changed } of expected.leaves ?? []) {
      const [now, then] = [after, before].map((tensors) => Buffer.concat(leafBytes(tensors, leaf, layers)));
      expect({ leaf, hash: sha256(now!), changed: now!.reduce((sum, byte, i) => sum + Number(byte !== then![i]), 0) }).toEqual({ leaf, hash, changed: changed! });
    }
    if (expected.validation !== undefined) {
      const rows = validationRows(heldOut.length, config.validation_lanes)!;
      expect({ tokens: rows.predicted, row: rows.length + 1 }).toEqual({ tokens: expected.validation.tokens, row: layout.validation_row_bytes });
      const each = new NativeEvaluator(model, 1, rows.length);
      const all = new NativeEvaluator(model, config.validation_lanes, rows.length);
      const window = new Uint8Array(config.validation_lanes * (rows.length + 1));
      rows.offsets.forEach((offset, i) => window.set(heldOut.subarray(offset, offset + rows.length + 1), i * (rows.length + 1)));
      expect((await all.evaluate(window, rows.length))!.loss_sum).toBe(-expected.validation.sum);
      for (const [i, row] of expected.validation.rows.entries()) {
        each.writeStates(new Uint8Array(model.stateBytes));
        expect((await each.evaluate(window.subarray(i * (rows.length + 1), (i + 1) * (rows.length + 1)), rows.length))!.loss_sum).toBe(-row);
      }
      each.release();
      all.release();
    }
  }
  trainer.release();
  model.release();
}

const tiers = machine().tiers.filter((tier) => tier.available).map((tier) => tier.name);

describe.each(tiers)("the library, %s", (tier) => {
  test.each(golden.init)("initial weights $config", ({ config, parameters, leaves: expected, all_leaves_sha256 }) => {
    const { seed, width, layers } = config;
    const model = new NativeModel(openContext(1, tier), { rule: "nano-egg", layers, hidden: width, vocabulary: 256 });
    model.initialize(seed);
    const tensors = weightsOf(model);
    expect([...tensors.values()].reduce((sum, { data }) => sum + data.length, 0)).toBe(parameters);
    for (const { leaf, sha256: hash, first_6 } of expected) {
      const bytes = Buffer.concat(leafBytes(tensors, leaf, layers));
      expect({ leaf, hash: sha256(bytes), first: [...new Int8Array(bytes.subarray(0, 6))] }).toEqual({ leaf, hash, first: first_6 });
    }
    expect(paramsHash(tensors, layers)).toBe(all_leaves_sha256);
    model.release();
  });

  test("scores of two epochs, of clean weights, and an update", async () => {
    const { config, corpus, thread_start_stride: stride } = scores;
    const { layers, threads: members, sequence } = config;
    const text = corpusOf(corpus);
    const { model, trainer } = make(tier, 2, config, { pairs: members / 2, sequence, sigma_shift: config.sigma_shift });
    const untouched = weightsOf(model);
    expect(paramsHash(untouched, layers)).toBe(scores.params_sha256);
    const batch = new Uint8Array((members / 2) * (sequence + 1));
    for (let p = 0; p < members / 2; p++) batch.set(text.subarray(p * stride, p * stride + sequence + 1), p * (sequence + 1));

    const clean = new NativeEvaluator(model, members / 2, sequence);
    const one = new NativeEvaluator(model, 1, sequence);
    await clean.evaluate(batch, sequence);
    const states = clean.readStates();
    const ofPairs = Array.from({ length: members / 2 }, (_, p) => states.subarray(p * model.stateBytes, (p + 1) * model.stateBytes));
    expect(sha256(...ofPairs.flatMap((state) => [state, state]))).toBe(scores.clean.states_sha256); // one for each member
    const row = sequence + 1;
    const alone: number[] = [];
    for (let p = 0; p < members / 2; p++) {
      one.writeStates(new Uint8Array(model.stateBytes));
      alone.push(-(await one.evaluate(batch.subarray(p * row, (p + 1) * row), sequence))!.loss_sum);
    }
    expect(alone).toEqual(scores.clean.pair_scores);

    const { update } = scores;
    // A threshold that holds every weight still: two epochs on the same weights.
    for (const each of [scores.first, scores.second]) {
      await trainer.step(batch, { seed: each.epoch, threshold: 1_000_000 });
      expect(Array.from(trainer.losses(), (loss) => -loss)).toEqual(each.scores);
      expect(sha256(trainer.readStates(0, members))).toBe(each.states_sha256);
    }
    expect(paramsHash(weightsOf(model), layers)).toBe(scores.params_sha256);

    trainer.writeStates(0, new Uint8Array(members * model.stateBytes));
    await trainer.step(batch, { seed: update.epoch, threshold: update.threshold });
    const updated = weightsOf(model);
    for (const { leaf, sha256: hash, changed } of update.leaves) {
      const [now, then] = [updated, untouched].map((tensors) => Buffer.concat(leafBytes(tensors, leaf, layers)));
      expect({ leaf, hash: sha256(now!), changed: now!.reduce((sum, byte, i) => sum + Number(byte !== then![i]), 0) }).toEqual({ leaf, hash, changed });
    }
    expect(paramsHash(updated, layers)).toBe(update.all_leaves_sha256);
    for (const object of [trainer, clean, one, model]) object.release();
  });

  test.each(tier === "scalar" ? [1, 2, 3] : [1, 2, 3, 4, 5])("the training, %d threads", (threads) => replay(tier, threads, threads % 4));
});

test("thresholds of every schedule", () => {
  for (const { alpha, alpha_decay_timestep, epochs: last, runs } of golden.thresholds as { alpha: number; alpha_decay_timestep: number; epochs: number; runs: [number, number][] }[]) {
    const found: [number, number][] = [];
    for (let epoch = 0; epoch < last; epoch++) {
      const threshold = zThreshold(alpha, alpha_decay_timestep, epoch);
      if (found.at(-1)?.[1] !== threshold) found.push([epoch, threshold]);
    }
    expect(found).toEqual(runs);
  }
});

describe("the program", () => {
  test.each(tiers)("the training, %s", (tier) => {
    const { config, corpus } = training;
    const folder = freshFolder("nano");
    writeFileSync(join(folder, "text"), corpusOf(corpus));
    const { code, err } = run(
      ["--quiet", ...sets({
        preset: "nano-egg", "data.path": "text", "data.validation": 0, "model.hidden": config.width, "model.layers": config.layers, "trainer.population": config.population,
        "trainer.sequence": config.sequence, "trainer.group_size": config.group_size, "run.steps": config.epochs, "run.sample_every": 7, "run.checkpoint_every": 1,
        "run.keep": 100,
      })],
      { cwd: folder, env: { EGG_CPU: tier } },
    );
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const lines = readLines(onlyRun(join(folder, "runs")));
    for (const expected of epochs) {
      const line = lines[expected.epoch];
      const { tensors } = readSafetensors(join(onlyRun(join(folder, "runs")), `checkpoints/step-${String(expected.epoch + 1).padStart(8, "0")}.safetensors`));
      expect({
        step: line.step, params: paramsHash(tensors, config.layers), states: sha256(tensors.get("state.members")!.data), plus: line.fitness_plus, minus: line.fitness_minus,
        changed: Math.round(line.updated_fraction * 131_648), loss: Math.round(line.train_bits_per_byte * 16 * config.population * config.sequence),
      }).toEqual({
        step: expected.epoch + 1, params: expected.params_sha256, states: expected.states_sha256, plus: expected.fitness.split("+").length - 1,
        minus: expected.fitness.split("-").length - 1, changed: expect.closeTo(expected.changed, -1), loss: expect.closeTo(-expected.score_sum, -1),
      });
    }
  }, 60_000);
});

describe("a run of the preset", () => {
  const cwd = freshFolder("nano-run");
  const unit = "\0A walnut fell from the cart, and a crow that had waited on the roof came down to eat it alone. ";
  writeFileSync(join(cwd, "text"), unit.repeat(400));
  const config = sets({
    preset: "nano-egg", "data.path": "text", "model.hidden": 48, "model.layers": 2, "trainer.population": 48, "trainer.group_size": 4, "trainer.sequence": 12, "run.steps": 14,
    "run.eval_every": 7, "run.sample_every": 7, "run.sample_tokens": 20, "run.checkpoint_every": 1, "run.keep": 100, "run.seed": 9, "device.threads": 2,
  });
  const ended = run(["-q", "--json", ...config], { cwd });
  const folder = onlyRun(join(cwd, "runs"));
  const timeless = (lines: any[]): any[] => lines.map(({ seconds, member_tokens_per_second, ...rest }) => rest);
  const lines = timeless(readLines(folder));
  const last = readSafetensors(join(folder, "checkpoints/step-00000014.safetensors"));

  test("counts its streams and its weights, and names what it is", () => {
    expect({ code: ended.code, err: ended.err }).toEqual({ code: 0, err: "" });
    expect(lines.length).toBe(14);
    expect(folder).toContain("nano-egg-");
    expect(lines[13].data_tokens).toBe(14 * 12 * 12); // 48 members, 4 to a stream
    expect(lines[0].updated_fraction).toBe(1); // threshold 0 moves every weight
    expect([...last.tensors.keys()].filter((name) => name.startsWith("state."))).toEqual(["state.members"]);
    expect(JSON.parse(last.metadata["config"]!).trainer).toEqual({
      type: "eggroll-int8", rule: "nano-egg", population: 48, sequence: 12, sigma_shift: 4, alpha: 4, alpha_decay_timestep: 1000, group_size: 4, use_clt: true, noise_reuse: 1,
      num_perturbations: 0,
    });
  });

  test("goes on from any checkpoint, bit for bit", () => {
    const { weights_sha256 } = JSON.parse(ended.out);
    for (const step of [1, 6, 13]) {
      rmSync(join(folder, "summary.json"));
      for (let later = step + 1; later <= 14; later++) rmSync(join(folder, `checkpoints/step-${String(later).padStart(8, "0")}.safetensors`), { force: true });
      const again = run(["-q", "--json", ...config, "--threads", String(step % 4 + 1)], { cwd });
      expect({ code: again.code, err: again.err, weights: JSON.parse(again.out).weights_sha256 }).toEqual({ code: 0, err: "", weights: weights_sha256 });
      expect(timeless(readLines(folder))).toEqual(lines);
      const { tensors } = readSafetensors(join(folder, "checkpoints/step-00000014.safetensors"));
      expect(sha256(tensors.get("state.members")!.data)).toBe(sha256(last.tensors.get("state.members")!.data));
    }
  });

  test("evaluates in exact bits and, in 1024 rows, as the reference does", async () => {
    const heldOut = Buffer.from(unit.repeat(400)).subarray(-Math.floor(unit.length * 400 * 0.1));
    const model = new NativeModel(openContext(2), { rule: "nano-egg", layers: 2, hidden: 48, vocabulary: 256 });
    writeWeights(model, last.tensors as unknown as Parameters<typeof writeWeights>[1]);
    const rows = validationRows(heldOut.length, 1024)!;
    const window = new Uint8Array(1024 * (rows.length + 1));
    rows.offsets.forEach((offset, i) => window.set(heldOut.subarray(offset, offset + rows.length + 1), i * (rows.length + 1)));
    const evaluator = new NativeEvaluator(model, 1024, rows.length);
    const { loss_sum } = (await evaluator.evaluate(window, rows.length))!;
    expect(lines[13].loss_integer).toBeCloseTo(loss_sum / 16 / rows.predicted, 6);
    expect(lines.flatMap(({ step, loss_integer }) => (loss_integer === undefined ? [] : [step]))).toEqual([7, 14]);
    evaluator.release();
    model.release();
    const { code, out } = run(["eval", folder, "--json"], { cwd });
    expect(code).toBe(0);
    expect(JSON.parse(out).bits_per_byte).toBeCloseTo(lines[13].val_bits_per_byte, 6);
    expect(JSON.parse(out).loss_integer).toBeWithin(JSON.parse(out).bits_per_byte - 0.1, JSON.parse(out).bits_per_byte);
  });

  test("writes text, the same for the same seed and on every tier", () => {
    const texts = tiers.flatMap((tier) => [1, 1].map((seed) => run(["generate", folder, "--prompt", "A walnut", "--tokens", "40", "--seed", String(seed)], { cwd, env: { EGG_CPU: tier } })));
    expect(texts.every(({ code }) => code === 0)).toBe(true);
    expect(new Set(texts.map(({ out }) => out)).size).toBe(1);
    expect(texts[0]!.out.length).toBeGreaterThan(8);
    expect(run(["generate", folder, "--prompt", "A walnut", "--tokens", "40", "--seed", "2"], { cwd }).out).not.toBe(texts[0]!.out);
  });

  test("is measured by egg bench step", () => {
    const { code, out } = run(["bench", "step", ...config, "--seconds", "0.05", "--json"], { cwd });
    expect(code).toBe(0);
    expect(JSON.parse(out).step.config.trainer.rule).toBe("nano-egg");
    expect(JSON.parse(out).step.data_tokens_per_second / JSON.parse(out).step.steps_per_second).toBeCloseTo(12 * 12, 3);
  });

  test("needs a text with a part for every stream", () => {
    const { code, err } = run(["-q", ...config, "--set", "trainer.sequence=3000"], { cwd });
    expect(code).toBe(3);
    expect(err).toContain("12 sequences of 3,000 bytes, each with its last target needs 36,012 bytes, found");
  });
});
