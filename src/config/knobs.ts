// The one table of knobs: from it come the Config type, the defaults, validation, help, the JSON schema and the commented egg.json.
// Not here: where values come from (load.ts) and named sets of them (presets.ts).
// Read next: presets.ts, then load.ts.

/** One row: `path` is "section.name" (or a bare name at the top level), `help` one line without a full stop. */
export type Knob = { path: string; help: string; unit?: string } & (
  | { kind: "integer"; default: number; min: number; max: number; multipleOf?: number }
  | { kind: "number"; default: number; min: number; max: number }
  | { kind: "boolean"; default: boolean }
  | { kind: "string"; default: string; form: "text" | "path" }
  | { kind: "choice"; default: string; choices: readonly string[] }
);

const every = { kind: "integer", min: 0, max: 1_000_000_000, unit: "steps" } as const;

export const knobs = [
  { path: "preset", kind: "string", form: "text", default: "egg.c", help: "named set of defaults that this config starts from" },

  { path: "data.path", kind: "string", form: "path", default: "builtin:fables", help: "file to learn from, or a built-in corpus" },
  { path: "data.tokenizer", kind: "choice", choices: ["bytes"], default: "bytes", help: "how the text is cut into tokens" },
  { path: "data.validation", kind: "number", min: 0, max: 0.5, default: 0.1, help: "share of the data held out for evaluation" },

  { path: "model.type", kind: "choice", choices: ["egg"], default: "egg", help: "model family: egg is an int8 GRU" },
  { path: "model.hidden", kind: "integer", min: 16, max: 4096, multipleOf: 16, default: 128, help: "width of the model" },
  { path: "model.layers", kind: "integer", min: 1, max: 64, default: 4, help: "depth of the model" },

  { path: "trainer.type", kind: "choice", choices: ["eggroll-int8"], default: "eggroll-int8", help: "how the model learns" },
  { path: "trainer.population", kind: "integer", min: 2, max: 1_048_576, multipleOf: 2, default: 128, unit: "members", help: "members a step, in mirrored pairs" },
  { path: "trainer.sequence", kind: "integer", min: 1, max: 1_048_576, default: 256, unit: "tokens", help: "tokens that each member reads a step" },
  { path: "trainer.sigma_shift", kind: "integer", min: 0, max: 8, default: 4, help: "each one more halves the size of the perturbation" },
  { path: "trainer.threshold", kind: "integer", min: 0, max: 2_147_483_647, default: 160, help: "votes that a weight needs before it moves by one" },

  { path: "run.steps", kind: "integer", min: 0, max: 1_000_000_000, default: 300, unit: "steps", help: "length of the run" },
  { path: "run.minutes", kind: "number", min: 0, max: 1_000_000, default: 0, unit: "minutes", help: "training time after which the run ends; 0 = no limit" },
  { path: "run.patience", kind: "integer", min: 0, max: 1_000_000_000, default: 0, unit: "evaluations", help: "end the run after so many evaluations without improvement; 0 = never" },
  { path: "run.stop_metric", kind: "choice", choices: ["val_bits_per_byte", "train_bits_per_byte"], default: "val_bits_per_byte", help: "loss that has to improve: on held-out text, or of training since the last evaluation" },
  { path: "run.min_delta", kind: "number", min: 0, max: 16, default: 0, unit: "bits per byte", help: "an improvement is more than this" },
  { path: "run.seed", kind: "integer", min: 0, max: 4_294_967_295, default: 42, help: "start of the random numbers of training and samples; initial weights are those of the preset" },
  { path: "run.eval_every", ...every, default: 10, help: "evaluate on held-out data every so often; 0 = never" },
  { path: "run.sample_every", ...every, default: 50, help: "write a sample of text every so often; 0 = never" },
  { path: "run.checkpoint_every", ...every, default: 100, help: "save a checkpoint every so often; 0 = only when the run ends" },
  { path: "run.keep", kind: "integer", min: 2, max: 1_000_000, default: 3, unit: "files", help: "newest checkpoints kept; the best is kept besides" },
  { path: "run.out", kind: "string", form: "path", default: "runs", help: "folder in which run folders are made" },
  { path: "run.fingerprint_every", ...every, default: 0, help: "write the hash of the weights to the metrics every so often; 0 = never" },
  { path: "run.tensorboard", kind: "boolean", default: false, help: "write an event file for TensorBoard besides the metrics" },
  { path: "run.prompt", kind: "string", form: "text", default: "The ", help: "text that samples continue" },
  { path: "run.sample_tokens", kind: "integer", min: 1, max: 1_000_000, default: 128, unit: "tokens", help: "length of a sample" },

  { path: "device.backend", kind: "choice", choices: ["auto", "cpu"], default: "auto", help: "what computes" },
  { path: "device.threads", kind: "integer", min: 0, max: 1024, default: 0, unit: "threads", help: "threads that compute; 0 = one per core" },
] as const satisfies readonly Knob[];

type Row = (typeof knobs)[number];
type RowValue<R> = R extends { kind: "choice"; choices: readonly (infer C)[] } ? C : R extends { kind: "string" } ? string : R extends { kind: "boolean" } ? boolean : number;
type SectionOf<P> = P extends `${infer S}.${string}` ? S : never;

