// Plans of softmax over rows: every size and flag checked, operands linked, rows cut into tiles.
// Not the kernels: softmax_scalar.zig (plain loops, the oracle), softmax_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");

/// Elements of a tile, about: whole rows.
const tile_elements = 1 << 15;

fn step(width: u32) u64 {
    return @max(1, tile_elements / @max(1, width));
}

/// First row and end of a tile.
pub fn rowRange(tile: u32, rows: u32, width: u32) [2]usize {
    const first = tile * step(width);
    return .{ @intCast(first), @intCast(@min(first + step(width), rows)) };
}

fn planOf(rows: u32, width: u32) ops.Plan {
    const tiles: u32 = @intCast(std.math.divCeil(u64, rows, step(width)) catch unreachable);
    return .{ .tiles = .{ tiles, 0, 0 }, .work = 4 * @as(u64, rows) * width };
}

pub fn softmax(args: *ops.Softmax, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(ops.SoftmaxMode, args.mode, "mode");
    try link.dense(&args.x, &.{ args.rows, args.width }, .f32, "x");
    try link.dense(&args.y, &.{ args.rows, args.width }, .f32, "y");
    return planOf(args.rows, args.width);
}

pub fn softmax_backward(args: *ops.SoftmaxBackward, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(ops.SoftmaxMode, args.mode, "mode");
    _ = try link.choice(bool, args.accumulate, "accumulate");
    try link.dense(&args.y, &.{ args.rows, args.width }, .f32, "y");
    try link.dense(&args.dy, &.{ args.rows, args.width }, .f32, "dy");
    try link.dense(&args.dx, &.{ args.rows, args.width }, .f32, "dx");
    return planOf(args.rows, args.width);
}
