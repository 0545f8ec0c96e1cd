// The boundary's table: every function, record and status of the kernel library, as kernels/egg.zig and kernels/abi.zig
// have them (tests/abi.test.ts compares both). Not the loading (library.ts), not the meaning (int8.ts, machine.ts).
import { EggError } from "../errors.ts";
import { args, enums, layoutOf, type Field } from "./instructions.ts";
import { loadLibrary } from "./library.ts";

type Crossing = "u32" | "i32" | "f64" | "buffer";
interface Signature { readonly args: readonly Crossing[]; readonly returns: "i32" | "u32" }

const status = <const A extends readonly Crossing[]>(...args: A) => ({ args, returns: "i32" as const });

/** In the order of kernels/egg.zig, then kernels/float/exports.zig. */
export const functions = {
  egg_abi_hash: { args: [], returns: "u32" },
  egg_manifest: status("buffer", "u32"),
  egg_last_error: status("buffer", "u32"),
  egg_cpu: status("buffer"),
  egg_lock_file: status("u32"),
  egg_open: status("u32", "u32", "buffer"),
  egg_int8_model_create: status("u32", "buffer", "buffer"),
  egg_int8_model_initialize: status("u32", "u32"),
  egg_int8_model_write: status("u32", "u32", "buffer", "u32"),
  egg_int8_model_read: status("u32", "u32", "buffer", "u32"),
  egg_int8_trainer_create: status("u32", "buffer", "buffer"),
  egg_int8_trainer_bytes: status("u32", "buffer", "buffer"),
  egg_int8_trainer_batch: status("u32", "buffer", "u32"),
  egg_int8_trainer_states_write: status("u32", "u32", "u32", "buffer", "u32"),
  egg_int8_trainer_states_read: status("u32", "u32", "u32", "buffer", "u32"),
  egg_int8_step_start: status("u32", "buffer"),
  egg_int8_step_finish: status("u32", "buffer"),
  egg_int8_step_losses: status("u32", "buffer", "u32"),
  egg_int8_evaluator_create: status("u32", "u32", "u32", "buffer"),
  egg_int8_evaluator_states_write: status("u32", "buffer", "u32"),
  egg_int8_evaluator_states_read: status("u32", "buffer", "u32"),
  egg_int8_evaluate_start: status("u32", "u32", "buffer", "u32"),
  egg_int8_evaluate_finish: status("u32", "buffer"),
  egg_int8_feed: status("u32", "buffer", "u32", "buffer", "u32"),
  egg_wait: status("u32", "u32", "buffer"),
  egg_cancel: status("u32"),
  egg_bench_open: status("u32", "buffer", "buffer"),
  egg_bench_window: status("u32", "u32", "u32", "buffer"),
  egg_bench_phases: status("u32", "buffer"),
  egg_release: status("u32"),
  egg_contexts_create: status("u32", "buffer", "buffer", "u32", "buffer"),
  egg_contexts_write: status("u32", "u32", "u32", "u32", "u32", "buffer", "u32"),
  egg_contexts_read: status("u32", "u32", "u32", "u32", "u32", "buffer", "u32"),
  egg_contexts_trainer_create: status("u32", "buffer", "buffer"),
  egg_contexts_trainer_bytes: status("u32", "buffer", "buffer"),
  egg_contexts_step_start: status("u32", "u32", "u32", "buffer", "u32"),
  egg_contexts_step_finish: status("u32", "buffer"),
  egg_contexts_step_differences: status("u32", "buffer", "u32"),
  egg_contexts_evaluate_start: status("u32", "u32", "f64", "buffer", "u32"),
  egg_contexts_evaluate_finish: status("u32", "buffer"),
  egg_contexts_logits: status("u32", "buffer", "u32", "buffer", "u32"),
  egg_float_arena_create: status("f64", "buffer"),
  egg_float_arena_write: status("u32", "f64", "buffer", "u32"),
  egg_float_arena_read: status("u32", "f64", "buffer", "u32"),
  egg_float_run: status("u32", "buffer", "u32", "buffer"),
  egg_float_program_create: status("u32", "buffer", "u32", "buffer", "buffer"),
  egg_float_program_patch: status("u32", "u32", "u32", "f64"),
  egg_float_program_start: status("u32", "u32"),
  egg_float_program_run: status("u32", "u32", "buffer"),
  egg_float_program_finish: status("u32", "buffer"),
  egg_float_program_times: status("u32", "buffer", "u32"),
  egg_float_workspace_bytes: status("u32", "buffer"),
  egg_ladder_run: status("buffer", "buffer", "u32", "buffer"),
  egg_ladder_softmax: status("buffer", "u32", "u32"),
} as const satisfies Record<string, Signature>;

