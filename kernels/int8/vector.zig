// The int8 kernels in SIMD: members in lanes, one source for every tier. `dot` brings the few instructions that differ
// (dot_avx512vnni.zig and its like). Meaning and arguments: ops.zig. Oracle: scalar.zig. Bit for bit the same.
const std = @import("std");
const builtin = @import("builtin");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const scalar = @import("scalar.zig");

const pair_lanes = layout.pair_lanes;
const group_lanes = layout.group_lanes;

const V16 = @Vector(16, i32);
const U16 = @Vector(16, u32);
const V64 = @Vector(64, u8);
const S64 = @Vector(64, i8);
const W32 = @Vector(32, i16);
const Half = @Vector(32, u16);

/// Largest magnitude of a noise value.
const noise_max = 31;
/// Groups of the widest panel.
const max_groups = layout.max_groups;

inline fn load64(p: [*]const u8) V64 {
    return p[0..64].*;
}

inline fn store64(p: [*]u8, v: V64) void {
    @as(*align(1) V64, @ptrCast(p)).* = v;
}

inline fn load16(p: [*]const i32) V16 {
    return p[0..16].*;
}

inline fn store16(p: [*]i32, v: V16) void {
    @as(*align(1) V16, @ptrCast(p)).* = v;
}

/// Asks for a cache line that will be read soon. Lines past the end of a buffer do no harm.
inline fn fetch(p: anytype) void {
    @prefetch(p, .{ .rw = .read, .locality = 3, .cache = .data });
}

/// The first n bytes, n = 16, 32, 48 or 64; raw zeros behind them.
inline fn loadPart(p: anytype, n: usize) V64 {
    const bytes: [*]const u8 = @ptrCast(p);
    if (n == 64) return load64(bytes);
    var part: [64]u8 = @splat(0);
    @memcpy(part[0..n], bytes[0..n]);
    return part;
}

inline fn storePart(p: [*]u8, v: V64, n: usize) void {
    if (n == 64) return store64(p, v);
    const part: [64]u8 = v;
    @memcpy(p[0..n], part[0..n]);
}

