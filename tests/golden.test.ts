// egg.c, bit for bit: three whole trainings by an independent program, replayed by the library on every CPU tier, thread
// count and panel width, and by the compiled program. Not the single kernels: kernels/int8/golden_test.zig checks those.
// Read next: tests/golden/egg-c.json, reference d0rc/egg.c, full_trained_egg.c.
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stepSeed } from "../src/learners/egg-c.ts";
import { pairOffsets, referenceEvaluationStart } from "../src/data/streams.ts";
import { NativeEvaluator, NativeModel, NativeTrainer } from "../src/native/int8.ts";
import { machine, openContext, type TierName } from "../src/native/machine.ts";
import golden from "./golden/egg-c.json";
import { freshFolder, onlyRun, readLines, readSafetensors, root, run, sets, sha256 } from "./program.ts";
import { weightsOf } from "./weights.ts";

interface GoldenStep {
  step: number;
  step_seed: string;
  stream_starts: number[];
  fitness: string;
  weights_changed: number;
  weights_sha256: string;
  states_sha256: string;
  /** Only at every tenth step. */
  eval_start?: number;
  eval_loss_raw?: number;
  eval_state_sha256?: string;
  /** Only at the first steps. */
  loss_plus?: number[];
  loss_minus?: number[];
}
interface GoldenCase {
  name: string;
  config: { hidden: number; layers: number; sequence: number; population: number; threshold: number; time_seed: number; vocab: number };
  init: { bytes: number; sha256: string };
  corpus: { text: string; bytes: number; sha256: string };
  steps: GoldenStep[];
}
const cases = golden.cases as unknown as GoldenCase[];

/** `mode` of a trainer that runs its members by rows, not in panels. */
const byRows = 2;

/** Tensor names in the order of egg.c's model struct. */
function structOrder(layers: number): string[] {
  const all = Array.from({ length: layers }, (_, l) => `layers.${l}`);
  return [
    "embedding.weight",
    ...all.flatMap((layer) => ["wf", "uf", "wh", "uh"].map((gate) => `${layer}.gru.${gate}.weight`)),
    ...all.flatMap((layer) => [`${layer}.gru.bf`, `${layer}.gru.bh`]),
    ...all.flatMap((layer) => [`${layer}.mlp.expand.weight`, `${layer}.mlp.project.weight`]),
    "head.weight",
    ...all.flatMap((layer) => [`${layer}.ln1.weight`, `${layer}.ln2.weight`]),
    "ln_out.weight",
  ];
}

function corpusOf({ corpus }: GoldenCase): Uint8Array {
  const text = new TextEncoder().encode(corpus.text);
  const bytes = Uint8Array.from({ length: corpus.bytes }, (_, i) => text[i % text.length]!);
  if (sha256(bytes) !== corpus.sha256) throw new Error("the corpus is not the one of the golden file");
  return bytes;
}

/** Replays the first `steps` of a case and compares all that the golden file knows of them. */
async function replay(golden: GoldenCase, steps: number, tier: TierName, threads: number, panelGroups: number, mode = 0): Promise<void> {
  const { hidden, layers, sequence, population, threshold, time_seed, vocab } = golden.config;
  const pairs = population / 2;
  const text = corpusOf(golden);
  const model = new NativeModel(openContext(threads, tier), { rule: "egg.c", hidden, layers, vocabulary: vocab });
  const trainer = new NativeTrainer(model, { pairs, sequence, sigma_shift: 4, panel_groups: panelGroups, mode });
  const evaluator = new NativeEvaluator(model, 1, sequence);
  const weights = () => {
    const tensors = weightsOf(model);
    return sha256(...structOrder(layers).map((name) => tensors.get(name)!.data));
  };
  model.initialize(time_seed);
  expect(weights()).toBe(golden.init.sha256);

  for (const expected of golden.steps.slice(0, steps)) {
    const { step } = expected;
    if (expected.eval_start !== undefined) {
      const start = referenceEvaluationStart(text.length, sequence, step);
      const result = await evaluator.evaluate(text.slice(start, start + sequence + 1), sequence);
      expect({ step, start, loss: result!.loss_sum, state: sha256(evaluator.readStates()) }).toEqual({
        step, start: expected.eval_start, loss: expected.eval_loss_raw!, state: expected.eval_state_sha256!,
      });
    }
    const offsets = pairOffsets(text.length, pairs, sequence, step);
    const batch = new Uint8Array(pairs * (sequence + 1));
    offsets.forEach((offset, p) => batch.set(text.subarray(offset, offset + sequence + 1), p * (sequence + 1)));
    const seed = stepSeed(time_seed, step);
    const result = await trainer.step(batch, { seed, threshold });
    const losses = trainer.losses();
    const [plus, minus] = [losses.filter((_, i) => i % 2 === 0), losses.filter((_, i) => i % 2 === 1)];
    const fitness = Array.from(plus, (loss, p) => "-0+"[Math.sign(minus[p]! - loss) + 1]).join("");
    expect({
      step, seed: seed.toString(16).padStart(8, "0"), offsets: [...offsets], fitness, plus: result!.plus, minus: result!.minus, changed: result!.changed,
      weights: weights(), states: sha256(trainer.readStates(0, population)),
    }).toEqual({
      step, seed: expected.step_seed, offsets: expected.stream_starts, fitness: expected.fitness, plus: expected.fitness.split("+").length - 1,
      minus: expected.fitness.split("-").length - 1, changed: expected.weights_changed, weights: expected.weights_sha256, states: expected.states_sha256,
    });
    if (expected.loss_plus !== undefined) expect({ plus: [...plus], minus: [...minus] }).toEqual({ plus: expected.loss_plus, minus: expected.loss_minus! });
    expect(result!.loss_sum).toBe(losses.reduce((sum, loss) => sum + loss, 0));
  }
  for (const object of [trainer, evaluator, model]) object.release();
}

