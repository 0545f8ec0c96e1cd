// The contract of the float kernels: every operation's arguments with formula and shapes, and the table that every CPU tier
// fills. No kernels here. Read next: link.zig (operands, plans), run.zig (who calls them), list.zig (who has them).
//
// Conventions. Matrices are row-major; sizes and strides count elements; a stride may be any that stays in the arena.
// f32 unless said otherwise; sums are f32 in an order that shapes alone decide. NaN goes through. Sizes may be 0.
// "y (=|+=)": `accumulate` 0 writes, 1 adds. "?" after a reference: may be absent (arena 0). Flags are 0 or 1.
const std = @import("std");
const Limit = @import("peak.zig").Limit;
const linking = @import("link.zig");

pub const Dtype = linking.Dtype;
pub const Error = linking.Error;
pub const Link = linking.Link;
pub const Plan = linking.Plan;
pub const Ref = linking.Ref;
pub const Run = linking.Run;

/// Operations by number: the `op` of an instruction, and the row of a Table. Arguments: `ArgsOf`.
pub const Op = enum(u32) {
    gemm,
    norm,
    norm_backward,
    activate,
    activate_backward,
    rope,
    attention,
    attention_backward,
    softmax,
    softmax_backward,
    embed,
    embed_backward,
    count_targets,
    cross_entropy,
    cross_entropy_backward,
    binary,
    unary,
    fill,
    copy,
    reduce,
    reduce_backward,
    dropout,
    convert,
    clip,
    optimize,
};

pub const op_count = @typeInfo(Op).@"enum".fields.len;

pub const Activation = enum(u32) { none, relu, gelu, silu, sigmoid, tanh };
pub const NormMode = enum(u32) { layer, rms };
pub const RopePairs = enum(u32) { interleaved, half };
pub const SoftmaxMode = enum(u32) { softmax, log };
pub const BinaryOp = enum(u32) { add, subtract, multiply, divide, maximum, minimum, greater, greater_equal, equal };
pub const Broadcast = enum(u32) { same, row, column, scalar };
pub const UnaryOp = enum(u32) { identity, absolute, sign, square, sqrt, rsqrt, reciprocal, exp, log };
pub const Reduction = enum(u32) { sum, mean, max, sumsq, nonfinite };
pub const Rule = enum(u32) { sgd, adam, adamw, lion };

/// Enums that TypeScript names too (abi.zig puts them into the manifest).
pub const enums = .{ Op, Dtype, Activation, NormMode, RopePairs, SoftmaxMode, BinaryOp, Broadcast, UnaryOp, Reduction, Rule };

/// C = act(x) * factor + beta * C, x = alpha * op(A) op(B) + bias, for each of outer * inner batches.
/// op(A) is (m, k): A is stored (m, k) with row stride lda, or (k, m) where ta = 1. op(B) is (k, n): stored (k, n), or (n, k)
/// where tb = 1. `slope` = act'(x), for the backward pass. beta = 0 never reads C. k = 0: x = bias.
/// compute = bf16 rounds A and B to bf16 on their way into the product; sums stay f32.
/// B of i8 (tb = 1, one matrix for all batches, compute f32): row j of what is stored counts scales[j] times.
pub const Gemm = extern struct {
    a: Ref,
    b: Ref,
    c: Ref,
    bias: Ref, // ? (n) f32
    slope: Ref, // ? laid out as C; only with an activation
    factor: Ref, // ? laid out as C
    scales: Ref, // (n) f32 where B is i8, else absent
    m: u32,
    n: u32,
    k: u32,
    lda: u32,
    ldb: u32,
    ldc: u32,
    ta: u32,
    tb: u32,
    outer: u32,
    inner: u32,
    a_outer: u32, // stride from one batch to the next, 0: the same matrix for all (not for C)
    a_inner: u32,
    b_outer: u32,
    b_inner: u32,
    c_outer: u32,
    c_inner: u32,
    a_dtype: u32, // Dtype: f32 or bf16
    b_dtype: u32, // f32, bf16 or i8
    c_dtype: u32, // f32 or bf16; of `slope` and `factor` too
    compute: u32, // Dtype: f32 or bf16
    activation: u32,
    alpha: f32,
    beta: f32,
};

