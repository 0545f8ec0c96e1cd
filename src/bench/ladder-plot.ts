// The ladder as text tables and bars, as an SVG picture, and as a gnuplot file: one line for each level over the sizes, both axes
// logarithmic. No figure is made here. Read next: ladder.ts, report.ts.
import type { Colors } from "../report/terminal.ts";
import type { Report, Result } from "./report.ts";
import { grid, machineText, percent, rate } from "./tables.ts";

export interface Chart {
  /** Beginning of the ids: gemm, attention, step. */
  name: string;
  title: string;
}

/** "gemm/256/naive" as its parts. */
const levelOf = (id: string): string => id.split("/")[2]!;
const sizeOf = ({ parameters }: Result): number => parameters["size"]!;
const of = (results: readonly Result[], { name }: Chart): Result[] => results.filter(({ id }) => id.startsWith(`${name}/`));
const unique = <T>(values: readonly T[]): T[] => [...new Set(values)];

/** A table of one workload: a row for each size and level. */
export function ladderTable(chart: Chart, results: readonly Result[], colors: Colors): string {
  const own = of(results, chart);
  if (own.length === 0) return "";
  const rows = own.map((result, i) => [
    i > 0 && sizeOf(own[i - 1]!) === sizeOf(result) ? "" : String(sizeOf(result)),
    result.label,
    String(result.threads),
    rate(result.rate, result.unit),
    percent(result.ratio),
    result.error!.toExponential(1),
    ...[result.median, result.min!, result.max!].map((value) => rate(value, "FLOP/s").replace("FLOP/s", "")),
    String(result.samples),
    chart.name === "step" ? rate((result.median / work(result)) * result.parameters["tokens"]!, "tokens/s") : "",
  ]);
  const lines = grid([["size", "level", "threads", "rate", "of peak", "error", "median", "min", "max", "n", ""], ...rows], [1]);
  return `${colors.bold(chart.title)}\n${lines.map((line, i) => `${i === 0 ? colors.dim(line) : line}\n`).join("")}`;
}

/** Of one step, from what the figure tells. */
function work({ parameters }: Result): number {
  return parameters["work"]!;
}

const barCells = 40;

/** Bars of one workload's levels at the largest size that most of them were measured at; full width is the fastest. */
export function ladderBars(chart: Chart, results: readonly Result[], colors: Colors): string {
  const own = of(results, chart);
  const sizes = unique(own.map(sizeOf));
  const count = (size: number): number => own.filter((result) => sizeOf(result) === size).length;
  const most = Math.max(...sizes.map(count));
  const size = sizes.filter((each) => count(each) === most).at(-1);
  const shown = own.filter((result) => sizeOf(result) === size);
  if (shown.length < 2) return "";
  const fastest = Math.max(...shown.map(({ rate: value }) => value));
  const width = Math.max(...shown.map(({ label }) => label.length));
  const lines = shown.map((result) => {
    const eighths = Math.max(1, Math.round((result.rate / fastest) * barCells * 8));
    const bar = "█".repeat(eighths >> 3) + (eighths & 7 ? "▏▎▍▌▋▊▉"[(eighths & 7) - 1]! : "");
    return `  ${result.label.padEnd(width)}  ${colors.green(bar.padEnd(barCells))}  ${rate(result.rate, result.unit)}, x ${(result.rate / shown[0]!.rate).toPrecision(3)}\n`;
  });
  return `${colors.bold(`${chart.title}: ${size}`)}\n${lines.join("")}`;
}

/** What was not measured, and why. */
export function unavailableText({ unavailable = [] }: Report, colors: Colors): string {
  if (unavailable.length === 0) return "";
  const width = Math.max(...unavailable.map(({ id }) => id.length));
  return `${colors.bold("Not measured")}\n${unavailable.map(({ id, reason }) => `  ${id.padEnd(width)}  ${reason}\n`).join("")}`;
}

// ---- pictures

const palette = ["#c0392b", "#d68910", "#7d8f1f", "#2f81c7", "#6c4ab6", "#16867a", "#8a5a44", "#59636e"];
const panel = { width: 800, height: 320, left: 90, top: 56, right: 270, bottom: 44 };

