// The int8 kernels for few members, without lanes: inputs in SIMD lanes, one row of activations after the other.
// Layout and meaning: ops.zig. Oracle: scalar.zig. Who calls them: rows.zig.
const std = @import("std");
const simd = @import("lanes.zig");
const ops = @import("ops.zig");

const V16 = simd.V16;
const load64 = simd.load64;
const fetch = simd.fetch;
const sumEach = simd.sumEach;

pub fn Rows(comptime dot: type) type {
    return struct {
        pub fn rowsMatmul(op: *const ops.RowsMatmul) callconv(.c) void {
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
            var shifted = sums >> @as(@Vector(16, u5), @splat(@intCast(op.shift)));
            if (op.root != 1) shifted = simd.Root.init(op.root).divide32(shifted);
            const clipped: V16 = @max(@as(V16, @min(shifted, @as(V16, @splat(127)))), @as(V16, @splat(-127)));
            const bytes: [16]u8 = @as(@Vector(16, u8), @bitCast(@as(@Vector(16, i8), @truncate(clipped)))) ^ @as(@Vector(16, u8), @splat(dot.bias));
            inline for (0..count) |i| op.out[(j + i) * op.out_stride + row ..][0..rows].* = bytes[i * rows ..][0..rows].*;
        }

        inline fn repeat(comptime count: u32, values: [16 / count]i32) V16 {
            return if (count == 1) values else std.simd.join(@as(@Vector(8, i32), values), @as(@Vector(8, i32), values));
        }

        pub fn rowsNoiseDot(op: *const ops.RowsNoiseDot) callconv(.c) void {
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
    };
}
