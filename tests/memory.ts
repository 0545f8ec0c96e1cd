// The planned peak of memory beside the measured one, for a shape. Not a test by itself: memory.test.ts takes a few shapes, soak.ts walks
// many. Next: src/run/memory.ts.
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run, sets } from "./program.ts";

export interface MemoryShape {
  /** Of preset gpt-nano, or llama-tiny by bytes. */
  backprop?: { preset: "gpt-nano" | "llama-tiny"; width: number; block: number; batch: number; accumulation: number };
  /** Of preset egg.c; of the default one with "order" and "table_bits" in their place. */
  hidden?: number;
  layers?: number;
  order?: number;
  table_bits?: number;
  population?: number;
  sequence?: number;
  /** "file" is a text of 64 KiB; anything else a data.path. */
  data: string;
  steps: number;
}

export interface MemoryFigures {
  shape: MemoryShape;
  /** In MiB. */
  planned: number;
  measured: number;
  ratio: number;
}

const MiB = 2 ** 20;

/** One run of the shape in `folder`, and --dry-run before it. */
export function measureMemory(shape: MemoryShape, folder: string, command: string[]): MemoryFigures {
  if (shape.data === "file") writeFileSync(join(folder, "text.txt"), "the quick brown fox jumps over the lazy dog\n".repeat(1490));
  const often = Math.max(1, shape.steps >> 1);
  const { backprop } = shape;
  const config = sets({
    ...(backprop !== undefined ? { preset: backprop.preset, "data.tokenizer": "bytes", "model.width": backprop.width, "model.block": backprop.block, "trainer.batch": backprop.batch, "trainer.accumulation": backprop.accumulation }
      : { "trainer.population": shape.population!, "trainer.sequence": shape.sequence! }),
    ...(backprop !== undefined ? {} : shape.hidden === undefined ? { preset: "egg", "model.order": shape.order!, "model.table_bits": shape.table_bits! } : { preset: "egg.c", "model.hidden": shape.hidden, "model.layers": shape.layers! }),
    "data.path": shape.data === "file" ? "text.txt" : shape.data, "run.steps": shape.steps, "run.eval_every": often, "run.checkpoint_every": often, "run.sample_every": shape.steps, "run.sample_tokens": 16,
  });
  const start = { cwd: folder, command };
  const plan = run(["--dry-run", "--json", "--quiet", ...config], start);
  const ended = run(["--json", "--quiet", ...config], start);
  if (plan.code !== 0 || ended.code !== 0) throw new Error(`${JSON.stringify(shape)}: ${plan.err}${ended.err}`);
  rmSync(join(folder, "runs"), { recursive: true });
  const [planned, measured] = [JSON.parse(plan.out).planned_peak_bytes, JSON.parse(ended.out).peak_rss_bytes];
  const round = (value: number, digits: number): number => Number(value.toFixed(digits));
  return { shape, planned: round(planned / MiB, 1), measured: round(measured / MiB, 1), ratio: round(planned / measured, 3) };
}

/** Shapes of all models, from hidden 16 to 1024 and order 2 to 6, population 2 to 65536, sequence 16 to 1024, small and large texts; none takes minutes. */
export function memoryShapes(): MemoryShape[] {
  const shapes: MemoryShape[] = [];
  for (const [hidden, layers] of [[16, 1], [128, 4], [256, 6], [512, 4], [1024, 4]] as const) {
    for (const population of [2, 128, 4096, 65_536]) {
      for (const sequence of [16, 256, 1024]) {
        const work = 12 * hidden ** 2 * layers * population * sequence;
        if (work > 1.5e11) continue;
        const data = ["builtin:fables:2MiB", "file", "builtin:fables:64KiB", "builtin:fables:32MiB"][shapes.length % 4]!;
        shapes.push({ hidden, layers, population, sequence, data, steps: work > 2e10 ? 4 : 20 });
      }
    }
  }
  for (const steps of [100, 300, 1000, 3000]) {
    for (const data of ["builtin:fables:2MiB", "file"]) shapes.push({ hidden: 128, layers: 2, population: 32, sequence: 16, data, steps });
  }
  for (const preset of ["gpt-nano", "llama-tiny"] as const) {
    for (const [width, block, batch, accumulation] of [[32, 16, 4, 1], [128, 64, 12, 1], [256, 128, 4, 3], [512, 256, 2, 1]] as const) {
      for (const steps of [20, 300]) if (steps * width ** 2 * block * batch < 3e10) shapes.push({ backprop: { preset, width, block, batch, accumulation }, data: steps === 20 ? "file" : "builtin:fables:2MiB", steps });
    }
  }
  for (const [order, table_bits] of [[2, 16], [4, 12], [6, 16]] as const) {
    for (const steps of [300, 3000]) shapes.push({ order, table_bits, population: 4096, sequence: 16, data: "builtin:fables:2MiB", steps });
  }
  return shapes;
}
