// What a run comes to: the object in summary.json, the same that --json prints (DESIGN: summary).
// Only the shape, and the check of it. src/run/folder.ts writes and reads the file; src/report/summary.ts shows it to people.
// Next: src/run/loop.ts, which fills it in.
import type { StoppedBy } from "./stop.ts";

/** The outcome of a run. Losses are exact bits per byte with clean weights; null where never measured. */
export interface Summary {
  /** The run's name with its id, which is also the name of its folder. */
  run: string;
  /** "finished": as long as the config asks for. "interrupted": stopped before; it can be resumed. */
  status: "finished" | "interrupted";
  /** Steps done, over all resumptions. */
  steps: number;
  /** Seconds of training, over all resumptions. */
  seconds: number;
  train_bits_per_byte: number | null;
  val_bits_per_byte: number | null;
  /** SHA-256 over the model's tensors, without the state.* ones: 64 hex digits. */
  weights_sha256: string;
  parameters: number;
  /** Of backprop: what its tokens are, "bpe (4,096)". Earlier versions did not write it. */
  tokenizer?: string;
  /** Of EGGROLL: members, and members times tokens, N x T a step. */
  population?: number;
  member_tokens?: number;
  member_tokens_per_second?: number;
  /** Of backprop. */
  tokens_per_second?: number;
  /** Tokens of data that were read, again where it was gone through again. */
  data_tokens: number;
  peak_rss_bytes: number;
  backend: string;
  threads: number;
  /** What ended a finished run: its steps, run.minutes, or run.patience; null where it is interrupted. Earlier versions did not write it. */
  stopped_by?: StoppedBy | null;
}

/** What JSON may hold under each key. */
const allowed: { readonly [K in keyof Required<Summary>]: readonly ("string" | "number" | "null" | "undefined")[] } = {
  run: ["string"], status: ["string"], steps: ["number"], seconds: ["number"],
  train_bits_per_byte: ["number", "null"], val_bits_per_byte: ["number", "null"], weights_sha256: ["string"],
  parameters: ["number"], tokenizer: ["string", "undefined"], population: ["number", "undefined"], member_tokens: ["number", "undefined"], member_tokens_per_second: ["number", "undefined"], tokens_per_second: ["number", "undefined"], data_tokens: ["number"],
  peak_rss_bytes: ["number"], backend: ["string"], threads: ["number"], stopped_by: ["string", "null", "undefined"],
};

/** The largest summary.json that is read, in bytes; egg writes less than one thousand. */
export const longestSummary = 65_536;

/**
 * The summary in the bytes of summary.json; null unless every key is there with a value of its kind, and all texts can be
 * shown on a terminal. Unknown keys are kept.
 */
export function parseSummary(bytes: Uint8Array): Summary | null {
  if (bytes.length > longestSummary) return null;
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  for (const [key, kinds] of Object.entries(allowed)) {
    const found: unknown = Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined;
    if (!kinds.some((kind) => (kind === "null" ? found === null : typeof found === kind))) return null;
    if (typeof found === "string" && /[\p{Cc}\p{Cs}]/u.test(found)) return null;
  }
  if (!Object.hasOwn(value, "tokens_per_second") && !["population", "member_tokens", "member_tokens_per_second"].every((key) => Object.hasOwn(value, key))) return null;
  return value as Summary;
}
