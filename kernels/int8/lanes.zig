// SIMD words that every vector kernel is written in: loads, stores and shuffles of 64 bytes, the same on every tier.
// Not a kernel, and nothing that differs between CPUs (dot_*.zig). Read next: vector.zig.
const std = @import("std");

pub const V16 = @Vector(16, i32);
pub const U16 = @Vector(16, u32);
pub const V64 = @Vector(64, u8);
pub const S64 = @Vector(64, i8);
pub const W32 = @Vector(32, i16);
pub const Half = @Vector(32, u16);

pub inline fn load64(p: [*]const u8) V64 {
    return p[0..64].*;
}

pub inline fn store64(p: [*]u8, v: V64) void {
    @as(*align(1) V64, @ptrCast(p)).* = v;
}

pub inline fn load16(p: [*]const i32) V16 {
    return p[0..16].*;
}

pub inline fn store16(p: [*]i32, v: V16) void {
    @as(*align(1) V16, @ptrCast(p)).* = v;
}

/// Asks for a cache line that will be read soon. Lines past the end of a buffer do no harm.
pub inline fn fetch(p: anytype) void {
    @prefetch(p, .{ .rw = .read, .locality = 3, .cache = .data });
}

/// The same for what is read later: into the L2 cache.
pub inline fn fetchLater(p: anytype) void {
    @prefetch(p, .{ .rw = .read, .locality = 2, .cache = .data });
}

/// The first n bytes, n = 16, 32, 48 or 64; raw zeros behind them.
pub inline fn loadPart(p: anytype, n: usize) V64 {
    const bytes: [*]const u8 = @ptrCast(p);
    if (n == 64) return load64(bytes);
    var part: [64]u8 = @splat(0);
    @memcpy(part[0..n], bytes[0..n]);
    return part;
}

pub inline fn storePart(p: [*]u8, v: V64, n: usize) void {
    if (n == 64) return store64(p, v);
    const part: [64]u8 = v;
    @memcpy(p[0..n], part[0..n]);
}

/// Lane i of the result is the sum of vectors[i]'s lanes: four rounds of adding neighbours.
pub inline fn sumEach(vectors: [16]V16) V16 {
    var level = vectors;
    inline for (.{ 1, 2, 4, 8 }) |distance| {
        inline for (0..8 / distance) |i| {
            const first, const second = .{ level[2 * i], level[2 * i + 1] };
            level[i] = @shuffle(i32, first, second, neighbours(distance, 0)) +% @shuffle(i32, first, second, neighbours(distance, distance));
        }
    }
    return level[0];
}

/// Lanes `shift`, ... of runs of `distance` lanes of the first vector, then of the second, in turn.
fn neighbours(comptime distance: i32, comptime shift: i32) @Vector(16, i32) {
    var indices: [16]i32 = undefined;
    for (&indices, 0..) |*index, lane| {
        const l: i32 = @intCast(lane);
        const from = @divTrunc(l, 2 * distance) * 2 * distance + @mod(l, distance) + shift;
        index.* = if (@mod(@divTrunc(l, distance), 2) == 0) from else ~from;
    }
    return indices;
}

/// Four consecutive int8 as one 32-bit word.
pub inline fn quad(p: anytype) u32 {
    return @as(*align(1) const u32, @ptrCast(p)).*;
}

pub inline fn splat64(word: u32) V64 {
    return @bitCast(@as(U16, @splat(word)));
}

/// Even bytes, sign-extended to 16 bits: one member's pair of inputs stays in its 32-bit lane.
pub inline fn even(v: S64) W32 {
    return (@as(W32, @bitCast(v)) << @splat(8)) >> @splat(8);
}

pub inline fn odd(v: S64) W32 {
    return @as(W32, @bitCast(v)) >> @splat(8);
}

/// The low bytes of `e` and `o`, interleaved again.
pub inline fn join(e: Half, o: Half) V64 {
    return @bitCast((e & @as(Half, @splat(0xff))) | (o << @splat(8)));
}

