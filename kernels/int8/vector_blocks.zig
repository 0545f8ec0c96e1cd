// The elementwise arithmetic that panels (vector.zig) and rows (vector_rows.zig) share: 64 values at a time, one tier.
// Meaning of each formula: ops.zig.
const simd = @import("lanes.zig");
const plain = @import("plain.zig");
const scalar_operators = @import("scalar_operators.zig");
const Rule = @import("rule.zig").Rule;

const V16 = simd.V16;
const U16 = simd.U16;
const V64 = simd.V64;
const S64 = simd.S64;
const W32 = simd.W32;
const Half = simd.Half;
const even = simd.even;
const odd = simd.odd;
const join = simd.join;
const mulHighSigned = simd.mulHighSigned;
const clippedAdd = simd.clippedAdd;
const reciprocals = simd.reciprocals;

pub fn Blocks(comptime dot: type) type {
    return struct {
        pub const bias64: V64 = @splat(dot.bias);

        pub inline fn signed(v: V64) S64 {
            return @bitCast(v ^ bias64);
        }

        pub inline fn stored(v: S64) V64 {
            return @as(V64, @bitCast(v)) ^ bias64;
        }

        /// A layer norm's m for each lane, as two factors (lanes.zig, reciprocals) and m - 1, in both halves of a lane.
        pub const Divisor = struct {
            magic: Half,
            factor: Half,
            less: Half,

            pub inline fn each(means: U16) Divisor {
                const m: [16]u32 = @max(means, @as(U16, @splat(1)));
                var magic: [16]u32 = undefined;
                var factor: [16]u32 = undefined;
                for (m, &magic, &factor) |mean, *m_magic, *m_factor| {
                    m_magic.* = reciprocals[mean].magic;
                    m_factor.* = reciprocals[mean].factor;
                }
                return .{ .magic = @bitCast(magic), .factor = @bitCast(factor), .less = lessOne(means) };
            }

            pub inline fn all(mean: u32) Divisor {
                const reciprocal = reciprocals[@max(mean, 1)];
                return .{
                    .magic = @bitCast(@as(U16, @splat(reciprocal.magic))),
                    .factor = @bitCast(@as(U16, @splat(reciprocal.factor))),
                    .less = lessOne(@splat(mean)),
                };
            }

            /// m - 1, which is 0xffff for a mean of 0.
            inline fn lessOne(means: U16) Half {
                return @as(Half, @bitCast(means | means << @splat(16))) -% @as(Half, @splat(1));
            }
        };

        /// x * weight over m: toward zero in egg.c, down in nano-egg, where negative products take m - 1 more; clipped. Means of 0
        /// count as 1 here.
        pub inline fn normBlock(comptime rule: Rule, x: S64, weight: S64, by: Divisor) S64 {
            const low: Half = @splat(0xff);
            const magnitude: Half = @bitCast(@as(V64, @abs(x)));
            const size: Half = @bitCast(@as(V64, @abs(weight)));
            const minus = (x ^ weight) >> @splat(7);
            var n = [2]Half{ (magnitude & low) *% ((size & low) << @splat(2)), (magnitude >> @splat(8)) *% ((size >> @splat(8)) << @splat(2)) };
            if (rule == .nano_egg) {
                // A mean of 0 has no m - 1; what comes of it is not used (overNothing).
                const more = (by.less & @as(Half, @splat(0x7f))) << @splat(2);
                n[0] +%= more & @as(Half, @bitCast(even(minus)));
                n[1] +%= more & @as(Half, @bitCast(odd(minus)));
            }
            const q = [2]Half{ dot.mulHigh(dot.mulHigh(n[0], by.magic), by.factor), dot.mulHigh(dot.mulHigh(n[1], by.magic), by.factor) };
            const y: S64 = @bitCast(atMost127(q[0]) | atMost127(q[1]) << @splat(8));
            return (y ^ minus) -% minus;
        }

        /// y, but where the mean is 0: -2, or -1 for a product of 0.
        pub inline fn overNothing(x: S64, weight: S64, y: S64, by: Divisor) S64 {
            const zero: S64 = @splat(0);
            const none = @select(i8, x == zero, @as(S64, @splat(-1)), @select(i8, weight == zero, @as(S64, @splat(-1)), @as(S64, @splat(-2))));
            return @select(i8, @as(S64, @bitCast(by.less)) == @as(S64, @splat(-1)), none, y);
        }

        pub inline fn atMost127(q: Half) Half {
            return @min(q, @as(Half, @splat(127)));
        }

        /// f, or the candidate c: the sum of two products and a bias, clipped once or twice.
        pub inline fn gate(comptime rule: Rule, a: V64, b: V64, bias: S64) S64 {
            switch (rule) {
                .egg_c => return clippedAdd(clippedAdd(signed(a), signed(b)), bias),
                .nano_egg => {
                    const x, const y = .{ signed(a), signed(b) };
                    return @bitCast(join(@bitCast(clip16(even(x) +% even(y) +% even(bias))), @bitCast(clip16(odd(x) +% odd(y) +% odd(bias)))));
                },
            }
        }

        inline fn clip16(v: W32) W32 {
            return @min(@max(v, @as(W32, @splat(-127))), @as(W32, @splat(127)));
        }

        /// ((f + 127) * h) >> 8.
        pub inline fn opened(f: S64, state: V64) V64 {
            const h = signed(state);
            const open = openness(f);
            const g = [2]W32{ (open[0] *% even(h)) >> @splat(8), (open[1] *% odd(h)) >> @splat(8) };
            return stored(@bitCast(join(@bitCast(g[0]), @bitCast(g[1]))));
        }

        /// f + 127 as 0..254, even and odd bytes.
        pub inline fn openness(f: S64) [2]W32 {
            const open: Half = @bitCast((@as(V64, @bitCast(f)) ^ @as(V64, @splat(0x80))) -% @as(V64, @splat(1)));
            return .{ @bitCast(open & @as(Half, @splat(0xff))), @bitCast(open >> @splat(8)) };
        }

        /// The next state for the candidate c, and with the residual added.
        pub inline fn stateBlock(c: S64, f: V64, state: V64, residual: V64) [2]V64 {
            const h = signed(state);
            const open = openness(signed(f));
            const moved_even = moved(even(h), even(c), open[0]);
            const moved_odd = moved(odd(h), odd(c), open[1]);
            const next: S64 = @bitCast(join(@bitCast(moved_even), @bitCast(moved_odd)));
            return .{ stored(next), stored(clippedAdd(next, signed(residual))) };
        }

        /// clip(h + ((open * (c - h)) >> 8)). The product does not fit 16 bits; its scaled high half does, exactly.
        pub inline fn moved(h: W32, c: W32, open: W32) W32 {
            const step = mulHighSigned(open << @splat(7), (c -% h) << @splat(1));
            return clip16(h +% step);
        }

        /// z[lane] += EXP2 of the lane's four logits.
        pub inline fn addWeights(z: V16, logits: V64) V16 {
            // The logit plus 128 as four bytes of one lane: four bits of exponent, four of fraction.
            const word = logits ^ @as(V64, @splat(dot.bias ^ 0x80));
            const index: U16 = @bitCast(word);
            const fall: U16 = @bitCast((~word) >> @splat(4)); // 15 - exponent
            var sum = z;
            inline for (0..4) |byte| {
                const value = dot.lookup16(plain.exp2_mantissa, @bitCast(index >> @splat(8 * byte)));
                sum +%= value >> @truncate((fall >> @splat(8 * byte)) & @as(U16, @splat(15)));
            }
            return sum;
        }

        /// log2 of z / 16 in 1/16, z at least 256.
        pub inline fn log(comptime rule: Rule, z: V16) V16 {
            const top = @as(V16, @splat(31)) -% @as(V16, @intCast(@clz(z)));
            const whole = top *% @as(V16, @splat(16)) -% @as(V16, @splat(64));
            switch (rule) {
                .egg_c => {
                    const rest = z -% (@as(V16, @splat(1)) << @truncate(@as(U16, @bitCast(top))));
                    return whole +% (rest >> @truncate(@as(U16, @bitCast(top -% @as(V16, @splat(4))))));
                },
                .nano_egg => {
                    const normal = z << @truncate(@as(U16, @bitCast(@as(V16, @splat(30)) -% top)));
                    var sum = whole;
                    inline for (scalar_operators.log_steps[1..]) |step| {
                        sum +%= @select(i32, normal >= @as(V16, @splat(step)), @as(V16, @splat(1)), @as(V16, @splat(0)));
                    }
                    return sum;
                },
            }
        }
    };
}
