// Tests of math.zig against f64: sampled over all floats, and every special value.
// Read next: elementwise_test.zig (the same functions as the tiers run them).
const std = @import("std");
const math = @import("math.zig");

const V = @Vector(8, f32);
const inf = std.math.inf(f32);

/// Units in the last place of the result between `found` and the true value, as a real number.
fn distance(found: f32, expected: f64) f64 {
    const rounded: f32 = @floatCast(expected);
    if (std.math.isNan(found) or std.math.isNan(rounded)) return if (std.math.isNan(found) and std.math.isNan(rounded)) 0 else inf;
    if (std.math.isInf(found) or std.math.isInf(rounded)) return if (found == rounded) 0 else inf;
    const exponent = @max(-126, if (rounded == 0) -126 else std.math.ilogb(rounded));
    return @abs(@as(f64, found) - expected) / std.math.ldexp(@as(f64, 1), exponent - 23);
}

const functions = struct {
    fn exp(x: f64) f64 {
        return @exp(x);
    }
    fn log(x: f64) f64 {
        return @log(x);
    }
    fn tanh(x: f64) f64 {
        return std.math.tanh(x);
    }
    fn sigmoid(x: f64) f64 {
        return if (x < 0) @exp(x) / (1 + @exp(x)) else 1 / (1 + @exp(-x));
    }
    fn rsqrt(x: f64) f64 {
        return 1 / @sqrt(x);
    }
};

fn worst(comptime name: []const u8, xs: V) f64 {
    const found: [8]f32 = @field(math, name)(xs);
    var largest: f64 = 0;
    for (found, @as([8]f32, xs)) |y, x| largest = @max(largest, distance(y, @field(functions, name)(x)));
    return largest;
}

/// Every `stride`-th float, of both signs.
fn sweep(comptime name: []const u8, stride: u32) f64 {
    var largest: f64 = 0;
    var bits: u32 = 0;
    while (bits < 0x7f80_0000 - 8 * stride) : (bits += 8 * stride) {
        const step: @Vector(8, u32) = std.simd.iota(u32, 8) * @as(@Vector(8, u32), @splat(stride));
        const xs: V = @bitCast(step + @as(@Vector(8, u32), @splat(bits)));
        largest = @max(largest, worst(name, xs), worst(name, -xs));
    }
    return largest;
}

test "math: exp, log, tanh, sigmoid, rsqrt within 2 units in the last place" {
    inline for (.{ "exp", "log", "tanh", "sigmoid", "rsqrt" }) |name| {
        const largest = sweep(name, 16411);
        if (largest > 2) {
            std.debug.print("{s}: {d} ulp\n", .{ name, largest });
            return error.TestUnexpectedResult;
        }
    }
}

test "math: special values" {
    const nan = std.math.nan(f32);
    const tiny = std.math.floatTrueMin(f32);
    const Case = struct { []const u8, [8]f32, [8]f32 };
    inline for (.{
        Case{ "exp", .{ 0, -0.0, inf, -inf, 89, -104, tiny, -3e38 }, .{ 1, 1, inf, 0, inf, 0, 1, 0 } },
        Case{ "log", .{ 0, -0.0, inf, -inf, 1, -1, -tiny, -3e38 }, .{ -inf, -inf, inf, nan, 0, nan, nan, nan } },
        Case{ "tanh", .{ 0, -0.0, inf, -inf, 30, -30, tiny, 3e38 }, .{ 0, -0.0, 1, -1, 1, -1, tiny, 1 } },
        Case{ "sigmoid", .{ 0, -0.0, inf, -inf, 100, -104, tiny, -3e38 }, .{ 0.5, 0.5, 1, 0, 1, 0, 0.5, 0 } },
        Case{ "rsqrt", .{ 0, 1, inf, -inf, 4, -1, 16, 0.25 }, .{ inf, 1, 0, nan, 0.5, nan, 0.25, 2 } },
    }) |case| {
        const name, const xs, const expected = case;
        const found: [8]f32 = @field(math, name)(@as(V, xs));
        for (found, expected) |y, want| {
            if (std.math.isNan(want)) try std.testing.expect(std.math.isNan(y)) else try std.testing.expectEqual(want, y);
        }
        const nans: [8]f32 = @field(math, name)(@as(V, @splat(nan)));
        for (nans) |y| try std.testing.expect(std.math.isNan(y));
    }
    const flushed: [8]f32 = math.expFlushed(V{ 0, -0.0, -inf, -3e38, -87, -90, nan, -1 });
    for (flushed, [8]f32{ 1, 1, 0, 0, @exp(@as(f32, -87)), 0, nan, @exp(@as(f32, -1)) }) |y, want| {
        if (std.math.isNan(want)) try std.testing.expect(std.math.isNan(y)) else try std.testing.expectApproxEqRel(want, y, 2e-7);
    }
    try std.testing.expectEqual(1, math.exp1(0));
    try std.testing.expectEqual(0, math.log1(1));
    try std.testing.expectEqual(0, math.tanh1(0));
    try std.testing.expectEqual(0.5, math.sigmoid1(0));
}
