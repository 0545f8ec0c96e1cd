// Copies blocks of A and B into the order in which the matrix product reads them, from f32 or bf16, transposed or not.
// Not the product: gemm_vector.zig. Read next: gemm.zig (which blocks).
//
// A packed panel is `width` rows of op(A) or columns of op(B), as [unit][width] of 32-bit units: one f32, or, for the dot
// products of bf16 (`pairs`), two bf16 that follow each other along k. What lies past the matrix is packed as 0.
const std = @import("std");

/// What the elements are and become: f32 as it is, f32 rounded to bf16, bf16, i8 times its row's scale.
pub const Kind = enum {
    f32,
    rounded,
    bf16,
    i8,

    pub fn bytes(kind: Kind) usize {
        return switch (kind) {
            .i8 => 1,
            .bf16 => 2,
            .f32, .rounded => 4,
        };
    }
};

/// A matrix by its steps in elements: `across` from one row of op(A) or column of op(B) to the next, `along` k. One is 1.
pub const Source = struct {
    address: usize,
    across: usize,
    along: usize,
    kind: Kind,
    /// Of i8: a factor for each row or column.
    scales: ?[*]const f32 = null,

    fn element(source: Source) usize {
        return source.kind.bytes();
    }
};

/// Rounds f32, given as bits, to the nearest bf16, ties to even; NaN stays NaN. The low half becomes 0.
pub fn roundBits(comptime n: comptime_int, x: @Vector(n, u32)) @Vector(n, u32) {
    const U = @Vector(n, u32);
    const one: U = @splat(1);
    const sixteen: @Vector(n, u5) = @splat(16);
    const rounded = x +% @as(U, @splat(0x7fff)) +% ((x >> sixteen) & one);
    const nan = (x & @as(U, @splat(0x7fff_ffff))) > @as(U, @splat(0x7f80_0000));
    return @select(u32, nan, x | @as(U, @splat(0x0040_0000)), rounded) & @as(U, @splat(0xffff_0000));
}

/// The first `count` of n values, the rest 0.
pub fn some(comptime T: type, comptime n: comptime_int, from: [*]align(1) const T, count: usize) @Vector(n, T) {
    if (count >= n) return @as(*align(1) const @Vector(n, T), @ptrCast(from)).*;
    var values: [n]T = @splat(0);
    for (values[0..count], from) |*value, x| value.* = x;
    return values;
}

/// Transposes n vectors of n values: log2 n rounds of riffling the first half with the second.
fn transpose(comptime n: comptime_int, rows: *[n]@Vector(n, u32)) void {
    const low: @Vector(n, i32) = comptime riffle(n, 0);
    const high: @Vector(n, i32) = comptime riffle(n, n / 2);
    comptime var round = 1;
    inline while (round < n) : (round *= 2) {
        var next: [n]@Vector(n, u32) = undefined;
        inline for (0..n / 2) |i| {
            next[2 * i] = @shuffle(u32, rows[i], rows[i + n / 2], low);
            next[2 * i + 1] = @shuffle(u32, rows[i], rows[i + n / 2], high);
        }
        rows.* = next;
    }
}

fn riffle(comptime n: comptime_int, comptime first: i32) [n]i32 {
    var mask: [n]i32 = undefined;
    for (0..n) |i| mask[i] = if (i % 2 == 0) first + @as(i32, i / 2) else ~(first + @as(i32, i / 2));
    return mask;
}

