// `egg completion`: the scripts that let a shell complete egg's commands, options, knobs, run folders and file names, and the words
// that these scripts ask for. The words come from the same tables as the help. Not the parsing: arguments.ts.
import path from "node:path";
import { defineCommand, type CommandDef } from "citty";
import { knobAt, knobs, type Knob } from "../config/knobs.ts";
import { choicesOf } from "../config/presets.ts";
import { createTerminal, isTerminal, writeOut } from "../report/terminal.ts";
import { listRuns } from "../run/folder.ts";
import { helpText, subcommandLine, wantsHelp, type CommandTable, type StrictArg, type StrictArgs } from "./arguments.ts";

/** The program's commands as src/main.ts has them. */
type Commands = Readonly<Record<string, { help: string; load: () => Promise<CommandTable> }>>;

/** A word that may stand next, and what it is for. */
export interface Candidate {
  word: string;
  help: string;
}
/** What the shell completes by itself besides: file names, or those of folders only. */
export interface Completion {
  candidates: Candidate[];
  names: "files" | "folders" | null;
  /** The front of the current word that stays: names go behind it. */
  prefix: string;
}

const nothing: Completion = { candidates: [], names: null, prefix: "" };
const shells = ["bash", "zsh", "fish"] as const;
const helps: Record<string, string> = {
  bash: 'print the script for bash: eval "$(egg completion bash)" in ~/.bashrc',
  zsh: 'print the script for zsh: eval "$(egg completion zsh)" in ~/.zshrc, behind compinit',
  fish: "print the script for fish: egg completion fish > ~/.config/fish/completions/egg.fish",
  words: "print what may stand next; the scripts ask this: egg completion words SHELL -- WORDS",
};

export const commands: Readonly<Record<string, { help: string; args: StrictArgs }>> = Object.fromEntries(Object.entries(helps).map(([name, help]) => [name, { help, args: {} }]));
const root: CommandDef = { meta: { description: "complete egg's words in your shell" }, args: {} };

export async function run(argv: string[], program: Commands): Promise<number> {
  const { command, rest } = subcommandLine("completion", argv, Object.keys(helps));
  if (command === "help") writeOut(helpText("egg completion", root, helps));
  else if (command === "words") {
    const [shell, , ...words] = rest;
    writeOut(listing(await complete(words, program, shell === "bash"), shell === "bash"));
  } else if (wantsHelp({}, rest)) writeOut(helpText(`egg completion ${command}`, defineCommand({ meta: { description: helps[command]! }, args: {} })));
  else {
    writeOut(scripts[command as (typeof shells)[number]]);
    if (isTerminal(1)) createTerminal({ quiet: false }).info(helps[command]!.replace("print the script", "this is the script"));
  }
  return 0;
}

/**
 * What may stand next.
 * @param words those behind "egg", the last one being the one to complete, "" where it is not begun
 * @param parted whether the shell parted words at "=" and ":", as bash does: they are put together again
 */
export async function complete(words: readonly string[], program: Commands, parted = false): Promise<Completion> {
  const [before, current] = split(parted ? joined(words) : words);
  const first = before[0];
  if (first === undefined && !current.startsWith("-")) return starting(current, rows(program));
  const name = first === undefined || first.startsWith("-") ? "train" : first;
  if (!Object.hasOwn(program, name)) return nothing;
  const command = await program[name]!.load();
  const own = name === first ? before.slice(1) : before;
  const args = command.args ?? { help: { type: "boolean", description: "show this help" } };
  const options = first === undefined ? { version: { type: "boolean", description: "print the version" }, ...args } as StrictArgs : args;
  if (command.commands === undefined) return argument(own, current, options);
  const sub = own[0];
  if (sub === undefined) return starting(current, rows(command.commands));
  return Object.hasOwn(command.commands, sub) ? argument(own.slice(1), current, command.commands[sub]!.args) : nothing;
}