/** A standalone SVG file: one panel for each workload. */
export function ladderSvg(report: Report, charts: readonly Chart[]): string {
  const shown = charts.filter((chart) => of(report.results, chart).length > 0);
  const height = 70 + shown.length * panel.height;
  const [parts, system] = machineText(report.machine).split("; ");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${panel.width} ${height}" width="${panel.width}" height="${height}" role="img">
<title>egg bench ladder: speed of each level over the size</title>
<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.head { font-weight: 600; font-size: 14px; } .small { font-size: 11px; fill: #59636e; }
.grid { stroke: #d1d9e0; } .peak { stroke: #1f2328; stroke-dasharray: 4 3; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .small { fill: #9198a1; } .grid { stroke: #3d444d; } .peak { stroke: #e6edf3; } }
</style>
<text class="head" x="12" y="22">egg ${escape(report.egg)}: the ladder (${escape(report.tier)}, ${report.threads} ${report.threads === 1 ? "thread" : "threads"}); 98th percentiles; dashed: the measured peak</text>
<text class="small" x="12" y="40">${escape(parts!)}</text>
<text class="small" x="12" y="56">${escape(`${system}; ${report.date}`)}</text>
${shown.map((chart, i) => `<g transform="translate(0 ${70 + i * panel.height})">${panelSvg(report, chart)}</g>`).join("\n")}
</svg>
`;
}

function panelSvg(report: Report, chart: Chart): string {
  const own = of(report.results, chart);
  const peaks = [report.peak.one_thread, report.peak.all_threads].map(({ before, after }) => Math.max(before, after));
  const rates = [...own.map(({ rate: value }) => value), ...peaks];
  const low = Math.floor(Math.log10(Math.min(...rates)));
  const high = Math.ceil(Math.log10(Math.max(...rates)));
  const sizes = unique(own.map(sizeOf));
  const [first, last] = [Math.log2(Math.min(...sizes)), Math.log2(Math.max(...sizes))];
  const right = panel.width - panel.right;
  const bottom = panel.height - panel.bottom;
  const x = (size: number): string => (last === first ? (panel.left + right) / 2 : panel.left + ((Math.log2(size) - first) / (last - first)) * (right - panel.left)).toFixed(1);
  const y = (value: number): string => (bottom - ((Math.log10(value) - low) / (high - low)) * (bottom - panel.top)).toFixed(1);
  const decades = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
  const rulers = decades.map((value) => `<line class="grid" x1="${panel.left}" y1="${y(value)}" x2="${right}" y2="${y(value)}"/><text class="small" x="${panel.left - 6}" y="${y(value)}" text-anchor="end">${rate(value, "FLOP/s")}</text>`);
  const ticks = sizes.map((size) => `<text class="small" x="${x(size)}" y="${bottom + 18}" text-anchor="middle">${size}</text>`);
  const tops = unique(peaks).map((value) => `<line class="peak" x1="${panel.left}" y1="${y(value)}" x2="${right}" y2="${y(value)}"/>`);
  const lines = unique(own.map(({ id }) => levelOf(id))).map((level, i) => {
    const points = own.filter(({ id }) => levelOf(id) === level);
    const color = palette[i % palette.length]!;
    const dots = points.map((point) => `<circle cx="${x(sizeOf(point))}" cy="${y(point.rate)}" r="3" fill="${color}"/>`).join("");
    const name = `<text x="${right + 22}" y="${panel.top + 6 + 18 * i}">${escape(points[0]!.label.slice(0, 40))}</text>`;
    return `<polyline fill="none" stroke="${color}" stroke-width="2" points="${points.map((point) => `${x(sizeOf(point))},${y(point.rate)}`).join(" ")}"/>${dots}<rect x="${right + 8}" y="${panel.top - 3 + 18 * i}" width="9" height="9" fill="${color}"/>${name}`;
  });
  return `<text class="head" x="12" y="28">${escape(chart.title)}</text>${[...rulers, ...ticks, ...tops, ...lines].join("\n")}`;
}

/** A gnuplot file with its data in it: `gnuplot FILE` draws an SVG beside it. */
export function ladderGnuplot(report: Report, charts: readonly Chart[], name: string): string {
  const shown = charts.filter((chart) => of(report.results, chart).length > 0);
  const quoted = (text: string): string => `"${text.replace(/["\\$`@]/g, (character) => `\\${character}`)}"`;
  const blocks = shown.map((chart) => {
    const own = of(report.results, chart);
    return unique(own.map(({ id }) => levelOf(id))).map((level) => {
      const points = own.filter(({ id }) => levelOf(id) === level);
      const rows = points.map((point) => [sizeOf(point), point.rate / 1e9, point.median / 1e9, point.min! / 1e9, point.max! / 1e9].join(" "));
      return { variable: `$${chart.name}_${level.replaceAll("-", "_")}`, title: points[0]!.label, rows };
    });
  });
  const data = blocks.flat().map(({ variable, rows }) => `${variable} << EOD\n${rows.join("\n")}\nEOD\n`);
  const plots = shown.map((chart, i) => `set title ${quoted(chart.title)}\nplot ${blocks[i]!.map(({ variable, title }) => `${variable} using 1:2 with linespoints title ${quoted(title)}`).join(", \\\n     ")}\n`);
  return `# egg bench ladder: GFLOP/s over the size. Columns: size, rate (98th percentile), median, min, max.
# ${machineText(report.machine)}; ${report.tier}, ${report.threads} threads; ${report.date}
set terminal svg size 1200,${420 * Math.max(1, shown.length)} noenhanced
set output ${quoted(`${name}.svg`)}
${data.join("")}set multiplot layout ${Math.max(1, shown.length)},1
set logscale x 2
set logscale y 10
set xlabel "size"
set ylabel "GFLOP/s"
set key outside right noenhanced
${plots.join("")}unset multiplot
`;
}

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (character) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[character]!);
}
