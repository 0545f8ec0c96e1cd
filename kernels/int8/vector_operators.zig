// The operators that differ from rule to rule, in SIMD: layer norm, gates, integer loss, in panels and by rows. What differs is in
// vector_blocks.zig and in a few functions here. Meaning: ops.zig. Oracle: scalar_operators.zig.
const std = @import("std");
const simd = @import("lanes.zig");
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const exp2_table = @import("plain.zig").exp2_table;
const Blocks = @import("vector_blocks.zig").Blocks;
const Rule = @import("rule.zig").Rule;

const V16 = simd.V16;
const U16 = simd.U16;
const V64 = simd.V64;
const S64 = simd.S64;
const Half = simd.Half;
const load64 = simd.load64;
const store64 = simd.store64;
const loadPart = simd.loadPart;
const storePart = simd.storePart;
const quad = simd.quad;
const splat64 = simd.splat64;

pub fn Operators(comptime dot: type, comptime rule: Rule) type {
    const blocks = Blocks(dot);
    return struct {
        const bias64 = blocks.bias64;
        const signed = blocks.signed;
        const stored = blocks.stored;

        pub const table: ops.Operators = .{
            .layer_norm = &layerNorm,
            .forget_gate = &forgetGate,
            .state_update = &stateUpdate,
            .loss = &loss,
            .rows_layer_norm = &rowsLayerNorm,
            .row_forget_gate = &rowForgetGate,
            .row_state_update = &rowStateUpdate,
            .rows_loss = &rowsLoss,
        };

        /// Whether each member has vectors of its own.
        const own_vectors = rule.perturbsAll();

        /// Four values of a vector for 16 lanes.
        inline fn inVector(vector: ops.Vector, w: usize, v: usize, vectors: usize) S64 {
            return @bitCast(if (own_vectors) load64(@ptrCast(vector + (w * vectors + v) * 64)) else splat64(quad(vector + w * 4)));
        }

        fn layerNorm(op: *const ops.LayerNorm) callconv(.c) void {
            switch (op.groups) {
                inline 1...layout.max_groups => |groups| layerNormOf(2 * groups, op),
                else => unreachable,
            }
        }

        inline fn layerNormOf(comptime vectors: usize, op: *const ops.LayerNorm) void {
            const words = @as(usize, op.width) / 4;
            const ones: V16 = @splat(0x01010101);
            var sums: [vectors]V16 = @splat(@splat(0));
            for (0..words) |w| {
                inline for (0..vectors) |v| {
                    const x = signed(load64(op.x + (w * vectors + v) * 64));
                    sums[v] = dot.dot(sums[v], @bitCast(@abs(x)), ones);
                }
            }
            // (sum * inverse) >> 32 = sum div width: exact while sum * width < 2^32, that is 127 * width^2 < 2^32.
            const inverse = ((@as(u64, 1) << 32) + op.width - 1) / op.width;
            var by: [vectors]blocks.Divisor = undefined;
            var none: [vectors]bool = @splat(false);
            for (sums, &by, &none) |sum, *divisor, *zero| {
                const wide = @as(@Vector(16, u64), @as(U16, @bitCast(sum))) *% @as(@Vector(16, u64), @splat(inverse));
                const means: U16 = @truncate(wide >> @splat(32));
                divisor.* = .each(means);
                zero.* = @reduce(.Min, means) == 0;
            }
            for (0..words) |w| {
                var weight = inVector(op.weight, w, 0, vectors);
                inline for (0..vectors) |v| {
                    const at = (w * vectors + v) * 64;
                    const x = signed(load64(op.x + at));
                    if (own_vectors and v != 0) weight = inVector(op.weight, w, v, vectors);
                    store64(op.out + at, stored(blocks.normBlock(rule, x, weight, by[v])));
                }
            }
            if (rule == .nano_egg) for (none, 0..) |zero, v| if (zero) normOverNothing(op, v, by[v]);
        }

        /// Seldom: lanes whose mean is 0 have a row of their own in the reference's table.
        noinline fn normOverNothing(op: *const ops.LayerNorm, v: usize, by: blocks.Divisor) void {
            const vectors = @as(usize, op.groups) * 2;
            for (0..op.width / 4) |w| {
                const at = (w * vectors + v) * 64;
                const x = signed(load64(op.x + at));
                const y = signed(load64(op.out + at));
                store64(op.out + at, stored(blocks.overNothing(x, inVector(op.weight, w, v, vectors), y, by)));
            }
        }

        fn forgetGate(op: *const ops.ForgetGate) callconv(.c) void {
            const vectors = @as(usize, op.groups) * 2;
            for (0..op.width / 4) |w| {
                for (0..vectors) |v| {
                    const at = (w * vectors + v) * 64;
                    const f = blocks.gate(rule, load64(op.a + at), load64(op.b + at), inVector(op.bias, w, v, vectors));
                    store64(op.f + at, stored(f));
                    store64(op.g + at, blocks.opened(f, load64(op.h + at)));
                }
            }
        }

        fn stateUpdate(op: *const ops.StateUpdate) callconv(.c) void {
            const vectors = @as(usize, op.groups) * 2;
            for (0..op.width / 4) |w| {
                for (0..vectors) |v| {
                    const at = (w * vectors + v) * 64;
                    const c = blocks.gate(rule, load64(op.a + at), load64(op.b + at), inVector(op.bias, w, v, vectors));
                    const h, const out = blocks.stateBlock(c, load64(op.f + at), load64(op.h + at), load64(op.residual + at));
                    store64(op.h + at, h);
                    store64(op.out + at, out);
                }
            }
        }

        fn loss(op: *const ops.Loss) callconv(.c) void {
            const vectors = @as(usize, op.groups) * 2;
            for (0..vectors) |v| {
                var z: V16 = @splat(0);
                for (0..op.vocabulary / 4) |w| z = blocks.addWeights(z, load64(op.logits + (w * vectors + v) * 64));
                const logs: [16]i32 = blocks.log(rule, z);
                for (logs, v * 16..) |log_z, lane| {
                    const target: usize = op.targets[lane];
                    const logit = op.logits[((target >> 2) * vectors * 16 + lane) * 4 + (target & 3)] ^ (dot.bias ^ 0x80);
                    op.losses[lane] +%= log_z -% @as(i32, logit);
                }
            }
        }

        fn rowsLayerNorm(op: *const ops.RowsLayerNorm) callconv(.c) void {
            const ones: V16 = @splat(0x01010101);
            for (0..op.count) |t| {
                const x = op.x + t * ops.rowBytes(op.width);
                const out = op.out + t * ops.rowBytes(op.width);
                var sum: V16 = @splat(0);
                var k: usize = 0;
                while (k < op.width) : (k += 64) {
                    const n = @min(64, op.width - k);
                    const values = if (n == 64) signed(load64(x + k)) else signed(loadPart(x + k, n) ^ past(n));
                    sum = dot.dot(sum, @bitCast(@abs(values)), ones);
                }
                const mean = @as(u32, @intCast(@reduce(.Add, sum))) / op.width;
                const by: blocks.Divisor = .all(mean);
                k = 0;
                while (k < op.width) : (k += 64) {
                    const n = @min(64, op.width - k);
                    const values = signed(loadPart(x + k, n));
                    const weight: S64 = @bitCast(loadPart(op.weight + k, n));
                    var y = blocks.normBlock(rule, values, weight, by);
                    if (rule == .nano_egg and mean == 0) y = blocks.overNothing(values, weight, y, by);
                    storePart(out + k, stored(y), n);
                }
            }
        }

        /// The tier's bias in the bytes past n: with it, raw zeros there count as the value zero.
        inline fn past(n: usize) V64 {
            return @select(u8, std.simd.iota(u8, 64) < @as(V64, @splat(@intCast(n))), @as(V64, @splat(0)), bias64);
        }

        fn rowForgetGate(op: *const ops.ForgetGate) callconv(.c) void {
            var k: usize = 0;
            while (k < op.width) : (k += 64) {
                const n = @min(64, op.width - k);
                const f = blocks.gate(rule, loadPart(op.a + k, n), loadPart(op.b + k, n), @bitCast(loadPart(op.bias + k, n)));
                storePart(op.f + k, stored(f), n);
                storePart(op.g + k, blocks.opened(f, loadPart(op.h + k, n)), n);
            }
        }

        fn rowStateUpdate(op: *const ops.StateUpdate) callconv(.c) void {
            var k: usize = 0;
            while (k < op.width) : (k += 64) {
                const n = @min(64, op.width - k);
                const c = blocks.gate(rule, loadPart(op.a + k, n), loadPart(op.b + k, n), @bitCast(loadPart(op.bias + k, n)));
                const h, const out = blocks.stateBlock(c, loadPart(op.f + k, n), loadPart(op.h + k, n), loadPart(op.residual + k, n));
                storePart(op.h + k, h, n);
                storePart(op.out + k, out, n);
            }
        }

        fn rowsLoss(op: *ops.RowsLoss) callconv(.c) void {
            var z: V16 = @splat(0);
            var v: usize = 0;
            while (v + 64 <= op.vocabulary) : (v += 64) z = blocks.addWeights(z, load64(op.logits + v));
            var sum = @reduce(.Add, z);
            for (op.logits[v..op.vocabulary]) |logit| sum += exp2_table[logit ^ (dot.bias ^ 0x80)];
            const log_z: [16]i32 = blocks.log(rule, @splat(sum));
            op.loss = log_z[0] - @as(i32, op.logits[op.target] ^ (dot.bias ^ 0x80));
        }
    };
}
