// The end of a run: the table that a person reads and the one line of JSON that a script reads.
// Not where the figures come from: src/run/ makes the Summary, and nothing is measured here.
// Next: terminal.ts, which prints the table; src/run/summary.ts for the figures.

import type { Summary } from "../run/summary.ts";
import { aboveFloor, formatClock, formatCount, formatLoss } from "./progress.ts";
import type { Colors } from "./terminal.ts";

/** What the table shows besides the Summary. null stands for "not known", and is left out. */
export interface SummaryContext {
  /** The run folder as the person can type it. */
  folder: string;
  /** Losses at the first step and at the first evaluation, in bits per byte. */
  firstTrainBitsPerByte: number | null;
  firstHeldOutBitsPerByte: number | null;
  /** The least loss that any model can reach on this corpus, in bits per byte. */
  entropyBitsPerByte: number | null;
  /** A prompt that the model can read; "" for none. */
  prompt: string;
  /** The command that carries an interrupted run on. */
  resumeCommand: string | null;
  colors: Colors;
}

/** The table and the commands to try next, for stderr; ends with a newline. */
export function summaryTable(summary: Summary, context: SummaryContext): string {
  const { colors } = context;
  const rows: [string, string][] = [
    ["run", `${summary.run}, ${summary.status} after ${groups(summary.steps)} ${summary.steps === 1 ? "step" : "steps"}, ${formatSeconds(summary.seconds)} of training`],
  ];
  const train = fromTo(context.firstTrainBitsPerByte, summary.train_bits_per_byte);
  if (train !== "") rows.push(["training loss", `${train} bits/byte`]);
  const heldOut = fromTo(context.firstHeldOutBitsPerByte, summary.val_bits_per_byte);
  if (heldOut !== "") rows.push(["held-out loss", `${heldOut} bits/byte${aboveFloor(summary.val_bits_per_byte, context.entropyBitsPerByte)}`]);
  const floor = formatLoss(context.entropyBitsPerByte);
  if (floor !== "") rows.push(["entropy floor", `${floor} bits/byte, the least that any model can reach`]);
  rows.push(
    ["model", `${plural(summary.parameters, "parameter")}${summary.tokenizer === undefined ? "" : `, ${summary.tokenizer}`}`],
    ...work(summary),
    ["backend", `${summary.backend}, ${plural(summary.threads, "thread")}`],
    ["peak memory", formatBytes(summary.peak_rss_bytes)],
    ["weights", `sha256 ${summary.weights_sha256.slice(0, 16)}…`],
    ["folder", context.folder],
  );
  const labels = Math.max(...rows.map(([label]) => label.length));
  const table = rows.map(([label, value]) => `  ${colors.dim(label.padEnd(labels))}  ${value}`);
  const next = nextCommands(summary, context).map((command) => `  ${colors.cyan(command)}`);
  return [...table, "", colors.bold("Next:"), ...next, ""].join("\n");
}

/** What was read, and how fast. */
function work(summary: Summary): [string, string][] {
  const { population, member_tokens, member_tokens_per_second, tokens_per_second, data_tokens } = summary;
  const data = `${count(data_tokens)} tokens of data`;
  if (tokens_per_second !== undefined) return [["training", data], ["rate", `${count(tokens_per_second)} tokens/s`]];
  return [["training", `population ${groups(population ?? 0)}, ${count(member_tokens ?? 0)} member-tokens, ${data}`], ["rate", `${count(member_tokens_per_second ?? 0)} member-tokens/s`]];
}

/** The object as exactly one line, newline at its end included. What is no number becomes null. */
export function summaryJson(summary: object): string {
  // JSON may hold these two as they are, but some readers take them for the end of a line.
  return `${JSON.stringify(summary).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029")}\n`;
}

/** Bytes in units of 1024: 640 B, 12.3 KiB, 182 MiB, 1.23 GiB; "unknown" for what is no size. */
export function formatBytes(bytes: number): string {
  if (!Number.isFinite(bytes) || bytes < 0) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toPrecision(3)} ${units[unit]}`;
}

function nextCommands(summary: Summary, context: SummaryContext): string[] {
  const run = shellWord(context.folder);
  const look = [`egg generate ${run}${context.prompt === "" ? "" : ` --prompt ${shellWord(context.prompt)}`}`, `egg eval ${run}`];
  if (summary.status === "finished" || context.resumeCommand === null) return look;
  return [`${context.resumeCommand}   (carries this run on)`, ...look];
}

function fromTo(first: number | null, last: number | null): string {
  const [from, to] = [formatLoss(first), formatLoss(last)];
  return from === "" || to === "" ? to : `${from} → ${to}`;
}

function plural(amount: number, noun: string): string {
  return `${amount < 10_000 ? groups(amount) : count(amount)} ${noun}${amount === 1 ? "" : "s"}`;
}

function count(amount: number): string {
  return formatCount(amount) || "unknown";
}

function groups(amount: number): string {
  return String(amount).replace(/\B(?=(\d{3})+$)/g, ",");
}

// Under a minute in seconds, above as a clock, which alone could be taken for hours and minutes.
function formatSeconds(seconds: number): string {
  if (!(seconds >= 0 && seconds < Infinity)) return "unknown time";
  return seconds < 59.95 ? `${seconds.toFixed(1)} s` : `${formatClock(seconds)}${seconds < 3600 ? " min" : ""}`;
}

/** A text as one word of a POSIX shell. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
