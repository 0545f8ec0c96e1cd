// The table of int8 kernels that every CPU tier fills: names, arguments and exact meaning.
// No code here but the types. Twins: scalar.zig (plain loops, the oracle), vector.zig (SIMD, compiled once a tier).
//
// Conventions. Activations are [K/4][lanes][4] (layout.zig). A tier may store them biased: byte = value ^ bias, with bias
// 0x80 where its dot product wants unsigned inputs, else 0. All arithmetic is that of egg.c (d0rc/egg.c, HEAD of November
// 2025): clip(v) = min(max(v, -127), 127), `>>` is an arithmetic (floor) shift, sums are int32.
const layout = @import("layout.zig");

/// out[r] = clip((sum_k x[k] * W[r][k] + ((dot * A[r]) >> perturb_shift)) >> shift) for every lane.
pub const Matmul = extern struct {
    x: [*]const u8, // [cols/4][lanes][4]
    weights: [*]const i8, // (rows, cols)
    offsets: [*]const i32, // (rows): -bias * sum of the row, what a sum of biased inputs starts from
    out: [*]u8, // [rows/4][lanes][4]
    rows: u32, // multiple of 4
    cols: u32, // multiple of 16
    groups: u32,
    shift: u32,
    perturb_shift: u32,
    perturbed: u32, // 0: clean weights, `a` and `dots` unused
    a: [*]const i8, // A of the first group: [rows][16]
    a_stride: usize, // bytes from one group's A to the next
    dots: [*]const i32, // [lanes]: sign * (x . B)
    scratch: [*]align(64) u8, // matmulScratchBytes(), for tiers that widen their inputs
    ahead: [*]const u8, // what is read next, in each group's noise: asked for while this product is computed
    ahead_bytes: u32, // of a group; 0: nothing
};

/// Room for inputs and a few rows of weights in 16 bits.
pub fn matmulScratchBytes(cols: usize, groups: usize) usize {
    return 2 * layout.activationBytes(cols, groups) + 2 * 8 * cols;
}

/// dots[lane] = sign * sum_k x[k] * B[k]; sign is + in the first 16 lanes of a group, - in the others.
pub const NoiseDot = extern struct {
    x: [*]const u8, // [cols/4][lanes][4]
    b: [*]const i8, // B of the first group: [cols/4][16][4]
    b_sums: [*]const i32, // [16], at the same stride
    b_stride: usize, // bytes from one group to the next
    dots: [*]i32, // [lanes]
    cols: u32,
    groups: u32,
};

/// y = clip(trunc(x * weight / m)), m = max(1, (sum |x|) div width). egg.c divides truncating toward zero.
pub const LayerNorm = extern struct {
    x: [*]const u8, // [width/4][lanes][4]
    weight: [*]const i8, // (width)
    out: [*]u8,
    width: u32, // multiple of 16
    groups: u32,
};

/// f = clip(clip(a + b) + bias); g = ((f + 127) * h) >> 8.
pub const ForgetGate = extern struct {
    a: [*]const u8,
    b: [*]const u8,
    bias: [*]const i8, // (width)
    h: [*]const u8,
    f: [*]u8,
    g: [*]u8,
    width: u32,
    groups: u32,
};

/// c = clip(clip(a + b) + bias); h = clip(h + (((f + 127) * (c - h)) >> 8)); out = clip(h + residual).
pub const StateUpdate = extern struct {
    a: [*]const u8,
    b: [*]const u8,
    bias: [*]const i8, // (width)
    f: [*]const u8,
    residual: [*]const u8,
    h: [*]u8, // in and out
    out: [*]u8,
    width: u32,
    groups: u32,
};

/// Egg.c's integer loss: losses[lane] += log2fix(sum_v EXP2[logit_v + 128]) - (logit_target + 128), in 1/16 bit.
pub const Loss = extern struct {
    logits: [*]const u8, // [vocabulary/4][lanes][4]
    targets: [*]const u8, // [lanes]
    losses: [*]i32, // [lanes]
    vocabulary: u32,
    groups: u32,
};

/// Fills one group's A and B of one matrix from egg.c's xorshift32 streams (four draws discarded before every block of 16).
pub const NoiseFill = extern struct {
    seed: u32, // of pair lane 0; lane j uses seed + j (mod 2^32)
    rows: u32,
    cols: u32,
    a: [*]i8, // [rows][16]
    b: [*]i8, // [cols/4][16][4]
    b_sums: [*]i32, // [16]
};

/// One block of rows of one matrix, for some of the pairs: votes[r][k] += sum_p fitness[p] * A[r][p] * B[k][p], from zero
/// where these are the `first` pairs. After the `last`: vote > threshold and W < 127: W + 1; vote < -threshold and
/// W > -127: W - 1; the rows' offsets follow.
pub const Update = extern struct {
    weights: [*]i8, // first row of the block, (rows, cols)
    offsets: [*]i32, // (rows)
    a: [*]const i8, // of the block's first row in the first group: [rows][16]
    b: [*]const i8, // [cols/4][16][4]
    noise_stride: usize, // bytes from one group to the next
    fitness: [*]const i8, // [groups * 16]
    scratch: [*]align(64) u8, // update_scratch_bytes
    votes: [*]align(64) i32, // [rows][cols rounded up to 64], for more than one pass
    rows: u32, // at most update_rows, multiple of 4
    cols: u32, // multiple of 16
    groups: u32, // at most update_groups
    threshold: i32,
    first: u32,
    last: u32,
    changed: u32, // out: weights that moved
};

