// The float exports: arenas, programs of instructions over them, and the plain levels of the ladder. Checks, then one call, as in egg.zig; its rules hold here.
// Not the running itself (run.zig) and not the operations (ops.zig). Read next: src/native/float.ts.
const std = @import("std");
const abi = @import("../abi.zig");
const ladder = @import("ladder.zig");
const objects = @import("../objects.zig");
const ops = @import("ops.zig");
const os = @import("../os.zig");
const Program = @import("run.zig").Program;

const gpa = std.heap.page_allocator;
const Context = objects.Context;
const OwnedArena = objects.OwnedArena;
const OwnedProgram = objects.OwnedProgram;
const fail = objects.fail;
const finish = objects.finish;
const object = objects.object;

/// The most that an arena may hold; far beyond any machine, and no sum of two sizes below it overflows.
const arena_max = 1 << 46;

/// Makes an arena of `bytes` zeros, 64-byte aligned.
pub export fn egg_float_arena_create(bytes: f64, out: *align(1) u32) i32 {
    return finish(createArena(bytes, out));
}

fn createArena(bytes: f64, out: *align(1) u32) abi.Error!void {
    const size = try whole("bytes", bytes);
    if (size < 1 or size > arena_max) return fail(error.BadArgument, "an arena of {d} bytes, allowed 1 to {d}", .{ size, arena_max });
    const owned = gpa.create(OwnedArena) catch return objects.outOfMemory("an arena", @sizeOf(OwnedArena));
    errdefer gpa.destroy(owned);
    owned.* = .{ .memory = os.allocateLarge(u8, size) catch return objects.outOfMemory("an arena", size) };
    errdefer os.free(owned.memory);
    out.* = try objects.objects.add(.{ .arena = owned });
}

/// A number of bytes that came as a double.
fn whole(name: []const u8, value: f64) abi.Error!usize {
    if (!(value >= 0 and value <= 1 << 53) or @floor(value) != value) return fail(error.BadArgument, "{s}: {d} is not a size", .{ name, value });
    return @intFromFloat(value);
}

/// Copies a buffer into an arena. While a job runs, only memory that its program does not touch may be written.
pub export fn egg_float_arena_write(arena: u32, offset: f64, buffer: [*]const u8, bytes: u32) i32 {
    const memory = part(arena, offset, bytes) catch |err| return finish(err);
    @memcpy(memory, buffer[0..bytes]);
    return finish({});
}

/// Copies a part of an arena into a buffer.
pub export fn egg_float_arena_read(arena: u32, offset: f64, buffer: [*]u8, bytes: u32) i32 {
    const memory = part(arena, offset, bytes) catch |err| return finish(err);
    @memcpy(buffer[0..bytes], memory);
    return finish({});
}

fn part(handle: u32, offset: f64, bytes: u32) abi.Error![]u8 {
    const memory = (try object(handle, .arena)).memory;
    const at = try whole("offset", offset);
    if (at > memory.len or bytes > memory.len - at) return fail(error.BadShape, "{d} bytes at {d} reach past the arena's {d}", .{ bytes, at, memory.len });
    return memory[at..][0..bytes];
}

/// Links instructions, runs them, and forgets them. Waits for the end.
pub export fn egg_float_run(context: u32, buffer: [*]const u8, bytes: u32, out: *align(1) abi.RunResult) i32 {
    return finish(runOnce(context, buffer[0..bytes], out));
}

fn runOnce(handle: u32, buffer: []const u8, out: *align(1) abi.RunResult) abi.Error!void {
    const context = try object(handle, .context);
    try objects.idle(context);
    out.* = std.mem.zeroes(abi.RunResult);
    try link(context, &context.once, buffer, out);
    context.once.runNow(&context.executor, false);
    return conclude(context, &context.once, out);
}

/// Links instructions into a program that can be run many times. It holds its arenas: they cannot be released before it.
pub export fn egg_float_program_create(context: u32, buffer: [*]const u8, bytes: u32, result: *align(1) abi.RunResult, out: *align(1) u32) i32 {
    return finish(createProgram(context, buffer[0..bytes], result, out));
}

