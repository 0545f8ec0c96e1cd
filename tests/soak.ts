// The long versions of tests, one command each: `bun tests/soak.ts kill 10000`. Each prints its figures, or fails.
// Not part of the suite, which runs a short version of each. Read next: kill.ts, resume.ts, steps.ts.
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { damageRuns } from "./bits.ts";
import { fuzz, seedsOf } from "./fuzz.ts";
import { targets } from "./fuzz-targets.ts";
import { killTrials } from "./kill.ts";
import { measureMemory, memoryShapes } from "./memory.ts";
import { egg } from "./program.ts";
import { resumeCases } from "./resume.ts";
import { measureFlatness } from "./steps.ts";
import { sweep } from "./sweep.ts";

/** A folder for the runs, with a copy of ./egg of its own: a new build must not get into the midst. */
function workplace(): { folder: string; command: string[]; done(): void } {
  const folder = fs.mkdtempSync(join(tmpdir(), "egg-soak-"));
  const copy = join(folder, "egg");
  fs.copyFileSync(egg, copy);
  return { folder, command: [copy], done: () => fs.rmSync(folder, { recursive: true }) };
}

let shownAt = performance.now();
function show(text: string): void {
  if (performance.now() - shownAt < 10_000) return;
  shownAt = performance.now();
  console.error(text);
}

const commands: Record<string, { help: string; run(count: number): Promise<object> }> = {
  kill: { help: "kill -9 at N random moments", run: (count) => trials("kill", count) },
  resume: { help: "resume at N random steps of random runs, bit for bit", run: (count) => cases(count) },
  steps: { help: "memory and open files over N steps", run: (count) => flatness(count) },
  bits: { help: "every bit and every length of a checkpoint, in N runs", run: (count) => damages(count) },
  ...Object.fromEntries(Object.keys(targets).map((name) => [`fuzz ${name}`, { help: "that parser with N inputs", run: (count: number) => inputs(name, count) }])),
  sweep: { help: "shell loops over N runs, four at once, killed and interrupted N times", run: (count) => sweeps(count) },
  memory: { help: "planned and measured peak of memory over many shapes, N times each", run: (count) => memory(count) },
  signals: { help: "SIGINT, SIGTERM and second signals at N random moments", run: (count) => trials("signals", count) },
};

async function sweeps(runs: number): Promise<object> {
  const { folder, command, done } = workplace();
  const figures = await sweep({ seeds: Math.ceil(runs / 8), shifts: 8, loops: 4, disturbances: runs, folder, egg: command[0]!, seed: Math.floor(Math.random() * 1e9), progress: show });
  done();
  if (figures.duplicates + figures.lost + figures.corrupt + figures.changed > 0) throw new Error(JSON.stringify(figures));
  return figures;
}

/** N times over all shapes; the shape's median counts. */
async function memory(rounds: number): Promise<object> {
  const { folder, command, done } = workplace();
  const medians = memoryShapes().map((shape) => {
    const all = Array.from({ length: rounds }, () => measureMemory(shape, folder, command)).sort((a, b) => a.ratio - b.ratio);
    const middle = all[all.length >> 1]!;
    const { hidden, layers, order, table_bits, population, sequence, data, steps } = shape;
    const size = hidden === undefined ? `order ${order}, table_bits ${table_bits}` : `hidden ${hidden} x ${layers}`;
    console.error(`${middle.ratio.toFixed(3)}  planned ${middle.planned} MiB, measured ${middle.measured} MiB  ${size}, population ${population}, sequence ${sequence}, ${steps} steps, ${data}`);
    return middle.ratio;
  });
  done();
  return { shapes: medians.length, lowest: Math.min(...medians), highest: Math.max(...medians), within5Percent: medians.filter((ratio) => Math.abs(ratio - 1) <= 0.05).length };
}

async function trials(kind: "kill" | "signals", count: number): Promise<object> {
  const { folder, command, done } = workplace();
  const seed = Math.floor(Math.random() * 1e9);
  const figures = await killTrials({ kind, count, folder, command, seed, progress: ({ kills, runs }) => show(`${kills.toLocaleString("en")} of ${count.toLocaleString("en")} in ${runs} runs`) });
  done();
  return { seed, ...figures };
}

async function damages(runs: number): Promise<object> {
  const { folder, command, done } = workplace();
  const figures = damageRuns({ runs, folder, command, progress: (checkpoints) => show(`${checkpoints} of ${runs}`) });
  done();
  return figures;
}

async function inputs(name: string, count: number): Promise<object> {
  const seed = Math.floor(Math.random() * 1e9);
  return fuzz(targets[name]!, seedsOf(name).map(({ bytes }) => bytes), count, seed, (done) => show(`${done.toLocaleString("en")} of ${count.toLocaleString("en")}`));
}

async function cases(count: number): Promise<object> {
  const { folder, command, done } = workplace();
  const seed = Math.floor(Math.random() * 1e9);
  const figures = await resumeCases({ count, folder, command, seed, progress: ({ cases }) => show(`${cases} of ${count}`) });
  done();
  return { seed, ...figures };
}

/** Bare steps, and steps with evaluations, samples and checkpoints among them; three times as many before, until the runtime has compiled all that it will. */
async function flatness(steps: number): Promise<object> {
  const { folder, command, done } = workplace();
  const often = Math.max(1, Math.floor(steps / 200));
  const places = ["bare", "busy"].map((name) => join(folder, name));
  for (const place of places) fs.mkdirSync(place);
  const bare = await measureFlatness({ steps: 4 * steps, warmUp: 0.75, folder: places[0]!, command });
  const busy = await measureFlatness({ steps: 4 * steps, warmUp: 0.75, folder: places[1]!, command, more: { "run.eval_every": often, "run.sample_every": often, "run.checkpoint_every": often } });
  done();
  if (bare.risePercent > 1) throw new Error(`memory rises by more than 1 percent over bare steps: ${JSON.stringify(bare)}`);
  for (const { handles } of [bare, busy]) if (new Set(handles).size > 1) throw new Error(`open files: ${handles.join(", ")}`);
  return { bare, busy };
}

const number = process.argv.at(-1)!;
const name = process.argv.slice(2, -1).join(" ");
const command = commands[name];
if (command === undefined || !/^[1-9]\d*$/.test(number)) {
  console.error(`usage: bun tests/soak.ts COMMAND N\n${Object.entries(commands).map(([each, { help }]) => `  ${each.padEnd(16)} ${help}`).join("\n")}`);
  process.exit(2);
}
const begun = performance.now();
const figures = await command.run(Number(number));
console.log(JSON.stringify({ command: `${name} ${number}`, ...figures, minutes: Number(((performance.now() - begun) / 60_000).toFixed(1)) }));
