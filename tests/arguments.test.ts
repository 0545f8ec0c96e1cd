// The strict command line: which command, every rule about options both ways, typos, help; and one real process.
// Not the commands themselves, nor the config behind --set (config.test.ts).
// Read next: src/commands/arguments.ts.

import { defineCommand } from "citty";
import { describe, expect, test } from "bun:test";
import { resolve } from "node:path";
import { commandLine, helpText, parseArguments, subcommandLine, wantsHelp, type Parsed, type StrictArgs } from "../src/commands/arguments.ts";
import { EggError } from "../src/errors.ts";

const train = {
  config: { type: "string", alias: "c", valueHint: "PATH", description: "config file" },
  set: { type: "string", repeated: true, valueHint: "path=value", description: "override one value" },
  out: { type: "string", valueHint: "DIR", description: "folder of the runs" },
  name: { type: "string", description: "name of the run" },
  force: { type: "boolean", description: "start over" },
  "dry-run": { type: "boolean", description: "write nothing" },
  json: { type: "boolean", description: "print one JSON object" },
  quiet: { type: "boolean", alias: "q", description: "no progress" },
} satisfies StrictArgs;

const generate = {
  run: { type: "positional", description: "run folder or checkpoint" },
  prompt: { type: "string", default: "", description: "text to go on from" },
  tokens: { type: "string", kind: "integer", min: 0, max: 1_000_000, default: "100", description: "length" },
  temperature: { type: "string", kind: "number", min: 0, default: "1", description: "0 takes the likeliest" },
  "top-k": { type: "string", kind: "integer", max: 256, description: "keep the K likeliest" },
  seed: { type: "string", kind: "integer", alias: "s", description: "seed" },
  backend: { type: "enum", options: ["auto", "cpu"], default: "auto", description: "what computes" },
  color: { type: "boolean", default: true, description: "colours", negativeDescription: "no colours" },
} satisfies StrictArgs;

const watch = {
  first: { type: "positional", required: false, description: "one" },
  runs: { type: "positional", repeated: true, required: false, description: "more" },
} satisfies StrictArgs;

/** The message of the EggError("usage") that a call must throw. */
function problem(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (!(error instanceof EggError)) throw error;
    expect(error.kind).toBe("usage");
    expect(error.hint).toBeString();
    return error.message;
  }
  throw new Error("nothing was refused");
}
const trainWith = (...argv: string[]) => parseArguments("train", train, argv);
const generateWith = (...argv: string[]) => parseArguments("generate", generate, argv);

describe("commandLine", () => {
  const names = ["train", "generate", "eval", "config"];
  test.each([
    [[], "train", []],
    [["--config", "egg.json"], "train", ["--config", "egg.json"]],
    [["-c", "egg.json"], "train", ["-c", "egg.json"]],
    [["-q", "--help"], "train", ["-q", "--help"]],
    [["train", "--help"], "train", ["--help"]],
    [["generate", "train"], "generate", ["train"]],
    [["-h"], "help", []],
    [["--help", "generate"], "help", ["generate"]],
    [["-v"], "version", []],
    [["--version", "x"], "version", ["x"]],
    [["--", "x"], "train", ["--", "x"]],
  ] as [string[], string, string[]][])("%j is %s %j", (argv, command, rest) => {
    expect(commandLine(argv, names)).toEqual({ command, rest });
  });

  test("refuses words that are no command, with the near name", () => {
    expect(problem(() => commandLine(["trian", "x"], names))).toBe('unknown command "trian"; did you mean train?');
    expect(problem(() => commandLine(["xyzzy"], names))).toBe('unknown command "xyzzy"');
    expect(problem(() => commandLine([""], names))).toBe('unknown command ""');
    expect(problem(() => commandLine(["egg.json"], names))).toBe('unknown command "egg.json"; for a config write egg --config egg.json');
  });

  test("groups want their command first", () => {
    const groups = ["init", "show"];
    expect(subcommandLine("config", ["show", "--set", "a=1"], groups)).toEqual({ command: "show", rest: ["--set", "a=1"] });
    expect(subcommandLine("config", ["--help"], groups).command).toBe("help");
    expect(problem(() => subcommandLine("config", [], groups))).toBe("egg config needs a command");
    expect(problem(() => subcommandLine("config", ["--json", "show"], groups))).toBe("egg config needs a command before --json");
    expect(problem(() => subcommandLine("config", ["shwo"], groups))).toBe('unknown command egg config "shwo"; did you mean egg config show?');
  });
});

