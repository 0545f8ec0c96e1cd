// The few instructions of the AVX-512 VNNI tier that have no portable spelling. Not a kernel: vector.zig builds those.
// Read next: vector.zig, which uses them; dot_avxvnni.zig, the same on 256 bits.
const simd = @import("lanes.zig");

const V16 = @Vector(16, i32);
const V64 = @Vector(64, u8);

/// Rows by vectors of sums that stay in registers, and a shape for panels that this one does not divide.
pub const wide_tile = .{ .rows = 4, .vectors = 4 };
pub const narrow_tile = .{ .rows = 8, .vectors = 2 };
/// Sums of 16 lanes that stay in registers when one member is run by itself.
pub const row_sums = 16;

/// Bytes are multiplied as they are.
pub const expands = false;

/// vpdpbusd multiplies unsigned inputs by signed weights, so activations are stored as value ^ 0x80.
pub const bias = 0x80;

/// acc += four products a lane: unsigned x, signed w. Does not saturate.
pub inline fn dot(acc: V16, x: V16, w: V16) V16 {
    return asm ("vpdpbusd %[w], %[x], %[acc]"
        : [acc] "=v" (-> V16),
        : [_] "0" (acc),
          [x] "v" (x),
          [w] "v" (w),
    );
}

/// acc += two products of signed 16-bit halves a lane, saturating.
pub const has_dot16 = true;
pub const dot16_saturates = true;
pub inline fn dot16(acc: V16, a: V16, b: V16) V16 {
    return asm ("vpdpwssds %[b], %[a], %[acc]"
        : [acc] "=v" (-> V16),
        : [_] "0" (acc),
          [a] "v" (a),
          [b] "v" (b),
    );
}

/// Four rows of sums, divided where there is a root, to [lane][4] bytes, saturated to [-128, 127].
pub inline fn pack4(rows: [4]V16, by: ?simd.Root) V64 {
    const low = divided(pack32(rows[0], rows[1]), by);
    const high = divided(pack32(rows[2], rows[3]), by);
    const bytes = asm ("vpacksswb %[b], %[a], %[out]"
        : [out] "=v" (-> V64),
        : [a] "v" (low),
          [b] "v" (high),
    );
    // Within each 128-bit lane: [row][member] to [member][row].
    return asm ("vpshufb %[order], %[bytes], %[out]"
        : [out] "=v" (-> V64),
        : [bytes] "v" (bytes),
          [order] "v" (transpose4),
    );
}

inline fn divided(v: V64, by: ?simd.Root) V64 {
    return if (by) |root| @bitCast(root.divide16(32, @bitCast(v), mulHigh)) else v;
}

const transpose4: V64 = blk: {
    @setEvalBranchQuota(2000);
    var indices: [64]u8 = undefined;
    for (&indices, 0..) |*index, i| index.* = @intCast((i & 3) * 4 + ((i >> 2) & 3));
    break :blk indices;
};

inline fn pack32(a: V16, b: V16) V64 {
    return asm ("vpackssdw %[b], %[a], %[out]"
        : [out] "=v" (-> V64),
        : [a] "v" (a),
          [b] "v" (b),
    );
}

/// High half of the product of unsigned 16-bit lanes. LLVM does not always see it in a widened product.
pub inline fn mulHigh(a: @Vector(32, u16), b: @Vector(32, u16)) @Vector(32, u16) {
    return asm ("vpmulhuw %[b], %[a], %[out]"
        : [out] "=v" (-> @Vector(32, u16)),
        : [a] "v" (a),
          [b] "v" (b),
    );
}

/// table[index[lane] mod 16].
pub inline fn lookup16(table: V16, index: V16) V16 {
    return asm ("vpermd %[table], %[index], %[out]"
        : [out] "=v" (-> V16),
        : [table] "v" (table),
          [index] "v" (index),
    );
}

/// table[index[lane] mod 32], in 16-bit lanes.
pub inline fn lookupHalves(table: @Vector(32, u16), index: @Vector(32, u16)) @Vector(32, u16) {
    return asm ("vpermw %[table], %[index], %[out]"
        : [out] "=v" (-> @Vector(32, u16)),
        : [table] "v" (table),
          [index] "v" (index),
    );
}
