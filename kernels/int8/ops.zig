// The table of int8 kernels that every CPU tier fills: names, arguments and exact meaning.
// No code here but the types. Twins: scalar.zig (plain loops, the oracle), vector.zig (SIMD, compiled once a tier), and
// the same with _nano_egg for what that rule does otherwise.
//
// Conventions. Activations are [K/4][lanes][4] (layout.zig). A tier may store them biased: byte = value ^ bias, with bias
// 0x80 where its dot product wants unsigned inputs, else 0. clip(v) = min(max(v, -127), 127), `>>` is an arithmetic (floor)
// shift, `div` rounds down, sums are int32. Rules: egg.c is d0rc/egg.c, nano-egg is ESHyperscale/nano-egg (rule.zig).
const layout = @import("layout.zig");
const Rule = @import("rule.zig").Rule;
const Key = @import("threefry.zig").Key;

/// out[r] = clip(((sum_k x[k] * W[r][k] + ((dot * A[r]) >> perturb_shift)) >> shift) div root) for every lane.
pub const Matmul = extern struct {
    x: [*]const u8, // [cols/4][lanes][4]
    weights: [*]const i8, // (rows, cols)
    offsets: [*]const i32, // (rows): -bias * sum of the row, what a sum of biased inputs starts from
    out: [*]u8, // [rows/4][lanes][4]
    rows: u32, // multiple of 4
    cols: u32, // multiple of 16
    groups: u32,
    shift: u32,
    root: u32, // 1 to 128
    perturb_shift: u32,
    perturbed: u32, // 0: clean weights, `a` and `dots` unused
    noise_max: u32, // largest magnitude of A and B
    a: [*]const i8, // A of the first group: [rows][16]
    a_stride: usize, // bytes from one group's A to the next
    dots: [*]const i32, // [lanes]: sign * (x . B)
    scratch: [*]align(64) u8, // matmulScratchBytes(), for tiers that widen their inputs
    ahead: [*]const u8, // what is read next, in each group's noise: asked for while this product is computed
    ahead_bytes: u32, // of a group; 0: nothing
    soon: [*]const u8, // and elsewhere
    soon_bytes: u32,
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

/// With m = (sum |x|) div width. Rule egg.c: y = clip(trunc(x * weight / max(m, 1))). Rule nano-egg: y = clip((x * weight) div m);
/// where m is 0, y is -2, or -1 where the product is 0.
pub const LayerNorm = extern struct {
    x: [*]const u8, // [width/4][lanes][4]
    weight: Vector,
    out: [*]u8,
    width: u32, // multiple of 16
    groups: u32,
};

/// A vector in a panel: rule egg.c has it as it lies in the model, (width), the same for all; rule nano-egg as each member has
/// it, [width/4][lanes][4], never biased (PerturbVector).
pub const Vector = [*]const i8;

/// f, and g = ((f + 127) * h) >> 8. Rule egg.c: f = clip(clip(a + b) + bias). Rule nano-egg: f = clip(a + b + bias).
pub const ForgetGate = extern struct {
    a: [*]const u8,
    b: [*]const u8,
    bias: Vector,
    h: [*]const u8,
    f: [*]u8,
    g: [*]u8,
    width: u32,
    groups: u32,
};

/// With c like f above: h = clip(h + (((f + 127) * (c - h)) >> 8)); out = clip(h + residual).
pub const StateUpdate = extern struct {
    a: [*]const u8,
    b: [*]const u8,
    bias: Vector,
    f: [*]const u8,
    residual: [*]const u8,
    h: [*]u8, // in and out
    out: [*]u8,
    width: u32,
    groups: u32,
};

/// The integer loss in 1/16 bit: losses[lane] += log(sum_v EXP2[logit_v + 128]) - (logit_target + 128). Rule egg.c's log is linear
/// between powers of two; rule nano-egg's is floor(16 * log2(sum / 16)).
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

/// The same from rule nano-egg's stream of normal values: of lane j, values starts[j] ... are B, those behind it A.
pub const NormalFill = extern struct {
    key: Key,
    starts: *const [layout.pair_lanes]u32,
    rows: u32, // multiple of 16
    cols: u32, // multiple of 16
    a: [*]i8, // [rows][16]
    b: [*]i8, // [cols/4][16][4]
    b_sums: [*]i32, // [16]
};

/// Products of two values each, for a vector: out[r] = value 2r * value 2r + 1.
pub const NormalProducts = extern struct {
    key: Key,
    starts: *const [layout.pair_lanes]u32,
    rows: u32, // multiple of 16
    out: [*]i16, // [rows][16]
};

/// A vector as each member of a panel has it: out = clip(v + ((sign * noise) >> perturb_shift)), + in the first 16 lanes of a
/// group; never biased.
pub const PerturbVector = extern struct {
    vector: [*]const i8, // (width)
    noise: [*]const i16, // of the first group: [width][16]
    noise_stride: usize, // bytes from one group to the next
    perturbed: u32, // 0: `noise` unused
    perturb_shift: u32,
    out: [*]i8, // [width/4][lanes][4]
    width: u32,
    groups: u32,
};

/// Embedded tokens, perturbed: x = clip(x + ((sign * A[token] * B) >> perturb_shift)).
pub const PerturbEmbedded = extern struct {
    tokens: [*]const u8, // [lanes]
    a: [*]const i8, // A of the first group: [vocabulary][16]
    b: [*]const i8, // B: [width/4][16][4]
    stride: usize, // bytes from one group to the next
    perturb_shift: u32,
    x: [*]u8, // [width/4][lanes][4], in and out
    width: u32,
    groups: u32,
};

/// A weight goes up by one where votes > above, down where votes < below, and stays within -127 .. 127.
pub const Bounds = extern struct {
    above: i32,
    below: i32, // at most `above`
    zero_falls: u32, // votes of 0 and less count one less: with both bounds 0, then, every weight moves
};

/// One block of rows of one matrix, for some of the pairs: votes[r][k] += sum_p fitness[p] * A[r][p] * B[k][p], from zero
/// where these are the `first` pairs. After the `last` the weights move by their votes, and the rows' offsets with them.
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
    signs: u32, // 1: only the signs of A and B count
    bounds: Bounds,
    first: u32,
    last: u32,
    changed: u32, // out: weights that moved
};

