// Follows metrics.jsonl of a run while it grows, is cut back by a resume, or starts over; keeps curves of bounded size of it.
// Reads only what is new, and never fails on what it finds: a torn end waits, a line that is none is counted and left out.
// The format is that of src/run/metrics.ts. Read next: dashboard.ts, which sends these curves to the page.
import fs from "node:fs";
import { parseLine, type MetricsLine } from "../run/metrics.ts";
import { isFigure } from "./runs.ts";

/** A point of a curve: `lines` lines of metrics after each other. Of each value the mean, the least and the greatest; null where none is a number. */
export interface Point {
  lines: number;
  /** Of the last line. */
  step: number;
  seconds: number;
  mean: (number | null)[];
  min: (number | null)[];
  max: (number | null)[];
}

/**
 * Lines of metrics as at most `limit` points. As long as there are fewer lines, each is a point of its own; then two
 * neighbours become one, and from then on twice as many lines make a point: no extreme is ever lost.
 */
export class Curve {
  readonly #keys: readonly (keyof MetricsLine)[];
  readonly #limit: number;
  #counts: number[][] = [];
  #linesPerPoint = 1;
  points: Point[] = [];
  /** Goes up whenever points that were there have changed, but for the last one. */
  generation = 0;

  /** @param limit an even number */
  constructor(keys: readonly (keyof MetricsLine)[], limit: number) {
    this.#keys = keys;
    this.#limit = limit;
  }

  add(line: MetricsLine): void {
    const values = this.#keys.map((key) => (isFigure(line[key]) ? (line[key] as number) : null));
    const seconds = isFigure(line.seconds) ? line.seconds : 0;
    this.#push({ lines: 1, step: line.step, seconds, mean: values, min: [...values], max: [...values] }, values.map((value) => (value === null ? 0 : 1)));
    if (this.points.length <= this.#limit) return;
    const [points, counts] = [this.points, this.#counts];
    [this.points, this.#counts] = [[], []];
    this.#linesPerPoint *= 2;
    this.generation++;
    points.forEach((point, at) => this.#push(point, counts[at]!));
  }

  clear(): void {
    if (this.points.length > 0) this.generation++;
    [this.points, this.#counts, this.#linesPerPoint] = [[], [], 1];
  }

  #push(point: Point, counts: number[]): void {
    const last = this.points.at(-1);
    if (last === undefined || last.lines + point.lines > this.#linesPerPoint) {
      this.points.push(point);
      this.#counts.push(counts);
      return;
    }
    const known = this.#counts.at(-1)!;
    counts.forEach((count, i) => {
      if (count === 0) return;
      const before = known[i]!;
      known[i] = before + count;
      last.mean[i] = before === 0 ? point.mean[i]! : last.mean[i]! + ((point.mean[i]! - last.mean[i]!) * count) / (before + count);
      last.min[i] = before === 0 ? point.min[i]! : Math.min(last.min[i]!, point.min[i]!);
      last.max[i] = before === 0 ? point.max[i]! : Math.max(last.max[i]!, point.max[i]!);
    });
    last.lines += point.lines;
    [last.step, last.seconds] = [point.step, point.seconds];
  }
}

const chunkBytes = 1024 * 1024;

/** The place up to which a file of lines was read, and how to tell that it is still the same file up to there. */
export class Tail {
  readonly #file: string;
  #offset = 0;
  /** The last line that was read, with its newline: another one at its place means that the file was rewritten. */
  #last = Buffer.alloc(0);
  /** Lines that could not be read. */
  unreadable = 0;

  constructor(file: string) {
    this.#file = file;
  }

  /**
   * Gives the whole lines that came since the last call. A line without its newline waits for the next call.
   * @param onRestart called before the first line where the file is another than before, or gone: all that was given is void
   * @throws the system's error where the file is there and cannot be read
   */
  async read(onLine: (line: MetricsLine) => void, onRestart: () => void): Promise<void> {
    const descriptor = this.#open();
    try {
      if (this.#offset > 0 && (descriptor === null || !this.#isSame(descriptor))) {
        this.#offset = this.unreadable = 0;
        this.#last = Buffer.alloc(0);
        onRestart();
      }
      if (descriptor === null) return;
      const chunk = Buffer.alloc(Math.min(chunkBytes, Math.max(0, fs.fstatSync(descriptor).size - this.#offset)));
      for (let size = -1; chunk.length > 0; ) {
        size = fs.readSync(descriptor, chunk, 0, chunk.length, this.#offset);
        const end = chunk.subarray(0, size).lastIndexOf(0x0a) + 1;
        if (size === 0 || (end === 0 && size < chunkBytes)) return;
        if (end === 0) {
          this.#offset += size; // a megabyte without a newline
          this.unreadable++;
          continue;
        }
        for (let start = 0, next: number; start < end; start = next) {
          next = chunk.indexOf(0x0a, start) + 1;
          const line = parseLine(chunk.subarray(start, next - 1));
          if (line === null) this.unreadable++;
          else onLine(line);
          if (next === end) this.#last = Buffer.from(chunk.subarray(start, end));
        }
        this.#offset += end;
        await new Promise((resume) => setImmediate(resume)); // a long file must not hold up other requests
      }
    } finally {
      if (descriptor !== null) fs.closeSync(descriptor);
    }
  }

  #open(): number | null {
    try {
      const descriptor = fs.openSync(this.#file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK); // never waits for a pipe
      if (fs.fstatSync(descriptor).isFile()) return descriptor;
      fs.closeSync(descriptor);
      return null;
    } catch (error) {
      if (["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) return null;
      throw error;
    }
  }

  #isSame(descriptor: number): boolean {
    const now = Buffer.alloc(this.#last.length);
    const size = fs.readSync(descriptor, now, 0, now.length, this.#offset - now.length);
    return size === now.length && now.equals(this.#last);
  }
}
