// Plans of table look-ups and their gradient: every size and flag checked, operands linked, work cut into tiles; ids are
// looked at in a phase of their own before anything is written.
// Not the kernels: embed_scalar.zig (plain loops, the oracle), embed_vector.zig (SIMD). Read next: ops.zig.
const std = @import("std");
const ops = @import("ops.zig");
pub const Grid = @import("elementwise.zig").Grid;

const fault = "id out of range in row";

/// Ids of a tile of the first phase.
pub const check_rows = 1 << 15;

pub fn embed(args: *ops.Embed, link: *ops.Link) ops.Error!ops.Plan {
    const dtype = try link.choice(ops.Dtype, args.dtype, "dtype");
    if (dtype == .i32) return link.fail(error.BadArgument, "dtype: f32, bf16 or i8 only", .{});
    if (dtype == .i8) try link.dense(&args.scales, &.{args.vocabulary}, .f32, "scales");
    try link.dense(&args.table, &.{ args.vocabulary, args.width }, dtype, "table");
    try link.dense(&args.ids, &.{args.rows}, .i32, "ids");
    try link.dense(&args.y, &.{ args.rows, args.width }, .f32, "y");
    return .{
        .tiles = .{ std.math.divCeil(u32, args.rows, check_rows) catch unreachable, Grid.init(args.rows, args.width).tiles(), 0 },
        .work = @as(u64, args.rows) * @max(args.width, 1),
        .fault = fault,
    };
}

/// Looks at one tile's ids: 0, or 1 + the first row that is out of range.
pub fn check(ids: [*]const i32, rows: u32, vocabulary: u32, tile: u32) u32 {
    const first = @as(usize, tile) * check_rows;
    for (first..@min(first + check_rows, rows)) |row| {
        if (ids[row] < 0 or ids[row] >= vocabulary) return @intCast(row + 1);
    }
    return 0;
}

/// Columns of a tile of the gradient: so few that a frequent token's rows are still shared out.
const block_columns = 256;

/// The gradient's tiles: groups of tokens by blocks of columns.
pub const Blocks = struct {
    tokens: usize,
    across: u32,

    pub fn init(vocabulary: u32, width: u32) Blocks {
        const columns = @max(1, @min(width, block_columns));
        return .{
            .tokens = std.math.clamp((1 << 14) / @as(usize, columns), 1, @max(1, vocabulary / 64)),
            .across = std.math.divCeil(u32, width, block_columns) catch unreachable,
        };
    }
    pub fn tiles(blocks: Blocks, vocabulary: u32) u64 {
        return (std.math.divCeil(u64, vocabulary, blocks.tokens) catch unreachable) * blocks.across;
    }
    /// First token and end, first column and end.
    pub fn tile(blocks: Blocks, args: *const ops.EmbedBackward, number: u32) [4]usize {
        const token = number / blocks.across * blocks.tokens;
        const col = @as(usize, number % blocks.across) * block_columns;
        return .{ token, @min(token + blocks.tokens, args.vocabulary), col, @min(col + block_columns, args.width) };
    }
};

/// Rows grouped by token, in the workspace: rows[starts[t] .. starts[t + 1]] are those with ids[row] = t, in order.
pub const Groups = struct {
    starts: [*]u32,
    rows: [*]u32,

    pub fn at(workspace: [*]align(64) u8, vocabulary: u32) Groups {
        const words: [*]u32 = @ptrCast(workspace);
        return .{ .starts = words, .rows = words + vocabulary + 2 };
    }
    pub fn bytes(vocabulary: u32, rows: u32) usize {
        return 4 * (@as(usize, vocabulary) + 2 + rows);
    }

    /// Counts, then places: starts[t + 2] counts token t, then starts[t + 1] is where its next row goes.
    pub fn build(groups: Groups, ids: [*]const i32, count: u32, vocabulary: u32) void {
        const starts = groups.starts[0 .. @as(usize, vocabulary) + 2];
        @memset(starts, 0);
        for (ids[0..count]) |id| starts[@as(usize, @intCast(id)) + 2] += 1;
        for (2..starts.len) |i| starts[i] += starts[i - 1];
        for (ids[0..count], 0..) |id, row| {
            const next = &starts[@as(usize, @intCast(id)) + 1];
            groups.rows[next.*] = @intCast(row);
            next.* += 1;
        }
    }
    pub fn of(groups: Groups, token: usize) []const u32 {
        return groups.rows[groups.starts[token]..groups.starts[token + 1]];
    }
};

pub fn embed_backward(args: *ops.EmbedBackward, link: *ops.Link) ops.Error!ops.Plan {
    _ = try link.choice(bool, args.accumulate, "accumulate");
    try link.dense(&args.dy, &.{ args.rows, args.width }, .f32, "dy");
    try link.dense(&args.ids, &.{args.rows}, .i32, "ids");
    try link.dense(&args.dtable, &.{ args.vocabulary, args.width }, .f32, "dtable");
    const tiles = std.math.cast(u32, Blocks.init(args.vocabulary, args.width).tiles(args.vocabulary));
    return .{
        .tiles = .{ 1, tiles orelse return link.fail(error.BadShape, "dtable: too large", .{}), 0 },
        .workspace = Groups.bytes(args.vocabulary, args.rows),
        .work = (@as(u64, args.rows) + if (args.accumulate == 1) 0 else args.vocabulary) * @max(args.width, 1),
        .fault = fault,
    };
}
