// The plain twin of every int8 kernel: loops that read like the formulas in ops.zig, on every machine, and the oracle
// that the SIMD tiers are tested against. Not fast. Read next: vector.zig, the same kernels in lanes.
const layout = @import("layout.zig");
const ops = @import("ops.zig");

const group_lanes = layout.group_lanes;
const pair_lanes = layout.pair_lanes;

pub const table: ops.Table = .{
    .bias = 0,
    .embed = &embed,
    .matmul = &matmul,
    .noise_dot = &noiseDot,
    .layer_norm = &layerNorm,
    .forget_gate = &forgetGate,
    .state_update = &stateUpdate,
    .add = &add,
    .loss = &loss,
    .noise_fill = &noiseFill,
    .update = &update,
    .peak = &peak,
    .rows_matmul = &rowsMatmul,
    .rows_noise_dot = &rowsNoiseDot,
    .rows_layer_norm = &rowsLayerNorm,
    .row_forget_gate = &rowForgetGate,
    .row_state_update = &rowStateUpdate,
    .rows_loss = &rowsLoss,
};

/// floor(16 * 2^(i/16)), i = 0..255: the weights of egg.c's integer softmax. Made at compile time.
pub const exp2_table: [256]i32 = blk: {
    // 2^(j/16) * 2^19, rounded down, j = 0..15; a power of two more is a shift less.
    const mantissa = exp2_mantissa;
    var values: [256]i32 = undefined;
    for (&values, 0..) |*value, i| value.* = mantissa[i & 15] >> @intCast(15 - (i >> 4));
    break :blk values;
};

/// floor(2^(j/16) * 2^19), j = 0..15.
pub const exp2_mantissa: [16]i32 = blk: {
    // 2^(1/16) by integer arithmetic: the largest r with r^16 <= 2^j * 2^(19*16).
    @setEvalBranchQuota(20000);
    var values: [16]i32 = undefined;
    for (&values, 0..) |*value, j| {
        var low: u1024 = 1 << 19;
        var high: u1024 = 1 << 20;
        while (high - low > 1) {
            const middle = (low + high) / 2;
            var power = middle;
            for (0..4) |_| power *= power;
            if (power <= @as(u1024, 1) << (j + 19 * 16)) low = middle else high = middle;
        }
        value.* = @intCast(low);
    }
    break :blk values;
};

/// egg.c's log2 in 1/16: 16 * floor(log2 z) + 4 bits of linear mantissa - 64; 0 for z <= 0.
pub fn log2fix(z: i32) i32 {
    if (z <= 0) return 0;
    const k: i32 = 31 - @as(i32, @clz(z));
    const rest = z - (@as(i32, 1) << @intCast(k));
    const fraction = if (k >= 4) rest >> @intCast(k - 4) else rest << @intCast(4 - k);
    return 16 * k + fraction - 64;
}

pub fn clip(v: i32) i8 {
    return @intCast(@min(@max(v, -127), 127));
}

/// Byte index of input `k` of `lane` in an activation buffer.
inline fn at(k: usize, lane: usize, groups: usize) usize {
    return ((k >> 2) * groups * group_lanes + lane) * 4 + (k & 3);
}

fn get(buffer: [*]const u8, k: usize, lane: usize, groups: usize) i32 {
    return @as(i8, @bitCast(buffer[at(k, lane, groups)]));
}

fn put(buffer: [*]u8, k: usize, lane: usize, groups: usize, value: i8) void {
    buffer[at(k, lane, groups)] = @bitCast(value);
}

fn embed(op: *const ops.Embed) callconv(.c) void {
    for (0..op.groups * group_lanes) |lane| {
        const row = op.embedding + @as(usize, op.tokens[lane]) * op.width;
        for (0..op.width) |k| put(op.out, k, lane, op.groups, row[k]);
    }
}

fn matmul(op: *const ops.Matmul) callconv(.c) void {
    for (0..op.groups) |group| {
        const a = op.a + group * op.a_stride;
        for (0..op.rows) |r| {
            const row = op.weights + r * op.cols;
            // Lane by lane inside, so that inputs are read in the order in which they lie.
            var sums: [group_lanes]i32 = @splat(0);
            for (0..op.cols) |k| {
                const x = op.x + at(k, group * group_lanes, op.groups);
                for (&sums, 0..) |*sum, lane| sum.* += @as(i32, @as(i8, @bitCast(x[lane * 4]))) * row[k];
            }
            for (&sums, 0..) |*sum, lane| {
                const dot = op.dots + group * group_lanes;
                if (op.perturbed != 0) sum.* += (dot[lane] * a[r * pair_lanes + lane % pair_lanes]) >> @intCast(op.perturb_shift);
                put(op.out, r, group * group_lanes + lane, op.groups, clip(sum.* >> @intCast(op.shift)));
            }
        }
    }
}

