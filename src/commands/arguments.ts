// The strict front of the command line: which command, which options, and the help text, from citty's argument tables.
// Not citty's own parser, which lets unknown options, extra words and missing values pass. Nothing here prints or exits.
// Read next: src/main.ts, which calls this, and any command's file for a table.

import type { ArgsDef, BooleanArgDef, CommandDef, EnumArgDef, PositionalArgDef, StringArgDef } from "citty";
import { parseArgs } from "node:util";
import { knobs, numberFromText } from "../config/knobs.ts";
import { nearest } from "../config/nearest.ts";
import { EggError } from "../errors.ts";

/** A text or, with `kind`, a number within inclusive limits (`default` stays text, as citty has it); `repeated` options may be given often. */
export type TextArg = StringArgDef & { type: "string"; kind?: "integer" | "number"; min?: number; max?: number; repeated?: true };
/** A word; required unless it says otherwise or has a default. Only the last may be `repeated`. */
export type WordArg = PositionalArgDef & { type: "positional"; repeated?: true };
export type StrictArg = TextArg | WordArg | (BooleanArgDef & { type: "boolean" }) | (EnumArgDef & { type: "enum" });
/** A citty table whose rows say more; an alias is one letter. Write `const args = { … } satisfies StrictArgs` and give it to defineCommand too. */
export type StrictArgs = Record<string, StrictArg>;

/** What a command's file exports besides `run`: its own table, or those of its subcommands. Completion reads it. */
export interface CommandTable {
  args?: StrictArgs;
  commands?: Readonly<Record<string, { help: string; args: StrictArgs }>>;
}

type Present<A, V> = A extends { default: string } | { required: true } ? V : A extends { type: "positional" } ? (A extends { required: false } ? V | undefined : V) : V | undefined;
type ValueOf<A> = A extends { type: "boolean" } ? boolean : Present<A, A extends { kind: string } ? number : string>;

export interface Parsed<T extends StrictArgs> {
  /** Booleans are false unless given or true by default; anything else left out is its default or undefined. */
  values: { [K in keyof T as T[K] extends { repeated: true } ? never : K]: ValueOf<T[K]> };
  /** All values of each repeated option and word, in order; empty where none was given. */
  repeated: { [K in keyof T as T[K] extends { repeated: true } ? K : never]: (T[K] extends { kind: string } ? number : string)[] };
}

const help = { type: "boolean", alias: "h", description: "show this help" } as const;

function wrong(message: string, hint?: string): never {
  throw new EggError("usage", message, hint === undefined ? {} : { hint });
}

function orNear(word: string, candidates: Iterable<string>, prefix = ""): string {
  const near = nearest(word, candidates);
  return near === undefined ? "" : `; did you mean ${prefix}${near}?`;
}

/**
 * The command of a whole argv (without the program). "train" is put in where argv is empty or begins with an option; help, -h, --help, -v
 * and --version in front give the commands "help" and "version". Throws EggError("usage") for a word that is none of `names`.
 */
export function commandLine(argv: readonly string[], names: readonly string[]): { command: string; rest: string[] } {
  const [first, ...rest] = argv;
  if (first === "-h" || first === "--help" || first === "help") return { command: "help", rest };
  if (first === "-v" || first === "--version") return { command: "version", rest };
  if (first === undefined || first.startsWith("-")) return { command: "train", rest: [...argv] };
  if (names.includes(first)) return { command: first, rest };
  const config = /\.jsonc?$/.test(first) ? `; for a config write egg --config ${first}` : orNear(first, names);
  return wrong(`unknown command ${JSON.stringify(first)}${config}`, `the commands: ${names.join(", ")}; egg --help tells more`);
}

