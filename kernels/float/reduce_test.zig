// Tests of reductions: every tier against an f64 reference, on short, odd and long axes; positions of maxima exactly.
// Read next: trial.zig (runs one instruction alone).
const std = @import("std");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

const nan = std.math.nan(f32);

const sizes = [_][3]u32{
    .{ 0, 4, 5 },  .{ 3, 0, 4 }, .{ 2, 3, 0 },     .{ 1, 1, 1 },      .{ 7, 33, 1 },   .{ 1, 100_003, 1 }, .{ 3, 40_000, 1 }, .{ 2000, 5, 1 },
    .{ 1, 7, 33 }, .{ 5, 4, 3 }, .{ 1, 3001, 17 }, .{ 2, 700, 2051 }, .{ 1, 9, 5000 }, .{ 1, 2000, 2 },    .{ 4, 1, 9 },
};

test "reduce: sum, mean, sum of squares, non-finite numbers, all tiers" {
    var random = std.Random.DefaultPrng.init(21);
    const gpa = std.testing.allocator;
    for (trial.tables()) |table| for (sizes, 0..) |size, s| for ([_]ops.Reduction{ .sum, .mean, .sumsq, .nonfinite }) |operation| {
        const outer, const axis, const inner = size;
        const count = outer * axis * inner;
        if (count > 1 << 20 and operation == .mean) continue;
        var memory = try trial.Memory.init((1 << 18) + 4 * @as(usize, count));
        defer memory.deinit();
        const x = memory.normal(random.random(), count);
        const y = memory.normal(random.random(), outer * inner);
        if (operation == .nonfinite) for (memory.slice(f32, x, count), 0..) |*value, i| {
            if (i % 9 == 4) value.* = ([_]f32{ nan, std.math.inf(f32), -std.math.inf(f32) })[i / 9 % 3];
        };
        const before = try gpa.dupe(f32, memory.slice(f32, y, outer * inner));
        defer gpa.free(before);
        const accumulate: u32 = @intCast(s % 2);
        try trial.run(.reduce, .{ .x = x, .y = y, .index = .{}, .outer = outer, .axis = axis, .inner = inner, .operation = @intFromEnum(operation), .alpha = -0.5, .accumulate = accumulate }, memory, table, s);
        for (0..outer) |o| for (0..inner) |i| {
            var sum: f64 = 0;
            var magnitude: f64 = 0;
            for (0..axis) |a| {
                const value = memory.slice(f32, x, count)[(o * axis + a) * inner + i];
                const term: f64 = switch (operation) {
                    .sumsq => @as(f64, value) * value,
                    .nonfinite => if (std.math.isFinite(value)) 0 else 1,
                    else => value,
                };
                sum += term;
                magnitude += @abs(term);
            }
            if (operation == .mean) {
                sum /= @floatFromInt(axis);
                magnitude /= @floatFromInt(axis);
            }
            const old: f64 = if (accumulate == 1) before[o * inner + i] else 0;
            const found = memory.slice(f32, y, outer * inner)[o * inner + i];
            if (axis == 0 and operation == .mean) {
                try std.testing.expect(std.math.isNan(found));
            } else if (!(@abs(old - 0.5 * sum - found) <= 1e-6 * (0.5 * magnitude + @abs(old)))) {
                std.debug.print("{t} {any}: expected {d}, found {d}\n", .{ operation, size, old - 0.5 * sum, found });
                return error.TestUnexpectedResult;
            }
        };
    };
}

