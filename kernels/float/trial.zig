// Runs one instruction alone, for tests: plan, then every tile of every phase on the calling thread, on any tier, in any order.
// Not the executor of programs: run.zig. Read next: ops.zig.
const std = @import("std");
const cpu = @import("../cpu.zig");
const list = @import("list.zig");
const ops = @import("ops.zig");

const gpa = std.testing.allocator;

/// Memory of one test: operands are allocated in it one after the other, 64-byte aligned, with NaN between and after them.
pub const Memory = struct {
    bytes: []align(64) u8,
    used: usize = 64,

    pub fn init(capacity: usize) !Memory {
        const memory: Memory = .{ .bytes = try gpa.alignedAlloc(u8, .@"64", capacity) };
        @memset(memory.bytes, 0xff);
        return memory;
    }
    pub fn deinit(memory: Memory) void {
        gpa.free(memory.bytes);
    }
    pub fn copy(memory: Memory) !Memory {
        const bytes = try gpa.alignedAlloc(u8, .@"64", memory.bytes.len);
        @memcpy(bytes, memory.bytes);
        return .{ .bytes = bytes, .used = memory.used };
    }

    /// Room for `count` elements of T; 64 bytes or more stay free after it.
    pub fn reserve(memory: *Memory, comptime T: type, count: usize) ops.Ref {
        const at = memory.used;
        memory.used = std.mem.alignForward(usize, at + count * @sizeOf(T) + 64, 64);
        std.debug.assert(memory.used <= memory.bytes.len);
        return .{ .arena = 1, .at = at };
    }
    pub fn put(memory: *Memory, comptime T: type, values: []const T) ops.Ref {
        const ref = memory.reserve(T, values.len);
        @memcpy(memory.slice(T, ref, values.len), values);
        return ref;
    }
    /// Normal values, N(0, 1).
    pub fn normal(memory: *Memory, random: std.Random, count: usize) ops.Ref {
        const ref = memory.reserve(f32, count);
        for (memory.slice(f32, ref, count)) |*value| value.* = random.floatNorm(f32);
        return ref;
    }
    pub fn slice(memory: Memory, comptime T: type, ref: ops.Ref, count: usize) []T {
        const start: [*]T = @ptrCast(@alignCast(memory.bytes.ptr + ref.at));
        return start[0..count];
    }
};

/// Tables of all tiers that this machine can run, the scalar one first, each float table once.
pub fn tables() []const *const ops.Table {
    const found = struct {
        var list: [8]*const ops.Table = undefined;
    };
    var count: usize = 0;
    for (std.enums.values(cpu.Tier)) |tier| {
        if (!cpu.available(tier)) continue;
        const table = tier.floats().?;
        if (std.mem.indexOfScalar(*const ops.Table, found.list[0..count], table) != null) continue;
        found.list[count] = table;
        count += 1;
    }
    return found.list[0..count];
}

/// Runs `args` (unlinked references into `memory`, arena 1) with one tier's kernels; `seed` shuffles the tiles of each phase.
/// Fails with the plan's error; error.Fault where a kernel returned one.
pub fn run(comptime op: ops.Op, args: ops.ArgsOf(op), memory: Memory, table: *const ops.Table, seed: u64) !void {
    var linked = args;
    var owned = memory;
    var link: ops.Link = .{ .lanes = table.lanes, .context = &owned, .find = find };
    const planner = list.planners[@intFromEnum(op)] orelse return error.Unsupported;
    const kernel = table.run[@intFromEnum(op)] orelse return error.Unsupported;
    const plan = try planner(&linked, &link);
    const workspace = try gpa.alignedAlloc(u8, .@"64", plan.workspace + 64);
    defer gpa.free(workspace);
    const scratch = try gpa.alignedAlloc(u8, .@"64", plan.scratch + 64);
    defer gpa.free(scratch);
    @memset(workspace, 0xff);
    @memset(scratch, 0xff);
    var random = std.Random.DefaultPrng.init(seed);
    for (plan.tiles, 0..) |tiles, phase| {
        const order = try gpa.alloc(u32, tiles);
        defer gpa.free(order);
        for (order, 0..) |*tile, i| tile.* = @intCast(i);
        random.random().shuffle(u32, order);
        for (order) |tile| {
            @memset(scratch[0..plan.scratch], 0xff); // a NaN for whoever reads what it has not written
            if (kernel(&linked, @intCast(phase), tile, workspace.ptr, scratch.ptr) != 0) return error.Fault;
        }
    }
    for ([_][]const u8{ workspace[plan.workspace..], scratch[plan.scratch..] }) |after| {
        for (after) |byte| try std.testing.expectEqual(0xff, byte);
    }
}

fn find(context: *anyopaque, handle: u32) ops.Error![]align(64) u8 {
    const memory: *Memory = @ptrCast(@alignCast(context));
    return if (handle == 1) memory.bytes else error.StaleHandle;
}

/// Largest |a - b| / largest |b|; infinite where one is NaN or infinite and the other is not the same.
pub fn distance(found: []const f32, expected: []const f32) f64 {
    var largest: f64 = 0;
    var worst: f64 = 0;
    for (found, expected) |a, b| {
        if (std.math.isNan(a) and std.math.isNan(b) or a == b) {
            if (std.math.isFinite(b)) largest = @max(largest, @abs(b));
            continue;
        }
        if (!std.math.isFinite(a) or !std.math.isFinite(b)) return std.math.inf(f64);
        largest = @max(largest, @abs(b));
        worst = @max(worst, @abs(@as(f64, a) - b));
    }
    return if (worst == 0) 0 else worst / largest;
}
