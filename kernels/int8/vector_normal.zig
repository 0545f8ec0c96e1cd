// Rule nano-egg's noise in SIMD, a pair to a lane: Threefry words, the table that makes normal values of them, and the noise on
// vectors and on the embedding. Meaning: ops.zig. Oracle: scalar_normal.zig. The numbers themselves: threefry.zig.
const std = @import("std");
const simd = @import("lanes.zig");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const threefry = @import("threefry.zig");
const Blocks = @import("vector_blocks.zig").Blocks;

const pair_lanes = layout.pair_lanes;
const V16 = simd.V16;
const U16 = simd.U16;
const V64 = simd.V64;
const S64 = simd.S64;
const W32 = simd.W32;
const W16 = @Vector(16, i16);
const load64 = simd.load64;
const store64 = simd.store64;
const store16 = simd.store16;
const even = simd.even;
const odd = simd.odd;
const join = simd.join;

/// Words side by side: a word's twenty rounds wait for each other, four words' do not.
const chains = 4;

pub fn Normal(comptime dot: type) type {
    const blocks = Blocks(dot);
    return struct {
        const signed = blocks.signed;
        const stored = blocks.stored;

        pub fn normalFill(op: *const ops.NormalFill) callconv(.c) void {
            const starts: U16 = op.starts.*;
            var sums: V16 = @splat(0);
            var i: u32 = 0;
            while (i < op.cols) : (i += chains) {
                var bytes: U16 = @splat(0);
                inline for (values(op.key, starts, i), 0..) |value, b| {
                    sums +%= value;
                    bytes |= (@as(U16, @bitCast(value)) & @as(U16, @splat(0xff))) << @splat(8 * b);
                }
                store64(@ptrCast(op.b + @as(usize, i) * pair_lanes), @bitCast(bytes));
            }
            store16(op.b_sums, sums);
            i = 0;
            while (i < op.rows) : (i += chains) {
                inline for (values(op.key, starts, op.cols + i), 0..) |value, r| {
                    const out: *align(1) @Vector(16, i8) = @ptrCast(op.a + (@as(usize, i) + r) * pair_lanes);
                    out.* = @truncate(value);
                }
            }
        }

        pub fn normalProducts(op: *const ops.NormalProducts) callconv(.c) void {
            const starts: U16 = op.starts.*;
            var i: u32 = 0;
            while (i < 2 * op.rows) : (i += chains) {
                const factors = values(op.key, starts, i);
                inline for (0..chains / 2) |r| {
                    const out: *align(1) W16 = @ptrCast(op.out + (@as(usize, i) / 2 + r) * pair_lanes);
                    out.* = @truncate(factors[2 * r] *% factors[2 * r + 1]);
                }
            }
        }

        /// Values first .. first + chains of every lane's stretch.
        inline fn values(key: threefry.Key, starts: U16, first: u32) [chains]V16 {
            const keys = [3]U16{ @splat(key[0]), @splat(key[1]), @splat(key[0] ^ key[1] ^ threefry.parity) };
            var x0: [chains]U16 = @splat(keys[0]);
            var x1: [chains]U16 = undefined;
            inline for (&x1, 0..) |*x, c| x.* = starts +% @as(U16, @splat(first + @as(u32, c))) +% keys[1];
            inline for (0..5) |round| {
                inline for (threefry.rotations[round % 2 * 4 ..][0..4]) |rotation| {
                    inline for (&x0, &x1) |*a, *b| {
                        a.* +%= b.*;
                        b.* = (b.* << @splat(rotation) | b.* >> @splat(@intCast(32 - @as(u32, rotation)))) ^ a.*;
                    }
                }
                inline for (&x0, &x1) |*a, *b| {
                    a.* +%= keys[(round + 1) % 3];
                    b.* +%= keys[(round + 2) % 3] +% @as(U16, @splat(round + 1));
                }
            }
            var out: [chains]V16 = undefined;
            inline for (&out, x0, x1) |*value, a, b| value.* = noiseValue((a ^ b) >> @splat(9));
            return out;
        }

        /// threefry.noiseValue in lanes.
        inline fn noiseValue(m: U16) V16 {
            const upper: U16 = @bitCast(@as(V16, @bitCast(m << @splat(9))) >> @splat(31));
            const place = (m ^ (upper & @as(U16, @splat(0x7fffff)))) +% @as(U16, @splat(16));
            const exponent = @as(U16, @splat(27)) -% @as(U16, @clz(place));
            const bucket = (upper & @as(U16, @splat(threefry.buckets_of_half))) +% (exponent << @splat(4)) +% (place >> @truncate(exponent)) -% @as(U16, @splat(16));
            const entry = gather(bucket);
            const base = @as(V16, @bitCast(entry << @splat(24))) >> @splat(24);
            return base +% @select(i32, m >= entry >> @splat(8), @as(V16, @splat(1)), @as(V16, @splat(0)));
        }

        inline fn gather(index: U16) U16 {
            const indices: [16]u32 = index;
            var entries: [16]u32 = undefined;
            inline for (&entries, indices) |*entry, i| entry.* = threefry.noise_buckets[i];
            return entries;
        }

        pub fn perturbVector(op: *const ops.PerturbVector) callconv(.c) void {
            const shift: @Vector(16, u5) = @splat(@intCast(op.perturb_shift));
            for (0..op.groups) |group| {
                const noise: [*]align(1) const i16 = @ptrCast(@as([*]const u8, @ptrCast(op.noise)) + group * op.noise_stride);
                for (0..op.width / 4) |w| {
                    var sides = [2]U16{ @splat(0), @splat(0) };
                    inline for (0..4) |b| {
                        const k = w * 4 + b;
                        const v: V16 = @splat(op.vector[k]);
                        var term: V16 = @splat(0);
                        if (op.perturbed != 0) term = @as(W16, noise[k * pair_lanes ..][0..16].*);
                        inline for (&sides, [2]V16{ term >> shift, -%term >> shift }) |*side, shifted| {
                            const clipped = @max(@as(V16, @min(v +% shifted, @as(V16, @splat(127)))), @as(V16, @splat(-127)));
                            side.* |= (@as(U16, @bitCast(clipped)) & @as(U16, @splat(0xff))) << @splat(8 * b);
                        }
                    }
                    const out: [*]u8 = @ptrCast(op.out + ((w * op.groups + group) * 2) * 64);
                    inline for (sides, 0..) |side, i| store64(out + i * 64, @bitCast(side));
                }
            }
        }

        pub fn perturbEmbedded(op: *const ops.PerturbEmbedded) callconv(.c) void {
            const shift: @Vector(32, u4) = @splat(@intCast(op.perturb_shift));
            for (0..op.groups) |group| {
                const a = op.a + group * op.stride;
                const b: [*]const u8 = @ptrCast(op.b + group * op.stride);
                inline for (0..2) |side| {
                    // Each lane's own A, twice as 16 bits.
                    var factors: [16]i32 = undefined;
                    for (&factors, op.tokens[group * 32 + side * 16 ..][0..16], 0..) |*factor, token, lane| {
                        const value: i32 = a[@as(usize, token) * pair_lanes + lane];
                        const sided = if (side == 0) value else -value;
                        factor.* = (sided & 0xffff) | sided << 16;
                    }
                    const factor: W32 = @bitCast(factors);
                    for (0..op.width / 4) |w| {
                        const at = op.x + ((w * op.groups + group) * 2 + side) * 64;
                        const x = signed(load64(at));
                        const noise: S64 = @bitCast(load64(b + w * 64));
                        // Products stay below 2^14; a sum past 127 or -127 is clipped.
                        const sum_even = clip(even(x) +% ((even(noise) *% factor) >> shift));
                        const sum_odd = clip(odd(x) +% ((odd(noise) *% factor) >> shift));
                        store64(at, stored(@bitCast(join(@bitCast(sum_even), @bitCast(sum_odd)))));
                    }
                }
            }
        }

        inline fn clip(v: W32) W32 {
            return @min(@max(v, @as(W32, @splat(-127))), @as(W32, @splat(127)));
        }
    };
}
