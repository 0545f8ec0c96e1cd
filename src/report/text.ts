// Sampled bytes as text that is safe to show: whatever a model says, no control sequence of it reaches the terminal.
// Not for data: `egg generate` into a pipe or a file writes the bytes as they are.
// Next: terminal.ts, which prints what is made here.

import { makeColors } from "./terminal.ts";
import type { Colors } from "./terminal.ts";

/** Turns bytes that come piece by piece into printable text. */
export interface TextStream {
  /** The text of these bytes, as far as it is whole: the begin of a character waits for the rest of it. */
  push(bytes: Uint8Array): string;
  /** The text of what still waited: the bytes of a character that never became whole, as escapes. */
  end(): string;
}

/** A prompt with what a model wrote after it, as bytes: a character may begin in one and end in the other. */
export interface Sample {
  prompt: Uint8Array;
  continuation: Uint8Array;
}

/** How byte 0 is shown, which stands between documents: as a line of its own. */
export const separatorLine = "─".repeat(24);

/**
 * A stream of printable text. UTF-8 is decoded strictly; newlines and tabs are kept; every byte that is invalid, or part
 * of a character that could steer a terminal or hide text, is shown as \xNN; byte 0 becomes a line, in dim colour.
 */
export function createTextStream(colors: Colors): TextStream {
  let waiting: number[] = []; // the first bytes of a character, all valid so far
  let atLineStart = true;

  const emit = (text: string): string => {
    atLineStart = text.endsWith("\n");
    return text;
  };
  const separator = (): string => emit(`${atLineStart ? "" : "\n"}${colors.dim(separatorLine)}\n`);
  const giveUp = (): string => {
    const escaped = waiting.map(escapeByte).join("");
    waiting = [];
    return escaped === "" ? "" : emit(escaped);
  };
  const take = (byte: number): string => {
    if (waiting.length > 0) {
      if (!continues(waiting, byte)) return giveUp() + take(byte);
      waiting.push(byte);
      if (waiting.length < sequenceLength(waiting[0]!)) return "";
      const bytes = waiting;
      waiting = [];
      const character = decoder.decode(Uint8Array.from(bytes));
      return emit(unsafeCharacter.test(character) ? bytes.map(escapeByte).join("") : character);
    }
    if (byte === 0) return separator();
    if (byte < 0x80) return emit(isShown(byte) ? String.fromCharCode(byte) : escapeByte(byte));
    if (sequenceLength(byte) === 0) return emit(escapeByte(byte));
    waiting = [byte];
    return "";
  };
  return {
    push(bytes) {
      let text = "";
      for (const byte of bytes) text += take(byte);
      return text;
    },
    end: giveUp,
  };
}

/** A sample for a terminal: prompt and continuation in two colours, or with » between them where colours are off. */
export function showSample(sample: Sample, colors: Colors): string {
  const stream = createTextStream(colors);
  const prompt = stream.push(sample.prompt);
  const continuation = stream.push(sample.continuation) + stream.end();
  if (!colors.on) return `${prompt}»${continuation}`;
  return colors.green(prompt) + colors.cyan(continuation);
}

/** A sample for samples.txt: its step, the prompt, », what the model wrote, and an empty line. */
export function plainSample(step: number, sample: Sample): string {
  return `=== step ${step}\n${showSample(sample, makeColors(false))}\n\n`;
}

// A byte order mark is a character like any other here: without ignoreBOM it would vanish.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

// C1 controls (some terminals obey them like ESC), line and paragraph separators, marks that turn the writing
// direction, and characters that cannot be seen at all.
const unsafeCharacter = /[\u0080-\u009f\u2028\u2029\ufeff\u{e0000}-\u{e0fff}]|\p{Bidi_Control}/u;

function isShown(byte: number): boolean {
  return (byte >= 0x20 && byte < 0x7f) || byte === 0x0a || byte === 0x09;
}

function escapeByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, "0")}`;
}

/** Bytes of the character that this byte begins; 0 where no character of several bytes can begin with it. */
export function sequenceLength(first: number): number {
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  if (first >= 0xf0 && first <= 0xf4) return 4;
  return 0;
}

// The second byte has a narrower range after some first bytes: no overlong forms, no surrogates, nothing past U+10FFFF.
function continues(waiting: readonly number[], byte: number): boolean {
  const first = waiting[0]!;
  if (waiting.length > 1) return byte >= 0x80 && byte <= 0xbf;
  const low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
  const high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
  return byte >= low && byte <= high;
}
