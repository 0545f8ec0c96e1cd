// Lines from whoever talks to egg: on a terminal with editing and history (node:readline), else as the bytes of a pipe or file.
// Not what the lines mean. Outside of next() the terminal is as the shell left it, so that Ctrl-C is a signal.
// Read next: src/commands/chat.ts.
import { createTerminal, isTerminal } from "./terminal.ts";

export interface Lines {
  /** Whether a person edits the lines on a terminal. */
  readonly edited: boolean;
  /** The next line without its end; null where there are no more (Ctrl-D). `prompt` is shown where lines are edited. */
  next(prompt: string): Promise<Uint8Array | null>;
  /** Gives the terminal back. */
  close(): void;
}

/** Standard input by lines. `interrupt` is called at a Ctrl-C during next() on a terminal; elsewhere that is a signal. */
export function openLines(interrupt: () => void): Lines {
  const screen = [2, 1].find(isTerminal);
  return screen === undefined || !isTerminal(0) || process.env.TERM === "dumb" ? plainLines() : editedLines(screen, interrupt);
}

function plainLines(): Lines {
  const lines = byLines(Bun.stdin.stream());
  return {
    edited: false,
    next: async () => (await lines.next()).value ?? null,
    close() {},
  };
}

/** What stands between line ends, "\n" or "\r\n"; a last line may lack its end. */
async function* byLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let open: Uint8Array[] = [];
  const line = (): Uint8Array => {
    const bytes = Buffer.concat(open);
    open = [];
    return bytes.at(-1) === 13 ? bytes.subarray(0, -1) : bytes;
  };
  for await (const chunk of chunks) {
    let from = 0;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      open.push(chunk.slice(from, at));
      yield line();
      from = at + 1;
    }
    if (from < chunk.length) open.push(chunk.slice(from));
  }
  if (open.length > 0) yield line();
}

function editedLines(screen: number, interrupt: () => void): Lines {
  const { createInterface } = process.getBuiltinModule("node:readline");
  const { WriteStream } = process.getBuiltinModule("node:tty");
  const input = process.stdin;
  const editor = createInterface({ input, output: new WriteStream(screen), terminal: true, historySize: 1000 });
  // Several lines may come at once, pasted or typed ahead.
  const come: Uint8Array[] = [];
  let ended = false;
  let wake = (): void => {};
  editor.on("line", (line) => {
    come.push(new TextEncoder().encode(line));
    wake();
  });
  editor.on("close", () => {
    ended = true;
    wake();
  });
  editor.on("SIGINT", () => {
    createTerminal({ quiet: false }).print("^C"); // as the terminal itself shows it, and a line of its own for what follows
    interrupt();
  });
  const raw = (on: boolean): void => void input.setRawMode(on);
  raw(false);
  return {
    edited: true,
    async next(prompt) {
      if (come.length === 0 && !ended) {
        raw(true);
        editor.setPrompt(prompt);
        editor.prompt();
        await new Promise<void>((resolve) => (wake = resolve));
        if (!ended) editor.pause();
        raw(false);
      }
      const line = come.shift();
      if (line === undefined) createTerminal({ quiet: false }).print(""); // the shell's prompt begins a line of its own
      return line ?? null;
    },
    close() {
      if (ended) return;
      editor.close();
      raw(false);
    },
  };
}