/** Fields of each record in order; all fields of a record lie back to back, naturally aligned. */
export const records = {
  ModelShape: { layers: "u32", hidden: "u32", vocabulary: "u32", rule: "u32" },
  TrainerShape: { pairs: "u32", sequence: "u32", pairs_per_stream: "u32", sigma_shift: "u32", panel_groups: "u32", mode: "u32", seed: "u32", signs: "u32" },
  StepOrder: { seed: "u32", threshold: "u32" },
  Progress: { finished: "u32", share: "u32" },
  StepResult: { changed: "f64", loss_sum: "f64", plus: "u32", minus: "u32" },
  EvaluateResult: { tokens: "f64", bits: "f64", loss_sum: "f64" },
  BenchShape: { what: "u32", rows: "u32", cols: "u32", groups: "u32", panels: "u32", hidden: "u32", layers: "u32", kib: "u32" },
  BenchWindow: { seconds: "f64", cpu_seconds: "f64", work: "f64" },
  BenchPhases: { noise: "f64", forward: "f64", update: "f64" },
  RunResult: { instruction: "u32", element: "u32", tag: "u32", ran: "u32", seconds: "f64" },
  LadderShape: { level: "u32", m: "u32", n: "u32", k: "u32", repeats: "u32", reserved: "u32" },
  LadderResult: { level: "u32", reserved: "u32", inner: "f64", seconds: "f64" },
  ContextsShape: { vocabulary: "u32", order: "u32", table_bits: "u32", reserved: "u32" },
  ContextsTrainerShape: { groups: "u32", positions: "u32", seed: "u32", shift: "u32", fitness_shift: "u32", cap: "u32", decay_every: "u32", decay_shift: "u32" },
  ContextsResult: { loss: "f64", plus: "f64", minus: "f64", changed: "f64", noise: "f64", forward: "f64", update: "f64" },
  CpuInfo: { features: "u32", available: "u32", built: "u32", best: "u32" },
} as const satisfies Record<string, Record<string, "u32" | "f64">>;

/** Status codes and the kind of EggError each becomes. */
export const statuses = {
  ok: [0, "internal"],
  bad_argument: [-1, "internal"],
  bad_shape: [-2, "internal"],
  stale_handle: [-3, "internal"],
  out_of_memory: [-4, "resources"],
  busy: [-5, "internal"],
  unsupported: [-6, "usage"],
  held: [-7, "locked"],
  no_thread: [-8, "resources"],
  too_many_objects: [-9, "resources"],
  cancelled: [-10, "internal"],
  fault: [-11, "data"],
} as const;

export type StatusName = keyof typeof statuses;
type RecordName = keyof typeof records;
export type RecordOf<N extends RecordName> = { [F in keyof (typeof records)[N]]: number };

type Argument<C> = C extends "buffer" ? NodeJS.TypedArray | DataView : number;
type Arguments<A extends readonly Crossing[]> = { -readonly [I in keyof A]: Argument<A[I]> };
type Native = { [N in keyof typeof functions]: (...args: Arguments<(typeof functions)[N]["args"]>) => number };

/** The text that kernels/abi.zig reflects from the library; both sides must agree on every byte of it. */
export function manifest(): string {
  let text = "";
  for (const [name, { args, returns }] of Object.entries(functions)) text += `${name}(${args.join(",")}) ${returns}\n`;
  for (const [name, fields] of Object.entries<Record<string, Field>>({ ...records, ...args })) {
    let line = "";
    let offset = 0;
    let widest = 4;
    for (const [field, kind] of Object.entries(fields)) {
      const { bytes, align, type } = layoutOf(kind);
      line += ` ${field}:${type}@${offset}`;
      offset += bytes;
      widest = Math.max(widest, align);
    }
    text += `${name} ${Math.ceil(offset / widest) * widest}${line}\n`;
  }
  for (const [name, values] of Object.entries(enums)) text += `${name} ${values.join(" ")}\n`;
  for (const [name, [code]] of Object.entries(statuses)) text += `${name} ${code}\n`;
  return text;
}