/** The same for a group such as "config": its command comes first, there is no default; -h and --help give "help". */
export function subcommandLine(group: string, argv: readonly string[], names: readonly string[]): { command: string; rest: string[] } {
  const [first, ...rest] = argv;
  if (first === "-h" || first === "--help") return { command: "help", rest };
  if (first !== undefined && names.includes(first)) return { command: first, rest };
  const hint = `write egg ${group} ${names.join("|")}`;
  if (first === undefined || first.startsWith("-")) return wrong(`egg ${group} needs a command${first === undefined ? "" : ` before ${first}`}`, hint);
  return wrong(`unknown command egg ${group} ${JSON.stringify(first)}${orNear(first, names, `egg ${group} `)}`, hint);
}

type Token =
  | { kind: "option"; index: number; name: string; rawName: string; value?: string; inlineValue?: boolean }
  | { kind: "positional"; index: number; value: string }
  | { kind: "option-terminator"; index: number };

function aliases(arg: StrictArg): string[] {
  return "alias" in arg && arg.alias !== undefined ? [arg.alias].flat() : [];
}

/** node:util cuts argv into options and words; options that it does not know come out with their names. */
function tokensOf(args: StrictArgs, argv: readonly string[]): Token[] {
  const options = Object.entries({ help, ...args } as StrictArgs).flatMap(([name, arg]) => {
    if (arg.type === "positional") return [];
    const short = aliases(arg).find((alias) => alias.length === 1);
    return [[name, { type: arg.type === "boolean" ? "boolean" : "string", multiple: true, ...(short === undefined ? {} : { short }) }] as const];
  });
  return parseArgs({ args: [...argv], options: Object.fromEntries(options) as {}, strict: false, allowPositionals: true, tokens: true }).tokens as Token[];
}

/** Whether -h or --help stands among the options (not as another option's value, nor after --). Ask before parseArguments. */
export function wantsHelp(args: StrictArgs, argv: readonly string[]): boolean {
  return tokensOf(args, argv).some((token) => token.kind === "option" && token.name === "help") || argv.slice(0, argv.includes("--") ? argv.indexOf("--") : undefined).includes("--help");
}

/**
 * The values of a command's arguments, strictly: throws EggError("usage") for the first unknown option (with the near name), value that is
 * missing or out of range, value on a switch, option given twice, word too many or too few. `command` is "train" or "config init".
 */
export function parseArguments<const T extends StrictArgs>(command: string, args: T, argv: readonly string[]): Parsed<T> {
  const values: Record<string, unknown> = {};
  const repeated: Record<string, unknown[]> = {};
  const words: string[] = [];
  const given = new Set<string>();
  const hint = `egg ${command} --help shows what it takes`;
  for (const token of tokensOf(args, argv)) {
    if (token.kind === "positional") words.push(token.value);
    if (token.kind !== "option") continue;
    const { name, value } = readOption(args, token, argv, hint);
    if (name === "help") continue;
    if (takesMany(args[name]!)) (repeated[name] ??= []).push(value);
    else if (given.has(name)) wrong(`--${name} is given twice`, hint);
    else values[name] = value;
    given.add(name);
  }
  takeWords(command, args, words, values, repeated, hint);
  for (const [name, arg] of Object.entries(args)) {
    if (takesMany(arg)) repeated[name] ??= [];
    else if (arg.type === "boolean") values[name] ??= arg.default ?? false;
    else if (values[name] === undefined && arg.default !== undefined) values[name] = checked(name, arg, arg.default, hint);
    if (arg.type !== "positional" && arg.required === true && values[name] === undefined && !repeated[name]?.length) wrong(`--${name} is missing`, hint);
  }
  return { values, repeated } as unknown as Parsed<T>;
}

function takesMany(arg: StrictArg): boolean {
  return "repeated" in arg && arg.repeated === true;
}