fn noiseDot(op: *const ops.NoiseDot) callconv(.c) void {
    for (0..op.groups * group_lanes) |lane| {
        const b = op.b + (lane / group_lanes) * op.b_stride;
        var sum: i32 = 0;
        for (0..op.cols) |k| sum += get(op.x, k, lane, op.groups) * b[((k >> 2) * pair_lanes + lane % pair_lanes) * 4 + (k & 3)];
        op.dots[lane] = if (lane % group_lanes < pair_lanes) sum else -sum;
    }
}

fn layerNorm(op: *const ops.LayerNorm) callconv(.c) void {
    for (0..op.groups * group_lanes) |lane| {
        var sum: i32 = 0;
        for (0..op.width) |k| sum += @intCast(@abs(get(op.x, k, lane, op.groups)));
        const mean = @max(1, @divTrunc(sum, @as(i32, @intCast(op.width))));
        for (0..op.width) |k| {
            put(op.out, k, lane, op.groups, clip(@divTrunc(get(op.x, k, lane, op.groups) * op.weight[k], mean)));
        }
    }
}

fn forgetGate(op: *const ops.ForgetGate) callconv(.c) void {
    for (0..op.groups * group_lanes) |lane| {
        for (0..op.width) |k| {
            const f = clip(clip(get(op.a, k, lane, op.groups) + get(op.b, k, lane, op.groups)) + @as(i32, op.bias[k]));
            put(op.f, k, lane, op.groups, f);
            put(op.g, k, lane, op.groups, @intCast(((@as(i32, f) + 127) * get(op.h, k, lane, op.groups)) >> 8));
        }
    }
}

fn stateUpdate(op: *const ops.StateUpdate) callconv(.c) void {
    for (0..op.groups * group_lanes) |lane| {
        for (0..op.width) |k| {
            const c = clip(clip(get(op.a, k, lane, op.groups) + get(op.b, k, lane, op.groups)) + @as(i32, op.bias[k]));
            const f = get(op.f, k, lane, op.groups);
            const before = get(op.h, k, lane, op.groups);
            const h = clip(before + (((f + 127) * (c - before)) >> 8));
            put(op.h, k, lane, op.groups, h);
            put(op.out, k, lane, op.groups, clip(h + get(op.residual, k, lane, op.groups)));
        }
    }
}

fn add(a: [*]const u8, b: [*]const u8, out: [*]u8, bytes: usize) callconv(.c) void {
    for (0..bytes) |i| {
        out[i] = @bitCast(clip(@as(i32, @as(i8, @bitCast(a[i]))) + @as(i8, @bitCast(b[i]))));
    }
}

fn loss(op: *const ops.Loss) callconv(.c) void {
    for (0..op.groups * group_lanes) |lane| {
        var z: i32 = 0;
        for (0..op.vocabulary) |v| z += exp2_table[@intCast(get(op.logits, v, lane, op.groups) + 128)];
        op.losses[lane] += log2fix(z) - (get(op.logits, op.targets[lane], lane, op.groups) + 128);
    }
}

/// Marsaglia's xorshift32, the step of egg.c's generator.
pub fn xorshift32(state: *u32) u32 {
    var x = state.*;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    state.* = x;
    return x;
}

/// Sign from bit 0, magnitude 0..31 from bits 1..5.
pub fn noiseValue(word: u32) i8 {
    const magnitude: i8 = @intCast((word >> 1) & 31);
    return if (word & 1 != 0) magnitude else -magnitude;
}

/// Calls `store(context, i, value)` for `count` values; egg.c discards four draws before every block of 16.
fn fillStream(state: *u32, count: usize, context: anytype, comptime store: fn (@TypeOf(context), usize, i8) void) void {
    for (0..count) |i| {
        if (i % 16 == 0) for (0..4) |_| {
            _ = xorshift32(state);
        };
        store(context, i, noiseValue(xorshift32(state)));
    }
}

fn noiseFill(op: *const ops.NoiseFill) callconv(.c) void {
    const Lane = struct {
        op: *const ops.NoiseFill,
        lane: usize,
        fn storeA(self: @This(), i: usize, value: i8) void {
            self.op.a[i * pair_lanes + self.lane] = value;
        }
        fn storeB(self: @This(), i: usize, value: i8) void {
            self.op.b[((i >> 2) * pair_lanes + self.lane) * 4 + (i & 3)] = value;
            self.op.b_sums[self.lane] += value;
        }
    };
    for (0..pair_lanes) |lane| {
        var state = op.seed +% @as(u32, @intCast(lane));
        op.b_sums[lane] = 0;
        const self: Lane = .{ .op = op, .lane = lane };
        fillStream(&state, op.rows, self, Lane.storeA);
        fillStream(&state, op.cols, self, Lane.storeB);
    }
}

