// What a run comes to: the object in summary.json, the same that --json prints (DESIGN: summary).
// Only the shape. src/run/folder.ts writes and reads it; src/report/summary.ts shows it to people.
// Next: src/run/loop.ts, which fills it in.

/** The outcome of a run. Losses are exact bits per byte with clean weights; null where never measured. */
export interface Summary {
  /** The run's name with its id, which is also the name of its folder. */
  run: string;
  /** "finished": every step that the config asks for. "interrupted": stopped before; it can be resumed. */
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
  population: number;
  /** Population members times tokens: N x T a step. */
  member_tokens: number;
  member_tokens_per_second: number;
  /** Distinct tokens of data. */
  data_tokens: number;
  peak_rss_bytes: number;
  backend: string;
  threads: number;
}
