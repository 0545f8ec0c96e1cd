// The float instructions as TypeScript writes them: operations, the fields of their arguments, and the enums in them, as
// kernels/float/ops.zig has them with formulas and shapes (part of the manifest, so both sides must agree). Not the calls: float.ts.

/** Names of each enum in order; a value is its place. */
export const enums = {
  Op: [
    "gemm", "norm", "norm_backward", "activate", "activate_backward", "rope", "attention", "attention_backward", "softmax",
    "softmax_backward", "embed", "embed_backward", "count_targets", "cross_entropy", "cross_entropy_backward", "binary", "unary", "fill",
    "copy", "reduce", "reduce_backward", "dropout", "convert", "clip", "optimize",
  ],
  Dtype: ["f32", "bf16", "i32", "i8"],
  Activation: ["none", "relu", "gelu", "silu", "sigmoid", "tanh"],
  NormMode: ["layer", "rms"],
  RopePairs: ["interleaved", "half"],
  SoftmaxMode: ["softmax", "log"],
  BinaryOp: ["add", "subtract", "multiply", "divide", "maximum", "minimum", "greater", "greater_equal", "equal"],
  Broadcast: ["same", "row", "column", "scalar"],
  UnaryOp: ["identity", "absolute", "sign", "square", "sqrt", "rsqrt", "reciprocal", "exp", "log"],
  Reduction: ["sum", "mean", "max", "sumsq", "nonfinite"],
  Rule: ["sgd", "adam", "adamw", "lion"],
} as const;

type Enum = typeof enums;
export type EnumName = keyof Enum;
export type OpName = Enum["Op"][number];
/** What tensors hold; instructions also take weights of i8 with a scale for each row. */
export type DtypeName = Exclude<(typeof enums.Dtype)[number], "i8">;
export type ActivationName = Enum["Activation"][number];

/** What a field holds; enums and flags (`bool`) are u32 in memory. */
export type Field = "u32" | "i32" | "f32" | "f64" | "ref" | "u32x6" | "bool" | Exclude<EnumName, "Op">;