/** The option that a token means, checked: its table name and its value. */
function readOption(args: StrictArgs, token: Token & { kind: "option" }, argv: readonly string[], hint: string): { name: string; value: unknown } {
  const { rawName, inlineValue, value } = token;
  const long = rawName.startsWith("--");
  const word = argv[token.index]!;
  const bare = word.slice(1).split("=")[0]!;
  // -config is -c with the value "onfig" to every parser of short options, and to no person.
  if (!long && bare.length > 1 && isOption(args, bare)) wrong(`unknown option -${bare}; did you mean --${bare}?`, hint);
  if (long && token.name.startsWith("no-") && !isOption(args, token.name)) {
    const name = token.name.slice(3);
    const arg = isOption(args, name) ? args[name] : undefined;
    if (arg?.type === "boolean" && arg.default === true) {
      return value === undefined ? { name, value: false } : wrong(`${rawName} takes no value, found ${JSON.stringify(value)}`, hint);
    }
  }
  if (token.name === "help" && args["help"] === undefined) return { name: "help", value: true };
  if (!isOption(args, token.name)) return unknownOption(args, token, hint);
  const arg = args[token.name]!;
  if (arg.type === "boolean") {
    return value === undefined ? { name: token.name, value: true } : wrong(`${rawName} takes no value, found ${JSON.stringify(value)}`, hint);
  }
  const shape = `${rawName} ${valueName(token.name, arg)}`;
  if (value === undefined) wrong(`${rawName} needs a value: ${shape}`, hint);
  if (inlineValue === false && (value.startsWith("--") || isShort(args, value))) {
    wrong(`${rawName} needs a value, found the option ${value}; to give that as the value write --${token.name}=${value}`, hint);
  }
  if (inlineValue === true && !long && value.startsWith("=")) wrong(`${word} has a stray "="; write --${token.name}${value} or ${rawName} ${value.slice(1)}`, hint);
  return { name: token.name, value: checked(token.name, arg, value, hint) };
}

function isOption(args: StrictArgs, name: string): boolean {
  return name === "help" || (Object.hasOwn(args, name) && args[name]!.type !== "positional");
}

function isShort(args: StrictArgs, text: string): boolean {
  return text === "-h" || (/^-[^-]$/.test(text) && Object.values(args).some((arg) => aliases(arg).includes(text.slice(1))));
}

function unknownOption(args: StrictArgs, { name, rawName }: Token & { kind: "option" }, hint: string): never {
  const known = [...Object.keys(args).filter((key) => isOption(args, key)), "help"];
  // A knob's name is the commonest wrong option: --steps for --set run.steps=…
  const knob = Object.hasOwn(args, "set") ? knobs.find(({ path }) => path === name || path.endsWith(`.${name}`)) : undefined;
  const near = !rawName.startsWith("--") ? "" : knob === undefined ? orNear(name, known, "--") : `; did you mean --set ${knob.path}=…?`;
  return wrong(`unknown option ${rawName}${near}`, hint);
}

function takeWords(command: string, args: StrictArgs, words: string[], values: Record<string, unknown>, repeated: Record<string, unknown[]>, hint: string): void {
  let taken = 0;
  for (const [name, arg] of Object.entries(args)) {
    if (arg.type !== "positional") continue;
    if (takesMany(arg)) {
      repeated[name] = words.slice(taken);
      if (taken === words.length && arg.required !== false) wrong(`egg ${command} needs ${valueName(name, arg)}`, hint);
      taken = words.length;
    } else if (taken < words.length) values[name] = words[taken++];
    else if (arg.default === undefined && arg.required !== false) wrong(`egg ${command} needs ${valueName(name, arg)}`, hint);
  }
  if (taken < words.length) wrong(`unexpected word ${JSON.stringify(words[taken])} for egg ${command}`, `${hint}; a command comes before its options`);
}

/** A value as its row wants it; a number where `kind` says so. */
function checked(name: string, arg: StrictArg, text: string, hint: string): string | number {
  if (arg.type === "enum" && !(arg.options ?? []).includes(text)) {
    wrong(`--${name}: found ${JSON.stringify(text)}, allowed ${(arg.options ?? []).join(", ")}${orNear(text, arg.options ?? [])}`, hint);
  }
  if (arg.type !== "string" || arg.kind === undefined) return text;
  const value = numberFromText(text);
  const good = value !== undefined && value >= (arg.min ?? -Infinity) && value <= (arg.max ?? Infinity) && (arg.kind === "number" || Number.isSafeInteger(value));
  return good ? value : wrong(`--${name}: found ${JSON.stringify(text)}, allowed ${range(arg)}`, hint);
}

