// The few instructions of the ARM baseline tier that have no portable spelling. Four registers of 4 lanes make one
// vector of 16. Not a kernel: vector.zig builds those.
const simd = @import("lanes.zig");

const V16 = @Vector(16, i32);
const V4 = @Vector(4, i32);
const V64 = @Vector(64, u8);
const Half = @Vector(32, u16);
const B16 = @Vector(16, u8);

pub const wide_tile = .{ .rows = 4, .vectors = 1 };
pub const narrow_tile = wide_tile;
/// Sums of 16 lanes that stay in registers when one member is run by itself.
pub const row_sums = 4;
pub const expands = false;
pub const bias = 0;

/// acc += four products a lane of signed bytes. Two products of [-127, 127] fit 16 bits.
pub inline fn dot(acc: V16, x: V16, w: V16) V16 {
    const a: [4]V4 = @bitCast(acc);
    const b: [4]V4 = @bitCast(x);
    const c: [4]V4 = @bitCast(w);
    var out: [4]V4 = undefined;
    inline for (0..4) |i| {
        const first = asm ("smull %[out].8h, %[x].8b, %[w].8b"
            : [out] "=w" (-> V4),
            : [x] "w" (b[i]),
              [w] "w" (c[i]),
        );
        const second = asm ("smull2 %[out].8h, %[x].16b, %[w].16b"
            : [out] "=w" (-> V4),
            : [x] "w" (b[i]),
              [w] "w" (c[i]),
        );
        const pairs = asm ("addp %[out].8h, %[first].8h, %[second].8h"
            : [out] "=w" (-> V4),
            : [first] "w" (first),
              [second] "w" (second),
        );
        out[i] = asm ("sadalp %[acc].4s, %[pairs].8h"
            : [acc] "=w" (-> V4),
            : [_] "0" (a[i]),
              [pairs] "w" (pairs),
        );
    }
    return @bitCast(out);
}

pub const has_dot16 = false;
pub const dot16_saturates = false;
/// Not on this tier: the rank-one term takes its own shift.
pub inline fn dot16(_: V16, _: V16, _: V16) V16 {
    comptime unreachable;
}

/// Four rows of sums, divided where there is a root, to [lane][4] bytes, saturated to [-127, 127].
pub inline fn pack4(rows: [4]V16, by: ?simd.Root) V64 {
    const byte: V16 = @splat(0xff);
    var word: V16 = @splat(0);
    inline for (rows, 0..) |row, i| word |= (clip(if (by) |root| root.divide32(row) else row) & byte) << @splat(8 * i);
    return @bitCast(word);
}

inline fn clip(v: V16) V16 {
    return @as(V16, @max(@as(V16, @min(v, @as(V16, @splat(127)))), @as(V16, @splat(-127))));
}

/// High half of the product of unsigned 16-bit lanes.
pub inline fn mulHigh(a: Half, b: Half) Half {
    const wide = @as(@Vector(32, u32), a) * @as(@Vector(32, u32), b);
    return @truncate(wide >> @splat(16));
}

/// table[index[lane] mod 16], by bytes: entry i is bytes 4i .. 4i + 3.
pub inline fn lookup16(table: V16, index: V16) V16 {
    const bytes: V16 = (index & @as(V16, @splat(15))) *% @as(V16, @splat(0x04040404)) +% @as(V16, @splat(0x03020100));
    const parts: [4]B16 = @bitCast(table);
    const wanted: [4]B16 = @bitCast(bytes);
    var out: [4]B16 = undefined;
    inline for (0..4) |i| out[i] = asm (
        \\mov v28.16b, %[t0].16b
        \\mov v29.16b, %[t1].16b
        \\mov v30.16b, %[t2].16b
        \\mov v31.16b, %[t3].16b
        \\tbl %[out].16b, {v28.16b, v29.16b, v30.16b, v31.16b}, %[index].16b
        : [out] "=&w" (-> B16),
        : [t0] "w" (parts[0]),
          [t1] "w" (parts[1]),
          [t2] "w" (parts[2]),
          [t3] "w" (parts[3]),
          [index] "w" (wanted[i]),
        : .{ .v28 = true, .v29 = true, .v30 = true, .v31 = true });
    return @bitCast(out);
}
