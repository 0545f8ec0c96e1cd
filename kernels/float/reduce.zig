// Plans of reductions: every size and flag checked, operands linked, work cut into tiles. Long axes are cut into pieces, by
// shape alone; the pieces' results go through the workspace and are joined in order, in f64.
// Not the kernels: reduce_scalar.zig (plain loops, the oracle), reduce_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");
pub const Grid = @import("elementwise.zig").Grid;

/// Elements of a piece, about.
const piece_elements = 1 << 16;
/// Columns of a block where the axis is not the last: what a worker's scratch holds of sums.
pub const block_columns = 2048;
/// Rows of a piece: few enough that sums over them in f32 stay exact enough, many enough that the workspace stays small.
const most_rows = 512;
const least_rows = 32;

fn divide(count: u64, step: u64) u64 {
    return std.math.divCeil(u64, count, step) catch unreachable;
}

/// How a reduction is cut. Last axis (inner 1): rows of `axis` elements in `pieces` of `step`, `group` rows to a tile where a
/// row is one piece. Else: blocks of columns, and pieces of `step` rows of the axis.
pub const Cut = struct {
    outer: u64,
    axis: u64,
    inner: u64,
    pieces: u64,
    step: u64,
    group: u64,
    blocks: u64,

    pub fn init(outer: u64, axis: u64, inner: u64) Cut {
        if (inner == 1) {
            const pieces = @max(1, divide(axis, piece_elements));
            return .{ .outer = outer, .axis = axis, .inner = 1, .pieces = pieces, .step = piece_elements, .group = if (pieces > 1) 1 else @max(1, piece_elements / @max(axis, 1)), .blocks = 1 };
        }
        const columns = @max(1, @min(inner, block_columns));
        const step = std.math.clamp(@as(u64, piece_elements) / columns, least_rows, most_rows);
        return .{ .outer = outer, .axis = axis, .inner = inner, .pieces = @max(1, divide(axis, step)), .step = step, .group = 1, .blocks = divide(inner, columns) };
    }
    pub fn tiles(cut: Cut) u64 {
        return divide(cut.outer, cut.group) * cut.blocks * cut.pieces;
    }
    /// Partial results: (outer, piece, inner).
    pub fn partials(cut: Cut) u64 {
        return if (cut.pieces == 1) 0 else cut.outer * cut.pieces * cut.inner;
    }

    pub const Tile = struct { outer: [2]usize, axis: [2]usize, inner: [2]usize, piece: usize };

    pub fn tile(cut: Cut, number: u32) Tile {
        const piece = number % cut.pieces;
        const block = number / cut.pieces % cut.blocks;
        const group = number / cut.pieces / cut.blocks;
        return .{
            .outer = .{ @intCast(group * cut.group), @intCast(@min((group + 1) * cut.group, cut.outer)) },
            .axis = .{ @intCast(piece * cut.step), @intCast(@min((piece + 1) * cut.step, cut.axis)) },
            .inner = .{ @intCast(block * block_columns), @intCast(@min((block + 1) * block_columns, cut.inner)) },
            .piece = @intCast(piece),
        };
    }

    /// Results that a tile of the second phase joins: of outer * inner.
    pub const join_elements = 256;
    pub fn joinTiles(cut: Cut) u64 {
        return if (cut.pieces == 1) 0 else divide(cut.outer * cut.inner, join_elements);
    }
    pub fn joinRange(cut: Cut, number: u32) [2]usize {
        const first = @as(u64, number) * join_elements;
        return .{ @intCast(first), @intCast(@min(first + join_elements, cut.outer * cut.inner)) };
    }
};

pub fn cutOf(args: *const ops.Reduce) Cut {
    return .init(args.outer, args.axis, args.inner);
}

/// What the workspace holds for max: values, then positions.
pub fn positions(workspace: [*]align(64) u8, cut: Cut) [*]i32 {
    return @ptrCast(@alignCast(workspace + @as(usize, @intCast(4 * cut.partials()))));
}

/// alpha, divided by the axis for a mean.
pub fn factorOf(args: anytype) f32 {
    const mean = args.operation == @intFromEnum(ops.Reduction.mean);
    return if (mean) args.alpha / @as(f32, @floatFromInt(args.axis)) else args.alpha;
}

pub fn reduce(args: *ops.Reduce, link: *ops.Link) ops.Error!ops.Plan {
    const operation = try link.choice(ops.Reduction, args.operation, "operation");
    _ = try link.choice(bool, args.accumulate, "accumulate");
    try link.dense(&args.x, &.{ args.outer, args.axis, args.inner }, .f32, "x");
    try link.dense(&args.y, &.{ args.outer, args.inner }, .f32, "y");
    if (args.index.present()) {
        if (operation != .max) return link.fail(error.BadArgument, "index: max only", .{});
        try link.dense(&args.index, &.{ args.outer, args.inner }, .i32, "index");
    }
    if (operation == .max and args.axis == 0) return link.fail(error.BadShape, "axis: max of nothing", .{});
    if (operation == .max and args.axis > std.math.maxInt(i32)) return link.fail(error.BadShape, "axis: too long for max", .{});
    const work = @as(u64, args.outer) * args.inner *| @max(args.axis, 1);
    if (work == 0) return .{ .tiles = @splat(0) };
    const cut = cutOf(args);
    return .{
        .tiles = .{ std.math.cast(u32, cut.tiles()) orelse return link.fail(error.BadShape, "x: too large", .{}), @intCast(cut.joinTiles()), 0 },
        .workspace = @intCast(8 * cut.partials()),
        .scratch = 8 * block_columns,
        .work = work,
    };
}

/// dx as a matrix: rows of the axis where it is the last, else rows of `inner`.
pub fn backwardGrid(args: *const ops.ReduceBackward) Grid {
    if (args.inner == 1) return .init(args.outer, args.axis);
    return .init(@as(u64, args.outer) * args.axis, args.inner);
}

pub fn reduce_backward(args: *ops.ReduceBackward, link: *ops.Link) ops.Error!ops.Plan {
    const operation = try link.choice(ops.Reduction, args.operation, "operation");
    _ = try link.choice(bool, args.accumulate, "accumulate");
    if (operation == .nonfinite) return link.fail(error.BadArgument, "operation: nonfinite has no gradient", .{});
    try link.dense(&args.dy, &.{ args.outer, args.inner }, .f32, "dy");
    if (operation == .sumsq) try link.dense(&args.x, &.{ args.outer, args.axis, args.inner }, .f32, "x");
    if (operation == .max) try link.dense(&args.index, &.{ args.outer, args.inner }, .i32, "index");
    try link.dense(&args.dx, &.{ args.outer, args.axis, args.inner }, .f32, "dx");
    const work = @as(u64, args.outer) * args.axis *| args.inner;
    return .{ .tiles = .{ if (work == 0) 0 else backwardGrid(args).tiles(), 0, 0 }, .work = work };
}
