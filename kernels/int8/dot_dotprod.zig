// The few instructions of the ARM dot-product tier that have no portable spelling. Four registers of 4 lanes make one
// vector of 16. Not a kernel: vector.zig builds those.
const neon = @import("dot_neon.zig");

const V16 = @Vector(16, i32);
const V4 = @Vector(4, i32);

pub const wide_tile = .{ .rows = 4, .vectors = 1 };
pub const narrow_tile = wide_tile;
/// Sums of 16 lanes that stay in registers when one member is run by itself.
pub const row_sums = 4;
pub const expands = false;
pub const bias = 0;

/// acc += four products a lane of signed bytes.
pub inline fn dot(acc: V16, x: V16, w: V16) V16 {
    const a: [4]V4 = @bitCast(acc);
    const b: [4]V4 = @bitCast(x);
    const c: [4]V4 = @bitCast(w);
    var out: [4]V4 = undefined;
    inline for (0..4) |i| out[i] = asm ("sdot %[acc].4s, %[x].16b, %[w].16b"
        : [acc] "=w" (-> V4),
        : [_] "0" (a[i]),
          [x] "w" (b[i]),
          [w] "w" (c[i]),
    );
    return @bitCast(out);
}

pub const has_dot16 = false;
pub const dot16_saturates = false;
pub const dot16 = neon.dot16;
pub const pack4 = neon.pack4;
pub const mulHigh = neon.mulHigh;
pub const lookup16 = neon.lookup16;
