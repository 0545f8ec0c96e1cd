// Tests of cross-entropy, all tiers: loss, gradient and log-sum-exp against f64, ignored rows, masked classes, faults.
// Read next: trial.zig (runs one instruction alone).
const std = @import("std");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

const gpa = std.testing.allocator;
const inf = std.math.inf(f32);
const ignore = -100;

const Reference = struct { loss: f64, losses: []f64, lse: []f64, dlogits: []f64, magnitude: f64 };

/// In f64; `loss` and `dlogits` times s.
fn reference(logits: []const f32, targets: []const i32, s: f64) !Reference {
    const classes = if (targets.len == 0) 0 else logits.len / targets.len;
    var result: Reference = .{ .loss = 0, .losses = try gpa.alloc(f64, targets.len), .lse = try gpa.alloc(f64, targets.len), .dlogits = try gpa.alloc(f64, logits.len), .magnitude = 0 };
    for (targets, 0..) |target, row| {
        const x = logits[row * classes ..][0..classes];
        var largest: f64 = -std.math.inf(f64);
        for (x) |value| largest = @max(largest, value);
        var sum: f64 = 0;
        for (x) |value| sum += @exp(value - largest);
        result.lse[row] = largest + @log(sum);
        result.losses[row] = if (target == ignore) 0 else result.lse[row] - x[@intCast(target)];
        result.loss += s * result.losses[row];
        for (x, 0..) |value, i| {
            const one: f64 = if (i == target) 1 else 0;
            result.dlogits[row * classes + i] = if (target == ignore) 0 else s * (@exp(value - result.lse[row]) - one);
        }
        result.magnitude = @max(result.magnitude, @abs(result.lse[row]));
    }
    return result;
}

fn free(expected: Reference) void {
    gpa.free(expected.losses);
    gpa.free(expected.lse);
    gpa.free(expected.dlogits);
}

fn expectNear(expected: f64, found: f32, slack: f64) !void {
    if (@abs(expected - found) <= slack) return;
    std.debug.print("expected {d}, found {d}, allowed {d}\n", .{ expected, found, slack });
    return error.TestUnexpectedResult;
}

test "loss: cross-entropy in one call and in two, against f64" {
    var random = std.Random.DefaultPrng.init(41);
    for (trial.tables()) |table| for ([_][2]u32{ .{ 0, 7 }, .{ 1, 1 }, .{ 9, 65 }, .{ 5, 3 }, .{ 3, 1031 }, .{ 1, 40_003 }, .{ 700, 50 } }, 0..) |size, s| for ([_]f32{ 1, 30 }) |spread| {
        const rows, const classes = size;
        const count = rows * classes;
        var memory = try trial.Memory.init(1 << 20);
        defer memory.deinit();
        const logits = memory.normal(random.random(), count);
        for (memory.slice(f32, logits, count), 0..) |*value, i| {
            value.* = value.* * spread + spread; // rising maxima late in the row, a mask in front
            if (classes > 40 and i % classes < 20) value.* = -inf;
        }
        const targets = memory.reserve(i32, rows);
        for (memory.slice(i32, targets, rows), 0..) |*target, row| {
            target.* = if (row % 4 == 1) ignore else @intCast(classes - 1 - random.random().uintLessThan(u32, @max(1, classes / 3)));
        }
        const divisor = memory.reserve(f32, 1);
        try trial.run(.count_targets, .{ .targets = targets, .count = divisor, .rows = rows, .ignore_index = ignore }, memory, table, 1);
        try std.testing.expectEqual(@as(f32, @floatFromInt(rows - (rows + 2) / 4)), memory.slice(f32, divisor, 1)[0]);
        const losses = memory.reserve(f32, rows);
        const lse = memory.reserve(f32, rows);
        const loss = memory.put(f32, &.{10});
        const dy = memory.put(f32, &.{-2});
        const again = memory.normal(random.random(), count);
        const before = try gpa.dupe(f32, memory.slice(f32, again, count));
        defer gpa.free(before);
        const expected = try reference(memory.slice(f32, logits, count), memory.slice(i32, targets, rows), 0.5 / @as(f64, @floatFromInt(@max(1, rows - (rows + 2) / 4))));
        defer free(expected);
        const accumulate: u32 = @intCast(s % 2);
        // The forward without a gradient gives the log-sum-exp for the backward; then both in one, in place.
        try trial.run(.cross_entropy, .{ .logits = logits, .targets = targets, .divisor = divisor, .losses = losses, .lse = lse, .loss = .{}, .dlogits = .{}, .rows = rows, .classes = classes, .ignore_index = ignore, .scale = 0.5, .accumulate = 0 }, memory, table, 2);
        try trial.run(.cross_entropy_backward, .{ .logits = logits, .targets = targets, .lse = lse, .divisor = divisor, .dy = dy, .dlogits = again, .rows = rows, .classes = classes, .ignore_index = ignore, .scale = 0.5, .per_row = 0, .accumulate = accumulate }, memory, table, 3);
        for (expected.losses, expected.lse, memory.slice(f32, losses, rows), memory.slice(f32, lse, rows)) |want_loss, want_lse, found_loss, found_lse| {
            try expectNear(want_loss, found_loss, 4e-7 * (expected.magnitude + 1));
            try expectNear(want_lse, found_lse, 4e-7 * (expected.magnitude + 1));
        }
        const scale = 0.5 / @as(f64, @floatFromInt(@max(1, rows)));
        for (expected.dlogits, memory.slice(f32, again, count), before) |gradient, found, old| {
            const start: f64 = if (accumulate == 1) old else 0;
            try expectNear(start - 2 * gradient, found, 6e-7 * (@abs(start) + (4 + expected.magnitude) * 2 * @max(@abs(gradient), 0.1 * scale)));
        }
        try trial.run(.cross_entropy, .{ .logits = logits, .targets = targets, .divisor = divisor, .losses = .{}, .lse = .{}, .loss = loss, .dlogits = logits, .rows = rows, .classes = classes, .ignore_index = ignore, .scale = 0.5, .accumulate = accumulate }, memory, table, 2);
        try expectNear(expected.loss + if (accumulate == 1) @as(f64, 10) else 0, memory.slice(f32, loss, 1)[0], 4e-7 * (expected.magnitude + 10));
        for (expected.dlogits, memory.slice(f32, logits, count)) |gradient, found| try expectNear(gradient, found, 2e-6 * scale + 4e-6 * @abs(gradient));
    };
}

