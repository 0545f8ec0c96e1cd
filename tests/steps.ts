// Memory and open files of a long run of very short steps, measured from outside while it goes. Linux only: it reads /proc.
// Short steps make the most of whatever a step leaves behind. Used by soak.ts and resume.test.ts.
import fs from "node:fs";
import { join } from "node:path";
import { sets, start } from "./program.ts";

export interface Flatness {
  steps: number;
  samples: number;
  /** Median resident memory of the run after its warm-up, in KiB, and the medians of the tenths of that. */
  medianKib: number;
  kib: number[];
  /** How far the highest of the tenths is above the first, in percent. One that is below is no leak: memory is given back now and then. */
  risePercent: number;
  /** The fewest open files of each tenth: one moment more, when a file is being read, is no leak. */
  handles: number[];
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

/** Runs `steps` steps; the first `warmUp` of them, a share, are not looked at: until then code is compiled and pools fill. */
export async function measureFlatness({ steps, warmUp, folder, command, more = {} }: {
  steps: number; warmUp: number; folder: string; command: string[]; more?: Record<string, string | number>;
}): Promise<Flatness> {
  const config = {
    preset: "egg.c", "data.path": "builtin:fables:64KiB", "model.hidden": 16, "model.layers": 1, "trainer.population": 2, "trainer.sequence": 2, "run.steps": steps,
    "run.eval_every": 0, "run.sample_every": 0, "run.checkpoint_every": 0, ...more,
  };
  const process = start(["-q", "--threads", "1", "--out", "runs", ...sets(config)], { cwd: folder, command });
  let over = false;
  void process.ended.then(() => (over = true));
  const seen: { step: number; kib: number; handles: number }[] = [];
  let metrics: string | undefined;
  while (!over) {
    await Bun.sleep(10);
    try {
      metrics ??= join(folder, "runs", fs.readdirSync(join(folder, "runs"))[0]!, "metrics.jsonl");
      const kib = Number(/^VmRSS:\s+(\d+) kB$/m.exec(fs.readFileSync(`/proc/${process.pid}/status`, "utf8"))?.[1]);
      seen.push({ step: lastStep(metrics), kib, handles: fs.readdirSync(`/proc/${process.pid}/fd`).length });
    } catch {
      // not begun yet, or over
    }
  }
  const { code, err } = await process.ended;
  if (code !== 0) throw new Error(`the run ended with ${code}: ${err}`);
  const looked = seen.filter(({ step, kib }) => step >= warmUp * steps && step < steps && kib > 0);
  const tenths = Array.from({ length: 10 }, (_, i) => looked.filter(({ step }) => Math.min(9, Math.floor(((step / steps - warmUp) / (1 - warmUp)) * 10)) === i));
  if (tenths.some((tenth) => tenth.length === 0)) throw new Error(`only ${looked.length} looks at the run`);
  const medianKib = median(looked.map(({ kib }) => kib));
  const parts = tenths.map((tenth) => median(tenth.map(({ kib }) => kib)));
  return {
    steps, samples: looked.length, medianKib, kib: parts, risePercent: Number(((100 * (Math.max(...parts) - parts[0]!)) / parts[0]!).toFixed(2)),
    handles: tenths.map((tenth) => Math.min(...tenth.map(({ handles }) => handles))),
  };
}

/** The step of the last whole line of a file of metrics, from its end; 0 where there is none. */
function lastStep(file: string): number {
  const descriptor = fs.openSync(file, "r");
  try {
    const size = fs.fstatSync(descriptor).size;
    const bytes = Buffer.alloc(Math.min(size, 1024));
    fs.readSync(descriptor, bytes, 0, bytes.length, size - bytes.length);
    return Number([...bytes.toString("latin1").matchAll(/^\{"step":(\d+),.*\n/gm)].at(-1)?.[1] ?? 0);
  } finally {
    fs.closeSync(descriptor);
  }
}
