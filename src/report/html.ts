// A run as one HTML page that needs nothing else: no script, no network, no other file. All text of the run is escaped.
// Not the live page (`egg watch`). What is on it comes from runs.ts and curves.ts; the pictures from svg.ts.
// Read next: src/commands/report.ts.
import { found, knobAt, knobs, valueAt, type Knob, type KnobPath } from "../config/knobs.ts";
import { isPreset, presetConfig } from "../config/presets.ts";
import type { MetricsLine } from "../run/metrics.ts";
import { axisUnit, curve } from "./curves.ts";
import { formatCount, formatLoss } from "./progress.ts";
import { isFigure, type RunCheckpoint, type RunRecord, type RunSample } from "./runs.ts";
import { formatBytes } from "./summary.ts";
import { chartSvg, escapeText, type Chart } from "./svg.ts";

export interface ReportContent {
  record: RunRecord;
  lines: readonly MetricsLine[];
  samples: readonly RunSample[];
  checkpoints: readonly RunCheckpoint[];
  /** Bits per byte; null where it is not known. */
  floor: number | null;
  /** What made the page, such as "egg 0.1.0". */
  program: string;
  /** Today, for the foot of the page. */
  date: Date;
}

const shownSamples = 40;
const openSamples = 3;

/** The whole file, HTML. */
export function reportHtml(content: ReportContent): string {
  const { record } = content;
  const sections: [string, string][] = [
    ["Summary", summary(content)],
    ["Curves", curves(content)],
    ["Config", config(record)],
    ["Samples", samples(content.samples)],
    ["Checkpoints", checkpoints(content.checkpoints)],
    ["Machine and program", machine(record)],
  ];
  const body = sections.filter(([, html]) => html !== "").map(([title, html]) => `<section>\n<h2>${title}</h2>\n${html}\n</section>`);
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeText(record.name)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escapeText(record.name)} <span class="status ${record.status}">${record.status}</span></h1>
${record.trouble === null ? "" : `<p class="trouble">${escapeText(record.trouble)}</p>`}
${body.join("\n")}
<footer>${escapeText(content.program)}, ${content.date.toISOString().slice(0, 16).replace("T", " ")} UTC</footer>
</main>
</body>
</html>
`;
}

const style = `
:root { --paper: #f6f7f9; --card: #ffffff; --text: #1f2328; --pale: #59636e; --line: #dde1e6; --mark: #fff4d6; --blue: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --card: #161b22; --text: #e6edf3; --pale: #9aa4af; --line: #30363d; --mark: #3a2f10; --blue: #3b9bd8; } }
body { margin: 0; background: var(--paper); color: var(--text); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 24px 20px 40px; }
h1 { font-size: 24px; overflow-wrap: anywhere; } h2 { font-size: 17px; margin: 0 0 12px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px; margin: 0 0 18px; overflow-x: auto; }
.status { font-size: 13px; font-weight: 600; padding: 3px 9px; border-radius: 10px; vertical-align: middle; border: 1px solid var(--line); color: var(--pale); }
.status.finished, .status.running { color: var(--blue); border-color: var(--blue); } .status.damaged, .trouble { color: #d55e00; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 4px 18px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--pale); font-weight: 500; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; } tr:last-child > * { border-bottom: 0; }
tr.changed > td { background: var(--mark); } code, pre { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
td code { overflow-wrap: anywhere; } td:first-child code { white-space: nowrap; } .knobs td:nth-child(2), .knobs td:nth-child(3) { min-width: 130px; } pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 6px 0 14px; } summary { cursor: pointer; color: var(--pale); }
.figures { display: flex; flex-wrap: wrap; gap: 10px 34px; margin-bottom: 14px; } .figures div { min-width: 90px; } .figures b { display: block; font-size: 22px; font-weight: 600; } .figures span, .note, footer { color: var(--pale); font-size: 13px; }
svg { display: block; max-width: 100%; height: auto; margin: 0 0 10px; }
`;

function row(cells: readonly string[], kind: "td" | "th" = "td", numbers: readonly number[] = [], changed = false): string {
  const made = cells.map((cell, i) => `<${kind}${numbers.includes(i) ? ' class="number"' : ""}>${cell}</${kind}>`);
  return `<tr${changed ? ' class="changed"' : ""}>${made.join("")}</tr>`;
}

function tableOf(head: readonly string[], rows: readonly string[], numbers: readonly number[] = []): string {
  return `<table>\n<thead>${row(head, "th", numbers)}</thead>\n<tbody>\n${rows.join("\n")}\n</tbody>\n</table>`;
}

function pairs(entries: readonly (readonly [string, string])[]): string {
  return `<table>\n<tbody>\n${entries.map(([label, value]) => `<tr><th scope="row">${escapeText(label)}</th><td>${escapeText(value)}</td></tr>`).join("\n")}\n</tbody>\n</table>`;
}

function summary({ record, floor }: ReportContent): string {
  const { summary: outcome } = record;
  const figures: [string, string][] = [
    [formatLoss(record.lastHeldOut) || "–", "held-out bits/byte"],
    [formatLoss(record.bestHeldOut) || "–", "lowest held-out"],
    [`${groups(record.steps)}${record.stepsPlanned === null || record.stepsPlanned === record.steps ? "" : ` / ${groups(record.stepsPlanned)}`}`, "steps"],
    [seconds(record.seconds), "of training"],
    [formatCount(record.tokensPerSecond) || "–", `${record.unit}/s`],
  ];
  const rows: [string, string][] = [];
  const add = (label: string, value: unknown, show: (value: number) => string): void => {
    if (isFigure(value)) rows.push([label, show(value)]);
  };
  add("training loss", outcome?.train_bits_per_byte, (value) => `${formatLoss(value)} bits/byte`);
  add("entropy floor", floor, (value) => `${formatLoss(value)} bits/byte, the least that any model can reach`);
  add("parameters", outcome?.parameters, groups);
  add("population", outcome?.population, groups);
  add("member-tokens", outcome?.member_tokens, groups);
  add("tokens of data", outcome?.data_tokens, groups);
  add("peak memory", outcome?.peak_rss_bytes, formatBytes);
  if (typeof outcome?.backend === "string") rows.push(["backend", `${outcome.backend}${isFigure(outcome.threads) ? `, ${outcome.threads} threads` : ""}`]);
  if (typeof outcome?.weights_sha256 === "string") rows.push(["weights (SHA-256)", outcome.weights_sha256]);
  rows.push(["folder", record.folder]);
  return `<div class="figures">${figures.map(([value, label]) => `<div><b>${escapeText(value)}</b><span>${label}</span></div>`).join("")}</div>\n${pairs(rows)}`;
}

function curves({ record, lines, floor }: ReportContent): string {
  const of = (key: keyof MetricsLine, axis: "steps" | "seconds" = "steps") => curve(record, lines, key, axis);
  const [train, heldOut] = [of("train_bits_per_byte"), of("val_bits_per_byte")];
  const line = floor === null ? null : { value: floor, label: `entropy floor ${formatLoss(floor)}` };
  const steps = axisUnit("steps", 0);
  const bits = { label: "bits per byte" };
  const charts: Chart[] = [];
  const both = [{ label: "held-out", points: heldOut }, { label: "training", points: train, noisy: true }].filter(({ points }) => points.length > 0);
  if (both.length > 0) charts.push({ title: both.length === 2 ? "Loss" : `Loss (${both[0]!.label})`, x: steps, y: bits, series: both, floor: line });
  const timed = of("val_bits_per_byte", "seconds");
  if (timed.length > 1) charts.push({ title: "Held-out loss over time", x: axisUnit("seconds", timed.at(-1)!.x), y: bits, series: [{ label: "held-out", points: timed }], height: 320 });
  const rate = of(record.unit === "tokens" ? "tokens_per_second" : "member_tokens_per_second");
  const most = rate.reduce((high, { y }) => Math.max(high, y), 0);
  const [unit, word] = most >= 2e6 ? [1e6, "millions a second"] : most >= 2e3 ? [1e3, "thousands a second"] : [1, "a second"];
  if (rate.length > 0) charts.push({ title: "Rate", x: steps, y: { label: `${record.unit}, ${word}`, unit }, series: [{ label: "rate", points: rate, noisy: true }], fromZero: true, height: 260 });
  const moved = of("updated_fraction");
  if (moved.length > 0) charts.push({ title: "Weights that moved in a step", x: steps, y: { label: "percent", unit: 0.01 }, series: [{ label: "moved", points: moved, noisy: true }], fromZero: true, height: 260 });
  const saturated = of("saturated_fraction");
  if (saturated.some(({ y }) => y > 0)) charts.push({ title: "Weights at ±127, of those that are not 0", x: steps, y: { label: "percent", unit: 0.01 }, series: [{ label: "saturated", points: saturated }], fromZero: true, height: 260 });
  return charts.length === 0 ? '<p class="note">No step is recorded yet.</p>' : charts.map((chart) => chartSvg({ ...chart, width: 920 })).join("");
}

function config({ config: values }: RunRecord): string {
  if (values.size === 0) return "";
  const preset = values.get("preset");
  const base = isPreset(preset) ? presetConfig(preset) : null;
  const order = [...new Set([...knobs.map(({ path }) => path as string).filter((path) => values.has(path)), ...values.keys()])];
  let different = 0;
  const rows = order.map((path) => {
    const knob: (Knob & { path: KnobPath }) | undefined = knobAt(path);
    const standard = base === null || knob === undefined ? undefined : valueAt(base, knob.path);
    const changed = standard !== undefined && JSON.stringify(standard) !== JSON.stringify(values.get(path));
    if (changed) different += 1;
    const shown = [`<code>${escapeText(path)}</code>`, `<code>${escapeText(String(JSON.stringify(values.get(path))))}</code>`, changed ? `<code>${escapeText(found(standard))}</code>` : "", escapeText(knob?.help ?? "")];
    return row(shown, "td", [], changed);
  });
  const note = base === null ? "" : `<p class="note">${different === 0 ? "All" : `${different} marked ${different === 1 ? "value differs" : "values differ"}; all others`} as in preset ${escapeText(String(preset))}.</p>`;
  return `${note}\n<div class="knobs">${tableOf(["knob", "value", "preset's", ""], rows)}</div>`;
}

function samples(all: readonly RunSample[]): string {
  if (all.length === 0) return "";
  // The first and the last always; between them evenly, so that one sees it learn.
  const shown = all.length <= shownSamples ? all : Array.from({ length: shownSamples }, (_, i) => all[Math.round((i * (all.length - 1)) / (shownSamples - 1))]!);
  const parts = shown.map(({ step, text }, i) => `<details${i >= shown.length - openSamples ? " open" : ""}><summary>step ${groups(step)}</summary><pre>${escapeText(text)}</pre></details>`);
  const note = shown.length === all.length ? "" : `<p class="note">${shown.length} of ${groups(all.length)} samples.</p>`;
  return `${note}${parts.reverse().join("\n")}`;
}

function checkpoints(all: readonly RunCheckpoint[]): string {
  if (all.length === 0) return "";
  const best = all.reduce<RunCheckpoint | null>((least, one) => (one.valBitsPerByte !== null && (least === null || one.valBitsPerByte <= least.valBitsPerByte!) ? one : least), null);
  const rows = all.map((one) => row([
    `<code>${escapeText(one.name)}</code>${one === best ? " (best)" : ""}`, formatLoss(one.valBitsPerByte), formatBytes(one.bytes),
    `<code>${escapeText(one.contentSha256 ?? "its header cannot be read")}</code>`,
  ], "td", [1, 2]));
  return tableOf(["file", "held-out", "size", "content hash (SHA-256, as the file claims it)"], rows, [1, 2]);
}

function machine({ machine: facts, program }: RunRecord): string {
  const rows: [string, string][] = [...facts].map(([name, value]) => [name, typeof value === "string" || typeof value === "number" ? String(value) : String(JSON.stringify(value))]);
  if (program !== null) rows.push(["trained by", `egg ${program.version}${program.commit === null ? "" : ` (${program.commit})`}`]);
  return rows.length === 0 ? "" : pairs(rows);
}

function groups(value: number): string {
  return value.toLocaleString("en-US");
}

function seconds(value: number): string {
  if (value < 120) return `${Number(value.toFixed(1))} s`;
  return value < 7200 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
}