/// layer: y = (x - mean) * rstd * weight + bias, biased variance; rms: y = x * rstd * weight, rstd = 1/sqrt(mean(x^2) + eps).
pub const Norm = extern struct {
    x: Ref, // (rows, width)
    weight: Ref, // ? (width)
    bias: Ref, // ? (width)
    y: Ref, // (rows, width); may be x
    mean: Ref, // ? (rows), layer only
    rstd: Ref, // ? (rows)
    rows: u32,
    width: u32,
    mode: u32,
    eps: f32,
};

/// With n = (x - mean) * rstd (layer) or x * rstd, g = dy * weight: dx (=|+=) rstd * (g - mean(g) [layer] - n * mean(g * n)),
/// dweight (=|+=) sum over rows of dy * n, dbias (=|+=) sum over rows of dy.
pub const NormBackward = extern struct {
    dy: Ref, // (rows, width)
    x: Ref, // (rows, width)
    weight: Ref, // ? (width)
    mean: Ref, // (rows), layer only
    rstd: Ref, // (rows)
    dx: Ref, // ? (rows, width); may be dy
    dweight: Ref, // ? (width)
    dbias: Ref, // ? (width)
    rows: u32,
    width: u32,
    mode: u32,
    accumulate: u32, // into dx
    accumulate_weights: u32, // into dweight and dbias
};

/// y = act(x), or act(x) * up where `up` is present. gelu is the tanh form: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
pub const Activate = extern struct {
    x: Ref, // (rows, width) with row stride x_stride; the gate where `up` is present
    up: Ref, // ?
    y: Ref, // may be x
    rows: u32,
    width: u32,
    x_stride: u32,
    up_stride: u32,
    y_stride: u32,
    activation: u32,
};

/// dx (=|+=) dy * act'(x) [* up], dup (=|+=) dy * act(x). relu'(0) = 0.
pub const ActivateBackward = extern struct {
    x: Ref, // as Activate
    up: Ref, // ?
    dy: Ref, // row stride y_stride
    dx: Ref, // ? row stride x_stride; may be dy where there is no `up`
    dup: Ref, // ? row stride up_stride
    rows: u32,
    width: u32,
    x_stride: u32,
    up_stride: u32,
    y_stride: u32,
    activation: u32,
    accumulate: u32,
};

/// Rotates pairs: interleaved (2i, 2i+1) or half (i, i + d/2), i < d/2, by angle sign * position * frequency, formed in f64:
/// (a, b) -> (a cos - b sin, a sin + b cos). sign = -1 is the backward. y (=|+=). x may be y (without accumulate).
/// frequency = f ((1 - s) / factor + s), f = base^(-2i/d): s is 0 where the pair turns `low` times or less in `original` positions,
/// 1 from `high` times, a straight line between, as Llama 3.1 has it. original = 0: s = 0 everywhere, linear scaling.
pub const Rope = extern struct {
    x: Ref, // (batch, time, heads, d), d contiguous and even
    y: Ref,
    positions: Ref, // ? i32 (batch, time); absent: offset + t
    base: f64,
    factor: f64, // 1: frequencies as they are
    original: f64,
    low: f64,
    high: f64,
    batch: u32,
    time: u32,
    heads: u32,
    d: u32,
    x_batch: u32,
    x_time: u32,
    x_head: u32,
    y_batch: u32,
    y_time: u32,
    y_head: u32,
    offset: u32,
    pairs: u32,
    sign: f32,
    accumulate: u32,
};