fn createProgram(handle: u32, buffer: []const u8, result: *align(1) abi.RunResult, out: *align(1) u32) abi.Error!void {
    const context = try object(handle, .context);
    try objects.idle(context);
    const owned = gpa.create(OwnedProgram) catch return objects.outOfMemory("a program", @sizeOf(OwnedProgram));
    errdefer gpa.destroy(owned);
    owned.* = .{ .program = .{}, .context = context, .arenas = &.{} };
    errdefer owned.program.deinit();
    result.* = std.mem.zeroes(abi.RunResult);
    try link(context, &owned.program, buffer, result);
    owned.program.keep(std.mem.bytesAsSlice(ops.Instruction, buffer)) catch return objects.outOfMemory("a program", buffer.len);
    owned.arenas = try arenasOf(buffer);
    errdefer gpa.free(owned.arenas);
    out.* = try objects.objects.add(.{ .program = owned });
    for (owned.arenas) |arena| arena.users += 1;
}

/// Every arena that linked instructions refer to, each once.
fn arenasOf(buffer: []const u8) abi.Error![]*OwnedArena {
    var found: std.ArrayList(*OwnedArena) = .empty;
    errdefer found.deinit(gpa);
    const source: []align(1) const ops.Instruction = std.mem.bytesAsSlice(ops.Instruction, buffer);
    for (source) |*instruction| {
        switch (@as(ops.Op, @enumFromInt(instruction.op))) {
            inline else => |op| {
                const args: *align(1) const ops.ArgsOf(op) = @ptrCast(&instruction.args);
                inline for (@typeInfo(ops.ArgsOf(op)).@"struct".fields) |field| {
                    if (field.type != ops.Ref) continue;
                    const ref = @field(args, field.name);
                    if (ref.present()) {
                        const arena = try object(ref.arena, .arena);
                        if (std.mem.indexOfScalar(*OwnedArena, found.items, arena) == null) {
                            found.append(gpa, arena) catch return objects.outOfMemory("a program", 8 * source.len);
                        }
                    }
                }
            },
        }
    }
    return found.toOwnedSlice(gpa) catch objects.outOfMemory("a program", 8 * source.len);
}

/// Links `buffer` into `program` and makes room for it.
fn link(context: *Context, program: *Program, buffer: []const u8, out: *align(1) abi.RunResult) abi.Error!void {
    if (buffer.len % @sizeOf(ops.Instruction) != 0) return fail(error.BadShape, "instructions: {d} bytes are not a multiple of {d}", .{ buffer.len, @sizeOf(ops.Instruction) });
    const source: []align(1) const ops.Instruction = std.mem.bytesAsSlice(ops.Instruction, buffer);
    var linker: ops.Link = .{ .lanes = context.floats.lanes, .context = context, .find = findArena };
    var failed: u32 = 0;
    program.init(source, context.floats, &linker, &failed) catch |err| {
        const name = if (failed < source.len) if (std.enums.fromInt(ops.Op, source[failed].op)) |op| @tagName(op) else "instruction" else "program";
        out.instruction = failed + 1;
        out.tag = if (failed < source.len) source[failed].tag else 0;
        return fail(err, "{s}: {s}", .{ name, linker.message[0..linker.message_length] });
    };
    context.executor.reserve(program) catch return objects.outOfMemory("the workspace", program.workspace + program.scratch * context.pool.workers.len);
}

/// Changes one number among an instruction's arguments before the next run: `field` is its byte in them (ops.zig), `value` the
/// number; of a reference, its offset in its arena. Checked as when the program was made; on an error nothing changes.
pub export fn egg_float_program_patch(program: u32, instruction: u32, field: u32, value: f64) i32 {
    return finish(patchProgram(program, instruction, field, value));
}

fn patchProgram(handle: u32, instruction: u32, field: u32, value: f64) abi.Error!void {
    const owned = try object(handle, .program);
    const context = owned.context;
    try objects.idle(context);
    if (instruction >= owned.program.source.len) return fail(error.BadArgument, "instruction {d} of {d}", .{ instruction, owned.program.source.len });
    var linker: ops.Link = .{ .lanes = context.floats.lanes, .context = context, .find = findArena };
    owned.program.patch(instruction, field, value, context.floats, &linker) catch |err| {
        return fail(err, "{t}: {s}", .{ owned.program.instructions[instruction].op, linker.message[0..linker.message_length] });
    };
}

