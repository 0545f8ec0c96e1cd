// What happens to the sums of a matrix product on their way into C: earlier blocks of k, bias, activation, beta, bf16.
// Not the sums: gemm_vector.zig, gemm_few.zig. Read next: ops.zig (the formula).
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("gemm.zig");
const roundBits = @import("gemm_pack.zig").roundBits;
const some = @import("gemm_pack.zig").some;

const Bytes = [*]align(64) u8;

pub fn Finish(comptime lanes: comptime_int) type {
    return struct {
        const V = @Vector(lanes, f32);
        const activations = @import("activate_vector.zig").Kernels(lanes);

        /// Where the sums of a tile stand.
        pub const Sums = struct {
            args: *const ops.Gemm,
            /// The tile's place in C, and the batch's in bytes.
            row: usize,
            col: usize,
            offset: usize,
            /// Sums of the blocks of k before this one.
            to: [*]f32,
            stride: usize,
            /// They lie in C itself.
            in_c: bool = false,
            /// First and last block of k. Parts of k have no last: their sums are added up later.
            first: bool,
            last: bool,

            /// Sums are written, or added to what is there (C itself, once), and what else comes is a bias and an activation.
            pub fn simple(sums: *const Sums) bool {
                if (!sums.in_c) return !sums.last;
                const beta = sums.args.beta;
                if (beta != 0 and !sums.plain()) return false;
                if (sums.first and beta != 0 and beta != 1) return false;
                return !(sums.args.pre.present() and sums.args.activation == 0);
            }
            /// The last block brings a bias or an activation.
            pub fn finishes(sums: *const Sums) bool {
                return sums.last and (sums.args.bias.present() or sums.args.activation != 0);
            }
            /// Where an element of the tile goes before the activation.
            pub fn finished(sums: *const Sums, i: usize, col: usize) [*]f32 {
                const args = sums.args;
                const ref = if (args.pre.present()) args.pre else args.c;
                return ref.f32s() + sums.offset / 4 + (sums.row + i) * args.ldc + sums.col + col;
            }
            pub fn biasOf(sums: *const Sums, col: usize) ?[*]const f32 {
                return if (sums.args.bias.present()) sums.args.bias.f32s() + sums.col + col else null;
            }
            /// The first block adds beta * C, where nothing comes between the two.
            pub fn adds(sums: *const Sums) bool {
                return sums.in_c and sums.args.beta != 0;
            }
            fn plain(sums: *const Sums) bool {
                return sums.args.activation == 0 and !sums.args.pre.present();
            }
        };

        /// to = act(from), a register tile that has just been written.
        pub fn activate(comptime vectors: comptime_int, args: *const ops.Gemm, to: [*]f32, from: [*]const f32, stride: usize, rows: usize) void {
            switch (@as(ops.Activation, @enumFromInt(args.activation))) {
                .none => {},
                inline else => |activation| activateRows(activation, vectors, to, from, stride, rows),
            }
        }

        noinline fn activateRows(comptime activation: ops.Activation, comptime vectors: comptime_int, to: [*]f32, from: [*]const f32, stride: usize, rows: usize) void {
            @setRuntimeSafety(false);
            for (0..rows) |i| {
                inline for (0..vectors) |j| {
                    const at = i * stride + j * lanes;
                    store(to + at, activations.function(activation, some(f32, lanes, from + at, lanes)), lanes);
                }
            }
        }

        /// Takes the sums of one row of the tile, from `col` on, times alpha.
        pub fn row(sums: *const Sums, i: usize, col: usize, width: usize, values: [*]const f32) void {
            @setRuntimeSafety(false);
            const args = sums.args;
            const to = sums.to + i * sums.stride + col;
            const early = sums.in_c and sums.plain(); // beta * C comes with the first block
            var j: usize = 0;
            while (j < width) : (j += lanes) {
                const count = @min(lanes, width - j);
                var x = some(f32, lanes, values + j, lanes);
                if (!sums.first) {
                    x += some(f32, lanes, to + j, count);
                } else if (early and args.beta != 0) {
                    x += @as(V, @splat(args.beta)) * some(f32, lanes, to + j, count);
                }
                if (sums.last) {
                    last(args, sums.offset, sums.row + i, sums.col + col + j, count, x, !early);
                } else {
                    store(to + j, x, count);
                }
            }
        }

        /// Adds up the parts of k of some rows.
        pub fn addParts(args: *const ops.Gemm, grid: plan.Grid, tile: u32, workspace: Bytes) void {
            @setRuntimeSafety(false);
            const row_tiles = std.math.divCeil(u32, args.m, grid.sum_rows) catch unreachable;
            const batch = tile / row_tiles;
            const first = tile % row_tiles * grid.sum_rows;
            const size = @as(usize, args.m) * args.n;
            const parts = @as([*]f32, @ptrCast(workspace)) + @as(usize, batch) * grid.parts * size;
            for (first..@min(first + grid.sum_rows, args.m)) |i| {
                var j: usize = 0;
                while (j < args.n) : (j += lanes) {
                    const count = @min(lanes, args.n - j);
                    var x = some(f32, lanes, parts + i * args.n + j, count);
                    for (1..grid.parts) |part| x += some(f32, lanes, parts + part * size + i * args.n + j, count);
                    last(args, plan.offsetsOf(args, batch).c, i, j, count, x, true);
                }
            }
        }

        /// act(x + bias) + beta * C for `count` elements of C from (i, j) on.
        pub fn last(args: *const ops.Gemm, offset: usize, i: usize, j: usize, count: usize, sum: V, with_c: bool) void {
            @setRuntimeSafety(false);
            var x = sum;
            if (args.bias.present()) x += some(f32, lanes, args.bias.f32s() + j, count);
            const at = offset + (i * args.ldc + j) * plan.bytesOf(args.c_dtype);
            if (args.pre.present()) write(args, args.pre.at + at, x, count);
            switch (@as(ops.Activation, @enumFromInt(args.activation))) {
                .none => {},
                inline else => |activation| x = activations.function(activation, x),
            }
            if (with_c and args.beta != 0) {
                const c: V = if (args.c_dtype == @intFromEnum(ops.Dtype.bf16))
                    @bitCast(@as(@Vector(lanes, u32), some(u16, lanes, @ptrFromInt(args.c.at + at), count)) << @splat(16))
                else
                    some(f32, lanes, @ptrFromInt(args.c.at + at), count);
                x += @as(V, @splat(args.beta)) * c;
            }
            write(args, args.c.at + at, x, count);
        }

        fn write(args: *const ops.Gemm, address: usize, x: V, count: usize) void {
            @setRuntimeSafety(false);
            if (args.c_dtype != @intFromEnum(ops.Dtype.bf16)) return store(@ptrFromInt(address), x, count);
            const halves: @Vector(lanes, u16) = @truncate(roundBits(lanes, @bitCast(x)) >> @as(@Vector(lanes, u5), @splat(16)));
            const to: [*]u16 = @ptrFromInt(address);
            if (count == lanes) {
                @as(*align(2) @Vector(lanes, u16), @ptrCast(to)).* = halves;
            } else {
                const array: [lanes]u16 = halves;
                for (array[0..count], to) |half, *there| there.* = half;
            }
        }

        fn store(to: [*]f32, x: V, count: usize) void {
            @setRuntimeSafety(false);
            if (count == lanes) {
                @as(*align(4) V, @ptrCast(to)).* = x;
            } else {
                const array: [lanes]f32 = x;
                for (array[0..count], to) |value, *there| there.* = value;
            }
        }
    };
}
