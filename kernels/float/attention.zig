// Plans of attention, forward and backward: every size and flag checked, operands linked, work cut into blocks of queries and
// keys. Memory grows with the lengths, never with their product.
// Not the kernels: attention_scalar.zig (plain loops, the oracle), attention_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");
const strides = @import("strides.zig");

/// Queries, and keys, of a block.
pub const block = 64;

fn divide(count: u64, step: u64) u64 {
    return std.math.divCeil(u64, count, step) catch unreachable;
}

/// d in whole vectors.
pub fn padded(d: u32, lanes: u32) usize {
    return std.mem.alignForward(usize, d, lanes);
}

/// How many keys query t sees.
pub fn seen(args: anytype, t: usize) usize {
    return if (args.causal == 1) t + 1 + (args.kv_len - args.q_len) else args.kv_len;
}

/// A block of queries of one head.
pub const Queries = struct { batch: usize, head: usize, first: usize, count: usize };

/// Later queries see more keys: their tiles come first.
pub fn queriesOf(args: anytype, tile: u32) Queries {
    const blocks = divide(args.q_len, block);
    const first = (blocks - 1 - tile % blocks) * block;
    const row = tile / blocks;
    return .{ .batch = @intCast(row / args.heads), .head = @intCast(row % args.heads), .first = @intCast(first), .count = @intCast(@min(block, args.q_len - first)) };
}

/// A block of keys of one kv head.
pub const Keys = struct { batch: usize, head: usize, first: usize, end: usize };

pub fn keysOf(args: *const ops.AttentionBackward, tile: u32) Keys {
    const blocks = divide(args.kv_len, block);
    const first = tile % blocks * block;
    const row = tile / blocks;
    return .{ .batch = @intCast(row / args.kv_heads), .head = @intCast(row % args.kv_heads), .first = @intCast(first), .end = @intCast(@min(first + block, args.kv_len)) };
}

/// Tiles: blocks of `length` for each of outer * inner.
fn tilesOf(link: *ops.Link, outer: u32, inner: u32, length: u32) ops.Error!u32 {
    const rows = std.math.mul(u64, @as(u64, outer) * inner, divide(length, block)) catch std.math.maxInt(u64);
    return std.math.cast(u32, rows) orelse link.fail(error.BadShape, "{d} x {d} x {d} blocks of {d}: too many", .{ outer, inner, length, block });
}

fn check(args: anytype, link: *ops.Link) ops.Error!void {
    const causal = try link.choice(bool, args.causal, "causal");
    if (causal and args.q_len > args.kv_len) return link.fail(error.BadShape, "causal: {d} queries, but {d} keys", .{ args.q_len, args.kv_len });
    if (args.heads == 0 and args.kv_heads == 0) return;
    if (args.kv_heads == 0 or args.heads % args.kv_heads != 0) return link.fail(error.BadShape, "{d} heads are not a multiple of {d} kv heads", .{ args.heads, args.kv_heads });
}

fn workOf(args: anytype) u64 {
    return @as(u64, args.batch) *| args.heads *| args.q_len *| args.kv_len *| @max(args.d, 1);
}

/// Floats of scratch that a forward tile uses: the block of q transposed, scores, v, the block of o, and three numbers a query.
pub fn forwardFloats(d: u32, lanes: u32) usize {
    return block * (d + block + 2 * padded(d, lanes) + 3);
}

