// Tests of softmax over rows: every tier against an f64 reference.
// Read next: trial.zig (runs one instruction alone).
const std = @import("std");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

const inf = std.math.inf(f32);
const sizes = [_][2]u32{ .{ 0, 5 }, .{ 5, 0 }, .{ 1, 1 }, .{ 7, 33 }, .{ 3, 1031 }, .{ 500, 70 }, .{ 2, 50_257 } };

test "softmax: values and gradients of both forms against f64, with masked entries, all tiers" {
    var random = std.Random.DefaultPrng.init(9);
    for (sizes, 0..) |size, s| for (std.enums.values(ops.SoftmaxMode)) |mode| for ([_]f32{ 1, 100 }) |spread| {
        const rows, const width = size;
        const count = rows * width;
        var memory = try trial.Memory.init(1 << 22);
        defer memory.deinit();
        const x = memory.normal(random.random(), count);
        for (memory.slice(f32, x, count), 0..) |*value, i| {
            value.* *= spread;
            if (width > 2 and i % 5 == 3) value.* = -inf;
        }
        const y = memory.reserve(f32, count);
        const dy = memory.normal(random.random(), count);
        const dx = memory.normal(random.random(), count);
        const accumulate: u32 = @intCast(s % 2);
        for (trial.tables()) |table| {
            const own = try memory.copy();
            defer own.deinit();
            errdefer std.debug.print("lanes {d}, rows {d}, width {d}, {t}\n", .{ table.lanes, rows, width, mode });
            try trial.run(.softmax, .{ .x = x, .y = y, .rows = rows, .width = width, .mode = @intFromEnum(mode) }, own, table, s);
            try trial.run(.softmax_backward, .{ .y = y, .dy = dy, .dx = dx, .rows = rows, .width = width, .mode = @intFromEnum(mode), .accumulate = accumulate }, own, table, s);
            for (0..rows) |row| {
                const line = memory.slice(f32, x, count)[row * width ..][0..width];
                const gradient = memory.slice(f32, dy, count)[row * width ..][0..width];
                const found = own.slice(f32, y, count)[row * width ..][0..width];
                var top = -std.math.inf(f64);
                for (line) |value| top = @max(top, value);
                var total: f64 = 0;
                for (line) |value| total += @exp(value - top);
                const lse = top + @log(total);
                var sum: f64 = 0;
                for (line, gradient) |value, dyi| sum += if (mode == .log) dyi else dyi * @exp(value - lse);
                for (line, gradient, found, 0..) |value, dyi, is, i| {
                    const p = @exp(value - lse);
                    // x - top is rounded to f32: as much, relative, in its exponential.
                    const rounding: f64 = 1e-6 + 1.2e-7 * @min(@abs(value - top), 1000);
                    if (mode == .log) {
                        if (value == -inf) try std.testing.expectEqual(-inf, is) else try near(value - lse, is, 3e-7 * (@abs(lse) + @abs(value - lse)) + 1e-6);
                    } else try near(p, is, rounding * p + 1e-38);
                    const old: f64 = if (accumulate == 1) memory.slice(f32, dx, count)[row * width + i] else 0;
                    const expected = old + if (mode == .log) dyi - p * sum else p * (dyi - sum);
                    const large = @abs(old) + @abs(dyi) + @abs(sum) * p;
                    const slack = if (mode == .log) 1e-6 * (1 + large + 20 * @abs(sum) * p) else 1e-6 * @abs(old) + rounding * p * (@abs(dyi) + @abs(sum) + 1);
                    try near(expected, own.slice(f32, dx, count)[row * width + i], slack + 1e-30);
                }
            }
        }
    };
}

fn near(expected: f64, found: f32, slack: f64) !void {
    if (@abs(expected - found) <= slack) return;
    std.debug.print("expected {d}, found {d}\n", .{ expected, found });
    return error.TestUnexpectedResult;
}

test "softmax: NaN, infinities, rows of only -inf, in place" {
    const nan = std.math.nan(f32);
    for (trial.tables()) |table| for (std.enums.values(ops.SoftmaxMode)) |mode| {
        var memory = try trial.Memory.init(1 << 14);
        defer memory.deinit();
        const x = memory.put(f32, &.{ 1, nan, 2, -inf, -inf, -inf, inf, 0, 1, 5, -inf, -inf, 3e38, 3e38, -3e38 });
        try trial.run(.softmax, .{ .x = x, .y = x, .rows = 5, .width = 3, .mode = @intFromEnum(mode) }, memory, table, 1);
        const y = memory.slice(f32, x, 15);
        for (y[0..6]) |value| try std.testing.expect(std.math.isNan(value));
        try std.testing.expect(std.math.isNan(y[6]));
        const ones: [3]f32 = if (mode == .log) .{ 0, -inf, -inf } else .{ 1, 0, 0 };
        try std.testing.expectEqualSlices(f32, &ones, y[9..12]);
        const half: f32 = if (mode == .log) -@as(f32, @log(2.0)) else 0.5;
        for (y[12..14]) |value| try std.testing.expectApproxEqRel(half, value, 1e-6);
    };
}
