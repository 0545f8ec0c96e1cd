// Plans of what goes element by element: every size and flag checked, operands linked, work cut into tiles.
// Not the kernels: elementwise_scalar.zig (plain loops, the oracle), elementwise_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");

/// Elements of one tile: 64 KiB of f32, a multiple of every tier's lanes.
pub const tile_elements = 1 << 14;

fn divide(count: u64, step: u64) u64 {
    return std.math.divCeil(u64, count, step) catch unreachable;
}

/// Tiles of a flat operation. After linking: what lies in an arena has few enough.
pub fn flatTiles(count: u64) u32 {
    return @intCast(divide(count, tile_elements));
}

/// First element and end of a tile of a flat operation.
pub fn flatRange(tile: u32, count: u64) [2]usize {
    const first = @as(u64, tile) * tile_elements;
    return .{ @intCast(first), @intCast(@min(first + tile_elements, count)) };
}

/// A (rows, cols) matrix cut into blocks of about tile_elements, of whole rows where they are short.
pub const Grid = struct {
    rows: u64,
    cols: u64,
    row_step: u64,
    col_step: u64,
    across: u64,

    pub fn init(rows: u64, cols: u64) Grid {
        const col_step = @max(1, @min(cols, tile_elements));
        return .{ .rows = rows, .cols = cols, .row_step = tile_elements / col_step, .col_step = col_step, .across = divide(cols, col_step) };
    }
    pub fn tiles(grid: Grid) u32 {
        return @intCast(divide(grid.rows, grid.row_step) * grid.across);
    }
    /// First row and end, first column and end.
    pub fn block(grid: Grid, tile: u32) struct { usize, usize, usize, usize } {
        const row = tile / grid.across * grid.row_step;
        const col = tile % grid.across * grid.col_step;
        return .{ @intCast(row), @intCast(@min(row + grid.row_step, grid.rows)), @intCast(col), @intCast(@min(col + grid.col_step, grid.cols)) };
    }
};

/// The blocks of a binary operation: one long row where b does not depend on the row.
pub fn binaryGrid(args: *const ops.Binary) Grid {
    return switch (@as(ops.Broadcast, @enumFromInt(args.broadcast))) {
        .same, .scalar => .init(1, @as(u64, args.rows) * args.cols),
        .row, .column => .init(args.rows, args.cols),
    };
}

pub fn binary(args: *ops.Binary, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(ops.BinaryOp, args.operation, "operation");
    _ = try link.choice(bool, args.accumulate, "accumulate");
    const size = [_]u32{ args.rows, args.cols };
    try link.dense(&args.a, &size, .f32, "a");
    try link.dense(&args.b, switch (try link.choice(ops.Broadcast, args.broadcast, "broadcast")) {
        .same => &size,
        .row => size[1..],
        .column => size[0..1],
        .scalar => &.{1},
    }, .f32, "b");
    try link.dense(&args.y, &size, .f32, "y");
    return .{ .tiles = .{ binaryGrid(args).tiles(), 0, 0 }, .work = @as(u64, args.rows) * args.cols };
}

pub fn unary(args: *ops.Unary, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(ops.UnaryOp, args.operation, "operation");
    _ = try link.choice(bool, args.accumulate, "accumulate");
    try link.dense(&args.x, &.{args.count}, .f32, "x");
    try link.dense(&args.y, &.{args.count}, .f32, "y");
    return flat(args.count);
}

pub fn fill(args: *ops.Fill, link: *ops.Link) ops.Error!ops.Plan {
    try link.dense(&args.y, &.{args.count}, .f32, "y");
    return flat(args.count);
}

pub fn convert(args: *ops.Convert, link: *ops.Link) ops.Error!ops.Plan {
    const from = try link.choice(ops.Dtype, args.from, "from");
    const to = try link.choice(ops.Dtype, args.to, "to");
    const known = (from == .f32 and to == .bf16) or ((from == .bf16 or from == .i32) and to == .f32);
    if (!known) return link.fail(error.BadArgument, "{t} to {t}: f32 to bf16, bf16 to f32 and i32 to f32 only", .{ from, to });
    try link.dense(&args.x, &.{args.count}, from, "x");
    try link.dense(&args.y, &.{args.count}, to, "y");
    return flat(args.count);
}

