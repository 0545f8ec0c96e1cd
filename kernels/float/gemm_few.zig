// Products of a few rows, as in decoding: each weight is read once, as it lies, and used for all rows. Sums in f32, of long k in blocks that f64 adds up.
// Not the products of many rows: gemm_vector.zig. Read next: gemm.zig (tiles).
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("gemm.zig");
const packing = @import("gemm_pack.zig");
const Finish = @import("gemm_finish.zig").Finish;

const Bytes = [*]align(64) u8;

pub fn Few(comptime lanes: comptime_int) type {
    return struct {
        const V = @Vector(lanes, f32);
        /// Columns of a transposed B, or rows of k, that are worked off together.
        const together = 4;
        const unrolled = 8;
        /// At most so many terms are added up in f32: one sum of a million would lose four of its seven digits.
        const block_depth = 256;

        /// A strip of columns of one batch.
        pub fn tile(args: *const ops.Gemm, grid: plan.Grid, number: u32, scratch: Bytes) void {
            @setRuntimeSafety(false);
            const rounded = args.compute == @intFromEnum(ops.Dtype.bf16);
            const kind: packing.Kind = switch (@as(ops.Dtype, @enumFromInt(args.b_dtype))) {
                .bf16 => .bf16,
                .i8 => .i8,
                else => if (rounded) .rounded else .f32,
            };
            switch (args.m) {
                inline 1, 2, 3, 4 => |rows| switch (kind) {
                    inline else => |b_kind| strip(rows, b_kind, args, grid, number, scratch),
                },
                else => unreachable,
            }
        }

        fn strip(comptime rows: comptime_int, comptime kind: packing.Kind, args: *const ops.Gemm, grid: plan.Grid, number: u32, scratch: Bytes) void {
            @setRuntimeSafety(false);
            const size = comptime kind.bytes();
            const place = plan.placeOf(args, grid, number);
            const at = plan.offsetsOf(args, place.batch);
            const k: usize = args.k;
            const a_stride = std.mem.alignForward(usize, k, 16);
            const a: [*]f32 = @ptrCast(scratch);
            const sums = a + rows * a_stride;
            const sum_stride = std.mem.alignForward(usize, grid.nt, 16);
            for (0..rows) |i| copyRow(args, at.a, i, a + i * a_stride);
            const cols: usize = place.cols;
            if (args.tb == 1) {
                const first = args.b.at + at.b + @as(usize, place.col) * args.ldb * size;
                const step = @as(usize, args.ldb) * size;
                var j: usize = 0;
                while (j + together <= cols) : (j += together) {
                    longDots(rows, together, kind, a, a_stride, k, first + j * step, step, sums + j, sum_stride);
                }
                while (j < cols) : (j += 1) longDots(rows, 1, kind, a, a_stride, k, first + j * step, step, sums + j, sum_stride);
            } else {
                const count = rows * sum_stride;
                const totals: [*]f64 = @ptrCast(@alignCast(sums + count));
                const first = args.b.at + at.b + @as(usize, place.col) * size;
                const step = @as(usize, args.ldb) * size;
                @memset(sums[0..count], 0);
                if (k > block_depth) @memset(totals[0..count], 0);
                var begin: usize = 0;
                while (begin < k) : (begin += block_depth) {
                    const end = @min(k, begin + block_depth);
                    var l = begin;
                    while (l + unrolled <= end) : (l += unrolled) rowsOfB(rows, unrolled, kind, a + l, a_stride, first + l * step, step, sums, sum_stride, cols);
                    while (l < end) : (l += 1) rowsOfB(rows, 1, kind, a + l, a_stride, first + l * step, step, sums, sum_stride, cols);
                    if (k <= block_depth) break;
                    for (sums[0..count], totals) |*sum, *total| {
                        total.* += sum.*;
                        sum.* = if (end == k) @floatCast(total.*) else 0;
                    }
                }
            }
            for (0..rows) |i| {
                var j: usize = 0;
                while (j < cols) : (j += lanes) {
                    const count = @min(lanes, cols - j);
                    var x = @as(V, @splat(args.alpha)) * packing.some(f32, lanes, sums + i * sum_stride + j, count);
                    if (kind == .i8) x *= packing.some(f32, lanes, args.scales.f32s() + place.col + j, count);
                    Finish(lanes).last(args, at.c, i, place.col + j, count, x, true);
                }
            }
        }

        /// A row of op(A) as f32, rounded where the product is in bf16.
        fn copyRow(args: *const ops.Gemm, offset: usize, i: usize, to: [*]f32) void {
            @setRuntimeSafety(false);
            const k: usize = args.k;
            const bf16 = args.a_dtype == @intFromEnum(ops.Dtype.bf16);
            const rounded = args.compute == @intFromEnum(ops.Dtype.bf16);
            const begin: usize, const step: usize = if (args.ta == 0) .{ i * args.lda, 1 } else .{ i, args.lda };
            const ref: ops.Ref = .{ .at = args.a.at + offset };
            if (step == 1 and !bf16 and !rounded) {
                @memcpy(to[0..k], ref.f32s() + begin);
                return;
            }
            for (to[0..k], 0..) |*x, l| {
                const bits: u32 = if (bf16) @as(u32, ref.bf16s()[begin + l * step]) << 16 else @bitCast(ref.f32s()[begin + l * step]);
                x.* = @bitCast(if (rounded) packing.roundBits(1, .{bits})[0] else bits);
            }
        }

        /// `dots` of k of any length.
        fn longDots(comptime rows: comptime_int, comptime cols: comptime_int, comptime kind: packing.Kind, a: [*]const f32, a_stride: usize, k: usize, b: usize, step: usize, sums: [*]f32, sum_stride: usize) void {
            @setRuntimeSafety(false);
            const block = block_depth * lanes;
            dots(rows, cols, kind, a, a_stride, @min(k, block), b, step, sums, sum_stride);
            if (k <= block) return;
            var totals: [rows][cols]f64 = @splat(@splat(0));
            var begin: usize = 0;
            while (true) {
                inline for (0..rows) |i| {
                    inline for (0..cols) |j| totals[i][j] += sums[i * sum_stride + j];
                }
                begin += block;
                if (begin >= k) break;
                dots(rows, cols, kind, a + begin, a_stride, @min(k - begin, block), b + begin * comptime kind.bytes(), step, sums, sum_stride);
            }
            inline for (0..rows) |i| {
                inline for (0..cols) |j| sums[i * sum_stride + j] = @floatCast(totals[i][j]);
            }
        }

        /// `rows` rows of A with `cols` columns of op(B) that lie along k.
        fn dots(comptime rows: comptime_int, comptime cols: comptime_int, comptime kind: packing.Kind, a: [*]const f32, a_stride: usize, k: usize, b: usize, step: usize, sums: [*]f32, sum_stride: usize) void {
            @setRuntimeSafety(false);
            const size = comptime kind.bytes();
            // A line of B at a time, in sums that do not wait for one another.
            const vectors = 64 / size / lanes;
            const strands = if (rows <= 2 and vectors > 1) 2 else 1;
            var parts: [strands][rows][cols]V = @splat(@splat(@splat(@splat(0))));
            var l: usize = 0;
            while (l + vectors * lanes <= k) : (l += vectors * lanes) {
                inline for (0..cols) |j| @prefetch(@as([*]const u8, @ptrFromInt(b + j * step + l * size)) + 1024, .{});
                inline for (0..vectors) |v| {
                    var x: [rows]V = undefined;
                    inline for (0..rows) |i| x[i] = packing.some(f32, lanes, a + i * a_stride + l + v * lanes, lanes);
                    inline for (0..cols) |j| {
                        const w = elements(kind, b + j * step + (l + v * lanes) * size, lanes);
                        inline for (0..rows) |i| parts[v % strands][i][j] = @mulAdd(V, x[i], w, parts[v % strands][i][j]);
                    }
                }
            }
            var acc = parts[0];
            if (strands == 2) {
                inline for (0..rows) |i| {
                    inline for (0..cols) |j| acc[i][j] += parts[1][i][j];
                }
            }
            while (l + lanes <= k) : (l += lanes) {
                inline for (0..cols) |j| {
                    const w = elements(kind, b + j * step + l * size, lanes);
                    inline for (0..rows) |i| acc[i][j] = @mulAdd(V, packing.some(f32, lanes, a + i * a_stride + l, lanes), w, acc[i][j]);
                }
            }
            if (l < k) {
                inline for (0..cols) |j| {
                    const w = elements(kind, b + j * step + l * size, k - l);
                    inline for (0..rows) |i| acc[i][j] = @mulAdd(V, packing.some(f32, lanes, a + i * a_stride + l, k - l), w, acc[i][j]);
                }
            }
            inline for (0..rows) |i| {
                inline for (0..cols) |j| sums[i * sum_stride + j] = @reduce(.Add, acc[i][j]);
            }
        }

        /// Adds `deep` rows of B, times what each row of A has for them, to the sums.
        fn rowsOfB(comptime rows: comptime_int, comptime deep: comptime_int, comptime kind: packing.Kind, a: [*]const f32, a_stride: usize, b: usize, step: usize, sums: [*]f32, sum_stride: usize, cols: usize) void {
            @setRuntimeSafety(false);
            const size = comptime kind.bytes();
            var j: usize = 0;
            while (j < cols) : (j += lanes) {
                const count = @min(lanes, cols - j);
                var acc: [rows]V = undefined;
                inline for (0..rows) |i| acc[i] = packing.some(f32, lanes, sums + i * sum_stride + j, count);
                inline for (0..deep) |l| {
                    const at = b + l * step + j * size;
                    @prefetch(@as([*]const u8, @ptrFromInt(at)) + deep * step, .{});
                    const w = elements(kind, at, count);
                    inline for (0..rows) |i| acc[i] = @mulAdd(V, @as(V, @splat(a[i * a_stride + l])), w, acc[i]);
                }
                inline for (0..rows) |i| {
                    const there = sums + i * sum_stride + j; // rows of sums end on whole vectors
                    @as(*align(4) V, @ptrCast(there)).* = acc[i];
                }
            }
        }

        inline fn elements(comptime kind: packing.Kind, address: usize, count: usize) V {
            if (kind == .bf16) return @bitCast(@as(@Vector(lanes, u32), packing.some(u16, lanes, @ptrFromInt(address), count)) << @splat(16));
            if (kind == .i8) return @floatFromInt(packing.some(i8, lanes, @ptrFromInt(address), count));
            const x = packing.some(u32, lanes, @ptrFromInt(address), count);
            return @bitCast(if (kind == .rounded) packing.roundBits(lanes, x) else x);
        }
    };
}
