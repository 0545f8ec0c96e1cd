// What attention's blocks are made of: products with a tile of sums in registers, transposes, rows padded to whole vectors, and
// powers of two. Not attention itself: attention_vector.zig, attention_backward_vector.zig.
const std = @import("std");
const plan = @import("attention.zig");
const Lanes = @import("lanes.zig").Lanes;
const block = plan.block;

/// A strip of a product: to[r][c] = (add: to[r][c] * scales[r]) + sum over k < n of a[r * a_row + k * a_step] * b[k * b_row + c].
pub const Strip = struct {
    to: [*]f32,
    to_row: usize,
    a: [*]const f32,
    a_row: usize,
    a_step: usize,
    b: [*]const f32,
    b_row: usize,
    n: usize,
    add: bool,
    /// Absent: 1.
    scales: ?[*]const f32 = null,
};

/// Rows of the next strip where `rows` are left.
pub fn height(rows: usize) usize {
    return if (rows >= 6) 6 else if (rows >= 4) 4 else if (rows >= 2) 2 else 1;
}

pub fn Block(comptime lanes: comptime_int) type {
    return struct {
        pub const L = Lanes(lanes);
        pub const V = L.V;
        /// Vectors of the register tile: with 6 rows 24 of AVX-512's and NEON's 32 registers, 12 of AVX2's 16.
        const most = if (lanes == 8) 2 else 4;

        /// `rows` as `height` gives them, and that many vectors of columns.
        pub inline fn product(rows: usize, vectors: usize, strip: *const Strip) void {
            @setRuntimeSafety(false);
            var col: usize = 0;
            while (col < vectors) : (col += most) {
                switch (@min(vectors - col, most)) {
                    inline 1...most => |w| switch (rows) {
                        inline 1, 2, 4, 6 => |r| tile(r, w, strip, col * lanes),
                        else => unreachable,
                    },
                    else => unreachable,
                }
            }
        }

        noinline fn tile(comptime rows: comptime_int, comptime vectors: comptime_int, strip: *const Strip, col: usize) void {
            @setRuntimeSafety(false);
            const to = strip.to + col;
            const to_row = strip.to_row;
            const a_step = strip.a_step;
            const b_row = strip.b_row;
            const n = strip.n;
            var sums: [rows][vectors]V = @splat(@splat(L.all(0)));
            if (strip.add) {
                inline for (0..rows) |r| {
                    const scale = L.all(if (strip.scales) |scales| scales[r] else 1);
                    inline for (0..vectors) |c| sums[r][c] = L.load(to + r * to_row + c * lanes) * scale;
                }
            }
            var a: [rows][*]const f32 = undefined;
            inline for (0..rows) |r| a[r] = strip.a + r * strip.a_row;
            var b = strip.b + col;
            var at: usize = 0;
            for (0..n) |_| {
                var line: [vectors]V = undefined;
                inline for (0..vectors) |c| line[c] = L.load(b + c * lanes);
                inline for (0..rows) |r| {
                    const factor = L.all(a[r][at]);
                    inline for (0..vectors) |c| sums[r][c] = @mulAdd(V, factor, line[c], sums[r][c]);
                }
                at += a_step;
                b += b_row;
            }
            inline for (0..rows) |r| {
                inline for (0..vectors) |c| L.store(to + r * to_row + c * lanes, sums[r][c]);
            }
        }

        /// to (d, block) = factor * the transpose of `rows` rows of d; what is missing to whole vectors of rows is 0.
        pub fn transpose(to: [*]f32, from: [*]const f32, stride: usize, rows: usize, d: usize, factor: f32) void {
            @setRuntimeSafety(false);
            var r: usize = 0;
            while (r < rows) : (r += lanes) {
                var i: usize = 0;
                while (i < d) : (i += lanes) {
                    const width = @min(lanes, d - i);
                    var square: [lanes]V = undefined;
                    inline for (0..lanes) |s| {
                        const row = from + (r + s) * stride + i;
                        const line = if (r + s >= rows) L.all(0) else if (width == lanes) L.load(row) else L.loadPart(row, width, 0);
                        square[s] = line * L.all(factor);
                    }
                    turn(&square);
                    if (width == lanes) {
                        inline for (0..lanes) |s| L.store(to + (i + s) * block + r, square[s]);
                    } else {
                        for (0..width) |s| L.store(to + (i + s) * block + r, square[s]);
                    }
                }
            }
        }

        /// Transposes a square in registers: swaps its quarters, then theirs.
        inline fn turn(square: *[lanes]V) void {
            comptime var step = lanes / 2;
            inline while (step > 0) : (step /= 2) {
                comptime var low: [lanes]i32 = undefined;
                comptime var high: [lanes]i32 = undefined;
                comptime for (0..lanes) |i| {
                    low[i] = if (i & step == 0) i else ~@as(i32, i - step);
                    high[i] = if (i & step == 0) i + step else ~@as(i32, i);
                };
                inline for (0..lanes) |i| {
                    if (i & step != 0) continue;
                    const a = square[i];
                    const b = square[i + step];
                    square[i] = @shuffle(f32, a, b, low);
                    square[i + step] = @shuffle(f32, a, b, high);
                }
            }
        }

        /// Asks for rows that are read, or written, soon: they lie apart, and nothing else sees them coming.
        pub fn ask(from: [*]const f32, stride: usize, rows: usize, d: usize, comptime write: bool) void {
            @setRuntimeSafety(false);
            for (0..rows) |r| {
                var i: usize = 0;
                while (i < d) : (i += 16) @prefetch(from + r * stride + i, .{ .rw = if (write) .write else .read, .locality = 2 });
            }
        }

        /// to (rows, padded d) = rows of d, with 0 behind them. Tells whether all are finite.
        pub fn pad(to: [*]f32, from: [*]const f32, stride: usize, rows: usize, d: usize) bool {
            @setRuntimeSafety(false);
            var at = to;
            var zero = L.all(0);
            for (0..rows) |r| {
                const row = from + r * stride;
                var i: usize = 0;
                while (i + lanes <= d) : (i += lanes) {
                    const line = L.load(row + i);
                    L.store(at + i, line);
                    zero = @mulAdd(V, line, L.all(0), zero);
                }
                if (i < d) {
                    const line = L.loadPart(row + i, d - i, 0);
                    L.store(at + i, line);
                    zero = @mulAdd(V, line, L.all(0), zero);
                    i += lanes;
                }
                at += i;
            }
            return L.total(zero) == 0; // NaN where one was not
        }

        /// to (d) (=|+=) factor * from (padded d).
        pub inline fn put(to: [*]f32, from: [*]const f32, d: usize, factor: V, accumulate: bool) void {
            var i: usize = 0;
            while (i + lanes <= d) : (i += lanes) {
                const value = L.load(from + i) * factor;
                L.store(to + i, if (accumulate) L.load(to + i) + value else value);
            }
            if (i == d) return;
            const value = L.load(from + i) * factor;
            L.storePart(to + i, if (accumulate) L.loadPart(to + i, d - i, 0) + value else value, d - i);
        }

        /// 2^x to 1 unit in the last place; 0 below 2^-126, infinite from 2^128 on; NaN stays.
        pub inline fn exp2(x: V) V {
            // Added, this leaves the exponent's bits of 2^n in the low bits of the sum, n being x rounded.
            const shift = L.all(1.5 * (1 << 23) + 127);
            const capped = @select(f32, x > L.all(128), L.all(128), x);
            const shifted = capped + shift;
            const r = capped - (shifted - shift);
            // (2^r - 1) / r for |r| <= 1/2, minimax; 2^0 is 1 exactly.
            const coefficients = [_]f32{ 0.6931471824645996, 0.24022647738456726, 0.055503323674201965, 0.00961843691766262, 0.0013398875016719103, 0.00015353361959569156 };
            var value = L.all(coefficients[5]);
            inline for (.{ 4, 3, 2, 1, 0 }) |i| value = @mulAdd(V, value, r, L.all(coefficients[i]));
            value = @mulAdd(V, value, r, L.all(1));
            const power: V = @bitCast(@as(L.U, @bitCast(shifted)) << @as(L.Shift, @splat(23)));
            return @select(f32, x < L.all(-126), L.all(0), value * power);
        }
    };
}

