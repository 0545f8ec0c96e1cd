// Vector kernels for activations and gates, one source for all tiers; one pass over memory, value and slope from one exponential.
// Not the checks: activate.zig has them. Read next: activate_scalar.zig, the same in plain loops.
const ops = @import("ops.zig");
const plan = @import("activate.zig");
const math = @import("math.zig");
const Lanes = @import("lanes.zig").Lanes;

const Bytes = [*]align(64) u8;

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const L = Lanes(lanes);
        const V = L.V;

        pub fn activate(args: *const ops.Activate, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            switch (@as(ops.Activation, @enumFromInt(args.activation))) {
                inline else => |activation| if (args.up.present()) forward(activation, true, args, tile) else forward(activation, false, args, tile),
            }
        }

        fn forward(comptime activation: ops.Activation, comptime gated: bool, args: *const ops.Activate, tile: u32) void {
            const first_row, const end_row, const first_col, const end_col = plan.Grid.init(args.rows, args.width).block(tile);
            const n = end_col - first_col;
            for (first_row..end_row) |row| {
                const x = args.x.f32s() + row * args.x_stride + first_col;
                const up = if (gated) args.up.f32s() + row * args.up_stride + first_col else {};
                const y = args.y.f32s() + row * args.y_stride + first_col;
                var i: usize = 0;
                while (i + lanes <= n) : (i += lanes) {
                    const value = function(activation, L.load(x + i));
                    L.store(y + i, if (gated) value * L.load(up + i) else value);
                }
                if (i == n) continue;
                const value = function(activation, L.loadPart(x + i, n - i, 0));
                L.storePart(y + i, if (gated) value * L.loadPart(up + i, n - i, 0) else value, n - i);
            }
        }

        pub fn activate_backward(args: *const ops.ActivateBackward, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            switch (@as(ops.Activation, @enumFromInt(args.activation))) {
                inline else => |activation| if (args.up.present()) backward(activation, true, args, tile) else backward(activation, false, args, tile),
            }
        }

        fn backward(comptime activation: ops.Activation, comptime gated: bool, args: *const ops.ActivateBackward, tile: u32) void {
            const first_row, const end_row, const first_col, const end_col = plan.Grid.init(args.rows, args.width).block(tile);
            const n = end_col - first_col;
            const accumulate = args.accumulate == 1;
            for (first_row..end_row) |row| {
                const x = args.x.f32s() + row * args.x_stride + first_col;
                const up = if (gated) args.up.f32s() + row * args.up_stride + first_col else {};
                const dy = args.dy.f32s() + row * args.y_stride + first_col;
                const dx: ?[*]f32 = if (args.dx.present()) args.dx.f32s() + row * args.x_stride + first_col else null;
                const dup: ?[*]f32 = if (args.dup.present()) args.dup.f32s() + row * args.up_stride + first_col else null;
                var i: usize = 0;
                while (i + lanes <= n) : (i += lanes) {
                    const value, const slope = both(activation, L.load(x + i));
                    const gradient = L.load(dy + i);
                    const direct = if (gated) gradient * L.load(up + i) * slope else gradient * slope;
                    if (dx) |to| L.store(to + i, if (accumulate) L.load(to + i) + direct else direct);
                    if (dup) |to| L.store(to + i, if (accumulate) L.load(to + i) + gradient * value else gradient * value);
                }
                const rest = n - i;
                if (rest == 0) continue;
                const value, const slope = both(activation, L.loadPart(x + i, rest, 0));
                const gradient = L.loadPart(dy + i, rest, 0);
                const direct = if (gated) gradient * L.loadPart(up + i, rest, 0) * slope else gradient * slope;
                if (dx) |to| L.storePart(to + i, if (accumulate) L.loadPart(to + i, rest, 0) + direct else direct, rest);
                if (dup) |to| L.storePart(to + i, if (accumulate) L.loadPart(to + i, rest, 0) + gradient * value else gradient * value, rest);
            }
        }

        const root = 0.7978845608028654; // sqrt(2 / pi)
        const cubic = 0.044715;

        /// 2 sqrt(2/pi) (x + 0.044715 x^3): gelu is x sigmoid of this.
        inline fn inner(x: V) V {
            return x * @mulAdd(V, x * x, L.all(2 * root * cubic), L.all(2 * root));
        }

        /// act(x); other kernels that fuse an activation may use it.
        pub inline fn function(comptime activation: ops.Activation, x: V) V {
            return switch (activation) {
                .none => x,
                .relu => @select(f32, x <= L.all(0), L.all(0), x),
                .gelu => x * math.logistic(inner(x))[1],
                .silu => x * math.logistic(x)[1],
                .sigmoid => math.sigmoid(x),
                .tanh => math.tanh(x),
            };
        }

        /// act(x) and act'(x).
        pub inline fn both(comptime activation: ops.Activation, x: V) [2]V {
            switch (activation) {
                .none => return .{ x, L.all(1) },
                .relu => return .{ function(.relu, x), @select(f32, x > L.all(0), L.all(1), @select(f32, x <= L.all(0), L.all(0), x)) },
                .gelu => {
                    const s, const change = sharp(inner(x));
                    const near = clamp(x, 30);
                    const steep = @mulAdd(V, near * near, L.all(6 * root * cubic), L.all(2 * root));
                    return .{ x * s, @mulAdd(V, near * change, steep, s) };
                },
                .silu => {
                    const s, const change = sharp(x);
                    return .{ x * s, @mulAdd(V, clamp(x, 128), change, s) };
                },
                .sigmoid => return math.sigmoidAndSlope(x),
                .tanh => return .{ math.tanh(x), L.all(4) * math.sigmoidAndSlope(x + x)[1] },
            }
        }

        /// s = 1 / (1 + e^-x) and s (1 - s).
        inline fn sharp(x: V) [2]V {
            const e, const s = math.logistic(x);
            const finite = @select(f32, e > L.all(0x1p126), L.all(0x1p126), e);
            return .{ s, s * (finite * s) };
        }

        /// Beyond the limit the slope's second term is 0 anyway; NaN stays.
        inline fn clamp(x: V, limit: f32) V {
            const below = @select(f32, x > L.all(limit), L.all(limit), x);
            return @select(f32, below < L.all(-limit), L.all(-limit), below);
        }
    };
}