pub fn dropout(args: *ops.Dropout, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(bool, args.accumulate, "accumulate");
    if (!(args.p >= 0 and args.p <= 1)) return link.fail(error.BadArgument, "p: {d} is not in 0 .. 1", .{args.p});
    try link.dense(&args.x, &.{args.count}, .f32, "x");
    try link.dense(&args.y, &.{args.count}, .f32, "y");
    try link.optional(&args.step, &.{1}, .i32, "step");
    return flat(args.count);
}

fn flat(count: u32) ops.Plan {
    return .{ .tiles = .{ flatTiles(count), 0, 0 }, .work = count };
}

/// What a dropout's elements share: the third counter word, the smallest word that keeps an element, and 1 / (1 - p).
pub const Mask = struct {
    step: u32,
    threshold: u64,
    scale: f32,

    pub fn init(args: *const ops.Dropout) Mask {
        const step: u32 = if (args.step.present()) @bitCast(args.step.i32s()[0]) else 0;
        return .{
            .step = args.first_step +% step,
            .threshold = @intFromFloat(@ceil(@as(f64, args.p) * (1 << 32))),
            .scale = if (args.p == 1) 0 else 1 / (1 - args.p),
        };
    }
};

/// Seven rounds of Philox4x32 (Salmon et al. 2011) on words of any kind: u32, or vectors of counters.
pub inline fn philox(comptime T: type, counter: [4]T, seed: u32, comptime highLow: fn (T, u32) callconv(.@"inline") [2]T, comptime splat: fn (u32) callconv(.@"inline") T) [4]T {
    var c = counter;
    var key = [2]u32{ seed, 0 };
    inline for (0..7) |_| {
        const high0, const low0 = highLow(c[0], 0xd251_1f53);
        const high1, const low1 = highLow(c[2], 0xcd9e_8d57);
        c = .{ high1 ^ c[1] ^ splat(key[0]), low1, high0 ^ c[3] ^ splat(key[1]), low0 };
        key = .{ key[0] +% 0x9e37_79b9, key[1] +% 0xbb67_ae85 };
    }
    return c;
}

/// A copy's dimensions are put into the order of y's memory and joined where they can be, so that the kernels see few and long
/// ones: the last is y's most contiguous, the one before it the one in which x is contiguous (a transpose), if another.
pub fn copy(args: *ops.Copy, link: *ops.Link) ops.Error!ops.Plan {
    const dtype = try link.choice(ops.Dtype, args.dtype, "dtype");
    if (dtype == .i8) return link.fail(error.BadArgument, "dtype: i8 is not copied", .{});
    if (try link.choice(bool, args.accumulate, "accumulate") and dtype != .f32) return link.fail(error.BadArgument, "accumulate: f32 only", .{});
    try link.strided(&args.x, &args.sizes, &args.x_strides, dtype, "x");
    try link.strided(&args.y, &args.sizes, &args.y_strides, dtype, "y");
    var work: u64 = 1;
    for (args.sizes) |size| work = std.math.mul(u64, work, size) catch return link.fail(error.BadShape, "sizes: too large", .{});
    if (work == 0) return .{ .tiles = @splat(0) };
    var dimensions: [6]Dimension = undefined;
    var count: usize = 0;
    for (args.sizes, args.x_strides, args.y_strides) |size, x, y| {
        if (size == 1) continue;
        dimensions[count] = .{ .size = size, .x = x, .y = y };
        count += 1;
    }
    std.sort.insertion(Dimension, dimensions[0..count], {}, Dimension.outer);
    if (!nested(dimensions[0..count])) return link.fail(error.BadArgument, "y: indices meet", .{});
    count = join(dimensions[0..count]);
    // A transpose: x runs along another dimension than y does.
    if (count > 1 and dimensions[count - 1].x != 1) {
        for (dimensions[0 .. count - 1], 0..) |dimension, i| {
            if (dimension.x != 1) continue;
            std.mem.rotate(Dimension, dimensions[i .. count - 1], 1);
            break;
        }
    }
    for (0..6) |i| {
        const unused = 6 - count;
        const dimension: Dimension = if (i < unused) .{ .size = 1, .x = 0, .y = 0 } else dimensions[i - unused];
        args.sizes[i] = dimension.size;
        args.x_strides[i] = dimension.x;
        args.y_strides[i] = dimension.y;
    }
    const tiles = std.math.cast(u32, CopyTiles.init(args).total) orelse return link.fail(error.BadShape, "sizes: too large", .{});
    return .{ .tiles = .{ tiles, 0, 0 }, .work = work };
}

