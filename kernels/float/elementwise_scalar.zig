// The plain twin of what goes element by element: loops that read like the formulas in ops.zig, the oracle of the tests.
// Not fast. Read next: elementwise_vector.zig.
const std = @import("std");
const ops = @import("ops.zig");
const plan = @import("elementwise.zig");

const Bytes = [*]align(64) u8;

pub fn binary(args: *const ops.Binary, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const a = args.a.f32s();
    const b = args.b.f32s();
    const y = args.y.f32s();
    const grid = plan.binaryGrid(args);
    const first_row, const end_row, const first_col, const end_col = grid.block(tile);
    for (first_row..end_row) |row| {
        for (first_col..end_col) |col| {
            const i = row * @as(usize, @intCast(grid.cols)) + col;
            const other = switch (@as(ops.Broadcast, @enumFromInt(args.broadcast))) {
                .same => b[i],
                .row => b[col],
                .column => b[row],
                .scalar => b[0],
            };
            const value = args.alpha * apply(@enumFromInt(args.operation), a[i], other);
            y[i] = if (args.accumulate == 1) y[i] + value else value;
        }
    }
}

fn apply(operation: ops.BinaryOp, a: f32, b: f32) f32 {
    return switch (operation) {
        .add => a + b,
        .subtract => a - b,
        .multiply => a * b,
        .divide => a / b,
        .maximum => if (a > b or std.math.isNan(a)) a else b,
        .minimum => if (a < b or std.math.isNan(a)) a else b,
        .greater => if (a > b) 1 else 0,
        .greater_equal => if (a >= b) 1 else 0,
        .equal => if (a == b) 1 else 0,
    };
}

pub fn unary(args: *const ops.Unary, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const x = args.x.f32s();
    const y = args.y.f32s();
    const first, const end = plan.flatRange(tile, args.count);
    for (first..end) |i| {
        const value = args.alpha * function(@enumFromInt(args.operation), x[i]) + args.beta;
        y[i] = if (args.accumulate == 1) y[i] + value else value;
    }
}

fn function(operation: ops.UnaryOp, x: f32) f32 {
    return switch (operation) {
        .identity => x,
        .absolute => @abs(x),
        .sign => if (x > 0) 1 else if (x < 0) -1 else x,
        .square => x * x,
        .sqrt => @sqrt(x),
        .rsqrt => 1 / @sqrt(x),
        .reciprocal => 1 / x,
        .exp => @exp(x),
        .log => @log(x),
    };
}

pub fn fill(args: *const ops.Fill, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const first, const end = plan.flatRange(tile, args.count);
    for (args.y.f32s()[first..end]) |*y| y.* = args.value;
}

pub fn convert(args: *const ops.Convert, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const first, const end = plan.flatRange(tile, args.count);
    for (first..end) |i| {
        switch (@as(ops.Dtype, @enumFromInt(args.from))) {
            .f32 => args.y.bf16s()[i] = narrow(args.x.f32s()[i]),
            .bf16 => args.y.f32s()[i] = widen(args.x.bf16s()[i]),
            .i32 => args.y.f32s()[i] = @floatFromInt(args.x.i32s()[i]),
            .i8 => unreachable,
        }
    }
}

/// bf16 is the upper half of an f32.
pub fn widen(x: u16) f32 {
    return @bitCast(@as(u32, x) << 16);
}

/// To nearest, ties to even; NaN stays NaN.
pub fn narrow(x: f32) u16 {
    const bits: u32 = @bitCast(x);
    if (std.math.isNan(x)) return @intCast(bits >> 16 | 0x40);
    return @intCast((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

pub fn dropout(args: *const ops.Dropout, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    const x = args.x.f32s();
    const y = args.y.f32s();
    const mask: plan.Mask = .init(args);
    const first, const end = plan.flatRange(tile, args.count);
    for (first..end) |i| {
        const words = plan.philox(u32, .{ @intCast(i / 4), args.stream, mask.step, 0 }, args.seed, highLow, same);
        const value = x[i] * (if (words[i % 4] >= mask.threshold) mask.scale else 0);
        y[i] = if (args.accumulate == 1) y[i] + value else value;
    }
}

inline fn highLow(a: u32, b: u32) [2]u32 {
    const product = @as(u64, a) * b;
    return .{ @intCast(product >> 32), @truncate(product) };
}

inline fn same(word: u32) u32 {
    return word;
}

pub fn copy(args: *const ops.Copy, _: u32, tile: u32, _: Bytes, _: Bytes) void {
    if (args.dtype == @intFromEnum(ops.Dtype.bf16)) copyElements(u16, args, tile) else copyElements(u32, args, tile);
}

fn copyElements(comptime T: type, args: *const ops.Copy, tile: u32) void {
    const x: [*]const T = @ptrFromInt(args.x.at);
    const y: [*]T = @ptrFromInt(args.y.at);
    const planes, const block = plan.CopyTiles.init(args).tile(tile);
    const first_row, const end_row, const first_col, const end_col = block;
    for (planes[0]..planes[1]) |plane| {
        for (first_row..end_row) |row| {
            for (first_col..end_col) |col| {
                const from, const to = plan.CopyTiles.block(args, plane, row, col);
                if (args.accumulate == 1) args.y.f32s()[to] += args.x.f32s()[from] else y[to] = x[from];
            }
        }
    }
}
