// Vector kernels for optimizer steps, one source for all tiers: one pass over weights, gradients and state.
// Not the checks: optimize.zig has them. Read next: optimize_scalar.zig, the same in plain loops.
const ops = @import("ops.zig");
const plan = @import("optimize.zig");
const scalar = @import("optimize_scalar.zig");
const Lanes = @import("lanes.zig").Lanes;

const Bytes = [*]align(64) u8;

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const L = Lanes(lanes);
        const V = L.V;

        pub const clip = scalar.clip;

        pub fn optimize(args: *const ops.Optimize, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            const step = plan.Step.init(args) orelse return;
            switch (@as(ops.Rule, @enumFromInt(args.rule))) {
                .sgd => if (args.beta1 == 0) elements(.plain, args, step, tile) else elements(.momentum, args, step, tile),
                .adam => elements(.adam, args, step, tile),
                .adamw => elements(.adamw, args, step, tile),
                .lion => elements(.lion, args, step, tile),
            }
        }

        const Form = enum { plain, momentum, adam, adamw, lion };

        /// Weights, gradient and state of one vector.
        const Element = struct { w: V, g: V, m: V, v: V };

        fn elements(comptime form: Form, given: *const ops.Optimize, step: plan.Step, tile: u32) void {
            const own = given.*; // nothing that is stored changes it: its values stay in registers
            const args = &own;
            const first, const end = plan.flatRange(tile, args.count);
            const has_m = form != .plain;
            const has_v = form == .adam or form == .adamw;
            const w = args.w.f32s();
            const grad = args.grad.f32s();
            const m = if (has_m) args.m.f32s() else {};
            const v = if (has_v) args.v.f32s() else {};
            var i = first;
            while (i + lanes <= end) : (i += lanes) {
                const new = advance(form, args, step, .{
                    .w = L.load(w + i),
                    .g = L.load(grad + i),
                    .m = if (has_m) L.load(m + i) else undefined,
                    .v = if (has_v) L.load(v + i) else undefined,
                });
                L.store(w + i, new.w);
                if (has_m) L.store(m + i, new.m);
                if (has_v) L.store(v + i, new.v);
                if (args.copy.present()) @as(*align(2) @Vector(lanes, u16), @ptrCast(args.copy.bf16s() + i)).* = L.narrow(new.w);
            }
            const n = end - i;
            if (n == 0) return;
            const new = advance(form, args, step, .{
                .w = L.loadPart(w + i, n, 0),
                .g = L.loadPart(grad + i, n, 0),
                .m = if (has_m) L.loadPart(m + i, n, 0) else undefined,
                .v = if (has_v) L.loadPart(v + i, n, 1) else undefined,
            });
            L.storePart(w + i, new.w, n);
            if (has_m) L.storePart(m + i, new.m, n);
            if (has_v) L.storePart(v + i, new.v, n);
            if (!args.copy.present()) return;
            const part: [lanes]u16 = L.narrow(new.w);
            for (args.copy.bf16s()[i..end], part[0..n]) |*to, value| to.* = value;
        }

        inline fn advance(comptime form: Form, args: *const ops.Optimize, step: plan.Step, old: Element) Element {
            const b1 = L.all(args.beta1);
            const b2 = L.all(args.beta2);
            const decay = L.all(args.decay);
            const lr = L.all(step.lr);
            var new = old;
            new.g = L.all(step.scale) * old.g;
            if (form == .plain or form == .momentum or form == .adam) new.g = @mulAdd(V, decay, old.w, new.g);
            switch (form) {
                .plain => new.w = @mulAdd(V, -lr, new.g, old.w),
                .momentum => {
                    new.m = if (step.first) new.g else @mulAdd(V, b1, old.m, new.g);
                    const u = if (args.nesterov == 1) @mulAdd(V, b1, new.m, new.g) else new.m;
                    new.w = @mulAdd(V, -lr, u, old.w);
                },
                .adam, .adamw => {
                    if (form == .adamw) new.w = old.w * L.all(1 - step.lr * args.decay);
                    new.m = @mulAdd(V, b1, old.m, L.all(1 - args.beta1) * new.g);
                    new.v = @mulAdd(V, b2, old.v, L.all(1 - args.beta2) * new.g * new.g);
                    const size = @mulAdd(V, @sqrt(new.v), L.all(step.spread), L.all(args.eps));
                    new.w -= L.all(step.rate) * new.m / size;
                },
                .lion => {
                    const u = @mulAdd(V, b1, old.m, L.all(1 - args.beta1) * new.g);
                    const sign = @select(f32, u > L.all(0), L.all(1), @select(f32, u < L.all(0), L.all(-1), u));
                    new.w = @mulAdd(V, -lr, @mulAdd(V, decay, old.w, sign), old.w);
                    new.m = @mulAdd(V, b2, old.m, L.all(1 - args.beta2) * new.g);
                },
            }
            return new;
        }
    };
}
