// The update in SIMD: the votes of all pairs for a block of weights, as one more matrix product, and the step they decide.
// Layout and meaning: ops.zig. Oracle: scalar.zig. Who calls it: eggroll.zig.
const simd = @import("lanes.zig");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const Blocks = @import("vector_blocks.zig").Blocks;

const pair_lanes = layout.pair_lanes;
const V16 = simd.V16;
const W16 = @Vector(16, i16);
const U16 = simd.U16;
const V64 = simd.V64;
const S64 = simd.S64;
const load64 = simd.load64;
const store64 = simd.store64;
const load16 = simd.load16;
const store16 = simd.store16;
const fetch = simd.fetch;
const quad = simd.quad;
const transpose16 = simd.transpose16;

pub fn Update(comptime dot: type) type {
    const blocks = Blocks(dot);
    return struct {
        const bias64 = blocks.bias64;

        pub fn update(op: *ops.Update) callconv(.c) void {
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
                    const four_rows = counted(op.signs, @bitCast(load64(a + r * pair_lanes)));
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
                    const values: V64 = @bitCast(counted(op.signs, @bitCast(load64(b + q * 64))));
                    line.* = @bitCast(@shuffle(u8, values ^ bias64, undefined, order));
                }
                transpose16(&block);
                inline for (block, 0..) |line, i| store64(inputs + (g * 16 + i) * 64, @bitCast(line));
            }
        }

        /// Noise values, or their signs.
        inline fn counted(signs: u32, values: S64) S64 {
            return if (signs == 0) values else @max(@as(S64, @min(values, @as(S64, @splat(1)))), @as(S64, @splat(-1)));
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

        /// Moves one row's weights by one where the votes are out of bounds.
        inline fn apply(op: *ops.Update, row: usize, col: usize, votes: [4]V16) void {
            var beyond: [4]V16 = undefined;
            inline for (&beyond, votes) |*b, v| b.* = past(op.bounds, v);
            const excess: S64 = @bitCast(dot.pack4(beyond, null));
            const step = @max(@as(S64, @min(excess, @as(S64, @splat(1)))), @as(S64, @splat(-1)));
            const weights = op.weights + row * op.cols + col;
            const width = op.cols - col;
            var edge: [64]i8 = @splat(-127); // past the last column votes are 0, which raises nothing; and -127 cannot fall
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

        /// How far votes lie above the upper bound, or, negative, below the lower one.
        inline fn past(bounds: ops.Bounds, votes: V16) V16 {
            // One less where they are not positive: v - 1 is then negative, and its sign bits are -1.
            const v = if (bounds.zero_falls == 0) votes else votes +% ((votes -% @as(V16, @splat(1))) >> @splat(31));
            return v -% @max(@as(V16, @min(v, @as(V16, @splat(bounds.above)))), @as(V16, @splat(bounds.below)));
        }

        pub fn updateVector(op: *ops.UpdateVector) callconv(.c) void {
            op.changed = 0;
            var row: usize = 0;
            // 16 values at a time: each one's pairs in lanes first, then the values themselves.
            while (row < op.rows) : (row += 16) {
                var sums: [16]V16 = @splat(@splat(0));
                for (0..op.groups) |g| {
                    const noise: [*]align(1) const i16 = @ptrCast(@as([*]const u8, @ptrCast(op.noise)) + g * op.noise_stride);
                    const fitness: V16 = @as(@Vector(16, i8), op.fitness[g * pair_lanes ..][0..16].*);
                    inline for (&sums, 0..) |*sum, i| {
                        const values: V16 = @as(W16, noise[(row + i) * pair_lanes ..][0..16].*);
                        const value = if (op.signs == 0) values else @max(@as(V16, @min(values, @as(V16, @splat(1)))), @as(V16, @splat(-1)));
                        sum.* +%= value *% fitness;
                    }
                }
                var votes = simd.sumEach(sums);
                if (op.first == 0) votes +%= load16(op.votes + row);
                if (op.last == 0) {
                    store16(op.votes + row, votes);
                    continue;
                }
                const step = @max(@as(V16, @min(past(op.bounds, votes), @as(V16, @splat(1)))), @as(V16, @splat(-1)));
                const before: V16 = @as(@Vector(16, i8), op.weights[row..][0..16].*);
                const after = @max(@as(V16, @min(before +% step, @as(V16, @splat(127)))), @as(V16, @splat(-127)));
                op.weights[row..][0..16].* = @as(@Vector(16, i8), @truncate(after));
                op.changed += @popCount(@as(u16, @bitCast(after != before)));
            }
        }
    };
}
