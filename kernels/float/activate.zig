// Plans of activations and gates: every size and flag checked, operands linked, work cut into tiles.
// Not the kernels: activate_scalar.zig (plain loops, the oracle), activate_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");
pub const Grid = @import("elementwise.zig").Grid;

pub fn activate(args: *ops.Activate, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(ops.Activation, args.activation, "activation");
    const size = [_]u32{ args.rows, args.width };
    try link.strided(&args.x, &size, &.{ args.x_stride, 1 }, .f32, "x");
    if (args.up.present()) try link.strided(&args.up, &size, &.{ args.up_stride, 1 }, .f32, "up");
    try link.strided(&args.y, &size, &.{ args.y_stride, 1 }, .f32, "y");
    try apart(args, args.y_stride, link, "y_stride");
    flatten(args, args.up.present());
    return tiles(args.rows, args.width);
}

pub fn activate_backward(args: *ops.ActivateBackward, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(ops.Activation, args.activation, "activation");
    _ = try link.choice(bool, args.accumulate, "accumulate");
    const size = [_]u32{ args.rows, args.width };
    const gated = args.up.present();
    try link.strided(&args.x, &size, &.{ args.x_stride, 1 }, .f32, "x");
    if (gated) try link.strided(&args.up, &size, &.{ args.up_stride, 1 }, .f32, "up");
    try link.strided(&args.dy, &size, &.{ args.y_stride, 1 }, .f32, "dy");
    if (args.dx.present()) {
        try link.strided(&args.dx, &size, &.{ args.x_stride, 1 }, .f32, "dx");
        try apart(args, args.x_stride, link, "x_stride");
    }
    if (args.dup.present()) {
        if (!gated) return link.fail(error.BadArgument, "dup without up", .{});
        try link.strided(&args.dup, &size, &.{ args.up_stride, 1 }, .f32, "dup");
        try apart(args, args.up_stride, link, "up_stride");
    }
    flatten(args, gated);
    return tiles(args.rows, args.width);
}

/// Rows that are written must not overlap.
fn apart(args: anytype, stride: u32, link: *ops.Link, name: []const u8) ops.Error!void {
    if (args.rows > 1 and stride < args.width) return link.fail(error.BadArgument, "{s}: {d} is less than the width {d}", .{ name, stride, args.width });
}

/// Rows that all follow one another become one long row.
fn flatten(args: anytype, gated: bool) void {
    const count = std.math.mul(u32, args.rows, args.width) catch return;
    if (args.x_stride != args.width or args.y_stride != args.width or (gated and args.up_stride != args.width)) return;
    args.rows = 1;
    args.width = count;
}

fn tiles(rows: u32, width: u32) ops.Plan {
    return .{ .tiles = .{ Grid.init(rows, width).tiles(), 0, 0 }, .work = 4 * @as(u64, rows) * width };
}
