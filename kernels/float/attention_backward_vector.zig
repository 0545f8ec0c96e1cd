// Vector kernels for attention's backward. A tile takes some of the blocks of queries of one kv head; for each it goes through
// the keys block by block, finishes dq, and adds to its own sums of dk and dv: those of several tiles are joined by the second phase, in order.
// Not the checks: attention.zig has them. Read next: attention_block.zig (the products), attention_vector.zig (the forward).
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("attention.zig");
const block = plan.block;
const blocks = @import("attention_block.zig");
const View = blocks.View;

const Bytes = [*]align(64) u8;
const inf = std.math.inf(f32);

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const B = blocks.Block(lanes);
        const L = B.L;
        const V = L.V;

        pub fn attention_backward(args: *const ops.AttentionBackward, phase: u32, tile: u32, workspace: Bytes, scratch: Bytes) void {
            @setRuntimeSafety(false);
            const cut: plan.Cut = .init(args, lanes);
            if (phase == 1) return join(args, cut, tile, workspace);
            const row = tile / cut.chunks;
            const place: Place = .{ .batch = row / args.kv_heads, .kv_head = row % args.kv_heads };
            const chunk = tile % cut.chunks;
            const padded = plan.padded(args.d, lanes);
            const own = cut.chunks == 1;
            const dk = if (own) @as([*]f32, @ptrCast(scratch)) + plan.backwardFloats(args.d, lanes) else @as([*]f32, @ptrCast(workspace)) + cut.sums(args, padded, place.batch, place.kv_head, chunk);
            const dv = dk + args.kv_len * padded;
            var unit = chunk;
            while (unit < cut.units) : (unit += cut.chunks) {
                const queries = cut.unit(args, unit);
                const head = place.kv_head * cut.group + queries.member;
                throughKeys(args, place, head, queries.first, queries.count, dk, dv, unit != chunk, scratch);
            }
            if (!own) return;
            for (0..args.kv_len) |j| {
                B.put(args.dk.f32s() + place.batch * args.k_batch + j * args.k_time + place.kv_head * args.k_head, dk + j * padded, args.d, L.all(args.scale), args.accumulate == 1);
                B.put(args.dv.f32s() + place.batch * args.v_batch + j * args.v_time + place.kv_head * args.v_head, dv + j * padded, args.d, L.all(1), args.accumulate == 1);
            }
        }

        const Place = struct { batch: usize, kv_head: usize };

        /// A block of queries, and all keys that they see.
        fn throughKeys(args: *const ops.AttentionBackward, place: Place, head: usize, first_query: usize, count: usize, dk: [*]f32, dv: [*]f32, add: bool, scratch: Bytes) void {
            @setRuntimeSafety(false);
            const d: usize = args.d;
            const padded = plan.padded(args.d, lanes);
            const q_at = place.batch * args.q_batch + first_query * args.q_time + head * args.q_head;
            const o_at = place.batch * args.o_batch + first_query * args.o_time + head * args.o_head;
            const k = args.k.f32s() + place.batch * args.k_batch + place.kv_head * args.k_head;
            const v = args.v.f32s() + place.batch * args.v_batch + place.kv_head * args.v_head;
            const turned_q: [*]f32 = @ptrCast(scratch);
            const turned_do = turned_q + block * d;
            const rows_q = turned_do + block * d;
            const rows_do = rows_q + block * padded;
            const dq = rows_do + block * padded;
            const rows_k = dq + block * padded;
            const p = rows_k + block * padded;
            const ds = p + block * block;
            const lse = ds + block * block;
            const delta = lse + block;
            const vectors = (count + lanes - 1) / lanes;
            const queries = args.q.f32s() + q_at;
            const douts = args.dout.f32s() + o_at;
            B.ask(queries, args.q_time, count, d, false);
            B.ask(douts, args.o_time, count, d, false);
            B.ask(args.o.f32s() + o_at, args.o_time, count, d, false);
            B.ask(k, args.k_time, @min(block, args.kv_len), d, false);
            B.ask(v, args.v_time, @min(block, args.kv_len), d, false);
            B.transpose(turned_q, args.q.f32s() + q_at, args.q_time, count, d, args.scale * std.math.log2e);
            B.transpose(turned_do, args.dout.f32s() + o_at, args.o_time, count, d, 1);
            const finite_q = B.pad(rows_q, args.q.f32s() + q_at, args.q_time, count, d);
            const finite_do = B.pad(rows_do, args.dout.f32s() + o_at, args.o_time, count, d);
            const saved = args.lse.f32s() + (place.batch * args.heads + head) * args.q_len + first_query;
            // Queries that are not there weigh 0.
            for (0..vectors * lanes) |i| lse[i] = if (i < count) saved[i] * std.math.log2e else inf;
            // In the order of the product do v^T: where one key has all the weight, o = v, and dS is 0 exactly.
            const turned_o = dq;
            B.transpose(turned_o, args.o.f32s() + o_at, args.o_time, count, d, 1);
            for (0..vectors) |c| {
                var sum = L.all(0);
                for (0..d) |i| sum = @mulAdd(V, L.load(turned_o + i * block + c * lanes), L.load(turned_do + i * block + c * lanes), sum);
                L.store(delta + c * lanes, sum);
            }
            const keys = plan.seen(args, first_query + count - 1);
            var first: usize = 0;
            while (first < keys) : (first += block) {
                const n = @min(block, keys - first);
                const view: View = .init(args, first_query, first, n);
                if (first + n < keys) {
                    const next = @min(block, keys - first - n);
                    B.ask(k + (first + n) * args.k_time, args.k_time, next, d, false);
                    B.ask(v + (first + n) * args.v_time, args.v_time, next, d, false);
                } else B.ask(args.dq.f32s() + q_at, args.q_time, count, d, true);
                const finite_k = B.pad(rows_k, k + first * args.k_time, args.k_time, n, d);
                var j: usize = 0;
                while (j < n) {
                    const rows = blocks.height(n - j);
                    const skip = view.firstQuery(j) / lanes;
                    var strip: blocks.Strip = .{
                        .to = p + j * block + skip * lanes,
                        .to_row = block,
                        .a = rows_k + j * padded,
                        .a_row = padded,
                        .a_step = 1,
                        .b = turned_q + skip * lanes,
                        .b_row = block,
                        .n = d,
                        .add = false,
                    };
                    B.product(rows, vectors - skip, &strip);
                    strip.to = ds + j * block + skip * lanes;
                    strip.a = v + (first + j) * args.v_time;
                    strip.a_row = args.v_time;
                    strip.b = turned_do + skip * lanes;
                    B.product(rows, vectors - skip, &strip);
                    j += rows;
                }
                for (0..vectors) |c| differentials(p + c * lanes, ds + c * lanes, L.load(lse + c * lanes), L.load(delta + c * lanes), view, c * lanes);
                // Rows of a strip read what only some of them see, times 0, which a NaN would survive.
                j = 0;
                while (j < n) {
                    const rows = if (finite_q and finite_do) blocks.height(n - j) else 1;
                    const skip = view.firstQuery(j);
                    var strip: blocks.Strip = .{
                        .to = dv + (first + j) * padded,
                        .to_row = padded,
                        .a = p + j * block + skip,
                        .a_row = block,
                        .a_step = 1,
                        .b = rows_do + skip * padded,
                        .b_row = padded,
                        .n = count - skip,
                        .add = add,
                    };
                    B.product(rows, padded / lanes, &strip);
                    strip.to = dk + (first + j) * padded;
                    strip.a = ds + j * block + skip;
                    strip.b = rows_q + skip * padded;
                    B.product(rows, padded / lanes, &strip);
                    j += rows;
                }
                var i: usize = 0;
                while (i < count) {
                    const rows = if (finite_k) blocks.height(count - i) else 1;
                    B.product(rows, padded / lanes, &.{
                        .to = dq + i * padded,
                        .to_row = padded,
                        .a = ds + i,
                        .a_row = 1,
                        .a_step = block,
                        .b = rows_k,
                        .b_row = padded,
                        .n = view.keysOf(i + rows - 1),
                        .add = first > 0,
                    });
                    i += rows;
                }
            }
            if (keys == 0) @memset(dq[0 .. block * padded], 0);
            for (0..count) |i| B.put(args.dq.f32s() + q_at + i * args.q_time, dq + i * padded, d, L.all(args.scale), args.accumulate == 1);
        }

        /// For one vector of queries: scores become P = 2^(score - lse), and do v^T becomes dS = P * (do v^T - delta).
        fn differentials(p: [*]f32, ds: [*]f32, lse: V, delta: V, view: View, query: usize) void {
            @setRuntimeSafety(false);
            const rows = view.keysOf(query + lanes - 1);
            const whole = view.keysOf(query);
            var j: usize = 0;
            while (j + 2 <= whole) : (j += 2) {
                inline for (0..2) |s| {
                    const at = (j + s) * block;
                    const weight = B.exp2(L.load(p + at) - lse);
                    L.store(p + at, weight);
                    L.store(ds + at, weight * (L.load(ds + at) - delta));
                }
            }
            while (j < rows) : (j += 1) {
                const at = j * block;
                const seen = view.sees(lanes, query, j);
                const weight = @select(f32, seen, B.exp2(L.load(p + at) - lse), L.all(0));
                L.store(p + at, weight);
                L.store(ds + at, @select(f32, seen, weight * (L.load(ds + at) - delta), L.all(0)));
            }
            while (j < view.n) : (j += 1) {
                L.store(p + j * block, L.all(0));
                L.store(ds + j * block, L.all(0));
            }
        }

        /// Phase 1: the chunks' sums of a block of keys, in order.
        fn join(args: *const ops.AttentionBackward, cut: plan.Cut, tile: u32, workspace: Bytes) void {
            @setRuntimeSafety(false);
            const place = plan.keysOf(args, tile);
            const d: usize = args.d;
            const padded = plan.padded(args.d, lanes);
            const sums: [*]f32 = @ptrCast(workspace);
            const accumulate = args.accumulate == 1;
            const step = 2 * args.kv_len * padded;
            var chunks = cut.chunks;
            for (place.first..place.end) |j| {
                // Earlier chunks have later queries: chunks that do not see this key are the last ones.
                while (chunks < cut.chunks and cut.keys(args, chunks) > j) chunks += 1;
                while (chunks > 0 and cut.keys(args, chunks - 1) <= j) chunks -= 1;
                const dk = args.dk.f32s() + place.batch * args.k_batch + j * args.k_time + place.head * args.k_head;
                const dv = args.dv.f32s() + place.batch * args.v_batch + j * args.v_time + place.head * args.v_head;
                const from = sums + cut.sums(args, padded, place.batch, place.head, 0) + j * padded;
                const dv_from = from + args.kv_len * padded;
                var i: usize = 0;
                while (i < d) : (i += lanes) {
                    var total_k = L.all(0);
                    var total_v = L.all(0);
                    for (0..chunks) |c| {
                        total_k += L.load(from + c * step + i);
                        total_v += L.load(dv_from + c * step + i);
                    }
                    total_k *= L.all(args.scale);
                    const n = d - i;
                    if (n >= lanes) {
                        L.store(dk + i, if (accumulate) L.load(dk + i) + total_k else total_k);
                        L.store(dv + i, if (accumulate) L.load(dv + i) + total_v else total_v);
                    } else {
                        L.storePart(dk + i, if (accumulate) L.loadPart(dk + i, n, 0) + total_k else total_k, n);
                        L.storePart(dv + i, if (accumulate) L.loadPart(dv + i, n, 0) + total_v else total_v, n);
                    }
                }
            }
        }
    };
}
