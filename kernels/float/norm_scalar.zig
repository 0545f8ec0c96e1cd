// The plain twin of layer and RMS norm: loops that read like the formulas in ops.zig, the oracle of the tests.
// Not fast. Read next: norm_vector.zig.
const ops = @import("ops.zig");
const plan = @import("norm.zig");

const Bytes = [*]align(64) u8;

/// Sums of a row in f64: the shape decides their order, and an offset costs nothing.
pub fn norm(args: *const ops.Norm, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const layer = args.mode == @intFromEnum(ops.NormMode.layer);
    const width: f64 = @floatFromInt(args.width);
    const first, const end = plan.rowRange(tile, args.rows, args.width);
    for (first..end) |row| {
        const x = args.x.f32s()[row * args.width ..][0..args.width];
        const y = args.y.f32s()[row * args.width ..][0..args.width];
        var mean: f64 = 0;
        if (layer) {
            for (x) |value| mean += value;
            mean /= width;
        }
        var squares: f64 = 0;
        for (x) |value| squares += (value - mean) * (value - mean);
        const rstd = 1 / @sqrt(squares / width + args.eps);
        for (x, y, 0..) |value, *to, i| {
            var result: f32 = @floatCast((value - mean) * rstd);
            if (args.weight.present()) result *= args.weight.f32s()[i];
            if (args.bias.present()) result += args.bias.f32s()[i];
            to.* = result;
        }
        if (layer and args.mean.present()) args.mean.f32s()[row] = @floatCast(mean);
        if (args.rstd.present()) args.rstd.f32s()[row] = @floatCast(rstd);
    }
}

/// Phase 0: dx, and each piece's sums for dweight and dbias. Phase 1: the pieces' sums, in order.
pub fn norm_backward(args: *const ops.NormBackward, phase: u32, tile: u32, workspace: Bytes, _: Bytes) void {
    const width: usize = args.width;
    const pieces: plan.Pieces = .init(args);
    const sums: [*]f32 = @ptrCast(workspace);
    if (phase == 1) {
        const first, const end = plan.Pieces.columns(args, tile);
        for (first..end) |i| {
            var dweight: f32 = 0;
            var dbias: f32 = 0;
            for (0..@intCast(pieces.count)) |piece| {
                dweight += sums[2 * piece * width + i];
                dbias += sums[(2 * piece + 1) * width + i];
            }
            if (args.dweight.present()) put(&args.dweight.f32s()[i], dweight, args.accumulate_weights);
            if (args.dbias.present()) put(&args.dbias.f32s()[i], dbias, args.accumulate_weights);
        }
        return;
    }
    const layer = args.mode == @intFromEnum(ops.NormMode.layer);
    const wanted = args.dweight.present() or args.dbias.present();
    const own = sums + 2 * tile * width;
    if (wanted) @memset(own[0 .. 2 * width], 0);
    const first, const end = pieces.rows(args, tile);
    for (first..end) |row| {
        const x = args.x.f32s()[row * width ..][0..width];
        const dy = args.dy.f32s()[row * width ..][0..width];
        const mean = if (layer) args.mean.f32s()[row] else 0;
        const rstd = args.rstd.f32s()[row];
        var sum: f64 = 0;
        var product: f64 = 0;
        for (x, dy, 0..) |value, gradient, i| {
            const n = (value - mean) * rstd;
            if (wanted) {
                own[i] += gradient * n;
                own[width + i] += gradient;
            }
            const g = if (args.weight.present()) gradient * args.weight.f32s()[i] else gradient;
            sum += g;
            product += g * n;
        }
        if (!args.dx.present()) continue;
        const dx = args.dx.f32s()[row * width ..][0..width];
        const mean_g: f32 = if (layer) @floatCast(sum / @as(f64, @floatFromInt(width))) else 0;
        const mean_gn: f32 = @floatCast(product / @as(f64, @floatFromInt(width)));
        for (x, dy, dx, 0..) |value, gradient, *to, i| {
            const g = if (args.weight.present()) gradient * args.weight.f32s()[i] else gradient;
            put(to, rstd * (g - mean_g - (value - mean) * rstd * mean_gn), args.accumulate);
        }
    }
}

fn put(to: *f32, value: f32, accumulate: u32) void {
    to.* = if (accumulate == 1) to.* + value else value;
}
