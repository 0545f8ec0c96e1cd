// The one table of knobs: from it come the Config type, the defaults, validation, help, the JSON schema and the commented egg.json.
// Not here: where values come from (load.ts) and named sets of them (presets.ts).
// Read next: presets.ts, then load.ts.

/** Ways to perturb, run and train: egg's own on rows of contexts (kernels/contexts/), the others on an int8 GRU (kernels/int8/rule.zig). */
export const rules = ["egg", "egg.c", "nano-egg"] as const;
export type Rule = (typeof rules)[number];
/** How a config learns: by one of the rules of trainer.type eggroll-int8, or by another trainer.type. */
export const methods = [...rules, "backprop"] as const;
export type Method = (typeof methods)[number];

/**
 * One row: `path` is "section.name" (or a bare name at the top level), `help` one line without a full stop. A row with `only`
 * exists only where the config learns by that method, or by one of those.
 */
export type Knob = { path: string; help: string; unit?: string; only?: Method | readonly Method[] } & (
  | { kind: "integer"; default: number; min: number; max: number; multipleOf?: number }
  | { kind: "number"; default: number; min: number; max: number }
  | { kind: "boolean"; default: boolean }
  | { kind: "string"; default: string; form: "text" | "path" }
  | { kind: "choice"; default: string; choices: readonly string[] }
);

const own = { only: "egg" } as const;
const nano = { only: "nano-egg" } as const;
const gru = { only: ["egg.c", "nano-egg"] } as const;
const evolution = { only: rules } as const;
const backprop = { only: "backprop" } as const;
const ownOr = ["auto", "on", "off"] as const;
const every = { kind: "integer", min: 0, max: 1_000_000_000, unit: "steps" } as const;

