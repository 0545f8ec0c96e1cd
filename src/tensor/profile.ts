// Where the time of a program's runs goes: by phase, layer and operation, and by the shape of products. Adds up times that the
// executor takes anyway when it is asked to (kernels/float/run.zig); it measures nothing itself. Read next: program.ts.
import type { InputSpecs, Operation, Program } from "./program.ts";

/** Time of one phase, layer, operation or shape over all runs. */
export interface Share {
  /** Instructions that were run. */
  calls: number;
  seconds: number;
  /** Of the time of all instructions. */
  share: number;
}

export interface Profile {
  /** Runs of steps that were added up. */
  steps: number;
  /** Seconds in instructions, on the clock. */
  seconds: number;
  phases: (Share & { phase: string })[];
  /** Layers of a phase, in the order in which they come first. */
  layers: (Share & { phase: string; layer: string })[];
  /** Operations of a layer, the longest first. */
  operations: (Share & { phase: string; layer: string; op: string })[];
  /** Matrix products by shape, the longest first, with their speed in multiplications and additions a second. */
  products: (Share & { shape: string; flops_per_second: number })[];
}

/** Adds up the times of programs' runs. */
export class Profiler {
  readonly #programs = new Map<Program<any, unknown>, { operations: Operation[]; nanoseconds: Float64Array; runs: number }>();
  /** Steps that the runs came to. */
  steps = 0;

  /** To be called after each run of `program` that was timed. */
  add<I extends InputSpecs>(program: Program<I, unknown>): void {
    let known = this.#programs.get(program);
    if (known === undefined) this.#programs.set(program, (known = { operations: program.operations(), nanoseconds: new Float64Array(program.instructions), runs: 0 }));
    const times = program.times();
    for (let i = 0; i < times.length; i++) known.nanoseconds[i]! += times[i]!;
    known.runs++;
  }

  report(): Profile {
    const all = [...this.#programs.values()].flatMap(({ operations, nanoseconds, runs }) => operations.map((operation, i) => ({ ...operation, runs, seconds: nanoseconds[i]! / 1e9 })));
    const total = all.reduce((sum, { seconds }) => sum + seconds, 0);
    const grouped = <K extends object>(keys: (each: (typeof all)[number]) => K | null): (Share & K)[] => {
      const groups = new Map<string, Share & K>();
      for (const each of all) {
        const key = keys(each);
        if (key === null) continue;
        const name = JSON.stringify(key);
        let group = groups.get(name);
        if (group === undefined) groups.set(name, (group = { ...key, calls: 0, seconds: 0, share: 0 }));
        group.calls += each.runs;
        group.seconds += each.seconds;
        group.share = total === 0 ? 0 : group.seconds / total;
      }
      return [...groups.values()];
    };
    const longestFirst = (a: Share, b: Share): number => b.seconds - a.seconds;
    const layerOf = (name: string): string => (name === "" ? "other" : name);
    return {
      steps: this.steps,
      seconds: total,
      phases: grouped(({ phase }) => ({ phase })),
      layers: grouped(({ phase, name }) => ({ phase, layer: layerOf(name) })),
      operations: grouped(({ phase, name, op }) => ({ phase, layer: layerOf(name), op })).sort(longestFirst),
      products: grouped(({ product }) => (product === undefined ? null : { shape: product }))
        .map((group) => ({ ...group, flops_per_second: group.seconds === 0 ? 0 : (2 * group.calls * product(group.shape)) / group.seconds }))
        .sort(longestFirst),
    };
  }
}

function product(shape: string): number {
  return shape.split(" x ").reduce((sum, size) => sum * Number(size), 1);
}
