// Tests of activations and gates: every tier against an f64 reference, derivatives against differences of it.
// Read next: trial.zig (runs one instruction alone).
const std = @import("std");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

const inf = std.math.inf(f32);

fn act(activation: ops.Activation, x: f64) f64 {
    return switch (activation) {
        .none => x,
        .relu => if (x <= 0) 0 else x,
        .gelu => if (x < -100) 0 else blk: {
            // (1 + tanh u) / 2 = 1 / (1 + e^-2u), which keeps small values.
            const u = @sqrt(2.0 / std.math.pi) * (x + 0.044715 * x * x * x);
            break :blk x / (1 + @exp(-2 * u));
        },
        .silu => if (x < -700) 0 else x / (1 + @exp(-x)),
        .sigmoid => 1 / (1 + @exp(-x)),
        .tanh => std.math.tanh(x),
    };
}

/// By a difference in f64: good to about 1e-9.
fn slope(activation: ops.Activation, x: f64) f64 {
    if (activation == .relu) return if (x > 0) 1 else 0;
    const h = 1e-5;
    if (@abs(x) > 1e3) return if (activation == .sigmoid or activation == .tanh) 0 else if (activation == .none or x > 0) 1 else 0;
    return (act(activation, x + h) - act(activation, x - h)) / (2 * h);
}

const sizes = [_][2]u32{ .{ 0, 3 }, .{ 3, 0 }, .{ 1, 1 }, .{ 7, 33 }, .{ 2, 17_001 }, .{ 300, 100 } };

test "activate: values and gradients of every activation, gated or not, with strides, all tiers" {
    const gpa = std.testing.allocator;
    var random = std.Random.DefaultPrng.init(11);
    for (trial.tables()) |table| for (sizes, 0..) |size, s| for (std.enums.values(ops.Activation)) |activation| for ([_]bool{ false, true }) |gated| {
        const rows, const width = size;
        const gap: u32 = @intCast(s % 2 * 5); // rows one after the other, or apart
        const room = rows * (width + gap);
        var memory = try trial.Memory.init(1 << 20);
        defer memory.deinit();
        const x = memory.normal(random.random(), room);
        for (memory.slice(f32, x, room), 0..) |*value, i| {
            value.* *= 3;
            const special = [_]f32{ 0, -0.0, 20, -20, 88, -88, 1e20, -1e20, 3e38, -3e38 };
            if (i % 7 == 0 and room > 100) value.* = special[i / 7 % special.len];
        }
        const up = memory.normal(random.random(), room);
        const y = memory.reserve(f32, room);
        const dy = memory.normal(random.random(), room);
        const dx = memory.normal(random.random(), room);
        const dup = memory.normal(random.random(), room);
        const before = try gpa.dupe(f32, memory.slice(f32, dx, room));
        defer gpa.free(before);
        const stride = width + gap;
        const accumulate: u32 = @intCast(s % 2);
        try trial.run(.activate, .{ .x = x, .up = if (gated) up else .{}, .y = y, .rows = rows, .width = width, .x_stride = stride, .up_stride = stride, .y_stride = stride, .activation = @intFromEnum(activation) }, memory, table, s);
        try trial.run(.activate_backward, .{ .x = x, .up = if (gated) up else .{}, .dy = dy, .dx = dx, .dup = if (gated) dup else .{}, .rows = rows, .width = width, .x_stride = stride, .up_stride = stride, .y_stride = stride, .activation = @intFromEnum(activation), .accumulate = accumulate }, memory, table, s);
        if (gated and accumulate == 0) for (0..rows) |row| for (0..width) |col| {
            const i = row * stride + col;
            const expected = @as(f64, memory.slice(f32, dy, room)[i]) * act(activation, memory.slice(f32, x, room)[i]);
            const from: f64 = memory.slice(f32, x, room)[i];
            try expectNear(expected, memory.slice(f32, dup, room)[i], rounding(activation, from) * @abs(expected));
        };
        for (0..rows) |row| for (0..width) |col| {
            const i = row * stride + col;
            const from: f64 = memory.slice(f32, x, room)[i];
            const factor: f64 = if (gated) memory.slice(f32, up, room)[i] else 1;
            const gradient = memory.slice(f32, dy, room)[i] * factor;
            try expectNear(act(activation, from) * factor, memory.slice(f32, y, room)[i], rounding(activation, from) * @abs(act(activation, from) * factor));
            const old: f64 = if (accumulate == 1) before[i] else 0;
            try expectNear(old + gradient * slope(activation, from), memory.slice(f32, dx, room)[i], 2e-6 * (@abs(gradient) + @abs(old)));
        };
        // Nothing between the rows is touched.
        if (gap > 0) for (0..rows) |row| for (width..stride) |col| {
            try std.testing.expectEqual(before[row * stride + col], memory.slice(f32, dx, room)[row * stride + col]);
        };
    };
}

/// The argument of gelu's exponential is rounded to f32: as much, relative, in what is left of it far to the left.
fn rounding(activation: ops.Activation, x: f64) f64 {
    if (activation != .gelu or x > 0) return 0;
    return 2e-7 * @min(100, @abs(1.6 * x + 0.0714 * x * x * x));
}

fn expectNear(expected: f64, found: f32, slack: f64) !void {
    if (@abs(expected) > 3.4e38) return;
    if (@abs(expected - found) <= 6e-7 * @abs(expected) + slack + 1e-37) return;
    std.debug.print("expected {d}, found {d}\n", .{ expected, found });
    return error.TestUnexpectedResult;
}

test "activate: infinities and NaN" {
    for (trial.tables()) |table| for (std.enums.values(ops.Activation)) |activation| {
        var memory = try trial.Memory.init(1 << 12);
        defer memory.deinit();
        const x = memory.put(f32, &.{ inf, std.math.nan(f32) });
        const y = memory.reserve(f32, 2);
        const dx = memory.put(f32, &.{ 1, 1 });
        try trial.run(.activate, .{ .x = x, .up = .{}, .y = y, .rows = 1, .width = 2, .x_stride = 2, .up_stride = 0, .y_stride = 2, .activation = @intFromEnum(activation) }, memory, table, 1);
        try trial.run(.activate_backward, .{ .x = x, .up = .{}, .dy = dx, .dx = dx, .dup = .{}, .rows = 1, .width = 2, .x_stride = 2, .up_stride = 0, .y_stride = 2, .activation = @intFromEnum(activation), .accumulate = 0 }, memory, table, 1);
        const bounded = activation == .sigmoid or activation == .tanh;
        try std.testing.expectEqual(if (bounded) @as(f32, 1) else inf, memory.slice(f32, y, 2)[0]);
        try std.testing.expectEqual(@as(f32, if (bounded) 0 else 1), memory.slice(f32, dx, 2)[0]);
        try std.testing.expect(std.math.isNan(memory.slice(f32, y, 2)[1]));
        if (activation != .none) try std.testing.expect(std.math.isNan(memory.slice(f32, dx, 2)[1]));
    };
}

test "activate: rows that would be written over one another are refused" {
    var memory = try trial.Memory.init(1 << 12);
    defer memory.deinit();
    const x = memory.reserve(f32, 64);
    const y = memory.reserve(f32, 64);
    try std.testing.expectError(error.BadArgument, trial.run(.activate, .{ .x = x, .up = .{}, .y = y, .rows = 2, .width = 8, .x_stride = 8, .up_stride = 0, .y_stride = 7, .activation = 1 }, memory, trial.tables()[0], 1));
}