/// o = softmax(scale * q k^T) v for each head; query head h reads kv head h / (heads / kv_heads). causal: query t sees keys
/// 0 .. t + kv_len - q_len (q_len <= kv_len). lse = log of the sum of exp of the scaled scores. O(q_len) memory. A query
/// that sees no key (kv_len 0) gives o = 0, lse = -inf.
pub const Attention = extern struct {
    q: Ref, // (batch, q_len, heads, d), d contiguous
    k: Ref, // (batch, kv_len, kv_heads, d)
    v: Ref,
    o: Ref, // as q
    lse: Ref, // ? (batch, heads, q_len), dense
    batch: u32,
    q_len: u32,
    kv_len: u32,
    heads: u32,
    kv_heads: u32,
    d: u32,
    q_batch: u32,
    q_time: u32,
    q_head: u32,
    k_batch: u32,
    k_time: u32,
    k_head: u32,
    v_batch: u32,
    v_time: u32,
    v_head: u32,
    o_batch: u32,
    o_time: u32,
    o_head: u32,
    causal: u32,
    scale: f32,
};

/// P = exp(scale * q k^T - lse), delta = rowsum(do * o), dS = P * (do v^T - delta): dq = scale * dS k, dk = scale * dS^T q,
/// dv = P^T do, summed over the query heads of a kv head. dq lies as q, dk as k, dv as v, do as o. All (=|+=).
pub const AttentionBackward = extern struct {
    q: Ref,
    k: Ref,
    v: Ref,
    o: Ref,
    lse: Ref,
    dout: Ref,
    dq: Ref,
    dk: Ref,
    dv: Ref,
    batch: u32,
    q_len: u32,
    kv_len: u32,
    heads: u32,
    kv_heads: u32,
    d: u32,
    q_batch: u32,
    q_time: u32,
    q_head: u32,
    k_batch: u32,
    k_time: u32,
    k_head: u32,
    v_batch: u32,
    v_time: u32,
    v_head: u32,
    o_batch: u32,
    o_time: u32,
    o_head: u32,
    causal: u32,
    scale: f32,
    accumulate: u32,
};

/// y = softmax(x) over each row, or its log. -inf is a masked entry; a row of only -inf gives NaN, as everywhere.
pub const Softmax = extern struct {
    x: Ref, // (rows, width)
    y: Ref, // may be x
    rows: u32,
    width: u32,
    mode: u32,
};

/// softmax: dx (=|+=) y * (dy - sum(dy * y)); log: dx (=|+=) dy - exp(y) * sum(dy).
pub const SoftmaxBackward = extern struct {
    y: Ref, // (rows, width)
    dy: Ref,
    dx: Ref, // may be dy
    rows: u32,
    width: u32,
    mode: u32,
    accumulate: u32,
};

/// y[r] = table[ids[r]], times scales[ids[r]] where the table is i8. An id outside 0 .. vocabulary - 1 is a fault, found before anything is written.
pub const Embed = extern struct {
    table: Ref, // (vocabulary, width), f32, bf16 or i8
    scales: Ref, // (vocabulary) where the table is i8, else absent
    ids: Ref, // i32 (rows)
    y: Ref, // (rows, width)
    rows: u32,
    vocabulary: u32,
    width: u32,
    dtype: u32, // of the table
};

/// dtable[t] (=|+=) sum of dy[r] over rows r with ids[r] = t, in the order of r. Without accumulate other rows become 0.
pub const EmbedBackward = extern struct {
    dy: Ref, // (rows, width)
    ids: Ref, // i32 (rows)
    dtable: Ref, // (vocabulary, width)
    rows: u32,
    vocabulary: u32,
    width: u32,
    accumulate: u32,
};

/// count = number of targets that are not ignore_index, as f32.
pub const CountTargets = extern struct {
    targets: Ref, // i32 (rows)
    count: Ref, // (1)
    rows: u32,
    ignore_index: i32,
};

