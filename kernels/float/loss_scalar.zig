// The plain twin of cross-entropy: loops that read like the formulas in ops.zig, the oracle of the tests.
// Not fast. Read next: loss_vector.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("loss.zig");

const Bytes = [*]align(64) u8;

pub fn count_targets(args: *const ops.CountTargets, _: u32, _: u32, _: Bytes, _: Bytes) void {
    var count: u32 = 0;
    for (args.targets.i32s()[0..args.rows]) |target| count += @intFromBool(target != args.ignore_index);
    args.count.f32s()[0] = @floatFromInt(count);
}

pub fn cross_entropy(args: *const ops.CrossEntropy, phase: u32, tile: u32, workspace: Bytes, _: Bytes) u32 {
    switch (phase) {
        0 => return plan.check(args, tile),
        1 => {
            const first, const end = plan.rowRange(tile, args.rows, args.classes);
            for (first..end) |row| oneRow(args, row, workspace);
        },
        else => total(args, workspace),
    }
    return 0;
}

fn oneRow(args: *const ops.CrossEntropy, row: usize, workspace: Bytes) void {
    const logits = args.logits.f32s()[row * args.classes ..][0..args.classes];
    const target = args.targets.i32s()[row];
    const ignored = target == args.ignore_index;
    var largest = -std.math.inf(f32);
    for (logits) |x| largest = @max(largest, x); // NaN comes in with the sum
    const shift = if (largest == -std.math.inf(f32)) 0 else largest;
    var sum: f32 = 0;
    for (logits) |x| sum += @exp(x - shift);
    if (args.lse.present()) args.lse.f32s()[row] = largest + @log(sum);
    if (plan.lossesOf(args, workspace)) |losses| {
        // Not lse - x: where both are large, that loses what is between them.
        losses[row] = if (ignored) 0 else @log(sum) + (largest - logits[@intCast(target)]);
    }
    if (!args.dlogits.present()) return;
    const factor = if (ignored) 0 else plan.factorOf(args);
    for (logits, args.dlogits.f32s()[row * args.classes ..][0..args.classes], 0..) |x, *dx, i| {
        const one: f32 = if (i == target) 1 else 0;
        dx.* = if (ignored) 0 else factor * (@exp(x - largest) / sum - one);
    }
}

/// loss (=|+=) s * sum of the rows' losses, in f64. The vector kernels use it too.
pub fn total(args: *const ops.CrossEntropy, workspace: Bytes) void {
    var sum: f64 = 0;
    for (plan.lossesOf(args, workspace).?[0..args.rows]) |loss| sum += loss;
    const loss = args.loss.f32s();
    const value: f32 = @floatCast(plan.factorOf(args) * sum);
    loss[0] = if (args.accumulate == 1) loss[0] + value else value;
}

pub fn cross_entropy_backward(args: *const ops.CrossEntropyBackward, phase: u32, tile: u32, _: Bytes, _: Bytes) u32 {
    if (phase == 0) return plan.check(args, tile);
    const first_row, const end_row, const first_col, const end_col = plan.Grid.init(args.rows, args.classes).block(tile);
    const factor = plan.factorOf(args);
    for (first_row..end_row) |row| {
        const target = args.targets.i32s()[row];
        const lse = args.lse.f32s()[row];
        const dy = args.dy.f32s()[if (args.per_row == 1) row else 0];
        for (first_col..end_col) |col| {
            const x = args.logits.f32s()[row * args.classes + col];
            const one: f32 = if (col == target) 1 else 0;
            const value = if (target == args.ignore_index) 0 else dy * factor * (@exp(x - lse) - one);
            const to = &args.dlogits.f32s()[row * args.classes + col];
            to.* = if (args.accumulate == 1) to.* + value else value;
        }
    }
    return 0;
}
