// The plan of rotary positions: every size and flag checked, operands linked, work cut into tiles; and how fast a pair turns.
// Not the kernels: rope_scalar.zig (plain loops, the oracle, and the table of angles), rope_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");
const strides = @import("strides.zig");

/// Elements of a tile, about.
const tile_elements = 1 << 14;
/// Positions of a tile of the table.
const table_positions = 64;

fn divide(count: u64, by: u64) u64 {
    return std.math.divCeil(u64, count, by) catch unreachable;
}

/// The table of angles has a row for each position: of each time, or of each (batch, time) where positions are given.
/// Row: cosines, then sines, one for each pair.
pub fn tablePositions(args: *const ops.Rope) u64 {
    return if (args.positions.present()) @as(u64, args.batch) * args.time else args.time;
}

/// How far pair i turns from one position to the next, in radians, without the sign.
pub fn frequency(args: *const ops.Rope, i: usize) f64 {
    const plain = @exp(-2 * @as(f64, @floatFromInt(i)) / @as(f64, @floatFromInt(args.d)) * @log(args.base));
    const turns = args.original * plain / (2 * std.math.pi);
    const kept = std.math.clamp((turns - args.low) / (args.high - args.low), 0, 1);
    return plain * ((1 - kept) / args.factor + kept);
}

/// First row of the table and end of a tile of phase 0.
pub fn tableRange(args: *const ops.Rope, tile: u32) [2]usize {
    const first = @as(u64, tile) * table_positions;
    return .{ @intCast(first), @intCast(@min(first + table_positions, tablePositions(args))) };
}

fn step(args: *const ops.Rope) u64 {
    return @max(1, tile_elements / @max(1, @as(u64, args.heads) * args.d));
}

/// First (batch, time) and end of a tile of phase 1.
pub fn rowRange(args: *const ops.Rope, tile: u32) [2]usize {
    const first = tile * step(args);
    return .{ @intCast(first), @intCast(@min(first + step(args), @as(u64, args.batch) * args.time)) };
}

pub fn rope(args: *ops.Rope, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(ops.RopePairs, args.pairs, "pairs");
    const accumulate = try link.choice(bool, args.accumulate, "accumulate");
    if (args.d % 2 != 0) return link.fail(error.BadShape, "d: {d} is odd", .{args.d});
    inline for (.{ "base", "factor" }) |name| {
        const value: f64 = @field(args, name);
        if (!(value > 0 and std.math.isFinite(value))) return link.fail(error.BadArgument, name ++ ": {d} is not a positive number", .{value});
    }
    if (!(args.original >= 0 and std.math.isFinite(args.original))) return link.fail(error.BadArgument, "original: {d} is not a number from 0", .{args.original});
    if (!(0 <= args.low and args.low < args.high and std.math.isFinite(args.high))) return link.fail(error.BadArgument, "low, high: {d}, {d} are not two rising numbers from 0", .{ args.low, args.high });
    if (args.sign != 1 and args.sign != -1) return link.fail(error.BadArgument, "sign: {d} is neither 1 nor -1", .{args.sign});
    const size = [_]u32{ args.batch, args.time, args.heads, args.d };
    const y_strides = [_]u32{ args.y_batch, args.y_time, args.y_head, 1 };
    const in_place = args.x.arena == args.y.arena and args.x.at == args.y.at;
    try link.strided(&args.x, &size, &.{ args.x_batch, args.x_time, args.x_head, 1 }, .f32, "x");
    try link.strided(&args.y, &size, &y_strides, .f32, "y");
    try strides.apart(link, 4, size, y_strides, "y");
    if (in_place and accumulate) return link.fail(error.BadArgument, "accumulate: not in place", .{});
    try link.optional(&args.positions, size[0..2], .i32, "positions");
    // What has no elements needs no tiles; what has lies in an arena, so that the products stay small.
    for (size) |n| if (n == 0) return .{ .tiles = @splat(0) };
    const rows = @as(u64, args.batch) * args.time;
    const positions = tablePositions(args);
    return .{
        .tiles = .{ @intCast(divide(positions, table_positions)), @intCast(divide(rows, step(args))), 0 },
        .workspace = @intCast(4 * positions * args.d),
        .work = 2 * rows * args.heads * args.d + 16 * positions * args.d,
    };
}
