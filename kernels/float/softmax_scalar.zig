// The plain twin of softmax over rows: loops that read like the formulas in ops.zig, the oracle of the tests.
// Not fast. Read next: softmax_vector.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("softmax.zig");

const Bytes = [*]align(64) u8;

pub fn softmax(args: *const ops.Softmax, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const first, const end = plan.rowRange(tile, args.rows, args.width);
    for (first..end) |row| {
        const x = args.x.f32s()[row * args.width ..][0..args.width];
        const y = args.y.f32s()[row * args.width ..][0..args.width];
        var top = -std.math.inf(f32);
        for (x) |value| {
            if (value > top) top = value;
        }
        var sum: f64 = 0; // rows may be wide
        for (x) |value| sum += @exp(value - top);
        const total: f32 = @floatCast(sum);
        const log_total = @log(total);
        for (x, y) |value, *to| to.* = switch (@as(ops.SoftmaxMode, @enumFromInt(args.mode))) {
            .softmax => @exp(value - top) / total,
            .log => value - top - log_total,
        };
    }
}

pub fn softmax_backward(args: *const ops.SoftmaxBackward, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const first, const end = plan.rowRange(tile, args.rows, args.width);
    const logarithm = args.mode == @intFromEnum(ops.SoftmaxMode.log);
    for (first..end) |row| {
        const y = args.y.f32s()[row * args.width ..][0..args.width];
        const dy = args.dy.f32s()[row * args.width ..][0..args.width];
        const dx = args.dx.f32s()[row * args.width ..][0..args.width];
        var sum: f64 = 0;
        for (y, dy) |value, gradient| sum += if (logarithm) gradient else gradient * value;
        const total: f32 = @floatCast(sum);
        for (y, dy, dx) |value, gradient, *to| {
            const result = if (logarithm) gradient - @exp(value) * total else value * (gradient - total);
            to.* = if (args.accumulate == 1) to.* + result else result;
        }
    }
}
