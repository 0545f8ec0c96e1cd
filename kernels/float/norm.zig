// Plans of layer and RMS norm: every size and flag checked, operands linked, rows cut into tiles.
// Not the kernels: norm_scalar.zig (plain loops, the oracle), norm_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");

/// Elements of a tile, about: whole rows.
const tile_elements = 1 << 14;
/// Tiles of the backward keep sums of the weights' gradients for their rows: not more tiles than this.
const most_pieces = 64;
/// Columns that a tile of the backward's second phase joins.
const join_columns = 256;

fn divide(count: u64, step: u64) u64 {
    return std.math.divCeil(u64, count, step) catch unreachable;
}

fn rowsStep(width: u32) u64 {
    return @max(1, tile_elements / @max(1, width));
}

/// First row and end of a tile of the forward.
pub fn rowRange(tile: u32, rows: u32, width: u32) [2]usize {
    const first = tile * rowsStep(width);
    return .{ @intCast(first), @intCast(@min(first + rowsStep(width), rows)) };
}

pub fn norm(args: *ops.Norm, link: *ops.Link) ops.Error!ops.Plan {
    const mode = try link.choice(ops.NormMode, args.mode, "mode");
    const size = [_]u32{ args.rows, args.width };
    try link.dense(&args.x, &size, .f32, "x");
    try link.optional(&args.weight, size[1..], .f32, "weight");
    try link.optional(&args.bias, size[1..], .f32, "bias");
    try link.dense(&args.y, &size, .f32, "y");
    if (mode == .layer) try link.optional(&args.mean, size[0..1], .f32, "mean");
    try link.optional(&args.rstd, size[0..1], .f32, "rstd");
    const tiles = std.math.cast(u32, divide(args.rows, rowsStep(args.width))).?;
    return .{ .tiles = .{ tiles, 0, 0 }, .work = 2 * @as(u64, args.rows) * args.width };
}

/// How the backward is cut: pieces of `step` rows, each with its sums for dweight and dbias in the workspace.
pub const Pieces = struct {
    step: u64,
    count: u64,

    pub fn init(args: *const ops.NormBackward) Pieces {
        const step = @max(rowsStep(args.width), divide(args.rows, most_pieces));
        return .{ .step = step, .count = divide(args.rows, step) };
    }
    pub fn rows(pieces: Pieces, args: *const ops.NormBackward, tile: u32) [2]usize {
        const first = tile * pieces.step;
        return .{ @intCast(first), @intCast(@min(first + pieces.step, args.rows)) };
    }
    /// Columns of a tile of the second phase.
    pub fn columns(args: *const ops.NormBackward, tile: u32) [2]usize {
        const first = @as(usize, tile) * join_columns;
        return .{ first, @min(first + join_columns, args.width) };
    }
};

pub fn norm_backward(args: *ops.NormBackward, link: *ops.Link) ops.Error!ops.Plan {
    const mode = try link.choice(ops.NormMode, args.mode, "mode");
    _ = try link.choice(bool, args.accumulate, "accumulate");
    _ = try link.choice(bool, args.accumulate_weights, "accumulate_weights");
    const size = [_]u32{ args.rows, args.width };
    try link.dense(&args.dy, &size, .f32, "dy");
    try link.dense(&args.x, &size, .f32, "x");
    try link.optional(&args.weight, size[1..], .f32, "weight");
    if (mode == .layer) try link.dense(&args.mean, size[0..1], .f32, "mean");
    try link.dense(&args.rstd, size[0..1], .f32, "rstd");
    try link.optional(&args.dx, &size, .f32, "dx");
    try link.optional(&args.dweight, size[1..], .f32, "dweight");
    try link.optional(&args.dbias, size[1..], .f32, "dbias");
    const pieces: Pieces = .init(args);
    const sums = args.dweight.present() or args.dbias.present();
    const joins = divide(args.width, join_columns);
    return .{
        .tiles = .{ @intCast(pieces.count), if (sums) @intCast(joins) else 0, 0 },
        .workspace = if (sums) @intCast(4 * 2 * pieces.count * args.width) else 0,
        .work = 3 * @as(u64, args.rows) * args.width,
    };
}
