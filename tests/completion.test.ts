// Shell completion: the words that the tables give, and the scripts in real interactive shells on a terminal, key by key.
// Shells that this machine lacks are skipped. Not the command line's own parsing: arguments.test.ts. Next: src/commands/completion.ts.
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { knobs } from "../src/config/knobs.ts";
import { egg, environment, freshFolder, run, until } from "./program.ts";

setDefaultTimeout(60_000);

const cwd = freshFolder("completion");
mkdirSync(join(cwd, "bin"));
symlinkSync(egg, join(cwd, "bin/egg"));
for (const name of ["runs/egg.c-aaaaaaaaaaaa", "runs/sweep-bbbbbbbbbbbb"]) {
  mkdirSync(join(cwd, name), { recursive: true });
  writeFileSync(join(cwd, name, "config.json"), "{}");
}
mkdirSync(join(cwd, "runs/no-run"));
writeFileSync(join(cwd, "mine.json"), "{}");

/** What the program offers behind these words; the last one is not finished. */
function offered(words: string[], shell = "zsh"): string[] {
  const { code, out, err } = run(["completion", "words", shell, "--", ...words], { cwd });
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return out.split("\n").slice(0, -1).map((line) => (line.startsWith(":") ? line : line.split("\t")[0]!));
}

describe("the words", () => {
  const namesIn = (help: string, title: string): string[] => [...(new RegExp(`^${title}:\\n((?: .*\\n)+)`, "m").exec(help)?.[1] ?? "").matchAll(/^ +(?:-\w, )?(\S+)/gm)].map(([, name]) => name!);

  test("are all commands and options that --help tells of, for every command", () => {
    const commands = namesIn(run(["--help"], { cwd }).out, "Commands");
    expect(commands).toContain("completion");
    expect(offered([""])).toEqual(commands);
    let options = 0;
    for (const command of commands) {
      const subs = namesIn(run([command, "--help"], { cwd }).out, "Commands");
      if (subs.length > 0) expect(offered([command, ""])).toEqual(subs);
      for (const words of subs.length > 0 ? subs.map((sub) => [command, sub]) : [[command]]) {
        if (words[0] === "completion") continue; // its scripts have no options
        const help = namesIn(run([...words, "--help"], { cwd }).out, "Options");
        expect(offered([...words, "--"])).toEqual(help);
        options += help.length;
      }
    }
    expect(options).toBeGreaterThan(50);
  });

  test("of --set are all knobs, then the values of one", () => {
    expect(offered(["--set", ""])).toEqual(knobs.map(({ path }) => `${path}=`));
    expect(offered(["train", "--json", "--set", "run.pat"])).toEqual(["run.patience="]);
    expect(offered(["--set", "run.seed=1", "--set", "device.backend="])).toEqual(["device.backend=auto", "device.backend=cpu"]);
    expect(offered(["--set=run.stop_metric=t"])).toEqual(["--set=run.stop_metric=train_bits_per_byte"]);
    expect(offered(["config", "show", "--set", "data.path=mi"])).toEqual([":files data.path="]);
    expect(offered(["--set", "run.out="])).toEqual([":folders run.out="]);
    expect(offered(["--set", "nonsense="])).toEqual([]);
  });

  test("of bash come parted at = and :, and go back as the last part", () => {
    expect(offered(["--set", "trainer.type", "=", "egg"], "bash")).toEqual(["eggroll-int8"]);
    expect(offered(["--set", "trainer.type", "="], "bash")).toEqual(["eggroll-int8", "backprop"]);
    expect(offered(["--set", "=", "run.stop_metric", "=", "v"], "bash")).toEqual(["val_bits_per_byte"]);
  });

  test("are run folders, file names, folders and choices, each in its place", () => {
    expect(offered(["generate", ""])).toEqual(["runs/egg.c-aaaaaaaaaaaa", "runs/sweep-bbbbbbbbbbbb", ":files "]);
    expect(offered(["eval", "runs/s"])).toEqual(["runs/sweep-bbbbbbbbbbbb", ":files "]);
    expect(offered(["-c", ""])).toEqual([":files "]);
    expect(offered(["--config="])).toEqual([":files --config="]);
    expect(offered(["--out", ""])).toEqual([":folders "]);
    expect(offered(["eval", "runs/x", "--checkpoint", ""])).toEqual(["newest", "best"]);
    expect(offered(["config", "init", "--preset", "e"])).toEqual(["egg", "egg.c"]);
  });

  test("leave out what stands there already, unless it may be repeated; nonsense has none", () => {
    expect(offered(["--json", "--set", "run.seed=1", "--"])).not.toContain("--json");
    expect(offered(["--json", "--set", "run.seed=1", "--"])).toContain("--set");
    expect(offered(["nonsense", "x", ""])).toEqual([]);
    expect(offered(["config", "nonsense", ""])).toEqual([]);
    expect(run(["completion", "tcsh"], { cwd })).toMatchObject({ code: 2 });
  });
});

// What is typed, with a tab at its end, and what must stand there then.
const typed: [string, string][] = [
  ["egg gen\t", "egg generate "],
  ["egg config sch\t", "egg config schema"],
  ["egg --dry\t", "egg --dry-run "],
  ["egg --set run.see\t", "egg --set run.seed="],
  ["egg --set run.stop_metric=t\t", "egg --set run.stop_metric=train_bits_per_byte"],
  ["egg generate runs/sw\t", "egg generate runs/sweep-bbbbbbbbbbbb"],
  ["egg -c min\t", "egg -c mine.json"],
  ["egg --set data.path=min\t", "egg --set data.path=mine.json"],
];
const shells: { name: string; command: string[]; load: string }[] = [
  { name: "bash", command: ["bash", "--norc", "--noprofile", "-i"], load: 'eval "$(egg completion bash)"' },
  { name: "zsh", command: ["zsh", "-f", "-i"], load: 'autoload -U compinit; compinit -u -D; eval "$(egg completion zsh)"' },
  { name: "fish", command: ["fish", "--no-config", "-i"], load: "egg completion fish | source" },
];

describe.each(shells)("in $name", ({ name, command, load }) => {
  test.skipIf(Bun.which(name) === null)("every kind of word is completed", async () => {
    let seen = "";
    const decoder = new TextDecoder();
    const env = environment(cwd, { PATH: `${join(cwd, "bin")}:${process.env["PATH"]}`, TERM: "dumb", PS1: "$ ", fish_greeting: "" });
    const shell = Bun.spawn(command, { cwd, env, terminal: { cols: 200, rows: 40, data: (_, bytes) => void (seen += decoder.decode(bytes, { stream: true })) } });
    const terminal = shell.terminal!;
    const screen = () => seen.replace(/\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[=>])/g, "");
    try {
      terminal.write(`${load}; echo rea""dy\n`);
      await until("the shell", () => screen().includes("ready"));
      for (const [keys, line] of typed) {
        seen = "";
        terminal.write(keys);
        await until(`${JSON.stringify(line)} in ${name}`, () => screen().includes(line)).catch((error) => {
          throw new Error(`${error.message}: ${JSON.stringify(screen().slice(-500))}`);
        });
        terminal.write("\x15"); // the line away
      }
    } finally {
      shell.kill("SIGKILL");
      await shell.exited;
    }
  });
});