function split(words: readonly string[]): [string[], string] {
  return [words.slice(0, -1), words.at(-1) ?? ""];
}

/** bash gives --set run.seed=4 as four words. */
function joined(words: readonly string[]): string[] {
  const whole: string[] = [];
  let glue = false;
  for (const word of words) {
    const part = word === "=" || word === ":";
    if ((part || glue) && whole.length > 0) whole.push(whole.pop()! + word);
    else whole.push(word);
    glue = part;
  }
  return whole;
}

const rows = (table: Readonly<Record<string, { help: string }>>): Candidate[] => Object.entries(table).map(([word, { help }]) => ({ word, help }));
const starting = (current: string, candidates: Candidate[]): Completion => ({ ...nothing, candidates: candidates.filter(({ word }) => word.startsWith(current)) });

/** An option, the value of one, or a word of the command. */
function argument(before: readonly string[], current: string, args: StrictArgs): Completion {
  const all: StrictArgs = { ...args, help: { type: "boolean", alias: "h", description: "show this help" } };
  const optionOf = (word: string): [string, StrictArg] | undefined =>
    Object.entries(all).find(([name, arg]) => arg.type !== "positional" && (word === `--${name}` || ("alias" in arg && [arg.alias].flat().some((alias) => word === `-${alias}`))));
  const given = new Set<string>();
  let awaited: [string, StrictArg] | undefined;
  let taken = 0;
  for (const word of before) {
    const option = awaited === undefined ? optionOf(word.split("=")[0]!) : undefined;
    if (option !== undefined) given.add(option[0]);
    else if (awaited === undefined) taken++;
    awaited = option !== undefined && option[1].type !== "boolean" && !word.includes("=") ? option : undefined;
  }
  if (awaited !== undefined) return valuesOf(awaited, current, "");
  const inline = /^(--[\w-]+)=(.*)$/s.exec(current);
  const option = inline === null ? undefined : optionOf(inline[1]!);
  if (option !== undefined) return valuesOf(option, inline![2]!, `${inline![1]}=`);
  const word = Object.entries(args).filter(([, arg]) => arg.type === "positional").find(([, arg], i) => i >= taken || "repeated" in arg);
  if (word !== undefined && !current.startsWith("-")) return valuesOf(word, current, "");
  const left = Object.entries(all).filter(([name, arg]) => arg.type !== "positional" && (!given.has(name) || "repeated" in arg));
  return starting(current, left.map(([name, arg]) => ({ word: `--${arg.type === "boolean" && arg.default === true ? "no-" : ""}${name}`, help: arg.description ?? "" })));
}

/** Values of an option or a word, by what its row calls them. */
function valuesOf([name, arg]: [string, StrictArg], current: string, prefix: string): Completion {
  const found = (candidates: Candidate[]): Candidate[] => candidates.filter(({ word }) => word.startsWith(current)).map(({ word, help }) => ({ word: prefix + word, help }));
  const words = (list: readonly string[]): Completion => ({ candidates: found(list.map((word) => ({ word, help: "" }))), names: null, prefix });
  if (arg.type === "enum") return words(arg.options ?? []);
  const hint = arg.valueHint ?? "";
  if (hint === "PATH=VALUE") return knobValues(current, prefix);
  if (name === "preset") return words(choicesOf(knobAt("preset")!)!);
  if (arg.type === "positional" && (name === "run" || name === "runs")) {
    const folder = current.includes("/") ? path.dirname(current) : "runs";
    return { candidates: found(listRuns(folder).map((run) => ({ word: current.startsWith("./") ? `./${run}` : run, help: "" }))), names: "files", prefix };
  }
  if (hint === "DIR" || name === "folder") return { candidates: [], names: "folders", prefix };
  if (hint === "FILE" || hint === "PATH" || /\.json$/.test(hint) || name === "file") return { candidates: [], names: "files", prefix };
  return { ...nothing, prefix };
}

