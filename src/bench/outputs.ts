// Where a benchmark's result goes: standard output and files, which are tried before anything is measured, so that a misspelt folder
// costs no minutes. Not what stands in them: report.ts, tables.ts, plot.ts, ladder-plot.ts. Read next: src/commands/bench.ts.
import fs from "node:fs";
import { EggError } from "../errors.ts";
import { writeOut } from "../report/terminal.ts";
import { ioError } from "../run/files.ts";
import type { Report } from "./report.ts";

export interface Output {
  /** As the command line has it, for messages. */
  option: string;
  /** "-" is standard output; undefined where it was not asked for. */
  file: string | undefined;
  text(report: Report): string;
}

const stdout = 1;

/** Outputs that can be written, no two of them the same file. */
export class Outputs {
  readonly #asked: (Output & { file: string })[];

  /** Changes no file and leaves none behind. Throws EggError for what cannot be written, or would be written twice. */
  constructor(outputs: readonly Output[]) {
    this.#asked = outputs.flatMap(({ file, ...rest }) => (file === undefined ? [] : [{ ...rest, file }]));
    const owners = new Map(this.#printed ? [] : [[placeOf(fs.fstatSync(stdout)), "what is printed"]]);
    const made: string[] = [];
    try {
      for (const { option, file } of this.#asked) {
        const place = tryOut(option, file, made);
        const other = owners.get(place);
        if (other !== undefined) throw new EggError("usage", `${other} and ${option} would both go to ${file === "-" ? "standard output" : file}.`, { hint: "Leave one of them out, or give it a file of its own." });
        owners.set(place, option);
      }
    } finally {
      for (const file of made) fs.rmSync(file);
    }
  }

  get #printed(): boolean {
    return this.#asked.some(({ file }) => file === "-");
  }

  /** Prints what `readable` gives, unless standard output is taken, and writes every file. What failed is thrown when all else is safe. */
  write(report: Report, readable: () => string): void {
    const failures: unknown[] = [];
    const attempt = (action: () => void): void => {
      try {
        action();
      } catch (error) {
        failures.push(error);
      }
    };
    if (!this.#printed) attempt(() => writeOut(readable()));
    for (const { option, file, text } of this.#asked) {
      attempt(() => {
        if (file === "-") writeOut(text(report));
        else onDisk(option, file, () => fs.writeFileSync(file, text(report)));
      });
    }
    if (failures.length > 0) throw failures[0];
  }
}

/** What is the same for two names of one file. A file that was not there is added to `made`. */
function tryOut(option: string, file: string, made: string[]): string {
  if (file === "-") return placeOf(fs.fstatSync(stdout));
  if (file === "") throw new EggError("usage", `${option}: found "", allowed the name of a file, or - for standard output.`);
  return onDisk(option, file, () => {
    const found = fs.statSync(file, { throwIfNoEntry: false });
    if (found !== undefined && !found.isFile() && !found.isDirectory()) return option; // whoever reads a pipe would take this for its end
    fs.closeSync(fs.openSync(file, "a"));
    if (found === undefined) made.push(fs.realpathSync(file));
    return placeOf(fs.statSync(file));
  });
}

/** Runs what touches a file. Throws EggError where the system refuses. */
function onDisk<T>(option: string, file: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    const known = ioError(error, "write", file);
    throw known instanceof EggError ? new EggError(known.kind, known.message, { hint: `Name another file for ${option}; its folder must be there.`, cause: error }) : known;
  }
}

function placeOf({ dev, ino }: fs.Stats): string {
  return `${dev}:${ino}`;
}
