// The plain twin of attention, forward and backward: loops that read like the formulas in ops.zig, the oracle of the tests.
// Not fast. Read next: attention_vector.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("attention.zig");

const Bytes = [*]align(64) u8;
const inf = std.math.inf(f32);

pub fn attention(args: *const ops.Attention, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const place = plan.queriesOf(args, tile);
    for (place.first..place.first + place.count) |t| {
        const q = args.q.f32s() + place.batch * args.q_batch + t * args.q_time + place.head * args.q_head;
        const o = (args.o.f32s() + place.batch * args.o_batch + t * args.o_time + place.head * args.o_head)[0..args.d];
        const keys = plan.seen(args, t);
        var top = -inf;
        for (0..keys) |j| {
            const score = args.scale * dot(q, key(args, place, j), args.d);
            if (score > top) top = score;
        }
        var total: f32 = 0;
        @memset(o, 0);
        for (0..keys) |j| {
            const p = @exp(args.scale * dot(q, key(args, place, j), args.d) - top);
            total += p;
            const v = args.v.f32s() + place.batch * args.v_batch + j * args.v_time + kvHead(args, place.head) * args.v_head;
            for (o, 0..) |*to, i| to.* += p * v[i];
        }
        if (keys > 0) for (o) |*to| {
            to.* /= total;
        };
        if (args.lse.present()) args.lse.f32s()[row(args, place, t)] = if (keys == 0) -inf else top + @log(total);
    }
}

/// Phase 0: delta (into the workspace) and dq, by blocks of queries. Phase 1: dk and dv, by blocks of keys.
pub fn attention_backward(args: *const ops.AttentionBackward, phase: u32, tile: u32, workspace: Bytes, _: Bytes) void {
    const deltas: [*]f32 = @ptrCast(workspace);
    if (phase == 0) return forQueries(args, plan.queriesOf(args, tile), deltas);
    const place = plan.keysOf(args, tile);
    const group = args.heads / args.kv_heads;
    for (place.first..place.end) |j| {
        const k_at = place.batch * args.k_batch + j * args.k_time + place.head * args.k_head;
        const v_at = place.batch * args.v_batch + j * args.v_time + place.head * args.v_head;
        const dk = (args.dk.f32s() + k_at)[0..args.d];
        const dv = (args.dv.f32s() + v_at)[0..args.d];
        if (args.accumulate == 0) {
            @memset(dk, 0);
            @memset(dv, 0);
        }
        for (place.head * group..(place.head + 1) * group) |head| for (0..args.q_len) |t| {
            if (plan.seen(args, t) <= j) continue;
            const queries: plan.Queries = .{ .batch = place.batch, .head = head, .first = t, .count = 1 };
            const p, const ds = both(args, queries, t, j, deltas[row(args, queries, t)]);
            const q = args.q.f32s() + place.batch * args.q_batch + t * args.q_time + head * args.q_head;
            const dout = args.dout.f32s() + place.batch * args.o_batch + t * args.o_time + head * args.o_head;
            for (dk, 0..) |*to, i| to.* += args.scale * ds * q[i];
            for (dv, 0..) |*to, i| to.* += p * dout[i];
        };
    }
}

fn forQueries(args: *const ops.AttentionBackward, place: plan.Queries, deltas: [*]f32) void {
    for (place.first..place.first + place.count) |t| {
        const o_at = place.batch * args.o_batch + t * args.o_time + place.head * args.o_head;
        const delta = dot(args.o.f32s() + o_at, args.dout.f32s() + o_at, args.d);
        deltas[row(args, place, t)] = delta;
        const dq = (args.dq.f32s() + place.batch * args.q_batch + t * args.q_time + place.head * args.q_head)[0..args.d];
        if (args.accumulate == 0) @memset(dq, 0);
        for (0..plan.seen(args, t)) |j| {
            const ds = both(args, place, t, j, delta)[1];
            const k = key(args, place, j);
            for (dq, 0..) |*to, i| to.* += args.scale * ds * k[i];
        }
    }
}

/// P and dS of one query and key.
fn both(args: *const ops.AttentionBackward, place: plan.Queries, t: usize, j: usize, delta: f32) [2]f32 {
    const q = args.q.f32s() + place.batch * args.q_batch + t * args.q_time + place.head * args.q_head;
    const dout = args.dout.f32s() + place.batch * args.o_batch + t * args.o_time + place.head * args.o_head;
    const v = args.v.f32s() + place.batch * args.v_batch + j * args.v_time + kvHead(args, place.head) * args.v_head;
    const p = @exp(args.scale * dot(q, key(args, place, j), args.d) - args.lse.f32s()[row(args, place, t)]);
    return .{ p, p * (dot(dout, v, args.d) - delta) };
}

fn key(args: anytype, place: plan.Queries, j: usize) [*]const f32 {
    return args.k.f32s() + place.batch * args.k_batch + j * args.k_time + kvHead(args, place.head) * args.k_head;
}

fn kvHead(args: anytype, head: usize) usize {
    return head / (args.heads / args.kv_heads);
}

/// A query's place in lse.
fn row(args: anytype, place: plan.Queries, t: usize) usize {
    return (place.batch * args.heads + place.head) * args.q_len + t;
}

fn dot(a: [*]const f32, b: [*]const f32, n: usize) f32 {
    var sum: f32 = 0;
    for (a[0..n], b[0..n]) |x, y| sum += x * y;
    return sum;
}