/** Arguments of each operation, in the order of Op; a record's name is the operation's in another spelling. */
export const args = {
  Gemm: {
    a: "ref", b: "ref", c: "ref", bias: "ref", slope: "ref", factor: "ref", scales: "ref", m: "u32", n: "u32", k: "u32", lda: "u32", ldb: "u32", ldc: "u32", ta: "bool",
    tb: "bool", outer: "u32", inner: "u32", a_outer: "u32", a_inner: "u32", b_outer: "u32", b_inner: "u32", c_outer: "u32", c_inner: "u32",
    a_dtype: "Dtype", b_dtype: "Dtype", c_dtype: "Dtype", compute: "Dtype", activation: "Activation", alpha: "f32", beta: "f32",
  },
  Norm: { x: "ref", weight: "ref", bias: "ref", y: "ref", mean: "ref", rstd: "ref", rows: "u32", width: "u32", mode: "NormMode", eps: "f32" },
  NormBackward: {
    dy: "ref", x: "ref", weight: "ref", mean: "ref", rstd: "ref", dx: "ref", dweight: "ref", dbias: "ref", rows: "u32", width: "u32",
    mode: "NormMode", accumulate: "bool", accumulate_weights: "bool",
  },
  Activate: {
    x: "ref", up: "ref", y: "ref", rows: "u32", width: "u32", x_stride: "u32", up_stride: "u32", y_stride: "u32", activation: "Activation",
  },
  ActivateBackward: {
    x: "ref", up: "ref", dy: "ref", dx: "ref", dup: "ref", rows: "u32", width: "u32", x_stride: "u32", up_stride: "u32", y_stride: "u32",
    activation: "Activation", accumulate: "bool",
  },
  Rope: {
    x: "ref", y: "ref", positions: "ref", base: "f64", factor: "f64", original: "f64", low: "f64", high: "f64", batch: "u32", time: "u32", heads: "u32",
    d: "u32", x_batch: "u32", x_time: "u32", x_head: "u32", y_batch: "u32", y_time: "u32", y_head: "u32", offset: "u32", pairs: "RopePairs",
    sign: "f32", accumulate: "bool",
  },
  Attention: {
    q: "ref", k: "ref", v: "ref", o: "ref", lse: "ref", batch: "u32", q_len: "u32", kv_len: "u32", heads: "u32", kv_heads: "u32", d: "u32",
    q_batch: "u32", q_time: "u32", q_head: "u32", k_batch: "u32", k_time: "u32", k_head: "u32", v_batch: "u32", v_time: "u32",
    v_head: "u32", o_batch: "u32", o_time: "u32", o_head: "u32", causal: "bool", scale: "f32",
  },
  AttentionBackward: {
    q: "ref", k: "ref", v: "ref", o: "ref", lse: "ref", dout: "ref", dq: "ref", dk: "ref", dv: "ref", batch: "u32", q_len: "u32",
    kv_len: "u32", heads: "u32", kv_heads: "u32", d: "u32", q_batch: "u32", q_time: "u32", q_head: "u32", k_batch: "u32", k_time: "u32",
    k_head: "u32", v_batch: "u32", v_time: "u32", v_head: "u32", o_batch: "u32", o_time: "u32", o_head: "u32", causal: "bool", scale: "f32",
    accumulate: "bool",
  },
  Softmax: { x: "ref", y: "ref", rows: "u32", width: "u32", mode: "SoftmaxMode" },
  SoftmaxBackward: { y: "ref", dy: "ref", dx: "ref", rows: "u32", width: "u32", mode: "SoftmaxMode", accumulate: "bool" },
  Embed: { table: "ref", scales: "ref", ids: "ref", y: "ref", rows: "u32", vocabulary: "u32", width: "u32", dtype: "Dtype" },
  EmbedBackward: { dy: "ref", ids: "ref", dtable: "ref", rows: "u32", vocabulary: "u32", width: "u32", accumulate: "bool" },
  CountTargets: { targets: "ref", count: "ref", rows: "u32", ignore_index: "i32" },
  CrossEntropy: {
    logits: "ref", targets: "ref", divisor: "ref", losses: "ref", lse: "ref", loss: "ref", dlogits: "ref", rows: "u32", classes: "u32",
    ignore_index: "i32", scale: "f32", accumulate: "bool",
  },
  CrossEntropyBackward: {
    logits: "ref", targets: "ref", lse: "ref", divisor: "ref", dy: "ref", dlogits: "ref", rows: "u32", classes: "u32", ignore_index: "i32",
    scale: "f32", per_row: "bool", accumulate: "bool",
  },
  Binary: { a: "ref", b: "ref", y: "ref", rows: "u32", cols: "u32", operation: "BinaryOp", broadcast: "Broadcast", alpha: "f32", accumulate: "bool" },
  Unary: { x: "ref", y: "ref", count: "u32", operation: "UnaryOp", alpha: "f32", beta: "f32", accumulate: "bool" },
  Fill: { y: "ref", count: "u32", value: "f32" },
  Copy: { x: "ref", y: "ref", sizes: "u32x6", x_strides: "u32x6", y_strides: "u32x6", dtype: "Dtype", accumulate: "bool" },
  Reduce: { x: "ref", y: "ref", index: "ref", outer: "u32", axis: "u32", inner: "u32", operation: "Reduction", alpha: "f32", accumulate: "bool" },
  ReduceBackward: {
    dy: "ref", x: "ref", index: "ref", dx: "ref", outer: "u32", axis: "u32", inner: "u32", operation: "Reduction", alpha: "f32",
    accumulate: "bool",
  },
  Dropout: { x: "ref", y: "ref", step: "ref", count: "u32", seed: "u32", stream: "u32", first_step: "u32", p: "f32", accumulate: "bool" },
  Convert: { x: "ref", y: "ref", count: "u32", from: "Dtype", to: "Dtype" },
  Clip: { sumsq: "ref", out: "ref", count: "u32", max_norm: "f32", scale: "f32" },
  Optimize: {
    w: "ref", grad: "ref", m: "ref", v: "ref", clip: "ref", settings: "ref", copy: "ref", count: "u32", rule: "Rule", beta1: "f32",
    beta2: "f32", eps: "f32", decay: "f32", nesterov: "bool",
  },
} as const satisfies Record<string, Record<string, Field>>;

type ArgsName = keyof typeof args;
/** OpName in the spelling of `args`: norm_backward is NormBackward. */
type Camel<S extends string> = S extends `${infer A}_${infer B}` ? `${Capitalize<A>}${Camel<B>}` : Capitalize<S>;
type ArgsOf<O extends OpName> = Camel<O> extends ArgsName ? (typeof args)[Camel<O>] : never;

/** Where an operand lies: `offset` bytes into an arena. */
export interface Operand { readonly arena: number; readonly offset: number }

type Value<F> = F extends "ref" ? Operand | null | undefined
  : F extends "bool" ? boolean | undefined
  : F extends "u32x6" ? readonly number[]
  : F extends EnumName ? Enum[F][number] : number;
type Optional<A> = { [N in keyof A]: A[N] extends "ref" | "bool" ? N : never }[keyof A];

/** The arguments of an operation by name. References and flags may be left out: absent, false. */
export type Values<O extends OpName> =
  { [N in Exclude<keyof ArgsOf<O>, Optional<ArgsOf<O>>>]: Value<ArgsOf<O>[N]> } & { [N in Optional<ArgsOf<O>>]?: Value<ArgsOf<O>[N]> };

/** Bytes and alignment of a field, and its type's name in the manifest. */
export function layoutOf(field: Field): { bytes: number; align: number; type: string } {
  switch (field) {
    case "ref": return { bytes: 16, align: 8, type: "ref" };
    case "f64": return { bytes: 8, align: 8, type: "f64" };
    case "u32x6": return { bytes: 24, align: 4, type: "u32x6" };
    case "i32": case "f32": case "u32": return { bytes: 4, align: 4, type: field };
    default: return { bytes: 4, align: 4, type: "u32" };
  }
}
