// Vector kernels for rotary positions, one source for all tiers.
// Not the checks: rope.zig has them. Read next: rope_scalar.zig, the same in plain loops, and the table of angles.
const ops = @import("ops.zig");
const plan = @import("rope.zig");
const scalar = @import("rope_scalar.zig");
const Lanes = @import("lanes.zig").Lanes;

const Bytes = [*]align(64) u8;

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const L = Lanes(lanes);
        const V = L.V;

        pub fn rope(args: *const ops.Rope, phase: u32, tile: u32, workspace: Bytes, _: Bytes) void {
            @setRuntimeSafety(false);
            const angles: [*]f32 = @ptrCast(workspace);
            if (phase == 0) return scalar.table(args, tile, angles);
            const half = args.d / 2;
            const accumulate = args.accumulate == 1;
            const first, const end = plan.rowRange(args, tile);
            for (first..end) |row| {
                const batch = row / args.time;
                const time = row % args.time;
                const cosines = angles + (if (args.positions.present()) row else time) * args.d;
                for (0..args.heads) |head| {
                    const x = args.x.f32s() + batch * args.x_batch + time * args.x_time + head * args.x_head;
                    const y = args.y.f32s() + batch * args.y_batch + time * args.y_time + head * args.y_head;
                    switch (@as(ops.RopePairs, @enumFromInt(args.pairs))) {
                        .interleaved => interleaved(x, y, cosines, half, accumulate),
                        .half => halves(x, y, cosines, half, accumulate),
                    }
                }
            }
        }

        inline fn put(to: [*]f32, value: V, accumulate: bool) void {
            L.store(to, if (accumulate) L.load(to) + value else value);
        }
        inline fn putPart(to: [*]f32, value: V, n: usize, accumulate: bool) void {
            L.storePart(to, if (accumulate) L.loadPart(to, n, 0) + value else value, n);
        }

        fn halves(x: [*]const f32, y: [*]f32, cosines: [*]const f32, half: usize, accumulate: bool) void {
            @setRuntimeSafety(false);
            const sines = cosines + half;
            var i: usize = 0;
            while (i + lanes <= half) : (i += lanes) {
                const a = L.load(x + i);
                const b = L.load(x + half + i);
                const c = L.load(cosines + i);
                const s = L.load(sines + i);
                put(y + i, @mulAdd(V, a, c, -b * s), accumulate);
                put(y + half + i, @mulAdd(V, a, s, b * c), accumulate);
            }
            if (i == half) return;
            const n = half - i;
            const a = L.loadPart(x + i, n, 0);
            const b = L.loadPart(x + half + i, n, 0);
            const c = L.loadPart(cosines + i, n, 0);
            const s = L.loadPart(sines + i, n, 0);
            putPart(y + i, @mulAdd(V, a, c, -b * s), n, accumulate);
            putPart(y + half + i, @mulAdd(V, a, s, b * c), n, accumulate);
        }

        const evens = every(2, 0);
        const odds = every(2, 1);
        const low = mixed(0);
        const high = mixed(lanes / 2);

        fn every(comptime step: i32, comptime first: i32) [lanes]i32 {
            var mask: [lanes]i32 = undefined;
            for (&mask, 0..) |*to, i| {
                const at = @as(i32, i) * step + first;
                to.* = if (at < lanes) at else ~(at - lanes);
            }
            return mask;
        }
        fn mixed(comptime first: i32) [lanes]i32 {
            var mask: [lanes]i32 = undefined;
            for (&mask, 0..) |*to, i| to.* = if (i % 2 == 0) first + i / 2 else ~(first + @as(i32, i / 2));
            return mask;
        }

        /// Two vectors of pairs are parted into left and right ones, turned, and put together again.
        fn interleaved(x: [*]const f32, y: [*]f32, cosines: [*]const f32, half: usize, accumulate: bool) void {
            @setRuntimeSafety(false);
            const sines = cosines + half;
            var i: usize = 0;
            while (i + lanes <= half) : (i += lanes) {
                const one = L.load(x + 2 * i);
                const two = L.load(x + 2 * i + lanes);
                const a = @shuffle(f32, one, two, evens);
                const b = @shuffle(f32, one, two, odds);
                const c = L.load(cosines + i);
                const s = L.load(sines + i);
                const left = @mulAdd(V, a, c, -b * s);
                const right = @mulAdd(V, a, s, b * c);
                put(y + 2 * i, @shuffle(f32, left, right, low), accumulate);
                put(y + 2 * i + lanes, @shuffle(f32, left, right, high), accumulate);
            }
            while (i < half) : (i += 1) {
                const a = x[2 * i];
                const b = x[2 * i + 1];
                const left = @mulAdd(f32, a, cosines[i], -b * sines[i]);
                const right = @mulAdd(f32, a, sines[i], b * cosines[i]);
                y[2 * i] = if (accumulate) y[2 * i] + left else left;
                y[2 * i + 1] = if (accumulate) y[2 * i + 1] + right else right;
            }
        }
    };
}
