// The rules of the house, as a program: who may import whom, no circles, no dead files, a head on every file, sizes, and
// README telling the truth. Each rule is a function over a set of files, shown here to fail on a bad example.
// Not the behaviour of anything. The rules' reasons are in README.md ("Taste").
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, posix, resolve } from "node:path";
import { descends, knobs, type Config, type Knob } from "../src/config/knobs.ts";
import { allowedFor, presetConfig, presets } from "../src/config/presets.ts";
import { contextsParameters } from "../src/models/contexts.ts";
import { eggParameters } from "../src/models/egg.ts";
import { shapeOfConfig, transformerParameters } from "../src/models/transformer-shape.ts";

const root = resolve(import.meta.dir, "..");

/** Paths from the root of the project, and their texts. */
type Files = ReadonlyMap<string, string>;
/** Everything wrong, one line each, beginning with the path. */
type Rule = (files: Files) => string[];

/** Folders (and lone files) of src/, the lowest first: each may import itself and what stands before it. */
const order = ["errors", "config", "data", "tensor", "models", "learners", "run", "report", "bench", "commands", "main"];
/** src/native stands beside the list: it imports errors only, and only these may import it. */
const usersOfNative = ["tensor", "models", "learners", "bench", "commands"];
/** Lines of a file at most; those past the second number are printed, to be looked at again. */
const longest = 600;
const long = 500;

// ---- reading

/** Source files of the project, package.json and every README. */
function projectFiles(): Files {
  const paths = ["*", ...["src", "kernels", "shaders", "scripts", "tests"].map((folder) => `${folder}/**/*`)].flatMap((pattern) => [...new Bun.Glob(pattern).scanSync({ cwd: root })]);
  const wanted = paths.filter((path) => isSource(path) || path === "package.json" || path === "package-lock.json" || path.endsWith("README.md"));
  return new Map(wanted.sort().map((path) => [path, readFileSync(join(root, path), "utf8")]));
}

const isSource = (path: string): boolean => /^(?:(?:src|kernels|shaders|scripts|tests)\/.*\.(?:ts|mjs|zig|m|h|metal)|build\.zig)$/.test(path);
const isMade = (path: string): boolean => isSource(path) && !path.startsWith("tests/");