pub fn attention(args: *ops.Attention, link: *ops.Link) ops.Error!ops.Plan {
    try check(args, link);
    const q = [_]u32{ args.batch, args.q_len, args.heads, args.d };
    const kv = [_]u32{ args.batch, args.kv_len, args.kv_heads, args.d };
    const o_strides = [_]u32{ args.o_batch, args.o_time, args.o_head, 1 };
    try link.strided(&args.q, &q, &.{ args.q_batch, args.q_time, args.q_head, 1 }, .f32, "q");
    try link.strided(&args.k, &kv, &.{ args.k_batch, args.k_time, args.k_head, 1 }, .f32, "k");
    try link.strided(&args.v, &kv, &.{ args.v_batch, args.v_time, args.v_head, 1 }, .f32, "v");
    try link.strided(&args.o, &q, &o_strides, .f32, "o");
    try strides.apart(link, 4, q, o_strides, "o");
    try link.optional(&args.lse, &.{ args.batch, args.heads, args.q_len }, .f32, "lse");
    const work = 2 *| workOf(args);
    if (link.lanes > 1 and args.q_len <= few_queries and args.heads > 0 and args.batch > 0 and args.q_len > 0) {
        const ranges: Ranges = .init(args);
        const heads = std.math.cast(u32, @as(u64, args.batch) * args.kv_heads) orelse return link.fail(error.BadShape, "{d} x {d} heads: too many", .{ args.batch, args.kv_heads });
        const floats = ranges.rows * (padded(args.d, link.lanes) + link.lanes);
        return .{
            .tiles = .{ @intCast(heads * ranges.count), if (ranges.count > 1) heads else 0, 0 },
            .workspace = if (ranges.count > 1) 4 * heads * ranges.count * floats else 0,
            .scratch = 4 * (block + ranges.rows * padded(args.d, link.lanes) + floats),
            .work = work,
        };
    }
    const tiles = try tilesOf(link, args.batch, args.heads, args.q_len);
    const scratch = if (link.lanes == 1 or tiles == 0) 0 else 4 * forwardFloats(args.d, link.lanes);
    return .{ .tiles = .{ tiles, 0, 0 }, .scratch = scratch, .work = work };
}

/// Up to so many queries, keys and values are read as they lie (attention_few.zig).
pub const few_queries = 4;

/// How the attention of few queries is cut, by shape alone: `rows` queries read a kv head, and where there are few heads, ranges of
/// `step` keys are worked on apart and joined in order.
pub const Ranges = struct {
    rows: usize,
    count: usize,
    step: usize,

    const tiles_wanted = 16;
    const fewest_keys = 256;

    pub fn init(args: *const ops.Attention) Ranges {
        const tiles = @as(u64, args.batch) * args.kv_heads;
        const wanted = @max(1, @min(divide(tiles_wanted, @max(1, tiles)), args.kv_len / fewest_keys));
        const step = @max(block, std.mem.alignForward(usize, @intCast(divide(args.kv_len, wanted)), block));
        return .{ .rows = @as(usize, args.heads / @max(1, args.kv_heads)) * args.q_len, .count = @intCast(@max(1, divide(args.kv_len, step))), .step = step };
    }
};

/// How the vector kernels cut the backward. A unit is a block of queries of one of the heads that share a kv head, the latest
/// queries first. Each (batch, kv head) has `chunks`; chunk c takes the units c, c + chunks, .. and sums dk and dv of all keys:
/// a single one in its worker's scratch, several in the workspace, where the second phase joins them in order.
pub const Cut = struct {
    group: usize,
    units: usize,
    chunks: usize,

    /// Tiles enough for many threads, and a limit on what the partial sums take: 128 MiB, or two copies of k.
    const tiles_wanted = 24;
    const most_chunks = 16;
    const most_floats = 1 << 25;

    pub fn init(args: *const ops.AttentionBackward, lanes: u32) Cut {
        if (args.heads == 0) return .{ .group = 0, .units = 0, .chunks = 0 };
        const group = args.heads / args.kv_heads;
        const units = divide(args.q_len, block) * group;
        const rows = @as(u64, args.batch) * args.kv_heads;
        const floats = 2 *| rows *| args.kv_len *| padded(args.d, lanes);
        const wanted = divide(tiles_wanted, @max(1, rows));
        const room = @max(1, most_floats / @max(1, floats));
        return .{ .group = group, .units = @intCast(units), .chunks = @intCast(@min(units, wanted, room, most_chunks)) };
    }

    /// The first query and the number of queries of a unit, and its head in the group.
    pub fn unit(cut: Cut, args: *const ops.AttentionBackward, number: usize) struct { first: usize, count: usize, member: usize } {
        const first = (cut.units / cut.group - 1 - number / cut.group) * block;
        return .{ .first = first, .count = @min(block, args.q_len - first), .member = number % cut.group };
    }

    /// Keys that a chunk's queries see: those of its first unit.
    pub fn keys(cut: Cut, args: *const ops.AttentionBackward, chunk: usize) usize {
        const first = cut.unit(args, chunk);
        return seen(args, first.first + first.count - 1);
    }

    /// Where a chunk's sums begin, dk then dv, each (kv_len, padded d).
    pub fn sums(cut: Cut, args: *const ops.AttentionBackward, pad: usize, batch: usize, head: usize, chunk: usize) usize {
        return ((batch * args.kv_heads + head) * cut.chunks + chunk) * 2 * args.kv_len * pad;
    }
};

