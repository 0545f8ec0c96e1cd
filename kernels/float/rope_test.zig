// Tests of rotary positions: every tier against an f64 reference.
// Read next: trial.zig (runs one instruction alone).
const std = @import("std");
const ops = @import("ops.zig");
const trial = @import("trial.zig");

/// Llama 3.1's way to scale frequencies, or (original 0) the same factor for all.
const Scaling = struct { factor: f64 = 1, original: f64 = 0, low: f64 = 1, high: f64 = 4 };
const Shape = struct { batch: u32 = 1, time: u32, heads: u32 = 1, d: u32, offset: u32 = 0, gap: u32 = 0, scaling: Scaling = .{} };
const shapes = [_]Shape{
    .{ .batch = 2, .time = 7, .heads = 3, .d = 8 },
    .{ .time = 5, .heads = 4, .d = 6, .offset = 3, .gap = 3 },
    .{ .time = 1, .d = 2, .offset = 1 },
    .{ .time = 4, .heads = 2, .d = 64, .offset = 1000 },
    .{ .batch = 3, .time = 200, .heads = 2, .d = 128, .offset = 100_000 },
    .{ .batch = 2, .time = 70, .d = 34, .gap = 1 },
    .{ .batch = 2, .time = 70, .d = 6, .offset = 40_000, .scaling = .{ .factor = 2.5 } },
    .{ .time = 130, .heads = 2, .d = 64, .offset = 9000, .scaling = .{ .factor = 32, .original = 8192 } },
    .{ .time = 9, .heads = 2, .d = 16, .offset = 7, .gap = 2, .scaling = .{ .factor = 8, .original = 100, .low = 0, .high = 2 } },
    .{ .time = 0, .d = 8 },
    .{ .time = 3, .d = 0 },
};

/// The formula of Hugging Face's transformers for rope_type llama3, by wavelengths.
fn frequency(i: usize, d: u32, scaling: Scaling) f64 {
    const plain = std.math.pow(f64, 10000, -2 * @as(f64, @floatFromInt(i)) / @as(f64, @floatFromInt(d)));
    const wavelength = 2 * std.math.pi / plain;
    if (wavelength > scaling.original / scaling.low) return plain / scaling.factor;
    if (wavelength < scaling.original / scaling.high) return plain;
    const smooth = (scaling.original / wavelength - scaling.low) / (scaling.high - scaling.low);
    return (1 - smooth) * plain / scaling.factor + smooth * plain;
}