test "reduce: the first maximum and its place, NaN as the largest; its gradient goes there" {
    var random = std.Random.DefaultPrng.init(22);
    for (trial.tables()) |table| for (sizes, 0..) |size, s| {
        const outer, const axis, const inner = size;
        if (axis == 0) continue;
        const count = outer * axis * inner;
        var memory = try trial.Memory.init((1 << 18) + 8 * @as(usize, count));
        defer memory.deinit();
        const x = memory.reserve(f32, count);
        for (memory.slice(f32, x, count)) |*value| {
            value.* = @floatFromInt(@as(i32, random.random().intRangeAtMost(i8, -5, 2)) - 3); // ties, all negative
            if (random.random().int(u16) < 12 and s % 2 == 0) value.* = nan;
            if (random.random().int(u16) < 90) value.* = -std.math.inf(f32);
        }
        const y = memory.reserve(f32, outer * inner);
        const index = memory.reserve(i32, outer * inner);
        const dy = memory.normal(random.random(), outer * inner);
        const dx = memory.reserve(f32, count);
        try trial.run(.reduce, .{ .x = x, .y = y, .index = index, .outer = outer, .axis = axis, .inner = inner, .operation = @intFromEnum(ops.Reduction.max), .alpha = 7, .accumulate = 1 }, memory, table, s);
        try trial.run(.reduce_backward, .{ .dy = dy, .x = .{}, .index = index, .dx = dx, .outer = outer, .axis = axis, .inner = inner, .operation = @intFromEnum(ops.Reduction.max), .alpha = 1, .accumulate = 0 }, memory, table, s);
        for (0..outer) |o| for (0..inner) |i| {
            var best: usize = 0;
            const values = memory.slice(f32, x, count)[o * axis * inner + i ..];
            for (0..axis) |a| {
                const value = values[a * inner];
                const largest = values[best * inner];
                if (value > largest or (std.math.isNan(value) and !std.math.isNan(largest))) best = a;
            }
            const at = o * inner + i;
            try std.testing.expectEqual(@as(i32, @intCast(best)), memory.slice(i32, index, outer * inner)[at]);
            const found = memory.slice(f32, y, outer * inner)[at];
            if (std.math.isNan(values[best * inner])) try std.testing.expect(std.math.isNan(found)) else try std.testing.expectEqual(values[best * inner], found);
            for (0..axis) |a| {
                const expected = if (a == best) memory.slice(f32, dy, outer * inner)[at] else 0;
                try std.testing.expectEqual(expected, memory.slice(f32, dx, count)[(o * axis + a) * inner + i]);
            }
        };
    };
}

test "reduce: gradients of sum, mean and sum of squares" {
    var random = std.Random.DefaultPrng.init(23);
    const gpa = std.testing.allocator;
    for (trial.tables()) |table| for (sizes, 0..) |size, s| for ([_]ops.Reduction{ .sum, .mean, .sumsq }) |operation| {
        const outer, const axis, const inner = size;
        const count = outer * axis * inner;
        var memory = try trial.Memory.init((1 << 18) + 8 * @as(usize, count));
        defer memory.deinit();
        const x = memory.normal(random.random(), count);
        const dy = memory.normal(random.random(), outer * inner);
        const dx = memory.normal(random.random(), count);
        const before = try gpa.dupe(f32, memory.slice(f32, dx, count));
        defer gpa.free(before);
        const accumulate: u32 = @intCast(s % 2);
        try trial.run(.reduce_backward, .{ .dy = dy, .x = if (operation == .sumsq) x else .{}, .index = .{}, .dx = dx, .outer = outer, .axis = axis, .inner = inner, .operation = @intFromEnum(operation), .alpha = 1.5, .accumulate = accumulate }, memory, table, s);
        for (0..count) |at| {
            const gradient: f64 = memory.slice(f32, dy, outer * inner)[at / inner / axis * inner + at % inner];
            const value = switch (operation) {
                .sumsq => 1.5 * 2 * memory.slice(f32, x, count)[at] * gradient,
                .mean => 1.5 * gradient / @as(f64, @floatFromInt(axis)),
                else => 1.5 * gradient,
            };
            const old: f64 = if (accumulate == 1) before[at] else 0;
            const found = memory.slice(f32, dx, count)[at];
            try std.testing.expect(@abs(old + value - found) <= 3e-7 * (@abs(old) + @abs(value)));
        }
    };
}

test "reduce: NaN goes through a sum; a maximum of nothing is refused" {
    for (trial.tables()) |table| for ([_]u32{ 1, 20 }) |inner| {
        var memory = try trial.Memory.init(1 << 20);
        defer memory.deinit();
        const x = memory.reserve(f32, 5000 * inner);
        @memset(memory.slice(f32, x, 5000 * inner), 1);
        memory.slice(f32, x, 5000 * inner)[4000 * inner] = nan;
        const y = memory.put(f32, &@as([20]f32, @splat(0)));
        try trial.run(.reduce, .{ .x = x, .y = y, .index = .{}, .outer = 1, .axis = 5000, .inner = inner, .operation = 0, .alpha = 1, .accumulate = 0 }, memory, table, 1);
        try std.testing.expect(std.math.isNan(memory.slice(f32, y, 1)[0]));
        if (inner > 1) try std.testing.expectEqual(5000, memory.slice(f32, y, 2)[1]);
        try std.testing.expectError(error.BadShape, trial.run(.reduce, .{ .x = x, .y = y, .index = .{}, .outer = 1, .axis = 0, .inner = inner, .operation = @intFromEnum(ops.Reduction.max), .alpha = 1, .accumulate = 0 }, memory, table, 1));
    };
}
