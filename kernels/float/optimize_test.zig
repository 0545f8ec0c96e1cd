// Tests of clipping and optimizer steps, all tiers: several steps of every rule against f64, and what must not change.
// The published vectors (shared with other implementations) are read by the TypeScript tests. Read next: trial.zig.
const std = @import("std");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

const gpa = std.testing.allocator;

/// One step in f64, as the formulas stand in ops.zig.
fn reference(args: ops.Optimize, lr: f64, t: f64, scale: f64, gradient: f64, w: *f64, m: *f64, v: *f64) void {
    const b1: f64 = args.beta1;
    const b2: f64 = args.beta2;
    const decay: f64 = args.decay;
    var g = scale * gradient;
    switch (@as(ops.Rule, @enumFromInt(args.rule))) {
        .sgd => {
            g += decay * w.*;
            m.* = if (t == 1) g else b1 * m.* + g;
            w.* -= lr * (if (b1 == 0) g else if (args.nesterov == 1) g + b1 * m.* else m.*);
        },
        .adam, .adamw => |rule| {
            if (rule == .adam) g += decay * w.* else w.* *= 1 - lr * decay;
            m.* = b1 * m.* + (1 - b1) * g;
            v.* = b2 * v.* + (1 - b2) * g * g;
            w.* -= lr * (m.* / (1 - std.math.pow(f64, b1, t))) / (@sqrt(v.* / (1 - std.math.pow(f64, b2, t))) + args.eps);
        },
        .lion => {
            const u = std.math.sign(b1 * m.* + (1 - b1) * g);
            w.* -= lr * (u + decay * w.*);
            m.* = b2 * m.* + (1 - b2) * g;
        },
    }
}

const Setting = struct { rule: ops.Rule, beta1: f32 = 0, beta2: f32 = 0, decay: f32 = 0, nesterov: u32 = 0, lr: f32 = 0.1 };
const settings = [_]Setting{
    .{ .rule = .sgd },
    .{ .rule = .sgd, .beta1 = 0.9 },
    .{ .rule = .sgd, .beta1 = 0.9, .decay = 0.1, .nesterov = 1 },
    .{ .rule = .adam, .beta1 = 0.9, .beta2 = 0.95, .decay = 0.1, .lr = 0.01 },
    .{ .rule = .adamw, .beta1 = 0.9, .beta2 = 0.999, .decay = 0.1, .lr = 0.01 },
    .{ .rule = .lion, .beta1 = 0.9, .beta2 = 0.99, .decay = 0.3, .lr = 0.001 },
};

test "optimize: five steps of every rule, with clipping and a bf16 copy" {
    for (trial.tables()) |table| for (settings) |setting| for ([_]u32{ 0, 1, 7, 33, 20_001 }) |count| {
        var random = std.Random.DefaultPrng.init(count);
        var memory = try trial.Memory.init(1 << 20);
        defer memory.deinit();
        const adaptive = setting.rule == .adam or setting.rule == .adamw;
        const w = memory.normal(random.random(), count);
        const grad = memory.reserve(f32, count);
        const m = memory.reserve(f32, count);
        const v = memory.reserve(f32, count);
        // sgd takes its first gradient as the momentum: what lay there (NaN) must not be read.
        if (setting.rule != .sgd) @memset(memory.slice(f32, m, count), 0);
        @memset(memory.slice(f32, v, count), 0);
        const clip = memory.put(f32, &.{ 0.5, 2, 1 });
        const state = memory.put(f32, &.{ setting.lr, 0 });
        const copy = memory.reserve(u16, count);
        const expected = try gpa.alloc([3]f64, count);
        defer gpa.free(expected);
        for (expected, memory.slice(f32, w, count)) |*values, start| values.* = .{ start, 0, 0 };
        const args: ops.Optimize = .{
            .w = w,
            .grad = grad,
            .m = if (setting.rule == .sgd and setting.beta1 == 0) .{} else m,
            .v = if (adaptive) v else .{},
            .clip = clip,
            .settings = state,
            .copy = copy,
            .count = count,
            .rule = @intFromEnum(setting.rule),
            .beta1 = setting.beta1,
            .beta2 = setting.beta2,
            .eps = 1e-8,
            .decay = setting.decay,
            .nesterov = setting.nesterov,
        };
        for (1..6) |t| {
            for (memory.slice(f32, grad, count)) |*value| value.* = random.random().floatNorm(f32) + 0.01;
            memory.slice(f32, state, 2)[1] = @floatFromInt(t);
            for (expected, memory.slice(f32, grad, count)) |*values, g| reference(args, setting.lr, @floatFromInt(t), 0.5, g, &values[0], &values[1], &values[2]);
            try trial.run(.optimize, args, memory, table, t);
        }
        var far: usize = 0;
        for (expected, memory.slice(f32, w, count), memory.slice(u16, copy, count)) |values, found, short| {
            // Lion's sign may turn where the update is nearly 0.
            if (setting.rule == .lion and @abs(values[0] - found) > 1e-5) far += 1 else if (!(@abs(values[0] - found) <= 2e-6 * (1 + @abs(values[0])))) {
                std.debug.print("{t}: expected {d}, found {d}\n", .{ setting.rule, values[0], found });
                return error.TestUnexpectedResult;
            }
            const wide: f32 = @bitCast(@as(u32, short) << 16);
            try std.testing.expect(@abs(wide - found) <= @abs(found) / 256);
        }
        try std.testing.expect(far <= count / 1000);
    };
}

