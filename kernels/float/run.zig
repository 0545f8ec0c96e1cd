// Programs of float instructions: linked against arenas once, then run on a pool as often as asked, tile by tile. Results do
// not depend on the number of threads. Not the kernels (ops.zig, list.zig) and not the handles (exports.zig).
const std = @import("std");
const list = @import("list.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const Pool = @import("../pool.zig").Pool;

/// An instruction of at most this much work is run by one thread: sharing it out would cost more than it saves.
const serial_work = 1 << 15;

/// An instruction with its addresses, tiles and kernel.
pub const Linked = struct {
    args: [ops.args_bytes]u8 align(8),
    op: ops.Op,
    tag: u32,
    run: ops.Run,
    plan: ops.Plan,
    serial: bool,
    /// Spent in the last timed run, from the first tile to the last, in nanoseconds.
    ns: u64,
};

/// A kernel's complaint: which instruction, and 1 + which element.
pub const Fault = struct { instruction: u32, element: u32 };
pub const Outcome = union(enum) { done, cancelled, fault: Fault };

/// Instructions one after the other, and where they stand. Addresses stay good while the arenas live.
pub const Program = struct {
    instructions: []Linked = &.{},
    capacity: []Linked = &.{},
    /// The arguments as they came, for `patch`; only of programs that are kept.
    source: []ops.Instruction = &.{},
    workspace: usize = 0,
    scratch: usize = 0,
    /// From here on a program is not cancelled: the first optimizer step, or the end. Weights are never updated by halves.
    commit: u32 = 0,
    all_serial: bool = true,
    timed: bool = false,
    executor: *Executor = undefined,
    /// Instructions done, for progress.
    done: std.atomic.Value(u32) = .init(0),
    next_tile: std.atomic.Value(u32) = .init(0),
    fault: std.atomic.Value(u32) = .init(none),
    fault_at: u32 = 0,
    stopped: bool = false,
    /// Workers that ran something in the last run, one bit each (the last bit for all from 63 on).
    busy: std.atomic.Value(u64) = .init(0),

    const none = std.math.maxInt(u32);

    /// Links `source`; may be called again with other instructions. On an error `link.message` tells what was wrong and
    /// `failed` which instruction.
    pub fn init(program: *Program, source: []align(1) const ops.Instruction, table: *const ops.Table, link: *ops.Link, failed: *u32) ops.Error!void {
        if (program.capacity.len < source.len) {
            const more = std.heap.page_allocator.alloc(Linked, @max(64, 2 * source.len)) catch {
                return link.fail(error.OutOfMemory, "{d} instructions", .{source.len});
            };
            program.deinit();
            program.capacity = more;
        }
        program.instructions = program.capacity[0..source.len];
        program.workspace = 0;
        program.scratch = 0;
        program.all_serial = true;
        program.commit = @intCast(source.len);
        for (source, program.instructions, 0..) |*from, *to, i| {
            failed.* = @intCast(i);
            to.* = try linked(from, table, link);
            program.makeRoom(to);
            if (to.op == .optimize) program.commit = @min(program.commit, failed.*);
        }
    }

    fn linked(from: *align(1) const ops.Instruction, table: *const ops.Table, link: *ops.Link) ops.Error!Linked {
        const op = std.enums.fromInt(ops.Op, from.op) orelse return link.fail(error.BadArgument, "operation {d} is unknown", .{from.op});
        const plan = list.planners[from.op] orelse return link.fail(error.Unsupported, "not in this build", .{});
        const kernel = table.run[from.op] orelse return link.fail(error.Unsupported, "not in this tier", .{});
        var to: Linked = .{ .args = from.args, .op = op, .tag = from.tag, .run = kernel, .plan = undefined, .serial = undefined, .ns = 0 };
        to.plan = try plan(&to.args, link);
        to.serial = to.plan.work <= serial_work;
        return to;
    }

    fn makeRoom(program: *Program, instruction: *const Linked) void {
        if (!instruction.serial) program.all_serial = false;
        program.workspace = @max(program.workspace, instruction.plan.workspace);
        program.scratch = @max(program.scratch, instruction.plan.scratch);
    }

    /// Keeps the arguments, so that they can be patched.
    pub fn keep(program: *Program, source: []align(1) const ops.Instruction) error{OutOfMemory}!void {
        program.source = try std.heap.page_allocator.alloc(ops.Instruction, source.len);
        @memcpy(program.source, source);
    }

    /// Changes one number among the arguments of an instruction: the field at byte `offset` of them; of a reference, its place in
    /// its arena. All is checked and planned again; on an error nothing changes.
    pub fn patch(program: *Program, index: usize, offset: u32, value: f64, table: *const ops.Table, link: *ops.Link) ops.Error!void {
        var from = program.source[index];
        var found = false;
        switch (@as(ops.Op, @enumFromInt(from.op))) {
            inline else => |op| {
                const args: *ops.ArgsOf(op) = @ptrCast(&from.args);
                inline for (@typeInfo(ops.ArgsOf(op)).@"struct".fields) |field| {
                    if (offset == @offsetOf(ops.ArgsOf(op), field.name)) {
                        found = true;
                        try set(&@field(args, field.name), value, field.name, link);
                    }
                }
            },
        }
        if (!found) return link.fail(error.BadArgument, "no argument at byte {d}", .{offset});
        const to = try linked(&from, table, link);
        program.source[index] = from;
        program.instructions[index] = to;
        program.makeRoom(&to);
    }

    fn set(field: anytype, value: f64, name: []const u8, link: *ops.Link) ops.Error!void {
        const T = @typeInfo(@TypeOf(field)).pointer.child;
        switch (T) {
            f32, f64 => field.* = @floatCast(value),
            u32, i32, u64 => {
                const most: f64 = @floatFromInt(@min(std.math.maxInt(T), 1 << 53));
                if (@floor(value) != value or value < std.math.minInt(T) or value > most) return link.fail(error.BadArgument, "{s}: {d} is not a {s}", .{ name, value, @typeName(T) });
                field.* = @intFromFloat(value);
            },
            ops.Ref => try set(&field.at, value, name, link),
            else => return link.fail(error.BadArgument, "{s} cannot be changed", .{name}),
        }
    }

    pub fn deinit(program: *Program) void {
        if (program.source.len != 0) std.heap.page_allocator.free(program.source);
        program.source = &.{};
        if (program.capacity.len != 0) std.heap.page_allocator.free(program.capacity);
        program.capacity = &.{};
        program.instructions = &.{};
    }

    pub fn work(program: *const Program) u32 {
        return @intCast(program.instructions.len);
    }

    /// Hands the program to the pool; wait, then `outcome`. The executor must have room (`Executor.reserve`).
    pub fn start(program: *Program, executor: *Executor, timed: bool) void {
        program.prepare(executor, timed);
        executor.pool.start(.{ .context = program, .run = work_share });
    }

    /// Runs the program before it returns: on the calling thread where there is nothing to share out.
    pub fn runNow(program: *Program, executor: *Executor, timed: bool) void {
        if (program.all_serial or executor.pool.workers.len == 1) {
            program.prepare(executor, timed);
            executor.pool.cancelled.store(false, .monotonic);
            _ = program.serialRun(0, program.instructions.len, 0);
        } else {
            program.start(executor, timed);
            while (!executor.pool.wait(1000)) {}
        }
    }

    pub fn outcome(program: *const Program) Outcome {
        const fault = program.fault.load(.acquire);
        if (fault != none) return .{ .fault = .{ .instruction = program.fault_at, .element = fault } };
        return if (program.done.load(.acquire) == program.instructions.len) .done else .cancelled;
    }

    fn prepare(program: *Program, executor: *Executor, timed: bool) void {
        program.executor = executor;
        program.timed = timed;
        program.done.store(0, .monotonic);
        program.next_tile.store(0, .monotonic);
        program.fault.store(none, .monotonic);
        program.stopped = false;
        program.busy.store(0, .monotonic);
    }

    /// Threads that had something to do in the last run, counted up to 64.
    pub fn threads(program: *const Program) u32 {
        return @popCount(program.busy.load(.acquire));
    }

    fn atWork(program: *Program, worker: u32) void {
        const bit = @as(u64, 1) << @intCast(@min(worker, 63));
        if (program.busy.load(.monotonic) & bit == 0) _ = program.busy.fetchOr(bit, .acq_rel);
    }

    /// What each worker does. All walk the instructions in step: one phase, one barrier. Runs of small instructions are the
    /// first worker's; the others wait at the barrier behind them.
    fn work_share(context: *anyopaque, worker: u32) void {
        const program: *Program = @ptrCast(@alignCast(context));
        const pool = program.executor.pool;
        const instructions = program.instructions;
        var i: usize = 0;
        while (i < instructions.len) {
            if (instructions[i].serial) {
                const first = i;
                while (i < instructions.len and instructions[i].serial) i += 1;
                if (worker == 0) _ = program.serialRun(first, i, 0);
                if (i == instructions.len) return;
                pool.barrier(program, settle);
            } else {
                const begin = if (program.timed and worker == 0) os.now() else 0;
                for (instructions[i].plan.tiles, 0..) |tiles, phase| {
                    if (tiles == 0) continue;
                    program.takeTiles(i, @intCast(phase), tiles, worker);
                    pool.barrier(program, settle);
                    if (program.stopped) return;
                }
                if (worker == 0) {
                    if (program.timed) instructions[i].ns = os.now() - begin;
                    program.done.store(@intCast(i + 1), .release);
                }
                i += 1;
            }
            if (program.stopped) return;
        }
    }

    fn takeTiles(program: *Program, i: usize, phase: u32, tiles: u32, worker: u32) void {
        const instruction = &program.instructions[i];
        const executor = program.executor;
        while (true) {
            const tile = program.next_tile.fetchAdd(1, .monotonic);
            if (tile >= tiles) return;
            program.atWork(worker);
            const fault = instruction.run(&instruction.args, phase, tile, executor.workspace.ptr, executor.scratchOf(worker));
            if (fault != 0) program.complain(i, fault);
        }
    }

    /// The last worker at a barrier looks whether to go on.
    fn settle(program: *Program) void {
        program.next_tile.store(0, .monotonic);
        if (program.fault.load(.monotonic) != none or program.cancelledAt(program.done.load(.monotonic))) program.stopped = true;
    }

    fn cancelledAt(program: *const Program, i: usize) bool {
        return i < program.commit and program.executor.pool.cancelled.load(.acquire);
    }

    fn serialRun(program: *Program, first: usize, end: usize, worker: u32) bool {
        const executor = program.executor;
        program.atWork(worker);
        for (first..end) |i| {
            if (program.cancelledAt(i)) return false;
            const instruction = &program.instructions[i];
            const begin = if (program.timed) os.now() else 0;
            for (instruction.plan.tiles, 0..) |tiles, phase| {
                for (0..tiles) |tile| {
                    const fault = instruction.run(&instruction.args, @intCast(phase), @intCast(tile), executor.workspace.ptr, executor.scratchOf(worker));
                    if (fault != 0) program.complain(i, fault);
                }
                if (program.fault.load(.monotonic) != none) return false;
            }
            if (program.timed) instruction.ns = os.now() - begin;
            program.done.store(@intCast(i + 1), .release);
        }
        return true;
    }

    fn complain(program: *Program, i: usize, fault: u32) void {
        program.fault_at = @intCast(i); // the same from every worker: only one instruction runs at a time
        _ = program.fault.fetchMin(fault, .acq_rel);
    }
};

/// A pool with the buffers that instructions share or have for a worker; kept, and only ever made larger.
pub const Executor = struct {
    pool: *Pool,
    workspace: []align(64) u8 = &.{},
    scratch: []align(64) u8 = &.{},
    /// Bytes from one worker's scratch to the next.
    stride: usize = 0,

    pub fn reserve(executor: *Executor, program: *const Program) error{OutOfMemory}!void {
        if (executor.workspace.len < program.workspace or executor.workspace.len == 0) {
            const larger = try os.allocateLarge(u8, @max(program.workspace, 4096));
            if (executor.workspace.len != 0) os.free(executor.workspace);
            executor.workspace = larger;
        }
        if (executor.stride < program.scratch or executor.scratch.len == 0) {
            // An odd number of pages: the same place in two workers' buffers falls on different cache sets.
            const stride = std.mem.alignForward(usize, @max(program.scratch, 1), 4096) | 4096;
            const larger = try os.allocateLarge(u8, stride * executor.pool.workers.len);
            if (executor.scratch.len != 0) os.free(executor.scratch);
            executor.scratch = larger;
            executor.stride = stride;
        }
    }

    fn scratchOf(executor: *const Executor, worker: u32) [*]align(64) u8 {
        return @alignCast(executor.scratch.ptr + executor.stride * worker);
    }
};