export type KnobPath = Row["path"];
export type KnobValue<P extends KnobPath = KnobPath> = RowValue<Extract<Row, { path: P }>>;

/** The whole config, every value present: { preset, data: {…}, model: {…}, trainer: {…}, run: {…}, device: {…} }. */
export type Config = { [R in Row as R["path"] extends `${string}.${string}` ? never : R["path"]]: RowValue<R> } & {
  [S in SectionOf<KnobPath>]: { [R in Row as R["path"] extends `${S}.${infer N}` ? N : never]: RowValue<R> };
};

/** Any part of a config. */
export type PartialConfig = { [K in keyof Config]?: Config[K] extends object ? Partial<Config[K]> : Config[K] };

/** Longest strings, in code points. */
export const longest = { text: 65_536, path: 4_096 } as const;

const byPath: ReadonlyMap<string, Knob & { path: KnobPath }> = new Map(knobs.map((knob) => [knob.path, knob]));

/** The knob of a path such as "trainer.population"; undefined where there is none. */
export function knobAt(path: string): (Knob & { path: KnobPath }) | undefined {
  return byPath.get(path);
}

/** Section names in table order: "data", "model", … */
export const sections: readonly string[] = [...new Set(knobs.flatMap(({ path }) => (path.includes(".") ? [path.slice(0, path.indexOf("."))] : [])))];

/** The value at a path of a config or a part of one; undefined where it is left out. */
export function valueAt<P extends KnobPath>(config: Config, path: P): KnobValue<P>;
export function valueAt(config: PartialConfig, path: KnobPath): KnobValue | undefined;
export function valueAt(config: PartialConfig, path: KnobPath): unknown {
  return path.split(".").reduce<unknown>((part, key) => (part as Record<string, unknown> | undefined)?.[key], config);
}

/** Puts a value at a path; the section is made where it is missing. */
export function setAt(config: PartialConfig, path: KnobPath, value: unknown): void {
  const [first = "", second] = path.split(".");
  const root = config as Record<string, unknown>;
  if (second === undefined) root[first] = value;
  else ((root[first] ??= {}) as Record<string, unknown>)[second] = value;
}

/** A fresh config of the table's defaults, sections and keys in table order. */
export function defaultConfig(): Config {
  const config: PartialConfig = {};
  for (const knob of knobs) setAt(config, knob.path, knob.default);
  return config as Config;
}

/** What a knob's row allows, for people: "an even number from 2 to 1048576". For all knobs but the preset; see allowedFor in presets.ts. */
export function allowed(knob: Knob): string {
  switch (knob.kind) {
    case "integer": {
      const step = knob.multipleOf ?? 1;
      const what = step === 1 ? "a whole number" : step === 2 ? "an even number" : `a multiple of ${step}`;
      return `${what} from ${knob.min} to ${knob.max}`;
    }
    case "number":
      return `a number from ${knob.min} to ${knob.max}`;
    case "choice":
      return alternatives(knob.choices);
    case "boolean":
      return "true or false";
    case "string":
      return knob.form === "text" ? `a text of at most ${longest.text} characters` : `a path of 1 to ${longest.path} characters without NUL`;
  }
}

/** `"a"`, `"a" or "b"`, `"a", "b" or "c"`. */
export function alternatives(words: readonly string[]): string {
  const quoted = words.map((word) => JSON.stringify(word));
  return quoted.length < 2 ? quoted.join("") : `${quoted.slice(0, -1).join(", ")} or ${quoted.at(-1)}`;
}

/** A value that was found, for people, short: `127`, `"abc"`, `null`, `an array`. */
export function found(value: unknown): string {
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object" && value !== null) return "an object";
  const text = typeof value === "string" ? JSON.stringify(value) : String(value);
  return text.length > 60 ? `${text.slice(0, 56)}…${text.at(-1)}` : text;
}

/** Whether the knob takes the value. Limits are inclusive; no conversion is made. Presets' names are checked in load.ts. */
export function accepts(knob: Knob, value: unknown): boolean {
  switch (knob.kind) {
    case "integer":
      return Number.isSafeInteger(value) && inRange(knob, value as number) && (value as number) % (knob.multipleOf ?? 1) === 0;
    case "number":
      return typeof value === "number" && inRange(knob, value);
    case "choice":
      return typeof value === "string" && knob.choices.includes(value);
    case "boolean":
      return typeof value === "boolean";
    case "string":
      if (typeof value !== "string" || value.length > 2 * longest[knob.form] || [...value].length > longest[knob.form]) return false;
      return knob.form === "text" || (value !== "" && !value.includes("\0"));
  }
}

function inRange(range: { min: number; max: number }, value: number): boolean {
  return value >= range.min && value <= range.max;
}

/** A number as people type it on a command line: 12, -0.5, .5, 1e3. Undefined for anything else, and for what overflows. */
export function numberFromText(text: string): number | undefined {
  if (!/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isFinite(value) ? value + 0 : undefined; // + 0 turns -0 into 0
}
