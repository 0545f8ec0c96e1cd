// Curves and tables in text, for a terminal or a pipe: braille dots where they can be shown, letters where not.
// Not the live line of a run (progress.ts) and not the picture (svg.ts). The numbers come from curves.ts.
import { tickText, ticks, type AxisUnit, type Series } from "./curves.ts";
import { makeColors, type Colors } from "./terminal.ts";
import { createTextStream } from "./text.ts";

export interface TextChart {
  title: string;
  x: AxisUnit;
  yLabel: string;
  series: readonly Series[];
  /** In words below the picture. */
  floor: string | null;
  columns: number;
  rows: number;
  colors: Colors;
  /** Braille dots; letters otherwise. */
  unicode: boolean;
}

/**
 * Whether the terminal can be expected to show braille: everything but a locale that says otherwise (LC_ALL=C) and the
 * plain Linux console. No locale at all is common in containers, behind terminals that can.
 */
export function showsUnicode(env: Record<string, string | undefined> = process.env): boolean {
  const locale = env["LC_ALL"] || env["LC_CTYPE"] || env["LANG"] || "";
  return (locale === "" || /utf-?8/i.test(locale)) && env["TERM"] !== "linux" && env["TERM"] !== "dumb";
}

/** Text of a file or a command line for one line of a table: no control character, no line break, at most `longest` characters. */
export function cell(text: string, longest = 60): string {
  const stream = createTextStream(makeColors(false));
  const safe = (stream.push(new TextEncoder().encode(text.replaceAll("\0", "\\x00"))) + stream.end()).replaceAll("\n", "\\n").replaceAll("\t", "\\t");
  const characters = [...safe];
  return characters.length <= longest ? safe : `${characters.slice(0, longest - 1).join("")}…`;
}

/** Rows in columns, two spaces apart; the first row is the head. `right`: columns whose text stands to the right. */
export function table(rows: readonly (readonly string[])[], right: readonly number[], colors: Colors): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => Bun.stringWidth(row[column] ?? ""))));
  const padded = (text: string, column: number): string => {
    const space = " ".repeat(Math.max(0, widths[column]! - Bun.stringWidth(text)));
    return right.includes(column) ? space + text : text + space;
  };
  return rows.map((row, i) => {
    const line = row.map(padded).join("  ").trimEnd();
    return `${i === 0 ? colors.bold(line) : line}\n`;
  }).join("");
}

/** The curves with axes, round ticks and a legend; a newline at the end. All series need a point. */
export function textChart(chart: TextChart): string {
  const { series, x, colors } = chart;
  const points = series.flatMap((each) => each.points);
  const [low, high] = points.reduce<[number, number]>(([least, most], { y }) => [Math.min(least, y), Math.max(most, y)], [Infinity, -Infinity]);
  const span = Math.max(high - low, 0.02);
  const lastX = points.reduce((most, point) => Math.max(most, point.x / x.unit), 0) || 1;
  const ys = ticks(low, low + span, Math.max(2, Math.floor(chart.rows / 4)));
  const labels = ys.values.map((value) => tickText(value, ys.decimals));
  const left = Math.max(...labels.map((label) => label.length));
  const canvas = new Canvas(Math.max(10, chart.columns - left - 2), chart.rows, chart.unicode && (series.length === 1 || colors.on));
  series.forEach(({ points: own }, index) => {
    canvas.curve(index, own.map((point) => [point.x / x.unit / lastX, (point.y - low) / span]));
  });
  const lines = canvas.lines((text, index) => paint(text, index, series.length, colors));
  const rule = chart.unicode ? { bar: "│", tick: "┤", corner: "└", flat: "─", down: "┬" } : { bar: "|", tick: "+", corner: "+", flat: "-", down: "+" };
  const tickRow = new Map(ys.values.map((value, i) => [Math.min(chart.rows - 1, Math.floor((1 - (value - low) / span) * chart.rows)), labels[i]!]));
  const body = lines.map((line, row) => `${colors.dim((tickRow.get(row) ?? "").padStart(left) + (tickRow.has(row) ? rule.tick : rule.bar))}${line}`.trimEnd());
  const legend = series.length < 2 ? [] : series.map((each, index) => `${" ".repeat(left + 1)}${paint(canvas.mark(index), index, series.length, colors)} ${cell(each.label, 100)}`);
  return [
    `${colors.bold(cell(chart.title, 200))}  ${colors.dim(chart.yLabel)}`,
    ...body,
    ...xAxis(lastX, canvas.width, left, rule, x).map((line) => colors.dim(line)),
    ...legend,
    ...(chart.floor === null ? [] : [colors.dim(`${" ".repeat(left + 1)}${chart.floor}`)]),
    "",
  ].join("\n");
}

