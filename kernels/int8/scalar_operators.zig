// The plain twin of the operators that differ from rule to rule: layer norm, gates, integer loss. What differs is in the small
// functions at the end; the loops are the same. The oracle of vector_operators.zig. Meaning: ops.zig.
const layout = @import("layout.zig");
const ops = @import("ops.zig");
const plain = @import("plain.zig");
const Rule = @import("rule.zig").Rule;

const group_lanes = layout.group_lanes;
const clip = plain.clip;
const get = plain.get;
const put = plain.put;
const signed = plain.signed;

pub fn Operators(comptime rule: Rule) type {
    return struct {
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

        fn layerNorm(op: *const ops.LayerNorm) callconv(.c) void {
            for (0..op.groups * group_lanes) |lane| {
                var sum: i32 = 0;
                for (0..op.width) |k| sum += @intCast(@abs(get(op.x, k, lane, op.groups)));
                const mean = @divTrunc(sum, @as(i32, @intCast(op.width)));
                for (0..op.width) |k| {
                    const product = get(op.x, k, lane, op.groups) * inVector(op.weight, k, lane, op.groups);
                    put(op.out, k, lane, op.groups, quotient(rule, product, mean));
                }
            }
        }

        fn forgetGate(op: *const ops.ForgetGate) callconv(.c) void {
            for (0..op.groups * group_lanes) |lane| {
                for (0..op.width) |k| {
                    const f = gate(get(op.a, k, lane, op.groups), get(op.b, k, lane, op.groups), inVector(op.bias, k, lane, op.groups));
                    put(op.f, k, lane, op.groups, f);
                    put(op.g, k, lane, op.groups, opened(f, get(op.h, k, lane, op.groups)));
                }
            }
        }

        fn stateUpdate(op: *const ops.StateUpdate) callconv(.c) void {
            for (0..op.groups * group_lanes) |lane| {
                for (0..op.width) |k| {
                    const c = gate(get(op.a, k, lane, op.groups), get(op.b, k, lane, op.groups), inVector(op.bias, k, lane, op.groups));
                    const h = moved(get(op.f, k, lane, op.groups), c, get(op.h, k, lane, op.groups));
                    put(op.h, k, lane, op.groups, h);
                    put(op.out, k, lane, op.groups, clip(h + get(op.residual, k, lane, op.groups)));
                }
            }
        }

        fn loss(op: *const ops.Loss) callconv(.c) void {
            for (0..op.groups * group_lanes) |lane| {
                var z: i32 = 0;
                for (0..op.vocabulary) |v| z += plain.exp2_table[@intCast(get(op.logits, v, lane, op.groups) + 128)];
                op.losses[lane] += log(rule, z) - (get(op.logits, op.targets[lane], lane, op.groups) + 128);
            }
        }

        fn rowsLayerNorm(op: *const ops.RowsLayerNorm) callconv(.c) void {
            for (0..op.count) |t| {
                const x = op.x[t * ops.rowBytes(op.width) ..][0..op.width];
                var sum: i32 = 0;
                for (x) |value| sum += @intCast(@abs(signed(value)));
                const mean = @divTrunc(sum, @as(i32, @intCast(op.width)));
                for (x, op.weight[0..op.width], op.out[t * ops.rowBytes(op.width) ..][0..op.width]) |value, weight, *out| {
                    out.* = @bitCast(quotient(rule, signed(value) * weight, mean));
                }
            }
        }

        fn rowForgetGate(op: *const ops.ForgetGate) callconv(.c) void {
            for (0..op.width) |k| {
                const f = gate(signed(op.a[k]), signed(op.b[k]), op.bias[k]);
                op.f[k] = @bitCast(f);
                op.g[k] = @bitCast(opened(f, signed(op.h[k])));
            }
        }

        fn rowStateUpdate(op: *const ops.StateUpdate) callconv(.c) void {
            for (0..op.width) |k| {
                const c = gate(signed(op.a[k]), signed(op.b[k]), op.bias[k]);
                const h = moved(signed(op.f[k]), c, signed(op.h[k]));
                op.h[k] = @bitCast(h);
                op.out[k] = @bitCast(clip(h + signed(op.residual[k])));
            }
        }

        fn rowsLoss(op: *ops.RowsLoss) callconv(.c) void {
            var z: i32 = 0;
            for (op.logits[0..op.vocabulary]) |logit| z += plain.exp2_table[@intCast(signed(logit) + 128)];
            op.loss = log(rule, z) - (signed(op.logits[op.target]) + 128);
        }

        fn inVector(vector: ops.Vector, k: usize, lane: usize, groups: usize) i32 {
            return vector[if (rule.perturbsAll()) plain.at(k, lane, groups) else k];
        }

        fn gate(a: i32, b: i32, bias: i32) i8 {
            return switch (rule) {
                .egg_c => clip(clip(a + b) + bias),
                .nano_egg => clip(a + b + bias),
            };
        }
    };
}

fn opened(f: i32, h: i32) i8 {
    return @intCast(((f + 127) * h) >> 8);
}

fn moved(f: i32, c: i32, h: i32) i8 {
    return clip(h + (((f + 127) * (c - h)) >> 8));
}

/// An element of a layer norm; `mean` may be 0.
pub fn quotient(comptime rule: Rule, product: i32, mean: i32) i8 {
    switch (rule) {
        .egg_c => return clip(@divTrunc(product, @max(mean, 1))),
        // Row 0 of the reference's table is what its compiler makes of a division by zero.
        .nano_egg => return if (mean != 0) clip(@divFloor(product, mean)) else if (product == 0) -1 else -2,
    }
}

/// log2 of a sum of EXP2 weights over 16, in 1/16.
pub fn log(comptime rule: Rule, z: i32) i32 {
    return switch (rule) {
        .egg_c => log2fix(z),
        .nano_egg => log2floor(z),
    };
}

/// egg.c's log2 in 1/16: 16 * floor(log2 z) + 4 bits of linear mantissa - 64; 0 for z <= 0.
pub fn log2fix(z: i32) i32 {
    if (z <= 0) return 0;
    const k: i32 = 31 - @as(i32, @clz(z));
    const rest = z - (@as(i32, 1) << @intCast(k));
    const fraction = if (k >= 4) rest >> @intCast(k - 4) else rest << @intCast(4 - k);
    return 16 * k + fraction - 64;
}

/// ceil(2^(j/16) * 2^30): the log's sixteenths begin at these, with z's leading bit moved to bit 30.
pub const log_steps: [16]i32 = blk: {
    var values = plain.sixteenths(30);
    for (values[1..]) |*value| value.* += 1; // none of them is whole
    break :blk values;
};

/// floor(16 * log2(z / 16)), exactly; z >= 16.
pub fn log2floor(z: i32) i32 {
    const top: i32 = 31 - @as(i32, @clz(z));
    const normal = z << @intCast(30 - top);
    var sixteenths: i32 = 0;
    for (log_steps[1..]) |step| sixteenths += @intFromBool(normal >= step);
    return 16 * (top - 4) + sixteenths;
}
