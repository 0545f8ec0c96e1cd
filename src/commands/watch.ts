// `egg watch`: a page in the browser that shows runs while they go, and after.
// Not the page nor its server: src/report/dashboard.ts. Read next: that.
import fs from "node:fs";
import { defineCommand } from "citty";
import { EggError } from "../errors.ts";
import { tryLockFile } from "../native/machine.ts";
import { serveDashboard } from "../report/dashboard.ts";
import { createTerminal, writeOut } from "../report/terminal.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";

export const args = {
  run: { type: "positional", description: "run folder, also one that is not there yet, or a folder of run folders", required: true, repeated: true },
  port: { type: "string", kind: "integer", min: 0, max: 65_535, description: "port on 127.0.0.1; 0 = any free one; left out: 6116 or the next free one", valueHint: "N" },
} satisfies StrictArgs;

const command = defineCommand({ meta: { description: "show runs in the browser, while they go and after; Ctrl-C ends it" }, args });

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg watch", command));
    return 0;
  }
  const { values, repeated } = parseArguments("watch", args, argv);
  const terminal = createTerminal({ quiet: false });
  for (const word of repeated.run) {
    const found = fs.statSync(word, { throwIfNoEntry: false });
    if (found === undefined) terminal.warn(`${word} is not there; it is shown as soon as it is`);
    else if (!found.isDirectory()) throw new EggError("usage", `[watch] ${word}: a file, not a run folder.`, { hint: "Name the folder that holds config.json and metrics.jsonl, or the one in which runs lie." });
  }
  const address = serveDashboard(repeated.run, values.port, tryLockFile);
  terminal.info(`${address} shows ${repeated.run.length === 1 ? repeated.run[0] : `${repeated.run.length} folders`}; Ctrl-C ends it`);
  // No signal is caught: there is nothing to save, and the process ends by the signal itself.
  return await new Promise<number>(() => {});
}
