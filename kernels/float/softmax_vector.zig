// Vector kernels for softmax over rows, one source for all tiers; the second and third look at a row find it in the cache.
// Not the checks: softmax.zig has them. Read next: softmax_scalar.zig, the same in plain loops.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("softmax.zig");
const math = @import("math.zig");
const Lanes = @import("lanes.zig").Lanes;

const Bytes = [*]align(64) u8;
const inf = std.math.inf(f32);

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const L = Lanes(lanes);
        const V = L.V;
        const strands = 4;

        pub fn softmax(args: *const ops.Softmax, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            @setRuntimeSafety(false);
            const width: usize = args.width;
            const first, const end = plan.rowRange(tile, args.rows, args.width);
            for (first..end) |row| {
                const x = args.x.f32s() + row * width;
                const y = args.y.f32s() + row * width;
                const top = L.all(largest(x, width));
                switch (@as(ops.SoftmaxMode, @enumFromInt(args.mode))) {
                    .softmax => {
                        const scale = L.all(1 / powers(true, x, y, width, top));
                        var i: usize = 0;
                        while (i + lanes <= width) : (i += lanes) L.store(y + i, L.load(y + i) * scale);
                        if (i < width) L.storePart(y + i, L.loadPart(y + i, width - i, 0) * scale, width - i);
                    },
                    .log => {
                        const shift = L.all(math.log1(powers(false, x, y, width, top)));
                        var i: usize = 0;
                        while (i + lanes <= width) : (i += lanes) L.store(y + i, L.load(x + i) - top - shift);
                        if (i < width) L.storePart(y + i, L.loadPart(x + i, width - i, 0) - top - shift, width - i);
                    },
                }
            }
        }

        /// NaN does not count: it comes out of its exponential.
        inline fn largest(x: [*]const f32, n: usize) f32 {
            var tops: [strands]V = @splat(L.all(-inf));
            var i: usize = 0;
            while (i + strands * lanes <= n) : (i += strands * lanes) {
                inline for (0..strands) |s| tops[s] = larger(L.load(x + i + s * lanes), tops[s]);
            }
            while (i + lanes <= n) : (i += lanes) tops[0] = larger(L.load(x + i), tops[0]);
            if (i < n) tops[1] = larger(L.loadPart(x + i, n - i, -inf), tops[1]);
            const each: [lanes]f32 = larger(larger(tops[0], tops[1]), larger(tops[2], tops[3]));
            var top = each[0];
            for (each[1..]) |value| top = if (value > top) value else top;
            return top;
        }

        inline fn larger(a: V, b: V) V {
            return @select(f32, a > b, a, b);
        }

        /// The sum of exp(x - top), which go to y where they are to be kept.
        inline fn powers(comptime keep: bool, x: [*]const f32, y: [*]f32, n: usize, top: V) f32 {
            var sums: [strands]V = @splat(L.all(0));
            var i: usize = 0;
            while (i + strands * lanes <= n) : (i += strands * lanes) {
                inline for (0..strands) |s| {
                    @prefetch(x + n + i + s * lanes, .{}); // the next row
                    const value = math.expFlushed(L.load(x + i + s * lanes) - top);
                    if (keep) L.store(y + i + s * lanes, value);
                    sums[s] += value;
                }
            }
            while (i + lanes <= n) : (i += lanes) {
                const value = math.expFlushed(L.load(x + i) - top);
                if (keep) L.store(y + i, value);
                sums[0] += value;
            }
            if (i < n) {
                // Behind the row: 0, whatever top is.
                const value = math.expFlushed(L.loadPart(x + i, n - i, -inf) - top);
                if (keep) L.storePart(y + i, value, n - i);
                var part: [lanes]f32 = value;
                for (part[n - i ..]) |*rest| rest.* = 0;
                sums[1] += part;
            }
            return L.total((sums[0] + sums[1]) + (sums[2] + sums[3]));
        }

        pub fn softmax_backward(args: *const ops.SoftmaxBackward, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            @setRuntimeSafety(false);
            switch (@as(ops.SoftmaxMode, @enumFromInt(args.mode))) {
                inline else => |mode| backward(mode, args, tile),
            }
        }

        fn backward(comptime mode: ops.SoftmaxMode, args: *const ops.SoftmaxBackward, tile: u32) void {
            @setRuntimeSafety(false);
            const width: usize = args.width;
            const accumulate = args.accumulate == 1;
            const first, const end = plan.rowRange(tile, args.rows, args.width);
            for (first..end) |row| {
                const y = args.y.f32s() + row * width;
                const dy = args.dy.f32s() + row * width;
                const dx = args.dx.f32s() + row * width;
                var sums: [strands]V = @splat(L.all(0));
                var i: usize = 0;
                while (i + strands * lanes <= width) : (i += strands * lanes) {
                    inline for (0..strands) |s| sums[s] = add(mode, L.load(y + i + s * lanes), L.load(dy + i + s * lanes), sums[s]);
                }
                while (i + lanes <= width) : (i += lanes) sums[0] = add(mode, L.load(y + i), L.load(dy + i), sums[0]);
                if (i < width) sums[1] = add(mode, L.loadPart(y + i, width - i, 0), L.loadPart(dy + i, width - i, 0), sums[1]);
                const total = L.all(L.total((sums[0] + sums[1]) + (sums[2] + sums[3])));
                i = 0;
                while (i + lanes <= width) : (i += lanes) {
                    const value = gradient(mode, L.load(y + i), L.load(dy + i), total);
                    L.store(dx + i, if (accumulate) L.load(dx + i) + value else value);
                }
                if (i == width) continue;
                const n = width - i;
                const value = gradient(mode, L.loadPart(y + i, n, 0), L.loadPart(dy + i, n, 0), total);
                L.storePart(dx + i, if (accumulate) L.loadPart(dx + i, n, 0) + value else value, n);
            }
        }

        inline fn add(comptime mode: ops.SoftmaxMode, y: V, dy: V, sum: V) V {
            return if (mode == .log) sum + dy else @mulAdd(V, y, dy, sum);
        }

        inline fn gradient(comptime mode: ops.SoftmaxMode, y: V, dy: V, total: V) V {
            return if (mode == .log) @mulAdd(V, -math.exp(y), total, dy) else y * (dy - total);
        }
    };
}
