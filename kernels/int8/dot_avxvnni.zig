// The few instructions of the AVX-VNNI tier (256 bits, Intel clients) that have no portable spelling. Twice 8 lanes make
// one vector of 16. Not a kernel: vector.zig builds those.
const avx2 = @import("dot_avx2.zig");

const V16 = @Vector(16, i32);
const V8 = @Vector(8, i32);

pub const wide_tile = .{ .rows = 4, .vectors = 1 };
pub const narrow_tile = wide_tile;
/// Sums of 16 lanes that stay in registers when one member is run by itself.
pub const row_sums = 4;
pub const expands = false;
/// vpdpbusd multiplies unsigned inputs by signed weights, so activations are stored as value ^ 0x80.
pub const bias = 0x80;

/// acc += four products a lane: unsigned x, signed w. Does not saturate.
pub inline fn dot(acc: V16, x: V16, w: V16) V16 {
    const low, const high = .{ avx2.low(acc), avx2.high(acc) };
    return avx2.both(dot8(low, avx2.low(x), avx2.low(w)), dot8(high, avx2.high(x), avx2.high(w)));
}

inline fn dot8(acc: V8, x: V8, w: V8) V8 {
    return asm ("{vex} vpdpbusd %[w], %[x], %[acc]"
        : [acc] "=x" (-> V8),
        : [_] "0" (acc),
          [x] "x" (x),
          [w] "x" (w),
    );
}

/// acc += two products of signed 16-bit halves a lane, saturating.
pub const has_dot16 = true;
pub const dot16_saturates = true;
pub inline fn dot16(acc: V16, a: V16, b: V16) V16 {
    return avx2.both(dot16of8(avx2.low(acc), avx2.low(a), avx2.low(b)), dot16of8(avx2.high(acc), avx2.high(a), avx2.high(b)));
}

inline fn dot16of8(acc: V8, a: V8, b: V8) V8 {
    return asm ("{vex} vpdpwssds %[b], %[a], %[acc]"
        : [acc] "=x" (-> V8),
        : [_] "0" (acc),
          [a] "x" (a),
          [b] "x" (b),
    );
}

pub const pack4 = avx2.pack4;
pub const mulHigh = avx2.mulHigh;
pub const lookup16 = avx2.lookup16;