pub inline fn mulHighSigned(a: W32, b: W32) W32 {
    const wide = @as(@Vector(32, i32), a) * @as(@Vector(32, i32), b);
    return @truncate(wide >> @splat(16));
}

pub inline fn clippedAdd(a: S64, b: S64) S64 {
    return @max(a +| b, @as(S64, @splat(-127)));
}

/// Reciprocals of 1..127: n div m = mulHigh(mulHigh(4n, magic), factor), exact for n <= 16129. With s = floor(log2 m):
/// magic = ceil(2^(15+s) / m), factor = 2^(15-s). The proof is in kernels/README.md. Both words of a lane hold the same.
const Reciprocal = struct { magic: u32, factor: u32 };
pub const reciprocals: [128]Reciprocal = blk: {
    var values: [128]Reciprocal = undefined;
    values[0] = .{ .magic = 0, .factor = 0 };
    for (values[1..], 1..) |*value, m| {
        const s = std.math.log2_int(u32, m);
        const magic = ((1 << (15 + s)) + m - 1) / m;
        value.* = .{ .magic = magic | magic << 16, .factor = (1 << (15 - s)) | (1 << (31 - s)) };
    }
    break :blk values;
};

/// Division of sums by a root of 3 to 127 that is no power of two, in lanes of 16 bits and of 32. Quotients round down; those beyond -128
/// and 127 come out at or beyond these. Why it is exact: kernels/README.md.
pub const Root = struct {
    /// 128 roots: what makes every quotient of -128 and more positive.
    offset: i16,
    /// ceil(2^(16 + shift) / root), with shift = floor(log2 root).
    magic: u16,
    shift: u4,

    pub inline fn init(root: u32) Root {
        const shift: u4 = @intCast(31 - @clz(root));
        return .{ .offset = @intCast(128 * root), .magic = @intCast(((@as(u32, 1 << 16) << shift) + root - 1) / root), .shift = shift };
    }

    /// `mulHigh` is the high half of a product of unsigned 16-bit lanes.
    pub inline fn divide16(by: Root, comptime n: u32, v: @Vector(n, i16), comptime mulHigh: anytype) @Vector(n, i16) {
        const shifted: @Vector(n, i16) = @max(v +| @as(@Vector(n, i16), @splat(by.offset)), @as(@Vector(n, i16), @splat(0)));
        const quotient = mulHigh(@as(@Vector(n, u16), @bitCast(shifted)), @as(@Vector(n, u16), @splat(by.magic))) >> @splat(by.shift);
        return @as(@Vector(n, i16), @bitCast(quotient)) -% @as(@Vector(n, i16), @splat(128));
    }

    pub inline fn divide32(by: Root, v: V16) V16 {
        const most: V16 = @splat(2 * @as(i32, by.offset) - 1);
        const shifted: V16 = @max(@as(V16, @min(v +% @as(V16, @splat(by.offset)), most)), @as(V16, @splat(0)));
        const wide: U16 = @as(U16, @bitCast(shifted)) *% @as(U16, @splat(by.magic));
        return @as(V16, @bitCast(wide >> @splat(@as(u5, by.shift) + 16))) -% @as(V16, @splat(128));
    }
};

/// Rows become columns, in four rounds of interleaving halves.
pub inline fn transpose16(block: *[16]U16) void {
    inline for (0..4) |_| {
        const before = block.*;
        inline for (0..8) |i| {
            block[2 * i] = @shuffle(u32, before[i], before[i + 8], interleave(0));
            block[2 * i + 1] = @shuffle(u32, before[i], before[i + 8], interleave(8));
        }
    }
}

fn interleave(from: i32) @Vector(16, i32) {
    var indices: [16]i32 = undefined;
    for (0..8) |i| {
        indices[2 * i] = from + @as(i32, @intCast(i));
        indices[2 * i + 1] = ~(from + @as(i32, @intCast(i)));
    }
    return indices;
}
