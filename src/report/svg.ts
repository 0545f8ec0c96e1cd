// Curves as a standalone SVG picture: axes with round ticks, a legend, its own background, light and dark.
// Presentation attributes say all that matters, so that renderers without CSS (png.ts) draw the same; the style only
// changes colours for dark pages. The numbers come from curves.ts.
import { courseWindow, smooth, thin, tickText, ticks, type AxisUnit, type Point, type Series } from "./curves.ts";

export interface Chart {
  title: string;
  x: AxisUnit;
  y: { label: string; unit?: number };
  series: readonly Series[];
  /** A horizontal line with its words, such as the entropy floor; its value is in y's own measure. */
  floor?: { value: number; label: string } | null;
  /** Begin the y axis at 0. */
  fromZero?: boolean;
  width?: number;
  height?: number;
}

/** Okabe and Ito's colours, which people with colour-blindness tell apart too; the last one is for light and for dark pages. */
export const palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7280"] as const;
/** After one round of colours come dashes. */
const dashes = ["", "6 4", "2 3", "10 3 2 3"];
const fonts = "'DejaVu Sans', system-ui, sans-serif";
const titled = 60; // points that still get a dot with its value to hover over
const size = 12;

/** Text inside XML and HTML, and inside their attributes: markup becomes harmless, characters that XML forbids are replaced. */
export function escapeText(text: string): string {
  return text
    .toWellFormed()
    .replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]/g, "\ufffd")
    .replace(/[&<>"']/g, (character) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[character]!);
}

/** The whole file, XML. All series need at least one point. Points are thinned to what the width can show. */
export function chartSvg(chart: Chart): string {
  const { width = 760, height = 420 } = chart;
  const rows = legendRows(chart.series, width - 100);
  const legendHeight = rows.length * 18;
  const plot = { left: 64, top: 46 + legendHeight, right: width - 24, bottom: height - 52 };
  const range = ranges(chart);
  const px = (x: number): number => plot.left + ((x - range.x[0]) / (range.x[1] - range.x[0])) * (plot.right - plot.left);
  const py = (y: number): number => plot.bottom - ((y - range.y[0]) / (range.y[1] - range.y[0])) * (plot.bottom - plot.top);
  const parts = [
    `<rect class="page" width="${width}" height="${height}" rx="6" fill="#ffffff"/>`,
    text(chart.title, { x: plot.left, y: 26, size: 15, class: "ink", weight: 600 }),
    ...grid(chart, range, plot, px, py),
    ...rows.flatMap((row, i) => row.map(({ index, label, x }) => legendEntry(index, label, plot.left + x, 44 + 18 * i))),
    ...floorLine(chart, range, plot, py),
    ...chart.series.flatMap((series, i) => drawSeries(chart, series, i, plot.right - plot.left, px, py)),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" font-family="${fonts}">
<title>${escapeText(chart.title)}</title>
<style>@media (prefers-color-scheme: dark) { .page { fill: #161b22; } .ink { fill: #e6edf3; } .soft { fill: #9aa4af; } .grid { stroke: #30363d; } .axis { stroke: #9aa4af; } .floor { stroke: #9aa4af; } .s0 { stroke: #3b9bd8; } .d0 { fill: #3b9bd8; } .s6 { stroke: #9aa4af; } .d6 { fill: #9aa4af; } }</style>
${parts.join("\n")}
</svg>
`;
}

interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}
interface Ranges {
  x: readonly [number, number];
  y: readonly [number, number];
  floorShown: boolean;
}
type Scale = (value: number) => number;

function ranges({ series, x, y, floor, fromZero }: Chart): Ranges {
  const bounds = (pick: (point: Point) => number): [number, number] => {
    let [low, high] = [Infinity, -Infinity];
    for (const { points } of series) for (const point of points) [low, high] = [Math.min(low, pick(point)), Math.max(high, pick(point))];
    return [low, high];
  };
  const [, lastX] = bounds((point) => point.x / x.unit);
  let [low, high] = bounds((point) => point.y / (y.unit ?? 1));
  if (fromZero) low = Math.min(0, low);
  // A floor far below would press the curves flat; then only the legend of the line says where it is.
  const floorShown = floor !== undefined && floor !== null && low - floor.value <= 1.2 * Math.max(high - low, 0.05);
  if (floorShown) low = Math.min(low, floor.value);
  const room = Math.max(high - low, 1e-6 * Math.abs(high), 1e-9) * 0.05;
  return { x: [0, lastX > 0 ? lastX : 1], y: [fromZero && low === 0 ? 0 : low - room, high + room], floorShown };
}

function grid(chart: Chart, range: Ranges, plot: Box, px: Scale, py: Scale): string[] {
  const xs = ticks(range.x[0], range.x[1], 7, chart.x.unit === 1 && chart.x.label === "steps");
  const ys = ticks(range.y[0], range.y[1], Math.round((plot.bottom - plot.top) / 45));
  const middle = (plot.top + plot.bottom) / 2;
  return [
    ...ys.values.flatMap((value) => [
      `<line class="grid" x1="${plot.left}" y1="${fixed(py(value))}" x2="${plot.right}" y2="${fixed(py(value))}" stroke="#e2e6ea"/>`,
      text(tickText(value, ys.decimals), { x: plot.left - 8, y: py(value) + 4, class: "soft", anchor: "end" }),
    ]),
    ...xs.values.flatMap((value) => [
      `<line class="axis" x1="${fixed(px(value))}" y1="${plot.bottom}" x2="${fixed(px(value))}" y2="${plot.bottom + 5}" stroke="#6b7280"/>`,
      text(tickText(value, xs.decimals), { x: px(value), y: plot.bottom + 19, class: "soft", anchor: "middle" }),
    ]),
    `<line class="axis" x1="${plot.left}" y1="${plot.bottom}" x2="${plot.right}" y2="${plot.bottom}" stroke="#6b7280"/>`,
    text(chart.x.label, { x: (plot.left + plot.right) / 2, y: plot.bottom + 40, class: "soft", anchor: "middle" }),
    `<text class="soft" x="16" y="${fixed(middle)}" font-size="${size}" fill="#59636e" text-anchor="middle" transform="rotate(-90 16 ${fixed(middle)})">${escapeText(chart.y.label)}</text>`,
  ];
}

function floorLine({ floor }: Chart, { floorShown }: Ranges, plot: Box, py: Scale): string[] {
  if (floor === undefined || floor === null) return [];
  if (!floorShown) return [text(`${floor.label} (below)`, { x: plot.right - 4, y: plot.bottom - 6, class: "soft", anchor: "end", size: 11 })];
  const y = fixed(py(floor.value));
  return [
    `<line class="floor" x1="${plot.left}" y1="${y}" x2="${plot.right}" y2="${y}" stroke="#6b7280" stroke-dasharray="4 4"/>`,
    text(floor.label, { x: plot.right - 4, y: py(floor.value) - 5, class: "soft", anchor: "end", size: 11 }),
  ];
}

function drawSeries(chart: Chart, { label, points, noisy }: Series, index: number, pixels: number, px: Scale, py: Scale): string[] {
  const unit = chart.y.unit ?? 1;
  const at = ({ x, y }: Point): string => `${fixed(px(x / chart.x.unit))},${fixed(py(y / unit))}`;
  const line = (shown: readonly Point[], more: string): string =>
    `<polyline class="s${index % palette.length}" points="${thin(shown, pixels).map(at).join(" ")}" fill="none" stroke="${colour(index)}" stroke-linejoin="round"${dash(index)}${more}/>`;
  const window = noisy === true ? courseWindow(points) : 1;
  if (window > 1) return [line(points, ' stroke-width="1" stroke-opacity="0.25"'), line(smooth(points, window), ' stroke-width="2"')];
  if (points.length > titled) return [line(points, ' stroke-width="2"')];
  const dots = points.map((point) => {
    const [cx, cy] = at(point).split(",");
    const words = `${label}: ${round(point.y / unit)} at ${round(point.x / chart.x.unit)} ${chart.x.label}`;
    return `<circle class="d${index % palette.length}" cx="${cx}" cy="${cy}" r="${points.length === 1 ? 4 : 2.5}" fill="${colour(index)}"><title>${escapeText(words)}</title></circle>`;
  });
  return [line(points, ' stroke-width="2"'), ...dots];
}

interface LegendEntry {
  index: number;
  label: string;
  x: number;
}

/** One curve needs no legend: the title names it. Widths are estimated, on the wide side. */
function legendRows(series: readonly Series[], width: number): LegendEntry[][] {
  if (series.length < 2) return [];
  const rows: LegendEntry[][] = [[]];
  let x = 0;
  series.forEach((each, index) => {
    const label = each.label.length > 80 ? `${each.label.slice(0, 79)}…` : each.label;
    const wide = 30 + label.length * 7.4 + 18;
    if (x > 0 && x + wide > width) {
      rows.push([]);
      x = 0;
    }
    rows.at(-1)!.push({ index, label, x });
    x += wide;
  });
  return rows;
}

function legendEntry(index: number, label: string, x: number, y: number): string {
  return `<line class="s${index % palette.length}" x1="${fixed(x)}" y1="${y}" x2="${fixed(x + 22)}" y2="${y}" stroke="${colour(index)}" stroke-width="3"${dash(index)}/>${text(label, { x: x + 28, y: y + 4, class: "ink" })}`;
}

function colour(index: number): string {
  return palette[index % palette.length]!;
}

function dash(index: number): string {
  const pattern = dashes[Math.floor(index / palette.length) % dashes.length]!;
  return pattern === "" ? "" : ` stroke-dasharray="${pattern}"`;
}

function text(words: string, at: { x: number; y: number; class: "ink" | "soft"; size?: number; anchor?: "middle" | "end"; weight?: number }): string {
  const anchor = at.anchor === undefined ? "" : ` text-anchor="${at.anchor}"`;
  const weight = at.weight === undefined ? "" : ` font-weight="${at.weight}"`;
  return `<text class="${at.class}" x="${fixed(at.x)}" y="${fixed(at.y)}" font-size="${at.size ?? size}" fill="${at.class === "ink" ? "#1f2328" : "#59636e"}"${anchor}${weight}>${escapeText(words)}</text>`;
}

function fixed(value: number): string {
  return String(Number(value.toFixed(2)));
}

function round(value: number): string {
  return String(Number(value.toPrecision(6)));
}