fn findArena(_: *anyopaque, handle: u32) ops.Error![]align(64) u8 {
    const found = objects.objects.get(handle) catch return error.StaleHandle;
    return if (found.* == .arena) found.arena.memory else error.StaleHandle;
}

/// Starts a program as the context's job: egg_wait, egg_cancel (heeded between instructions, until the first optimizer step),
/// then egg_float_program_finish. timed = 1 keeps the time of each instruction.
pub export fn egg_float_program_start(program: u32, timed: u32) i32 {
    const owned = object(program, .program) catch |err| return finish(err);
    ready(owned) catch |err| return finish(err);
    owned.context.job = .{ .program = &owned.program };
    owned.program.start(&owned.context.executor, timed != 0);
    return finish({});
}

/// Runs a program and waits for its end.
pub export fn egg_float_program_run(program: u32, timed: u32, out: *align(1) abi.RunResult) i32 {
    const owned = object(program, .program) catch |err| return finish(err);
    ready(owned) catch |err| return finish(err);
    out.* = std.mem.zeroes(abi.RunResult);
    owned.program.runNow(&owned.context.executor, timed != 0);
    return finish(conclude(owned.context, &owned.program, out));
}

fn ready(owned: *OwnedProgram) abi.Error!void {
    try objects.idle(owned.context);
    owned.context.executor.reserve(&owned.program) catch return objects.outOfMemory("the workspace", owned.program.workspace);
}

/// Ends a job: `cancelled` where it was, `fault` where an id or a target was out of range.
pub export fn egg_float_program_finish(program: u32, out: *align(1) abi.RunResult) i32 {
    return finish(finishProgram(program, out));
}

fn finishProgram(handle: u32, out: *align(1) abi.RunResult) abi.Error!void {
    const owned = try object(handle, .program);
    const context = owned.context;
    if (context.job != .program or context.job.program != &owned.program) return fail(error.BadArgument, "the program was not started", .{});
    if (!context.pool.wait(0)) return fail(error.Busy, "the program is still running", .{});
    context.job = .none;
    out.* = std.mem.zeroes(abi.RunResult);
    return conclude(context, &owned.program, out);
}

fn conclude(context: *const Context, program: *const Program, out: *align(1) abi.RunResult) abi.Error!void {
    out.ran = context.floats.lanes | program.threads() << 16;
    switch (program.outcome()) {
        .done => {
            var ns: u64 = 0;
            if (program.timed) for (program.instructions) |instruction| {
                ns += instruction.ns;
            };
            out.seconds = @as(f64, @floatFromInt(ns)) / std.time.ns_per_s;
        },
        .cancelled => return fail(error.Cancelled, "the program was cancelled", .{}),
        .fault => |fault| {
            const instruction = &program.instructions[fault.instruction];
            out.instruction = fault.instruction + 1;
            out.element = fault.element - 1;
            out.tag = instruction.tag;
            return fail(error.Fault, "{t}: {s} {d}", .{ instruction.op, instruction.plan.fault, fault.element - 1 });
        },
    }
}

/// Nanoseconds of each instruction in the last timed run, f64 [instructions].
pub export fn egg_float_program_times(program: u32, buffer: [*]u8, bytes: u32) i32 {
    const owned = object(program, .program) catch |err| return finish(err);
    objects.idle(owned.context) catch |err| return finish(err);
    objects.expectBytes("times", 8 * owned.program.instructions.len, bytes) catch |err| return finish(err);
    for (owned.program.instructions, 0..) |instruction, i| {
        const ns: f64 = @floatFromInt(instruction.ns);
        @memcpy(buffer[8 * i ..][0..8], std.mem.asBytes(&ns));
    }
    return finish({});
}