/// Which keys of a block the queries of a block see. Both are counted from the first of their block.
pub const View = struct {
    /// Keys of the block; with `diagonal`: query i sees key j where j <= i + later - earlier.
    n: usize,
    diagonal: bool,
    later: usize,
    earlier: usize,

    pub fn init(args: anytype, first_query: usize, first_key: usize, n: usize) View {
        const causal = args.causal == 1;
        return .{ .n = n, .diagonal = causal, .later = if (causal) plan.seen(args, first_query) - 1 else 0, .earlier = first_key };
    }
    /// How many keys query i sees.
    pub inline fn keysOf(view: View, i: usize) usize {
        return if (view.diagonal) @min(view.n, (view.later + i + 1) -| view.earlier) else view.n;
    }
    /// The first query that sees key j.
    pub inline fn firstQuery(view: View, j: usize) usize {
        return if (view.diagonal) (view.earlier + j) -| view.later else 0;
    }
    /// Which of the queries from `query` on see key j.
    pub inline fn sees(view: View, comptime lanes: comptime_int, query: usize, j: usize) @Vector(lanes, bool) {
        const first: i32 = @intCast(view.firstQuery(j));
        return std.simd.iota(i32, lanes) >= @as(@Vector(lanes, i32), @splat(first - @as(i32, @intCast(query))));
    }
};
