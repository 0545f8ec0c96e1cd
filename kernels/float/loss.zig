// Plans of cross-entropy: every size and flag checked, operands linked, work cut into tiles; targets are looked at in a phase
// of their own before anything is written.
// Not the kernels: loss_scalar.zig (plain loops, the oracle), loss_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");
pub const Grid = @import("elementwise.zig").Grid;

const fault = "target out of range in row";

/// Targets of a tile of the first phase.
const check_rows = 1 << 15;
const tile_elements = 1 << 14;

pub fn count_targets(args: *ops.CountTargets, link: *ops.Link) ops.Error!ops.Plan {
    try link.dense(&args.targets, &.{args.rows}, .i32, "targets");
    try link.dense(&args.count, &.{1}, .f32, "count");
    return .{ .tiles = .{ 1, 0, 0 }, .work = args.rows / 8 };
}

/// A row is worked on in pieces of this many logits: the second look at a piece finds it in the L1 cache.
pub const piece = 512;

pub fn pieces(classes: u32) usize {
    return std.math.divCeil(usize, classes, piece) catch unreachable;
}

fn rowsTile(classes: u32) u32 {
    return @max(1, tile_elements / @max(classes, 1));
}

pub fn rowRange(tile: u32, rows: u32, classes: u32) [2]usize {
    const step = rowsTile(classes);
    const first = @as(usize, tile) * step;
    return .{ first, @min(first + step, rows) };
}

/// Rows' losses before they are summed: the caller's, or the workspace.
pub fn lossesOf(args: *const ops.CrossEntropy, workspace: [*]align(64) u8) ?[*]f32 {
    if (args.losses.present()) return args.losses.f32s();
    return if (args.loss.present()) @ptrCast(workspace) else null;
}

/// scale / divisor, or 0 where there is nothing to divide by.
pub fn factorOf(args: anytype) f32 {
    if (!args.divisor.present()) return args.scale;
    const divisor = args.divisor.f32s()[0];
    return if (divisor == 0) 0 else args.scale / divisor;
}

/// Looks at one tile's targets: 0, or 1 + the first row that is out of range.
pub fn check(args: anytype, tile: u32) u32 {
    const targets = args.targets.i32s();
    const first = @as(usize, tile) * check_rows;
    for (first..@min(first + check_rows, args.rows)) |row| {
        const target = targets[row];
        if (target != args.ignore_index and (target < 0 or target >= args.classes)) return @intCast(row + 1);
    }
    return 0;
}

pub fn cross_entropy(args: *ops.CrossEntropy, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(bool, args.accumulate, "accumulate");
    try link.dense(&args.logits, &.{ args.rows, args.classes }, .f32, "logits");
    try link.dense(&args.targets, &.{args.rows}, .i32, "targets");
    try link.optional(&args.divisor, &.{1}, .f32, "divisor");
    try link.optional(&args.losses, &.{args.rows}, .f32, "losses");
    try link.optional(&args.lse, &.{args.rows}, .f32, "lse");
    try link.optional(&args.loss, &.{1}, .f32, "loss");
    try link.optional(&args.dlogits, &.{ args.rows, args.classes }, .f32, "dlogits");
    return .{
        .tiles = .{ checkTiles(args.rows), std.math.divCeil(u32, args.rows, rowsTile(args.classes)) catch unreachable, @intFromBool(args.loss.present()) },
        .scratch = 4 * pieces(args.classes),
        .workspace = if (args.loss.present() and !args.losses.present()) 4 * @as(usize, args.rows) else 0,
        .work = 4 * @as(u64, args.rows) * @max(args.classes, 1),
        .fault = fault,
    };
}

pub fn cross_entropy_backward(args: *ops.CrossEntropyBackward, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(bool, args.accumulate, "accumulate");
    try link.dense(&args.logits, &.{ args.rows, args.classes }, .f32, "logits");
    try link.dense(&args.targets, &.{args.rows}, .i32, "targets");
    try link.dense(&args.lse, &.{args.rows}, .f32, "lse");
    try link.optional(&args.divisor, &.{1}, .f32, "divisor");
    try link.dense(&args.dy, &.{if (try link.choice(bool, args.per_row, "per_row")) args.rows else 1}, .f32, "dy");
    try link.dense(&args.dlogits, &.{ args.rows, args.classes }, .f32, "dlogits");
    return .{
        .tiles = .{ checkTiles(args.rows), Grid.init(args.rows, args.classes).tiles(), 0 },
        .work = 2 * @as(u64, args.rows) * @max(args.classes, 1),
        .fault = fault,
    };
}

fn checkTiles(rows: u32) u32 {
    return std.math.divCeil(u32, rows, check_rows) catch unreachable;
}