function range({ kind, min, max }: TextArg): string {
  const what = kind === "integer" ? "a whole number" : "a number";
  if (min === undefined) return max === undefined ? what : `${what} of at most ${max}`;
  return max === undefined ? `${what} of at least ${min}` : `${what} from ${min} to ${max}`;
}

function valueName(name: string, arg: StrictArg): string {
  if (arg.type === "enum") return (arg.options ?? []).join("|");
  return arg.valueHint ?? (arg.type === "string" && arg.kind !== undefined ? "N" : name.toUpperCase());
}

/**
 * The help of a command: usage, words, options with defaults and ranges, and `commands` (name to one line) for a group or the program
 * itself. Plain text without colours, a newline at the end. `meta` and `args` of the command must be plain tables; `name` is "egg generate".
 */
export function helpText(name: string, command: CommandDef<any>, commands: Readonly<Record<string, string>> = {}): string {
  const description = (command.meta as { description?: string } | undefined)?.description ?? "";
  const args = ((command.args ?? {}) as ArgsDef) as StrictArgs;
  const all = Object.entries({ ...args, ...(args["help"] === undefined ? { help } : {}) } as StrictArgs);
  const usage = [name];
  const wordRows: string[][] = [];
  const optionRows: string[][] = [];
  if (Object.keys(commands).length > 0) usage.push("COMMAND");
  for (const [key, arg] of all) {
    if (arg.type === "positional") {
      const word = valueName(key, arg) + (takesMany(arg) ? "..." : "");
      usage.push(arg.required === false || arg.default !== undefined ? `[${word}]` : word);
      wordRows.push([word, notes(arg)]);
    } else {
      const shorts = aliases(arg).map((alias) => `-${alias}, `).join("");
      const negative = arg.type === "boolean" && arg.default === true ? "no-" : "";
      const option = `${shorts}--${negative}${key}${arg.type === "boolean" ? "" : ` ${valueName(key, arg)}`}`;
      optionRows.push([shorts === "" ? `    ${option}` : option, notes(arg)]);
      if (arg.type !== "boolean" && arg.required === true) usage.push(`--${key} ${valueName(key, arg)}`);
    }
  }
  usage.push("[options]");
  const width = Math.max(...[...wordRows, ...optionRows, ...Object.entries(commands)].map(([left]) => left!.length));
  const block = (title: string, rows: string[][]) => (rows.length === 0 ? [] : ["", title, ...rows.map(([left, right]) => `  ${left!.padEnd(width)}  ${right}`.trimEnd())]);
  const lines = [`${name}: ${description}`, "", `Usage: ${usage.join(" ")}`];
  lines.push(...block("Commands:", Object.entries(commands)), ...block("Words:", wordRows), ...block("Options:", optionRows));
  if (Object.keys(commands).length > 0) lines.push("", `${name} COMMAND --help tells more about one.`);
  return `${lines.join("\n")}\n`;
}

function notes(arg: StrictArg): string {
  const extra: string[] = [];
  if (arg.type === "string" && arg.kind !== undefined) extra.push(range(arg));
  if (arg.type !== "boolean" && arg.default !== undefined) extra.push(`default: ${arg.default === "" ? '""' : arg.default}`);
  if (arg.type !== "positional" && takesMany(arg)) extra.push("may be repeated");
  const text = arg.type === "boolean" && arg.default === true ? (arg.negativeDescription ?? `turn off: ${arg.description}`) : (arg.description ?? "");
  return extra.length === 0 ? text : `${text} (${extra.join("; ")})`;
}
