// `egg info`: the program, the machine, and which kernels it can run with the reason for each that it cannot.
// Not the asking: src/native/machine.ts does that.
import os from "node:os";
import { defineCommand } from "citty";
import { chooseTier, machine } from "../native/machine.ts";
import { formatBytes } from "../report/summary.ts";
import { writeOut } from "../report/terminal.ts";
import { availableMemory } from "../run/memory.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";
import { program } from "./program.ts";

export const args = { json: { type: "boolean", description: "print one line of JSON" } } satisfies StrictArgs;
const command = defineCommand({ meta: { description: "tell what this machine offers" }, args });

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg info", command));
    return 0;
  }
  const { values } = parseArguments("info", args, argv);
  const { features, tiers, best } = machine();
  const used = chooseTier();
  const info = {
    egg: program.version,
    commit: program.commit,
    bun: Bun.version,
    os: `${os.platform()} ${os.release()}`,
    arch: os.arch(),
    cpu: os.cpus()[0]?.model.trim() ?? "unknown",
    cores: os.availableParallelism(),
    memory_bytes: os.totalmem(),
    available_bytes: availableMemory(),
    features,
    tiers,
    best,
    used,
  };
  if (values.json) {
    writeOut(`${JSON.stringify(info)}\n`);
    return 0;
  }
  const rows = [
    ["egg", `${info.egg}${info.commit === null ? "" : ` (${info.commit.slice(0, 12)})`}, Bun ${info.bun}`],
    ["system", `${info.os}, ${info.arch}`],
    ["cpu", `${info.cpu}, ${info.cores} cores for this process`],
    ["memory", `${formatBytes(info.memory_bytes)}, ${formatBytes(info.available_bytes)} available`],
    ["features", features.join(" ") || "none that egg knows of"],
    ...tiers.map(({ name, available, reason }, i) => [i === 0 ? "kernels" : "", `${name.padEnd(12)}${available ? (name === used ? "used" : "available") : `not available: ${reason}`}`]),
  ];
  writeOut(rows.map(([label, value]) => `${label!.padEnd(10)}${value}\n`).join(""));
  return 0;
}