describe("parseArguments", () => {
  test("gives nothing given: switches false, defaults, empty lists", () => {
    expect(trainWith()).toEqual({ values: { force: false, "dry-run": false, json: false, quiet: false }, repeated: { set: [] } } as never);
    expect(generateWith("r").values).toEqual({ run: "r", prompt: "", tokens: 100, temperature: 1, backend: "auto", color: true } as never);
  });

  test("gives typed values", () => {
    const { values, repeated } = trainWith("-qc", "a.json", "--set", "a=1", "--dry-run", "--set=b=2", "--out=x=y");
    const typed: { config: string | undefined; quiet: boolean; sets: string[] } = { config: values.config, quiet: values.quiet, sets: repeated.set };
    expect(typed).toEqual({ config: "a.json", quiet: true, sets: ["a=1", "b=2"] });
    expect(values).toMatchObject({ "dry-run": true, out: "x=y" });
    // @ts-expect-error repeated options are not among the single values
    expect(values.set).toBeUndefined();
    const made = generateWith("--temperature", ".5", "--seed", "-7", "run", "--tokens=0", "--top-k", "256").values;
    const numbers: [number, number, number | undefined, number | undefined, string] = [made.tokens, made.temperature, made.seed, made["top-k"], made.run];
    expect(numbers).toEqual([0, 0.5, -7, 256, "run"]);
  });

  test.each([
    [["--confg", "x"], "unknown option --confg; did you mean --config?"],
    [["--config.json"], "unknown option --config.json"],
    [["-config", "egg.json"], "unknown option -config; did you mean --config?"],
    [["-force"], "unknown option -force; did you mean --force?"],
    [["--xyzzy=1"], "unknown option --xyzzy"],
    [["-x"], "unknown option -x"],
    [["-qx"], "unknown option -x"],
    [["--hepl"], "unknown option --hepl; did you mean --help?"],
    [["--__proto__=1"], "unknown option --__proto__"],
    [["--constructor", "a"], "unknown option --constructor"],
    [["--steps", "5"], "unknown option --steps; did you mean --set run.steps=…?"],
    [["--trainer.population=5"], "unknown option --trainer.population; did you mean --set trainer.population=…?"],
    [["--config"], "--config needs a value: --config PATH"],
    [["-c"], "-c needs a value: -c PATH"],
    [["--name"], "--name needs a value: --name NAME"],
    [["--name", "--json"], "--name needs a value, found the option --json; to give that as the value write --name=--json"],
    [["--name", "--anything"], "--name needs a value, found the option --anything; to give that as the value write --name=--anything"],
    [["--name", "--"], "--name needs a value, found the option --; to give that as the value write --name=--"],
    [["-c", "-q"], "-c needs a value, found the option -q; to give that as the value write --config=-q"],
    [["-c=egg.json"], '-c=egg.json has a stray "="; write --config=egg.json or -c egg.json'],
    [["--json=1"], '--json takes no value, found "1"'],
    [["--json="], '--json takes no value, found ""'],
    [["--no-json"], "unknown option --no-json"],
    [["--no-config"], "unknown option --no-config"],
    [["--out", "a", "--out", "b"], "--out is given twice"],
    [["-c", "a", "--config=a"], "--config is given twice"],
    [["-q", "--quiet"], "--quiet is given twice"],
    [["x"], 'unexpected word "x" for egg train'],
    [["--config", "a", "train"], 'unexpected word "train" for egg train'],
    [["-"], 'unexpected word "-" for egg train'],
    [["--", "--json"], 'unexpected word "--json" for egg train'],
    [[""], 'unexpected word "" for egg train'],
  ] as [string[], string][])("egg train %j is refused: %s", (argv, message) => {
    expect(problem(() => trainWith(...argv))).toBe(message);
  });

  test("takes odd values that are meant", () => {
    expect(trainWith("--name=--json").values).toMatchObject({ name: "--json", json: false });
    expect(trainWith("--name", "-x").values.name).toBe("-x");
    expect(trainWith("--name", "").values.name).toBe("");
    expect(trainWith("--name=").values.name).toBe("");
    expect(trainWith("-cfile").values.config).toBe("file");
    expect(trainWith("--set", "a", "--set", "a").repeated.set).toEqual(["a", "a"]);
    expect(generateWith("--", "-q").values.run).toBe("-q");
    expect(generateWith("r", "--no-color").values.color).toBe(false);
    expect(generateWith("r", "--color").values.color).toBe(true);
  });

  test.each([
    [["r", "--tokens", "abc"], '--tokens: found "abc", allowed a whole number from 0 to 1000000'],
    [["r", "--tokens="], '--tokens: found "", allowed a whole number from 0 to 1000000'],
    [["r", "--tokens", "-1"], '--tokens: found "-1", allowed a whole number from 0 to 1000000'],
    [["r", "--tokens", "1000001"], '--tokens: found "1000001", allowed a whole number from 0 to 1000000'],
    [["r", "--tokens", "1.5"], '--tokens: found "1.5", allowed a whole number from 0 to 1000000'],
    [["r", "--tokens", "0x10"], '--tokens: found "0x10", allowed a whole number from 0 to 1000000'],
    [["r", "--tokens", "1e999"], '--tokens: found "1e999", allowed a whole number from 0 to 1000000'],
    [["r", "--tokens", " 5"], '--tokens: found " 5", allowed a whole number from 0 to 1000000'],
    [["r", "--seed", "9007199254740993"], '--seed: found "9007199254740993", allowed a whole number'],
    [["r", "--temperature", "-0.1"], '--temperature: found "-0.1", allowed a number of at least 0'],
    [["r", "--temperature", "NaN"], '--temperature: found "NaN", allowed a number of at least 0'],
    [["r", "--top-k", "257"], '--top-k: found "257", allowed a whole number of at most 256'],
    [["r", "--backend", "cpuu"], '--backend: found "cpuu", allowed auto, cpu; did you mean cpu?'],
    [["r", "--backend"], "--backend needs a value: --backend auto|cpu"],
    [["r", "--no-color=1"], '--no-color takes no value, found "1"'],
    [["r", "--color", "--no-color"], "--color is given twice"],
    [["r", "--steps"], "unknown option --steps"],
    [["r", "--run", "x"], "unknown option --run"],
    [["r", "s"], 'unexpected word "s" for egg generate'],
    [[], "egg generate needs RUN"],
  ] as [string[], string][])("egg generate %j is refused: %s", (argv, message) => {
    expect(problem(() => generateWith(...argv))).toBe(message);
  });

  test("words: optional ones, repeated ones, required ones, required options", () => {
    expect(parseArguments("watch", watch, [])).toEqual({ values: {}, repeated: { runs: [] } } as never);
    expect(parseArguments("watch", watch, ["a", "b", "c"])).toEqual({ values: { first: "a" }, repeated: { runs: ["b", "c"] } });
    const many = { runs: { type: "positional", repeated: true, description: "runs" } } satisfies StrictArgs;
    expect(problem(() => parseArguments("compare", many, []))).toBe("egg compare needs RUNS");
    const must = { to: { type: "string", required: true }, ids: { type: "string", kind: "integer", repeated: true, required: true } } satisfies StrictArgs;
    expect(problem(() => parseArguments("x", must, ["--ids", "1"]))).toBe("--to is missing");
    expect(problem(() => parseArguments("x", must, ["--to", "1"]))).toBe("--ids is missing");
    const parsed: Parsed<typeof must> = parseArguments("x", must, ["--to", "1", "--ids", "2", "--ids=3"]);
    const sure: [string, number[]] = [parsed.values.to, parsed.repeated.ids];
    expect(sure).toEqual(["1", [2, 3]]);
    expect(problem(() => parseArguments("x", must, ["--to", "1", "--ids", "b"]))).toBe('--ids: found "b", allowed a whole number');
  });

  test("every single-edit typo of every option is refused and finds an option one edit away", () => {
    const names = [...Object.keys(train), "help"];
    const letters = [..."abcdefghijklmnopqrstuvwxyz-"];
    const meant = new Map<string, Set<string>>();
    for (const name of names) {
      for (let i = 0; i <= name.length; i++) {
        const [head, tail] = [name.slice(0, i), name.slice(i)];
        const edits = letters.flatMap((letter) => [head + letter + tail, head + letter + tail.slice(1)]);
        for (const typo of [...edits, head + tail.slice(1), head + (tail[1] ?? "") + (tail[0] ?? "") + tail.slice(2)]) {
          if (/^[^-]/.test(typo)) meant.set(typo, (meant.get(typo) ?? new Set()).add(name));
        }
      }
    }
    for (const name of names) meant.delete(name);
    expect(meant.size).toBeGreaterThan(1500);
    for (const [typo, options] of meant) {
      const suggestion = /^unknown option (\S+); did you mean --(\S+)\?$/.exec(problem(() => trainWith(`--${typo}`)));
      expect([typo, suggestion?.[1], options.has(suggestion?.[2] ?? "")]).toEqual([typo, `--${typo}`, true]);
    }
  });
});