describe.each(machine().tiers.filter((tier) => tier.available).map((tier) => tier.name))("the library, %s", (tier) => {
  // The scalar kernels are slow: one panel width for each count of threads.
  if (tier === "scalar") test.each(cases.flatMap((one) => [1, 2, 3].map((threads) => [one.name, threads, one] as const)))("%s, %d threads", (_, threads, one) => replay(one, 21, tier, threads, threads - 1), 120_000);
  else {
    for (const one of cases) {
      for (const threads of [1, 2, 3]) {
        if (threads === 2) test(`${one.name}, ${threads} threads, by rows`, () => replay(one, 21, tier, threads, 0, byRows), 20_000);
        for (const groups of [0, 1, 2, 3, 4]) test(`${one.name}, ${threads} threads, panel groups ${groups}`, () => replay(one, 21, tier, threads, groups));
      }
    }
  }
});

describe("the program", () => {
  const tiers = machine().tiers.filter((tier) => tier.available).map((tier) => tier.name);
  test.each(cases.flatMap((one) => tiers.map((tier) => [one.name, tier, one] as const)))("%s, %s", (_, tier, one) => {
    const { hidden, layers, sequence, population, threshold, time_seed } = one.config;
    const folder = freshFolder("golden");
    writeFileSync(join(folder, "text"), corpusOf(one));
    const steps = one.steps.length;
    const { code, err } = run(
      ["--quiet", ...sets({
        preset: "egg.c", "data.path": "text", "data.validation": 0, "model.hidden": hidden, "model.layers": layers, "trainer.population": population, "trainer.sequence": sequence,
        "trainer.threshold": threshold, "run.seed": time_seed, "run.steps": steps, "run.eval_every": 1, "run.sample_every": 7, "run.checkpoint_every": 1,
        "run.keep": 100, "run.fingerprint_every": 1,
      })],
      { cwd: folder, env: { EGG_CPU: tier } },
    );
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const lines = readLines(onlyRun(join(folder, "runs")));
    expect(lines.length).toBe(steps);
    for (const expected of one.steps) {
      const line = lines[expected.step];
      const { tensors } = readSafetensors(join(onlyRun(join(folder, "runs")), `checkpoints/step-${String(expected.step + 1).padStart(8, "0")}.safetensors`));
      const weights = [...tensors].filter(([name]) => !name.startsWith("state."));
      expect({
        step: line.step, weights: sha256(...structOrder(layers).map((name) => tensors.get(name)!.data)), states: sha256(tensors.get("state.members")!.data),
        plus: line.fitness_plus, minus: line.fitness_minus,
        fingerprint: line.weights_sha256, changed: Math.round(line.updated_fraction * (12 * layers * hidden ** 2 + 256 * hidden)),
      }).toEqual({
        step: expected.step + 1, weights: expected.weights_sha256, states: expected.states_sha256,
        plus: expected.fitness.split("+").length - 1, minus: expected.fitness.split("-").length - 1,
        fingerprint: sha256(...weights.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, tensor]) => tensor.data)), changed: expect.closeTo(expected.weights_changed, -1),
      });
      if (expected.eval_loss_raw === undefined) expect(line.loss_integer).toBeUndefined();
      else {
        expect(line.loss_integer).toBeCloseTo(expected.eval_loss_raw / 16 / sequence, 6);
        expect(Math.round(line.loss_integer * 16 * sequence)).toBe(expected.eval_loss_raw);
        expect(sha256(tensors.get("state.reference")!.data)).toBe(expected.eval_state_sha256!);
      }
      if (expected.loss_plus !== undefined) {
        const mean = [...expected.loss_plus, ...expected.loss_minus!].reduce((sum, loss) => sum + loss, 0) / (16 * sequence * population);
        expect(line.train_bits_per_byte).toBeCloseTo(mean, 6);
      }
    }
  }, 60_000);
});

test("the golden file is the one that belongs to the three cases", () => {
  expect(cases.map(({ name }) => name)).toEqual(["fox-h64-l2-t64-p64", "hens-h128-l1-t48-p32", "odd-h64-l3-t37-p6"]);
  expect(JSON.parse(readFileSync(join(root, "tests/golden/egg-c.json"), "utf8")).preset).toBe("egg.c");
  // Every case evaluates at steps 0, 10 and 20, and trains 21 steps: none may be skipped silently.
  for (const { steps } of cases) expect(steps.flatMap(({ step, eval_start }) => (eval_start === undefined ? [] : [step]))).toEqual([0, 10, 20]);
  for (const { steps } of cases) expect(steps.length).toBe(21);
});