/// Most rows of one update block.
pub const update_rows = 512;
/// Groups of one pass: what stays in the L1 cache, and keeps sums of any fitness within int32.
pub const update_groups = 32;
/// Columns that a pass works on at a time.
pub const update_cols = 64;
/// Bytes from one row's factors to the next: an odd number of cache lines, or rows would fall on the same few sets.
pub fn factorStride(groups: usize) usize {
    return 64 * ((groups * layout.pair_lanes + 63) / 64 | 1);
}
pub const factor_stride_max = factorStride(update_groups);
/// A * fitness [rows][pairs] and B [pairs/4][64][4].
pub const update_scratch_bytes = update_rows * factor_stride_max + update_cols * update_groups * layout.pair_lanes;

/// out[lane] = row tokens[lane] of the embedding.
pub const Embed = extern struct {
    embedding: [*]const i8, // (vocabulary, width)
    tokens: [*]const u8, // [lanes]
    out: [*]u8, // [width/4][lanes][4]
    width: u32,
    groups: u32,
};

// Few members, without lanes: activations are rows, [rows of x][width padded to 64], with the inputs in SIMD lanes. Row j is
// some token of member j mod (2 * pairs): pairs in turn, each plus side before its minus side. Stored biased like panels,
// but bytes past the width are raw zeros wherever a matrix product or a noise dot reads.

/// Bytes of one row of `width` values.
pub fn rowBytes(width: usize) usize {
    return layout.alignUp(width, 64);
}

/// out[j][r] = clip((sum_k x[j][k] * W[r][k] + ((dots[j] * A[r]) >> perturb_shift)) >> shift) for some rows r of a matrix.
pub const RowsMatmul = extern struct {
    x: [*]const u8, // [count][rowBytes(cols)]
    weights: [*]const i8, // (rows, cols), readable 64 bytes past its end
    offsets: [*]const i32, // (rows)
    out: [*]u8, // [count], out_stride apart
    out_stride: usize,
    count: u32,
    rows: u32, // multiple of 16
    cols: u32, // multiple of 16
    shift: u32,
    perturb_shift: u32,
    pairs: u32, // 0: clean weights, `a` and `dots` unused
    a: [*]const i8, // [rows] of the first pair
    a_stride: usize, // bytes from one pair's A to the next
    dots: [*]const i32, // [count]
};

/// dots[j] = +-sum_k x[j][k] * B[k], + for plus sides.
pub const RowsNoiseDot = extern struct {
    x: [*]const u8, // [count][rowBytes(cols)]
    b: [*]const i8, // [rowBytes(cols)] of the first pair
    b_stride: usize, // bytes from one pair's B to the next
    b_sums: [*]const i32, // [pairs]: sum of B over the inputs
    pairs: u32,
    dots: [*]i32, // [count]
    count: u32,
    cols: u32,
};

/// LayerNorm by rows.
pub const RowsLayerNorm = extern struct {
    x: [*]const u8, // [count][rowBytes(width)]
    weight: [*]const i8, // (width)
    out: [*]u8,
    count: u32,
    width: u32,
};

/// One row's loss: log2fix(sum_v EXP2[logit_v + 128]) - (logit_target + 128), in 1/16 bit.
pub const RowsLoss = extern struct {
    logits: [*]const u8, // [vocabulary]
    vocabulary: u32,
    target: u32,
    loss: i32, // out
};

/// What no kernel can beat: the tier's multiply-add on registers alone, `rounds` times over all of them; or, where `bytes`
/// is not 0, reading that much memory. Only the benchmark calls it.
pub const Peak = extern struct {
    rounds: u32,
    seed: u32,
    data: [*]const u8,
    bytes: usize, // multiple of 512
    done: u64, // out: multiply-adds, or bytes read
    sink: u32, // out: a value that all of the work goes into
};

/// One tier's kernels. Pointers only: vectors never cross between objects compiled for different CPUs.
pub const Table = extern struct {
    bias: u32,
    embed: *const fn (*const Embed) callconv(.c) void,
    matmul: *const fn (*const Matmul) callconv(.c) void,
    noise_dot: *const fn (*const NoiseDot) callconv(.c) void,
    layer_norm: *const fn (*const LayerNorm) callconv(.c) void,
    forget_gate: *const fn (*const ForgetGate) callconv(.c) void,
    state_update: *const fn (*const StateUpdate) callconv(.c) void,
    /// out = clip(a + b), `bytes` a multiple of 64.
    add: *const fn (a: [*]const u8, b: [*]const u8, out: [*]u8, bytes: usize) callconv(.c) void,
    loss: *const fn (*const Loss) callconv(.c) void,
    noise_fill: *const fn (*const NoiseFill) callconv(.c) void,
    update: *const fn (*Update) callconv(.c) void,
    peak: *const fn (*Peak) callconv(.c) void,
    rows_matmul: *const fn (*const RowsMatmul) callconv(.c) void,
    rows_noise_dot: *const fn (*const RowsNoiseDot) callconv(.c) void,
    rows_layer_norm: *const fn (*const RowsLayerNorm) callconv(.c) void,
    /// ForgetGate and StateUpdate for one row, or a part of it: buffers are [width], `groups` is unused.
    row_forget_gate: *const fn (*const ForgetGate) callconv(.c) void,
    row_state_update: *const fn (*const StateUpdate) callconv(.c) void,
    rows_loss: *const fn (*RowsLoss) callconv(.c) void,
};
