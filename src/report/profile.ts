// Where the time of training went, for people: phases, layers, operations, shapes of products. Not the measuring:
// src/tensor/profile.ts. Read next: terminal.ts, which prints it.
import type { Profile, Share } from "../tensor/profile.ts";
import { formatCount } from "./progress.ts";
import type { Colors } from "./terminal.ts";

/** Rows of each table at most; profile.json has them all. */
const rows_max = 15;

/** Tables for stderr; ends with a newline. */
export function profileTable(profile: Profile, colors: Colors): string {
  const { steps, seconds, phases, layers, operations, products } = profile;
  const perStep = (time: number): string => `${((1000 * time) / Math.max(1, steps)).toFixed(2)} ms`;
  const cells = ({ calls, seconds: time, share }: Share): string[] => [`${calls / Math.max(1, steps)}`, perStep(time), `${(100 * share).toFixed(1)} %`];
  const section = <T extends Share>(title: string, all: readonly T[], name: (each: T) => string, more: (each: T) => string = () => ""): string => {
    const shown = all.slice(0, rows_max).map((each) => [name(each), ...cells(each), more(each)]);
    const width = (column: number): number => Math.max(...shown.map((row) => row[column]!.length));
    const lines = shown.map((row) => `  ${row[0]!.padEnd(width(0))}  ${[1, 2, 3, 4].map((column) => row[column]!.padStart(width(column))).join("  ")}`.trimEnd());
    return [colors.bold(title), ...lines, ...(all.length > rows_max ? [colors.dim(`  and ${all.length - rows_max} more in profile.json`)] : [])].join("\n");
  };
  const parts = [
    colors.bold(`Profile of ${steps.toLocaleString("en")} ${steps === 1 ? "step" : "steps"}, ${perStep(seconds)} a step in operations (calls a step, time, share)`),
    section("phases", phases, ({ phase }) => phase),
    section("layers", layers, ({ phase, layer }) => `${phase} > ${layer}`),
    section("operations", operations, ({ phase, layer, op }) => `${phase} > ${layer} > ${op}`),
    section("matrix products (m x n x k)", products, ({ shape }) => shape, ({ flops_per_second }) => `${formatCount(flops_per_second)}FLOP/s`),
  ];
  return `${parts.join("\n\n")}\n`;
}