/** FNV-1a, 32 bit, as kernels/abi.zig computes it. */
function hash(text: string): number {
  let value = 2166136261;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 16777619);
  return value >>> 0;
}

let loaded: Native | null = null;

/** The bound functions; loads the library at the first call. Throws EggError where it does not fit this program. */
export function native(): Native {
  if (loaded !== null) return loaded;
  const library = loadLibrary(functions as unknown as Parameters<typeof loadLibrary>[0]);
  const bound = library.symbols as unknown as Native;
  if (bound.egg_abi_hash() !== hash(manifest())) {
    throw new EggError("resources", `[native] the kernel library ${library.path} belongs to another version of egg.`, {
      hint: "Build both again with `npm run build`.",
    });
  }
  return (loaded = bound);
}

// bun:ffi wraps and truncates silently, so numbers are looked at before they cross.
function crossing(operation: string, kind: Crossing, value: unknown): void {
  if (kind === "buffer") return;
  const low = kind === "i32" ? -(2 ** 31) : 0;
  const high = kind === "i32" ? 2 ** 31 - 1 : 2 ** 32 - 1;
  if (typeof value === "number" && (kind === "f64" || (Number.isInteger(value) && value >= low && value <= high))) return;
  throw new EggError("internal", `[native] ${operation}: ${String(value)} is not a ${kind}.`);
}

/**
 * Calls a function that returns a status. A status in `expected` is returned by name; any other but ok is thrown with the
 * library's own words.
 */
export function call<N extends keyof typeof functions>(name: N, args: Arguments<(typeof functions)[N]["args"]>, expected: readonly StatusName[] = []): StatusName {
  const kinds: readonly Crossing[] = functions[name].args;
  kinds.forEach((kind, i) => crossing(name, kind, (args as unknown[])[i]));
  const code = (native()[name] as (...args: unknown[]) => number)(...(args as unknown[]));
  if (code === 0) return "ok";
  const found = (Object.keys(statuses) as StatusName[]).find((status) => statuses[status][0] === code);
  if (found === undefined) throw new EggError("internal", `[native] ${name}: unknown status ${code}.`);
  if (expected.includes(found)) return found;
  const detail = lastError();
  throw new EggError(statuses[found][1], `[native] ${detail === "" ? `${name}: ${found}` : detail}.`, {
    ...(found === "out_of_memory" ? { hint: "Lower model.hidden and model.layers (model.table_bits and model.order in rule egg), trainer.population or trainer.sequence." } : {}),
  });
}

function lastError(): string {
  const buffer = new Uint8Array(new ArrayBuffer(512));
  return new TextDecoder().decode(buffer.subarray(0, native().egg_last_error(buffer, buffer.length)));
}

// Records travel in memory of their own. Views are made over an explicit ArrayBuffer: small typed arrays move (bun:ffi).

/** The bytes of a record. */
export function pack<N extends RecordName>(name: N, values: RecordOf<N>): DataView {
  const view = emptyRecord(name);
  let offset = 0;
  for (const [field, type] of Object.entries(records[name])) {
    const value = (values as Record<string, number>)[field]!;
    crossing(name, type as Crossing, value);
    if (type === "f64") view.setFloat64(offset, value, true);
    else view.setUint32(offset, value, true);
    offset += type === "f64" ? 8 : 4;
  }
  return view;
}

/** Room for a record that the library fills. */
export function emptyRecord(name: RecordName): DataView {
  const bytes = Object.values(records[name]).reduce((sum, type) => sum + (type === "f64" ? 8 : 4), 0);
  return new DataView(new ArrayBuffer(bytes));
}

export function unpack<N extends RecordName>(name: N, view: DataView): RecordOf<N> {
  const values: Record<string, number> = {};
  let offset = 0;
  for (const [field, type] of Object.entries(records[name])) {
    values[field] = type === "f64" ? view.getFloat64(offset, true) : view.getUint32(offset, true);
    offset += type === "f64" ? 8 : 4;
  }
  return values as RecordOf<N>;
}

/** Room for one u32 that the library fills, such as a handle. */
export function emptyWord(): DataView {
  return new DataView(new ArrayBuffer(8));
}