/// Floats of scratch that a backward tile uses: q and do transposed and as they are, dq, k; p and ds; two numbers a query.
pub fn backwardFloats(d: u32, lanes: u32) usize {
    return block * (2 * @as(usize, d) + 4 * padded(d, lanes) + 2 * block + 2);
}

pub fn attention_backward(args: *ops.AttentionBackward, link: *ops.Link) ops.Error!ops.Plan {
    try check(args, link);
    _ = try link.choice(bool, args.accumulate, "accumulate");
    const q = [_]u32{ args.batch, args.q_len, args.heads, args.d };
    const kv = [_]u32{ args.batch, args.kv_len, args.kv_heads, args.d };
    const q_strides = [_]u32{ args.q_batch, args.q_time, args.q_head, 1 };
    const k_strides = [_]u32{ args.k_batch, args.k_time, args.k_head, 1 };
    const v_strides = [_]u32{ args.v_batch, args.v_time, args.v_head, 1 };
    const o_strides = [_]u32{ args.o_batch, args.o_time, args.o_head, 1 };
    try link.strided(&args.q, &q, &q_strides, .f32, "q");
    try link.strided(&args.k, &kv, &k_strides, .f32, "k");
    try link.strided(&args.v, &kv, &v_strides, .f32, "v");
    try link.strided(&args.o, &q, &o_strides, .f32, "o");
    try link.strided(&args.dout, &q, &o_strides, .f32, "dout");
    try link.dense(&args.lse, &.{ args.batch, args.heads, args.q_len }, .f32, "lse");
    try link.strided(&args.dq, &q, &q_strides, .f32, "dq");
    try link.strided(&args.dk, &kv, &k_strides, .f32, "dk");
    try link.strided(&args.dv, &kv, &v_strides, .f32, "dv");
    try strides.apart(link, 4, q, q_strides, "dq");
    try strides.apart(link, 4, kv, k_strides, "dk");
    try strides.apart(link, 4, kv, v_strides, "dv");
    const query_tiles = try tilesOf(link, args.batch, args.heads, args.q_len);
    const key_tiles = try tilesOf(link, args.batch, args.kv_heads, args.kv_len);
    const work = 5 *| workOf(args);
    // The plain twin: dq and delta by blocks of queries, then dk and dv by blocks of keys.
    if (link.lanes == 1) return .{ .tiles = .{ query_tiles, key_tiles, 0 }, .workspace = 4 * @as(usize, args.batch) * args.heads * args.q_len, .work = work };
    const cut: Cut = .init(args, link.lanes);
    const tiles: u32 = if (query_tiles == 0) 0 else @intCast(@as(u64, args.batch) * args.kv_heads * cut.chunks);
    const own = cut.chunks == 1;
    const floats = if (own) 0 else 2 * @as(u64, args.batch) * args.kv_heads * cut.chunks;
    const workspace = std.math.mul(u64, 4 * floats, @as(u64, args.kv_len) * padded(args.d, link.lanes)) catch return link.fail(error.BadShape, "dk: too large", .{});
    return .{
        .tiles = .{ tiles, if (own and tiles > 0) 0 else key_tiles, 0 },
        .workspace = @intCast(if (tiles == 0) 0 else workspace),
        .scratch = if (tiles == 0) 0 else 4 * (backwardFloats(args.d, link.lanes) + if (own) 2 * args.kv_len * padded(args.d, link.lanes) else 0),
        .work = work,
    };
}