/// The same for a vector: votes[r] += sum_p fitness[p] * noise[r][p].
pub const UpdateVector = extern struct {
    weights: [*]i8, // (rows)
    noise: [*]const i16, // [rows][16]
    noise_stride: usize, // bytes from one group to the next
    fitness: [*]const i8, // [groups * 16]
    votes: [*]i32, // (rows), for more than one pass
    rows: u32,
    groups: u32,
    signs: u32,
    bounds: Bounds,
    first: u32,
    last: u32,
    changed: u32, // out
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

/// out[j][r] = clip(((sum_k x[j][k] * W[r][k] + ((dots[j] * A[r]) >> perturb_shift)) >> shift) div root) for some rows r of a
/// matrix.
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
    root: u32, // 1 to 128
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

/// One row's loss, as in Loss.
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

/// The operators that differ from rule to rule.
pub const Operators = extern struct {
    layer_norm: *const fn (*const LayerNorm) callconv(.c) void,
    forget_gate: *const fn (*const ForgetGate) callconv(.c) void,
    state_update: *const fn (*const StateUpdate) callconv(.c) void,
    loss: *const fn (*const Loss) callconv(.c) void,
    rows_layer_norm: *const fn (*const RowsLayerNorm) callconv(.c) void,
    /// ForgetGate and StateUpdate for one row, or a part of it: buffers are [width], `groups` is unused.
    row_forget_gate: *const fn (*const ForgetGate) callconv(.c) void,
    row_state_update: *const fn (*const StateUpdate) callconv(.c) void,
    rows_loss: *const fn (*RowsLoss) callconv(.c) void,
};

/// One tier's kernels. Pointers only: vectors never cross between objects compiled for different CPUs.
pub const Table = extern struct {
    bias: u32,
    embed: *const fn (*const Embed) callconv(.c) void,
    matmul: *const fn (*const Matmul) callconv(.c) void,
    noise_dot: *const fn (*const NoiseDot) callconv(.c) void,
    /// out = clip(a + b), `bytes` a multiple of 64.
    add: *const fn (a: [*]const u8, b: [*]const u8, out: [*]u8, bytes: usize) callconv(.c) void,
    update: *const fn (*Update) callconv(.c) void,
    peak: *const fn (*Peak) callconv(.c) void,
    rows_matmul: *const fn (*const RowsMatmul) callconv(.c) void,
    rows_noise_dot: *const fn (*const RowsNoiseDot) callconv(.c) void,
    egg_c: Operators,
    nano_egg: Operators,
    /// Noise of rule egg.c.
    noise_fill: *const fn (*const NoiseFill) callconv(.c) void,
    /// Noise of rule nano-egg, and what takes it where not only matrices are perturbed.
    normal_fill: *const fn (*const NormalFill) callconv(.c) void,
    normal_products: *const fn (*const NormalProducts) callconv(.c) void,
    perturb_vector: *const fn (*const PerturbVector) callconv(.c) void,
    perturb_embedded: *const fn (*const PerturbEmbedded) callconv(.c) void,
    update_vector: *const fn (*UpdateVector) callconv(.c) void,

    pub fn operators(table: *const Table, rule: Rule) *const Operators {
        return switch (rule) {
            .egg_c => &table.egg_c,
            .nano_egg => &table.nano_egg,
        };
    }
};