test "loss: nothing but ignored rows gives 0 everywhere, whatever the logits" {
    for (trial.tables()) |table| {
        var memory = try trial.Memory.init(1 << 14);
        defer memory.deinit();
        const logits = memory.put(f32, &@as([66]f32, @splat(std.math.nan(f32))));
        const targets = memory.put(i32, &.{ ignore, ignore });
        const divisor = memory.reserve(f32, 1);
        const loss = memory.reserve(f32, 1);
        try trial.run(.count_targets, .{ .targets = targets, .count = divisor, .rows = 2, .ignore_index = ignore }, memory, table, 1);
        try trial.run(.cross_entropy, .{ .logits = logits, .targets = targets, .divisor = divisor, .losses = .{}, .lse = .{}, .loss = loss, .dlogits = logits, .rows = 2, .classes = 33, .ignore_index = ignore, .scale = 1, .accumulate = 0 }, memory, table, 1);
        try std.testing.expectEqual(0, memory.slice(f32, loss, 1)[0]);
        for (memory.slice(f32, logits, 66)) |value| try std.testing.expectEqual(0, value);
    }
}

test "loss: NaN, +inf and a row of -inf become NaN in their row alone" {
    for (trial.tables()) |table| for ([_]f32{ std.math.nan(f32), inf, -inf }) |bad| {
        var memory = try trial.Memory.init(1 << 14);
        defer memory.deinit();
        const logits = memory.reserve(f32, 2 * 700);
        const values = memory.slice(f32, logits, 2 * 700);
        for (values, 0..) |*value, i| value.* = if (i < 700) 0.25 else if (bad == -inf) bad else 1;
        values[700 + 650] = bad;
        const targets = memory.put(i32, &.{ 3, 4 });
        const losses = memory.reserve(f32, 2);
        try trial.run(.cross_entropy, .{ .logits = logits, .targets = targets, .divisor = .{}, .losses = losses, .lse = .{}, .loss = .{}, .dlogits = logits, .rows = 2, .classes = 700, .ignore_index = ignore, .scale = 1, .accumulate = 0 }, memory, table, 1);
        try std.testing.expectApproxEqRel(@log(@as(f32, 700)), memory.slice(f32, losses, 2)[0], 1e-6);
        try std.testing.expect(bad == inf or std.math.isNan(memory.slice(f32, losses, 2)[1]));
        try std.testing.expect(!std.math.isFinite(memory.slice(f32, losses, 2)[1]));
        for (values[0..700]) |value| try std.testing.expect(std.math.isFinite(value));
        try std.testing.expect(std.math.isNan(values[700 + 650]));
    };
}

test "loss: a target that is no class is a fault, and nothing was written" {
    for (trial.tables()) |table| for ([_]i32{ -1, 5, std.math.maxInt(i32) }) |bad| {
        var memory = try trial.Memory.init(1 << 12);
        defer memory.deinit();
        const logits = memory.put(f32, &@as([10]f32, @splat(1)));
        const targets = memory.put(i32, &.{ 4, bad });
        const one = memory.put(f32, &.{ 1, 1 });
        try std.testing.expectError(error.Fault, trial.run(.cross_entropy, .{ .logits = logits, .targets = targets, .divisor = .{}, .losses = .{}, .lse = .{}, .loss = .{}, .dlogits = logits, .rows = 2, .classes = 5, .ignore_index = ignore, .scale = 1, .accumulate = 0 }, memory, table, 1));
        try std.testing.expectError(error.Fault, trial.run(.cross_entropy_backward, .{ .logits = logits, .targets = targets, .lse = one, .divisor = .{}, .dy = one, .dlogits = logits, .rows = 2, .classes = 5, .ignore_index = ignore, .scale = 1, .per_row = 1, .accumulate = 0 }, memory, table, 1));
        for (memory.slice(f32, logits, 10)) |value| try std.testing.expectEqual(1, value);
    };
}