test "optimize: nothing changes where a gradient was not finite; late steps keep their correction" {
    for (trial.tables()) |table| {
        var memory = try trial.Memory.init(1 << 14);
        defer memory.deinit();
        const w = memory.put(f32, &@as([19]f32, @splat(1)));
        const grad = memory.put(f32, &@as([19]f32, @splat(std.math.nan(f32))));
        const m = memory.put(f32, &@as([19]f32, @splat(0.5)));
        const v = memory.put(f32, &@as([19]f32, @splat(0.25)));
        const clip = memory.reserve(f32, 3);
        const sumsq = memory.put(f32, &.{ 1, std.math.nan(f32) });
        const state = memory.put(f32, &.{ 0.1, 1e6 });
        try trial.run(.clip, .{ .sumsq = sumsq, .out = clip, .count = 2, .max_norm = 1, .scale = 1 }, memory, table, 1);
        var args: ops.Optimize = .{ .w = w, .grad = grad, .m = m, .v = v, .clip = clip, .settings = state, .copy = .{}, .count = 19, .rule = @intFromEnum(ops.Rule.adamw), .beta1 = 0.5, .beta2 = 0.5, .eps = 0, .decay = 0, .nesterov = 0 };
        try trial.run(.optimize, args, memory, table, 1);
        for (memory.slice(f32, w, 19), memory.slice(f32, m, 19), memory.slice(f32, v, 19)) |a, b, c| try std.testing.expectEqual([3]f32{ 1, 0.5, 0.25 }, .{ a, b, c });
        // The same gradient as ever, a million steps on: m = g, v = g^2, so that w moves by lr.
        args.clip = .{};
        @memset(memory.slice(f32, grad, 19), 0.5);
        try trial.run(.optimize, args, memory, table, 1);
        for (memory.slice(f32, w, 19)) |value| try std.testing.expectApproxEqAbs(0.9, value, 1e-6);
    }
}

test "optimize: clip gives scale, norm and the finite flag" {
    const Case = struct { []const f32, f32, f32, [3]f32 };
    for (trial.tables()) |table| {
        for ([_]Case{
            .{ &.{ 9, 16 }, 1, 1, .{ 0.2, 5, 1 } },
            .{ &.{ 9, 16 }, 10, 1, .{ 1, 5, 1 } },
            .{ &.{ 9, 16 }, 1, 0.5, .{ 0.2, 2.5, 1 } },
            .{ &.{ 9, 16 }, 0, 0.5, .{ 0.5, 2.5, 1 } },
            .{ &.{0}, 1, 1, .{ 1, 0, 1 } },
            .{ &.{}, 1, 1, .{ 1, 0, 1 } },
            .{ &.{ 1, std.math.inf(f32) }, 1, 1, .{ 0, std.math.inf(f32), 0 } },
        }) |case| {
            var memory = try trial.Memory.init(1 << 12);
            defer memory.deinit();
            const sumsq = memory.put(f32, case[0]);
            const out = memory.reserve(f32, 3);
            try trial.run(.clip, .{ .sumsq = sumsq, .out = out, .count = @intCast(case[0].len), .max_norm = case[1], .scale = case[2] }, memory, table, 1);
            for (case[3], memory.slice(f32, out, 3)) |expected, found| {
                if (std.math.isInf(expected)) try std.testing.expectEqual(expected, found) else try std.testing.expectApproxEqRel(expected, found, 1e-6);
            }
        }
    }
}
