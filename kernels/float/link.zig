// Operands of float instructions and how they are linked: references into arenas, checked and turned into addresses; and the
// plan that every operation gives. Not the operations: ops.zig. Read next: run.zig.
const std = @import("std");

/// What a plan may say no with; part of abi.Error.
pub const Error = error{ BadArgument, BadShape, StaleHandle, OutOfMemory, Unsupported };

pub const Dtype = enum(u32) {
    f32,
    bf16,
    i32,
    /// Weights, with a scale for each row (ops.zig: Gemm, Embed).
    i8,

    pub fn bytes(dtype: Dtype) u32 {
        return switch (dtype) {
            .i8 => 1,
            .bf16 => 2,
            .f32, .i32 => 4,
        };
    }
};

/// An operand: before linking, an offset in bytes into the arena of this handle; after linking, an address.
/// Elements are aligned to their own size, no more: views begin anywhere.
pub const Ref = extern struct {
    arena: u32 = 0,
    /// 0; linking makes it 1.
    linked: u32 = 0,
    at: u64 = 0,

    pub fn present(ref: Ref) bool {
        return ref.arena != 0;
    }
    pub fn f32s(ref: Ref) [*]f32 {
        return @ptrFromInt(ref.at);
    }
    pub fn i8s(ref: Ref) [*]i8 {
        return @ptrFromInt(ref.at);
    }
    pub fn bf16s(ref: Ref) [*]u16 {
        return @ptrFromInt(ref.at);
    }
    pub fn i32s(ref: Ref) [*]i32 {
        return @ptrFromInt(ref.at);
    }
};

/// How an instruction is shared out. Tiles of phase 0 run in any order on any worker, then all of phase 1, then of phase 2.
/// Tiles depend on shapes (and the tier's lanes) only, never on the number of threads; each output element belongs to one
/// tile; sums over tiles go through the workspace in fixed order.
pub const Plan = struct {
    /// Tiles of each phase; phases without tiles are skipped.
    tiles: [3]u32 = .{ 1, 0, 0 },
    /// Bytes that all workers of the instruction share, 64-byte aligned; not cleared.
    workspace: usize = 0,
    /// Bytes of each worker, 64-byte aligned; not cleared, nor kept between tiles.
    scratch: usize = 0,
    /// Rough work: multiply-adds or elements moved. Small instructions run on one thread.
    work: u64 = 0,
    /// What a kernel's fault means, such as "id out of range in row"; the number follows.
    fault: []const u8 = "",
};

/// Kernels return 0, or 1 + the index of the first element that is at fault; then no later phase runs.
pub const Run = *const fn (args: *const anyopaque, phase: u32, tile: u32, workspace: [*]align(64) u8, scratch: [*]align(64) u8) callconv(.c) u32;

/// Given to plans: looks up operands, and keeps the words of what was wrong.
pub const Link = struct {
    /// Lanes of the tier's f32 vectors: 1 (scalar), 4, 8 or 16.
    lanes: u32,
    context: *anyopaque,
    /// Base address and bytes of an arena.
    find: *const fn (context: *anyopaque, handle: u32) Error![]align(64) u8,
    message: [384]u8 = undefined,
    message_length: usize = 0,

    /// Checks that `bytes` from the reference on lie in its arena and turns it into an address. Sizes come from `extent`.
    pub fn operand(link: *Link, ref: *Ref, bytes: u64, alignment: u64, name: []const u8) Error!void {
        if (!ref.present()) return link.fail(error.BadArgument, "{s} is missing", .{name});
        if (ref.linked != 0) return link.fail(error.BadArgument, "{s} is linked twice", .{name});
        const memory = link.find(link.context, ref.arena) catch |err| return link.fail(err, "{s}: arena {d} is not in use", .{ name, ref.arena });
        if (ref.at > memory.len or bytes > memory.len - ref.at) {
            return link.fail(error.BadShape, "{s}: {d} bytes at {d} reach past the arena's {d}", .{ name, bytes, ref.at, memory.len });
        }
        ref.at += @intFromPtr(memory.ptr);
        ref.linked = 1;
        if (ref.at % alignment != 0) return link.fail(error.BadArgument, "{s}: not aligned to {d} bytes", .{ name, alignment });
    }

    /// A dense operand of `sizes`, in elements of `dtype`.
    pub fn dense(link: *Link, ref: *Ref, sizes: []const u32, dtype: Dtype, name: []const u8) Error!void {
        var count: u64 = dtype.bytes();
        for (sizes) |size| count = std.math.mul(u64, count, size) catch return link.fail(error.BadShape, "{s}: too large", .{name});
        return link.operand(ref, count, dtype.bytes(), name);
    }

    /// As `dense`, or nothing where the reference is absent.
    pub fn optional(link: *Link, ref: *Ref, sizes: []const u32, dtype: Dtype, name: []const u8) Error!void {
        if (ref.present()) return link.dense(ref, sizes, dtype, name);
    }

    /// An operand by sizes and strides: its extent is 1 + sum (size - 1) * stride elements, or 0 where a size is 0.
    pub fn strided(link: *Link, ref: *Ref, sizes: []const u32, strides: []const u32, dtype: Dtype, name: []const u8) Error!void {
        var last: u64 = 0;
        var empty = false;
        for (sizes, strides) |size, stride| {
            if (size == 0) {
                empty = true;
                continue;
            }
            last = std.math.add(u64, last, @as(u64, size - 1) * stride) catch return link.fail(error.BadShape, "{s}: too large", .{name});
        }
        const count = if (empty) 0 else std.math.add(u64, last, 1) catch return link.fail(error.BadShape, "{s}: too large", .{name});
        const bytes = std.math.mul(u64, count, dtype.bytes()) catch return link.fail(error.BadShape, "{s}: too large", .{name});
        return link.operand(ref, bytes, dtype.bytes(), name);
    }

    /// The value of an enum field, or a flag's (`bool`).
    pub fn choice(link: *Link, comptime T: type, value: u32, name: []const u8) Error!T {
        if (T == bool) {
            if (value <= 1) return value == 1;
        } else if (std.enums.fromInt(T, value)) |found| return found;
        return link.fail(error.BadArgument, "{s}: {d} is unknown", .{ name, value });
    }

    /// Remembers what was wrong; the executor puts the operation's name before it.
    pub fn fail(link: *Link, err: Error, comptime format: []const u8, arguments: anytype) Error {
        const text: []const u8 = std.fmt.bufPrint(&link.message, format, arguments) catch &link.message;
        link.message_length = text.len;
        return err;
    }
};
