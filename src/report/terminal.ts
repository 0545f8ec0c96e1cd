// The way to the person: messages on stderr, one live line that messages never tear, colours, errors.
// Not for data: that goes to stdout through writeOut. Never process.stdout or process.stderr: they cost 8 ms at start.
// Next: progress.ts, which draws the live line.

import fs from "node:fs";
import { createConsola } from "consola/core";
import type { LogObject } from "consola/core";
import { EggError, exitCodes } from "../errors.ts";

/** Each wraps a text in one colour, or leaves it as it is where colours are off. */
export interface Colors {
  readonly on: boolean;
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  cyan(text: string): string;
}

/** Where messages for people go. Messages are plain text: control characters in them are shown as escapes. */
export interface Terminal {
  readonly quiet: boolean;
  /** True where a live line can be drawn: stderr is a terminal that knows escape sequences, and egg is not quiet. */
  readonly live: boolean;
  readonly colors: Colors;
  /** Columns of the terminal now; 80 where there is none. */
  width(): number;
  info(message: string): void;
  success(message: string): void;
  warn(message: string): void;
  error(message: string): void;
  /** Writes text as it is, newline included if missing, above the live line. Silent when quiet. */
  print(text: string): void;
  /** Draws the one live line, which may hold colours; "" takes it away. Does nothing unless `live`. */
  draw(line: string): void;
  /** Leaves the live line where it stands and moves below it. */
  keepLine(): void;
}

const clearLine = "\r\x1b[2K";
const indent = " ".repeat("egg: ".length);

// The screen is one, whoever writes to it: this is what its last line shows now, "" when nothing live is there.
let shownLine = "";

/** The terminal for messages. `quiet` keeps warnings and errors only. */
export function createTerminal(options: { quiet: boolean }): Terminal {
  const { quiet } = options;
  let colors: Colors | undefined;
  let live: boolean | undefined;
  const paint = () => (colors ??= colorsFor(2));
  const log = createConsola({
    level: quiet ? 1 : 3,
    throttle: 0, // consola's own throttle would hold equal lines back and append "(repeated 2 times)"
    reporters: [{ log: (entry) => writeAbove(formatMessage(entry, paint())) }],
  });
  const terminal: Terminal = {
    quiet,
    get live() {
      return (live ??= !quiet && isTerminal(2) && process.env.TERM !== "dumb");
    },
    get colors() {
      return paint();
    },
    width: () => terminalWidth(),
    info: (message) => log.info(message),
    success: (message) => log.success(message),
    warn: (message) => log.warn(message),
    error: (message) => log.error(message),
    print: (text) => {
      if (!quiet) writeAbove(text);
    },
    draw: (line) => {
      if (!terminal.live || (line === "" && shownLine === "")) return;
      writeText(2, clearLine + line);
      shownLine = line;
    },
    keepLine: () => {
      if (shownLine !== "") writeText(2, "\n");
      shownLine = "";
    },
  };
  return terminal;
}

/**
 * Prints an error for people and returns the exit code that belongs to it: the one of its kind for an EggError,
 * 1 for anything else, which is a bug in egg. The stack is shown only where EGG_DEBUG is set.
 */
export function reportError(error: unknown): number {
  const paint = colorsFor(2);
  const lines: string[] = [];
  if (error instanceof EggError) {
    lines.push(`egg: ${paint.red("error:")} ${indentLines(visible(error.message))}`);
    if (error.hint !== undefined) lines.push(`${indent}${paint.cyan("hint:")} ${indentLines(visible(error.hint))}`);
  } else {
    lines.push(`egg: ${paint.red("internal error:")} ${indentLines(visible(describe(error)))}`);
    lines.push(`${indent}This is a bug in egg. Please report it with the command that you ran.`);
    if (!process.env.EGG_DEBUG) lines.push(`${indent}Set EGG_DEBUG=1 to see where it happened.`);
  }
  if (process.env.EGG_DEBUG) lines.push(indent + indentLines(visible(stacks(error))));
  const above = shownLine === "" ? "" : "\n"; // the last state of the run stays readable above the error
  shownLine = "";
  writeText(2, `${above}${lines.join("\n")}\n`);
  return error instanceof EggError ? error.exitCode : exitCodes.internal;
}

