// Vector kernels for cross-entropy, one source for all tiers. A row is read once from memory: piece by piece, its maximum and
// then its exponentials, against the maximum so far; these are kept as the gradient, whose pass only rescales them by piece.
// Not the checks: loss.zig has them. Read next: loss_scalar.zig, the same in plain loops.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("loss.zig");
const scalar = @import("loss_scalar.zig");
const math = @import("math.zig");
const Lanes = @import("lanes.zig").Lanes;

const Bytes = [*]align(64) u8;

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const L = Lanes(lanes);
        const V = L.V;
        const lowest = -std.math.inf(f32);

        pub const count_targets = scalar.count_targets;

        pub fn cross_entropy(args: *const ops.CrossEntropy, phase: u32, tile: u32, workspace: Bytes, scratch: Bytes) u32 {
            switch (phase) {
                0 => return plan.check(args, tile),
                1 => {
                    const first, const end = plan.rowRange(tile, args.rows, args.classes);
                    for (first..end) |row| oneRow(args, row, workspace, @ptrCast(scratch));
                },
                else => scalar.total(args, workspace),
            }
            return 0;
        }

        /// `tops`: for each piece, the maximum its exponentials were taken against.
        fn oneRow(args: *const ops.CrossEntropy, row: usize, workspace: Bytes, tops: [*]f32) void {
            const n: usize = args.classes;
            const logits = args.logits.f32s() + row * n;
            const target = args.targets.i32s()[row];
            const ignored = target == args.ignore_index;
            if (!ignored or args.lse.present()) {
                const at: usize = if (ignored) 0 else @intCast(target);
                const x = if (ignored) 0 else logits[at]; // dlogits may be logits
                const dlogits: ?[*]f32 = if (args.dlogits.present() and !ignored) args.dlogits.f32s() + row * n else null;
                const largest, const sum = if (dlogits) |to| exponentials(true, logits, to, n, tops) else exponentials(false, logits, undefined, n, tops);
                const log = math.log1(sum);
                if (args.lse.present()) args.lse.f32s()[row] = largest + log;
                if (!ignored) {
                    if (plan.lossesOf(args, workspace)) |losses| losses[row] = log + (largest - x);
                    const to = dlogits orelse return;
                    const factor = plan.factorOf(args);
                    for (0..plan.pieces(args.classes)) |p| {
                        const first = p * plan.piece;
                        const shrunk = if (tops[p] == largest) 1 else math.exp1(tops[p] - largest);
                        rescale(to + first, @min(n - first, plan.piece), shrunk * (factor / sum));
                    }
                    to[at] = factor * (math.exp1(x - largest) / sum - 1);
                    return;
                }
            }
            if (plan.lossesOf(args, workspace)) |losses| losses[row] = 0;
            if (args.dlogits.present()) @memset((args.dlogits.f32s() + row * n)[0..n], 0);
        }

        /// max x and sum exp(x - max); where `keep`, the exponentials too, each piece's against its `tops`.
        fn exponentials(comptime keep: bool, x: [*]const f32, kept: [*]f32, n: usize, tops: [*]f32) [2]f32 {
            var largest: f32 = lowest;
            var sum: [4]V = @splat(L.all(0));
            var i: usize = 0;
            while (i < n) {
                const end = @min(i + plan.piece, n);
                const whole = end - (end - i) % lanes;
                const tail = if (whole < end) L.loadPart(x + whole, end - whole, lowest) else L.all(lowest);
                var most: [4]V = .{ tail, L.all(lowest), L.all(lowest), L.all(lowest) };
                var at = i;
                while (at + 4 * lanes <= whole) : (at += 4 * lanes) {
                    inline for (0..4) |s| most[s] = greater(L.load(x + at + s * lanes), most[s]);
                }
                while (at < whole) : (at += lanes) most[0] = greater(L.load(x + at), most[0]);
                const top = L.largest(greater(greater(most[0], most[1]), greater(most[2], most[3])));
                if (top > largest) {
                    if (i > 0) {
                        const factor = math.exp1(largest - top);
                        inline for (0..4) |s| sum[s] *= L.all(factor);
                    }
                    largest = top;
                }
                // Nothing but masked classes so far: their exponentials are 0, not NaN.
                const shift = L.all(if (largest == lowest) 0 else largest);
                if (keep) tops[i / plan.piece] = largest;
                at = i;
                while (at + 4 * lanes <= whole) : (at += 4 * lanes) {
                    inline for (0..4) |s| {
                        const e = math.expFlushed(L.load(x + at + s * lanes) - shift);
                        sum[s] += e;
                        if (keep) L.store(kept + at + s * lanes, e);
                    }
                }
                while (at < whole) : (at += lanes) {
                    const e = math.expFlushed(L.load(x + at) - shift);
                    sum[0] += e;
                    if (keep) L.store(kept + at, e);
                }
                if (whole < end) {
                    const e = math.expFlushed(tail - shift);
                    sum[1] += e;
                    if (keep) L.storePart(kept + whole, e, end - whole);
                }
                i = end;
            }
            return .{ largest, L.total((sum[0] + sum[1]) + (sum[2] + sum[3])) };
        }

        fn rescale(x: [*]f32, n: usize, factor: f32) void {
            var i: usize = 0;
            while (i + lanes <= n) : (i += lanes) L.store(x + i, L.load(x + i) * L.all(factor));
            while (i < n) : (i += 1) x[i] *= factor;
        }

        inline fn greater(x: V, most: V) V {
            return @select(f32, x > most, x, most);
        }

        /// dlogits (=|+=) factor * exp(x - shift).
        inline fn gradient(comptime accumulate: bool, x: [*]const f32, dlogits: [*]f32, n: usize, shift: f32, factor: f32) void {
            var i: usize = 0;
            while (i + lanes <= n) : (i += lanes) {
                const value = L.all(factor) * math.expFlushed(L.load(x + i) - L.all(shift));
                L.store(dlogits + i, if (accumulate) L.load(dlogits + i) + value else value);
            }
            if (i == n) return;
            const value = L.all(factor) * math.expFlushed(L.loadPart(x + i, n - i, 0) - L.all(shift));
            L.storePart(dlogits + i, if (accumulate) L.loadPart(dlogits + i, n - i, 0) + value else value, n - i);
        }

        pub fn cross_entropy_backward(args: *const ops.CrossEntropyBackward, phase: u32, tile: u32, _: Bytes, _: Bytes) u32 {
            if (phase == 0) return plan.check(args, tile);
            const first_row, const end_row, const first_col, const end_col = plan.Grid.init(args.rows, args.classes).block(tile);
            const n = end_col - first_col;
            const factor = plan.factorOf(args);
            for (first_row..end_row) |row| {
                const target = args.targets.i32s()[row];
                const from = row * args.classes + first_col;
                const dlogits = args.dlogits.f32s() + from;
                if (target == args.ignore_index) {
                    if (args.accumulate == 0) @memset(dlogits[0..n], 0);
                    continue;
                }
                const logits = args.logits.f32s() + from;
                const lse = args.lse.f32s()[row];
                const scale = args.dy.f32s()[if (args.per_row == 1) row else 0] * factor;
                const at: usize = @intCast(target);
                const here = at >= first_col and at < end_col;
                // Taken before its place is written: dlogits may be logits.
                const one = if (here) scale * (math.exp1(logits[at - first_col] - lse) - 1) else 0;
                const before = if (here) dlogits[at - first_col] else 0;
                if (args.accumulate == 1) gradient(true, logits, dlogits, n, lse, scale) else gradient(false, logits, dlogits, n, lse, scale);
                if (here) dlogits[at - first_col] = if (args.accumulate == 1) before + one else one;
            }
            return 0;
        }
    };
}