const Dimension = struct {
    size: u32,
    x: u32,
    y: u32,

    fn outer(_: void, a: Dimension, b: Dimension) bool {
        return a.y > b.y;
    }
};

/// Whether each dimension steps over all of those within it, so that no element of y is written twice.
fn nested(dimensions: []const Dimension) bool {
    var extent: u64 = 1;
    var i = dimensions.len;
    while (i > 0) {
        i -= 1;
        if (dimensions[i].y < extent) return false;
        extent = (dimensions[i].size - 1) * @as(u64, dimensions[i].y) + extent;
    }
    return true;
}

/// Joins neighbours that are one run in both x and y; returns how many are left.
fn join(dimensions: []Dimension) usize {
    var count: usize = 0;
    for (dimensions) |next| {
        if (count > 0) {
            const last = &dimensions[count - 1];
            const size = @as(u64, last.size) * next.size;
            if (last.y == @as(u64, next.size) * next.y and last.x == @as(u64, next.size) * next.x and size <= std.math.maxInt(u32)) {
                last.* = .{ .size = @intCast(size), .x = next.x, .y = next.y };
                continue;
            }
        }
        dimensions[count] = next;
        count += 1;
    }
    return count;
}

/// Tiles of a copy: blocks of the plane of the two last dimensions, or several planes where they are small.
pub const CopyTiles = struct {
    planes: u64,
    planes_tile: u64,
    grid: Grid,
    total: u64,

    pub fn init(args: *const ops.Copy) CopyTiles {
        const n = args.sizes;
        const planes = @as(u64, n[0]) * n[1] * n[2] * n[3];
        const plane = @as(u64, n[4]) * n[5];
        var grid: Grid = .init(n[4], n[5]);
        if (args.x_strides[5] != 1 and n[5] > 128) { // squares, so that both sides' lines are used whole
            grid.col_step = 128;
            grid.row_step = 128;
            grid.across = divide(grid.cols, 128);
        }
        const planes_tile = @max(1, tile_elements / plane);
        const blocks = divide(grid.rows, grid.row_step) * grid.across;
        return .{ .planes = planes, .planes_tile = planes_tile, .grid = grid, .total = divide(planes, planes_tile) * blocks };
    }

    /// First plane and end of a tile, and its block of each.
    pub fn tile(tiles: CopyTiles, number: u32) struct { [2]u64, @typeInfo(@TypeOf(Grid.block)).@"fn".return_type.? } {
        const blocks = divide(tiles.grid.rows, tiles.grid.row_step) * tiles.grid.across;
        const plane = number / blocks * tiles.planes_tile;
        return .{ .{ plane, @min(plane + tiles.planes_tile, tiles.planes) }, tiles.grid.block(@intCast(number % blocks)) };
    }

    /// Where a plane's block begins in x and y, in elements.
    pub fn block(args: *const ops.Copy, plane: u64, row: usize, col: usize) [2]usize {
        var x = row * args.x_strides[4] + col * args.x_strides[5];
        var y = row * args.y_strides[4] + col * args.y_strides[5];
        var rest = plane;
        for ([_]usize{ 3, 2, 1, 0 }) |i| {
            const index: usize = @intCast(rest % args.sizes[i]);
            rest /= args.sizes[i];
            x += index * args.x_strides[i];
            y += index * args.y_strides[i];
        }
        return .{ x, y };
    }
};
