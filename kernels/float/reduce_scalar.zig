// The plain twin of reductions: loops that read like the formulas in ops.zig, the oracle of the tests. Pieces are summed in f64.
// Not fast. Read next: reduce_vector.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("reduce.zig");

const Bytes = [*]align(64) u8;

pub fn reduce(args: *const ops.Reduce, phase: u32, tile: u32, workspace: Bytes, _: Bytes) void {
    const cut = plan.cutOf(args);
    if (phase == 1) return join(args, cut, tile, workspace);
    const part = cut.tile(tile);
    const values: [*]f32 = @ptrCast(workspace);
    for (part.outer[0]..part.outer[1]) |o| {
        for (part.inner[0]..part.inner[1]) |i| {
            var sum: f64 = 0;
            var best: Best = .{};
            for (part.axis[0]..part.axis[1]) |a| {
                const x = args.x.f32s()[(o * args.axis + a) * args.inner + i];
                switch (@as(ops.Reduction, @enumFromInt(args.operation))) {
                    .sum, .mean => sum += x,
                    .sumsq => sum += x * x,
                    .nonfinite => sum += if (std.math.isFinite(x)) 0 else 1,
                    .max => best.see(x, a),
                }
            }
            if (cut.pieces == 1) {
                finish(args, o * args.inner + i, sum, best);
            } else {
                const at = (o * @as(usize, @intCast(cut.pieces)) + part.piece) * args.inner + i;
                values[at] = if (args.operation == @intFromEnum(ops.Reduction.max)) best.value else @floatCast(sum);
                plan.positions(workspace, cut)[at] = @intCast(best.position);
            }
        }
    }
}

/// The largest so far and where it was first; NaN is larger than all.
pub const Best = struct {
    value: f32 = -std.math.inf(f32),
    position: usize = std.math.maxInt(u31),

    pub fn see(best: *Best, x: f32, position: usize) void {
        const first = best.position == std.math.maxInt(u31);
        const larger = x > best.value or (std.math.isNan(x) and !std.math.isNan(best.value));
        if (first or larger) best.* = .{ .value = x, .position = position };
    }
};

/// The pieces of each result, in order. The vector kernels use it too, for max and where there are few results.
pub fn join(args: *const ops.Reduce, cut: plan.Cut, tile: u32, workspace: Bytes) void {
    const values: [*]const f32 = @ptrCast(workspace);
    const positions = plan.positions(workspace, cut);
    const pieces: usize = @intCast(cut.pieces);
    const first, const end = cut.joinRange(tile);
    for (first..end) |at| {
        const start = at / args.inner * pieces * args.inner + at % args.inner;
        var sum: f64 = 0;
        var best: Best = .{};
        for (0..pieces) |piece| {
            const from = start + piece * args.inner;
            if (args.operation == @intFromEnum(ops.Reduction.max)) best.see(values[from], @intCast(positions[from])) else sum += values[from];
        }
        finish(args, at, sum, best);
    }
}

pub fn finish(args: *const ops.Reduce, at: usize, sum: f64, best: Best) void {
    const y = args.y.f32s();
    if (args.operation == @intFromEnum(ops.Reduction.max)) {
        y[at] = best.value;
        if (args.index.present()) args.index.i32s()[at] = @intCast(best.position);
        return;
    }
    const mean = args.operation == @intFromEnum(ops.Reduction.mean);
    const value: f32 = @floatCast(if (mean) args.alpha * sum / @as(f64, @floatFromInt(args.axis)) else args.alpha * sum);
    y[at] = if (args.accumulate == 1) y[at] + value else value;
}

pub fn reduce_backward(args: *const ops.ReduceBackward, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const grid = plan.backwardGrid(args);
    const first_row, const end_row, const first_col, const end_col = grid.block(tile);
    const factor = plan.factorOf(args);
    for (first_row..end_row) |row| {
        for (first_col..end_col) |col| {
            const at = row * @as(usize, @intCast(grid.cols)) + col;
            const axis = at / args.inner % args.axis;
            const result = at / args.inner / args.axis * args.inner + at % args.inner;
            const dy = args.dy.f32s()[result];
            const value = switch (@as(ops.Reduction, @enumFromInt(args.operation))) {
                .sum, .mean => factor * dy,
                .sumsq => factor * 2 * args.x.f32s()[at] * dy,
                .max => if (args.index.i32s()[result] == axis) dy else 0,
                .nonfinite => unreachable,
            };
            const dx = &args.dx.f32s()[at];
            dx.* = if (args.accumulate == 1) dx.* + value else value;
        }
    }
}
