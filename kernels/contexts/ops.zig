// The table of kernels of the context model that every CPU tier fills: names, arguments and exact meaning.
// No code here but the types. Twins: scalar.zig (plain loops, the oracle), vector.zig (SIMD, compiled once a tier).
//
// The model adds up rows of logits, one row for each context length: what the last byte, the last two ... bytes were. A row has
// V logits in 1/16 bit. A group is 16 antithetic pairs that read the same text, so that the rows are added once for all of them.
// Pair p perturbs the rows it reads as one matrix of rank one: (sum over the rows of A_p[row]) * B_p[v].

/// Pairs in a group: the 16 lanes of one vector of 32-bit sums.
pub const pair_lanes = 16;
/// Longest context, in bytes: also the number of rows that are added.
pub const max_order = 8;
/// Most logits of a row, and of the buffers that hold one.
pub const max_vocabulary = 256;

/// h(x): lowbias32 (Wellons 2018). Value i of the noise of `key` is byte i mod 4 of h((key + i div 4) * 0x9e3779b1), b, as
/// (b >> 2) | 1: odd, -31 .. 31, standard deviation 18.47.
pub fn hash(word: u32) u32 {
    var x = word;
    x ^= x >> 16;
    x *%= 0x7feb352d;
    x ^= x >> 15;
    x *%= 0x846ca68b;
    return x ^ (x >> 16);
}
pub const golden_ratio: u32 = 0x9e3779b1;

/// Rows are as long as whole vectors of 16.
pub fn padded(vocabulary: usize) usize {
    return (vocabulary + 15) & ~@as(usize, 15);
}

/// How far above the largest sum of rows `neg` is counted from: no perturbation reaches beyond it.
pub fn marginOf(order: u32, shift: u32) u32 {
    return (31 * 31 * order >> @intCast(shift)) + 2;
}

/// One group's B in the three shapes that `position` reads.
pub const Group = extern struct {
    key: u32,
    vocabulary: u32,
    noise: [*]align(64) i8, // room: [padded][16], B as it is drawn
    pairs: [*]align(64) i16, // [(vocabulary + 1) / 2][16][2]: two logits side by side
    quads: [*]align(64) i8, // [4][padded][4]: four pairs side by side
    offsets: [*]align(64) i32, // [padded]: -bias * sum of B over the pairs
};

/// One position of a group: what all members lose there, the fitness of each pair, and its votes for the rows it read.
///   neg_s[v] = top + margin - sum_k W[row_k][v] - s * ((a * B[v] + half) >> shift)    a = sum_k A[row_k], half = 2^(shift-1) or 0
///   Z_s      = max(1, sum_v T[neg_s[v] mod 16] >> (neg_s[v] div 16))                  T[j] = round(32767 * 2^(-j/16))
///   loss_s   = L(Z_s) + 16 * neg_s[target]      in 1/256 bit;  L(Z) = 256 e + f + (f (256 - f) 89 >> 16), e = floor(log2 Z),
///                                               f = the eight bits behind the leading one
///   F        = clamp((loss_- - loss_+ + 2^(fitness_shift-1)) >> fitness_shift, -127, 127)
///   votes_k[v] += sum over pairs of ((A[row_k] * F + 16) >> 5) * B[v]
pub const Position = extern struct {
    order: u32, // rows that are added, 1..max_order
    vocabulary: u32,
    target: u32,
    shift: u32,
    fitness_shift: u32,
    margin: u32, // at least the largest perturbation
    key: u32, // of A
    rows: [max_order]u32,
    weights: [*]const i8, // (rows, padded)
    votes: [max_order][*]align(64) i32, // [padded] each
    pairs: [*]align(64) const i16,
    quads: [*]align(64) const i8,
    offsets: [*]align(64) const i32,
    differences: [*]i32, // out: [16], loss_- - loss_+
    loss: i64, // out: of all 32 members, in 1/256 bit
};

/// Moves one row: W = clamp(W + clamp((votes * rate) >> 16, -2^28, 2^28), -127 * 2^20, 127 * 2^20) in the master weights, whose unit
/// is 2^20, and w = (W + 2^19) >> 20 in those that `position` reads.
pub const Move = extern struct {
    votes: [*]align(64) const i32, // [padded]
    master: [*]align(64) i32, // [padded]
    weights: [*]i8, // [padded]
    padded: u32,
    rate: u32, // below 2^31
    changed: u32, // out: weights w that are others now
};

/// One tier's kernels. Pointers only: vectors never cross between objects compiled for different CPUs.
pub const Table = extern struct {
    group: *const fn (*const Group) callconv(.c) void,
    position: *const fn (*Position) callconv(.c) void,
    move: *const fn (*Move) callconv(.c) void,
};

pub const unit_bits = 20;
pub const weight_limit = 127 << unit_bits;
pub const change_limit = 1 << 28;

/// T of `Position`.
pub const powers: [16]u16 = blk: {
    @setEvalBranchQuota(10000);
    var table: [16]u16 = undefined;
    for (&table, 0..) |*entry, j| entry.* = @intFromFloat(@round(32767.0 * @exp2(-@as(f64, @floatFromInt(j)) / 16.0)));
    break :blk table;
};
