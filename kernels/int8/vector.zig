// The int8 kernels in SIMD: members in lanes, one source for every tier. `dot` brings the few instructions that differ
// (dot_avx512vnni.zig and its like). Meaning and arguments: ops.zig. Oracle: scalar.zig. Bit for bit the same.
// Read next: vector_operators.zig (norms, gates, loss), vector_rows.zig (few members), vector_update.zig (the votes),
// vector_normal.zig (rule nano-egg's noise), lanes.zig.
const std = @import("std");
const simd = @import("lanes.zig");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const Blocks = @import("vector_blocks.zig").Blocks;
const Normal = @import("vector_normal.zig").Normal;
const Operators = @import("vector_operators.zig").Operators;
const Rows = @import("vector_rows.zig").Rows;
const Update = @import("vector_update.zig").Update;

const pair_lanes = layout.pair_lanes;
const group_lanes = layout.group_lanes;
const V16 = simd.V16;
const U16 = simd.U16;
const V64 = simd.V64;
const S64 = simd.S64;
const Half = simd.Half;
const load64 = simd.load64;
const store64 = simd.store64;
const load16 = simd.load16;
const store16 = simd.store16;
const fetch = simd.fetch;
const quad = simd.quad;
const splat64 = simd.splat64;
const even = simd.even;
const odd = simd.odd;
const clippedAdd = simd.clippedAdd;
const reciprocals = simd.reciprocals;
const transpose16 = simd.transpose16;

pub fn Kernels(comptime dot: type) type {
    const blocks = Blocks(dot);
    const few = Rows(dot);
    const normal = Normal(dot);
    const update = Update(dot);
    return struct {
        const bias64 = blocks.bias64;
        const signed = blocks.signed;
        const stored = blocks.stored;

        pub const table: ops.Table = .{
            .bias = dot.bias,
            .embed = &embed,
            .matmul = &matmul,
            .noise_dot = &noiseDot,
            .add = &add,
            .update = &update.update,
            .peak = &@import("peak.zig").Peak(dot).peak,
            .rows_matmul = &few.rowsMatmul,
            .rows_noise_dot = &few.rowsNoiseDot,
            .egg_c = Operators(dot, .egg_c).table,
            .nano_egg = Operators(dot, .nano_egg).table,
            .noise_fill = &noiseFill,
            .normal_fill = &normal.normalFill,
            .normal_products = &normal.normalProducts,
            .perturb_vector = &normal.perturbVector,
            .perturb_embedded = &normal.perturbEmbedded,
            .update_vector = &update.updateVector,
        };

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

        fn matmul(op: *const ops.Matmul) callconv(.c) void {
            if (op.perturbed == 0) return shaped(.clean, op);
            if (dot.has_dot16 and fitsNarrow(op)) {
                var narrow = op.*;
                var dots_memory: [layout.max_groups * group_lanes]i32 align(64) = undefined;
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
            if (op.root == 1) scaled(term, false, op) else scaled(term, true, op);
        }

        fn scaled(comptime term: Term, comptime divided: bool, op: *const ops.Matmul) void {
            const wide = dot.wide_tile;
            if (op.groups * 2 % wide.vectors == 0) return tiles(term, divided, wide.rows, wide.vectors, op);
            tiles(term, divided, dot.narrow_tile.rows, dot.narrow_tile.vectors, op);
        }

        fn tiles(comptime term: Term, comptime divided: bool, comptime rows: u32, comptime vectors: u32, op: *const ops.Matmul) void {
            @setEvalBranchQuota(4000);
            const x = if (dot.expands) expandInputs(op) else op.x;
            var row: u32 = 0;
            const lines = op.ahead_bytes / 64;
            const soon_lines = op.soon_bytes / 64;
            while (row < op.rows) : (row += rows) {
                var line = row * lines / op.rows;
                while (line < (row + rows) * lines / op.rows) : (line += 1) {
                    for (0..op.groups) |group| simd.fetchLater(op.ahead + group * op.a_stride + line * 64);
                }
                line = row * soon_lines / op.rows;
                while (line < (row + rows) * soon_lines / op.rows) : (line += 1) simd.fetchLater(op.soon + line * 64);
                const weights: [*]const u8 = if (dot.expands) expandRows(rows, op, row) else @ptrCast(op.weights + @as(usize, row) * op.cols);
                var vector: u32 = 0;
                while (vector < op.groups * 2) : (vector += vectors) tile(term, divided, rows, vectors, op, x, weights, row, vector);
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
            comptime divided: bool,
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
            // More inputs at a time, and the compiler runs out of registers for eight rows, or of 256 bits.
            const words = if (rows > 4 or (vectors == 1 and !dot.expands)) 2 else 4 * words_per_quad;
            while (k < row_bytes) : (k += 4 * words) {
                // The next rows' weights come from L2 or L3: ask for them while these rows are used the first time.
                if (!dot.expands and vector == 0 and k & 63 == 0) inline for (0..rows) |r| fetch(weights + (2 * rows + r) * row_bytes + k);
                inline for (0..words) |q| {
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
            const root: simd.Root = if (divided) .init(op.root) else undefined;
            inline for (0..rows / 4) |r4| {
                inline for (0..vectors) |v| {
                    var four: [4]V16 = undefined;
                    inline for (&four, 4 * r4..) |*sum, r| sum.* = acc[r][v] >> shift;
                    const packed_rows: S64 = @bitCast(dot.pack4(four, if (divided) root else null));
                    store64(op.out + (row / 4 + r4) * lane_bytes + (vector + v) * 64, stored(@max(packed_rows, @as(S64, @splat(-127)))));
                }
            }
        }

        /// Whether the sum of products fits 32 bits when scaled by 2^s, and the rank-one factors 16: then
        /// floor((sum + floor(dot * A / 2^s)) / 2^q) = floor((sum * 2^s + dot * A) / 2^(s+q)). Where the last
        /// addition saturates, it need not fit: such a value is clipped to the same side in any case.
        fn fitsNarrow(op: *const ops.Matmul) bool {
            const products = @as(u64, op.cols) * 127 * 127 << @intCast(op.perturb_shift);
            const rank_one = if (dot.dot16_saturates) 0 else @as(u64, op.cols) * 127 * op.noise_max * op.noise_max;
            const high = @as(u64, op.cols) * 127 * op.noise_max >> 8;
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

        fn add(a: [*]const u8, b: [*]const u8, out: [*]u8, bytes: usize) callconv(.c) void {
            var i: usize = 0;
            while (i < bytes) : (i += 64) {
                store64(out + i, stored(clippedAdd(signed(load64(a + i)), signed(load64(b + i)))));
            }
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
    };
}
