// What a model writes, on its way to whoever reads it: ends before a stop string, and never ends in half a character before a pause.
// Not about what is safe to show: text.ts. Not the model. Read next: src/commands/generate.ts and chat.ts, which write what comes out.
import { EggError } from "../errors.ts";
import { sequenceLength } from "./text.ts";

/** Why a text ended: it had all tokens that were asked for, a stop string came, or the model's own end of text. */
export type StoppedBy = "tokens" | "stop" | "end of text";

export interface Continuation {
  /** Takes the bytes of a token; the bytes that are certain now: whole characters, none of them part of a stop string. */
  push(token: Uint8Array): Uint8Array;
  /** A stop string has come: nothing more will come out. */
  readonly stopped: boolean;
  /** The bytes that still waited: half a character, or the begin of a stop string that did not come. */
  end(): Uint8Array;
}

/**
 * The stop strings of a command line as bytes.
 * @throws EggError("usage") for an empty one, which would end every text at once
 */
export function stopStrings(texts: readonly string[]): Uint8Array[] {
  if (texts.includes("")) {
    throw new EggError("usage", "[generate] --stop: found an empty text, allowed is one of at least 1 character.", { hint: "Leave --stop out to write all tokens. A line break is --stop $'\\n'." });
  }
  return texts.map((text) => new TextEncoder().encode(text));
}

/**
 * A text that ends before the first stop string, however tokens cut it: byte by byte, the first to be whole counts, of those
 * that are whole with the same byte the longest.
 * @param afterText a stop string counts only behind something that is no line break: a model may begin its answer with an empty line
 */
export function createContinuation(stops: readonly Uint8Array[], afterText = false): Continuation {
  let waiting: number[] = [];
  let stopped = false;
  let begun = !afterText;

  /** The longest stop string that the waiting bytes end with, in bytes. */
  const ending = (): number => Math.max(0, ...stops.map((stop) => (stop.length <= waiting.length && endsWith(waiting, stop, stop.length) ? stop.length : 0)));
  /** How many of the last waiting bytes may be the begin of a stop string. */
  const beginning = (): number => {
    for (let length = waiting.length; length > 0; length--) if (stops.some((stop) => stop.length > length && endsWith(waiting, stop, length))) return length;
    return 0;
  };
  const release = (kept: number): number[] => waiting.splice(0, waiting.length - kept);

  return {
    push(token) {
      const out: number[] = [];
      for (const byte of token) {
        if (stopped) break;
        waiting.push(byte);
        begun ||= byte !== 10 && byte !== 13;
        const length = begun ? ending() : 0;
        if (length > 0) {
          out.push(...release(length));
          waiting = [];
          stopped = true;
        } else out.push(...release(Math.max(begun ? beginning() : 0, tornLength(waiting))));
      }
      return Uint8Array.from(out);
    },
    get stopped() {
      return stopped;
    },
    end: () => Uint8Array.from(release(0)),
  };
}

/** Whether the last `length` bytes are the first ones of `stop`. */
function endsWith(bytes: readonly number[], stop: Uint8Array, length: number): boolean {
  for (let i = 0; i < length; i++) if (bytes[bytes.length - length + i] !== stop[i]) return false;
  return true;
}

/** How many of the last bytes are the begin of a character of several bytes that may still become whole. */
function tornLength(bytes: readonly number[]): number {
  for (let length = 1; length <= Math.min(3, bytes.length); length++) {
    const byte = bytes[bytes.length - length]!;
    if (byte >= 0x80 && byte < 0xc0) continue; // inside a character
    return sequenceLength(byte) > length ? length : 0;
  }
  return 0;
}
