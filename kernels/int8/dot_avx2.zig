// The few instructions of the AVX2 tier that have no portable spelling. It has no dot product of bytes that cannot
// saturate, so bytes are widened to 16 bits, once a matrix product. Not a kernel: vector.zig builds those.
const simd = @import("lanes.zig");

const V16 = @Vector(16, i32);
const V8 = @Vector(8, i32);
const V64 = @Vector(64, u8);
const V32 = @Vector(32, u8);
const Half = @Vector(32, u16);
const W16 = @Vector(16, u16);

pub const wide_tile = .{ .rows = 4, .vectors = 1 };
pub const narrow_tile = wide_tile;
/// Sums of 16 lanes that stay in registers when one member is run by itself.
pub const row_sums = 4;
/// Matrix products take 16-bit pairs (dot16).
pub const expands = true;
pub const bias = 0;

/// acc += four products a lane of signed bytes.
pub inline fn dot(acc: V16, x: V16, w: V16) V16 {
    const evens = dot16(acc, even(x), even(w));
    return dot16(evens, odd(x), odd(w));
}

inline fn even(v: V16) V16 {
    return @bitCast((@as(@Vector(32, i16), @bitCast(v)) << @splat(8)) >> @splat(8));
}

inline fn odd(v: V16) V16 {
    return @bitCast(@as(@Vector(32, i16), @bitCast(v)) >> @splat(8));
}

/// acc += two products of signed 16-bit halves a lane.
pub const has_dot16 = true;
pub const dot16_saturates = false;
pub inline fn dot16(acc: V16, a: V16, b: V16) V16 {
    return acc +% both(madd(low(a), low(b)), madd(high(a), high(b)));
}

inline fn madd(a: V8, b: V8) V8 {
    return asm ("vpmaddwd %[b], %[a], %[out]"
        : [out] "=x" (-> V8),
        : [a] "x" (a),
          [b] "x" (b),
    );
}

/// Four rows of sums, divided where there is a root, to [lane][4] bytes, saturated to [-128, 127].
pub inline fn pack4(rows: [4]V16, by: ?simd.Root) V64 {
    const first: V8 = @bitCast(pack8(low(rows[0]), low(rows[1]), low(rows[2]), low(rows[3]), by));
    const second: V8 = @bitCast(pack8(high(rows[0]), high(rows[1]), high(rows[2]), high(rows[3]), by));
    return @bitCast(both(first, second));
}

inline fn pack8(r0: V8, r1: V8, r2: V8, r3: V8, by: ?simd.Root) V32 {
    const bytes = asm ("vpacksswb %[b], %[a], %[out]"
        : [out] "=x" (-> V32),
        : [a] "x" (divided(pack16(r0, r1), by)),
          [b] "x" (divided(pack16(r2, r3), by)),
    );
    return asm ("vpshufb %[order], %[bytes], %[out]"
        : [out] "=x" (-> V32),
        : [bytes] "x" (bytes),
          [order] "x" (transpose4),
    );
}

inline fn divided(v: V32, by: ?simd.Root) V32 {
    return if (by) |root| @bitCast(root.divide16(16, @bitCast(v), mulHigh16)) else v;
}

inline fn pack16(a: V8, b: V8) V32 {
    return asm ("vpackssdw %[b], %[a], %[out]"
        : [out] "=x" (-> V32),
        : [a] "x" (a),
          [b] "x" (b),
    );
}

/// Within each 128-bit lane: [row][member] to [member][row].
const transpose4: V32 = blk: {
    var indices: [32]u8 = undefined;
    for (&indices, 0..) |*index, i| index.* = @intCast((i & 3) * 4 + ((i >> 2) & 3));
    break :blk indices;
};

/// High half of the product of unsigned 16-bit lanes.
pub inline fn mulHigh(a: Half, b: Half) Half {
    const words_a: [2]W16 = @bitCast(a);
    const words_b: [2]W16 = @bitCast(b);
    return @bitCast([2]W16{ mulHigh16(words_a[0], words_b[0]), mulHigh16(words_a[1], words_b[1]) });
}

inline fn mulHigh16(a: W16, b: W16) W16 {
    return asm ("vpmulhuw %[b], %[a], %[out]"
        : [out] "=x" (-> W16),
        : [a] "x" (a),
          [b] "x" (b),
    );
}

/// table[index[lane] mod 16]: both halves of the table, then the one that bit 3 names.
pub inline fn lookup16(table: V16, index: V16) V16 {
    return both(lookup8(table, low(index)), lookup8(table, high(index)));
}

inline fn lookup8(table: V16, index: V8) V8 {
    const upper = (index << @splat(28)) < @as(V8, @splat(0));
    return @select(i32, upper, permute(high(table), index), permute(low(table), index));
}

inline fn permute(table: V8, index: V8) V8 {
    return asm ("vpermd %[table], %[index], %[out]"
        : [out] "=x" (-> V8),
        : [table] "x" (table),
          [index] "x" (index),
    );
}

pub inline fn low(v: V16) V8 {
    return @shuffle(i32, v, undefined, [8]i32{ 0, 1, 2, 3, 4, 5, 6, 7 });
}

pub inline fn high(v: V16) V8 {
    return @shuffle(i32, v, undefined, [8]i32{ 8, 9, 10, 11, 12, 13, 14, 15 });
}

pub inline fn both(a: V8, b: V8) V16 {
    return @shuffle(i32, a, b, [16]i32{ 0, 1, 2, 3, 4, 5, 6, 7, -1, -2, -3, -4, -5, -6, -7, -8 });
}
