// A config file that a test writes over and over, and what the loader finds wrong with it. Not a test by itself.
// Read next: config.test.ts, schema.test.ts.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadConfig } from "../src/config/load.ts";
import { failure } from "./failure.ts";

export interface ConfigFile {
  folder: string;
  file: string;
  /** Writes the file and returns its path. */
  write(content: string | Uint8Array): string;
  /** The lines of the EggError("usage") that a call must throw, the file's path shortened to egg.json. */
  problems(call: () => unknown): string[];
  fileProblems(content: string | Uint8Array): string[];
  remove(): void;
}

export function configFile(): ConfigFile {
  const folder = mkdtempSync(join(tmpdir(), "egg-config-"));
  const file = join(folder, "egg.json");
  const write = (content: string | Uint8Array): string => {
    writeFileSync(file, content);
    return file;
  };
  const problems = (call: () => unknown): string[] => {
    const { kind, message } = failure(call);
    if (kind !== "usage") throw new Error(`an error of kind ${kind}: ${message}`);
    return message.replaceAll(file, "egg.json").split("\n");
  };
  return { folder, file, write, problems, fileProblems: (content) => problems(() => loadConfig({ file: write(content) })), remove: () => rmSync(folder, { recursive: true }) };
}
