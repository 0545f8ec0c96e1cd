// The context model's kernels in SIMD: 16 pairs in lanes, one source for every tier. `dot` brings the few instructions that differ
// (kernels/int8/dot_avx512vnni.zig and its like). Meaning and arguments: ops.zig. Oracle: scalar.zig. Bit for bit the same.
const simd = @import("../int8/lanes.zig");
const ops = @import("ops.zig");

const V16 = simd.V16;
const U16 = simd.U16;
const W32 = simd.W32;
const Half = simd.Half;
const B16 = @Vector(16, i8);
const S16 = @Vector(16, i16);
const Wide = @Vector(16, i64);

pub fn Kernels(comptime dot: type) type {
    return struct {
        pub const table: ops.Table = .{ .group = &group, .position = &position, .move = &move };

        inline fn hash(words: U16) U16 {
            var x = words;
            x ^= x >> @splat(16);
            x *%= @splat(0x7feb352d);
            x ^= x >> @splat(15);
            x *%= @splat(0x846ca68b);
            return x ^ (x >> @splat(16));
        }

        /// 64 values of the noise of `key`: those of 16 words.
        inline fn noise(key: u32, words: U16) simd.S64 {
            const drawn = hash((words +% @as(U16, @splat(key))) *% @as(U16, @splat(ops.golden_ratio)));
            const bytes: simd.S64 = @bitCast(drawn);
            // There is no shift of bytes: shift 16-bit halves.
            const high: Half = @bitCast(@as(W32, @bitCast(bytes)) >> @splat(10));
            const low: Half = @bitCast((@as(W32, @bitCast(bytes)) << @splat(8)) >> @splat(10));
            return @as(simd.S64, @bitCast(simd.join(low, high))) | @as(simd.S64, @splat(1));
        }

        const counting: U16 = .{ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };

        fn group(op: *const ops.Group) callconv(.c) void {
            const width = ops.padded(op.vocabulary);
            var v: usize = 0;
            while (v < width) : (v += 4) {
                const values = noise(op.key, counting + @as(U16, @splat(@intCast(4 * v))));
                @as(*align(1) simd.S64, @ptrCast(op.noise + 16 * v)).* = values;
            }
            @memset(op.noise[16 * @as(usize, op.vocabulary) .. 16 * width], 0);
            const words: [*]const u32 = @ptrCast(op.noise);
            const quads: [*]u32 = @ptrCast(op.quads);
            for (0..width) |i| {
                inline for (0..4) |j| quads[j * width + i] = words[4 * i + j];
            }
            v = 0;
            while (v < op.vocabulary) : (v += 2) {
                const first: S16 = @as(B16, op.noise[16 * v ..][0..16].*);
                const second: S16 = @as(B16, op.noise[16 * v + 16 ..][0..16].*);
                op.pairs[16 * v ..][0..32].* = @shuffle(i16, first, second, side_by_side);
            }
            v = 0;
            while (v < width) : (v += 16) {
                var sums: V16 = @splat(0);
                if (dot.bias != 0) {
                    inline for (0..4) |j| sums = dot.dot(sums, @splat(@bitCast(@as(u32, dot.bias) *% 0x01010101)), simd.load16(@ptrCast(@alignCast(op.quads + 4 * (j * width + v)))));
                }
                simd.store16(op.offsets + v, -sums);
            }
        }

        const side_by_side: @Vector(32, i32) = blk: {
            var indices: [32]i32 = undefined;
            for (0..16) |i| {
                indices[2 * i] = i;
                indices[2 * i + 1] = ~@as(i32, i);
            }
            break :blk indices;
        };

        const powers16: V16 = blk: {
            var words: [16]i32 = undefined;
            for (&words, ops.powers) |*word, power| word.* = power;
            break :blk words;
        };
        const powers32: Half = ops.powers ++ ops.powers;

        /// Both halves' powers of each lane added up: T[n mod 16] >> (n div 16).
        inline fn weigh(neg: W32) V16 {
            const n: Half = @bitCast(neg);
            if (@hasDecl(dot, "lookupHalves")) {
                const shift: @Vector(32, u4) = @intCast(@min(n >> @splat(4), @as(Half, @splat(15))));
                const z: U16 = @bitCast(dot.lookupHalves(powers32, n) >> shift);
                return @bitCast((z & @as(U16, @splat(0xffff))) + (z >> @splat(16)));
            }
            const both: U16 = @bitCast(n);
            return weighWords(both & @as(U16, @splat(0xffff))) + weighWords(both >> @splat(16));
        }

        inline fn weighWords(n: U16) V16 {
            const power: U16 = @bitCast(dot.lookup16(powers16, @bitCast(n & @as(U16, @splat(15)))));
            const shift: @Vector(16, u5) = @intCast(@min(n >> @splat(4), @as(U16, @splat(16))));
            return @bitCast(power >> shift);
        }

        inline fn logarithm(z: V16) V16 {
            const bits: U16 = @bitCast(z);
            const zeros: U16 = @clz(bits);
            const f: V16 = @bitCast(((bits << @as(@Vector(16, u5), @intCast(zeros))) >> @splat(23)) & @as(U16, @splat(255)));
            const e = @as(V16, @splat(31)) - @as(V16, @bitCast(zeros));
            const bend = (f * (@as(V16, @splat(256)) - f) * @as(V16, @splat(89))) >> @splat(16);
            return e * @as(V16, @splat(256)) + f + bend;
        }

        fn position(op: *ops.Position) callconv(.c) void {
            @setRuntimeSafety(false);
            const vocabulary: usize = op.vocabulary;
            const width = ops.padded(vocabulary);
            const order: usize = op.order;

            var clean: [ops.max_vocabulary + 32]i16 align(64) = undefined;
            var highest: S16 = @splat(-32768);
            var v: usize = 0;
            while (v < width) : (v += 16) {
                var sum: S16 = @splat(0);
                for (op.rows[0..order]) |row| sum += @as(B16, (op.weights + row * width + v)[0..16].*);
                clean[v..][0..16].* = sum;
                const left: i16 = @intCast(vocabulary - v);
                const real = @as(S16, @intCast(counting)) < @as(S16, @splat(left));
                highest = @max(highest, @select(i16, real, sum, @as(S16, @splat(-32768))));
            }
            const ceiling: i16 = @reduce(.Max, highest) + @as(i16, @intCast(op.margin));
            v = 0;
            while (v < width) : (v += 16) clean[v..][0..16].* = @as(S16, @splat(ceiling)) - @as(S16, clean[v..][0..16].*);
            // The logit behind an odd number of them adds nothing.
            if (vocabulary % 2 == 1) clean[vocabulary] = 0x2000;

            // A of all rows, four rows at a time.
            var factors: [ops.max_order * 16]i8 align(64) = undefined;
            var k: usize = 0;
            while (k < order) : (k += 4) {
                var words: [16]u32 = undefined;
                inline for (0..4) |i| {
                    const row = op.rows[@min(k + i, order - 1)];
                    inline for (0..4) |w| words[4 * i + w] = row *% 4 +% @as(u32, w);
                }
                @as(*simd.S64, @ptrCast(@alignCast(factors[16 * k ..].ptr))).* = noise(op.key, words);
            }
            var a: S16 = @splat(0);
            for (0..order) |i| a += @as(B16, factors[16 * i ..][0..16].*);
            const a_low: U16 = @as(@Vector(16, u16), @bitCast(a));
            const a_twice: W32 = @bitCast(a_low | (a_low << @splat(16)));

            const shift: @Vector(32, u4) = @splat(@intCast(op.shift));
            const half: i16 = if (op.shift == 0) 0 else @as(i16, 1) << @intCast(op.shift - 1);
            var z_plus: V16 = @splat(0);
            var z_minus: V16 = @splat(0);
            const clean_pairs: [*]align(64) const u32 = @ptrCast(&clean);
            for (0..(vocabulary + 1) / 2) |i| {
                const b: W32 = op.pairs[32 * i ..][0..32].*;
                const change = (a_twice *% b +% @as(W32, @splat(half))) >> shift;
                const middle: W32 = @bitCast(@as(U16, @splat(clean_pairs[i])));
                z_plus += weigh(middle - change);
                z_minus += weigh(middle + change);
            }

            const target: usize = op.target;
            var b_target: [16]i16 = undefined;
            for (&b_target, 0..) |*b, p| b.* = op.pairs[target / 2 * 32 + 2 * p + target % 2];
            const change_target: V16 = (a *% @as(S16, b_target) +% @as(S16, @splat(half))) >> @as(@Vector(16, u4), @splat(@intCast(op.shift)));
            // All of it may lie below what Z holds, where perturbations are large.
            const log_plus = logarithm(@max(z_plus, @as(V16, @splat(1))));
            const log_minus = logarithm(@max(z_minus, @as(V16, @splat(1))));
            const difference = log_minus - log_plus + change_target * @as(V16, @splat(32));
            op.differences[0..16].* = difference;
            op.loss = @as(i64, @reduce(.Add, log_plus + log_minus)) + 32 * (16 * @as(i64, clean[target]) - 15 * 256);

            const rounding: i32 = if (op.fitness_shift == 0) 0 else @as(i32, 1) << @intCast(op.fitness_shift - 1);
            const scaled = (difference + @as(V16, @splat(rounding))) >> @as(@Vector(16, u5), @splat(@intCast(op.fitness_shift)));
            const fitness: S16 = @intCast(@min(@max(scaled, @as(V16, @splat(-127))), @as(V16, @splat(127))));
            for (0..order) |i| {
                const factor: S16 = @as(B16, factors[16 * i ..][0..16].*);
                const share: B16 = @truncate((factor *% fitness +% @as(S16, @splat(16))) >> @splat(5));
                const stored = @as(@Vector(16, u8), @bitCast(share)) ^ @as(@Vector(16, u8), @splat(dot.bias));
                const words: [4]i32 = @bitCast(stored);
                const votes = op.votes[i];
                v = 0;
                while (v < width) : (v += 16) {
                    var sum = simd.load16(votes + v) +% simd.load16(op.offsets + v);
                    inline for (0..4) |j| sum = dot.dot(sum, @splat(words[j]), simd.load16(@ptrCast(@alignCast(op.quads + 4 * (j * width + v)))));
                    simd.store16(votes + v, sum);
                }
            }
        }

        fn move(op: *ops.Move) callconv(.c) void {
            const rate: Wide = @splat(op.rate);
            op.changed = 0;
            var v: usize = 0;
            while (v < op.padded) : (v += 16) {
                const votes: Wide = simd.load16(op.votes + v);
                const change: V16 = @intCast(@min(@max((votes * rate) >> @splat(16), @as(Wide, @splat(-ops.change_limit))), @as(Wide, @splat(ops.change_limit))));
                const limit: V16 = @splat(ops.weight_limit);
                const master = @min(@max(simd.load16(op.master + v) + change, -limit), limit);
                simd.store16(op.master + v, master);
                const weights: B16 = @intCast((master + @as(V16, @splat(1 << (ops.unit_bits - 1)))) >> @splat(ops.unit_bits));
                const before: B16 = op.weights[v..][0..16].*;
                op.changed += @popCount(@as(u16, @bitCast(weights != before)));
                op.weights[v..][0..16].* = weights;
            }
        }
    };
}