/** What a file imports, as written: `import`, `import type`, `export from`, `import()`, `require()`, and Zig's `@import`. */
function importsOf(path: string, text: string): string[] {
  const patterns = path.endsWith(".zig")
    ? [/@import\("([^"]+)"\)/g]
    : [/^\s*(?:import|export)\b(?:[^"'`;]*?\bfrom)?\s*["']([^"']+)["']/gm, /\b(?:import|require)\(\s*["']([^"']+)["']/g];
  return patterns.flatMap((pattern) => [...text.matchAll(pattern)].map(([, name]) => name!));
}

/** Imports inside the project: from each file to the files it names. */
function graphOf(files: Files): Map<string, string[]> {
  return new Map([...files].filter(([path]) => isSource(path)).map(([path, text]) => [
    path,
    importsOf(path, text).map((name) => posix.normalize(posix.join(posix.dirname(path), name))).filter((target) => files.has(target)),
  ]));
}

/** The place of a file of src/ in the order: its folder, or its own name. */
const placeOf = (path: string): string | undefined => /^src\/(\w[\w-]*)(?:\/|\.ts$)/.exec(path)?.[1];

const withoutLineComments = (text: string): string => text.replace(/^\s*(?:\/\/|\/?\*).*$/gm, "").replace(/\s\/\/ .*$/gm, "");

// ---- rules

const ffiInOnePlace: Rule = (files) =>
  [...files].filter(([path, text]) => isMade(path) && !path.startsWith("src/native/") && importsOf(path, text).includes("bun:ffi")).map(([path]) => `${path}: imports bun:ffi, which only src/native may`);

const importsGoDown: Rule = (files) =>
  [...graphOf(files)].flatMap(([path, targets]) => {
    const from = placeOf(path);
    if (from === undefined) return [];
    if (from !== "native" && !order.includes(from)) return [`${path}: "${from}" has no place in the order of imports; give it one in tests/tidy.test.ts`];
    return targets.flatMap((target) => {
      const to = placeOf(target);
      const good = to === from || (to === "native" ? usersOfNative.includes(from) : from === "native" ? to === "errors" : to !== undefined && order.indexOf(to) < order.indexOf(from));
      return good ? [] : [`${path}: imports ${target}, which is not below it`];
    });
  });

const noCircles: Rule = (files) => {
  const graph = graphOf(files);
  const done = new Set<string>();
  const circles: string[] = [];
  const walk = (path: string, way: string[]): void => {
    if (way.includes(path)) circles.push(`${path}: imports itself by way of ${[...way.slice(way.indexOf(path) + 1), path].join(", ")}`);
    if (way.includes(path) || done.has(path)) return;
    for (const target of graph.get(path) ?? []) walk(target, [...way, path]);
    done.add(path);
  };
  for (const path of graph.keys()) walk(path, []);
  return circles;
};

/** Files are used when the entries reach them: by import, or by their path in package.json, build.zig or a script. */
const noDeadFiles: Rule = (files) => {
  const graph = graphOf(files);
  const named = (path: string): string[] => {
    if (path !== "package.json" && path !== "build.zig" && !path.startsWith("scripts/")) return [];
    return [...files.get(path)!.matchAll(/["'`\s]\.?\/?((?:src|kernels|scripts)\/[\w./-]+)["'`\s]/g)].map(([, target]) => target!);
  };
  const reached = new Set(["package.json", "build.zig"].filter((path) => files.has(path)));
  for (const path of reached) for (const target of [...(graph.get(path) ?? []), ...named(path)]) if (files.has(target)) reached.add(target);
  return [...files.keys()].filter((path) => isMade(path) && !path.endsWith(".d.ts") && !reached.has(path)).map((path) => `${path}: nobody imports it`);
};

/** The comment that a file opens with, up to its first empty line. Kernels' doc comments are not counted in. */
const headOnEveryFile: Rule = (files) =>
  [...files].filter(([path]) => isSource(path)).flatMap(([path, text]) => {
    const lines = text.split("\n");
    const head = lines.slice(0, lines.findIndex((line) => !/^\/\/(?: |$)/.test(line))).join("\n").split("\n//\n")[0]!;
    const count = head === "" ? 0 : head.split("\n").length;
    return count >= 2 && count <= 5 ? [] : [`${path}: opens with ${count} lines of comment, allowed 2 to 5: what it is, what it is not, where to read next`];
  });

const noKeptPointers: Rule = (files) =>
  [...files].filter(([path, text]) => /^src\//.test(path) && /\bptr\(/.test(withoutLineComments(text))).map(([path]) => `${path}: calls ptr(), whose result goes stale; give the view itself to a "buffer" argument`);

const nothingLeftOpen: Rule = (files) =>
  [...files].filter(([path]) => isSource(path)).flatMap(([path, text]) =>
    [...text.matchAll(new RegExp(["TO" + "DO", "FIX" + "ME", "X" + "XX"].map((word) => `\\b${word}\\b`).join("|"), "g"))].map(([word]) => `${path}: ${word}`));

const noTestAlone: Rule = (files) =>
  [...files].filter(([path, text]) => path.startsWith("tests/") && /\b(?:test|it|describe)\s*\.\s*only\b/.test(text)).map(([path]) => `${path}: runs one test only`);

const linesOf = (text: string): number => text.split("\n").length - 1;

const noLongFiles: Rule = (files) =>
  [...files].filter(([path, text]) => isSource(path) && linesOf(text) > longest).map(([path, text]) => `${path}: ${linesOf(text)} lines, allowed ${longest}`);

/** Source files and folders that a README names, from the root or from where it stands, must be there. */
const pathsInReadmes: Rule = (files) =>
  [...files].filter(([path]) => path.endsWith("README.md")).flatMap(([path, text]) => {
    const named = [...text.matchAll(/(?<![\w/.-])((?:src|kernels|scripts|tests)\/[\w./-]*\w\/?)/g), ...text.matchAll(/`([\w./-]+\.(?:ts|mjs|zig))`/g)].map(([, name]) => name!);
    const isThere = (name: string): boolean => existsSync(join(root, name)) || existsSync(join(root, dirname(path), name));
    return [...new Set(named)].filter((name) => !name.includes("NAME") && !isThere(name)).map((name) => `${path}: names ${name}, which is not there`);
  });

/** README's tree has a line for every folder of src/. */
const foldersInReadme: Rule = (files) =>
  [...new Set([...files.keys()].map((path) => /^src\/[\w-]+\//.exec(path)?.[0]).filter((folder) => folder !== undefined))]
    .filter((folder) => !new RegExp(`^${folder} +\\w`, "m").test(files.get("README.md") ?? "")).map((folder) => `README.md: its tree lacks ${folder}`);

/** One row a knob, exactly as the table of knobs has it. */
function knobRow(knob: Knob): string {
  return `| \`${knob.path}\` | \`${JSON.stringify(knob.default)}\` | ${allowedFor(knob)} | ${knob.help}${knob.unit === undefined ? "" : ` [${knob.unit}]`} |`;
}

const knobsInReadme: Rule = (files) => {
  const readme = files.get("README.md") ?? "";
  const rows = knobs.map((knob: Knob) => knobRow(knob));
  const missing = rows.filter((row) => !readme.includes(`\n${row}\n`)).map((row) => `README.md: lacks the row ${row}`);
  const stale = [...readme.matchAll(/^\| `[a-z]+(?:\.\w+)?` \|(?:[^|\n]*\|){3}$/gm)].filter(([row]) => !rows.includes(row)).map(([row]) => `README.md: has a row that no knob has: ${row}`);
  return [...missing, ...stale];
};

/** One row a preset: its sizes and rate as the table of presets has them, and its parameters for a text of 71 bytes or 65 characters. */
function presetRow(name: string): string {
  const config = presetConfig(name);
  const { model, trainer, run } = config;
  const cells = descends(config)
    ? [config.trainer.learning_rate, `${config.trainer.batch}${config.trainer.accumulation === 1 ? "" : ` x ${config.trainer.accumulation}`}`, config.model.block]
    : [trainer.learning_rate ?? "-", whole(trainer.population!), trainer.sequence];
  return `| \`${name}\` | ${presets[name]!.help} | ${cells.join(" | ")} | ${whole(run.steps)} | ${whole(parametersOf(config))} |`;

  function parametersOf(config: Config): number {
    if (descends(config)) return transformerParameters(shapeOfConfig(config, config.data.tokenizer === "characters" ? 65 : Number(config.data.tokenizer.split(":")[1])));
    return trainer.rule === "egg" ? contextsParameters(new Uint8Array(71), { order: model.order!, table_bits: model.table_bits! }) : eggParameters({ layers: model.layers!, hidden: model.hidden!, vocabulary: 256 });
  }
}

const whole = (value: number): string => value.toLocaleString("en-US");

const presetsInReadme: Rule = (files) => {
  const rows = Object.keys(presets).map(presetRow);
  const found = [...(files.get("README.md") ?? "").matchAll(/^\| `[\w.-]+` \|(?:[^|\n]*\|){6}$/gm)].map(([row]) => row);
  return [...rows.filter((row) => !found.includes(row)).map((row) => `README.md: lacks the row ${row}`), ...found.filter((row) => !rows.includes(row)).map((row) => `README.md: has a row that no preset has: ${row}`)];
};

/** package-lock.json as npm writes it, so that \`npm install\` leaves it alone; and without addresses, which may be those of a mirror. */
const lockAsWritten: Rule = (files) => {
  const packages = Object.entries(JSON.parse(files.get("package-lock.json") ?? "{}").packages ?? {}) as [string, Record<string, unknown>][];
  const first = ["name", "version", "resolved", "integrity", "dependencies"];
  const rank = (entry: Record<string, unknown>, key: string): string => `${isObject(entry[key]) ? 1 : 0}${first.includes(key) ? first.indexOf(key) : 9}${key}`;
  const isObject = (value: unknown): boolean => typeof value === "object" && value !== null && !Array.isArray(value);
  return packages.flatMap(([name, entry]) => {
    const keys = Object.keys(entry);
    const sorted = [...keys].sort((a, b) => (rank(entry, a) < rank(entry, b) ? -1 : 1));
    return [
      ...("resolved" in entry ? [`package-lock.json: ${name} has an address; .npmrc leaves it out`] : []),
      ...(keys.join() === sorted.join() ? [] : [`package-lock.json: ${name} has ${keys.join(", ")}; npm writes ${sorted.join(", ")}`]),
    ];
  });
};

// ---- the command lines of the READMEs

/** Words of every `egg …` command line in a text's code: fenced lines, and spans that are one. `npm start -- …` counts as train. */
function commandLines(text: string): string[][] {
  const blocks = [...text.matchAll(/^```\w*\n([^]*?)^```/gm)].flatMap(([, body]) => body!.split("\n"));
  const spans = [...text.replace(/^```[^]*?^```/gm, "").matchAll(/`([^`\n]+)`/g)].map(([, span]) => span!);
  const start = /(?:^|[;&|] *|\bdo +)(?:\$ +)?(?:[A-Z_]+=\S+ +)*(?:(?:\.\/)?egg|npm start --)(?: +(.*))?$/;
  return [...blocks, ...spans].flatMap((line) => {
    const match = start.exec(line.trim());
    if (match === null) return [];
    const own = (match[1] ?? "").split(/ *(?:;|&&|\||2?>| # )/)[0]!;
    return [own.match(/"[^"]*"|'[^']*'|\S+/g) ?? []];
  });
}

/** What the program does not know in these command lines. `help` gives the output of `egg … --help`. */
function unknownIn(lines: readonly string[][], help: (command: string[]) => string): string[] {
  const commandsIn = (text: string): string[] => [...(/^Commands:\n((?: .*\n)+)/m.exec(text)?.[1] ?? "").matchAll(/^ +(\S+)/gm)].map(([, name]) => name!);
  return lines.flatMap((words) => {
    const command: string[] = [];
    let text = help([]);
    while (commandsIn(text).length > 0) {
      const next = words[command.length];
      if (command.length > 0 && next === undefined) return []; // a group by its name, as in "egg config writes configs"
      if (command.length === 0 && (next === undefined || next.startsWith("-"))) command.push("train");
      else if (next !== undefined && commandsIn(text).includes(next)) command.push(next);
      else return [`egg ${words.join(" ")}: no command ${next}`];
      text = help(command);
    }
    const known = new Set(text.match(/(?<![\w-])--?[a-z][\w-]*/g));
    return words.filter((word) => /^--?[a-z]/.test(word) && !known.has(word.split("=")[0]!)).map((word) => `egg ${words.join(" ")}: egg ${command.join(" ")} has no ${word}`);
  });
}

// ---- the tests

/** Each rule with a file set that breaks it, and the words of the complaint. */
const rules: { name: string; rule: Rule; bad: Record<string, string>; says: string }[] = [
  { name: "bun:ffi in one place", rule: ffiInOnePlace, bad: { "src/run/x.ts": 'import { dlopen } from "bun:ffi";' }, says: "src/run/x.ts: imports bun:ffi" },
  { name: "imports go down", rule: importsGoDown, bad: { "src/data/x.ts": 'import type { Run } from "../run/y.ts";', "src/run/y.ts": "" }, says: "src/data/x.ts: imports src/run/y.ts" },
  { name: "native is a leaf", rule: importsGoDown, bad: { "src/native/x.ts": 'export { y } from "../data/y.ts";', "src/data/y.ts": "" }, says: "src/native/x.ts: imports src/data/y.ts" },
  { name: "native is for few", rule: importsGoDown, bad: { "src/report/x.ts": 'const y = await import("../native/y.ts");', "src/native/y.ts": "" }, says: "src/report/x.ts: imports src/native/y.ts" },
  { name: "every folder has a place", rule: importsGoDown, bad: { "src/utils/x.ts": "" }, says: '"utils" has no place' },
  { name: "no circles", rule: noCircles, bad: { "src/data/x.ts": 'import type {\n  Y,\n} from "./y.ts";', "src/data/y.ts": 'import { x } from "./x.ts";' }, says: "imports itself by way of src/data/y.ts, src/data/x.ts" },
  { name: "no circles in Zig", rule: noCircles, bad: { "kernels/x.zig": 'const y = @import("int8/y.zig");', "kernels/int8/y.zig": 'const x = @import("../x.zig");' }, says: "kernels/x.zig: imports itself" },
  { name: "no dead files", rule: noDeadFiles, bad: { "package.json": '"start": "node scripts/a.mjs"', "scripts/a.mjs": '"./src/main.ts"', "src/main.ts": 'import "./b.ts";', "src/b.ts": "", "src/c.ts": 'import "./d.ts";', "src/d.ts": 'import "./c.ts";' }, says: "src/c.ts: nobody imports it\nsrc/d.ts: nobody imports it" },
  { name: "a head on every file", rule: headOnEveryFile, bad: { "src/x.ts": "// Something.\nconst x = 1;\n" }, says: "src/x.ts: opens with 1 lines" },
  { name: "no kept pointers", rule: noKeptPointers, bad: { "src/native/x.ts": "const p = ptr(new Uint8Array(8));" }, says: "src/native/x.ts: calls ptr()" },
  { name: "nothing left open", rule: nothingLeftOpen, bad: { "kernels/x.zig": `// TO${"DO"}: later` }, says: "kernels/x.zig" },
  { name: "no test alone", rule: noTestAlone, bad: { "tests/x.test.ts": `test.on${"ly"}("x", () => {});` }, says: "runs one test only" },
  { name: "no long files", rule: noLongFiles, bad: { "src/x.ts": "\n".repeat(601) }, says: "src/x.ts: 601 lines, allowed 600" },
  { name: "READMEs name files that are there", rule: pathsInReadmes, bad: { "README.md": "See src/nowhere/ and `src/main.ts`.", "kernels/README.md": "`int8/scalar.zig`, `int8/gone.zig`" }, says: "README.md: names src/nowhere/, which is not there\nkernels/README.md: names int8/gone.zig" },
  { name: "README's tree has every folder", rule: foldersInReadme, bad: { "README.md": "src/data/   texts", "src/data/x.ts": "", "src/envs/x.ts": "" }, says: "README.md: its tree lacks src/envs/" },
  { name: "README has every preset", rule: presetsInReadme, bad: { "README.md": "\n| `gpt-nano` | a GPT | 0.5 | 12 | 64 | 2,000 | 809,856 |\n" }, says: "README.md: has a row that no preset has: | `gpt-nano`" },
  { name: "the lock file is as npm writes it", rule: lockAsWritten, bad: { "package-lock.json": '{"packages": {"a": {"version": "1", "license": "MIT", "dev": true}, "b": {"version": "1", "resolved": "https://here/b.tgz"}}}' }, says: "package-lock.json: a has version, license, dev; npm writes version, dev, license\npackage-lock.json: b has an address" },
  { name: "README has every knob", rule: knobsInReadme, bad: { "README.md": "\n| `run.speed` | `1` | a number | how fast |\n" }, says: "README.md: has a row that no knob has: | `run.speed`" },
];

describe("each rule can fail", () => {
  test.each(rules)("$name", ({ rule, bad, says }) => {
    expect(rule(new Map(Object.entries(bad))).join("\n")).toContain(says);
  });

  test("command lines of README", () => {
    const text = "```sh\n$ egg trian --config a.json\nfor s in 1 2; do ./egg --sed=$s --config egg.json; done | cat --x\negg: a message --no\nEGG_CPU=scalar egg config shw\n```\nSay `egg train --json` or `npm start -- --jsn`, not `leggings --off`.";
    const help = (command: string[]): string =>
      ({ "": "\nCommands:\n  train   t\n  config  c\n\nOptions:\n", config: "\nCommands:\n  show  s\n", train: "      --config FILE  x\n      --json  y\n" })[command.join(" ")]!;
    expect(unknownIn(commandLines(text), help)).toEqual([
      "egg trian --config a.json: no command trian",
      "egg --sed=$s --config egg.json: egg train has no --sed=$s",
      "egg config shw: no command shw",
      "egg --jsn: egg train has no --jsn",
    ]);
  });
});

describe("the project", () => {
  const files = projectFiles();

  test("is read", () => {
    for (const path of ["src/main.ts", "kernels/egg.zig", "scripts/setup.mjs", "tests/tidy.test.ts", "README.md"]) expect([...files.keys()]).toContain(path);
    expect(graphOf(files).get("src/main.ts")).toContain("src/commands/arguments.ts");
  });

  const seen = new Set<Rule>();
  test.each(rules.filter(({ rule }) => !seen.has(rule) && seen.add(rule)))("$name", ({ rule }) => {
    expect(rule(files)).toEqual([]);
  });

  test("knows every command and option that the READMEs show", () => {
    const texts = new Map<string, string>();
    const help = (command: string[]): string => {
      const key = command.join(" ");
      if (!texts.has(key)) texts.set(key, Bun.spawnSync([process.execPath, "src/main.ts", ...command, "--help"], { cwd: root }).stdout.toString());
      return texts.get(key)!;
    };
    expect(help([])).toContain("Commands:");
    const lines = [...files].filter(([path]) => path.endsWith("README.md")).flatMap(([, text]) => commandLines(text));
    expect(lines.length).toBeGreaterThan(5);
    expect(unknownIn(lines, help)).toEqual([]);
  }, 60_000);

  test("has a size to look at", () => {
    const total = (folder: string) => [...files].filter(([path]) => path.startsWith(`${folder}/`) && isSource(path)).reduce((sum, [, text]) => sum + linesOf(text), 0);
    const folders = [...new Set([...files.keys()].map((path) => dirname(path).split("/")[0]!))].filter((folder) => total(folder) > 0);
    const big = [...files].filter(([path, text]) => isSource(path) && linesOf(text) > long).map(([path, text]) => `${path} ${linesOf(text)}`);
    console.log(`lines: ${folders.map((folder) => `${folder} ${total(folder).toLocaleString("en-US")}`).join(", ")}${big.length === 0 ? "" : `; over ${long}: ${big.join(", ")}`}`);
    expect(total("src")).toBeGreaterThan(1000);
  });
});
