// `egg report`: a run as one HTML file that opens anywhere, without network and without other files.
// Not what stands on the page: src/report/html.ts. Read next: src/report/runs.ts, which reads the run folder.
import { defineCommand } from "citty";
import { EggError } from "../errors.ts";
import { tryLockFile } from "../native/machine.ts";
import { entropyFloor } from "../report/curves.ts";
import { reportHtml } from "../report/html.ts";
import { readRun, type RunRecord } from "../report/runs.ts";
import { createTerminal, writeOut, type Terminal } from "../report/terminal.ts";
import { writeDurably } from "../run/files.ts";
import type { MetricsLine } from "../run/metrics.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";
import { program } from "./program.ts";
import { runFolderOf } from "./runs.ts";

export const args = {
  run: { type: "positional", description: "run folder, or a checkpoint file in it", required: true },
  out: { type: "string", description: "file to write; without it the run's name with .html, in this folder", valueHint: "FILE.html" },
} satisfies StrictArgs;

const command = defineCommand({ meta: { description: "write a run as one HTML page" }, args });

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg report", command));
    return 0;
  }
  const { values } = parseArguments("report", args, argv);
  if (values.out !== undefined && !/\.html?$/i.test(values.out)) {
    throw new EggError("usage", `--out: found ${JSON.stringify(values.out)}, allowed a name that ends in .html.`, { hint: `Write --out ${values.out === "" ? "report" : values.out}.html` });
  }
  const terminal = createTerminal({ quiet: false });
  const record = readRun(runFolderOf(values.run), tryLockFile);
  const file = values.out ?? `${record.name}.html`;
  const page = reportHtml({
    record,
    lines: wholeMetrics(record, terminal),
    samples: record.samples(),
    checkpoints: record.checkpoints(),
    floor: await entropyFloor(record),
    program: `egg ${program.version}${program.commit === null ? "" : ` (${program.commit.slice(0, 12)})`}`,
    date: new Date(),
  });
  writeDurably(file, [new TextEncoder().encode(page)]);
  terminal.success(`wrote ${file}`);
  return 0;
}

/** A page of a damaged run still shows what can be read. */
function wholeMetrics(record: RunRecord, terminal: Terminal): MetricsLine[] {
  try {
    return record.metrics();
  } catch (error) {
    if (!(error instanceof EggError)) throw error;
    terminal.warn(`the page has no curves: ${error.message}`);
    return [];
  }
}
