// Attention of a few queries, as in decoding: keys and values are read once, as they lie, for all queries that share them; the
// lanes run along d. Long caches are cut into ranges of keys, so that a single query still gives work to many threads.
// Not the attention of many queries: attention_vector.zig. Read next: attention.zig (Ranges).
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("attention.zig");
const block = plan.block;
const blocks = @import("attention_block.zig");
const math = @import("math.zig");

const Bytes = [*]align(64) u8;
const inf = std.math.inf(f32);

pub fn Few(comptime lanes: comptime_int) type {
    return struct {
        const B = blocks.Block(lanes);
        const L = B.L;
        const V = L.V;

        /// Keys whose products with a query are summed side by side.
        const together = @min(lanes, 8);

        /// What a range of keys gives for one query: the largest score, the sum of 2^(score - top), and so weighed, the sum of v.
        const Partial = struct {
            top: *f32,
            total: *f32,
            sums: [*]f32,

            fn at(from: [*]f32, row: usize, padded: usize) Partial {
                const own = from + row * (padded + lanes);
                return .{ .sums = own, .top = &own[padded], .total = &own[padded + 1] };
            }
        };

        /// Phase 0: a range of keys of one kv head, for its queries. Phase 1: the ranges joined in order, for one kv head.
        pub fn attention(args: *const ops.Attention, phase: u32, tile: u32, workspace: Bytes, scratch: Bytes) void {
            @setRuntimeSafety(false);
            const ranges: plan.Ranges = .init(args);
            const padded = plan.padded(args.d, lanes);
            const rows = ranges.rows;
            const partials = rows * (padded + lanes);
            if (phase == 1) return join(args, ranges, tile, @as([*]f32, @ptrCast(workspace)) + tile * ranges.count * partials);
            const place: Place = .{ .batch = tile / ranges.count / args.kv_heads, .kv_head = tile / ranges.count % args.kv_heads };
            const room: [*]f32 = @ptrCast(scratch);
            const own = if (ranges.count == 1) room + block + rows * padded else @as([*]f32, @ptrCast(workspace)) + tile * partials;
            const range = tile % ranges.count;
            overKeys(args, ranges, place, range * ranges.step, @min((range + 1) * ranges.step, args.kv_len), room, own);
            if (ranges.count == 1) join(args, ranges, tile, own);
        }

        const Place = struct { batch: usize, kv_head: usize };

        /// The query's place among those of its kv head: queries of the first head, then of the next.
        fn headOf(args: *const ops.Attention, place: Place, row: usize) [2]usize {
            return .{ place.kv_head * (args.heads / args.kv_heads) + row / args.q_len, row % args.q_len };
        }

        fn overKeys(args: *const ops.Attention, ranges: plan.Ranges, place: Place, begin: usize, end: usize, room: [*]f32, partials: [*]f32) void {
            @setRuntimeSafety(false);
            const d: usize = args.d;
            const padded = plan.padded(args.d, lanes);
            const scores = room;
            const queries = room + block;
            const k = args.k.f32s() + place.batch * args.k_batch + place.kv_head * args.k_head;
            const v = args.v.f32s() + place.batch * args.v_batch + place.kv_head * args.v_head;
            B.ask(k + begin * args.k_time, args.k_time, @min(block, end - begin), d, false);
            for (0..ranges.rows) |row| {
                const head, const t = headOf(args, place, row);
                const q = args.q.f32s() + place.batch * args.q_batch + t * args.q_time + head * args.q_head;
                const own: Partial = .at(partials, row, padded);
                own.top.* = -inf;
                own.total.* = 0;
                @memset(own.sums[0..padded], 0);
                var i: usize = 0;
                while (i < padded) : (i += lanes) L.store(queries + row * padded + i, L.all(args.scale * std.math.log2e) * some(q + i, d - i));
            }
            var first = begin;
            while (first < end) : (first += block) {
                B.ask(v + first * args.v_time, args.v_time, @min(block, end - first), d, false);
                if (first + block < end) B.ask(k + (first + block) * args.k_time, args.k_time, @min(block, end - first - block), d, false);
                for (0..ranges.rows) |row| {
                    const seen = plan.seen(args, headOf(args, place, row)[1]);
                    if (seen <= first) continue;
                    const n = @min(seen, end, first + block) - first;
                    const own: Partial = .at(partials, row, padded);
                    score(scores, queries + row * padded, k + first * args.k_time, args.k_time, n, d);
                    weigh(scores, n, v + first * args.v_time, args.v_time, d, own);
                }
            }
        }

        /// q k^T of n keys, -inf behind them to a whole vector: as many keys at a time as there are lanes.
        fn score(to: [*]f32, q: [*]const f32, k: [*]const f32, stride: usize, n: usize, d: usize) void {
            @setRuntimeSafety(false);
            var j: usize = 0;
            while (j < n) : (j += lanes) {
                var sums: [lanes]V = @splat(L.all(0));
                inline for (0..lanes / together) |g| {
                    var rows: [together][*]const f32 = undefined;
                    inline for (0..together) |r| rows[r] = k + @min(j + g * together + r, n - 1) * stride;
                    var i: usize = 0;
                    while (i + lanes <= d) : (i += lanes) {
                        const x = L.load(q + i);
                        inline for (0..together) |r| sums[g * together + r] = @mulAdd(V, x, L.load(rows[r] + i), sums[g * together + r]);
                    }
                    if (i < d) {
                        const x = L.load(q + i);
                        inline for (0..together) |r| sums[g * together + r] = @mulAdd(V, x, L.loadPart(rows[r] + i, d - i, 0), sums[g * together + r]);
                    }
                }
                const scores = totals(&sums);
                if (j + lanes <= n) {
                    L.store(to + j, scores);
                } else {
                    const there = std.simd.iota(u32, lanes) < @as(L.U, @splat(@intCast(n - j)));
                    L.store(to + j, @select(f32, there, scores, L.all(-inf)));
                }
            }
        }

        /// The sum of each vector's lanes, in its lane: halves of two vectors are added at a time.
        inline fn totals(sums: *[lanes]V) V {
            comptime var step = lanes / 2;
            inline while (step > 0) : (step /= 2) {
                comptime var low: [lanes]i32 = undefined;
                comptime var high: [lanes]i32 = undefined;
                comptime for (0..lanes) |i| {
                    low[i] = if (i & step == 0) i else ~@as(i32, i - step);
                    high[i] = if (i & step == 0) i + step else ~@as(i32, i);
                };
                inline for (0..step) |i| sums[i] = @shuffle(f32, sums[i], sums[i + step], low) + @shuffle(f32, sums[i], sums[i + step], high);
            }
            return sums[0];
        }

        /// Scores become weights, and the sums move on. A NaN among the scores comes out of its weight.
        fn weigh(scores: [*]f32, n: usize, v: [*]const f32, stride: usize, d: usize, own: Partial) void {
            @setRuntimeSafety(false);
            var tops = L.all(own.top.*);
            var j: usize = 0;
            while (j < n) : (j += lanes) tops = larger(L.load(scores + j), tops);
            const top = L.largest(tops);
            // Only -inf so far: all weights are 0, and 0 / 0 in the end.
            const base = L.all(if (top == -inf) 0 else top);
            var sum = L.all(0);
            j = 0;
            while (j < n) : (j += lanes) {
                const weight = B.exp2(L.load(scores + j) - base);
                L.store(scores + j, weight);
                sum += weight;
            }
            const factor = B.exp2(L.all(own.top.*) - base);
            own.top.* = top;
            own.total.* = @mulAdd(f32, own.total.*, factor[0], L.total(sum));
            var i: usize = 0;
            while (i + 4 * lanes <= d) : (i += 4 * lanes) addRows(4, scores, n, v + i, stride, factor, own.sums + i);
            while (i + lanes <= d) : (i += lanes) addRows(1, scores, n, v + i, stride, factor, own.sums + i);
            if (i == d) return;
            var rest = L.load(own.sums + i) * factor;
            for (0..n) |s| rest = @mulAdd(V, L.all(scores[s]), L.loadPart(v + s * stride + i, d - i, 0), rest);
            L.store(own.sums + i, rest);
        }

        inline fn addRows(comptime vectors: comptime_int, weights: [*]const f32, n: usize, v: [*]const f32, stride: usize, factor: V, to: [*]f32) void {
            var sums: [2][vectors]V = @splat(@splat(L.all(0)));
            inline for (0..vectors) |c| sums[0][c] = L.load(to + c * lanes) * factor;
            var j: usize = 0;
            while (j + 2 <= n) : (j += 2) {
                inline for (0..2) |s| {
                    inline for (0..vectors) |c| sums[s][c] = @mulAdd(V, L.all(weights[j + s]), L.load(v + (j + s) * stride + c * lanes), sums[s][c]);
                }
            }
            if (j < n) {
                inline for (0..vectors) |c| sums[0][c] = @mulAdd(V, L.all(weights[j]), L.load(v + j * stride + c * lanes), sums[0][c]);
            }
            inline for (0..vectors) |c| L.store(to + c * lanes, sums[0][c] + sums[1][c]);
        }

        /// As @max, but where a is NaN it is b.
        inline fn larger(a: V, b: V) V {
            return @select(f32, a > b, a, b);
        }

        inline fn some(from: [*]const f32, n: usize) V {
            return if (n >= lanes) L.load(from) else L.loadPart(from, n, 0);
        }

        /// o and lse of one kv head's queries, from the ranges in order.
        fn join(args: *const ops.Attention, ranges: plan.Ranges, tile: u32, partials: [*]f32) void {
            @setRuntimeSafety(false);
            const padded = plan.padded(args.d, lanes);
            const step = ranges.rows * (padded + lanes);
            const place: Place = .{ .batch = tile / args.kv_heads, .kv_head = tile % args.kv_heads };
            for (0..ranges.rows) |row| {
                const head, const t = headOf(args, place, row);
                const o = args.o.f32s() + place.batch * args.o_batch + t * args.o_time + head * args.o_head;
                const all: Partial = .at(partials, row, padded);
                for (1..ranges.count) |range| {
                    const other: Partial = .at(partials + range * step, row, padded);
                    const top = if (other.top.* > all.top.*) other.top.* else all.top.*;
                    const base = if (top == -inf) 0 else top;
                    const factors = [2]V{ B.exp2(L.all(all.top.* - base)), B.exp2(L.all(other.top.* - base)) };
                    var i: usize = 0;
                    while (i < padded) : (i += lanes) L.store(all.sums + i, @mulAdd(V, L.load(other.sums + i), factors[1], L.load(all.sums + i) * factors[0]));
                    all.total.* = @mulAdd(f32, other.total.*, factors[1][0], all.total.* * factors[0][0]);
                    all.top.* = top;
                }
                if (args.kv_len == 0) @memset(o[0..args.d], 0) else B.put(o, all.sums, args.d, L.all(1 / all.total.*), false);
                if (args.lse.present()) args.lse.f32s()[(place.batch * args.heads + head) * args.q_len + t] = @mulAdd(f32, all.top.*, std.math.ln2, math.log1(all.total.*));
            }
        }
    };
}