/**
 * Writes data to stdout, all of it. Returns false where the reader has gone away (`egg generate | head -1`): stop then.
 * Throws EggError("resources") where it cannot be written, such as on a full disk.
 */
export function writeOut(data: string | Uint8Array): boolean {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  try {
    writeFully(1, bytes, Infinity);
    return true;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "EPIPE") return false;
    throw new EggError("resources", `[output] stdout: cannot write ${bytes.length} bytes (${code ?? describe(error)}).`, {
      hint: code === "ENOSPC" ? "The disk is full: free some space, or write elsewhere." : undefined,
      cause: error,
    });
  }
}

/** True where the file descriptor is a terminal. node:tty is loaded only for character devices: it costs 2 ms. */
export function isTerminal(fd: number): boolean {
  try {
    return fs.fstatSync(fd).isCharacterDevice() && process.getBuiltinModule("node:tty").isatty(fd);
  } catch {
    return false; // a closed descriptor
  }
}

/** Colours for what is written to the file descriptor: off for files, pipes, NO_COLOR and TERM=dumb. */
export function colorsFor(fd: number): Colors {
  const { NO_COLOR, TERM } = process.env;
  return makeColors(!NO_COLOR && TERM !== "dumb" && isTerminal(fd));
}

/** The colour functions, on or off. */
export function makeColors(on: boolean): Colors {
  const style = (open: number, close: number) => (text: string) =>
    on && text !== "" ? `\x1b[${open}m${text}\x1b[${close}m` : text;
  return {
    on,
    bold: style(1, 22),
    dim: style(2, 22),
    red: style(31, 39),
    green: style(32, 39),
    yellow: style(33, 39),
    cyan: style(36, 39),
  };
}

// A fresh stream object each time: it reads the size when made, so that no signal handler for resizing is needed.
function terminalWidth(): number {
  if (!isTerminal(2)) return 80;
  const { WriteStream } = process.getBuiltinModule("node:tty");
  return new WriteStream(2).columns || 80; // 0 on terminals that do not know their size
}

function formatMessage(entry: LogObject, paint: Colors): string {
  const text = indentLines(visible(entry.args.map(String).join(" ")));
  if (entry.type === "error") return `egg: ${paint.red("error:")} ${text}`;
  if (entry.type === "warn") return `egg: ${paint.yellow("warning:")} ${text}`;
  return `${entry.type === "success" ? paint.green("egg:") : "egg:"} ${text}`;
}

function indentLines(text: string): string {
  return text.trimEnd().replaceAll("\n", `\n${indent}`);
}

/** A text with its control characters as escapes. A message may quote a file's name or content: no sequence of theirs may reach the terminal. */
export function visible(text: string): string {
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

function stacks(error: unknown): string {
  if (!(error instanceof Error)) return describe(error);
  const own = error.stack ?? describe(error);
  return error.cause === undefined ? own : `${own}\ncaused by ${stacks(error.cause)}`;
}

function writeAbove(text: string): void {
  const block = text.endsWith("\n") ? text : `${text}\n`;
  writeText(2, shownLine === "" ? block : clearLine + block + shownLine);
}

// Words for people are worth a short wait, never a crash: after a second of a full pipe, or with stderr gone, they are dropped.
function writeText(fd: number, text: string): void {
  try {
    writeFully(fd, new TextEncoder().encode(text), 1000);
  } catch {
    return;
  }
}

function writeFully(fd: number, bytes: Uint8Array, patienceMs: number): void {
  let waitedMs = 0;
  for (let done = 0; done < bytes.length; ) {
    try {
      done += fs.writeSync(fd, bytes, done, bytes.length - done);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code !== "EAGAIN" && code !== "EINTR") throw error;
      if (waitedMs >= patienceMs) throw error;
      Bun.sleepSync(1);
      waitedMs += 1;
    }
  }
}
