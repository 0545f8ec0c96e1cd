// What happens to the sums of a matrix product on their way into C: earlier blocks of k, bias, activation, factor, beta, bf16.
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

            /// Sums are written, or added to what is there (C itself, once), and what else comes is for `finish`.
            pub fn simple(sums: *const Sums) bool {
                if (!sums.in_c) return !sums.last;
                const beta = sums.args.beta;
                return beta == 0 or (sums.plain() and (!sums.first or beta == 1));
            }
            /// The last block brings more than sums.
            pub fn finishes(sums: *const Sums) bool {
                return sums.last and (sums.args.bias.present() or !sums.plain());
            }
            /// What lies as C does, at an element of the tile.
            pub fn place(sums: *const Sums, ref: ops.Ref, i: usize, col: usize) [*]f32 {
                return ref.f32s() + sums.offset / 4 + (sums.row + i) * sums.args.ldc + sums.col + col;
            }
            pub fn biasOf(sums: *const Sums, col: usize) ?[*]const f32 {
                return if (sums.args.bias.present()) sums.args.bias.f32s() + sums.col + col else null;
            }
            /// The first block adds beta * C, where nothing comes between the two.
            pub fn adds(sums: *const Sums) bool {
                return sums.in_c and sums.args.beta != 0 and sums.plain();
            }
            fn plain(sums: *const Sums) bool {
                return sums.args.activation == 0 and !sums.args.factor.present();
            }
        };

        /// Activation and factor of a register tile whose sums, with the bias, have just been written to C.
        pub fn finish(sums: *const Sums, i: usize, col: usize, rows: usize, width: usize) void {
            const args = sums.args;
            switch (@as(ops.Activation, @enumFromInt(args.activation))) {
                .none => {},
                inline else => |activation| if (args.slope.present()) activate(activation, true, sums, i, col, rows, width) else activate(activation, false, sums, i, col, rows, width),
            }
            if (args.factor.present()) multiply(sums, i, col, rows, width);
        }

        noinline fn activate(comptime activation: ops.Activation, comptime with_slope: bool, sums: *const Sums, i: usize, col: usize, rows: usize, width: usize) void {
            @setRuntimeSafety(false);
            const to = sums.place(sums.args.c, i, col);
            const slope = if (with_slope) sums.place(sums.args.slope, i, col) else {};
            const stride = sums.args.ldc;
            for (0..rows) |r| {
                var at = r * stride;
                const end = at + width;
                while (at < end) : (at += lanes) {
                    const x = some(f32, lanes, to + at, lanes);
                    if (with_slope) {
                        const y, const change = activations.both(activation, x);
                        store(to + at, y, lanes);
                        store(slope + at, change, lanes);
                    } else store(to + at, activations.function(activation, x), lanes);
                }
            }
        }

        noinline fn multiply(sums: *const Sums, i: usize, col: usize, rows: usize, width: usize) void {
            @setRuntimeSafety(false);
            const to = sums.place(sums.args.c, i, col);
            const factor = sums.place(sums.args.factor, i, col);
            const stride = sums.args.ldc;
            for (0..rows) |r| {
                var at = r * stride;
                const end = at + width;
                while (at < end) : (at += lanes) store(to + at, some(f32, lanes, to + at, lanes) * some(f32, lanes, factor + at, lanes), lanes);
            }
        }

        /// Takes the sums of one row of the tile, from `col` on, times alpha.
        pub fn row(sums: *const Sums, i: usize, col: usize, width: usize, values: [*]const f32) void {
            @setRuntimeSafety(false);
            const args = sums.args;
            const to = sums.to + i * sums.stride + col;
            const early = sums.adds(); // beta * C comes with the first block
            var j: usize = 0;
            while (j < width) : (j += lanes) {
                const count = @min(lanes, width - j);
                var x = some(f32, lanes, values + j, lanes);
                if (!sums.first) {
                    x += some(f32, lanes, to + j, count);
                } else if (early) {
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

        /// act(x + bias) * factor + beta * C for `count` elements of C from (i, j) on.
        pub fn last(args: *const ops.Gemm, offset: usize, i: usize, j: usize, count: usize, sum: V, with_c: bool) void {
            @setRuntimeSafety(false);
            var x = sum;
            if (args.bias.present()) x += some(f32, lanes, args.bias.f32s() + j, count);
            const at = offset + (i * args.ldc + j) * plan.bytesOf(args.c_dtype);
            switch (@as(ops.Activation, @enumFromInt(args.activation))) {
                .none => {},
                inline else => |activation| {
                    const value, const slope = activations.both(activation, x);
                    if (args.slope.present()) write(args, args.slope.at + at, slope, count);
                    x = value;
                },
            }
            if (args.factor.present()) x *= read(args, args.factor.at + at, count);
            if (with_c and args.beta != 0) x += @as(V, @splat(args.beta)) * read(args, args.c.at + at, count);
            write(args, args.c.at + at, x, count);
        }

        fn read(args: *const ops.Gemm, address: usize, count: usize) V {
            if (args.c_dtype != @intFromEnum(ops.Dtype.bf16)) return some(f32, lanes, @ptrFromInt(address), count);
            return @bitCast(@as(@Vector(lanes, u32), some(u16, lanes, @ptrFromInt(address), count)) << @splat(16));
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