export const knobs = [
  { path: "preset", kind: "string", form: "text", default: "egg", help: "named set of defaults that this config starts from; without one, gpt-nano where trainer.type is backprop or model.type is gpt or llama" },

  { path: "data.path", kind: "string", form: "path", default: "builtin:fables", help: "file to learn from, or a built-in corpus" },
  { path: "data.tokenizer", kind: "string", form: "path", default: "bytes", help: "how the text is cut into tokens: bytes, characters (those of the text), bpe:N (up to N, learned from the text), or the path of a tokenizer.json; with model.from, characters and bpe:N are the tokens of that model" },
  { path: "data.validation", kind: "number", min: 0, max: 0.5, default: 0.1, help: "share of the data held out for evaluation" },

  { path: "model.type", kind: "choice", choices: ["egg", "gpt", "llama"], default: "egg", help: "model family: egg is int8, rows of contexts in rule egg and a GRU in the other rules; gpt and llama are transformers" },
  { path: "model.order", ...own, kind: "integer", min: 1, max: 8, default: 6, unit: "bytes", help: "longest context; there is a table of rows for each length up to it" },
  { path: "model.table_bits", ...own, kind: "integer", min: 4, max: 24, default: 16, help: "rows of a table of three and more bytes, as a power of two" },
  { path: "model.hidden", ...gru, kind: "integer", min: 16, max: 4096, multipleOf: 16, default: 128, help: "width of the model" },
  { path: "model.width", ...backprop, kind: "integer", min: 2, max: 16_384, multipleOf: 2, default: 128, help: "width of the residual stream" },
  { path: "model.layers", only: ["egg.c", "nano-egg", "backprop"], kind: "integer", min: 1, max: 64, default: 4, help: "depth of the model" },
  { path: "model.heads", ...backprop, kind: "integer", min: 1, max: 1024, default: 4, unit: "heads", help: "attention heads; a divisor of the width where model.head_width is 0" },
  { path: "model.head_width", ...backprop, kind: "integer", min: 0, max: 4096, default: 0, help: "width of a head; 0 = width / heads" },
  { path: "model.kv_heads", ...backprop, kind: "integer", min: 0, max: 1024, default: 0, unit: "heads", help: "heads of keys and values, each shared by equally many query heads; 0 = as many as heads" },
  { path: "model.feed_forward_width", ...backprop, kind: "integer", min: 0, max: 65_536, default: 0, help: "width inside the feed-forward block; 0 = 4 x width, with gates 8/3 x width rounded up to a multiple of 256" },
  { path: "model.block", ...backprop, kind: "integer", min: 1, max: 65_536, default: 64, unit: "tokens", help: "tokens that the model can look back on, and length of a training window" },
  { path: "model.norm", ...backprop, kind: "choice", choices: ["auto", "layer", "rms"], default: "auto", help: "normalization; auto = layer in gpt, rms in llama" },
  { path: "model.position", ...backprop, kind: "choice", choices: ["auto", "learned", "rope", "none"], default: "auto", help: "how positions are told; auto = learned in gpt, rope in llama" },
  { path: "model.feed_forward", ...backprop, kind: "choice", choices: ["auto", "gelu", "relu", "swiglu", "geglu"], default: "auto", help: "activation of the feed-forward block, the last two with gates; auto = gelu in gpt, swiglu in llama" },
  { path: "model.bias", ...backprop, kind: "choice", choices: ownOr, default: "auto", help: "biases in linear layers and layer norms; auto = on in gpt, off in llama" },
  { path: "model.tied", ...backprop, kind: "choice", choices: ownOr, default: "auto", help: "one matrix for embedding and head; auto = on" },
  { path: "model.dropout", ...backprop, kind: "number", min: 0, max: 0.95, default: 0, help: "share of activations dropped while training: of embeddings, attention output and feed-forward output" },
  { path: "model.rope_base", ...backprop, kind: "number", min: 1, max: 100_000_000, default: 10_000, help: "base of rotary positions" },
  { path: "model.rope_factor", ...backprop, kind: "number", min: 1, max: 1_000_000, default: 1, help: "what the frequencies of rotary positions are divided by, for contexts longer than a model was first trained on; 1 = nothing" },
  { path: "model.rope_original", ...backprop, kind: "integer", min: 0, max: 1_000_000_000, default: 0, unit: "tokens", help: "that first context: frequencies that are high in it stay, as in Llama 3.1; 0 = all are divided" },
  { path: "model.rope_low", ...backprop, kind: "number", min: 0, max: 1_000_000, default: 1, unit: "turns", help: "frequencies of so many turns or fewer in model.rope_original tokens are divided by the whole factor" },
  { path: "model.rope_high", ...backprop, kind: "number", min: 0, max: 1_000_000, default: 4, unit: "turns", help: "frequencies of so many turns or more in model.rope_original tokens stay; in between is a straight line" },
  { path: "model.norm_eps", ...backprop, kind: "number", min: 1e-12, max: 0.1, default: 1e-5, help: "added to the variance in norms" },
  { path: "model.from", ...backprop, kind: "string", form: "path", default: "none", help: "weights to start from: a run, a checkpoint, or a folder in the format of the Hugging Face hub; none = seeded random" },

  { path: "trainer.type", kind: "choice", choices: ["eggroll-int8", "backprop"], default: "eggroll-int8", help: "how the model learns: by evolution in integers, or by gradients" },
  { path: "trainer.rule", ...evolution, kind: "choice", choices: rules, default: "egg", help: "whose arithmetic, noise and update, bit for bit; the preset names it" },
  { path: "trainer.population", ...evolution, kind: "integer", min: 2, max: 1_048_576, multipleOf: 2, default: 128, unit: "members", help: "members a step, in mirrored pairs" },
  { path: "trainer.sequence", ...evolution, kind: "integer", min: 1, max: 1_048_576, default: 256, unit: "tokens", help: "tokens that each member reads a step" },
  { path: "trainer.sigma_shift", ...evolution, kind: "integer", min: 0, max: 8, default: 4, help: "each one more halves the size of the perturbation" },
  { path: "trainer.learning_rate", only: ["egg", "backprop"], kind: "number", min: 1e-6, max: 16, default: 0.5, help: "rule egg: how far a reading moves a row, in 1/16 bit a unit of gradient, falling in a straight line to 0 at the end; backprop: the highest of the schedule, which each preset sets" },
  { path: "trainer.decay_shift", ...own, kind: "integer", min: 0, max: 30, default: 9, help: "weights lose this power of two's part every 262,144 positions; each one more halves it, 0 = never" },
  { path: "trainer.threshold", only: "egg.c", kind: "integer", min: 0, max: 2_147_483_647, default: 160, help: "votes that a weight needs before it moves by one" },
  { path: "trainer.alpha", ...nano, kind: "number", min: 1e-9, max: 64, default: 4, help: "share of the weights that would move by chance alone; above 1 it falls from all, the faster the larger" },
  { path: "trainer.alpha_decay_timestep", ...nano, kind: "integer", min: 1, max: 1_000_000_000, default: 1000, unit: "steps", help: "unit of time in which an alpha above 1 falls" },
  { path: "trainer.group_size", ...nano, kind: "integer", min: 2, max: 1_048_576, multipleOf: 2, default: 2, unit: "members", help: "members that read the same text; a divisor of the population" },
  { path: "trainer.use_clt", ...nano, kind: "boolean", default: true, help: "weigh votes by the size of the noise; false counts its signs only" },
  { path: "trainer.noise_reuse", ...nano, kind: "integer", min: 0, max: 1_000_000_000, default: 1, unit: "steps", help: "steps that share their noise; 0 = all of them" },
  { path: "trainer.num_perturbations", ...nano, kind: "integer", min: 0, max: 0, default: 0, help: "off: the reference gives other values no meaning" },
  { path: "trainer.optimizer", ...backprop, kind: "choice", choices: ["adamw", "adam", "lion", "sgd"], default: "adamw", help: "what turns gradients into steps; sgd takes beta1 as its momentum" },
  { path: "trainer.batch", ...backprop, kind: "integer", min: 1, max: 65_536, default: 12, unit: "windows", help: "windows of model.block tokens that are read at once" },
  { path: "trainer.accumulation", ...backprop, kind: "integer", min: 1, max: 65_536, default: 1, unit: "batches", help: "batches whose gradients make one step together" },
  { path: "trainer.schedule", ...backprop, kind: "choice", choices: ["constant", "linear", "cosine", "inverse_sqrt"], default: "cosine", help: "course of the learning rate after the warm-up" },
  { path: "trainer.warmup", ...backprop, kind: "integer", min: 0, max: 1_000_000_000, default: 100, unit: "steps", help: "steps in which the learning rate rises to its highest" },
  { path: "trainer.min_rate", ...backprop, kind: "number", min: 0, max: 1, default: 0.1, help: "learning rate at the end, as a share of the highest" },
  { path: "trainer.weight_decay", ...backprop, kind: "number", min: 0, max: 10, default: 0.1, help: "decay of matrices and embeddings; norms and biases have none" },
  { path: "trainer.beta1", ...backprop, kind: "number", min: 0, max: 0.9999999, default: 0.9, help: "memory of the gradient's mean" },
  { path: "trainer.beta2", ...backprop, kind: "number", min: 0, max: 0.9999999, default: 0.95, help: "memory of its square; in lion, of the momentum" },
  { path: "trainer.clip", ...backprop, kind: "number", min: 0, max: 1_000_000, default: 1, help: "largest norm of all gradients together; 0 = no limit" },
  { path: "trainer.precision", ...backprop, kind: "choice", choices: ["f32", "bf16"], default: "f32", help: "numbers that products are computed with; weights and sums stay f32" },
  { path: "trainer.recompute", ...backprop, kind: "boolean", default: false, help: "keep only each layer's input and compute the layer again for its gradients: less memory, more time" },

  { path: "run.steps", kind: "integer", min: 0, max: 1_000_000_000, default: 300, unit: "steps", help: "length of the run" },
  { path: "run.minutes", kind: "number", min: 0, max: 1_000_000, default: 0, unit: "minutes", help: "training time after which the run ends; 0 = no limit" },
  { path: "run.patience", kind: "integer", min: 0, max: 1_000_000_000, default: 0, unit: "evaluations", help: "end the run after so many evaluations without improvement; 0 = never" },
  { path: "run.stop_metric", kind: "choice", choices: ["val_bits_per_byte", "train_bits_per_byte"], default: "val_bits_per_byte", help: "loss that has to improve: on held-out text, or of training since the last evaluation" },
  { path: "run.min_delta", kind: "number", min: 0, max: 16, default: 0, unit: "bits per byte", help: "an improvement is more than this" },
  { path: "run.seed", kind: "integer", min: 0, max: 4_294_967_295, default: 42, help: "start of the random numbers of training and samples; of the initial weights too in rule nano-egg" },
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

type Section<S extends string> = { [R in Exclude<Row, { only: unknown }> as R["path"] extends `${S}.${infer N}` ? N : never]: RowValue<R> } & {
  [R in Extract<Row, { only: unknown }> as R["path"] extends `${S}.${infer N}` ? N : never]?: RowValue<R>;
};

/** The whole config, every value of its method present: { preset, data: {…}, model: {…}, trainer: {…}, run: {…}, device: {…} }. */
export type Config = { [R in Row as R["path"] extends `${string}.${string}` ? never : R["path"]]: RowValue<R> } & {
  [S in SectionOf<KnobPath>]: Section<S>;
};

type Only<R> = R extends { only: infer O } ? (O extends readonly (infer E)[] ? E : O) : Method;
type RowOf<R, M> = R extends Row ? ([M] extends [Only<R>] ? R : never) : never;

/** The config of a method (of each of several): what it has is there. */
export type ConfigOf<M extends Method> = Config & { [S in SectionOf<KnobPath>]: { [R in RowOf<Row, M> as R["path"] extends `${S}.${infer N}` ? N : never]: RowValue<R> } };

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

/** How a config learns. What stands in a config that was not checked yet may be none of the methods. */
export function methodOf({ trainer }: Pick<Config, "trainer">): Method {
  return trainer.type === "eggroll-int8" ? trainer.rule! : trainer.type;
}

/** Whether a config learns by integer EGGROLL. */
export function evolves(config: Config): config is ConfigOf<Rule> {
  return config.trainer.type === "eggroll-int8";
}

/** Whether a config learns by gradients. */
export function descends(config: Config): config is ConfigOf<"backprop"> {
  return config.trainer.type === "backprop";
}

/** Whether a config of this method has the knob. */
export function appliesTo(knob: Knob, method: Method): boolean {
  return knob.only === undefined || [knob.only].flat().includes(method);
}

/** Which configs have the knob, for people: "only for trainer.rule egg.c and nano-egg"; undefined where all have it. */
export function onlyFor({ only }: Knob): string | undefined {
  if (only === undefined) return undefined;
  const all = [only].flat();
  const ofRules = all.filter((method) => (rules as readonly string[]).includes(method));
  const types = all.filter((method) => !ofRules.includes(method));
  if (ofRules.length === rules.length) return `only for trainer.type ${["eggroll-int8", ...types].join(" and ")}`;
  if (ofRules.length > 0) return [`only for trainer.rule ${ofRules.join(" and ")}`, ...types.map((type) => `trainer.type ${type}`)].join(" and ");
  return `only for trainer.type ${types.join(" and ")}`;
}

/** Takes out what the config's method does not know. */
export function withoutStrangers(config: Config): Config {
  const method = methodOf(config);
  for (const knob of knobs as readonly (Knob & { path: KnobPath })[]) {
    if (appliesTo(knob, method)) continue;
    const [section = "", name = ""] = knob.path.split(".");
    delete (config as unknown as Record<string, Record<string, unknown>>)[section]![name];
  }
  return config;
}

/** A fresh config of the table's defaults, sections and keys in table order; of every method's knobs. */
export function defaultConfig(): Config {
  const config: PartialConfig = {};
  for (const knob of knobs) setAt(config, knob.path, knob.default);
  return config as Config;
}

/** What a knob's row allows, for people: "an even number from 2 to 1048576". For all knobs but the preset; see allowedFor in presets.ts. */
export function allowed(knob: Knob): string {
  switch (knob.kind) {
    case "integer": {
      if (knob.min === knob.max) return `only ${knob.min}`;
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
