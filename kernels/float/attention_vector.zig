// Vector kernels for attention, forward and backward, one source for all tiers. A tile is a block of queries; it goes through
// the keys block by block with a running maximum and sum (flash attention: Dao et al. 2022, arXiv 2205.14135).
// Not the checks: attention.zig has them. Read next: attention_block.zig (the products), attention_backward_vector.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("attention.zig");
const block = plan.block;
const blocks = @import("attention_block.zig");
const math = @import("math.zig");
const View = blocks.View;

const Bytes = [*]align(64) u8;
const inf = std.math.inf(f32);

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const B = blocks.Block(lanes);
        const L = B.L;
        const V = L.V;

        pub const attention_backward = @import("attention_backward_vector.zig").Kernels(lanes).attention_backward;

        /// Scores are kept transposed, (key, query): the lanes are queries, so that maxima, sums and masks need no step across
        /// lanes, and rows of k and of p are read one value at a time.
        pub fn attention(args: *const ops.Attention, phase: u32, tile: u32, workspace: Bytes, scratch: Bytes) void {
            @setRuntimeSafety(false);
            if (args.q_len <= plan.few_queries) return @import("attention_few.zig").Few(lanes).attention(args, phase, tile, workspace, scratch);
            const place = plan.queriesOf(args, tile);
            const d: usize = args.d;
            const padded = plan.padded(args.d, lanes);
            const kv_head = place.head / (args.heads / args.kv_heads);
            const q = args.q.f32s() + place.batch * args.q_batch + place.first * args.q_time + place.head * args.q_head;
            const k = args.k.f32s() + place.batch * args.k_batch + kv_head * args.k_head;
            const v = args.v.f32s() + place.batch * args.v_batch + kv_head * args.v_head;
            const turned: [*]f32 = @ptrCast(scratch);
            const scores = turned + block * d;
            const values = scores + block * block;
            const sums = values + block * padded;
            const running: Running = .{ .top = sums + block * padded, .total = sums + block * padded + block, .factor = sums + block * padded + 2 * block };
            const vectors = (place.count + lanes - 1) / lanes;
            B.ask(q, args.q_time, place.count, d, false);
            B.ask(k, args.k_time, @min(block, args.kv_len), d, false);
            B.ask(v, args.v_time, @min(block, args.kv_len), d, false);
            B.transpose(turned, q, args.q_time, place.count, d, args.scale * std.math.log2e);
            for (0..vectors) |c| {
                L.store(running.top + c * lanes, L.all(-inf));
                L.store(running.total + c * lanes, L.all(0));
            }
            const keys = plan.seen(args, place.first + place.count - 1);
            var first: usize = 0;
            while (first < keys) : (first += block) {
                const n = @min(block, keys - first);
                const view: View = .init(args, place.first, first, n);
                if (first + n < keys) {
                    const next = @min(block, keys - first - n);
                    B.ask(k + (first + n) * args.k_time, args.k_time, next, d, false);
                    B.ask(v + (first + n) * args.v_time, args.v_time, next, d, false);
                } else B.ask(args.o.f32s() + place.batch * args.o_batch + place.first * args.o_time + place.head * args.o_head, args.o_time, place.count, d, true);
                var j: usize = 0;
                while (j < n) {
                    const rows = blocks.height(n - j);
                    const skip = view.firstQuery(j) / lanes;
                    B.product(rows, vectors - skip, &.{
                        .to = scores + j * block + skip * lanes,
                        .to_row = block,
                        .a = k + (first + j) * args.k_time,
                        .a_row = args.k_time,
                        .a_step = 1,
                        .b = turned + skip * lanes,
                        .b_row = block,
                        .n = d,
                        .add = false,
                    });
                    j += rows;
                }
                for (0..vectors) |c| weights(scores + c * lanes, running.at(c * lanes), view, c * lanes);
                const finite = B.pad(values, v + first * args.v_time, args.v_time, n, d);
                var i: usize = 0;
                while (i < place.count) {
                    // Rows of a strip read values that only the last of them sees, times 0, which a NaN would survive.
                    const rows = if (finite) blocks.height(place.count - i) else 1;
                    B.product(rows, padded / lanes, &.{
                        .to = sums + i * padded,
                        .to_row = padded,
                        .a = scores + i,
                        .a_row = 1,
                        .a_step = block,
                        .b = values,
                        .b_row = padded,
                        .n = view.keysOf(i + rows - 1),
                        .add = first > 0,
                        .scales = running.factor + i,
                    });
                    i += rows;
                }
            }
            finish(args, place, keys, sums, running);
        }

        /// Of each query: the largest score so far, the sum of 2^(score - top), and what earlier sums are multiplied with.
        const Running = struct {
            top: [*]f32,
            total: [*]f32,
            factor: [*]f32,

            fn at(running: Running, i: usize) Running {
                return .{ .top = running.top + i, .total = running.total + i, .factor = running.factor + i };
            }
        };

        /// Scores of one vector of queries become weights 2^(score - top); the running numbers move on.
        fn weights(scores: [*]f32, running: Running, view: View, query: usize) void {
            @setRuntimeSafety(false);
            const rows = view.keysOf(query + lanes - 1);
            const whole = view.keysOf(query);
            const old = L.load(running.top);
            var tops: [4]V = @splat(old);
            var j: usize = 0;
            while (j + 4 <= whole) : (j += 4) {
                inline for (0..4) |s| tops[s] = larger(L.load(scores + (j + s) * block), tops[s]);
            }
            while (j < whole) : (j += 1) tops[0] = larger(L.load(scores + j * block), tops[0]);
            while (j < rows) : (j += 1) {
                const seen = @select(f32, view.sees(lanes, query, j), L.load(scores + j * block), L.all(-inf));
                L.store(scores + j * block, seen);
                tops[0] = larger(seen, tops[0]);
            }
            const top = larger(larger(tops[0], tops[1]), larger(tops[2], tops[3]));
            // Only -inf so far: all weights are 0, and 0 / 0 in the end.
            const base = @select(f32, top == L.all(-inf), L.all(0), top);
            var totals: [4]V = @splat(L.all(0));
            j = 0;
            while (j + 4 <= rows) : (j += 4) {
                inline for (0..4) |s| {
                    const weight = B.exp2(L.load(scores + (j + s) * block) - base);
                    L.store(scores + (j + s) * block, weight);
                    totals[s] += weight;
                }
            }
            while (j < rows) : (j += 1) {
                const weight = B.exp2(L.load(scores + j * block) - base);
                L.store(scores + j * block, weight);
                totals[0] += weight;
            }
            while (j < view.n) : (j += 1) L.store(scores + j * block, L.all(0));
            const factor = B.exp2(old - base);
            L.store(running.factor, factor);
            L.store(running.top, top);
            L.store(running.total, @mulAdd(V, L.load(running.total), factor, (totals[0] + totals[1]) + (totals[2] + totals[3])));
        }

        /// As @max, but where a is NaN it is b, so that one instruction does it: a NaN comes out of its weight anyway.
        inline fn larger(a: V, b: V) V {
            return @select(f32, a > b, a, b);
        }

        fn finish(args: *const ops.Attention, place: plan.Queries, keys: usize, sums: [*]f32, running: Running) void {
            @setRuntimeSafety(false);
            const padded = plan.padded(args.d, lanes);
            const o = args.o.f32s() + place.batch * args.o_batch + place.first * args.o_time + place.head * args.o_head;
            for (0..place.count) |i| {
                if (keys == 0) @memset((o + i * args.o_time)[0..args.d], 0) else B.put(o + i * args.o_time, sums + i * padded, args.d, L.all(1 / running.total[i]), false);
            }
            if (!args.lse.present()) return;
            const lse = args.lse.f32s() + (place.batch * args.heads + place.head) * args.q_len + place.first;
            var i: usize = 0;
            while (i < place.count) : (i += lanes) {
                const value = @mulAdd(V, L.load(running.top + i), L.all(std.math.ln2), math.log(L.load(running.total + i)));
                if (i + lanes <= place.count) L.store(lse + i, value) else L.storePart(lse + i, value, place.count - i);
            }
        }
    };
}
