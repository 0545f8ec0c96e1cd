// Vector kernels for layer and RMS norm, one source for all tiers. A row is read from memory once; later looks at it find it in
// the cache, so that the mean is known before deviations from it are squared, and an offset costs nothing.
// Not the checks: norm.zig has them. Read next: norm_scalar.zig, the same in plain loops.
const ops = @import("ops.zig");
const plan = @import("norm.zig");
const Lanes = @import("lanes.zig").Lanes;

const Bytes = [*]align(64) u8;

pub fn Kernels(comptime lanes: comptime_int) type {
    return struct {
        const L = Lanes(lanes);
        const V = L.V;
        const strands = 4;

        pub fn norm(args: *const ops.Norm, _: u32, tile: u32, _: Bytes, _: Bytes) void {
            @setRuntimeSafety(false);
            switch (@as(ops.NormMode, @enumFromInt(args.mode))) {
                inline else => |mode| forward(mode, args, tile),
            }
        }

        fn forward(comptime mode: ops.NormMode, args: *const ops.Norm, tile: u32) void {
            @setRuntimeSafety(false);
            const width: usize = args.width;
            const count: f32 = @floatFromInt(args.width);
            const weight: ?[*]const f32 = if (args.weight.present()) args.weight.f32s() else null;
            const bias: ?[*]const f32 = if (args.bias.present()) args.bias.f32s() else null;
            const first, const end = plan.rowRange(tile, args.rows, args.width);
            for (first..end) |row| {
                const x = args.x.f32s() + row * width;
                const y = args.y.f32s() + row * width;
                const rough = if (mode == .layer) total(x, width) / count else 0;
                const deviation, const squares = moments(mode, x, width, L.all(rough));
                // What rounding left in the rough mean.
                const rest = deviation / count;
                const variance = squares / count - rest * rest;
                const rstd = 1 / @sqrt((if (variance < 0) 0 else variance) + args.eps);
                const subtract = L.all(rough);
                const scale = L.all(rstd);
                const shift = L.all(-rest * rstd);
                var i: usize = 0;
                while (i + lanes <= width) : (i += lanes) {
                    var value = L.load(x + i);
                    value = if (mode == .layer) @mulAdd(V, value - subtract, scale, shift) else value * scale;
                    if (weight) |w| value *= L.load(w + i);
                    if (bias) |b| value += L.load(b + i);
                    L.store(y + i, value);
                }
                if (i < width) {
                    const n = width - i;
                    var value = L.loadPart(x + i, n, 0);
                    value = if (mode == .layer) @mulAdd(V, value - subtract, scale, shift) else value * scale;
                    if (weight) |w| value *= L.loadPart(w + i, n, 0);
                    if (bias) |b| value += L.loadPart(b + i, n, 0);
                    L.storePart(y + i, value, n);
                }
                if (mode == .layer and args.mean.present()) args.mean.f32s()[row] = rough + rest;
                if (args.rstd.present()) args.rstd.f32s()[row] = rstd;
            }
        }

        fn joined(sums: [strands]V) f32 {
            return L.total((sums[0] + sums[1]) + (sums[2] + sums[3]));
        }

        inline fn total(x: [*]const f32, n: usize) f32 {
            var sums: [strands]V = @splat(L.all(0));
            var i: usize = 0;
            while (i + strands * lanes <= n) : (i += strands * lanes) {
                inline for (0..strands) |s| sums[s] += L.load(x + i + s * lanes);
            }
            while (i + lanes <= n) : (i += lanes) sums[0] += L.load(x + i);
            if (i < n) sums[1] += L.loadPart(x + i, n - i, 0);
            return joined(sums);
        }

        /// Sums of x - mean (layer only) and of its square.
        inline fn moments(comptime mode: ops.NormMode, x: [*]const f32, n: usize, mean: V) [2]f32 {
            var sums: [strands]V = @splat(L.all(0));
            var squares: [strands]V = @splat(L.all(0));
            var i: usize = 0;
            while (i + strands * lanes <= n) : (i += strands * lanes) {
                inline for (0..strands) |s| {
                    if (mode == .layer) @prefetch(x + n + i + s * lanes, .{}); // the next row
                    const value = if (mode == .layer) L.load(x + i + s * lanes) - mean else L.load(x + i + s * lanes);
                    if (mode == .layer) sums[s] += value;
                    squares[s] = @mulAdd(V, value, value, squares[s]);
                }
            }
            while (i < n) : (i += lanes) {
                const from = if (i + lanes <= n) L.load(x + i) else L.loadPart(x + i, n - i, mean[0]);
                const value = if (mode == .layer) from - mean else from;
                if (mode == .layer) sums[0] += value;
                squares[1] = @mulAdd(V, value, value, squares[1]);
            }
            return .{ joined(sums), joined(squares) };
        }

        /// Phase 0: dx, and each piece's sums for dweight and dbias. Phase 1: the pieces' sums, in order.
        pub fn norm_backward(args: *const ops.NormBackward, phase: u32, tile: u32, workspace: Bytes, _: Bytes) void {
            @setRuntimeSafety(false);
            if (phase == 1) return join(args, tile, workspace);
            switch (@as(ops.NormMode, @enumFromInt(args.mode))) {
                inline else => |mode| {
                    if (args.weight.present()) backward(mode, true, args, tile, workspace) else backward(mode, false, args, tile, workspace);
                },
            }
        }

        fn backward(comptime mode: ops.NormMode, comptime weighted: bool, args: *const ops.NormBackward, tile: u32, workspace: Bytes) void {
            @setRuntimeSafety(false);
            const width: usize = args.width;
            const count: f32 = @floatFromInt(args.width);
            const sums = args.dweight.present() or args.dbias.present();
            const weight = if (weighted) args.weight.f32s() else {};
            const dweight = @as([*]f32, @ptrCast(workspace)) + 2 * tile * width;
            const dbias = dweight + width;
            const accumulate = args.accumulate == 1;
            const first, const end = plan.Pieces.init(args).rows(args, tile);
            if (sums) @memset(dweight[0 .. 2 * width], 0);
            for (first..end) |row| {
                const x = args.x.f32s() + row * width;
                const dy = args.dy.f32s() + row * width;
                const mean = L.all(if (mode == .layer) args.mean.f32s()[row] else 0);
                const rstd = L.all(args.rstd.f32s()[row]);
                var sum: [2]V = @splat(L.all(0));
                var product: [2]V = @splat(L.all(0));
                var i: usize = 0;
                while (i + 2 * lanes <= width) : (i += 2 * lanes) {
                    inline for (0..2) |s| {
                        const at = i + s * lanes;
                        const gradient = L.load(dy + at);
                        const n = (L.load(x + at) - mean) * rstd;
                        if (sums) {
                            L.store(dweight + at, @mulAdd(V, gradient, n, L.load(dweight + at)));
                            L.store(dbias + at, L.load(dbias + at) + gradient);
                        }
                        const g = if (weighted) gradient * L.load(weight + at) else gradient;
                        if (mode == .layer) sum[s] += g;
                        product[s] = @mulAdd(V, g, n, product[s]);
                    }
                }
                while (i < width) : (i += lanes) {
                    const rest = @min(lanes, width - i);
                    const gradient = L.loadPart(dy + i, rest, 0);
                    const n = (L.loadPart(x + i, rest, 0) - mean) * rstd;
                    if (sums) {
                        L.storePart(dweight + i, @mulAdd(V, gradient, n, L.loadPart(dweight + i, rest, 0)), rest);
                        L.storePart(dbias + i, L.loadPart(dbias + i, rest, 0) + gradient, rest);
                    }
                    const g = if (weighted) gradient * L.loadPart(weight + i, rest, 0) else gradient;
                    if (mode == .layer) sum[0] += g;
                    product[0] = @mulAdd(V, g, n, product[0]);
                }
                if (!args.dx.present()) continue;
                const dx = args.dx.f32s() + row * width;
                const mean_g = L.all(if (mode == .layer) L.total(sum[0] + sum[1]) / count else 0);
                const slope = rstd * L.all(L.total(product[0] + product[1]) / count);
                i = 0;
                while (i + lanes <= width) : (i += lanes) {
                    const gradient = L.load(dy + i);
                    const g = if (weighted) gradient * L.load(weight + i) else gradient;
                    const value = rstd * @mulAdd(V, mean - L.load(x + i), slope, if (mode == .layer) g - mean_g else g);
                    L.store(dx + i, if (accumulate) L.load(dx + i) + value else value);
                }
                if (i == width) continue;
                const rest = width - i;
                const gradient = L.loadPart(dy + i, rest, 0);
                const g = if (weighted) gradient * L.loadPart(weight + i, rest, 0) else gradient;
                const value = rstd * @mulAdd(V, mean - L.loadPart(x + i, rest, 0), slope, if (mode == .layer) g - mean_g else g);
                L.storePart(dx + i, if (accumulate) L.loadPart(dx + i, rest, 0) + value else value, rest);
            }
        }

        fn join(args: *const ops.NormBackward, tile: u32, workspace: Bytes) void {
            @setRuntimeSafety(false);
            const width: usize = args.width;
            const pieces: usize = @intCast(plan.Pieces.init(args).count);
            const sums: [*]const f32 = @ptrCast(workspace);
            const accumulate = args.accumulate_weights == 1;
            const first, const end = plan.Pieces.columns(args, tile);
            inline for (.{ "dweight", "dbias" }, 0..) |name, which| {
                if (@field(args, name).present()) {
                    const to = @field(args, name).f32s();
                    var i = first;
                    while (i < end) : (i += lanes) {
                        const n = @min(lanes, end - i);
                        var value = if (accumulate) L.loadPart(to + i, n, 0) else L.all(0);
                        for (0..pieces) |piece| {
                            const from = sums + (2 * piece + which) * width + i;
                            value += if (n == lanes) L.load(from) else L.loadPart(from, n, 0);
                        }
                        L.storePart(to + i, value, n);
                    }
                }
            }
        }
    };
}
