// `egg report` on real run folders: the page holds what the files hold, needs nothing else, and does no harm whatever the files
// say. Parsed here, and opened in a real browser where one is installed. The curves' values: runs.test.ts.
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { appendFileSync, cpSync, readFileSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import { findChromium, startBrowser, type Browser } from "./browser.ts";
import { freshFolder, onlyRun, readJson, readLines, readSafetensors, run, sets, tiny } from "./program.ts";

setDefaultTimeout(60_000);

const cwd = freshFolder("report");
let folder = "";

beforeAll(() => {
  expect(run(["--quiet", "--name", "shown", ...sets({ ...tiny, "run.steps": 130, "run.prompt": "<b>&amp;" })], { cwd }).code).toBe(0);
  folder = onlyRun(join(cwd, "runs"));
});

interface Element { tag: string; attributes: [string, string][] }

/** All elements of a page, and the text of those that `selector` picks. */
async function parse(html: string, selector: string): Promise<{ elements: Element[]; texts: string[] }> {
  const elements: Element[] = [];
  const texts: string[] = [];
  const rewriter = new HTMLRewriter()
    .on("*", { element: (element) => void elements.push({ tag: element.tagName, attributes: [...element.attributes].map(([name, value]) => [name!, value!]) }) })
    .on(selector, { element: () => void texts.push(""), text: (chunk) => void (texts[texts.length - 1] += chunk.text) });
  await rewriter.transform(new Response(html)).text();
  return { elements, texts: texts.map(plain) };
}

const plain = (text: string): string => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"').replaceAll("&#39;", "'").replaceAll("&amp;", "&");

/** Nothing that runs, loads or leads elsewhere. */
function expectHarmless(elements: Element[]): void {
  const tags = new Set(elements.map(({ tag }) => tag));
  for (const tag of ["script", "img", "iframe", "object", "embed", "link", "form", "a", "base", "image", "use", "foreignobject"]) expect([...tags]).not.toContain(tag);
  for (const { attributes } of elements) {
    for (const [name, value] of attributes) {
      expect(name).not.toMatch(/^on|^(src|href|xlink:href|action|style)$/);
      if (name !== "xmlns") expect(value).not.toMatch(/https?:|javascript:|url\(/);
    }
  }
}

test("the page holds the run: summary, config with what differs, curves, samples, checkpoints, machine, program", async () => {
  expect(run(["report", folder, "--out", "page.html"], { cwd })).toMatchObject({ code: 0, out: "", err: expect.stringContaining("wrote page.html") });
  const html = readFileSync(join(cwd, "page.html"), "utf8");
  const { elements } = await parse(html, "x");
  expectHarmless(elements);
  expect(html).toStartWith("<!DOCTYPE html>");
  expect(html).toContain(`<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">`);
  expect(elements.filter(({ tag }) => tag === "svg").length).toBe(4);
  const summary = readJson(folder, "summary.json");
  const cells = (await parse(html, "td")).texts;
  expect(cells).toContain(summary.weights_sha256);
  expect(cells).toContain(summary.parameters.toLocaleString("en-US"));
  expect((await parse(html, ".figures b")).texts.slice(0, 3)).toEqual([
    summary.val_bits_per_byte.toFixed(3), Math.min(...readLines(folder).flatMap((line) => line.val_bits_per_byte ?? [])).toFixed(3), "130",
  ]);
  // Marked are the knobs that were set to something else than the preset has, run.prompt and the like included.
  const changed = (await parse(html, "tr.changed td:first-child code")).texts;
  const { config } = readJson(folder, "config.json");
  const standard = JSON.parse(run(["config", "show", "--set", "preset=egg.c"], { cwd }).out);
  const differing = Object.entries<any>(config).flatMap(([section, values]) => Object.keys(typeof values === "object" ? values : {}).filter((name) => values[name] !== standard[section][name]).map((name) => `${section}.${name}`));
  expect(changed.toSorted()).toEqual(differing.toSorted());
  expect(changed).toContain("run.prompt");
  expect((await parse(html, "tr.changed td:nth-child(3) code")).texts).toContain(String(standard.run.steps));
  const samples = [...readFileSync(join(folder, "samples.txt"), "utf8").matchAll(/^=== step (\d+)\n([^]*?)\n\n(?=^=== step|$(?![^]))/gm)];
  expect(samples.length).toBe(13);
  expect((await parse(html, "pre")).texts).toEqual(samples.map(([, , text]) => text!).reverse());
  expect((await parse(html, "summary")).texts[0]).toBe("step 130");
  const files = readdirSync(join(folder, "checkpoints")).sort();
  for (const name of files) {
    expect(cells.join("\n")).toContain(name);
    expect(html).toContain(readSafetensors(join(folder, "checkpoints", name)).metadata["content_sha256"]!);
  }
  const { machine, egg } = readJson(folder, "config.json");
  expect(cells).toContain(machine.cpu);
  expect(cells.some((cell) => cell.startsWith(`egg ${egg.version}`))).toBe(true);
  expect(run(["report", folder], { cwd })).toMatchObject({ code: 0, err: expect.stringContaining(`wrote ${basename(folder)}.html`) });
});

const evil = `</title></style></pre></svg><script>document.title="taken"</script><img src=x onerror="document.title='taken'">`;

/** The same run, with markup wherever a file can hold text. */
function hostileRun(): string {
  const hostile = join(cwd, "hostile", `x<script>document.title='taken'<img src=x onerror=alert(1)>&"'`);
  cpSync(folder, hostile, { recursive: true });
  const written = readJson(hostile, "config.json");
  Object.assign(written.machine, { cpu: evil, [evil]: evil });
  Object.assign(written.egg, { version: evil, commit: evil });
  Object.assign(written.config, { preset: evil, [evil]: { [evil]: evil } });
  written.config.data.path = `builtin:${evil}`;
  writeFileSync(join(hostile, "config.json"), JSON.stringify(written));
  writeFileSync(join(hostile, "summary.json"), JSON.stringify({ ...readJson(hostile, "summary.json"), backend: evil, weights_sha256: evil, run: evil }));
  appendFileSync(join(hostile, "samples.txt"), `=== step 999\n${evil}\u0007\n\n`);
  return hostile;
}

test("markup in names, config, samples and machine is text", async () => {
  expect(run(["report", hostileRun(), "--out", "hostile.html"], { cwd }).code).toBe(0);
  const html = readFileSync(join(cwd, "hostile.html"), "utf8");
  expectHarmless((await parse(html, "x")).elements);
  expect((await parse(html, "pre")).texts[0]).toBe(`${evil}\ufffd`);
  expect((await parse(html, "td")).texts.filter((text) => text.includes(evil)).length).toBeGreaterThan(4);
});

test("a damaged run is shown as far as it can be read, and a page is written whole or not at all", async () => {
  const damaged = join(cwd, "damaged");
  cpSync(folder, damaged, { recursive: true });
  appendFileSync(join(damaged, "metrics.jsonl"), "junk\njunk\n");
  truncateSync(join(damaged, "checkpoints", readdirSync(join(damaged, "checkpoints"))[0]!), 100);
  const ended = run(["report", "damaged"], { cwd });
  expect([ended.code, ended.err]).toEqual([0, expect.stringContaining("line 131")]);
  const html = readFileSync(join(cwd, "damaged.html"), "utf8");
  for (const words of ["No step is recorded", "its header cannot be read", '<span class="status damaged">', "metrics.jsonl"]) expect(html).toContain(words);
  expect(run(["report", folder, "--out", "page.pdf"], { cwd })).toMatchObject({ code: 2, err: expect.stringContaining("ends in .html") });
  expect(run(["report", folder, "--out", "nowhere/page.html"], { cwd }).code).toBe(2);
  expect(run(["report"], { cwd }).code).toBe(2);
});

const chromium = findChromium();
if (chromium === null) console.error("skipped: the report in a real browser (no Chromium is installed here)");
let browser: Browser | undefined;
afterAll(() => browser?.close());

test.skipIf(chromium === null)("in a real browser: it lays out, asks for nothing, and runs nothing", async () => {
  browser = await startBrowser(chromium!);
  run(["report", folder, "--out", "page.html"], { cwd });
  run(["report", hostileRun(), "--out", "hostile.html"], { cwd });
  for (const [file, title] of [["page.html", basename(folder)], ["hostile.html", `x<script>document.title='taken'<img src=x onerror=alert(1)>&"'`]] as const) {
    const address = pathToFileURL(join(cwd, file)).href;
    const page = await browser.open(address);
    expect(await page.evaluate("document.title")).toBe(title);
    expect(await page.evaluate("document.compatMode")).toBe("CSS1Compat");
    expect(await page.evaluate("document.querySelectorAll('script, img').length")).toBe(0);
    expect(page.requests.filter((url) => url !== address)).toEqual([]);
    expect(page.errors).toEqual([]);
    const curve = await page.evaluate("(({ width, height }) => ({ width, height }))(document.querySelector('polyline').getBoundingClientRect())");
    expect(curve.width).toBeGreaterThan(300);
    expect(curve.height).toBeGreaterThan(100);
    // Nothing sticks out of the page.
    expect(await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")).toBe(0);
  }
});