describe("help", () => {
  test("is wanted where -h or --help is an option", () => {
    for (const argv of [["--help"], ["-h"], ["-qh"], ["--config", "x", "-h"], ["--unknown", "--help"], ["--name", "--help"], ["a", "b", "--help"]]) {
      expect([argv, wantsHelp(train, argv)]).toEqual([argv, true]);
    }
    for (const argv of [[], ["--name=--help"], ["--", "--help"], ["--name", "-h"], ["--hepl"]]) expect([argv, wantsHelp(train, argv)]).toEqual([argv, false]);
  });

  test("shows usage, words, options with ranges and defaults, without colour", () => {
    const command = defineCommand({ meta: { name: "generate", description: "write text with a trained model" }, args: generate, run() {} });
    expect(helpText("egg generate", command)).toBe(`egg generate: write text with a trained model

Usage: egg generate RUN [options]

Words:
  RUN                     run folder or checkpoint

Options:
      --prompt PROMPT     text to go on from (default: "")
      --tokens N          length (a whole number from 0 to 1000000; default: 100)
      --temperature N     0 takes the likeliest (a number of at least 0; default: 1)
      --top-k N           keep the K likeliest (a whole number of at most 256)
  -s, --seed N            seed (a whole number)
      --backend auto|cpu  what computes (default: auto)
      --no-color          no colours
  -h, --help              show this help
`);
    expect(helpText("egg train", defineCommand({ meta: { description: "train" }, args: train }))).toContain("      --set path=value  override one value (may be repeated)\n");
    expect(helpText("egg watch", { meta: { description: "look on" }, args: watch })).toContain("Usage: egg watch [FIRST] [RUNS...] [options]\n");
  });

  test("lists the commands of a group", () => {
    const text = helpText("egg config", { meta: { description: "the config" } }, { init: "write one", show: "print it" });
    expect(text).toContain("Usage: egg config COMMAND [options]\n\nCommands:\n  init        write one\n  show        print it\n");
    expect(text).toEndWith("egg config COMMAND --help tells more about one.\n");
  });
});

test("a real process sees what the shell gives", () => {
  const code = `import { commandLine, parseArguments } from ${JSON.stringify(resolve("src/commands/arguments.ts"))};
    const { command, rest } = commandLine(process.argv.slice(1), ["train"]);
    const args = { set: { type: "string", repeated: true }, prompt: { type: "string" } };
    console.log(JSON.stringify([command, parseArguments(command, args, rest)]));`;
  const child = Bun.spawnSync(["sh", "-c", '"$0" -e "$1" -- --set run.prompt="a b" --prompt "é\n😀" --set x=', process.execPath, code]);
  expect(child.stderr.toString()).toBe("");
  expect(JSON.parse(child.stdout.toString())).toEqual(["train", { values: { prompt: "é\n😀" }, repeated: { set: ["run.prompt=a b", "x="] } }]);
});