test "rope: rotations against f64, both kinds of pairs, frequencies scaled or not, positions given or counted, back and forth, all tiers" {
    var random = std.Random.DefaultPrng.init(12);
    for (trial.tables()) |table| for (shapes, 0..) |shape, s| for (std.enums.values(ops.RopePairs)) |pairs| for ([_]bool{ false, true }) |given| {
        var memory = try trial.Memory.init(1 << 22);
        defer memory.deinit();
        const step = shape.d + shape.gap;
        const count = shape.batch * shape.time * shape.heads * step;
        const x = memory.normal(random.random(), count);
        const y = memory.normal(random.random(), count);
        const positions = memory.reserve(i32, shape.batch * shape.time);
        for (memory.slice(i32, positions, shape.batch * shape.time), 0..) |*position, i| {
            position.* = if (i % 9 < 6) @intCast(i) else random.random().intRangeAtMost(i32, -50, 70_000);
        }
        const sign: f32 = if (s % 2 == 0) 1 else -1;
        const accumulate: u32 = @intCast(s / 2 % 2);
        const before = try memory.copy();
        defer before.deinit();
        const args: ops.Rope = .{
            .x = x,
            .y = y,
            .positions = if (given) positions else .{},
            .base = 10000,
            .factor = shape.scaling.factor,
            .original = shape.scaling.original,
            .low = shape.scaling.low,
            .high = shape.scaling.high,
            .batch = shape.batch,
            .time = shape.time,
            .heads = shape.heads,
            .d = shape.d,
            .x_batch = shape.time * shape.heads * step,
            .x_time = shape.heads * step,
            .x_head = step,
            .y_batch = shape.time * shape.heads * step,
            .y_time = step, // heads outside time
            .y_head = shape.time * step,
            .offset = shape.offset,
            .pairs = @intFromEnum(pairs),
            .sign = sign,
            .accumulate = accumulate,
        };
        try trial.run(.rope, args, memory, table, s);
        const from = memory.slice(f32, x, count);
        const to = memory.slice(f32, y, count);
        const old = before.slice(f32, y, count);
        for (0..shape.batch) |b| for (0..shape.time) |t| for (0..shape.heads) |h| {
            const position: f64 = if (given) @floatFromInt(memory.slice(i32, positions, shape.batch * shape.time)[b * shape.time + t]) else @floatFromInt(t + shape.offset);
            const x_at = b * args.x_batch + t * args.x_time + h * args.x_head;
            const y_at = b * args.y_batch + t * args.y_time + h * args.y_head;
            for (0..shape.d / 2) |i| {
                const angle = sign * position * frequency(i, shape.d, shape.scaling);
                const left, const right = if (pairs == .interleaved) .{ 2 * i, 2 * i + 1 } else .{ i, i + shape.d / 2 };
                const a: f64 = from[x_at + left];
                const c: f64 = from[x_at + right];
                const results = [_]f64{ a * @cos(angle) - c * @sin(angle), a * @sin(angle) + c * @cos(angle) };
                for ([_]usize{ left, right }, results) |place, result| {
                    const expected = result + if (accumulate == 1) old[y_at + place] else 0;
                    try std.testing.expectApproxEqAbs(expected, to[y_at + place], 1e-6 * (1 + @abs(expected)));
                }
            }
            for (shape.d..step) |i| try std.testing.expectEqual(old[y_at + i], to[y_at + i]);
        };
        // In place, and back again.
        var there = args;
        there.y = x;
        there.y_time = args.x_time;
        there.y_head = args.x_head;
        there.accumulate = 0;
        try trial.run(.rope, there, memory, table, s + 1);
        there.sign = -sign;
        try trial.run(.rope, there, memory, table, s + 2);
        try std.testing.expect(trial.distance(memory.slice(f32, x, count), before.slice(f32, x, count)) < 1e-6);
    };
}

test "rope: what is wrong is refused" {
    var memory = try trial.Memory.init(1 << 12);
    defer memory.deinit();
    const x = memory.reserve(f32, 64);
    const good: ops.Rope = .{ .x = x, .y = x, .positions = .{}, .base = 10000, .factor = 1, .original = 0, .low = 1, .high = 4, .batch = 1, .time = 4, .heads = 2, .d = 8, .x_batch = 64, .x_time = 16, .x_head = 8, .y_batch = 64, .y_time = 16, .y_head = 8, .offset = 0, .pairs = 0, .sign = 1, .accumulate = 0 };
    const table = trial.tables()[0];
    @memset(memory.slice(f32, x, 64), 1);
    try trial.run(.rope, good, memory, table, 1);
    inline for (.{ .{ "d", 7, error.BadShape }, .{ "base", 0, error.BadArgument }, .{ "factor", 0, error.BadArgument }, .{ "factor", std.math.inf(f64), error.BadArgument }, .{ "original", -1, error.BadArgument }, .{ "low", 4, error.BadArgument }, .{ "high", std.math.inf(f64), error.BadArgument }, .{ "sign", 2, error.BadArgument }, .{ "pairs", 2, error.BadArgument }, .{ "y_head", 4, error.BadArgument }, .{ "accumulate", 1, error.BadArgument }, .{ "x_time", 40, error.BadShape } }) |wrong| {
        var args = good;
        @field(args, wrong[0]) = wrong[1];
        if (comptime std.mem.eql(u8, wrong[0], "x_time")) args.x_time = 1 << 20;
        try std.testing.expectError(wrong[2], trial.run(.rope, args, memory, table, 1));
    }
}
