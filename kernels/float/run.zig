// Programs of float instructions: linked against arenas once, then run on a pool as often as asked, tile by tile. Results do
// not depend on the number of threads. Not the kernels (ops.zig, list.zig) and not the handles (exports.zig).
const std = @import("std");
const list = @import("list.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const pool = @import("../pool.zig");

/// An instruction of at most this much work is run by one thread: sharing it out would cost more than it saves.
const serial_work = 1 << 15;

/// About 20-50 microseconds before a worker without work sleeps, as in pool.zig.
const spins = 4000;

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

/// A phase of one instruction, or a run of small instructions that one worker takes as one tile.
const Stage = struct { first: u32, end: u32, phase: u32, tiles: u32 };

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
    /// What is shared out, in order: made anew for each run, room for three of each instruction.
    stages: []Stage = &.{},
    stage_count: u32 = 0,
    /// Instructions done, for progress.
    done: std.atomic.Value(u32) = .init(0),
    fault: std.atomic.Value(u32) = .init(none),
    fault_at: u32 = 0,
    /// The stage in the upper half, its next tile in the lower one.
    ticket: std.atomic.Value(u64) align(std.atomic.cache_line) = .init(0),
    /// The stage again, for those who sleep, and how many do.
    stage: std.atomic.Value(u32) = .init(0),
    sleepers: std.atomic.Value(u32) = .init(0),
    /// Tiles of the stage that are not done.
    left: std.atomic.Value(u32) align(std.atomic.cache_line) = .init(0),
    /// When the instruction began, where timed.
    begin: u64 = 0,
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
            program.stages = std.heap.page_allocator.alloc(Stage, 3 * more.len) catch return link.fail(error.OutOfMemory, "{d} instructions", .{source.len});
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
        if (program.stages.len != 0) std.heap.page_allocator.free(program.stages);
        program.stages = &.{};
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
        program.lineUp();
        executor.pool.start(program.task());
    }

    fn task(program: *Program) pool.Task {
        return .{ .context = program, .run = work_share };
    }

    /// Runs the program before it returns: on the calling thread alone where there is nothing to share out, else with its help.
    pub fn runNow(program: *Program, executor: *Executor, timed: bool) void {
        if (program.all_serial or executor.pool.workers.len == 1) {
            program.prepare(executor, timed);
            executor.pool.cancelled.store(false, .monotonic);
            _ = program.serialRun(0, program.instructions.len, 0);
        } else {
            program.prepare(executor, timed);
            program.lineUp();
            executor.pool.runNow(program.task());
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
        program.fault.store(none, .monotonic);
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

    /// Cuts the program into stages.
    fn lineUp(program: *Program) void {
        const instructions = program.instructions;
        var count: u32 = 0;
        var i: u32 = 0;
        while (i < instructions.len) {
            const first = i;
            if (instructions[i].serial) {
                while (i < instructions.len and instructions[i].serial) i += 1;
                program.stages[count] = .{ .first = first, .end = i, .phase = 0, .tiles = 1 };
                count += 1;
                continue;
            }
            for (instructions[i].plan.tiles, 0..) |tiles, phase| {
                if (tiles == 0) continue;
                program.stages[count] = .{ .first = i, .end = i + 1, .phase = @intCast(phase), .tiles = tiles };
                count += 1;
            }
            i += 1;
        }
        program.stage_count = count;
        if (count == 0) program.done.store(@intCast(instructions.len), .monotonic);
        program.sleepers.store(0, .monotonic);
        program.open(0);
    }

    /// What each worker does: takes tiles of the stage that is open until all have. Nobody waits for a worker that has none, as one
    /// that the system does not let run just now; who finishes the last tile opens the next stage.
    fn work_share(context: *anyopaque, worker: u32) void {
        const program: *Program = @ptrCast(@alignCast(context));
        while (true) {
            const ticket = program.ticket.fetchAdd(1, .acq_rel);
            const number: u32 = @intCast(ticket >> 32);
            const tile: u32 = @truncate(ticket);
            if (number == program.stage_count) return;
            const stage = program.stages[number];
            if (tile >= stage.tiles) {
                program.awaitStage(number);
                continue;
            }
            if (program.instructions[stage.first].serial) {
                if (!program.serialRun(stage.first, stage.end, worker)) return program.open(program.stage_count);
            } else program.runTile(stage, tile, worker);
            if (program.left.fetchSub(1, .acq_rel) == 1) program.finish(number);
        }
    }

    fn runTile(program: *Program, stage: Stage, tile: u32, worker: u32) void {
        const instruction = &program.instructions[stage.first];
        const executor = program.executor;
        program.atWork(worker);
        const fault = instruction.run(&instruction.args, stage.phase, tile, executor.workspace.ptr, executor.scratchOf(worker));
        if (fault != 0) program.complain(stage.first, fault);
    }

    /// After the last tile of a stage: the next one, or the end.
    fn finish(program: *Program, number: u32) void {
        const stage = program.stages[number];
        const next = number + 1;
        if (program.fault.load(.monotonic) != none) return program.open(program.stage_count);
        if (next == program.stage_count or program.stages[next].first != stage.first) {
            if (program.timed and !program.instructions[stage.first].serial) program.instructions[stage.first].ns = os.now() - program.begin;
            // Instructions of no elements have no stage.
            program.done.store(if (next == program.stage_count) @intCast(program.instructions.len) else stage.end, .release);
            if (next < program.stage_count and program.cancelledAt(stage.end)) return program.open(program.stage_count);
        }
        program.open(next);
    }

    fn open(program: *Program, number: u32) void {
        if (number < program.stage_count) {
            if (program.timed and (number == 0 or program.stages[number - 1].first != program.stages[number].first)) program.begin = os.now();
            program.left.store(program.stages[number].tiles, .monotonic);
        }
        program.ticket.store(@as(u64, number) << 32, .seq_cst);
        program.stage.store(number, .seq_cst);
        if (program.sleepers.load(.seq_cst) != 0) os.wakeAll(&program.stage);
    }

    fn awaitStage(program: *Program, number: u32) void {
        for (0..spins) |_| {
            if (program.ticket.load(.acquire) >> 32 != number) return;
            std.atomic.spinLoopHint();
        }
        _ = program.sleepers.fetchAdd(1, .seq_cst);
        while (program.stage.load(.seq_cst) == number) os.wait(&program.stage, number, 0);
        _ = program.sleepers.fetchSub(1, .seq_cst);
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
    pool: *pool.Pool,
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