function xAxis(last: number, width: number, left: number, rule: { corner: string; flat: string; down: string }, x: AxisUnit): string[] {
  const { values, decimals } = ticks(0, last, Math.max(2, Math.floor(width / 14)), x.label === "steps");
  const line = Array.from({ length: width }, () => rule.flat);
  let words = "";
  for (const value of values) {
    const at = Math.min(width - 1, Math.floor((value / last) * width));
    line[at] = rule.down;
    const word = tickText(value, decimals);
    const start = Math.max(0, Math.min(at - Math.floor(word.length / 2), width - word.length));
    if (start >= words.length + (words === "" ? 0 : 1)) words = words.padEnd(start) + word;
  }
  return [`${" ".repeat(left)}${rule.corner}${line.join("")}`, `${" ".repeat(left + 1)}${words}`, `${" ".repeat(left + 1)}${x.label.padStart(Math.floor((width + x.label.length) / 2))}`];
}

function paint(text: string, index: number, count: number, colors: Colors): string {
  const order = [colors.cyan, colors.yellow, colors.green, colors.red, colors.bold, colors.dim] as const;
  return count < 2 ? colors.cyan(text) : order[index % order.length]!(text);
}

/** A field of characters that curves are drawn into, from the lower left (0, 0) to the upper right (1, 1). */
class Canvas {
  readonly width: number;
  readonly #height: number;
  readonly #braille: boolean;
  /** Dots of each cell (braille), and which curve was there last (-1: none). */
  readonly #dots: Uint8Array;
  readonly #owner: Int16Array;

  constructor(width: number, height: number, braille: boolean) {
    this.width = width;
    this.#height = height;
    this.#braille = braille;
    this.#dots = new Uint8Array(width * height);
    this.#owner = new Int16Array(width * height).fill(-1);
  }

  /** How a curve is marked in the legend. */
  mark(index: number): string {
    return this.#braille ? "⠶⠶" : String.fromCharCode(65 + (index % 26));
  }

  curve(index: number, points: readonly (readonly [number, number])[]): void {
    const [columns, rows] = this.#braille ? [this.width * 2, this.#height * 4] : [this.width, this.#height];
    const at = ([x, y]: readonly [number, number]): [number, number] => [Math.min(columns - 1, Math.floor(x * columns)), Math.max(0, Math.min(rows - 1, Math.floor((1 - y) * rows)))];
    let previous = at(points[0]!);
    for (const point of points) {
      const next = at(point);
      const length = Math.max(Math.abs(next[0] - previous[0]), Math.abs(next[1] - previous[1]), 1);
      for (let i = 0; i <= length; i++) {
        this.#set(Math.round(previous[0] + ((next[0] - previous[0]) * i) / length), Math.round(previous[1] + ((next[1] - previous[1]) * i) / length), index);
      }
      previous = next;
    }
  }

  #set(column: number, row: number, index: number): void {
    const [wide, high] = this.#braille ? [2, 4] : [1, 1];
    const place = Math.floor(row / high) * this.width + Math.floor(column / wide);
    // Bits of U+2800: the left column is 1, 2, 4, 64 from above, the right one 8, 16, 32, 128.
    this.#dots[place]! |= this.#braille ? [[1, 8], [2, 16], [4, 32], [64, 128]][row % 4]![column % 2]! : 1;
    this.#owner[place] = index;
  }

  lines(colour: (text: string, index: number) => string): string[] {
    return Array.from({ length: this.#height }, (_, row) => {
      let [line, run, owner] = ["", "", -1];
      for (let column = 0; column <= this.width; column++) {
        const place = row * this.width + column;
        const next = column < this.width ? this.#owner[place]! : -2;
        if (next !== owner) {
          line += owner < 0 ? run : colour(run, owner);
          [run, owner] = ["", next];
        }
        if (column < this.width) run += next < 0 ? " " : this.#braille ? String.fromCharCode(0x2800 + this.#dots[place]!) : this.mark(next);
      }
      return line;
    });
  }
}