/** `path=` of every knob, then its values. */
function knobValues(current: string, prefix: string): Completion {
  const cut = current.indexOf("=");
  if (cut < 0) {
    const paths = knobs.filter((knob) => knob.path.startsWith(current));
    return { candidates: paths.map((knob: Knob) => ({ word: `${prefix}${knob.path}=`, help: knob.help })), names: null, prefix };
  }
  const knob = knobAt(current.slice(0, cut));
  const front = `${prefix}${current.slice(0, cut + 1)}`;
  if (knob === undefined) return nothing;
  if (knob.kind === "string" && knob.form === "path") return { candidates: [], names: knob.path === "run.out" ? "folders" : "files", prefix: front };
  const values = choicesOf(knob) ?? (knob.kind === "boolean" ? ["true", "false"] : knob.kind === "string" ? [] : [String(knob.default)]);
  const typed = current.slice(cut + 1);
  return { candidates: values.filter((value) => value.startsWith(typed)).map((value) => ({ word: front + value, help: value === String(knob.default) ? "default" : "" })), names: null, prefix: front };
}

/** One candidate a line, a tab before its help; a last line ":files PREFIX" or ":folders PREFIX". For bash without what it has already. */
function listing({ candidates, names, prefix }: Completion, parted: boolean): string {
  const behind = (word: string): string => (parted ? word.slice(Math.max(word.slice(0, -1).lastIndexOf("="), word.lastIndexOf(":")) + 1) : word);
  const lines = candidates.filter(({ word }) => !/[\n\t]/.test(word)).map(({ word, help }) => `${behind(word)}\t${help}`);
  if (names !== null) lines.push(`:${names} ${prefix}`);
  return lines.map((line) => `${line}\n`).join("");
}

const scripts: Record<(typeof shells)[number], string> = {
  bash: `# egg's words for bash. In ~/.bashrc: eval "$(egg completion bash)"
_egg() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    case $line in
      ":files "*) compopt -o default ;;
      ":folders "*) compopt -o dirnames ;;
      *) COMPREPLY+=("\${line%%$'\\t'*}") ;;
    esac
  done < <("\${COMP_WORDS[0]}" completion words bash -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  if [[ \${#COMPREPLY[@]} -eq 1 && \${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}
complete -F _egg egg
`,
  zsh: `#compdef egg
# egg's words for zsh. In ~/.zshrc, behind compinit: eval "$(egg completion zsh)"
_egg() {
  local line names
  local -a plain open
  for line in "\${(@f)$("\${(Q)words[1]}" completion words zsh -- "\${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
    case $line in
      :*) names=$line ;;
      *=$'\\t'*) open+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}") ;;
      ?*) plain+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}") ;;
    esac
  done
  (( $#open )) && _describe -V 'knob' open -S ''
  (( $#plain )) && _describe -V 'egg' plain
  (( $#plain )) && return 0
  case $names in *=) compset -P '*=' ;; esac
  case $names in ":files "*) _files ;; ":folders "*) _files -/ ;; esac
  return 0
}
if [ "$funcstack[1]" = "_egg" ]; then _egg "$@"; else compdef _egg egg; fi
`,
  fish: `# egg's words for fish. Put into ~/.config/fish/completions/egg.fish
function __egg_words
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] completion words fish -- $words[2..-1] "$current" 2>/dev/null)
        if string match -qr '^:(files|folders) ' -- $line
            set -l prefix (string replace -r '^:\\w+ ' '' -- $line)
            set -l typed (string sub -s (math (string length -- "$prefix") + 1) -- "$current")
            if string match -q ':folders *' -- $line
                __fish_complete_directories "$typed" | string replace -r '^' -- "$prefix"
            else
                __fish_complete_path "$typed" | string replace -r '^' -- "$prefix"
            end
        else
            echo $line
        end
    end
end
complete -c egg -f -a '(__egg_words)'
`,
};
