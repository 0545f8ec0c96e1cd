// Vector kernels for reductions, one source for all tiers. Along the last axis: several vectors of running sums, joined as a
// tree. Along others: a row of running sums in the worker's scratch, rows of x in the order of memory.
// Not the checks: reduce.zig has them. Read next: reduce_scalar.zig, the same in plain loops.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("reduce.zig");
const scalar = @import("reduce_scalar.zig");
const Lanes = @import("lanes.zig").Lanes;

const Bytes = [*]align(64) u8;

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const L = Lanes(lanes);
        const V = L.V;
        const I = L.I;

        pub fn reduce(args: *const ops.Reduce, phase: u32, tile: u32, workspace: Bytes, scratch: Bytes) void {
            const cut = plan.cutOf(args);
            if (phase == 1) return join(args, cut, tile, workspace);
            const part = cut.tile(tile);
            switch (@as(ops.Reduction, @enumFromInt(args.operation))) {
                .max => if (args.inner == 1) largest(args, cut, part, workspace) else largestColumns(args, cut, part, workspace, scratch),
                .mean => sums(.sum, args, cut, part, workspace, scratch),
                inline else => |operation| sums(operation, args, cut, part, workspace, scratch),
            }
        }

        /// The pieces of each result, in order, lanes results at a time: f64 as in the scalar twin.
        fn join(args: *const ops.Reduce, cut: plan.Cut, tile: u32, workspace: Bytes) void {
            const first, const end = cut.joinRange(tile);
            const inner: usize = args.inner;
            const maximum = args.operation == @intFromEnum(ops.Reduction.max);
            // Results of one tile that lie in one row of `inner`, and so do their pieces.
            if (maximum or first / inner != (end - 1) / inner) return scalar.join(args, cut, tile, workspace);
            const pieces: usize = @intCast(cut.pieces);
            const values = @as([*]const f32, @ptrCast(workspace)) + first / inner * pieces * inner + first % inner;
            var at: usize = 0;
            while (at < end - first) : (at += lanes) {
                const n = @min(end - first - at, lanes);
                var sum: @Vector(lanes, f64) = @splat(0);
                for (0..pieces) |piece| {
                    const from = values + piece * inner + at;
                    sum += @as(@Vector(lanes, f64), @floatCast(if (n == lanes) L.load(from) else L.loadPart(from, n, 0)));
                }
                const each: [lanes]f64 = sum;
                for (each[0..n], first + at..) |value, result| scalar.finish(args, result, value, .{});
            }
        }

        fn sums(comptime operation: ops.Reduction, args: *const ops.Reduce, cut: plan.Cut, part: plan.Cut.Tile, workspace: Bytes, scratch: Bytes) void {
            if (args.inner != 1) return columns(operation, args, cut, part, workspace, scratch);
            const values: [*]f32 = @ptrCast(workspace);
            for (part.outer[0]..part.outer[1]) |o| {
                const x = args.x.f32s() + o * args.axis;
                const sum = along(operation, x + part.axis[0], part.axis[1] - part.axis[0]);
                if (cut.pieces == 1) scalar.finish(args, o, sum, .{}) else values[o * @as(usize, @intCast(cut.pieces)) + part.piece] = sum;
            }
        }

        /// What is added up: x, x^2, or 1 where x is not finite.
        inline fn term(comptime operation: ops.Reduction, x: V) V {
            return switch (operation) {
                .sum => x,
                .nonfinite => blk: {
                    const exponent: L.U = @splat(0x7f80_0000);
                    break :blk @select(f32, @as(L.U, @bitCast(x)) & exponent == exponent, L.all(1), L.all(0));
                },
                else => comptime unreachable,
            };
        }

        inline fn add(comptime operation: ops.Reduction, sum: V, x: V) V {
            return if (operation == .sumsq) @mulAdd(V, x, x, sum) else sum + term(operation, x);
        }

        const strands = 8;

        fn along(comptime operation: ops.Reduction, x: [*]const f32, n: usize) f32 {
            var sum: [strands]V = @splat(L.all(0));
            var i: usize = 0;
            while (i + strands * lanes <= n) : (i += strands * lanes) {
                inline for (0..strands) |s| sum[s] = add(operation, sum[s], L.load(x + i + s * lanes));
            }
            while (i + lanes <= n) : (i += lanes) sum[0] = add(operation, sum[0], L.load(x + i));
            if (i < n) sum[1] = add(operation, sum[1], L.loadPart(x + i, n - i, 0));
            inline for (.{ 4, 2, 1 }) |half| {
                inline for (0..half) |s| sum[s] += sum[s + half];
            }
            return L.total(sum[0]);
        }

        /// Eight rows of x at a time onto one row of sums.
        fn columns(comptime operation: ops.Reduction, args: *const ops.Reduce, cut: plan.Cut, part: plan.Cut.Tile, workspace: Bytes, scratch: Bytes) void {
            const n = part.inner[1] - part.inner[0];
            const sum: [*]f32 = @ptrCast(scratch);
            const o = part.outer[0];
            const inner: usize = args.inner;
            const x = args.x.f32s() + o * args.axis * inner + part.inner[0];
            @memset(sum[0..n], 0);
            var a = part.axis[0];
            while (a < part.axis[1]) {
                const rows = @min(part.axis[1] - a, 8);
                switch (rows) {
                    inline 1...8 => |count| addRows(operation, count, sum, x + a * inner, inner, n),
                    else => unreachable,
                }
                a += rows;
            }
            if (cut.pieces > 1) {
                const values: [*]f32 = @ptrCast(workspace);
                @memcpy(values[(o * @as(usize, @intCast(cut.pieces)) + part.piece) * inner + part.inner[0] ..][0..n], sum[0..n]);
            } else for (part.inner[0]..part.inner[1], sum[0..n]) |i, value| scalar.finish(args, o * inner + i, value, .{});
        }

        inline fn addRows(comptime operation: ops.Reduction, comptime count: comptime_int, sum: [*]f32, x: [*]const f32, stride: usize, n: usize) void {
            var i: usize = 0;
            while (i + lanes <= n) : (i += lanes) {
                var rows: [count]V = undefined;
                inline for (0..count) |row| rows[row] = L.load(x + row * stride + i);
                L.store(sum + i, L.load(sum + i) + together(operation, count, rows));
            }
            if (i == n) return;
            var rows: [count]V = undefined;
            inline for (0..count) |row| rows[row] = L.loadPart(x + row * stride + i, n - i, 0);
            L.storePart(sum + i, L.loadPart(sum + i, n - i, 0) + together(operation, count, rows), n - i);
        }

        inline fn together(comptime operation: ops.Reduction, comptime count: comptime_int, rows: [count]V) V {
            var part: [4]V = @splat(L.all(0));
            inline for (rows, 0..) |row, r| part[r % 4] = add(operation, part[r % 4], row);
            return (part[0] + part[1]) + (part[2] + part[3]);
        }

        /// x where it is larger than `best`, or the first NaN.
        inline fn larger(x: V, best: V) @Vector(lanes, bool) {
            const unordered = @select(f32, best == best, x, best); // NaN where either is
            return @select(bool, x > best, @as(@Vector(lanes, bool), @splat(true)), (unordered != unordered) & (best == best));
        }

        fn largest(args: *const ops.Reduce, cut: plan.Cut, part: plan.Cut.Tile, workspace: Bytes) void {
            for (part.outer[0]..part.outer[1]) |o| {
                const best = largestOf(args.x.f32s() + o * args.axis, part.axis[0], part.axis[1]);
                if (cut.pieces == 1) {
                    scalar.finish(args, o, 0, best);
                } else {
                    const at = o * @as(usize, @intCast(cut.pieces)) + part.piece;
                    @as([*]f32, @ptrCast(workspace))[at] = best.value;
                    plan.positions(workspace, cut)[at] = @intCast(best.position);
                }
            }
        }

        /// Integers in the order of the numbers: 0 and -0 alike, NaN above all.
        inline fn key(x: V) I {
            const bits: I = @bitCast(x + L.all(0));
            const magnitude: I = @splat(0x7fff_ffff);
            const ordered = bits ^ ((bits >> @as(L.Shift, @splat(31))) & magnitude);
            return @select(i32, x != x, magnitude, ordered);
        }

        fn largestOf(x: [*]const f32, first: usize, end: usize) scalar.Best {
            var best: scalar.Best = .{};
            var i = first;
            if (end - first >= lanes) {
                const step: I = @splat(lanes);
                var index = std.simd.iota(i32, lanes) + @as(I, @splat(@intCast(first)));
                var most = key(L.load(x + first));
                var place = index;
                i += lanes;
                while (i + lanes <= end) : (i += lanes) {
                    index +%= step;
                    const next = key(L.load(x + i));
                    place = @select(i32, next > most, index, place);
                    most = @max(next, most);
                }
                // The lanes' winners; of equal ones the first in x.
                const keys: [lanes]i32 = most;
                const places: [lanes]i32 = place;
                var winner: usize = 0;
                inline for (1..lanes) |lane| {
                    const equal = keys[lane] == keys[winner] and places[lane] < places[winner];
                    if (keys[lane] > keys[winner] or equal) winner = lane;
                }
                best = .{ .value = x[@intCast(places[winner])], .position = @intCast(places[winner]) };
            }
            while (i < end) : (i += 1) best.see(x[i], i);
            return best;
        }

        fn largestColumns(args: *const ops.Reduce, cut: plan.Cut, part: plan.Cut.Tile, workspace: Bytes, scratch: Bytes) void {
            const n = part.inner[1] - part.inner[0];
            const inner: usize = args.inner;
            const o = part.outer[0];
            const value: [*]f32 = @ptrCast(scratch);
            const place: [*]i32 = @ptrCast(scratch + 4 * plan.block_columns);
            const x = args.x.f32s() + o * args.axis * inner + part.inner[0];
            @memcpy(value[0..n], x[part.axis[0] * inner ..][0..n]);
            @memset(place[0..n], @intCast(part.axis[0]));
            for (part.axis[0] + 1..part.axis[1]) |a| {
                const row = x + a * inner;
                var i: usize = 0;
                while (i + lanes <= n) : (i += lanes) {
                    const next = L.load(row + i);
                    const before = L.load(value + i);
                    const better = larger(next, before);
                    const places: *align(4) I = @ptrCast(place + i);
                    L.store(value + i, @select(f32, better, next, before));
                    places.* = @select(i32, better, @as(I, @splat(@intCast(a))), places.*);
                }
                while (i < n) : (i += 1) {
                    var best: scalar.Best = .{ .value = value[i], .position = @intCast(place[i]) };
                    best.see(row[i], a);
                    value[i] = best.value;
                    place[i] = @intCast(best.position);
                }
            }
            for (part.inner[0]..part.inner[1], value[0..n], place[0..n]) |i, found, at| {
                const best: scalar.Best = .{ .value = found, .position = @intCast(at) };
                if (cut.pieces == 1) {
                    scalar.finish(args, o * inner + i, 0, best);
                } else {
                    const to = (o * @as(usize, @intCast(cut.pieces)) + part.piece) * inner + i;
                    @as([*]f32, @ptrCast(workspace))[to] = found;
                    plan.positions(workspace, cut)[to] = at;
                }
            }
        }

        pub fn reduce_backward(args: *const ops.ReduceBackward, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            switch (@as(ops.Reduction, @enumFromInt(args.operation))) {
                .sum, .mean => spread(.sum, args, tile),
                .sumsq => spread(.sumsq, args, tile),
                .max => spread(.max, args, tile),
                .nonfinite => unreachable,
            }
        }

        fn spread(comptime operation: ops.Reduction, args: *const ops.ReduceBackward, tile: u32) void {
            const grid = plan.backwardGrid(args);
            const first_row, const end_row, const first_col, const end_col = grid.block(tile);
            const cols: usize = @intCast(grid.cols);
            const n = end_col - first_col;
            for (first_row..end_row) |row| {
                const at = row * cols + first_col;
                const last = args.inner == 1;
                const result = if (last) row else row / args.axis * args.inner + first_col;
                const axis: I = if (last) std.simd.iota(i32, lanes) +% @as(I, @splat(@bitCast(@as(u32, @truncate(first_col))))) else @splat(@bitCast(@as(u32, @truncate(row % args.axis))));
                var i: usize = 0;
                while (i < n) : (i += lanes) {
                    const rest = @min(n - i, lanes);
                    const whole = rest == lanes;
                    const from = args.dy.f32s() + result + i;
                    const dy = if (last) L.all(args.dy.f32s()[result]) else if (whole) L.load(from) else L.loadPart(from, rest, 0);
                    const value = switch (operation) {
                        .sum => L.all(plan.factorOf(args)) * dy,
                        .sumsq => blk: {
                            const x = args.x.f32s() + at + i;
                            break :blk L.all(plan.factorOf(args) * 2) * (if (whole) L.load(x) else L.loadPart(x, rest, 0)) * dy;
                        },
                        .max => blk: {
                            const index = args.index.i32s() + result;
                            const points: I = if (last) @splat(index[0]) else @bitCast(if (whole) L.load(@ptrCast(index + i)) else L.loadPart(@ptrCast(index + i), rest, 0));
                            const here = if (last) axis +% @as(I, @splat(@intCast(i))) else axis;
                            break :blk @select(f32, points == here, dy, L.all(0));
                        },
                        else => comptime unreachable,
                    };
                    const dx = args.dx.f32s() + at + i;
                    if (whole) {
                        L.store(dx, if (args.accumulate == 1) L.load(dx) + value else value);
                    } else L.storePart(dx, if (args.accumulate == 1) L.loadPart(dx, rest, 0) + value else value, rest);
                }
            }
        }
    };
}
