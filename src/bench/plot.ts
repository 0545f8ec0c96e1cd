// The ratios of a benchmark as a picture: one bar each, a tick for what is asked for, in a standalone SVG file that is
// readable on light and dark pages. The same in text: tables.ts.
import { escapeText } from "../report/svg.ts";
import { machineText, percent, withBars } from "./tables.ts";
import type { Report } from "./report.ts";

const row = 20;
const left = 190;
const width = 420;
const top = 80;

/** The whole file. Full width is a ratio of 1; what is more is cut. */
export function svg(report: Report): string {
  const shown = withBars(report.results);
  const height = top + row * shown.length + 36;
  const total = left + width + 90;
  const [parts, system] = machineText(report.machine).split("; ");
  const grid = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const x = left + share * width;
    return `<line class="grid" x1="${x}" y1="${top - 6}" x2="${x}" y2="${height - 30}"/><text class="small" x="${x}" y="${height - 14}" text-anchor="middle">${100 * share} %</text>`;
  });
  const bars = shown.map(({ id, label, threads, ratio, floor, ok }, i) => {
    const y = top + i * row;
    const tick = floor === null ? "" : `<line class="tick" x1="${fixed(left + floor * width)}" y1="${y - 1}" x2="${fixed(left + floor * width)}" y2="${y + row - 5}"/>`;
    const name = `${id.replace(/\/all$/, "")}${threads === 1 ? "" : ` x${threads}`}`;
    return `<g><title>${escapeText(label)}</title><text x="${left - 8}" y="${y + 11}" text-anchor="end">${escapeText(name)}</text>` +
      `<rect class="${ok === false ? "below" : "bar"}" x="${left}" y="${y}" width="${fixed(Math.min(ratio!, 1) * width)}" height="${row - 6}" rx="2"/>${tick}` +
      `<text x="${left + width + 8}" y="${y + 11}">${percent(ratio)}</text></g>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${total} ${height}" width="${total}" height="${height}" role="img">
<title>egg bench: share of the measured peak</title>
<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.head { font-weight: 600; font-size: 14px; } .small { font-size: 11px; fill: #59636e; }
.grid { stroke: #d1d9e0; } .tick { stroke: #1f2328; stroke-width: 2; } .bar { fill: #2f81c7; } .below { fill: #c78a1d; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .small { fill: #9198a1; } .grid { stroke: #3d444d; } .tick { stroke: #e6edf3; } .bar { fill: #3f8fd6; } .below { fill: #d29922; }
}
</style>
<text class="head" x="12" y="22">egg ${escapeText(report.egg)}: share of the measured peak (${escapeText(report.tier)})</text>
<text class="small" x="12" y="40">${escapeText(parts!)}</text>
<text class="small" x="12" y="56">${escapeText(`${system}; ${report.threads} ${report.threads === 1 ? "thread" : "threads"}; ${report.date}`)}</text>
${grid.join("\n")}
${bars.join("\n")}
</svg>
`;
}

function fixed(value: number): string {
  return value.toFixed(1);
}
