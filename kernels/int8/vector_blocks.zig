// The elementwise arithmetic that panels (vector.zig) and rows (vector_rows.zig) share: 64 values at a time, one tier.
// Meaning of each formula: ops.zig.
const simd = @import("lanes.zig");
const scalar = @import("scalar.zig");

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

pub fn Blocks(comptime dot: type) type {
    return struct {
        pub const bias64: V64 = @splat(dot.bias);

        pub inline fn signed(v: V64) S64 {
            return @bitCast(v ^ bias64);
        }

        pub inline fn stored(v: S64) V64 {
            return @as(V64, @bitCast(v)) ^ bias64;
        }

        /// clip(trunc(x * weight / m)), with |weight| * 4 in even and odd bytes and the reciprocal of m.
        pub inline fn normBlock(x: S64, weight: S64, size4: [2]Half, magic: Half, factor: Half) S64 {
            const magnitude: Half = @bitCast(@as(V64, @abs(x)));
            const q = [2]Half{
                dot.mulHigh(dot.mulHigh((magnitude & @as(Half, @splat(0xff))) *% size4[0], magic), factor),
                dot.mulHigh(dot.mulHigh((magnitude >> @splat(8)) *% size4[1], magic), factor),
            };
            const y: S64 = @bitCast(atMost127(q[0]) | atMost127(q[1]) << @splat(8));
            return @select(i8, (x ^ weight) < @as(S64, @splat(0)), -%y, y);
        }

        pub inline fn atMost127(q: Half) Half {
            return @min(q, @as(Half, @splat(127)));
        }

        pub inline fn forgetBlock(a: V64, b: V64, shift: S64, state: V64) [2]V64 {
            const f = clippedAdd(clippedAdd(signed(a), signed(b)), shift);
            const h = signed(state);
            const gate = openness(f);
            const g = [2]W32{ (gate[0] *% even(h)) >> @splat(8), (gate[1] *% odd(h)) >> @splat(8) };
            return .{ stored(f), stored(@bitCast(join(@bitCast(g[0]), @bitCast(g[1])))) };
        }

        /// f + 127 as 0..254, even and odd bytes.
        pub inline fn openness(f: S64) [2]W32 {
            const gate: Half = @bitCast((@as(V64, @bitCast(f)) ^ @as(V64, @splat(0x80))) -% @as(V64, @splat(1)));
            return .{ @bitCast(gate & @as(Half, @splat(0xff))), @bitCast(gate >> @splat(8)) };
        }

        pub inline fn stateBlock(a: V64, b: V64, shift: S64, f: V64, state: V64, residual: V64) [2]V64 {
            const c = clippedAdd(clippedAdd(signed(a), signed(b)), shift);
            const h = signed(state);
            const gate = openness(signed(f));
            const moved_even = moved(even(h), even(c), gate[0]);
            const moved_odd = moved(odd(h), odd(c), gate[1]);
            const next: S64 = @bitCast(join(@bitCast(moved_even), @bitCast(moved_odd)));
            return .{ stored(next), stored(clippedAdd(next, signed(residual))) };
        }

        /// clip(h + ((gate * (c - h)) >> 8)). The product does not fit 16 bits; its scaled high half does, exactly.
        pub inline fn moved(h: W32, c: W32, gate: W32) W32 {
            const step = mulHighSigned(gate << @splat(7), (c -% h) << @splat(1));
            return @min(@max(h +% step, @as(W32, @splat(-127))), @as(W32, @splat(127)));
        }

        /// z[lane] += EXP2 of the lane's four logits.
        pub inline fn addWeights(z: V16, logits: V64) V16 {
            // The logit plus 128 as four bytes of one lane: four bits of exponent, four of fraction.
            const word = logits ^ @as(V64, @splat(dot.bias ^ 0x80));
            const index: U16 = @bitCast(word);
            const fall: U16 = @bitCast((~word) >> @splat(4)); // 15 - exponent
            var sum = z;
            inline for (0..4) |byte| {
                const value = dot.lookup16(scalar.exp2_mantissa, @bitCast(index >> @splat(8 * byte)));
                sum +%= value >> @truncate((fall >> @splat(8 * byte)) & @as(U16, @splat(15)));
            }
            return sum;
        }
    };
}
