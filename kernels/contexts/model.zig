// The context model: tables of rows of logits, one table for each context length, int8 weights to read and int32 masters to train.
// Which row a context has is decided here; what is done with rows is in ops.zig. Read next: eggroll.zig, evaluate.zig.
const std = @import("std");
const ops = @import("ops.zig");
const os = @import("../os.zig");

pub const Shape = struct {
    /// Tokens; bytes are mapped to them by `tokens`.
    vocabulary: u32,
    /// Longest context in bytes; tables are for 1 .. order.
    order: u32,
    /// Rows of a table of three and more bytes: 2^table_bits, found by hash.
    table_bits: u32,

    pub fn rowsOf(shape: Shape, length: usize) u32 {
        return switch (length) {
            1 => shape.vocabulary,
            2 => shape.vocabulary * shape.vocabulary,
            else => @as(u32, 1) << @intCast(shape.table_bits),
        };
    }

    pub fn rows(shape: Shape) usize {
        var sum: usize = 0;
        for (1..shape.order + 1) |length| sum += shape.rowsOf(length);
        return sum;
    }

    pub fn bytesNeeded(shape: Shape) usize {
        return 5 * shape.rows() * ops.padded(shape.vocabulary);
    }
};

pub const Model = struct {
    shape: Shape,
    /// Bytes from one row to the next.
    width: usize,
    /// First row of each table.
    first: [ops.max_order + 1]u32,
    /// Token of each byte.
    tokens: [256]u8,
    /// (rows, width), 1/16 bit.
    weights: []align(64) i8,
    /// (rows, width), 2^-20 of that.
    masters: []align(64) i32,

    pub fn init(model: *Model, shape: Shape, tokens: *const [256]u8) error{OutOfMemory}!void {
        const width = ops.padded(shape.vocabulary);
        const rows = shape.rows();
        model.* = .{ .shape = shape, .width = width, .first = @splat(0), .tokens = tokens.*, .weights = &.{}, .masters = &.{} };
        for (1..shape.order + 1) |length| model.first[length] = model.first[length - 1] + shape.rowsOf(length);
        errdefer model.deinit();
        model.weights = try os.allocate(i8, rows * width);
        model.masters = try os.allocate(i32, rows * width);
    }

    pub fn deinit(model: *Model) void {
        os.free(model.weights);
        os.free(model.masters);
    }

    /// Asks for a row that will be read soon.
    pub fn fetch(model: *const Model, row: u32) void {
        var at: usize = row * model.width;
        while (at < (row + 1) * model.width) : (at += 64) @prefetch(&model.weights[at], .{ .rw = .read, .locality = 3, .cache = .data });
    }

    /// Asks for a row that will be moved soon.
    pub fn fetchMaster(model: *const Model, row: u32) void {
        model.fetch(row);
        var at: usize = row * model.width;
        while (at < (row + 1) * model.width) : (at += 16) @prefetch(&model.masters[at], .{ .rw = .write, .locality = 3, .cache = .data });
    }

    /// The rows of the context that ends before `text[end]`; there must be `order` bytes before it.
    pub fn rowsAt(model: *const Model, text: []const u8, end: usize) [ops.max_order]u32 {
        var rows: [ops.max_order]u32 = @splat(0);
        const size = model.shape.vocabulary;
        var context: [ops.max_order]u32 = undefined;
        for (0..model.shape.order) |i| context[i] = model.tokens[text[end - 1 - i]];
        for (rows[0..model.shape.order], 0..) |*row, k| {
            row.* = model.first[k] + switch (k) {
                0 => context[0],
                1 => context[0] * size + context[1],
                else => hashed: {
                    var x: u32 = 0x51ed270b + @as(u32, @intCast(k));
                    for (context[0 .. k + 1]) |token| x = ops.hash((x ^ token) *% ops.golden_ratio);
                    break :hashed x & (model.shape.rowsOf(k + 1) - 1);
                },
            };
        }
        return rows;
    }
};
