// `egg verify`: says of a checkpoint file, or of every file of a run, whether it is whole, and what a resume would load.
// Not the looking: src/run/verify.ts. It writes nothing but its answer. Read next: src/run/verify.ts.
import fs from "node:fs";
import path from "node:path";
import { defineCommand } from "citty";
import { exitCodes } from "../errors.ts";
import { formatLoss } from "../report/progress.ts";
import { summaryJson } from "../report/summary.ts";
import { visible, writeOut } from "../report/terminal.ts";
import { resolveRun } from "../run/folder.ts";
import { verifyCheckpoint, verifyRun, type CheckpointVerdict, type RunVerdict, type Verdict } from "../run/verify.ts";
import { helpText, parseArguments, wantsHelp, type StrictArgs } from "./arguments.ts";

export const args = {
  run: { type: "positional", description: "checkpoint file or run folder", required: true },
  strict: { type: "boolean", description: "exit with 7 if anything at all is damaged, even where a good checkpoint is left" },
  json: { type: "boolean", description: "print one line of JSON" },
} satisfies StrictArgs;

const command = defineCommand({ meta: { description: "tell whether a checkpoint or a run is whole; writes nothing" }, args });

export async function run(argv: string[]): Promise<number> {
  if (wantsHelp(args, argv)) {
    writeOut(helpText("egg verify", command));
    return 0;
  }
  const { values } = parseArguments("verify", args, argv);
  // A run that has lost its config.json is looked at too.
  const folder = fs.existsSync(path.join(values.run, "checkpoints")) || resolveRun(values.run).kind === "folder";
  if (!folder) {
    const verdict = verifyCheckpoint(values.run);
    writeOut(values.json ? summaryJson(verdict) : checkpointText(verdict));
    return verdict.verdict === "whole" ? 0 : exitCodes.corrupt;
  }
  const verdict = verifyRun(values.run);
  const damaged = [...verdict.checkpoints, ...verdict.files].filter((file) => file.verdict === "damaged").length;
  writeOut(values.json ? summaryJson({ ...verdict, checkpoints: verdict.checkpoints.map(withoutTensors), damaged }) : runText(verdict, damaged));
  return verdict.resume === null || (values.strict && damaged > 0) ? exitCodes.corrupt : 0;
}

/** A run's line of JSON stays short: the tensors are told of one file only. */
function withoutTensors({ content, ...verdict }: CheckpointVerdict): object {
  return { ...verdict, content: content === null ? null : { ...content, tensors: undefined } };
}

function checkpointText({ file, verdict, reason, bytes, content }: CheckpointVerdict): string {
  const lines = [`${file}: ${verdict}, ${count(bytes)} bytes`];
  if (reason !== null) lines.push(reason);
  if (content !== null) {
    const loss = content.val_bits_per_byte === null ? "" : `, held-out loss ${formatLoss(content.val_bits_per_byte)} bits/byte`;
    lines.push(`step            ${content.step}, by egg ${content.program}${loss}`);
    for (const key of ["sha256", "content_sha256", "weights_sha256"] as const) lines.push(`${key.padEnd(16)}${content[key]}`);
    for (const { name, dtype, shape, bytes } of content.tensors) lines.push(`${dtype.padEnd(16)}${name} (${shape.join(", ")}), ${count(bytes)} bytes`);
  }
  return text(lines);
}

function runText({ run, checkpoints, files, finished, resume, reason }: RunVerdict, damaged: number): string {
  const row = ({ file, verdict, reason }: Verdict, more: string): string =>
    `  ${verdict.padEnd(9)}${path.relative(run, file)}${more}${reason === null ? "" : `\n           ${reason}`}`;
  const lines = [`${run}: ${damaged === 0 ? "all whole" : `${damaged} of ${checkpoints.length + files.length} files damaged`}`];
  for (const checkpoint of checkpoints) {
    const { content } = checkpoint;
    lines.push(row(checkpoint, content === null ? "" : `, ${count(checkpoint.bytes)} bytes, weights ${content.weights_sha256.slice(0, 16)}…`));
  }
  for (const file of files) lines.push(row(file, ""));
  if (resume === null) lines.push(`nothing to resume from: ${reason}`);
  else lines.push(finished ? `the run is finished; its newest good checkpoint is ${path.basename(resume.file)}` : `a resume goes on from step ${resume.step}, ${path.basename(resume.file)}`);
  return text(lines);
}

const count = (value: number): string => value.toLocaleString("en-US");

/** A file may hold any name: nothing of it reaches the terminal as a control sequence. */
function text(lines: readonly string[]): string {
  return `${visible(lines.join("\n"))}\n`;
}
