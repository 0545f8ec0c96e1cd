// Loads and stores of f32 vectors for the kernels that go through memory in order: whole vectors, and parts of one at the end
// of a range, so that tails run the same instructions as all else. Not arithmetic: math.zig. Read next: elementwise_vector.zig.
const std = @import("std");

pub fn Lanes(comptime lanes: comptime_int) type {
    return struct {
        pub const V = @Vector(lanes, f32);
        pub const I = @Vector(lanes, i32);
        pub const U = @Vector(lanes, u32);
        pub const Shift = @Vector(lanes, u5);

        pub inline fn all(value: f32) V {
            return @splat(value);
        }
        pub inline fn load(from: [*]const f32) V {
            return @as(*align(4) const V, @ptrCast(from)).*;
        }
        pub inline fn store(to: [*]f32, value: V) void {
            @as(*align(4) V, @ptrCast(to)).* = value;
        }

        /// The first n elements, n < lanes; `rest` behind them.
        pub inline fn loadPart(from: [*]const f32, n: usize, rest: f32) V {
            var part: [lanes]f32 = @splat(rest);
            for (part[0..n], from[0..n]) |*to, value| to.* = value;
            return part;
        }
        pub inline fn storePart(to: [*]f32, value: V, n: usize) void {
            const part: [lanes]f32 = value;
            for (to[0..n], part[0..n]) |*target, x| target.* = x;
        }

        /// Half a vector of bf16, widened.
        pub inline fn widen(from: @Vector(lanes, u16)) V {
            return @bitCast(@as(U, from) << @as(Shift, @splat(16)));
        }
        /// Rounded to nearest even; NaN stays NaN.
        pub inline fn narrow(value: V) @Vector(lanes, u16) {
            const high: Shift = @splat(16);
            const bits: U = @bitCast(value);
            const odd = (bits >> high) & @as(U, @splat(1));
            const rounded = (bits +% odd +% @as(U, @splat(0x7fff))) >> high;
            const quiet = (bits >> high) | @as(U, @splat(0x40));
            return @truncate(@select(u32, value != value, quiet, rounded));
        }

        /// The sum of the lanes, halves first.
        pub inline fn total(value: V) f32 {
            return fold(value, plus);
        }
        /// The largest lane, where none is NaN.
        pub inline fn largest(value: V) f32 {
            return fold(value, greater);
        }

        inline fn plus(a: anytype, b: @TypeOf(a)) @TypeOf(a) {
            return a + b;
        }
        inline fn greater(a: anytype, b: @TypeOf(a)) @TypeOf(a) {
            return @select(f32, a > b, a, b);
        }
        inline fn fold(value: anytype, comptime join: anytype) f32 {
            const n = @typeInfo(@TypeOf(value)).vector.len;
            if (n == 1) return value[0];
            const low = std.simd.iota(i32, n / 2);
            const high = low + @as(@Vector(n / 2, i32), @splat(n / 2));
            return fold(join(@shuffle(f32, value, undefined, low), @shuffle(f32, value, undefined, high)), join);
        }
    };
}