pub fn Packing(comptime pairs: bool) type {
    return struct {
        pub const per = if (pairs) 2 else 1;
        /// Units of k between what is packed and what is asked for.
        const ahead = 12;

        /// Units of `depth` elements along k.
        pub fn units(depth: usize) usize {
            return (depth + per - 1) / per;
        }

        /// Packs `count` rows of op(A) from `first` on, `depth` of k from k0 on, n a panel, from a matrix that lies across them.
        pub noinline fn pack(comptime n: comptime_int, to: [*]u32, stride: usize, source: Source, first: usize, count: usize, k0: usize, depth: usize) void {
            switch (source.kind) {
                inline else => |kind| {
                    if (kind == .i8 or (kind == .rounded and pairs)) unreachable; // pairs are bf16 anyway, and A is not i8
                    const address = source.address + (first * source.across + k0 * source.along) * source.element();
                    across(n, kind, to, stride, address, source.along * source.element(), count, depth);
                },
            }
        }

        /// Rows of op(A) that lie along k, as they lie: (count, units).
        pub noinline fn packRows(comptime n: comptime_int, to: [*]u32, source: Source, first: usize, count: usize, k0: usize, depth: usize) void {
            switch (source.kind) {
                inline else => |kind| {
                    if (kind == .i8 or (kind == .rounded and pairs)) unreachable;
                    const size = source.element();
                    const length = units(depth);
                    for (0..count) |i| {
                        const at = source.address + ((first + i) * source.across + k0) * size;
                        const out = to + i * length;
                        var unit: usize = 0;
                        while (unit < length) : (unit += n) {
                            const line = lengthways(n, kind, at + unit * per * size, depth - unit * per);
                            if (length - unit >= n) {
                                store(n, out + unit, line);
                            } else {
                                const array: [n]u32 = line;
                                for (array[0 .. length - unit], out + unit) |value, *there| there.* = value;
                            }
                        }
                    }
                },
            }
        }

        /// As `pack`, into panels of several vectors: those from `panel` to `end`; `panels` tells how many vectors each has.
        pub noinline fn packWide(comptime n: comptime_int, to: [*]u32, source: Source, first: usize, count: usize, k0: usize, depth: usize, panels: anytype, panel: usize, end: usize) void {
            switch (source.kind) {
                inline else => |kind| {
                    if ((kind == .rounded or kind == .i8) and pairs) unreachable;
                    const size = source.element();
                    const address = source.address + (first * source.across + k0 * source.along) * size;
                    const rows = units(depth);
                    if (source.across == 1) {
                        for (panel..end) |p| {
                            const begin = panels.begin(p) * n;
                            const left = count - begin;
                            const out = to + begin * rows;
                            switch (panels.width(p)) {
                                inline 1, 2, 3 => |width| {
                                    const at = address + begin * size;
                                    const row = source.along * size;
                                    if (left >= width * n) rowsOf(n, width, kind, out, at, row, width * n, depth) else rowsOf(n, width, kind, out, at, row, left, depth);
                                },
                                else => unreachable,
                            }
                        }
                    } else {
                        for (panel..end) |p| {
                            const width = panels.width(p);
                            const begin = panels.begin(p);
                            for (0..width) |v| {
                                const col = (begin + v) * n;
                                const at = address + col * source.across * size;
                                const scales = if (kind == .i8) some(f32, n, source.scales.? + first + col, count - col) else {};
                                along(n, kind, to + begin * n * rows + v * n, width * n, at, source.across * size, count - col, depth, scales);
                            }
                        }
                    }
                },
            }
        }

        /// One panel of `width` vectors from a matrix whose rows lie along the panel.
        inline fn rowsOf(comptime n: comptime_int, comptime width: comptime_int, comptime kind: Kind, to: [*]u32, address: usize, row: usize, left: usize, depth: usize) void {
            const size = comptime kind.bytes();
            for (0..units(depth)) |unit| {
                const second = pairs and 2 * unit + 1 < depth;
                const at = address + unit * per * row;
                inline for (0..per) |i| {
                    // The rows lie far apart: nothing else asks for them in time.
                    inline for (0..(width * n * size + 63) / 64) |line| @prefetch(@as([*]const u8, @ptrFromInt(at + (ahead * per + i) * row + line * 64)), .{});
                }
                inline for (0..width) |v| store(n, to + (unit * width + v) * n, sideways(n, kind, at + v * n * size, row, second, left - @min(left, v * n)));
            }
        }

        /// Panels of n from a matrix whose rows lie along the panel: rows of k are read whole, and dealt out.
        fn across(comptime n: comptime_int, comptime kind: Kind, to: [*]u32, stride: usize, address: usize, row: usize, count: usize, depth: usize) void {
            const size = comptime kind.bytes();
            for (0..units(depth)) |unit| {
                const second = pairs and 2 * unit + 1 < depth;
                const at = address + unit * per * row;
                // The rows lie far apart: nothing else asks for them in time.
                var line: usize = 0;
                while (line < count * size) : (line += 64) {
                    inline for (0..per) |i| @prefetch(@as([*]const u8, @ptrFromInt(at + (ahead * per + i) * row + line)), .{});
                }
                var panel: usize = 0;
                while ((panel + 1) * n <= count) : (panel += 1) store(n, to + panel * stride + unit * n, sideways(n, kind, at + panel * n * size, row, second, n));
                if (panel * n < count) store(n, to + panel * stride + unit * n, sideways(n, kind, at + panel * n * size, row, second, count - panel * n));
            }
        }

        /// One panel of n, or n columns of one, from a matrix whose rows lie along k: squares are transposed.
        fn along(comptime n: comptime_int, comptime kind: Kind, to: [*]u32, step: usize, address: usize, row: usize, count: usize, depth: usize, scales: if (kind == .i8) @Vector(n, f32) else void) void {
            const size = comptime kind.bytes();
            const rows = units(depth);
            var unit: usize = 0;
            while (unit < rows) : (unit += n) {
                var square: [n]@Vector(n, u32) = undefined;
                const at = address + unit * per * size;
                const left = depth - unit * per;
                if (count >= n and left >= n * per) {
                    // Some lines on in each row; where the rows end, the first ones of the next n.
                    const soon = at + 6 * 64 + if (left * size > 6 * 64) 0 else n * row - depth * size;
                    inline for (0..n) |i| @prefetch(@as([*]const u8, @ptrFromInt(soon + i * row)), .{});
                    inline for (0..n) |i| square[i] = lengthways(n, kind, at + i * row, n * per);
                } else {
                    for (&square, 0..) |*line, i| line.* = if (i < count) lengthways(n, kind, at + i * row, left) else @splat(0);
                }
                transpose(n, &square);
                if (kind == .i8) {
                    inline for (&square) |*line| line.* = @bitCast(@as(@Vector(n, f32), @bitCast(line.*)) * scales);
                }
                const out = to + unit * step;
                if (rows - unit >= n) {
                    inline for (0..n) |i| store(n, out + i * step, square[i]);
                } else {
                    for (square[0 .. rows - unit], 0..) |line, i| store(n, out + i * step, line);
                }
            }
        }

        /// n units along k, of which `left` elements are there.
        inline fn lengthways(comptime n: comptime_int, comptime kind: Kind, address: usize, left: usize) @Vector(n, u32) {
            if (!pairs) return one(n, kind, address, left);
            if (kind == .i8) unreachable;
            if (kind == .bf16) {
                const both = some(u16, 2 * n, @ptrFromInt(address), left);
                return @bitCast(both);
            }
            const first: @Vector(n, u32) = some(u32, n, @ptrFromInt(address), left);
            const then: @Vector(n, u32) = some(u32, n, @ptrFromInt(address + 4 * n), left -| n);
            const even = comptime pick(n, 0);
            const odd = comptime pick(n, 1);
            return joined(n, roundBits(n, @shuffle(u32, first, then, even)), roundBits(n, @shuffle(u32, first, then, odd)));
        }

        /// n units next to each other, of which `left` are there; `second`: there is another row for the pairs.
        inline fn sideways(comptime n: comptime_int, comptime kind: Kind, address: usize, row: usize, second: bool, left: usize) @Vector(n, u32) {
            const low = one(n, if (pairs and kind == .f32) .rounded else kind, address, left);
            if (!pairs) return low;
            const high: @Vector(n, u32) = if (second) one(n, if (kind == .f32) .rounded else kind, address + row, left) else @splat(0);
            return joined(n, low, high);
        }

        /// n elements as the bits of f32.
        inline fn one(comptime n: comptime_int, comptime kind: Kind, address: usize, left: usize) @Vector(n, u32) {
            if (kind == .bf16) return @as(@Vector(n, u32), some(u16, n, @ptrFromInt(address), left)) << @splat(16);
            if (kind == .i8) return @bitCast(@as(@Vector(n, f32), @floatFromInt(some(i8, n, @ptrFromInt(address), left))));
            const x = some(u32, n, @ptrFromInt(address), left);
            return if (kind == .rounded) roundBits(n, x) else x;
        }

        inline fn joined(comptime n: comptime_int, low: @Vector(n, u32), high: @Vector(n, u32)) @Vector(n, u32) {
            return (low >> @as(@Vector(n, u5), @splat(16))) | high;
        }

        inline fn store(comptime n: comptime_int, to: [*]u32, values: @Vector(n, u32)) void {
            @as(*align(4) @Vector(n, u32), @ptrCast(to)).* = values;
        }
    };
}

fn pick(comptime n: comptime_int, comptime first: i32) @Vector(n, i32) {
    var mask: [n]i32 = undefined;
    for (0..n) |i| {
        const at = first + 2 * @as(i32, i);
        mask[i] = if (at < n) at else ~(at - n);
    }
    return mask;
}
