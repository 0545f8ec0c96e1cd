// `egg config`: write a commented config, show the effective one, check one, print the JSON schema.
// Not what a knob is and allows (src/config/knobs.ts), nor how the layers become one (src/config/load.ts).
import fs from "node:fs";
import { defineCommand, type CommandDef } from "citty";
import { initText } from "../config/init.ts";
import { effectiveConfigText, loadConfig, sourcesText, type Loaded } from "../config/load.ts";
import { defaultPreset, isPreset, presets } from "../config/presets.ts";
import { configSchema } from "../config/schema.ts";
import { EggError } from "../errors.ts";
import { createTerminal, writeOut } from "../report/terminal.ts";
import { errorCode, ioError } from "../run/files.ts";
import { helpText, parseArguments, subcommandLine, wantsHelp, type StrictArgs } from "./arguments.ts";

const layers = {
  config: { type: "string", alias: "c", description: "config file", valueHint: "FILE" },
  set: { type: "string", description: "set one knob, such as trainer.population=64", valueHint: "PATH=VALUE", repeated: true },
} satisfies StrictArgs;
const showArgs = {
  ...layers,
  sources: { type: "boolean", description: "tell of each value where it comes from" },
} satisfies StrictArgs;
const initArgs = {
  file: { type: "positional", description: "file to write", default: "egg.json" },
  preset: { type: "string", description: `preset to start from: ${Object.keys(presets).join(", ")}`, default: defaultPreset, valueHint: "NAME" },
  force: { type: "boolean", description: "write over an existing file" },
} satisfies StrictArgs;

export const commands: Record<string, { help: string; args: StrictArgs; run: (argv: string[]) => void }> = {
  init: { help: "write a config file with every knob explained", args: initArgs, run: init },
  show: { help: "print the effective config", args: showArgs, run: show },
  check: { help: "check a config and say nothing more than whether it is good", args: layers, run: check },
  schema: { help: "print the JSON schema of the config", args: {}, run: schema },
};

const root: CommandDef = { meta: { description: "write, show or check a config" }, args: {} };

export async function run(argv: string[]): Promise<number> {
  const { command, rest } = subcommandLine("config", argv, Object.keys(commands));
  if (command === "help") {
    writeOut(helpText("egg config", root, Object.fromEntries(Object.entries(commands).map(([name, { help }]) => [name, help]))));
    return 0;
  }
  const { help, args, run: perform } = commands[command]!;
  if (wantsHelp(args, rest)) writeOut(helpText(`egg config ${command}`, defineCommand({ meta: { description: help }, args })));
  else perform(rest);
  return 0;
}

function load({ values, repeated }: { values: { config: string | undefined }; repeated: { set: string[] } }): Loaded {
  return loadConfig({ ...(values.config === undefined ? {} : { file: values.config }), sets: repeated.set });
}

function show(argv: string[]): void {
  const parsed = parseArguments("config show", showArgs, argv);
  const loaded = load(parsed);
  writeOut(parsed.values.sources ? sourcesText(loaded) : effectiveConfigText(loaded.config));
}

function check(argv: string[]): void {
  load(parseArguments("config check", layers, argv));
  createTerminal({ quiet: false }).success("the config is good");
}

function schema(argv: string[]): void {
  parseArguments("config schema", {}, argv);
  writeOut(`${JSON.stringify(configSchema(), null, 2)}\n`);
}

function init(argv: string[]): void {
  const { values } = parseArguments("config init", initArgs, argv);
  if (!isPreset(values.preset)) {
    throw new EggError("usage", `--preset: found ${JSON.stringify(values.preset)}, allowed ${Object.keys(presets).join(", ")}.`);
  }
  try {
    fs.writeFileSync(values.file, initText(values.preset), { flag: values.force ? "w" : "wx" });
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw ioError(error, "write", values.file);
    throw new EggError("usage", `[config] ${values.file}: exists already.`, { hint: "Choose another name, or --force to write over it." });
  }
  createTerminal({ quiet: false }).success(`wrote ${values.file}; train with: egg --config ${values.file}`);
}