/// Bytes that the context keeps for the workers of its programs.
pub export fn egg_float_workspace_bytes(context: u32, out: *align(1) f64) i32 {
    const found = object(context, .context) catch |err| return finish(err);
    out.* = @floatFromInt(found.executor.workspace.len + found.executor.scratch.len);
    return finish({});
}

/// Runs one of the plain levels (ladder.zig) on the calling thread. `data`: the operands of f32, one after the other: a, b, c of a
/// product; q, k, v, o of attention. What it needs besides is allocated here, outside the time.
pub export fn egg_ladder_run(shape: *align(1) const abi.LadderShape, data: [*]u8, bytes: u32, out: *align(1) abi.LadderResult) i32 {
    return finish(runLevel(shape.*, data[0..bytes], out));
}

fn runLevel(shape: abi.LadderShape, data: []u8, out: *align(1) abi.LadderResult) abi.Error!void {
    const level = std.enums.fromInt(ladder.Level, shape.level) orelse return fail(error.BadArgument, "level {d} is unknown", .{shape.level});
    const most = 1 << 13;
    if (shape.m < 1 or shape.m > most or shape.n > most or shape.k < 1 or shape.k > most) {
        return fail(error.BadShape, "found {d}, {d}, {d}, allowed 1 to {d}", .{ shape.m, shape.n, shape.k, most });
    }
    if (shape.repeats < 1 or shape.repeats > 1 << 24) return fail(error.BadArgument, "repeats: found {d}, allowed 1 to 16777216", .{shape.repeats});
    const m: usize = shape.m;
    const n: usize = shape.n;
    const k: usize = shape.k;
    const attention = level == .scores or level == .online;
    try objects.expectBytes("data", 4 * (if (attention) 4 * m * k else m * k + k * n + m * n), data.len);
    if (@intFromPtr(data.ptr) % 4 != 0) return fail(error.BadArgument, "data: not aligned to 4 bytes", .{});
    const room_floats = switch (level) {
        .blocked => ladder.blockedRoom(n),
        .scores => m * m,
        else => 1,
    };
    const room = os.allocate(f32, room_floats) catch return objects.outOfMemory("the level", 4 * room_floats);
    defer os.free(room);
    const a: [*]f32 = @ptrCast(@alignCast(data.ptr));
    const b = a + m * k;
    const c = b + k * (if (attention) m else n);
    const o = c + m * k;
    var ran: ladder.Ran = undefined;
    const begin = os.now();
    for (0..shape.repeats) |_| {
        ran = switch (level) {
            .naive => ladder.naive(c, a, b, m, n, k),
            .reordered => ladder.reordered(c, a, b, m, n, k),
            .blocked => ladder.blocked(c, a, b, m, n, k, room.ptr),
            .scores => ladder.scores(o, a, b, c, m, k, room.ptr),
            .online => ladder.online(o, a, b, c, m, k),
        };
    }
    const seconds = @as(f64, @floatFromInt(os.now() - begin)) / std.time.ns_per_s;
    out.* = .{ .level = @intFromEnum(ran.level), .reserved = 0, .inner = @floatFromInt(ran.inner), .seconds = seconds };
}

/// The softmax of the plain levels alone, between two products of another library: scores (time, time), causal, in place.
pub export fn egg_ladder_softmax(data: [*]u8, bytes: u32, time: u32) i32 {
    objects.expectBytes("scores", @as(usize, 4) * time * time, bytes) catch |err| return finish(err);
    if (time > 0) ladder.softmaxRows(@ptrCast(@alignCast(data)), time);
    return finish({});
}

/// For egg_release.
pub fn releaseArena(owned: *OwnedArena) abi.Error!void {
    if (owned.users != 0) return fail(error.Busy, "{d} programs still use the arena", .{owned.users});
    os.free(owned.memory);
    gpa.destroy(owned);
}

/// For egg_release.
pub fn releaseProgram(owned: *OwnedProgram) abi.Error!void {
    try objects.idle(owned.context);
    for (owned.arenas) |arena| arena.users -= 1;
    if (owned.arenas.len != 0) gpa.free(owned.arenas);
    owned.program.deinit();
    gpa.destroy(owned);
}
