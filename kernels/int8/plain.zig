// What the scalar kernels are written in: values of an activation buffer by input and lane, clipping, and the integer softmax's
// weights, which all tiers share. Not kernels: scalar.zig. The same for SIMD: lanes.zig.
const layout = @import("layout.zig");

const group_lanes = layout.group_lanes;

/// floor(16 * 2^(i/16)), i = 0..255: the weights of egg.c's integer softmax. Made at compile time.
pub const exp2_table: [256]i32 = blk: {
    // 2^(j/16) * 2^19, rounded down, j = 0..15; a power of two more is a shift less.
    const mantissa = exp2_mantissa;
    var values: [256]i32 = undefined;
    for (&values, 0..) |*value, i| value.* = mantissa[i & 15] >> @intCast(15 - (i >> 4));
    break :blk values;
};

/// floor(2^(j/16) * 2^19), j = 0..15.
pub const exp2_mantissa: [16]i32 = sixteenths(19);

/// floor(2^(j/16) * 2^bits), j = 0..15: the largest r with r^16 <= 2^j * 2^(16 * bits).
pub fn sixteenths(comptime bits: u32) [16]i32 {
    @setEvalBranchQuota(40000);
    var values: [16]i32 = undefined;
    for (&values, 0..) |*value, j| {
        var low: u1024 = 1 << bits;
        var high: u1024 = 2 << bits;
        while (high - low > 1) {
            const middle = (low + high) / 2;
            var power = middle;
            for (0..4) |_| power *= power;
            if (power <= @as(u1024, 1) << (j + 16 * bits)) low = middle else high = middle;
        }
        value.* = @intCast(low);
    }
    return values;
}

pub fn clip(v: i32) i8 {
    return @intCast(@min(@max(v, -127), 127));
}

/// Byte index of input `k` of `lane` in an activation buffer.
pub inline fn at(k: usize, lane: usize, groups: usize) usize {
    return ((k >> 2) * groups * group_lanes + lane) * 4 + (k & 3);
}

pub fn get(buffer: [*]const u8, k: usize, lane: usize, groups: usize) i32 {
    return @as(i8, @bitCast(buffer[at(k, lane, groups)]));
}

pub fn put(buffer: [*]u8, k: usize, lane: usize, groups: usize, value: i8) void {
    buffer[at(k, lane, groups)] = @bitCast(value);
}

pub fn signed(byte: u8) i32 {
    return @as(i8, @bitCast(byte));
}
