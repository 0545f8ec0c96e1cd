// The program's door: finds the command, runs it, prints what went wrong, and ends with the right exit code.
// Nothing is computed here, and a command's code is loaded only when it runs. Read next: commands/train.ts.
import type { CommandDef } from "citty";
import { commandLine, helpText, type CommandTable } from "./commands/arguments.ts";
import { program } from "./commands/program.ts";
import { reportError, writeOut } from "./report/terminal.ts";

/** Runs with the words behind the command; gets the table of commands too. */
type Run = (argv: string[], commands: Commands) => Promise<number>;
type Commands = Record<string, { help: string; load: () => Promise<{ run: Run } & CommandTable> }>;

const commands: Commands = {
  train: { help: "train a model (the command when none is named)", load: () => import("./commands/train.ts") },
  generate: { help: "continue a text with a trained model", load: () => import("./commands/generate.ts") },
  chat: { help: "talk with a trained model, line by line", load: () => import("./commands/chat.ts") },
  eval: { help: "measure a trained model on text", load: () => import("./commands/eval.ts") },
  config: { help: "write, show or check a config", load: () => import("./commands/config.ts") },
  data: { help: "look at texts, make tokenizers and token files", load: () => import("./commands/data.ts") },
  runs: { help: "list, compare and plot runs", load: () => import("./commands/runs.ts") },
  report: { help: "write a run as one HTML page", load: () => import("./commands/report.ts") },
  export: { help: "write a gpt or llama model for other programs", load: () => import("./commands/export.ts") },
  watch: { help: "show runs in the browser, while they go and after", load: () => import("./commands/watch.ts") },
  bench: { help: "measure how fast this machine trains", load: () => import("./commands/bench.ts") },
  verify: { help: "tell whether a checkpoint or a run is whole", load: () => import("./commands/verify.ts") },
  completion: { help: "complete these words in bash, zsh or fish", load: () => import("./commands/completion.ts") },
  info: { help: "tell what this machine offers", load: () => import("./commands/info.ts") },
};

const root: CommandDef = { meta: { description: "trains small language models on the machine you have, by evolution in integers or by gradients" }, args: { version: { type: "boolean", alias: "v", description: "print the version" } } };

async function main(argv: string[]): Promise<number> {
  const { command, rest } = commandLine(argv, Object.keys(commands));
  if (command === "version") {
    writeOut(`egg ${program.version}${program.commit === null ? "" : ` (${program.commit.slice(0, 12)})`}\n`);
    return 0;
  }
  if (command === "help") {
    writeOut(helpText("egg", root, Object.fromEntries(Object.entries(commands).map(([name, { help }]) => [name, help]))));
    return 0;
  }
  return (await commands[command]!.load()).run(rest, commands);
}

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => process.exit(reportError(error)),
);
