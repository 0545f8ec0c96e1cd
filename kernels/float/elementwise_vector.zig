// Vector kernels for what goes element by element, one source for all tiers. All of them wait for memory; each operation is a
// loop of its own, so that nothing is decided inside. Not the checks: elementwise.zig. Read next: elementwise_scalar.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("elementwise.zig");
const math = @import("math.zig");
const Lanes = @import("lanes.zig").Lanes;

const Bytes = [*]align(64) u8;

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const L = Lanes(lanes);
        const V = L.V;
        const U = L.U;

        pub fn fill(args: *const ops.Fill, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            const first, const end = plan.flatRange(tile, args.count);
            const y = args.y.f32s();
            const value = L.all(args.value);
            var i = first;
            while (i + lanes <= end) : (i += lanes) L.store(y + i, value);
            while (i < end) : (i += 1) y[i] = args.value;
        }

        pub fn binary(args: *const ops.Binary, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            switch (@as(ops.BinaryOp, @enumFromInt(args.operation))) {
                inline else => |operation| switch (args.accumulate) {
                    inline 0, 1 => |accumulate| rows(operation, accumulate == 1, args, tile),
                    else => unreachable,
                },
            }
        }

        fn rows(comptime operation: ops.BinaryOp, comptime accumulate: bool, args: *const ops.Binary, tile: u32) void {
            const grid = plan.binaryGrid(args);
            const first_row, const end_row, const first_col, const end_col = grid.block(tile);
            const n = end_col - first_col;
            for (first_row..end_row) |row| {
                const at = row * @as(usize, @intCast(grid.cols)) + first_col;
                const a = args.a.f32s() + at;
                const y = args.y.f32s() + at;
                switch (@as(ops.Broadcast, @enumFromInt(args.broadcast))) {
                    .same => span(operation, accumulate, a, args.b.f32s() + at, y, n, args.alpha),
                    .row => span(operation, accumulate, a, args.b.f32s() + first_col, y, n, args.alpha),
                    .column => span(operation, accumulate, a, L.all(args.b.f32s()[row]), y, n, args.alpha),
                    .scalar => span(operation, accumulate, a, L.all(args.b.f32s()[0]), y, n, args.alpha),
                }
            }
        }

        /// One run of elements; b lies beside a, or is the same for all.
        inline fn span(comptime operation: ops.BinaryOp, comptime accumulate: bool, a: [*]const f32, b: anytype, y: [*]f32, n: usize, alpha: f32) void {
            const beside = @TypeOf(b) != V;
            const factor = L.all(alpha);
            var i: usize = 0;
            while (i + lanes <= n) : (i += lanes) {
                const value = factor * apply(operation, L.load(a + i), if (beside) L.load(b + i) else b);
                L.store(y + i, if (accumulate) L.load(y + i) + value else value);
            }
            if (i == n) return;
            const value = factor * apply(operation, L.loadPart(a + i, n - i, 1), if (beside) L.loadPart(b + i, n - i, 1) else b);
            L.storePart(y + i, if (accumulate) L.loadPart(y + i, n - i, 0) + value else value, n - i);
        }

        inline fn apply(comptime operation: ops.BinaryOp, a: V, b: V) V {
            return switch (operation) {
                .add => a + b,
                .subtract => a - b,
                .multiply => a * b,
                .divide => a / b,
                .maximum => @select(f32, a > b, a, @select(f32, a != a, a, b)),
                .minimum => @select(f32, a < b, a, @select(f32, a != a, a, b)),
                .greater => @select(f32, a > b, L.all(1), L.all(0)),
                .greater_equal => @select(f32, a >= b, L.all(1), L.all(0)),
                .equal => @select(f32, a == b, L.all(1), L.all(0)),
            };
        }

        pub fn unary(args: *const ops.Unary, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            switch (@as(ops.UnaryOp, @enumFromInt(args.operation))) {
                inline else => |operation| switch (args.accumulate) {
                    inline 0, 1 => |accumulate| elements(operation, accumulate == 1, args, tile),
                    else => unreachable,
                },
            }
        }

        fn elements(comptime operation: ops.UnaryOp, comptime accumulate: bool, args: *const ops.Unary, tile: u32) void {
            const first, const end = plan.flatRange(tile, args.count);
            const x = args.x.f32s();
            const y = args.y.f32s();
            const alpha = L.all(args.alpha);
            const beta = L.all(args.beta);
            var i = first;
            while (i + lanes <= end) : (i += lanes) {
                const value = alpha * function(operation, L.load(x + i)) + beta;
                L.store(y + i, if (accumulate) L.load(y + i) + value else value);
            }
            if (i == end) return;
            const value = alpha * function(operation, L.loadPart(x + i, end - i, 1)) + beta;
            L.storePart(y + i, if (accumulate) L.loadPart(y + i, end - i, 0) + value else value, end - i);
        }

        inline fn function(comptime operation: ops.UnaryOp, x: V) V {
            return switch (operation) {
                .identity => x,
                .absolute => @abs(x),
                .sign => @select(f32, x > L.all(0), L.all(1), @select(f32, x < L.all(0), L.all(-1), x)),
                .square => x * x,
                .sqrt => @sqrt(x),
                .rsqrt => math.rsqrt(x),
                .reciprocal => L.all(1) / x,
                .exp => math.exp(x),
                .log => math.log(x),
            };
        }

        pub fn convert(args: *const ops.Convert, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            const first, const end = plan.flatRange(tile, args.count);
            const n = end - first;
            switch (@as(ops.Dtype, @enumFromInt(args.from))) {
                .f32 => each(f32, u16, args.x.f32s() + first, args.y.bf16s() + first, n, L.narrow),
                .bf16 => each(u16, f32, args.x.bf16s() + first, args.y.f32s() + first, n, L.widen),
                .i32 => each(i32, f32, args.x.i32s() + first, args.y.f32s() + first, n, whole),
                .i8 => unreachable,
            }
        }

        inline fn whole(x: L.I) V {
            return @floatFromInt(x);
        }

        inline fn each(comptime From: type, comptime To: type, x: [*]const From, y: [*]To, n: usize, comptime change: fn (@Vector(lanes, From)) callconv(.@"inline") @Vector(lanes, To)) void {
            const X = @Vector(lanes, From);
            const Y = @Vector(lanes, To);
            var i: usize = 0;
            while (i + lanes <= n) : (i += lanes) {
                @as(*align(@alignOf(To)) Y, @ptrCast(y + i)).* = change(@as(*align(@alignOf(From)) const X, @ptrCast(x + i)).*);
            }
            if (i == n) return;
            var part: [lanes]From = @splat(0);
            for (part[0 .. n - i], x[i..n]) |*to, value| to.* = value;
            const changed: [lanes]To = change(part);
            for (y[i..n], changed[0 .. n - i]) |*to, value| to.* = value;
        }

        pub fn dropout(args: *const ops.Dropout, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            const first, const end = plan.flatRange(tile, args.count);
            const mask: plan.Mask = .init(args);
            if (mask.threshold > std.math.maxInt(u32)) return drop(args, first, end, mask, 0);
            drop(args, first, end, mask, @intCast(mask.threshold));
        }

        /// 4 * lanes elements at a time: as many counters as lanes, four words of each.
        fn drop(args: *const ops.Dropout, first: usize, end: usize, mask: plan.Mask, threshold: u32) void {
            const x = args.x.f32s();
            const y = args.y.f32s();
            var i = first;
            while (i < end) : (i += 4 * lanes) {
                const counters = @as(U, @splat(@intCast(i / 4))) + std.simd.iota(u32, lanes);
                const words = plan.philox(U, .{ counters, @splat(args.stream), @splat(mask.step), @splat(0) }, args.seed, highLow, splat);
                var factors: [4]V = undefined;
                inline for (words, 0..) |word, w| factors[w] = @select(f32, word >= @as(U, @splat(threshold)), L.all(mask.scale), L.all(0));
                const ordered: [4 * lanes]f32 = std.simd.interlace(factors);
                inline for (0..4) |part| {
                    const at = i + part * lanes;
                    const factor: V = ordered[part * lanes ..][0..lanes].*;
                    if (at + lanes <= end) {
                        const value = L.load(x + at) * factor;
                        L.store(y + at, if (args.accumulate == 1) L.load(y + at) + value else value);
                    } else if (at < end) {
                        const value = L.loadPart(x + at, end - at, 0) * factor;
                        L.storePart(y + at, if (args.accumulate == 1) L.loadPart(y + at, end - at, 0) + value else value, end - at);
                    }
                }
            }
        }

        /// High and low words of 32 x 32 bit products: those of even lanes, those of odd lanes, then both put together.
        inline fn highLow(a: U, b: u32) [2]U {
            const Wide = @Vector(lanes / 2, u64);
            const half: @Vector(lanes / 2, u6) = @splat(32);
            const low: Wide = @splat(0xffff_ffff);
            const factor: Wide = @splat(b);
            const even = (@as(Wide, @bitCast(a)) & low) * factor;
            const odd = (@as(Wide, @bitCast(a)) >> half) * factor;
            return .{ @bitCast((even >> half) | (odd & ~low)), @bitCast((even & low) | (odd << half)) };
        }

        inline fn splat(word: u32) U {
            return @splat(word);
        }

        pub fn copy(args: *const ops.Copy, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            if (args.dtype == @intFromEnum(ops.Dtype.bf16)) return planes(u16, args, tile);
            planes(u32, args, tile);
        }

        fn planes(comptime T: type, args: *const ops.Copy, tile: u32) void {
            const range, const block = plan.CopyTiles.init(args).tile(tile);
            const first_row, const end_row, const first_col, const end_col = block;
            const size = [_]usize{ end_row - first_row, end_col - first_col };
            for (range[0]..range[1]) |plane| {
                const from, const to = plan.CopyTiles.block(args, plane, first_row, first_col);
                const x = @as([*]const T, @ptrFromInt(args.x.at)) + from;
                const y = @as([*]T, @ptrFromInt(args.y.at)) + to;
                if (T == u32 and args.accumulate == 1) {
                    move(f32, true, args, @ptrCast(x), @ptrCast(y), size);
                } else move(T, false, args, x, y, size);
            }
        }

        /// One block of a plane, by how x and y run in it.
        fn move(comptime T: type, comptime accumulate: bool, args: *const ops.Copy, x: [*]const T, y: [*]T, size: [2]usize) void {
            const x_row, const x_col = .{ @as(usize, args.x_strides[4]), @as(usize, args.x_strides[5]) };
            const y_row, const y_col = .{ @as(usize, args.y_strides[4]), @as(usize, args.y_strides[5]) };
            var done: [2]usize = .{ 0, 0 };
            if (y_col == 1 and x_col <= 1) {
                for (0..size[0]) |row| line(T, accumulate, x + row * x_row, y + row * y_row, size[1], x_col == 0);
                return;
            }
            if (y_col == 1 and x_row == 1 and @sizeOf(T) == 4) {
                while (done[0] + lanes <= size[0]) : (done[0] += lanes) {
                    done[1] = 0;
                    while (done[1] + lanes <= size[1]) : (done[1] += lanes) {
                        turn(T, accumulate, x + done[0] + done[1] * x_col, x_col, y + done[0] * y_row + done[1], y_row);
                    }
                    single(T, accumulate, args, x, y, .{ done[0], done[1] }, .{ done[0] + lanes, size[1] });
                }
            }
            single(T, accumulate, args, x, y, .{ done[0], 0 }, size);
        }

        inline fn line(comptime T: type, comptime accumulate: bool, x: [*]const T, y: [*]T, n: usize, repeated: bool) void {
            const W = @Vector(lanes, T);
            var i: usize = 0;
            while (i + lanes <= n) : (i += lanes) {
                const value: W = if (repeated) @splat(x[0]) else @as(*align(@alignOf(T)) const W, @ptrCast(x + i)).*;
                const target: *align(@alignOf(T)) W = @ptrCast(y + i);
                target.* = if (accumulate) target.* + value else value;
            }
            while (i < n) : (i += 1) {
                const value = if (repeated) x[0] else x[i];
                y[i] = if (accumulate) y[i] + value else value;
            }
        }

        /// A square of lanes x lanes elements: columns of x, loaded as rows, become columns of y.
        inline fn turn(comptime T: type, comptime accumulate: bool, x: [*]const T, x_stride: usize, y: [*]T, y_stride: usize) void {
            const W = @Vector(lanes, T);
            var block: [lanes]W = undefined;
            inline for (0..lanes) |i| block[i] = @as(*align(4) const W, @ptrCast(x + i * x_stride)).*;
            inline for (0..comptime std.math.log2_int(usize, lanes)) |_| {
                const before = block;
                inline for (0..lanes / 2) |i| {
                    block[2 * i] = @shuffle(T, before[i], before[i + lanes / 2], halves(0));
                    block[2 * i + 1] = @shuffle(T, before[i], before[i + lanes / 2], halves(lanes / 2));
                }
            }
            inline for (0..lanes) |i| {
                const target: *align(4) W = @ptrCast(y + i * y_stride);
                target.* = if (accumulate) target.* + block[i] else block[i];
            }
        }

        fn halves(comptime from: i32) @Vector(lanes, i32) {
            var indices: [lanes]i32 = undefined;
            for (0..lanes / 2) |i| {
                indices[2 * i] = from + @as(i32, @intCast(i));
                indices[2 * i + 1] = ~(from + @as(i32, @intCast(i)));
            }
            return indices;
        }

        /// Element by element: whatever strides.
        fn single(comptime T: type, comptime accumulate: bool, args: *const ops.Copy, x: [*]const T, y: [*]T, first: [2]usize, end: [2]usize) void {
            for (first[0]..end[0]) |row| {
                const from = x + row * args.x_strides[4];
                const to = y + row * args.y_strides[4];
                for (first[1]..end[1]) |col| {
                    const value = from[col * args.x_strides[5]];
                    const target = &to[col * args.y_strides[5]];
                    target.* = if (accumulate) target.* + value else value;
                }
            }
        }
    };
}