/// With lse[r] = log sum exp logits[r]: losses[r] = lse[r] - logits[r][targets[r]], 0 where the target is ignore_index;
/// loss (=|+=) s * sum of losses; dlogits[r] = s * (exp(logits[r] - lse[r]) - onehot), 0 in ignored rows;
/// s = scale / divisor, or 0 where the divisor is 0. A target that is neither a class nor ignore_index is a fault.
pub const CrossEntropy = extern struct {
    logits: Ref, // (rows, classes)
    targets: Ref, // i32 (rows)
    divisor: Ref, // ? (1), from count_targets; absent: 1
    losses: Ref, // ? (rows), not scaled
    lse: Ref, // ? (rows)
    loss: Ref, // ? (1)
    dlogits: Ref, // ? (rows, classes); may be logits
    rows: u32,
    classes: u32,
    ignore_index: i32,
    scale: f32,
    accumulate: u32, // into loss
};

/// dlogits[r] (=|+=) dy * s * (exp(logits[r] - lse[r]) - onehot), s and ignored rows as in CrossEntropy.
pub const CrossEntropyBackward = extern struct {
    logits: Ref,
    targets: Ref,
    lse: Ref, // (rows)
    divisor: Ref, // ? (1)
    dy: Ref, // (1), or (rows) where per_row
    dlogits: Ref, // (rows, classes); may be logits
    rows: u32,
    classes: u32,
    ignore_index: i32,
    scale: f32,
    per_row: u32,
    accumulate: u32,
};

/// y (=|+=) alpha * (a OP b); add is a + b, greater gives 1 or 0, maximum and minimum give NaN where either is NaN.
/// b: same (rows, cols) | row (cols), for every row | column (rows), for every column | scalar (1).
pub const Binary = extern struct {
    a: Ref, // (rows, cols)
    b: Ref,
    y: Ref, // (rows, cols); may be a, or b where same
    rows: u32,
    cols: u32,
    operation: u32,
    broadcast: u32,
    alpha: f32,
    accumulate: u32,
};

/// y (=|+=) alpha * f(x) + beta. identity scales, shifts, and adds onto. sign(0) = 0.
pub const Unary = extern struct {
    x: Ref, // (count)
    y: Ref, // may be x
    count: u32,
    operation: u32,
    alpha: f32,
    beta: f32,
    accumulate: u32,
};

/// y = value.
pub const Fill = extern struct {
    y: Ref, // (count), f32
    count: u32,
    value: f32,
};

/// y[i0 y0 + .. + i5 y5] (=|+=) x[i0 x0 + .. + i5 x5]: transposes, slices, joins, broadcasts (stride 0 in x).
/// Unused dimensions have size 1. No two indices may meet in y. x and y do not overlap.
pub const Copy = extern struct {
    x: Ref,
    y: Ref,
    sizes: [6]u32,
    x_strides: [6]u32,
    y_strides: [6]u32,
    dtype: u32, // accumulate: f32 only
    accumulate: u32,
};

/// y (outer, inner) (=|+=) alpha * reduction of x over its middle axis. mean divides by axis; max gives the first maximum's
/// position in `index` (NaN counts as the largest) and ignores alpha and accumulate; nonfinite counts NaN and infinities.
pub const Reduce = extern struct {
    x: Ref, // (outer, axis, inner)
    y: Ref, // (outer, inner)
    index: Ref, // ? i32 (outer, inner), max only
    outer: u32,
    axis: u32, // at least 1 for max
    inner: u32,
    operation: u32,
    alpha: f32,
    accumulate: u32,
};

/// sum: dx (=|+=) alpha * dy; mean: alpha * dy / axis; max: dy where index points, else 0; sumsq: alpha * 2 x dy.
pub const ReduceBackward = extern struct {
    dy: Ref, // (outer, inner)
    x: Ref, // sumsq only
    index: Ref, // max only
    dx: Ref, // (outer, axis, inner)
    outer: u32,
    axis: u32,
    inner: u32,
    operation: u32,
    alpha: f32,
    accumulate: u32,
};