/// Lane i of the result is the sum of vectors[i]'s lanes: four rounds of adding neighbours.
inline fn sumEach(vectors: [16]V16) V16 {
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
inline fn quad(p: anytype) u32 {
    return @as(*align(1) const u32, @ptrCast(p)).*;
}

inline fn splat64(word: u32) V64 {
    return @bitCast(@as(U16, @splat(word)));
}

/// Even bytes, sign-extended to 16 bits: one member's pair of inputs stays in its 32-bit lane.
inline fn even(v: S64) W32 {
    return (@as(W32, @bitCast(v)) << @splat(8)) >> @splat(8);
}

inline fn odd(v: S64) W32 {
    return @as(W32, @bitCast(v)) >> @splat(8);
}

/// The low bytes of `e` and `o`, interleaved again.
inline fn join(e: Half, o: Half) V64 {
    return @bitCast((e & @as(Half, @splat(0xff))) | (o << @splat(8)));
}

inline fn mulHighSigned(a: W32, b: W32) W32 {
    const wide = @as(@Vector(32, i32), a) * @as(@Vector(32, i32), b);
    return @truncate(wide >> @splat(16));
}

inline fn clippedAdd(a: S64, b: S64) S64 {
    return @max(a +| b, @as(S64, @splat(-127)));
}

/// Reciprocals of 1..127: n div m = mulHigh(mulHigh(4n, magic), factor), exact for n <= 16129. With s = floor(log2 m):
/// magic = ceil(2^(15+s) / m), factor = 2^(15-s). The proof is in kernels/README.md. Both words of a lane hold the same.
const Reciprocal = struct { magic: u32, factor: u32 };
const reciprocals: [128]Reciprocal = blk: {
    var values: [128]Reciprocal = undefined;
    values[0] = .{ .magic = 0, .factor = 0 };
    for (values[1..], 1..) |*value, m| {
        const s = std.math.log2_int(u32, m);
        const magic = ((1 << (15 + s)) + m - 1) / m;
        value.* = .{ .magic = magic | magic << 16, .factor = (1 << (15 - s)) | (1 << (31 - s)) };
    }
    break :blk values;
};

pub fn Kernels(comptime dot: type) type {
    return struct {
        pub const table: ops.Table = .{
            .bias = dot.bias,
            .embed = &embed,
            .matmul = &matmul,
            .noise_dot = &noiseDot,
            .layer_norm = &layerNorm,
            .forget_gate = &forgetGate,
            .state_update = &stateUpdate,
            .add = &add,
            .loss = &loss,
            .noise_fill = &noiseFill,
            .update = &update,
            .rows_matmul = &rowsMatmul,
            .rows_noise_dot = &rowsNoiseDot,
            .rows_layer_norm = &rowsLayerNorm,
            .row_forget_gate = &rowForgetGate,
            .row_state_update = &rowStateUpdate,
            .rows_loss = &rowsLoss,
        };

        const bias64: V64 = @splat(dot.bias);

        inline fn signed(v: V64) S64 {
            return @bitCast(v ^ bias64);
        }

        inline fn stored(v: S64) V64 {
            return @as(V64, @bitCast(v)) ^ bias64;
        }

        fn embed(op: *const ops.Embed) callconv(.c) void {
            const lanes = @as(usize, op.groups) * group_lanes;
            const words = op.width / 4;
            const bias_words: U16 = @bitCast(bias64);
            const out: [*]align(1) u32 = @ptrCast(op.out);
            var first: usize = 0;
            while (first < lanes) : (first += 16) {
                var rows: [16][*]align(1) const u32 = undefined;
                for (&rows, op.tokens[first..][0..16]) |*row, token| row.* = @ptrCast(op.embedding + @as(usize, token) * op.width);
                // 16 x 16 words at a time through registers; the last words one by one.
                var w: usize = 0;
                while (w + 16 <= words) : (w += 16) {
                    var block: [16]U16 = undefined;
                    inline for (&block, rows) |*line, row| line.* = row[w..][0..16].*;
                    transpose16(&block);
                    inline for (block, 0..) |line, i| out[(w + i) * lanes + first ..][0..16].* = line ^ bias_words;
                }
                while (w < words) : (w += 1) {
                    for (rows, 0..) |row, i| out[w * lanes + first + i] = row[w] ^ bias_words[0];
                }
            }
        }

        /// Rows become columns, in four rounds of interleaving halves.
        inline fn transpose16(block: *[16]U16) void {
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

        fn matmul(op: *const ops.Matmul) callconv(.c) void {
            if (op.perturbed == 0) return shaped(.clean, op);
            if (dot.has_dot16 and fitsNarrow(op)) {
                var narrow = op.*;
                var dots_memory: [max_groups * group_lanes]i32 align(64) = undefined;
                const dots: [*]i32 = &dots_memory;
                for (0..2 * op.groups) |v| store16(dots + v * 16, halves(load16(op.dots + v * 16)));
                narrow.dots = dots;
                return shaped(.narrow, &narrow);
            }
            shaped(.wide, op);
        }

        /// How the rank-one term is added: not at all, in the same 32 bits as the products, or after its own shift.
        const Term = enum { clean, narrow, wide };

        fn shaped(comptime term: Term, op: *const ops.Matmul) void {
            const wide = dot.wide_tile;
            if (op.groups * 2 % wide.vectors == 0) return tiles(term, wide.rows, wide.vectors, op);
            tiles(term, dot.narrow_tile.rows, dot.narrow_tile.vectors, op);
        }

        fn tiles(comptime term: Term, comptime rows: u32, comptime vectors: u32, op: *const ops.Matmul) void {
            @setEvalBranchQuota(4000);
            const x = if (dot.expands) expandInputs(op) else op.x;
            var row: u32 = 0;
            while (row < op.rows) : (row += rows) {
                const weights: [*]const u8 = if (dot.expands) expandRows(rows, op, row) else @ptrCast(op.weights + @as(usize, row) * op.cols);
                var vector: u32 = 0;
                while (vector < op.groups * 2) : (vector += vectors) tile(term, rows, vectors, op, x, weights, row, vector);
            }
        }

        /// Words that one lane's four inputs take: 1 as bytes, 2 as 16-bit pairs (k, k + 2) and (k + 1, k + 3).
        const words_per_quad = if (dot.expands) 2 else 1;

        /// All inputs as pairs of 16 bits, in the scratch: [cols/4][2][lanes][2].
        fn expandInputs(op: *const ops.Matmul) [*]const u8 {
            const vectors = @as(usize, op.groups) * 2;
            const out = op.scratch;
            for (0..op.cols / 4) |q| {
                for (0..vectors) |v| {
                    const x = signed(load64(op.x + (q * vectors + v) * 64));
                    store64(out + (2 * q * vectors + v) * 64, @bitCast(even(x)));
                    store64(out + ((2 * q + 1) * vectors + v) * 64, @bitCast(odd(x)));
                }
            }
            return out;
        }

        /// `rows` rows of weights as pairs of 16 bits, behind the inputs in the scratch: [rows][cols/4][2][2].
        fn expandRows(comptime rows: u32, op: *const ops.Matmul, row: usize) [*]const u8 {
            const out = op.scratch + 2 * layout.activationBytes(op.cols, op.groups);
            for (0..rows) |r| {
                const source: [*]const i8 = op.weights + (row + r) * op.cols;
                fetch(source + rows * op.cols);
                var k: usize = 0;
                while (k < op.cols) : (k += 16) {
                    if (k & 63 == 0) fetch(source + rows * op.cols + k);
                    const w: @Vector(8, i16) = @bitCast(@as(@Vector(16, i8), source[k..][0..16].*));
                    const evens: @Vector(4, i32) = @bitCast((w << @splat(8)) >> @splat(8));
                    const odds: @Vector(4, i32) = @bitCast(w >> @splat(8));
                    const both: *align(1) @Vector(8, i32) = @ptrCast(out + (r * op.cols + k) * 2);
                    both.* = @shuffle(i32, evens, odds, [8]i32{ 0, ~@as(i32, 0), 1, ~@as(i32, 1), 2, ~@as(i32, 2), 3, ~@as(i32, 3) });
                }
            }
            return out;
        }

        /// `rows` x `vectors` sums in registers over all inputs, then the rank-one term, the shift and the clip.
        inline fn tile(
            comptime term: Term,
            comptime rows: u32,
            comptime vectors: u32,
            op: *const ops.Matmul,
            inputs: [*]const u8,
            weights: [*]const u8,
            row: usize,
            vector: usize,
        ) void {
            const lane_bytes = @as(usize, op.groups) * group_lanes * 4;
            const row_bytes = @as(usize, op.cols) * words_per_quad;
            var acc: [rows][vectors]V16 = undefined;
            inline for (0..rows) |r| {
                const start: V16 = if (dot.bias == 0) @splat(0) else @splat(op.offsets[row + r]);
                inline for (0..vectors) |v| acc[r][v] = start;
            }
            var x = inputs + vector * 64;
            var k: usize = 0;
            while (k < row_bytes) : (k += 16 * words_per_quad) {
                // The next rows' weights come from L2 or L3: ask for them while these rows are used the first time.
                if (!dot.expands and vector == 0 and k & 63 == 0) inline for (0..rows) |r| fetch(weights + (rows + r) * row_bytes + k);
                inline for (0..4 * words_per_quad) |q| {
                    var lanes: [vectors]V16 = undefined;
                    inline for (0..vectors) |v| lanes[v] = @bitCast(load64(x + v * 64));
                    inline for (0..rows) |r| {
                        const w: V16 = @splat(@bitCast(quad(weights + r * row_bytes + k + q * 4)));
                        inline for (0..vectors) |v| acc[r][v] = if (dot.expands) dot.dot16(acc[r][v], lanes[v], w) else dot.dot(acc[r][v], lanes[v], w);
                    }
                    x += lane_bytes;
                }
            }
            const shift: @Vector(16, u5) = @splat(@intCast(if (term == .narrow) op.shift + op.perturb_shift else op.shift));
            const scale: @Vector(16, u5) = @splat(@intCast(op.perturb_shift));
            if (term != .clean) inline for (0..vectors) |v| {
                const a = op.a + (vector + v) / 2 * op.a_stride + row * pair_lanes;
                const dots = load16(op.dots + (vector + v) * 16);
                fetch(a + 2 * rows * pair_lanes);
                inline for (0..rows) |r| {
                    const factor: V16 = @as(@Vector(16, i8), a[r * pair_lanes ..][0..pair_lanes].*);
                    if (term == .narrow) {
                        // A for the dot's low byte, A * 256 for the rest.
                        const both = (factor & @as(V16, @splat(0xffff))) | factor << @splat(24);
                        acc[r][v] = dot.dot16(acc[r][v] << scale, dots, both);
                    } else {
                        acc[r][v] +%= (dots *% factor) >> scale;
                    }
                }
            };
            inline for (0..rows / 4) |r4| {
                inline for (0..vectors) |v| {
                    const packed_rows: S64 = @bitCast(dot.pack4(
                        acc[4 * r4][v] >> shift,
                        acc[4 * r4 + 1][v] >> shift,
                        acc[4 * r4 + 2][v] >> shift,
                        acc[4 * r4 + 3][v] >> shift,
                    ));
                    store64(op.out + (row / 4 + r4) * lane_bytes + (vector + v) * 64, stored(@max(packed_rows, @as(S64, @splat(-127)))));
                }
            }
        }

        /// Whether the sum of products fits 32 bits when scaled by 2^s, and the rank-one factors 16: then
        /// floor((sum + floor(dot * A / 2^s)) / 2^q) = floor((sum * 2^s + dot * A) / 2^(s+q)). Where the last
        /// addition saturates, it need not fit: such a value is clipped to the same side in any case.
        fn fitsNarrow(op: *const ops.Matmul) bool {
            const products = @as(u64, op.cols) * 127 * 127 << @intCast(op.perturb_shift);
            const rank_one = if (dot.dot16_saturates) 0 else @as(u64, op.cols) * 127 * noise_max * noise_max;
            const high = @as(u64, op.cols) * 127 * noise_max >> 8;
            return products + rank_one < 1 << 31 and high < 1 << 15 and op.shift + op.perturb_shift <= 24;
        }

        /// A dot as two 16-bit factors: its low byte, unsigned, in the low half; the rest in the high half.
        inline fn halves(dots: V16) V16 {
            return (dots & @as(V16, @splat(0xff))) | (dots >> @splat(8)) << @splat(16);
        }

        fn noiseDot(op: *const ops.NoiseDot) callconv(.c) void {
            const stride = @as(usize, op.groups) * group_lanes * 4;
            for (0..op.groups) |group| {
                const b: [*]const u8 = @ptrCast(op.b + group * op.b_stride);
                const sums: [*]align(1) const i32 = @ptrCast(@as([*]const u8, @ptrCast(op.b_sums)) + group * op.b_stride);
                const start: V16 = if (dot.bias == 0) @splat(0) else @as(V16, sums[0..16].*) *% @as(V16, @splat(-@as(i32, dot.bias)));
                // Two sums a side: the dot product's latency is longer than one input's work.
                var plus = [2]V16{ start, @splat(0) };
                var minus = [2]V16{ start, @splat(0) };
                const x = op.x + group * group_lanes * 4;
                var q: usize = 0;
                while (q < op.cols / 4) : (q += 2) {
                    inline for (0..2) |u| {
                        // A population's noise outgrows the L2 cache; each line is read once a token.
                        fetch(b + (q + u + 16) * 64);
                        const factors: V16 = @bitCast(load64(b + (q + u) * 64));
                        plus[u] = dot.dot(plus[u], @bitCast(load64(x + (q + u) * stride)), factors);
                        minus[u] = dot.dot(minus[u], @bitCast(load64(x + (q + u) * stride + 64)), factors);
                    }
                }
                store16(op.dots + group * group_lanes, plus[0] +% plus[1]);
                store16(op.dots + group * group_lanes + pair_lanes, -%(minus[0] +% minus[1]));
            }
        }

        fn layerNorm(op: *const ops.LayerNorm) callconv(.c) void {
            switch (op.groups) {
                inline 1...max_groups => |groups| layerNormOf(2 * groups, op),
                else => unreachable,
            }
        }

        inline fn layerNormOf(comptime vectors: usize, op: *const ops.LayerNorm) void {
            const words = @as(usize, op.width) / 4;
            const ones: V16 = @splat(0x01010101);
            var sums: [vectors]V16 = @splat(@splat(0));
            for (0..words) |w| {
                inline for (0..vectors) |v| {
                    const x = signed(load64(op.x + (w * vectors + v) * 64));
                    sums[v] = dot.dot(sums[v], @bitCast(@abs(x)), ones);
                }
            }
            // (sum * inverse) >> 32 = sum div width: exact while sum * width < 2^32, that is 127 * width^2 < 2^32.
            const inverse = ((@as(u64, 1) << 32) + op.width - 1) / op.width;
            var magic: [vectors]Half = undefined;
            var factor: [vectors]Half = undefined;
            for (sums, &magic, &factor) |sum, *magics, *factors| {
                const wide = @as(@Vector(16, u64), @as(U16, @bitCast(sum))) *% @as(@Vector(16, u64), @splat(inverse));
                const means: [16]u32 = @max(@as(U16, @truncate(wide >> @splat(32))), @as(U16, @splat(1)));
                for (means, @as(*[16]u32, @ptrCast(magics)), @as(*[16]u32, @ptrCast(factors))) |mean, *m, *f| {
                    m.* = reciprocals[mean].magic;
                    f.* = reciprocals[mean].factor;
                }
            }
            const low: Half = @splat(0xff);
            for (0..words) |w| {
                const weight: S64 = @bitCast(splat64(quad(op.weight + w * 4)));
                const size: Half = @bitCast(@as(V64, @abs(weight)));
                const size4 = [2]Half{ (size & low) << @splat(2), (size >> @splat(8)) << @splat(2) };
                inline for (0..vectors) |v| {
                    const at = (w * vectors + v) * 64;
                    const x = signed(load64(op.x + at));
                    store64(op.out + at, stored(normBlock(x, weight, size4, magic[v], factor[v])));
                }
            }
        }

        /// clip(trunc(x * weight / m)), with |weight| * 4 in even and odd bytes and the reciprocal of m.
        inline fn normBlock(x: S64, weight: S64, size4: [2]Half, magic: Half, factor: Half) S64 {
            const magnitude: Half = @bitCast(@as(V64, @abs(x)));
            const q = [2]Half{
                dot.mulHigh(dot.mulHigh((magnitude & @as(Half, @splat(0xff))) *% size4[0], magic), factor),
                dot.mulHigh(dot.mulHigh((magnitude >> @splat(8)) *% size4[1], magic), factor),
            };
            const y: S64 = @bitCast(atMost127(q[0]) | atMost127(q[1]) << @splat(8));
            const sign = (x ^ weight) >> @splat(7);
            return (y ^ sign) -% sign;
        }

        inline fn atMost127(q: Half) Half {
            return @min(q, @as(Half, @splat(127)));
        }

        fn forgetGate(op: *const ops.ForgetGate) callconv(.c) void {
            const vectors = @as(usize, op.groups) * 2;
            for (0..op.width / 4) |w| {
                const shift: S64 = @bitCast(splat64(quad(op.bias + w * 4)));
                for (0..vectors) |v| {
                    const at = (w * vectors + v) * 64;
                    const f, const g = forgetBlock(load64(op.a + at), load64(op.b + at), shift, load64(op.h + at));
                    store64(op.f + at, f);
                    store64(op.g + at, g);
                }
            }
        }

        fn rowForgetGate(op: *const ops.ForgetGate) callconv(.c) void {
            var k: usize = 0;
            while (k < op.width) : (k += 64) {
                const n = @min(64, op.width - k);
                const f, const g = forgetBlock(loadPart(op.a + k, n), loadPart(op.b + k, n), @bitCast(loadPart(op.bias + k, n)), loadPart(op.h + k, n));
                storePart(op.f + k, f, n);
                storePart(op.g + k, g, n);
            }
        }

        inline fn forgetBlock(a: V64, b: V64, shift: S64, state: V64) [2]V64 {
            const f = clippedAdd(clippedAdd(signed(a), signed(b)), shift);
            const h = signed(state);
            const gate = openness(f);
            const g = [2]W32{ (gate[0] *% even(h)) >> @splat(8), (gate[1] *% odd(h)) >> @splat(8) };
            return .{ stored(f), stored(@bitCast(join(@bitCast(g[0]), @bitCast(g[1])))) };
        }

        /// f + 127 as 0..254, even and odd bytes.
        inline fn openness(f: S64) [2]W32 {
            const gate: Half = @bitCast((@as(V64, @bitCast(f)) ^ @as(V64, @splat(0x80))) -% @as(V64, @splat(1)));
            return .{ @bitCast(gate & @as(Half, @splat(0xff))), @bitCast(gate >> @splat(8)) };
        }

        fn stateUpdate(op: *const ops.StateUpdate) callconv(.c) void {
            const vectors = @as(usize, op.groups) * 2;
            for (0..op.width / 4) |w| {
                const shift: S64 = @bitCast(splat64(quad(op.bias + w * 4)));
                for (0..vectors) |v| {
                    const at = (w * vectors + v) * 64;
                    const h, const out = stateBlock(load64(op.a + at), load64(op.b + at), shift, load64(op.f + at), load64(op.h + at), load64(op.residual + at));
                    store64(op.h + at, h);
                    store64(op.out + at, out);
                }
            }
        }

        fn rowStateUpdate(op: *const ops.StateUpdate) callconv(.c) void {
            var k: usize = 0;
            while (k < op.width) : (k += 64) {
                const n = @min(64, op.width - k);
                const h, const out = stateBlock(
                    loadPart(op.a + k, n),
                    loadPart(op.b + k, n),
                    @bitCast(loadPart(op.bias + k, n)),
                    loadPart(op.f + k, n),
                    loadPart(op.h + k, n),
                    loadPart(op.residual + k, n),
                );
                storePart(op.h + k, h, n);
                storePart(op.out + k, out, n);
            }
        }

        inline fn stateBlock(a: V64, b: V64, shift: S64, f: V64, state: V64, residual: V64) [2]V64 {
            const c = clippedAdd(clippedAdd(signed(a), signed(b)), shift);
            const h = signed(state);
            const gate = openness(signed(f));
            const moved_even = moved(even(h), even(c), gate[0]);
            const moved_odd = moved(odd(h), odd(c), gate[1]);
            const next: S64 = @bitCast(join(@bitCast(moved_even), @bitCast(moved_odd)));
            return .{ stored(next), stored(clippedAdd(next, signed(residual))) };
        }

        /// clip(h + ((gate * (c - h)) >> 8)). The product does not fit 16 bits; its scaled high half does, exactly.
        inline fn moved(h: W32, c: W32, gate: W32) W32 {
            const step = mulHighSigned(gate << @splat(7), (c -% h) << @splat(1));
            return @min(@max(h +% step, @as(W32, @splat(-127))), @as(W32, @splat(127)));
        }

        fn add(a: [*]const u8, b: [*]const u8, out: [*]u8, bytes: usize) callconv(.c) void {
            var i: usize = 0;
            while (i < bytes) : (i += 64) {
                store64(out + i, stored(clippedAdd(signed(load64(a + i)), signed(load64(b + i)))));
            }
        }

        fn loss(op: *const ops.Loss) callconv(.c) void {
            const vectors = @as(usize, op.groups) * 2;
            for (0..vectors) |v| {
                var z: V16 = @splat(0);
                for (0..op.vocabulary / 4) |w| z = addWeights(z, load64(op.logits + (w * vectors + v) * 64));
                // z >= 16 * vocabulary, so the leading bit is 4 or more.
                const top = @as(V16, @splat(31)) -% @as(V16, @intCast(@clz(z)));
                const rest = z -% (@as(V16, @splat(1)) << @truncate(@as(U16, @bitCast(top))));
                const fraction = rest >> @truncate(@as(U16, @bitCast(top -% @as(V16, @splat(4)))));
                const log: [16]i32 = top *% @as(V16, @splat(16)) +% fraction -% @as(V16, @splat(64));
                for (log, v * 16..) |log_z, lane| {
                    const target: usize = op.targets[lane];
                    const logit = op.logits[((target >> 2) * vectors * 16 + lane) * 4 + (target & 3)] ^ (dot.bias ^ 0x80);
                    op.losses[lane] +%= log_z -% @as(i32, logit);
                }
            }
        }

        /// z[lane] += EXP2 of the lane's four logits.
        inline fn addWeights(z: V16, logits: V64) V16 {
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

        fn rowsLoss(op: *ops.RowsLoss) callconv(.c) void {
            var z: V16 = @splat(0);
            var v: usize = 0;
            while (v + 64 <= op.vocabulary) : (v += 64) z = addWeights(z, load64(op.logits + v));
            var sum = @reduce(.Add, z);
            for (op.logits[v..op.vocabulary]) |logit| sum += scalar.exp2_table[logit ^ (dot.bias ^ 0x80)];
            op.loss = scalar.log2fix(sum) - @as(i32, op.logits[op.target] ^ (dot.bias ^ 0x80));
        }

        fn rowsMatmul(op: *const ops.RowsMatmul) callconv(.c) void {
            var row: u32 = 0;
            // A block of rows stays in the L1 cache while all tokens pass by it; the first to pass asks for the next block.
            while (row < op.rows) : (row += 16) {
                if (dot.row_sums == 16 and op.count >= 2) {
                    rowsTile(2, 8, true, op.*, 0, row);
                    rowsTile(2, 8, true, op.*, 0, row + 8);
                } else rowsTile(1, 16, true, op.*, 0, row);
                var j: u32 = if (dot.row_sums == 16 and op.count >= 2) 2 else 1;
                if (dot.row_sums == 16) while (j + 2 <= op.count) : (j += 2) {
                    rowsTile(2, 8, false, op.*, j, row);
                    rowsTile(2, 8, false, op.*, j, row + 8);
                };
                while (j < op.count) : (j += 1) rowsTile(1, 16, false, op.*, j, row);
            }
        }

        /// count * rows = 16 sums over all inputs, 64 inputs at a time. Two rows of x are the two sides of one pair.
        inline fn rowsTile(comptime count: u32, comptime rows: u32, comptime ahead: bool, op: ops.RowsMatmul, j: usize, row: usize) void {
            @setEvalBranchQuota(20000);
            const cols: usize = op.cols;
            const stride = ops.rowBytes(cols);
            const weights: [*]const u8 = @ptrCast(op.weights + row * cols);
            const x = op.x + j * stride;
            var acc: [16]V16 = @splat(@splat(0));
            // As many sums at a time as stay in registers.
            const rows_at_once = dot.row_sums / count;
            inline for (0..rows / rows_at_once) |pass| {
                var k: usize = 0;
                while (k < cols) : (k += 64) {
                    var inputs: [count]V16 = undefined;
                    inline for (0..count) |i| inputs[i] = @bitCast(load64(x + i * stride + k));
                    inline for (pass * rows_at_once..(pass + 1) * rows_at_once) |r| {
                        if (ahead) fetch(weights + (16 + r) * cols + k);
                        const w: V16 = @bitCast(load64(weights + r * cols + k));
                        inline for (0..count) |i| acc[i * rows + r] = dot.dot(acc[i * rows + r], inputs[i], w);
                    }
                }
            }
            var sums = sumEach(acc);
            if (dot.bias != 0) sums +%= repeat(count, op.offsets[row..][0..rows].*);
            if (op.pairs != 0) {
                const a = op.a + j / 2 % op.pairs * op.a_stride + row;
                const factor = repeat(count, @as([rows]i32, @as(@Vector(rows, i32), @as(@Vector(rows, i8), a[0..rows].*))));
                const dots: V16 = if (count == 1) @splat(op.dots[j]) else std.simd.join(@as(@Vector(8, i32), @splat(op.dots[j])), @as(@Vector(8, i32), @splat(op.dots[j + 1])));
                sums +%= (dots *% factor) >> @splat(@intCast(op.perturb_shift));
            }
            const shifted = sums >> @as(@Vector(16, u5), @splat(@intCast(op.shift)));
            const clipped: V16 = @max(@as(V16, @min(shifted, @as(V16, @splat(127)))), @as(V16, @splat(-127)));
            const bytes: [16]u8 = @as(@Vector(16, u8), @bitCast(@as(@Vector(16, i8), @truncate(clipped)))) ^ @as(@Vector(16, u8), @splat(dot.bias));
            inline for (0..count) |i| op.out[(j + i) * op.out_stride + row ..][0..rows].* = bytes[i * rows ..][0..rows].*;
        }

        inline fn repeat(comptime count: u32, values: [16 / count]i32) V16 {
            return if (count == 1) values else std.simd.join(@as(@Vector(8, i32), values), @as(@Vector(8, i32), values));
        }

        fn rowsNoiseDot(op: *const ops.RowsNoiseDot) callconv(.c) void {
            const stride = ops.rowBytes(op.cols);
            for (0..op.count) |j| {
                const pair = j / 2 % op.pairs;
                const b: [*]const u8 = @ptrCast(op.b + pair * op.b_stride);
                var sum: V16 = @splat(0);
                var k: usize = 0;
                while (k < op.cols) : (k += 64) sum = dot.dot(sum, @bitCast(load64(op.x + j * stride + k)), @bitCast(load64(b + k)));
                const value = @reduce(.Add, sum) -% op.b_sums[pair] *% dot.bias;
                op.dots[j] = if (j % 2 == 0) value else -%value;
            }
        }

        fn rowsLayerNorm(op: *const ops.RowsLayerNorm) callconv(.c) void {
            const ones: V16 = @splat(0x01010101);
            const low: Half = @splat(0xff);
            for (0..op.count) |t| {
                const x = op.x + t * ops.rowBytes(op.width);
                const out = op.out + t * ops.rowBytes(op.width);
                var sum: V16 = @splat(0);
                var k: usize = 0;
                while (k < op.width) : (k += 64) {
                    const n = @min(64, op.width - k);
                    const values = if (n == 64) signed(load64(x + k)) else signed(loadPart(x + k, n) ^ past(n));
                    sum = dot.dot(sum, @bitCast(@abs(values)), ones);
                }
                const mean = @max(1, @as(u32, @intCast(@reduce(.Add, sum))) / op.width);
                const magic: Half = @bitCast(@as(U16, @splat(reciprocals[mean].magic)));
                const factor: Half = @bitCast(@as(U16, @splat(reciprocals[mean].factor)));
                k = 0;
                while (k < op.width) : (k += 64) {
                    const n = @min(64, op.width - k);
                    const values = signed(loadPart(x + k, n));
                    const weight: S64 = @bitCast(loadPart(op.weight + k, n));
                    const size: Half = @bitCast(@as(V64, @abs(weight)));
                    const y = normBlock(values, weight, .{ (size & low) << @splat(2), (size >> @splat(8)) << @splat(2) }, magic, factor);
                    storePart(out + k, stored(y), n);
                }
            }
        }

        /// The tier's bias in the bytes past n: with it, raw zeros there count as the value zero.
        inline fn past(n: usize) V64 {
            return @select(u8, std.simd.iota(u8, 64) < @as(V64, @splat(@intCast(n))), @as(V64, @splat(0)), bias64);
        }

        fn noiseFill(op: *const ops.NoiseFill) callconv(.c) void {
            var state: U16 = @as(U16, @splat(op.seed)) +% std.simd.iota(u32, 16);
            var i: usize = 0;
            while (i < op.rows) : (i += 16) {
                inline for (0..4) |_| draw(&state);
                for (0..@min(16, op.rows - i)) |j| {
                    draw(&state);
                    const out: *align(1) @Vector(16, i8) = @ptrCast(op.a + (i + j) * pair_lanes);
                    out.* = @truncate(noiseValue(state));
                }
            }
            var sums: V16 = @splat(0);
            i = 0;
            while (i < op.cols) : (i += 16) {
                inline for (0..4) |_| draw(&state);
                inline for (0..4) |q| {
                    var word: U16 = @splat(0);
                    inline for (0..4) |byte| {
                        draw(&state);
                        const value = noiseValue(state);
                        sums +%= value;
                        word |= (@as(U16, @bitCast(value)) & @as(U16, @splat(0xff))) << @splat(8 * byte);
                    }
                    store64(@ptrCast(op.b + (i / 4 + q) * 64), @bitCast(word));
                }
            }
            store16(op.b_sums, sums);
        }

        inline fn draw(state: *U16) void {
            var x = state.*;
            x ^= x << @splat(13);
            x ^= x >> @splat(17);
            x ^= x << @splat(5);
            state.* = x;
        }

        inline fn noiseValue(word: U16) V16 {
            const magnitude: V16 = @bitCast((word >> @splat(1)) & @as(U16, @splat(31)));
            const minus: V16 = @bitCast((word & @as(U16, @splat(1))) -% @as(U16, @splat(1)));
            return (magnitude ^ minus) -% minus;
        }

        fn update(op: *ops.Update) callconv(.c) void {
            const factors: [*]i8 = @ptrCast(op.scratch);
            const inputs = op.scratch + ops.update_rows * ops.factor_stride_max;
            var starts: [ops.update_rows]i32 = undefined;
            prepareFactors(op, factors, &starts);
            op.changed = 0;
            var col: usize = 0;
            while (col < op.cols) : (col += ops.update_cols) {
                relayInputs(op, col, inputs);
                var row: usize = 0;
                while (row < op.rows) : (row += 4) vote(op, row, col, factors, inputs, &starts);
            }
        }

        /// factors[row][pair] = A * fitness, and what each row's sums start from: -bias * sum of its factors.
        fn prepareFactors(op: *const ops.Update, factors: [*]i8, starts: *[ops.update_rows]i32) void {
            const pairs = @as(usize, op.groups) * pair_lanes;
            const stride = ops.factorStride(op.groups);
            for (0..op.groups) |g| {
                const fitness: @Vector(16, i8) = op.fitness[g * pair_lanes ..][0..16].*;
                const signs: S64 = @bitCast([4]@Vector(16, i8){ fitness, fitness, fitness, fitness });
                const minus = signs >> @splat(7);
                const a: [*]const u8 = @ptrCast(op.a + g * op.noise_stride);
                var r: usize = 0;
                while (r < op.rows) : (r += 4) {
                    fetch(a + op.noise_stride + r * pair_lanes);
                    const four_rows: S64 = @bitCast(load64(a + r * pair_lanes));
                    const product = @select(i8, signs == @as(S64, @splat(0)), @as(S64, @splat(0)), (four_rows ^ minus) -% minus);
                    const parts: [4]@Vector(16, i8) = @bitCast(product);
                    inline for (parts, 0..) |part, i| {
                        const out: *align(1) @Vector(16, i8) = @ptrCast(factors + (r + i) * stride + g * pair_lanes);
                        out.* = part;
                    }
                }
            }
            if (dot.bias == 0) return;
            const ones: V16 = @splat(0x01010101);
            for (starts[0..op.rows], 0..) |*start, r| {
                var sum: V16 = @splat(0);
                var p: usize = 0;
                while (p < pairs) : (p += 64) {
                    const left = pairs - p;
                    var rest: [64]i8 = @splat(0);
                    if (left < 64) @memcpy(rest[0..left], factors[r * stride + p ..][0..left]);
                    const row: S64 = if (left < 64) rest else factors[r * stride + p ..][0..64].*;
                    sum = dot.dot(sum, ones, @bitCast(row));
                }
                start.* = -%@reduce(.Add, sum) *% dot.bias;
            }
        }

        /// B of 64 columns from [cols/4][16 pairs][4] to [pairs/4][4][16][4 pairs]: lane l of vector r is column 4l + r.
        fn relayInputs(op: *const ops.Update, col: usize, inputs: [*]u8) void {
            const order = comptime blk: {
                @setEvalBranchQuota(2000);
                var indices: [64]i32 = undefined;
                for (&indices, 0..) |*index, i| index.* = (i & ~@as(usize, 15)) + (i & 3) * 4 + ((i >> 2) & 3);
                break :blk @as(@Vector(64, i32), indices);
            };
            const quads = @min(16, (op.cols - col) / 4);
            for (0..op.groups) |g| {
                const b: [*]const u8 = @ptrCast(op.b + g * op.noise_stride + col / 4 * 64);
                var block: [16]U16 = @splat(@bitCast(bias64)); // columns past the last count as zero
                for (block[0..quads], 0..) |*line, q| {
                    fetch(b + op.noise_stride + q * 64);
                    line.* = @bitCast(@shuffle(u8, load64(b + q * 64) ^ bias64, undefined, order));
                }
                transpose16(&block);
                inline for (block, 0..) |line, i| store64(inputs + (g * 16 + i) * 64, @bitCast(line));
            }
        }

        /// Four rows by 64 columns, summed over all pairs of this pass.
        inline fn vote(op: *ops.Update, row: usize, col: usize, factors: [*]const i8, inputs: [*]const u8, starts: *const [ops.update_rows]i32) void {
            const padded = layout.alignUp(op.cols, ops.update_cols);
            const pairs = @as(usize, op.groups) * pair_lanes;
            const stride = ops.factorStride(op.groups);
            var acc: [4][4]V16 = undefined;
            inline for (0..4) |r| {
                const start: V16 = if (dot.bias == 0) @splat(0) else @splat(starts[row + r]);
                inline for (0..4) |v| {
                    acc[r][v] = if (op.first != 0) start else start +% load16(op.votes + (row + r) * padded + col + v * 16);
                }
            }
            if (op.last != 0) inline for (0..4) |r| fetch(op.weights + (row + 4 + r) * op.cols + col);
            var p: usize = 0;
            while (p < pairs) : (p += 4) {
                var lanes: [4]V16 = undefined;
                inline for (0..4) |v| lanes[v] = @bitCast(load64(inputs + p * ops.update_cols + v * 64));
                inline for (0..4) |r| {
                    const factor: V16 = @splat(@bitCast(quad(factors + (row + r) * stride + p)));
                    inline for (0..4) |v| acc[r][v] = dot.dot(acc[r][v], lanes[v], factor);
                }
            }
            inline for (0..4) |r| {
                if (op.last != 0) {
                    apply(op, row + r, col, acc[r]);
                } else inline for (0..4) |v| {
                    store16(op.votes + (row + r) * padded + col + v * 16, acc[r][v]);
                }
            }
        }

        /// Moves one row's weights by one where the vote passes the threshold.
        inline fn apply(op: *ops.Update, row: usize, col: usize, votes: [4]V16) void {
            const above: V16 = @splat(op.threshold);
            const below: V16 = @splat(-op.threshold);
            var beyond: [4]V16 = undefined;
            inline for (&beyond, votes) |*b, v| b.* = v -% @max(@as(V16, @min(v, above)), below);
            const excess: S64 = @bitCast(dot.pack4(beyond[0], beyond[1], beyond[2], beyond[3]));
            const step = @max(@as(S64, @min(excess, @as(S64, @splat(1)))), @as(S64, @splat(-1)));
            const weights = op.weights + row * op.cols + col;
            const width = op.cols - col;
            var edge: [64]i8 = @splat(0);
            if (width < 64) @memcpy(edge[0..width], weights[0..width]);
            const before: S64 = if (width < 64) edge else weights[0..64].*;
            const after = @max(before +| step, @as(S64, @splat(-127)));
            if (width < 64) {
                edge = after;
                @memcpy(weights[0..width], edge[0..width]);
            } else @as(*align(1) S64, @ptrCast(weights)).* = after;
            const raised: u32 = @popCount(@as(u64, @bitCast(after > before)));
            const lowered: u32 = @popCount(@as(u64, @bitCast(after < before)));
            op.offsets[row] -= (@as(i32, @intCast(raised)) - @as(i32, @intCast(lowered))) * dot.bias;
            op.changed += raised + lowered;
        }
    };
}