fn peak(op: *ops.Peak) callconv(.c) void {
    var sums: [12]u32 = undefined;
    for (&sums, 1..) |*sum, i| sum.* = op.seed *% @as(u32, @intCast(2 * i + 1));
    op.sink = 0;
    if (op.bytes == 0) {
        for (0..op.rounds) |_| {
            // Each sum takes a product of its neighbour: one of its own would let the compiler fold rounds together.
            inline for (&sums, 0..) |*sum, i| sum.* +%= sums[(i + 1) % sums.len] *% op.seed;
        }
        op.done = @as(u64, op.rounds) * sums.len;
    } else {
        const words: [*]align(1) const u64 = @ptrCast(op.data);
        var word: u64 = 0;
        for (words[0 .. op.bytes / 8]) |value| word ^= value;
        op.sink = @truncate(word ^ word >> 32);
        op.done = op.bytes;
    }
    for (sums) |sum| op.sink ^= sum;
}

fn update(op: *ops.Update) callconv(.c) void {
    op.changed = 0;
    const padded = layout.alignUp(op.cols, ops.update_cols);
    for (0..op.rows) |r| {
        for (0..op.cols) |k| {
            var vote: i32 = if (op.first != 0) 0 else op.votes[r * padded + k];
            for (0..op.groups) |group| {
                const a = op.a + group * op.noise_stride + r * pair_lanes;
                const b = op.b + group * op.noise_stride + (k >> 2) * pair_lanes * 4 + (k & 3);
                const fitness = op.fitness + group * pair_lanes;
                for (0..pair_lanes) |lane| vote += @as(i32, fitness[lane]) * a[lane] * b[lane * 4];
            }
            if (op.last == 0) {
                op.votes[r * padded + k] = vote;
                continue;
            }
            const weight = &op.weights[r * op.cols + k];
            const change: i8 = if (vote > op.threshold and weight.* < 127) 1 else if (vote < -op.threshold and weight.* > -127) -1 else 0;
            weight.* += change;
            op.changed += @abs(change);
        }
    }
}

fn signed(byte: u8) i32 {
    return @as(i8, @bitCast(byte));
}

fn rowsMatmul(op: *const ops.RowsMatmul) callconv(.c) void {
    for (0..op.count) |j| {
        const x = op.x + j * ops.rowBytes(op.cols);
        for (0..op.rows) |r| {
            var sum: i32 = 0;
            for (x[0..op.cols], op.weights[r * op.cols ..][0..op.cols]) |input, w| sum += signed(input) * w;
            if (op.pairs != 0) sum += (op.dots[j] * op.a[j / 2 % op.pairs * op.a_stride + r]) >> @intCast(op.perturb_shift);
            op.out[j * op.out_stride + r] = @bitCast(clip(sum >> @intCast(op.shift)));
        }
    }
}

fn rowsNoiseDot(op: *const ops.RowsNoiseDot) callconv(.c) void {
    for (0..op.count) |j| {
        const b = op.b + j / 2 % op.pairs * op.b_stride;
        var sum: i32 = 0;
        for (op.x[j * ops.rowBytes(op.cols) ..][0..op.cols], b[0..op.cols]) |input, factor| sum += signed(input) * factor;
        op.dots[j] = if (j % 2 == 0) sum else -sum;
    }
}

fn rowsLayerNorm(op: *const ops.RowsLayerNorm) callconv(.c) void {
    for (0..op.count) |t| {
        const x = op.x[t * ops.rowBytes(op.width) ..][0..op.width];
        var sum: i32 = 0;
        for (x) |value| sum += @intCast(@abs(signed(value)));
        const mean = @max(1, @divTrunc(sum, @as(i32, @intCast(op.width))));
        for (x, op.weight[0..op.width], op.out[t * ops.rowBytes(op.width) ..][0..op.width]) |value, weight, *out| {
            out.* = @bitCast(clip(@divTrunc(signed(value) * weight, mean)));
        }
    }
}

fn rowForgetGate(op: *const ops.ForgetGate) callconv(.c) void {
    for (0..op.width) |k| {
        const f = clip(clip(signed(op.a[k]) + signed(op.b[k])) + @as(i32, op.bias[k]));
        op.f[k] = @bitCast(f);
        op.g[k] = @bitCast(@as(i8, @intCast(((@as(i32, f) + 127) * signed(op.h[k])) >> 8)));
    }
}

fn rowStateUpdate(op: *const ops.StateUpdate) callconv(.c) void {
    for (0..op.width) |k| {
        const c = clip(clip(signed(op.a[k]) + signed(op.b[k])) + @as(i32, op.bias[k]));
        const before = signed(op.h[k]);
        const h = clip(before + (((signed(op.f[k]) + 127) * (c - before)) >> 8));
        op.h[k] = @bitCast(h);
        op.out[k] = @bitCast(clip(h + signed(op.residual[k])));
    }
}

fn rowsLoss(op: *ops.RowsLoss) callconv(.c) void {
    var z: i32 = 0;
    for (op.logits[0..op.vocabulary]) |logit| z += exp2_table[@intCast(signed(logit) + 128)];
    op.loss = log2fix(z) - (signed(op.logits[op.target]) + 128);
}