/// y (=|+=) x * keep / (1 - p), 0 <= p <= 1 (p = 1 gives 0). keep of element i depends on (seed, stream, s, i) alone, with
/// s = first_step + step (mod 2^32): word i mod 4 of Philox4x32-7 with counter (i / 4, stream, s, 0) and key (seed, 0), >= p * 2^32.
pub const Dropout = extern struct {
    x: Ref, // (count)
    y: Ref, // may be x
    step: Ref, // ? i32 (1); absent: 0
    count: u32,
    seed: u32,
    stream: u32,
    first_step: u32,
    p: f32,
    accumulate: u32,
};

/// y = x in another type: f32 <-> bf16 (to nearest even, NaN stays NaN), i32 -> f32.
pub const Convert = extern struct {
    x: Ref,
    y: Ref,
    count: u32,
    from: u32,
    to: u32,
};

/// norm = scale * sqrt(sum of sumsq); out = (scale * min(1, max_norm / norm), norm, finite 1 or 0). max_norm 0: no clipping.
/// Not finite: out[0] = 0. `scale` is what the gradients are multiplied with anyway, such as 1 / accumulated batches.
pub const Clip = extern struct {
    sumsq: Ref, // (count)
    out: Ref, // (3)
    count: u32,
    max_norm: f32,
    scale: f32,
};

/// One optimizer step over a range. g = clip[0] * grad (clip absent: grad); lr = settings[0], t = settings[1] (1 at the first
/// step). Where clip[2] is 0 nothing changes.
/// sgd: g += decay w; m = beta1 m + g (t = 1: m = g); w -= lr (nesterov: g + beta1 m, else m; beta1 = 0: g).
/// adam: g += decay w, adamw: w *= 1 - lr decay; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
/// w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).
/// lion: u = sign(beta1 m + (1 - beta1) g); w -= lr (u + decay w); m = beta2 m + (1 - beta2) g.
pub const Optimize = extern struct {
    w: Ref, // (count)
    grad: Ref,
    m: Ref, // ? sgd with momentum, adam, adamw, lion
    v: Ref, // ? adam, adamw
    clip: Ref, // ? (3), from Clip
    settings: Ref, // (2): lr, t
    copy: Ref, // ? bf16 (count): w rounded to nearest even
    count: u32,
    rule: u32,
    beta1: f32, // sgd: momentum
    beta2: f32,
    eps: f32,
    decay: f32,
    nesterov: u32,
};

/// Arguments of each operation, in the order of Op.
pub const args_types = .{
    Gemm,           Norm,          NormBackward,      Activate,     ActivateBackward,
    Rope,           Attention,     AttentionBackward, Softmax,      SoftmaxBackward,
    Embed,          EmbedBackward, CountTargets,      CrossEntropy, CrossEntropyBackward,
    Binary,         Unary,         Fill,              Copy,         Reduce,
    ReduceBackward, Dropout,       Convert,           Clip,         Optimize,
};

pub fn ArgsOf(comptime op: Op) type {
    return args_types[@intFromEnum(op)];
}

pub const args_bytes = 248;

/// What a program is made of. `tag` is the caller's: it comes back with times and errors.
pub const Instruction = extern struct {
    op: u32,
    tag: u32,
    args: [args_bytes]u8 align(8),
};

comptime {
    std.debug.assert(@sizeOf(Instruction) == 256);
    std.debug.assert(args_types.len == op_count);
    for (args_types) |Args| std.debug.assert(@sizeOf(Args) <= args_bytes and @alignOf(Args) <= 8);
}

/// One tier's kernels, by Op.
pub const Table = extern struct {
    /// Lanes of the tier's f32 vectors: 1 (scalar), 4, 8 or 16.
    lanes: u32,
    run: [op_count]?Run,
    /// What the tier's kernels cannot beat, for the benchmark only.
    peak: *const fn (limit: *Limit) callconv(.c) void,
};
